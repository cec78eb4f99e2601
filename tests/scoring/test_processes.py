"""Processes of several threads, and files that are scored at the same time."""

from __future__ import annotations

import os

import pyarrow as pa
import pytest
from pyarrow import csv

from modeldeploy.scoring.pool import Happening
from modeldeploy.scoring.processes import ProcessPool
from modeldeploy.scoring.runner import run
from modeldeploy.values.ticket import Phase

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


class Watched(ProcessPool):
    """Counts its processes, and the parts that they have in hand at the same time."""

    started = seats = most_in_hand = 0

    def start(self) -> int:
        self.started += 1
        seats = super().start()
        self.seats += seats
        return seats

    def wait(self, timeout: float) -> Happening | None:
        if self.ready():
            self.most_in_hand = max(self.most_in_hand, self.seats - len(self.idle()))
        return super().wait(timeout)

    def ready(self) -> bool:
        """Whether every process has loaded the model."""
        return all(worker.ready for worker in self._workers)


@pytest.fixture
def watch():
    """Give ``watch(job, threads)``: run it and give the pool that did."""

    def runs(job, threads):
        pools = []

        def pool_of(job, most):
            pools.append(Watched(job.home, most, threads=threads))
            return pools[-1]

        assert run(job, pool_of) is Phase.SUCCEEDED, job.progress().note
        return pools[-1]

    return runs


@pytest.fixture
def real_job(lab, packaged):
    """Give ``real_job(paths, ...)``: a job that worker processes can score."""

    def make(*paths, **options):
        return lab.job(*paths, model=packaged.model_version(), trust=(packaged.digest,), **options)

    return make


def test_threads_of_one_process_score_at_the_same_time(lab, real_job, watch):
    table = lab.table(60_000)
    pool = watch(real_job(lab.write(table, row_group=6000), chunk_rows=500, workers=3), threads=3)
    lab.check(table)
    assert (pool.started, pool.most_in_hand) == (1, 3)


@pytest.mark.parametrize("rows", [[1234], [40, 1234, 4321]])
def test_a_row_that_kills_a_process_of_several_threads_is_found_and_no_other_is_accused(lab, real_job, watch, rows):
    table = lab.table(5000, special=dict.fromkeys(rows, 888.0))
    path = lab.write(table, row_group=500)
    watch(real_job(path, chunk_rows=100, max_bad_rows=5, workers=2), threads=2)
    lab.check(table, without=rows)
    assert {each["reason"] for each in lab.quarantine()} == {"the process that scored it died (SIGSEGV)"}


def test_compressed_files_that_cannot_be_cut_are_scored_at_the_same_time(lab, real_job, watch):
    table = lab.table(80_000)
    paths = []
    for at in range(4):
        paths.append(lab.folder / f"in-{at}.csv.gz")
        with pa.CompressedOutputStream(str(paths[-1]), "gzip") as file:
            csv.write_csv(table.slice(at * 20_000, 20_000), file)
    pool = watch(real_job(*paths, chunk_rows=500, workers=2), threads=2)
    lab.check(table)
    assert pool.most_in_hand == 2
