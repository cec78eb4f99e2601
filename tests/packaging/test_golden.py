import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.golden import Golden, same
from modeldeploy.values.tolerance import Tolerance

_DTYPES = ["bool", "int8", "uint64", "int64", "float16", "float32", "float64"]
_ARRAYS = st.sampled_from(_DTYPES).flatmap(lambda dtype: nst.arrays(dtype, nst.array_shapes(max_dims=3, max_side=4)))
_TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=5)), min_size=1, max_size=4)


def texts(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@given(st.dictionaries(st.text(max_size=5), st.one_of(_ARRAYS, _TEXTS.map(texts)), max_size=3))
def test_golden_examples_are_read_exactly_as_they_were_written(columns):
    golden = Golden(inputs=columns, outputs=columns)
    again = Golden.from_bytes(golden.to_bytes())
    for name, array in columns.items():
        assert again.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(again.inputs[name], array)
    assert again.to_bytes() == golden.to_bytes()
    assert not again.differences(golden.outputs)


def arrays(*, y=None, **others):
    given = {"y": y} if y is not None else {}
    return {
        name: np.array(values) if isinstance(values, list) else values for name, values in {**given, **others}.items()
    }


@pytest.mark.parametrize(
    ("answer", "difference"),
    [
        (arrays(y=[1.0, 2.0]), None),
        (arrays(y=[1.0, 2.0 + 1e-9]), None),
        (
            arrays(y=[1.0, 2.1]),
            (
                "output 'y' differs in 1 of 2 values, first in row 1: expected 2.0, got 2.1; "
                "largest difference 0.1; allowed for float64 are rtol 1e-06 and atol 1e-09"
            ),
        ),
        (
            arrays(y=[np.nan, np.nan]),
            "differs in 2 of 2 values, first in row 0: expected 1.0, got nan; allowed for float64",
        ),
        (arrays(y=[1.0]), "output 'y' has shape (1,), expected (2,)"),
        (arrays(y=texts(["1.0", "2.0"])), "differs in 2 of 2 values, first in row 0: expected 1.0, got '1.0'"),
        (
            arrays(y=[True, True]),
            "differs in 1 of 2 values, first in row 1: expected 2.0, got True; largest difference 1; no",
        ),
        (arrays(z=[1.0, 2.0]), "output 'y' is missing"),
        (arrays(y=[1.0, 2.0], z=[1.0]), "output 'z' was not there"),
    ],
)
def test_answers_are_compared_up_to_rounding(answer, difference):
    found = Golden(inputs={}, outputs={"y": np.array([1.0, 2.0])}).differences(answer)
    if difference is None:
        assert found == ()
    else:
        assert difference in found[0]


@pytest.mark.parametrize(
    ("expected", "got", "difference"),
    [
        (
            [[0.25, 0.75], [0.5, 0.5]],
            [[0.25, 0.75], [0.5, 0.25]],
            "1 of 4 values, first in row 1, column 1: expected 0.5, got 0.25",
        ),
        (
            np.zeros((2, 2, 2)),
            np.eye(8)[3].reshape(2, 2, 2),
            "1 of 8 values, first in row 0, column (1, 1): expected 0.0, got 1.0",
        ),
        (texts(["cat", "dog"]), texts(["cat", "cow"]), "1 of 2 values, first in row 1: expected 'dog', got 'cow'"),
        (texts(["cat", None]), texts(["cat", "dog"]), "first in row 1: expected None, got 'dog'"),
        (texts(["x" * 99]), texts(["y"]), f"expected '{'x' * 59}..., got 'y'"),
        ([1, 2], [1, 3], "first in row 1: expected 2, got 3; largest difference 1; no difference is allowed"),
        ([True, False], [True, True], "first in row 1: expected False, got True"),
        (
            np.float32([0.1, 0.2]),
            np.float32([0.1, 0.3]),
            "expected 0.2, got 0.3; largest difference 0.1; allowed for float32",
        ),
        (np.float16([1.0]), np.float16([2.0]), "allowed for float16 are rtol 0.005 and atol 0.001"),
        ([np.inf], [-np.inf], "expected inf, got -inf; allowed"),
    ],
)
def test_a_difference_names_its_place_and_both_values(expected, got, difference):
    (found,) = Golden({}, {"y": np.asarray(expected)}).differences({"y": np.asarray(got)})
    assert difference in found


@pytest.mark.parametrize(
    "pair",
    [
        ([np.nan, np.inf], [np.nan, np.inf]),
        (texts(["a", None, float("nan")]), texts(["a", None, float("nan")])),
        (np.float32([1.0]), np.float64([1.0 + 5e-5])),
        (np.float64([2.0]), [2]),
    ],
)
def test_what_is_missing_or_rounded_on_both_sides_is_the_same(pair):
    expected, got = (np.asarray(each) for each in pair)
    assert same(expected, got).tolist() == [True] * len(expected)


def test_other_shapes_are_never_the_same():
    assert same(np.zeros(0), np.zeros(3)).tolist() == [False]


def test_what_may_differ_is_adjustable_by_type():
    expected, got = np.float64([1.0, 2.0]), np.float64([1.0, 2.001])
    assert same(expected, got).tolist() == [True, False]
    assert same(expected, got, Tolerance(float64=(1e-3, 0))).all()
    assert not same(expected, got, Tolerance(float32=(1.0, 1.0))).all()


def test_examples_without_outputs_have_no_rows():
    assert Golden({"x": np.zeros(3)}, {}).rows == 0
    assert Golden({"x": np.zeros(3)}, {"y": np.zeros(3)}).rows == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs":{},"outputs":{"y":5}}',
        b'{"inputs":{"x":{"dtype":"object","shape":[1],"base64":"AAAA"}},"outputs":{}}',
    ],
)
def test_bytes_that_are_no_golden_examples_are_refused(data):
    with pytest.raises(IntegrityError, match="golden examples"):
        Golden.from_bytes(data)
