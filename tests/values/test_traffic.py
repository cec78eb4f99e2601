"""Traffic tables: whole percents that always sum, and shifts that keep proportions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.serving import WHOLE, EndpointSpec, EndpointState, Revision, RevisionState, Scale, Traffic

NAMES = [f"r{number}" for number in range(8)]


@st.composite
def tables(draw):
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, WHOLE), min_size=len(names) - 1, max_size=len(names) - 1)))
    edges = [0, *cuts, WHOLE]
    return Traffic({name: edges[i + 1] - edges[i] for i, name in enumerate(names)})


@given(tables(), st.integers(0, WHOLE))
def test_a_shift_gives_the_exact_share_and_sums_to_the_whole(table, percent):
    shifted = table.shift("new", percent)
    assert shifted.share("new") == percent
    assert sum(shifted.weights.values()) == WHOLE


@given(tables(), st.integers(0, WHOLE))
def test_a_shift_keeps_the_others_proportions_within_one_percent(table, percent):
    shifted = table.shift("new", percent)
    for name, weight in table.live.items():
        assert abs(shifted.share(name) - weight * (WHOLE - percent) / WHOLE) < 1


@given(tables(), st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_a_larger_share_of_the_new_takes_from_no_other_revision_s_favour(table, one, two):
    low, high = sorted((one, two))
    lower, higher = table.shift("new", low), table.shift("new", high)
    assert sum(lower.share(name) for name in table.live) >= sum(higher.share(name) for name in table.live)


@pytest.mark.parametrize("percent", range(WHOLE + 1))
def test_every_percentage_can_be_reached_from_one_revision(percent):
    assert Traffic.all_to("a").shift("b", percent).weights == {"a": WHOLE - percent, "b": percent}


@given(tables())
def test_a_shift_keeps_the_copies(table):
    shadowed = Traffic(table.weights, {"copy": 10})
    assert shadowed.shift("new", 10).shadow == {"copy": 10}


def test_remainders_go_to_the_largest_then_by_name():
    assert Traffic({"a": 50, "b": 50}).shift("c", 1).weights == {"a": 50, "b": 49, "c": 1}
    assert Traffic({"a": 33, "b": 33, "c": 34}).shift("d", 50).weights == {"a": 17, "b": 16, "c": 17, "d": 50}


def test_the_only_revision_cannot_give_its_traffic_to_nobody():
    with pytest.raises(ConfigurationError, match="only revision with traffic"):
        Traffic.all_to("a").shift("a", 40)


def test_the_only_revision_may_be_given_everything():
    assert Traffic.all_to("a").shift("a", WHOLE).weights == {"a": WHOLE}
    assert Traffic().shift("a", WHOLE).weights == {"a": WHOLE}


@pytest.mark.parametrize("weights", [{"a": 99}, {"a": 60, "b": 60}, {"a": 1}])
def test_a_table_that_does_not_sum_is_refused(weights):
    with pytest.raises(ConfigurationError, match="sums to"):
        Traffic(weights)


@pytest.mark.parametrize("percent", [-1, 101, 50.0, True, "50", None])
def test_a_share_that_is_no_whole_percentage_is_refused(percent):
    with pytest.raises(ConfigurationError, match="traffic of 'a'"):
        Traffic({"a": percent})
    with pytest.raises(ConfigurationError, match="traffic of 's'"):
        Traffic({"a": WHOLE}, {"s": percent})


def test_an_empty_table_is_a_table():
    assert Traffic().live == {}
    assert Traffic({"a": 0}).live == {}


def test_entries_of_zero_make_no_difference():
    plain = Traffic({"a": WHOLE})
    assert plain.same_as(Traffic({"a": WHOLE, "b": 0}, {"c": 0}))
    assert not plain.same_as(Traffic({"a": WHOLE}, {"c": 1}))
    assert not plain.same_as(Traffic.all_to("b"))
    assert plain.share("b") == 0


def test_a_key_matters_only_where_there_is_a_choice():
    keyed = Traffic({"a": 50, "b": 50}, key="header:user")
    assert not keyed.same_as(Traffic({"a": 50, "b": 50}))
    assert Traffic({"a": WHOLE}, key="header:user").same_as(Traffic({"a": WHOLE}))


@given(tables(), st.integers(0, WHOLE))
def test_a_shift_keeps_the_key(table, percent):
    keyed = Traffic(table.weights, key="field:user")
    assert keyed.shift("new", percent).key == "field:user"


@given(tables())
def test_a_plain_table_is_the_same_without_entries_of_nothing(table):
    shadowed = Traffic(table.weights, {"copy": 10, "none": 0}, key="field:user")
    assert shadowed.plain.same_as(shadowed)
    assert 0 not in {*shadowed.plain.weights.values(), *shadowed.plain.shadow.values()}


def _state(traffic, *names, model):
    revisions = tuple(RevisionState(Revision(name, model), ready=True) for name in names)
    return EndpointState("iris", "http://x", revisions, traffic, "1", settled=True)


def test_stable_is_the_revision_with_the_most_traffic(model):
    assert _state(Traffic({"a": 10, "b": 90}), "a", "b", model=model).stable == "b"


def test_stable_among_equals_is_the_one_deployed_first(model):
    assert _state(Traffic({"b": 50, "a": 50}), "a", "b", model=model).stable == "a"


def test_stable_of_an_endpoint_without_traffic_is_none(model):
    assert _state(Traffic(), "a", model=model).stable is None


def test_stable_that_is_not_among_the_revisions_is_still_told(model):
    assert _state(Traffic.all_to("ghost"), "a", model=model).stable == "ghost"


def test_a_state_finds_its_revisions_by_id(model):
    state = _state(Traffic.all_to("a"), "a", model=model)
    assert state.revision("a").revision.id == "a"
    assert state.revision("b") is None


def test_the_same_content_is_the_same_revision(model):
    assert Revision.of(model) == Revision.of(model)
    assert Revision.of(model, options={"a": "1", "b": "2"}).id == Revision.of(model, options={"b": "2", "a": "1"}).id


def test_another_shape_is_another_revision(model):
    assert Revision.of(model).id != Revision.of(model, scale=Scale(2)).id
    assert Revision.of(model).id != Revision.of(model, options={"a": "1"}).id


def test_a_revision_needs_a_worker():
    with pytest.raises(ConfigurationError, match="workers is 0"):
        Scale(0)


def test_an_endpoint_needs_a_valid_name():
    with pytest.raises(ConfigurationError, match="endpoint name 'Iris!'"):
        EndpointSpec("Iris!")
