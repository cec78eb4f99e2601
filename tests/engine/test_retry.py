"""Repeating calls: which, how often, after how long, and never past the deadline."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.effects import Sleep, call
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.retry import RetryPolicy, retrying
from modeldeploy.errors import InvalidRequestError, QuotaError, ThrottledError, UnavailableError
from modeldeploy.testing.clock import VirtualClock
from modeldeploy.values.events import Level, Name


class Provider:
    """Fails with each of these in turn, then answers."""

    def __init__(self, clock, *errors, takes=0.0):
        self.clock, self.errors, self.takes, self.calls = clock, list(errors), takes, []

    def __call__(self):
        self.calls.append(self.clock.now())
        self.clock.at += self.takes
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def make_world(clock):
    journal = Journal(clock=clock.now)
    seen = []
    record = journal.create(Record("batch-1", Kind.BATCH, "memory", "job", {}))
    return World(record, journal, clock=clock, sink=seen.append), seen


def ask(provider, policy=None, seed=0):
    """Give the answer and the events."""
    world, seen = make_world(provider.clock)
    flow = retrying(call("ask", provider), policy or RetryPolicy(), rng=random.Random(seed))
    return run(flow, world), seen


def down(number=1, **options):
    return [UnavailableError(f"down {each}", **options) for each in range(number)]


def test_an_answer_at_once_waits_for_nothing():
    provider = Provider(VirtualClock())
    answer, seen = ask(provider)
    assert (answer, provider.clock.slept, seen) == ("answer", 0.0, [])


def test_transient_errors_are_repeated_and_told():
    provider = Provider(VirtualClock(), *down(2))
    answer, seen = ask(provider)
    assert answer == "answer"
    assert [(event.name, event.level) for event in seen] == [(Name.OPERATION_RETRY, Level.WARNING)] * 2
    assert seen[1].fields["call"] == "ask"
    assert seen[1].fields["attempt"] == 2
    assert seen[1].fields["error"] == "down 1"


@pytest.mark.parametrize("error", [QuotaError("full"), InvalidRequestError("bad"), ValueError("a bug")])
def test_other_errors_are_raised_at_once(error):
    provider = Provider(VirtualClock(), error)
    with pytest.raises(type(error)) as caught:
        ask(provider)
    assert caught.value is error
    assert len(provider.calls) == 1


def test_the_last_error_is_raised_as_it_is():
    provider = Provider(VirtualClock(), *down(3))
    last = provider.errors[-1]
    with pytest.raises(UnavailableError) as caught:
        ask(provider, RetryPolicy(attempts=3))
    assert caught.value is last
    assert len(provider.calls) == 3


def test_what_the_provider_asks_for_is_waited():
    provider = Provider(VirtualClock(), ThrottledError("slow down", retry_after=42.0))
    ask(provider)
    assert provider.calls[1] - provider.calls[0] >= 42.0


def test_a_wait_that_would_pass_the_deadline_is_not_begun():
    provider = Provider(VirtualClock(), ThrottledError("slow down", retry_after=1000.0))
    with pytest.raises(ThrottledError):
        ask(provider)
    assert provider.clock.slept == 0.0


def test_the_time_that_calls_take_counts():
    provider = Provider(VirtualClock(), *down(10), takes=40.0)
    with pytest.raises(UnavailableError):
        ask(provider, RetryPolicy(first=0.001, cap=0.001, deadline=100.0))
    assert len(provider.calls) == 3


def test_a_wait_that_was_ended_early_is_waited_to_its_end():
    """A user's command wakes the driver; the provider still wants its pause."""

    class Restless(VirtualClock):
        def sleep(self, seconds):
            VirtualClock.sleep(self, seconds if seconds < 1 else seconds / 2)

    provider = Provider(Restless(), ThrottledError("slow down", retry_after=40.0))
    ask(provider)
    assert provider.calls[1] - provider.calls[0] >= 39.99


def test_without_a_generator_of_its_own_it_draws_from_a_new_one():
    clock = VirtualClock()
    world, _seen = make_world(clock)
    assert run(retrying(call("ask", Provider(clock, *down(1))), RetryPolicy(first=0.01)), world) == "answer"


def test_other_effects_pass_through_with_their_errors():
    def flow():
        yield Sleep(3)
        try:
            yield object()
        except TypeError as error:
            return str(error)

    class Odd(World):
        def perform(self, effect):
            if not isinstance(effect, Sleep):
                message = "what is that"
                raise TypeError(message)
            return World.perform(self, effect)

    clock = VirtualClock()
    journal = Journal()
    world = Odd(journal.create(Record("batch-1", Kind.BATCH, "memory", "job", {})), journal, clock=clock)
    assert run(retrying(flow(), RetryPolicy()), world) == "what is that"
    assert clock.slept == 3


@given(
    seed=st.integers(0, 2**32),
    failures=st.integers(0, 12),
    attempts=st.integers(1, 10),
    first=st.floats(0.01, 5),
    cap=st.floats(0.01, 30),
    deadline=st.floats(0, 120),
    asked=st.none() | st.floats(0, 60),
)
def test_waits_keep_their_bounds(seed, failures, attempts, first, cap, deadline, asked):  # noqa: PLR0917 - drawn
    provider = Provider(VirtualClock(at=0.0), *down(failures, retry_after=asked))
    policy = RetryPolicy(attempts=attempts, first=first, cap=cap, deadline=deadline)
    try:
        ask(provider, policy, seed)
        succeeded = True
    except UnavailableError:
        succeeded = False
    waits = [after - before for before, after in zip(provider.calls, provider.calls[1:], strict=False)]
    assert len(provider.calls) <= attempts
    assert provider.clock.slept <= deadline + 1e-3
    assert succeeded == (len(provider.calls) == failures + 1)
    for number, wait in enumerate(waits):
        window = min(cap, first * 2**number)
        assert (asked or 0.0) - 1e-3 <= wait <= max(asked or 0.0, window) + 1e-3


def test_the_jitter_is_full():
    """Over many seeds the first wait covers its whole window."""
    waits = []
    for seed in range(200):
        provider = Provider(VirtualClock(), *down(1))
        ask(provider, RetryPolicy(first=1.0), seed)
        waits.append(provider.clock.slept)
    assert min(waits) < 0.1
    assert max(waits) > 0.9
    assert 0.4 < sum(waits) / len(waits) < 0.6


def test_an_operation_without_a_failure_does_not_import_tenacity():
    code = (
        "import random, sys\n"
        "from modeldeploy.engine.effects import Now, call\n"
        "from modeldeploy.engine.retry import RetryPolicy, retrying\n"
        "flow = retrying(call('ask', lambda: 1), RetryPolicy())\n"
        "assert isinstance(next(flow), Now)\n"
        "effect = flow.send(0.0)\n"
        "try:\n"
        "    flow.send(effect.fn())\n"
        "except StopIteration as end:\n"
        "    assert end.value == 1\n"
        "assert not {'tenacity', 'asyncio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
