"""Canaries under load: what callers see while a new revision takes over, counted by the callers.

The bounds hold by construction where they can (see ``conftest``); where chance is left, the probability of a failure without a fault is stated
and below one in a million. The counts that detection takes are those of ``benchmarks/calibration.py`` and were simulated for the rates here.
"""

from __future__ import annotations

import collections
import itertools
import os
import signal
import subprocess
import sys

import pytest

from modeldeploy import Operation, RolloutPolicy
from modeldeploy.errors import RolloutAborted
from modeldeploy.handles.rollout import Rollout
from modeldeploy.values.analysis import Analysis

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")

STABLE_RATE = 0.005
POINTS_WORSE = 0.05
FIRST, SECOND = 0, 1
STEPS = (5, 25, 50)
WAIT_S = 90.0
# Requests of a canary 5 points worse until the evidence suffices: median 74, 99.9 % below 460, and a seventh of the rest for each 100 more.
DETECTION = 1_000
# Its failures among them: median 5, 99.9 % at most 13, and a fourth of the rest for each one more.
DETECTION_ERRORS = 25
# What comes in the seconds from the last one counted until the table is changed: 35 requests a second, 2 of which fail.
OVERSHOOT, OVERSHOOT_ERRORS = 300, 30
SURE = Analysis(alpha=1e-6)


def canary(*gates, **more):
    return RolloutPolicy.canary(STEPS, gates=gates, **{"soak": 1.0, "interval": 0.2, **more})


@pytest.fixture
def stable(stage):
    return stage.faulty(FIRST, STABLE_RATE)


@pytest.fixture
def worse(stage):
    return stage.faulty(SECOND, STABLE_RATE + POINTS_WORSE)


@pytest.fixture
def taken_back(stage):
    """Give ``taken_back(endpoint, model, policy, **callers)``: a rollout under load that must be taken back, and the callers' books."""

    def run(endpoint, model, policy, number=6, **callers):
        traffic = endpoint.traffic
        with stage.callers(endpoint, number, **callers) as load:
            stage.warm(load)
            rollout = endpoint.rollout(stage.model(model, endpoint.name), policy, wait=False)
            with pytest.raises(RolloutAborted):
                rollout.wait(WAIT_S)
            ended = load.now()
            stage.warm(load)
        assert endpoint.traffic == traffic
        assert _by_revision(load.since(ended)) == {next(iter(traffic)): len(load.since(ended))}
        return rollout, load

    return run


def test_callers_of_a_canary_five_points_worse_see_no_more_errors_than_stable_alone_gives(
    stage, stable, worse, taken_back
):
    endpoint = stage.serve(stable)
    rollout, load = taken_back(endpoint, worse, canary("error_rate <= 1%"))
    _assert_only_stables_errors(load)
    given = load.by(rollout.revision.id)
    spared = [each for each in given if each.failed_first]
    assert all(each.draws[SECOND] < STABLE_RATE + POINTS_WORSE for each in spared)
    assert 2 <= len(spared) <= DETECTION_ERRORS + OVERSHOOT_ERRORS
    assert len(given) <= DETECTION + OVERSHOOT
    (gate,) = rollout.gates
    assert gate.sample <= DETECTION
    # What the gates were told is what the callers saw.
    window = stage.backend.window(endpoint.name, rollout.revision.id, 0, 1e12, share=STEPS[0])
    assert (window.requests, window.assigned, window.errors) == (len(given), len(given), len(spared))


def test_without_safe_canary_callers_see_no_more_than_the_canarys_share_of_the_detection(
    stage, stable, worse, taken_back
):
    endpoint = stage.serve(stable, endpoint_options={"safe_canary": "false"})
    rollout, load = taken_back(endpoint, worse, canary("error_rate <= 1%"))
    given = load.by(rollout.revision.id)
    extra = [each for each in given if each.status != 200]
    assert all(each.draws[SECOND] < STABLE_RATE + POINTS_WORSE for each in extra)
    _assert_only_stables_errors(load, besides=extra)
    assert 2 <= len(extra) <= DETECTION_ERRORS + OVERSHOOT_ERRORS
    assert len(given) <= DETECTION + OVERSHOOT
    # Its share of what was asked from its first request to its last, and at most 6 standard deviations more.
    times = [each.at for each in given]
    share = STEPS[0] / 100 * sum(min(times) <= each.at <= max(times) for each in load.answers)
    assert len(given) <= share + 6 * share**0.5 + 5


def test_a_canary_that_always_fails_is_taken_back_after_a_handful_of_its_requests(stage, stable, taken_back):
    endpoint = stage.serve(stable)
    rollout, load = taken_back(endpoint, stage.faulty(SECOND, 1.0), canary("error_rate <= 1%"))
    _assert_only_stables_errors(load)
    samples = [look.gates[0].sample for look in rollout.verdicts]
    # Metrics come by whole seconds, so the last look may add many. Before it there was no verdict, as 3 failures would have given (4 when
    # stable fails beside them; 8 never in a million).
    assert samples[-1] >= 2
    assert max(samples[:-1], default=0) <= 8
    assert len(load.by(rollout.revision.id)) <= samples[-1] + OVERSHOOT


def test_callers_of_a_canary_that_hangs_are_answered_by_stable_within_their_time(stage, stable, taken_back):
    endpoint, within = stage.serve(stable), 3.0
    hanging = stage.faulty(SECOND, 0.0, hangs=True)
    rollout, load = taken_back(endpoint, hanging, canary("error_rate <= 1%"), number=8, modeldeploy_timeout=str(within))
    _assert_only_stables_errors(load)
    given = load.by(rollout.revision.id)
    assert all(each.failed_first for each in given)
    # Where stable failed too, as it does at times, the canary's last word is waited for: until the deadline, and a little to say so.
    assert within / 2 <= max(each.seconds for each in given) < within + 0.5


