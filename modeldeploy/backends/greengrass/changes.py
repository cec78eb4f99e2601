"""What tickets ask for, step by step: each advance looks, does at most the next thing, and may be repeated."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping

import attrs

from modeldeploy.backends.cloud import rings
from modeldeploy.backends.cloud.naming import spec
from modeldeploy.backends.cloud.steps import Step, moved, waiting
from modeldeploy.backends.greengrass import names
from modeldeploy.backends.greengrass.described import NOTHING, Group, Seen
from modeldeploy.backends.greengrass.provider import Provider
from modeldeploy.backends.greengrass.storage import Position
from modeldeploy.errors import ConflictError
from modeldeploy.values.codec import from_json
from modeldeploy.values.edge import DeviceHealth
from modeldeploy.values.serving import WHOLE, Revision, Traffic
from modeldeploy.values.ticket import Ticket

START, SHIP, COMPONENT, CHECK, GROUP, SHIFT, REACH, TOLD, SWEEP = (
    "start", "ship", "component", "check", "group", "shift", "reach", "told", "sweep",
)  # fmt: skip
_SLICE = 20
"""Devices that are moved in one advance."""


class Change:
    """A ticket and the step that it is at."""

    def __init__(self, provider: Provider, ticket: Ticket) -> None:
        self._provider = provider
        self.ticket = ticket
        self.target = ticket.target

    def advance(self) -> Ticket:
        """Do the next step."""
        step = Step.of(self.ticket)
        return self._steps()[step.name](step)

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        raise NotImplementedError

    def _again(self, note: str) -> Ticket:
        return attrs.evolve(self.ticket, note=note, poll_after=0.0)

    def _reach(self, _step: Step) -> Ticket:
        """Move devices into the groups where they belong, a few at a time, then deploy to the groups that gained some."""
        seen = self._provider.existing(self.target)
        moves = list(itertools.islice(self._provider.fleet.moves(seen), _SLICE))
        for move in moves:
            self._provider.fleet.move(move)
        if len(moves) == _SLICE:
            return moved(self.ticket, Step(REACH), note=f"moved {len(moves)} devices")
        for group in seen.groups:
            if group.owed != NOTHING:
                self._provider.deploy(group)
        return moved(self.ticket, Step(TOLD, at=self._provider.clock()), note="the devices are told")

    def _await_devices(self, seen: Seen, since: float) -> Ticket:
        """Go on when every device that can be reached has answered, or has had its time."""
        now = self._provider.clock()
        devices = self._provider.fleet.read(seen, now)
        if not rings.outstanding(devices) or now >= since + self._provider.pace.settle:
            return self._done()
        answered = sum(device.answered for device in devices)
        waits = waiting(self.ticket, self._provider.pace.poll(), rings.summary(devices))
        return attrs.evolve(waits, fraction=answered / len(devices))

    def _done(self) -> Ticket:
        return attrs.evolve(self.ticket, note="").done()


class PutRevision(Change):
    """Bring a revision to a target: archive, component, and a group without devices; the first one is for all."""

    def __init__(self, provider: Provider, ticket: Ticket) -> None:
        super().__init__(provider, ticket)
        self._revision = from_json(Revision, ticket.wanted["revision"])

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {
            START: self._start,
            SHIP: self._ship,
            COMPONENT: self._component,
            CHECK: self._check,
            GROUP: self._group,
            REACH: self._reach,
            TOLD: self._told,
        }

    def _start(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.target)
        if seen is not None and self._own(seen) is not None:
            return self._after_group(seen)
        there = self._provider.component(self.target, self._revision) is not None
        return moved(self.ticket, Step(CHECK if there else SHIP), note="sends the model")

    def _own(self, seen: Seen) -> Group | None:
        refuse_impostor(seen, self._revision)
        return seen.find(self._revision.id)

    def _ship(self, step: Step) -> Ticket:
        position = self._provider.ship(self.target, self._revision, Position.load(step.about))
        if position.done:
            return moved(self.ticket, Step(COMPONENT), note="the model is sent")
        return moved(self.ticket, Step(SHIP, position.dump()), note=f"sent {len(position.etags)} parts of the model")

    def _component(self, _step: Step) -> Ticket:
        self._provider.make_component(self.target, self._revision)
        return moved(self.ticket, Step(CHECK), note="made the component")

    def _check(self, _step: Step) -> Ticket:
        found = self._provider.component(self.target, self._revision)
        if found is None:
            return moved(self.ticket, Step(SHIP), note="the component is not there any more")
        state = found["status"]["componentState"]
        if state == "DEPLOYABLE":
            return moved(self.ticket, Step(GROUP))
        if state == "FAILED":
            # A version never changes, so whoever tries again needs this one to be gone.
            self._provider.delete_components(self.target, self._revision.id)
            return self.ticket.failed(
                f"Greengrass refuses the component: {found['status'].get('message', 'no reason given')}"
            )
        return waiting(self.ticket, self._provider.pace.poll(), f"Greengrass checks the component ({state})")

    def _group(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.target)
        if seen is None or self._own(seen) is None:
            self._provider.put_record(self.target, self._revision)
            order = max((group.order for group in seen.groups), default=0) + 1 if seen else 1
            self._provider.make_group(self.target, self._revision, bound=0 if seen else WHOLE, order=order)
        seen = self._provider.existing(self.target)
        if self._own(seen) is None:
            return waiting(self.ticket, self._provider.pace.poll(), "the group of its devices is not shown yet")
        return self._after_group(seen)

    def _after_group(self, seen: Seen) -> Ticket:
        group = seen.find(self._revision.id)
        owed = group is not None and group.owed != NOTHING
        return moved(
            self.ticket, Step(REACH if owed else TOLD, at=self._provider.clock()), note="the revision is stored"
        )

    def _told(self, step: Step) -> Ticket:
        seen = self._provider.seen(self.target)
        if seen is None or self._own(seen) is None:
            return self.ticket.failed(f"revision {self._revision.id!r} is not there any more")
        return self._await_devices(seen, step.at) if seen.traffic.share(self._revision.id) else self._done()


class SetTraffic(Change):
    """Bring a table to a target: the bounds of its groups, then the devices into them, then a deployment to those that gained some."""

    def __init__(self, provider: Provider, ticket: Ticket) -> None:
        super().__init__(provider, ticket)
        self._table = from_json(Traffic, ticket.wanted["traffic"])
        self._expect: str | None = ticket.wanted.get("expect")

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, SHIFT: self._shift, REACH: self._reach, TOLD: self._told}

    def _start(self, step: Step) -> Ticket:
        seen = self._seen()
        left = self._left(seen)
        if left and self._expect is not None and self._expect != seen.version:
            message = f"target {self.target!r} is at version {seen.version!r}, not {self._expect!r}"
            raise ConflictError(message, hint="observe it again and decide anew")
        if not left:
            self._ask_again(seen)
        if len(left) > 1:
            # More than one request: what was there is written down first, so that whoever goes on knows the way.
            return moved(self.ticket, Step(SHIFT, json.dumps(seen.ranked)))
        return self._go(step, seen, left)

    def _seen(self) -> Seen:
        seen = self._provider.existing(self.target)
        rings.refuse_table(seen.target, seen.ranked, self._table, backend="greengrass")
        return seen

    def _left(self, seen: Seen) -> list[tuple[str, int]]:
        return rings.walk(seen.ranked, rings.bounds(seen.ranked, self._table))

    def _shift(self, step: Step) -> Ticket:
        seen = self._seen()
        rings.refuse_others(self.target, json.loads(step.about), seen.ranked, self._table)
        return self._go(step, seen, self._left(seen))

    def _go(self, step: Step, seen: Seen, left: list[tuple[str, int]]) -> Ticket:
        if left:
            seen = self._owe(seen)
            revision, bound = left[0]
            group = seen.find(revision)
            if group is not None:
                self._provider.aim(group, bound)
        return self._again("publishes the table") if len(left) > 1 else self._reach(step)

    def _ask_again(self, seen: Seen) -> None:
        """Let devices that said no to what is wanted of them try once more, by another deployment to their group."""
        devices = self._provider.fleet.read(seen, self._provider.clock())
        refused = {device.wanted for device in devices if device.health is DeviceHealth.FAILED}
        for group in seen.groups:
            if group.revision in refused and group.owed == NOTHING:
                self._provider.owe(group)

    def _owe(self, seen: Seen) -> Seen:
        """Note on the groups that will gain devices that these must be deployed to, before any device can move."""
        gained = rings.gained(seen.ranked, rings.bounds(seen.ranked, self._table))
        owing = [group for group in seen.groups if group.revision in gained and group.owed == NOTHING]
        for group in owing:
            self._provider.owe(group)
        return self._seen() if owing else seen

    def _told(self, step: Step) -> Ticket:
        seen = self._seen()
        if self._left(seen):
            return self.ticket.failed(f"the table is {seen.traffic.live}: somebody else changed it")
        return self._await_devices(seen, step.at)


class DropRevision(Change):
    """Delete what a revision has in the account, when no device is to run it."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, SWEEP: self._sweep}

    def _start(self, _step: Step) -> Ticket:
        seen, revision = self._provider.seen(self.target), str(self.ticket.wanted["revision"])
        group = seen.find(revision) if seen else None
        if seen is not None and group is not None:
            rings.refuse_used(seen.target, seen.traffic, revision)
            self._provider.drop_group(group)
        return moved(self.ticket, Step(SWEEP), note="its deployments are deleted")

    def _sweep(self, _step: Step) -> Ticket:
        revision = str(self.ticket.wanted["revision"])
        seen = self._provider.seen(self.target)
        if seen is not None and seen.find(revision) is not None:
            return moved(self.ticket, Step(START))
        self._provider.delete_components(self.target, revision)
        self._provider.storage.sweep(names.place(self.target, revision))
        return self._done()


class DropTarget(Change):
    """Delete all that a target has in the account; the devices keep what they run."""

    def _steps(self) -> Mapping[str, Callable[[Step], Ticket]]:
        return {START: self._start, SWEEP: self._sweep}

    def _start(self, _step: Step) -> Ticket:
        seen = self._provider.seen(self.target)
        if seen is None:
            return moved(self.ticket, Step(SWEEP))
        self._provider.drop_group(seen.groups[-1])
        return self._again("deletes the deployments")

    def _sweep(self, _step: Step) -> Ticket:
        self._provider.delete_components(self.target)
        self._provider.storage.sweep(names.place(self.target))
        return self._done()


def refuse_impostor(seen: Seen, revision: Revision) -> None:
    """Refuse another content under an id that the target has."""
    found = seen.find(revision.id)
    if found is not None and found.spec != spec(revision):
        message = f"target {seen.target!r} has another revision {revision.id!r}"
        raise ConflictError(message, hint="an id stands for one content; use Revision.of")
