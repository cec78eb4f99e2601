"""The bad-event e-process: evidence about a new revision that may be looked at as often as one likes.

An *e-value* is a nonnegative figure whose mean is at most 1 while a hypothesis holds. The ones here stay so however often, and for whatever
reason, one looks: the probability that one ever reaches 1/alpha while its hypothesis holds is at most alpha (Ville's inequality). All are
given as natural logarithms, since the figures themselves leave the range of floats.

Two facts carry the ratio evidence. Where a share w of the traffic goes to the new revision, and its answers are rho times as often bad as
stable's, a bad event is the new revision's with probability theta(rho, w) = rho w / (rho w + 1 - w), whatever the common rate is doing; and
the share is known when the event falls, so that conditioning on it (a *stratum* for each share) keeps growing canaries and moving base rates
from being blamed on the new revision. The process is our own derivation: each factor has mean 1 at the edge of its hypothesis and at most 1
inside. Kin in the literature: Lindon et al., Rapid Regression Detection in Software Deployments through Sequential Testing (arXiv
2205.14762); stratified e-variables in Turner & Grünwald (arXiv 2302.11401).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import attrs

WORSE = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""What the evidence against a revision bets on: its bad events are this many times as frequent as is tolerated."""
BETTER = (0.25, 0.375, 0.5, 0.625, 0.75)
"""What the evidence for a revision bets on, as parts of the ratio that must not be reached: 0.5 to 1.5 where that is 2."""
MARGIN = 4 / 3
"""How much more than what a gate tolerates must be refuted for it to pass: refuting just that would take for ever."""
RARER = (0.02, 0.1, 0.3, 0.6)
"""What the evidence for a rate below its limit bets on, as parts of the limit."""


@attrs.frozen
class Stratum:
    """Counts of a stretch of time in which the exposures did not change.

    ``new_share`` and ``stable_share`` are the exposures in any common unit: (5, 95) for a canary at 5 %, (20, 100) for a shadow that copies
    20 %. ``*_seen`` counts what was answered, ``*_bad`` the bad events. A unit that was seen in one stratum and went bad in a later one is
    counted once in each, so a stratum may hold more that is bad than was seen.
    """

    new_share: int
    stable_share: int
    new_seen: int = 0
    new_bad: int = 0
    stable_seen: int = 0
    stable_bad: int = 0

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if value < 0:
                message = f"{name} of a stratum is {value!r}, which is below 0"
                raise ValueError(message)

    @property
    def share(self) -> float:
        """Share of the exposure that is the new revision's, 0-1; 0 where there is none at all."""
        return self.new_share / max(1, self.new_share + self.stable_share)

    @property
    def concurrent(self) -> bool:
        """Whether both were exposed, so that one can be held against the other."""
        return self.new_share > 0 and self.stable_share > 0


def log_fail_ratio(strata: Iterable[Stratum], tolerance: float = 1.0) -> float:
    """Ln of the evidence that the new revision's bad events are more than ``tolerance`` times as frequent as stable's.

    H0: rho <= tolerance in every stratum. E = mean over k in ``WORSE`` of the product over strata of
    (theta(k t, w) / theta(t, w))^new_bad ((1 - theta(k t, w)) / (1 - theta(t, w)))^stable_bad, with t the tolerance. Strata in which only
    one of the two was exposed say nothing.
    """
    return _log_ratio(strata, _above_zero("tolerance", tolerance), WORSE)


def log_pass_ratio(strata: Iterable[Stratum], max_ratio: float = 2.0) -> float:
    """Ln of the evidence that the new revision's bad events are less than ``max_ratio`` times as frequent as stable's.

    H0: rho >= max_ratio in every stratum. The formula of ``log_fail_ratio``, with ``max_ratio`` for the tolerance and k in ``BETTER``.
    """
    return _log_ratio(strata, _above_zero("max_ratio", max_ratio), BETTER)


def log_fail_rate(strata: Iterable[Stratum], limit: float) -> float:
    """Ln of the evidence that a larger share than ``limit`` (0-1) of the new revision's answers is bad.

    H0: p <= limit. E = mean over k in ``WORSE`` with k limit < 1 of k^bad ((1 - k limit) / (1 - limit))^good, a likelihood ratio; where no k
    qualifies the bet is on p midway between the limit and 1. At limit 0 a single bad event is proof (inf); at 1 nothing is.
    """
    bad, good = _answers(strata)
    if _rate(limit) == 0:
        return math.inf if bad else 0.0
    bets = [k for k in WORSE if k * limit < 1] or [(1 + limit) / 2 / limit]
    # Next to 1 floats have no room for a bet, and there is no evidence either.
    return log_mean(_log_rate(k, limit, bad, good) for k in bets) if bets[0] * limit < 1 else 0.0


