"""One look at a rollout: read the metrics, add them to the evidence, ask the gates.

Nothing is decided here. A look either gives what every gate says, or says that the metrics cannot be read.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.engine import gates, sequential
from modeldeploy.engine.cursor import RolloutCursor
from modeldeploy.engine.effects import Flow, Outcomes, attempt
from modeldeploy.engine.evidence import Evidence, Interval, count, events_of
from modeldeploy.errors import FencedError, ModelDeployError, OperationFailed
from modeldeploy.spi import Meters, Rollable
from modeldeploy.stats.means import FEWEST, Tally, compare_means
from modeldeploy.values.analysis import Method
from modeldeploy.values.gate import Gate, GateResult, Metric, Verdict
from modeldeploy.values.look import Look
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import WHOLE

_BASELINE_S = 60.0
"""How far back stable is measured for its quantiles, and for its rates when it answers nothing any more."""
_LONGEST_S = 3600.0
_LATEST_S = 60.0
"""How long after a table was replaced its last answers are waited for."""
_LEAST_KNOWN = 500
"""Answers of stable within which its p99 is known."""


class BlindError(Exception):
    """The metrics cannot be read; the cause says why."""


class Looker:
    """Looks at one rollout through its backend's metrics."""

    def __init__(self, backend: Rollable, cursor: RolloutCursor) -> None:
        self._backend = backend
        self._cursor = cursor
        self._policy = cursor.policy

    def look(self, at: float, since: float) -> Flow[tuple[Evidence, tuple[GateResult, ...]]]:
        """Count what was answered since the last look and ask every gate; BlindError when the metrics cannot be read."""
        evidence = yield from self._counted(at, since)
        whole = yield from self._step(since, at) if self._wants_windows() else _nothing()
        said = {each.gate: each for each in (yield from self._sequential(evidence, since))}
        for gate in self._policy.gates:
            if gate not in self._tested:
                said[str(gate)] = yield from self._ask(gate, evidence, whole, at - since)
        return evidence, tuple(said[str(gate)] for gate in self._policy.gates)

    @property
    def _tested(self) -> tuple[Gate, ...]:
        """The gates that the sequential test decides."""
        if self._policy.analysis.method is not Method.SEQUENTIAL:
            return ()
        return tuple(gate for gate in self._policy.gates if gate.metric not in {Metric.CUSTOM, Metric.OUTCOME})

    def _wants_windows(self) -> bool:
        return any(gate not in self._tested and gate.metric is not Metric.OUTCOME for gate in self._policy.gates)

    # Counting

    def _counted(self, at: float, since: float) -> Flow[Evidence]:
        evidence = self._cursor.evidence
        if self._policy.analysis.method is Method.THRESHOLD:
            return evidence
        start, end = max(evidence.upto, self._slot(since, up=not self._by_share)), self._known(at)
        if end <= start:
            return evidence
        evidence = yield from self._late(evidence, end, since)
        interval = yield from self._interval(start, end, since)
        evidence = attrs.evolve(evidence, upto=end)
        if interval.empty:
            return evidence
        evidence = count(evidence, interval, tuple(event for gate in self._tested for event in events_of(gate)))
        if self._policy.analysis.method is Method.MANN_WHITNEY:
            from modeldeploy.engine import ranks

            for gate in self._policy.gates:
                if gate.metric in {Metric.CUSTOM, Metric.OUTCOME}:
                    continue
                evidence = ranks.note(evidence, gate, interval.new, interval.stable)
        return evidence

    def _late(self, evidence: Evidence, end: float, since: float) -> Flow[Evidence]:
        """Count what was asked for under the table before this one and was not counted yet: the slowest answers, and time-outs, come last.

        It belongs to that table's stratum, and is no part of this step's sample.
        """
        before, start = self._cursor.step - 1, max(evidence.upto, self._slot(since - _LATEST_S))
        known = self._by_share and bool(self._tested) and evidence.upto > 0 and before >= 0
        if not known or start >= end or start > since + _LATEST_S or not self._policy.steps[before]:
            return evidence
        earlier = Looker(self._backend, attrs.evolve(self._cursor, step=before))
        interval = yield from earlier._interval(start, end, since)
        if interval.empty:
            return evidence
        counted = count(evidence, interval, tuple(event for gate in self._tested for event in events_of(gate)))
        return attrs.evolve(counted, here=evidence.here)

    @property
    def _by_share(self) -> bool:
        return self._backend.capabilities.meters_by_share

    def _slot(self, at: float, *, up: bool = False) -> float:
        """Give the border of the time slot that holds a moment: the metrics are kept in whole slots."""
        length = self._backend.capabilities.meter_resolution
        if not length:
            return at
        return length * (math.ceil(at / length) if up else math.floor(at / length))

    def _known(self, at: float) -> float:
        """Give the end of the last slot that does not grow any more."""
        return self._slot(at - self._backend.capabilities.meter_delay)

    def _interval(self, start: float, end: float, since: float) -> Flow[Interval]:
        cursor, stable = self._cursor, self._cursor.stable
        percent, shares = cursor.percent, cursor.shares
        new = yield from self._window(cursor.revision.id, start, end, share=percent)
        if new.dropped:
            # Fewer copies came than should have: what is rare may only have been dropped, so stable is no measure here.
            shares = (shares[0], 0)
        if stable is None:
            nobody = Window("", start, end)
            return Interval(shares, new, nobody, nobody)
        # With everything on the new revision there is no stable beside it, only the one before.
        old = nobody = Window(stable, start, end)
        if percent < WHOLE:
            old = yield from self._window(stable, start, end, share=cursor.table(cursor.step).share(stable))
        relative = any(gate.relative and gate.metric.is_latency for gate in self._tested)
        base = (yield from self._before(stable, since if percent == WHOLE else start)) if relative else nobody
        return Interval(shares, new, old, base, copied=not percent, told=self._by_share)

    def _before(self, stable: str, end: float) -> Flow[Window]:
        """Read what stable did up to ``end``: as little as suffices to know its quantiles, so that they follow the load."""
        end = self._slot(end)
        base = yield from self._window(stable, self._slot(end - max(_BASELINE_S, self._policy.bake)), end)
        if base.requests < _LEAST_KNOWN:
            base = yield from self._window(stable, self._slot(end - _LONGEST_S), end)
        return base

    def _window(self, revision: str, since: float, until: float, *, share: int | None = None) -> Flow[Window]:
        meters, name = self._backend, self._cursor.endpoint.name
        if not isinstance(meters, Meters):
            message = f"backend {self._backend.name!r} declares meters and has none"
            raise OperationFailed(message)
        read = lambda: meters.window(name, revision, since, until, share=share)  # noqa: E731 - a call to be made later
        return (yield from _seeing(attempt("read metrics", read)))

    # Asking

    def _sequential(self, evidence: Evidence, since: float) -> Flow[tuple[GateResult, ...]]:
        policy, base = self._policy, None
        if self._tested and self._cursor.percent == WHOLE and self._cursor.stable is not None:
            base = yield from self._before(self._cursor.stable, since)
        return sequential.judge(self._tested, evidence, policy.analysis, min_sample=policy.min_sample, base=base)

    def _step(self, since: float, at: float) -> Flow[tuple[Window, Window | None] | None]:
        """Read what both revisions did since this step began."""
        cursor = self._cursor
        copies = 0 if not cursor.percent else None
        start = self._slot(since, up=True)
        end = max(start, self._known(at))
        new = yield from self._window(cursor.revision.id, start, end, share=copies)
        if cursor.stable is None:
            return new, None
        if cursor.percent == WHOLE:
            start, end = self._slot(since - max(self._policy.bake, _BASELINE_S)), self._slot(since)
        return new, (yield from self._window(cursor.stable, start, end))

    def _ask(
        self, gate: Gate, evidence: Evidence, whole: tuple[Window, Window | None] | None, elapsed: float
    ) -> Flow[GateResult]:
        if gate.metric is Metric.OUTCOME:
            return (yield from self._outcome(gate))
        new, stable = whole or (Window("", 0, 0), None)
        if gate.metric is Metric.CUSTOM:
            look = Look(self._cursor.revision.id, self._cursor.stable, self._cursor.percent, elapsed, new, stable)
            return (yield from _custom(gate, look))
        if self._policy.analysis.method is Method.MANN_WHITNEY:
            from modeldeploy.engine import ranks

            return ranks.judge(gate, evidence, new, stable, min_sample=self._policy.min_sample)
        return gates.judge(gate, new, stable, min_sample=self._policy.min_sample)

    def _outcome(self, gate: Gate) -> Flow[GateResult]:
        tallies: dict[str, Tally] = yield Outcomes()
        new = tallies.get(self._cursor.revision.id, Tally())
        old = tallies.get(self._cursor.stable or "", Tally())
        result = GateResult(str(gate), Verdict.INCONCLUSIVE, new.mean, old.mean, new.count, stable_value=old.mean)
        result = attrs.evolve(result, stable_sample=old.count)
        if min(new.count, old.count) < FEWEST:
            reason = f"{new.count} and {old.count} outcomes, at least {FEWEST} of each are needed"
            return attrs.evolve(result, reason=reason)
        low, high = compare_means(new, old, self._policy.analysis.alpha)
        verdict = Verdict.PASS if low > 0 else Verdict.FAIL if high < 0 else Verdict.INCONCLUSIVE
        reason = (
            f"mean outcome {new.mean:.4g} of {new.count}, stable {old.mean:.4g} of {old.count}; "
            f"the difference lies between {low:+.4g} and {high:+.4g}"
        )
        return attrs.evolve(result, verdict=verdict, reason=reason, low=low, high=high)


