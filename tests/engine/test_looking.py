"""Looking: which metrics are read, in which slots, and that no request is counted twice or lost."""

from __future__ import annotations

import itertools
import math

import attrs
import pytest

from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.backends.memory_meters import sample
from modeldeploy.engine.cursor import RolloutCursor
from modeldeploy.engine.effects import Dialogue
from modeldeploy.engine.looking import Looker
from modeldeploy.engine.record import Verb
from modeldeploy.testing.faults import FaultyBackend
from modeldeploy.values.events import Name
from modeldeploy.values.gate import Verdict
from modeldeploy.values.metrics import Window
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.serving import EndpointSpec
from modeldeploy.values.ticket import Phase

SPEC = EndpointSpec("iris")
ERRORS = "error_rate <= 1%"


class Slots(FaultyBackend):
    """Metrics in slots, as clouds keep them: whole slots only, and perhaps without knowing the shares."""

    def __init__(self, inner):
        super().__init__(inner)
        self.asked = []

    def window(self, endpoint, revision, since, until, *, share=None):
        slot = self.capabilities.meter_resolution
        assert not slot or (since % slot == 0 == until % slot), (since, until)
        assert since <= until
        self.asked.append((revision, since, until, share))
        if not self.capabilities.meters_by_share:
            share = None
        return super().window(endpoint, revision, since, until, share=share)


def canary(*gates, steps=(20,), **options):
    return RolloutPolicy.canary(steps, gates=gates, **{"soak": 120.0, "interval": 7.0, "min_sample": 10, **options})


@pytest.fixture
def slotted(make_scene, v1):
    def make(resolution, *, by_share):
        capabilities = attrs.evolve(EVERYTHING, meter_resolution=resolution, meters_by_share=by_share)
        scene = make_scene(capabilities=capabilities)
        scene.clock.sleep(17.3)
        scene.put(v1)
        return scene, Slots(scene.backend)

    return make


@pytest.mark.parametrize("by_share", [True, False])
@pytest.mark.parametrize("resolution", [0.0, 1.0, 60.0])
def test_no_request_is_counted_twice_or_lost(slotted, v1, v2, resolution, by_share):
    scene, backend = slotted(resolution, by_share=by_share)
    record = scene.rollout(v2, canary(ERRORS, steps=(20, 50)))
    assert scene.drive(record, backend=backend).phase is Phase.SUCCEEDED
    evidence = scene.cursor(record).evidence
    steps = [event.at for event in scene.events("rollout.step")]
    for at, (stratum, began) in enumerate(zip(evidence.strata[ERRORS], steps, strict=False)):
        # Where shares are told, what comes after the table was replaced is counted too, in the step that follows.
        verdicts = [event.at for event in scene.events("rollout.verdict")]
        ended = verdicts[-1] if by_share else verdicts[at]
        slot = resolution or 1e-9
        first = math.floor(began / slot) if by_share else math.ceil(began / slot)
        last = math.floor(ended / slot)
        # All that it answered under this share within these slots; requests come in portions at each sleep.
        share = stratum.new_share
        seen = scene.backend.window("iris", v2.id, first * slot, last * slot, share=share if by_share else None)
        assert stratum.new_seen == seen.requests
        assert stratum.stable_seen > stratum.new_seen * 0.9


@pytest.mark.parametrize("resolution", [1.0, 60.0])
def test_intervals_touch_and_never_overlap(slotted, v2, resolution):
    scene, backend = slotted(resolution, by_share=True)
    scene.drive(scene.rollout(v2, canary(ERRORS)), backend=backend)
    asked = [(since, until) for revision, since, until, share in backend.asked if revision == v2.id and share == 20]
    assert len(asked) > 1
    assert all(until == since for (_, until), (since, _) in itertools.pairwise(asked))


@pytest.mark.parametrize("resolution", [1.0, 60.0])
def test_what_stable_did_before_is_asked_in_whole_slots_too(slotted, v1, v2, resolution):
    scene, backend = slotted(resolution, by_share=True)
    scene.clock.sleep(200)
    policy = RolloutPolicy.blue_green(bake=130, gates=["error_rate <= 2x", "p95_latency <= 1.5x"])
    assert scene.drive(scene.rollout(v2, policy), backend=backend).phase is Phase.SUCCEEDED
    switched = scene.events("rollout.step")[0].at
    before = [until for revision, _since, until, _share in backend.asked if revision == v1.id]
    assert before
    assert max(before) <= switched


