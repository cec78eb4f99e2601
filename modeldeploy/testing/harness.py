"""What the suite needs to know of a backend under test."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator

import attrs

from modeldeploy.engine.drivers import Clock
from modeldeploy.errors import ModelDeployError, PredictionError, UnavailableError
from modeldeploy.spi import Serving
from modeldeploy.testing.clock import FlowingClock
from modeldeploy.values.assignment import KEY_HEADER
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import EndpointSpec, EndpointState, Payload, Revision, Traffic
from modeldeploy.values.ticket import Phase, Ticket

_LOOKS = 10_000
_names = itertools.count(1)


@attrs.define
class Harness:
    """A backend, revisions that it can serve, and how time passes there.

    Give a ``FlowingClock`` when the provider moves on by being looked at, a ``RealClock`` when it needs time.
    """

    backend: Serving
    revisions: tuple[Revision, ...]
    """At least two, better three, of different content; each answers ``payload``."""
    payload: Payload = attrs.field(default=Payload(b"{}"))
    broken: Revision | None = None
    """One that becomes ready and then fails every request; without it no gate is seen to fail."""
    clock: Clock = attrs.field(factory=FlowingClock)
    beat: float = 1.0
    """Seconds by ``clock`` between two looks of a gate; at every beat of a rollout ``requests`` arrive."""
    requests: int = 40
    send: Callable[[str, list[str]], None] | None = None
    """Sends a request for each of these keys to an endpoint, by its table; when it is not given they are sent by ``invoke``."""
    writes: Callable[[], int] | None = None
    """Counts the writes at the provider so far, where that can be told."""
    reopen: Callable[[], Serving] | None = None
    """Makes a second backend on the same provider, as another process would."""
    job: Callable[[], BatchSpec] | None = None
    """Makes a new job of the same content under a name of its own, for ``BatchConformance``."""
    seconds: float = 30.0
    """Longest time that a piece of work may take, by ``clock``."""
    call_seconds: float = 5.0
    """Longest real time that one call may take."""
    sample: int = 1
    """Crash at every ``sample``-th effect; 1 is everywhere."""
    fault_sample: int = 1
    """Let a call fail at every so many-th of those calls, by which faults are sampled beside ``sample``."""
    prefix: str = "suite"
    """Begins the names of the endpoints that the suite makes, so that they can be told from others."""
    made: list[str] = attrs.field(factory=list, init=False)

    def endpoint(self) -> EndpointSpec:
        """Name a new endpoint."""
        name = f"{self.prefix}-{next(_names)}"
        self.made.append(name)
        return EndpointSpec(name)

    def other(self) -> Serving:
        """Give a second backend on the same provider, or the same one where there is no second."""
        return self.reopen() if self.reopen else self.backend

    def ask(self, endpoint: str, beat: int) -> None:
        """Let the requests of one beat arrive at an endpoint, if it is there, each with a key of its own."""
        if self.backend.observe(endpoint) is None:
            return
        keys = [f"{beat}-{number}" for number in range(self.requests)]
        if self.send is not None:
            self.send(endpoint, keys)
            return
        for key in keys:
            self.request(endpoint, key)

    def request(self, endpoint: str, key: str) -> None:
        """Send one request of somebody who is known by ``key``; that it fails is for the gates to see."""
        payload = attrs.evolve(self.payload, headers={**self.payload.headers, KEY_HEADER: key})
        with contextlib.suppress(PredictionError, UnavailableError):
            self.backend.invoke(endpoint, payload, timeout=self.call_seconds)

    def steps(self, ticket: Ticket) -> Iterator[Ticket]:
        """Advance a ticket to its end and give it after every advance."""
        until = self.clock.now() + self.seconds
        for _look in range(_LOOKS):
            ticket = self.backend.advance(ticket)
            yield ticket
            if ticket.phase.ended:
                return
            if self.clock.now() > until:
                break
            self.clock.sleep(ticket.poll_after or 0.01)
        message = f"{ticket.action.value} of {ticket.target!r} did not end within {self.seconds:g} s: {ticket}"
        raise AssertionError(message)

    def carry(self, ticket: Ticket) -> Ticket:
        """Advance a ticket to its end."""
        *_before, last = self.steps(ticket)
        return last

    def succeed(self, ticket: Ticket) -> None:
        """Advance a ticket to its end, which must be success."""
        ended = self.carry(ticket)
        assert ended.phase is Phase.SUCCEEDED, f"{ended.action.value} ended as {ended.phase.value}: {ended.note}"

    def deploy(self, *revisions: Revision) -> EndpointSpec:
        """Make an endpoint with these revisions; the first takes all traffic."""
        spec = self.endpoint()
        for revision in revisions:
            self.succeed(self.backend.put_revision(spec, revision))
        return spec

    def route(self, endpoint: EndpointSpec, table: Traffic) -> None:
        """Set the traffic of an endpoint."""
        self.succeed(self.backend.set_traffic(endpoint.name, table))

    def state(self, endpoint: EndpointSpec) -> EndpointState:
        """Observe an endpoint that must be there."""
        state = self.backend.observe(endpoint.name)
        assert state is not None, f"endpoint {endpoint.name!r} is not there"
        return state

    def fingerprint(self) -> str:
        """Describe all that the suite made, and how often was written; equal before and after means nothing was written."""
        states = [to_json(self.backend.observe(name)) for name in self.made]
        return json.dumps([states, self.writes() if self.writes else None], sort_keys=True)

    def wait(self, holds: Callable[[], bool]) -> bool:
        """Let time pass until ``holds()``; False when it does not in time."""
        until = self.clock.now() + self.seconds
        while not holds():
            if self.clock.now() > until:
                return False
            self.clock.sleep(0.02)
        return True

    def cleanup(self) -> None:
        """Remove every endpoint that the suite made; what cannot be removed does not hide why a test failed."""
        for name in self.made:
            try:
                self.carry(self.backend.drop_endpoint(name))
            except (ModelDeployError, AssertionError):
                continue
        self.made.clear()


def through_json(ticket: Ticket) -> Ticket:
    """Give the ticket as another process reads it from the journal."""
    return from_json(Ticket, json.loads(json.dumps(to_json(ticket))))
