"""The beta-binomial mixture: a likelihood ratio for a share that need not be guessed beforehand."""

from __future__ import annotations

from math import lgamma, log, log1p


def log_beta(a: float, b: float) -> float:
    """Ln of the beta function."""
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def log_binomial(hits: int, misses: int, share: float) -> float:
    """Ln of share^hits (1 - share)^misses; a share of exactly 0 or 1 is allowed where nothing speaks against it."""
    with_hits = hits * log(share) if hits else 0.0
    return with_hits + (misses * log1p(-share) if misses else 0.0)


def log_mixture(hits: int, misses: int, share: float, prior: tuple[float, float]) -> float:
    """Ln of the e-value against "every hit has probability ``share``", mixed over a beta prior (a, b).

    E = B(a + hits, b + misses) / B(a, b) / (share^hits (1 - share)^misses): the mean of likelihood ratios over the prior, so a nonnegative
    martingale with mean 1 (Robbins 1970; Howard et al., arXiv 1810.08240, section 3.2).
    """
    a, b = prior
    return log_beta(a + hits, b + misses) - log_beta(a, b) - log_binomial(hits, misses, share)
