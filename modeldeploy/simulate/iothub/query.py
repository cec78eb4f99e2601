"""The part of IoT Hub's query language that target conditions and lists of twins use.

``SELECT * FROM devices WHERE tags.fleet = 'plant' AND tags.modeldeploy.plant < 10``: comparisons of a path with a literal, ``IN`` with a
list, ``is_defined``, ``AND``, ``OR``, ``NOT`` and parentheses. What is not there compares as nothing does: the condition does not hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from modeldeploy.simulate.iothub.errors import ServiceError

Condition = Callable[[Mapping[str, Any]], bool]
MODULES, DEVICES = "devices.modules", "devices"

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<number>-?\d+(?:\.\d+)?)|(?P<sign><=|>=|!=|<>|=|<|>|\(|\)|\[(?!\[)|\](?!\])|,|\*)"
    r"|(?P<path>(?:\$?[A-Za-z_]\w*|\[\[[^\]]+\]\])(?:\.(?:\$?[A-Za-z_]\w*|\[\[[^\]]+\]\]))*))"
)
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<>": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_MISSING = object()
_WORDS = {"TRUE": True, "FALSE": False, "NULL": None}


def wrong(text: str) -> ServiceError:
    """Make the error of a query that the service does not understand."""
    return ServiceError(400, "ArgumentInvalid", f"The query is not valid: {text}")


@attrs.frozen
class Query:
    """A list of twins: of which kind, and which of them."""

    source: str
    holds: Condition


def select(text: str) -> Query:
    """Read a whole query."""
    head = re.fullmatch(
        r"\s*SELECT\s+\*\s+FROM\s+(?P<source>devices(?:\.modules)?)(?:\s+WHERE\s+(?P<where>.+))?\s*",
        text, re.IGNORECASE | re.DOTALL,
    )  # fmt: skip
    if head is None:
        raise wrong(f"{text!r} does not name all of devices or devices.modules WHERE a condition holds")
    holds = condition(head["where"]) if head["where"] else _always
    return Query(head["source"].lower(), holds)


def condition(text: str) -> Condition:
    """Read a condition, as the target of a configuration is given."""
    if text.strip() == "*":
        return _always
    parser = _Parser(_tokens(text))
    found = parser.either()
    parser.expect_end()
    return found


def _always(_twin: Mapping[str, Any]) -> bool:
    return True


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise wrong(f"unexpected {text[at : at + 20]!r}")
        kind = match.lastgroup or ""
        found.append((kind, match[kind]))
        at = match.end()
    return found


class _Parser:
    """Reads a condition from its words, the loosest binding first."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def either(self) -> Condition:
        """Read parts that OR joins."""
        parts = [self._all()]
        while self._word("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda twin: any(part(twin) for part in parts)

    def expect_end(self) -> None:
        """Refuse what is left over."""
        if self._at < len(self._tokens):
            raise wrong(f"unexpected {self._tokens[self._at][1]!r}")

    def _all(self) -> Condition:
        parts = [self._not()]
        while self._word("AND"):
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda twin: all(part(twin) for part in parts)

    def _not(self) -> Condition:
        if self._word("NOT"):
            inner = self._not()
            return lambda twin: not inner(twin)
        if self._sign("("):
            inner = self.either()
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Condition:
        path = self._take("path")
        if path.lower() == "is_defined" and self._sign("("):
            asked = self._take("path")
            self._expect(")")
            return lambda twin: _value(twin, asked) is not _MISSING
        if self._word("IN"):
            among = self._list()
            return lambda twin: _value(twin, path) in among
        sign = self._take("sign")
        if sign not in _COMPARE:
            raise wrong(f"unexpected {sign!r} after {path!r}")
        value = self._literal()
        return lambda twin: _compared(_value(twin, path), sign, value)

    def _list(self) -> list[Any]:
        self._expect("[")
        found = [self._literal()]
        while self._sign(","):
            found.append(self._literal())
        self._expect("]")
        return found

    def _literal(self) -> Any:
        kind, text = self._next()
        if kind == "text":
            return text[1:-1]
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "path" and text.upper() in _WORDS:
            return _WORDS[text.upper()]
        raise wrong(f"unexpected {text!r} in place of a value")

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise wrong("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, kind: str) -> str:
        found, text = self._next()
        if found != kind:
            raise wrong(f"unexpected {text!r}")
        return text

    def _expect(self, sign: str) -> None:
        if not self._sign(sign):
            raise wrong(f"{sign!r} is missing")

    def _sign(self, sign: str) -> bool:
        return self._skip("sign", sign)

    def _word(self, word: str) -> bool:
        return self._skip("path", word)

    def _skip(self, kind: str, text: str) -> bool:
        there = self._at < len(self._tokens) and self._tokens[self._at][0] == kind
        if there and self._tokens[self._at][1].upper() == text:
            self._at += 1
            return True
        return False


def _value(twin: Mapping[str, Any], path: str) -> Any:
    found: Any = twin
    for name in re.findall(r"\[\[[^\]]+\]\]|[^.]+", path):
        key = name[2:-2] if name.startswith("[[") else name
        if not isinstance(found, Mapping) or key not in found:
            return _MISSING
        found = found[key]
    return found


def _compared(found: Any, sign: str, value: Any) -> bool:
    if found is _MISSING:
        return False
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (found, value))
    if not numbers and type(found) is not type(value):
        return sign in {"!=", "<>"}
    return bool(_COMPARE[sign](found, value))
