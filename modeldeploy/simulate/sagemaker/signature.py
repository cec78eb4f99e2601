"""Verifies requests by signing them again: whoever has another secret is refused."""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING

import attrs

from modeldeploy.simulate.sagemaker.errors import ServiceError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

STORAGE = "s3"
_FORBIDDEN = 403
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]+)"
)


@attrs.frozen
class Credentials:
    """An access key and its secret."""

    access_key: str
    secret_key: str = attrs.field(repr=False)


@attrs.frozen
class Scope:
    """What a request says it was signed for, and with which key."""

    key: str
    region: str
    service: str
    headers: tuple[str, ...]
    signature: str

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> Scope | None:
        """Read it from the header; None when there is none, or one of another kind."""
        found = _AUTHORIZATION.match(environ.get("HTTP_AUTHORIZATION", ""))
        if found is None:
            return None
        headers = tuple(found["headers"].split(";"))
        return cls(found["key"], found["region"], found["service"], headers, found["signature"])


def verify(scope: Scope, environ: WSGIEnvironment, body: bytes, credentials: Credentials) -> None:
    """Raise what the service answers when the request was not signed with this key and its secret."""
    if scope.key != credentials.access_key:
        text = "The security token included in the request is invalid."
        raise ServiceError("UnrecognizedClientException", text, status=_FORBIDDEN)
    if not hmac.compare_digest(_sign(scope, environ, body, credentials), scope.signature):
        text = (
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and "
            "signing method. Consult the service documentation for details."
        )
        raise ServiceError("InvalidSignatureException", text, status=_FORBIDDEN)


def unsigned() -> ServiceError:
    """Make the error of a request without a signature."""
    return ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token", status=_FORBIDDEN)


def _sign(scope: Scope, environ: WSGIEnvironment, body: bytes, credentials: Credentials) -> str:
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Botocores

    url = f"http://{environ.get('HTTP_HOST', '')}{environ['RAW_URI']}"
    headers = {name: _header(environ, name) for name in scope.headers}
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, data=body, headers=headers)
    request.context["timestamp"] = _header(environ, "x-amz-date")
    # Storage signs paths as they are, and the digest of a body instead of the body.
    kind = S3SigV4Auth if scope.service == STORAGE else SigV4Auth
    signer = kind(Botocores(credentials.access_key, credentials.secret_key), scope.service, scope.region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _header(environ: WSGIEnvironment, name: str) -> str:
    key = name.upper().replace("-", "_")
    return str(environ.get(key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}", ""))
