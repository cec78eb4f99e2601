"""Values to plain JSON and back, with a schema number.

Only what the values use is understood: scalars, enums, ``tuple[T, ...]``, ``Mapping[str, T]``, optionals and nested attrs classes.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.schema import SCHEMA

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

T = TypeVar("T")
_PLAIN = frozenset({str, int, float, bool, type(None)})


def to_json(value: Any) -> Any:
    """Turn a value into plain JSON data."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    names = _field_names(kind)  # type: ignore[arg-type]  # classes can be hashed
    if names is not None:
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, str | int | float):
        return value
    message = f"{kind.__name__} is not a value that can be stored"
    raise TypeError(message)


def from_json(cls: type[T], data: Any) -> T:
    """Build a ``cls`` from what ``to_json`` gave; ConfigurationError names the place that does not fit."""
    try:
        return cast("T", _reader(cls)(data))  # type: ignore[arg-type]  # classes can be hashed
    except _Misfit as misfit:
        message = f"{cls.__name__}{misfit.at} {misfit.what}"
        raise ConfigurationError(message, hint=misfit.hint) from misfit.__cause__


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


# Reading. How each type is read is found out once; journals and tables of traffic are read thousands of times.


class _Misfit(Exception):  # noqa: N818 - never seen outside
    """Data that does not fit. Where it lies is put together on the way out, so what fits pays nothing for it."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.at = ""


@functools.cache
def _field_names(cls: type) -> tuple[str, ...] | None:
    return tuple(field.name for field in attrs.fields(cls)) if attrs.has(cls) else None


@functools.cache
def _reader(hint: Any) -> Callable[[Any], Any]:  # noqa: PLR0911 - one return for each kind of hint
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda data: data
    if origin in {types.UnionType, typing.Union}:
        return _optional(inner)
    if origin is tuple:
        return _items(inner[0])
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(inner[1])
    if attrs.has(hint):
        return _object(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return functools.partial(_member, hint)
    if hint is float:
        return lambda data: float(_expect(int | float, data))
    return functools.partial(_expect, hint)


def _optional(options: tuple[Any, ...]) -> Callable[[Any], Any]:
    (only,) = (option for option in options if option is not type(None))
    read = _reader(only)
    return lambda data: None if data is None else read(data)


def _items(hint: Any) -> Callable[[Any], Any]:
    read = _reader(hint)

    def items(data: Any) -> tuple[Any, ...]:
        _expect(list | tuple, data)
        return tuple(_read_at(f"[{at}]", read, each) for at, each in enumerate(data))

    return items


def _mapping(hint: Any) -> Callable[[Any], Any]:
    read = _reader(hint)

    def mapping(data: Any) -> dict[str, Any]:
        return {key: _read_at(f"[{key!r}]", read, each) for key, each in _expect(dict, data).items()}

    return mapping


def _read_at(place: str, read: Callable[[Any], Any], data: Any) -> Any:
    try:
        return read(data)
    except _Misfit as misfit:
        misfit.at = place + misfit.at
        raise


def _object(cls: Any) -> Callable[[Any], Any]:
    readers = {name: (_reader(hint), f".{name}") for name, hint in typing.get_type_hints(cls).items()}
    fields = set(_field_names(cls) or ())

    def build(data: Any) -> Any:
        unknown = sorted(_expect(dict, data).keys() - fields)
        if unknown:
            what = f"has unknown fields {unknown}"
            raise _Misfit(what, f"known fields are {sorted(fields)}")
        arguments = {}
        for name, item in data.items():
            read, place = readers[name]
            arguments[name] = _read_at(place, read, item)
        try:
            return cls(**arguments)
        except TypeError as error:
            what = f"cannot be read: {error}"
            raise _Misfit(what) from error

    return build


def _member(cls: Any, data: Any) -> Any:
    try:
        return cls(data)
    except ValueError as error:
        what = f"is {data!r}"
        raise _Misfit(what, f"one of {[each.value for each in cls]}") from error


def _expect(kind: Any, data: Any) -> Any:
    # bool is an int in Python; a flag where a number belongs is a mistake.
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        what = f"is {data!r}, not {getattr(kind, '__name__', kind)}"
        raise _Misfit(what)
    return data
