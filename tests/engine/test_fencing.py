"""A driver that was frozen inside a call to the provider: what it had begun arrives late, and changes nothing."""

from __future__ import annotations

import threading

import pytest

from modeldeploy.engine.journal import LEASE_S
from modeldeploy.errors import ConflictError, FencedError
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Action, Phase

POLICY = RolloutPolicy.canary((10, 50), soak=10)


class Late:
    """A provider whose first change of traffic is on its way until ``arrive`` is set."""

    def __init__(self, inner):
        self.inner, self.sent, self.arrive, self.answers = inner, threading.Event(), threading.Event(), []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def advance(self, ticket):
        if ticket.action is not Action.SET_TRAFFIC or self.sent.is_set():
            return self.inner.advance(ticket)
        self.sent.set()
        assert self.arrive.wait(30)
        try:
            return self.inner.advance(ticket)
        except ConflictError as error:
            self.answers.append(error)
            raise


@pytest.fixture
def late(serving, v2):
    """Give the scene, the rollout, and its first driver, frozen in the midst of changing the traffic."""
    record, backend, ends = serving.rollout(v2, POLICY), Late(serving.backend), []

    def drive():
        try:
            serving.drive(record, backend=backend)
        except FencedError as error:
            ends.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    assert backend.sent.wait(30)

    def thaw():
        backend.arrive.set()
        thread.join(30)
        return backend.answers, ends

    yield serving, record, thaw
    thaw()


def test_traffic_that_arrives_after_another_driver_finished_is_refused(late):
    scene, record, thaw = late
    scene.clock.at += LEASE_S
    assert scene.drive(record).phase is Phase.SUCCEEDED
    before = scene.state, scene.tables, scene.journal.read(record.id), scene.journal.events(record.id), scene.history()
    (refused,), (fenced,) = thaw()
    assert "is at version" in str(refused)
    assert fenced.context == {"operation": record.id}
    after = scene.state, scene.tables, scene.journal.read(record.id), scene.journal.events(record.id), scene.history()
    assert after == before
    assert list(scene.live.values()) == [100]
    assert len(scene.tables) == 3


def test_nobody_takes_it_up_before_the_lease_is_over(late):
    scene, record, thaw = late
    scene.clock.at += LEASE_S - 1
    with pytest.raises(ConflictError, match="is driven by process"):
        scene.drive(record)
    assert thaw() == ([], [])
    assert scene.journal.read(record.id).phase is Phase.SUCCEEDED
