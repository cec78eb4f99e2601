"""The default analysis: one e-process for each kind of bad event, valid at every look.

An e-value of 20 against the new revision means: if it were no worse than stable, so much evidence would come up at any time with a
probability of at most 1/20 (Ville 1939). So looking every second costs nothing, and a test may be stopped whenever it likes. The formulas and
their sources stand in ``modeldeploy.stats.eprocess``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

from modeldeploy.engine.evidence import BadEvent, Evidence, events_of
from modeldeploy.stats import eprocess, sample_ratio
from modeldeploy.stats.eprocess import Stratum
from modeldeploy.stats.intervals import rate_interval
from modeldeploy.values.analysis import Analysis
from modeldeploy.values.gate import Gate, GateResult, Metric, Verdict
from modeldeploy.values.metrics import Window

_RATIO_ALPHA = 0.001
_LARGEST = 690.0
"""Logarithm of the largest e-value that is shown."""


def judge(
    gates: Iterable[Gate], evidence: Evidence, analysis: Analysis, *, min_sample: int, base: Window | None = None
) -> tuple[GateResult, ...]:
    """Hold every gate against all counts so far.

    The rollout fails when the mean of the gates' evidence against it reaches 1/alpha: a mean of e-values is one, whatever their dependence, so
    alpha covers all gates together. It passes when each gate's evidence in favour reaches 1/beta. ``base`` is what stable answered before it
    lost all traffic, for the time in which nothing of it can be seen.
    """
    known = [(gate, *_weigh(gate, evidence, analysis, base)) for gate in gates]
    failed = bool(known) and eprocess.log_mean(against for _gate, against, _favour in known) >= -math.log(
        analysis.alpha
    )
    return tuple(
        _result(gate, evidence, analysis, (against, favour), failed=failed, min_sample=min_sample)
        for gate, against, favour in known
    )


def ratio_broken(evidence: Evidence) -> str | None:
    """Say in words that the provider does not honour the weights; None while nothing speaks against it."""
    split = [stratum for stratum in evidence.assigned if stratum.new_share and stratum.stable_share]
    if sample_ratio.log_evidence_over(
        (each.new_share, each.stable_share, each.new_seen, each.stable_seen) for each in split
    ) < -math.log(_RATIO_ALPHA):
        return None
    last = max(split, key=lambda stratum: stratum.new_seen + stratum.stable_seen)
    total = last.new_seen + last.stable_seen
    return (
        f"the new revision was given {100 * last.new_seen / total:.2f} % of {total} requests "
        f"where its share is {100 * last.share:.2f} %"
    )


def _weigh(gate: Gate, evidence: Evidence, analysis: Analysis, base: Window | None) -> tuple[float, float]:
    """Give the logarithms of a gate's evidence against and in favour: the mean over its bad events."""
    pairs = [_evidence(event, evidence.strata.get(event.name, ()), analysis, base) for event in events_of(gate)]
    return eprocess.log_mean(pair[0] for pair in pairs), eprocess.log_mean(pair[1] for pair in pairs)


def _evidence(
    event: BadEvent, strata: tuple[Stratum, ...], analysis: Analysis, base: Window | None
) -> tuple[float, float]:
    """Give the logarithms of the evidence against and in favour of one kind of bad event."""
    beside = [stratum for stratum in strata if stratum.concurrent]
    low, high = _before(event, base)
    if event.limit is not None:
        # No worse than stable, or within the limit: either is enough to stay. Alone, the limit holds unless stable surely broke it before.
        against = eprocess.log_fail_both(strata, event.limit, max(event.limit, low, _beyond_quantile(event, base)))
    elif beside:
        against = eprocess.log_fail_ratio(strata, event.tolerance)
    else:
        against = eprocess.log_fail_rate(strata, min(1.0, event.tolerance * high))
    floor = analysis.max_rate if event.limit is None else event.limit
    favours = [eprocess.log_pass_rate(strata, floor)]
    if beside:
        favours.append(eprocess.log_pass_ratio(strata, max(analysis.max_ratio, event.tolerance * eprocess.MARGIN)))
    return against, eprocess.log_mean(favours)


