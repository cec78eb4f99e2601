"""A revision to be ready: its files in the bucket, a version of its model, its endpoint, and a deployed model beside those that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from modeldeploy.backends.cloud.naming import spec
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.vertex import entry
from modeldeploy.backends.vertex.change import START, Change, Tools, age
from modeldeploy.backends.vertex.described import Deployed, Progress, Seen
from modeldeploy.backends.vertex.entry import Container, Shipment
from modeldeploy.backends.vertex.errors import CODES
from modeldeploy.backends.vertex.ship import Position
from modeldeploy.errors import ConflictError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Phase, Ticket

SEND, REGISTER, REGISTERED, ENDPOINT, MADE = "send", "register", "registered", "endpoint", "made"
_DEPLOY, READY, _ROUTE = "deploy", "ready", "route"
BEFORE_DEPLOYMENT = frozenset({START, SEND, REGISTER, REGISTERED, ENDPOINT, MADE, _DEPLOY})
"""Steps at which nothing runs yet that would have to be stopped."""
_AGAIN = frozenset({"INTERNAL", "UNAVAILABLE", "ABORTED", "UNKNOWN"})
"""Ends of an operation that are not the revision's fault, after which it is asked for once more."""
_ONCE_MORE = "again:"


class PutRevision(Change):
    """Bring a revision to an endpoint; the first one makes it and takes all traffic."""

    def __init__(self, tools: Tools, ticket: Ticket, container: Callable[[Bundle, Revision], Container]) -> None:
        super().__init__(tools, ticket)
        self._spec = from_json(EndpointSpec, ticket.wanted["endpoint"])
        self._revision = from_json(Revision, ticket.wanted["revision"])
        self._container_of = container

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {
            START: self._start,
            SEND: self._send,
            REGISTER: self._register,
            REGISTERED: self._await_registered,
            ENDPOINT: self._endpoint,
            MADE: self._await_endpoint,
            _DEPLOY: self._deploy,
            READY: self._await_ready,
            _ROUTE: self._route,
        }

    def _start(self, _step: Step) -> Ticket:
        if self._find(self._provider.seen(self.name)) is not None:
            return self._move(READY, "it is deployed")
        if self._provider.version(self._revision) is not None:
            return self._move(ENDPOINT, "the version is registered")
        return self._move(SEND, "sends the model")

    def _find(self, seen: Seen | None) -> Deployed | None:
        """Find what is deployed; ConflictError when the endpoint is not ours, or has another content under this id."""
        if seen is None:
            return None
        self._provider.refuse_foreign(seen)
        refuse_impostor(seen, self._revision)
        return seen.find(self._revision.id)

    # The model

    def _bundle(self) -> Bundle:
        model = self._revision.model
        return Bundle.open(Path(model.uri), expect=model.digest)

    def _send(self, step: Step) -> Ticket:
        bundle, position = self._bundle(), Position.load(step.about)
        if not step.about:
            bundle.verify()
        position = self._provider.shipper.advance(Shipment.of(bundle), position)
        if position.done:
            return self._move(REGISTER, "the files are in the bucket")
        return self._move(SEND, "sends the model", about=position.dump(), fraction=position.fraction)

    def _register(self, step: Step) -> Ticket:
        if self._provider.version(self._revision) is not None:
            return self._move(ENDPOINT, "the version is registered")
        if self._provider.registering(self._revision.model.name):
            # Perhaps of this very version, by a request whose answer was lost; a second one would be a second version.
            return self._wait(step, "waits for a version of the model that is being registered")
        bundle = self._bundle()
        extra = entry.variables(bundle, tuple(self.ticket.wanted.get("trust", ())))
        container = self._container_of(bundle, self._revision)
        operation = self._provider.register(self._revision, container, Shipment.of(bundle), extra)
        return self._move(REGISTERED, "the version is being registered", about=f"{step.about}{operation}")

    def _await_registered(self, step: Step) -> Ticket:
        operation = step.about.removeprefix(_ONCE_MORE)
        progress = self._provider.progress(operation)
        if progress is not None and not progress.done:
            return self._wait(step, "the version is being registered")
        if progress is not None and progress.failed:
            if _code(progress) in _AGAIN and operation == step.about:
                return self._move(REGISTER, f"once more after {_code(progress)}", about=_ONCE_MORE)
            return self.ticket.failed(f"model {self._revision.model}: {self._why(progress)}")
        if self._provider.version(self._revision) is not None:
            return self._move(ENDPOINT, "the version is registered")
        if self._late(step):
            return self.ticket.failed(f"model {self._revision.model} is not shown after it was registered")
        return self._wait(step, "the version is not shown yet")

    # The endpoint

    def _endpoint(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        if seen is not None:
            self._find(seen)
            return self._move(_DEPLOY, "the endpoint is there")
        return self._move(MADE, "the endpoint is being made", about=self._provider.put_endpoint(self._spec))

    def _await_endpoint(self, step: Step) -> Ticket:
        progress = self._provider.progress(step.about)
        if progress is not None and not progress.done:
            return self._wait(step, "the endpoint is being made")
        if self._provider.seen(self.name) is not None:
            return self._move(_DEPLOY, "the endpoint is there")
        if progress is not None and progress.failed:
            return self.ticket.failed(f"endpoint {self.name!r}: {self._why(progress)}")
        if self._late(step):
            return self.ticket.failed(f"endpoint {self.name!r} is not shown after it was made")
        return self._wait(step, "the endpoint is not shown yet")

    # The deployment

    def _deploy(self, step: Step) -> Ticket:
        seen = self._seen()
        if self._find(seen) is not None:
            return self._move(READY, "it is deployed")
        if not seen.settled:
            # Perhaps a deployment of this very revision, by a request whose answer was lost.
            return self._busy(seen)
        version = self._provider.version(self._revision)
        if version is None:
            return self.ticket.failed(f"the version of {self._revision.model} is gone: somebody deleted it")
        operation = self._provider.deploy(seen, self._revision, version)
        return self._move(READY, "it is being deployed", about=f"{step.about}{operation}")

    def _await_ready(self, step: Step) -> Ticket:
        progress = self._provider.progress(step.about.removeprefix(_ONCE_MORE))
        if progress is not None and not progress.done:
            return self._wait(step, self._stage(step, progress))
        if progress is not None and progress.failed:
            return self._unready(step, progress)
        seen = self._seen()
        if self._find(seen) is None:
            if self._late(step):
                return self.ticket.failed(f"revision {self._revision.id!r} is not there: somebody undeployed it")
            return self._wait(step, "it is not shown yet")
        if not seen.traffic.live:
            return self._move(_ROUTE, "gives all traffic to the only revision")
        return self._finished() if seen.settled else self._busy(seen)

    def _stage(self, step: Step, progress: Progress) -> str:
        told = f"deploys: {progress.stage or 'begun'}"
        if age(step) > self._tools.pace.patience:
            return f"{told}, longer than the service itself allows for; is there capacity, and can the image be pulled?"
        return told

    def _unready(self, step: Step, progress: Progress) -> Ticket:
        code = _code(progress)
        if code == "CANCELLED":
            return attrs.evolve(self.ticket, phase=Phase.CANCELLED, note="the deployment was cancelled", poll_after=0.0)
        if code in _AGAIN and not step.about.startswith(_ONCE_MORE):
            return self._move(_DEPLOY, f"once more after {code}", about=_ONCE_MORE)
        last = self._tools.tail(self.name, self._revision.id)
        told = f"; the last lines of its log: {last}" if last else "; its container has written no log"
        why = self._why(progress)
        return self.ticket.failed(f"revision {self._revision.id!r} did not become ready: {why}{told}")

    def _route(self, step: Step) -> Ticket:
        seen = self._seen()
        if self._find(seen) is None:
            return self.ticket.failed(f"revision {self._revision.id!r} is gone: somebody undeployed it")
        if not seen.traffic.live:
            self._provider.put_traffic(seen, Traffic.all_to(self._revision.id))
        return self._move(READY, "all traffic goes to the only revision", about=step.about)


def _code(progress: Progress) -> str:
    return CODES[progress.code] if 0 <= progress.code < len(CODES) else "UNKNOWN"


def refuse_impostor(seen: Seen, revision: Revision) -> None:
    """Refuse another content under an id that the endpoint has."""
    found = seen.find(revision.id)
    if found is not None and found.spec != spec(revision):
        message = f"endpoint {seen.name!r} has another revision {revision.id!r}"
        raise ConflictError(message, hint="an id stands for one content; use Revision.of")
