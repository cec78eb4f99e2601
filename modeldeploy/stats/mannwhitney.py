"""The Mann-Whitney U test on two series of measurements, for the analysis that is compatible with Kayenta's judge."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

import attrs


@attrs.frozen
class RankTest:
    """What the ranks of two series say of the first.

    ``u`` counts the pairs in which the first is larger (ties count half); ``p_value`` is two-sided, ``p_greater`` for "the first is larger".
    ``shift`` is the Hodges-Lehmann estimate, the median of all pairwise differences, and lies in ``low`` .. ``high`` with the confidence that
    was asked for.
    """

    u: float
    p_value: float
    p_greater: float
    shift: float
    low: float
    high: float

    def is_high(self, tolerance: float = 0.25) -> bool:
        """Whether the first series is higher by Kayenta's rule: the lower bound exceeds ``tolerance`` times the absolute shift."""
        return self.low > tolerance * abs(self.shift)


def rank_test(new: Sequence[float], stable: Sequence[float], confidence: float = 0.98) -> RankTest:
    """Compare two series of at least one finite value each, by the normal approximation with the tie correction.

    Hollander & Wolfe, Nonparametric Statistical Methods, section 4; a continuity correction of 1/2 as in R's wilcox.test, which Kayenta
    follows. The bounds of the shift are order statistics of the pairwise differences. Takes time and memory of the product of the lengths:
    meant for a few hundred values, one for each look.
    """
    for name, series in (("new", new), ("stable", stable)):
        if not series or not all(math.isfinite(value) for value in series):
            message = f"series {name!r} of a rank test holds no values or some that are not finite"
            raise ValueError(message)
    differences = sorted(a - b for a in new for b in stable)
    u = sum(map(_win, differences))
    spread = _spread(new, stable)
    low, high = _bounds(differences, _untied(len(new), len(stable)), confidence)
    above = u - len(differences) / 2
    return RankTest(
        u=u,
        p_value=min(1.0, 2 * _tail(abs(above), spread)),
        p_greater=_tail(above, spread),
        shift=statistics.median(differences),
        low=low,
        high=high,
    )


def _win(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _tail(above: float, spread: float) -> float:
    """Probability of a U at least this far above its mean under H0; all values equal is no evidence."""
    return 1 - statistics.NormalDist().cdf((above - 0.5) / spread) if spread else 1.0


def _untied(n: int, m: int) -> float:
    return math.sqrt(n * m * (n + m + 1) / 12)


def _spread(new: Sequence[float], stable: Sequence[float]) -> float:
    """Give the standard deviation of U: sqrt(n m / 12 (N + 1 - sum(t^3 - t) / (N (N - 1)))), t the sizes of the ties."""
    n, m = len(new), len(stable)
    ties = [len(list(group)) for _, group in itertools.groupby(sorted([*new, *stable]))]
    correction = sum(t**3 - t for t in ties) / ((n + m) * (n + m - 1))
    return math.sqrt(max(0.0, n * m / 12 * (n + m + 1 - correction)))


def _bounds(differences: Sequence[float], spread: float, confidence: float) -> tuple[float, float]:
    """Order statistics that enclose the shift; everything is possible where too few pairs are known for the confidence."""
    reach = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * spread
    cut = math.floor(len(differences) / 2 - reach)
    if cut < 1:
        return -math.inf, math.inf
    return differences[cut - 1], differences[-cut]
