"""Where a rollout stands, as one picture: a live table for notebooks and its twin for terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from modeldeploy.engine.cursor import RolloutCursor
from modeldeploy.engine.record import Record
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.handles.verdicts import badge, columns, weighed
from modeldeploy.observe import notebook, text
from modeldeploy.observe.status import duration
from modeldeploy.values.analysis import Analysis
from modeldeploy.values.edge import Device, Ring
from modeldeploy.values.gate import GateResult
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import Traffic

_DEVICES = ("devices", "ok", "failed", "offline", "pending")
_STATUS: dict[str, notebook.Tone] = {
    "running": "plain",
    "paused": "warn",
    "succeeded": "good",
    "failed": "bad",
    "cancelled": "warn",
}


@attrs.frozen
class Row:
    """One revision: its role, its share of the traffic and of the copies in percent, and what it answered since the rollout began."""

    revision: str
    role: str
    percent: int
    copies: int = 0
    window: Window | None = None
    ring: Ring | None = None
    """The devices that want it, where it runs on devices."""

    def answers(self) -> tuple[object, ...]:
        """Give requests, errors, p50 and p95; None for each that nobody measures."""
        if self.window is None:
            return (None, None, None, None)
        quantiles = [_ms(self.window.quantile(q)) for q in (0.5, 0.95)]
        return (self.window.requests, self.window.errors, *quantiles)

    def disagreement(self) -> str | None:
        """Say how many of the compared answers differ from stable's."""
        if self.window is None or not self.window.compared:
            return None
        differ, compared = self.window.disagreed, self.window.compared
        return f"{differ:,} of {compared:,} ({100 * differ / compared:.3g} %)"


@attrs.frozen
class LiveTable:
    """All that the live table shows."""

    id: str
    title: str
    status: str
    note: str
    rows: tuple[Row, ...]
    gates: tuple[GateResult, ...] = ()
    analysis: Analysis = attrs.field(factory=Analysis)

    def _columns(self) -> tuple[str, ...]:
        if self._on_devices:
            return ("revision", "role", "share", *_DEVICES)
        copies = ("copies",) if self._copied else ()
        differ = ("disagreement",) if self._compared else ()
        return ("revision", "role", "traffic", *copies, "requests", "errors", "p50", "p95", *differ)

    @property
    def _on_devices(self) -> bool:
        return any(row.ring is not None for row in self.rows)

    @property
    def _copied(self) -> bool:
        return any(row.copies for row in self.rows)

    @property
    def _compared(self) -> bool:
        return any(row.disagreement() for row in self.rows)

    def _rest(self, row: Row) -> tuple[object, ...]:
        if self._on_devices:
            return attrs.astuple(row.ring)[1:] if row.ring else (None,) * len(_DEVICES)
        copies = (f"{row.copies} %" if row.copies else None,) if self._copied else ()
        differ = (row.disagreement(),) if self._compared else ()
        return (*copies, *row.answers(), *differ)

    def __str__(self) -> str:
        rows = [(row.revision, row.role, f"{row.percent} %", *self._rest(row)) for row in self.rows]
        parts = [f"{self.title}: {self.status} ({self.id})", *([self.note] if self.note else [])]
        parts.append(text.table(rows, self._columns()))
        if self.gates:
            weighty = [(each.gate, each.verdict.value, *weighed(each)) for each in self.gates]
            parts += ["", text.table(weighty, columns(self.analysis)), *filter(None, [self._reasons()])]
        return "\n".join(parts)

    def html(self) -> str:
        """Draw it for a notebook."""
        rows = [
            (notebook.code(row.revision), row.role, notebook.bar(row.percent), *self._rest(row)) for row in self.rows
        ]
        title = notebook.spaced(
            self.title, notebook.badge(self.status, _STATUS.get(self.status, "plain")), notebook.code(self.id)
        )
        return notebook.table(title, rows, self._columns(), note=self.note) + self._gates_html()

    def _gates_html(self) -> str:
        if not self.gates:
            return ""
        lines = [(notebook.code(each.gate), badge(each.verdict.value), *self._weight(each)) for each in self.gates]
        return notebook.table("", lines, columns(self.analysis), note=self._reasons())

    def _weight(self, result: GateResult) -> tuple[object, ...]:
        bad, rate, interval, stable, against, favour = weighed(result)
        analysis = self.analysis
        against_bar = notebook.evidence(result.against, 1 / analysis.alpha, against, "bad")
        favour_bar = notebook.evidence(result.favour, 1 / analysis.beta, favour, "good")
        return bad, rate, notebook.unbroken(interval), stable, against_bar, favour_bar

    def _reasons(self) -> str:
        """Say why, where the figures of the table do not."""
        said = [f"{each.gate}: {each.reason}" for each in self.gates if each.against is None and each.reason]
        return "; ".join(said)


def live_table(
    record: Record,
    cursor: RolloutCursor | RollbackCursor,
    traffic: Traffic,
    *,
    status: str,
    windows: Mapping[str, Window],
    gates: tuple[GateResult, ...],
    now: float,
    devices: Sequence[Device] | None = None,
) -> LiveTable:
    """Put together where an operation stands at the moment ``now`` (seconds since the epoch)."""
    policy = cursor.policy if isinstance(cursor, RolloutCursor) else None
    kind = "rollout" if policy else "rollback"
    rows = tuple(
        Row(
            name,
            role,
            traffic.share(name),
            traffic.shadow.get(name, 0),
            windows.get(name),
            None
            if devices is None
            else Ring.of(traffic.share(name), (each for each in devices if each.wanted == name)),
        )
        for name, role in roles(cursor, traffic).items()
    )
    return LiveTable(
        record.id,
        title=f"{kind} of {cursor.revision.model} on {record.target}",
        status=status,
        note=record.outcome or _note(cursor, now),
        rows=rows,
        gates=gates,
        analysis=policy.analysis if policy else Analysis(),
    )


def roles(cursor: RolloutCursor | RollbackCursor, traffic: Traffic) -> dict[str, str]:
    """Name everybody who takes part, the new revision last: "stable", "new", or "shadow" while it is sent copies only."""
    before = cursor.baseline.live if isinstance(cursor, RolloutCursor) and cursor.baseline else {}
    new = cursor.revision.id
    others = [name for name in dict.fromkeys([*before, *traffic.live, *traffic.copies]) if name != new]
    shadow = new in traffic.copies and not traffic.share(new)
    return {**dict.fromkeys(others, "stable"), new: "shadow" if shadow else "new"}


def _note(cursor: RolloutCursor | RollbackCursor, now: float) -> str:
    if isinstance(cursor, RollbackCursor):
        return cursor.reason
    if cursor.since is None:
        return str(cursor.policy)
    share = f"{cursor.percent} %" if cursor.percent else f"copies of {cursor.policy.copies} %"
    step = f"step {cursor.step + 1} of {len(cursor.policy.steps)}, {share} for {duration(now - cursor.since)}"
    return f"{step}; {cursor.policy}"


def _ms(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.3g} ms"
