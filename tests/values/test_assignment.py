"""Which revision a key belongs to: in proportion to the weights, the same everywhere, and never back while a share grows."""

from __future__ import annotations

import collections
import itertools
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.values.assignment import assign
from modeldeploy.values.serving import Traffic

KEYS = [f"user-{number}" for number in range(2_000)]
names = st.text(min_size=1, max_size=8)
tables = st.dictionaries(names, st.integers(1, 100), min_size=2, max_size=5)


def chosen(weights: dict[str, int], keys: list[str] = KEYS) -> dict[str, str | None]:
    return {key: assign(weights, key) for key in keys}


@pytest.mark.parametrize("weights", [{"v1": 95, "v2": 5}, {"v1": 50, "v2": 50}, {"v1": 60, "v2": 30, "v3": 10}])
def test_each_revision_gets_its_share_of_the_keys(weights):
    counts = collections.Counter(chosen(weights).values())
    for revision, weight in weights.items():
        share = weight / 100
        # Five standard deviations of a binomial; the keys are fixed, so this passes always or never.
        assert abs(counts[revision] / len(KEYS) - share) < 5 * math.sqrt(share * (1 - share) / len(KEYS))


def test_keys_move_to_the_revision_that_grows_and_nowhere_else():
    steps = [chosen({"v1": 100 - share, "v2": share}) for share in (0, 1, 5, 25, 50, 75, 99, 100)]
    for before, after in itertools.pairwise(steps):
        moved = {key for key in KEYS if before[key] != after[key]}
        assert {after[key] for key in moved} <= {"v2"}
    assert set(steps[0].values()) == {"v1"}
    assert set(steps[-1].values()) == {"v2"}


@given(tables, names, st.integers(1, 100), st.lists(names, max_size=20))
def test_raising_one_weight_moves_keys_to_it_only(weights, grown, more, keys):
    after = {**weights, grown: weights.get(grown, 0) + more}
    for key in keys:
        if assign(weights, key) != assign(after, key):
            assert assign(after, key) == grown


@given(tables, st.integers(2, 50), names)
def test_only_the_proportions_of_the_weights_matter(weights, factor, key):
    assert assign(weights, key) == assign({revision: weight * factor for revision, weight in weights.items()}, key)


@given(tables, names)
def test_the_order_of_the_table_and_entries_of_0_do_not_matter(weights, key):
    other = {"never": 0, **dict(reversed(weights.items()))}
    assert assign(weights, key) == assign({**other, "never": weights.get("never", 0)}, key)


def test_rounding_of_a_third_revision_moves_few_keys_elsewhere():
    """Whole percents cannot keep every proportion; what is lost to rounding stays below a percent for each step."""
    before = Traffic({"v1": 60, "v2": 40})
    for percent in (5, 25, 50):
        after = before.shift("v3", percent)
        old, new = chosen(before.live), chosen(after.live)
        strayed = [key for key in KEYS if old[key] != new[key] and new[key] != "v3"]
        assert len(strayed) < len(KEYS) / 100
        before = after


def test_who_sees_one_new_revision_first_is_not_who_sees_the_next_one_first():
    early = [{key for key, by in chosen({"old": 90, new: 10}).items() if by == new} for new in ("v2", "v3")]
    # Independent draws: a tenth of a tenth, not the same tenth again.
    assert len(early[0] & early[1]) < len(early[0]) / 3


def test_without_weights_there_is_nobody():
    assert assign({}, "ana") is None
    assert assign({"v1": 0}, "ana") is None
    assert assign({"v1": 100}, "") == "v1"


def test_every_process_says_the_same():
    code = "from modeldeploy.values.assignment import assign; print([assign({'v1': 70, 'v2': 30}, str(n)) for n in range(50)])"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{[assign({'v1': 70, 'v2': 30}, str(n)) for n in range(50)]}\n".encode()}
