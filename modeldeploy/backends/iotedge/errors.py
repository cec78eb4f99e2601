"""One table: what IoT Hub says, by status and code, to an error of ours."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping

import attrs

from modeldeploy.errors import (
    AccessDeniedError,
    BackendError,
    ConflictError,
    CredentialsError,
    InvalidRequestError,
    ModelDeployError,
    NotFoundError,
    QuotaError,
    ThrottledError,
    UnavailableError,
)

Context = Mapping[str, str | float]


class AlreadyThereError(ConflictError):
    """There is something of this name; whether it is ours is to be looked at."""


class ChangedError(ConflictError):
    """Somebody changed it since it was read."""


@attrs.frozen
class Rule:
    """A line of the table."""

    cls: type[ModelDeployError]
    status: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    hint: str = ""


_LOGIN = "pass connection_string= of a policy with service connect and registry write, or credential= of azure-identity"
_ROLE = "the identity needs the role 'IoT Hub Data Contributor'; docs/backends/iotedge.md"
_FULL = "a hub takes 100 configurations; drop revisions that no device runs"

TABLE = (
    Rule(QuotaError, codes=("IotHubQuotaExceeded", "ConfigurationCountLimitExceeded"), hint=_FULL),
    Rule(AlreadyThereError, codes=("ConfigurationAlreadyExists",)),
    Rule(ChangedError, status=(412,), hint="observe it again and decide anew"),
    Rule(ThrottledError, status=(429,)),
    Rule(CredentialsError, status=(401,), hint=_LOGIN),
    Rule(AccessDeniedError, status=(403,), hint=_ROLE),
    Rule(NotFoundError, status=(404,)),
    Rule(AlreadyThereError, status=(409,)),
    Rule(InvalidRequestError, status=(400, 413)),
    Rule(UnavailableError, status=(408, 500, 502, 503, 504)),
)
_CODE = re.compile(r"ErrorCode:(?P<code>\w+);?\s*(?P<text>.*)", re.DOTALL)


def of_answer(status: int, headers: Mapping[str, str], body: bytes, context: Context) -> ModelDeployError:
    """Make our error of an answer that is no success."""
    code, text = _said(body)
    rule = next((each for each in TABLE if _fits(each, status, code)), Rule(BackendError))
    message = f"IoT Hub answered {status}: {text or 'no reason given'} ({code or status})"
    if issubclass(rule.cls, ThrottledError | UnavailableError):
        return rule.cls(message, retry_after=_retry_after(headers), hint=rule.hint or None, context=context)
    return rule.cls(message, hint=rule.hint or None, context=context)


def _fits(rule: Rule, status: int, code: str) -> bool:
    return code in rule.codes if rule.codes else status in rule.status


def _said(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
    except ValueError:
        return "", body.decode("utf-8", "replace")[:200]
    text = str(document.get("Message") or document.get("message") or "") if isinstance(document, dict) else ""
    found = _CODE.match(text)
    return (found["code"], found["text"]) if found else ("", text)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    with contextlib.suppress(KeyError, ValueError):
        return float(headers["retry-after"])
    return None
