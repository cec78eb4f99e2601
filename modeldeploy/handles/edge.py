"""The handle of a fleet of devices: deploy, roll out in rings, roll back, look, delete."""

from __future__ import annotations

import collections
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from modeldeploy import config, registry
from modeldeploy.engine.record import HistoryEntry, Kind
from modeldeploy.engine.rollback import RollbackCursor
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.engine.single import SingleCursor
from modeldeploy.errors import BackendRetiredError, ConfigurationError, ModelDeployError, UnsupportedError
from modeldeploy.handles import planning
from modeldeploy.handles.aio import EdgeAio
from modeldeploy.handles.changing import roll_out, supersede
from modeldeploy.handles.coerce import as_model, begun
from modeldeploy.handles.operation import Operation
from modeldeploy.handles.plans import Plan
from modeldeploy.handles.rollout import Rollout
from modeldeploy.handles.session import Session
from modeldeploy.handles.snapshot import Snapshot, existing
from modeldeploy.handles.views import History
from modeldeploy.spi import Backend
from modeldeploy.values.codec import from_json
from modeldeploy.values.edge import Ring, rings
from modeldeploy.values.names import check_name
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, RevisionState

if TYPE_CHECKING:
    from modeldeploy.handles.devices import Devices, Rings, TargetStatus

_STEPS = (10, 50, 100)
_GREENGRASS = "EdgeTarget.greengrass(...)"


