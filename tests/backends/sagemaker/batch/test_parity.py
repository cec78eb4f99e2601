"""The same job on this machine and by Batch Transform: the same bytes, bad rows and reasons included."""

from __future__ import annotations

import gzip

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv as arrow_csv

from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.scoring.job import Job, Request
from modeldeploy.scoring.partwork import PartWork
from modeldeploy.scoring.pool import InlinePool
from modeldeploy.scoring.runner import run
from modeldeploy.values.ticket import Phase


def _everything(columns):
    """Answer three kinds of outputs; raise where a text says so."""
    import numpy as np

    if "raise" in columns["text"].tolist():
        message = "told to"
        raise ValueError(message)
    number = columns["f32"].astype(np.float64) * 3 + columns["big"] % 7
    number = np.where(columns["flag"], number, -number)
    number = np.where(columns["gap"] == np.inf, np.inf, number)
    number = np.where(np.isnan(columns["gap"]), 0.1, number)
    label = np.array([None if each == "none" else f"{each}!" for each in columns["text"]], dtype=object)
    return {"number": number, "label": label, "pair": np.stack([columns["f32"], columns["f32"] * 2], axis=1)}


@pytest.fixture(scope="session")
def odd_bundle(tmp_path_factory):
    """A model that takes and gives every kind of value."""
    example = {
        "f32": np.array([0.1, 0.2], dtype=np.float32),
        "big": np.array([2**62 + 1, -5]),
        "small": np.array([1, 2], dtype=np.uint8),
        "flag": np.array([True, False]),
        "gap": np.array([0.5, np.nan]),
        "text": np.array(["a", "é\n\"'"], dtype=object),
        "vector": np.array([[0.5, 1.5], [2.5, 3.5]]),
    }
    store = Store(tmp_path_factory.mktemp("odd"))
    return package(_everything, name="everything", version="1.0.0", example=example, store=store)


@pytest.fixture
def odd(lab, odd_bundle):
    lab.bundle = odd_bundle
    lab.service.model = load(odd_bundle, trust=[odd_bundle.digest])
    return lab


def locally(lab, spec):
    """Run the job on this machine into a file beside, and give its output and quarantine."""
    output = lab.folder / f"local-{spec.output.rstrip('/').rpartition('/')[2]}"
    slash = "/" if spec.output.endswith("/") else ""
    job = Job(lab.folder / "jobs" / "local")
    job.put(Request(attrs.evolve(spec, output=f"{output}{slash}"), (lab.bundle.digest,)))
    model = load(lab.bundle, trust=[lab.bundle.digest])
    phase = run(job, lambda each, _size: InlinePool(PartWork(model, each)))
    return phase, output, job


def rows_of(path):
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if files[0].suffix == ".parquet":
        return pa.concat_tables([pq.read_table(file, use_threads=False) for file in files])
    return b"".join(gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files)


def same(lab, spec):
    """Assert that both ways give the same rows of the same types, and the same bad rows."""
    ticket = lab.run(spec)
    phase, output, job = locally(lab, spec)
    assert (ticket.phase, phase) == (Phase.SUCCEEDED, Phase.SUCCEEDED), ticket.note
    ours, theirs = rows_of(lab.folder / spec.output.rstrip("/").rpartition("/")[2]), rows_of(output)
    assert ours == theirs if isinstance(ours, bytes) else _equal(ours, theirs)
    quarantine = lab.folder / f"{spec.output.rstrip('/').rpartition('/')[2]}.quarantine.jsonl"
    assert quarantine.exists() == job.quarantine.exists()
    if job.quarantine.exists():
        assert quarantine.read_bytes() == job.quarantine.read_bytes()
    state, progress = lab.backend.observe_job(spec.name), job.progress()
    assert (state.rows_done, state.rows_total, state.bad_rows) == (
        progress.rows_done, progress.rows_total, progress.bad_rows,
    )  # fmt: skip
    return ours