def log_pass_rate(strata: Iterable[Stratum], limit: float) -> float:
    """Ln of the evidence that a smaller share than ``limit`` (0-1) of the new revision's answers is bad.

    H0: p >= limit. E = mean over f in ``RARER`` of f^bad ((1 - f limit) / (1 - limit))^good. It is needed beside the ratio, for a service
    without bad events never gives evidence about one. At limit 1 a single good answer is proof (inf).
    """
    bad, good = _answers(strata)
    if _rate(limit) == 1:
        return math.inf if good else log_mean(bad * math.log(f) for f in RARER)
    return log_mean(_log_rate(f, limit, bad, good) for f in RARER)


def log_fail_both(strata: Iterable[Stratum], limit: float, alone: float | None = None) -> float:
    """Ln of the evidence that the new revision is worse than stable and that more than ``limit`` (0-1) of its answers are bad.

    H0: rho <= 1 or p <= limit while stable is exposed beside it, and p <= ``alone`` (the limit, unless it is given) while it is not. E = the
    lesser of both e-values over the strata with both, which is one for "either"; the e-value of the rate over those without stable; and the
    mean where there are both kinds. They are kept apart since the ratio learns nothing without stable: the lesser of all would stay as it is
    however many answers of a revision that is alone are bad.
    """
    counted = list(strata)
    beside = [stratum for stratum in counted if stratum.concurrent]
    left = [stratum for stratum in counted if not stratum.concurrent and stratum.new_share]
    logs = [min(log_fail_ratio(beside), log_fail_rate(beside, limit))] if beside else []
    if left:
        logs.append(log_fail_rate(left, limit if alone is None else alone))
    return log_mean(logs) if logs else 0.0


def log_mean(logs: Iterable[float]) -> float:
    """Ln of the arithmetic mean of e-values given as logarithms; at least one is needed.

    The mean of e-values is an e-value however they depend on each other (Vovk & Wang, arXiv 1912.06116).
    """
    known = list(logs)
    if not known:
        message = "there is no mean of no e-values"
        raise ValueError(message)
    top = max(known)
    if math.isinf(top):
        return top
    return top + math.log(math.fsum(math.exp(log - top) for log in known) / len(known))


def _log_ratio(strata: Iterable[Stratum], base: float, bets: Iterable[float]) -> float:
    useful = [stratum for stratum in strata if stratum.concurrent]
    return log_mean(math.fsum(_log_factor(stratum, base, k) for stratum in useful) for k in bets)


def _log_factor(stratum: Stratum, base: float, k: float) -> float:
    """Bet on ``k * base``: theta' / theta = k / g and (1 - theta') / (1 - theta) = 1 / g, with g = 1 + (k - 1) theta(base)."""
    exposed = base * stratum.new_share
    growth = math.log1p((k - 1) * (exposed / (exposed + stratum.stable_share)))
    return stratum.new_bad * (math.log(k) - growth) - stratum.stable_bad * growth


def _log_rate(k: float, limit: float, bad: int, good: int) -> float:
    return bad * math.log(k) + good * (math.log1p(-k * limit) - math.log1p(-limit))


def _answers(strata: Iterable[Stratum]) -> tuple[int, int]:
    """Bad and good answers of the new revision, over all strata: its rate is held against one limit in all of them."""
    counted = list(strata)
    bad = sum(stratum.new_bad for stratum in counted)
    return bad, max(0, sum(stratum.new_seen for stratum in counted) - bad)


def _above_zero(name: str, value: float) -> float:
    return _checked(name, value, within=0 < value < math.inf, allowed="a finite number above 0")


def _rate(limit: float) -> float:
    return _checked("limit", limit, within=0 <= limit <= 1, allowed="a share between 0 and 1")


def _checked(name: str, value: float, *, within: bool, allowed: str) -> float:
    if not within:
        message = f"{name} is {value!r}, not {allowed}"
        raise ValueError(message)
    return value
