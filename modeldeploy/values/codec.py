"""Values to plain JSON and back, with a schema number.

Only what the values use is understood: scalars, enums, ``tuple[T, ...]``, ``Mapping[str, T]``, optionals and nested attrs classes.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar, cast

import attrs

from modeldeploy.errors import ConfigurationError

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

SCHEMA = 1
"""Written into every stored document; a document with another number is refused, never guessed at."""

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Turn a value into plain JSON data."""
    if isinstance(value, enum.Enum):
        return value.value
    if attrs.has(type(value)):
        return {field.name: to_json(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    message = f"{type(value).__name__} is not a value that can be stored"
    raise TypeError(message)


def from_json(cls: type[T], data: Any) -> T:
    """Build a ``cls`` from what ``to_json`` gave; ConfigurationError names the place that does not fit."""
    return cast("T", _build(cls, data, cls.__name__))


def to_document(value: object) -> dict[str, Any]:
    """Like ``to_json``, wrapped with the schema number for storage."""
    return {"schema": SCHEMA, "body": to_json(value)}


def from_document(cls: type[T], document: Any) -> T:
    """Undo ``to_document``; a document of another schema is refused."""
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        message = f"stored {cls.__name__} has schema {schema!r}, this version of modeldeploy reads {SCHEMA}"
        raise ConfigurationError(message, hint="use the version of modeldeploy that wrote it, or a newer one")
    return from_json(cls, document.get("body"))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _build(hint: Any, data: Any, at: str) -> Any:  # noqa: PLR0911 - one return for each kind of hint
    origin = typing.get_origin(hint)
    if hint is Any:
        return data
    if origin in {types.UnionType, typing.Union}:
        return _build_union(typing.get_args(hint), data, at)
    if origin is tuple:
        (item, *_rest) = typing.get_args(hint)
        return tuple(_build(item, each, f"{at}[{i}]") for i, each in enumerate(_expect(list | tuple, data, at)))
    if origin is not None and issubclass(origin, Mapping):
        _key, item = typing.get_args(hint)
        return {key: _build(item, each, f"{at}[{key!r}]") for key, each in _expect(dict, data, at).items()}
    if attrs.has(hint):
        return _build_attrs(hint, _expect(dict, data, at), at)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _call(hint, data, at)
    if hint is float:
        return float(_expect(int | float, data, at))
    return _expect(hint, data, at)


def _build_union(options: tuple[Any, ...], data: Any, at: str) -> Any:
    if data is None and type(None) in options:
        return None
    (only,) = (option for option in options if option is not type(None))
    return _build(only, data, at)


def _build_attrs(cls: Any, data: dict[str, Any], at: str) -> Any:
    hints = _hints(cls)
    fields = {field.name for field in attrs.fields(cls)}
    unknown = sorted(set(data) - fields)
    if unknown:
        message = f"{at} has unknown fields {unknown}"
        raise ConfigurationError(message, hint=f"known fields are {sorted(fields)}")
    arguments = {key: _build(hints[key], item, f"{at}.{key}") for key, item in data.items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        message = f"{at} cannot be read: {error}"
        raise ConfigurationError(message) from error


def _call(cls: Any, data: Any, at: str) -> Any:
    try:
        return cls(data)
    except ValueError as error:
        message = f"{at} is {data!r}"
        raise ConfigurationError(message, hint=f"one of {[each.value for each in cls]}") from error


def _expect(kind: Any, data: Any, at: str) -> Any:
    # bool is an int in Python; a flag where a number belongs is a mistake.
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        message = f"{at} is {data!r}, not {getattr(kind, '__name__', kind)}"
        raise ConfigurationError(message)
    return data
