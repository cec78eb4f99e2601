"""Jobs on the simulator's own transform jobs: real containers of both kinds, their logs, and a driver that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modeldeploy import BatchJob
from modeldeploy.backends.sagemaker.backend import SageMaker
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.errors import OperationFailed
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.simulate.sagemaker import Faults
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Phase

SCIKIT = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-py312-cpu-py3"
PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6.0-cpu-py312"
OURS = "modeldeploy/server:1"


def _fragile(columns):
    import os
    import sys

    sys.stderr.write(f"asked about {len(columns['x'])} rows\n")
    if (columns["x"] == 888.0).any():
        os.abort()
    if (columns["x"] == 666.0).any():
        message = "the number of the beast"
        raise ValueError(message)
    return columns["x"] * 2


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    table, target = load_iris(as_frame=True, return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(table, target)
    store = Store(tmp_path_factory.mktemp("iris"))
    return model, table, package(model, name="iris", version="1.0.0", example=table.head(), store=store)


@pytest.fixture
def rehearse(tmp_path, modeldeploy_home):
    """Give ``rehearse(image)``: a backend on a simulator of its own."""
    made = []

    def make(image=OURS, *, trust=(), terms=None, **options):
        backend = SageMaker.rehearsal(image=image, home=modeldeploy_home, speed=600.0, **options)
        made.append(backend)
        backend.batch._trust = tuple(trust)
        backend.batch._terms = terms or Terms(parts_per_job=2, rows_per_part=40)
        return backend

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def finish(wait_until):
    """Give ``finish(backend, ticket)``: advance at the pace that is asked for until it ended."""

    def run(backend, ticket, timeout=60):
        moving = [ticket]

        def ended():
            moving[0] = backend.advance(moving[0])
            return moving[0].phase.ended

        wait_until(ended, timeout, interval=0.02)
        return moving[0]

    return run


def job(bundle, source, output, **options):
    return BatchSpec(
        name="the-job",
        model=bundle.model_version(),
        source=(str(source),),
        output=str(output),
        chunk_rows=10,
        **options,
    )


@pytest.mark.parametrize("image", [OURS, SCIKIT, PYTORCH], ids=["ours", "scikit-learn", "pytorch"])
def test_a_real_model_in_a_real_container(rehearse, finish, iris, tmp_path, image):
    """Our own server, and the two kinds of hosts that prebuilt images have."""
    model, table, bundle = iris
    table.assign(id=np.arange(len(table))).to_parquet(tmp_path / "in.parquet")
    backend = rehearse(image, terms=Terms(rows_per_part=40))
    ended = finish(backend, backend.put_job(job(bundle, tmp_path / "in.parquet", tmp_path / "out.parquet", key="id")))
    assert ended.phase is Phase.SUCCEEDED, ended.note
    result = pq.read_table(tmp_path / "out.parquet")
    assert result.column("prediction").to_pylist() == model.predict(table).tolist()
    assert result.column("id").to_pylist() == list(range(len(table)))
    storage = backend.batch._provider.storage
    assert [each.key for each in storage.below("modeldeploy/batch")] == []


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("fragile"))
    return package(_fragile, name="fragile", version="1.0.0", example={"x": np.array([0.5, 1.0])}, store=store)


def _table(tmp_path, special):
    x = np.arange(160, dtype=float)
    for row, value in special.items():
        x[row] = value
    pq.write_table(pa.table({"x": x}), tmp_path / "in.parquet", row_group_size=40)
    return tmp_path / "in.parquet"


@pytest.mark.parametrize("image", [OURS, SCIKIT], ids=["ours", "scikit-learn"])
def test_a_row_that_the_model_raises_on_costs_no_further_job(rehearse, finish, fragile, tmp_path, image):
    backend = rehearse(image, trust=[fragile.digest])
    spec = job(fragile, _table(tmp_path, {7: 666.0, 130: 666.0}), tmp_path / "out.csv", max_bad_rows=2)
    ended = finish(backend, backend.put_job(spec))
    assert ended.phase is Phase.SUCCEEDED, ended.note
    assert backend.observe_job("the-job").bad_rows == 2
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 158
    listed = backend.native.list_transform_jobs()["TransformJobSummaries"]
    assert [each["TransformJobStatus"] for each in listed] == ["Completed", "Completed"]


def test_a_failed_job_says_what_its_container_wrote(rehearse, finish, fragile, tmp_path):
    backend = rehearse(trust=[fragile.digest])
    ended = finish(backend, backend.put_job(job(fragile, _table(tmp_path, {7: 888.0}), tmp_path / "out.csv")))
    assert ended.phase is Phase.FAILED
    assert "the-job-" in ended.note
    assert "its log ends" in ended.note


def test_a_job_is_stopped_and_goes_on(rehearse, finish, fragile, tmp_path):
    backend = rehearse(trust=[fragile.digest])
    spec = job(fragile, _table(tmp_path, {}), tmp_path / "out.parquet")
    ticket = backend.put_job(spec)
    while "asked for" not in ticket.note:
        ticket = backend.advance(ticket)
    ended = finish(backend, backend.cancel(ticket))
    assert ended.phase is Phase.CANCELLED
    assert backend.native.list_transform_jobs()["TransformJobSummaries"][0]["TransformJobStatus"] == "Stopped"
    assert finish(backend, backend.put_job(spec)).phase is Phase.SUCCEEDED
    assert pq.read_table(tmp_path / "out.parquet").column("prediction").to_pylist() == [2.0 * at for at in range(160)]


def test_the_call_that_runs_here_runs_there_with_one_argument_more(rehearse, fragile, tmp_path):
    """By the handle, whose engine waits, repeats and journals."""
    backend = rehearse(trust=[fragile.digest])
    source = _table(tmp_path, {9: 666.0})
    done = BatchJob.run(fragile.model_version(), source, tmp_path / "out.parquet", max_bad_rows=1, backend=backend)
    assert (done.status, done.progress.rows_done, done.progress.bad_rows) == ("succeeded", 160, 1)
    assert done.result().num_rows == 159
    with pytest.raises(OperationFailed, match="more than 0 bad rows"):
        BatchJob.run(fragile.model_version(), source, tmp_path / "strict.parquet", backend=backend)


def test_a_bad_day_costs_time_and_nothing_else(rehearse, fragile, tmp_path):
    """Throttling, answers that are lost after the write, and a Model that is not seen at first."""
    faults = Faults(throttle_every=4, drop_after={"CreateTransformJob": 1, "CreateModel": 1}, lag_s=300.0)
    backend = rehearse(trust=[fragile.digest], faults=faults)
    source = _table(tmp_path, {9: 666.0})
    done = BatchJob.run(fragile.model_version(), source, tmp_path / "out.csv", max_bad_rows=1, backend=backend)
    assert (done.status, done.progress.rows_done, done.progress.bad_rows) == ("succeeded", 160, 1)
    listed = backend.batch._provider.client.pages("sagemaker", "list_transform_jobs", "TransformJobSummaries")
    faults.throttle_every = 0
    assert len(list(listed)) == 2


def test_no_machines_is_an_error_that_says_so_and_the_same_call_goes_on(rehearse, finish, fragile, tmp_path):
    backend = rehearse(trust=[fragile.digest], faults=Faults(capacity=True))
    spec = job(fragile, _table(tmp_path, {}), tmp_path / "out.csv")
    ended = finish(backend, backend.put_job(spec))
    assert ended.phase is Phase.FAILED
    assert "CapacityError" in ended.note
    backend.simulator.faults.capacity = False
    assert finish(backend, backend.put_job(spec)).phase is Phase.SUCCEEDED


_DRIVER = """
import sys
from modeldeploy.backends.sagemaker.backend import SageMaker
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.codec import from_json
import json
url, role, bucket, home, digest, spec = sys.argv[1:]
backend = SageMaker(region="us-east-1", role=role, bucket=bucket, endpoint_url=url, image="modeldeploy/server:1", home=home, pace=Pace(600.0))
backend.batch._terms, backend.batch._trust = Terms(parts_per_job=1, rows_per_part=40), (digest,)
ticket = backend.put_job(from_json(BatchSpec, json.loads(spec)))
while not ticket.phase.ended:
    ticket = backend.advance(ticket)
    print(ticket.note, flush=True)
