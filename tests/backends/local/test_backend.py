"""The whole life of endpoints on this machine, with real processes."""

from __future__ import annotations

import threading
import time

import psutil
import pytest
import urllib3

from modeldeploy.backends.local import backend
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    IntegrityError,
    InvalidRequestError,
    NotFoundError,
    PredictionError,
)
from modeldeploy.values.serving import EndpointSpec, Payload, Revision
from modeldeploy.values.ticket import Phase


def test_an_endpoint_lives_from_deploy_to_delete(local):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    state = local.backend.observe("iris")
    assert state.traffic.live == {first.id: 100}
    assert [each.ready for each in state.revisions] == [True, True]
    assert state.settled
    assert local.predict(1.0, 5.0) == [2.0, 6.0]
    assert local.predict(1.0, revision=second.id) == [3.0]
    assert local.shift({second.id: 100}).phase is Phase.SUCCEEDED
    assert local.predict(1.0) == [3.0]
    assert local.carry(local.backend.drop_revision("iris", first.id)).phase is Phase.SUCCEEDED
    assert [each.revision.id for each in local.backend.observe("iris").revisions] == [second.id]
    assert list(local.backend.endpoints()) == ["iris"]
    assert local.carry(local.backend.drop_endpoint("iris")).phase is Phase.SUCCEEDED
    assert local.backend.observe("iris") is None
    assert list(local.backend.endpoints()) == []
    with pytest.raises(NotFoundError, match="no endpoint 'iris'"):
        local.predict(1.0)


def test_the_answer_names_its_revision(local, query):
    first = local.revision(1)
    local.deploy(first)
    answer = local.backend.invoke("iris", query(1.0), timeout=5)
    assert answer.headers["modeldeploy-revision"] == first.id


def test_a_caller_s_mistake_is_an_invalid_request(local):
    local.deploy(local.revision(1))
    with pytest.raises(InvalidRequestError):
        local.backend.invoke("iris", Payload(b"{", {"content-type": "application/json"}), timeout=5)


def test_a_model_s_failure_is_a_prediction_error(local):
    local.deploy(local.revision(1))
    with pytest.raises(PredictionError) as caught:
        local.predict(-3.0)
    assert caught.value.status == 500
    assert local.predict(1.0) == [2.0]


def test_an_unknown_pinned_revision_is_not_found(local):
    local.deploy(local.revision(1))
    with pytest.raises(NotFoundError):
        local.predict(1.0, revision="v9-none")


def test_a_stale_expectation_is_a_conflict_and_an_equal_table_is_not(local):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    seen = local.backend.observe("iris").version
    local.shift({first.id: 90, second.id: 10}, expect=seen)
    with pytest.raises(ConflictError, match="somebody else"):
        local.shift({second.id: 100}, expect=seen)
    assert local.shift({first.id: 90, second.id: 10}, expect=seen).phase is Phase.SUCCEEDED


def test_a_bundle_that_was_tampered_with_is_refused_before_anything_starts(local):
    revision = local.revision(1)
    wrong = Revision.of(type(revision.model)(
        name="model", version="1.0.0", digest="sha256:" + "0" * 64, uri=revision.model.uri,
        flavour=revision.model.flavour, signature=revision.model.signature,
    ))  # fmt: skip
    with pytest.raises(IntegrityError):
        local.backend.put_revision(EndpointSpec("iris"), wrong)
    assert local.backend.processes() == {}


@pytest.mark.parametrize(
    "options", [{"quue": "5"}, {"queue": "0"}, {"deadline": "nan"}, {"start": "thread"}, {"threads": "x"}]
)
def test_a_wrong_option_is_refused_by_name(local, options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        local.backend.put_revision(EndpointSpec("iris"), local.revision(1, **options))


def test_an_unknown_setting_is_refused(modeldeploy_home):
    with pytest.raises(ConfigurationError, match="hots"):
        LocalBackend.configure(modeldeploy_home, {"hots": "0.0.0.0"})


def test_a_port_that_is_asked_for_and_taken_is_a_conflict(local):
    local.deploy(local.revision(1))
    port = local.backend.observe("iris").url.rpartition(":")[2]
    with pytest.raises(ConflictError, match=port):
        local.deploy(local.revision(1), endpoint="other", port=port)
    assert local.backend.observe("other") is None


@pytest.mark.parametrize("refuse", [False, True], ids=["ready", "failed"])
def test_who_looks_at_a_revision_that_loads_is_answered_when_it_is_known_what_became_of_it(
    local, monkeypatch, unloadable, refuse
):
    if refuse:
        monkeypatch.setenv("REFUSE_TO_LOAD", "1")
    ticket = local.backend.put_revision(EndpointSpec("iris"), local.revision(1, model=unloadable, start="spawn"))
    ticket = local.backend.advance(ticket)
    looks, began = 0, time.monotonic()
    while not ticket.phase.ended:
        ticket = local.backend.advance(ticket)
        looks += 1
    assert ticket.phase is (Phase.FAILED if refuse else Phase.SUCCEEDED)
    # Each look but the last lasts its whole time; one that did not wait would be one of hundreds.
    assert looks <= 2 + (time.monotonic() - began) / backend._OUTCOME_S


def test_who_looks_at_a_revision_that_is_gone_is_answered_at_once(local):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first)
    ticket = local.backend.advance(local.backend.put_revision(EndpointSpec("iris"), second))
    local.carry(local.backend.drop_revision("iris", second.id))
    ticket = local.backend.advance(ticket)
    assert ticket.phase is Phase.FAILED
    assert "somebody else dropped it" in ticket.note


