"""What a process that scores does not import on its way: pandas, which takes as long as a million rows."""

from __future__ import annotations

import importlib.util

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.scoring.processes import ProcessPool
from modeldeploy.scoring.runner import run
from modeldeploy.values.ticket import Phase


def _looks_for_pandas(columns):
    import sys

    import numpy as np

    if (columns["x"] == 666.0).any():
        message = "the number of the beast"
        raise ValueError(message)
    x = columns["x"] + np.nan_to_num(columns["gaps"])
    # Not for the example, which is answered where it is loaded.
    return {"same": np.where(x == 777.0, np.nan, x), "has_pandas": ("pandas" in sys.modules) & (x >= 1.0)}


@pytest.fixture
def scored(lab):
    """Give ``scored(**columns)``: run them through the model, three chunks of one part, and give what came out."""

    def score(output="out.parquet", **more):
        x = np.arange(300.0)
        x[[7, 50, 60]] = np.inf, 777.0, 666.0
        gaps = pa.array([None if at % 3 else at for at in range(300)], pa.int64())
        path = lab.folder / "in.parquet"
        pq.write_table(pa.table({"id": np.arange(300), "x": x, "gaps": gaps, **more}), path)
        store = Store(lab.folder / "store")
        example = {"x": np.array([0.5]), "gaps": np.array([np.nan])}
        bundle = package(_looks_for_pandas, name="looks", version="1.0.0", example=example, store=store)
        job = lab.job(
            path, model=bundle.model_version(), trust=(bundle.digest,), chunk_rows=100, max_bad_rows=3, output=output
        )
        assert run(job, lambda job, most: ProcessPool(job.home, most)) is Phase.SUCCEEDED, job.progress().note
        assert [each["row"] for each in lab.quarantine(output)] == [7, 50, 60]
        return lab.folder / output

    return score


def test_numbers_gaps_and_bad_rows_need_no_pandas(scored):
    names = pa.array([f"n{at}" for at in range(300)])
    assert not any(pq.read_table(scored(name=names)).column("has_pandas").to_pylist())


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="needs pandas")
def test_what_needs_pandas_finds_it_before_the_first_row(scored):
    """A model in another thread would find half of it otherwise."""
    moments = pa.array(np.arange(300), pa.timestamp("ns"))
    assert all(pq.read_table(scored(at=moments)).column("has_pandas").to_pylist()[1:])
