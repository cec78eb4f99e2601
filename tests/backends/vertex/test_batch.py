"""Batch jobs by batch prediction: the suite of every backend, and what is the same here and on this machine."""

from __future__ import annotations

import itertools
import time

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.backends.vertex import Vertex
from modeldeploy.backends.vertex.batch_runs import Seen, Status
from modeldeploy.backends.vertex.rehearsal import Rehearsal, start
from modeldeploy.backends.vertex.terms import Terms
from modeldeploy.engine.drivers import RealClock
from modeldeploy.errors import UnavailableError
from modeldeploy.simulate.vertex.world import Timings
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.harness import Harness
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.serving import Revision
from modeldeploy.values.ticket import Phase

ROWS = 500
TERMS = Terms(rows_per_part=200, parts_per_job=2, rows_per_request=50)
QUICK = Timings(upload=2.6, delete=5.0, job=20.0, finalize=5.0)
_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["practised", "documented"])
def cloud(shelf, request):
    """A rehearsal whose jobs call their files as the service does, or as its documentation does."""
    made = start(
        speed=1_000.0, home=shelf[0], patience_s=30.0, timings=QUICK, batch_terms=TERMS, batch_files=request.param
    )
    yield made
    made.close()


@pytest.fixture
def spec(shelf, tmp_path):
    """Make a job over a table of its own file, with a name of its own."""
    table = pa.table({"id": np.arange(ROWS), "input": np.arange(ROWS, dtype=float)})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=100)

    def make(**more) -> BatchSpec:
        number = next(_numbers)
        whole = BatchSpec(
            f"job-{number}",
            shelf[1][1],
            (str(tmp_path / "in.parquet"),),
            str(tmp_path / f"out-{number}.parquet"),
            key="id",
        )
        return attrs.evolve(whole, **more)

    return make


@pytest.fixture
def harness(cloud, shelf, spec):
    made = Harness(cloud, tuple(Revision.of(model) for model in shelf[1][:2]), clock=RealClock(), job=spec)
    made.call_seconds = 10.0
    return made


@pytest.mark.slow
class TestBatch(BatchConformance):
    pass


@pytest.fixture(autouse=True)
def _no_faults_left(cloud):
    yield
    cloud.simulator.faults.__init__()


def carry(backend, ticket, until=60.0):
    deadline = time.monotonic() + until
    while not ticket.phase.ended:
        assert time.monotonic() < deadline, ticket
        ticket = backend.advance(ticket)
        time.sleep(min(0.02, ticket.poll_after or 0.001))
    return ticket


def scored(job: BatchSpec):
    return pq.read_table(job.output)


def test_every_row_comes_back_once_beside_its_id(cloud, spec):
    job = spec()
    ended = carry(cloud, cloud.put_job(job))
    assert ended.phase is Phase.SUCCEEDED, ended.note
    found = scored(job)
    assert found.column("id").to_pylist() == list(range(ROWS))
    assert found.column("prediction").to_pylist() == [row + 1.0 for row in range(ROWS)]


def test_bad_rows_are_set_aside_with_their_reason(cloud, shelf, spec, tmp_path):
    values = np.arange(ROWS, dtype=float)
    values[[3, 400]] = np.nan
    table = pa.table({"id": np.arange(ROWS), "input": values})
    pq.write_table(table, tmp_path / "holes.parquet", row_group_size=100)
    job = spec(source=(str(tmp_path / "holes.parquet"),), max_bad_rows=2)
    assert carry(cloud, cloud.put_job(job)).phase is Phase.SUCCEEDED
    state = cloud.observe_job(job.name)
    assert (state.bad_rows, state.rows_done) == (2, ROWS)
    assert scored(job).num_rows == ROWS - 2
    too_many = spec(source=(str(tmp_path / "holes.parquet"),), max_bad_rows=1)
    ended = carry(cloud, cloud.put_job(too_many))
    assert ended.phase is Phase.FAILED
    assert "max_bad_rows" in ended.note


