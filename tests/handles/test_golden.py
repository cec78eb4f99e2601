"""The golden-output gate: on for every deployment, as strict as is asked for, and clear about what differs."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

from modeldeploy import Endpoint, Model, Operation, RolloutPolicy
from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.errors import ConfigurationError, OperationFailed, RolloutAborted
from modeldeploy.handles import golden
from modeldeploy.packaging.golden import Golden
from modeldeploy.values.serving import Payload, Revision
from modeldeploy.values.tolerance import Tolerance


def drift(session, by=1e-3):
    """Let one value of every answer of this provider be ``by`` too large."""
    real = session.backend._responder

    def respond(endpoint, revision, payload):
        answer = real(endpoint, revision, payload)
        size = int(answer.headers["inference-header-content-length"])
        values = np.frombuffer(answer.body[size:], dtype="<f8").copy()
        values[1] += by
        return Payload(answer.body[:size] + values.tobytes(), answer.headers)

    session.backend._responder = respond
    return session


@pytest.fixture
def drifting(session):
    return drift(session)


def test_a_difference_names_row_values_and_tolerance_and_nothing_is_left(drifting, model):
    with pytest.raises((OperationFailed, RolloutAborted)) as caught:
        Endpoint.deploy(model(1), "iris", backend=drifting)
    text = str(caught.value)
    assert "iris 1.1.0 does not reproduce its golden outputs on endpoint 'iris'" in text
    assert "differs in 1 of 5 values, first in row 1: expected" in text
    assert "largest difference 0.001; allowed for float64 are rtol 1e-06 and atol 1e-09" in text
    assert drifting.backend.observe("iris") is None


@pytest.mark.parametrize("asked", [False, Tolerance(float64=(0, 2e-3)), {"float64": (0, 2e-3)}, {"float64": 1e-3}])
def test_what_is_rounding_may_be_allowed(drifting, model, asked):
    endpoint = Endpoint.deploy(model(1), "iris", backend=drifting, golden=asked)
    assert len(endpoint.traffic) == 1
    told = [event.fields for event in endpoint.operation.events() if event.name.value == "golden.checked"]
    assert [fields["asked"] for fields in told] == [asked is not False]


def test_the_tolerance_is_journalled_with_the_rollout(drifting, model):
    endpoint = Endpoint.deploy(model(1), "iris", backend=drifting, golden={"float64": 0.01})
    cursor = drifting.journal.read(endpoint.operation.id).cursor
    assert json.loads(json.dumps(cursor))["tolerance"]["float64"] == [0.01, 1e-9]


@pytest.mark.parametrize(
    "policy",
    [
        RolloutPolicy.all_at_once(),
        RolloutPolicy.canary((10,), soak=0),
        RolloutPolicy.blue_green(bake=0),
        RolloutPolicy.shadow(soak=0),
    ],
    ids=str,
)
def test_it_is_on_for_every_rollout_and_comes_before_traffic(endpoint, session, model, policy):
    drift(session)
    before = dict(endpoint.traffic)
    with pytest.raises((OperationFailed, RolloutAborted), match="does not reproduce"):
        endpoint.rollout(model(2), policy)
    assert endpoint.traffic == before
    assert not [write for write in session.backend.writes if write.verb == "set-traffic"]
    assert len(endpoint.revisions) == 1


def test_a_tighter_tolerance_refuses_what_the_usual_one_allows(endpoint, session, model):
    drift(session, 1e-8)
    endpoint.rollout(model(2))
    with pytest.raises((OperationFailed, RolloutAborted), match="rtol 0 and atol 0"):
        endpoint.rollout(model(3), golden=Tolerance(float64=(0, 0)))


def test_a_wrong_tolerance_is_refused_before_anything_is_sent(session, model):
    with pytest.raises(ConfigurationError, match="names the type 'float'"):
        Endpoint.deploy(model(1), "iris", backend=session, golden={"float": 1e-3})
    assert session.backend.writes == []
    assert Operation.unfinished(backend=session) == ()


def test_where_a_call_cannot_name_its_revision_only_the_first_is_asked(make_session, model):
    session = drift(make_session(capabilities=attrs.evolve(EVERYTHING, pinned_invoke=False)))
    with pytest.raises((OperationFailed, RolloutAborted), match="does not reproduce"):
        Endpoint.deploy(model(1), "iris", backend=session)
    endpoint = Endpoint.deploy(model(1), "iris", backend=session, golden=False)
    rollout = endpoint.rollout(model(2))
    told = [event.fields for event in rollout.operation.events() if event.name.value == "golden.checked"]
    assert [fields["asked"] for fields in told] == [False]


def test_texts_and_matrices_are_compared_too(session, table):
    from sklearn.linear_model import LogisticRegression

    words = np.where(table["income"] > 50, "high", "low")
    fitted = LogisticRegression(max_iter=500).fit(table, words)
    for method in ("predict", "predict_proba"):
        made = Model(fitted, name=method.replace("_", "-"), version="1.0.0", example=table.head(), method=method)
        endpoint = Endpoint.deploy(made, backend=session)
        assert len(endpoint.predict(table.head(3))) == 3


def test_an_answer_by_another_revision_proves_nothing(endpoint, session, model):
    endpoint.rollout(model(2))
    first, second = (each.revision for each in endpoint.revisions)
    with pytest.raises(OperationFailed, match=f"for '{first.id}' was answered by '{second.id}'"):
        golden.check(session.backend, "iris", first, pinned=False)
    golden.check(session.backend, "iris", second, pinned=False)


def test_a_model_without_golden_outputs_has_nobody_to_vouch_for_it(endpoint, session, model, monkeypatch):
    monkeypatch.setattr(golden, "examples", lambda _model: Golden({"x": np.zeros(2)}, {}))
    revision = Revision.of(model(1).identity)
    with pytest.raises(OperationFailed, match="has no golden outputs to be held against") as caught:
        golden.check(session.backend, "iris", revision, pinned=True)
    assert "golden=False" in caught.value.hint
    plan = endpoint.plan(model(2))
    assert "packaged without any; package it again with example=" in str(plan)


def test_a_bundle_that_cannot_be_read_is_refused_in_the_plan(endpoint, model):
    made = model(2)
    (Path(made.uri) / "golden.json").unlink()
    (refused,) = endpoint.plan(made).refused
    assert refused.what == "golden outputs"
