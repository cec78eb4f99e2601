"""Parquet files of results: what is encoded how, and that nothing is lost by it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.scoring.formats import Format
from modeldeploy.scoring.parquet import ROW_GROUP, repeating, rising
from modeldeploy.scoring.writing import Writer


def written(path, *tables):
    with Writer(path, Format("parquet"), tables[0].schema) as out:
        for table in tables:
            out.write(table)
    return pq.ParquetFile(path)


def encodings(file):
    group = file.metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    return {column.path_in_schema: any("DICTIONARY" in each for each in column.encodings) for column in columns}


def test_only_columns_whose_values_repeat_get_a_dictionary(tmp_path):
    rows = 10_000
    table = pa.table(
        {
            "id": np.arange(rows),
            "measured": np.random.default_rng(0).normal(size=rows),
            "class": np.arange(rows) % 3,
            "name": pa.array(["ash", "oak"] * (rows // 2)),
            "note": pa.array([f"note {at}" for at in range(rows)]),
            "null": pa.nulls(rows, pa.float64()),
        }
    )
    file = written(tmp_path / "out.parquet", table)
    assert encodings(file) == {"id": False, "measured": False, "class": True, "name": True, "note": False, "null": True}
    assert file.read().equals(table)


def test_keys_that_grow_are_written_as_differences(tmp_path):
    rows = 2 * ROW_GROUP
    measured = np.random.default_rng(0).integers(-(2**62), 2**62, rows)
    table = pa.table(
        {
            "id": np.arange(rows) + 5_000_000,
            "sorted": np.sort(measured),
            "small": np.arange(rows, dtype=np.uint32),
            "measured": measured,
            "class": np.arange(rows) % 3,
            "falls later": np.r_[np.arange(ROW_GROUP), measured[ROW_GROUP:]],
            "gap": pa.array([None, *range(1, rows)]),
            "share": np.arange(rows) / rows,
        }
    )
    assert rising(table) == ["id", "sorted", "small", "falls later"]
    file = written(tmp_path / "out.parquet", table)
    group = file.metadata.row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    assert [name for name in columns if "DELTA_BINARY_PACKED" in columns[name].encodings] == rising(table)
    assert columns["id"].total_compressed_size < ROW_GROUP / 8
    assert file.read().equals(table)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64])
def test_the_ends_of_a_type_are_told_apart_by_a_difference(tmp_path, dtype):
    ends = np.iinfo(dtype)
    table = pa.table({"x": np.array([ends.min, ends.min + 1, ends.max - 1, ends.max], dtype)})
    assert rising(table) == ["x"]
    assert written(tmp_path / "out.parquet", table).read().equals(table)


def test_columns_inside_of_lists_and_records_are_looked_at_each(tmp_path):
    rows = 1000
    table = pa.table(
        {
            "tags": pa.array([["a", "b"], None] * (rows // 2)),
            "odds": pa.FixedSizeListArray.from_arrays(pa.array(np.random.default_rng(0).normal(size=2 * rows)), 2),
            "place": pa.array([{"zip": at, "city": "Ulm"} for at in range(rows)]),
            "pairs": pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        }
    )
    file = written(tmp_path / "out.parquet", table)
    found = encodings(file)
    assert {name: found[name] for name in found if not name.startswith("pairs")} == {
        "tags.list.element": True,
        "odds.list.element": False,
        "place.zip": False,
        "place.city": True,
    }
    assert file.read().equals(table)


@pytest.mark.parametrize("values", [pa.array([], pa.int64()), pa.array([1]), pa.array([[]], pa.list_(pa.int64()))])
def test_too_few_values_to_tell_are_written_all_the_same(tmp_path, values):
    table = pa.table({"x": values})
    assert written(tmp_path / "out.parquet", table).read().equals(table)


def test_a_slice_of_a_table_is_judged_by_its_own_rows():
    table = pa.table({"x": pa.array([["same"]] * 500 + [[str(at)] for at in range(500)])})
    assert repeating(table.slice(0, 500)) == ["x.list.element"]
    assert repeating(table.slice(500)) == []


def test_row_groups_are_of_one_size_whatever_the_chunks(tmp_path):
    rows = 3 * ROW_GROUP // 2
    table = pa.table({"x": np.arange(rows)})
    step = ROW_GROUP // 8
    metadata = written(tmp_path / "out.parquet", *(table.slice(at, step) for at in range(0, rows, step))).metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [ROW_GROUP, ROW_GROUP // 2]
