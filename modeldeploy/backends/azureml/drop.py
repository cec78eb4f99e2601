"""A revision, or an endpoint, to be gone. Registered models and environments stay: they are the workspace's record of what was deployed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from modeldeploy.backends.azureml import verdicts
from modeldeploy.backends.azureml.change import START, Change, watched
from modeldeploy.backends.azureml.described import Deployment, Seen, State
from modeldeploy.backends.azureml.options import AzureMLOptions
from modeldeploy.backends.azureml.scaling import Scaling
from modeldeploy.backends.azureml.verdicts import Outcome, Verdict
from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.errors import ConflictError
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Ticket

_ENDPOINT, _ASKED, _GONE = "endpoint", "asked", "gone"


class DropEndpoint(Change):
    """The endpoint, and its deployments with it."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, **watched(_GONE, self._await_gone)}

    def _start(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        if seen is None:
            return self._finished()
        if seen.state is State.DELETING:
            return self._move(_GONE, "the endpoint is being deleted")
        self._provider.refuse_foreign(seen)
        if not seen.settled:
            return self._busy(_moving(seen))
        return self._delete(seen)

    def _delete(self, seen: Seen) -> Ticket:
        for each in seen.deployments:
            self._unscale(each)
        operation = self._provider.delete_endpoint(self.name)
        return self._move(_GONE, "the endpoint is being deleted", about=operation)

    def _unscale(self, found: Deployment) -> None:
        """Take the autoscale setting away, which would outlive the deployment; only where its revision says that there is one."""
        options = AzureMLOptions.read(self._provider.revision(found).options, "revision")
        if options.most_instances:
            Scaling(self._provider.client).remove(self.name, found.name)

    def _await_gone(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        return self._until_gone(step, seen.state if seen else None)

    def _until_gone(self, step: Step, state: State | None) -> Ticket:
        if state is None:
            return self._finished()
        age = max(0.0, time.time() - step.at)
        if not state.settled or age <= self._tools.pace.grace:
            phase = verdicts.ASKED if state.settled else verdicts.MOVING
            return self._goes_on(step, Verdict(Outcome.GOES_ON, phase, f"it is {state.value}"))
        verdict = Verdict(Outcome.FAILED, note=f"it is {state.value}: it was not deleted, or somebody made it anew")
        return self.ticket.failed(f"{self.name!r}: {self._why(step, verdict)}")


class DropRevision(DropEndpoint):
    """The deployment; the last one takes the endpoint along."""

    @property
    def _revision(self) -> str:
        return str(self.ticket.wanted["revision"])

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._begin, **watched(_ASKED, self._await_dropped), **watched(_GONE, self._await_gone)}

    def _begin(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.name) if is_name(self._revision) else None
        found = seen.find(self._revision) if seen else None
        if seen is None or found is None:
            return self._finished()
        if found.state is State.DELETING:
            return self._move(_ASKED, "the deployment is being deleted")
        self._provider.refuse_foreign(seen)
        refuse_used(self.name, seen.traffic, self._revision)
        if not seen.settled:
            return self._busy(_moving(seen))
        if len(seen.deployments) == 1:
            return self._delete(seen)
        self._unscale(found)
        operation = self._provider.delete_deployment(self.name, self._revision)
        return self._move(_ASKED, "the deployment is being deleted", about=operation)

    def _await_dropped(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        found = seen.find(self._revision) if seen else None
        return self._until_gone(step, found.state if found else None)


def _moving(seen: Seen) -> State:
    """Give the state of whatever has not settled."""
    return next(
        (each for each in (seen.state, *(one.state for one in seen.deployments)) if not each.settled), seen.state
    )


def refuse_used(endpoint: str, traffic: Traffic, revision: str) -> None:
    """Refuse to drop a revision that takes traffic or copies."""
    if traffic.share(revision) or traffic.copies.get(revision):
        message = f"revision {revision!r} of {endpoint!r} takes traffic"
        raise ConflictError(message, hint="give its traffic to another revision first")
