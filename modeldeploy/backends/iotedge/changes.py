"""What tickets ask for, step by step: each advance looks, does at most the next thing, and may be repeated."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import spec
from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.iotedge import manifest, names
from modeldeploy.backends.iotedge.client import Client
from modeldeploy.backends.iotedge.described import Config, Seen
from modeldeploy.backends.iotedge.devices import Fleet
from modeldeploy.backends.iotedge.errors import AlreadyThereError, ChangedError
from modeldeploy.backends.iotedge.manifest import Defaults
from modeldeploy.backends.iotedge.pace import Pace
from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import WHOLE, Revision, Traffic
from modeldeploy.values.ticket import Ticket

START, SHIFT, TOLD, GONE, UNPLACE = "start", "shift", "told", "gone", "unplace"
AGAIN = "again"
_SLICE = 25
"""Twins that are written in one advance."""


@attrs.frozen
class Tools:
    """What every change needs."""

    client: Client
    defaults: Defaults
    fleet: Fleet
    pace: Pace
    clock: Callable[[], float]

    def seen(self, target: str) -> Seen | None:
        """Read a target as it is now."""
        return Seen.read(target, self.client.configurations())

    def existing(self, target: str) -> Seen:
        """Read a target that is there; NotFoundError otherwise."""
        seen = self.seen(target)
        if seen is None:
            message = f"there is no target {target!r}"
            raise NotFoundError(message, hint="deploy a model to it first", context={"backend": "iotedge"})
        return seen


class Change:
    """A ticket and the step that it is at."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        self._tools = tools
        self.ticket = ticket
        self.target = ticket.target

    def advance(self) -> Ticket:
        """Do the next step."""
        step = Step.of(self.ticket)
        return self._steps()[step.name](step)

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        raise NotImplementedError

    def _place(self) -> bool:
        """Write down the places of devices that have none yet, a few at a time; whether all have one now."""
        missing = list(itertools.islice(self._tools.fleet.placeless(self.target), _SLICE))
        for device, at in missing:
            self._tools.fleet.write_place(device, self.target, at)
        return len(missing) < _SLICE

    def _again(self, note: str) -> Ticket:
        return attrs.evolve(self.ticket, note=note, poll_after=0.0)

    def _published(self, note: str, *, again: bool = False) -> Ticket:
        return moved(self.ticket, Step(TOLD, AGAIN if again else "", at=self._tools.clock()), note=note)

    def _await_devices(self, seen: Seen, step: Step) -> Ticket:
        """Go on when every device that can be reached has answered, or has had its time.

        Where nothing changed, whoever asks wants to know anew: a container that ends is started again by the runtime, so devices that said
        no are asked once more by waiting for their next word.
        """
        now = self._tools.clock()
        devices = self._tools.fleet.read(seen, now)
        waits_for = [*rings.outstanding(devices), *(rings.unheard(devices, step.at) if step.about == AGAIN else ())]
        if not waits_for or now >= step.at + self._tools.pace.settle:
            return self._done()
        answered = sum(device.answered for device in devices)
        waits = waiting(self.ticket, self._tools.pace.poll(), rings.summary(devices))
        return attrs.evolve(waits, fraction=answered / len(devices))

    def _done(self) -> Ticket:
        return attrs.evolve(self.ticket, note="").done()


