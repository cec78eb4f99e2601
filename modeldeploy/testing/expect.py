"""What the suites expect of a backend, in words of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from modeldeploy.errors import ConflictError, ModelDeployError, OperationError, UnsupportedError
from modeldeploy.testing.harness import Harness, through_json
from modeldeploy.values.serving import EndpointSpec, EndpointState, Traffic
from modeldeploy.values.ticket import Phase, Ticket

TIMEOUT = 10.0
"""Seconds that a request may take."""


def every_change(harness: Harness, carry: Callable[[Ticket], Ticket]) -> None:
    """Make every kind of change in this way, and compare its end and its writes with those of the plain way."""
    plain = changes(harness, harness.carry)
    assert changes(harness, carry) == plain


def changes(harness: Harness, carry: Callable[[Ticket], Ticket]) -> list[tuple[Any, ...]]:
    """Make, change and remove an endpoint; give how each change ended, its writes and what is observed then."""
    first, second = harness.revisions[:2]
    spec, backend = harness.endpoint(), harness.backend
    told: list[tuple[Any, ...]] = []
    starts: list[Callable[[], Ticket]] = [
        lambda: backend.put_revision(spec, first),
        lambda: backend.put_revision(spec, second),
        lambda: backend.set_traffic(spec.name, Traffic.all_to(second.id), expect=harness.state(spec).version),
        lambda: backend.drop_revision(spec.name, first.id),
        lambda: backend.drop_endpoint(spec.name),
    ]
    for start in starts:
        before = harness.writes() if harness.writes else 0
        ended = carry(start())
        wrote = harness.writes() - before if harness.writes else 0
        state = backend.observe(spec.name)
        told.append((ended.action, ended.phase, ended.note, wrote, shape(state)))
    return told


def shape(state: EndpointState | None) -> object:
    """Give the parts of a state that do not depend on the way to it."""
    return state and (sorted(each.revision.id for each in state.revisions if each.ready), state.traffic.live)


def carry_repeating(harness: Harness, ticket: Ticket) -> Ticket:
    """Advance every ticket twice, read back from JSON each time, and go on with the second answer."""
    until = harness.clock.now() + harness.seconds
    while not ticket.phase.ended and harness.clock.now() < until:
        harness.backend.advance(through_json(ticket))
        ticket = harness.backend.advance(through_json(ticket))
        harness.clock.sleep(ticket.poll_after or 0.01)
    return ticket


def carry_restarting(harness: Harness, ticket: Ticket) -> Ticket:
    """Advance the first ticket again after every step."""
    start = through_json(ticket)
    for ticket in harness.steps(ticket):  # noqa: B020, PLR1704 - the ticket as it moves on
        if not ticket.phase.ended:
            harness.backend.advance(start)
    return ticket


def refused(harness: Harness, error: type[ModelDeployError], start: Callable[[], Ticket]) -> None:
    """At the start or at the first write; never at the end."""
    with pytest.raises(error):
        harness.carry(start())


def unsupported(harness: Harness, capability: str, start: Callable[[], Ticket]) -> None:
    """Refused at the start, by name, with nothing written."""
    before = harness.fingerprint()
    with pytest.raises(UnsupportedError) as caught:
        start()
    assert caught.value.capability == capability
    assert harness.fingerprint() == before, "something was written before it was refused"


def not_done(harness: Harness, ticket: Ticket) -> None:
    """Demand an end that is no success; how it fails is the backend's choice."""
    try:
        ended = harness.carry(ticket)
    except (ConflictError, OperationError):
        return
    assert ended.phase is not Phase.SUCCEEDED, "it reports success for what was not reached"


def absent(backend: object, protocol: type, use: Callable[[Any], object]) -> None:
    """Demand that what is not declared is not there, or says so."""
    if isinstance(backend, protocol):
        with pytest.raises(UnsupportedError):
            use(backend)


def only_our_errors(calls: Iterable[Callable[[], object]]) -> None:
    """Demand that whatever these calls raise is an error of this library."""
    for number, call in enumerate(calls):
        try:
            call()
        except ModelDeployError:
            continue
        except Exception as error:  # noqa: BLE001 - any other class is the finding
            pytest.fail(f"call {number} let {type(error).__name__} out: {error}")


def timed(harness: Harness, act: Callable[[], Any]) -> Any:
    """Make a call that must return soon."""
    began = time.monotonic()
    answer = act()
    took = time.monotonic() - began
    assert took <= harness.call_seconds, f"a call took {took:.1f} s"
    return answer


def answering(harness: Harness, spec: EndpointSpec, requests: int) -> set[str]:
    """Send requests and collect the revisions that say that they answered."""
    answers = [harness.backend.invoke(spec.name, harness.payload, timeout=TIMEOUT) for _ in range(requests)]
    return {name for answer in answers if (name := answer.headers.get("modeldeploy-revision"))}


def even(names: list[str]) -> dict[str, int]:
    """Share traffic out evenly; the first takes what is left over."""
    share = 100 // len(names)
    return {**dict.fromkeys(names, share), names[0]: 100 - share * (len(names) - 1)}
