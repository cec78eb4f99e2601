"""Two windows to a verdict. Thresholds with a minimum sample: below it nothing is said, above it the limit decides.

A threshold looked at often fails more often than its limit suggests (1 % true errors against a limit of 1 % crosses it sooner or later);
leave room between what is normal and what is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from modeldeploy.values.gate import Gate, GateResult, Metric, Verdict
from modeldeploy.values.metrics import Window


def judge(gate: Gate, new: Window, stable: Window | None, *, min_sample: int) -> GateResult:
    """Hold one gate against what the new revision and, for a relative limit, stable answered in the same time."""
    value = measure(gate.metric, new)
    sample = new.compared if gate.metric is Metric.DISAGREEMENT else new.requests
    if value is None or sample < min_sample:
        return _unknown(gate, value, sample, f"{sample} of {min_sample} requests")
    limit = gate.limit
    if gate.relative:
        base = measure(gate.metric, stable) if stable is not None else None
        if stable is None or base is None or stable.requests < min_sample:
            seen = stable.requests if stable is not None else 0
            return _unknown(gate, value, new.requests, f"{seen} of {min_sample} requests on stable")
        limit = gate.limit * base
    verdict = Verdict.PASS if value <= limit else Verdict.FAIL
    reason = f"{show(gate.metric, value)} against a limit of {show(gate.metric, limit)} after {sample} requests"
    return GateResult(str(gate), verdict, value, limit, sample, reason)


def overall(results: Iterable[GateResult]) -> Verdict:
    """One verdict of many: a failure decides, then what cannot be read, then any doubt, else all passed."""
    verdicts = {result.verdict for result in results}
    for decisive in (Verdict.FAIL, Verdict.BLIND, Verdict.INCONCLUSIVE):
        if decisive in verdicts:
            return decisive
    return Verdict.PASS


def measure(metric: Metric, window: Window) -> float | None:
    """Read a metric off a window: a rate 0-1 or seconds; None without requests."""
    if metric is Metric.DISAGREEMENT:
        return window.disagreed / window.compared if window.compared else None
    return window.error_rate if metric.quantile is None else window.quantile(metric.quantile)


def show(metric: Metric, value: float) -> str:
    """Write a metric's value as people read it."""
    return f"{value * 100:.2f} %" if metric.quantile is None else f"{value * 1000:.3g} ms"


def _unknown(gate: Gate, value: float | None, sample: int, reason: str) -> GateResult:
    return GateResult(str(gate), Verdict.INCONCLUSIVE, value, None, sample, reason)
