"""Real models, and a provider in memory that answers with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from modeldeploy import Endpoint, Model
from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.engine.journal import Journal
from modeldeploy.handles.session import Session
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.loading import load
from modeldeploy.serving.app import App
from modeldeploy.serving.messages import Request
from modeldeploy.values.serving import Payload


@pytest.fixture(scope="session")
def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"age": rng.integers(18, 90, 60), "income": rng.normal(50, 9, 60)})


@pytest.fixture(scope="session")
def estimator(table):
    """Give ``estimator(number)``: a fitted model for each number."""
    from sklearn.linear_model import LinearRegression

    def fit(number):
        return LinearRegression().fit(table, table["income"] * number + table["age"])

    return fit


@pytest.fixture
def model(estimator, table, modeldeploy_home):
    """Give ``model(number, columns=None)``: version 1.<number>.0 of a model."""

    def make(number, name="iris"):
        return Model(estimator(number), name=name, version=f"1.{number}.0", example=table.head())

    return make


class Provider(MemoryBackend):
    """Answers with the real models, in this process."""

    def __init__(self, **options):
        super().__init__(responder=self.respond, **{"steps": 1, **options})
        self.apps = {}

    def respond(self, endpoint, revision, payload):
        if revision not in self.apps:
            found = self.observe(endpoint).revision(revision).revision
            bundle = Bundle.open(Path(found.model.uri))
            self.apps[revision] = App(
                load(bundle, trust=(bundle.digest,)), name=endpoint, version=found.model.version, revision=revision
            )
        headers = {key: value for key, value in payload.headers.items() if key != "path"}
        request = Request("POST", payload.headers["path"], headers=headers, body=payload.body)
        (answer,) = self.apps[revision].respond_many([request])
        assert answer.status == 200, answer.body
        return Payload(answer.body, answer.headers)


@pytest.fixture
def make_session(tmp_path):
    """Give ``make_session(**options of the provider)``."""

    def make(*, provider=Provider, **options):
        backend = provider(**options)
        return Session(backend, Journal(tmp_path / "journal.sqlite"), home=tmp_path)

    return make


@pytest.fixture
def session(make_session):
    return make_session()


@pytest.fixture
def endpoint(session, model):
    """An endpoint that serves 1.1.0."""
    return Endpoint.deploy(model(1), "iris", backend=session)