def test_a_canary_three_times_as_slow_is_taken_back(stage, taken_back):
    # They sleep, rather than compute, so that their times stay apart however busy the machine is; a worker for each caller, so that nobody queues.
    endpoint = stage.serve(stage.faulty(FIRST, 0.0, seconds=0.05), workers=4)
    slow = stage.faulty(SECOND, 0.0, seconds=0.15)
    rollout, load = taken_back(endpoint, slow, canary("p95_latency <= 1.5x"), number=4, pace=0.002)
    assert {each.status for each in load.answers} == {200}
    assert "took over 1.5 x stable's p95" in rollout.outcome


# ---------------------------------------------------------------- a good one


def test_an_equally_good_canary_is_promoted_and_no_key_is_ever_sent_back(stage, stable):
    endpoint = stage.serve(stable)
    old, model = endpoint.stable.id, stage.model(stage.faulty(SECOND, STABLE_RATE), endpoint.name)
    # With this alpha a revision as good as stable is taken back once in a million times, and that 10 % holds is sure after some 60 keys.
    policy = canary("error_rate <= 10%", analysis=SURE, key="header:x-user")
    with stage.callers(endpoint) as load:
        stage.warm(load)
        rollout = endpoint.rollout(model, policy, timeout=WAIT_S)
        stage.warm(load)
    new = rollout.revision.id
    assert endpoint.traffic == {new: 100}
    _assert_errors_at_stables_rate(load, STABLE_RATE)
    order = collections.defaultdict(list)
    for each in load.answers:
        order[each.key].append(new if new in {each.revision, each.failed_first} else old)
    moves = [[revision for revision, _ in itertools.groupby(each)] for each in order.values()]
    assert set(map(tuple, moves)) == {(old,), (old, new), (new,)}
    steps = [event.fields["percent"] for event in rollout.operation.events() if event.name.value == "rollout.step"]
    assert steps == [*STEPS, 100]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("gate", ["error_rate <= 1%", "error_rate <= 1x"])
def test_an_equally_good_canary_passes_the_gates_that_take_a_bad_one_back(stage, gate):
    rate = 0.001
    endpoint = stage.serve(stage.faulty(FIRST, rate))
    with stage.callers(endpoint) as load:
        stage.warm(load)
        model = stage.model(stage.faulty(SECOND, rate), endpoint.name)
        rollout = endpoint.rollout(model, canary(gate, analysis=SURE), timeout=240)
        stage.warm(load)
    assert endpoint.traffic == {rollout.revision.id: 100}
    _assert_errors_at_stables_rate(load, rate)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["error_rate <= 1%", "error_rate <= 1x", "error_rate <= 1.5x"])
def test_a_worse_canary_is_taken_back_by_each_gate(stage, stable, worse, taken_back, gate):
    _rollout, load = taken_back(stage.serve(stable), worse, canary(gate))
    _assert_only_stables_errors(load)


# ---------------------------------------------------------------- a driver that dies

DRIVER = """
import sys
from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.values.analysis import Analysis
name, version, gate = sys.argv[1:]
policy = RolloutPolicy.canary((5, 25, 50), soak=1.0, gates=[gate], interval=0.2, analysis=Analysis(alpha=1e-4))
rollout = Endpoint.get(name).rollout(Model.get(name, version), policy, wait=False)
print(rollout.id, flush=True)
sys.stdin.readline()
"""


def test_a_canary_whose_driver_is_killed_is_taken_back_by_another(stage, stable, worse, monkeypatch):
    monkeypatch.setenv("MODELDEPLOY_HOME", str(stage.home))
    endpoint = stage.serve(stable)
    old, model = endpoint.traffic, stage.model(worse, endpoint.name)
    command = [sys.executable, "-c", DRIVER, endpoint.name, model.version, "error_rate <= 1x"]
    with stage.callers(endpoint) as load:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
            rollout = Rollout.get(driver.stdout.readline().strip(), backend=stage.session)
            # In the middle: the first failure is seen, and with this alpha it takes five in one second to decide.
            stage.wait_until(lambda: any(each.failed_first for each in load.answers), timeout=WAIT_S)
            os.kill(driver.pid, signal.SIGKILL)
        assert [each.id for each in Operation.unfinished(backend=stage.session)] == [rollout.id]
        drive = [sys.executable, "-m", "modeldeploy.cli", "drive"]
        done = subprocess.run(drive, capture_output=True, text=True, timeout=WAIT_S, check=False)
        ended = load.now()
        stage.warm(load)
    assert done.returncode == 1, done.stderr
    assert rollout.status == "failed"
    assert endpoint.traffic == old
    assert _by_revision(load.since(ended)) == {next(iter(old)): len(load.since(ended))}
    _assert_only_stables_errors(load)
    assert len(load.by(rollout.revision.id)) >= rollout.gates[0].sample


# ---------------------------------------------------------------- what the callers saw


def _assert_only_stables_errors(load, besides=()):
    """Whoever was failed would have been failed by stable: not by chance, for each single request."""
    others = set(map(id, besides))
    failed = [each for each in load.answers if each.status != 200 and id(each) not in others]
    assert [each for each in failed if each.status != 500 or each.draws[FIRST] >= STABLE_RATE] == []


def _assert_errors_at_stables_rate(load, rate):
    """Not more than a coin with that rate gives, except once in ten million times."""
    from scipy.stats import binom

    failed = sum(each.status != 200 for each in load.answers)
    assert failed <= binom.isf(1e-7, load.count, rate)


def _by_revision(answers):
    return dict(collections.Counter(each.revision for each in answers))
