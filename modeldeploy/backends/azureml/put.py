"""A revision to be ready: its model and environment registered, its endpoint, and a deployment beside those that are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from modeldeploy.backends.azureml import entry
from modeldeploy.backends.azureml.change import START, Change, Tools, watched
from modeldeploy.backends.azureml.described import Deployment, Seen
from modeldeploy.backends.azureml.entry import Environment
from modeldeploy.backends.azureml.errors import BusyError
from modeldeploy.backends.azureml.options import AzureMLOptions
from modeldeploy.backends.azureml.scaling import Scaling
from modeldeploy.backends.azureml.verdicts import Outcome, Verdict
from modeldeploy.backends.cloud.naming import spec
from modeldeploy.backends.cloud.steps import Step, waiting
from modeldeploy.errors import ConflictError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Ticket

MODEL, ENVIRONMENT, ENDPOINT = "model", "environment", "endpoint"
_MADE, _DEPLOY, _READY, _ROUTE, _ROUTED, _SCALE = "made", "deploy", "ready", "route", "routed", "scale"
BEFORE_DEPLOYMENT = frozenset({START, MODEL, ENVIRONMENT, ENDPOINT})
"""Steps at which nothing runs yet that would have to be stopped."""
_AGAIN = frozenset({"InternalServerError", "OperationCanceled"})
"""Ends of an operation that are not the revision's fault, after which it is asked for once more."""


