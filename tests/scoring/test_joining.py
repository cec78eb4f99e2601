"""Parquet files put one after another: what is read from the whole is what was in the parts."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.errors import IntegrityError
from modeldeploy.scoring.joining import Joining

ROWS = 20_000


@pytest.fixture(scope="module")
def table():
    numbers = np.random.default_rng(0)
    return pa.table(
        {
            "id": np.arange(ROWS),
            "measured": numbers.normal(size=ROWS),
            "gaps": pa.array([None if at % 3 else at for at in range(ROWS)]),
            "name": pa.array([f"name {at % 50}" for at in range(ROWS)]),
            "tags": pa.array([["a"] * (at % 4) for at in range(ROWS)]),
            "place": pa.array([{"zip": at, "at": [float(at)]} for at in range(ROWS)]),
        }
    )


def _file(table, **options):
    file = io.BytesIO()
    file.name = "memory"
    pq.write_table(table, file, row_group_size=3000, **options)
    return file


def _joined(*tables, **options):
    out = _file(tables[0].slice(0, 0), **options)
    joining = Joining(out)
    for each in tables:
        joining.add(_file(each, **options))
    joining.finish()
    return pq.ParquetFile(pa.py_buffer(out.getvalue()), page_checksum_verification=True)


OPTIONS = [{}, {"write_page_index": True, "write_page_checksum": True}, {"compression": "zstd", "version": "1.0"}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("step", [ROWS, 7000, 1000])
def test_the_rows_of_all_parts_are_there_in_their_order(table, step, options):
    parts = [table.slice(at, step) for at in range(0, ROWS, step)]
    file = _joined(*parts, **options)
    assert file.read().equals(table)
    assert file.metadata.num_row_groups == sum(-(-part.num_rows // 3000) for part in parts)
    assert [file.read_row_group(at).num_rows for at in range(file.num_row_groups)] == [
        min(3000, part.num_rows - at) for part in parts for at in range(0, part.num_rows, 3000)
    ]


def test_row_groups_keep_their_statistics_and_lie_where_the_footer_says(table):
    file = _joined(table.slice(0, 6000), table.slice(6000, 6000), write_page_index=True)
    groups = [file.metadata.row_group(at) for at in range(file.num_row_groups)]
    assert [group.column(0).statistics.min for group in groups] == [0, 3000, 6000, 9000]
    assert all(group.column(0).has_offset_index for group in groups)
    starts = [group.column(0).dictionary_page_offset for group in groups]
    assert starts[0] == 4
    assert starts == sorted(starts)


def test_more_columns_and_row_groups_than_a_short_list_holds():
    table = pa.table({f"c{at}": np.arange(40) for at in range(300)})
    parts = [table.slice(at, 2) for at in range(0, 40, 2)]
    assert _joined(*parts).read().equals(table)


def test_parts_without_rows_add_none(table):
    empty = table.slice(0, 0)
    assert _joined(empty, table, empty).read().equals(table)
    assert _joined(empty).read().equals(empty)


@pytest.mark.parametrize("data", [b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1", b"PAR1 and then it ends"])
def test_a_file_that_is_no_parquet_is_refused(table, data):
    joining = Joining(_file(table.slice(0, 0)))
    torn = io.BytesIO(data)
    torn.name = "torn.parquet"
    with pytest.raises(IntegrityError, match=r"torn\.parquet"):
        joining.add(torn)
