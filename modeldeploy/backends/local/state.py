"""What is wanted of this machine, on disk before anything is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import orjson

from modeldeploy.errors import ConfigurationError, ConflictError, NotFoundError
from modeldeploy.serving.files import replace_file, sync_directory
from modeldeploy.values.codec import from_document, to_document
from modeldeploy.values.serving import Revision, Traffic


@attrs.frozen
class Deployed:
    """A revision, and what its workers need beside it."""

    revision: Revision
    python: str
    """The interpreter of whoever deployed it: its environment has the libraries."""
    trust: tuple[str, ...] = ()
    proven: bool = False
    """Whether it was ready once. From then on a failure to load is repeated with back-off and never final."""


@attrs.frozen
class Record:
    """An endpoint as it is wanted."""

    name: str
    host: str
    port: int
    options: Mapping[str, str]
    revisions: tuple[Deployed, ...]
    traffic: Traffic
    stable: str | None
    """The last revision that had all the traffic: the one that a failed canary is answered by."""
    version: int

    def find(self, revision: str) -> Deployed | None:
        """Find a revision by its id."""
        return next((each for each in self.revisions if each.revision.id == revision), None)

    def check_has(self, revision: str) -> None:
        """Raise NotFoundError when it has no such revision."""
        if self.find(revision) is None:
            message = f"endpoint {self.name!r} has no revision {revision!r}"
            raise NotFoundError(message, hint=f"it has {[each.revision.id for each in self.revisions]}")


@attrs.frozen
class State:
    """Everything that is wanted; ``serial`` counts the changes and is never used twice, so versions are not either."""

    serial: int = 0
    endpoints: Mapping[str, Record] = attrs.field(factory=dict[str, Record])

    def put(self, record: Record) -> State:
        """Give the state with this record, its version new."""
        serial = self.serial + 1
        return State(serial, {**self.endpoints, record.name: attrs.evolve(record, version=serial)})

    def drop(self, endpoint: str) -> State:
        """Give the state without this endpoint."""
        return State(self.serial + 1, {name: each for name, each in self.endpoints.items() if name != endpoint})


def check_unused(endpoint: str, traffic: Traffic, revision: str) -> None:
    """Raise ConflictError while a table sends anything to a revision."""
    if traffic.share(revision):
        message = f"revision {revision!r} of endpoint {endpoint!r} takes {traffic.share(revision)} % of the traffic"
        raise ConflictError(message, hint="move its traffic to another revision first, or delete the endpoint")
    if revision in traffic.copies:
        message = f"revision {revision!r} of endpoint {endpoint!r} is sent copies of requests"
        raise ConflictError(message, hint="set a table without them first")


def load(path: Path) -> State:
    """Read the state; an empty one when there is none, ConfigurationError when it cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return State()
    try:
        return from_document(State, orjson.loads(data))
    except orjson.JSONDecodeError as error:
        message = f"state file {str(path)!r} cannot be read: {error}"
        raise ConfigurationError(message, hint="move it away to start with no endpoints") from error


def save(path: Path, state: State) -> None:
    """Write the state so that a crash at any moment leaves the old one or the new one; after a loss of power either, until ``settle``."""
    replace_file(path, orjson.dumps(to_document(state)))


def settle(path: Path) -> None:
    """Have what was saved outlast a loss of power."""
    sync_directory(path.parent)
