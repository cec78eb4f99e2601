"""Small HTML for notebooks: tables, definitions and bars, everything escaped, no script, nothing loaded from elsewhere.

Colours are the reader's own (``inherit``, ``currentColor``) or of middle brightness, so that they can be read on light and on dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from modeldeploy.observe.text import NOTHING, are_figures

Tone: TypeAlias = Literal["plain", "good", "warn", "bad"]

_LINE = "1px solid rgba(128,128,128,.35)"
_TONES: dict[Tone, str] = {"plain": "#8a8f98", "good": "#2e9e5b", "warn": "#c98a1b", "bad": "#d9534f"}
_BAR = "#4a86d8"
_BAR_PX, _SHORT_PX = 90, 48
_BOX = "font-size:13px;line-height:1.45;max-width:62em;margin:2px 0 6px;color:inherit"
_CELL = f"padding:3px 14px 3px 0;border:0;border-bottom:{_LINE};background:none;color:inherit;vertical-align:top"
_HEAD = "font-weight:600;opacity:.65;white-space:nowrap"
_NUMBER = "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
_TABLE = "border-collapse:collapse;border:0;margin:0;background:none;color:inherit;font-size:inherit;table-layout:auto"


class Html(str):
    """Text that is HTML already; made by the functions here only, everything else is escaped."""

    __slots__ = ()


def table(title: str, rows: Iterable[Sequence[object]], columns: Sequence[str], *, note: str | None = None) -> str:
    """Draw a table: numbers to the right, None as a dash, ``bar`` and ``badge`` cells as they are; ``note`` stands below in small print."""
    lines = [list(row) for row in rows]
    numeric = [_is_numeric([line[place] for line in lines if place < len(line)]) for place in range(len(columns))]
    head = "".join(_cell("th", column, right) for column, right in zip(columns, numeric, strict=True))
    body = "".join(
        f"<tr style='background:none'>{''.join(_cell('td', *pair) for pair in zip(line, numeric, strict=True))}</tr>"
        for line in lines
    )
    empty = "" if lines else _small("nothing here yet")
    return _box(title, f"{_open_table()}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{empty}", note)


def definition(title: str, pairs: Iterable[tuple[str, object]], *, note: str | None = None) -> str:
    """Draw names and their values, one pair on a line."""
    body = "".join(
        f"<tr style='background:none'>{_cell('th', name, right=False)}{_cell('td', value, right=False)}</tr>"
        for name, value in pairs
    )
    return _box(title, f"{_open_table()}<tbody>{body}</tbody></table>", note)


def bar(percent: float | None, *, text: str | None = None, tone: Tone | None = None, length: int = _BAR_PX) -> Html:
    """Draw a share of 0-100 as a bar with its figure; ``length`` in pixels."""
    if percent is None:
        return Html(NOTHING)
    width = min(100.0, max(0.0, percent))
    colour = _TONES[tone] if tone else _BAR
    label = html.escape(f"{percent:g} %" if text is None else text)
    return Html(
        "<span style='white-space:nowrap'>"
        f"<span style='display:inline-block;width:{length}px;height:9px;border-radius:2px;background:rgba(128,128,128,.22);margin-right:8px'>"
        f"<span style='display:block;width:{width:g}%;height:100%;border-radius:2px;background:{colour}'></span></span>"
        f"<span style='font-variant-numeric:tabular-nums'>{label}</span></span>"
    )


def evidence(value: float | None, limit: float, text: str, tone: Tone) -> Html:
    """Draw an e-value as a bar on a logarithmic scale that is full where ``limit`` decides; below 1 it is empty."""
    if value is None:
        return Html(NOTHING)
    full = math.log(max(1.0, value)) / math.log(limit) if limit > 1 else 1.0
    return bar(100 * full, text=text, tone=tone if full >= 1 else None, length=_SHORT_PX)


def badge(text: str, tone: Tone = "plain") -> Html:
    """Draw a word with a dot in the colour of its tone; the word alone says it too."""
    dot = f"display:inline-block;width:8px;height:8px;border-radius:50%;margin-right:6px;background:{_TONES[tone]}"
    return Html(f"<span style='white-space:nowrap'><span style='{dot}'></span>{html.escape(text)}</span>")


def code(text: str) -> Html:
    """Draw an identifier or a command in the reader's fixed-width letters."""
    style = "background:none;color:inherit;padding:0;font-size:.95em;white-space:nowrap"
    return Html(f"<code style='{style}'>{html.escape(text)}</code>")


def unbroken(text: str) -> Html:
    """Draw text in one line, however narrow its column would like to be."""
    return Html(f"<span style='white-space:nowrap'>{html.escape(text)}</span>")


def line(*parts: object) -> str:
    """Draw several things beside each other."""
    cells = "".join(f"<span style='margin-right:14px'>{_text(part)}</span>" for part in parts)
    return f"<div style='{_BOX}'>{cells}</div>"


def spaced(*parts: object) -> Html:
    """Put several drawings beside each other, in one line of text."""
    return Html("".join(f"<span style='margin-right:12px'>{_text(part)}</span>" for part in parts))


def join(*parts: str) -> Html:
    """Put several drawings below each other."""
    return Html("".join(parts))


def _box(title: str, content: str, note: str | None) -> str:
    head = f"<div style='font-weight:600;margin-bottom:3px'>{_text(title)}</div>" if title else ""
    return f"<div style='{_BOX}'>{head}{content}{_small(note) if note else ''}</div>"


def _small(text: str) -> str:
    return f"<div style='opacity:.65;font-size:12px;margin-top:3px'>{_text(text)}</div>"


def _open_table() -> str:
    return f"<table style='{_TABLE}'>"


def _cell(tag: str, value: object, right: bool) -> str:  # noqa: FBT001 - zipped with the cells
    style = f"{_CELL};{_NUMBER if right else 'text-align:left'}{f';{_HEAD}' if tag == 'th' else ''}"
    return f"<{tag} style='{style}'>{_text(value)}</{tag}>"


def _text(value: object) -> str:
    if isinstance(value, Html):
        return str(value)
    return html.escape(NOTHING if value is None else _figure(value))


def _figure(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _is_numeric(values: Sequence[object]) -> bool:
    known = [value for value in values if value is not None and value != ""]
    return bool(known) and all(_stands_right(value) for value in known)


def _stands_right(value: object) -> bool:
    if isinstance(value, Html | bool):
        return False
    return isinstance(value, int | float) or (isinstance(value, str) and are_figures([value]))
