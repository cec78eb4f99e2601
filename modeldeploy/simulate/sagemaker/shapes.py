"""Holds requests and answers against botocore's own model of the service, and says what is wrong in the service's words."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modeldeploy.simulate.sagemaker.errors import ServiceError, invalid

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape

_NUMBERS = frozenset({"integer", "long", "float", "double", "timestamp"})
_SIZED = frozenset({"string", "list", "map", "blob"})
_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "blob": (str, bytes, bytearray),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
}
_JAVA_NAMES: Mapping[type, str] = {
    str: "STRING_VALUE", int: "NUMBER_VALUE", float: "NUMBER_VALUE", bool: "TRUE_VALUE", list: "START_ARRAY", dict: "START_OBJECT",
}  # fmt: skip
# The service's patterns are Java's. What Python's `re` has no name for is written out, a little wider where it must be: a letter may be a
# digit or an underscore, symbols and punctuation are whatever is neither a word nor a space.
_JAVA_CLASSES: Mapping[str, str] = {
    "L": r"\w", "M": "\u0300-\u036f", "N": r"\d", "Z": r"\s", "S": "$+<=>^`|~\u00a2-\u00b4\u2000-\u2bff", "P": r"!-/:;?@\[-_{}\u00a1-\u00bf\u2010-\u2027",
    "Alnum": "a-zA-Z0-9", "ASCII": r"\x00-\x7f", "Print": r"\x20-\x7e",
}  # fmt: skip
_TOKEN = re.compile(r"\\p\{(\w+)\}|\\.|\[\^?\]?|\]|[^\\\[\]]+", re.DOTALL)


@functools.cache
def load(service: str) -> ServiceModel:
    """Load botocore's model of a service."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def check_request(shape: Shape, value: object) -> None:
    """Raise what the service answers to a request that does not fit its shape."""
    faults = list(_faults(shape, value, ""))
    if faults:
        plural = "s" if len(faults) > 1 else ""
        raise invalid(f"{len(faults)} validation error{plural} detected: {'; '.join(faults)}")


def check_answer(operation: str, shape: Shape | None, value: Mapping[str, Any]) -> None:
    """Raise when an answer of ours is not one that the service could give: then the simulator is wrong, not its caller."""
    _check_ours(operation, [] if shape is None else list(_faults(shape, dict(value), "")))


def check_headers(operation: str, shape: Any, headers: Mapping[str, str]) -> None:
    """Raise when the headers of an answer are not the service's; a body is the container's own."""
    given = {name.lower(): value for name, value in headers.items()}
    faults: list[str] = []
    for name, member in shape.members.items():
        place = member.serialization
        value = given.get(str(place.get("name", name)).lower()) if place.get("location") == "header" else None
        if value is not None:
            faults += _faults(member, value, _under("", name))
    _check_ours(operation, faults)


def _check_ours(operation: str, faults: list[str]) -> None:
    if faults:
        message = f"the simulated answer to {operation} is not one of the service's: {'; '.join(faults)}"
        raise AssertionError(message)


def _faults(shape: Shape, value: object, where: str) -> Iterator[str]:
    _check_type(shape, value)
    if shape.type_name == "structure":
        yield from _structure_faults(shape, value, where)
    elif shape.type_name == "list":
        yield from _list_faults(shape, value, where)
    elif shape.type_name == "map":
        yield from _map_faults(shape, value, where)
    for text in _scalar_faults(shape, value):
        yield _fault(shape, value, where, text)


def _structure_faults(shape: Any, value: Any, where: str) -> Iterator[str]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{_under(where, name)}' failed to satisfy constraint: Member must not be null"
    for name, each in value.items():
        if name not in shape.members:
            yield f"Value at '{_under(where, name)}' failed to satisfy constraint: Member is not known to the service"
        elif each is not None:
            yield from _faults(shape.members[name], each, _under(where, name))


def _list_faults(shape: Any, value: Any, where: str) -> Iterator[str]:
    for number, each in enumerate(value, start=1):
        yield from _faults(shape.member, each, f"{where}.{number}.member")


def _map_faults(shape: Any, value: Any, where: str) -> Iterator[str]:
    for key, each in value.items():
        yield from _faults(shape.key, key, f"{where}.key")
        yield from _faults(shape.value, each, f"{where}.{key}.member")


def _scalar_faults(shape: Shape, value: Any) -> Iterator[str]:
    limits = shape.metadata
    if "enum" in limits and value not in limits["enum"]:
        yield f"Member must satisfy enum value set: [{', '.join(limits['enum'])}]"
    if "pattern" in limits and isinstance(value, str) and not matches(limits["pattern"], value):
        yield f"Member must satisfy regular expression pattern: {limits['pattern']}"
    if shape.type_name in _NUMBERS:
        yield from _range_faults(limits, value, "value")
    elif shape.type_name in _SIZED:
        yield from _range_faults(limits, len(value), "length")


def _range_faults(limits: Mapping[str, Any], value: float, what: str) -> Iterator[str]:
    if "min" in limits and value < limits["min"]:
        yield f"Member must have {what} greater than or equal to {limits['min']}"
    if "max" in limits and value > limits["max"]:
        yield f"Member must have {what} less than or equal to {limits['max']}"


def _fault(shape: Shape, value: object, where: str, text: str) -> str:
    shown = "" if shape.metadata.get("sensitive") else f" '{value}'"
    return f"Value{shown} at '{where}' failed to satisfy constraint: {text}"


def _under(where: str, name: str) -> str:
    name = name[:1].lower() + name[1:]
    return f"{where}.{name}" if where else name


def _check_type(shape: Shape, value: object) -> None:
    wanted = _TYPES[shape.type_name]
    flag = isinstance(value, bool)
    if not isinstance(value, wanted) or (flag and bool not in wanted):
        found = _JAVA_NAMES.get(type(value), "NULL_VALUE")
        text = f"{found} can not be converted to {_article(shape.type_name)}"
        raise ServiceError("SerializationException", text)


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name.capitalize()}"


def matches(pattern: str, value: str) -> bool:
    """Say whether the whole value fits a pattern of the service."""
    return _compiled(pattern)(value)


@functools.cache
def _compiled(pattern: str) -> Callable[[str], bool]:
    try:
        compiled = re.compile(_from_java(pattern))
    except re.error:  # ranges of surrogates, which are no characters in Python
        return lambda _value: True
    return lambda value: compiled.fullmatch(value) is not None


def _from_java(pattern: str) -> str:
    """Write a pattern of Java's as one of Python's."""
    written, within = [], False
    for token in _TOKEN.finditer(pattern.replace(r"\z", r"\Z").replace("${1,", "{1,")):
        text = token[0]
        if token[1]:
            body = _JAVA_CLASSES[token[1]]
            text = body if within else f"[{body}]"
        elif text[0] in "[]":
            within = text[0] == "["
        written.append(text)
    return "".join(written)
