"""Fitted models and a store; everything real, everything small."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package
from modeldeploy.packaging.signature import to_columns
from modeldeploy.packaging.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home" / "store")


@pytest.fixture(scope="session")
def iris():
    data = load_iris(as_frame=True)
    return data.data, data.target


@pytest.fixture(scope="session")
def classifier(iris):
    table, target = iris
    return LogisticRegression(max_iter=500).fit(table, target)


@pytest.fixture(scope="session")
def mixed():
    """A table with every kind of column that a data scientist's frame has."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, 60),
            "income": np.where(rng.random(60) < 0.1, np.nan, rng.normal(50_000, 9_000, 60)),
            "city": rng.choice(["Bern", "Oslo", "Rome"], 60),
            "plan": pd.Categorical(rng.choice(["free", "pro"], 60), categories=["free", "pro", "team"]),
            "active": rng.random(60) < 0.5,
        }
    )


@pytest.fixture
def bundle(classifier, iris, store):
    return package(classifier, name="iris", version="1.0.0", example=iris[0].head(), store=store)


@pytest.fixture
def round_trip(store):
    """Package a model, load it as a worker does, and give what it answers for other data."""

    def run(model, example, data, **options):
        made = package(model, name="model", version="1.0.0", example=example, store=store, **options)
        loaded = load(made, trust=store.trusted())
        return made, loaded.predict(to_columns(data, loaded.signature))

    return run


@pytest.fixture(scope="session")
def run_python():
    """Run code in a fresh interpreter with another hash seed; give what it wrote."""

    def run(code, *arguments, seed="7"):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
