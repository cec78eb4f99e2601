"""Requests with a key: the same caller is answered by the same revision."""

from __future__ import annotations

import asyncio
import time

import attrs
import pytest

from modeldeploy import Endpoint, RolloutPolicy
from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.errors import (
    ConfigurationError,
    NotFoundError,
    UnsupportedError,
)
from modeldeploy.handles import sticky
from modeldeploy.values.assignment import assign

SPLIT = RolloutPolicy.canary((50,), soak=600, key="header:who")
PEOPLE = [*[f"user-{number}" for number in range(24)], "Zo\u00eb"]


def answered_by(endpoint, estimator, row, key):
    """Name the model version that answered the owner of a key."""
    got = endpoint.predict(row, key=key).iloc[0]
    known = {f"1.{number}.0": pytest.approx(estimator(number).predict(row)[0]) for number in (1, 2)}
    return next(version for version, answer in known.items() if got == answer)


def assigned(endpoint, key):
    return endpoint.state.revision(assign(endpoint.traffic, key)).revision.model.version


@pytest.fixture(params=[True, False], ids=["native", "here"])
def half(request, make_session, model, wait_until):
    """An endpoint in the middle of a rollout that sticks to a key, and the rollout."""
    session = make_session(capabilities=attrs.evolve(EVERYTHING, sticky=request.param))
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    rollout = endpoint.rollout(model(2), SPLIT, wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    return endpoint, rollout


def test_a_key_is_answered_by_its_revision(half, estimator, table):
    endpoint, rollout = half
    first, row = {}, table.head(1)
    for _time in range(2):
        first = {key: answered_by(endpoint, estimator, row, key) for key in PEOPLE}
        assert first == {key: assigned(endpoint, key) for key in PEOPLE}
    assert set(first.values()) == {"1.1.0", "1.2.0"}
    assert answered_by(endpoint, estimator, row, 7) == assigned(endpoint, "7")
    rollout.promote()
    endpoint.rollback()
    # Going back counts at once for this handle, however fresh its table was.
    assert {answered_by(endpoint, estimator, row, key) for key in PEOPLE} == {"1.1.0"}


def test_keys_are_assigned_by_a_table_of_two_seconds_at_most(make_session, model, table, monkeypatch):
    session = make_session(capabilities=attrs.evolve(EVERYTHING, sticky=False))
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    endpoint.predict(table.head(1), key="a")
    looks, real, now = [], session.backend.observe, time.monotonic()
    monkeypatch.setattr(session.backend, "observe", lambda name: looks.append(name) or real(name))
    for key in PEOPLE:
        endpoint.predict(table.head(1), key=key)
    assert looks == []
    monkeypatch.setattr(sticky.time, "monotonic", lambda: now + 2.5)
    endpoint.predict(table.head(1), key="a")
    assert looks == ["iris"]


def test_a_key_finds_its_new_revision_when_the_old_one_went(make_session, model, estimator, table):
    session = make_session(capabilities=attrs.evolve(EVERYTHING, sticky=False))
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    assert answered_by(endpoint, estimator, table.head(1), "a") == "1.1.0"
    Endpoint.get("iris", backend=session).rollout(model(2), keep=0)
    assert answered_by(endpoint, estimator, table.head(1), "a") == "1.2.0"
    Endpoint.get("iris", backend=session).delete()
    with pytest.raises(NotFoundError):
        endpoint.predict(table.head(1), key="a")


def test_a_key_that_cannot_be_kept_is_refused_with_the_reason(make_session, model, table):
    lacking = attrs.evolve(EVERYTHING, sticky=False, pinned_invoke=False, why_not={"sticky": "its router draws"})
    endpoint = Endpoint.deploy(model(1), "iris", backend=make_session(capabilities=lacking))
    with pytest.raises(UnsupportedError, match="cannot keep key 'a' with one revision: its router draws") as caught:
        endpoint.predict(table.head(1), key="a")
    assert caught.value.capability == "sticky"


@pytest.mark.parametrize("key", ["", float("nan"), b"a", "a\nb", " a"])
def test_a_wrong_key_is_refused(endpoint, table, key):
    with pytest.raises(ConfigurationError, match="key"):
        endpoint.predict(table.head(1), key=key)


def test_a_key_and_a_revision_contradict_each_other(endpoint, table):
    with pytest.raises(ConfigurationError, match="say who answers"):
        endpoint.predict(table.head(1), key="a", revision="1.1.0")


def test_a_key_works_for_await_too(endpoint, table):
    assert len(asyncio.run(endpoint.aio.predict(table.head(2), key="ana"))) == 2
