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


VERDICT = ("save back", 1, "after")
DENSE_VERDICT = [
    ("emit rollout.verdict", 1, "before"),
    ("emit rollout.look", 1, "after"),
    ("read metrics", 2, "after"),
    ("save back", 1, "before"),
    ("save back", 2, "after"),
    ("start", 2, "after"),
    ("emit rollout.rolled_back", 1, "after"),
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


@pytest.mark.row(5)
@pytest.mark.parametrize("moment", SAMPLE, ids=["-".join(map(str, each)) for each in SAMPLE])
def test_a_driver_that_is_killed_is_succeeded_by_another(ground, changes, killed, moment):
    before = ground.serial
    done, version = ground.drive_until_killed(*moment)
    assert done.returncode == killed, done.stderr
    ground.resume()
    check_end(ground, version, ground.serial - before, changes)


@pytest.mark.row(5)
@pytest.mark.slow
@pytest.mark.parametrize("moment", DENSE, ids=["-".join(map(str, each)) for each in DENSE])
def test_a_driver_may_be_killed_at_any_effect(ground, changes, killed, moment):
    """Where the driver came to its end before, nothing is left to do, and that holds too."""
    before = ground.serial
    done, version = ground.drive_until_killed(*moment)
    assert done.returncode in {0, killed}, done.stderr
    ground.resume()
    check_end(ground, version, ground.serial - before, changes)


@pytest.mark.row(5)
@pytest.mark.parametrize(
    "moment",
    [VERDICT, *(pytest.param(each, marks=pytest.mark.slow) for each in DENSE_VERDICT)],
    ids=["-".join(map(str, each)) for each in (VERDICT, *DENSE_VERDICT)],
)
def test_a_revision_that_failed_is_not_sent_out_again_by_the_next_driver(ground, killed, moment):
    """Killed around its verdict: the table goes back once, and that is all that the next driver does."""
    before, live = ground.serial, ground.live()
    with ground.busy():
        done, version = ground.drive_until_killed(*moment, "gated")
        assert done.returncode == killed, done.stdout + done.stderr
        ground.resume(code=1)
    assert ground.live() == live
    assert ground.serial - before == 3, "a revision, a table, and the old table again"
    *_earlier, last = ground.endpoint.history
    assert (last.entry.what, last.entry.evidence["revision"]["model"]["version"]) == ("aborted", version)
    running, wanted = ground.workers()
    assert running == wanted
