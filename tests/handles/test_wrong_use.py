"""What users do wrong: it is named, nothing is left behind, and doing it right afterwards works."""

from __future__ import annotations

import pickle

import pytest

from modeldeploy import Endpoint
from modeldeploy.errors import ConfigurationError


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"policy": "canary"}, "policy is 'canary'"),
        ({"keep": "1"}, "keep is '1'"),
        ({"keep": True}, "keep is True"),
        ({"workers": "2"}, "workers is '2'"),
        ({"workers": 2.5}, "workers is 2.5"),
        ({"hardware": "gpu"}, "hardware is 'gpu'"),
        ({"golden": "no"}, "golden is 'no'"),
    ],
    ids=str,
)
def test_an_argument_of_another_kind_is_refused_and_blocks_nothing(session, model, wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        Endpoint.deploy(model(1), "iris", backend=session, **wrong)
    assert session.journal.unfinished(backend=session.backend.name) == ()
    assert Endpoint.deploy(model(1), "iris", backend=session).traffic


def test_an_option_may_be_a_number(session, model):
    endpoint = Endpoint.deploy(model(1), "iris", backend=session, options={"deadline": 2})
    assert endpoint.stable.options == {"deadline": "2"}


def test_a_row_of_a_frame_is_answered_by_one_value(endpoint, estimator, table):
    expected = estimator(1).predict(table.head(1))[0]
    assert endpoint.predict(table.astype(object).iloc[0]) == pytest.approx(expected)


def test_a_handle_says_that_it_is_found_by_name_and_not_sent(endpoint):
    with pytest.raises(TypeError, match="send its name"):
        pickle.dumps(endpoint)


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    place = tmp_path / "file"
    place.touch()
    with pytest.raises(ConfigurationError, match="MODELDEPLOY_HOME"):
        Endpoint.list(home=place / "home")
