"""Batch jobs by batch endpoints: the suite of every backend, and what is the same here and on this machine."""

from __future__ import annotations

import itertools
import time

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.backends.azureml import AzureML
from modeldeploy.backends.azureml.rehearsal import Rehearsal, start
from modeldeploy.backends.azureml.terms import Terms
from modeldeploy.engine.drivers import RealClock
from modeldeploy.errors import ConfigurationError, UnavailableError
from modeldeploy.simulate.azureml.world import Timings
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.harness import Harness
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.serving import Revision
from modeldeploy.values.ticket import Phase

ROWS = 500
TERMS = Terms(compute="cpu-cluster", rows_per_part=200, parts_per_job=2, retries=0)
QUICK = Timings(endpoint=30.0, deployment=40.0, delete=10.0, batch_deployment=10.0, job=30.0, finalize=10.0)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cloud(shelf):
    made = start(speed=1_000.0, home=shelf[0], patience_s=30.0, timings=QUICK, batch_terms=TERMS)
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


def test_a_job_is_taken_up_by_another_process_where_it_stands(cloud, shelf, spec):
    job = spec()
    ticket = cloud.put_job(job)
    while cloud.observe_job(job.name) is None or "batch job" not in ticket.note:
        ticket = cloud.advance(ticket)
        time.sleep(0.005)
    other = Rehearsal(cloud.simulator, home=shelf[0], batch_terms=TERMS)
    try:
        assert carry(other, cloud.put_job(job)).phase is Phase.SUCCEEDED
        assert carry(other, ticket).phase is Phase.SUCCEEDED
    finally:
        AzureML.close(other)
    assert scored(job).column("id").to_pylist() == list(range(ROWS))


def test_an_answer_that_was_lost_begins_no_second_job(cloud, spec):
    faults = cloud.simulator.faults
    faults.drop_after["BatchEndpoints_Invoke"] = 1
    job, lost = spec(), 0
    ticket = cloud.put_job(job)
    while not ticket.phase.ended:
        try:
            ticket = cloud.advance(ticket)
        except UnavailableError:
            lost += 1
        time.sleep(0.002)
    assert ticket.phase is Phase.SUCCEEDED, ticket.note
    assert lost == 1
    listed = cloud._client.ask("GET", f"{cloud._client.place}/jobs", query={"api-version": "2024-01-01-preview"})[
        "value"
    ]
    runs = [each["name"] for each in listed if each["name"].startswith(f"{job.name}-")]
    assert len(runs) == len(set(runs)) == 2


def test_nothing_is_left_of_a_job_but_its_output(cloud, spec):
    job = spec()
    assert carry(cloud, cloud.put_job(job)).phase is Phase.SUCCEEDED
    assert list(cloud.batch._blobs.below(f"modeldeploy/batch/{job.name}/")) == []
    deadline = time.monotonic() + 10
    while [each.name for each in cloud.native.batch_endpoints.list() if job.name in each.name]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_needs_a_cluster(shelf, spec):
    backend = AzureML(subscription_id="s", resource_group="g", workspace="w", credential=object(), home=shelf[0])
    with pytest.raises(ConfigurationError, match="compute cluster"):
        backend.put_job(spec())


@pytest.mark.parametrize("wrong", [{"rows_per_part": 0}, {"retries": -1}, {"timeout": 0}], ids="-".join)
def test_wrong_terms_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        Terms(**wrong)


def test_terms_are_settings_too():
    made = AzureML.configure(
        None,
        {"subscription_id": "s", "resource_group": "g", "workspace": "w", "batch_compute": "big", "batch_retries": "5"},
    )
    assert (made._batch_terms.compute, made._batch_terms.retries) == ("big", 5)
    with pytest.raises(ConfigurationError, match="batch_retries is 'many'"):
        AzureML.configure(None, {"batch_retries": "many"})
