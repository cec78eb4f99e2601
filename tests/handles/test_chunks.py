"""A large table is answered as if it had been one request: same values, index and type, by one revision, within one time."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy import Endpoint, Model
from modeldeploy.errors import InvalidRequestError, NotFoundError, PredictionError, UnavailableError
from modeldeploy.handles import chunks
from modeldeploy.values.serving import Traffic

ROWS = 60


@pytest.fixture
def small(monkeypatch):
    """Requests of at most seven rows."""
    monkeypatch.setattr(chunks, "ROWS", 7)


@pytest.fixture
def asked(session, monkeypatch):
    """What was sent: the rows and the revision of each request, in the order in which they began."""
    seen, send = [], session.backend.invoke

    def invoke(endpoint, payload, *, revision=None, timeout):
        seen.append((revision, timeout))
        return send(endpoint, payload, revision=revision, timeout=timeout)

    monkeypatch.setattr(session.backend, "invoke", invoke)
    return seen


@pytest.fixture
def split(endpoint, session, model):
    """Two revisions that share the traffic evenly; give their ids by version."""
    endpoint.rollout(model(2))
    ids = {each.revision.model.version: each.revision.id for each in endpoint.revisions}
    ticket = session.backend.set_traffic("iris", Traffic(weights=dict.fromkeys(ids.values(), 50)))
    while not ticket.phase.ended:
        ticket = session.backend.advance(ticket)
    return ids


def forms(table):
    return {
        "numpy": table.to_numpy(dtype=float),
        "pandas": table,
        "polars": pl.from_pandas(table),
        "pyarrow": pa.Table.from_pandas(table, preserve_index=False),
        "dict of lists": {name: table[name].tolist() for name in table},
        "list of dicts": table.to_dict("records"),
        "list of lists": table.to_numpy(dtype=float).tolist(),
    }


@pytest.fixture
def numbers(session, table):
    """An endpoint whose columns are all of one type."""
    from sklearn.linear_model import LinearRegression

    floats = table.astype(float)
    fitted = LinearRegression().fit(floats, floats["income"] * 2 + floats["age"])
    return Endpoint.deploy(Model(fitted, name="numbers", version="1.0.0", example=floats.head()), backend=session)


def plain(answer):
    return answer.to_pylist() if hasattr(answer, "to_pylist") else list(answer)


# ---------------------------------------------------------------- cutting


@settings(deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 1 << 30))
def test_a_cut_covers_every_row_once_in_order_and_within_the_limits(rows, size):
    cuts = chunks.cut(rows, size)
    assert (cuts[0].start, cuts[-1].stop) == (0, rows)
    assert all(left.stop == right.start for left, right in itertools.pairwise(cuts))
    longest, shortest = max(map(len, cuts)), min(map(len, cuts))
    assert longest <= chunks.ROWS
    assert longest * size <= chunks.SIZE or longest <= 1
    assert longest - shortest <= 1
    assert len(cuts) == 1 or (len(cuts) - 1) * min(chunks.ROWS, max(1, chunks.SIZE // size)) < rows


@settings(deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 1 << 20), st.integers(1, 1 << 25))
def test_a_cut_leaves_room_below_the_limit_of_a_provider(rows, size, limit):
    cuts = chunks.cut(rows, size, limit)
    assert (cuts[0].start, cuts[-1].stop) == (0, rows)
    longest = max(map(len, cuts))
    assert longest * size <= min(limit * 3 // 4, chunks.SIZE) or longest <= 1


# ---------------------------------------------------------------- the same answer


@pytest.mark.parametrize("form", forms(pd.DataFrame({"age": [1], "income": [1.0]})))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(most=st.integers(1, ROWS + 1), rows=st.integers(1, ROWS))
def test_any_split_gives_the_answer_of_the_whole(numbers, table, form, most, rows):
    data = forms(table.head(rows).astype(float))[form]
    whole = numbers.predict(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "ROWS", most)
        parts = numbers.predict(data)
    assert type(parts) is type(whole)
    assert plain(parts) == pytest.approx(plain(whole), rel=1e-12)


@pytest.mark.usefixtures("small")
def test_the_index_and_the_type_are_those_of_the_whole(endpoint, table):
    data = table.iloc[::-1]
    got = endpoint.predict(data)
    assert got.index.tolist() == data.index.tolist()
    assert (got.name, got.dtype) == ("prediction", "float64")


@pytest.mark.usefixtures("small")
def test_texts_and_several_outputs_are_put_together(session, table):
    def describe(rows):
        words = ["old" if each > 50 else None for each in rows["age"]]
        return {"word": words, "pair": rows.to_numpy(dtype=float)}

    Endpoint.deploy(
        Model(describe, name="words", version="1.0.0", example=table.head(20)), "words", backend=session, golden=False
    )
    got = Endpoint.get("words", backend=session).predict(table)
    assert got["pair_1"].tolist() == pytest.approx(table["income"].tolist())
    assert len(got) == ROWS


def test_parts_that_do_not_fit_together_are_the_models_failure():
    with pytest.raises(PredictionError, match="do not fit together"):
        chunks.joined([{"y": np.zeros((2, 3))}, {"y": np.zeros((2, 4))}])
    with pytest.raises(PredictionError, match="do not fit together"):
        chunks.joined([{"y": np.zeros(2)}, {"z": np.zeros(2)}])


def test_whole_numbers_and_gaps_become_what_they_would_be_together():
    got = chunks.joined([{"y": np.array([1, 2])}, {"y": np.array([np.nan])}])
    assert got["y"].dtype == float


def test_wide_rows_are_cut_by_their_size(endpoint, table, asked, monkeypatch):
    monkeypatch.setattr(chunks, "SIZE", 10 * 16)
    endpoint.predict(table)
    assert len(asked) == ROWS // 10


@pytest.mark.usefixtures("small")
def test_a_table_that_is_wrong_in_its_last_row_is_not_sent_at_all(endpoint, table, asked):
    with pytest.raises(InvalidRequestError, match=f"row {ROWS - 1}"):
        endpoint.predict(table.assign(income=[*table["income"][:-1], np.nan]))
    assert asked == []


@pytest.mark.usefixtures("small")
def test_an_awaited_prediction_is_cut_as_well(endpoint, table, asked):
    got = asyncio.run(endpoint.aio.predict(table))
    assert len(got) == ROWS
    assert len(asked) == 9


# ---------------------------------------------------------------- one revision


@pytest.mark.usefixtures("small")
def test_one_revision_answers_all_of_a_table_while_traffic_is_split(endpoint, split, estimator, table, asked):
    wholes = [pytest.approx(estimator(number).predict(table)) for number in (1, 2)]
    seen = set()
    for _each in range(6):
        asked.clear()
        got = endpoint.predict(table).tolist()
        assert got in wholes
        seen.add(wholes.index(got))
        assert asked[0][0] is None
        assert len({revision for revision, _timeout in asked[1:]}) == 1
    assert seen == {0, 1}


@pytest.mark.usefixtures("small")
def test_a_revision_that_is_named_answers_all(endpoint, split, table, asked):
    endpoint.predict(table, revision="1.1.0")
    assert {revision for revision, _timeout in asked} == {split["1.1.0"]}


@pytest.mark.usefixtures("small")
def test_a_key_keeps_its_revision_through_a_table(endpoint, split, table, asked):
    endpoint.predict(table, key="ana")
    assert len({revision for revision, _timeout in asked} - {None}) == 1


@pytest.mark.usefixtures("small")
def test_a_call_begins_anew_when_its_revision_goes(endpoint, split, estimator, table, monkeypatch):
    """As when a canary is taken back in the middle of a long call."""
    backend = endpoint._session.backend
    send, gone = backend.invoke, []

    def invoke(name, payload, *, revision=None, timeout):
        if revision is not None and (not gone or revision in gone):
            gone.append(revision)
            raise NotFoundError("it went")
        return send(name, payload, revision=revision, timeout=timeout)

    monkeypatch.setattr(backend, "invoke", invoke)
    got = endpoint.predict(table).tolist()
    (left,) = set(split.values()) - set(gone)
    number = 1 if left == split["1.1.0"] else 2
    assert got == pytest.approx(estimator(number).predict(table))


@pytest.mark.usefixtures("small")
def test_a_call_whose_revision_the_caller_named_does_not(endpoint, session, split, table, monkeypatch):
    calls, send = [], session.backend.invoke

    def invoke(name, payload, *, revision=None, timeout):
        calls.append(revision)
        if len(calls) > 1:
            raise NotFoundError("it went")
        return send(name, payload, revision=revision, timeout=timeout)

    monkeypatch.setattr(session.backend, "invoke", invoke)
    with pytest.raises(NotFoundError):
        endpoint.predict(table, revision="1.1.0")
    assert set(calls) == {split["1.1.0"]}


def test_where_no_call_can_name_a_revision_a_mixture_is_told():
    def ask(part, revision, _within):
        assert revision is None
        return {"y": part["x"]}, "new" if part["x"][0] else "old"

    data = {"x": np.arange(2.0 * chunks.ROWS)}
    with pytest.warns(UserWarning, match=r"revisions \['new', 'old'\] answered parts of one table"):
        got = chunks.answer(ask, data, revision=None, pinnable=False, timeout=10)
    assert (got["y"] == data["x"]).all()


# ---------------------------------------------------------------- failures and time


@pytest.mark.usefixtures("small")
def test_an_error_names_the_rows_it_is_about(endpoint, session, table, monkeypatch):
    send, calls = session.backend.invoke, []

    def invoke(name, payload, *, revision=None, timeout):
        calls.append(payload)
        if len(calls) == 3:
            raise PredictionError("the model failed", status=500)
        return send(name, payload, revision=revision, timeout=timeout)

    monkeypatch.setattr(session.backend, "invoke", invoke)
    # One after the other, so that the third request is for the third part.
    monkeypatch.setattr(chunks, "_LANES", 1)
    with pytest.raises(PredictionError, match=r"the model failed \[rows='13-19'\]") as caught:
        endpoint.predict(table)
    assert caught.value.context["rows"] == "13-19"
    assert len(calls) == 3, "nothing is sent after the error"


@pytest.mark.usefixtures("small")
def test_the_time_is_that_of_the_whole_call(endpoint, session, table, monkeypatch):
    send, times = session.backend.invoke, []

    def invoke(name, payload, *, revision=None, timeout):
        times.append(timeout)
        threading.Event().wait(0.05)
        return send(name, payload, revision=revision, timeout=timeout)

    monkeypatch.setattr(session.backend, "invoke", invoke)
    monkeypatch.setattr(chunks, "_LANES", 1)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="before all rows were answered"):
        endpoint.predict(table, timeout=0.2)
    assert time.monotonic() - began < 5
    assert times == sorted(times, reverse=True)
    assert times[0] <= 0.2
    assert len(times) < 9


@pytest.mark.usefixtures("small")
def test_only_a_few_requests_are_under_way_at_one_time(endpoint, session, table, monkeypatch):
    lock, under_way, most = threading.Lock(), [0], [0]
    send, together = session.backend.invoke, threading.Barrier(chunks._LANES)

    def invoke(name, payload, *, revision=None, timeout):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        try:
            if revision is not None and not together.broken:
                # The first few meet, so that they are known to overlap.
                together.wait(5)
            return send(name, payload, revision=revision, timeout=timeout)
        finally:
            with lock:
                under_way[0] -= 1

    monkeypatch.setattr(session.backend, "invoke", invoke)
    data = table.iloc[: 7 * (1 + 2 * chunks._LANES)]
    assert len(endpoint.predict(data)) == len(data)
    assert most[0] == chunks._LANES
