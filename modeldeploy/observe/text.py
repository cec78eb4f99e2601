"""Tables for terminals and logs: plain text, aligned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NOTHING = "\N{EN DASH}"
_GAP = "  "
_FIGURE = re.compile(r"(< )?[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?( ?(%|ms|s))?( of \d[\d,.]*( \([\d.]+ %\))?)?")


def table(rows: Iterable[Sequence[object]], columns: Sequence[str]) -> str:
    """Write rows below their columns: figures to the right, None as a dash.

    >>> print(table([("v1", 95), ("v2", 5)], ("revision", "traffic")))
    revision  traffic
    v1             95
    v2              5
    """
    lines = [[_text(cell) for cell in row] for row in rows]
    right = [are_figures([line[place] for line in lines if line[place]]) for place in range(len(columns))]
    every = [list(columns), *lines]
    widths = [max(len(line[place]) for line in every) for place in range(len(columns))]
    return "\n".join(_line(line, widths, right) for line in every)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return _GAP.join(padded).rstrip()


def _text(cell: object) -> str:
    if cell is None:
        return NOTHING
    # One row is one line, whatever a reason holds.
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else " ".join(str(cell).split())


def are_figures(cells: Sequence[str]) -> bool:
    """Whether all are numbers, with their units, or dashes.

    >>> are_figures(["1,200", "0.5 %", "3 of 20"]), are_figures(["1.2.0"])
    (True, False)
    """
    return bool(cells) and all(cell == NOTHING or _FIGURE.fullmatch(cell) for cell in cells)
