"""What devices decide: the vote of a ring, and what the flow makes of it on a provider in memory that has devices."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.backends.memory import EVERYTHING, MemoryBackend
from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import Kind, Record, Verb
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.engine.rings import judge
from modeldeploy.engine.rollout import RolloutCursor, RolloutFlow
from modeldeploy.errors import AccessDeniedError, UnavailableError
from modeldeploy.testing.clock import VirtualClock
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.gate import Verdict
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec
from modeldeploy.values.ticket import Phase

OK, FAILED, OFFLINE, PENDING = DeviceHealth.OK, DeviceHealth.FAILED, DeviceHealth.OFFLINE, DeviceHealth.PENDING
SPEC = EndpointSpec("cameras")
PLACES = (3, 7, 30, 45, 80, 95)


def ring(*healths, others=0):
    concerned = [
        Device(f"d-{number}", number, "old", "new", health, note="it said why") for number, health in enumerate(healths)
    ]
    return [*concerned, *(Device(f"o-{number}", 90, "old", "old", OK) for number in range(others))]


@pytest.mark.parametrize(
    ("devices", "verdict"),
    [
        (ring(OK, OK), Verdict.PASS),
        (ring(OK, FAILED), Verdict.FAIL),
        (ring(OK, PENDING), Verdict.INCONCLUSIVE),
        (ring(OK, OK, OFFLINE), Verdict.PASS),
        (ring(OK, OFFLINE), Verdict.INCONCLUSIVE),
        (ring(OK), Verdict.PASS),
        (ring(OK, others=1), Verdict.INCONCLUSIVE),
        (ring(), Verdict.PASS),
        (ring(OFFLINE, OFFLINE), Verdict.INCONCLUSIVE),
    ],
    ids=[
        "well",
        "refused",
        "outstanding",
        "one-off",
        "too-few",
        "all-there-are",
        "too-few-of-all",
        "nobody",
        "all-off",
    ],
)
def test_a_ring_votes(devices, verdict):
    result = judge(devices, "new", RolloutPolicy.rings(min_devices=2), 10)
    assert result.verdict is verdict
    assert result.reason


def test_a_failure_names_devices_and_what_they_say():
    result = judge(ring(*[FAILED] * 5), "new", RolloutPolicy.rings(), 10)
    assert result.reason.startswith("5 of 5 devices with a share of 10 % failed (d-0: it said why; d-1")
    assert "and 2 more" in result.reason
    assert (result.bad, result.sample) == (5, 5)


healths = st.lists(st.sampled_from(DeviceHealth), max_size=12)


@given(healths=healths, least=st.integers(1, 5), most=st.integers(0, 3))
def test_no_ring_passes_with_more_failures_than_may_be(healths, least, most):
    policy = RolloutPolicy.rings(min_devices=least, max_failed=most)
    result = judge(ring(*healths), "new", policy, 10)
    failed = healths.count(FAILED)
    assert (result.verdict is Verdict.FAIL) == (failed > most)
    if result.verdict is Verdict.PASS:
        assert PENDING not in healths
        assert healths.count(OK) + failed >= min(least, len(healths))


@given(healths=healths, least=st.integers(1, 5))
def test_what_is_off_never_makes_a_ring_fail(healths, least):
    policy = RolloutPolicy.rings(min_devices=least)
    with_off = judge(ring(*healths, OFFLINE), "new", policy, 10).verdict
    assert (with_off is Verdict.FAIL) == (judge(ring(*healths), "new", policy, 10).verdict is Verdict.FAIL)


# ---------------------------------------------------------------- in the flow


class Fleet(MemoryBackend):
    """A provider in memory whose devices follow at once, and say no where they are told to."""

    def __init__(self, **options):
        super().__init__(capabilities=attrs.evolve(EVERYTHING, edge=True), **options)
        self.says = {}
        self.error = None

    def devices(self, target):
        if self.error is not None:
            raise self.error
        live = self.observe(target).traffic.live
        return [self._device(place, live) for place in PLACES]

    def _device(self, place, live):
        # The newest revision has the lowest places.
        at, wanted = 0, None
        for revision in sorted(live, reverse=True):
            at += live[revision]
            wanted = wanted or (revision if place < at else None)
        health = self.says.get(wanted, OK)
        return Device(
            f"d-{place}",
            place,
            wanted if health is OK else "old",
            wanted,
            health,
            note="no" if health is FAILED else "",
        )


class Scene:
    def __init__(self, policy, first, second):
        self.clock = VirtualClock()
        self.backend = Fleet(clock=self.clock.now, steps=1)
        self.journal = Journal()
        self.first, self.second = first, second
        self.drives, self.emitted = 0, []
        ticket = self.backend.put_revision(SPEC, first)
        while not ticket.phase.ended:
            ticket = self.backend.advance(ticket)
        cursor = RolloutCursor(SPEC, second, policy)
        self.id = self.journal.create(Record("rollout-1", Kind.ROLLOUT, "memory", SPEC.name, to_json(cursor))).id

    def drive(self):
        self.drives += 1
        taken = self.journal.acquire(self.id, f"elsewhere-{self.drives}:1:x")
        world = World(taken, self.journal, clock=self.clock, sink=self.emitted.append)
        flow = RolloutFlow(self.backend, from_json(RolloutCursor, taken.cursor), None).run()
        try:
            run(retrying(flow, RetryPolicy(attempts=3)), world)
        finally:
            world.finish()
        return self.record

    @property
    def record(self):
        return self.journal.read(self.id)

    @property
    def live(self):
        return self.backend.observe(SPEC.name).traffic.live

    @property
    def cursor(self):
        return from_json(RolloutCursor, self.record.cursor)

    @property
    def steps(self):
        return [event.fields["percent"] for event in self.emitted if event.name.value == "rollout.step"]

    def tell(self, verb):
        self.journal.tell(self.id, verb, "a test says so")


@pytest.fixture
def scene(revision):
    def make(**options):
        policy = RolloutPolicy.rings((10, 50), **{"soak": 30, "interval": 5, "patience": 120, **options})
        return Scene(policy, revision("1.0.0"), revision("1.1.0"))

    return make


def test_rings_that_are_well_are_walked_through(scene):
    fleet = scene()
    began = fleet.clock.now()
    assert fleet.drive().phase is Phase.SUCCEEDED
    assert fleet.steps == [10, 50, 100]
    assert fleet.clock.now() - began >= 90, "each ring soaks, the last one too"
    assert fleet.live == {fleet.second.id: 100}


def test_a_failed_ring_pauses_with_the_verdict_and_the_reason(scene):
    fleet = scene()
    fleet.backend.says[fleet.second.id] = FAILED
    record = fleet.drive()
    assert record.paused
    assert record.outcome.startswith("paused: ring failed: devices: 2 of 2")
    assert fleet.cursor.verdict is Verdict.FAIL
    assert fleet.live == {fleet.second.id: 10, fleet.first.id: 90}


def test_a_driver_that_comes_later_does_not_let_a_halted_ring_go_on(scene):
    fleet = scene()
    fleet.backend.says[fleet.second.id] = FAILED
    fleet.drive()
    fleet.backend.says.clear()
    assert fleet.drive().paused, "only a user lets it go on"
    fleet.tell(Verb.RESUME)
    assert fleet.drive().phase is Phase.SUCCEEDED


def test_an_abort_takes_a_halted_ring_back(scene):
    fleet = scene()
    fleet.backend.says[fleet.second.id] = FAILED
    fleet.drive()
    fleet.tell(Verb.ABORT)
    assert fleet.drive().phase is Phase.CANCELLED
    assert fleet.live == {fleet.first.id: 100}


def test_rings_may_go_back_by_themselves(scene):
    fleet = scene(on_failure="rollback")
    fleet.backend.says[fleet.second.id] = FAILED
    assert fleet.drive().phase is Phase.FAILED
    assert fleet.live == {fleet.first.id: 100}
    assert [line.entry.what for line in fleet.journal.history(backend="memory", target=SPEC.name)] == ["aborted"]


def test_devices_that_do_not_answer_are_waited_for_with_patience(scene):
    fleet = scene()
    began = fleet.clock.now()
    fleet.backend.says[fleet.second.id] = PENDING
    record = fleet.drive()
    assert record.paused
    assert "not enough evidence" in record.outcome
    assert 120 <= fleet.clock.now() - began < 150
    assert fleet.cursor.verdict is Verdict.INCONCLUSIVE


def test_the_steps_are_raised_for_their_voters_and_what_was_asked_is_kept(scene):
    fleet = scene(min_devices=3)
    fleet.drive()
    assert fleet.steps == [31, 50, 100]
    assert fleet.cursor.asked.steps == (10, 50, 100)


def test_devices_that_cannot_be_read_halt_the_rollout_in_the_end(scene):
    fleet = scene()
    cursor = attrs.evolve(fleet.cursor, policy=attrs.evolve(fleet.cursor.policy, blind_limit=60))
    ready = fleet.backend.devices

    def lost(target):
        if len(fleet.steps):
            raise UnavailableError("the store is gone")
        return ready(target)

    fleet.backend.devices = lost
    fleet.id = fleet.journal.create(
        Record("rollout-2", Kind.ROLLOUT, "memory", SPEC.name, to_json(cursor)), supersede=fleet.id
    ).id
    record = fleet.drive()
    assert record.paused
    assert "could not be read for 60 s" in record.outcome
    assert fleet.live == {fleet.second.id: 10, fleet.first.id: 90}


def test_devices_that_nobody_may_read_end_the_rollout_before_a_device_is_told(scene):
    fleet = scene()
    fleet.backend.error = AccessDeniedError("no")
    record = fleet.drive()
    assert record.phase is Phase.FAILED
    assert "the devices cannot be read" in record.outcome
    assert fleet.live == {fleet.first.id: 100}


def test_a_fleet_without_devices_is_given_the_soak_to_show_some(scene):
    fleet = scene()
    fleet.backend.devices = lambda _target: []
    began = fleet.clock.now()
    assert fleet.drive().phase is Phase.SUCCEEDED
    assert fleet.clock.now() - began >= 90


def test_rings_end_at_once_where_there_are_no_devices(revision):
    fleet = Scene(RolloutPolicy.rings(), revision("1.0.0"), revision("1.1.0"))
    fleet.backend.capabilities = EVERYTHING
    record = fleet.drive()
    assert record.phase is Phase.FAILED
    assert "has no devices that could be asked" in record.outcome
