from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.scoring.sharing import THREADS, threads
from modeldeploy.values.batch import BatchSpec

X = np.random.default_rng(0).normal(size=(50, 3))
Y = (X[:, 0] > 0).astype(int)
WORDS = pd.DataFrame({"word": ["ash", "oak"] * 25})
MODELS = {
    "numbers": (make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), X[:3]),
    "words": (make_pipeline(OneHotEncoder(), LogisticRegression()).fit(WORDS, Y), WORDS.head(3)),
    "own code": (make_pipeline(FunctionTransformer(lambda x: x + 1), LogisticRegression()).fit(X, Y), X[:3]),
    "a function": (lambda columns: columns["x"] * 2, {"x": np.array([1.0])}),
}


@pytest.fixture
def spec_of(tmp_path):
    def make(name):
        model, example = MODELS[name]
        packed = package(model, name="model", version="1.0.0", example=example, store=Store(tmp_path / "store"))
        return BatchSpec("job", packed.model_version(), ("in.parquet",), "out.parquet")

    return make


@pytest.mark.parametrize(("name", "shared"), [("numbers", 3), ("words", 1), ("own code", 1), ("a function", 1)])
def test_only_models_that_compute_outside_of_python_share_a_process(spec_of, name, shared):
    assert threads(spec_of(name), 3) == shared


def test_a_process_has_no_more_than_a_few_threads(spec_of):
    assert threads(spec_of("numbers"), 100) == THREADS
