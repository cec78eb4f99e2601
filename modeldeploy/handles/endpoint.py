"""The handle of an endpoint: deploy, predict, roll out, roll back, look, delete."""

from __future__ import annotations

import difflib
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Self

from modeldeploy.engine import rollback
from modeldeploy.engine.record import HistoryEntry, Kind, Record
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.engine.single import SingleCursor
from modeldeploy.errors import ConfigurationError, ConflictError, InvalidRequestError, ModelDeployError, NotFoundError
from modeldeploy.handles import planning
from modeldeploy.handles.aio import EndpointAio
from modeldeploy.handles.coerce import as_model
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.rollout import Rollout
from modeldeploy.handles.session import Session
from modeldeploy.handles.views import History, LogLines, Metrics
from modeldeploy.spi import Backend
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.model import Signature
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import (
    WHOLE,
    EndpointSpec,
    EndpointState,
    Hardware,
    Revision,
    RevisionState,
    Scale,
)

PREDICT_TIMEOUT_S = 60.0


class Endpoint:
    """A named place that answers predictions, on this machine or at a provider; what it is now is always read from there."""

    def __init__(self, session: Session, name: str, operation: Operation | None = None) -> None:
        self.name = name
        self.operation = operation
        """The deployment that this handle was made by; None when there was nothing to do."""
        self._session = session
        self._signatures: dict[str | None, Signature] = {}

    # Making and finding

    @classmethod
    def deploy(  # noqa: PLR0913 - the whole of a deployment, all of it optional and named
        cls,
        model: object,
        name: str | None = None,
        *,
        backend: str | Backend | Session | None = None,
        home: Path | str | None = None,
        policy: RolloutPolicy | None = None,
        version: str = "1.0.0",
        example: object = None,
        workers: int = 1,
        hardware: Hardware | None = None,
        options: Mapping[str, str] | None = None,
        keep: int = 1,
        golden: bool = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Self:
        """Put a model to work under a name; safe to run again.

        ``model`` is a Model, a fitted estimator (then ``example`` is needed), a path or a URI. The same model on the same endpoint is no
        work; another one is rolled out by ``policy`` (default: all at once, after it reproduced its golden outputs). ``keep`` earlier
        revisions stay warm for an instant rollback.

        Sends the bundle and starts ``workers`` processes or instances; nothing is left behind when that fails. OperationFailed says
        why; ConflictError when another change of the endpoint is not finished.
        """
        made = as_model(model, name=name, version=version, example=example, home=home)
        session = Session.of(backend, home=home)
        endpoint = cls(session, EndpointSpec(name or made.name).name)
        revision = Revision.of(made.identity, scale=Scale(workers), hardware=hardware, options=options)
        rollout = endpoint._roll_out(
            revision, policy or RolloutPolicy.all_at_once(), keep=keep, golden=golden, always=False
        )
        endpoint.operation = rollout.operation if rollout else None
        if wait and rollout is not None:
            rollout.wait(timeout)
        return endpoint

    @classmethod
    def get(cls, name: str, *, backend: str | Backend | Session | None = None, home: Path | str | None = None) -> Self:
        """Find an endpoint; NotFoundError names the ones there are."""
        session = Session.of(backend, home=home)
        endpoint = cls(session, name)
        endpoint._state()
        return endpoint

    @classmethod
    def list(
        cls, *, backend: str | Backend | Session | None = None, home: Path | str | None = None
    ) -> tuple[Self, ...]:
        """Find every endpoint of ours at the backend."""
        session = Session.of(backend, home=home)
        return tuple(cls(session, name) for name in sorted(session.serving.endpoints()))

    # Looking

    @property
    def state(self) -> EndpointState:
        """All that the provider shows of it now; NotFoundError when it is gone."""
        return self._state()

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._state().url

    @property
    def traffic(self) -> dict[str, int]:
        """Who answers how much: ``{revision: percent}``."""
        return self._state().traffic.live

    @property
    def revisions(self) -> tuple[RevisionState, ...]:
        """Every revision that is there, with or without traffic."""
        return self._state().revisions

    @property
    def stable(self) -> Revision:
        """The revision with the most traffic; while a rollout goes on, the one that it started from."""
        state = self._state()
        active = self._active_rollout()
        name = active.stable if active is not None and active.stable else state.stable
        found = state.revision(name) if name else None
        if found is None:
            message = f"endpoint {self.name!r} has no revision with traffic"
            raise NotFoundError(message, hint="deploy a model to it, or wait for the deployment that goes on")
        return found.revision

    @property
    def history(self) -> History:
        """What changed, when, by whom and why; oldest first, hash-chained."""
        return History(self._session.journal, self._session.backend.name, self.name)

    def metrics(self, seconds: float = 300.0) -> Metrics:
        """Give requests, errors and latencies of each revision over the last ``seconds``."""
        meters = self._session.meters
        state, at = self._state(), time.time()
        windows = [meters.window(self.name, each.revision.id, at - seconds, at) for each in state.revisions]
        return Metrics(windows, state.traffic.live)

    def logs(self, *, revision: str | None = None, since: float = 0.0, limit: int = 200) -> LogLines:
        """Give the last ``limit`` lines that a revision (default: stable) wrote; ``since`` in seconds since the epoch."""
        kept = self._session.logs
        name = self._revision(revision) if revision else self.stable.id
        return LogLines(kept.lines(self.name, name, since=since, limit=limit))

    # Predicting

    def predict(self, data: object, *, revision: str | None = None, timeout: float = PREDICT_TIMEOUT_S) -> Any:
        """Predict for numpy, pandas, polars, pyarrow, lists, dicts; the answer comes in the kind of what was given.

        ``revision`` (an id or a model version) names who answers, past the traffic table. Sends one request; safe to repeat for a model
        without side effects. InvalidRequestError, before anything is sent, names the column that does not fit.
        """
        from modeldeploy.handles import predictor

        if revision is not None:
            self._session.backend.capabilities.require("pinned_invoke", backend=self._session.backend.name)
            revision = self._revision(revision)
        serving, known = self._session.serving, revision in self._signatures
        signature = self._signature(revision)
        try:
            return predictor.predict(serving, self.name, data, signature, revision=revision, timeout=timeout)
        except InvalidRequestError:
            if not known:
                raise
            del self._signatures[revision]
            fresh = self._signature(revision)
            if fresh == signature:
                raise
        # Another model took over since the signature was read.
        return predictor.predict(serving, self.name, data, fresh, revision=revision, timeout=timeout)

    # Changing

    def plan(
        self, model: object, policy: RolloutPolicy | None = None, *, version: str = "1.0.0", example: object = None
    ) -> planning.Plan:
        """Say what a rollout would do, who does it, and what is refused; changes nothing at the provider."""
        made = as_model(model, name=self.name, version=version, example=example, home=self._session.home)
        state = self._session.serving.observe(self.name)
        return planning.plan(
            self._session.backend, self.name, state, made.identity, policy or RolloutPolicy.all_at_once()
        )

    def rollout(  # noqa: PLR0913 - likewise
        self,
        model: object,
        policy: RolloutPolicy | None = None,
        *,
        version: str = "1.0.0",
        example: object = None,
        workers: int | None = None,
        hardware: Hardware | None = None,
        options: Mapping[str, str] | None = None,
        keep: int = 1,
        golden: bool = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Rollout:
        """Let a new model take over by ``policy`` (default: all at once); the shape of stable is kept unless given.

        With ``wait=False`` it is driven by this process in the background, and by any process after it ended. RolloutAborted when a
        gate failed: traffic is back on stable then.
        """
        made = as_model(model, name=self.name, version=version, example=example, home=self._session.home)
        before = self.stable
        revision = Revision.of(
            made.identity,
            scale=before.scale if workers is None else Scale(workers),
            hardware=hardware or before.hardware,
            options=before.options if options is None else options,
        )
        rollout = self._roll_out(revision, policy or RolloutPolicy.all_at_once(), keep=keep, golden=golden, always=True)
        if rollout is None:
            raise AssertionError(revision.id)
        return rollout.wait(timeout) if wait else rollout

    def rollback(
        self, *, to: str | None = None, reason: str = "", wait: bool = True, timeout: float | None = None
    ) -> Rollout:
        """Give all traffic back at once: to the revision before stable, or to ``to`` (a revision id or model version of the history).

        A rollout that goes on is ended by it, and stable gets everything. NotFoundError when there is nothing to go back to.
        """
        state = self._state()
        active = self._active()
        revision = self._target(state, active, to)
        cursor = RollbackCursor(EndpointSpec(self.name), revision, reason)
        record = self._session.begin(
            Kind.ROLLBACK, self.name, to_json(cursor), reason=reason, supersede=active.id if active else None
        )
        rollout = Rollout(self._session, Operation(self._session, record.id).start())
        return rollout.wait(timeout) if wait else rollout

    def delete(self, *, reason: str = "", wait: bool = True, timeout: float | None = None) -> Operation:
        """Take the endpoint and all its revisions away. One that is gone already is fine; a rollout that goes on is ended by it."""
        ticket = self._session.serving.drop_endpoint(self.name)
        entry = HistoryEntry("deleted", "", reason)
        active = self._active()
        record = self._session.begin(
            Kind.DELETE,
            self.name,
            to_json(SingleCursor(ticket, history=entry)),
            reason=reason,
            supersede=active.id if active else None,
        )
        operation = Operation(self._session, record.id).start()
        return operation.wait(timeout) if wait else operation

    # Async twins

    @property
    def aio(self) -> EndpointAio:
        """The same verbs for ``await``."""
        return EndpointAio(self)

    def __await__(self) -> Generator[Any, None, Self]:
        if self.operation is not None:
            yield from self.operation.__await__()
        return self

    # Plumbing

    def _roll_out(
        self, revision: Revision, policy: RolloutPolicy, *, keep: int, golden: bool, always: bool
    ) -> Rollout | None:
        state = self._session.serving.observe(self.name)
        active = self._active()
        if active is not None and active.kind is Kind.ROLLOUT and _cursor(active).revision == revision:
            return Rollout(self._session, Operation(self._session, active.id).start())
        if active is None and not always and _is_there(state, revision):
            return None
        _check_kinds(policy, keep)
        planning.refuse_unsupported(self._session.backend, state, policy, revision.id)
        spec = EndpointSpec(self.name)
        # Starting writes nothing and checks everything: what is wrong is told here, not by an operation that failed.
        ticket = self._session.serving.put_revision(spec, revision)
        cursor = RolloutCursor(
            spec,
            revision,
            policy,
            ticket=ticket,
            keep=keep,
            golden=golden,
            sticky=self._session.backend.capabilities.sticky,
        )
        record = self._session.begin(Kind.ROLLOUT, self.name, to_json(cursor))
        return Rollout(self._session, Operation(self._session, record.id).start())

    def _state(self) -> EndpointState:
        state = self._session.serving.observe(self.name)
        if state is None:
            names = sorted(self._session.serving.endpoints())
            close = difflib.get_close_matches(self.name, names, n=1)
            asked = f"did you mean {close[0]!r}? " if close else ""
            message = f"there is no endpoint {self.name!r} on {self._session.backend.name!r}"
            raise NotFoundError(message, hint=f"{asked}there are {names}")
        return state

    def _active(self) -> Record | None:
        found = self._session.journal.unfinished(backend=self._session.backend.name, target=self.name)
        return found[0] if found else None

    def _active_rollout(self) -> RolloutCursor | None:
        active = self._active()
        return _cursor(active) if active is not None and active.kind is Kind.ROLLOUT else None

    def _target(self, state: EndpointState, active: Record | None, to: str | None) -> Revision:
        if active is not None and active.kind is Kind.ROLLOUT and to is None:
            cursor = _cursor(active)
            # One that has not begun has changed nothing yet.
            name = cursor.stable if cursor.begun else state.stable
            found = state.revision(name) if name else None
            if found is None and name is None:
                message = f"{active.id} deploys the first revision of {self.name!r}; there is nothing to go back to"
                raise ConflictError(message, hint="wait for it, or delete the endpoint")
            if found is not None:
                return found.revision
        lines = self.history.lines
        there = [each.revision for each in state.revisions if to in {each.revision.id, each.revision.model.version}]
        if there:
            return there[-1]
        if to is not None or rollback.served(lines):
            return rollback.target(lines, endpoint=self.name, stable=state.stable, to=to)
        others = [each.revision for each in state.revisions if each.revision.id != state.stable and each.ready]
        if len(others) != 1:
            message = f"the journal of this machine knows no earlier revision of endpoint {self.name!r}"
            raise NotFoundError(message, hint=f"name one: to= one of {[each.id for each in others]}")
        return others[0]

    def _revision(self, wanted: str) -> str:
        state = self._state()
        found = [
            each.revision.id for each in state.revisions if wanted in {each.revision.id, each.revision.model.version}
        ]
        if not found:
            message = f"endpoint {self.name!r} has no revision {wanted!r}"
            raise NotFoundError(message, hint=f"it has {[each.revision.id for each in state.revisions]}")
        return found[-1]

    def _signature(self, revision: str | None) -> Signature:
        """Read once what the answering model takes; a 4xx of the server makes us read again."""
        if revision not in self._signatures:
            state = self._state()
            name = revision or state.stable
            found = state.revision(name) if name else None
            if found is None:
                message = f"endpoint {self.name!r} has no revision with traffic"
                raise NotFoundError(message, hint="wait for the deployment that goes on: endpoint.operation.wait()")
            self._signatures[revision] = found.revision.model.signature
        return self._signatures[revision]

    def __repr__(self) -> str:
        where = f"{self.name!r} on {self._session.backend.name!r}"
        try:
            state = self._session.serving.observe(self.name)
        except ModelDeployError as error:
            return f"Endpoint({where}, not reached: {error})"
        if state is None:
            return f"Endpoint({where}, not there)"
        return f"Endpoint({where}, {state.url}, traffic {state.traffic.live})"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        try:
            state = self._session.serving.observe(self.name)
        except ModelDeployError as error:
            return notebook.line(notebook.code(self.name), notebook.badge(f"not reached: {error}", "bad"))
        if state is None:
            return notebook.line(notebook.code(self.name), notebook.badge("not there", "bad"))
        rows = [
            (
                notebook.code(each.revision.id),
                str(each.revision.model),
                notebook.badge("ready", "good") if each.ready else notebook.badge(each.note or "not ready", "warn"),
                notebook.bar(state.traffic.share(each.revision.id)),
            )
            for each in state.revisions
        ]
        title = f"{self.name} on {self._session.backend.name}"
        return notebook.table(title, rows, ("revision", "model", "state", "traffic"), note=state.url)


def _check_kinds(policy: object, keep: object) -> None:
    """Refuse what a notebook, which no type checker reads, gives most often."""
    if not isinstance(policy, RolloutPolicy):
        message = f"policy is {policy!r}"
        raise ConfigurationError(message, hint="make one, for example RolloutPolicy.canary((5, 50), soak=60)")
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 0:
        message = f"keep is {keep!r}"
        raise ConfigurationError(message, hint="use a whole number of earlier revisions, 0 or more")


def _cursor(record: Record) -> RolloutCursor:
    return from_json(RolloutCursor, record.cursor)


def _is_there(state: EndpointState | None, revision: Revision) -> bool:
    found = state.revision(revision.id) if state else None
    return state is not None and found is not None and found.ready and state.traffic.live == {revision.id: WHOLE}
