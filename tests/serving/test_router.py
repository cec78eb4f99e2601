"""Which revision answers, and what happens when a worker does not; with real sockets and workers that speak frames."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.serving.link import decode_requests, encode_responses, read_frame
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.router import Table
from modeldeploy.values.assignment import assign
from modeldeploy.values.metrics import bucket_end

tables = st.lists(st.integers(0, 100), min_size=1, max_size=6).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 100], strict=True)]
)


@given(tables)
def test_each_revision_gets_exactly_its_share(weights):
    table = Table.of({f"v{number}": weight for number, weight in enumerate(weights)}, None)
    counts = collections.Counter(table.pick((percent + 0.5) / 100) for percent in range(100))
    assert counts == {f"v{number}": weight for number, weight in enumerate(weights) if weight}


def test_a_table_without_traffic_picks_nobody():
    assert Table.of({}, None).pick(0.5) is None


async def test_a_request_is_answered_by_the_revision_picked(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(v1=90, v2=10)
    bench.drawn = 0.89
    assert (await bench.ask()).headers["modeldeploy-revision"] == "v1"
    bench.drawn = 0.91
    assert (await bench.ask()).headers["modeldeploy-revision"] == "v2"


async def test_a_header_or_a_path_pins_the_revision(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(v1=100)
    assert (await bench.ask(modeldeploy_revision="v2")).headers["modeldeploy-revision"] == "v2"
    answer = await bench.ask(path="/v2/models/iris/versions/v2/infer")
    assert answer.headers["modeldeploy-revision"] == "v2"
    assert (await bench.ask(modeldeploy_revision="v3")).status == 404


async def test_before_it_knows_any_revision_the_front_asks_for_patience(bench):
    for asked in ({}, {"modeldeploy_revision": "v1"}):
        answer = await bench.ask(**asked)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")


async def test_a_request_meant_for_another_endpoint_is_misdirected(bench):
    await bench.add("v1", bench.ok)
    bench.split(v1=100)
    assert (await bench.ask(modeldeploy_endpoint="other")).status == 421
    assert (await bench.ask(modeldeploy_endpoint="iris")).status == 200


async def test_the_front_is_live_always_and_ready_with_a_worker(bench):
    group = await bench.add("v1")
    bench.split(v1=100)
    assert (await bench.ask(path="/healthz")).status == 200
    refused = await bench.ask(path="/readyz")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    await bench.join(group, bench.ok)
    assert (await bench.ask(path="/readyz")).status == 200
    assert (await bench.ask(path="/ping")).status == 200


async def test_a_failed_canary_is_answered_again_by_stable(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: Response(500, b"broken"))
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    answer = await bench.ask(b"body")
    assert (answer.status, answer.body, answer.headers["modeldeploy-revision"]) == (200, b"body", "v1")
    assert answer.headers["modeldeploy-fallback-from"] == "v2"
    assert bench.router.meter("v2").window(0, 1e12).errors == 1
    assert bench.router.meter("v1").window(0, 1e12).errors == 0


async def test_a_canary_that_hangs_leaves_stable_time_to_answer(bench):
    await bench.add("v1", bench.ok, deadline_s=0.4)
    await bench.add("v2", lambda _request: bench.silence, deadline_s=0.4)
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    assert (await bench.ask()).status == 200


async def test_a_pinned_canary_answers_for_itself(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: Response(500))
    bench.split(v1=50, v2=50)
    assert (await bench.ask(modeldeploy_revision="v2")).status == 500


async def test_a_canary_that_hangs_is_counted_and_its_callers_answered_within_their_own_time(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: bench.silence)
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    answer = await bench.ask(modeldeploy_timeout="0.3")
    assert (answer.status, answer.headers["modeldeploy-revision"]) == (200, "v1")
    await bench.until(lambda: bench.seen("v2", 50).requests)
    canary = bench.seen("v2", 50)
    assert (canary.assigned, canary.requests, canary.errors) == (1, 1, 1)
    # The second answer is stable's work, and not what the table gave it.
    assert (bench.seen("v1", 50).requests, bench.seen("v1").requests) == (0, 1)


async def test_a_model_that_may_not_be_asked_twice_is_not(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: Response(500), retry_on_crash=False)
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    assert (await bench.ask()).status == 500
    assert bench.workers[0].frames == []


async def test_a_canary_that_takes_most_of_the_time_has_not_failed(bench):
    """Stable would have had all of it: one that is as slow must not be called worse."""
    await bench.add("v1", lambda _request: bench.silence)
    canary = await bench.add("v2")
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    asking = asyncio.create_task(bench.ask(modeldeploy_timeout="1"))
    await bench.until(lambda: bench.workers[0].frames)  # stable is asked when half of the time is over
    await bench.join(canary, bench.ok)
    answer = await asking
    assert (answer.status, answer.headers["modeldeploy-revision"]) == (200, "v2")
    assert (bench.seen("v2", 50).requests, bench.seen("v2", 50).errors) == (1, 0)


async def test_a_canary_is_given_the_whole_time_where_nobody_answers_in_its_place(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: bench.silence, retry_on_crash=False)
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    assert (await bench.ask(modeldeploy_timeout="0.3")).status == 504
    (bucket,) = bench.seen("v2", 50).latency
    assert bucket_end(int(bucket)) >= 0.3


async def test_what_no_model_has_seen_may_be_asked_elsewhere_in_any_case(bench):
    await bench.add("v1", bench.ok)
    gone = await bench.add("v2", retry_on_crash=False)
    gone.broken = "no such file"
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    assert (await bench.ask()).status == 200


async def test_a_request_counts_under_the_share_it_was_given_under_though_the_table_changes(bench):
    group = await bench.add("v1")
    await bench.add("v2", bench.ok)
    bench.split(v1=95, v2=5)
    asking = asyncio.create_task(bench.ask())
    await bench.until(lambda: group.queued)
    bench.split(v1=75, v2=25)
    await bench.join(group, bench.ok)
    await asking
    assert (bench.seen("v1", 95).assigned, bench.seen("v1", 95).requests) == (1, 1)
    assert (bench.seen("v1", 75).assigned, bench.seen("v1", 75).requests) == (0, 0)


async def test_a_pinned_call_counts_under_no_share(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(v1=95, v2=5)
    await bench.ask(modeldeploy_revision="v2")
    assert (bench.seen("v2").requests, bench.seen("v2").assigned, bench.seen("v2", 5).requests) == (1, 0, 0)


# ---------------------------------------------------------------- keys


async def test_a_key_moves_once_and_only_to_the_revision_that_grows(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    keys, moved = [f"user-{number}" for number in range(60)], []
    for share in (5, 25, 50):
        bench.split(key="header:x-user", v1=100 - share, v2=share)
        answers = [(await bench.ask(x_user=key)).headers["modeldeploy-revision"] for key in keys for _twice in range(2)]
        assert answers[::2] == answers[1::2], "the same key was answered by two revisions"
        moved.append({key for key, revision in zip(keys, answers[::2], strict=True) if revision == "v2"})
    assert moved[0] <= moved[1] <= moved[2]
    assert moved[0] < moved[2]


async def test_our_own_header_is_the_key_wherever_a_table_has_one(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    for key in ("header:x-user", "field:user"):
        bench.split(key=key, v1=50, v2=50)
        for name in ("ana", "ben", "cem", "dan"):
            answer = await bench.ask(b'{"user": "other"}', x_user="other", modeldeploy_key=name)
            assert answer.headers["modeldeploy-revision"] == assign({"v1": 50, "v2": 50}, name)


async def test_a_request_without_the_key_is_drawn_and_counted_by_itself(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    bench.split(key="header:x-user", v1=50, v2=50)
    bench.drawn = 0.9
    assert [(await bench.ask()).headers["modeldeploy-revision"] for _each in range(3)] == ["v2"] * 3
    assert bench.seen("v2", 50).requests == 3


async def test_a_key_counts_once_in_a_rollout_and_again_in_the_next(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", bench.ok)
    counts = []
    for _rollout in range(2):
        for share in (5, 50):
            bench.split(key="header:x-user", v1=100 - share, v2=share)
            bench.split(key="header:x-user", v1=100 - share, v2=share)  # told again, as after a worker's restart
            for _each in range(3):
                await bench.ask(x_user="ana")
        bench.split(v1=100)
        windows = [bench.seen(*each) for each in (("v1", 95), ("v1", 50), ("v2", 5), ("v2", 50))]
        counts.append((sum(each.requests for each in windows), sum(each.assigned for each in windows)))
    assert counts == [(2, 1), (4, 2)]  # among the requests of both that answered it, and assigned once


async def test_a_key_whose_canary_fails_is_one_failure_of_the_canary(bench):
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: Response(500))
    bench.split(key="header:x-user", v1=1, v2=99)
    answers = [await bench.ask(x_user="ana") for _each in range(3)]
    assert {answer.status for answer in answers} == {200}
    seen = bench.seen("v2", 99)
    assert (seen.assigned, seen.requests, seen.errors) == (1, 1, 1)


async def test_what_waits_goes_out_as_one_frame(bench):
    await bench.add("v1", bench.ok)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask(str(number).encode()) for number in range(40)))
    assert [answer.body for answer in answers] == [str(number).encode() for number in range(40)]
    assert len(bench.workers[0].frames) <= 2


async def test_idle_workers_share_what_waits(bench):
    await bench.add("v1", bench.ok, bench.ok)
    bench.split(v1=100)
    await asyncio.gather(*(bench.ask() for _each in range(40)))
    assert [worker.frames[0] for worker in bench.workers] == [20, 20]


async def test_a_frame_is_bounded_by_requests_and_by_bytes(bench):
    await bench.add("v1", bench.ok, max_batch=8, max_batch_bytes=300)
    bench.split(v1=100)
    await asyncio.gather(*(bench.ask(b"y" * 100) for _each in range(12)))
    assert max(bench.workers[0].frames) == 3


async def test_requests_of_a_dead_worker_are_answered_by_another(bench):
    asked = []

    def dies_once(request):
        asked.append(request)
        return bench.crash

    await bench.add("v1", dies_once, bench.ok)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask() for _each in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert asked


async def test_a_poisonous_request_fails_alone_after_two_tries(bench):
    def poisoned(request):
        return bench.crash if request.body == b"poison" else bench.ok(request)

    group = await bench.add("v1", poisoned, poisoned, poisoned)
    bench.split(v1=100)
    asking = [asyncio.create_task(bench.ask(body)) for body in (b"a", b"b", b"poison", b"c", b"d")]
    answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [200, 200, 500, 200, 200]
    assert group.meter.restarts == 2


async def test_nothing_is_sent_twice_when_that_is_not_wanted(bench):
    await bench.add("v1", lambda _request: bench.crash, bench.ok, retry_on_crash=False)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask() for _each in range(2)))
    assert sorted(answer.status for answer in answers) == [200, 500]


async def test_a_request_waits_for_a_worker_that_comes_back(bench):
    group = await bench.add("v1")
    bench.split(v1=100)
    waiting = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    await bench.join(group, bench.ok)
    assert (await waiting).status == 200


async def test_without_a_worker_patience_ends_with_503_and_a_time_to_come_back(bench):
    group = await bench.add("v1", patience_s=0.05)
    bench.split(v1=100)
    answer = await bench.ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert group.queued == 0


async def test_a_revision_that_will_never_have_a_worker_refuses_at_once(bench):
    group = await bench.add("v1", patience_s=60)
    group.broken = "no such file"
    bench.split(v1=100)
    answer = await bench.ask()
    assert answer.status == 503
    assert b"no such file" in answer.body


async def test_a_full_queue_turns_away_with_429(bench):
    await bench.add("v1", lambda _request: bench.silence, queue=2, deadline_s=0.3)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask() for _each in range(5)))
    statuses = collections.Counter(answer.status for answer in answers)
    assert statuses[429] == 3
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 429)


async def test_a_deadline_ends_with_504_and_the_worker_is_given_up(bench):
    group = await bench.add("v1", lambda _request: bench.silence, deadline_s=0.05)
    bench.split(v1=100)
    assert (await bench.ask()).status == 504
    await bench.until(lambda: bench.hung)
    assert bench.hung == ["0"]
    assert not group.ready


async def test_a_caller_may_shorten_the_deadline_and_not_lengthen_it(bench):
    await bench.add("v1", lambda _request: bench.silence, deadline_s=0.2)
    bench.split(v1=100)
    for asked in ("0.02", "1000", "nan", "-1", "soon"):
        started = asyncio.get_running_loop().time()
        assert (await bench.ask(modeldeploy_timeout=asked)).status in {503, 504}
        assert asyncio.get_running_loop().time() - started < 15


async def test_a_client_that_goes_away_leaves_no_room_taken(bench):
    group = await bench.add("v1", patience_s=60)
    bench.split(v1=100)
    asking = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert group.queued == 1
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    assert group.queued == 0


async def test_draining_waits_for_what_is_in_flight(bench):
    release = asyncio.Event()
    group = await bench.add("v1")

    class Slow(bench.Worker):
        async def _serve(self, reader, writer):
            frame = await read_frame(reader)
            await release.wait()
            writer.write(encode_responses([(number, Response(200)) for number, _request in decode_requests(frame)]))

    await bench.join_worker(group, Slow(str(bench._path / "slow"), bench.ok))
    bench.split(v1=100)
    asking = asyncio.create_task(bench.ask())
    await bench.until(lambda: group.inflight)
    assert not await group.drained(0.02)
    release.set()
    assert await group.drained(5)
    assert (await asking).status == 200


async def test_bytes_that_are_no_frame_cost_the_connection_only(bench):
    group = await bench.add("v1")

    class Babbler(bench.Worker):
        async def _serve(self, reader, writer):
            await read_frame(reader)
            writer.write(b"\x08\x00\x00\x00\xff\xff\xff\xffjunk")
            await reader.read()

    await bench.join_worker(group, Babbler(str(bench._path / "babble"), bench.ok))
    bench.split(v1=100)
    asking = asyncio.create_task(bench.ask())
    await bench.until(lambda: not group.ready)
    assert bench.lost == ["0"]
    await bench.join(group, bench.ok)
    assert (await asking).status == 200


def test_the_module_needs_no_numpy():
    import subprocess
    import sys

    code = "import sys, modeldeploy.serving.front as _; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


if not hasattr(asyncio, "start_unix_server"):
    pytest.skip("needs Unix sockets", allow_module_level=True)


@pytest.mark.parametrize("key", ["", "header:x-user"])
async def test_a_canary_that_refuses_what_stable_takes_is_to_blame(bench, key):
    """A new model that takes less than the old one: its refusals are its failures, and no caller sees them."""
    await bench.add("v1", bench.ok)
    await bench.add("v2", lambda _request: Response(422, b"no nulls"), retry_on_crash=False)
    bench.split(key=key, v1=50, v2=50)
    bench.drawn = 0.9
    user = next(name for name in "abcdefgh" if assign({"v1": 50, "v2": 50}, name) == "v2")
    answer = await bench.ask(b"null", x_user=user)
    assert (answer.status, answer.body) == (200, b"null")
    assert answer.headers["modeldeploy-fallback-from"] == "v2"
    assert (bench.seen("v2", 50).requests, bench.seen("v2", 50).errors) == (1, 1)
    assert bench.seen("v1", 50).requests == 0


async def test_what_both_refuse_is_the_callers_mistake(bench):
    await bench.add("v1", lambda _request: Response(422, b"stable says no"))
    await bench.add("v2", lambda _request: Response(422, b"no nulls"))
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    answer = await bench.ask(b"null")
    assert (answer.status, answer.body) == (422, b"no nulls")
    assert (bench.seen("v2", 50).requests, bench.seen("v2", 50).errors) == (1, 0)


async def test_a_request_that_no_worker_saw_in_time_is_told_to_come_back_and_one_that_a_worker_has_is_too_late(bench):
    group = await bench.add("v1", lambda _request: bench.silence, deadline_s=0.2, max_batch=1)
    bench.split(v1=100)
    asking = [asyncio.create_task(bench.ask()) for _each in range(3)]
    answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [504, 503, 503]
    assert [answer.headers.get("retry-after") for answer in answers] == [None, "1", "1"]
    assert group.meter.shed["late"] == 2


async def test_a_request_whose_answer_would_come_too_late_makes_room_for_one_behind_it(bench):
    asked = []

    def slow(request):
        asked.append(request.body)
        time.sleep(0.1)
        return bench.ok(request)

    await bench.add("v1", slow, max_batch=1)
    bench.split(v1=100)
    assert (await bench.ask(b"shows how long it takes")).status == 200
    first = asyncio.create_task(bench.ask(b"takes the worker"))
    await bench.until(lambda: len(asked) == 2)
    hurried, patient = (
        asyncio.create_task(bench.ask(body, modeldeploy_timeout=within))
        for body, within in ((b"a", "0.15"), (b"b", "5"))
    )
    assert [(await each).status for each in (first, hurried, patient)] == [200, 503, 200]
    assert asked[2:] == [b"b"], "no work was wasted on an answer that nobody waits for"


async def test_a_caller_in_a_hurry_does_not_have_a_worker_taken_for_one_that_hangs(bench):
    group = await bench.add("v1", lambda _request: bench.silence, deadline_s=5.0)
    bench.split(v1=100)
    started = asyncio.get_running_loop().time()
    assert (await bench.ask(modeldeploy_timeout="0.01")).status == 504
    await bench.until(lambda: asyncio.get_running_loop().time() > started + 1.2)
    assert group.ready
    assert bench.hung == []


async def test_a_released_worker_answers_what_it_has_and_gets_nothing_more(bench):
    group = await bench.add("v1", lambda _request: bench.silence)
    bench.split(v1=100)
    busy = asyncio.create_task(bench.ask())
    await bench.until(lambda: group.inflight)
    group.release("0")
    assert group.inflight == 1
    assert not group.ready
    other = await bench.join(group, bench.ok)
    assert (await bench.ask()).status == 200
    (link,) = group.leaving
    link.data_received(encode_responses([(0, Response(200, b"late"))]))
    assert (await busy).body == b"late"
    await bench.until(lambda: not group.leaving)
    assert other.frames == [1]
    assert group.meter.restarts == 0
    assert bench.lost == []


async def test_a_crash_that_nothing_succeeds_after_is_answered_at_once_until_a_worker_is_back(bench):
    group = await bench.add("v1", lambda _request: bench.crash, lambda _request: bench.crash, patience_s=60)
    bench.split(v1=100)
    assert (await bench.ask()).status == 500
    await bench.join(group, lambda _request: bench.crash)
    waiting = asyncio.create_task(bench.ask())
    await bench.until(lambda: group.meter.restarts == 3)
    answer = await bench.ask(b"another")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"nothing has succeeded" in answer.body
    await bench.join(group, bench.ok)
    assert (await waiting).status == 200
    assert (await bench.ask(b"another")).status == 200


async def test_an_endpoint_that_is_ending_is_not_ready(bench):
    await bench.add("v1", bench.ok)
    bench.split(v1=100)
    probe = Request("GET", "/readyz")
    assert (await bench.router.handle(probe)).status == 200
    bench.router.ending = True
    assert (await bench.router.handle(probe)).status == 503


async def test_a_worker_that_says_it_ends_gets_nothing_more_and_costs_nobody_a_second_try(bench):
    group = await bench.add("v1", bench.ok, bench.ok)
    bench.split(v1=100)
    bench.workers[0].writers[0].write(encode_responses([]))
    await bench.until(lambda: set(group.links) == {"1"})
    answers = await asyncio.gather(*(bench.ask() for _each in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert bench.workers[0].frames == []
    assert (group.meter.retried, group.meter.restarts, bench.lost) == (0, 0, [])


async def test_a_worker_that_takes_a_connection_while_it_dies_has_died_once(bench):
    """Its listening socket may outlive its connections by a moment, in which a front that knows nothing yet connects again."""
    group = await bench.add("v1", bench.ok)
    dying = bench.workers[0]
    for writer in dying.writers:
        writer.close()
    await bench.until(lambda: not group.ready)
    await group.connect("0", dying.path)
    await bench.until(lambda: len(dying.writers) == 2)
    dying.writers[1].close()
    await bench.until(lambda: not group.ready)
    assert (group.meter.restarts, bench.lost) == (1, ["0", "0"])


async def test_whoever_a_worker_had_is_told_when_the_revision_is_stopped(bench):
    group = await bench.add("v1", lambda _request: bench.silence)
    bench.split(v1=100)
    asked = asyncio.ensure_future(bench.ask())
    await bench.until(lambda: group.inflight)
    group.close()
    answer = await asyncio.wait_for(asked, 5)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert b"stopped" in answer.body
