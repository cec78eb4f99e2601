"""How a new revision takes over, and what must hold while it does."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.serving import WHOLE

DEFAULT_SAMPLE = 50
"""Requests that the new revision must have answered before a gate says anything."""


class Strategy(enum.StrEnum):
    """The shapes of a rollout."""

    ALL_AT_ONCE = "all-at-once"
    CANARY = "canary"
    LINEAR = "linear"
    BLUE_GREEN = "blue-green"


class Verdict(enum.StrEnum):
    """What the evidence says; "not enough" is an answer of its own."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class OnInconclusive(enum.StrEnum):
    """What happens when a step's time is up and the evidence does not suffice."""

    HOLD = "hold"
    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Metric(enum.StrEnum):
    """What a gate looks at."""

    ERROR_RATE = "error_rate"
    P50_LATENCY = "p50_latency"
    P90_LATENCY = "p90_latency"
    P95_LATENCY = "p95_latency"
    P99_LATENCY = "p99_latency"

    @property
    def quantile(self) -> float | None:
        """The quantile (0-1) of a latency metric; None for the error rate."""
        digits = re.match(r"p(\d+)_", self.value)
        return int(digits[1]) / 100 if digits else None


_GATE = re.compile(r"\s*(?P<metric>\w+)\s*(?P<op>[<>=!]+)\s*(?P<number>[0-9.]+)\s*(?P<unit>%|[a-z]+)?\s*")
_EXAMPLES = "for example 'error_rate <= 1%', 'p95_latency <= 1.2x' (of stable) or 'p99_latency <= 80ms'"


@attrs.frozen
class Gate:
    """A condition on the new revision: ``metric <= limit``, absolute (a rate 0-1, seconds) or relative to stable.

    >>> Gate.parse("p95_latency <= 1.2x")
    Gate(metric=<Metric.P95_LATENCY: 'p95_latency'>, limit=1.2, relative=True)
    """

    metric: Metric
    limit: float
    relative: bool = False

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.limit < math.inf:
            message = f"limit of a gate on {self.metric.value} is {self.limit!r}"
            raise ConfigurationError(message, hint="use a finite number of 0 or more")

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read ``"metric <= number unit"``; ConfigurationError points at the part that is wrong."""
        found = _GATE.fullmatch(text)
        if found is None:
            message = f"gate {text!r} cannot be read"
            raise ConfigurationError(message, hint=f"write 'metric <= limit', {_EXAMPLES}")
        metric = _metric(found["metric"], text)
        if found["op"] != "<=":
            message = f"operator {found['op']!r} in gate {text!r} is not '<='"
            raise ConfigurationError(message, hint="a gate states the most that is allowed; write 'metric <= limit'")
        return cls(metric, *_limit(metric, found["number"], found["unit"], text))

    def __str__(self) -> str:
        if self.relative:
            return f"{self.metric.value} <= {self.limit:g}x"
        if self.metric.quantile is None:
            return f"{self.metric.value} <= {self.limit * 100:g}%"
        return f"{self.metric.value} <= {self.limit * 1000:g}ms"


def _metric(word: str, text: str) -> Metric:
    try:
        return Metric(word)
    except ValueError as error:
        message = f"metric {word!r} in gate {text!r} is not known"
        raise ConfigurationError(message, hint=f"known metrics are {[each.value for each in Metric]}") from error


def _limit(metric: Metric, number: str, unit: str | None, text: str) -> tuple[float, bool]:
    try:
        value = float(number)
    except ValueError as error:
        message = f"limit {number!r} in gate {text!r} is not a number"
        raise ConfigurationError(message, hint=_EXAMPLES) from error
    if unit == "x":
        return value, True
    units = {"%": 0.01} if metric.quantile is None else {"ms": 0.001, "s": 1.0}
    if unit not in units:
        message = f"unit {unit or 'none'} in gate {text!r} does not fit {metric.value}"
        raise ConfigurationError(message, hint=f"use one of {[*units, 'x']}, {_EXAMPLES}")
    return value * units[unit], False


@attrs.frozen
class GateResult:
    """What one gate saw: ``value`` and ``limit`` in the metric's own unit (rate 0-1, seconds), ``sample`` in requests."""

    gate: str
    verdict: Verdict
    value: float | None = None
    limit: float | None = None
    sample: int = 0
    reason: str = ""