class PutRevision(Change):
    """Bring a revision to a target: one configuration, which no device matches; the first one is for all."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        super().__init__(tools, ticket)
        self._revision = from_json(Revision, ticket.wanted["revision"])

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, TOLD: self._told}

    def _start(self, _step: Step) -> Ticket:
        seen = self._tools.seen(self.target)
        if seen is None or self._own(seen) is None:
            if not self._place():
                return self._again("gives devices their places")
            self._put(seen)
        return self._published("the deployment is stored")

    def _own(self, seen: Seen) -> Config | None:
        refuse_impostor(seen, self._revision)
        return seen.find(self._revision.id)

    def _put(self, seen: Seen | None) -> None:
        defaults = self._tools.defaults
        highest = max((each.priority for each in seen.configs), default=0) if seen else defaults.base_priority - 1
        document = {
            "id": names.configuration(self.target, self._revision.id),
            "labels": {
                names.LABEL_TARGET: self.target,
                names.LABEL_REVISION: self._revision.id,
                names.LABEL_SPEC: names.short(spec(self._revision)),
            },
            "priority": highest + 1,
            "targetCondition": names.condition(defaults.devices, self.target, 0 if seen else WHOLE),
            "content": manifest.content(self.target, self._revision, defaults),
            "metrics": {"queries": _metrics(defaults.module_of(self.target), self._revision.id)},
        }
        try:
            self._tools.client.put_configuration(document)
        except AlreadyThereError:
            # Of a call whose answer was lost, or of somebody else: the next look says.
            return

    def _told(self, step: Step) -> Ticket:
        seen = self._tools.seen(self.target)
        if seen is None or self._own(seen) is None:
            return self.ticket.failed(f"revision {self._revision.id!r} is not there any more")
        return self._await_devices(seen, step) if seen.traffic.share(self._revision.id) else self._done()


def _metrics(module: str, revision: str) -> dict[str, str]:
    """Write the queries whose counts the portal shows beside a deployment."""
    one = f"properties.reported.modules.[[{module}]]"
    where = f"FROM devices.modules WHERE moduleId = '$edgeAgent' AND {one}.version = '{revision}'"
    return {
        "running": f"SELECT * {where} AND {one}.runtimeStatus = 'running'",
        "failing": f"SELECT * {where} AND {one}.runtimeStatus != 'running'",
    }


class SetTraffic(Change):
    """Bring a table to a target: the bounds of its configurations, one request for each that changes, mostly one in all."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        super().__init__(tools, ticket)
        self._table = from_json(Traffic, ticket.wanted["traffic"])
        self._expect: str | None = ticket.wanted.get("expect")

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, SHIFT: self._shift, TOLD: self._told}

    def _start(self, _step: Step) -> Ticket:
        seen = self._seen()
        left = self._left(seen)
        if left and self._expect is not None and self._expect != seen.version:
            message = f"target {self.target!r} is at version {seen.version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")
        if left and not self._place():
            return self._again("gives devices their places")
        if len(left) > 1:
            # More than one request: what was there is written down first, so that whoever goes on knows the way.
            return moved(self.ticket, Step(SHIFT, json.dumps(seen.ranked)))
        return self._go(seen, left)

    def _seen(self) -> Seen:
        seen = self._tools.existing(self.target)
        rings.refuse_table(seen.target, seen.ranked, self._table, backend="iotedge")
        return seen

    def _left(self, seen: Seen) -> list[tuple[str, int]]:
        return rings.walk(seen.ranked, rings.bounds(seen.ranked, self._table))

    def _shift(self, step: Step) -> Ticket:
        seen = self._seen()
        rings.refuse_others(self.target, json.loads(step.about), seen.ranked, self._table)
        return self._go(seen, self._left(seen))

    def _go(self, seen: Seen, left: list[tuple[str, int]]) -> Ticket:
        if left:
            self._aim(seen, *left[0])
        return (
            self._again("publishes the table")
            if len(left) > 1
            else self._published("the table is published", again=not left)
        )

    def _aim(self, seen: Seen, revision: str, bound: int) -> None:
        config = seen.find(revision)
        if config is not None:
            document = config.aimed(self._tools.defaults.devices, self.target, bound)
            self._tools.client.put_configuration(document, match=config.etag)

    def _told(self, step: Step) -> Ticket:
        seen = self._seen()
        if self._left(seen):
            return self.ticket.failed(f"the table is {seen.traffic.live}: somebody else changed it")
        return self._await_devices(seen, step)


class DropRevision(Change):
    """Delete the configuration of a revision that no device is told to run."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, GONE: self._start}

    def _start(self, _step: Step) -> Ticket:
        seen, revision = self._tools.seen(self.target), str(self.ticket.wanted["revision"])
        config = seen.find(revision) if seen else None
        if seen is None or config is None:
            return self._done()
        rings.refuse_used(seen.target, seen.traffic, revision)
        delete(self._tools.client, config)
        return moved(self.ticket, Step(GONE), note="the deployment is deleted")


class DropTarget(Change):
    """Delete every configuration of a target, and take its devices' places away; the modules stay on the devices."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, UNPLACE: self._unplace}

    def _start(self, _step: Step) -> Ticket:
        seen = self._tools.seen(self.target)
        if seen is None:
            return moved(self.ticket, Step(UNPLACE))
        # The lowest priority first: no device is given an older revision on the way.
        delete(self._tools.client, seen.configs[-1])
        return self._again("deletes the deployments")

    def _unplace(self, _step: Step) -> Ticket:
        devices = list(itertools.islice(self._tools.fleet.placed(self.target), _SLICE))
        for device in devices:
            self._tools.fleet.write_place(device, self.target, None)
        return self._again("takes the places away") if devices else self._done()


def delete(client: Client, config: Config) -> None:
    """Delete a configuration that is as it was read; one that is gone already is success."""
    try:
        client.delete_configuration(config.name, match=config.etag)
    except NotFoundError:
        return
    except ChangedError as error:
        message = f"somebody changed configuration {config.name!r} a moment ago"
        raise ConflictError(message, hint="observe the target again and decide anew") from error


def refuse_impostor(seen: Seen, revision: Revision) -> None:
    """Refuse another content under an id that the target has."""
    found = seen.find(revision.id)
    if found is not None and found.spec != names.short(spec(revision)):
        message = f"target {seen.target!r} has another revision {revision.id!r}"
        raise ConflictError(message, hint="an id stands for one content; use Revision.of")
