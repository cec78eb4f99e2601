"""Which revision answers, and what happens when a worker does not; with real sockets and workers that speak frames."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.serving.group import Group, Policy
from modeldeploy.serving.link import decode_requests, encode_responses, read_frame
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.router import Router, Table

CRASH, SILENCE = object(), object()


class Worker:
    """Listens on a Unix socket and answers each frame as ``behave`` says; keeps the sizes of the frames it was given."""

    def __init__(self, path: str, behave: Callable[[Request], object]) -> None:
        self.path = path
        self.frames: list[int] = []
        self._behave = behave

    async def start(self) -> Worker:
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task] = []
        self.server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def _accept(self, reader, writer):
        self.writers.append(writer)
        self.tasks.append(asyncio.current_task())
        with contextlib.suppress(asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader, writer):
        while frame := await read_frame(reader):
            requests = decode_requests(frame)
            self.frames.append(len(requests))
            answers = [(number, self._behave(request)) for number, request in requests]
            if any(answer is CRASH for _number, answer in answers):
                break
            if any(answer is SILENCE for _number, answer in answers):
                await asyncio.sleep(60)
            writer.write(encode_responses(answers))


def ok(request: Request) -> Response:
    return Response(200, request.body)


def in_loop(test):
    """Run an asynchronous test on a loop of its own."""

    @functools.wraps(test)
    def run(tmp_path):
        async def main():
            bench = Bench(tmp_path)
            try:
                await test(bench)
            finally:
                await bench.close()

        asyncio.run(asyncio.wait_for(main(), 20))

    del run.__wrapped__  # pytest would read the test's own arguments there
    return run


class Bench:
    def __init__(self, tmp_path) -> None:
        self._path = tmp_path
        self.router = Router("iris", draw=lambda: self.drawn)
        self.drawn = 0.0
        self.hung: list[str] = []
        self.lost: list[str] = []
        self.workers: list[Worker] = []

    def _note(self, event: str, worker: str) -> None:
        (self.hung if event == "hung" else self.lost).append(worker)

    async def close(self) -> None:
        for group in self.router.groups.values():
            group.close()
        for worker in self.workers:
            worker.server.close()
            for task in worker.tasks:
                task.cancel()
            for writer in worker.writers:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        for _turn in range(3):  # aborted connections close their sockets in the next turns of the loop
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():  # noqa: ASYNC110 - nobody tells; the test as a whole has a time limit
            await asyncio.sleep(0.001)

    async def add(self, revision: str, *behaviours, **policy) -> Group:
        group = Group(revision, Policy(**policy), self.router.meter(revision), report=self._note)
        self.router.groups[revision] = group
        for behave in behaviours:
            await self.join(group, behave)
        return group

    async def join(self, group: Group, behave) -> Worker:
        name = str(len(self.workers))
        return await self.join_worker(group, Worker(str(self._path / name), behave))

    async def join_worker(self, group: Group, worker: Worker) -> Worker:
        self.workers.append(await worker.start())
        await group.connect(str(len(self.workers) - 1), worker.path)
        await self.until(lambda: worker.writers)
        return worker

    async def ask(self, body: bytes = b"x", path: str = "/invocations", **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.router.handle(Request("POST", path, headers=named, body=body))

    def split(self, stable: str = "v1", **weights: int) -> None:
        self.router.table = Table.of(weights, stable)


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


@in_loop
async def test_a_request_is_answered_by_the_revision_picked(bench):
    await bench.add("v1", ok)
    await bench.add("v2", ok)
    bench.split(v1=90, v2=10)
    bench.drawn = 0.89
    assert (await bench.ask()).headers["modeldeploy-revision"] == "v1"
    bench.drawn = 0.91
    assert (await bench.ask()).headers["modeldeploy-revision"] == "v2"


@in_loop
async def test_a_header_or_a_path_pins_the_revision(bench):
    await bench.add("v1", ok)
    await bench.add("v2", ok)
    bench.split(v1=100)
    assert (await bench.ask(modeldeploy_revision="v2")).headers["modeldeploy-revision"] == "v2"
    answer = await bench.ask(path="/v2/models/iris/versions/v2/infer")
    assert answer.headers["modeldeploy-revision"] == "v2"
    assert (await bench.ask(modeldeploy_revision="v3")).status == 404


@in_loop
async def test_a_request_meant_for_another_endpoint_is_misdirected(bench):
    await bench.add("v1", ok)
    bench.split(v1=100)
    assert (await bench.ask(modeldeploy_endpoint="other")).status == 421
    assert (await bench.ask(modeldeploy_endpoint="iris")).status == 200


@in_loop
async def test_the_front_is_live_always_and_ready_with_a_worker(bench):
    group = await bench.add("v1")
    bench.split(v1=100)
    assert (await bench.ask(path="/healthz")).status == 200
    refused = await bench.ask(path="/readyz")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    await bench.join(group, ok)
    assert (await bench.ask(path="/readyz")).status == 200
    assert (await bench.ask(path="/ping")).status == 200


@in_loop
async def test_a_failed_canary_is_answered_again_by_stable(bench):
    await bench.add("v1", ok)
    await bench.add("v2", lambda _request: Response(500, b"broken"))
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    answer = await bench.ask(b"body")
    assert (answer.status, answer.body, answer.headers["modeldeploy-revision"]) == (200, b"body", "v1")
    assert answer.headers["modeldeploy-fallback-from"] == "v2"
    assert bench.router.meter("v2").window(0, 1e12).errors == 1
    assert bench.router.meter("v1").window(0, 1e12).errors == 0


@in_loop
async def test_a_caller_s_mistake_is_not_asked_again(bench):
    await bench.add("v1", ok)
    await bench.add("v2", lambda _request: Response(422, b"no"))
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    assert (await bench.ask()).status == 422
    assert bench.workers[0].frames == []


@in_loop
async def test_a_canary_that_hangs_leaves_stable_time_to_answer(bench):
    await bench.add("v1", ok, deadline_s=0.4)
    await bench.add("v2", lambda _request: SILENCE, deadline_s=0.4)
    bench.split(v1=50, v2=50)
    bench.drawn = 0.9
    assert (await bench.ask()).status == 200


@in_loop
async def test_a_pinned_canary_answers_for_itself(bench):
    await bench.add("v1", ok)
    await bench.add("v2", lambda _request: Response(500))
    bench.split(v1=50, v2=50)
    assert (await bench.ask(modeldeploy_revision="v2")).status == 500


@in_loop
async def test_what_waits_goes_out_as_one_frame(bench):
    await bench.add("v1", ok)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask(str(number).encode()) for number in range(40)))
    assert [answer.body for answer in answers] == [str(number).encode() for number in range(40)]
    assert len(bench.workers[0].frames) <= 2


@in_loop
async def test_idle_workers_share_what_waits(bench):
    await bench.add("v1", ok, ok)
    bench.split(v1=100)
    await asyncio.gather(*(bench.ask() for _each in range(40)))
    assert [worker.frames[0] for worker in bench.workers] == [20, 20]


@in_loop
async def test_a_frame_is_bounded_by_requests_and_by_bytes(bench):
    await bench.add("v1", ok, max_batch=8, max_batch_bytes=300)
    bench.split(v1=100)
    await asyncio.gather(*(bench.ask(b"y" * 100) for _each in range(12)))
    assert max(bench.workers[0].frames) == 3


@in_loop
async def test_requests_of_a_dead_worker_are_answered_by_another(bench):
    asked = []

    def dies_once(request):
        asked.append(request)
        return CRASH

    await bench.add("v1", dies_once, ok)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask() for _each in range(10)))
    assert {answer.status for answer in answers} == {200}
    assert asked


@in_loop
async def test_a_poisonous_request_fails_alone_after_two_tries(bench):
    def poisoned(request):
        return CRASH if request.body == b"poison" else ok(request)

    group = await bench.add("v1", poisoned, poisoned, poisoned)
    bench.split(v1=100)
    asking = [asyncio.create_task(bench.ask(body)) for body in (b"a", b"b", b"poison", b"c", b"d")]
    answers = await asyncio.gather(*asking)
    assert [answer.status for answer in answers] == [200, 200, 500, 200, 200]
    assert group.meter.restarts == 2


@in_loop
async def test_nothing_is_sent_twice_when_that_is_not_wanted(bench):
    await bench.add("v1", lambda _request: CRASH, ok, retry_on_crash=False)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask() for _each in range(2)))
    assert sorted(answer.status for answer in answers) == [200, 500]


@in_loop
async def test_a_request_waits_for_a_worker_that_comes_back(bench):
    group = await bench.add("v1")
    bench.split(v1=100)
    waiting = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    await bench.join(group, ok)
    assert (await waiting).status == 200


@in_loop
async def test_without_a_worker_patience_ends_with_503_and_a_time_to_come_back(bench):
    group = await bench.add("v1", patience_s=0.05)
    bench.split(v1=100)
    answer = await bench.ask()
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert group.queued == 0


@in_loop
async def test_a_revision_that_will_never_have_a_worker_refuses_at_once(bench):
    group = await bench.add("v1", patience_s=60)
    group.broken = "no such file"
    bench.split(v1=100)
    answer = await bench.ask()
    assert answer.status == 503
    assert b"no such file" in answer.body


@in_loop
async def test_a_full_queue_turns_away_with_429(bench):
    await bench.add("v1", lambda _request: SILENCE, queue=2, deadline_s=0.3)
    bench.split(v1=100)
    answers = await asyncio.gather(*(bench.ask() for _each in range(5)))
    statuses = collections.Counter(answer.status for answer in answers)
    assert statuses[429] == 3
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.status == 429)


@in_loop
async def test_a_deadline_ends_with_504_and_the_worker_is_given_up(bench):
    group = await bench.add("v1", lambda _request: SILENCE, deadline_s=0.05)
    bench.split(v1=100)
    assert (await bench.ask()).status == 504
    await bench.until(lambda: bench.hung)
    assert bench.hung == ["0"]
    assert not group.ready


@in_loop
async def test_a_caller_may_shorten_the_deadline_and_not_lengthen_it(bench):
    await bench.add("v1", lambda _request: SILENCE, deadline_s=0.2)
    bench.split(v1=100)
    for asked in ("0.02", "1000", "nan", "-1", "soon"):
        started = asyncio.get_running_loop().time()
        assert (await bench.ask(modeldeploy_timeout=asked)).status in {503, 504}
        assert asyncio.get_running_loop().time() - started < 15


@in_loop
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


@in_loop
async def test_draining_waits_for_what_is_in_flight(bench):
    release = asyncio.Event()
    group = await bench.add("v1")

    class Slow(Worker):
        async def _serve(self, reader, writer):
            frame = await read_frame(reader)
            await release.wait()
            writer.write(encode_responses([(number, Response(200)) for number, _request in decode_requests(frame)]))

    await bench.join_worker(group, Slow(str(bench._path / "slow"), ok))
    bench.split(v1=100)
    asking = asyncio.create_task(bench.ask())
    await bench.until(lambda: group.inflight)
    assert not await group.drained(0.02)
    release.set()
    assert await group.drained(5)
    assert (await asking).status == 200


@in_loop
async def test_bytes_that_are_no_frame_cost_the_connection_only(bench):
    group = await bench.add("v1")

    class Babbler(Worker):
        async def _serve(self, reader, writer):
            await read_frame(reader)
            writer.write(b"\x08\x00\x00\x00\xff\xff\xff\xffjunk")
            await reader.read()

    await bench.join_worker(group, Babbler(str(bench._path / "babble"), ok))
    bench.split(v1=100)
    asking = asyncio.create_task(bench.ask())
    await bench.until(lambda: not group.ready)
    assert bench.lost == ["0"]
    await bench.join(group, ok)
    assert (await asking).status == 200


def test_the_module_needs_no_numpy():
    import subprocess
    import sys

    code = "import sys, modeldeploy.serving.front as _; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


if not hasattr(asyncio, "start_unix_server"):
    pytest.skip("needs Unix sockets", allow_module_level=True)
