"""BatchJob as a user holds it, on the real local backend: every format, safe to run again, mistakes named."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from modeldeploy import BatchJob, Model, Session
from modeldeploy.engine.record import Record
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OperationCancelled,
    OperationFailed,
    OperationTimeout,
)
from modeldeploy.values.names import operation_id
from modeldeploy.values.ticket import Phase

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the local backend needs POSIX")


def _score(columns):
    import time

    time.sleep(float(columns["x"][0]) if columns["x"][0] < 1 else 0)
    if (columns["x"] == 13).any():
        message = "unlucky"
        raise ValueError(message)
    return columns["x"] * 2


@pytest.fixture
def model(modeldeploy_home):
    return Model(_score, name="scorer", version="1.0.0", example={"x": np.array([1.5, 2.0])})


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


CALLER = """
import sys
from modeldeploy import BatchJob, Model
from modeldeploy.errors import InvalidRequestError
model = Model.get("scorer", "1.0.0")
try:
    BatchJob.run(model, "in.parquet", "other.parquet", columns={"x": "nowhere"})
except InvalidRequestError as error:
    print(error.field, "pyarrow" in sys.modules)
"""


@pytest.fixture
def table():
    names = ["plain", 'a "quoted", one', "two\nlines", ""]
    return pd.DataFrame({"id": np.arange(1, 201), "x": np.arange(1, 201) + 100.0, "name": names * 50})


WRITERS = {
    "parquet": lambda table, path: table.to_parquet(path),
    "csv": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
    "csv.gz": lambda table, path: table.to_csv(path, index=False),
    "jsonl.gz": lambda table, path: table.to_json(path, orient="records", lines=True),
}
PAIRS = [
    ("parquet", "out.parquet"),
    ("parquet", "out/"),
    ("csv", "out.csv"),
    ("csv", "out.parquet"),
    ("tsv", "out.jsonl.gz"),
    ("jsonl", "out.jsonl"),
    ("csv.gz", "out.csv.gz"),
    ("jsonl.gz", "out.tsv"),
]


@pytest.mark.parametrize(("source", "output"), PAIRS)
def test_every_format_goes_in_and_comes_out(model, here, table, source, output):
    WRITERS[source](table, f"in.{source}")
    job = BatchJob.run(model, f"in.{source}", output, key="id")
    assert job.status == "succeeded"
    result = job.result()
    assert result.column("id").to_pylist() == table["id"].tolist()
    assert result.column("prediction").to_pylist() == (table["x"] * 2).tolist()
    assert [name or "" for name in result.column("name").to_pylist()] == table["name"].tolist()
    assert job.quarantine is None


def test_other_programs_read_what_was_written(model, here, table):
    table.to_parquet("in.parquet")
    BatchJob.run(model, "in.parquet", "out.csv.gz", keep=["id"])
    with gzip.open("out.csv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["id"]), float(row["prediction"])) for row in rows] == [(n, 2.0 * (n + 100)) for n in range(1, 201)]
    assert pd.read_csv("out.csv.gz").shape == (200, 2)


def test_a_glob_and_a_directory_and_a_list_are_one_table(model, here, table):
    Path("in").mkdir()
    for n in range(3):
        table.iloc[n * 50 : n * 50 + 50].to_parquet(f"in/{n}.parquet")
    for at, source in enumerate(["in/*.parquet", "in", ["in/0.parquet", Path("in/1.parquet"), "in/2.parquet"]]):
        job = BatchJob.run(model, source, f"out-{at}.parquet", key="id", keep=[])
        assert job.result().column("id").to_pylist() == list(range(1, 151))
        assert job.result().column_names == ["id", "prediction"]


def test_the_same_call_again_does_nothing(model, here, table):
    table.to_parquet("in.parquet")
    first = BatchJob.run(model, "in.parquet", "out.parquet", key="id")
    written = Path("out.parquet").stat()
    second = BatchJob.run(model, "in.parquet", "out.parquet", key="id")
    assert second.name == first.name
    assert second.status == "succeeded"
    assert Path("out.parquet").stat() == written


def test_bad_rows_are_set_aside_with_their_reason(model, here, table):
    table.loc[[3, 150], "x"] = [13, np.nan]
    table.to_parquet("in.parquet")
    job = BatchJob.run(model, "in.parquet", "out.parquet", key="id", max_bad_rows=None)
    bad = pd.read_json(job.quarantine, lines=True)
    assert bad["row"].tolist() == [3, 150]
    assert bad["key"].tolist() == [4, 151]
    assert "unlucky" in bad["reason"][0]
    assert "NaN" in bad["reason"][1] or "null" in bad["reason"][1]
    assert job.progress.bad_rows == 2
    assert job.result().num_rows == 198
    assert "2 bad" in repr(job)


def test_too_many_bad_rows_fail_and_a_higher_limit_is_the_same_job(model, here, table):
    table.loc[3, "x"] = 13
    table.to_parquet("in.parquet")
    with pytest.raises(OperationFailed, match=r"row 3 of .* \(key 4\).*unlucky") as caught:
        BatchJob.run(model, "in.parquet", "out.parquet", key="id", name="strict")
    assert "max_bad_rows" in str(caught.value)
    job = BatchJob.get("strict")
    assert job.status == "failed"
    assert job.quarantine.exists()
    with pytest.raises(OperationFailed, match="has no result"):
        job.result()
    assert (
        BatchJob.run(model, "in.parquet", "out.parquet", key="id", name="strict", max_bad_rows=1).status == "succeeded"
    )


def test_it_goes_on_by_itself_and_is_found_by_name(model, here, table):
    table.to_parquet("in.parquet")
    job = BatchJob.run(model, "in.parquet", "out.parquet", name="by-name", wait=False)
    found = BatchJob.get("by-name")
    assert found.operation.id == job.operation.id
    assert found.wait(60).status == "succeeded"
    assert found.operation.status == "succeeded"
    assert found.progress.phase is Phase.SUCCEEDED
    assert found.output == here / "out.parquet"


def begun_by_a_process_that_died(session, kind, target, cursor, **_options):
    made = Record(operation_id(kind.value), kind, session.backend.name, target, cursor)
    return session.journal.create(made)


def test_a_job_that_nobody_drives_yet_is_taken_up_by_whoever_waits(model, here, table, monkeypatch):
    table.to_parquet("in.parquet")
    session = Session.of("local")
    with monkeypatch.context() as patch:
        patch.setattr(Session, "begin", begun_by_a_process_that_died)
        job = BatchJob.run(model, "in.parquet", "out.parquet", name="orphan", wait=False, backend=session)
        assert job.status == "running"
        assert job.progress.note == "about to begin"
    assert BatchJob.get("orphan", backend=session).wait(60).status == "succeeded"


def test_it_can_be_awaited(model, here, table):
    table.to_parquet("in.parquet")

    async def run():
        return await BatchJob.run(model, "in.parquet", "out.parquet", wait=False)

    assert asyncio.run(run()).status == "succeeded"


def _slow(here):
    # One row that sleeps in each chunk.
    frame = pd.DataFrame({"id": range(400), "x": ([0.1] + [5.0] * 9) * 40})
    frame.to_parquet(here / "slow.parquet", row_group_size=50)
    return {"source": "slow.parquet", "output": "slow-out.parquet", "name": "slow-job", "chunk_rows": 10, "workers": 1}


def test_patience_may_end_before_the_work_does(model, here):
    options = _slow(here)
    with pytest.raises(OperationTimeout):
        BatchJob.run(model, timeout=0.2, **options)
    job = BatchJob.get("slow-job")
    assert job.status == "running"
    assert job.wait(60).status == "succeeded"
    assert job.result().num_rows == 400


def test_a_cancelled_job_is_taken_up_by_running_it_again(model, here, wait_until):
    options = _slow(here)
    job = BatchJob.run(model, wait=False, **options)
    wait_until(lambda: job.progress.rows_done > 0, 30)
    job.cancel("enough")
    with pytest.raises(OperationCancelled):
        job.wait(60)
    assert job.status == "cancelled"
    done = job.progress.rows_done
    assert 0 < done < 400
    assert BatchJob.run(model, **options).result().num_rows == 400


def test_drawings_for_logs_and_notebooks(model, here, table):
    table.to_parquet("in.parquet")
    job = BatchJob.run(model, "in.parquet", "out.parquet", name="drawn")
    assert repr(job).startswith("BatchJob('drawn', succeeded, 200 of 200 rows, ")
    html = job._repr_html_()
    assert "succeeded" in html
    assert "200 of 200 rows" in html
    assert "unknown" in repr(BatchJob(Session.of("local"), "nothing"))


MISTAKES = [
    ({"key": "nope"}, InvalidRequestError, "key column 'nope' is missing"),
    ({"keep": ["nope"]}, ConfigurationError, "'nope'"),
    ({"keep": "id"}, ConfigurationError, "keep= is 'id'"),
    ({"columns": {"x": "nope"}}, InvalidRequestError, "'nope'"),
    ({"max_bad_rows": -1}, ConfigurationError, "max_bad_rows is -1"),
    ({"chunk_rows": 0}, ConfigurationError, "chunk_rows is 0"),
    ({"name": "No Name"}, ConfigurationError, "No Name"),
    ({"format": "orc"}, ConfigurationError, "orc"),
    ({"source": "gone.parquet"}, ConfigurationError, "does not exist"),
    ({"output": "out"}, ConfigurationError, "does not say its format; .* a slash for a directory, or output_format="),
    ({"output": "in.parquet", "overwrite": True}, ConfigurationError, "one of the input files"),
    ({"output": "theirs.parquet"}, ConflictError, "overwrite=True"),
    ({"output": "./", "overwrite": True}, ConfigurationError, "in.parquet' lies in it"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=[str(each[0]) for each in MISTAKES])
def test_mistakes_are_refused_before_anything_is_written(model, here, table, mistake):
    change, error, said = mistake
    table.to_parquet("in.parquet")
    Path("theirs.parquet").write_bytes(b"theirs")
    before = sorted(path.name for path in here.iterdir())
    with pytest.raises(error, match=said) as caught:
        BatchJob.run(model, **{"source": "in.parquet", "output": "out.parquet", **change})
    assert sorted(path.name for path in here.iterdir()) == before
    assert Path("theirs.parquet").read_bytes() == b"theirs"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_column_named_like_the_prediction_is_refused_with_the_remedy(model, here, table):
    table.rename(columns={"name": "prediction"}).to_parquet("in.parquet")
    with pytest.raises(ConfigurationError, match=r"keep=\['id', 'x'\]"):
        BatchJob.run(model, "in.parquet", "out.parquet")
    assert BatchJob.run(model, "in.parquet", "out.parquet", keep=["id", "x"]).result().num_rows == 200


def test_an_unknown_job_lists_the_known_ones(model, here, table):
    table.to_parquet("in.parquet")
    BatchJob.run(model, "in.parquet", "out.parquet", name="known")
    with pytest.raises(NotFoundError, match="'known'"):
        BatchJob.get("unknown")


def test_the_output_is_whole_parquet_with_the_types_of_the_signature(model, here, table):
    table.to_parquet("in.parquet")
    BatchJob.run(model, "in.parquet", "out.parquet")
    schema = pq.read_schema("out.parquet")
    assert [str(field.type) for field in schema] == ["int64", "double", str(schema.field("name").type), "double"]


def test_a_job_from_the_store_by_its_uri(model, here, table):
    table.to_parquet("in.parquet")
    assert BatchJob.run("models:/scorer/1.0.0", "in.parquet", "out.parquet").status == "succeeded"
    assert BatchJob.run(model.identity, "in.parquet", "out.parquet").status == "succeeded"


def test_a_script_leaves_the_look_at_the_tables_to_the_runner(model, table, here):
    """It imports nothing that reads tables, unless there is a mistake to be told of."""
    model.identity  # noqa: B018 - packaged by this
    table.to_parquet("in.parquet")
    script = "import sys; from modeldeploy import BatchJob, Model\n"
    script += "job = BatchJob.run(Model.get('scorer', '1.0.0'), 'in.parquet', 'out.parquet', key='id')\n"
    script += "print(job.status, 'pyarrow' in sys.modules)"
    assert _said(script) == ["succeeded", "False"]
    assert _said(CALLER) == ["nowhere", "True"]


def _said(script):
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
