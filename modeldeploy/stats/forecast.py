"""How much must be seen before a verdict can be expected: to be told before a rollout starts.

The bad events that a test needs are about ln(1/alpha) / KL, the evidence that is asked for over the mean evidence in one event, where KL is
the Kullback-Leibler divergence of the truth from the hypothesis (Wald 1945). The e-processes, which must hedge, need somewhat more.
"""

from __future__ import annotations

import math

from modeldeploy.stats.eprocess import RARER, log_mean


def events_to_detect(share: float, ratio: float, alpha: float = 0.05, tolerance: float = 1.0) -> float:
    """Give the bad events, of both revisions together, until one whose events are ``ratio`` times as frequent is taken back.

    ``share`` (0-1, exclusive) is the new revision's of the traffic; infinite where the ratio is within the tolerance.
    """
    return _events(share, ratio, tolerance, alpha) if ratio > tolerance else math.inf


def events_to_certify(share: float, max_ratio: float = 2.0, beta: float = 0.05, ratio: float = 1.0) -> float:
    """Give the bad events, of both together, until a revision whose events are ``ratio`` times as frequent is known to stay below ``max_ratio``."""
    return _events(share, ratio, max_ratio, beta) if ratio < max_ratio else math.inf


def requests_to_certify_rate(limit: float, rate: float = 0.0, beta: float = 0.05) -> float:
    """Give the requests of the new revision until a share of bad answers ``rate`` is known to stay below ``limit`` (both 0-1).

    The count at which the mean evidence of ``eprocess.log_pass_rate`` reaches 1/beta; infinite where the rate is too near the limit for any
    of its bets to win.
    """
    if not 0 < limit < 1:
        message = f"limit is {limit!r}, not a share between 0 and 1"
        raise ValueError(message)
    growths = [_growth(f, limit, rate) for f in RARER]
    if max(growths) <= 0:
        return math.inf
    # One bet alone reaches the mean of all after at most this many; the mean cannot need fewer than none.
    low, high = 0.0, (-math.log(beta) + math.log(len(growths))) / max(growths)
    for _ in range(100):
        middle = (low + high) / 2
        enough = log_mean(middle * growth for growth in growths) >= -math.log(beta)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _growth(f: float, limit: float, rate: float) -> float:
    """Mean evidence in one answer of the bet on ``f * limit``."""
    return rate * math.log(f) + (1 - rate) * (math.log1p(-f * limit) - math.log1p(-limit))


def _events(share: float, ratio: float, base: float, error: float) -> float:
    if not 0 < share < 1:
        message = f"share is {share!r}, not between 0 and 1"
        raise ValueError(message)
    truth, hypothesis = _theta(ratio, share), _theta(base, share)
    return -math.log(error) / _divergence(truth, hypothesis)


def _theta(ratio: float, share: float) -> float:
    """Probability that a bad event is the new revision's."""
    return ratio * share / (ratio * share + 1 - share)


def _divergence(truth: float, hypothesis: float) -> float:
    """Kullback-Leibler divergence of two coins, in nats."""
    heads = truth * math.log(truth / hypothesis) if truth else 0.0
    return heads + (1 - truth) * math.log((1 - truth) / (1 - hypothesis))
