"""A group and one worker, with the bytes between them in hand."""

from __future__ import annotations

import asyncio

from modeldeploy.serving.group import Group, Link, Policy
from modeldeploy.serving.link import decode_requests, encode_responses
from modeldeploy.serving.messages import Request, Response
from modeldeploy.serving.meters import Meter

LENGTH = 4


class Wire(asyncio.Transport):
    """Takes down what is written to the worker."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def write(self, data: bytes) -> None:
        bodies = [request.body.decode() for _number, request in decode_requests(data[LENGTH:])]
        self.seen.append(f"given {' '.join(bodies)}")

    def abort(self) -> None:
        pass


async def linked(seen: list[str]) -> tuple[Group, Link]:
    group = Group("r1", Policy(), Meter("r1"))
    link = Link(group, "w1")
    link.connection_made(Wire(seen))
    group.links["w1"] = link
    group.freed(link)
    return group, link


def ask(group: Group, body: str, seen: list[str]) -> asyncio.Future[Response]:
    future = group.submit(Request("POST", "/", body=body.encode()), 5.0)
    future.add_done_callback(lambda done: seen.append(f"answered {done.result().body.decode()}"))
    return future


async def turns(count: int = 3) -> None:
    for _turn in range(count):
        await asyncio.sleep(0)


def test_a_worker_has_its_next_batch_before_the_answers_of_the_last_are_passed_on():
    async def main() -> None:
        seen: list[str] = []
        group, link = await linked(seen)
        first = ask(group, "a", seen)
        await turns()
        rest = [ask(group, body, seen) for body in "bc"]
        await turns()
        link.data_received(encode_responses([(0, Response(200, b"A"))]))
        await first
        await turns()
        assert seen == ["given a", "given b c", "answered A"]
        link.data_received(encode_responses([(1, Response(200, b"C")), (0, Response(200, b"B"))]))
        assert [(await each).body for each in rest] == [b"B", b"C"]
        group.close()

    asyncio.run(main())


def test_a_frame_of_answers_that_nobody_waits_for_frees_no_worker_twice():
    async def main() -> None:
        seen: list[str] = []
        group, link = await linked(seen)
        link.data_received(encode_responses([(7, Response(200, b"?"))]))
        for body in "ab":
            ask(group, body, seen)
        await turns()
        assert seen == ["given a b"]
        group.close()

    asyncio.run(main())
