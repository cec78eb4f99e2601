"""How well answers turned out, as users report it: mappings, arrays and series to rows of one key, one revision and one value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from modeldeploy.errors import InvalidRequestError
from modeldeploy.values.assignment import assign, key_text

Row: TypeAlias = tuple[str, str, float]
"""Key, revision, value."""


def rows(
    values: object, keys: Iterable[object] | None, revision: str | Iterable[str] | None, weights: Mapping[str, int]
) -> list[Row]:
    """Read what was reported; a key's revision is the one that the router gave it to, unless ``revision`` names who answered.

    ``values`` is a mapping of keys to values or a pandas Series with the keys as its index, or, with ``keys``, any sequence of values.
    InvalidRequestError names the first thing that is wrong.
    """
    named, given = _pairs(values, keys)
    answered = _revisions(named, revision, weights)
    return [(key, name, _plain(value)) for key, name, value in zip(named, answered, given, strict=True)]


def _key(key: object) -> str:
    text = key_text(_plain(key))
    if text is None:
        message = f"key {key!r} is not valid"
        hint = "use what the requests carried: a number, or a printable text without blanks around it"
        raise InvalidRequestError(message, field="key", hint=hint)
    return text


def _pairs(values: object, keys: Iterable[object] | None) -> tuple[list[str], list[Any]]:
    if keys is None:
        items: Callable[[], Iterable[tuple[object, object]]] | None = getattr(values, "items", None)
        if items is None or getattr(values, "ndim", 1) != 1:
            message = f"scores are {type(values).__name__} without keys"
            raise InvalidRequestError(
                message, field="keys", hint="give {key: value}, or a list of values and keys=[...]"
            )
        pairs = list(items())
        return [_key(key) for key, _value in pairs], [value for _key, value in pairs]
    named, given = [_key(key) for key in _listed("keys", keys)], _listed("values", values)
    if len(named) != len(given):
        message = f"there are {len(given)} values for {len(named)} keys"
        raise InvalidRequestError(message, field="keys", hint="give each value the key of its request")
    return named, given


def _listed(name: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__iter__") or getattr(given, "ndim", 1) != 1:
        message = f"{name} are {type(given).__name__}, not a sequence"
        raise InvalidRequestError(message, field=name, hint="give a list, an array of one dimension or a Series")
    return list(given)


def _revisions(named: Sequence[str], revision: str | Iterable[str] | None, weights: Mapping[str, int]) -> Sequence[str]:
    if revision is None:
        return [assign(weights, key) or "" for key in named]
    answered = [revision] * len(named) if isinstance(revision, str) else _listed("revisions", revision)
    unknown = next((each for each in answered if each not in weights), None)
    if unknown is not None:
        message = f"revision {unknown!r} takes no part in this test"
        raise InvalidRequestError(message, field="revision", hint=f"one of {sorted(weights)}")
    if len(answered) != len(named):
        message = f"there are {len(answered)} revisions for {len(named)} keys"
        raise InvalidRequestError(message, field="revision", hint="name one revision, or one for each key")
    return answered


def _plain(value: Any) -> Any:
    """Take numpy's and torch's scalars out of their wrapping."""
    item = getattr(value, "item", None)
    return item() if callable(item) and not getattr(value, "ndim", 0) else value
