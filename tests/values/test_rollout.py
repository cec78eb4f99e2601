"""Policies: what can be asked for, and what is refused before anything is sent."""

from __future__ import annotations

import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.analysis import Analysis, Method
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.rollout import OnFailure, OnInconclusive, RolloutPolicy, Strategy


def test_the_walk_of_a_canary_ends_at_everything():
    assert RolloutPolicy.canary((5, 25)).steps == (5, 25, 100)
    assert RolloutPolicy.canary((5, 100)).steps == (5, 100)
    assert RolloutPolicy.canary(10).steps == (10, 100)


def test_a_linear_walk_adds_the_same_step():
    policy = RolloutPolicy.linear(25, every=5)
    assert (policy.strategy, policy.steps, policy.soak) == (Strategy.LINEAR, (25, 50, 75, 100), 5)
    assert RolloutPolicy.linear(100).steps == (100,)
    assert RolloutPolicy.linear(40).steps == (40, 80, 100)


def test_the_other_strategies_switch_at_once():
    assert RolloutPolicy.all_at_once().steps == (100,)
    policy = RolloutPolicy.blue_green(bake=5, gates=[Gate(Metric.ERROR_RATE, 0.01)])
    assert (policy.steps, policy.bake, policy.gates) == ((100,), 5, (Gate(Metric.ERROR_RATE, 0.01),))


def test_the_longest_soak_follows_from_the_soak_unless_given():
    assert RolloutPolicy.canary(soak=1).max_soak == 600
    assert RolloutPolicy.canary(soak=100).max_soak == 1000
    assert RolloutPolicy.canary(soak=1, max_soak=2).max_soak == 2


@pytest.mark.parametrize("steps", [(), (0, 50), (50, 25), (25, 25), (101,), (5.0, 50), (True, 50), (-5,), ("5",)])
def test_steps_that_do_not_rise_in_whole_percents_are_refused(steps):
    with pytest.raises(ConfigurationError, match="steps are"):
        RolloutPolicy(Strategy.CANARY, steps)


@pytest.mark.parametrize("name", ["soak", "bake", "max_soak", "blind_limit"])
@pytest.mark.parametrize("value", [-1, float("inf"), float("nan"), True, "60", None])
def test_a_duration_that_is_no_time_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        RolloutPolicy(Strategy.CANARY, (5, 100), **{name: value})


@pytest.mark.parametrize("step", [0, 101, 2.5, True, "10"])
def test_a_linear_step_that_is_no_percentage_is_refused(step):
    with pytest.raises(ConfigurationError, match="step is"):
        RolloutPolicy.linear(step)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"interval": 0}, "interval is 0"),
        ({"min_sample": 0}, "min_sample is 0"),
        ({"on_inconclusive": "wait"}, "on_inconclusive is 'wait'"),
        ({"gates": "error_rate <= 1%"}, "gates is one string"),
        ({"on_failure": "cry"}, "on_failure is 'cry'"),
        ({"analysis": "magic"}, "analysis is 'magic'"),
        ({"gates": ["latency <= 1x"], "analysis": "threshold"}, "latency cannot be decided by threshold"),
        ({"gates": ["disagreement <= 5%"]}, "gate on disagreement and copies no requests"),
        ({"key": "cookie:user"}, "key is 'cookie:user'"),
        ({"key": "header:"}, "key is 'header:'"),
        ({"gates": ["p95_latency <= 0.5x"]}, "gate 'p95_latency <= 0.5x' asks for less than stable's"),
        ({"key": "a user"}, "key is 'a user'"),
        ({"key": "header:ключ"}, "key is 'header:ключ'"),
        ({"key": 5}, "key is 5"),
        ({"gates": None}, "gates is None"),
        ({"gates": 1}, "gates is 1"),
        ({"steps": None}, "steps are None"),
        ({"steps": "5,25"}, "steps are '5,25'"),
        ({"steps": ()}, r"steps are \(\)"),
    ],
)
def test_a_wrong_option_is_refused_and_named(options, part):
    with pytest.raises(ConfigurationError, match=part):
        RolloutPolicy.canary(**options)


def test_the_word_for_inconclusive_is_read():
    assert RolloutPolicy.canary(on_inconclusive="rollback").on_inconclusive is OnInconclusive.ROLLBACK


def test_a_policy_is_read_by_people():
    policy = RolloutPolicy.canary((5,), gates=["error_rate <= 1%", "p95_latency <= 1.2x", "p99_latency <= 80ms"])
    assert str(policy) == "canary 5 % > 100 %, gates: error_rate <= 1%; p95_latency <= 1.2x; p99_latency <= 80ms"
    assert str(RolloutPolicy.all_at_once()) == "all-at-once 100 %"


