"""Copies for a shadow: none of them may be felt by the caller."""

from __future__ import annotations

import asyncio
import json

from modeldeploy.serving import shadowing
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.meters import COPY


def predictions(*values: float) -> Response:
    return Response(200, json.dumps({"predictions": values}).encode(), {"content-type": "application/json"})


def done(bench, revision: str, copies: int):
    """Wait until so many copies were answered, and compared where they can be."""
    return bench.until(lambda: bench.seen(revision, COPY).requests >= copies and not bench.router._shadows.outstanding)


async def test_a_shadow_is_sent_what_the_caller_sent_and_told_so(bench):
    copies: list[Request] = []
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda request: copies.append(request) or bench.ok(request))
    bench.split(v1=100, shadow={"v2": 100})
    answer = await bench.ask(b"body", x_user="ana")
    await done(bench, "v2", 1)
    assert (answer.body, answer.headers["modeldeploy-revision"]) == (b"body", "v1")
    assert "modeldeploy-shadow" not in answer.headers
    (copy,) = copies
    assert (copy.body, copy.headers["x-user"], copy.headers["modeldeploy-shadow"]) == (b"body", "ana", "1")
    assert bench.seen("v2", COPY).compared == 1


async def test_the_caller_is_answered_before_the_copy_is_sent(bench):
    order = []
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda request: order.append("copied") or bench.ok(request))
    bench.split(v1=100, shadow={"v2": 100})
    task = asyncio.ensure_future(bench.ask())
    task.add_done_callback(lambda _done: order.append("answered"))
    await task
    await done(bench, "v2", 1)
    assert order == ["answered", "copied"]


async def test_copies_are_the_share_that_was_asked_for(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(v1=100, shadow={"v2": 20})
    for percent in range(100):
        bench.drawn = percent / 100
        await bench.ask()
    await done(bench, "v2", 20)
    assert bench.seen("v2", COPY).requests == 20


async def test_pinned_calls_and_questions_about_the_model_are_not_copied(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(v1=100, shadow={"v2": 100})
    await bench.ask(modeldeploy_revision="v1")
    await bench.router.handle(Request("GET", "/v2/models/iris"))
    await bench.ask()
    await done(bench, "v2", 1)
    assert bench.seen("v2").requests == 1


async def test_answers_that_differ_are_counted_and_rounding_is_not(bench):
    await bench.add("v1", lambda request: predictions(float(request.body), 1.0))
    await bench.add("v2", lambda request: predictions(float(request.body) * 1.000001 + (request.body == b"7"), 1.0))
    bench.split(v1=100, shadow={"v2": 100})
    for number in range(10):
        await bench.ask(str(number).encode())
    await done(bench, "v2", 10)
    seen = bench.seen("v2", COPY)
    assert (seen.requests, seen.compared, seen.disagreed, seen.errors) == (10, 10, 1, 0)


async def test_failures_are_the_shadow_s_and_are_not_compared(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: Response(500))
    bench.split(v1=100, shadow={"v2": 100})
    assert (await bench.ask()).status == 200
    await done(bench, "v2", 1)
    seen = bench.seen("v2", COPY)
    assert (seen.requests, seen.errors, seen.compared) == (1, 1, 0)
    assert bench.seen("v1").errors == 0


async def test_a_failed_answer_is_nothing_to_compare_with(bench):
    await bench.add("v1", lambda _request: Response(500))
    await bench.add("v2", bench.ok)
    bench.split(v1=100, shadow={"v2": 100})
    assert (await bench.ask()).status == 500
    await done(bench, "v2", 1)
    assert (bench.seen("v2", COPY).requests, bench.seen("v2", COPY).compared) == (1, 0)


async def test_an_answer_of_a_canary_is_nothing_to_compare_with(bench):
    for revision in ("v1", "v2", "v3"):
        await bench.add(revision, bench.ok)
    bench.split(v1=50, v2=50, shadow={"v3": 100})
    for bench.drawn in (0.1, 0.9):
        await bench.ask()
    await done(bench, "v3", 2)
    assert bench.seen("v3", COPY).compared == 1


async def test_a_shadow_that_hangs_holds_so_many_copies_and_no_more(bench):
    await bench.add("v1", bench.ok)
    shadow = await bench.add("v2", lambda _request: bench.silence, deadline_s=0.3)
    bench.split(v1=100, shadow={"v2": 100})
    answers = await asyncio.gather(*(bench.ask() for _each in range(3 * shadowing.OUTSTANDING)))
    assert {answer.status for answer in answers} == {200}
    assert bench.seen("v2", COPY).dropped == 2 * shadowing.OUTSTANDING
    await done(bench, "v2", shadowing.OUTSTANDING)
    seen = bench.seen("v2", COPY)
    assert (seen.requests, seen.errors) == (shadowing.OUTSTANDING, shadowing.OUTSTANDING)
    assert shadow.queued == 0


async def test_copies_hold_so_many_bytes_and_no_more(bench, monkeypatch):
    monkeypatch.setattr(shadowing, "HELD", 250)
    await bench.add("v1", lambda _request: Response(200))
    await bench.add("v2", bench.ok)
    bench.split(v1=100, shadow={"v2": 100})
    await asyncio.gather(*(bench.ask(b"x" * 100) for _each in range(5)))
    await done(bench, "v2", 2)
    assert bench.seen("v2", COPY).dropped == 3


async def test_a_shadow_whose_worker_dies_harms_nobody(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: bench.crash, lambda _request: bench.crash, deadline_s=0.2)
    bench.split(v1=100, shadow={"v2": 100})
    answers = [await bench.ask() for _each in range(5)]
    assert {answer.status for answer in answers} == {200}
    await done(bench, "v2", 5)
    assert bench.seen("v2", COPY).errors == 5


async def test_a_table_that_ends_the_copies_ends_them(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(v1=100, shadow={"v2": 100})
    await bench.ask()
    bench.split(v1=100, shadow={"v2": 0})
    await bench.ask()
    await done(bench, "v2", 1)
    assert bench.seen("v2").requests == 1


async def test_prometheus_is_told_what_became_of_copies(bench, monkeypatch):
    monkeypatch.setattr(shadowing, "OUTSTANDING", 2)
    await bench.add("v1", lambda _request: predictions(1.0))
    await bench.add("v2", lambda _request: predictions(2.0))
    bench.split(v1=100, shadow={"v2": 100})
    await asyncio.gather(*(bench.ask() for _each in range(3)))
    await done(bench, "v2", 2)
    page = (await bench.ask(path="/metrics")).body.decode()
    for fate, count in (("sent", 2), ("compared", 2), ("disagreed", 2), ("dropped", 1)):
        sample = f'modeldeploy_shadow_copies_total{{endpoint="iris",revision="v2",fate="{fate}"}} {count}\n'
        assert sample in page
    assert 'revision="v1",fate=' not in page
