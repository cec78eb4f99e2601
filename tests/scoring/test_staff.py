"""When workers begin, and how many: whatever is known by then."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.scoring import sharing
from modeldeploy.scoring.partwork import PartWork
from modeldeploy.scoring.pool import InlinePool
from modeldeploy.scoring.runner import run
from modeldeploy.scoring.staff import Staff
from modeldeploy.values.ticket import Phase


class Counted(InlinePool):
    """Counts what it was asked for; each worker has two seats."""

    def __init__(self, work, most):
        super().__init__(work)
        self.most, self.started, self.closed = most, 0, False

    def start(self):
        self.started += 1
        super().start()
        return 2

    def close(self):
        self.closed = True


@attrs.define
class Agency:
    """Remembers the pools that it gave."""

    model: object
    pools: list = attrs.field(factory=list)

    def __call__(self, job, most):
        self.pools.append(Counted(PartWork(self.model, job), most))
        return self.pools[-1]


@pytest.fixture
def agency(doubler):
    return Agency(doubler)


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(sharing, "LARGE", 1)


@pytest.mark.usefixtures("small_is_large")
def test_the_first_worker_of_a_large_job_begins_before_anything_is_planned(lab, agency):
    job = lab.job(lab.write(lab.table(100)), workers=2)
    with Staff(job, job.request(), agency) as staff:
        (pool,) = agency.pools
        assert (pool.most, pool.started) == (2, 1)
        assert not (job.home / "plan.json").exists()
        assert staff.settle(9) is pool
        assert pool.started == 1
    assert pool.closed


def test_a_small_job_is_planned_first(lab, agency):
    job = lab.job(lab.write(lab.table(100)), workers=2)
    with Staff(job, job.request(), agency) as staff:
        assert not agency.pools
        assert staff.settle(9).most == 2


@pytest.mark.usefixtures("small_is_large")
def test_cores_are_shared_anew_when_there_are_fewer_parts_than_seats(lab, agency):
    job = lab.job(lab.write(lab.table(100)), workers=4)
    with Staff(job, job.request(), agency) as staff:
        pool = staff.settle(1)
    assert agency.pools[0].closed
    assert (pool.most, pool.started) == (1, 1)


def test_as_many_seats_are_started_as_were_asked_for(lab, agency):
    job = lab.job(lab.write(lab.table(100)), workers=5)
    with Staff(job, job.request(), agency) as staff:
        assert staff.settle(9).started == 3


@pytest.mark.usefixtures("small_is_large")
def test_workers_that_began_early_end_when_the_job_cannot_be_planned(lab, agency):
    path = lab.write(lab.table(100))
    job = lab.job(path)
    path.write_bytes(b"no parquet at all")
    assert run(job, agency) is Phase.FAILED
    assert agency.pools[0].closed


@pytest.mark.usefixtures("small_is_large")
def test_a_job_whose_worker_began_early_gives_every_row_once(lab, agency):
    table = lab.table(300)
    job = lab.job(lab.write(table), workers=1)
    assert run(job, agency) is Phase.SUCCEEDED
    assert len(agency.pools) == 1
    lab.check(table)
