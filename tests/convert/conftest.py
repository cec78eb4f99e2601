"""Small fitted models of every family that converts; tables with and without gaps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_limits

from modeldeploy import Model
from modeldeploy.convert import timing


@pytest.fixture(scope="session", autouse=True)
def _one_thread_each():
    """Let small models compute on one thread: several wait for each other on a busy machine."""
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def budget(monkeypatch):
    """Measure for a blink; gives ``budget(seconds)`` to tests that are about times."""

    def set_to(seconds):
        monkeypatch.setattr(timing, "_BUDGET_S", seconds)

    set_to(0.02)
    return set_to


@pytest.fixture(scope="session")
def iris():
    return load_iris(return_X_y=True, as_frame=True)


@pytest.fixture(scope="session")
def smooth():
    """Numbers without ties: rows, a number to predict, and three classes that depend on them."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 6))
    number = rows[:, 0] * 2 + np.sin(rows[:, 1]) + rng.normal(scale=0.2, size=400)
    return rows, number, np.digitize(number, [-1.0, 1.0])


@pytest.fixture(scope="session")
def gappy(smooth):
    """The same rows with gaps that mean something: they are likelier where the number is large."""
    rows, number, classes = smooth
    rng = np.random.default_rng(1)
    holes = rng.random(rows.shape) < np.where(number[:, None] > 0.5, 0.3, 0.05)
    return np.where(holes, np.nan, rows), number, classes


@pytest.fixture(scope="session")
def mixed():
    """A table with every kind of column that a data scientist's frame has, and a text to predict."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age (years)": rng.integers(18, 90, 200),
            "income": rng.normal(50_000, 9_000, 200),
            "city": rng.choice(["Bern", "Oslo", "Rome"], 200),
            "plan": pd.Categorical(rng.choice(["free", "pro"], 200), categories=["free", "pro", "team"]),
            "active": rng.random(200) < 0.5,
        }
    )
    return table, np.where(table["income"] + 900 * table["active"] > 50_000, "yes", "no")


@pytest.fixture
def model(modeldeploy_home):
    """Give ``model(estimator, example, **options)``: a packaged model, version 1.0.0."""

    def make(estimator, example, name="model", **options):
        return Model(estimator, name=name, version="1.0.0", example=example, **options)

    return make
