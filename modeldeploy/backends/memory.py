"""The reference backend: a provider made of dictionaries, for tests and for reading.

It does what a cloud does, and slowly: work takes several looks, traffic is in flight for a while, a revision may fail to start. Everything is
deterministic, time comes from an injected clock, and ``writes`` lists every change in order, so that a test can say "nothing was written" and
"each act once". Nothing outlives the process.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import attrs

from modeldeploy.backends.memory_meters import COPY, Samples, Units, per_key, sample
from modeldeploy.backends.memory_models import InProcess
from modeldeploy.backends.memory_world import Endpoint, Job, Member, Write, key_of, revision_at
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PredictionError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.spi import Identity
from modeldeploy.values.assignment import assign
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.capability import Capabilities, Shadow
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.metrics import Window
from modeldeploy.values.serving import (
    WHOLE,
    EndpointSpec,
    EndpointState,
    LogLine,
    Payload,
    Revision,
    Traffic,
)
from modeldeploy.values.ticket import Action, Phase, Ticket

Responder = Callable[[str, str, Payload], Payload]
"""Answers ``(endpoint, revision, request)``; what it raises is what the caller gets."""

EVERYTHING = Capabilities(
    serving=True,
    split=100,
    shadow=Shadow(max_targets=100),
    compares=True,
    pinned_invoke=True,
    sticky=True,
    expect_is_atomic=True,
    cancel=True,
    meters=True,
    meters_by_share=True,
    logs=True,
    batch=True,
)

# Coprime to 100: a hundred requests in a row visit every percent once, well mixed.
_STRIDE = 61
_JOB_ROWS = 1_000


def respond(endpoint: str, revision: str, payload: Payload) -> Payload:
    """Answer with the names of the endpoint and the revision, as JSON."""
    body = json.dumps({"endpoint": endpoint, "revision": revision, "bytes": len(payload.body)})
    return Payload(body.encode(), {"content-type": "application/json"})


class MemoryBackend:
    """A provider in this process. ``steps`` is how many looks a piece of work takes after its write, ``poll_after`` the wait it asks for."""

    name = "memory"
    _shared: ClassVar[dict[Path, MemoryBackend]] = {}

    def __init__(
        self,
        *,
        capabilities: Capabilities = EVERYTHING,
        clock: Callable[[], float] = time.time,
        steps: int = 2,
        poll_after: float = 0.0,
        responder: Responder = respond,
    ) -> None:
        self.capabilities = capabilities
        self.writes: list[Write] = []
        self._clock, self._steps, self._poll_after, self._responder = clock, steps, poll_after, responder
        self._endpoints: dict[str, Endpoint] = {}
        self._jobs: dict[str, Job] = {}
        self._samples = Samples()
        self._units: dict[str, Units] = {}
        self._lines: dict[tuple[str, str], list[LogLine]] = {}
        self._doomed: dict[str, str] = {}
        self._lock = threading.RLock()

    @classmethod
    def configure(cls, home: Path, settings: Mapping[str, str]) -> Self:
        """Give the one instance of this process for ``home``, which answers with the real models; ``steps`` counts when it is made."""
        unknown = sorted(set(settings) - {"steps"})
        steps = settings.get("steps", "0")
        if unknown or not steps.isdecimal():
            message = f"settings {unknown} of backend 'memory' are not known" if unknown else f"steps is {steps!r}"
            raise ConfigurationError(message, hint="the only setting is steps, a whole number")
        made = cls(steps=int(steps))
        made._responder = InProcess(made._revision)
        return cls._shared.setdefault(home, made)  # type: ignore[return-value]  # one class, no subclasses

    def check(self) -> Identity:
        """Say who and where we are."""
        return Identity(self.name, "nobody", "this process")

    def close(self) -> None:
        """Do nothing: there are no connections."""

    # Starting: validate, write nothing

    def put_revision(self, endpoint: EndpointSpec, revision: Revision) -> Ticket:
        """Ask for a revision to be ready."""
        self.capabilities.require("serving", backend=self.name)
        with self._lock:
            self._refuse_other_content(endpoint.name, revision)
        wanted = {"endpoint": to_json(endpoint), "revision": to_json(revision)}
        return self._ticket(Action.PUT_REVISION, endpoint.name, wanted)

    def set_traffic(self, endpoint: str, traffic: Traffic, *, expect: str | None = None) -> Ticket:
        """Ask for a whole new table."""
        self.capabilities.require("serving", backend=self.name)
        self.capabilities.check_traffic(traffic, backend=self.name)
        with self._lock:
            self._refuse_unknown(endpoint, traffic)
        return self._ticket(Action.SET_TRAFFIC, endpoint, {"traffic": to_json(traffic), "expect": expect})

    def drop_revision(self, endpoint: str, revision: str) -> Ticket:
        """Ask for a revision to be gone."""
        self.capabilities.require("serving", backend=self.name)
        with self._lock:
            self._refuse_used(endpoint, revision)
        return self._ticket(Action.DROP_REVISION, endpoint, {"revision": revision})

    def drop_endpoint(self, endpoint: str) -> Ticket:
        """Ask for an endpoint to be gone."""
        self.capabilities.require("serving", backend=self.name)
        return self._ticket(Action.DROP_ENDPOINT, endpoint, {})

    def put_job(self, job: BatchSpec) -> Ticket:
        """Ask for a job to be done; it scores nothing, it counts."""
        self.capabilities.require("batch", backend=self.name)
        with self._lock:
            self._refuse_other_job(job)
        return self._ticket(Action.PUT_JOB, job.name, {"job": to_json(job)})

    def _ticket(self, action: Action, target: str, wanted: Mapping[str, object]) -> Ticket:
        return Ticket(action, target, wanted, poll_after=self._poll_after)

    # Moving on: look, do at most one step

    def advance(self, ticket: Ticket) -> Ticket:
        """Do the next step of a ticket."""
        if ticket.phase.ended:
            return ticket
        moves = {
            Action.PUT_REVISION: self._advance_put,
            Action.SET_TRAFFIC: self._advance_traffic,
            Action.DROP_REVISION: self._advance_drop_revision,
            Action.DROP_ENDPOINT: self._advance_drop_endpoint,
            Action.PUT_JOB: self._advance_job,
        }
        with self._lock:
            return moves[ticket.action](ticket)

    def _advance_put(self, ticket: Ticket) -> Ticket:
        spec = from_json(EndpointSpec, ticket.wanted["endpoint"])
        revision = from_json(Revision, ticket.wanted["revision"])
        if ticket.step == "start":
            self._create(spec, revision)
            return attrs.evolve(ticket, step="creating", fraction=0.0)
        endpoint = self._endpoints.get(spec.name)
        member = endpoint.members.get(revision.id) if endpoint else None
        if endpoint is None or member is None or member.revision != revision:
            return ticket.failed(f"revision {revision.id!r} is not there any more")
        if member.failure:
            return ticket.failed(member.failure)
        if member.looks:
            member.looks -= 1
            self._welcome(endpoint)
            return attrs.evolve(ticket, fraction=1 - member.looks / (self._steps + 1))
        return ticket.done()

    def _create(self, spec: EndpointSpec, revision: Revision) -> None:
        self._refuse_other_content(spec.name, revision)
        endpoint = self._endpoints.get(spec.name)
        if endpoint is None:
            self._write("create-endpoint", spec.name, "")
            endpoint = self._endpoints[spec.name] = Endpoint(spec)
        if revision.id not in endpoint.members:
            self._write("create-revision", spec.name, revision.id)
            failure = self._doomed.get(revision.id, "")
            endpoint.members[revision.id] = Member(revision, 0 if failure else self._steps, failure)
            self._welcome(endpoint)

    def _welcome(self, endpoint: Endpoint) -> None:
        """Count the change, and give everything to a first revision that is ready."""
        endpoint.changes += 1
        ready = [name for name, member in endpoint.members.items() if not member.looks and not member.failure]
        if len(endpoint.members) == 1 and ready and not endpoint.target.live:
            endpoint.traffic = Traffic.all_to(ready[0])

    def _advance_traffic(self, ticket: Ticket) -> Ticket:
        wanted = from_json(Traffic, ticket.wanted["traffic"])
        self._refuse_unknown(ticket.target, wanted)
        endpoint = self._endpoints[ticket.target]
        if ticket.step == "start":
            self._aim(endpoint, wanted, ticket.wanted["expect"])
            return attrs.evolve(ticket, step="applying")
        if endpoint.pending is not None:
            endpoint.land()
            return ticket
        if not endpoint.traffic.same_as(wanted):
            return ticket.failed(f"traffic is {endpoint.traffic.live}: the provider or somebody else changed it")
        return ticket.done()

    def _aim(self, endpoint: Endpoint, wanted: Traffic, expect: str | None) -> None:
        if endpoint.target.same_as(wanted):
            return
        if expect is not None and expect != endpoint.version:
            message = f"endpoint {endpoint.spec.name!r} is at version {endpoint.version!r}, not {expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")
        self._write("set-traffic", endpoint.spec.name, json.dumps(to_json(wanted), sort_keys=True))
        endpoint.pending, endpoint.looks = wanted, self._steps
        if len(wanted.live) <= 1:
            self._units.pop(endpoint.spec.name, None)
        endpoint.changes += 1
        if not self._steps:
            endpoint.land()

    def _advance_drop_revision(self, ticket: Ticket) -> Ticket:
        name = ticket.wanted["revision"]
        self._refuse_used(ticket.target, name)
        endpoint = self._endpoints.get(ticket.target)
        if endpoint is None or name not in endpoint.members:
            return ticket.done()
        self._remove(endpoint, name)
        return attrs.evolve(ticket, step="dropping")

    def _remove(self, endpoint: Endpoint, revision: str) -> None:
        """Drop a revision, and with the last one the endpoint, which cannot be without."""
        self._write("drop-revision", endpoint.spec.name, revision)
        del endpoint.members[revision]
        endpoint.changes += 1
        if not endpoint.members:
            self._write("drop-endpoint", endpoint.spec.name, "")
            del self._endpoints[endpoint.spec.name]

    def _advance_drop_endpoint(self, ticket: Ticket) -> Ticket:
        if ticket.target not in self._endpoints:
            return ticket.done()
        self._write("drop-endpoint", ticket.target, "")
        del self._endpoints[ticket.target]
        return attrs.evolve(ticket, step="dropping")

    def _advance_job(self, ticket: Ticket) -> Ticket:
        spec = from_json(BatchSpec, ticket.wanted["job"])
        if ticket.step == "start":
            self._refuse_other_job(spec)
            if spec.name not in self._jobs:
                self._write("create-job", spec.name, spec.output)
                self._jobs[spec.name] = Job(spec, self._steps, self._steps)
            return attrs.evolve(ticket, step="scoring", fraction=0.0)
        job = self._jobs[spec.name]
        if job.phase is Phase.RUNNING:
            job.looks = max(0, job.looks - 1)
            job.phase = Phase.RUNNING if job.looks else Phase.SUCCEEDED
        return attrs.evolve(ticket, phase=job.phase, fraction=1 - job.looks / max(1, job.steps))

    def cancel(self, ticket: Ticket) -> Ticket:
        """Stop a revision that is being made, or a job; a change of traffic cannot be stopped."""
        self.capabilities.require("cancel", backend=self.name)
        if ticket.phase.ended:
            return ticket
        stops = {Action.PUT_REVISION: self._cancel_put, Action.PUT_JOB: self._cancel_job}
        if ticket.action not in stops:
            message = f"{ticket.action.value} cannot be stopped"
            raise UnsupportedError(message, capability="cancel", hint="set the table that you want instead")
        with self._lock:
            return stops[ticket.action](ticket)

    def _cancel_put(self, ticket: Ticket) -> Ticket:
        """Remove what is not ready; a revision that is ready stays, and the ticket goes on to its success."""
        endpoint = self._endpoints.get(ticket.target)
        member = endpoint.members.get(ticket.wanted["revision"]["id"]) if endpoint else None
        if endpoint is not None and member is not None:
            if not (member.looks or member.failure):
                return ticket
            self._remove(endpoint, member.revision.id)
        return attrs.evolve(ticket, phase=Phase.CANCELLED)

    def _cancel_job(self, ticket: Ticket) -> Ticket:
        job = self._jobs.get(ticket.target)
        if job is not None and job.phase is Phase.RUNNING:
            self._write("cancel-job", ticket.target, "")
            job.phase = Phase.CANCELLED
        return attrs.evolve(ticket, phase=job.phase if job else Phase.CANCELLED)

    # Looking

    def observe(self, endpoint: str) -> EndpointState | None:
        """Read the endpoint as it is."""
        with self._lock:
            found = self._endpoints.get(endpoint)
            return found.state() if found else None

    def endpoints(self) -> Iterable[str]:
        """Name every endpoint."""
        with self._lock:
            return sorted(self._endpoints)

    def observe_job(self, name: str) -> BatchState | None:
        """Read the job as it is."""
        job = self._jobs.get(name)
        if job is None:
            return None
        done = _JOB_ROWS * (job.steps - job.looks) // job.steps if job.steps else _JOB_ROWS
        return BatchState(name, job.phase, job.spec.output, rows_done=done, rows_total=_JOB_ROWS)

    def jobs(self) -> Iterable[str]:
        """Name every job."""
        return sorted(self._jobs)

    def window(self, endpoint: str, revision: str, since: float, until: float, *, share: int | None = None) -> Window:
        """Count what was recorded at or after ``since`` and before ``until``."""
        self.capabilities.require("meters", backend=self.name)
        return self._samples.window(endpoint, revision, since, until, share)

    def lines(self, endpoint: str, revision: str, *, since: float, limit: int) -> Iterable[LogLine]:
        """Give the last lines of a revision's log."""
        self.capabilities.require("logs", backend=self.name)
        found = [line for line in self._lines.get((endpoint, revision), ()) if line.at >= since]
        return found[-limit:] if limit else []

    # Serving

    def invoke(self, endpoint: str, payload: Payload, *, revision: str | None = None, timeout: float) -> Payload:
        """Let the responder answer for the revision whose turn it is, and count it."""
        if not timeout > 0:
            message = f"timeout is {timeout!r}"
            raise InvalidRequestError(message, field="timeout", hint="use a number of seconds above 0")
        with self._lock:
            key = key_of(self._found(endpoint).traffic.key, payload)
            chosen, copies = self._route(endpoint, revision, key)
            share = None if revision else self._found(endpoint).traffic.share(chosen)
        answer = self._answer(endpoint, chosen, payload)
        self._count(endpoint, chosen, answer, share, key)
        for copy in copies:
            self._compare(endpoint, copy, answer, self._answer(endpoint, copy, payload))
        if isinstance(answer, Exception):
            raise answer
        return attrs.evolve(answer, headers={**answer.headers, "modeldeploy-revision": chosen})

    def _route(self, name: str, pinned: str | None, key: str) -> tuple[str, list[str]]:
        found = self._found(name)
        if pinned is not None:
            self.capabilities.require("pinned_invoke", backend=self.name)
            if pinned not in found.members:
                message = f"endpoint {name!r} has no revision {pinned!r}"
                raise NotFoundError(message, hint=f"it has {sorted(found.members)}")
            return pinned, []
        if not found.traffic.live:
            message = f"endpoint {name!r} has no revision that takes traffic"
            raise UnavailableError(message, retry_after=1.0)
        at = found.asked * _STRIDE % WHOLE
        found.asked += 1
        chosen = assign(found.traffic.live, key) if key else None
        copies = [copy for copy, share in found.traffic.shadow.items() if at < share]
        return chosen or revision_at(found.traffic.live, at), copies

    def _answer(self, endpoint: str, revision: str, payload: Payload) -> Payload | Exception:
        try:
            answer: Payload | Exception = self._responder(endpoint, revision, payload)
        except (PredictionError, UnavailableError, InvalidRequestError) as error:
            answer = error
        return answer

    def _count(self, endpoint: str, revision: str, answer: Payload | Exception, share: int | None, key: str) -> None:
        seen = self._seen(revision, answer, assigned=1)
        if share is None:
            self._samples.add(endpoint, attrs.evolve(seen, assigned=0))
        elif key:
            with self._lock:
                self._samples.add(endpoint, per_key(seen, key, self._units.setdefault(endpoint, Units())), share)
        else:
            self._samples.add(endpoint, seen, share)

    def _compare(self, endpoint: str, copy: str, answer: Payload | Exception, other: Payload | Exception) -> None:
        seen = self._seen(copy, other)
        if isinstance(answer, Payload) and isinstance(other, Payload):
            seen = attrs.evolve(seen, compared=1, disagreed=int(answer.body != other.body))
        self._samples.add(endpoint, seen, COPY)

    def _seen(self, revision: str, answer: Payload | Exception, *, assigned: int = 0) -> Window:
        failed = isinstance(answer, PredictionError | UnavailableError)
        return sample(revision, self._clock(), requests=1, errors=int(failed), latency=0.001, assigned=assigned)

    # What a test may do to this provider

    def record(
        self, endpoint: str, revision: str, *, requests: int = 1, errors: int = 0, latency: float = 0.001
    ) -> None:
        """Count requests that the traffic table gave to a revision now, each answered after ``latency`` seconds."""
        seen = sample(revision, self._clock(), requests=requests, errors=errors, latency=latency, assigned=requests)
        found = self._endpoints.get(endpoint)
        self._samples.add(endpoint, seen, found.traffic.share(revision) if found else None)

    def log(self, endpoint: str, revision: str, text: str) -> None:
        """Add a line to a revision's log."""
        self._lines.setdefault((endpoint, revision), []).append(LogLine(self._clock(), revision, text))

    def doom(self, revision: str, note: str) -> None:
        """Let a revision fail when it is created from now on, for the reason in ``note``."""
        self._doomed[revision] = note

    def _write(self, verb: str, target: str, detail: str) -> None:
        self.writes.append(Write(verb, target, detail))

    # Refusals

    def _revision(self, endpoint: str, revision: str) -> Revision:
        return self._found(endpoint).members[revision].revision

    def _found(self, name: str) -> Endpoint:
        found = self._endpoints.get(name)
        if found is None:
            message = f"there is no endpoint {name!r}"
            raise NotFoundError(message, hint=f"there are {sorted(self._endpoints)}", context={"backend": self.name})
        return found

    def _refuse_unknown(self, name: str, traffic: Traffic) -> None:
        endpoint = self._found(name)
        unknown = sorted({*traffic.weights, *traffic.shadow} - set(endpoint.members))
        if unknown:
            message = f"endpoint {name!r} has no revisions {unknown}"
            raise NotFoundError(message, hint=f"it has {sorted(endpoint.members)}", context={"backend": self.name})

    def _refuse_other_content(self, name: str, revision: Revision) -> None:
        endpoint = self._endpoints.get(name)
        member = endpoint.members.get(revision.id) if endpoint else None
        if member is not None and member.revision != revision:
            message = f"endpoint {name!r} has a revision {revision.id!r} with other content"
            raise ConflictError(
                message, hint="make the revision with Revision.of, so that its id follows from its content"
            )

    def _refuse_used(self, name: str, revision: str) -> None:
        endpoint = self._endpoints.get(name)
        if endpoint is not None and revision in endpoint.used():
            message = f"revision {revision!r} of {name!r} takes traffic"
            raise ConflictError(message, hint="give its traffic to another revision first")

    def _refuse_other_job(self, job: BatchSpec) -> None:
        known = self._jobs.get(job.name)
        if known is not None and known.spec != job:
            message = f"there is a job {job.name!r} with other content"
            raise ConflictError(message, hint="give this one another name")
