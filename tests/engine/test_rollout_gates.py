"""What gates do to a rollout, in virtual time: take back, let pass, hold; and what happens when nothing can be seen."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.engine.record import Verb
from modeldeploy.engine.rollout import Stage
from modeldeploy.errors import FencedError, QuotaError, UnavailableError
from modeldeploy.testing.faults import FaultyBackend
from modeldeploy.values.gate import Gate, Metric, Verdict
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Phase

ERRORS = "error_rate <= 1%"


def canary(*gates, steps=(5, 25, 50), **options):
    return RolloutPolicy.canary(steps, gates=gates, **{"soak": 60.0, "interval": 5.0, **options})


# ---------------------------------------------------------------- errors


def test_strata_follow_the_steps(serving, v2):
    record = serving.rollout(v2, canary(ERRORS, soak=120.0))
    assert serving.drive(record).phase is Phase.SUCCEEDED
    counted = serving.cursor(record).evidence
    shares = [(each.new_share, each.stable_share) for each in counted.strata[ERRORS]]
    assert shares == [(5, 95), (25, 75), (50, 50)]
    for each in counted.strata[ERRORS]:
        # A hundred a second for two minutes.
        assert each.new_seen == pytest.approx(120 * each.new_share, abs=each.new_share)
        assert each.stable_seen == pytest.approx(120 * each.stable_share, abs=each.stable_share)


@pytest.mark.parametrize("gate", ["error_rate <= 1.5x", "error_rate <= 2%"])
def test_a_shared_outage_takes_no_canary_back(serving, v1, v2, gate):
    for name in (v1.id, v2.id):
        serving.sick[name] = 0.01

    def worse():
        serving.sick.update({v1.id: 0.1, v2.id: 0.1})

    def over():
        serving.sick.update({v1.id: 0.01, v2.id: 0.01})

    serving.after(40, worse)
    serving.after(100, over)
    ended = serving.drive(serving.rollout(v2, canary(gate, on_inconclusive="promote")))
    assert ended.phase is Phase.SUCCEEDED, ended.outcome
    assert not [event for event in serving.events("rollout.verdict") if event.fields["verdict"] == "fail"]


def test_a_real_regression_goes_back_after_few_of_its_errors(serving, v1, v2):
    """1 % to 5 %, with 5 % of the traffic: a test at the end of the run would cost hundreds of errors."""
    serving.sick.update({v1.id: 0.01, v2.id: 0.05})
    record = serving.rollout(v2, canary("error_rate <= 1.5x", soak=600.0))
    assert serving.drive(record).phase is Phase.FAILED
    (result,) = serving.cursor(record).results
    assert 4 <= result.bad <= 20
    assert serving.live == {v1.id: 100}


def test_one_that_fails_always_goes_back_after_a_handful_of_its_requests(serving, v1, v2):
    serving.rate = 10
    serving.sick[v2.id] = 1.0
    record = serving.rollout(v2, canary(ERRORS, interval=1.0))
    assert serving.drive(record).phase is Phase.FAILED
    (result,) = serving.cursor(record).results
    assert result.sample <= 5
    assert serving.live == {v1.id: 100}


def test_a_bake_is_held_against_its_limit(serving, v1, v2):
    serving.sick[v2.id] = 0.1
    record = serving.rollout(v2, RolloutPolicy.blue_green(bake=300, gates=[ERRORS]))
    began = serving.clock.now()
    assert serving.drive(record).phase is Phase.FAILED
    assert serving.clock.now() - began < 30
    assert serving.live == {v1.id: 100}


@pytest.mark.parametrize(("rate", "phase"), [(0.02, Phase.SUCCEEDED), (0.2, Phase.FAILED)])
def test_a_bake_is_held_against_what_stable_did_before_the_switch(serving, v1, v2, rate, phase):
    serving.sick.update({v1.id: 0.02, v2.id: rate})
    serving.clock.sleep(60)
    policy = RolloutPolicy.blue_green(bake=60, gates=["error_rate <= 2x"])
    assert serving.drive(serving.rollout(v2, policy)).phase is phase


# ---------------------------------------------------------------- latency


def test_latency_may_follow_the_load_that_both_carry(serving, v1, v2):
    serving.slow.update({v1.id: 0.01, v2.id: 0.01})
    serving.clock.sleep(60)
    serving.after(45, lambda: serving.slow.update({v1.id: 0.03, v2.id: 0.03}))
    ended = serving.drive(serving.rollout(v2, canary("p95_latency <= 1.2x", steps=(50,), soak=120.0)))
    assert ended.phase is Phase.SUCCEEDED, ended.outcome


@pytest.mark.parametrize("gate", ["p95_latency <= 1.2x", "latency <= 1x", "p99_latency <= 15ms"])
def test_a_slower_revision_goes_back(serving, v1, v2, gate):
    serving.slow.update({v1.id: 0.01, v2.id: 0.02})
    serving.clock.sleep(60)
    assert serving.drive(serving.rollout(v2, canary(gate))).phase is Phase.FAILED
    assert serving.live == {v1.id: 100}


# ---------------------------------------------------------------- too little


def test_without_traffic_it_is_held_and_never_promoted(serving, v1, v2):
    serving.rate = 0
    paused = serving.drive(serving.rollout(v2, canary(ERRORS)))
    assert paused.paused
    assert "not enough evidence: error_rate <= 1%: nothing was answered yet" in paused.outcome
    assert serving.live == {v1.id: 95, v2.id: 5}
    assert [event.fields["verdict"] for event in serving.events("rollout.verdict")] == ["inconclusive"]


def test_each_step_needs_its_own_sample(serving, v2):
    record = serving.rollout(v2, canary(ERRORS, steps=(50,), min_sample=2_999, soak=30.0))
    began = serving.clock.now()
    assert serving.drive(record).phase is Phase.SUCCEEDED
    # Fifty a second.
    assert serving.clock.now() - began >= 59


def test_a_sample_of_the_step_before_is_not_this_steps(serving, v2):
    record = serving.rollout(v2, canary(ERRORS, steps=(10, 50), min_sample=400, soak=10.0))
    serving.drive(record)
    first, second = (event.at for event in serving.events("rollout.verdict"))
    assert first - 1e9 >= 40
    assert second - first >= 10


def test_what_was_counted_survives_a_pause(serving, v2):
    record = serving.rollout(v2, canary(ERRORS, steps=(50,), soak=60.0))
    serving.after(40, lambda: serving.tell(record, Verb.PAUSE))
    assert serving.drive(record).paused
    counted = serving.cursor(record).evidence.strata[ERRORS]
    serving.clock.sleep(1_000)
    serving.tell(record, Verb.RESUME)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    (after,) = serving.cursor(record).evidence.strata[ERRORS]
    # The soak is begun anew, and nobody looked while it was paused.
    assert after.new_seen == pytest.approx(counted[0].new_seen + 3_000, abs=100)


class KilledError(BaseException):
    """The process ends here."""


def test_another_driver_goes_on_with_the_same_test(serving, meets, v2):
    def walked(scene, kill):
        record = scene.rollout(v2, canary("error_rate <= 1.5x", steps=(5,), soak=120.0))
        if kill:
            seen = []

            def die():
                raise KilledError

            scene.once(lambda effect: meets.call("read metrics")(effect) and (seen.append(1) or len(seen) > 8), die)
            with pytest.raises(KilledError):
                scene.drive(record)
        scene.drive(record)
        (stratum,) = scene.cursor(record).evidence.strata["error_rate <= 1.5x"]
        return stratum

    stratum = walked(serving, kill=True)
    assert stratum.new_seen == pytest.approx(600, abs=10)
    assert stratum.stable_seen == pytest.approx(11_400, abs=100)


# ---------------------------------------------------------------- the user's own


ANSWER = {"gives": True}
SHOWN = []


def mine(look):
    SHOWN.append(look)
    answer = ANSWER["gives"]
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.mark.parametrize(
    ("answer", "verdict", "phase"),
    [
        (True, Verdict.PASS, Phase.SUCCEEDED),
        (False, Verdict.FAIL, Phase.FAILED),
        (None, Verdict.INCONCLUSIVE, Phase.RUNNING),
        (Verdict.PASS, Verdict.PASS, Phase.SUCCEEDED),
        (Verdict.FAIL, Verdict.FAIL, Phase.FAILED),
        ((False, "too dear"), Verdict.FAIL, Phase.FAILED),
        (OSError("no such table"), Verdict.BLIND, Phase.FAILED),
    ],
)
def test_a_function_decides(serving, v2, answer, verdict, phase):
    ANSWER["gives"] = answer
    record = serving.rollout(v2, canary(mine, steps=(50,), max_soak=100.0, blind_limit=50.0))
    ended = serving.drive(record)
    assert (serving.cursor(record).verdict, ended.phase) == (verdict, phase)
    if isinstance(answer, tuple):
        assert "mine: too dear" in ended.outcome
    if isinstance(answer, Exception):
        assert "OSError: no such table" in ended.outcome


def refuses(_look):
    return False


def test_a_function_that_gives_no_reason_is_told_by_its_name(serving, v2):
    record = serving.drive(serving.rollout(v2, RolloutPolicy.canary((50,), soak=1, gates=[refuses])))
    assert record.outcome == "gate failed: refuses"


def test_a_function_is_shown_both_since_the_step_began(serving, v1, v2):
    ANSWER["gives"], SHOWN[:] = True, []
    serving.sick[v1.id] = 0.1
    serving.drive(serving.rollout(v2, canary(mine, steps=(20,))))
    look = SHOWN[-1]
    assert (look.revision, look.stable, look.percent, look.elapsed) == (v2.id, v1.id, 20, pytest.approx(60.0))
    assert look.new.requests == pytest.approx(1_200, abs=20)
    assert look.old.error_rate == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", ["modeldeploy.engine.gates:gone", "nowhere_at_all:gone"])
def test_a_function_that_this_process_does_not_know_sees_nothing(serving, v1, v2, name):
    gate = Gate(Metric.CUSTOM, function=name)
    record = serving.rollout(v2, attrs.evolve(canary(steps=(50,), blind_limit=50.0), gates=(gate,)))
    ended = serving.drive(record)
    assert ended.phase is Phase.FAILED
    assert "the metrics could not be read for 50 s: gone: " in ended.outcome
    assert serving.live == {v1.id: 100}


def test_a_fenced_driver_asks_no_function_any_more(serving, meets, v2):
    record = serving.rollout(v2, canary(mine, steps=(50,)))
    other = attrs.evolve(record, id="other", cursor={})
    serving.once(meets.call("ask gate mine"), lambda: serving.journal.create(other, supersede=record.id))
    SHOWN.clear()
    with pytest.raises(FencedError):
        serving.drive(record)
    assert SHOWN == []


def test_a_function_stands_beside_a_series_of_looks(serving, v2):
    ANSWER["gives"] = True
    policy = canary(ERRORS, mine, steps=(50,), soak=120.0, analysis="mannwhitney")
    record = serving.rollout(v2, policy)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert list(serving.cursor(record).evidence.series) == [ERRORS]


def test_a_function_of_a_module_is_found_by_its_name(serving, v2):
    gate = Gate(Metric.CUSTOM, function="builtins:bool")
    record = serving.rollout(v2, attrs.evolve(canary(steps=(50,)), gates=(gate,)))
    assert serving.drive(record).phase is Phase.SUCCEEDED


# ---------------------------------------------------------------- blind


class Gaps(FaultyBackend):
    """Metrics that are gone between two moments."""

    def __init__(self, inner, clock, gap):
        super().__init__(inner)
        self._clock, self._gap = clock, gap

    def window(self, *args, **options):
        if self._gap[0] <= self._clock.now() - 1e9 < self._gap[1]:
            raise UnavailableError("no metrics")
        return super().window(*args, **options)


def test_a_gap_in_the_metrics_is_waited_out_and_nothing_is_lost(serving, v2):
    record = serving.rollout(v2, canary(ERRORS, steps=(50,)))
    ended = serving.drive(record, backend=Gaps(serving.backend, serving.clock, (20, 55)))
    assert ended.phase is Phase.SUCCEEDED
    assert len(serving.events("rollout.blind")) == 1
    assert serving.cursor(record).evidence.strata[ERRORS][0].new_seen == pytest.approx(3_000, abs=100)


def test_blindness_beyond_its_limit_goes_back(serving, v1, v2):
    record = serving.rollout(v2, canary(ERRORS, steps=(50,), blind_limit=100.0))
    ended = serving.drive(record, backend=Gaps(serving.backend, serving.clock, (20, 1e9)))
    assert ended.phase is Phase.FAILED
    assert "the metrics could not be read for 100 s: metrics: no metrics" in ended.outcome
    assert serving.live == {v1.id: 100}
    assert serving.clock.now() - 1e9 == pytest.approx(120, abs=10)
    assert serving.cursor(record).verdict is Verdict.BLIND


def test_two_short_gaps_are_not_one_long_one(serving, v2):
    class Twice(Gaps):
        def window(self, *args, **options):
            self._gap = (10, 50) if self._clock.now() - 1e9 < 55 else (60, 100)
            return super().window(*args, **options)

    record = serving.rollout(v2, canary(ERRORS, steps=(50,), soak=120.0, blind_limit=60.0))
    assert serving.drive(record, backend=Twice(serving.backend, serving.clock, (10, 50))).phase is Phase.SUCCEEDED
    assert len(serving.events("rollout.blind")) == 2


# ---------------------------------------------------------------- what is not as it should be


def test_a_split_that_is_not_honoured_is_told_and_held(serving, v1, v2):
    def askew(seconds):
        for revision in (v1.id, v2.id):
            serving.backend.record("iris", revision, requests=serving.whole(revision, 50 * seconds))

    serving.clock.flow = askew
    paused = serving.drive(serving.rollout(v2, canary(ERRORS)))
    assert paused.paused
    assert "the traffic is not split as it should be" in paused.outcome
    assert len(serving.events("rollout.sample_ratio")) == 1


def test_where_stable_does_not_serve_going_back_is_no_way_out(serving, v1, v2):
    serving.sick[v2.id] = 0.5

    def fall():
        serving.backend._endpoints["iris"].members[v1.id].failure = "its machine is gone"

    serving.after(3, fall)
    paused = serving.drive(serving.rollout(v2, canary(ERRORS)))
    assert paused.paused
    assert "stable v1-0-0-078f3c71 does not serve (its machine is gone), so going back would not help" in paused.outcome
    assert serving.live == {v1.id: 95, v2.id: 5}


def test_another_table_is_noticed_while_it_soaks(serving, v1, v2):
    record = serving.rollout(v2, canary(ERRORS, soak=600.0))
    serving.after(100, lambda: serving.set_traffic({v1.id: 60, v2.id: 40}))
    began = serving.clock.now()
    assert serving.drive(record).paused
    assert serving.clock.now() - began < 130
    assert serving.live == {v1.id: 60, v2.id: 40}


@pytest.mark.parametrize(("choice", "phase"), [("hold", Phase.RUNNING), ("rollback", Phase.FAILED)])
def test_a_provider_that_fails_for_good_is_dealt_with_as_the_policy_says(serving, v1, v2, choice, phase):
    faulty = FaultyBackend(serving.backend)
    real = faulty.set_traffic

    def refuse(endpoint, traffic, *, expect=None):
        if traffic.share(v2.id) == 25:
            raise QuotaError("no room")
        return real(endpoint, traffic, expect=expect)

    faulty.set_traffic = refuse
    ended = serving.drive(serving.rollout(v2, canary(ERRORS, on_failure=choice)), backend=faulty)
    assert ended.phase is phase
    assert ended.paused is (choice == "hold")
    assert "the provider failed: no room" in ended.outcome
    assert serving.live.get(v2.id, 0) == (5 if choice == "hold" else 0)


def test_a_step_is_skipped_whatever_its_gates_say(serving, v2):
    serving.rate = 1
    record = serving.rollout(v2, canary(ERRORS, steps=(5, 50)))
    serving.after(30, lambda: serving.tell(record, Verb.SKIP, "boss"))
    serving.drive(record)
    (skipped,) = serving.events("rollout.skipped")
    assert (skipped.fields["step"], skipped.fields["reason"]) == (0, "boss")
    assert serving.live[v2.id] == 50
    assert serving.cursor(record).stage is Stage.WALK


def test_a_paused_step_is_skipped_by_the_word_to_skip(serving, v2):
    serving.rate = 1
    record = serving.rollout(v2, canary(ERRORS, steps=(5, 50)))
    serving.after(30, lambda: serving.tell(record, Verb.PAUSE))
    assert serving.drive(record).paused
    serving.tell(record, Verb.SKIP)
    serving.drive(record)
    assert [event.fields["percent"] for event in serving.events("rollout.step")] == [5, 50]


def test_a_word_to_skip_before_the_last_table_skips_no_table(serving, v2):
    record = serving.rollout(v2, RolloutPolicy.all_at_once())
    serving.tell(record, Verb.SKIP)
    assert serving.drive(record).phase is Phase.SUCCEEDED
    assert serving.live == {v2.id: 100}


# ---------------------------------------------------------------- the other analyses


@pytest.mark.parametrize("analysis", ["threshold", "mannwhitney"])
@pytest.mark.parametrize(("rate", "phase"), [(0.001, Phase.SUCCEEDED), (0.2, Phase.FAILED)])
def test_the_other_analyses_decide_too(serving, v2, analysis, rate, phase):
    serving.sick[v2.id] = rate
    policy = canary(ERRORS, steps=(50,), soak=120.0, analysis=analysis)
    assert serving.drive(serving.rollout(v2, policy)).phase is phase


# ---------------------------------------------------------------- what is told


def test_a_soak_of_a_day_is_told_in_a_few_hundred_looks(serving, v1, v2):
    serving.sick.update({v1.id: 0.005, v2.id: 0.005})
    policy = canary("error_rate <= 1.5x", steps=(50,), soak=86_400.0, interval=120.0)
    assert serving.drive(serving.rollout(v2, policy)).phase is Phase.SUCCEEDED
    assert 50 < len(serving.events("rollout.look")) <= 600


def test_a_look_tells_what_the_gates_saw(serving, v1, v2):
    serving.drive(serving.rollout(v2, canary(ERRORS, steps=(50,))))
    look = serving.events("rollout.look")[-1]
    assert (look.fields["revision"], look.fields["stable"], look.fields["percent"]) == (v2.id, v1.id, 50)
    (seen,) = look.fields["gates"]
    assert seen["gate"] == ERRORS
    assert seen["sample"] > 0


@pytest.mark.parametrize("sticky", [True, False])
def test_the_table_names_the_key_only_where_the_router_keeps_it(serving, v2, sticky):
    policy = canary(steps=(50,), key="header:user", soak=1.0)
    serving.drive(serving.rollout(v2, policy, sticky=sticky))
    assert all(('"key": "header:user"' in table) is sticky for table in serving.tables)
    assert serving.tables
