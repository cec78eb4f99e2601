import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from modeldeploy.errors import IntegrityError
from modeldeploy.packaging.golden import Golden

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


@pytest.mark.parametrize(
    ("answer", "difference"),
    [
        ({"y": np.array([1.0, 2.0])}, None),
        ({"y": np.array([1.0, 2.0 + 1e-9])}, None),
        ({"y": np.array([1.0, 2.1])}, "differs in 1 of 2 values, first in row 1"),
        ({"y": np.array([1.0, np.nan])}, "differs in 1 of 2 values"),
        ({"y": np.array([1.0])}, r"has shape \(1,\), expected \(2,\)"),
        ({"y": texts(["1.0", "2.0"])}, "differs in 2 of 2 values"),
        ({"z": np.array([1.0, 2.0])}, "output 'y' is missing"),
        ({"y": np.array([1.0, 2.0]), "z": np.array([1.0])}, "output 'z' was not there"),
    ],
)
def test_answers_are_compared_up_to_rounding(answer, difference):
    found = Golden(inputs={}, outputs={"y": np.array([1.0, 2.0])}).differences(answer)
    if difference is None:
        assert found == ()
    else:
        assert re.search(difference, found[0])


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