def _nothing() -> Flow[None]:
    yield from ()


def _seeing(reading: Flow[Window]) -> Flow[Window]:
    """Tell apart that metrics cannot be read from everything else that may fail."""
    try:
        return (yield from reading)
    except FencedError:
        raise
    except ModelDeployError as error:
        raise BlindError(str(error)) from error


def _custom(gate: Gate, look: Look) -> Flow[GateResult]:
    """Ask a user's function; one that raises, or is not to be found, sees nothing."""
    result = GateResult(str(gate), Verdict.BLIND, sample=max(look.new.requests, look.new.compared))
    try:
        answer = yield from attempt(f"ask gate {gate}", lambda: _function(gate)(look))
        verdict, reason = answer if isinstance(answer, tuple) else (answer, "")
        return attrs.evolve(result, verdict=_verdict(verdict), reason=str(reason))
    except FencedError:
        raise
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything, and it is told
        return attrs.evolve(result, reason=f"{type(error).__name__}: {error}")


def _verdict(answer: object) -> Verdict:
    if answer is None:
        return Verdict.INCONCLUSIVE
    if isinstance(answer, Verdict):
        return answer
    # numpy's True and 1 are yes as well; "no" and NaN would be true, and are no answer.
    if isinstance(answer, str) or answer != bool(answer):
        message = f"the function answered {answer!r}, which is neither True, False nor None"
        raise TypeError(message)
    return Verdict.PASS if answer else Verdict.FAIL


def _function(gate: Gate) -> Callable[[Look], Any]:
    """Find the function of a gate: in this process, or by its name."""
    if gate.known is not None:
        return gate.known
    module, _colon, path = gate.function.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        message = f"function {gate.function!r} of a gate is not known to this process"
        raise OperationFailed(message, hint="define gates in a module that every driver can import")
    return found  # type: ignore[no-any-return]  # whatever it is, it can be called
