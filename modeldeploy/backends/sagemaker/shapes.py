"""Requests held against the service's own model before they are sent: patterns and lengths, which botocore leaves to the service.

Enumerations are never checked: an instance type that is newer than this machine's botocore must not be refused here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from modeldeploy.errors import InvalidRequestError

# The patterns are Java's: these classes of Unicode have other names in Python, or none.
_CLASSES = {r"\p{L}": "a-zA-Z\u00c0-\uffff", r"\p{Z}": r"\s", r"\p{N}": "0-9", r"\p{M}": "\u0300-\u036f"}


def check(shape: Any, parameters: Mapping[str, Any], operation: str) -> None:
    """Refuse a request of which the service would say that a constraint is not satisfied; InvalidRequestError names the member."""
    for path, value, problem in problems(shape, parameters, ""):
        message = f"{operation}: {path} is {value!r}, {problem}"
        raise InvalidRequestError(message, field=path, hint="correct the name or option that it comes from")


def problems(shape: Any, value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """Walk a value along its shape and name what does not fit: path, value, what is wrong."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if name in value:
                yield from problems(member, value[name], f"{path}.{name}".lstrip("."))
    elif shape.type_name == "list" and isinstance(value, list | tuple):
        yield from _lengths(shape, value, path, "entries")
        for at, each in enumerate(value):
            yield from problems(shape.member, each, f"{path}[{at}]")
    elif shape.type_name == "map" and isinstance(value, Mapping):
        yield from _lengths(shape, value, path, "entries")
        for key, each in value.items():
            yield from problems(shape.key, key, f"{path} key")
            yield from problems(shape.value, each, f"{path}[{key!r}]")
    elif shape.type_name == "string" and isinstance(value, str):
        yield from _lengths(shape, value, path, "characters")
        yield from _pattern(shape, value, path)
    elif shape.type_name in {"integer", "long", "float", "double"}:
        yield from _range(shape, value, path)


def _lengths(shape: Any, value: Any, path: str, what: str) -> Iterator[tuple[str, Any, str]]:
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    if most is not None and len(value) > most:
        yield path, value, f"which has {len(value)} {what}; {most} are allowed"
    if least is not None and len(value) < least:
        yield path, value, f"which has {len(value)} {what}; {least} are needed"


def _pattern(shape: Any, value: str, path: str) -> Iterator[tuple[str, Any, str]]:
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield path, value, f"which is not of the form {pattern}"


def _range(shape: Any, value: float, path: str) -> Iterator[tuple[str, Any, str]]:
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    if (most is not None and value > most) or (least is not None and value < least):
        yield path, value, f"which is not from {least} to {most}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of the service; one that Python cannot read refuses nothing."""
    for java, ours in _CLASSES.items():
        pattern = pattern.replace(f"[{java}", f"[{ours}").replace(java, ours)
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error:
        return re.compile(".*", re.DOTALL)
