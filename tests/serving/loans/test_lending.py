"""Who is lent to a worker, sees no difference, and is taken back for whatever is out of the ordinary."""

from __future__ import annotations

import asyncio
import functools
import json

import pytest

from modeldeploy.serving import loans
from modeldeploy.serving.ledger import PLACE_BYTES, PLACES
from modeldeploy.serving.link import can_lend
from modeldeploy.serving.router import Table

pytestmark = pytest.mark.skipif(not can_lend(), reason="connections are lent on Linux only")


def has_read(town, count) -> bool:
    return town.read() == count


def test_a_client_that_asks_the_same_way_is_lent_and_sees_no_difference(go):
    async def story(town):
        client = await town.client()
        first = await client.doubles(1)
        lent = await town.borrower()
        again = [await lent.doubles(number) for number in range(20)]
        assert len(town.group.lending) == 1
        assert {**first, "date": ""} == {**again[1], "date": ""}

    go(story)


def test_what_a_worker_answers_by_itself_is_counted_once(go):
    async def story(town):
        client = await town.borrower()
        meter = town.router.meter("r1")
        town.router.harvest()
        before = meter.outcomes["ok"]
        for number in range(20):
            await client.doubles(number)
        town.router.harvest()
        window = meter.window(0, 1e12, share=100)
        assert (meter.outcomes["ok"], sum(meter.buckets)) == (before + 20, before + 20)
        assert (window.requests, window.assigned, sum(window.latency.values())) == (before + 20,) * 3
        assert 0 < meter.seconds_sum < town.deadline_s
        assert town.router.readings()[0].inflight == 0

    go(story)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (lambda _request: b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n", 200),
        (lambda request: request(1, path="/v2/models/e/versions/nope/infer"), 404),
        (lambda request: request(1, headers="accept: application/json\r\n"), 200),
        (lambda request: request(666), 500),
        (lambda request: request()[:-1] + b"?", 400),
        (lambda request: request(*[1] * 30_000), 200),
        (lambda _request: b"nonsense\r\n\r\n", 400),
    ],
    ids=["page", "path", "headers", "failure", "body", "large", "nonsense"],
)
def test_whatever_else_a_lent_client_says_is_answered_by_the_front(go, said, status):
    async def story(town):
        client = await town.borrower()
        data = said(client.request)
        client.writer.write(data)
        assert (await client.read())[0] == status
        assert not len(town.group.lending)
        if not data.startswith(b"nonsense"):
            await client.doubles(3)

    go(story)


def test_requests_in_one_piece_are_answered_in_their_order(go):
    async def story(town):
        client = await town.borrower()
        client.writer.write(b"".join(client.request(number) for number in range(5)))
        answers = [json.loads((await client.read())[2]) for _each in range(5)]
        assert answers == [{"predictions": [2 * number]} for number in range(5)]

    go(story)


@pytest.mark.parametrize("cut", [1, 40, -20, -1])
def test_a_request_in_two_pieces_is_one(go, cut):
    async def story(town):
        client = await town.borrower()
        for number in range(5):
            data = client.request(number)
            before = town.read()
            client.writer.write(data[:cut])
            await town.until(functools.partial(has_read, town, before + len(data[:cut])))
            client.writer.write(data[cut:])
            assert json.loads((await client.read())[2]) == {"predictions": [2 * number]}

    go(story)


def test_clients_that_send_head_and_body_apart_are_lent_too(go):
    async def story(town):
        client = await town.client()
        for number in range(20):
            head, body = client.request(number).split(b"\r\n\r\n")
            client.writer.write(head + b"\r\n\r\n")
            await asyncio.sleep(0)
            client.writer.write(body)
            assert json.loads((await client.read())[2]) == {"predictions": [2 * number]}
        assert len(town.group.lending) == 1

    go(story)


def test_who_goes_away_is_forgotten_by_both(go):
    async def story(town):
        client = await town.borrower()
        client.writer.close()
        await town.until(lambda: not len(town.group.lending) and not town.server.connections)

    go(story)


def test_who_closes_one_half_gets_the_answer_and_the_end(go):
    async def story(town):
        client = await town.borrower()
        client.writer.write(client.request(4))
        client.writer.write_eof()
        assert json.loads((await client.read())[2]) == {"predictions": [8]}
        with pytest.raises(asyncio.IncompleteReadError):
            await client.read()

    go(story)


def test_who_does_not_read_gets_every_answer_whole_in_the_end(go):
    rows = [1] * 5_000

    async def story(town):
        client = await town.borrower()
        client.writer.transport.pause_reading()
        sent, before, large = 0, town.read(), client.request(*rows)
        assert len(large) < PLACE_BYTES
        lent = len(town.group.lending)
        while len(town.group.lending) == lent:  # until an answer does not fit into the system's buffers any more
            client.writer.write(large)
            sent += 1
            taken = functools.partial(has_read, town, before + sent * len(large))
            await town.until(lambda taken=taken: taken() or len(town.group.lending) < lent)
        client.writer.transport.resume_reading()
        for _each in range(sent):
            assert json.loads((await client.read())[2])["predictions"] == [2 * row for row in rows]

    go(story)


