from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.observe.plot_labels import labels, pauses, spread
from modeldeploy.observe.timeline import Timeline, Turn
from modeldeploy.values.events import Name
from modeldeploy.values.gate import Verdict

PAUSED, RESUMED = Name.ROLLOUT_PAUSED, Name.ROLLOUT_RESUMED


def timeline(*turns, until=100.0):
    return Timeline(0.0, until, turns=turns)


def verdict(at, word):
    return Turn(at, Name.ROLLOUT_VERDICT, Verdict(word))


def test_what_falls_together_is_told_in_one_breath():
    told = timeline(verdict(40, "fail"), Turn(40.1, Name.ROLLOUT_ROLLED_BACK), Turn(80, PAUSED))
    assert [(label.at, label.text, label.marker) for label in labels(told, width_in=6)] == [
        (40.1, "fail, taken back", "X"),
        (80, "paused", "|"),
    ]


def test_whoever_is_promoted_need_not_be_said_to_have_passed():
    (label,) = labels(timeline(verdict(50, "pass"), Turn(50.1, Name.ROLLOUT_PROMOTED)), width_in=6)
    assert label.text == "promoted"


def test_a_rollback_that_was_asked_for_is_no_failure():
    (label,) = labels(timeline(Turn(50, Name.ROLLOUT_ROLLED_BACK, asked=True)), width_in=6)
    assert (label.text, label.marker) == ("rolled back", "v")


@pytest.mark.parametrize("name", [name for name in Name if name.startswith("rollout.")])
def test_every_turn_has_words(name):
    (label,) = labels(timeline(Turn(50, name)), width_in=6)
    assert label.text


def test_words_that_would_lie_over_each_other_take_another_line_and_those_at_the_edge_turn_round():
    told = labels(timeline(*(verdict(at, "pass") for at in (50, 54.5, 59, 99))), width_in=3)
    assert [label.level for label in told] == [0, 1, 2, 0]
    assert [label.leftwards for label in told] == [False, False, False, True]


@pytest.mark.parametrize(
    ("turns", "stretches"),
    [
        ([(PAUSED, 10), (RESUMED, 20)], [(10, 20)]),
        ([(PAUSED, 10), (PAUSED, 15), (RESUMED, 20), (PAUSED, 90)], [(10, 20), (90, 100)]),
        ([(RESUMED, 20)], []),
        ([], []),
    ],
)
def test_pauses_last_until_the_word_comes(turns, stretches):
    assert list(pauses(timeline(*(Turn(at, name) for name, at in turns)))) == stretches


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.01, 0.5))
def test_places_get_room_in_their_order_and_stay_inside_while_there_is_enough(places, room):
    moved = spread(places, room)
    order = sorted(range(len(places)), key=lambda at: places[at])
    assert all(moved[b] - moved[a] >= room - 1e-9 for a, b in itertools.pairwise(order))
    if (len(places) - 1) * room <= 1:
        assert all(-1e-9 <= place <= 1 + 1e-9 for place in moved)


@given(st.lists(st.integers(0, 4), max_size=5, unique=True))
def test_places_with_room_stay(places):
    assert spread([place / 4 for place in places], 0.2) == [place / 4 for place in places]
