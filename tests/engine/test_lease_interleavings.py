"""Whatever order drivers take, write, freeze, wake and give back in: each write is of the driver that took the operation last."""

from __future__ import annotations

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from modeldeploy.engine.journal import LEASE_S, Journal
from modeldeploy.engine.owners import forget, new_owner
from modeldeploy.engine.record import HistoryEntry, Kind, Record
from modeldeploy.errors import ConflictError, FencedError
from modeldeploy.values.events import Event, Name


@attrs.define
class Driver:
    number: int
    owner: str
    record: Record


class Leases(RuleBasedStateMachine):
    """Drivers of one operation; one that is not asked to do anything is frozen."""

    drivers = Bundle("drivers")

    def __init__(self):
        super().__init__()
        self.at = 1_000.0
        self.journal = Journal(clock=lambda: self.at)
        self.journal.create(Record("rollout-1", Kind.ROLLOUT, "memory", "iris", {"by": 0}))
        self.owners = []
        self.current = self.heard_at = 0
        self.wrote = [0]

    @rule(target=drivers)
    def take(self):
        number, owner = len(self.owners) + 1, new_owner()
        self.owners.append(owner)
        silent = self.at - self.heard_at >= LEASE_S
        try:
            record = self.journal.acquire("rollout-1", owner)
        except ConflictError:
            assert self.current
            assert not silent
            # It writes all the same, from what it has read somewhere.
            return Driver(number, owner, Record("rollout-1", Kind.ROLLOUT, "memory", "iris", {}))
        assert not self.current or silent
        self.current, self.heard_at = number, self.at
        return Driver(number, owner, record)

    @rule(driver=drivers)
    def write(self, driver):
        changed = attrs.evolve(driver.record, cursor={"by": driver.number})
        events = [Event(Name.OPERATION_PROGRESS, float(driver.number), "rollout-1")]
        try:
            driver.record = self.journal.save(
                changed, events=events, history=HistoryEntry("promoted", str(driver.number))
            )
        except FencedError:
            assert driver.number != self.current
        else:
            assert driver.number == self.current
            self.wrote.append(driver.number)
            self.heard_at = self.at

    @rule(driver=drivers)
    def renew(self, driver):
        try:
            self.journal.check(driver.record)
            self.journal.renew(driver.record)
        except FencedError:
            assert driver.number != self.current
        else:
            assert driver.number == self.current
            self.heard_at = self.at

    @rule(driver=consumes(drivers))
    def give_back(self, driver):
        self.journal.release(driver.record, events=[Event(Name.OPERATION_PROGRESS, -1.0, "rollout-1")])
        forget(driver.owner)
        if driver.number == self.current:
            self.wrote.append(-1)
            self.current = 0

    @rule(seconds=st.sampled_from([1.0, LEASE_S - 1, LEASE_S]))
    def wait(self, seconds):
        self.at += seconds

    @invariant()
    def what_is_written_is_what_drivers_wrote(self):
        written = [event.at for event in self.journal.events("rollout-1")]
        assert written == self.wrote[1:]
        (*_before, last) = [number for number in self.wrote if number >= 0]
        assert self.journal.read("rollout-1").cursor == {"by": last}
        assert self.journal.verify_history(backend="memory", target="iris") == sum(number > 0 for number in self.wrote)

    def teardown(self):
        for owner in self.owners:
            forget(owner)
        self.journal.close()


Leases.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLeases = Leases.TestCase
