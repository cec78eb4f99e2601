"""How gates decide: the test, and the errors that it may make."""

from __future__ import annotations

import enum

import attrs

from modeldeploy.errors import ConfigurationError


class Method(enum.StrEnum):
    """The ways to come from counts to a verdict."""

    SEQUENTIAL = "sequential"
    """Bad-event e-processes: valid however often they are looked at. The default."""
    THRESHOLD = "threshold"
    """The limit decides at every look, for compatibility; looking often fails often."""
    MANN_WHITNEY = "mannwhitney"
    """A rank test on the series of looks, for compatibility; needs many looks and does not see rare events."""


@attrs.frozen
class Analysis:
    """How sure the gates must be.

    ``alpha`` is the probability that a revision which is no worse than stable is taken back, over the whole rollout and however often it
    is looked at; ``beta`` that one is let through although its bad events are ``max_ratio`` times as frequent as stable's and more frequent
    than its limit (``max_rate`` where a gate states none).
    """

    method: Method = Method.SEQUENTIAL
    alpha: float = 0.05
    beta: float = 0.05
    max_ratio: float = 2.0
    max_rate: float = 0.01

    def __attrs_post_init__(self) -> None:
        for name in ("alpha", "beta", "max_rate"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < 1:
                message = f"{name} is {value!r}"
                raise ConfigurationError(message, hint="use a probability between 0 and 1, for example 0.05")
        if not isinstance(self.max_ratio, int | float) or not 1 < self.max_ratio <= 30:  # noqa: PLR2004 - the largest ratio that is bet on
            message = f"max_ratio is {self.max_ratio!r}"
            raise ConfigurationError(message, hint="use a number above 1 and at most 30, for example 2")

    @classmethod
    def of(cls, given: str | Analysis) -> Analysis:
        """Make one of the name of its method, or give it as it is."""
        if isinstance(given, Analysis):
            return given
        try:
            return cls(Method(given))
        except ValueError as error:
            message = f"analysis is {given!r}"
            raise ConfigurationError(
                message, hint=f"one of {[each.value for each in Method]}, or an Analysis"
            ) from error