@pytest.mark.parametrize("go", ["uvloop"], indirect=True)
def test_a_silent_client_is_the_front_s_again(go):
    async def story(town):
        client = await town.borrower()
        await town.until(lambda: not len(town.group.lending))
        await client.doubles(5)

    go(story)


# ---------------------------------------------------------------- who is lent


@pytest.mark.parametrize("headers", ["modeldeploy-revision: r1\r\n", "modeldeploy-timeout: 5\r\n"])
def test_who_asks_for_something_of_his_own_is_not_lent(go, headers):
    async def story(town):
        client = await town.client()
        for number in range(3 * town.enough):
            await client.doubles(number, headers=headers)
        assert not len(town.group.lending)

    go(story)


@pytest.mark.parametrize("why", ["split", "shadow", "stable", "repeats", "one who asks"])
def test_nobody_is_lent_while_there_is_something_to_decide(go, why):
    async def story(town):
        await town.add("r2", "two")
        town.router.install(
            {
                "split": Table.of({"r1": 50, "r2": 50}, "r1"),
                "shadow": Table.of({"r1": 100}, "r1", {"r2": 10}),
                "stable": Table.of({"r1": 100}, "r2"),
            }.get(why, Table.of({"r1": 100}, "r1"))
        )
        client = await town.client()
        for number in range(3 * town.enough):
            await client.doubles(number)
        assert bool(len(town.group.lending)) is (why == "one who asks")

    go(story, retry_on_crash=why != "repeats")


def test_there_are_more_clients_than_places(go, monkeypatch):
    monkeypatch.setattr(loans, "PLACES", 2)
    assert PLACES > 2

    async def story(town):
        for _each in range(2):
            await town.borrower()
        clients = [await town.client() for _each in range(2)]
        for number in range(2 * town.enough):
            for client in (*town.clients, *clients):
                await client.doubles(number)
        assert len(town.group.lending) == 2

    go(story)


def test_two_workers_share_the_clients_and_so_does_one_that_comes_later(go):
    async def story(town):
        for _each in range(4):
            await town.borrower()
        await town.connect("two")
        await town.until(lambda: not len(town.group.lending))
        for _each in range(town.many):
            for client in town.clients:
                await client.doubles(1)
            if len(town.group.lending) == len(town.clients):
                break
        assert sorted(len(each) for each in town.group.lending._loans.values()) == [2, 2]

    go(story)


# ---------------------------------------------------------------- changes


def test_a_new_table_holds_for_lent_clients_from_the_next_request_on(go):
    async def story(town):
        await town.add("r2", "two")
        client = await town.borrower()
        await town.router.recall()
        assert not len(town.group.lending)
        town.router.install(Table.of({"r2": 100}, "r2"))
        assert (await client.doubles(1))["modeldeploy-revision"] == "r2"

    go(story)


@pytest.mark.parametrize("asked", [False, True])
def test_nobody_is_lent_between_the_recall_and_the_new_table(go, asked):
    async def story(town):
        client = await town.borrower()
        if asked:
            town.router.ask_back()
            await town.until(lambda: not len(town.group.lending))
        await town.router.recall()
        for number in range(3 * town.enough):
            await client.doubles(number)
        assert not len(town.group.lending)
        town.router.lends = True
        await town.borrower()

    go(story)


def test_a_change_does_not_wait_for_a_worker_that_is_busy(go, gate):
    async def story(town):
        await town.add("r2", "two")
        client, other = await town.borrower(), await town.borrower()
        client.writer.write(client.request(-1))
        await town.until(gate.with_suffix(".entered").exists)
        began = asyncio.get_running_loop().time()
        await town.router.recall()
        assert asyncio.get_running_loop().time() - began < town.deadline_s / 2
        town.router.install(Table.of({"r2": 100}, "r2"))
        assert (await other.doubles(1))["modeldeploy-revision"] == "r2"
        gate.touch()
        assert (await client.read())[1]["modeldeploy-revision"] == "r1"
        await town.until(lambda: not len(town.group.lending))
        for each in (client, other):
            assert (await each.doubles(1))["modeldeploy-revision"] == "r2"

    go(story)


def test_an_endpoint_that_ends_takes_its_clients_back_and_closes_them(go):
    async def story(town):
        client = await town.borrower()
        await town.router.recall()
        await town.server.drain(5)
        with pytest.raises(asyncio.IncompleteReadError):
            await client.read()

    go(story)
