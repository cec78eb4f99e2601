"""Rows as lines and answers as predictions, from images of one's own, too."""

from __future__ import annotations

import io

import numpy as np
import pytest

from modeldeploy.backends.cloud.shards import Receiver, Sender, Slice, read_answers
from modeldeploy.errors import InvalidRequestError, PredictionError
from modeldeploy.values.model import DType, Field, Signature

MOST = 1 << 20
ONE = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.INT64),))
TWO = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64), Field("label", DType.STRING)))


def receive(signature, data, rows):
    return Receiver(signature, read_answers(data), most=MOST).predict({"x": np.zeros(rows)})


@pytest.mark.parametrize(("size", "pieces"), [(1, 1), (5, 5), (256, 256), (257, 129), (65_536, 256)])
def test_a_slice_is_cut_into_pieces_that_make_it_up(size, pieces):
    whole = Slice(3, 10, 10 + size)
    found = whole.cut(256)
    assert len(found) == pieces
    assert [each.start for each in found[1:]] == [each.stop for each in found[:-1]]
    assert (found[0].start, found[-1].stop) == (whole.start, whole.stop)


def test_a_piece_takes_its_lines_out_of_the_whole():
    lines = b"".join(b"%d\n" % at for at in range(10, 20))
    assert Slice(0, 12, 14).of(lines, 10) == b"12\n13\n"


def test_what_is_sent_is_a_line_for_each_row():
    out = io.BytesIO()
    sender = Sender(ONE, out, most=MOST)
    blank = sender.predict({"x": np.array([0.5, 1e-300])})
    assert (out.getvalue(), sender.rows, blank["y"].tolist()) == (b"0.5\n1e-300\n", 2, [0, 0])


def test_a_text_that_is_too_long_is_refused():
    signature = Signature((Field("t", DType.STRING),), ONE.outputs)
    with pytest.raises(InvalidRequestError, match="one request may have 10"):
        Sender(signature, io.BytesIO(), most=10).predict({"t": np.array(["x" * 20], dtype=object)})


@pytest.mark.parametrize(
    ("signature", "data", "wanted"),
    [
        (ONE, b"1\n2\n", {"y": [1, 2]}),
        (
            TWO,
            b'{"y": 1, "label": "a"}\n{"label": null, "y": "Infinity"}\n',
            {"y": [1.0, np.inf], "label": ["a", None]},
        ),
    ],
    ids=["values", "objects"],
)
def test_answers_are_read_as_images_write_them(signature, data, wanted):
    found = receive(signature, data, 2)
    assert {name: array.tolist() for name, array in found.items()} == wanted


@pytest.mark.parametrize(
    ("signature", "data", "said"),
    [
        (ONE, b"1.5\n", "holds float values, expected int64"),
        (ONE, b'"one"\n', "expected int64"),
        (ONE, b"oops\n", "no JSON"),
        (ONE, b'{"modeldeploy_error": "bad luck"}\n', "bad luck"),
        (TWO, b'{"y": 1}\n', "KeyError: 'label'"),
        (TWO, b"1\n", "TypeError"),
    ],
    ids=["float", "text", "broken", "refused", "missing", "bare"],
)
def test_an_answer_that_is_none_is_a_bad_row_with_the_reason(signature, data, said):
    with pytest.raises(PredictionError, match=said):
        receive(signature, data, 1)


def test_rows_are_taken_in_order_and_one_without_an_answer_only_when_alone():
    receiver = Receiver(ONE, read_answers(b'1\n{"modeldeploy_error": "no"}\n3\n'), most=MOST)
    for rows in (3, 2):
        with pytest.raises(PredictionError):
            receiver.predict({"x": np.zeros(rows)})
    assert receiver.predict({"x": np.zeros(1)})["y"].tolist() == [1]
    with pytest.raises(PredictionError, match="no"):
        receiver.predict({"x": np.zeros(1)})
    assert receiver.predict({"x": np.zeros(1)})["y"].tolist() == [3]
    assert (receiver.taken, receiver.short) == (3, False)
    receiver.predict({"x": np.zeros(1)})
    assert receiver.short