class EdgeTarget:
    """A named fleet of devices that run a model by themselves, also when nobody can reach them.

    What it is now is always read: the published table from the provider, the devices from their reports.
    """

    def __init__(self, session: Session, name: str, operation: Operation | None = None) -> None:
        session.backend.capabilities.require("edge", backend=session.backend.name)
        self.name = check_name(name, "fleet name")
        self.operation = operation
        """The last deployment that this handle made; None when there was nothing to do."""
        self._session = session

    # Making and finding

    @classmethod
    def fleet(
        cls,
        name: str,
        *,
        store: str | Path | None = None,
        key: str | Path | None = None,
        token: str = "",
        offline_after: float | None = None,
        home: Path | str | None = None,
    ) -> Self:
        """Name a fleet of devices that run our own agent, ``python -m modeldeploy.edge_agent``.

        ``store`` is where they pull from: a directory, ``http(s)://...`` (with ``token``) or ``s3://bucket/prefix``; without one a directory
        of this machine's state. ``key`` is the PEM file of the key that signs all that they believe; without one this machine's own, which
        is made when it is first needed. A device is offline when it was not heard of for ``offline_after`` seconds (900, three of its
        heartbeats). Sends nothing.
        """
        given = {"store": _absolute(store), "key": _absolute(key), "token": token, "offline_after": offline_after}
        said = {name: value for name, value in given.items() if value}
        if not said:
            return cls(Session.of("fleet", home=home), name)
        place = Path(home).absolute() if home is not None else config.load().home
        found: Any = registry.find("fleet")
        return cls(Session.of(found.shared(place, **said), home=place), name)

    @classmethod
    def iot_edge(
        cls, name: str, *, backend: Backend | None = None, home: Path | str | None = None, **settings: Any
    ) -> Self:
        """Name a group of Azure IoT Edge devices.

        ``settings`` are those of ``modeldeploy.backends.iotedge.IoTEdge``, or ``backend`` is such an object, for example its rehearsal. What is
        in neither comes from the environment and the configuration file. Sends nothing.
        """
        return cls._on("iotedge", name, backend, home, settings)

    @classmethod
    def greengrass(
        cls, name: str, *, backend: Backend | None = None, home: Path | str | None = None, **settings: Any
    ) -> Self:
        """Name a group of AWS IoT Greengrass v2 core devices.

        ``settings`` are those of ``modeldeploy.backends.greengrass.Greengrass``, or ``backend`` is such an object, for example its rehearsal.
        What is in neither comes from the environment and the configuration file. Sends nothing.
        """
        return cls._on("greengrass", name, backend, home, settings)

    @classmethod
    def _on(
        cls, kind: str, name: str, backend: Backend | None, home: Path | str | None, settings: dict[str, Any]
    ) -> Self:
        if backend is not None and (settings or backend.name != kind):
            what = f"settings {sorted(settings)}" if settings else f"a backend that is called {backend.name!r}"
            message = f"fleet {name!r} was given a backend of its own and {what}"
            raise ConfigurationError(message, hint=f"pass one object of backend {kind!r}, or its settings")
        if backend is None and settings:
            maker: Any = registry.find(kind)
            backend = maker(**settings)
        return cls(Session.of(backend if backend is not None else kind, home=home), name)

    @classmethod
    def sagemaker_edge_manager(cls, *_arguments: object, **_options: object) -> NoReturn:
        """Refuse: the service ended on 26 April 2024."""
        message = "Amazon SageMaker Edge Manager was discontinued on 26 April 2024"
        hint = f"use {_GREENGRASS}: its model components are what AWS names instead"
        raise BackendRetiredError(message, replacement=_GREENGRASS, hint=hint)

    @classmethod
    def greengrass_v1(cls, *_arguments: object, **_options: object) -> NoReturn:
        """Refuse: the first version ended on 7 October 2026."""
        message = "AWS IoT Greengrass V1 ended on 7 October 2026"
        hint = f"move the devices to the V2 nucleus, or to nucleus lite, and use {_GREENGRASS}"
        raise BackendRetiredError(message, replacement=_GREENGRASS, hint=hint)

    @classmethod
    def get(cls, name: str, *, backend: str | Backend | Session = "fleet", home: Path | str | None = None) -> Self:
        """Find a fleet that something was deployed to; NotFoundError names the ones there are."""
        target = cls(Session.of(backend, home=home), name)
        target._state()
        return target

    @classmethod
    def list(cls, *, backend: str | Backend | Session = "fleet", home: Path | str | None = None) -> tuple[Self, ...]:
        """Find every fleet of ours at the backend."""
        session = Session.of(backend, home=home)
        return tuple(cls(session, name) for name in sorted(session.edge.endpoints()))

    # Looking

    @property
    def state(self) -> EndpointState:
        """What the provider shows of it now; NotFoundError when nothing was deployed to it, or it was deleted."""
        return self._state()

    @property
    def shares(self) -> dict[str, int]:
        """Which share of the devices is to run what: ``{revision: percent}``."""
        return self._state().traffic.live

    @property
    def revisions(self) -> tuple[RevisionState, ...]:
        """Every revision that is there, wanted by devices or not."""
        return self._state().revisions

    @property
    def stable(self) -> Revision:
        """The revision with the largest share; while a rollout goes on, the one that it started from."""
        return self._snapshot().stable

    @property
    def devices(self) -> Devices:
        """Every device that has reported, as it last said it was."""
        from modeldeploy.handles.devices import Devices

        return Devices(self.name, self._session.edge.devices(self.name))

    @property
    def rings(self) -> Rings:
        """The devices that each step of the rollout adds (that goes on, or the last one), counted by their health."""
        from modeldeploy.handles.devices import Rings

        return Rings(self.name, rings(self._session.edge.devices(self.name), self._steps()))

    @property
    def status(self) -> TargetStatus:
        """How it stands, in one look: what is wanted, what runs, how the devices are, what goes on."""
        from modeldeploy.handles.devices import TargetStatus

        snapshot = self._snapshot()
        devices = self._session.edge.devices(self.name)
        running = collections.Counter(device.revision for device in devices if device.revision)
        active = snapshot.active
        return TargetStatus(
            name=self.name,
            table=snapshot.existing().traffic.live,
            running=dict(running.most_common()),
            devices=Ring.of(_STEPS[-1], devices),
            rollout=f"{active.id}: {active.outcome or 'running'}" if active else "",
        )

    @property
    def history(self) -> History:
        """What changed, when, by whom and why; oldest first, hash-chained."""
        return History(self._session.journal, self._session.backend.name, self.name)

    def agent(self, device: str, *, home: Path | str, **options: object) -> tuple[str, ...]:
        """Give the command that runs the agent of a device, for machines that see the store and the key as this one does.

        ``home`` is where the device keeps what it has; options are the agent's own, such as ``poll=30`` for ``--poll 30``. UnsupportedError
        where the provider has an agent of its own.
        """
        backend: Any = self._session.backend
        if not hasattr(backend, "public_key_file"):
            message = f"devices of backend {backend.name!r} run the provider's own agent"
            raise UnsupportedError(message, capability="agent", hint="the backend's page says how a device is set up")
        backend.ready(self.name)
        given = {
            "device": device,
            "fleet": self.name,
            "store": backend.address(self.name),
            "home": home,
            "key": backend.public_key_file(),
            **options,
        }
        words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return (sys.executable, "-m", "modeldeploy.edge_agent", *words)

    # Changing

    def deploy(
        self,
        model: object,
        policy: RolloutPolicy | None = None,
        *,
        version: str = "1.0.0",
        example: object = None,
        keep: int = 1,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Self:
        """Put a model on the devices; safe to run again.

        ``model`` is a Model, a fitted estimator (then ``example`` is needed), a path or a URI. The same model is no work; another one is
        rolled out by ``policy`` (default: ``RolloutPolicy.rings()``). The first one is given to all devices at once. With ``wait`` it
        returns when the rollout ended or waits for a user, because it halted: ``target.status`` says so.

        Sends one signed release and one signed document to the store or the provider; devices fetch it when they look. ConfigurationError for
        a model that no device would run; ConflictError when another change is not finished.
        """
        rollout = self._begin(model, policy, version=version, example=example, keep=keep, always=False)
        self.operation = rollout.operation if rollout else None
        if wait and rollout is not None:
            rollout.wait(timeout)
        return self

    def rollout(
        self,
        model: object,
        policy: RolloutPolicy | None = None,
        *,
        version: str = "1.0.0",
        example: object = None,
        keep: int = 1,
        wait: bool = True,
        timeout: float | None = None,
    ) -> Rollout:
        """Let a new model reach the devices ring by ring, by ``policy`` (default: ``RolloutPolicy.rings()``).

        With ``wait=False`` it is driven by this process in the background, and by any process after it ended. A ring that fails halts it:
        ``status`` is ``"paused"``, ``outcome`` says why, and ``resume()``, ``promote()`` or ``abort()`` say what then.
        """
        rollout = self._begin(model, policy, version=version, example=example, keep=keep, always=True)
        if rollout is None:
            raise AssertionError(self.name)
        return rollout.wait(timeout) if wait else rollout

    def rollback(
        self, *, to: str | None = None, reason: str = "", wait: bool = True, timeout: float | None = None
    ) -> Rollout:
        """Let all devices run an earlier revision again: the one before stable, or ``to`` (a revision id or model version of the history).

        A rollout that goes on, or has halted, is ended by it, and its stable revision comes back. Devices that still hold it in their second
        slot switch without fetching anything. NotFoundError when there is nothing to go back to.
        """
        snapshot = self._snapshot()
        cursor = RollbackCursor(EndpointSpec(self.name), snapshot.target(to), reason)
        rollout = Rollout(self._session, supersede(Kind.ROLLBACK, snapshot, cursor, reason))
        return rollout.wait(timeout) if wait else rollout

    def delete(self, *, reason: str = "", wait: bool = True, timeout: float | None = None) -> Operation:
        """Take the fleet's releases and its desired state away; the devices keep what they run. One that is gone already is fine."""
        ticket = self._session.edge.drop_endpoint(self.name)
        cursor = SingleCursor(ticket, history=HistoryEntry("deleted", "", reason))
        operation = supersede(Kind.DELETE, self._snapshot(), cursor, reason)
        return operation.wait(timeout) if wait else operation

    # Planning

    def plan(
        self,
        model: object,
        policy: RolloutPolicy | None = None,
        *,
        version: str = "1.0.0",
        example: object = None,
        keep: int = 1,
    ) -> Plan:
        """Say what ``deploy`` or ``rollout`` with the same arguments would call, who does each part, and what is refused; changes nothing."""
        made = as_model(model, name=self.name, version=version, example=example, home=self._session.home)
        snapshot = self._snapshot()
        cursor = begun(snapshot, Revision.of(made.identity), policy or RolloutPolicy.rings(), keep=keep, golden=True)
        return planning.of_rollout("rollout" if snapshot.state else "deploy", snapshot, cursor)

    def plan_rollback(self, *, to: str | None = None) -> Plan:
        """Say what ``rollback`` would call; changes nothing. NotFoundError when there is nothing to go back to."""
        snapshot = self._snapshot()
        return planning.of_rollback(snapshot, snapshot.target(to))

    def plan_delete(self) -> Plan:
        """Say what ``delete`` would take away; changes nothing."""
        return planning.of_delete(self._snapshot())

    # Async twins

    @property
    def aio(self) -> EdgeAio:
        """The same verbs for ``await``."""
        return EdgeAio(self)

    def __await__(self) -> Generator[Any, None, Self]:
        if self.operation is not None:
            yield from self.operation.__await__()
        return self

    # Plumbing

    def _begin(
        self, model: object, policy: RolloutPolicy | None, *, version: str, example: object, keep: int, always: bool
    ) -> Rollout | None:
        made = as_model(model, name=self.name, version=version, example=example, home=self._session.home)
        policy = RolloutPolicy.rings() if policy is None else policy
        return roll_out(self._snapshot(), Revision.of(made.identity), policy, keep=keep, golden=True, always=always)

    def _steps(self) -> tuple[int, ...]:
        """Give the steps of the rollout that goes on or was the last one."""
        record = self._session.journal.latest(backend=self._session.backend.name, target=self.name, kind=Kind.ROLLOUT)
        return from_json(RolloutCursor, record.cursor).policy.steps if record else _STEPS

    def _snapshot(self) -> Snapshot:
        return Snapshot.of(self._session, self.name)

    def _state(self) -> EndpointState:
        return existing(self._session, self.name, self._session.edge.observe(self.name))

    def __repr__(self) -> str:
        where = f"{self.name!r} on {self._session.backend.name!r}"
        try:
            state = self._session.edge.observe(self.name)
        except ModelDeployError as error:
            return f"EdgeTarget({where}, not reached: {error})"
        return f"EdgeTarget({where}, {state.traffic.live})" if state else f"EdgeTarget({where}, nothing is deployed)"

    def _repr_html_(self) -> str:
        from modeldeploy.observe import notebook

        try:
            return self.status._repr_html_() + self.rings._repr_html_()
        except ModelDeployError as error:
            return notebook.line(notebook.code(self.name), notebook.badge(str(error), "warn"))


def _absolute(where: str | Path | None) -> str | Path | None:
    """Let a path mean the same after the working directory changed."""
    return where if where is None or "://" in str(where) else Path(where).expanduser().absolute()