@pytest.mark.parametrize("resolution", [1.0, 60.0])
@pytest.mark.parametrize("analysis", ["threshold", "mannwhitney"])
def test_the_other_analyses_ask_for_whole_slots_too(slotted, v2, analysis, resolution):
    scene, backend = slotted(resolution, by_share=True)
    policy = canary(ERRORS, analysis=analysis, interval=5.0, max_soak=2_000.0)
    scene.drive(scene.rollout(v2, policy), backend=backend)
    assert backend.asked


def test_nothing_is_asked_within_a_slot_that_is_not_over(slotted, v2):
    scene, backend = slotted(60.0, by_share=False)
    record = scene.rollout(v2, canary(ERRORS, soak=30.0))
    scene.drive(record, backend=backend)
    # The first whole slot of a step begins after it, so that the sixty seconds from there must pass.
    assert scene.events("rollout.verdict")[0].at - scene.events("rollout.step")[0].at >= 60


@pytest.mark.parametrize("analysis", ["sequential", "threshold"])
def test_nothing_is_asked_that_may_still_grow(slotted, v2, analysis):
    scene, backend = slotted(1.0, by_share=False)
    backend.capabilities = attrs.evolve(backend.capabilities, meter_delay=30.0)
    record = scene.rollout(v2, canary(ERRORS, soak=10.0, interval=1.0, analysis=analysis))
    assert scene.drive(record, backend=backend).phase is Phase.SUCCEEDED
    began, ended = scene.events("rollout.step")[0].at, scene.events("rollout.verdict")[0].at
    # Of what this table gave nothing is known before the delay is over; then there is a verdict at once.
    assert 31 <= ended - began <= 60
    new = [until for revision, _since, until, _share in backend.asked if revision == v2.id]
    assert max(new) <= scene.clock.now() - 30


def test_where_shares_are_told_only_the_tables_own_requests_count(serving, v2):
    serving.after(30, lambda: serving.backend._samples.add("iris", pinned(serving, v2)))
    record = serving.rollout(v2, canary("error_rate <= 50%", steps=(50,)))
    assert serving.drive(record).phase is Phase.SUCCEEDED
    (stratum,) = serving.cursor(record).evidence.strata["error_rate <= 50%"]
    assert stratum.new_bad == 0


def pinned(scene, revision):
    at = scene.clock.now()
    return Window(revision.id, at, at, requests=5_000, errors=5_000)


def test_a_base_that_is_too_small_is_looked_for_further_back(serving, v1, v2):
    """Of a slow service one minute does not make a 99th percentile."""
    backend = Slots(serving.backend)
    serving.rate = 4
    serving.clock.sleep(600)
    serving.drive(serving.rollout(v2, canary("p99_latency <= 1.5x", steps=(50,))), backend=backend)
    spans = {
        round(until - since) for revision, since, until, share in backend.asked if revision == v1.id and share is None
    }
    assert spans == {60, 3_600}


def test_a_threshold_without_stable_beside_it_is_held_against_stable_before(serving, v1, v2):
    serving.sick.update({v1.id: 0.02, v2.id: 0.1})
    for _ in range(12):
        serving.clock.sleep(5)
    policy = RolloutPolicy.blue_green(bake=60, gates=["error_rate <= 2x"], analysis="threshold")
    record = serving.rollout(v2, policy)
    assert serving.drive(record).phase is Phase.FAILED
    (result,) = serving.cursor(record).results
    assert result.limit == pytest.approx(0.04, abs=0.002)


def look(scene, cursor):
    """Look once, at everything since the first moment."""
    looking = Dialogue(Looker(scene.backend, cursor).look(scene.clock.now(), 1e9))
    while looking.goes_on():
        looking.answer = looking.effect.fn()
    return looking.value


@pytest.mark.parametrize("analysis", ["sequential", "threshold"])
def test_without_stable_the_new_revision_is_looked_at_alone(scene, v1, analysis):
    scene.put(v1)
    scene.clock.sleep(10)
    policy = RolloutPolicy.blue_green(bake=30, gates=[ERRORS], analysis=analysis)
    evidence, (result,) = look(scene, RolloutCursor(SPEC, v1, policy))
    assert (result.sample, result.stable_sample) == (1_000, 0)
    if analysis == "sequential":
        (stratum,) = evidence.strata[ERRORS]
        assert (stratum.new_share, stratum.stable_share, stratum.new_seen) == (100, 0, 1_000)