def under_way(cloud, job):
    """Carry a job until one of the service's jobs is under way."""
    ticket = cloud.put_job(job)
    until = time.monotonic() + 30
    while "batch prediction job" not in ticket.note:
        assert time.monotonic() < until, ticket
        ticket = cloud.advance(ticket)
        time.sleep(0.002)
    return ticket


def jobs_of(cloud, job):
    asked = {"parent": cloud._client.access.parent}
    found = cloud._client.every("job", "list_batch_prediction_jobs", asked)
    return [each for each in found if each.display_name.startswith(f"{job.name}-")]


def test_a_job_is_taken_up_by_another_process_where_it_stands(cloud, shelf, spec):
    job = spec()
    ticket = under_way(cloud, job)
    other = Rehearsal(cloud.simulator, home=shelf[0], batch_terms=TERMS)
    try:
        assert carry(other, cloud.put_job(job)).phase is Phase.SUCCEEDED
        assert carry(other, ticket).phase is Phase.SUCCEEDED
    finally:
        Vertex.close(other)


def test_a_job_whose_answer_was_lost_is_found_by_its_label_and_not_asked_for_twice(cloud, spec):
    job = spec()
    cloud.simulator.faults.lose = {"CreateBatchPredictionJob": 1}
    ticket = cloud.put_job(job)
    lost = 0
    until = time.monotonic() + 60
    while not ticket.phase.ended:
        assert time.monotonic() < until
        try:
            ticket = cloud.advance(ticket)
        except UnavailableError:
            lost += 1
        time.sleep(0.002)
    assert (ticket.phase, lost) == (Phase.SUCCEEDED, 1)
    names = [each.display_name for each in jobs_of(cloud, job)]
    assert len(names) == len(set(names)) == 2


def test_a_job_that_is_stopped_goes_on_with_what_it_has(cloud, spec):
    job = spec()
    ticket = under_way(cloud, job)
    ended = carry(cloud, cloud.cancel(ticket))
    assert ended.phase is Phase.CANCELLED
    states = {each.state.name for each in jobs_of(cloud, job)}
    assert "JOB_STATE_RUNNING" not in states
    assert carry(cloud, cloud.put_job(job)).phase is Phase.SUCCEEDED
    assert scored(job).num_rows == ROWS


def test_a_job_of_the_service_that_fails_is_asked_for_again_under_the_next_number(cloud, spec):
    job = spec()
    cloud.simulator.faults.broken_jobs = 1
    assert carry(cloud, cloud.put_job(job)).phase is Phase.SUCCEEDED
    assert len(jobs_of(cloud, job)) == 3


def test_rows_that_the_service_dropped_are_asked_for_again(cloud, spec):
    job = spec(max_bad_rows=0)
    cloud.simulator.faults.drop_rows_every = 450
    ended = carry(cloud, cloud.put_job(job))
    if ended.phase is Phase.FAILED:
        # Without leave to set rows aside, a failure that rows are blamed for is told with what the service says of it.
        assert "max_bad_rows" in ended.note
    else:
        assert scored(job).num_rows == ROWS


def test_nothing_is_left_in_the_bucket_or_the_registry(cloud, spec):
    job = spec()
    assert carry(cloud, cloud.put_job(job)).phase is Phase.SUCCEEDED
    assert not list(cloud._provider.storage.below(f"modeldeploy/batch/{job.name}/"))
    until = time.monotonic() + 10
    asked = {"parent": cloud._client.access.parent}
    while [
        m
        for m in cloud._client.every("model", "list_models", asked)
        if m.name.rpartition("/")[2].startswith(f"batch-{job.name}-")
    ]:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_csv_is_scored_too(cloud, spec, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,input\n" + "".join(f"{row},{row}.5\n" for row in range(50)))
    job = spec(source=(str(path),), output=str(tmp_path / "out.csv"))
    assert carry(cloud, cloud.put_job(job)).phase is Phase.SUCCEEDED
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 51
    assert lines[1].split(",") == ["0", "0.5", "1.5"]


def test_a_model_that_rows_kill_is_told_apart_from_bad_rows(cloud):
    seen = Seen("n", Status.SUCCEEDED)
    assert seen.blames_rows
    assert not Seen("n", Status.FAILED).blames_rows
    assert Status.RUNNING.ended is False
