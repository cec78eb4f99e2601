"""What tickets ask for, step by step: each advance looks, does at most the next thing, and may be repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import spec
from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.iotedge import manifest, names
from modeldeploy.backends.iotedge.client import Client
from modeldeploy.backends.iotedge.described import Config, Seen
from modeldeploy.backends.iotedge.devices import Fleet, first
from modeldeploy.backends.iotedge.errors import AlreadyThereError, ChangedError
from modeldeploy.backends.iotedge.manifest import Defaults
from modeldeploy.backends.iotedge.pace import Pace
from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import WHOLE, Revision, Traffic
from modeldeploy.values.ticket import Ticket

START, PLACES, MAKE, SHIFT, TOLD, GONE, UNPLACE = "start", "places", "make", "shift", "told", "gone", "unplace"
_SLICE = 25
"""Twins that are written in one advance."""


@attrs.frozen
class Tools:
    """What every change needs."""

    client: Client
    defaults: Defaults
    fleet: Fleet
    pace: Pace

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

    def _place(self, then: Step) -> Ticket:
        """Write down the places of devices that have none yet, a few at a time, and go on when all have one."""
        missing = first(self._tools.fleet.placeless(self.target), _SLICE)
        for device, at in missing:
            self._tools.fleet.write_place(device, self.target, at)
        if missing:
            return attrs.evolve(self.ticket, note=f"gives {len(missing)} devices their places", poll_after=0.0)
        return moved(self.ticket, then)

    def _await_devices(self, seen: Seen) -> Ticket:
        """Go on when every device that can be reached has answered."""
        devices = self._tools.fleet.read(seen, time.time())
        if rings.outstanding(devices):
            answered = sum(device.answered for device in devices)
            waits = waiting(self.ticket, self._tools.pace.poll(), rings.summary(devices))
            return attrs.evolve(waits, fraction=answered / len(devices))
        return attrs.evolve(self.ticket.done(), note=rings.summary(devices))


class PutRevision(Change):
    """Bring a revision to a target: one configuration, which no device matches; the first one is for all."""

    def __init__(self, tools: Tools, ticket: Ticket) -> None:
        super().__init__(tools, ticket)
        self._revision = from_json(Revision, ticket.wanted["revision"])

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, PLACES: self._places, MAKE: self._make, TOLD: self._told}

    def _start(self, _step: Step) -> Ticket:
        seen = self._tools.seen(self.target)
        if seen is not None and self._own(seen) is not None:
            return moved(self.ticket, Step(TOLD))
        return moved(self.ticket, Step(PLACES))

    def _places(self, _step: Step) -> Ticket:
        return self._place(Step(MAKE))

    def _own(self, seen: Seen) -> Config | None:
        refuse_impostor(seen, self._revision)
        return seen.find(self._revision.id)

    def _make(self, _step: Step) -> Ticket:
        seen = self._tools.seen(self.target)
        if seen is None or self._own(seen) is None:
            self._put(seen)
        return moved(self.ticket, Step(TOLD), note="the deployment is stored")

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

    def _told(self, _step: Step) -> Ticket:
        seen = self._tools.seen(self.target)
        if seen is None or self._own(seen) is None:
            return self.ticket.failed(f"revision {self._revision.id!r} is not there any more")
        if seen.traffic.share(self._revision.id):
            return self._await_devices(seen)
        return self.ticket.done()


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
        return {START: self._start, PLACES: self._places, SHIFT: self._shift, TOLD: self._told}

    def _start(self, _step: Step) -> Ticket:
        seen = self._seen()
        now = seen.ranked
        if not self._left(seen):
            return moved(self.ticket, Step(PLACES, json.dumps(now)))
        if self._expect is not None and self._expect != seen.version:
            message = f"target {self.target!r} is at version {seen.version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")
        return moved(self.ticket, Step(PLACES, json.dumps(now)))

    def _places(self, step: Step) -> Ticket:
        return self._place(Step(SHIFT, step.about))

    def _seen(self) -> Seen:
        seen = self._tools.existing(self.target)
        refuse_table(seen, self._table)
        return seen

    def _left(self, seen: Seen) -> list[tuple[str, int]]:
        return rings.walk(seen.ranked, rings.bounds(seen.ranked, self._table))

    def _shift(self, step: Step) -> Ticket:
        seen = self._seen()
        left = self._left(seen)
        if not left:
            return moved(self.ticket, Step(TOLD), note="the table is published")
        rings.refuse_others(self.target, json.loads(step.about), seen.ranked, self._table)
        revision, bound = left[0]
        self._aim(seen, revision, bound)
        return attrs.evolve(self.ticket, note=f"{revision} is for the places below {bound}", poll_after=0.0)

    def _aim(self, seen: Seen, revision: str, bound: int) -> None:
        config = seen.find(revision)
        if config is not None:
            document = config.aimed(self._tools.defaults.devices, self.target, bound)
            self._tools.client.put_configuration(document, match=config.etag)

    def _told(self, _step: Step) -> Ticket:
        seen = self._seen()
        if self._left(seen):
            return self.ticket.failed(f"the table is {seen.traffic.live}: somebody else changed it")
        return self._await_devices(seen)


class DropRevision(Change):
    """Delete the configuration of a revision that no device is told to run."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, GONE: self._start}

    def _start(self, _step: Step) -> Ticket:
        seen, revision = self._tools.seen(self.target), str(self.ticket.wanted["revision"])
        config = seen.find(revision) if seen else None
        if seen is None or config is None:
            return self.ticket.done()
        refuse_used(seen, revision)
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
        return attrs.evolve(self.ticket, note="deletes the deployments", poll_after=0.0)

    def _unplace(self, _step: Step) -> Ticket:
        devices = [name for name, _ in zip(self._tools.fleet.placed(self.target), range(_SLICE), strict=False)]
        for device in devices:
            self._tools.fleet.write_place(device, self.target, None)
        return attrs.evolve(self.ticket, note="takes the places away", poll_after=0.0) if devices else self.ticket.done()


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


def refuse_used(seen: Seen, revision: str) -> None:
    """Refuse to drop a revision that devices are told to run."""
    share = seen.traffic.share(revision)
    if share:
        message = f"revision {revision!r} of {seen.target!r} is for {share} % of the devices"
        raise ConflictError(message, hint="give its devices to another revision first")


def refuse_table(seen: Seen, table: Traffic) -> None:
    """Refuse a table that this target cannot hold, before anything is sent."""
    unknown = sorted({*table.weights} - set(seen.ranked))
    if unknown:
        message = f"target {seen.target!r} has no revisions {unknown}"
        raise NotFoundError(message, hint=f"it has {sorted(seen.ranked)}", context={"backend": "iotedge"})
