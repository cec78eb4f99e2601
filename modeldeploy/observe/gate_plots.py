"""The panels of a rollout's picture that show its gates: what each saw, and the evidence of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import attrs

from modeldeploy.observe import formatting
from modeldeploy.observe.plot_style import INK, LIMIT, NEW, STABLE, beside
from modeldeploy.observe.timeline import Timeline
from modeldeploy.values.gate import Gate, GateResult, Metric
from modeldeploy.values.rollout import RolloutPolicy

_GATES = ("#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#009e73", "#999933")
_LEAST, _MOST = 1e-2, 1e4
"""What lies beyond these e-values is drawn at the edge: it says no more."""
_TICKS = (_LEAST, 1.0, 100.0, _MOST)

Point = tuple[float, GateResult]
"""When, and what was seen then."""


class Panel(Protocol):
    """A part of the picture."""

    weighs: bool
    """Whether it shows evidence and not figures."""

    def draw(self, axes: Any, scale: Callable[[float], float]) -> None:
        """Draw it; ``scale`` turns an instant into its place on the axis."""
        ...


def panels(timeline: Timeline, policy: RolloutPolicy) -> list[Panel]:
    """Make one panel for each gate that has figures, and two for the evidence, if there is any."""
    gates = {str(gate): gate for gate in policy.gates}
    seen = {name: _points(timeline, name) for name in timeline.gates}
    colours = {name: _GATES[at % len(_GATES)] for at, name in enumerate(seen)}
    shown: list[Panel] = [
        GatePanel(name, points, gates.get(name), colours[name])
        for name, points in seen.items()
        if any(result.value is not None for _at, result in points)
    ]
    analysis = policy.analysis
    against = {name: _weights(points, lambda result: result.against) for name, points in seen.items()}
    favour = {name: _weights(points, lambda result: result.favour) for name, points in seen.items()}
    if any(against.values()):
        shown += [
            EvidencePanel("against", f"taken back at {1 / analysis.alpha:.3g}", 1 / analysis.alpha, against, colours),
            EvidencePanel("for", f"passes at {1 / analysis.beta:.3g}", 1 / analysis.beta, favour, colours),
        ]
    return shown


def _points(timeline: Timeline, name: str) -> list[Point]:
    found = ((look.at, look.gate(name)) for look in timeline.looks)
    return [(at, result) for at, result in found if result is not None]


def _weights(points: Iterable[Point], read: Callable[[GateResult], float | None]) -> list[tuple[float, float]]:
    return [(at, value) for at, result in points if (value := read(result)) is not None]


@attrs.frozen
class GatePanel:
    """What one gate saw: the new revision's value with its interval, stable's value, and the limit."""

    name: str
    points: Sequence[Point]
    gate: Gate | None
    colour: str
    weighs = False

    def draw(self, axes: Any, scale: Callable[[float], float]) -> None:
        """Draw the lines, and name them at their ends."""
        last = self.points[-1][1]
        factor, unit = _unit(last, self.gate)
        xs = [scale(at) for at, _result in self.points]
        band = [_band(result) for _at, result in self.points]
        axes.fill_between(
            xs, [factor * low for low, _high in band], [factor * high for _low, high in band],
            color=NEW, alpha=0.13, linewidth=0,
        )  # fmt: skip
        ends = [
            *self._line(axes, xs, [result.stable_value for _at, result in self.points], factor, "stable", STABLE),
            *self._line(axes, xs, [result.value for _at, result in self.points], factor, "new", NEW),
        ]
        limits = [self._allowed(result) for _at, result in self.points]
        ends += self._line(axes, xs, limits, factor, "limit", LIMIT, style=(0, (4, 2)))
        self._frame(axes, factor, unit, ends)

    def _line(  # noqa: PLR0917 - a line and its label
        self, axes: Any, xs: Sequence[float], ys: Sequence[float | None], factor: float, name: str, colour: str,
        style: Any = "-",
    ) -> list[tuple[float, str, str]]:  # fmt: skip
        known = [math.nan if y is None else factor * y for y in ys]
        if all(math.isnan(y) for y in known):
            return []
        axes.plot(xs, known, color=colour, linewidth=1.1 if name == "limit" else 1.6, linestyle=style)
        value = next(y for y in reversed(known) if not math.isnan(y))
        text = f"{name} {formatting.quantity(self.points[-1][1], value / factor)}"
        return [(value, text, colour)]

    def _allowed(self, result: GateResult) -> float | None:
        if formatting.is_outcome(result):
            return None
        if result.limit is None and self.gate is not None and self.gate.metric is Metric.ERROR_RATE:
            return None if result.stable_value is None else self.gate.limit * result.stable_value
        return result.limit

    def _frame(self, axes: Any, factor: float, unit: str, ends: Sequence[tuple[float, str, str]]) -> None:
        axes.set_ylim(*self._range(factor))
        axes.set_ylabel(unit, fontsize=8.5, color=INK)
        # The square ties the panel to its line of evidence below.
        square = {"xycoords": "axes fraction", "xytext": (0, 4), "textcoords": "offset points", "va": "bottom"}
        axes.annotate("\N{BLACK SQUARE}", (0, 1), color=self.colour, fontsize=8.5, annotation_clip=False, **square)
        axes.set_title(f"    {self.name}", loc="left", fontsize=8.5, color=INK, pad=4)
        axes.locator_params(axis="y", nbins=4)
        beside(axes, ends, height_in=0.85)

    def _range(self, factor: float) -> tuple[float, float]:
        """Leave out the wild figures of the first answers: the axis fits what was seen in the later three quarters."""
        later = [result for _at, result in self.points[len(self.points) // 4 :]]
        shown = [value for each in later for value in (each.value, each.stable_value, self._allowed(each)) if value]
        low, high = _band(later[-1])
        top = max([*shown, *([high] if math.isfinite(high) else [])], default=0.01)
        if not formatting.is_outcome(later[-1]):
            # A line at 0 is to be seen whole.
            return -0.02 * factor * top, 1.18 * factor * top
        floor = min([*shown, *([low] if math.isfinite(low) else [])], default=0.0)
        margin = 0.2 * (top - floor or 1.0)
        return floor - margin, top + margin


@attrs.frozen
class EvidencePanel:
    """E-values of every gate on a logarithmic scale, with the one that decides."""

    side: str
    rule: str
    limit: float
    series: dict[str, list[tuple[float, float]]]
    colours: dict[str, str]
    weighs = True

    def draw(self, axes: Any, scale: Callable[[float], float]) -> None:
        """Draw one line for each gate; against a revision speaks the mean of all."""
        ends = [(min(self.limit, _MOST), self.rule, LIMIT if self.side == "against" else "#00694d")]
        axes.axhline(self.limit, color=ends[0][2], linewidth=1.1, linestyle=(0, (4, 2)))
        for name, points in self.series.items():
            if points:
                clipped = [_clipped(value) for _at, value in points]
                axes.plot([scale(at) for at, _value in points], clipped, color=self.colours[name], linewidth=1.6)
                ends.append((clipped[-1], name, self.colours[name]))
        mean = self._mean() if self.side == "against" else []
        if mean:
            axes.plot([scale(at) for at, _value in mean], [_clipped(y) for _at, y in mean], color=INK, linewidth=1.2)
            ends.append((_clipped(mean[-1][1]), "mean, which decides", INK))
        _log_axis(axes, self.side)
        beside(axes, ends, height_in=1.1)

    def _mean(self) -> list[tuple[float, float]]:
        """Give the mean over the gates at each look; nothing where one gate is alone."""
        every = [dict(points) for points in self.series.values() if points]
        if len(every) < 2:  # noqa: PLR2004 - two
            return []
        common = sorted(set.intersection(*(set(each) for each in every)))
        return [(at, math.fsum(each[at] for each in every) / len(every)) for at in common]


def _log_axis(axes: Any, side: str) -> None:
    axes.set_yscale("log")
    axes.set_ylim(_LEAST / 1.6, _MOST * 1.6)
    edges = f"\N{LESS-THAN OR EQUAL TO} {_LEAST:g}", f"\N{GREATER-THAN OR EQUAL TO} {formatting.e_value(_MOST)}"
    axes.set_yticks(_TICKS, [edges[0], "1", "100", edges[1]])
    axes.minorticks_off()
    axes.set_ylabel("e-value", fontsize=8.5, color=INK)
    axes.set_title(f"evidence {side} the new revision", loc="left", fontsize=8.5, color=INK, pad=4)


def _clipped(value: float) -> float:
    return min(_MOST, max(_LEAST, value))


def _band(result: GateResult) -> tuple[float, float]:
    """Give the interval of the new revision's value; that of a difference is laid around stable's value."""
    if result.low is None or result.high is None:
        return math.nan, math.nan
    base = (result.stable_value or 0.0) if formatting.is_outcome(result) else 0.0
    return base + result.low, base + result.high


def _unit(result: GateResult, gate: Gate | None) -> tuple[float, str]:
    """Give the factor to the shown unit, and the words for the axis."""
    if formatting.is_outcome(result):
        return 1.0, "mean outcome"
    if formatting.is_seconds(result):
        return 1000.0, "latency (ms)"
    words = {Metric.ERROR_RATE: "errors (%)", Metric.DISAGREEMENT: "differing (%)"}
    return 100.0, words.get(gate.metric, "slow (%)") if gate is not None else "bad (%)"
