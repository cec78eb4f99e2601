"""The sample-ratio check: whether requests were split as the traffic table said.

A split that is not honoured makes every comparison of two revisions void, and shows that somebody else routes.
"""

from __future__ import annotations

from collections.abc import Iterable

from modeldeploy.stats.mixture import log_mixture

PRIOR = 200.0
"""Requests that the prior is worth: large enough to see a share of 4 % in place of 5 %, small enough to see a share of 0 soon."""


def log_evidence(new_share: int, stable_share: int, new_count: int, stable_count: int) -> float:
    """Ln of the evidence that the new revision's share of the requests is not new_share / (new_share + stable_share).

    H0: each request goes to the new revision with probability w, its share. A beta-binomial mixture e-process with the prior
    Beta(200 w, 200 (1 - w)), so the probability that it ever reaches 1/alpha under H0 is at most alpha. Where one of the two has no share
    the counts say nothing (0.0): what was under way when the table changed is no evidence. A multinomial version is in Lindon & Malek,
    Anytime-Valid Inference for Multinomial Count Data (arXiv 2011.03567).
    """
    if new_share <= 0 or stable_share <= 0:
        return 0.0
    share = new_share / (new_share + stable_share)
    return log_mixture(new_count, stable_count, share, (PRIOR * share, PRIOR * (1 - share)))


def log_evidence_over(strata: Iterable[tuple[int, int, int, int]]) -> float:
    """Ln of the evidence over several splits, each (new share, stable share, new count, stable count).

    The product of e-processes on disjoint stretches of time is one, so the logarithms add up.
    """
    return sum(log_evidence(*stratum) for stratum in strata)
