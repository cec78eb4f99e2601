"""What can be expected of a policy before it starts: how long its gates need until they know.

The figures are those of the sequential analysis on average: its median time, simulated, is 0.7 to 1.3 times the forecast. A revision is
called worse here when its bad events are ``max_ratio`` times as frequent as what the gate tolerates: stable's share of them, or the gate's
own limit where that is more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from modeldeploy.errors import ConfigurationError
from modeldeploy.stats.eprocess import MARGIN, WORSE
from modeldeploy.stats.forecast import events_to_certify, events_to_detect, requests_to_certify_rate
from modeldeploy.values.analysis import Analysis, Method
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.serving import WHOLE

if TYPE_CHECKING:
    from modeldeploy.values.rollout import RolloutPolicy

_SLOWEST = 0.1
"""Share of stable's answers above p90, for the gate on the whole distribution."""
_LARGER = (10, 25, 50)
_CERTAIN = 0.999
_LOOKS = 20
"""Looks below which the rank test says nothing."""
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


@attrs.frozen
class Expectation:
    """One gate in one step, as if all evidence came from this step; requests of the whole endpoint, seconds. Infinite is never."""

    percent: int
    """The share of the new revision; 0 where it is sent copies."""
    gate: str
    detect_requests: float
    """Until a revision that is worse is taken back."""
    detect_seconds: float
    pass_requests: float
    """Until a revision that is as good as stable passes."""
    pass_seconds: float


@attrs.frozen(repr=False)
class Forecast:
    """The answer of ``RolloutPolicy.forecast``: expectations for each step and gate, the time in all, and what will not work."""

    rps: float
    base_rate: float
    max_ratio: float
    steps: tuple[Expectation, ...]
    seconds: float
    """Until a revision that is as good as stable has gone through all steps, if no step's time runs out; infinite is never."""
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table: share, gate, when a worse revision is seen, when a good one passes."""
        return [
            (
                f"{each.percent} %" if each.percent else "copies",
                each.gate,
                _figure(each.detect_requests, each.detect_seconds),
                _figure(each.pass_requests, each.pass_seconds),
            )
            for each in self.steps
        ]

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """The heads of the table."""
        return ("share", "gate", f"{self.max_ratio:g} times as bad: back after", "as good: passes after")

    def __str__(self) -> str:
        table = _aligned([self.columns, *self.rows]) if self.steps else ["no gate that can be foreseen"]
        head = f"at {self.rps:g} requests/s of which {100 * self.base_rate:g} % are bad"
        whole = f"in all {rough_duration(self.seconds)} for a revision as good as stable"
        return "\n".join([head, *table, whole, *(f"warning: {warning}" for warning in self.warnings)])

    __repr__ = __str__


def rough_duration(seconds: float) -> str:
    """Write a span of time roughly.

    >>> [rough_duration(span) for span in (42, 600, 8286, 3e5, float("inf"))]
    ['42 s', '10 min', '2.3 h', '3.5 days', 'never']
    """
    if math.isinf(seconds):
        return "never"
    for unit, name in ((_DAY, "days"), (_HOUR, "h")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} s" if seconds < 2 * _MINUTE else f"{seconds / _MINUTE:.0f} min"


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _figure(requests: float, seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{requests:,.0f} requests, {rough_duration(seconds)}"


def expect(policy: RolloutPolicy, *, rps: float, base_rate: float) -> Forecast:
    """Work out the forecast of a policy; ``RolloutPolicy.forecast`` for users."""
    _check(rps, base_rate)
    counted = {gate: bad for gate in policy.gates if (bad := _bad(gate, base_rate)) is not None}
    outlook = _Outlook(policy, rps, counted)
    spans = outlook.spans()
    return Forecast(
        rps=rps,
        base_rate=base_rate,
        max_ratio=policy.analysis.max_ratio,
        steps=tuple(outlook.steps()),
        seconds=sum(spans.values()),
        warnings=(*outlook.late(spans), *outlook.unseen()),
    )


def _check(rps: float, base_rate: float) -> None:
    for name, value, most, hint in (
        ("rps", rps, math.inf, "use the requests a second of the whole endpoint, above 0"),
        ("base_rate", base_rate, 1, "use stable's share of failed answers, for example 0.01"),
    ):
        if not isinstance(value, int | float) or not 0 <= value < most or (name == "rps" and not value):
            message = f"{name} is {value!r}"
            raise ConfigurationError(message, hint=hint)


@attrs.frozen
class _Bad:
    """What a gate counts: stable's share of bad events, and what is tolerated."""

    base: float
    limit: float | None = None
    tolerance: float = 1.0
    alone: bool = False
    """Whether stable has no such events to compare with."""


