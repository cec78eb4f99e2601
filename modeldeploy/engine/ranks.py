"""The rank analysis, for compatibility: one value for each look, the new revision's series against stable's by Mann and Whitney's test.

It is the way of Kayenta's judge: a gate fails when the series are shifted by more than a quarter of the shift itself, with 98 % confidence,
and the last values break the gate's limit. It needs many looks, and events that are rare at each look escape it.
"""

from __future__ import annotations

import attrs

from modeldeploy.engine.evidence import Evidence
from modeldeploy.engine.gates import measure, show
from modeldeploy.stats.mannwhitney import rank_test
from modeldeploy.values.gate import Gate, GateResult, Verdict
from modeldeploy.values.metrics import Window

MOST_LOOKS = 400
LEAST_LOOKS = 20
_TOLERANCE = 0.25


def note(evidence: Evidence, gate: Gate, new: Window, stable: Window) -> Evidence:
    """Add one look to a gate's series, if both answered; the oldest of more than 400 are forgotten."""
    values = (measure(gate.metric, new), measure(gate.metric, stable))
    if values[0] is None or values[1] is None:
        return evidence
    known = evidence.series.get(str(gate), ())
    series = (*known[1 - MOST_LOOKS :], (values[0], values[1]))
    return attrs.evolve(evidence, series={**evidence.series, str(gate): series})


def judge(gate: Gate, evidence: Evidence, new: Window, stable: Window | None, *, min_sample: int) -> GateResult:
    """Compare the two series of a gate; fewer than 20 looks say nothing."""
    series = evidence.series.get(str(gate), ())
    value = measure(gate.metric, new)
    old = measure(gate.metric, stable) if stable is not None else None
    known = GateResult(str(gate), Verdict.INCONCLUSIVE, value, None, new.requests, stable_value=old)
    if len(series) < LEAST_LOOKS or new.requests < min_sample or value is None:
        return attrs.evolve(
            known, reason=f"{len(series)} of {LEAST_LOOKS} looks, {new.requests} of {min_sample} requests"
        )
    test = rank_test([pair[0] for pair in series], [pair[1] for pair in series])
    limit = gate.limit * (old or 0.0) if gate.relative else gate.limit
    failed = test.is_high(_TOLERANCE) and value > limit
    reason = (
        f"{show(gate.metric, value)} against a limit of {show(gate.metric, limit)} after {len(series)} looks; "
        f"shifted by {show(gate.metric, test.low)} to {show(gate.metric, test.high)}"
    )
    return attrs.evolve(known, verdict=Verdict.FAIL if failed else Verdict.PASS, limit=limit, reason=reason)
