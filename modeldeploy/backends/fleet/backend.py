"""The fleet backend: revisions as signed releases in a store, a table that says which share of the devices runs each.

Devices are never called: each pulls the desired state when it can, proves a release on itself before it runs it, and leaves a report.
This object holds no state; all there is lies in the store, signed.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import attrs

from modeldeploy.backends.fleet import places, refusals, reports, showing
from modeldeploy.backends.fleet.ledger import Kept, Ledger
from modeldeploy.backends.fleet.settings import OFFLINE_AFTER_S, POLL_S, SETTLE_S, arguments, check_times
from modeldeploy.backends.fleet.shelf import LEDGERS, Shelf
from modeldeploy.edge.desired import Desired
from modeldeploy.edge.keys import SigningKey, VerifyKey
from modeldeploy.edge.stores import DirectoryStore, Store
from modeldeploy.errors import ConfigurationError, ConflictError, NotFoundError, UnsupportedError
from modeldeploy.spi import Identity
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.names import check_name
from modeldeploy.values.serving import WHOLE, EndpointSpec, EndpointState, Revision, Traffic
from modeldeploy.values.ticket import Action, Ticket

_DEVICES_ANSWER = "devices answer on themselves, also when nobody can reach them"
CAPABILITIES = Capabilities(
    edge=True,
    durable=True,
    split=WHOLE,
    why_not={
        "serving": f"{_DEVICES_ANSWER}; ask the model server of the device",
        "shadow": _DEVICES_ANSWER,
        "compares": _DEVICES_ANSWER,
        "sticky": "a device keeps its revision by itself while the share grows",
        "meters": "devices report their health and not their requests; use RolloutPolicy.rings(...)",
        "logs": "each device keeps its own",
        "batch": "score tables on the local backend or a cloud",
        "cancel": "what is published is taken back by publishing something else: abort() or rollback()",
    },
)
KEY = "key.pem"
_lock = threading.Lock()


class FleetBackend:
    """Fleets of devices that run ``modeldeploy.edge_agent``, over a directory, a hub (HTTP), or an object store.

    ``key`` signs all that devices believe: a SigningKey, or the path of its PEM file. Without one the key of ``home`` is taken, which is made
    at its first use. Without a ``store`` a directory of ``home`` is. A device is offline when it was not heard of for ``offline_after``
    seconds; a change waits ``settle`` seconds at most for devices that can be reached.
    """

    name = "fleet"
    capabilities = CAPABILITIES
    _known: ClassVar[weakref.WeakValueDictionary[tuple[Any, ...], FleetBackend]] = weakref.WeakValueDictionary()

    def __init__(
        self,
        store: str | Path | Store | None = None,
        *,
        key: str | Path | SigningKey | None = None,
        home: Path | str | None = None,
        token: str = "",
        offline_after: float = OFFLINE_AFTER_S,
        settle: float = SETTLE_S,
        poll_after: float = POLL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_times(offline_after, settle, poll_after)
        self.offline_after, self.settle, self.poll_after = offline_after, settle, poll_after
        self._home = Path(home) if home is not None else places.default_home()
        self.where = str(store) if isinstance(store, str | Path) else places.address(store, self._home)
        self._store = places.opened(store, self._home, token)
        self._given, self._clock = key, clock

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one of settings: ``store``, ``key`` (a path), ``token``, ``offline_after``, ``settle``, ``poll_after``."""
        return cls(home=home / "fleet", **arguments(settings))

    @classmethod
    def shared(cls, home: Path, **given: Any) -> Self:
        """Give the one of this process with these arguments, so that whoever asks again finds the threads that drive its work."""
        key = (home, *sorted((name, str(value)) for name, value in given.items()))
        with _lock:
            found = cls._known.get(key)
            if found is None:
                found = cls._known[key] = cls(home=home / "fleet", **given)
            return found  # type: ignore[return-value]  # one class, no subclasses

    def check(self) -> Identity:
        """Say whose key signs and where the store is; UnavailableError when it cannot be reached."""
        list(self._store.list(LEDGERS))
        return Identity(self.name, self.public_key.id, self.where)

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    @functools.cached_property
    def _key(self) -> SigningKey:
        if isinstance(self._given, SigningKey):
            return self._given
        if self._given is not None:
            return SigningKey.load(Path(self._given))
        return places.own_key(self._home / KEY)

    @property
    def public_key(self) -> VerifyKey:
        """The half of the key that every device must be given."""
        return self._key.public

    def public_key_file(self) -> Path:
        """Give the PEM file of that half, which is written when it is first asked for."""
        path = self._home / f"{self.public_key.id}.pub.pem"
        if not path.exists():
            with contextlib.suppress(ConflictError):
                self.public_key.save(path)
        return path

    def ready(self, fleet: str) -> None:
        """Let agents that start before the first deployment find an empty store rather than none, where it is a directory."""
        if isinstance(self._store, DirectoryStore):
            (self._store.root / check_name(fleet, "fleet name")).mkdir(exist_ok=True)

    def address(self, fleet: str) -> str:
        """Say where the agents of a fleet find their store."""
        return f"{self.where.rstrip('/')}/{fleet}"

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a release to be built, signed and stored; the first one of a fleet is wanted by all its devices."""
        if endpoint.options:
            message = f"backend {self.name!r} knows no fleet option {min(endpoint.options)!r}"
            raise ConfigurationError(message, hint="a fleet has none")
        refusals.refuse_options(revision)
        ledger = self._shelf(endpoint.name).ledger()
        if refusals.known(ledger, revision) is None:
            refusals.refuse_pickled(revision)
        wanted = {"endpoint": to_json(endpoint), "revision": to_json(revision)}
        return self._ticket(Action.PUT_REVISION, endpoint.name, wanted)

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table: which share of the devices is to run which revision."""
        self.capabilities.check_traffic(traffic, backend=self.name)
        refusals.refuse_unknown(self._existing(endpoint), traffic)
        return self._ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a release to be gone from the store."""
        refusals.refuse_used(self._shelf(endpoint).desired(), revision)
        return self._ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for a fleet to be gone from the store; its devices keep what they run."""
        self._shelf(endpoint)
        return self._ticket(Action.DROP_ENDPOINT, endpoint, {})

    def _ticket(self, action: Action, target: str, wanted: Mapping[str, object]) -> Ticket:
        return Ticket(action, target, wanted)

    # Moving on

    def advance(self, ticket: Ticket) -> Ticket:
        """Look once and do the next step."""
        if ticket.phase.ended:
            return ticket
        moves = {
            Action.PUT_REVISION: self._put,
            Action.SET_TRAFFIC: self._set,
            Action.DROP_REVISION: self._drop,
            Action.DROP_ENDPOINT: self._drop_all,
        }
        if ticket.action not in moves:
            message = f"backend {self.name!r} does no {ticket.action.value}"
            raise UnsupportedError(message, capability="batch", hint=self.capabilities.why_not["batch"])
        return moves[ticket.action](ticket, self._shelf(ticket.target))

    def _put(self, ticket: Ticket, shelf: Shelf) -> Ticket:
        spec = from_json(EndpointSpec, ticket.wanted["endpoint"])
        revision = from_json(Revision, ticket.wanted["revision"])
        ledger, desired = shelf.ledger(), shelf.desired()
        kept = refusals.known(ledger, revision)
        if ticket.step == "start" and (kept is None or not shelf.has(kept.release)):
            release = shelf.put_release(revision, shelf.next_sequence(ledger, desired))
            fresh = ledger.without(revision.id) if kept else ledger
            shelf.write(fresh.adding(Kept(revision, release), spec.options))
            return attrs.evolve(ticket, step="stored", fraction=0.8)
        if kept is None or not shelf.has(kept.release):
            return ticket.failed(f"revision {revision.id!r} is not there any more")
        if desired is None:
            shelf.publish(Traffic.all_to(ledger.kept[0].revision.id), ledger, None, self._clock())
            return attrs.evolve(ticket, step="published", fraction=0.9)
        return ticket.done()

    def _set(self, ticket: Ticket, shelf: Shelf) -> Ticket:
        wanted, ledger, desired = from_json(Traffic, ticket.wanted["traffic"]), shelf.ledger(), shelf.desired()
        there = desired is not None and showing.live(desired) == wanted.live
        if ticket.step == "start":
            refusals.refuse_unknown(ledger, wanted)
            if not there or self._was_refused(shelf, desired):
                refusals.refuse_moved(ticket, ledger, desired)
                shelf.publish(wanted, ledger, desired, self._clock())
            return attrs.evolve(ticket, step="published")
        if desired is None or not there:
            shown = showing.live(desired) if desired else {}
            return ticket.failed(f"the table is {shown}: somebody else changed it")
        return self._settled(ticket, shelf, desired)

    def _was_refused(self, shelf: Shelf, desired: Desired | None) -> bool:
        """Whether a device said no to the state that is published: it tries again when it is told so by a new number."""
        return any(device.health is DeviceHealth.FAILED for device in self._read(shelf, desired))

    def _settled(self, ticket: Ticket, shelf: Shelf, desired: Desired) -> Ticket:
        """Wait for the devices that can be reached; those that do not answer in time are left to the gates."""
        found = self._read(shelf, desired)
        waiting = sum(device.health is DeviceHealth.PENDING for device in found)
        if not waiting or self._clock() >= desired.issued + self.settle:
            return attrs.evolve(ticket, note="").done()
        answered = 1 - waiting / len(found)
        note = f"{waiting} of {len(found)} devices can be reached and have not answered"
        return attrs.evolve(ticket, note=note, fraction=answered, poll_after=self.poll_after)

    def _drop(self, ticket: Ticket, shelf: Shelf) -> Ticket:
        name, ledger = str(ticket.wanted["revision"]), shelf.ledger()
        refusals.refuse_used(shelf.desired(), name)
        kept = ledger.find(name)
        if kept is None:
            return ticket.done()
        # The release first: a ledger without it would leave a file that nobody knows of.
        shelf.store.delete(kept.release.path)
        shelf.write(ledger.without(name))
        return attrs.evolve(ticket, step="dropping")

    def _drop_all(self, ticket: Ticket, shelf: Shelf) -> Ticket:
        ledger, desired = shelf.ledger(), shelf.desired()
        if desired is not None:
            # Written down before it goes: whoever has this name next must begin above it.
            if ledger.sequence < desired.sequence:
                shelf.write(attrs.evolve(ledger, sequence=desired.sequence, changes=ledger.changes + 1))
            shelf.withdraw()
            return attrs.evolve(ticket, step="withdrawn")
        if not ledger.kept:
            return ticket.done()
        shelf.clear(ledger)
        shelf.write(attrs.evolve(ledger, kept=(), options={}, changes=ledger.changes + 1))
        return attrs.evolve(ticket, step="cleared")

    def cancel(self, ticket: Ticket) -> Ticket:
        """Refuse: what devices were told is taken back by telling them something else."""
        self.capabilities.require("cancel", backend=self.name)
        return ticket

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the fleet as the store has it; IntegrityError when somebody without the key changed it."""
        shelf = self._shelf(endpoint)
        ledger, desired = shelf.ledger(), shelf.desired()
        if not ledger.kept:
            return None
        return EndpointState(
            name=endpoint,
            url=self.address(endpoint),
            revisions=tuple(showing.shown(each, there=shelf.has(each.release)) for each in ledger.kept),
            traffic=Traffic(showing.live(desired)) if desired else Traffic(),
            version=showing.version(ledger, desired),
            settled=desired is not None,
        )

    def endpoints(self) -> Iterable[str]:
        """Name every fleet in the store."""
        names = [path.removeprefix(LEDGERS).removesuffix(".json") for path in self._store.list(LEDGERS)]
        return [name for name in names if self._shelf(name).ledger().kept]

    def devices(self, target: str) -> Sequence[Device]:
        """Read the reports: one or two small documents for each device."""
        self._existing(target)
        shelf = self._shelf(target)
        return self._read(shelf, shelf.desired())

    def _read(self, shelf: Shelf, desired: Desired | None) -> tuple[Device, ...]:
        return tuple(reports.devices(shelf.store, desired, shelf.fleet, self._clock() - self.offline_after))

    def _shelf(self, name: str) -> Shelf:
        return Shelf(self._store, name, self._key)

    def _existing(self, name: str) -> Ledger:
        ledger = self._shelf(name).ledger()
        if not ledger.kept:
            message = f"there is no fleet {name!r} in {self.where!r}"
            raise NotFoundError(message, hint=f"there are {sorted(self.endpoints())}", context={"backend": self.name})
        return ledger
