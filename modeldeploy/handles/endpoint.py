"""The handle of an endpoint: deploy, predict, roll out, roll back, look, delete."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from modeldeploy.errors import ConfigurationError, InvalidRequestError, ModelDeployError, NotFoundError

if TYPE_CHECKING:
    from modeldeploy.handles.aio import EndpointAio
    from modeldeploy.handles.operation import Operation
    from modeldeploy.handles.plans import Plan
    from modeldeploy.handles.rollout import Rollout
    from modeldeploy.handles.session import Session
    from modeldeploy.handles.snapshot import Snapshot
    from modeldeploy.handles.sticky import Route
    from modeldeploy.handles.views import History, LogLines, Metrics
    from modeldeploy.spi import Backend
    from modeldeploy.values.model import Signature
    from modeldeploy.values.rollout import RolloutPolicy
    from modeldeploy.values.serving import EndpointState, Hardware, Revision, RevisionState
    from modeldeploy.values.tolerance import ToleranceLike

# What the verbs rest on is imported by each: whoever deploys has the processes begun first, and they start while the rest is loaded.

PREDICT_TIMEOUT_S = 60.0


class Endpoint:
    """A named place that answers predictions, on this machine or at a provider; what it is now is always read from there."""

    def __init__(self, session: Session, name: str, operation: Operation | None = None) -> None:
        from modeldeploy.handles.sticky import Keys

        session.backend.capabilities.require("serving", backend=session.backend.name)
        self.name = name
        self.operation = operation
        """The deployment that this handle was made by; None when there was nothing to do."""
        self._session = session
        self._signatures: dict[str | None, Signature] = {}
        self._keys = Keys(session, name)

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
        endpoint_options: Mapping[str, object] | None = None,
        keep: int = 1,
        golden: ToleranceLike = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Self:
        """Put a model to work under a name; safe to run again.

        ``model`` is a Model, a fitted estimator (then ``example`` is needed), a path or a URI. The same model on the same endpoint is no
        work; another one is rolled out by ``policy`` (default: all at once, after it reproduced its golden outputs). ``keep`` earlier
        revisions stay warm for an instant rollback. ``options`` are the revision's, ``endpoint_options`` the endpoint's; a backend's page
        lists what it knows.

        Sends the bundle and starts ``workers`` processes or instances; nothing is left behind when that fails. OperationFailed says
        why; ConflictError when another change of the endpoint is not finished.
        """
        from modeldeploy.handles import early

        if not options:
            early.expect(model, backend, home)
        from modeldeploy.handles.changing import roll_out
        from modeldeploy.handles.coerce import asked, shaped
        from modeldeploy.handles.snapshot import Snapshot

        session, where, revision = asked(model, name, backend, home, version=version, example=example)
        revision = shaped(revision, workers=workers, hardware=hardware, options=options)
        endpoint = cls(session, where)
        snapshot = Snapshot.of(session, where, endpoint_options)
        rollout = roll_out(snapshot, revision, policy, keep=keep, golden=golden, always=False)
        endpoint.operation = rollout.operation if rollout else None
        if wait and rollout is not None:
            rollout.wait(timeout)
        return endpoint

    @classmethod
    def plan_deploy(  # noqa: PLR0913 - the arguments of deploy
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
        endpoint_options: Mapping[str, object] | None = None,
        keep: int = 1,
        golden: ToleranceLike = True,
    ) -> Plan:
        """Say what ``deploy`` with the same arguments would do, also for an endpoint that is not there yet; changes nothing at the provider.

        A bare estimator is packaged into the store of this machine to be looked at.
        """
        from modeldeploy.handles import planning
        from modeldeploy.handles.coerce import asked, begun, shaped
        from modeldeploy.handles.snapshot import Snapshot

        session, where, revision = asked(model, name, backend, home, version=version, example=example)
        revision = shaped(revision, workers=workers, hardware=hardware, options=options)
        snapshot = Snapshot.of(session, where, endpoint_options)
        return planning.of_rollout("deploy", snapshot, begun(snapshot, revision, policy, keep=keep, golden=golden))

    @classmethod
    def get(cls, name: str, *, backend: str | Backend | Session | None = None, home: Path | str | None = None) -> Self:
        """Find an endpoint; NotFoundError names the ones there are."""
        from modeldeploy.handles.session import Session

        session = Session.of(backend, home=home)
        endpoint = cls(session, name)
        endpoint._state()
        return endpoint

    @classmethod
    def list(
        cls, *, backend: str | Backend | Session | None = None, home: Path | str | None = None
    ) -> tuple[Self, ...]:
        """Find every endpoint of ours at the backend."""
        from modeldeploy.handles.session import Session

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
        return self._snapshot().stable

    @property
    def history(self) -> History:
        """What changed, when, by whom and why; oldest first, hash-chained."""
        from modeldeploy.handles.views import History

        return History(self._session.journal, self._session.backend.name, self.name)

    def metrics(self, seconds: float = 300.0) -> Metrics:
        """Give requests, errors and latencies of each revision over the last ``seconds``."""
        import time

        from modeldeploy.handles.views import Metrics

        meters = self._session.meters
        state, at = self._state(), time.time()
        windows = [meters.window(self.name, each.revision.id, at - seconds, at) for each in state.revisions]
        return Metrics(windows, state.traffic.live)

    def logs(self, *, revision: str | None = None, since: float = 0.0, limit: int = 200) -> LogLines:
        """Give the last ``limit`` lines that a revision (default: stable) wrote; ``since`` in seconds since the epoch."""
        from modeldeploy.handles.snapshot import named
        from modeldeploy.handles.views import LogLines

        kept = self._session.logs
        name = named(self._state(), revision).id if revision else self.stable.id
        return LogLines(kept.lines(self.name, name, since=since, limit=limit))

    # Predicting

    def predict(
        self,
        data: object,
        *,
        key: str | int | None = None,
        revision: str | None = None,
        timeout: float = PREDICT_TIMEOUT_S,
    ) -> Any:
        """Predict for numpy, pandas, polars, pyarrow, lists, dicts; the answer comes in the kind of what was given.

        ``key`` (a user's id, say) is answered by one revision, and moves only to one whose share grows: by the backend's router where it keeps
        keys and the traffic table has one, else by naming the revision here; UnsupportedError where neither is possible. ``revision`` (an id or
        a model version) names who answers, past the traffic table.

        A large table is sent as several requests within the one ``timeout`` (seconds) and answered as a whole; an error says which rows it
        is about. All of it is answered by one revision, also while traffic is split: the one that answered the first rows is named in the
        requests that follow, and the call begins anew when it goes meanwhile. A backend whose calls cannot name a revision
        (``pinned_invoke``) may answer parts by different ones, which a warning tells.

        Safe to repeat for a model without side effects, and safe to use from several threads and in forked processes.
        InvalidRequestError, before anything is sent, names the column that does not fit.
        """
        from modeldeploy.handles.sticky import Route

        if key is not None and revision is not None:
            message = f"both key={key!r} and revision={revision!r} say who answers"
            raise ConfigurationError(message, hint="give one of them")
        if key is not None:
            return self._predict_for(key, data, timeout)
        if revision is not None:
            self._session.backend.capabilities.require("pinned_invoke", backend=self._session.backend.name)
            return self._predict(data, Route({}, self._id(revision)), timeout)
        return self._predict(data, Route({}), timeout)

    def _id(self, wanted: str) -> str:
        """Give the id of a revision that is named by it or by its model version; an id that was seen before stands for itself."""
        from modeldeploy.handles.snapshot import named

        return wanted if wanted in self._signatures else named(self._state(), wanted).id

    def _predict_for(self, key: str | int, data: object, timeout: float) -> Any:
        route = self._keys.route(key)
        try:
            return self._predict(data, route, timeout)
        except NotFoundError:
            if route.revision is None:
                raise
            # The revision went since the table was read.
            self._keys.forget()
            return self._predict(data, self._keys.route(key), timeout)

    def _predict(self, data: object, route: Route, timeout: float) -> Any:
        from modeldeploy.handles import predictor

        known = route.revision in self._signatures
        signature = self._signature(route.revision)

        def ask(signature: Signature) -> Any:
            return predictor.predict(self._session.serving, self.name, data, signature, route=route, timeout=timeout)

        try:
            return ask(signature)
        except InvalidRequestError:
            if not known:
                raise
            del self._signatures[route.revision]
            fresh = self._signature(route.revision)
            if fresh == signature:
                raise
        # Another model took over since the signature was read.
        return ask(fresh)

    # Changing

    def plan(  # noqa: PLR0913 - the arguments of rollout
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
        golden: ToleranceLike = True,
    ) -> Plan:
        """Say what ``rollout`` with the same arguments would call, who does each part, and what is refused; changes nothing at the provider.

        A bare estimator is packaged into the store of this machine to be looked at.
        """
        from modeldeploy.handles import planning
        from modeldeploy.handles.coerce import as_model, begun, shaped
        from modeldeploy.values.serving import Revision

        made = as_model(model, name=self.name, version=version, example=example, home=self._session.home)
        snapshot = self._snapshot()
        revision = shaped(
            Revision.of(made.identity), snapshot.stable, workers=workers, hardware=hardware, options=options
        )
        return planning.of_rollout("rollout", snapshot, begun(snapshot, revision, policy, keep=keep, golden=golden))

    def plan_rollback(self, *, to: str | None = None) -> Plan:
        """Say what ``rollback`` would call; changes nothing. NotFoundError when there is nothing to go back to."""
        from modeldeploy.handles import planning

        snapshot = self._snapshot()
        return planning.of_rollback(snapshot, snapshot.target(to))

    def plan_delete(self) -> Plan:
        """Say what ``delete`` would take away; changes nothing."""
        from modeldeploy.handles import planning

        return planning.of_delete(self._snapshot())

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
        golden: ToleranceLike = True,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Rollout:
        """Let a new model take over by ``policy`` (default: all at once); the shape of stable is kept unless given.

        With ``wait=False`` it is driven by this process in the background, and by any process after it ended. RolloutAborted when a
        gate failed: traffic is back on stable then.
        """
        from modeldeploy.handles.changing import roll_out
        from modeldeploy.handles.coerce import as_model, shaped
        from modeldeploy.values.serving import Revision

        made = as_model(model, name=self.name, version=version, example=example, home=self._session.home)
        revision = shaped(Revision.of(made.identity), self.stable, workers=workers, hardware=hardware, options=options)
        rollout = roll_out(self._snapshot(), revision, policy, keep=keep, golden=golden, always=True)
        if rollout is None:
            raise AssertionError(revision.id)
        return rollout.wait(timeout) if wait else rollout

    def rollback(
        self, *, to: str | None = None, reason: str = "", wait: bool = True, timeout: float | None = None
    ) -> Rollout:
        """Give all traffic back at once: to the revision before stable, or to ``to`` (a revision id or model version of the history).

        A rollout that goes on is ended by it, and stable gets everything. NotFoundError when there is nothing to go back to.
        """
        from modeldeploy.engine.record import Kind
        from modeldeploy.engine.rollback import RollbackCursor
        from modeldeploy.handles.changing import supersede
        from modeldeploy.handles.rollout import Rollout
        from modeldeploy.values.serving import EndpointSpec

        snapshot = self._snapshot()
        cursor = RollbackCursor(EndpointSpec(self.name), snapshot.target(to), reason)
        self._keys.forget()
        rollout = Rollout(self._session, supersede(Kind.ROLLBACK, snapshot, cursor, reason))
        if wait:
            rollout.wait(timeout)
            self._keys.forget()
        return rollout

    def delete(self, *, reason: str = "", wait: bool = True, timeout: float | None = None) -> Operation:
        """Take the endpoint and all its revisions away. One that is gone already is fine; a rollout that goes on is ended by it."""
        from modeldeploy.engine.record import HistoryEntry, Kind
        from modeldeploy.engine.single import SingleCursor
        from modeldeploy.handles.changing import supersede

        ticket = self._session.serving.drop_endpoint(self.name)
        cursor = SingleCursor(ticket, history=HistoryEntry("deleted", "", reason))
        self._keys.forget()
        operation = supersede(Kind.DELETE, self._snapshot(), cursor, reason)
        return operation.wait(timeout) if wait else operation

    # Async twins

    @property
    def aio(self) -> EndpointAio:
        """The same verbs for ``await``."""
        from modeldeploy.handles.aio import EndpointAio

        return EndpointAio(self)

    def __await__(self) -> Generator[Any, None, Self]:
        if self.operation is not None:
            yield from self.operation.__await__()
        return self

    # Plumbing

    def _snapshot(self) -> Snapshot:
        from modeldeploy.handles.snapshot import Snapshot

        return Snapshot.of(self._session, self.name)

    def _state(self) -> EndpointState:
        from modeldeploy.handles.snapshot import existing

        return existing(self._session, self.name, self._session.serving.observe(self.name))

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
        rows = [_row(each, state.traffic.share(each.revision.id)) for each in state.revisions]
        title = f"{self.name} on {self._session.backend.name}"
        return notebook.table(title, rows, ("revision", "model", "state", "traffic"), note=state.url)


def _row(each: RevisionState, share: int) -> tuple[str, ...]:
    from modeldeploy.observe import notebook

    ready = notebook.badge("ready", "good") if each.ready else notebook.badge(each.note or "not ready", "warn")
    return notebook.code(each.revision.id), str(each.revision.model), ready, notebook.bar(share)