class PutRevision(Change):
    """Bring a revision to an endpoint; the first one makes it and takes all traffic."""

    def __init__(self, tools: Tools, ticket: Ticket, environment: Callable[[Bundle, Revision], Environment]) -> None:
        super().__init__(tools, ticket)
        self._spec = from_json(EndpointSpec, ticket.wanted["endpoint"])
        self._revision = from_json(Revision, ticket.wanted["revision"])
        self._environment_of = environment

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {
            START: self._start,
            MODEL: self._model,
            ENVIRONMENT: self._environment,
            ENDPOINT: self._endpoint,
            _DEPLOY: self._deploy,
            _ROUTE: self._route,
            _SCALE: self._scale,
            **watched(_MADE, self._await_endpoint),
            **watched(_READY, self._await_ready),
            **watched(_ROUTED, self._await_routed),
        }

    def _start(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        found = self._find(seen)
        if found is not None and not found.state.broken:
            return self._move(_READY, "the deployment is there")
        return self._move(MODEL, "registers the model")

    def _find(self, seen: Seen | None) -> Deployment | None:
        """Find the deployment; ConflictError when the endpoint is not ours, or has another content under this id."""
        if seen is None:
            return None
        self._provider.refuse_foreign(seen)
        refuse_impostor(seen, self._revision)
        return seen.find(self._revision.id)

    # Assets

    def _bundle(self) -> Bundle:
        model = self._revision.model
        return Bundle.open(Path(model.uri), expect=model.digest)

    def _model(self, _step: Step) -> Ticket:
        self._bundle().verify()
        self._provider.put_model(self._revision)
        return self._move(ENVIRONMENT, "the model is registered")

    def _made_environment(self) -> Environment:
        return self._environment_of(self._bundle(), self._revision)

    def _environment(self, _step: Step) -> Ticket:
        self._provider.put_environment(self._made_environment())
        return self._move(ENDPOINT, "the environment is registered")

    # The endpoint

    def _endpoint(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        if seen is not None:
            self._find(seen)
            return self._move(_MADE, "the endpoint is there")
        try:
            operation = self._provider.put_endpoint(self._spec)
        except BusyError as error:
            if time.time() - step.at > self._tools.pace.naming:
                message = f"the name {self.name!r} is not free: {error.message}"
                raise ConflictError(message, hint="names are unique in a region; take another one") from error
            raise
        return self._move(_MADE, "the endpoint is being made", about=operation)

    def _await_endpoint(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        verdict = self._judge(seen.state if seen else None, step, holds=True)
        if verdict.outcome is Outcome.GOES_ON:
            return self._goes_on(step, verdict)
        if verdict.outcome is Outcome.FAILED:
            return self.ticket.failed(f"endpoint {self.name!r}: {self._why(step, verdict)}")
        return self._move(_DEPLOY, "the endpoint is there")

    # The deployment

    def _deploy(self, step: Step) -> Ticket:
        seen = self._seen()
        found = self._find(seen)
        if found is not None and not found.state.broken:
            return self._move(_READY, "the deployment is being made", about=step.about)
        if not seen.state.settled:
            return self._busy(seen.state)
        return self._ask_for_it(again=step.about)

    def _ask_for_it(self, *, again: str) -> Ticket:
        bundle, made = self._bundle(), self._made_environment()
        extra = entry.variables(bundle, tuple(self.ticket.wanted.get("trust", ())))
        if made.routes is not None:
            operation = self._provider.put_deployment(self.name, self._revision, made, None, extra)
        else:
            with entry.folder() as code:
                operation = self._provider.put_deployment(self.name, self._revision, made, code, extra)
        return self._move(_READY, "the deployment is being made", about=f"{again}{operation}")

    def _await_ready(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        found = self._find(seen)
        verdict = self._judge(found.state if found else None, step, holds=True)
        if verdict.outcome is Outcome.FAILED:
            return self._unready(step, verdict)
        if verdict.outcome is Outcome.GOES_ON:
            return self._waits_or_gives_up(step, verdict)
        if seen is not None and not seen.traffic.live:
            return self._move(_ROUTE, "gives all traffic to the first revision")
        return self._observed()

    def _waits_or_gives_up(self, step: Step, verdict: Verdict) -> Ticket:
        late = time.time() - step.at > self._tools.pace.patience
        note = (
            ", longer than the service itself allows for; is there capacity, and does the image build?" if late else ""
        )
        return self._goes_on(step, Verdict(verdict.outcome, verdict.phase, verdict.note + note))

    def _unready(self, step: Step, verdict: Verdict) -> Ticket:
        operation = step.about.removeprefix(_ONCE_MORE)
        reason = self._provider.reason(operation)
        if reason is not None and _AGAIN.intersection(reason.codes) and operation == step.about:
            # The service's own fault, or another operation took its place: asked for once more, and only once.
            return self._move(_DEPLOY, f"once more after {reason.code}", about=_ONCE_MORE)
        why = self._why(Step(step.name, operation, step.at), verdict)
        last = self._tools.tail(self.name, self._revision.id)
        told = f"; the last lines of its log: {last}" if last else "; its container has written no log"
        return self.ticket.failed(f"revision {self._revision.id!r} did not become ready: {why}{told}")

    # Traffic for the first one

    def _route(self, step: Step) -> Ticket:
        seen = self._seen()
        if seen.traffic.live:
            return self._observed()
        if not seen.state.settled:
            return self._busy(seen.state)
        if seen.find(self._revision.id) is None:
            return self.ticket.failed(f"revision {self._revision.id!r} is gone: somebody deleted it")
        operation = self._provider.put_traffic(seen, Traffic.all_to(self._revision.id))
        return self._move(_ROUTED, "all traffic goes to the first revision", about=operation or step.about)

    def _await_routed(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        verdict = self._judge(seen.state if seen else None, step, holds=bool(seen and seen.traffic.live))
        if verdict.outcome is Outcome.GOES_ON:
            return self._goes_on(step, verdict)
        if verdict.outcome is Outcome.FAILED:
            return self.ticket.failed(f"traffic of {self.name!r}: {self._why(step, verdict)}")
        return self._observed()

    def _observed(self) -> Ticket:
        seen = self._seen()
        found = self._find(seen)
        if found is None or found.state.broken:
            return self.ticket.failed(f"revision {self._revision.id!r} is not there any more")
        if not seen.settled:
            return waiting(self.ticket, self._tools.pace.poll(0), "settles")
        if not AzureMLOptions.read(self._revision.options, "revision").most_instances:
            return self._finished()
        return self._move(_SCALE, "sets the bounds of its number of instances")

    def _scale(self, _step: Step) -> Ticket:
        location = self._provider.location
        Scaling(self._provider.client).apply(self.name, self._revision, location)
        return self._finished()


_ONCE_MORE = "again:"


def refuse_impostor(seen: Seen, revision: Revision) -> None:
    """Refuse another content under an id that the endpoint has."""
    found = seen.find(revision.id)
    if found is not None and found.spec != spec(revision):
        message = f"endpoint {seen.name!r} has another revision {revision.id!r}"
        raise ConflictError(message, hint="an id stands for one content; use Revision.of")
