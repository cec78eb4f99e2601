"""The conformance suite of backends that put models on devices: subclass ``EdgeConformance`` and ``EdgeRolloutConformance``.

Their ``harness`` is an ``EdgeHarness``, which has devices: real ones, or the stand-ins of ``modeldeploy.testing.devices``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import attrs
import pytest

from modeldeploy.engine.record import Kind, Verb
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import NotFoundError
from modeldeploy.spi import Edge
from modeldeploy.testing import scenarios
from modeldeploy.testing.devices import Behaviour
from modeldeploy.testing.driving import Stage, Word
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollable import NOWHERE, RollableConformance
from modeldeploy.testing.rollouts import RolloutConformance
from modeldeploy.testing.scenarios import SCENARIOS, STEPS, Scenario
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import WHOLE, EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Phase

_ALL_OFF = frozenset(range(6))
_FIRST_OFF = frozenset({0, 4})


def _nobody(_target: str) -> None:
    """Be a fleet without devices."""


@attrs.define
class EdgeHarness(Harness):
    """A backend for devices, and devices: six of every target at the places 3, 7, 30, 45, 80 and 95.

    They refuse ``broken``, as far as ``behave`` says.
    """

    act: Callable[[str], None] = _nobody
    """Lets every device of a target look and act once; called at every beat."""
    behave: Callable[[Behaviour], None] = lambda _behaviour: None
    """Says what is wrong with the devices from now on."""

    def __attrs_post_init__(self) -> None:
        self.send = lambda target, _keys: self.act(target)

    @property
    def edge(self) -> Edge:
        """The backend, as one that has devices."""
        return cast("Edge", self.backend)

    def devices(self, spec: EndpointSpec) -> dict[str, Device]:
        """Let the devices act and read them, by their ids."""
        self.act(spec.name)
        return {device.id: device for device in self.edge.devices(spec.name)}


class EdgeConformance(RollableConformance):
    """The rules of the service provider interface for targets that are fleets of devices."""

    def test_it_declares_that_it_has_devices(self, harness: EdgeHarness) -> None:
        """Whoever asks for a target looks at this first."""
        assert harness.backend.capabilities.edge
        assert isinstance(harness.backend, Edge)

    def test_an_unknown_target_has_no_devices_that_could_be_read(self, harness: EdgeHarness) -> None:
        """None at all is another answer than nobody there."""
        with pytest.raises(NotFoundError):
            list(harness.edge.devices(NOWHERE))

    def test_a_target_without_devices_is_no_mistake(self, harness: EdgeHarness) -> None:
        """Devices may come later; nothing waits for them."""
        spec = harness.deploy(*harness.revisions[:2])
        assert list(harness.edge.devices(spec.name)) == []
        harness.route(spec, Traffic.all_to(harness.revisions[1].id))

    def test_devices_run_the_first_revision(self, harness: EdgeHarness) -> None:
        """All of them are given it, as an endpoint gives its first revision all traffic."""
        first = harness.revisions[0]
        found = harness.devices(harness.deploy(first))
        assert found
        for device in found.values():
            assert (device.revision, device.wanted, device.health) == (first.id, first.id, DeviceHealth.OK)
            assert 0 <= device.ring < WHOLE
            assert device.seen is not None

    def test_a_later_revision_is_told_to_no_device(self, harness: EdgeHarness) -> None:
        """A release that is stored is one that nobody wants yet."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        harness.devices(spec)
        harness.succeed(harness.backend.put_revision(spec, second))
        assert {(each.revision, each.wanted) for each in harness.devices(spec).values()} == {(first.id, first.id)}

    def test_whoever_has_a_revision_keeps_it_while_its_share_grows(self, harness: EdgeHarness) -> None:
        """A device's place never changes, and a ring holds all smaller ones."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        places = {name: device.ring for name, device in harness.devices(spec).items()}
        have: set[str] = set()
        for share in (5, 10, 35, 50, WHOLE):
            harness.route(
                spec, Traffic({first.id: WHOLE - share, second.id: share} if share < WHOLE else {second.id: share})
            )
            found = harness.devices(spec)
            new = {name for name, device in found.items() if device.revision == second.id}
            assert new >= have, "a device was taken back while the share grew"
            assert new == {name for name, device in found.items() if device.ring < share}
            assert {name: device.ring for name, device in found.items()} == places
            have = new

    def test_a_device_that_cannot_be_reached_blocks_nothing_and_catches_up(self, harness: EdgeHarness) -> None:
        """It goes on with what it has, is shown as offline, and runs what is wanted when it is back."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        harness.devices(spec)
        harness.behave(Behaviour(offline=_FIRST_OFF))
        assert harness.wait(lambda: _counted(harness.devices(spec), DeviceHealth.OFFLINE) == len(_FIRST_OFF))
        harness.route(spec, Traffic.all_to(second.id))
        off = [each for each in harness.devices(spec).values() if each.health is DeviceHealth.OFFLINE]
        assert [(each.revision, each.wanted) for each in off] == [(first.id, second.id)] * len(_FIRST_OFF)
        harness.behave(Behaviour())
        assert {each.revision for each in harness.devices(spec).values()} == {second.id}
        assert _counted(harness.devices(spec), DeviceHealth.OK) == len(_ALL_OFF)

    def test_a_device_that_refuses_a_revision_has_answered_and_keeps_the_old_one(self, harness: EdgeHarness) -> None:
        """A failed self-test is an answer; taking the revision back makes the device well again."""
        first, broken = harness.revisions[0], _broken(harness)
        spec = harness.deploy(first, broken)
        harness.devices(spec)
        ticket = harness.backend.advance(harness.backend.set_traffic(spec.name, Traffic({first.id: 90, broken.id: 10})))
        found = harness.devices(spec)
        failed = [each for each in found.values() if each.health is DeviceHealth.FAILED]
        assert [(each.revision, each.wanted) for each in failed] == [(first.id, broken.id)] * 2
        assert all(each.note for each in failed), "nobody says why"
        harness.succeed(ticket)
        harness.route(spec, Traffic.all_to(first.id))
        assert _counted(harness.devices(spec), DeviceHealth.OK) == len(_ALL_OFF)

    def test_a_change_waits_for_the_devices_that_can_be_reached(self, harness: EdgeHarness) -> None:
        """Success is what they say, not what was published."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        harness.devices(spec)
        ticket = harness.backend.set_traffic(spec.name, Traffic.all_to(second.id))
        for _look in range(2):
            ticket = harness.backend.advance(ticket)
        assert ticket.phase is Phase.RUNNING, "nobody has answered yet"
        assert _counted({each.id: each for each in harness.edge.devices(spec.name)}, DeviceHealth.PENDING) == len(
            _ALL_OFF
        )
        harness.devices(spec)
        harness.succeed(ticket)

    def test_devices_go_through_json(self, harness: EdgeHarness) -> None:
        """They are shown in other processes."""
        found = harness.devices(harness.deploy(harness.revisions[0]))
        assert all(from_json(Device, to_json(device)) == device for device in found.values())


def _counted(devices: dict[str, Device], health: DeviceHealth) -> int:
    return sum(device.health is health for device in devices.values())


def _broken(harness: Harness) -> Revision:
    if harness.broken is None:
        pytest.skip("Harness(broken=...) is needed to see a device refuse it")
    return harness.broken


# What the engine does to a fleet


def rings(*, steps: tuple[int, ...] = STEPS, blind: float = 20, **options: Any) -> scenarios.Policy:
    """Reach ten and fifty percent of the devices, then all."""

    def policy(beat: float) -> RolloutPolicy:
        made = RolloutPolicy.rings(steps, **{"soak": beat, "patience": 4 * beat, "interval": beat, **options})
        return attrs.evolve(made, blind_limit=blind * beat)

    return policy


def ringing(
    policy: scenarios.Policy,
    *,
    broken: bool = False,
    behaviour: Behaviour | None = None,
    also: Callable[[Stage], object] = lambda _stage: None,
) -> Callable[[Stage], None]:
    """Roll a revision out to devices that run the first one; they behave so from then on."""

    def begin(stage: Stage) -> None:
        harness = cast("EdgeHarness", stage.harness)
        harness.behave(Behaviour())
        scenarios.serve(stage, harness.revisions[0])
        harness.act(stage.spec.name)
        _behaving(behaviour or Behaviour())(stage)
        revision = harness.broken if broken else harness.revisions[1]
        assert revision is not None
        stage.begin(Kind.ROLLOUT, RolloutCursor(stage.spec, revision, policy(harness.beat)))
        also(stage)

    return begin


def first_of_all(*, broken: bool = False, on_failure: str = "halt") -> Callable[[Stage], None]:
    """Put a first revision on devices that run nothing yet."""

    def begin(stage: Stage) -> None:
        _behaving(Behaviour())(stage)
        revision = stage.harness.broken if broken else stage.harness.revisions[0]
        assert revision is not None
        policy = rings(on_failure=on_failure)(stage.harness.beat)
        stage.begin(Kind.ROLLOUT, RolloutCursor(stage.spec, revision, policy))

    return begin


def _behaving(behaviour: Behaviour) -> Callable[[Stage], None]:
    return lambda stage: cast("EdgeHarness", stage.harness).behave(behaviour)


def _reset(scenario: Scenario) -> Scenario:
    """Let a scenario of endpoints begin with devices that are well."""

    def begin(stage: Stage) -> None:
        _behaving(Behaviour())(stage)
        scenario.begin(stage)

    return attrs.evolve(scenario, begin=begin)


_SHARED = (
    "deploy",
    "all_at_once",
    "canary",
    "paused",
    "meddled_with",
    "provider_refuses",
    "provider_refuses_holds",
    "no_room",
    "roll_back",
    "roll_back_cold",
    "delete",
)
_SPLIT, _BROKEN = frozenset({"split"}), frozenset({"split", "broken"})
_UP, _BACK = ("10", "50", "100"), ("10", "0")
_WELL = _behaving(Behaviour(well=True))
_DONE, _FAILED, _CANCELLED = Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED

EDGE_SCENARIOS: tuple[Scenario, ...] = (
    *(_reset(each) for each in SCENARIOS if each.name in _SHARED),
    Scenario("rings", ringing(rings()), _DONE, _UP, _SPLIT),
    Scenario("rings_halt", ringing(rings(), broken=True), _CANCELLED, _BACK, _BROKEN, (Word(Verb.ABORT),)),
    Scenario("rings_go_back", ringing(rings(on_failure="rollback"), broken=True), _FAILED, _BACK, _BROKEN),
    Scenario("rings_look_again", ringing(rings(), broken=True), _DONE, _UP, _BROKEN, (Word(Verb.RESUME), Word(Verb.RESUME, _WELL))),
    Scenario("rings_are_forced", ringing(rings(), broken=True), _DONE, ("10", "100"), _BROKEN, (Word(Verb.PROMOTE),)),
    Scenario(
        "rings_tolerate",
        ringing(rings(max_failed=1), broken=True, behaviour=Behaviour(failing=frozenset({1}))),
        _DONE,
        _UP,
        _BROKEN,
    ),
    Scenario(
        "rings_fail_late",
        ringing(rings(on_failure="rollback"), broken=True, behaviour=Behaviour(failing=frozenset({3}))),
        _FAILED,
        ("10", "50", "0"),
        _BROKEN,
    ),
    Scenario("rings_are_raised", ringing(rings(min_devices=3)), _DONE, ("31", "50", "100"), _SPLIT),
    Scenario("rings_of_whom_some_are_off", ringing(rings(), behaviour=Behaviour(offline=frozenset({2, 5}))), _DONE, _UP, _SPLIT),
    Scenario(
        "rings_of_whom_nobody_answers",
        ringing(rings(), behaviour=Behaviour(offline=_ALL_OFF)),
        _DONE,
        _UP,
        _SPLIT,
        (Word(Verb.RESUME), Word(Verb.RESUME, _behaving(Behaviour()))),
    ),
    Scenario(
        "rings_that_nobody_sees",
        ringing(rings(blind=2), also=lambda stage: setattr(stage.watched, "dark", (0.6 * stage.harness.beat, math.inf))),
        _CANCELLED,
        _BACK,
        _SPLIT,
        (Word(Verb.ABORT),),
    ),
    Scenario("deploy_rings", first_of_all(), _DONE, ("100",)),
    Scenario("deploy_rings_halt", first_of_all(broken=True), _CANCELLED, ("100",), frozenset({"broken"}), (Word(Verb.ABORT),)),
    Scenario("deploy_rings_go_back", first_of_all(broken=True, on_failure="rollback"), _FAILED, ("100",), frozenset({"broken"})),
)  # fmt: skip


class EdgeRolloutConformance(RolloutConformance):
    """Every scenario of a fleet: rings that pass, halt, go back, are raised; with faults, and stopped before every effect."""

    scenarios: ClassVar[tuple[Scenario, ...]] = EDGE_SCENARIOS
