"""What a caller may name as input, and the formats that names stand for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.scoring.formats import Format, guess
from modeldeploy.scoring.sources import resolve


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("b.parquet", "a.parquet", "sub/c.csv", "_SUCCESS", ".hidden.csv", "_part/x.csv", "readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("a.parquet", ["a.parquet"]),
        (Path("a.parquet"), ["a.parquet"]),
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("**/*.csv", ["_part/x.csv", "sub/c.csv"]),
        (".", ["a.parquet", "b.parquet", "sub/c.csv"]),
        (["b.parquet", "a.parquet"], ["b.parquet", "a.parquet"]),
    ],
)
def test_sources_become_absolute_files_in_a_fixed_order(tree, source, names):
    assert resolve(source) == tuple(str(tree / name) for name in names)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("c.parquet", "'c.parquet' does not exist"),
        ("*.orc", "no file matches"),
        ([], "empty"),
        (["a.parquet", "*.parquet"], "more than once"),
        ("_part/none", "does not exist"),
    ],
)
def test_sources_that_name_nothing_are_refused(tree, source, said):
    with pytest.raises(ConfigurationError, match=said):
        resolve(source)


def test_a_directory_without_data_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="holds no parquet"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("x.parquet", Format("parquet")),
        ("x.y.CSV", Format("csv")),
        ("x.tsv.gz", Format("csv", "\t", gzip=True)),
        ("x.ndjson", Format("jsonl")),
        ("x.jsonl.gz", Format("jsonl", gzip=True)),
        ("x.parquet.gz", None),
        ("x.gz", None),
        ("x", None),
    ],
)
def test_names_tell_the_format(name, form):
    assert guess(name) == form


@pytest.mark.parametrize("name", ["orc", "parquet.gz", "csv.zip", ""])
def test_unknown_formats_are_refused_with_the_known_ones(name):
    with pytest.raises(ConfigurationError, match=r"csv\.gz"):
        Format.named(name)


_PEAK = """
import resource, sys
from modeldeploy.scoring import plan
from modeldeploy.scoring.reading import Reader
import pyarrow as pa
files = (plan.InputFile.of(sys.argv[1]),)
parts = tuple(plan._of_groups(sys.argv[1], 0, 65536 * 4, 0))
whole = plan.Plan(files, parts, "", plan.Format("parquet"), plan.Format("parquet"), False, None, 65536)
schema = pa.schema([(f"f{n}", pa.float64()) for n in range(8)])
reader = Reader(whole, schema)
rows, first = 0, 0
for part in parts:
    for chunk in reader.chunks(part):
        rows += chunk.count
    first = first or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(len(parts), rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
def test_one_huge_row_group_is_read_in_bounded_memory(tmp_path):
    import numpy as np

    rows = 2_000_000
    column = np.random.default_rng(0).random(rows)
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({f"f{n}": column for n in range(8)}), path, row_group_size=rows, compression="none")
    assert path.stat().st_size > 50e6
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    parts, found, grown = map(int, done.stdout.split())
    assert parts == 8
    assert found == rows
    assert grown < 60, "memory grows with the part, not with the file"