def _bad(gate: Gate, base_rate: float) -> _Bad | None:
    """Translate a gate; None for what cannot be foreseen. Where stable's share is not known, half the limit is assumed."""
    if gate.metric is Metric.ERROR_RATE:
        return _Bad(base_rate, tolerance=gate.limit) if gate.relative else _Bad(base_rate, gate.limit)
    if gate.metric is Metric.LATENCY:
        return _Bad(_SLOWEST)
    if gate.metric is Metric.DISAGREEMENT:
        return _Bad(gate.limit / 2, gate.limit, alone=True)
    if gate.metric.quantile is None:
        return None
    rest = 1 - gate.metric.quantile
    return _Bad(rest if gate.relative else rest / 2, rest)


def _exposure(policy: RolloutPolicy, percent: int) -> tuple[float, float]:
    """Give how many answers of the new revision and of stable there are for each request."""
    if percent == 0:
        return policy.copies / WHOLE, 1.0
    return percent / WHOLE, 1 - percent / WHOLE


def _to_detect(bad: _Bad, analysis: Analysis, new: float, stable: float, gates: int) -> float:
    """Give the requests until a worse revision fails: it must be worse than stable and, where there is a limit, break that too."""
    # The mean over all gates must reach 1/alpha, and the others may have nothing to say.
    alpha = analysis.alpha / gates
    if bad.limit is None:
        ratio = _most(bad, analysis)
        rate = min(_CERTAIN, ratio * bad.base)
        if stable:
            return _spread(events_to_detect(_share(new, stable), ratio, alpha, bad.tolerance), bad, rate, new, stable)
        return _to_exceed(bad.tolerance * bad.base, rate, alpha) / new
    rate = min(_CERTAIN, analysis.max_ratio * max(bad.base, bad.limit))
    breaks = _to_exceed(bad.limit, rate, alpha) / new
    if not stable:
        return breaks
    ratio = min(rate / bad.base, WORSE[-1]) if bad.base else WORSE[-1]
    return max(breaks, _spread(events_to_detect(_share(new, stable), ratio, alpha), bad, rate, new, stable))


def _to_pass(bad: _Bad, analysis: Analysis, new: float, stable: float) -> float:
    """Give the requests until one as good as stable passes, by its ratio or its rate alone; the mean of both must reach 1/beta."""
    beta = analysis.beta / 2 if stable else analysis.beta
    floor = analysis.max_rate if bad.limit is None else bad.limit
    # Nothing shows that no answer can be bad, and any good answer that not all are.
    by_rate = requests_to_certify_rate(floor, bad.base, beta) / new if 0 < floor < 1 else (0.0 if floor else math.inf)
    if not stable:
        return by_rate
    events = events_to_certify(_share(new, stable), _most(bad, analysis), beta)
    return min(by_rate, _spread(events, bad, bad.base, new, stable))


def _most(bad: _Bad, analysis: Analysis) -> float:
    """Give the ratio to stable that must not be reached: at least a third above what is tolerated."""
    return max(analysis.max_ratio, bad.tolerance * MARGIN)


def _share(new: float, stable: float) -> float:
    return new / (new + stable)


def _spread(events: float, bad: _Bad, rate: float, new: float, stable: float) -> float:
    """Give the requests in which so many bad events fall, when the new revision's share of them is ``rate``."""
    frequency = bad.base * stable + rate * new
    return events / frequency if frequency else math.inf


def _to_exceed(limit: float, rate: float, alpha: float) -> float:
    """Answers until a share ``rate`` of bad ones is known to be above the limit: ln(1/alpha) over the evidence in each (Wald 1945)."""
    if rate <= limit:
        return math.inf
    evidence = rate * math.log(rate / limit) if limit else math.inf
    evidence += (1 - rate) * math.log((1 - rate) / (1 - limit))
    return max(1 / rate, -math.log(alpha) / evidence)


def _part(span: float, whole: float) -> float:
    """Part of the way that a gate goes in ``span`` seconds."""
    return 1.0 if math.isinf(span) or whole == 0 else span / whole


