"""Devices, rings, and how far a step is raised so that its ring can vote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.edge import Device, DeviceHealth, Ring, raised, rings

healths = st.sampled_from(DeviceHealth)
places = st.integers(0, 99)
fleets = st.lists(st.tuples(places, healths), max_size=60).map(
    lambda pairs: [device(place, health, number) for number, (place, health) in enumerate(pairs)]
)
walks = st.sets(st.integers(1, 99), max_size=4).map(lambda steps: (*sorted(steps), 100))


def device(place, health=DeviceHealth.OK, number=0):
    return Device(f"d-{number}", place, "old", "new", health)


def reachable(fleet, percent):
    return sum(each.ring < percent and each.health is not DeviceHealth.OFFLINE for each in fleet)


@given(fleet=fleets, walk=walks)
def test_every_device_is_in_exactly_one_ring(fleet, walk):
    found = rings(fleet, walk)
    assert [ring.percent for ring in found] == list(walk)
    assert sum(ring.devices for ring in found) == len(fleet)
    assert all(ring.ok + ring.failed + ring.offline + ring.pending == ring.devices for ring in found)


@given(fleet=fleets, walk=walks, least=st.integers(1, 9))
def test_a_raised_step_holds_enough_devices_or_all(fleet, walk, least):
    steps, enough = raised(walk, fleet, least), min(least, reachable(fleet, 100))
    assert steps[-1] == 100
    assert list(steps) == sorted(set(steps))
    assert all(reachable(fleet, step) >= enough for step in steps)


@given(fleet=fleets, walk=walks, least=st.integers(1, 9))
def test_a_step_is_raised_no_further_than_it_must(fleet, walk, least):
    enough = min(least, reachable(fleet, 100))
    for step in set(raised(walk, fleet, least)) - set(walk):
        assert reachable(fleet, step) >= enough > reachable(fleet, step - 1)


@given(walk=walks, least=st.integers(1, 9))
def test_where_nobody_can_be_reached_the_steps_stay(walk, least):
    fleet = [device(place, DeviceHealth.OFFLINE) for place in (1, 50, 99)]
    assert raised(walk, fleet, least) == walk


@given(fleet=fleets, walk=walks)
def test_without_a_least_number_nothing_is_raised(fleet, walk):
    assert raised(walk, fleet, 0) == walk


@pytest.mark.parametrize(
    ("health", "answered"),
    [
        (DeviceHealth.OK, True),
        (DeviceHealth.FAILED, True),
        (DeviceHealth.OFFLINE, False),
        (DeviceHealth.PENDING, False),
    ],
)
def test_only_a_yes_or_a_no_is_an_answer(health, answered):
    one = device(3, health)
    assert one.answered is answered
    assert Ring.of(10, [one]).answered == answered


def test_devices_are_stored_as_plain_data():
    one = Device("d", 5, None, "new", DeviceHealth.FAILED, seen=1.5, note="row 0 differs", sequence=7)
    assert from_json(Device, to_json(one)) == one