@attrs.frozen
class RolloutPolicy:
    """How a new revision takes over: the percentages it walks through, how long each lasts, and the gates that must hold.

    Use the constructors ``all_at_once``, ``canary``, ``linear`` and ``blue_green``. Durations are seconds.
    """

    strategy: Strategy
    steps: tuple[int, ...]
    """Percentages of the new revision in order; the last is 100."""
    soak: float = 0.0
    """How long each step lasts at least before its gates decide."""
    bake: float = 0.0
    """How long the gates still watch at 100 %."""
    gates: tuple[Gate, ...] = ()
    min_sample: int = DEFAULT_SAMPLE
    max_soak: float = 600.0
    """How long a step may wait for enough evidence; then ``on_inconclusive`` decides."""
    on_inconclusive: OnInconclusive = OnInconclusive.HOLD
    interval: float = 1.0
    """How often the gates look."""

    def __attrs_post_init__(self) -> None:
        _check_steps(self.steps)
        for name in ("soak", "bake", "max_soak"):
            _check_seconds(name, getattr(self, name))
        if not self.interval > 0:
            message = f"interval is {self.interval!r}"
            raise ConfigurationError(message, hint="use a number of seconds above 0")
        if self.min_sample < 1:
            message = f"min_sample is {self.min_sample!r}"
            raise ConfigurationError(message, hint="use 1 or more requests")

    @classmethod
    def all_at_once(cls) -> RolloutPolicy:
        """Switch everything at once when the new revision is ready and reproduces its golden outputs."""
        return cls(Strategy.ALL_AT_ONCE, (WHOLE,))

    @classmethod
    def canary(
        cls,
        steps: int | Iterable[int] = (5, 25, 50),
        *,
        soak: float = 60.0,
        gates: Iterable[str | Gate] = (),
        min_sample: int = DEFAULT_SAMPLE,
        max_soak: float | None = None,
        on_inconclusive: str = "hold",
        interval: float = 1.0,
    ) -> RolloutPolicy:
        """Walk through ``steps`` (percent), each for at least ``soak`` seconds and until its gates pass; 100 follows by itself."""
        return cls._walk(
            Strategy.CANARY, _percentages(steps), soak, gates, min_sample, max_soak, on_inconclusive, interval
        )

    @classmethod
    def linear(
        cls,
        step: int = 10,
        *,
        every: float = 60.0,
        gates: Iterable[str | Gate] = (),
        min_sample: int = DEFAULT_SAMPLE,
        max_soak: float | None = None,
        on_inconclusive: str = "hold",
        interval: float = 1.0,
    ) -> RolloutPolicy:
        """Add ``step`` percent every ``every`` seconds while the gates pass."""
        if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step <= WHOLE:
            message = f"step is {step!r}"
            raise ConfigurationError(message, hint="use a whole number from 1 to 100 percent")
        steps = tuple(range(step, WHOLE, step))
        return cls._walk(Strategy.LINEAR, steps, every, gates, min_sample, max_soak, on_inconclusive, interval)

    @classmethod
    def blue_green(
        cls,
        *,
        bake: float = 300.0,
        gates: Iterable[str | Gate] = (),
        min_sample: int = DEFAULT_SAMPLE,
        interval: float = 1.0,
    ) -> RolloutPolicy:
        """Switch everything at once, keep the old revision warm, and go back when a gate fails within ``bake`` seconds."""
        parsed = _gates(gates)
        return cls(Strategy.BLUE_GREEN, (WHOLE,), bake=bake, gates=parsed, min_sample=min_sample, interval=interval)

    @classmethod
    def _walk(  # noqa: PLR0917 - the shared tail of two constructors, in their order
        cls,
        strategy: Strategy,
        steps: tuple[int, ...],
        soak: float,
        gates: Iterable[str | Gate],
        min_sample: int,
        max_soak: float | None,
        on_inconclusive: str,
        interval: float,
    ) -> RolloutPolicy:
        return cls(
            strategy,
            steps if steps[-1:] == (WHOLE,) else (*steps, WHOLE),
            soak=soak,
            gates=_gates(gates),
            min_sample=min_sample,
            max_soak=max(10 * soak, 600.0) if max_soak is None else max_soak,
            on_inconclusive=_on_inconclusive(on_inconclusive),
            interval=interval,
        )

    def __str__(self) -> str:
        walk = " > ".join(f"{step} %" for step in self.steps)
        gates = f", gates: {'; '.join(str(gate) for gate in self.gates)}" if self.gates else ""
        return f"{self.strategy.value} {walk}{gates}"


def _percentages(steps: int | Iterable[int]) -> tuple[int, ...]:
    return (steps,) if isinstance(steps, int) else tuple(steps)


def _gates(gates: Iterable[str | Gate]) -> tuple[Gate, ...]:
    if isinstance(gates, str):
        message = f"gates is one string: {gates!r}"
        raise ConfigurationError(message, hint=f"pass a list: [{gates!r}]")
    return tuple(gate if isinstance(gate, Gate) else Gate.parse(gate) for gate in gates)


def _on_inconclusive(word: str) -> OnInconclusive:
    try:
        return OnInconclusive(word)
    except ValueError as error:
        message = f"on_inconclusive is {word!r}"
        raise ConfigurationError(message, hint=f"one of {[each.value for each in OnInconclusive]}") from error


def _check_steps(steps: tuple[int, ...]) -> None:
    whole = all(isinstance(step, int) and not isinstance(step, bool) and 1 <= step <= WHOLE for step in steps)
    rising = list(steps) == sorted(set(steps))
    if not (steps and whole and rising):
        message = f"steps are {steps!r}"
        raise ConfigurationError(message, hint="use rising whole percentages from 1 to 100, for example (5, 25, 50)")


def _check_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        message = f"{name} is {value!r}"
        raise ConfigurationError(message, hint="use a number of seconds, 0 or more")
