"""Power that fails at any step: afterwards a device serves the old version or the new one, whole, and gets where it was going."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIVES = Path(__file__).with_name("lives.py")
ANSWERS = {"v1": 10.0, "v2": 20.0}
# One step on each side of what decides: the pointer's rename, and the word that a slot is whole.
DECISIVE = ("rename b.digest", "flush active.json", "rename active.json", "serve")


def lives(device, scenario: str, *steps: str) -> list[dict[str, object]]:
    command = [
        sys.executable,
        str(LIVES),
        scenario,
        str(device.home),
        str(device.fleet.store.root),
        str(device.fleet.public),
    ]
    done = subprocess.run([*command, *steps], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def prepared(device, fleet, *revisions: str) -> None:
    """Give a device what the last of these revisions finds there."""
    device.home.mkdir(parents=True)
    for revision in revisions[:-1]:
        fleet.want(revision)
        device.start()
        device.runs(revision)
        device.stop()
    fleet.want(revisions[-1])


def check(seen: list[dict[str, object]], *, possible: set[str | None], end: str) -> None:
    for life in seen:
        assert life["killed"], life
        revision, value = life["first"] or (None, None)
        assert revision in possible, life
        assert value == ANSWERS.get(revision), life
        assert life["ended"] == [end, ANSWERS[end]], life
        assert life["code"] == 0, life


def test_whichever_side_of_the_decision_the_power_fails_on_a_whole_version_is_served(device, fleet):
    prepared(device, fleet, "v1", "v2")
    seen = lives(device, "second", *DECISIVE)
    assert {life["step"] for life in seen} == set(DECISIVE)
    check(seen, possible={"v1", "v2"}, end="v2")
    # The pointer is written twice, when the new version is served and when it has settled.
    pointers = [(life["step"], life["pointer"]) for life in seen if "active" in life["step"]]
    assert pointers[:2] == [("flush active.json", "v1"), ("rename active.json", "v2")]


# By name: what the device had and what is wanted, what may answer first, and where it ends.
SCENARIOS = {
    "first": (("v1",), {None, "v1"}, "v1"),
    "second": (("v1", "v2"), {"v1", "v2"}, "v2"),
    "back": (("v1", "v2", "v1"), {"v1", "v2"}, "v1"),
    # None: between two starts of a version that keeps dying, connections are refused or cut off.
    "dying": (("v1", "v2"), {"v1", "v2", None}, "v1"),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_power_that_fails_at_any_step_leaves_a_whole_version(device, fleet, scenario):
    revisions, possible, end = SCENARIOS[scenario]
    prepared(device, fleet, *revisions)
    seen = lives(device, scenario)
    assert len(seen) >= 8
    check(seen, possible=possible, end=end)
    if scenario != "first":
        assert None not in {life["pointer"] for life in seen}
