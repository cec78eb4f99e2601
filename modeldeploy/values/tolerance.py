"""How far an answer may be from the recorded one and still count as the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from modeldeploy.errors import ConfigurationError

ToleranceLike: TypeAlias = "Tolerance | Mapping[str, Any] | bool"
"""What ``golden=`` takes: True, False, a Tolerance, or rtol by type."""
_PAIR = 2


def _pair(name: str, given: Any) -> tuple[float, float]:
    """Check a pair (rtol, atol)."""
    pair = tuple(given) if isinstance(given, tuple | list) else (given,)
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in pair)
    if len(pair) != _PAIR or not numbers or not all(0 <= each < math.inf for each in pair):
        message = f"tolerance of {name} is {given!r}"
        raise ConfigurationError(message, hint="use (rtol, atol), two numbers of 0 or more, for example (1e-4, 1e-6)")
    return float(pair[0]), float(pair[1])


@attrs.frozen
class Tolerance:
    """What may differ, as (rtol, atol) for each floating type: ``abs(got - expected) <= atol + rtol * abs(expected)``.

    The type is the narrower one of both sides. The defaults leave room for the rounding of another processor or thread count, not for more.
    Whole numbers, truth values and texts must be equal.

    >>> Tolerance.of({"float32": 1e-3}).float32
    (0.001, 1e-06)
    """

    float16: tuple[float, float] = (5e-3, 1e-3)
    float32: tuple[float, float] = (1e-4, 1e-6)
    float64: tuple[float, float] = (1e-6, 1e-9)

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(type(self)):
            _pair(field.name, getattr(self, field.name))

    @classmethod
    def of(cls, given: ToleranceLike) -> Tolerance:
        """Make one of what ``golden=`` may be: a Tolerance, ``{"float32": rtol}`` or ``{"float32": (rtol, atol)}``, True or False (defaults)."""
        if isinstance(given, Tolerance):
            return given
        if isinstance(given, bool):
            return cls()
        if not hasattr(given, "items"):
            message = f"golden is {given!r}"
            raise ConfigurationError(message, hint="use True, False, a Tolerance, or rtol by type: {'float32': 1e-3}")
        return cls(**{name: _completed(name, value) for name, value in given.items()})

    def widened(self, other: Tolerance) -> Tolerance:
        """Allow what either of the two allows."""
        mine, theirs = attrs.asdict(self), attrs.asdict(other)
        return Tolerance(
            **{
                name: (max(a[0], b[0]), max(a[1], b[1]))
                for (name, a), b in zip(mine.items(), theirs.values(), strict=True)
            }
        )

    def at(self, itemsize: int) -> tuple[float, float]:
        """Give (rtol, atol) for floats of so many bytes; whatever is wider than float64 is compared as that."""
        return {2: self.float16, 4: self.float32}.get(itemsize, self.float64)


_USUAL = attrs.asdict(Tolerance())


def _completed(name: str, value: Any) -> tuple[float, float]:
    if name not in _USUAL:
        message = f"golden names the type {name!r}"
        raise ConfigurationError(message, hint=f"types that may differ are {[*_USUAL]}; all others must be equal")
    return _pair(name, value if isinstance(value, tuple | list) else (value, _USUAL[name][1]))
