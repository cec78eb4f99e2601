"""The protocols that a backend implements: the waist between the engine and the providers.

A backend starts work and looks at it; it never sleeps, retries, polls, logs, prints or knows a rollout. The rules, each a conformance test:

1. **Starting changes nothing.** A start call validates (it may read) and returns a ticket at step "start"; every write happens in
   ``advance``. The ticket is therefore in the journal before the first write, and a crash orphans nothing.
2. **``advance`` may be repeated** with the same ticket: a step already done is found done. Names are derived, never random; "already
   exists" with equal content is success, with other content ConflictError.
3. **Success is observed, not reported.** Done means: settled, and the observed state equals the wanted one.
4. **No endpoint without a revision.** The first ``put_revision`` creates the endpoint and takes all traffic; later revisions take none.
5. **Calls return within seconds.** Uploads move a slice for each ``advance``; ``poll_after`` tells when looking again is useful.
6. **Only errors of ``modeldeploy.errors`` leave a backend.**
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import attrs

if TYPE_CHECKING:
    from modeldeploy.values.batch import BatchSpec, BatchState
    from modeldeploy.values.capability import Capabilities
    from modeldeploy.values.edge import Device
    from modeldeploy.values.metrics import Window
    from modeldeploy.values.serving import EndpointSpec, EndpointState, LogLine, Payload, Revision, Traffic
    from modeldeploy.values.ticket import Ticket


@attrs.frozen
class Identity:
    """Who we are at the provider, and where."""

    backend: str
    account: str
    place: str
    """Region, workspace or directory."""


@runtime_checkable
class Backend(Protocol):
    """What every backend has."""

    name: str
    capabilities: Capabilities

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Make one from settings; ConfigurationError names an unknown or wrong setting. No I/O beyond reading."""
        ...

    def check(self) -> Identity:
        """Say who and where we are; CredentialsError otherwise. Writes nothing."""
        ...

    def advance(self, ticket: Ticket) -> Ticket:
        """Look once, do at most the next step, say where it stands. An ended ticket comes back unchanged."""
        ...

    def cancel(self, ticket: Ticket) -> Ticket:
        """Ask to stop; UnsupportedError if this work cannot be stopped."""
        ...

    def close(self) -> None:
        """Let go of connections; what runs at the provider goes on."""
        ...


@runtime_checkable
class Rollable(Backend, Protocol):
    """A backend whose named targets run revisions by a table of shares: all that a rollout and a rollback need.

    The shares are percent of the requests of an endpoint (``Serving``), or percent of the devices of a fleet (``Edge``).
    """

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be ready; creates the endpoint if there is none. ``wanted``: ``{"endpoint", "revision"}``."""
        ...

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table. ``expect`` is the state's ``version`` that must still hold when it is written, else ConflictError.

        NotFoundError for an unknown endpoint or revision; UnsupportedError for a table that the backend cannot hold.
        """
        ...

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone; ConflictError while it takes traffic. One that is gone already is success."""
        ...

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for an endpoint and all its revisions to be gone. One that is gone already is success."""
        ...

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the endpoint as it is now, never from a cache; None when there is none."""
        ...

    def endpoints(self) -> Iterable[str]:
        """Name every endpoint of ours."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A backend that can use the moments in which a deployment is still being looked at."""

    def expect(self, revision: Revision) -> None:
        """Hear that this revision will probably be asked for; returns at once, and nothing that ``observe`` shows may change."""
        ...


@runtime_checkable
class Serving(Rollable, Protocol):
    """A backend that serves endpoints."""

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        """Send one request as it is; ``revision`` pins it. ``timeout`` in seconds.

        The answer's headers hold ``modeldeploy-revision`` where the provider tells it. InvalidRequestError for the caller's mistake (4xx),
        PredictionError for the model's failure, ThrottledError and UnavailableError for what may be repeated.
        """
        ...


@runtime_checkable
class Edge(Rollable, Protocol):
    """A backend that puts revisions on devices; its table says which share of the devices runs each.

    ``put_revision`` makes a release visible and tells no device, but for the first one, which all devices are given (rule 4). ``set_traffic``
    publishes what is wanted; its ticket has succeeded when that is read back and no device that can be reached has still to answer. Devices
    that are offline never block; one that failed its self-test has answered. To ask for the table that holds lets devices which refused it try
    once more, where the backend can tell them; where none did nothing is written.
    """

    def devices(self, target: str) -> Sequence[Device]:
        """Read every device that is known, by its id, as it last said it was; never from a cache. Empty when there are none.

        A device is FAILED when it refused what is wanted of it now, or runs that and says that it is not well; else OFFLINE when it has not
        been heard of for too long, OK when it runs what is wanted, and PENDING when it does not yet. NotFoundError for an unknown target.
        """
        ...


@runtime_checkable
class Batch(Backend, Protocol):
    """A backend that scores tables."""

    def put_job(self, job: BatchSpec) -> Ticket:
        """Ask for a job to be done; the same name with the same content is the same job, other content is ConflictError."""
        ...

    def observe_job(self, name: str) -> BatchState | None:
        """Read the job as it is now; None when there is none."""
        ...

    def jobs(self) -> Iterable[str]:
        """Name every job of ours."""
        ...


@runtime_checkable
class Meters(Protocol):
    """A backend that measures its revisions."""

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:
        """Count what the revision answered in this time (seconds since the epoch); zeros when it answered nothing.

        With ``share`` only what the traffic table gave to it while it had exactly that percentage: no pinned call, no second answer to a
        request that a canary failed, no copy; 0 counts the copies alone. Where assignment sticks to a key the unit is the key: counted once
        in ``latency`` (its first answer), once in ``errors`` (its first failure), once in ``assigned``, and in ``requests`` once for each
        revision that answered it before it failed. A backend that cannot tell them apart counts all.
        """
        ...


@runtime_checkable
class Logs(Protocol):
    """A backend that keeps its revisions' logs."""

    def lines(self, endpoint: str, revision: str, *, since: float, limit: int) -> Iterable[LogLine]:
        """Give the last ``limit`` lines at or after ``since``, oldest first."""
        ...
