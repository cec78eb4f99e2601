"""Intervals for rates that hold at all looks together."""

from __future__ import annotations

from collections.abc import Callable
from math import log

from modeldeploy.stats.mixture import log_mixture

_PRIOR = (0.5, 0.5)
_HALVINGS = 60


def rate_interval(bad: int, seen: int, alpha: float = 0.05) -> tuple[float, float]:
    """Enclose a rate (0-1) of which ``bad`` of ``seen`` are known; all looks' intervals hold together with probability 1 - alpha.

    The rates that the beta-binomial mixture e-process with the prior Beta(1/2, 1/2) has not refuted at 1/alpha: a confidence sequence
    (Howard et al., arXiv 1810.08240), inverted by bisection. More bad than seen counts as all bad.
    """
    if not 0 < alpha < 1:
        message = f"alpha is {alpha!r}, not a probability between 0 and 1"
        raise ValueError(message)
    seen = max(bad, seen)
    if not seen:
        return 0.0, 1.0
    centre = bad / seen

    def refuted(rate: float) -> bool:
        return log_mixture(bad, seen - bad, rate, _PRIOR) >= -log(alpha)

    low = _edge(refuted, centre, 0.0) if bad else 0.0
    return low, (_edge(refuted, centre, 1.0) if bad < seen else 1.0)


def _edge(refuted: Callable[[float], bool], inside: float, outside: float) -> float:
    """Halve the way to ``outside``, which is refuted; what comes back is refuted too, so the interval is never too narrow."""
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside
