"""The handle of a rollout (or a rollback): where it stands, and what a user may tell it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Self

from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import ConflictError, ModelDeployError, NotFoundError, OperationCancelled, RolloutAborted
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.session import Session
from modeldeploy.spi import Backend, Meters
from modeldeploy.values.codec import from_json
from modeldeploy.values.gate import GateResult
from modeldeploy.values.metrics import Window
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointState, Revision


class Rollout:
    """A durable change of an endpoint's traffic to one revision; made by ``Endpoint.rollout`` and ``Endpoint.rollback``."""

    def __init__(self, session: Session, operation: Operation) -> None:
        self.operation = operation
        self._session = session

    @classmethod
    def get(cls, id: str, *, backend: str | Backend | Session | None = None, home: Path | str | None = None) -> Self:  # noqa: A002
        """Find a rollout by its operation id, from any process."""
        session = Session.of(backend, home=home)
        return cls(session, Operation.get(id, backend=session, home=home))

    @property
    def id(self) -> str:
        """The id by which any process finds it again."""
        return self.operation.id

    @property
    def endpoint(self) -> str:
        """The name of the endpoint that it changes."""
        return self.operation.target

    @property
    def status(self) -> str:
        """``"running"``, ``"paused"``, ``"succeeded"``, ``"failed"`` (a gate or the provider) or ``"cancelled"`` (a user)."""
        return self.operation.status

    @property
    def outcome(self) -> str:
        """Why it ended or waits, in words."""
        return self.operation.outcome

    @property
    def revision(self) -> Revision:
        """The revision that takes over."""
        return self._cursor(self.operation.record).revision

    @property
    def policy(self) -> RolloutPolicy | None:
        """How it takes over; None for a rollback, which switches at once."""
        cursor = self._cursor(self.operation.record)
        return cursor.policy if isinstance(cursor, RolloutCursor) else None

    @property
    def gates(self) -> tuple[GateResult, ...]:
        """What the gates saw when they last decided."""
        cursor = self._cursor(self.operation.record)
        return cursor.results if isinstance(cursor, RolloutCursor) else ()

    @property
    def traffic(self) -> dict[str, int]:
        """The endpoint's traffic now: ``{revision: percent}``."""
        state = self._state()
        return state.traffic.live if state else {}

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it ended or is paused; RolloutAborted when it went back, OperationTimeout when patience ended first."""
        self.operation.wait(timeout)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.operation.__await__()
        return self

    def pause(self, reason: str = "") -> Self:
        """Stop where it is; traffic stays as it is until ``resume``, ``promote`` or ``abort``."""
        self._refuse_rollback()
        self.operation.tell(Verb.PAUSE, reason)
        return self

    def resume(self, *, wait: bool = False, timeout: float | None = None) -> Self:
        """Go on from where it was paused; the step's soak starts again."""
        return self._tell(Verb.RESUME, "", wait=wait, timeout=timeout)

    def promote(self, reason: str = "", *, wait: bool = True, timeout: float | None = None) -> Self:
        """Give everything to the new revision now, whatever the gates say."""
        return self._tell(Verb.PROMOTE, reason, wait=wait, timeout=timeout)

    def abort(self, reason: str = "", *, wait: bool = True, timeout: float | None = None) -> Self:
        """Go back to stable."""
        try:
            return self._tell(Verb.ABORT, reason, wait=wait, timeout=timeout)
        except (OperationCancelled, RolloutAborted):
            return self

    def _tell(self, verb: Verb, reason: str, *, wait: bool, timeout: float | None) -> Self:
        self._refuse_rollback()
        self.operation.tell(verb, reason)
        self.operation.start()
        return self.wait(timeout) if wait else self

    def _refuse_rollback(self) -> None:
        if self.operation.kind is Kind.ROLLBACK:
            message = f"{self.id} is a rollback, which has no steps"
            raise ConflictError(message, hint="endpoint.rollback(to=...) goes to another revision")

    def _cursor(self, record: Record) -> RolloutCursor | RollbackCursor:
        if record.kind is Kind.ROLLBACK:
            return from_json(RollbackCursor, record.cursor)
        return from_json(RolloutCursor, record.cursor)

    def _state(self) -> EndpointState | None:
        return self._session.serving.observe(self.endpoint)

    def __repr__(self) -> str:
        try:
            record = self.operation.record
        except NotFoundError:
            return f"Rollout({self.id!r}, unknown)"
        revision = self._cursor(record).revision
        return f"Rollout({self.id!r}, {revision.model} on {record.target!r}, {self.status})"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        try:
            record, live = self.operation.record, self.traffic
        except ModelDeployError as error:
            return notebook.line(notebook.code(self.id), notebook.badge(f"not reached: {error}", "bad"))
        cursor = self._cursor(record)
        title = notebook.join(
            notebook.code(self.id), notebook.Html(" "), notebook.badge(self.status, _TONES.get(self.status, "plain"))
        )
        columns = ("revision", "role", "traffic", "requests", "errors", "p50", "p95")
        rows = [self._row(cursor, name, percent) for name, percent in self._shares(cursor, live)]
        note = record.outcome or (str(cursor.policy) if isinstance(cursor, RolloutCursor) else "")
        table = notebook.table(title, rows, columns, note=note)
        return table + self._gates_html(cursor)

    @staticmethod
    def _shares(cursor: RolloutCursor | RollbackCursor, live: Mapping[str, int]) -> list[tuple[str, int]]:
        baseline = cursor.baseline.live if isinstance(cursor, RolloutCursor) and cursor.baseline else {}
        before = dict.fromkeys(baseline, 0)
        return sorted({**before, cursor.revision.id: 0, **live}.items(), key=lambda item: item[0] == cursor.revision.id)

    def _row(self, cursor: RolloutCursor | RollbackCursor, name: str, percent: int) -> list[object]:
        from modeldeploy.observe import notebook

        window = self._window(name)
        role = "new" if name == cursor.revision.id else "stable"
        shown: list[object] = [notebook.code(name), role, notebook.bar(percent)]
        if window is None:
            return [*shown, None, None, None, None]
        return [*shown, window.requests, window.errors, _ms(window.quantile(0.5)), _ms(window.quantile(0.95))]

    def _window(self, name: str) -> Window | None:
        backend, record = self._session.backend, self.operation.record
        if not (backend.capabilities.meters and isinstance(backend, Meters)):
            return None
        return backend.window(self.endpoint, name, record.created, max(record.updated, record.created) + 3600)

    def _gates_html(self, cursor: RolloutCursor | RollbackCursor) -> str:
        from modeldeploy.observe import notebook

        if not isinstance(cursor, RolloutCursor) or not cursor.results:
            return ""
        rows = [
            (each.gate, notebook.badge(each.verdict.value, _VERDICTS[each.verdict.value]), each.reason)
            for each in cursor.results
        ]
        return notebook.table("", rows, ("gate", "verdict", "why"))


_TONES: dict[str, Any] = {
    "running": "plain",
    "paused": "warn",
    "succeeded": "good",
    "failed": "bad",
    "cancelled": "warn",
}
_VERDICTS: dict[str, Any] = {"pass": "good", "fail": "bad", "inconclusive": "warn"}


def _ms(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds * 1000:.3g} ms"
