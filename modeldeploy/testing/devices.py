"""Stand-ins for devices: they follow a signed desired state as an agent does, in this process, and run nothing.

What an agent proves on itself (each byte of a release, its golden outputs, power loss) is tested with real agents; here it is only whether a
fleet is told the right things in the right order, thousands of times.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import attrs

from modeldeploy.edge import desired as desired_state
from modeldeploy.edge.desired import Desired, place, wanted
from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.layout import DESIRED, report_path
from modeldeploy.edge.reports import Health, Report
from modeldeploy.edge.stores import Store, Tick
from modeldeploy.errors import IntegrityError

PLACES = (3, 7, 30, 45, 80, 95)
"""Where the stand-ins of every fleet have their places: two in ten percent, four in fifty."""


class MemoryStore:
    """A store of dictionaries, for tests: time comes from a clock, and ``writes`` counts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.writes = 0
        self._clock = clock
        self._files: dict[str, tuple[bytes, float]] = {}

    def get(self, path: str) -> bytes | None:
        """Read a document."""
        found = self._files.get(path)
        return found[0] if found else None

    def get_to(self, path: str, file: Path, *, size: int | None = None, tick: Tick | None = None) -> bool:  # noqa: ARG002 - the protocol's shape
        """Read into a file."""
        data = self.get(path)
        if data is not None:
            file.write_bytes(data)
        return data is not None

    def put(self, path: str, data: bytes | Path) -> None:
        """Write."""
        self.writes += 1
        self._files[path] = (data if isinstance(data, bytes) else data.read_bytes(), self._clock())

    def list(self, prefix: str) -> Iterable[str]:
        """Name what begins with a prefix."""
        return sorted(path for path in self._files if path.startswith(prefix))

    def modified(self, path: str) -> float | None:
        """Say when it was written."""
        found = self._files.get(path)
        return found[1] if found else None

    def delete(self, path: str) -> None:
        """Remove."""
        self.writes += self._files.pop(path, None) is not None


@attrs.frozen
class Behaviour:
    """What is wrong with the devices of a fleet, by their number in the order of their places."""

    offline: frozenset[int] = frozenset()
    """Those that are switched off."""
    failing: frozenset[int] | None = None
    """Those that refuse the broken revision; None: all of them."""
    well: bool = False
    """Whether nobody refuses anything."""


class StandIn:
    """One device: it pulls, verifies, says yes or no, and reports."""

    def __init__(self, device: str, fleet: str, store: Store, key: VerifyKey) -> None:
        self.id, self.fleet = device, fleet
        self._store, self._key = store, key
        self._sequence, self._known = 0, ""
        self._refused = ("", 0)
        self.served: list[str] = []
        """Every revision that it ever ran, in order."""

    def act(self, refuses: Callable[[str], bool]) -> None:
        """Look once and do what is wanted; what ``refuses()`` names fails its self-test."""
        data = self._store.get(DESIRED)
        if data is None:
            return
        desired = desired_state.verify(
            data, [self._key], fleet=self.fleet, after=self._sequence, known=self._known or None
        )
        self._sequence, self._known = desired.sequence, desired.digest
        goal, running = wanted(desired, self.id), self.served[-1] if self.served else None
        refused = goal is not None and (goal, desired.sequence) == self._refused
        failed = refused or (goal is not None and goal != running and not self._take(desired, goal, refuses))
        self._tell(goal if failed else None)

    def _take(self, desired: Desired, goal: str, refuses: Callable[[str], bool]) -> bool:
        release = desired.releases[goal]
        data = self._store.get(release.path)
        if data is None or hashlib.sha256(data).hexdigest() != release.digest:
            message = f"the release of {goal!r} is not what was announced"
            raise IntegrityError(message)
        if refuses(goal):
            # Tried again only under another state, as an agent does.
            self._refused = (goal, desired.sequence)
            return False
        self.served.append(goal)
        return True

    def _tell(self, failed: str | None) -> None:
        report = Report(
            device=self.id,
            fleet=self.fleet,
            running=self.served[-1] if self.served else None,
            sequence=self._sequence,
            health=Health.FAILED if failed else Health.OK,
            failed_revision=failed,
            note="row 0 is 1.0, and 2.0 was expected" if failed else "",
        )
        self._store.put(report_path(self.id), report.to_bytes())


class StandIns:
    """The devices of every fleet of a suite, each fleet with the same places; ``store_of(fleet)`` is what its devices see."""

    def __init__(self, store_of: Callable[[str], Store], key: VerifyKey, broken: str) -> None:
        self.behaviour = Behaviour()
        self._store_of, self._key, self._broken = store_of, key, broken
        self._fleets: dict[str, tuple[StandIn, ...]] = {}

    def of(self, fleet: str) -> tuple[StandIn, ...]:
        """Give the devices of a fleet in the order of their places."""
        if fleet not in self._fleets:
            store = self._store_of(fleet)
            self._fleets[fleet] = tuple(StandIn(_at(fleet, each), fleet, store, self._key) for each in PLACES)
        return self._fleets[fleet]

    def behave(self, behaviour: Behaviour) -> None:
        """Let all devices behave so from now on."""
        self.behaviour = behaviour

    def act(self, fleet: str) -> None:
        """Let every device that is switched on act once."""
        for number, device in enumerate(self.of(fleet)):
            if number not in self.behaviour.offline:
                device.act(lambda revision, number=number: self._refuses(revision, number))  # type: ignore[misc]  # the number of this turn

    def _refuses(self, revision: str, number: int) -> bool:
        failing = self.behaviour.failing
        return revision == self._broken and not self.behaviour.well and (failing is None or number in failing)


def _at(fleet: str, wanted_place: int) -> str:
    """Find the name of a device that has a place."""
    names = (f"device-{number}" for number in itertools.count())
    return next(name for name in names if place(fleet, name) == wanted_place)