def _before(event: BadEvent, base: Window | None) -> tuple[float, float]:
    """Enclose the share of bad events that stable had while it still answered; anything is possible where that is not known."""
    bucket = event.bucket(base) if base is not None else None
    if base is None or bucket is None or not event.seen(base):
        return 0.0, 1.0
    return rate_interval(event.bad(base, bucket), event.seen(base))


def _beyond_quantile(event: BadEvent, base: Window | None) -> float:
    """Give the largest share of stable's answers that may lie beyond its own quantile, which is known from few of them only."""
    if event.quantile is None or base is None or event.bucket(base) is None:
        return 0.0
    return _before(attrs.evolve(event, factor=1.0), base)[1]


def _result(
    gate: Gate,
    evidence: Evidence,
    analysis: Analysis,
    logs: tuple[float, float],
    *,
    failed: bool,
    min_sample: int,
) -> GateResult:
    against, favour = logs
    event = max(events_of(gate), key=lambda each: _bad_share(evidence.strata.get(each.name, ())))
    strata = evidence.strata.get(event.name, ())
    seen, bad = sum(each.new_seen for each in strata), sum(each.new_bad for each in strata)
    stable_seen, stable_bad = sum(each.stable_seen for each in strata), sum(each.stable_bad for each in strata)
    low, high = rate_interval(bad, seen) if seen else (None, None)
    verdict = Verdict.INCONCLUSIVE
    if failed and against >= -math.log(analysis.alpha):
        verdict = Verdict.FAIL
    elif favour >= -math.log(analysis.beta) and evidence.here >= min_sample:
        verdict = Verdict.PASS
    return GateResult(
        gate=str(gate),
        verdict=verdict,
        value=bad / seen if seen else None,
        limit=event.limit,
        sample=seen,
        reason=_reason(event, (bad, seen), (stable_bad, stable_seen), verdict, (against, favour)),
        bad=bad,
        stable_value=stable_bad / stable_seen if stable_seen else None,
        stable_sample=stable_seen,
        low=low,
        high=high,
        against=_plain(against),
        favour=_plain(favour),
    )


def _bad_share(strata: tuple[Stratum, ...]) -> float:
    seen = sum(stratum.new_seen for stratum in strata)
    return sum(stratum.new_bad for stratum in strata) / seen if seen else 0.0


def _plain(log: float) -> float:
    return math.exp(min(log, _LARGEST))


def _reason(
    event: BadEvent, new: tuple[int, int], stable: tuple[int, int], verdict: Verdict, logs: tuple[float, float]
) -> str:
    """Say what was counted and how much it weighs, as people read it."""
    if not new[1]:
        return "nothing was answered yet"
    beside = f", stable {_share(*stable)} of {stable[1]}" if stable[1] else ""
    weight = logs[0] if verdict is Verdict.FAIL else logs[1]
    side = "against it" if verdict is Verdict.FAIL else "for it"
    most = "" if event.limit is None else f" (at most {100 * event.limit:g} % may)"
    return f"{new[0]} of {new[1]} {_what(event)}, {_share(*new)}{most}{beside}; evidence {side} {_plain(weight):.3g}"


def _share(bad: int, seen: int) -> str:
    return f"{100 * bad / seen:.2f} %"


def _what(event: BadEvent) -> str:
    if event.metric is Metric.DISAGREEMENT:
        return "answers differ from stable's"
    if event.seconds is not None:
        return f"answers took over {event.seconds * 1000:g} ms"
    if event.quantile is not None:
        times = "" if event.factor == 1 else f"{event.factor:g} x "
        return f"answers took over {times}stable's p{event.quantile * 100:g}"
    return "requests failed"
