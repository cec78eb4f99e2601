"""What all panels of a rollout's picture share: colours, and names beside the data.

Colours are those of Okabe and Ito, which can be told apart by people who do not see all colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modeldeploy.observe.plot_labels import spread

INK, FAINT, GRID = "#33383f", "#8a8f98", "#e6e8eb"
NEW, STABLE, LIMIT = "#0072b2", "#6b7280", "#d55e00"


def beside(axes: Any, ends: Sequence[tuple[float, str, str]], height_in: float, *, lines: int = 1) -> None:
    """Write (value, text, colour) to the right of the data, each at its value or as near as the others leave room."""
    transform = axes.transScale + axes.transLimits
    places = [float(transform.transform((0, value))[1]) for value, _text, _colour in ends]
    room = 0.145 * lines / height_in
    for place, (_value, text, colour) in zip(spread(places, room), ends, strict=True):
        axes.text(
            1.012, place, text, transform=axes.transAxes, fontsize=7.5, color=colour, va="center", linespacing=1.15
        )
