"""A converted model takes over from its original on a real endpoint, which callers do not notice."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from modeldeploy import Endpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets"),
    pytest.mark.filterwarnings("ignore:.*is slower"),
]


def test_the_converted_model_rolls_out_over_its_original_and_answers_alike(iris, model):
    table, target = iris
    original = model(LogisticRegression(max_iter=500).fit(table, target.map({0: "a", 1: "b", 2: "c"})), table.head())
    endpoint = Endpoint.deploy(original, "iris")
    try:
        before = endpoint.predict(table)
        endpoint.rollout(
            original.to_onnx(sample=table)
        )  # the golden outputs of the new revision are compared on the way
        after = endpoint.predict(table)
        assert endpoint.stable.model.version == "1.0.0+onnx"
        assert endpoint.stable.model.flavour == "onnx"
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
        assert np.asarray(after).tolist() == original.predict(table).tolist()
    finally:
        endpoint.delete()
        endpoint._session.backend.shutdown()
