"""Memory: as much for a large file as for a small one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modeldeploy import Model

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

GROUP = 131_072
LIMIT_MB = 500
SCRIPT = """
import sys
from modeldeploy import BatchJob
model, source, output = sys.argv[1:]
BatchJob.run(model, source, output, key="id", keep=[])
"""


def _write(path: Path, groups: int) -> Path:
    numbers = np.random.default_rng(0)
    columns = {"id": pa.array(np.arange(GROUP)), **{f"f{at}": numbers.normal(size=GROUP) for at in range(10)}}
    table = pa.table(columns)
    with pq.ParquetWriter(path, table.schema, use_dictionary=False) as writer:
        for _group in range(groups):
            writer.write_table(table)
    return path


def _proportional_mb(process: psutil.Process) -> float:
    """Add up what a process holds; what it shares with others counts in part."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _peak_mb(*command: object) -> float:
    """Run a command and give the most that it and its descendants held at the same time."""
    process = subprocess.Popen([sys.executable, *map(str, command)])
    tree, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        try:
            family = [tree, *tree.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        peak = max(peak, sum(map(_proportional_mb, family)))
        time.sleep(0.01)
    assert process.wait() == 0
    return peak


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path):
    """Two million rows and eight million, through the whole of it: caller, runner, workers."""
    numbers = np.random.default_rng(0)
    rows = numbers.normal(size=(1000, 10))
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows[:, 0] > 0)
    model = Model(estimator, name="scorer", version="1.0.0", example=rows[:3])
    peaks = [
        _peak_mb(
            "-c", SCRIPT, model.uri, _write(tmp_path / f"{groups}.parquet", groups), tmp_path / f"out-{groups}.parquet"
        )
        for groups in (16, 64)
    ]
    assert pq.read_metadata(tmp_path / "out-64.parquet").num_rows == 64 * GROUP
    assert max(peaks) < LIMIT_MB, peaks
    assert max(peaks) < 1.1 * min(peaks), peaks
