"""The part of JSONPath that Batch Transform's filters know: names, numbers, slices, and lists of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from modeldeploy.simulate.sagemaker.errors import invalid

_STEP = re.compile(r"\.(?P<name>[A-Za-z_]\w*)|\[(?P<inside>[^\]]*)\]")
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?")
Step = Callable[[Any], Any]


class NoMatchError(Exception):
    """The value has nothing at this path."""


def compile_path(path: str) -> Step:
    """Make the function that takes a path's part out of a value; the service's refusal of a path that it cannot read."""
    if not path:
        return lambda value: value
    if not path.startswith("$"):
        raise _unreadable(path)
    steps, at = [], 1
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None:
            raise _unreadable(path)
        steps.append(_named(found["name"]) if found["name"] else _inside(found["inside"], path))
        at = found.end()
    return lambda value: _through(steps, value)


def _through(steps: Sequence[Step], value: Any) -> Any:
    for step in steps:
        value = step(value)
    return value


def _inside(text: str, path: str) -> Step:
    parts = [part.strip() for part in text.split(",")]
    if all(part[:1] in "'\"" and part[-1:] == part[:1] and len(part) > 2 for part in parts):  # noqa: PLR2004 - two quotes
        names = [part[1:-1] for part in parts]
        return _named(names[0]) if len(names) == 1 else _several_named(names)
    if len(parts) == 1 and (found := _SLICE.fullmatch(parts[0])):
        first, last = (int(each) if each else None for each in found.groups())
        return lambda value: _as_list(value)[first:last]
    if all(re.fullmatch(r"-?\d+", part) for part in parts):
        numbers = [int(part) for part in parts]
        return _numbered(numbers[0]) if len(numbers) == 1 else _several_numbered(numbers)
    raise _unreadable(path)


def _named(name: str) -> Step:
    def step(value: Any) -> Any:
        if not isinstance(value, dict) or name not in value:
            raise NoMatchError(name)
        return value[name]

    return step


def _several_named(names: Sequence[str]) -> Step:
    return lambda value: {name: _named(name)(value) for name in names}


def _numbered(number: int) -> Step:
    def step(value: Any) -> Any:
        try:
            return _as_list(value)[number]
        except IndexError as error:
            raise NoMatchError(str(number)) from error

    return step


def _several_numbered(numbers: Sequence[int]) -> Step:
    return lambda value: [_numbered(number)(value) for number in numbers]


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise NoMatchError(repr(value))
    return value


def _unreadable(path: str) -> Exception:
    return invalid(f"Invalid JSONPath expression {path!r}.")
