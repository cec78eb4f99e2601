"""Carrying one ticket to its end."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.engine.carry import carry
from modeldeploy.engine.effects import Call, Emit, Sleep
from modeldeploy.errors import OperationCancelled, OperationFailed
from modeldeploy.values.ticket import Action, Phase, Ticket

START = Ticket(Action.PUT_JOB, "job")


class Provider:
    """Gives these tickets, one for each look; the last for ever."""

    def __init__(self, *changes):
        self.changes = list(changes)
        self.asked = []

    def advance(self, ticket):
        self.asked.append(ticket)
        change = self.changes.pop(0) if len(self.changes) > 1 else self.changes[0]
        return attrs.evolve(ticket, **change)


DONE = {"step": "done", "phase": Phase.SUCCEEDED}


def drive(provider, ticket=START, attend=None):
    """Give how it ended, the waits, what was saved and how many events there were."""
    waits, saved, events = [], [], []

    def save(moved):
        saved.append(moved.step)
        return moved
        yield

    flow = carry(provider, ticket, save=save, attend=attend)
    answer = None
    try:
        while True:
            effect = flow.send(answer)
            answer = None
            if isinstance(effect, Call):
                answer = effect.fn()
            elif isinstance(effect, Sleep):
                waits.append(effect.seconds)
            elif isinstance(effect, Emit):
                events.append(effect.fields)
    except StopIteration as stop:
        return stop.value, waits, saved, events


def test_only_a_new_step_is_saved():
    provider = Provider({"step": "a"}, {"fraction": 0.5}, {}, {"step": "b"}, DONE)
    ended, _waits, saved, events = drive(provider)
    assert (ended.phase, saved, len(events)) == (Phase.SUCCEEDED, ["a", "b"], 4)


def test_waits_grow_while_nothing_moves_and_start_anew():
    provider = Provider({"step": "a"}, *[{}] * 30, {"step": "b"}, {}, DONE)
    _ended, waits, _saved, _events = drive(provider)
    assert waits[:4] == pytest.approx([0.005, 0.0075, 0.01125, 0.016875])
    assert max(waits) == 15.0
    assert waits[-2:] == pytest.approx([0.005, 0.0075])


def test_the_backend_says_how_long_to_wait():
    _ended, waits, _saved, _events = drive(Provider({"step": "a", "poll_after": 7.0}, {}, {}, DONE))
    assert waits == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("phase", "note", "error", "words"),
    [
        (Phase.FAILED, "no memory", OperationFailed, "put-job of 'job' failed: no memory"),
        (Phase.FAILED, "", OperationFailed, "the provider gives no reason"),
        (Phase.CANCELLED, "", OperationCancelled, "put-job of 'job' was cancelled"),
    ],
)
def test_an_end_that_is_no_success_is_raised(phase, note, error, words):
    with pytest.raises(error, match=words):
        drive(Provider({"phase": phase, "note": note}))


def test_a_ticket_that_has_ended_is_not_looked_at():
    provider = Provider(DONE)
    ended, *_rest = drive(provider, attrs.evolve(START, phase=Phase.SUCCEEDED))
    assert (ended.phase, provider.asked) == (Phase.SUCCEEDED, [])


def test_the_caller_attends_before_each_look_and_may_change_the_ticket():
    seen = []

    def attend(ticket):
        seen.append(ticket.step)
        return attrs.evolve(ticket, note="attended")
        yield

    provider = Provider({"step": "a"}, DONE)
    drive(provider, attend=attend)
    assert seen == ["start", "a"]
    assert [ticket.note for ticket in provider.asked] == ["attended", "attended"]
