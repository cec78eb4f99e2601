"""What must hold while a new revision takes over: metrics, limits, verdicts, and what was seen."""

from __future__ import annotations

import enum
import itertools
import math
import re
import types
from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.errors import ConfigurationError


class Verdict(enum.StrEnum):
    """What the evidence says; "not enough" and "cannot be read" are answers of their own."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    BLIND = "blind"


class Metric(enum.StrEnum):
    """What a gate looks at."""

    ERROR_RATE = "error_rate"
    P50_LATENCY = "p50_latency"
    P90_LATENCY = "p90_latency"
    P95_LATENCY = "p95_latency"
    P99_LATENCY = "p99_latency"
    LATENCY = "latency"
    """The whole distribution: stable's p50, p90 and p99 together; only relative to stable."""
    DISAGREEMENT = "disagreement"
    """Answers of a shadow that differ from stable's to the same request."""
    OUTCOME = "outcome"
    """What users report of the answers (``Rollout.score``); an A/B test asks whose are better."""
    CUSTOM = "custom"
    """A function of the user's."""

    @property
    def quantile(self) -> float | None:
        """The quantile (0-1) of a latency metric; None for the others."""
        digits = re.match(r"p(\d+)_", self.value)
        return int(digits[1]) / 100 if digits else None

    @property
    def is_latency(self) -> bool:
        """Whether it is measured in seconds."""
        return self is Metric.LATENCY or self.quantile is not None


_GATE = re.compile(r"\s*(?P<metric>\w+)\s*(?P<op>[<>=!]+)\s*(?P<number>[0-9.]+)\s*(?P<unit>%|[a-z]+)?\s*")
_EXAMPLES = "for example 'error_rate <= 1%', 'p95_latency <= 1.2x' (of stable) or 'p99_latency <= 80ms'"
_WORDS = [metric.value for metric in Metric if metric not in {Metric.CUSTOM, Metric.OUTCOME}]

_functions: dict[str, Callable[..., Any]] = {}
"""The functions of this process that gates name; another process imports them by their name."""


def _metric_of(word: str) -> Metric:
    try:
        return Metric(word)
    except ValueError as error:
        message = f"metric {word!r} of a gate is not known"
        raise ConfigurationError(message, hint=_guess(str(word))) from error


def _guess(word: str) -> str:
    import difflib

    close = difflib.get_close_matches(word, _WORDS, n=1)
    asked = f"did you mean {close[0]!r}? " if close else ""
    return f"{asked}known metrics are {_WORDS}"


