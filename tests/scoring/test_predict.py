"""Chunks through a model: rows to blame are found by halving, everything else is scored in one piece."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from modeldeploy.scoring import arrays
from modeldeploy.scoring.chunks import Bad, Chunk
from modeldeploy.scoring.formats import Format
from modeldeploy.scoring.layout import Layout
from modeldeploy.scoring.predict import Caution, Scorer, TooManyBadError
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, ModelVersion, Signature

FORM = Format("parquet")
NUMBER = Field("prediction", DType.FLOAT64)


class Echo:
    """Answers its input; raises on what it is told to; remembers the sizes of its calls."""

    def __init__(self, answer=lambda x: x, bad=()):
        self.sizes, self._answer, self._bad = [], answer, list(bad)

    def predict(self, inputs):
        (values,) = inputs.values()
        self.sizes.append(len(values))
        if np.isin(values, self._bad).any():
            raise SystemExit(3)
        return {"prediction": self._answer(values)}


def _scorer(model, *fields, limit=None, caution=None, output=NUMBER, kind=None):
    field = fields[0] if fields else Field("x", DType.FLOAT64)
    version = ModelVersion(
        "model", "1.0.0", "sha256:" + "0" * 64, "nowhere", "function", Signature((field,), (output,))
    )
    spec = BatchSpec(name="the-job", model=version, source=("/in.parquet",), output="/out.parquet")
    layout = Layout.of(spec, pa.schema([("x", kind or pa.float64())]), source=FORM, target=FORM)
    seen = []
    scorer = Scorer(model, layout, limit=limit, caution=caution or Caution(), starting=lambda a, b: seen.append((a, b)))
    return scorer, seen


def _chunk(values, kind=None, first=0):
    column = pa.array(values, kind or pa.float64())
    return Chunk(pa.table({"x": column}), np.arange(first, first + len(column)), count=len(column))


def test_a_good_chunk_is_one_call():
    model = Echo()
    scorer, seen = _scorer(model)
    result = scorer.score(_chunk(np.arange(100.0)))
    assert model.sizes == [100]
    assert seen == [(0, 100), (0, 0)]
    assert result.column("prediction").to_pylist() == list(range(100))


def test_one_bad_row_among_many_costs_a_logarithm_of_calls():
    model = Echo(bad=[77.0])
    scorer, _seen = _scorer(model)
    result = scorer.score(_chunk(np.arange(1024.0)))
    assert [each.row for each in scorer.bad] == [77]
    assert scorer.bad[0].reason == "SystemExit: 3"
    assert result.num_rows == 1023
    assert len(model.sizes) == 21


@pytest.mark.parametrize(
    ("field", "kind", "values", "reasons"),
    [
        (Field("x", DType.FLOAT64), pa.float64(), [1.0, None, float("nan"), float("inf")], ["null", "NaN", "NaN"]),
        (Field("x", DType.FLOAT64, nullable=True), pa.float64(), [1.0, None, 2.0], []),
        (Field("x", DType.INT64), pa.int64(), [1, None], ["null"]),
        (Field("x", DType.INT8), pa.int64(), [1, 300], ["cannot hold exactly"]),
        (Field("x", DType.STRING), pa.string(), ["a", None], ["null"]),
        (Field("x", DType.STRING, nullable=True), pa.string(), ["a", None], []),
        (
            Field("x", DType.FLOAT64, (2,)),
            pa.list_(pa.float64()),
            [[1, 2], [1], None, [3, 4]],
            ["holds 1 values, expected 2", "null"],
        ),
        (Field("x", DType.FLOAT64, (2,)), pa.list_(pa.float64(), 2), [[1, 2], [1, float("nan")]], ["NaN"]),
        (Field("x", DType.FLOAT64, (None,)), pa.list_(pa.float64()), [[1, 2], [1]], []),
    ],
)
def test_values_that_the_signature_refuses_are_bad_rows(field, kind, values, reasons):
    scorer, _seen = _scorer(Echo(lambda x: np.ones(len(x))), field, kind=kind)
    result = scorer.score(_chunk(values, kind))
    assert len(scorer.bad) == len(reasons)
    for bad, reason in zip(scorer.bad, reasons, strict=True):
        assert reason in bad.reason
        assert "column 'x'" in bad.reason
    assert result.num_rows == len(values) - len(reasons)


def test_a_prediction_of_nan_is_a_bad_row_with_its_values():
    scorer, _seen = _scorer(Echo(lambda x: np.where(x == 2, np.nan, x)))
    result = scorer.score(_chunk([1.0, 2.0, 3.0], first=10))
    assert scorer.bad == [Bad(11, "the prediction is NaN or missing", {"x": 2.0})]
    assert result.column("x").to_pylist() == [1.0, 3.0]


def test_text_predictions_are_text():
    output = Field("prediction", DType.STRING)
    scorer, _seen = _scorer(Echo(lambda x: np.array([f"v{each:g}" for each in x], dtype=object)), output=output)
    assert scorer.score(_chunk([1.0, 2.0])).column("prediction").to_pylist() == ["v1", "v2"]


def test_vector_predictions_are_lists():
    output = Field("prediction", DType.FLOAT32, (2,))
    scorer, _seen = _scorer(Echo(lambda x: np.stack([x, -x], axis=1).astype("f4")), output=output)
    assert scorer.score(_chunk([1.0, 2.0])).column("prediction").to_pylist() == [[1, -1], [2, -2]]


@pytest.mark.parametrize("value", [1.5, 1e300, -1e300, float("nan"), float("inf")])
def test_columns_side_by_side_are_narrowed_only_where_nothing_is_lost(value):
    field = Field("input", DType.FLOAT32, (2,))
    columns = [pa.chunked_array([[0.1, value]]), pa.chunked_array([[2.0, 3.0]])]
    array = arrays.to_array(field, columns)
    wide = np.stack([column.to_numpy() for column in columns], axis=1)
    assert array.dtype == (np.float32 if value == 1.5 else np.float64)
    assert np.array_equal(array, wide.astype(array.dtype), equal_nan=True)


def test_an_answer_of_the_wrong_length_is_no_answer():
    scorer, _seen = _scorer(Echo(lambda x: x[:-1]))
    assert scorer.score(_chunk([1.0, 2.0])).num_rows == 0
    assert "0 values in 'prediction' for 1 rows" in scorer.bad[0].reason


def test_the_limit_ends_the_part_with_what_was_found():
    model = Echo(bad=[3.0, 5.0, 7.0])
    scorer, _seen = _scorer(model, limit=1)
    with pytest.raises(TooManyBadError) as caught:
        scorer.score(_chunk(np.arange(10.0)))
    assert [each.row for each in caught.value.bad] == [3, 5]


def test_a_million_nulls_stop_at_the_limit():
    scorer, _seen = _scorer(Echo(), limit=2)
    with pytest.raises(TooManyBadError) as caught:
        scorer.score(_chunk([None] * 1000))
    assert len(caught.value.bad) == 3


def test_suspect_rows_are_scored_in_pieces_and_poison_not_at_all():
    model = Echo()
    scorer, seen = _scorer(model, caution=Caution(suspects=((100, 612),), poison={3: "it died"}))
    result = scorer.score(_chunk(np.arange(1000.0)))
    assert seen[0] == (0, 100)
    assert seen[1] == (100, 102)
    assert seen[-2:] == [(612, 1000), (0, 0)]
    assert len(seen) == 259
    assert [(each.row, each.reason) for each in scorer.bad] == [(3, "it died")]
    assert result.num_rows == 999


@pytest.mark.parametrize(
    ("value", "dtype", "sound"),
    [
        (1.0, DType.FLOAT32, True),
        (1.0, DType.FLOAT64, True),
        (np.nan, DType.FLOAT64, False),
        (-np.inf, DType.FLOAT32, False),
        (1e39, DType.FLOAT32, False),
        (1e39, DType.FLOAT64, True),
    ],
)
def test_one_look_at_all_columns_finds_what_a_model_does_not_take(value, dtype, sound):
    columns = [pa.chunked_array([[1.0, 2.0]]), pa.chunked_array([[value, 4.0]])]
    matrix = arrays.sound_matrix(Field("x", dtype, (2,)), columns)
    if sound:
        assert matrix.dtype == dtype.value
        assert matrix.tolist() == [[1.0, value], [2.0, 4.0]]
    else:
        assert matrix is None


@pytest.mark.parametrize("other", [[None, 1.0], [1, 2], ["a", "b"]])
def test_what_is_no_float_is_looked_at_column_by_column(other):
    columns = [pa.chunked_array([[1.0, 2.0]]), pa.chunked_array([pa.array(other)])]
    assert arrays.sound_matrix(Field("x", DType.FLOAT32, (2,)), columns) is None
