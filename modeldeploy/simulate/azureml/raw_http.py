"""The modules that the public inference server puts before an entry script that wants the request as it came: ``azureml.contrib.services``.

Loaded by its path beside ``inference_server``, which has no package.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

RAW = "raw_http_api"


class AMLRequest:
    """The request as it came; the part of flask's that bodies and headers need."""

    def __init__(self, method: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.headers = headers
        self._body = body

    def get_data(self, cache: bool = True) -> bytes:  # noqa: ARG002, FBT001, FBT002 - flask's signature
        """Give the body."""
        return self._body


class AMLResponse:
    """An answer with a status and headers of its own."""

    def __init__(
        self,
        message: bytes | str | None,
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,  # noqa: ARG002, FBT001, FBT002 - the public server's signature
        run_function_failed: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> None:
        self.body = message.encode() if isinstance(message, str) else message or b"{}"
        self.status = status_code
        self.headers = dict(response_headers or {})
        self.failed = run_function_failed


def rawhttp(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``run`` that takes the request as it came."""
    setattr(function, RAW, True)
    return function


def install() -> None:
    """Let an entry script import them."""
    for name in ("azureml", "azureml.contrib", "azureml.contrib.services"):
        sys.modules.setdefault(name, types.ModuleType(name))
    request = types.ModuleType("azureml.contrib.services.aml_request")
    response = types.ModuleType("azureml.contrib.services.aml_response")
    vars(request).update(AMLRequest=AMLRequest, rawhttp=rawhttp)
    vars(response).update(AMLResponse=AMLResponse)
    sys.modules[request.__name__], sys.modules[response.__name__] = request, response
