"""The parity report as a notebook and a terminal show it."""

from __future__ import annotations

from collections.abc import Iterator

from modeldeploy.convert.report import Check, Output, ParityReport, Side
from modeldeploy.observe import notebook

_KB = 1_000
_HUNDRED = 100
_TOLD = "told only: no request can hold gaps"


def html(report: ParityReport) -> str:
    """Draw what was compared, what was measured, and on which processor."""
    return notebook.join(_checks(report), _measured(report), _facts(report))


def text(report: ParityReport) -> str:
    """Say the same in a few lines."""
    lines = [f"parity of {report.kind}: {'passed' if report.passed else 'failed'}"]
    lines += [f"  {said}" for check in report.checks for said in _said(check)]
    lines += [f"  {_sized(report, side)}" for side in (report.before, report.after)]
    return "\n".join([*lines, *(f"  {note}" for note in report.notes)])


def _said(check: Check) -> Iterator[str]:
    rows = f"{check.what} ({check.rows:,} rows)"
    if check.failure:
        yield f"{rows}: {check.failure}"
    for output in check.outputs:
        largest = "" if output.largest is None else f", largest difference {output.largest:.3g}"
        yield f"{rows} {output.name}: {_agreement(output)}{largest}{'' if check.binding else f'; {_TOLD}'}"


def _sized(report: ParityReport, side: Side) -> str:
    times = f"one row {side.one_row_ms:.3g} ms, {report.batch_rows:,} rows {side.batch_ms:.3g} ms"
    score = "" if side.score is None else f", {report.metric} {side.score:.4g}"
    return f"{side.what}: {side.size / _KB:,.1f} kB, {times}{score}"


def _checks(report: ParityReport) -> str:
    rows = [line for check in report.checks for line in _lines(check)]
    columns = ("rows", "count", "output", "agree", "largest difference", "ties", "")
    title = notebook.spaced(f"Parity: {report.kind}", _verdict(report.passed))
    return notebook.table(title, rows, columns)


def _verdict(passed: bool) -> notebook.Html:  # noqa: FBT001 - the verdict itself
    return notebook.badge("passed", "good") if passed else notebook.badge("failed", "bad")


def _lines(check: Check) -> Iterator[tuple[object, ...]]:
    told = "" if check.binding else _TOLD
    if check.failure:
        yield check.what, check.rows, "", "", None, None, check.failure
    for output in check.outputs:
        yield check.what, check.rows, output.name, _agreement(output), output.largest, output.ties or None, told


def _agreement(output: Output) -> str:
    if not output.differing:
        return "all"
    return f"{_HUNDRED * output.agreement:.4g} % ({output.differing:,} differ)"


def _measured(report: ParityReport) -> str:
    scored = report.metric != ""
    columns = ("model", "kB", "one row, ms", f"{report.batch_rows:,} rows, ms", *((report.metric,) if scored else ()))
    rows = [_side(side, scored=scored) for side in (report.before, report.after)]
    return notebook.table("", rows, columns, note="times are medians on this machine at that moment")


def _side(side: Side, *, scored: bool) -> tuple[object, ...]:
    return side.what, side.size / _KB, side.one_row_ms, side.batch_ms, *((side.score,) if scored else ())


def _facts(report: ParityReport) -> str:
    cpu = report.cpu
    pairs = [("processor", ", ".join((cpu.machine, cpu.model, *cpu.features)))]
    pairs += [("versions", ", ".join(f"{name} {version}" for name, version in report.versions.items()))]
    pairs += [("note", note) for note in report.notes]
    return notebook.definition("", pairs)
