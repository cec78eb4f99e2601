"""Jobs in a temporary directory, and small models: a predictor in this process, or a bundle that workers load without scikit-learn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.scoring.job import Job, Request
from modeldeploy.scoring.partwork import PartWork
from modeldeploy.scoring.pool import InlinePool
from modeldeploy.scoring.runner import run
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.ticket import Phase

RAISES, NAN, KILLS = 666.0, 777.0, 888.0
"""Values of ``x`` that the models choke on."""


class Doubler:
    """Answers ``2 x + y``; raises, or answers NaN, on the special values. Counts the rows that it saw."""

    def __init__(self) -> None:
        self.rows = 0
        self.on_call: Callable[[], object] = lambda: None

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.on_call()
        if (inputs["x"] == RAISES).any():
            message = "the number of the beast"
            raise ValueError(message)
        self.rows += len(inputs["x"])
        return {"prediction": np.where(inputs["x"] == NAN, np.nan, 2 * inputs["x"] + inputs["y"])}


SIGNATURE = Signature(
    inputs=(Field("x", DType.FLOAT64), Field("y", DType.INT64)), outputs=(Field("prediction", DType.FLOAT64),)
)
MODEL = ModelVersion("doubler", "1.0.0", "sha256:" + "0" * 64, "nowhere", "function", SIGNATURE)


@attrs.frozen
class Lab:
    """A temporary directory with a job's input and output in it."""

    folder: Path

    def table(self, rows: int, *, special: Mapping[int, float] | None = None) -> pa.Table:
        x = np.arange(rows, dtype=np.float64) / -4
        for row, value in (special or {}).items():
            x[row] = value
        return pa.table({"id": np.arange(rows) + 1000, "x": x, "y": np.arange(rows) % 7})

    def write(self, table: pa.Table, name: str = "in.parquet", *, row_group: int = 50) -> Path:
        path = self.folder / name
        pq.write_table(table, path, row_group_size=row_group)
        return path

    def job(self, *sources: Path, output: str = "out.parquet", name: str = "the-job", **options: Any) -> Job:
        settings: dict[str, Any] = {"model": MODEL, "key": "id", "chunk_rows": 10, "workers": 1, **options}
        extra = {"trust": settings.pop("trust", ()), "overwrite": settings.pop("overwrite", False)}
        place = f"{self.folder / output}/" if output.endswith("/") else str(self.folder / output)
        spec = BatchSpec(name=name, source=tuple(map(str, sources)), output=place, **settings)
        job = Job(self.folder / "jobs" / name)
        job.put(Request(spec, **extra))
        return job

    def run(self, job: Job, model: Any = None) -> Phase:
        """Run a job in this process."""
        model = model or Doubler()
        return run(job, lambda job, _size: _inline(job, model))

    def quarantine(self, output: str = "out.parquet") -> list[dict[str, Any]]:
        path = self.folder / f"{output.rstrip('/')}.quarantine.jsonl"
        return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def check(self, table: pa.Table, *, without: Any = (), output: str = "out.parquet") -> None:
        """Assert that the output holds every row exactly once, in order, but those set aside."""
        path = self.folder / output
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        result = pa.concat_tables([pq.read_table(file, use_threads=False) for file in files])
        good = np.setdiff1d(np.arange(table.num_rows), sorted(without))
        wanted = table.take(good)
        assert result.column("id").to_pylist() == wanted.column("id").to_pylist()
        x, y = wanted.column("x").to_numpy(), wanted.column("y").to_numpy()
        assert (result.column("prediction").to_numpy() == 2 * x + y).all()
        assert [each["row"] for each in self.quarantine(output)] == sorted(without)


def _inline(job: Job, model: Any) -> InlinePool:
    return InlinePool(PartWork(model, job))


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


def _score(columns: Any) -> Any:
    import os
    import signal

    x = columns["x"]
    if (x == 888.0).any():
        os.kill(os.getpid(), signal.SIGSEGV)
    if (x == 666.0).any():
        message = "the number of the beast"
        raise ValueError(message)
    return 2.0 * x + columns["y"]


@pytest.fixture(scope="session")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a bundle of a plain function, which a worker loads in a fraction of a second; trusted by its store."""
    store = Store(tmp_path_factory.mktemp("store"))
    example = {"x": np.array([0.5, 1.0]), "y": np.array([1, 2])}
    return package(_score, name="scorer", version="1.0.0", example=example, store=store)


@pytest.fixture
def start_runner() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give ``start_runner(job)``: the real runner as a process; ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(job: Job, **environ: str) -> subprocess.Popen[bytes]:
        with job.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "modeldeploy.scoring", str(job.home)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environ},
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
