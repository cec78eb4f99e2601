"""How evidence is written: the figures of a gate as people read them."""

from __future__ import annotations

from modeldeploy.observe.text import NOTHING
from modeldeploy.values.gate import GateResult

_LEAST, _WHOLE, _MOST = 0.01, 10, 1000
_FEW = 0.1


def e_value(value: float | None) -> str:
    """Write an e-value, a dash for none: two digits are enough, for it counts in factors.

    >>> e_value(0.0004), e_value(3.14159), e_value(812.4), e_value(4.2e17)
    ('< 0.01', '3.1', '812', '4e17')
    """
    if value is None:
        return NOTHING
    if value < _LEAST:
        return f"< {_LEAST}"
    if value < _WHOLE:
        return f"{value:.2g}"
    return f"{value:.0f}" if value < _MOST else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def is_outcome(result: GateResult) -> bool:
    """Whether it compares mean outcomes: its interval is that of the difference to stable."""
    return result.gate.startswith("outcome")


def is_seconds(result: GateResult) -> bool:
    """Whether its figures are latencies; the sequential test counts shares of slow answers instead."""
    return result.against is None and "latency" in result.gate.partition(" ")[0]


def quantity(result: GateResult, value: float | None) -> str:
    """Write a figure of a gate in its unit: a share in percent, a latency in ms, a mean as it is.

    >>> from modeldeploy.values.gate import Verdict
    >>> quantity(GateResult("error_rate <= 1%", Verdict.PASS, against=1.0), 0.0123)
    '1.23 %'
    """
    if value is None:
        return NOTHING
    if is_outcome(result):
        return f"{value:.4g}"
    return f"{value * 1000:.3g} ms" if is_seconds(result) else f"{_percent(value)} %"


def counted(result: GateResult) -> str:
    """Write how many were bad of how many; only how many where nothing is bad or good by itself.

    >>> from modeldeploy.values.gate import Verdict
    >>> counted(GateResult("error_rate <= 1%", Verdict.PASS, sample=1200, bad=3, against=1.0))
    '3 of 1,200'
    """
    if not result.sample:
        return NOTHING
    return f"{result.sample:,}" if result.against is None else f"{result.bad:,} of {result.sample:,}"


def interval(result: GateResult) -> str:
    """Write the interval of the value (of the difference to stable, for outcomes); a dash when none is known.

    >>> from modeldeploy.values.gate import Verdict
    >>> interval(GateResult("error_rate <= 1%", Verdict.PASS, low=0.001, high=0.02, against=1.0))
    '0.10 to 2.00 %'
    """
    low, high = result.low, result.high
    if low is None or high is None:
        return NOTHING
    if is_outcome(result):
        return f"{low:+.3g} to {high:+.3g}"
    if is_seconds(result):
        return f"{low * 1000:.3g} to {high * 1000:.3g} ms"
    return f"{_percent(low)} to {_percent(high)} %"


def _percent(rate: float) -> str:
    percent = 100 * rate
    if not percent:
        return "0"
    if percent < _FEW:
        return f"{percent:.3f}"
    return f"{percent:.2f}" if percent < _WHOLE else f"{percent:.1f}"
