"""A recorded log of answers and weights gives the same decisions, whoever replays it and however often its driver dies.

``data/rollouts.json`` holds two rollouts, each with every answer that was measured (moment, revision, share, requests, errors, latencies), every
table that was set, and what was decided on it. ``recorded`` made it: ``json.dumps({name: recorded(name) for name in RATES})``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.engine.drivers import World, run
from modeldeploy.engine.effects import Call, Dialogue, Save
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.rollout import RolloutCursor, RolloutFlow
from modeldeploy.testing.clock import FlowingClock, VirtualClock
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.metrics import Window, bucket_of
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec

LOG = Path(__file__).parent / "data" / "rollouts.json"
SPEC = EndpointSpec("iris")
GATES = ["error_rate <= 1.5x", "p95_latency <= 1.5x"]
POLICY = RolloutPolicy.canary(
    (10, 50), soak=60.0, interval=10.0, gates=GATES, on_inconclusive="promote", max_soak=120.0
)
RATES = {"good": (0.02, 0.02), "bad": (0.02, 0.06)}
"""Errors of stable and of the new revision."""


class KilledError(BaseException):
    """The process ends here."""


class Replay:
    """One rollout over an endpoint that serves v1; ``die`` numbers the effects of looks before which the driver dies."""

    def __init__(self, versions, clock, die=()):
        self.old, self.new = versions
        self.clock, self.die = clock, set(die)
        self.backend = MemoryBackend(clock=clock.now, steps=1)
        self.journal = Journal(None, clock=clock.now)
        self._carry(self.backend.put_revision(SPEC, self.old))
        self.looked = 0

    def _carry(self, ticket):
        while not ticket.phase.ended:
            ticket = self.backend.advance(ticket)

    def run(self):
        cursor = RolloutCursor(SPEC, self.new, POLICY)
        self.journal.create(Record("rollout-1", Kind.ROLLOUT, "memory", "iris", to_json(cursor)))
        while not self.journal.read("rollout-1").phase.ended:
            try:
                self._drive()
            except KilledError:
                continue
        return self.seen()

    def _drive(self):
        record = self.journal.read("rollout-1")
        flow = RolloutFlow(self.backend, from_json(RolloutCursor, record.cursor), None).run()
        run(self._dying(flow), World(record, self.journal, clock=self.clock))

    def _dying(self, flow):
        dialogue = Dialogue(flow)
        while dialogue.goes_on():
            effect = dialogue.effect
            if (isinstance(effect, Call) and effect.what == "read metrics") or isinstance(effect, Save):
                self.looked += 1
                if self.looked in self.die:
                    raise KilledError
            try:
                dialogue.answer = yield effect
            except Exception as raised:  # noqa: BLE001 - handed to the flow, which decides
                dialogue.error = raised

    def seen(self):
        """What was decided, on what, and what was set."""
        record = self.journal.read("rollout-1")
        events = [
            event for event in self.journal.events("rollout-1") if event.name in {"rollout.look", "rollout.verdict"}
        ]
        tables = [write.detail for write in self.backend.writes if write.verb == "set-traffic"]
        decided = [[event.name.value, event.at, dict(event.fields)] for event in events]
        end = {"phase": record.phase.value, "outcome": record.outcome, "evidence": record.cursor["evidence"]}
        return json.loads(json.dumps({"decided": decided, "tables": tables, **end}))


def recorded(name, versions):
    """Let requests arrive at random, by seed, and note each of them."""
    rng, samples = random.Random(7), []
    clock = FlowingClock()
    replay = Replay(versions, clock)

    def flow(seconds):
        for revision, share in replay.backend.observe("iris").traffic.live.items():
            new = revision == replay.new.id
            requests = round(30 * seconds * share / 100)
            errors = sum(rng.random() < RATES[name][new] for _ in range(requests))
            latency = {}
            for _ in range(requests):
                bucket = str(bucket_of(rng.lognormvariate(-3.0, 0.4)))
                latency[bucket] = latency.get(bucket, 0) + 1
            samples.append([clock.now(), revision, share, requests, errors, latency])
            replay.backend._samples.add("iris", note(samples[-1]), share)

    clock.flow = flow
    for _ in range(6):
        clock.sleep(10.0)
    return {"samples": samples, **replay.run()}


def note(sample):
    at, revision, _share, requests, errors, latency = sample
    return Window(revision, at, at, requests, errors, latency, assigned=requests)


@pytest.fixture(scope="module")
def log():
    return json.loads(LOG.read_text(encoding="utf-8"))


@pytest.fixture
def replayed(log, v1, v2):
    """Give ``replayed(name, die)``: a rollout whose metrics are those of the log."""

    def replay(name, die=()):
        made = Replay((v1, v2), VirtualClock(), die)
        for sample in log[name]["samples"]:
            made.backend._samples.add("iris", note(sample), sample[2])
        # The log begins a minute before.
        made.clock.sleep(60.0)
        return made.run(), made.looked

    return replay


@pytest.mark.parametrize("name", RATES)
def test_a_recorded_log_gives_the_recorded_decisions(log, replayed, name):
    seen, _looked = replayed(name)
    known = log[name]
    assert (seen["phase"], seen["tables"]) == (known["phase"], known["tables"])
    assert seen["evidence"] == known["evidence"]
    assert [(kind, at, fields["verdict"]) for kind, at, fields in seen["decided"]] == [
        (kind, at, fields["verdict"]) for kind, at, fields in known["decided"]
    ]
    for (_, _, mine), (_, _, theirs) in zip(seen["decided"], known["decided"], strict=True):
        for gate, other in zip(mine.get("gates", ()), theirs.get("gates", ()), strict=True):
            # Another machine's logarithm may differ in its last bit.
            assert gate["against"] == pytest.approx(other["against"], rel=1e-9)
            assert gate["favour"] == pytest.approx(other["favour"], rel=1e-9)


def test_the_two_logs_end_differently(log):
    assert [log[name]["phase"] for name in ("good", "bad")] == ["succeeded", "failed"]
    assert all(len(log[name]["decided"]) >= 5 for name in RATES)


@pytest.mark.parametrize("name", RATES)
def test_a_driver_that_dies_at_any_look_changes_no_bit(replayed, name):
    whole, looked = replayed(name)
    # Of the long one every third, from the first look of a step to its last.
    for at in range(1, looked + 1, 3 if name == "good" else 1):
        assert replayed(name, {at})[0] == whole, f"killed before effect {at}"


@pytest.mark.parametrize("name", RATES)
def test_a_driver_that_dies_at_every_other_look_changes_no_bit(replayed, name):
    whole, looked = replayed(name)
    assert replayed(name, set(range(1, 3 * looked, 2)))[0] == whole
