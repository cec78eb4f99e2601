"""Drivers that die by SIGKILL, on this machine with real processes: whoever comes next ends the rollout as if nothing had happened."""

from __future__ import annotations

import sys

import pytest

from modeldeploy import Operation
from modeldeploy.engine.record import Kind

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets"),
    pytest.mark.usefixtures("at_home"),
]

WALK = [10, 50, 100]
# What the driver is about to do or has just done when it dies.
SAMPLE = [
    ("advance put-revision", 1, "after"),
    ("save", 5, "before"),
    ("advance set-traffic", 1, "after"),
    ("advance set-traffic", 3, "before"),
    ("sleep", 6, "after"),
    ("advance drop-revision", 1, "after"),
]
DENSE = [
    *(("save", number, when) for number in range(1, 17) for when in ("before", "after")),
    *(("advance set-traffic", number, when) for number in range(1, 8) for when in ("before", "after")),
    *(("advance put-revision", number, "after") for number in range(1, 4)),
    *(("observe", number, "after") for number in range(1, 6)),
    *(("start", number, "after") for number in range(1, 6)),
    *(("sleep", number, "before") for number in range(1, 9)),
    ("emit", 4, "after"),
    ("emit", 8, "after"),
]


@pytest.fixture(scope="module")
def changes(ground):
    """How often a rollout changes what is wanted when nobody dies: one revision, three tables, one revision that goes."""
    before = ground.serial
    done, version = ground.drive_until_killed("nothing", 1, "before")
    assert done.returncode == 0, done.stderr
    assert ground.live() == {version: 100}
    return ground.serial - before


def check_end(ground, version, changed, changes):
    """Hold the end against that of a rollout that nobody killed."""
    assert ground.live() == {version: 100}
    assert changed == changes, "something was done twice, or not at all"
    journal = ground.endpoint._session.journal
    record = journal.latest(backend="local", target=ground.endpoint.name, kind=Kind.ROLLOUT)
    events = journal.events(record.id)
    assert [event.fields["percent"] for event in events if event.name.value == "rollout.step"] == WALK
    assert journal.verify_history(backend="local", target=ground.endpoint.name) == len(list(ground.endpoint.history))
    running, wanted = ground.workers()
    assert running == wanted, "a worker was left over, or one is missing"
    assert ground.litter() == []
    assert not Operation.unfinished()


@pytest.mark.parametrize("moment", SAMPLE, ids=["-".join(map(str, each)) for each in SAMPLE])
def test_a_driver_that_is_killed_is_succeeded_by_another(ground, changes, killed, moment):
    before = ground.serial
    done, version = ground.drive_until_killed(*moment)
    assert done.returncode == killed, done.stderr
    ground.resume()
    check_end(ground, version, ground.serial - before, changes)


@pytest.mark.slow
@pytest.mark.parametrize("moment", DENSE, ids=["-".join(map(str, each)) for each in DENSE])
def test_a_driver_may_be_killed_at_any_effect(ground, changes, killed, moment):
    """Where the driver came to its end before, nothing is left to do, and that holds too."""
    before = ground.serial
    done, version = ground.drive_until_killed(*moment)
    assert done.returncode in {0, killed}, done.stderr
    ground.resume()
    check_end(ground, version, ground.serial - before, changes)
