"""The reference backend's own ways, beyond the suite: settings, writes, failures on demand, exact shares."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from modeldeploy import Endpoint, Model
from modeldeploy.backends.memory import EVERYTHING, MemoryBackend
from modeldeploy.errors import (
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    OperationFailed,
    PredictionError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.model import DType, Field, ModelVersion, Signature
from modeldeploy.values.serving import EndpointSpec, Payload, Revision, Traffic
from modeldeploy.values.ticket import Phase

IRIS = EndpointSpec("iris")


def revision(version):
    signature = Signature((Field("x", DType.FLOAT64),), (Field("y", DType.FLOAT64),))
    return Revision.of(ModelVersion("iris", version, "sha256:" + "ab" * 32, "/b", "function", signature))


ONE, TWO = revision("1.0.0"), revision("2.0.0")


def carry(backend, ticket):
    while not ticket.phase.ended:
        ticket = backend.advance(ticket)
    return ticket


@pytest.fixture
def backend():
    made = MemoryBackend(clock=lambda: 10.0)
    for each in (ONE, TWO):
        carry(made, made.put_revision(IRIS, each))
    return made


def test_a_home_has_one_backend_in_a_process(tmp_path):
    made = MemoryBackend.configure(tmp_path, {"steps": "1"})
    assert MemoryBackend.configure(tmp_path, {}) is made
    assert MemoryBackend.configure(tmp_path / "other", {}) is not made


@pytest.mark.parametrize(("settings", "part"), [({"step": "1"}, r"\['step'\]"), ({"steps": "few"}, "steps is 'few'")])
def test_a_wrong_setting_is_refused(tmp_path, settings, part):
    with pytest.raises(ConfigurationError, match=part):
        MemoryBackend.configure(tmp_path, settings)


def test_it_is_imported_without_heavy_modules():
    code = "import sys, modeldeploy.backends.memory; print(sorted({'numpy', 'asyncio', 'tenacity'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_its_writes_are_told_in_order(backend):
    carry(backend, backend.set_traffic("iris", Traffic.all_to(TWO.id)))
    carry(backend, backend.drop_revision("iris", ONE.id))
    carry(backend, backend.drop_endpoint("iris"))
    assert [write.verb for write in backend.writes] == [
        "create-endpoint",
        "create-revision",
        "create-revision",
        "set-traffic",
        "drop-revision",
        "drop-endpoint",
    ]


def test_a_hundred_requests_follow_the_table_exactly(backend):
    carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 93, TWO.id: 7})))
    answers = (backend.invoke("iris", Payload(b""), timeout=1.0) for _ in range(100))
    assert Counter(json.loads(answer.body)["revision"] for answer in answers) == {ONE.id: 93, TWO.id: 7}


def test_copies_are_counted_and_never_answered(backend):
    carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 100}, {TWO.id: 20})))
    for _ in range(100):
        assert backend.invoke("iris", Payload(b""), timeout=1.0).headers["modeldeploy-revision"] == ONE.id
    assert backend.window("iris", TWO.id, 0.0, 11.0).requests == 20


def test_copies_are_counted_apart_and_compared():
    """A hundred requests, twenty copies, and every answer names its revision, so that all of them differ."""
    made = MemoryBackend(clock=lambda: 10.0)
    for each in (ONE, TWO):
        carry(made, made.put_revision(IRIS, each))
    carry(made, made.set_traffic("iris", Traffic({ONE.id: 100}, {TWO.id: 20})))
    for _ in range(100):
        made.invoke("iris", Payload(b""), timeout=1.0)
    copies = made.window("iris", TWO.id, 0.0, 11.0, share=0)
    assert (copies.requests, copies.compared, copies.disagreed, copies.assigned) == (20, 20, 20, 0)
    assert made.window("iris", TWO.id, 0.0, 11.0, share=100).requests == 0
    assert made.window("iris", ONE.id, 0.0, 11.0, share=100).requests == 100


def test_copies_that_are_answered_alike_agree():
    made = MemoryBackend(clock=lambda: 10.0, responder=lambda _endpoint, _revision, payload: payload)
    for each in (ONE, TWO):
        carry(made, made.put_revision(IRIS, each))
    carry(made, made.set_traffic("iris", Traffic({ONE.id: 100}, {TWO.id: 100})))
    made.invoke("iris", Payload(b"x"), timeout=1.0)
    copies = made.window("iris", TWO.id, 0.0, 11.0, share=0)
    assert (copies.compared, copies.disagreed) == (1, 0)


def test_a_copy_that_fails_is_an_error_and_no_disagreement():
    def fail(_endpoint, revision, payload):
        if revision == TWO.id:
            raise PredictionError("boom")
        return payload

    made = MemoryBackend(clock=lambda: 10.0, responder=fail)
    for each in (ONE, TWO):
        carry(made, made.put_revision(IRIS, each))
    carry(made, made.set_traffic("iris", Traffic({ONE.id: 100}, {TWO.id: 100})))
    made.invoke("iris", Payload(b"x"), timeout=1.0)
    copies = made.window("iris", TWO.id, 0.0, 11.0, share=0)
    assert (copies.requests, copies.errors, copies.compared) == (1, 1, 0)


def test_requests_are_counted_under_the_share_that_they_were_given_at(backend):
    for share in (10, 50):
        carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 100 - share, TWO.id: share})))
        for _ in range(100):
            backend.invoke("iris", Payload(b""), timeout=1.0)
    for share in (10, 50):
        seen = backend.window("iris", TWO.id, 0.0, 11.0, share=share)
        assert (seen.requests, seen.assigned) == (share, share)
    assert backend.window("iris", TWO.id, 0.0, 11.0).requests == 60


def test_a_pinned_call_is_nobodys_share(backend):
    carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 50, TWO.id: 50})))
    backend.invoke("iris", Payload(b""), revision=TWO.id, timeout=1.0)
    assert backend.window("iris", TWO.id, 0.0, 11.0, share=50).requests == 0
    pinned = backend.window("iris", TWO.id, 0.0, 11.0)
    assert (pinned.requests, pinned.assigned) == (1, 0)


def ask(backend, key, header="modeldeploy-key"):
    answer = backend.invoke("iris", Payload(b"", {header: key}), timeout=1.0)
    return answer.headers["modeldeploy-revision"]


@pytest.mark.parametrize("header", ["modeldeploy-key", "x-user"])
def test_a_key_stays_with_its_revision_while_the_other_share_grows(backend, header):
    users = [f"user-{number}" for number in range(200)]
    seen = []
    for share in (5, 25, 50):
        carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 100 - share, TWO.id: share}, key="header:x-user")))
        first, second = ([ask(backend, user, header) for user in users] for _ in range(2))
        assert first == second
        seen.append({user for user, revision in zip(users, first, strict=True) if revision == TWO.id})
        assert abs(len(seen[-1]) - 2 * share) < 25
    assert seen[0] <= seen[1] <= seen[2]


def test_a_key_may_stand_in_a_field_of_the_request(backend):
    carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 50, TWO.id: 50}, key="field:user")))

    def ask_for(user):
        body = json.dumps({"user": user}).encode()
        return backend.invoke("iris", Payload(body), timeout=1.0).headers["modeldeploy-revision"]

    assert len({ask_for("ana") for _ in range(10)}) == 1
    assert len({ask_for(f"user-{number}") for number in range(20)}) == 2


@pytest.mark.parametrize("body", [b"", b"[1]", b"no json", b'{"other": 1}'])
def test_a_request_without_its_key_is_drawn(backend, body):
    carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 50, TWO.id: 50}, key="field:user")))
    answers = [backend.invoke("iris", Payload(body), timeout=1.0) for _ in range(100)]
    assert Counter(each.headers["modeldeploy-revision"] for each in answers) == {ONE.id: 50, TWO.id: 50}


def test_a_key_is_counted_once_in_a_rollout():
    failing = []

    def respond(_endpoint, _revision, payload):
        if failing:
            raise PredictionError("boom")
        return payload

    made = MemoryBackend(clock=lambda: 10.0, responder=respond)
    for each in (ONE, TWO):
        carry(made, made.put_revision(IRIS, each))
    carry(made, made.set_traffic("iris", Traffic({ONE.id: 50, TWO.id: 50}, key="header:x-user")))
    revision = ask(made, "ana")
    for _ in range(3):
        ask(made, "ana")
    failing.append(True)
    for _ in range(3):
        with pytest.raises(PredictionError):
            ask(made, "ana")
    seen = made.window("iris", revision, 0.0, 11.0, share=50)
    assert (seen.requests, seen.assigned, seen.errors, sum(seen.latency.values())) == (1, 1, 1, 1)


def test_the_next_rollout_counts_a_key_again(backend):
    split = Traffic({ONE.id: 50, TWO.id: 50}, key="header:x-user")
    for table in (split, Traffic.all_to(ONE.id), split):
        carry(backend, backend.set_traffic("iris", table))
        if len(table.live) > 1:
            revision = ask(backend, "ana")
    assert backend.window("iris", revision, 0.0, 11.0, share=50).requests == 2


def test_what_a_test_records_counts_under_the_share_of_the_moment(backend):
    carry(backend, backend.set_traffic("iris", Traffic({ONE.id: 90, TWO.id: 10})))
    backend.record("iris", TWO.id, requests=7, errors=2, latency=0.5)
    seen = backend.window("iris", TWO.id, 0.0, 11.0, share=10)
    assert (seen.requests, seen.errors, seen.assigned) == (7, 2, 7)
    assert seen.quantile(0.5) == pytest.approx(0.5, rel=0.1)


def test_a_failing_model_is_counted_as_an_error():
    def fail(_endpoint, _revision, _payload):
        message = "boom"
        raise PredictionError(message)

    backend = MemoryBackend(responder=fail, clock=lambda: 10.0)
    carry(backend, backend.put_revision(IRIS, ONE))
    with pytest.raises(PredictionError, match="boom"):
        backend.invoke("iris", Payload(b""), timeout=1.0)
    window = backend.window("iris", ONE.id, 10.0, 10.5)
    assert (window.requests, window.errors) == (1, 1)


def test_an_endpoint_whose_revision_is_not_ready_cannot_answer():
    backend = MemoryBackend()
    backend.advance(backend.put_revision(IRIS, ONE))
    with pytest.raises(UnavailableError, match="no revision that takes traffic"):
        backend.invoke("iris", Payload(b""), timeout=1.0)


def test_a_doomed_revision_fails_for_its_reason_and_goes_with_its_endpoint():
    backend = MemoryBackend()
    backend.doom(ONE.id, "out of memory")
    ended = carry(backend, backend.put_revision(IRIS, ONE))
    assert (ended.phase, ended.note) == (Phase.FAILED, "out of memory")
    assert backend.observe("iris").revision(ONE.id).note == "out of memory"
    carry(backend, backend.drop_revision("iris", ONE.id))
    assert backend.observe("iris") is None


def test_a_revision_that_vanishes_while_it_is_made_is_a_failure(backend):
    three = revision("3.0.0")
    ticket = backend.advance(backend.put_revision(IRIS, three))
    carry(backend, backend.drop_revision("iris", three.id))
    assert carry(backend, ticket).phase is Phase.FAILED


def test_cancelling_the_first_revision_leaves_no_endpoint():
    backend = MemoryBackend()
    ticket = backend.advance(backend.put_revision(IRIS, ONE))
    assert backend.cancel(ticket).phase is Phase.CANCELLED
    assert backend.observe("iris") is None


def test_cancelling_what_ended_or_cannot_be_stopped(backend):
    ended = carry(backend, backend.put_revision(IRIS, ONE))
    assert backend.cancel(ended) == ended
    with pytest.raises(UnsupportedError, match="set-traffic cannot be stopped"):
        backend.cancel(backend.set_traffic("iris", Traffic.all_to(TWO.id)))


def test_a_cancelled_job_stays_cancelled():
    backend = MemoryBackend(steps=3)
    ticket = backend.advance(backend.put_job(BatchSpec("job-1", ONE.model, ("in",), "out")))
    assert backend.cancel(ticket).phase is Phase.CANCELLED
    assert backend.advance(ticket).phase is Phase.CANCELLED
    assert backend.observe_job("job-1").rows_done < backend.observe_job("job-1").rows_total


def test_the_last_log_lines_are_given(backend):
    for text in ("one", "two", "three"):
        backend.log("iris", ONE.id, text)
    assert [line.text for line in backend.lines("iris", ONE.id, since=0.0, limit=2)] == ["two", "three"]
    assert list(backend.lines("iris", ONE.id, since=11.0, limit=2)) == []


def test_traffic_to_an_endpoint_that_vanished_is_not_found(backend):
    ticket = backend.set_traffic("iris", Traffic.all_to(TWO.id))
    carry(backend, backend.drop_endpoint("iris"))
    with pytest.raises(NotFoundError):
        backend.advance(ticket)


def test_everything_is_declared_but_what_it_has_not():
    assert not EVERYTHING.durable
    assert not EVERYTHING.edge


def test_asked_for_by_name_it_answers_with_the_real_models(modeldeploy_home):
    rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
    model = LogisticRegression().fit(rows, [0, 0, 1, 1])
    endpoint = Endpoint.deploy(
        Model(model, name="double", version="1.0.0", example=rows), name="real", backend="memory"
    )
    assert endpoint.predict(rows).tolist() == model.predict(rows).tolist()
    with pytest.raises(InvalidRequestError, match="'a'"):
        endpoint.predict(rows.drop(columns="a"))


def test_it_loads_no_pickled_code_into_this_process(modeldeploy_home):
    rows = pd.DataFrame({"a": [0.0, 1.0]})
    model = Model(lambda frame: frame["a"] * 2, name="double", version="1.0.0", example=rows)
    with pytest.raises(OperationFailed, match="pickled"):
        Endpoint.deploy(model, name="pickled", backend="memory")
