"""What becomes of lent clients when their worker ends, dies, hangs, stands still or is held up."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import psutil
import pytest

from modeldeploy.serving.link import can_lend

pytestmark = pytest.mark.skipif(not can_lend(), reason="connections are lent on Linux only")

WORKERS = ("w1", "w2", "w3", "w4")


def test_a_worker_that_is_told_to_end_gives_its_clients_back(go, start):
    leaving = start("w1")
    start("w2")

    async def story(town):
        client = await town.borrower()
        leaving.send_signal(signal.SIGTERM)
        for number in range(100):
            await client.doubles(number)
        await asyncio.to_thread(leaving.wait, town.deadline_s)
        assert leaving.returncode == 0

    go(story, "w1", "w2")


@pytest.mark.parametrize("moment", ["unread", "in hand"])
def test_what_a_killed_worker_had_is_answered_by_another(go, start, gate, moment):
    killed = start("w1")

    async def story(town):
        clients = [await town.borrower() for _each in range(3)]
        if moment == "unread":
            os.kill(killed.pid, signal.SIGSTOP)
            await town.until(lambda: psutil.Process(killed.pid).status() == psutil.STATUS_STOPPED)
        for number, client in enumerate(clients):
            client.writer.write(client.request(-1 - number))
        if moment == "in hand":
            await town.until(gate.with_suffix(".entered").exists)
        await asyncio.to_thread(start, "w2")
        await town.connect("w2")
        os.kill(killed.pid, signal.SIGKILL)
        gate.touch()
        for number, client in enumerate(clients):
            assert json.loads((await client.read())[2]) == {"predictions": [-2 - 2 * number]}
            await client.doubles(7)
        assert town.events == [("lost", "w1")]
        assert town.router.meter("r1").retried or moment == "unread"

    go(story, "w1")


def test_a_request_that_kills_is_found_and_costs_no_other_its_answer(go, start):
    for each in WORKERS:
        start(each)

    async def story(town):
        client, *others = [await town.borrower() for _each in range(4)]
        client.writer.write(client.request(999))
        for _round in range(20):
            for other in others:
                await other.doubles(3)
        assert (await client.read())[0] == 500
        assert len(town.group.links) == len(WORKERS) - 2, "it is sent once more, and no third time"

    go(story, *WORKERS)


def test_clients_of_a_worker_that_is_held_up_are_answered_by_another(go, start, gate):
    for name in ("w1", "w2"):
        start(name)

    async def story(town):
        clients = [await town.borrower() for _each in range(4)]
        clients[0].writer.write(clients[0].request(-1))
        await town.until(gate.with_suffix(".entered").exists)
        for client in clients[1:]:
            for number in range(3):
                await client.doubles(number)
        gate.touch()
        assert json.loads((await clients[0].read())[2]) == {"predictions": [-2]}
        await town.until(lambda: not any(loans._freed for loans in town.group.lending._loans.values()))
        assert [await client.doubles(9) for client in clients]
        assert town.events == []

    go(story, "w1", "w2")


def test_a_worker_that_stands_still_is_reported_and_its_clients_are_answered_by_another(go, start):
    stopped = start("w1")

    async def story(town):
        client = await town.borrower()
        os.kill(stopped.pid, signal.SIGSTOP)
        await town.until(lambda: psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED)
        client.writer.write(client.request(3))
        await town.until(lambda: town.events == [("hung", "w1")])
        await town.connect("one")
        os.kill(stopped.pid, signal.SIGKILL)
        assert json.loads((await client.read())[2]) == {"predictions": [6]}

    go(story, "w1", deadline_s=0.3)


def test_a_worker_that_hangs_is_reported_and_its_clients_are_told(go, start, gate):
    hanging = start("w1")

    async def story(town):
        client = await town.borrower()
        client.writer.write(client.request(-1))
        await town.until(lambda: town.events == [("hung", "w1")])
        os.kill(hanging.pid, signal.SIGKILL)  # as the supervisor does
        assert (await client.read())[0] == 504
        assert town.router.meter("r1").outcomes["error"] == 1

    go(story, "w1", deadline_s=0.2)
