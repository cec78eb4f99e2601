from __future__ import annotations

import numpy as np
import pytest

from modeldeploy.packaging.containers import side_by_side


@pytest.mark.parametrize(
    "columns",
    [
        [np.array([1.5, 2.5]), np.array([3.5, 4.5])],
        [np.array([1, 2]), np.array([0.5, 1.5], dtype=np.float32), np.array([True, False])],
        [np.array([1, 2], dtype=np.uint8), np.array([-1, 3], dtype=np.int8)],
        [np.array(["a", None], dtype=object), np.array([1, 2])],
        [np.ones((2, 3)), np.zeros((2, 3))],
        [np.empty(0), np.empty(0)],
    ],
    ids=["floats", "mixed", "signs", "objects", "vectors", "no rows"],
)
def test_columns_side_by_side_are_what_numpy_stacks(columns):
    array, stacked = side_by_side(columns), np.stack(columns, axis=1)
    assert array.dtype == stacked.dtype
    assert np.array_equal(array, stacked)
    assert array.flags.c_contiguous
    assert array.flags.writeable