def test_a_shadow_copies_before_it_walks():
    policy = RolloutPolicy.shadow(20, gates=["disagreement <= 5%"])
    assert (policy.strategy, policy.steps, policy.copies) == (Strategy.SHADOW, (0,), 20)
    assert not policy.promotes
    followed = RolloutPolicy.shadow(20, then=(5, 50))
    assert followed.steps == (0, 5, 50, 100)
    assert followed.promotes
    assert str(followed) == "shadow copies of 20 % > 5 % > 50 % > 100 %"


def test_only_a_shadow_has_a_step_without_traffic():
    with pytest.raises(ConfigurationError, match="steps are"):
        RolloutPolicy(Strategy.CANARY, (0, 100))
    assert RolloutPolicy(Strategy.SHADOW, (0,), copies=10).copies == 10


@pytest.mark.parametrize("percent", [0, 101, 2.5, True, "10"])
def test_copies_that_are_no_percentage_are_refused(percent):
    with pytest.raises(ConfigurationError, match="percent is"):
        RolloutPolicy.shadow(percent)


def test_an_ab_test_asks_for_outcomes_first():
    policy = RolloutPolicy.ab_test(30, key="user", until=60, gates=["error_rate <= 1%"])
    assert (policy.strategy, policy.steps, policy.max_soak, policy.key) == (
        Strategy.AB_TEST,
        (30, 100),
        60,
        "field:user",
    )
    assert [gate.metric for gate in policy.gates] == [Metric.OUTCOME, Metric.ERROR_RATE]


def test_an_ab_test_without_a_key_is_refused():
    with pytest.raises(ConfigurationError, match="no key"):
        RolloutPolicy.ab_test(50, key="", until=60)


@pytest.mark.parametrize("until", [0, -1])
def test_an_ab_test_that_never_runs_is_refused(until):
    with pytest.raises(ConfigurationError, match="until is"):
        RolloutPolicy.ab_test(50, key="user", until=until)


@pytest.mark.parametrize(
    ("given", "key"),
    [("", ""), ("user", "field:user"), ("field:User", "field:User"), ("header:X-User-Id", "header:x-user-id")],
)
def test_a_key_is_a_field_unless_it_says_otherwise(given, key):
    assert RolloutPolicy.canary(key=given).key == key
    assert RolloutPolicy.linear(key=given).key == key


def test_functions_gates_and_text_are_all_gates():
    gate = Gate(Metric.ERROR_RATE, 0.01)

    def mine(look):
        return True

    policy = RolloutPolicy.canary(gates=["error_rate <= 1%", gate, mine])
    assert policy.gates[:2] == (gate, gate)
    assert policy.gates[2].known is mine


def test_the_other_words_are_read():
    policy = RolloutPolicy.canary(on_failure="hold", analysis="mannwhitney", blind_limit=7)
    assert (policy.on_failure, policy.analysis.method, policy.blind_limit) == (OnFailure.HOLD, Method.MANN_WHITNEY, 7)
    given = Analysis(alpha=0.01)
    assert RolloutPolicy.blue_green(analysis=given).analysis is given


@pytest.mark.parametrize(
    "policy",
    [
        RolloutPolicy.all_at_once(),
        RolloutPolicy.canary(gates=["latency <= 1.2x"], key="header:user", analysis=Analysis(alpha=0.01)),
        RolloutPolicy.ab_test(key="user", until=60.0),
        RolloutPolicy.shadow(20, gates=["disagreement <= 5%"], then=10),
        RolloutPolicy.blue_green(analysis="threshold"),
        RolloutPolicy.linear(25),
    ],
    ids=str,
)
def test_a_policy_survives_the_journal(policy):
    assert from_json(RolloutPolicy, to_json(policy)) == policy


def test_rings_walk_to_the_whole_fleet_and_halt_by_default():
    policy = RolloutPolicy.rings((10, 50), min_devices=3, max_failed=1, patience=90, soak=5)
    assert policy.steps == (10, 50, 100)
    assert (policy.min_devices, policy.max_failed, policy.max_soak, policy.soak, policy.bake) == (3, 1, 90, 5, 5)
    assert policy.on_failure.value == "halt"
    assert policy.asks_devices
    assert str(policy) == "rings 10 % > 50 % > 100 %, 3 devices or more, 1 may fail"


def test_only_rings_ask_devices():
    assert not RolloutPolicy.canary((10,)).asks_devices


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_devices": 0},
        {"min_devices": True},
        {"max_failed": -1},
        {"max_failed": 0.5},
        {"on_failure": "hold"},
        {"patience": -1},
    ],
    ids=["none-votes", "flag", "negative", "half", "hold", "impatient"],
)
def test_rings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigurationError):
        RolloutPolicy.rings(**wrong)


def test_only_rings_halt():
    with pytest.raises(ConfigurationError, match="'halt' is of rings"):
        RolloutPolicy.canary((10,), on_failure="halt")
