"""Points an unmodified azure-ai-ml at a simulator."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import attrs

from modeldeploy.simulate.azureml.tokens import AUDIENCE, Tokens

_HOUR = 3_600.0
_ACCOUNTS: dict[str, str] = {}
_CURRENT = "AZUREML_CURRENT_CLOUD"
_LOCK = threading.Lock()


class _BlobUrls(str):
    """The SDK's template of blob URLs: accounts of simulators lie on this machine, all others where they always did."""

    __slots__ = ()

    def format(self, *names: object, **more: object) -> str:
        """Name an account's URL."""
        here = _ACCOUNTS.get(str(names[0])) if names else None
        return here or super().format(*names, **more)


def install(account: str, url: str) -> None:
    """Let the SDK of this process find an account at its URL."""
    from azure.ai.ml.constants import _common

    with _LOCK:
        _ACCOUNTS[account] = url
        plain = _common.STORAGE_ACCOUNT_URLS["AzureBlob"]
        if not isinstance(plain, _BlobUrls):
            # The host is fixed in the SDK (azure-ai-ml 1.35.2), and its upload takes no transport of ours.
            _common.STORAGE_ACCOUNT_URLS["AzureBlob"] = _BlobUrls(plain)


def remove(account: str) -> None:
    """Forget an account; with the last one the SDK is as it was."""
    with _LOCK:
        if _ACCOUNTS.pop(account, None) is not None and not _ACCOUNTS:
            from azure.ai.ml.constants import _common

            _common.STORAGE_ACCOUNT_URLS["AzureBlob"] = str.__str__(_common.STORAGE_ACCOUNT_URLS["AzureBlob"])


def leave(cloud: str) -> None:
    """Let the SDK forget that a simulator is the current cloud: it keeps that in the environment, for children and later clients."""
    if os.environ.get(_CURRENT) == cloud:
        del os.environ[_CURRENT]


@attrs.define(eq=False)
class Credential:
    """What the SDK asks for tokens; they are good in this simulator and nowhere else."""

    tokens: Tokens
    url: str

    def get_token(self, *scopes: str, **_options: Any) -> Any:
        """Give a token for the audience that a scope names."""
        from azure.core.credentials import AccessToken

        # An hour of this machine: clients keep tokens by this machine's time.
        until = self.tokens.clock.now() + _HOUR
        token = self.tokens.issue(self._audience(scopes[0] if scopes else ""), until)
        return AccessToken(token.text, int(token.until))

    def _audience(self, scope: str) -> str:
        named = scope.removesuffix("/.default").rstrip("/")
        return AUDIENCE if named == AUDIENCE else self.url


def metadata(url: str) -> Mapping[str, str]:
    """Describe the simulated cloud in the SDK's words."""
    return {
        "azure_portal": url,
        "resource_manager": url,
        "active_directory": url,
        "aml_resource_id": AUDIENCE,
        "storage_endpoint": "core.windows.net",
        "registry_discovery_endpoint": url,
    }


def policy(credential: Credential) -> Any:
    """Make the pipeline policy that sends the credential's token over plain HTTP, which the SDK's own refuses to."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    class PlainAuth(SansIOHTTPPolicy[Any, Any]):
        """Sets the header, and takes the demand for TLS away."""

        def on_request(self, request: Any) -> None:
            request.context.options.pop("enforce_https", None)
            request.http_request.headers["Authorization"] = f"Bearer {credential.get_token().token}"

    return PlainAuth()
