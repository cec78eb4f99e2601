"""The handle of a rollout (or a rollback): where it stands, what decided it, and what a user may tell it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.rollout import RolloutCursor, Stage
from modeldeploy.errors import ConflictError, ModelDeployError, NotFoundError, OperationCancelled, RolloutAborted
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.session import Session
from modeldeploy.spi import Backend, Meters
from modeldeploy.values.codec import from_json
from modeldeploy.values.gate import GateResult
from modeldeploy.values.metrics import Window
from modeldeploy.values.rollout import RolloutPolicy, Strategy
from modeldeploy.values.serving import Revision, Traffic
from modeldeploy.values.ticket import Phase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from modeldeploy.engine.rollback import RollbackCursor
    from modeldeploy.handles.live_table import LiveTable
    from modeldeploy.handles.verdicts import Outcomes, Verdicts
    from modeldeploy.observe.timeline import Timeline
    from modeldeploy.values.edge import Device


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
        """What the gates saw when they last looked."""
        verdicts = self.verdicts
        if verdicts and verdicts[-1].gates:
            return verdicts[-1].gates
        cursor = self._cursor(self.operation.record)
        return cursor.results if isinstance(cursor, RolloutCursor) else ()

    @property
    def verdicts(self) -> Verdicts:
        """Every recorded look of the gates with its evidence, oldest first."""
        from modeldeploy.handles.verdicts import Verdicts
        from modeldeploy.observe.timeline import looks

        record = self.operation.record
        policy = self.policy or RolloutPolicy.all_at_once()
        empty = (
            "the gates have not looked yet" if policy.gates else f"a {record.kind.value} without gates looks at nothing"
        )
        return Verdicts(looks(self.operation.events()), began=record.created, analysis=policy.analysis, empty=empty)

    @property
    def outcomes(self) -> Outcomes:
        """What was reported by ``score`` so far, by revision: the mean with an interval that may be looked at at any time."""
        from modeldeploy.handles.verdicts import Outcomes

        cursor = self._test(self.operation.record)
        tallies, alpha = self._session.journal.outcomes(self.id), cursor.policy.analysis.alpha
        return Outcomes(tallies, new=cursor.revision.id, stable=cursor.stable, alpha=alpha)

    @property
    def traffic(self) -> dict[str, int]:
        """The endpoint's traffic now: ``{revision: percent}``."""
        return self._table().live

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it ended or is paused; RolloutAborted when it went back, OperationTimeout when patience ended first."""
        self.operation.wait(timeout)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self.operation.__await__()
        return self

    def pause(self, reason: str = "", *, wait: bool = False, timeout: float | None = None) -> Self:
        """Stop where it is; traffic stays as it is until ``resume``, ``skip_step``, ``promote`` or ``abort``."""
        self._refuse_rollback()
        self.operation.tell(Verb.PAUSE, reason)
        return self.wait(timeout) if wait else self

    def resume(self, *, wait: bool = False, timeout: float | None = None) -> Self:
        """Go on from where it was paused; the step's soak starts again."""
        return self._tell(Verb.RESUME, "", wait=wait, timeout=timeout)

    def skip_step(self, reason: str = "", *, wait: bool = False, timeout: float | None = None) -> Self:
        """Go on to the next step now, whatever the gates say about this one; a gate that fails later still takes it back."""
        return self._tell(Verb.SKIP, reason, wait=wait, timeout=timeout)

    def promote(self, reason: str = "", *, wait: bool = True, timeout: float | None = None) -> Self:
        """Give everything to the new revision now, whatever the gates say."""
        return self._tell(Verb.PROMOTE, reason, wait=wait, timeout=timeout)

    def abort(self, reason: str = "", *, wait: bool = True, timeout: float | None = None) -> Self:
        """Go back to stable; one that went back already is left as it is.

        ConflictError when it had been promoted before the word was heard: then only ``endpoint.rollback()`` goes back.
        """
        self._refuse_rollback()
        if not self._ended():
            try:
                self._tell(Verb.ABORT, reason, wait=wait, timeout=timeout)
            except (OperationCancelled, RolloutAborted):
                return self
            except ConflictError:
                # It may have ended between the look and the word.
                if not self._ended():
                    raise
        self._refuse_promoted()
        return self

    def score(
        self, values: object, *, keys: Iterable[object] | None = None, revision: str | Iterable[str] | None = None
    ) -> int:
        """Report how well answers of an A/B test turned out, as numbers of 0-1 (or True and False); gives how many were new.

        ``ro.score({"user-1": 1, "user-2": 0})`` or ``ro.score(values, keys=[...])``; lists, arrays and Series will do. The keys are those
        by which the test assigns, so it is known which revision answered; ``revision`` names it (one, or one for each key) where the caller
        knows better, for example from the answer's header ``modeldeploy-revision``. The first value of a key counts, so repeating is safe.
        ConflictError when this is no A/B test, has not begun or has ended.
        """
        from modeldeploy.handles import scores

        record = self.operation.record
        cursor = self._test(record)
        if record.phase.ended or cursor.stage is not Stage.WALK:
            why = (
                "has ended already"
                if record.phase.ended
                else f"is not dividing its keys, but at {cursor.stage.value!r}"
            )
            message = f"{self.id} {why}"
            raise ConflictError(message, hint="outcomes are taken while the test runs", context={"operation": self.id})
        rows = scores.rows(values, keys, revision, cursor.table(0).live)
        return self._session.journal.record_outcomes(self.id, rows)

    def plot(self) -> Figure:
        """Draw traffic, each gate's figures and the evidence over time, as a matplotlib Figure; a rollback shows its traffic.

        MissingDependencyError without matplotlib.
        """
        from modeldeploy.observe import plots

        record = self.operation.record
        cursor = self._cursor(record)
        title = f"{record.kind.value} of {cursor.revision.model} on {record.target}"
        stable = cursor.stable if isinstance(cursor, RolloutCursor) else None
        return plots.draw(
            self._timeline(record, cursor),
            title=f"{title}: {self.status}",
            new=cursor.revision.id,
            stable=stable,
            policy=cursor.policy if isinstance(cursor, RolloutCursor) else None,
        )

    def _timeline(self, record: Record, cursor: RolloutCursor | RollbackCursor) -> Timeline:
        from modeldeploy.observe.timeline import Timeline

        before = cursor.baseline.live if isinstance(cursor, RolloutCursor) and cursor.baseline else None
        until = record.updated if record.phase.ended else time.time()
        return Timeline.of(self.operation.events(), began=record.created, until=until, before=before)

    def _tell(self, verb: Verb, reason: str, *, wait: bool, timeout: float | None) -> Self:
        self._refuse_rollback()
        self.operation.tell(verb, reason)
        self.operation.start()
        return self.wait(timeout) if wait else self

    def _refuse_rollback(self) -> None:
        if self.operation.kind is Kind.ROLLBACK:
            message = f"{self.id} is a rollback, which has no steps"
            raise ConflictError(message, hint="endpoint.rollback(to=...) goes to another revision")

    def _refuse_promoted(self) -> None:
        record = self.operation.record
        if record.phase is Phase.SUCCEEDED:
            message = f"{self.id} has ended already: {record.outcome}"
            hint = "nothing was changed; endpoint.rollback() gives the traffic back"
            raise ConflictError(message, hint=hint, context={"operation": self.id})

    def _ended(self) -> bool:
        return self.operation.record.phase.ended

    def _test(self, record: Record) -> RolloutCursor:
        """Give the cursor of an A/B test; ConflictError for anything else."""
        cursor = self._cursor(record)
        if isinstance(cursor, RolloutCursor) and cursor.policy.strategy is Strategy.AB_TEST:
            return cursor
        what = cursor.policy.strategy.value if isinstance(cursor, RolloutCursor) else "rollback"
        message = f"{self.id} is no A/B test but a {what}, which takes no outcomes"
        raise ConflictError(
            message, hint="endpoint.rollout(model, RolloutPolicy.ab_test(key=..., until=...)) begins one"
        )

    def _cursor(self, record: Record) -> RolloutCursor | RollbackCursor:
        if record.kind is Kind.ROLLBACK:
            from modeldeploy.engine.rollback import RollbackCursor

            return from_json(RollbackCursor, record.cursor)
        return from_json(RolloutCursor, record.cursor)

    def _table(self) -> Traffic:
        state = self._session.rollable.observe(self.endpoint)
        return state.traffic if state else Traffic()

    # What it shows

    def _live_table(self) -> LiveTable:
        from modeldeploy.handles.live_table import live_table, roles

        record, traffic = self.operation.record, self._table()
        cursor = self._cursor(record)
        windows = {name: self._window(record, name) for name in roles(cursor, traffic)} if self._measured else {}
        return live_table(
            record,
            cursor,
            traffic,
            status=self.status,
            windows=windows,
            gates=self.gates,
            now=time.time(),
            devices=self._devices() if traffic.live else None,
        )

    def _devices(self) -> Sequence[Device] | None:
        edge = self._session.backend.capabilities.edge
        return self._session.edge.devices(self.endpoint) if edge else None

    @property
    def _measured(self) -> bool:
        backend = self._session.backend
        return backend.capabilities.meters and isinstance(backend, Meters)

    def _window(self, record: Record, revision: str) -> Window:
        """Read what a revision answered since the rollout began, up to its end."""
        until = record.updated if record.phase.ended else time.time()
        return self._session.meters.window(self.endpoint, revision, record.created, until + _SLOT_S)

    def __repr__(self) -> str:
        try:
            record = self.operation.record
        except NotFoundError:
            return f"Rollout({self.id!r}, unknown)"
        revision = self._cursor(record).revision
        return f"Rollout({self.id!r}, {revision.model} on {record.target!r}, {self.status})"

    def __str__(self) -> str:
        """Give the live table for a terminal: revisions with their traffic and answers, gates with their evidence."""
        try:
            return str(self._live_table())
        except ModelDeployError as error:
            return f"{self!r}: not reached: {error}"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        try:
            return self._live_table().html()
        except ModelDeployError as error:
            return notebook.line(notebook.code(self.id), notebook.badge(f"not reached: {error}", "bad"))


_SLOT_S = 1.0
"""Metrics are kept in slots of up to a second; the one that has begun is read too."""
