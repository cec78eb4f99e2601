"""Options as text and as typed objects, for every backend.

Options travel as text inside a Revision or EndpointSpec. The clouds' typed objects are mappings of such text, so that they can be passed
wherever options are taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NoReturn, Self, TypeVar

import attrs

from modeldeploy.errors import ConfigurationError

T = TypeVar("T")
_YES, _NO = frozenset({"true", "yes", "1", "on"}), frozenset({"false", "no", "0", "off"})


class Options(Mapping[str, str]):
    """A frozen attrs class that is a mapping of those of its values that were set; a subclass names its backend."""

    backend: ClassVar[str]

    def _set(self) -> dict[str, str]:
        fields = attrs.fields(type(self))  # type: ignore[arg-type]  # every subclass is an attrs class
        return {each.name: str(getattr(self, each.name)) for each in fields if getattr(self, each.name) != each.default}

    def __getitem__(self, name: str) -> str:
        return self._set()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._set())

    def __len__(self) -> int:
        return len(self._set())

    @classmethod
    def read(cls, options: Mapping[str, str], what: str) -> Self:
        """Make typed options of text; ConfigurationError names the one that is unknown or wrong."""
        return read(cls, options, what, backend=cls.backend)


def read(cls: type[T], options: Mapping[str, str], what: str, *, backend: str) -> T:
    """Make an attrs class of text; ConfigurationError names the option that is unknown or wrong."""
    fields = {field.name: field for field in attrs.fields(cls)}  # type: ignore[arg-type]  # likewise
    for name in options:
        if name not in fields:
            import difflib

            close = difflib.get_close_matches(name, fields, n=1)
            asked = f"did you mean {close[0]!r}? " if close else ""
            message = f"backend {backend!r} knows no {what} option {name!r}"
            raise ConfigurationError(message, hint=f"{asked}known are {sorted(fields)}")
    return cls(**{name: parse(name, text, fields[name].default) for name, text in options.items()})


def parse(name: str, text: str, default: Any) -> Any:
    """Read an option by the type of its default."""
    try:
        if isinstance(default, bool):
            return _flag(text)
        return type(default)(text)
    except ValueError as error:
        message = f"option {name} is {text!r}"
        raise ConfigurationError(message, hint=f"its default is {default!r}") from error


def _flag(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    message = "not a flag"
    raise ValueError(message)


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Refuse a number outside of a range."""
    # Written so that nan is refused too.
    if not least <= value <= most:
        refuse(name, value, f"use a number from {least:g} to {most:g}")


def refuse(name: str, value: object, hint: str) -> NoReturn:
    """Refuse an option by name."""
    message = f"option {name} is {value!r}"
    raise ConfigurationError(message, hint=hint)
