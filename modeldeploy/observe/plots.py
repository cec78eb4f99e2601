"""The picture of a rollout: traffic, what each gate saw, and the evidence, one below the other over the same time.

matplotlib is imported when something is drawn, and pyplot never: the figure belongs to the caller, no window opens, and a notebook shows it
once.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from modeldeploy.observe import gate_plots
from modeldeploy.observe.plot_labels import Label, labels, pauses
from modeldeploy.observe.plot_style import FAINT, GRID, INK, NEW, STABLE, beside
from modeldeploy.observe.timeline import Shares, Timeline
from modeldeploy.packaging.dependencies import need
from modeldeploy.values.rollout import RolloutPolicy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN = 8.4
_AXES_IN = 6.3
_TRAFFIC_IN, _GATE_IN, _EVIDENCE_IN, _FRAME_IN = 1.5, 1.15, 1.35, 1.0
_DPI, _SHARP = 100, 2
"""Dots per inch on the page, and how many times as many are drawn, for screens that show them."""

_TAKING = ("new", "back")
"""What a revision is called that takes over: by a rollout, by a rollback."""

_OTHERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_UNITS = ((2.0, 0.001, "ms"), (180.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (3 * 86400.0, 3600.0, "h"))
_DAY = 86400.0
_MARGIN = 0.025
"""Room behind the end, as a share of the whole, in which the last change is seen."""


@attrs.frozen
class Scale:
    """Time on the axis: ``unit`` seconds are 1."""

    began: float
    until: float
    unit: float
    name: str

    @classmethod
    def of(cls, timeline: Timeline) -> Scale:
        """Choose the unit that suits the length of the timeline."""
        span = max(timeline.until - timeline.began, 1e-3)
        unit, name = next(((unit, name) for most, unit, name in _UNITS if span <= most), (_DAY, "days"))
        return cls(timeline.began, timeline.began + (1 + _MARGIN) * span, unit, name)

    def __call__(self, at: float) -> float:
        """Place an instant on the axis."""
        return (at - self.began) / self.unit

    @property
    def end(self) -> float:
        """Where the axis ends."""
        return self(self.until)


def draw(timeline: Timeline, *, title: str, new: str, stable: str | None, policy: RolloutPolicy | None) -> Figure:
    """Draw a rollout, or without a policy a rollback; panels that there is nothing for are left out."""
    panels = gate_plots.panels(timeline, policy) if policy else []
    role = "new" if policy else "back"
    heights = [_TRAFFIC_IN, *(_EVIDENCE_IN if panel.weighs else _GATE_IN for panel in panels)]
    figure: Figure = _figure_class()(figsize=(WIDTH_IN, sum(heights) + _FRAME_IN), dpi=_DPI, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.05, hspace=0.04)  # type: ignore[union-attr,call-arg]  # the constrained one
    figure.set_facecolor("white")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    every, scale = list(grid[:, 0]), Scale.of(timeline)
    for axes in every:
        _clean(axes)
    _traffic(every[0], timeline, scale, _names(timeline, new, stable, role))
    for axes, panel in zip(every[1:], panels, strict=True):
        panel.draw(axes, scale)
    _turns(every, timeline, scale)
    _time_axis(every[-1], scale)
    figure.align_ylabels(every)
    return figure


def _clean(axes: Any) -> None:
    axes.set_facecolor("white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _time_axis(axes: Any, scale: Scale) -> None:
    axes.set_xlim(0, scale.end)
    began = dt.datetime.fromtimestamp(scale.began, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    axes.set_xlabel(f"time since {began} UTC ({scale.name})", fontsize=8.5, color=INK)


# Traffic


def _names(timeline: Timeline, new: str, stable: str | None, role: str) -> dict[str, tuple[str, str]]:
    """Give each revision its role and colour; the new one comes last, to lie on top."""
    others = [name for name in timeline.revisions if name not in {new, stable}]
    named = {stable: ("stable", STABLE)} if stable else {}
    colours = (_OTHERS[at % len(_OTHERS)] for at in range(len(others)))
    return {**named, **{name: ("", colour) for name, colour in zip(others, colours, strict=True)}, new: (role, NEW)}


def _traffic(axes: Any, timeline: Timeline, scale: Scale, names: dict[str, tuple[str, str]]) -> None:
    ends = []
    for name, (role, colour) in names.items():
        xs, ys = _steps([(each.at, each.live.get(name, 0)) for each in timeline.traffic], scale)
        if not any(ys):
            continue
        # The new one is narrower and on top, so that both are seen where they are equal.
        wide = 1.6 if role in _TAKING else 2.8
        axes.plot(xs, ys, color=colour, linewidth=wide, drawstyle="steps-post", solid_joinstyle="miter", clip_on=False)
        if role in _TAKING:
            axes.fill_between(xs, ys, step="post", color=colour, alpha=0.12, linewidth=0)
        ends.append((ys[-1], f"{role}\n{name}" if role else name, colour))
    ends += _copies(axes, timeline.traffic, scale, names)
    axes.set_ylim(0, 104)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("traffic (%)", fontsize=8.5, color=INK)
    beside(axes, ends, _TRAFFIC_IN, lines=2)


def _copies(
    axes: Any, traffic: Sequence[Shares], scale: Scale, names: dict[str, tuple[str, str]]
) -> list[tuple[float, str, str]]:
    ends = []
    for name, (_role, colour) in names.items():
        xs, ys = _steps([(each.at, each.copies.get(name, 0)) for each in traffic], scale)
        if any(ys):
            shown = [y or float("nan") for y in ys]
            axes.plot(xs, shown, color=colour, linewidth=1.4, linestyle=(0, (3, 2)), drawstyle="steps-post")
            ends.append((max(ys), f"copies to\n{name}", colour))
    return ends


def _steps(points: Sequence[tuple[float, int]], scale: Scale) -> tuple[list[float], list[float]]:
    """Draw each value up to the next one, and the last one up to the end."""
    if not points:
        return [], []
    held = [*points, (scale.until, points[-1][1])]
    return [scale(at) for at, _value in held], [float(value) for _at, value in held]


# What happened, across all panels


def _turns(every: Sequence[Any], timeline: Timeline, scale: Scale) -> None:
    for start, end in pauses(timeline):
        for axes in every:
            axes.axvspan(scale(start), scale(end), color=FAINT, alpha=0.14, linewidth=0)
    for label in labels(timeline, width_in=_AXES_IN):
        for axes in every:
            axes.axvline(scale(label.at), color=label.colour, linewidth=0.8, alpha=0.55)
        _mark(every[0], label, scale)


def _mark(axes: Any, label: Label, scale: Scale) -> None:
    place, over = (scale(label.at), 1.0), axes.get_xaxis_transform()
    axes.plot(*place, marker=label.marker, markersize=6, color=label.colour, transform=over, clip_on=False, zorder=5)
    axes.annotate(
        label.text,
        place,
        xycoords=over,
        xytext=(-5 if label.leftwards else 5, 3 + 10 * label.level),
        textcoords="offset points",
        ha="right" if label.leftwards else "left",
        fontsize=7.5,
        color=label.colour,
        annotation_clip=False,
    )


@functools.cache
def _figure_class() -> Any:
    """Make the Figure that a notebook shows by itself: without pyplot it would show its size only."""

    class RolloutFigure(need("matplotlib.figure").Figure):  # type: ignore[misc]  # imported when needed
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            drawn = io.BytesIO()
            self.savefig(drawn, format="png", dpi=_DPI * _SHARP)
            width, height = (int(inches * _DPI) for inches in self.get_size_inches())
            return drawn.getvalue(), {"width": width, "height": height}

    return RolloutFigure