@attrs.frozen
class _Outlook:
    """A policy, the requests a second, and what its gates count."""

    policy: RolloutPolicy
    rps: float
    counted: Mapping[Gate, _Bad]

    def steps(self) -> list[Expectation]:
        """Foresee each gate in each step in which it looks and can see something new."""
        looked_at = [step for step in self.policy.steps if step < WHOLE or self.policy.bake]
        return [self.expectation(percent, gate) for percent in looked_at for gate in self.watching(percent)]

    def watching(self, percent: int) -> list[Gate]:
        """Name the gates that learn something in a step: answers are compared while copies are sent, and at no other time."""
        return [gate for gate, bad in self.counted.items() if percent == 0 or not bad.alone]

    def expectation(self, percent: int, gate: Gate) -> Expectation:
        """Foresee one gate at one share."""
        bad, policy = self.counted[gate], self.policy
        new, stable = _exposure(policy, percent)
        stable = 0.0 if bad.alone else stable
        detect = passes = self.least(percent)
        if policy.analysis.method is Method.SEQUENTIAL:
            detect = _to_detect(bad, policy.analysis, new, stable, len(self.counted))
            passes = max(passes, _to_pass(bad, policy.analysis, new, stable))
        return Expectation(percent, str(gate), detect, detect / self.rps, passes, passes / self.rps)

    def least(self, percent: int) -> float:
        """Give the requests below which no gate passes."""
        looks = _LOOKS if self.policy.analysis.method is Method.MANN_WHITNEY else 0
        return max(self.policy.min_sample / _exposure(self.policy, percent)[0], looks * self.policy.interval * self.rps)

    def spans(self) -> dict[int, float]:
        """Seconds of each step, where every step goes on with the evidence of those before it."""
        left = dict.fromkeys(self.counted, 1.0)
        spans: dict[int, float] = {}
        for percent in self.policy.steps:
            if percent == WHOLE:
                spans[percent] = self.policy.bake
                continue
            whole = {gate: self.expectation(percent, gate).pass_seconds for gate in self.watching(percent)}
            least = self.least(percent) / self.rps if whole else 0.0
            due = [left[gate] * seconds for gate, seconds in whole.items() if left[gate]]
            # Outcomes come when they come; such a test ends with its time at the latest.
            last = self.policy.max_soak if self.policy.strategy == "ab-test" else 0.0
            spans[percent] = max([self.policy.soak, last, least, *due])
            for gate, seconds in whole.items():
                left[gate] = max(0.0, left[gate] - _part(spans[percent], seconds))
        return spans

    @property
    def allowed(self) -> float:
        """Seconds that a step may take."""
        return max(self.policy.soak, self.policy.max_soak)

    def late(self, spans: Mapping[int, float]) -> Iterable[str]:
        """Warn of the steps whose time runs out before their gates can pass."""
        ends = {"hold": "pauses", "promote": "goes on unproven", "rollback": "goes back"}
        for percent, span in spans.items():
            if percent == WHOLE or span <= self.allowed or not self.watching(percent):
                continue
            slowest = max(self.watching(percent), key=lambda gate: self.expectation(percent, gate).pass_seconds)
            where = f"at {percent} %" if percent else f"with copies of {self.policy.copies} %"
            needs = "comes to no verdict" if math.isinf(span) else f"needs about {rough_duration(span)}"
            then = ends[self.policy.on_inconclusive.value]
            remedies = "; ".join(self.remedies(percent, slowest, span))
            yield f"{where} gate '{slowest}' {needs}, and after {rough_duration(self.allowed)} the rollout {then}: {remedies}"

    def remedies(self, percent: int, gate: Gate, span: float) -> Iterable[str]:
        """Say what would help, the most useful first."""
        larger = (share for share in _LARGER if share > percent > 0)
        fits = next((share for share in larger if self.expectation(share, gate).pass_seconds <= self.allowed), None)
        if fits:
            yield f"start at {fits} %"
        if not math.isinf(span):
            yield f"set max_soak={math.ceil(span)}"
        if self.least(percent) / self.rps > self.allowed:
            yield f"ask for less than min_sample={self.policy.min_sample}"
        if gate.relative and gate.metric is Metric.ERROR_RATE:
            yield "state an absolute limit, for example 'error_rate <= 1%'"
        elif math.isinf(span):
            yield "state a limit that stable keeps with room to spare"

    def unseen(self) -> Iterable[str]:
        """Warn of a bake that ends before a worse revision shows."""
        for each in self.steps():
            if each.percent == WHOLE and each.detect_seconds > self.policy.bake:
                shows = (
                    "never" if math.isinf(each.detect_seconds) else f"after about {rough_duration(each.detect_seconds)}"
                )
                yield (
                    f"a revision {self.policy.analysis.max_ratio:g} times as bad shows in gate {each.gate!r} {shows}, and the"
                    f" bake ends after {rough_duration(self.policy.bake)}: bake longer, or use a canary, which is held against stable"
                )
