"""Holds requests and answers against the models that azure-ai-ml itself is generated with, and says what is wrong in them."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from modeldeploy.simulate.azureml import durations
from modeldeploy.simulate.azureml.errors import Detail, ServiceError
from modeldeploy.simulate.azureml.exchange import Json

# The schema asks for them when they are written; no answer shows them.
_NEVER_SHOWN = frozenset({"secrets"})
_PLAIN: Mapping[object, tuple[type, ...]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
}
_UNIONS = (typing.Union, types.UnionType)


@attrs.frozen
class Member:
    """One member of an object."""

    name: str
    kind: Any
    """Its annotation."""
    required: bool
    shown: bool
    """Whether answers have it."""
    written: bool
    """Whether requests may have it; those of others are ignored."""


@attrs.frozen
class Direction:
    """Which way an object goes."""

    request: bool

    def needs(self, member: Member) -> bool:
        """Say whether a member must be there."""
        if self.request:
            return member.required and member.written
        return member.required and member.shown and member.name not in _NEVER_SHOWN


REQUEST, ANSWER = Direction(request=True), Direction(request=False)


def check_request(name: str, value: object) -> None:
    """Raise the service's error for a request that is not as its model says."""
    found = list(_findings(_model(name), value, REQUEST, ""))
    if found:
        details = [Detail("ValidationError", each) for each in found]
        raise ServiceError(400, "BadRequest", "The request is invalid.", details=details)


def check_answer(name: str, value: object) -> None:
    """Raise an error for an answer that the service could not give: ``[Name]`` stands for a page of such things."""
    if name.startswith("["):
        page: Any = value
        for each in page["value"]:
            check_answer(name.strip("[]"), each)
        return
    found = list(_findings(_model(name), value, ANSWER, ""))
    if found:
        message = f"an answer is no {name}: {'; '.join(found)}"
        raise ValueError(message)


def _model(name: str) -> Any:
    from azure.ai.ml._restclient.arm_ml_service import models

    return getattr(models, name)


@functools.cache
def members(model: Any) -> Sequence[Member]:
    """Give the members of a model by the names that they have on the wire."""
    from azure.ai.ml._restclient.arm_ml_service import models
    from azure.ai.ml._restclient.arm_ml_service.models import _models

    hints = typing.get_type_hints(model, globalns={**vars(_models), "_models": models})
    # An object is made so that the model works out its members, which it does when it is used first.
    fields: Mapping[str, Any] = model({})._attr_to_rest_field  # noqa: SLF001 - the only place that has the wire's names
    return [_member(hints[attribute], field) for attribute, field in fields.items()]


def _member(kind: Any, field: Any) -> Member:
    visibility = frozenset(field._visibility or ("read", "create"))  # noqa: SLF001 - likewise
    required = type(None) not in typing.get_args(kind)
    name = str(field._rest_name)  # noqa: SLF001 - likewise
    return Member(name, kind, required, "read" in visibility, bool(visibility & {"create", "update"}))


def _findings(kind: Any, value: object, way: Direction, at: str) -> Iterator[str]:
    """Say what is wrong with a value that is not null."""
    origin = typing.get_origin(kind)
    if kind is Any or kind is object:
        return
    if origin in _UNIONS:
        yield from _choice(typing.get_args(kind), value, way, at)
    elif origin is typing.Literal:
        if value not in typing.get_args(kind):
            yield f"{at}: {value!r} is not {typing.get_args(kind)[0]!r}"
    elif origin is list:
        yield from _list(typing.get_args(kind)[0], value, way, at)
    elif origin is dict:
        yield from _map(typing.get_args(kind)[1], value, way, at)
    elif hasattr(kind, "_attr_to_rest_field") or hasattr(kind, "_is_model"):
        yield from _object(kind, value, way, at)
    else:
        yield from _scalar(kind, value, at)


def _choice(kinds: Sequence[Any], value: object, way: Direction, at: str) -> Iterator[str]:
    possible = [each for each in kinds if each is not type(None)]
    named = [each for each in possible if isinstance(each, type) and issubclass(each, enum.Enum)]
    if named:
        yield from _enumerated(named[0], value, at)
        return
    tried = [list(_findings(each, value, way, at)) for each in possible]
    if all(tried):
        yield from tried[0]


def _enumerated(names: type[enum.Enum], value: object, at: str) -> Iterator[str]:
    known = {str(each.value).lower() for each in names}
    if str(value).lower() not in known:
        yield f"{at}: {value!r} is none of {sorted(str(each.value) for each in names)}"


def _list(kind: Any, value: object, way: Direction, at: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{at}: {value!r} is not a list"
        return
    for number, each in enumerate(value):
        yield from _findings(kind, each, way, f"{at}[{number}]")


def _map(kind: Any, value: object, way: Direction, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is not an object"
        return
    for key, each in value.items():
        # The SDK sends hash_version as a number (azure-ai-ml 1.35.2), and the service takes it.
        loose = way.request and kind is str and isinstance(each, (int, float))
        if each is not None and not loose:
            yield from _findings(kind, each, way, f"{at}.{key}")


def _object(model: Any, value: object, way: Direction, at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} is not an object"
        return
    chosen = _discriminated(model, value)
    known = {each.name: each for each in members(chosen)}
    for member in known.values():
        if value.get(member.name) is None and way.needs(member) and not _nullable(member, value, way):
            yield f"{at}.{member.name} is required".lstrip(".")
    for name, each in value.items():
        if name not in known:
            yield f"{at}.{name} is not a member of {chosen.__name__}".lstrip(".")
        elif each is not None and (known[name].written or not way.request):
            yield from _findings(known[name].kind, each, way, f"{at}.{name}".lstrip("."))


def _nullable(member: Member, value: Json, way: Direction) -> bool:
    """Say whether an answer may have a null where the schema asks for a value."""
    return not way.request and member.name in value


def _discriminated(model: Any, value: Json) -> Any:
    """Find the model that an object says it is."""
    for member in model({})._attr_to_rest_field.values():  # noqa: SLF001 - the only place that says so
        if member._is_discriminator:  # noqa: SLF001 - likewise
            known = {str(getattr(key, "value", key)): each for key, each in model.__mapping__.items()}
            return known.get(str(value.get(member._rest_name)), model)  # noqa: SLF001 - likewise
    return model


def _scalar(kind: Any, value: object, at: str) -> Iterator[str]:
    if kind is dt.timedelta:
        yield from _duration(value, at)
    elif kind is dt.datetime:
        yield from _instant(value, at)
    elif kind in _PLAIN and (not isinstance(value, _PLAIN[kind]) or (isinstance(value, bool) and kind is not bool)):
        yield f"{at}: {value!r} is not of the type {kind.__name__}"


def _duration(value: object, at: str) -> Iterator[str]:
    try:
        durations.seconds(str(value))
    except ServiceError:
        yield f"{at}: {value!r} is not a duration"


def _instant(value: object, at: str) -> Iterator[str]:
    try:
        dt.datetime.fromisoformat(str(value))
    except ValueError:
        yield f"{at}: {value!r} is not an instant"