@pytest.mark.row(7)
def test_a_model_that_kills_its_worker_while_it_loads_is_quoted_and_its_log_named(local, monkeypatch, dying):
    revision = local.revision(1, model=dying)
    monkeypatch.setenv("DIE_WHILE_LOADING", "1")
    ticket = local.carry(local.backend.put_revision(EndpointSpec("iris"), revision))
    assert ticket.phase is Phase.FAILED
    assert "exit code 7" in ticket.note
    assert "libgpu: no device found" in ticket.note
    assert str(local.home / "local" / "logs" / "iris" / f"{revision.id}.log") in ticket.note


@pytest.mark.row(7)
def test_a_revision_that_cannot_be_loaded_fails_and_leaves_stable_alone(local, monkeypatch, unloadable):
    stable = local.revision(1)
    monkeypatch.setenv("REFUSE_TO_LOAD", "1")
    local.deploy(stable)
    monkeypatch.delenv("REFUSE_TO_LOAD")
    broken = local.revision(2, model=unloadable)
    ticket = local.carry(local.backend.put_revision(EndpointSpec("iris"), broken))
    assert ticket.phase is Phase.FAILED
    assert "RuntimeError: the weights are of another kind" in ticket.note
    state = local.backend.observe("iris")
    assert state.traffic.live == {stable.id: 100}
    assert not state.revision(broken.id).ready
    assert state.settled
    text = "\n".join(line.text for line in local.backend.lines("iris", broken.id, since=0, limit=1000))
    assert "Traceback" in text
    assert local.predict(1.0) == [2.0]
    with pytest.raises(ConflictError, match="never ready"):
        local.shift({broken.id: 100})
    assert local.carry(local.backend.drop_revision("iris", broken.id)).phase is Phase.SUCCEEDED


def test_what_a_model_prints_is_in_its_log(local, wait_until):
    revision = local.revision(1)
    local.deploy(revision)
    local.predict(-5.0)
    wait_until(
        lambda: [
            line for line in local.backend.lines("iris", revision.id, since=0, limit=100) if "says hello" in line.text
        ]
    )


def test_a_window_counts_answers_and_failures_of_each_revision(local):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    for _each in range(5):
        local.predict(1.0)
    with pytest.raises(PredictionError):
        local.predict(-3.0)
    local.predict(1.0, revision=second.id)
    window = local.backend.window("iris", first.id, 0, 1e12)
    assert (window.requests, window.errors) == (6, 1)
    assert window.quantile(0.5) > 0
    assert local.backend.window("iris", second.id, 0, 1e12).requests == 1
    assert local.backend.window("iris", first.id, 0, 1000).requests == 0


def test_a_failed_canary_is_answered_by_stable_and_counted(local, broken_model):
    stable, canary = local.revision(1), local.revision(2, model=broken_model)
    local.deploy(stable, canary)
    local.shift({stable.id: 50, canary.id: 50})
    answers = [local.predict(7.0) for _each in range(20)]
    assert answers == [[8.0]] * 20
    assert local.backend.window("iris", canary.id, 0, 1e12).errors > 0
    assert local.backend.window("iris", stable.id, 0, 1e12).errors == 0


def test_too_many_waiting_requests_are_turned_away_with_a_time_to_come_back(local, under_load):
    local.deploy(local.revision(1, queue="1"))
    with under_load(-2.0, connections=8) as load:
        while not load.statuses:
            pass
    statuses = {status for status, _revision in load.statuses}
    assert 429 in statuses
    assert statuses <= {200, 429}


def test_a_request_that_takes_too_long_ends_and_its_worker_is_replaced(local, wait_until):
    revision = local.revision(1, deadline="0.4")
    local.deploy(revision)
    (before,) = local.workers(revision)
    with pytest.raises(PredictionError) as caught:
        local.predict(-4.0)
    assert caught.value.status == 504
    wait_until(lambda: local.workers(revision) not in ([], [before]))
    wait_until(lambda: local.backend.observe("iris").revision(revision.id).ready)
    assert local.predict(1.0) == [2.0]


def test_dropping_waits_for_a_slow_request(local, wait_until):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, second)
    answers = []
    slow = threading.Thread(target=lambda: answers.append(local.predict(-2.0, revision=second.id)))
    slow.start()
    wait_until(lambda: f'inflight{{endpoint="iris",revision="{second.id}"}} 1' in _metrics(local))
    assert local.carry(local.backend.drop_revision("iris", second.id)).phase is Phase.SUCCEEDED
    slow.join()
    assert answers == [[0.0]]


def test_cancelling_a_load_leaves_nothing(local):
    ticket = local.backend.advance(local.backend.put_revision(EndpointSpec("iris"), local.revision(1)))
    cancelled = local.backend.cancel(ticket)
    assert cancelled.phase is Phase.CANCELLED


def test_several_endpoints_do_not_meet(local):
    first, second = local.revision(1), local.revision(2)
    local.deploy(first, endpoint="one")
    local.deploy(second, endpoint="two")
    assert local.predict(1.0, endpoint="one") == [2.0]
    assert local.predict(1.0, endpoint="two") == [3.0]
    local.carry(local.backend.drop_endpoint("one"))
    assert local.predict(1.0, endpoint="two") == [3.0]


def _metrics(local):
    return urllib3.request("GET", f"{local.backend.observe('iris').url}/metrics").data.decode()


def test_an_endpoint_listens_on_loopback_unless_asked_otherwise(local):
    local.deploy(local.revision())
    supervisor = psutil.Process(local.backend.processes()["supervisor"])
    assert {each.laddr.ip for each in supervisor.net_connections("inet") if each.status == "LISTEN"} == {"127.0.0.1"}
