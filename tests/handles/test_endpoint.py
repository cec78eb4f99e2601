"""Endpoints: deploy, predict, roll out, roll back, look, delete; a provider in memory with real models."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import weakref

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from modeldeploy import Endpoint, Model, Operation, RolloutPolicy
from modeldeploy.backends.memory import EVERYTHING, MemoryBackend
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OperationCancelled,
    OperationFailed,
    OperationTimeout,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.handles.rollout import Rollout
from modeldeploy.handles.session import Session
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import to_json
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic
from modeldeploy.values.ticket import Phase

SLOW = RolloutPolicy.canary((10,), soak=600)


def versions(endpoint):
    return {endpoint.state.revision(name).revision.model.version: share for name, share in endpoint.traffic.items()}


# ---------------------------------------------------------------- deploying


def test_the_same_model_again_is_no_work(endpoint, session, model):
    before = list(session.backend.writes)
    again = Endpoint.deploy(model(1), "iris", backend=session)
    assert again.operation is None
    assert session.backend.writes == before
    assert len(endpoint.history) == 1


def test_another_model_is_rolled_out(endpoint, session, model):
    Endpoint.deploy(model(2), "iris", backend=session)
    assert versions(endpoint) == {"1.2.0": 100}
    assert [line.entry.what for line in endpoint.history] == ["promoted", "promoted"]


def test_a_bare_estimator_needs_an_example(session, estimator):
    with pytest.raises(ConfigurationError, match="example"):
        Endpoint.deploy(estimator(1), "iris", backend=session)
    assert session.backend.writes == []


def test_a_bare_estimator_with_an_example_is_packaged(session, estimator, table):
    endpoint = Endpoint.deploy(estimator(1), "iris", backend=session, example=table.head())
    assert versions(endpoint) == {"1.0.0": 100}


def test_a_model_uri_is_found_in_the_store(session, model):
    model(1)
    endpoint = Endpoint.deploy("models:/iris/1.1.0", backend=session)
    assert (endpoint.name, versions(endpoint)) == ("iris", {"1.1.0": 100})
    with pytest.raises(ConfigurationError, match="names no version"):
        Endpoint.deploy("models:/iris", backend=session)


def test_an_unknown_endpoint_is_not_found_and_the_nearest_is_named(endpoint, session):
    with pytest.raises(NotFoundError, match="did you mean 'iris'"):
        Endpoint.get("irsi", backend=session)
    assert [each.name for each in Endpoint.list(backend=session)] == ["iris"]
    assert Endpoint.get("iris", backend=session).url == "memory://iris"


def test_a_failed_first_deployment_leaves_nothing(session, model):
    made = model(1)
    session.backend._responder = lambda *_call: (_ for _ in ()).throw(InvalidRequestError("no"))
    with pytest.raises(OperationFailed):
        Endpoint.deploy(made, "iris", backend=session)
    assert session.backend.observe("iris") is None


@pytest.mark.parametrize("keep", [-1])
def test_a_wrong_keep_is_refused(endpoint, model, keep):
    with pytest.raises(ConfigurationError, match="keep is -1"):
        endpoint.rollout(model(2), keep=keep)


def test_a_deployment_can_be_awaited(session, model):
    async def main():
        return await Endpoint.deploy(model(1), "iris", backend=session, wait=False)

    assert versions(asyncio.run(main())) == {"1.1.0": 100}


# ---------------------------------------------------------------- predicting


def kinds(table):
    rows = table.head(3)
    return {
        "pandas": rows,
        "polars": pl.from_pandas(rows),
        "pyarrow": pa.Table.from_pandas(rows, preserve_index=False),
        "dict of lists": {name: rows[name].tolist() for name in rows},
        "list of dicts": rows.to_dict("records"),
    }


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("pandas", pd.Series),
        ("polars", pl.Series),
        ("pyarrow", pa.Array),
        ("dict of lists", list),
        ("list of dicts", list),
    ],
)
def test_the_answer_comes_in_the_kind_of_the_question(endpoint, estimator, table, kind, answer):
    given = kinds(table)[kind]
    got = endpoint.predict(given)
    assert isinstance(got, answer)
    values = got.to_pylist() if kind == "pyarrow" else list(got)
    assert values == pytest.approx(estimator(1).predict(table.head(3)))


def test_the_index_of_a_frame_is_kept(endpoint, table):
    rows = table.iloc[[7, 3]]
    assert endpoint.predict(rows).index.tolist() == [7, 3]


def test_one_row_gives_one_answer(endpoint, estimator, table):
    got = endpoint.predict({"age": 30, "income": 50.0})
    assert got == pytest.approx(estimator(1).predict(pd.DataFrame({"age": [30], "income": [50.0]}))[0])


def test_an_array_gives_an_array(session, table):
    from sklearn.linear_model import LogisticRegression

    rows, high = table.to_numpy(), table["income"] > 50
    fitted = LogisticRegression(max_iter=500).fit(rows, high)
    endpoint = Endpoint.deploy(
        Model(fitted, name="array", version="1.0.0", example=rows[:5], method="predict_proba"), backend=session
    )
    got = endpoint.predict(rows[:4])
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, fitted.predict_proba(rows[:4]))


def test_a_wrong_input_names_its_column_and_is_not_sent(endpoint, session, table):
    asked = session.backend._endpoints["iris"].asked
    with pytest.raises(InvalidRequestError) as caught:
        endpoint.predict(table.assign(income="much"))
    assert caught.value.field == "income"
    with pytest.raises(InvalidRequestError) as caught:
        endpoint.predict(table.drop(columns="age"))
    assert caught.value.field == "age"
    assert session.backend._endpoints["iris"].asked == asked


def test_a_revision_can_be_asked_by_version(endpoint, model, estimator, table):
    endpoint.rollout(model(2))
    got = endpoint.predict(table.head(2), revision="1.1.0")
    assert got.tolist() == pytest.approx(estimator(1).predict(table.head(2)))
    with pytest.raises(NotFoundError, match=r"9\.9\.9"):
        endpoint.predict(table, revision="9.9.9")


def test_a_new_models_signature_is_learned(endpoint, session, table):
    from sklearn.linear_model import LinearRegression

    endpoint.predict(table.head(1))
    other = table.assign(height=1.0)
    fitted = LinearRegression().fit(other, other["income"])
    Endpoint.deploy(Model(fitted, name="iris", version="2.0.0", example=other.head()), "iris", backend=session)
    assert len(endpoint.predict(other.head(2))) == 2
    with pytest.raises(InvalidRequestError):
        endpoint.predict(table.head(2))


# ---------------------------------------------------------------- rolling out and back


def test_gates_without_time_to_look_are_refused_before_anything_starts(endpoint, model):
    hasty = RolloutPolicy.blue_green(bake=0, gates=["error_rate <= 1%"])
    with pytest.raises(ConfigurationError, match="has gates and no time in which they could look"):
        endpoint.rollout(model(2), hasty)
    assert endpoint.operation.record.kind.value == "rollout"
    assert len(endpoint.history) == 1


def test_the_path_of_a_bundle_can_be_rolled_out(endpoint, model):
    endpoint.rollout(model(2).uri)
    assert endpoint.stable.model.digest == model(2).digest


def test_patience_ends_and_the_work_goes_on(endpoint, model):
    with pytest.raises(OperationTimeout) as caught:
        endpoint.rollout(model(2), SLOW, timeout=0.2)
    rollout = Rollout.get(caught.value.context["operation"], backend=endpoint._session)
    assert rollout.status == "running"
    rollout.promote()
    assert rollout.status == "succeeded"
    assert versions(endpoint) == {"1.2.0": 100}


def test_a_rollout_is_paused_resumed_and_aborted(endpoint, model, wait_until):
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    rollout.pause("lunch")
    rollout.wait(10)
    assert (rollout.status, rollout.outcome) == ("paused", "paused: lunch")
    rollout.resume()
    wait_until(lambda: rollout.status == "running")
    assert endpoint.stable.model.version == "1.1.0"
    rollout.abort("no")
    assert rollout.status == "cancelled"
    assert versions(endpoint) == {"1.1.0": 100}
    with pytest.raises(OperationCancelled, match="no"):
        rollout.wait()
    with pytest.raises(ConflictError, match="has ended"):
        rollout.pause()


def test_a_second_rollout_waits_for_the_first(endpoint, model):
    first = endpoint.rollout(model(2), SLOW, wait=False)
    with pytest.raises(ConflictError, match="not finished"):
        endpoint.rollout(model(3))
    assert endpoint.rollout(model(2), SLOW, wait=False).id == first.id
    first.abort()


def test_rolling_back_twice_goes_two_steps_back(endpoint, model):
    endpoint.rollout(model(2))
    endpoint.rollout(model(3))
    endpoint.rollback(reason="worse")
    assert versions(endpoint) == {"1.2.0": 100}
    endpoint.rollback()
    assert versions(endpoint) == {"1.1.0": 100}
    with pytest.raises(NotFoundError, match="no earlier revision"):
        endpoint.rollback()
    endpoint.rollback(to="1.3.0")
    assert versions(endpoint) == {"1.3.0": 100}
    assert endpoint.history.verify() == 6


def test_a_rollback_ends_a_running_rollout(endpoint, model, wait_until):
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    endpoint.rollback()
    assert versions(endpoint) == {"1.1.0": 100}
    assert rollout.status == "cancelled"
    with pytest.raises(OperationCancelled, match="superseded"):
        rollout.wait()


def test_a_rollback_right_after_a_rollout_began_wins(endpoint, model):
    made = [model(number) for number in range(2, 6)]
    for each in made:
        endpoint.rollout(each, wait=False)
        endpoint.rollback(to="1.1.0")
        assert versions(endpoint) == {"1.1.0": 100}


def test_a_first_deployment_has_nothing_to_go_back_to(make_session, model):
    session = make_session(steps=100_000)
    endpoint = Endpoint.deploy(model(1), "iris", backend=session, wait=False)
    while session.backend.observe("iris") is None:
        pass
    with pytest.raises(ConflictError, match="nothing to go back to"):
        endpoint.rollback()
    with pytest.raises(NotFoundError, match="no revision with traffic"):
        assert endpoint.stable
    endpoint.delete()
    assert session.backend.observe("iris") is None


def test_without_a_history_the_only_other_revision_is_back(endpoint, model, tmp_path):
    endpoint.rollout(model(2))
    elsewhere = Session(endpoint._session.backend, type(endpoint._session.journal)(), home=tmp_path)
    other = Endpoint.get("iris", backend=elsewhere)
    other.rollback()
    assert versions(other) == {"1.1.0": 100}


def test_without_a_history_a_revision_that_is_there_can_be_named(endpoint, model, tmp_path):
    endpoint.rollout(model(2), keep=2)
    endpoint.rollout(model(3), keep=2)
    elsewhere = Session(endpoint._session.backend, type(endpoint._session.journal)(), home=tmp_path)
    other = Endpoint.get("iris", backend=elsewhere)
    with pytest.raises(NotFoundError, match="name one"):
        other.rollback()
    other.rollback(to="1.1.0")
    assert versions(other) == {"1.1.0": 100}


def test_a_rollback_has_no_steps_to_pause(endpoint, model):
    endpoint.rollout(model(2))
    back = endpoint.rollback()
    for act in (back.pause, back.resume, back.promote, back.abort):
        with pytest.raises(ConflictError, match="has no steps"):
            act()
    with pytest.raises(UnsupportedError, match="half-way"):
        back.operation.cancel()


def test_deleting_ends_a_rollout_and_twice_is_fine(endpoint, model, wait_until):
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    endpoint.delete(reason="done")
    assert rollout.status == "cancelled"
    endpoint.delete()
    assert "not there" in repr(endpoint)
    assert "not there" in endpoint._repr_html_()
    with pytest.raises(NotFoundError):
        assert endpoint.traffic


def test_the_async_twins_do_the_same(endpoint, model, table):
    async def main():
        await endpoint.aio.rollout(model(2))
        answer = await endpoint.aio.predict(table.head(1))
        rollout = await endpoint.aio.rollback()
        gone = await endpoint.aio.delete()
        return answer, rollout, gone

    answer, rollout, gone = asyncio.run(main())
    assert len(answer) == 1
    assert (rollout.status, gone.status) == ("succeeded", "succeeded")


def test_a_rollout_that_goes_on_is_not_taken_for_one_by_another_policy(endpoint, model):
    gated = attrs.evolve(SLOW, gates=[lambda _look: None])
    rollout = endpoint.rollout(model(2), gated, wait=False)
    # A cell that runs again makes the same function anew.
    again = attrs.evolve(SLOW, gates=[lambda _look: None])
    assert endpoint.rollout(model(2), again, wait=False).id == rollout.id
    assert endpoint.rollout(model(2), wait=False).id == rollout.id
    with pytest.raises(ConflictError, match=f"{rollout.id} brings .* by another policy") as caught:
        endpoint.rollout(model(2), RolloutPolicy.shadow(50))
    assert rollout.id in caught.value.hint
    rollout.abort()


def test_the_async_twins_wait_as_long_as_they_are_told(endpoint, model):
    async def main():
        rollout = await endpoint.aio.rollout(model(2), SLOW, wait=False)
        running = rollout.status
        with pytest.raises(OperationTimeout, match="is still running after"):
            await endpoint.aio.rollout(model(2), SLOW, timeout=0.05)
        await endpoint.aio.delete()
        return running, rollout.status

    assert asyncio.run(main()) == ("running", "cancelled")


# ---------------------------------------------------------------- operations


def test_an_operation_is_found_watched_and_shown(endpoint, session):
    operation = Operation.get(endpoint.operation.id, backend=session)
    names = [event.name.value for event in operation.watch()]
    assert names[0] == "operation.started"
    assert names[-1] == "operation.succeeded"
    assert (operation.kind, operation.target, operation.done) == ("rollout", "iris", True)
    assert operation.wait() is operation
    assert "succeeded" in repr(operation)
    assert "iris" in operation._repr_html_()
    with pytest.raises(NotFoundError):
        Operation.get("nothing", backend=session)


def test_an_operation_that_nobody_drives_is_driven_by_whoever_waits(endpoint, session, model):
    record = session.journal.read(endpoint.operation.id)
    cursor = RolloutCursor(EndpointSpec("iris"), Revision.of(model(2).identity), RolloutPolicy.all_at_once())
    for number, wait in enumerate((Operation.wait, lambda left: asyncio.run(wait_for(left)))):
        session.journal.create(
            attrs.evolve(record, id=f"rollout-{number}", cursor=to_json(cursor), phase=Phase.RUNNING)
        )
        (left,) = Operation.unfinished(backend=session)
        wait(left)
        assert left.status == "succeeded"
        assert left.events()[0].name.value == "operation.resumed"
    assert versions(endpoint) == {"1.2.0": 100}


async def wait_for(operation):
    await operation


def test_an_interrupt_detaches_and_the_work_goes_on(endpoint, model, monkeypatch, wait_until):
    from modeldeploy.handles.session import Drive

    real = Drive.join
    made = model(2)

    def interrupted(self, timeout):
        monkeypatch.setattr(Drive, "join", real)
        raise KeyboardInterrupt

    monkeypatch.setattr(Drive, "join", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        endpoint.rollout(made)
    assert "goes on" in caught.value.__notes__[0]
    wait_until(lambda: versions(endpoint) == {"1.2.0": 100})


# ---------------------------------------------------------------- views


def test_everything_can_be_shown_and_is_escaped(endpoint, session, model, wait_until):
    nasty = "<script>alert(1)</script>"
    rollout = endpoint.rollout(model(2), RolloutPolicy.canary((10,), soak=600, gates=["error_rate <= 1%"]), wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    rollout.pause(nasty)
    rollout.wait(10)
    session.backend.log("iris", endpoint.stable.id, nasty)
    shown = [endpoint, rollout, rollout.operation, endpoint.history, endpoint.metrics(), endpoint.plan(model(3))]
    shown += [endpoint.plan_rollback(), endpoint.plan_delete()]
    for each in shown:
        assert repr(each)
        assert "<script" not in each._repr_html_()
    assert str(endpoint.logs()) == nasty
    assert (len(endpoint.logs()), endpoint.logs()[0].text, len(endpoint.logs()[:1])) == (1, nasty, 1)
    rollout.abort(nasty)
    for each in (rollout, rollout.operation, endpoint.history):
        assert "<script" not in each._repr_html_()


def test_metrics_are_counted_for_each_revision(endpoint, table):
    for _request in range(5):
        endpoint.predict(table.head(1))
    metrics = endpoint.metrics()
    (window,) = metrics
    assert metrics.of(window.revision) == window == metrics[0] == metrics[:1][0]
    assert window.requests >= 5
    assert "100 %" in repr(metrics)


def test_a_provider_that_is_down_is_shown_as_such(endpoint, session, monkeypatch):
    def down(_name):
        message = "no route"
        raise UnavailableError(message)

    rollout = Rollout(session, endpoint.operation)
    monkeypatch.setattr(session.backend, "observe", down)
    assert "not reached: no route" in repr(endpoint)
    assert "not reached" in endpoint._repr_html_()
    assert repr(rollout)
    assert "not reached" in rollout._repr_html_()
    unknown = Rollout(session, Operation(session, "gone"))
    assert "unknown" in repr(unknown)
    assert unknown._repr_html_()
    assert "unknown" in repr(unknown.operation)
    assert "unknown" in unknown.operation._repr_html_()


# ---------------------------------------------------------------- refusals and sessions


@pytest.mark.parametrize(
    ("capabilities", "policy"),
    [
        (Capabilities(serving=True), RolloutPolicy.canary((10,), soak=0)),
        (Capabilities(serving=True, split=2), RolloutPolicy.canary((10,), soak=0, gates=["error_rate <= 1%"])),
    ],
)
def test_what_the_backend_cannot_do_is_refused_before_it_is_sent(make_session, model, capabilities, policy):
    session = make_session(capabilities=capabilities)
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    writes, made = list(session.backend.writes), model(2)
    with pytest.raises(UnsupportedError):
        endpoint.rollout(made, policy)
    assert not endpoint.plan(made, policy).ok
    assert session.backend.writes == writes
    assert session.journal.unfinished() == ()
    for act in (endpoint.metrics, endpoint.logs, lambda: endpoint.predict([], revision="1.1.0")):
        with pytest.raises(UnsupportedError):
            act()


def test_a_third_revision_is_refused_where_two_may_share(make_session, model):
    session = make_session(capabilities=Capabilities(serving=True, split=2, pinned_invoke=True))
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    endpoint.rollout(model(2))
    first, second = (each.revision.id for each in endpoint.revisions)
    ticket = session.backend.set_traffic("iris", Traffic({first: 50, second: 50}))
    while not ticket.phase.ended:
        ticket = session.backend.advance(ticket)
    writes = list(session.backend.writes)
    with pytest.raises(UnsupportedError, match="split"):
        endpoint.rollout(model(3), RolloutPolicy.canary((10,), soak=0))
    assert session.backend.writes == writes


@pytest.mark.parametrize("what", ["serving", "batch", "meters", "logs"])
def test_a_backend_that_declares_what_it_lacks_is_found_out(tmp_path, what):
    class Empty:
        name, capabilities = "empty", EVERYTHING

    session = Session(Empty(), Journal(), home=tmp_path)
    with pytest.raises(UnsupportedError, match="does not implement it"):
        getattr(session, what)


def test_handles_of_one_backend_share_a_session_while_one_lives(tmp_path):
    backend = MemoryBackend()
    first, second = Session.of(backend, home=tmp_path), Session.of(backend, home=tmp_path)
    assert first is second
    assert Session.of(first) is first
    assert Session.of("memory", home=tmp_path) is not first
    journal, gone = first.journal, weakref.ref(first)
    del first, second
    gc.collect()
    assert gone() is None
    with pytest.raises(sqlite3.ProgrammingError):
        journal.read("x")


def test_a_session_that_drove_something_goes_without_the_garbage_collector(make_session, model, wait_until):
    session = make_session()
    Endpoint.deploy(model(1), "iris", backend=session)
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        wait_until(lambda: gone() is None)
    finally:
        gc.enable()


def test_sinks_see_every_event(session, model):
    seen = []
    stop = session.subscribe(seen.append)
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    stop()
    assert {event.operation for event in seen} == {endpoint.operation.id}
    assert [event.name for event in seen] == [event.name for event in endpoint.operation.events()]


class Eager(MemoryBackend):
    """Notes what it is told to expect and what it is asked for."""

    def __init__(self, **options):
        super().__init__(steps=1, **options)
        self.heard = []

    def expect(self, revision):
        self.heard.append(("expect", revision.model.version))

    def put_revision(self, endpoint, revision):
        self.heard.append(("put", revision.model.version))
        return super().put_revision(endpoint, revision)


def test_a_backend_hears_what_is_coming_when_something_is_deployed_and_not_when_it_is_planned(make_session, model):
    session = make_session(provider=Eager)
    first = model(1)
    Endpoint.plan_deploy(first, "iris", backend=session)
    assert ("expect", "1.1.0") not in session.backend.heard
    session.backend.heard.clear()
    Endpoint.deploy(first, "iris", backend=session, golden=False)
    assert session.backend.heard[:2] == [("expect", "1.1.0"), ("put", "1.1.0")]
    session.backend.heard.clear()
    Endpoint.deploy(first, "iris", backend=session, golden=False)
    assert session.backend.heard == []
