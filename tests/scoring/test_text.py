"""CSV and JSON Lines: cut anywhere, read back exactly; what cannot be read is named, not lost."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.scoring import csvtext, jsontext, render
from modeldeploy.scoring.formats import Format

CSV = Format("csv")
NASTY = st.text(st.sampled_from(list('ab",\n\r;\t é\\')), max_size=6)
SCHEMA = pa.schema([("a", pa.string()), ("b", pa.string())])


def _written(rows, ending="\n"):
    out = io.StringIO()
    # The csv module of Python 3.11 does not quote a lone carriage return.
    lone = any("\r" in value for row in rows for value in row)
    writer = csv.writer(out, lineterminator=ending, quoting=csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL)
    writer.writerows([("a", "b"), *rows])
    return out.getvalue().encode()


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(NASTY, NASTY), max_size=40), size=st.integers(1, 60), ending=st.sampled_from(["\n", "\r\n"])
)
def test_a_csv_file_cut_anywhere_gives_the_rows_of_the_whole_file(tmp_path_factory, rows, size, ending):
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    data = _written(rows, ending)
    path.write_bytes(data)
    head = csvtext.header(str(path), CSV)
    cuts = csvtext.cuts(str(path), head.start, size, ",")
    assert cuts is not None
    assert b"".join(data[a:b] for a, b in cuts) == data[head.start :]
    found = [
        tuple(row.values())
        for a, b in cuts
        for row in csvtext.parse(data[a:b], head.names, SCHEMA, ",").table.to_pylist()
    ]
    assert found == rows


def test_a_quote_inside_a_bare_field_makes_a_file_uncuttable_and_it_is_streamed(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(b'a,b\n5" pipe,1\n6" pipe,2\n7,3\n')
    head = csvtext.header(str(path), CSV)
    assert csvtext.cuts(str(path), head.start, 5, ",") is None
    rows = [row for chunk in csvtext.stream(str(path), CSV, head, SCHEMA) for row in chunk.table.to_pylist()]
    assert [row["a"] for row in rows] == ['5" pipe', '6" pipe', "7"]


@pytest.mark.parametrize("streamed", [False, True])
def test_rows_of_the_wrong_length_and_values_of_the_wrong_type_are_bad_rows(tmp_path, streamed):
    path = tmp_path / "in.csv.gz"
    data = b"a,b\n1,2\n3\n4,five\n\n6,7\n8,9,10\n"
    path.write_bytes(gzip.compress(data))
    schema = pa.schema([("a", pa.int64()), ("b", pa.float64())])
    if streamed:
        form = Format("csv", gzip=True)
        chunks = list(csvtext.stream(str(path), form, csvtext.header(str(path), form), schema))
    else:
        chunks = [csvtext.parse(data[4:], ("a", "b"), schema, ",")]
    assert sum(chunk.count for chunk in chunks) == 5
    good = {int(row): each for chunk in chunks for row, each in zip(chunk.rows, chunk.table.to_pylist(), strict=True)}
    assert good == {0: {"a": 1, "b": 2.0}, 3: {"a": 6, "b": 7.0}}
    bad = {each.row: each.reason for chunk in chunks for each in chunk.bad}
    assert bad == {
        1: "the row has 1 fields, expected 2",
        2: "column 'b' holds 'five', which is not double",
        4: "the row has 3 fields, expected 2",
    }


def test_text_that_is_not_utf8_costs_its_row_only():
    chunk = csvtext.parse(
        b"x,1\n\xff\xfe,2\ny,3\n", ("a", "b"), pa.schema([("a", pa.string()), ("b", pa.int64())]), ","
    )
    assert chunk.table.to_pylist() == [{"a": "x", "b": 1}, {"a": "y", "b": 3}]
    assert [each.row for each in chunk.bad] == [1]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"\xef\xbb\xbfa,b\n1,2\n", ("a", "b")),
        (b"a,b\r\n1,2\r\n", ("a", "b")),
        (b'"a\nx",b\n1,2\n', ("a\nx", "b")),
        (b"a,b", ("a", "b")),
    ],
)
def test_headers_are_read_as_they_are_written(tmp_path, data, names):
    path = tmp_path / "in.csv"
    path.write_bytes(data)
    assert csvtext.header(str(path), CSV).names == names


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no header"),
        (b"a,a\n1,2\n", "twice"),
        (b"\xff,b\n", "UTF-8"),
        (b"a,b\r1,2\r3,4\r", "carriage return alone"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(tmp_path, data, said):
    path = tmp_path / "in.csv"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=said):
        csvtext.header(str(path), CSV)


VALUES = st.fixed_dictionaries(
    {
        "a": st.one_of(st.none(), st.text(max_size=5)),
        "b": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    }
)
TYPED = pa.schema([("a", pa.string()), ("b", pa.float64())])


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(VALUES, max_size=30), size=st.integers(1, 60))
def test_json_lines_cut_anywhere_give_the_rows_of_the_whole_file(tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("jsonl") / "in.jsonl"
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    path.write_bytes(data)
    chunks = [jsontext.parse(data[a:b], TYPED) for a, b in jsontext.cuts(str(path), size)]
    assert [row for chunk in chunks for row in chunk.table.to_pylist()] == rows


def test_lines_that_are_no_objects_of_the_wanted_types_are_bad_rows():
    data = b'{"a":"x","b":1}\n{"a":"y"\n\n[1]\n{"a":"z","b":"two"}\n{"a":"w","b":true}\n{"b":3,"c":[1]}\n'
    chunk = jsontext.parse(data, TYPED, first=100)
    assert chunk.table.to_pylist() == [{"a": "x", "b": 1.0}, {"a": None, "b": 3.0}]
    assert chunk.rows.tolist() == [100, 105]
    assert [each.row for each in chunk.bad] == [101, 102, 103, 104]
    assert "expected an object" in chunk.bad[1].reason
    assert "'two', which is not double" in chunk.bad[2].reason
    assert chunk.count == 6


def test_a_compressed_file_of_json_lines_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(jsontext, "_BLOCK", 37)
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"a":"%d","b":%d}\n' % (n, n) for n in range(50))[:-1]))
    chunks = list(jsontext.stream(str(path), TYPED))
    assert [row["b"] for chunk in chunks for row in chunk.table.to_pylist()] == list(range(50))
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == list(range(50))


# ---------------------------------------------------------------- rendering

COLUMNS = st.fixed_dictionaries(
    {
        "s": st.one_of(st.none(), NASTY, st.text(max_size=4)),
        "f": st.one_of(st.none(), st.floats()),
        "i": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "t": st.one_of(st.none(), st.booleans()),
        "l": st.one_of(st.none(), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3)),
    }
)
RENDERED = pa.schema(
    [("s", pa.string()), ("f", pa.float64()), ("i", pa.int64()), ("t", pa.bool_()), ("l", pa.list_(pa.float64()))]
)


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(COLUMNS, min_size=1, max_size=20))
def test_json_lines_say_what_the_table_holds(rows):
    lines = render.json_lines(pa.Table.from_pylist(rows, schema=RENDERED))
    found = [json.loads(line) for line in lines.decode().split("\n")[:-1]]
    assert found == [{name: _finite(value) for name, value in row.items()} for row in rows]


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(COLUMNS, min_size=1, max_size=20))
def test_csv_lines_say_what_the_table_holds(rows):
    lines = render.csv_lines(pa.Table.from_pylist(rows, schema=RENDERED), ",")
    found = list(csv.reader(io.StringIO(lines.decode(), newline="")))
    assert len(found) == len(rows)
    for (s, f, i, t, vector), row in zip(found, rows, strict=True):
        assert s == (row["s"] or "")
        assert (f == "") == (row["f"] is None)
        assert f == "" or float(f) == row["f"] or math.isnan(row["f"])
        assert i == ("" if row["i"] is None else str(row["i"]))
        assert t == ("" if row["t"] is None else str(row["t"]).lower())
        assert vector == "" or json.loads(vector) == row["l"]


def test_empty_text_is_told_from_no_value_in_csv():
    table = pa.table({"a": pa.array(["", None], pa.string()), "b": [1, 2]})
    assert render.csv_lines(table, ",") == b'"",1\n,2\n'


def test_names_are_quoted_where_they_must_be():
    assert render.csv_header(["a", 'b"c', "d,e"], ",") == b'a,"b""c","d,e"\n'
