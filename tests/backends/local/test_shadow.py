"""A shadow on this machine: real workers that are wrong, hang or die, and callers who never notice."""

from __future__ import annotations

import json
import os
import signal

import pytest

from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.serving.meters import COPY
from modeldeploy.serving.shadowing import OUTSTANDING
from modeldeploy.values.serving import Traffic

SHADOW_DEADLINE_S = 0.5


@pytest.fixture
def pair(local, troubled):
    """Give ``pair(kind)``: a stable revision, and a troubled one that is sent a copy of every request."""

    def deploy(kind: str, **options: str):
        stable, shadow = local.revision(1), local.revision(2, model=troubled(kind), **options)
        local.deploy(stable, shadow)
        local.shift({stable.id: 100}, shadow={shadow.id: 100})
        return stable, shadow

    return deploy


def test_a_shadow_that_is_wrong_one_time_in_ten_is_found_to_be(local, pair, wait_until):
    stable, shadow = pair("wrong")
    assert [local.predict(float(number)) for number in range(100)] == [[number + 1.0] for number in range(100)]
    wait_until(lambda: local.seen(shadow, COPY).compared == 100)
    seen = local.seen(shadow, COPY)
    assert (seen.requests, seen.disagreed, seen.errors, seen.dropped) == (100, 10, 0, 0)
    assert (local.seen(stable, 100).requests, local.seen(stable, 100).assigned) == (100, 100)


def test_callers_do_not_feel_a_shadow_that_hangs(local, pair, under_load, wait_until):
    _stable, shadow = pair("hangs", deadline=str(SHADOW_DEADLINE_S))
    alone = _answer(local, 100.0)
    with under_load(100.0, connections=4) as load:
        wait_until(lambda: local.seen(shadow, COPY).dropped > OUTSTANDING, timeout=20)
    assert load.failed == []
    assert {_outputs(body) for body in load.bodies} == {alone}
    # Nobody waited for a copy: each of them takes the shadow's whole deadline.
    assert sorted(load.seconds)[len(load.seconds) * 99 // 100] < SHADOW_DEADLINE_S / 2
    wait_until(lambda: local.seen(shadow, COPY).errors, timeout=20)
    assert local.seen(shadow, COPY).compared == 0


def test_callers_do_not_feel_a_shadow_that_is_killed(local, pair, under_load, wait_until):
    stable, shadow = pair("wrong")
    with under_load(1.0, connections=2) as load:
        (pid,) = wait_until(lambda: local.workers(shadow))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: local.workers(shadow) not in ([], [pid]))
        before = local.seen(shadow, COPY).compared
        wait_until(lambda: local.seen(shadow, COPY).compared > before)
    assert load.failed == []
    assert {revision for _status, revision in load.statuses} == {stable.id}


def test_copies_and_keys_outlive_the_front_and_the_supervisor(local, pair, wait_until):
    stable, shadow = pair("wrong")
    canary = local.revision(3)
    local.deploy(canary)
    local.shift({stable.id: 50, canary.id: 50}, shadow={shadow.id: 100}, key="header:x-user")
    table = local.backend.observe("iris").traffic
    for victim in ("front", "supervisor"):
        processes = local.backend.processes()
        os.kill(processes[victim], signal.SIGKILL)
        wait_until(lambda victim=victim, old=processes: local.backend.processes().get(victim) not in {None, old[victim]}
                   or (victim == "supervisor" and local.backend.observe("iris")))  # fmt: skip
        wait_until(lambda: all(each.ready for each in local.backend.observe("iris").revisions), timeout=20)
        assert local.backend.observe("iris").traffic == table
        wait_until(lambda: local.predict(1.0, timeout=20) and local.seen(shadow, COPY).requests, timeout=20)


def test_what_cannot_be_a_shadow_is_refused(local):
    stable, shadow = local.revision(1), local.revision(2)
    local.deploy(stable, shadow)
    with pytest.raises(NotFoundError, match="v9"):
        local.backend.set_traffic("iris", Traffic({stable.id: 100}, shadow={"v9": 10}))
    local.shift({stable.id: 100}, shadow={shadow.id: 10})
    with pytest.raises(ConflictError, match="copies"):
        local.backend.drop_revision("iris", shadow.id)
    local.shift({stable.id: 100}, shadow={shadow.id: 0})
    local.carry(local.backend.drop_revision("iris", shadow.id))
    assert local.backend.observe("iris").traffic.shadow == {}


def _answer(local, value: float) -> str:
    return json.dumps(local.predict(value))


def _outputs(body: bytes) -> str:
    return json.dumps(json.loads(body)["outputs"][0]["data"])
