"""Options of an endpoint reach the backend, and those that it does not know are refused before anything starts."""

from __future__ import annotations

import json

import pytest

from modeldeploy import Endpoint
from modeldeploy.errors import ConfigurationError, OperationFailed


def test_an_endpoint_is_made_with_its_options(modeldeploy_home, model):
    endpoint = Endpoint.deploy(model(1), name="iris", endpoint_options={"safe_canary": False})
    state = json.loads((modeldeploy_home / "local" / "state.json").read_text())
    assert state["body"]["endpoints"]["iris"]["options"] == {"safe_canary": "False"}
    with pytest.raises(OperationFailed, match="exists with option safe_canary='False', not 'True'"):
        Endpoint.deploy(model(2), name="iris", endpoint_options={"safe_canary": True})
    endpoint.delete()
    endpoint._session.backend.shutdown()


def test_an_option_that_the_backend_does_not_know_is_refused(model):
    with pytest.raises(ConfigurationError, match="did you mean 'safe_canary'"):
        Endpoint.deploy(model(1), name="iris", endpoint_options={"safe_canari": "false"})
    plan = Endpoint.plan_deploy(model(1), name="iris", endpoint_options={"safe_canari": "false"})
    assert not plan.ok
