"""A revision, or an endpoint, to be gone: in the order in which nothing that is in use loses what it stands on."""

from __future__ import annotations

import time
from collections.abc import Callable

from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.change import START, TIDY, Change
from modeldeploy.backends.sagemaker.described import Config, Seen, Status
from modeldeploy.backends.sagemaker.errors import BusyError
from modeldeploy.backends.sagemaker.scaling import Scaling
from modeldeploy.backends.sagemaker.traffic import not_there
from modeldeploy.backends.sagemaker.verdicts import MOVING
from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Ticket

LEAVE, GONE = "leave", "gone"


class DropEndpoint(Change):
    """Scaling, endpoint, configurations, models, objects: each goes when what stands on it is gone."""

    def _steps(self) -> dict[str, Callable[[Step], Ticket]]:
        return {START: self._start, LEAVE: self._leave, GONE: self._await_gone}

    def _start(self, _step: Step) -> Ticket:
        if not names.is_name(self.name):
            return self.ticket.done()
        return self._leave(_step)

    def _leave(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.name)
        if seen is None:
            return self._unless_begun()
        if seen.status is Status.DELETING:
            return moved(self.ticket, Step(GONE, at=seen.changed))
        self._provider.refuse_foreign(seen)
        if not seen.status.settled:
            return self._busy(seen)
        for slot in (*seen.production, *seen.shadow):
            Scaling(self._provider.client).remove(self.name, slot.name)
        return self._delete(seen)

    def _unless_begun(self) -> Ticket:
        """Go on to tidy up, unless an endpoint may have been asked for a moment ago that the service does not show yet."""
        made = max((at for _name, at in self._provider.configs_of(self.name)), default=0.0)
        if time.time() - made < self._tools.pace.grace:
            return waiting(self.ticket, self._tools.pace.poll(0), "it may have been asked for, and not be shown yet")
        return moved(self.ticket, Step(TIDY))

    def _delete(self, seen: Seen) -> Ticket:
        try:
            self._provider.client.sagemaker("delete_endpoint", EndpointName=self.name)
        except BusyError:
            return self._busy(seen)
        except NotFoundError:
            return moved(self.ticket, Step(TIDY))
        return moved(self.ticket, Step(GONE, at=time.time()), note="the endpoint is being deleted")

    def _await_gone(self, step: Step) -> Ticket:
        seen, age = self._provider.seen(self.name), max(0.0, time.time() - step.at)
        if seen is None:
            return moved(self.ticket, Step(TIDY))
        if seen.status.settled and age > self._tools.pace.grace:
            if seen.created > step.at or seen.reason:
                return self.ticket.failed(f"the endpoint is {seen.status.value}: {seen.reason or 'it was made anew'}")
            return moved(self.ticket, Step(LEAVE))
        return waiting(self.ticket, self._tools.pace.poll(age), "the endpoint is being deleted")

    def _tidy(self, _step: Step) -> Ticket:
        if self._provider.seen(self.name) is not None:
            # Made anew by somebody while we were tidying up: what is there now is theirs.
            return self.ticket.done()
        for name, _made in list(self._provider.configs_of(self.name)):
            self._provider.delete_config(name)
        for name in list(self._provider.models_of(self.name)):
            self._provider.delete_model(name)
        self._provider.sweep(names.place(self.name))
        return self.ticket.done()


class DropRevision(DropEndpoint):
    """The variant, then its Model and objects; the last one takes the endpoint along."""

    @property
    def _revision(self) -> str:
        return str(self.ticket.wanted["revision"])

    def _steps(self) -> dict[str, Callable[[Step], Ticket]]:
        return {**super()._steps(), START: self._begin}

    def _begin(self, step: Step) -> Ticket:
        if not (names.is_name(self.name) and names.is_name(self._revision)):
            return self.ticket.done()
        seen, config = self._look()
        if seen is None or config is None:
            return moved(self.ticket, Step(TIDY))
        if not seen.status.settled:
            ours = config.find(self._revision) is not None and self._brings(seen)
            return moved(self.ticket, Step(MOVING, at=time.time())) if ours else self._busy(seen)
        if config.find(self._revision) is None:
            return moved(self.ticket, Step(TIDY))
        if seen.status.serves:
            refuse_used(self.name, seen.traffic, self._revision)
        if len(config.variants) == 1:
            return moved(self.ticket, Step(LEAVE))
        Scaling(self._provider.client).remove(self.name, self._revision)
        return self._prepare(step)

    def _wanted(self, seen: Seen | None, config: Config | None) -> Config | None:
        if seen is None or config is None:
            raise not_there(self.name)
        if config.find(self._revision) is None:
            return None
        refuse_used(self.name, seen.traffic, self._revision)
        return config.with_traffic(seen.traffic).without(self._revision)

    def _in(self, config: Config) -> bool:
        return config.find(self._revision) is None

    def _holds(self, seen: Seen) -> bool:
        config = self._provider.config(seen.config)
        return config is not None and self._in(config)

    def _tidy(self, step: Step) -> Ticket:
        seen, config = self._look()
        if seen is None or config is None:
            return super()._tidy(step)
        if config.find(self._revision) is not None:
            return self.ticket.failed(f"revision {self._revision!r} is there again: somebody put it back")
        self._remove_revision()
        return self.ticket.done()

    def _remove_revision(self) -> None:
        self._delete_unused()
        for name in list(self._provider.models_of(self.name, self._revision)):
            self._provider.delete_model(name)
        self._provider.sweep(names.place(self.name, self._revision))


def refuse_used(endpoint: str, traffic: Traffic, revision: str) -> None:
    """Refuse to drop a revision that takes traffic or copies."""
    if traffic.share(revision) or traffic.copies.get(revision):
        message = f"revision {revision!r} of {endpoint!r} takes traffic"
        raise ConflictError(message, hint="give its traffic to another revision first")
