"""Lists: pages of them, and the filters that they may be asked with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from modeldeploy.simulate.vertex.errors import invalid

T = TypeVar("T")
_MOST = 100
_TERM = re.compile(r"\s*([A-Za-z_.]+(?:\.[\w-]+)?)\s*(!=|=|:)\s*(\"[^\"]*\"|[^\s()]+)\s*")
_HAS_LABEL = re.compile(r"\s*(?:-\s*|NOT\s+)?labels[.:]([\w-]+)(?::\*)?\s*")
_AND = re.compile(r"\s+AND\s+")
_FIELDS = {"displayName": "display_name"}


def page(found: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """Give one page, and the token of the next; the token says how many came before."""
    if token and not token.isdecimal():
        message = f"Invalid page token {token!r}."
        raise invalid(message)
    begin = int(token or 0)
    end = begin + min(size or _MOST, _MOST)
    return found[begin:end], str(end) if end < len(found) else ""


def chosen(found: Sequence[Any], asked: str, fields: Sequence[str]) -> list[Any]:
    """Give what a filter lets through: comparisons of these fields and of labels, with AND between them."""
    terms = [_term(text, fields) for text in _AND.split(asked)] if asked.strip() else []
    return [each for each in found if all(term(each) for term in terms)]


def _term(text: str, fields: Sequence[str]) -> Callable[[Any], bool]:
    negated, text = text.strip().startswith("NOT "), text.strip().removeprefix("NOT ")
    present = _HAS_LABEL.fullmatch(text)
    if present is not None:
        key = present[1]
        return lambda each: (key in each.labels) is not negated
    found = _TERM.fullmatch(text)
    if found is None:
        message = f"Invalid filter {text!r}."
        raise invalid(message)
    field, sign, value = found[1], found[2], found[3].strip('"')
    equal = (sign != "!=") is not negated
    read = _reader(field, fields)
    return lambda each: (read(each) == value) is equal


def _reader(field: str, fields: Sequence[str]) -> Callable[[Any], str | None]:
    first, _, key = field.partition(".")
    if first == "labels" and key:
        return lambda each: each.labels.get(key)
    name = _FIELDS.get(field, field)
    if name not in fields:
        message = f"Invalid filter: {field} is not a field of it; {', '.join((*fields, 'labels.KEY'))} are."
        raise invalid(message)
    return lambda each: _text(getattr(each, name))


def _text(value: Any) -> str:
    """Write a value of a field as filters do: enums by their names, names of resources by their last part."""
    text = str(getattr(value, "name", value))
    return text.rpartition("/")[2]