def test_the_first_revision_of_an_endpoint_has_no_gates_to_pass(scene, v1):
    record = scene.rollout(v1, canary(ERRORS))
    assert scene.drive(record).phase is Phase.SUCCEEDED
    assert scene.cursor(record).verdict is None


def test_an_endpoint_without_traffic_has_no_stable_to_hold_against(make_scene, v1, v2):
    scene = make_scene()
    scene.put(v1)
    scene.set_traffic({})
    record = scene.rollout(v2, RolloutPolicy.blue_green(bake=30, gates=[ERRORS]))
    assert scene.drive(record).phase is Phase.SUCCEEDED


def test_a_paused_rollout_counts_nothing(serving, v2):
    record = serving.rollout(v2, canary(ERRORS, steps=(50,)))
    serving.after(50, lambda: serving.tell(record, Verb.PAUSE))
    assert serving.drive(record).paused
    before = serving.cursor(record).evidence
    serving.sick[v2.id] = 1.0
    serving.clock.sleep(500)
    serving.sick.clear()
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.cursor(record).verdict is Verdict.PASS
    (stratum,) = serving.cursor(record).evidence.strata[ERRORS]
    assert stratum.new_bad == before.strata[ERRORS][0].new_bad == 0


def test_slow_answers_are_not_taken_for_another_split(serving, v1, v2):
    """Few requests, each answered in an interval after the one in which it was given to its revision."""
    due = []

    def trickle(_seconds):
        at = serving.clock.now()
        for revision in due:
            serving.backend._samples.add(
                "iris", sample(revision, at, requests=1, errors=0, latency=1.5), share[revision]
            )
        due[:] = [v2.id] if next(turns) % 20 == 0 else [v1.id]
        given = sample(due[0], at, requests=0, errors=0, latency=1.5, assigned=1)
        serving.backend._samples.add("iris", given, share[due[0]])

    share, turns = {v1.id: 95, v2.id: 5}, itertools.count()
    serving.clock.flow = trickle
    policy = canary(ERRORS, steps=(5,), soak=2000.0, interval=1.0, max_soak=2000.0, on_inconclusive="rollback")
    record = serving.rollout(v2, policy)
    serving.drive(record)
    assert not [event for event in serving.journal.events(record.id) if event.name is Name.ROLLOUT_SAMPLE_RATIO]


@pytest.mark.parametrize("by_share", [True, False])
@pytest.mark.parametrize("resolution", [0.0, 1.0, 60.0])
def test_a_bake_shorter_than_a_slot_is_still_seen_by_its_gates(slotted, v1, v2, resolution, by_share):
    scene, backend = slotted(resolution, by_share=by_share)
    scene.sick[v2.id] = 0.5
    policy = RolloutPolicy.blue_green(bake=0.5, gates=[ERRORS], interval=0.1)
    record = scene.rollout(v2, policy)
    assert scene.drive(record, backend=backend).phase is Phase.FAILED
    assert scene.live == {v1.id: 100}


def test_answers_that_come_after_their_table_was_replaced_are_counted_under_it(serving, v1, v2):
    """A twentieth of the canary's requests hang until they fail, 15 s later: longer than a step lasts."""
    due = []

    def flow(_seconds):
        at = serving.clock.now()
        for revision, share in serving.state.traffic.live.items():
            due.append((at + 15, share)) if revision == v2.id else None
            good = sample(revision, at, requests=20 * share, errors=0, latency=0.01, assigned=21 * share)
            serving.backend._samples.add("iris", good, share)
        for when, share in [each for each in due if each[0] <= at]:
            due.remove((when, share))
            failed = sample(v2.id, at, requests=share, errors=share, latency=15.0)
            serving.backend._samples.add("iris", failed, share)

    serving.clock.flow = flow
    policy = canary("error_rate <= 1x", steps=(5, 50), soak=10.0, interval=1.0)
    record = serving.drive(serving.rollout(v2, policy))
    strata = {each.new_share: each for each in serving.cursor(record).evidence.strata["error_rate <= 1x"]}
    assert strata[5].new_bad > 0
    assert record.phase is Phase.FAILED
