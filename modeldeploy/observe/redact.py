"""Takes out of log fields what looks like a secret: by the name of the field, and by the shape of the text."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
_DEPTH = 8

_KEYS = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|authorization|cookie|signature|private_?key|api_?key|access_?key|account_?key"
    r"|session_?key|connection_?string|(^|_)(auth|pwd|sas|sig|jwt)($|_)"
)
# Each takes out its last group; what stands before it says what it was.
_VALUES = tuple(
    re.compile(pattern)
    for pattern in (
        r"()\b((?:AKIA|ASIA)[0-9A-Z]{16})\b",  # access key ids of AWS
        r"()\b(eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*)",  # JSON web tokens
        r"()\b(ya29\.[\w-]{10,})",  # access tokens of Google
        r"(\bmd_[0-9a-z]+_)([\w-]{16,})",  # API keys and tickets of our own model server; the id may be seen
        r"()\b((?:gh[pousr]|github_pat|hf|sk|xox[abp])[_-][A-Za-z0-9_-]{16,})",  # tokens with a telling prefix
        r"(?s)()(-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z))",
        r"(?i)(\b(?:bearer|basic)\s+)([\w.~+/=-]{8,})",
        r"(?i)([?&;](?:sig|signature|token|code|key|x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential))=)([^&\s'\"]+)",
        r"(?i)(\b(?:account_?key|shared_?access_?key|password|passwd|pwd|secret|api_?key|token)\s*[=:]\s*)([^\s;,&'\"]+)",
        r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)([^\s/@]+)(?=@)",  # the password in a URL
    )
)


def redacted(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the fields as plain JSON-like data without what looks like a secret.

    >>> redacted({"endpoint": "iris", "api_key": "abc", "url": "https://me:pw@host/x?sig=1234"})
    {'endpoint': 'iris', 'api_key': '[redacted]', 'url': 'https://me:[redacted]@host/x?sig=[redacted]'}
    """
    return {str(key): _field(str(key), value, _DEPTH) for key, value in fields.items()}


def _field(key: str, value: Any, depth: int) -> Any:
    if value is not None and not isinstance(value, bool) and _KEYS.search(_snake(key)):
        return REDACTED
    return _value(value, depth)


def _value(value: Any, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return _value(value.value, depth)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and depth:
        return {str(key): _field(str(key), each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_value(each, depth - 1) for each in value]
    return _text(value if isinstance(value, str) else str(value))


def _text(text: str) -> str:
    for pattern in _VALUES:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return text


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").replace(".", "_").lower()