@attrs.frozen
class Gate:
    """A condition on the new revision: ``metric <= limit``, absolute (a rate 0-1, seconds) or relative to stable.

    >>> Gate.parse("p95_latency <= 1.2x")
    Gate(metric=<Metric.P95_LATENCY: 'p95_latency'>, limit=1.2, relative=True, function='')
    """

    metric: Metric = attrs.field(converter=_metric_of)
    limit: float = 0.0
    relative: bool = False
    function: str = ""
    """Name of a custom gate's function: ``module:name``."""

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.limit, int | float) or not 0 <= self.limit < math.inf:
            message = f"limit of a gate on {self.metric.value} is {self.limit!r}"
            raise ConfigurationError(message, hint="use a finite number of 0 or more")
        if self.relative and not self.limit:
            message = f"limit of a gate on {self.metric.value} is 0 times stable's"
            raise ConfigurationError(message, hint="use a number above 0, for example 1x: no worse than stable")

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read ``"metric <= number unit"``; ConfigurationError points at the part that is wrong."""
        if not isinstance(text, str):
            message = f"gate {text!r} is no text"  # type: ignore[unreachable]  # not everybody asks a type checker
            raise ConfigurationError(message, hint=f"write 'metric <= limit', {_EXAMPLES}")
        found = _GATE.fullmatch(text)
        if found is None:
            message = f"gate {text!r} cannot be read"
            raise ConfigurationError(message, hint=f"write 'metric <= limit', {_EXAMPLES}")
        metric = _metric(found["metric"], text)
        if found["op"] != "<=":
            message = f"operator {found['op']!r} in gate {text!r} is not '<='"
            raise ConfigurationError(message, hint="a gate states the most that is allowed; write 'metric <= limit'")
        return cls(metric, *_limit(metric, found["number"], found["unit"], text))

    @classmethod
    def custom(cls, function: Any) -> Gate:
        """Make a gate of a function: it is given a ``Look`` and answers True, False, None (not enough evidence) or a Verdict.

        The journal keeps its name only. A function of an importable module is found by every process; one of a notebook or a script only
        while the process that defined it lives, and elsewhere the gate is blind.
        """
        if not callable(function):
            message = f"gate {function!r} is neither text nor a function"
            raise ConfigurationError(message, hint=_EXAMPLES)
        name = _name(function)
        _functions[name] = function
        return cls(Metric.CUSTOM, function=name)

    @property
    def known(self) -> Callable[..., Any] | None:
        """The function of a custom gate, if this process has it already."""
        return _functions.get(self.function)

    def __str__(self) -> str:
        if self.metric is Metric.CUSTOM:
            return self.function.partition(":")[2]
        if self.metric is Metric.OUTCOME:
            return "outcome better than stable's"
        if self.relative:
            return f"{self.metric.value} <= {self.limit:g}x"
        if self.metric.quantile is None:
            return f"{self.metric.value} <= {self.limit * 100:g}%"
        return f"{self.metric.value} <= {self.limit * 1000:g}ms"


def _name(function: Callable[..., Any]) -> str:
    """Name a function so that no other one is asked in its place."""
    name = f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
    if isinstance(function, types.FunctionType) and "<" not in name:
        return name
    # Lambdas, functions made by functions, methods and objects share their names, so they are numbered.
    names = itertools.chain([name], (f"{name}#{number}" for number in itertools.count(2)))
    return next(each for each in names if _functions.get(each, function) == function)


def _metric(word: str, text: str) -> Metric:
    if word not in _WORDS:
        message = f"metric {word!r} in gate {text!r} is not known"
        raise ConfigurationError(message, hint=_guess(word))
    return Metric(word)


def _limit(metric: Metric, number: str, unit: str | None, text: str) -> tuple[float, bool]:
    try:
        value = float(number)
    except ValueError as error:
        message = f"limit {number!r} in gate {text!r} is not a number"
        raise ConfigurationError(message, hint=_EXAMPLES) from error
    units = _units(metric)
    if unit not in units:
        message = f"unit {unit or 'none'} in gate {text!r} does not fit {metric.value}"
        raise ConfigurationError(message, hint=f"use one of {[*units]}, {_EXAMPLES}")
    if unit == "%" and value > 100:  # noqa: PLR2004 - percent
        message = f"limit {number + unit!r} in gate {text!r} is more than everything"
        raise ConfigurationError(message, hint="use at most 100%")
    return value * units[unit], unit == "x"


def _units(metric: Metric) -> dict[str | None, float]:
    if metric is Metric.LATENCY:
        return {"x": 1.0}
    if metric is Metric.DISAGREEMENT:
        return {"%": 0.01}
    return {"ms": 0.001, "s": 1.0, "x": 1.0} if metric.is_latency else {"%": 0.01, "x": 1.0}


@attrs.frozen
class GateResult:
    """What one gate saw.

    Values are shares of bad events (0-1) in the sequential analysis, and in the metric's own unit (a rate 0-1, seconds) otherwise.
    """

    gate: str
    verdict: Verdict
    value: float | None = None
    limit: float | None = None
    sample: int = 0
    """Answers of the new revision."""
    reason: str = ""
    bad: int = 0
    """How many of the sample were bad events."""
    stable_value: float | None = None
    stable_sample: int = 0
    low: float | None = None
    """With ``high`` it encloses the value, at every look together with probability 0.95.

    For the outcomes of an A/B test both enclose how much the new revision's mean is above stable's.
    """
    high: float | None = None
    against: float | None = None
    """E-value against the revision: the gate fails when it reaches 1/alpha."""
    favour: float | None = None
    """E-value for the revision: the gate passes when it reaches 1/beta."""
