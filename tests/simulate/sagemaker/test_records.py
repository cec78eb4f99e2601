"""Objects cut into records, payloads and filters."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.simulate.sagemaker import jsonpath, records
from modeldeploy.simulate.sagemaker.errors import ServiceError

ROW = ["a", "b", "c", "d"]
DOCUMENT = {"id": 1, "features": {"x": [1, 2]}, "SageMakerOutput": 3}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("$", ROW, ROW), ("", ROW, ROW), ("$[0]", ROW, "a"), ("$[-1]", ROW, "d"), ("$[1:]", ROW, ["b", "c", "d"]),
        ("$[:-1]", ROW, ["a", "b", "c"]), ("$[1:3]", ROW, ["b", "c"]), ("$[0,-1]", ROW, ["a", "d"]),
        ("$.features.x[0]", DOCUMENT, 1), ("$['features']", DOCUMENT, {"x": [1, 2]}),
        ("$['id','SageMakerOutput']", DOCUMENT, {"id": 1, "SageMakerOutput": 3}),
    ],
)  # fmt: skip
def test_a_path_takes_its_part(path, value, expected):
    assert jsonpath.compile_path(path)(value) == expected


@pytest.mark.parametrize("path", ["features", "$..x", "$[", "$[?(@.x)]", "$[a]", "$.", "$[1:2:3]"])
def test_a_path_that_is_not_known_is_refused(path):
    with pytest.raises(ServiceError, match="Invalid JSONPath expression"):
        jsonpath.compile_path(path)


@pytest.mark.parametrize(("path", "value"), [("$.x", {}), ("$[9]", ROW), ("$[0]", {}), ("$.x", ROW)])
def test_a_value_without_the_part_is_told(path, value):
    with pytest.raises(jsonpath.NoMatchError):
        jsonpath.compile_path(path)(value)


@given(st.lists(st.binary(min_size=1, max_size=9).filter(lambda each: b"\n" not in each)), st.booleans())
def test_payloads_hold_every_record_once_in_order_and_within_the_limit(lines, several):
    batches = list(records.payloads(lines, several=several, limit=12))
    assert [line for batch in batches for line in batch] == lines
    assert all(len(b"\n".join(batch)) <= 12 for batch in batches)
    assert several or all(len(batch) == 1 for batch in batches)


def test_a_record_that_is_too_large_is_an_error():
    with pytest.raises(records.RecordError, match="larger than the payload limit"):
        list(records.payloads([b"xxx"], several=True, limit=2))


def test_without_a_limit_everything_is_one_payload():
    assert list(records.payloads([b"a" * 100, b"b" * 100], several=True, limit=0)) == [[b"a" * 100, b"b" * 100]]


@pytest.mark.parametrize(("how", "expected"), [("None", b"a\n\nbc"), ("Line", b"a\nb\nc\n")])
def test_answers_are_put_together(how, expected):
    answers = [b"a\n", b"\nb" if how == "None" else b"b", b"c"]
    assert records.assemble(answers, how) == expected


def test_lines_of_json_are_joined_under_a_reserved_key():
    asked = records.Processing("application/jsonlines", lines=True, join=True)
    joined = asked.after([b'{"id": 1}', b"[2]"], b"10\n20\n").splitlines()
    assert [json.loads(line) for line in joined] == [
        {"id": 1, "SageMakerOutput": 10},
        {"SageMakerInput": [2], "SageMakerOutput": 20},
    ]


def test_an_answer_with_another_number_of_records_cannot_be_joined():
    asked = records.Processing("text/csv", lines=True, join=True)
    with pytest.raises(records.RecordError, match="2 records were answered with 1"):
        asked.after([b"1", b"2"], b"10")


def test_a_filter_that_finds_nothing_is_an_error():
    asked = records.Processing("text/csv", lines=True, input_filter="$[5]")
    with pytest.raises(records.RecordError, match="a filter finds nothing"):
        asked.before([b"1,2"])
