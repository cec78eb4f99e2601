"""Shares of devices as ranges of places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.backends.cloud import rings
from modeldeploy.errors import ConflictError
from modeldeploy.values.edge import Device, DeviceHealth
from modeldeploy.values.serving import WHOLE, Traffic

RANKED = ("v4", "v3", "v2", "v1")
CUTS = st.lists(st.integers(0, WHOLE), min_size=3, max_size=3).map(sorted)
TABLES = CUTS.map(
    lambda cuts: Traffic({name: high - low for name, low, high in zip(RANKED, [0, *cuts], [*cuts, WHOLE], strict=True)})
)


def covered(ranked: dict[str, int]) -> bool:
    return all(rings.wanted(ranked, place) for place in range(WHOLE))


@given(TABLES)
def test_a_table_is_read_back_from_its_bounds(table):
    assert rings.table(rings.bounds(RANKED, table)).same_as(table)


@given(TABLES)
def test_each_revision_is_wanted_by_as_many_places_as_its_share(table):
    ranked = rings.bounds(RANKED, table)
    found = [rings.wanted(ranked, place) for place in range(WHOLE)]
    assert {name: found.count(name) for name in set(found)} == table.live


@given(TABLES, TABLES)
def test_no_place_is_without_a_revision_on_the_way_from_one_table_to_another(before, after):
    """Between two requests a device must never find that nothing is meant for it."""
    ranked = rings.bounds(RANKED, before)
    for revision, bound in rings.walk(ranked, rings.bounds(RANKED, after)):
        ranked = {**ranked, revision: bound}
        assert covered(ranked)
    assert rings.table(ranked).same_as(after)


@given(st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_whoever_has_a_revision_keeps_it_when_its_share_grows(one, other):
    less, more = sorted((one, other))
    small, large = (rings.bounds(RANKED, Traffic({"v4": share, "v1": WHOLE - share})) for share in (less, more))
    had = {place for place in range(WHOLE) if rings.wanted(small, place) == "v4"}
    assert all(rings.wanted(large, place) == "v4" for place in had)


@given(st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_a_share_between_two_revisions_changes_by_one_request_at_most(one, other):
    """So that a rollback is one request, and no state in between can be seen."""
    small, large = (rings.bounds(RANKED, Traffic({"v2": share, "v1": WHOLE - share})) for share in (one, other))
    assert len([each for each in rings.walk(small, large) if each[0] in {"v2", "v1"}]) <= 1


@given(TABLES, TABLES)
def test_those_who_gain_are_those_who_have_places_that_they_had_not(before, after):
    old, new = rings.bounds(RANKED, before), rings.bounds(RANKED, after)
    gained = {
        rings.wanted(new, place) for place in range(WHOLE) if rings.wanted(new, place) != rings.wanted(old, place)
    }
    assert set(rings.gained(old, new)) == gained


@given(TABLES, TABLES)
def test_every_table_on_the_way_is_known_as_such(before, after):
    ranked = rings.bounds(RANKED, before)
    passed = dict(ranked)
    for revision, bound in rings.walk(ranked, rings.bounds(RANKED, after)):
        passed[revision] = bound
        rings.refuse_others("plant", ranked, passed, after)


def test_a_table_that_somebody_else_made_is_refused():
    before, wanted = {"v2": 10, "v1": 100}, Traffic({"v2": 50, "v1": 50})
    with pytest.raises(ConflictError, match="somebody else changed"):
        rings.refuse_others("plant", before, {"v2": 30, "v1": 100}, wanted)


def test_devices_are_summed_up_in_words():
    devices = [Device(str(at), at, None, "v1", health) for at, health in enumerate([*DeviceHealth, DeviceHealth.OK])]
    assert rings.summary(devices) == "2 ok, 1 failed, 1 offline, 1 pending"
    assert rings.outstanding(devices) == ["3"]
    assert rings.summary([]) == "no devices"
