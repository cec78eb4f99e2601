"""Means of outcomes in [0, 1], and intervals for them and their difference that hold at all looks together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import attrs

FEWEST = 100
"""Outcomes below which nothing is said: the intervals are asymptotic."""
_TUNED_FOR = 1000


@attrs.frozen
class Tally:
    """How many outcomes there were, their sum and the sum of their squares: all that a mean and its interval need."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Count outcomes, each between 0 and 1."""
        known = list(values)
        for value in known:
            if not 0 <= value <= 1:
                message = f"outcome {value!r} is not between 0 and 1"
                raise ValueError(message)
        return cls(len(known), math.fsum(known), math.fsum(value * value for value in known))

    @property
    def mean(self) -> float | None:
        """The mean outcome; None without any."""
        return self.total / self.count if self.count else None


def mean_interval(tally: Tally, alpha: float = 0.05) -> tuple[float, float]:
    """Enclose the mean of outcomes in [0, 1]; all looks' intervals hold together with probability about 1 - alpha.

    mean +- sd sqrt(2 (t r^2 + 1) / (t^2 r^2) ln(sqrt(t r^2 + 1) / alpha)), t the count: the asymptotic confidence sequence of Waudby-Smith
    et al. (arXiv 2103.06476), with r^2 = (-2 ln alpha + ln(1 - 2 ln alpha)) / 1000, which is narrowest near a thousand outcomes. It assumes
    outcomes that are independent and of one mean, so weights that stay as they are while it is used. Being asymptotic it says (0, 1) below
    ``FEWEST`` outcomes; and the variance is taken with one outcome of 0 and one of 1 added, lest equal outcomes pass for certainty.
    """
    if not 0 < alpha < 1:
        message = f"alpha is {alpha!r}, not a probability between 0 and 1"
        raise ValueError(message)
    if tally.count < FEWEST:
        return 0.0, 1.0
    mean = tally.total / tally.count
    half = _cautious_sd(tally) * _half_width(tally.count, alpha)
    return max(0.0, mean - half), min(1.0, mean + half)


def compare_means(new: Tally, stable: Tally, alpha: float = 0.05) -> tuple[float, float]:
    """Enclose the mean of ``new`` minus that of ``stable``; all looks' intervals hold together with probability about 1 - alpha.

    Each revision's interval is made with alpha / 2 (union bound), and the furthest ends are subtracted. The assumptions are those of
    ``mean_interval``; with fewer than ``FEWEST`` outcomes on a side that side may be anything.
    """
    new_low, new_high = mean_interval(new, alpha / 2)
    stable_low, stable_high = mean_interval(stable, alpha / 2)
    return new_low - stable_high, new_high - stable_low


def _cautious_sd(tally: Tally) -> float:
    count = tally.count + 2
    mean = (tally.total + 1) / count
    return math.sqrt(max(0.0, (tally.squares + 1) / count - mean * mean))


def _half_width(count: int, alpha: float) -> float:
    """Half the width of the interval, in standard deviations."""
    spread = count * (-2 * math.log(alpha) + math.log1p(-2 * math.log(alpha))) / _TUNED_FOR
    return math.sqrt(2 * (spread + 1) / (count * spread) * (math.log1p(spread) / 2 - math.log(alpha)))