print(ticket.phase.value, flush=True)
"""


def test_a_driver_that_is_killed_is_followed_by_one_that_goes_on_by_part(rehearse, fragile, tmp_path, modeldeploy_home):
    """In a process of its own, with SIGKILL, once a part is durable here and another transform job under way."""
    import json

    from modeldeploy.values.codec import to_json

    source = _table(tmp_path, {})
    backend = rehearse(trust=[fragile.digest])
    simulator = backend.simulator
    key = simulator.credentials
    spec = job(fragile, source, tmp_path / "out.parquet")
    arguments = [
        simulator.url, simulator.role, simulator.bucket, str(modeldeploy_home), fragile.digest, json.dumps(to_json(spec)),
    ]  # fmt: skip
    environ = {
        **os.environ, "AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip

    def drive():
        return subprocess.Popen(
            [sys.executable, "-c", _DRIVER, *arguments], env=environ, stdout=subprocess.PIPE, text=True
        )

    first = drive()
    with first:
        for line in first.stdout:
            if "read part" in line or line.startswith("40 of"):
                break
        first.send_signal(signal.SIGKILL)
    done = [row["done"]["part"] for row in backend.batch._job("the-job").entries() if row["kind"] == "part"]
    assert done
    assert not (tmp_path / "out.parquet").exists()
    second = drive()
    with second:
        last = second.stdout.read().splitlines()[-1]
    assert last == "succeeded"
    assert pq.read_table(tmp_path / "out.parquet").column("prediction").to_pylist() == [2.0 * at for at in range(160)]
    listed = backend.native.list_transform_jobs()["TransformJobSummaries"]
    assert len(listed) == 4
