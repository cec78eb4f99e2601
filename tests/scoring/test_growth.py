from __future__ import annotations

import attrs
import pytest

from modeldeploy.scoring.growth import Growth
from modeldeploy.scoring.partwork import PartWork
from modeldeploy.scoring.pool import InlinePool
from modeldeploy.scoring.runner import run
from modeldeploy.values.ticket import Phase


@attrs.define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def ready_after(start: float, *, most: int = 4) -> tuple[Growth, Clock]:
    clock = Clock()
    growth = Growth(most, clock=clock)
    clock.now += start
    growth.started(1)
    growth.ready()
    return growth, clock


def test_a_job_that_is_done_before_another_worker_would_be_ready_gets_none():
    growth, clock = ready_after(1.0)
    clock.now += 0.5
    assert not growth.pays(waiting=300, taken=100), "1.5 s are left"


def test_a_job_with_more_left_than_two_starts_gets_another():
    growth, clock = ready_after(1.0)
    clock.now += 0.5
    assert growth.pays(waiting=500, taken=100), "2.5 s are left"


def test_a_slow_first_part_brings_another_worker_while_it_runs():
    growth, clock = ready_after(1.0)
    assert not growth.pays(waiting=100, taken=100)
    clock.now += 2.1
    assert growth.pays(waiting=100, taken=100)


def test_there_are_never_more_workers_than_allowed():
    growth, clock = ready_after(1.0, most=3)
    clock.now += 100
    for _worker in range(2):
        assert growth.pays(waiting=500, taken=100)
        growth.started(1)
    assert not growth.pays(waiting=500, taken=100)


def test_a_worker_of_several_threads_counts_as_many():
    growth, clock = ready_after(1.0, most=5)
    clock.now += 100
    growth.started(4)
    assert not growth.pays(waiting=500, taken=100)


def test_nobody_is_added_before_the_first_is_ready_and_has_work():
    growth = Growth(4, clock=Clock())
    assert not growth.pays(waiting=500, taken=100)
    growth, clock = ready_after(1.0)
    clock.now += 100
    assert not growth.pays(waiting=500, taken=0)


class Counted(InlinePool):
    """Counts the workers that it was asked to start."""

    started = 0

    def start(self) -> int:
        self.started += 1
        return super().start()


@pytest.mark.parametrize(("asked", "started"), [(0, 1), (1, 1), (3, 3)])
def test_a_short_job_starts_one_worker_unless_more_are_asked_for(lab, doubler, asked, started):
    table = lab.table(200)
    job = lab.job(lab.write(table), workers=asked)
    pools = []

    def pool_of(job, _most):
        pools.append(Counted(PartWork(doubler, job)))
        return pools[0]

    assert run(job, pool_of) is Phase.SUCCEEDED
    assert pools[0].started == started
    lab.check(table)