def _equal(ours, theirs):
    assert ours.schema == theirs.schema
    assert ours.num_rows == theirs.num_rows
    for name in ours.column_names:
        # By text: NaN equals itself there, and a float is written as exactly as it is.
        assert list(map(repr, ours.column(name).to_pylist())) == list(map(repr, theirs.column(name).to_pylist())), name
    return True


SPECIAL = {3: 666.0, 17: np.nan, 50: 777.0, 51: np.inf, 99: 666.0, 149: 777.0}


@pytest.mark.parametrize("output", ["out.parquet", "out.csv", "out.jsonl", "out.csv.gz", "parts/"])
def test_outputs_of_every_format(lab, output):
    spec = lab.spec(lab.write(lab.table(150, SPECIAL)), output=output, max_bad_rows=None)
    if output.endswith("/"):
        spec = attrs.evolve(spec, options={"output_format": "parquet"})
    same(lab, spec)
    assert lab.left() == []


def _csv(lab, table):
    path = lab.folder / "in.csv"
    arrow_csv.write_csv(table, path)
    lines = path.read_text().splitlines()
    lines[20] = "not,enough"
    lines[40] = "1039,abc,3"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_csv_with_rows_that_cannot_be_read(lab):
    spec = lab.spec(_csv(lab, lab.table(150, {3: 666.0, 50: 777.0})), max_bad_rows=None)
    same(lab, attrs.evolve(spec, options={"part_bytes": "500"}))
    assert {each["row"] for each in lab.quarantine()} == {3, 19, 39, 50}


def test_compressed_json_lines(lab):
    import orjson

    rows = lab.table(120, {7: 666.0}).to_pylist()
    lines = [orjson.dumps(row) for row in rows]
    lines[30] = b"{broken"
    path = lab.folder / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    same(lab, lab.spec(path, output="out.jsonl", max_bad_rows=None))


def test_several_files_and_kept_columns(lab):
    first = lab.write(lab.table(90, {5: 666.0}), "a.parquet")
    second = lab.write(lab.table(60, {6: 777.0}), "b.parquet")
    same(lab, lab.spec(first, second, keep=("y",), max_bad_rows=None))
    assert lab.result().column_names == ["id", "y", "prediction"]


def test_columns_of_other_names(lab):
    table = lab.table(60).rename_columns(["id", "one", "two"])
    same(lab, lab.spec(lab.write(table), columns={"x": "one", "y": "two"}))


def test_every_type_of_value_goes_there_and_back_exactly(odd):
    rng = np.random.default_rng(5)
    count = 160
    text = np.array([f"t{at} ü \"'\\\n\t" for at in range(count)], dtype=object)
    text[[4, 60]], text[[9, 61]] = "raise", "none"
    gap = rng.normal(size=count)
    gap[[1, 40]], gap[[2, 41]] = np.inf, np.nan
    big = rng.integers(-(2**63), 2**63 - 1, size=count)
    table = pa.table({
        "id": np.arange(count),
        "f32": rng.normal(size=count).astype(np.float32),
        "big": big,
        "small": rng.integers(0, 255, size=count).astype(np.uint8),
        "flag": rng.integers(0, 2, size=count).astype(bool),
        "gap": gap,
        "text": text,
        "vector": list(rng.normal(size=(count, 2))),
    })  # fmt: skip
    result = same(odd, odd.spec(odd.write(table), max_bad_rows=None))
    assert result.num_rows == count - 4
    assert result.column("big").to_pylist() == [each for at, each in enumerate(big) if at not in {4, 60, 9, 61}]
    assert np.isinf(result.column("number").to_numpy()).sum() == 2


def test_the_error_of_too_many_bad_rows_is_the_same(lab):
    spec = lab.spec(lab.write(lab.table(150, SPECIAL)), max_bad_rows=2)
    failed = lab.run(spec)
    phase, _output, job = locally(lab, spec)
    assert (failed.phase, phase) == (Phase.FAILED, Phase.FAILED)
    said = job.progress().note.replace("local-out", "out")
    assert failed.note.partition(": row")[0] == said.partition(": row")[0]
    assert "row 3 of" in failed.note
    assert "row 3 of" in said
