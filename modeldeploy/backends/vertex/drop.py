"""A revision, or an endpoint, to be gone. Registered versions stay: they are the project's record of what was deployed.

The service deletes an endpoint only when nothing is deployed to it, and undeploys only what takes no traffic. So an endpoint goes in steps, and
which one is next follows from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from modeldeploy.backends.cloud.naming import is_name
from modeldeploy.backends.cloud.steps import Step
from modeldeploy.backends.vertex.change import START, Change
from modeldeploy.backends.vertex.described import Deployed, Seen
from modeldeploy.backends.vertex.errors import CODES
from modeldeploy.errors import ConflictError
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Ticket

_ASKED = "asked"
_AGAIN = frozenset({"INTERNAL", "UNAVAILABLE", "ABORTED", "UNKNOWN", "CANCELLED"})
"""Ends of an operation after which it is asked for once more."""
_ONCE_MORE = "again:"


class DropEndpoint(Change):
    """The endpoint, and what is deployed to it."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._next, _ASKED: self._await}

    def _next(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        if seen is None:
            return self._finished()
        self._provider.refuse_foreign(seen)
        if not seen.settled:
            for operation in seen.deploying:
                # Nobody waits for a deployment to an endpoint that is to be gone.
                self._provider.client.stop(operation)
            return self._busy(seen)
        return self._take_away(seen, again=step.about)

    def _take_away(self, seen: Seen, *, again: str = "") -> Ticket:
        """Take the next thing away: the traffic, a deployed model, or the endpoint when it has neither."""
        if seen.traffic.live:
            self._provider.put_traffic(seen, Traffic())
            return self._move(START, "no traffic goes to it any more")
        if seen.deployed:
            return self._undeploy(seen, seen.deployed[0], again=again)
        operation = self._provider.delete_endpoint(self.name)
        return self._move(_ASKED, "the endpoint is being deleted", about=f"{again}{operation}")

    def _undeploy(self, seen: Seen, found: Deployed, *, again: str = "") -> Ticket:
        operation = self._provider.undeploy(seen, found)
        return self._move(_ASKED, f"revision {found.name!r} is being undeployed", about=f"{again}{operation}")

    def _await(self, step: Step) -> Ticket:
        operation = step.about.removeprefix(_ONCE_MORE)
        progress = self._provider.progress(operation)
        if progress is not None and not progress.done:
            return self._wait(step, self.ticket.note or "it is being taken away")
        if progress is not None and progress.failed:
            code = CODES[progress.code] if 0 <= progress.code < len(CODES) else "UNKNOWN"
            if code not in _AGAIN or operation != step.about:
                return self.ticket.failed(f"{self.name!r}: {self._why(progress)}")
            return self._move(START, f"once more after {code}", about=_ONCE_MORE)
        # Done, or nothing is known of it any more: what is there says what is next.
        return self._move(START, self.ticket.note)


class DropRevision(DropEndpoint):
    """What is deployed of a revision; the last one takes the endpoint along."""

    @property
    def _revision(self) -> str:
        return str(self.ticket.wanted["revision"])

    def _next(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.name) if is_name(self._revision) else None
        found = seen.find(self._revision) if seen else None
        if seen is None or (found is None and seen.deployed and not seen.deploying):
            return self._finished()
        self._provider.refuse_foreign(seen)
        refuse_used(self.name, seen, self._revision)
        if not seen.settled:
            # A deployment that is under way may be of this very revision, which is shown only at its end.
            return self._busy(seen)
        if found is not None and len(seen.deployed) > 1:
            return self._undeploy(seen, found, again=step.about)
        return self._take_away(seen, again=step.about)


def refuse_used(endpoint: str, seen: Seen, revision: str) -> None:
    """Refuse to drop a revision that takes traffic while another one could."""
    if seen.traffic.share(revision):
        message = f"revision {revision!r} of {endpoint!r} takes traffic"
        raise ConflictError(message, hint="give its traffic to another revision first")
