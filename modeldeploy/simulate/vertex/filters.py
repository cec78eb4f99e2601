"""The filters of Cloud Logging and Cloud Monitoring: comparisons of fields, with AND between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from modeldeploy.simulate.vertex.exchange import Refusal

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<and>AND\b)
      | (?P<field>[A-Za-z_][\w.]*|"[^"]+"(?=\s*[=!:<>]))\s*(?P<sign>!=|>=|<=|=|>|<|:)\s*
        (?:(?P<call>starts_with|one_of)\(\s*(?P<arguments>[^)]*)\)|(?P<value>"(?:[^"\\]|\\.)*"|[^\s()]+))
      | (?P<text>"(?:[^"\\]|\\.)*")
    )""",
    re.VERBOSE,
)
_SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")
_PLURAL = {"label": "labels"}
Test = Callable[[Mapping[str, Any]], bool]


def compiled(asked: str) -> Test:
    """Make what says whether a filter lets something through; an error when it is not of the part that is simulated.

    >>> compiled('resource.labels.endpoint_id = "7"')({"resource": {"labels": {"endpoint_id": "7"}}})
    True
    """
    tests, at, text = [], 0, asked.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise Refusal(400, "badRequest", f"Invalid filter, or one that is not simulated, at: {text[at:]!r}")
        at = found.end()
        if found["text"]:
            tests.append(_containing(_unquoted(found["text"])))
        elif found["field"]:
            tests.append(_comparison(found))
    return lambda each: all(test(each) for test in tests)


def _comparison(found: re.Match[str]) -> Test:
    path = [_PLURAL.get(part, part) for part in found["field"].strip('"').split(".")]
    sign = found["sign"]
    if found["call"]:
        wanted = tuple(re.findall(r'"([^"]*)"', found["arguments"]))
        return _called(path, found["call"], wanted, negated=sign == "!=")
    value = _unquoted(found["value"])
    return lambda each: _compare(_at(each, path), sign, value)


def _called(path: list[str], name: str, wanted: tuple[str, ...], *, negated: bool) -> Test:
    def test(each: Mapping[str, Any]) -> bool:
        there = str(_at(each, path))
        holds = there.startswith(wanted) if name == "starts_with" else there in wanted
        return holds is not negated

    return test


def _compare(there: object, sign: str, value: str) -> bool:
    """Compare what is there; what is not there is unlike everything."""
    if sign == ":":
        return there is not None and (value == "*" or value.lower() in str(there).lower())
    if sign == "!=":
        return str(there) != value
    if there is None:
        return False
    left, right = _ordered(str(there)), _ordered(value)
    if type(left) is not type(right):
        return False
    orders: dict[str, bool] = {
        "=": left == right,
        ">": left > right,
        ">=": left >= right,
        "<": left < right,
        "<=": left <= right,
    }
    return orders[sign]


def _ordered(text: str) -> Any:
    """Read a value as what it is ordered by: an instant, a severity, or text."""
    if text in _SEVERITIES:
        return _SEVERITIES.index(text)
    try:
        return datetime.fromisoformat(text) if len(text) > len("2026-01-01") else text
    except ValueError:
        return text


def _containing(text: str) -> Test:
    return lambda each: text.lower() in str(each).lower()


def _at(value: Any, path: list[str]) -> object:
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", r"\1", text[1:-1])
