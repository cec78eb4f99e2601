"""Policies and gates: what can be asked for, and what is refused before anything is sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.gate import Gate, Metric
from modeldeploy.values.rollout import OnInconclusive, RolloutPolicy, Strategy


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("error_rate <= 1%", Gate(Metric.ERROR_RATE, 0.01)),
        ("error_rate<=0.5 %", Gate(Metric.ERROR_RATE, 0.005)),
        ("p95_latency <= 1.2x", Gate(Metric.P95_LATENCY, 1.2, relative=True)),
        ("error_rate <= 2x", Gate(Metric.ERROR_RATE, 2.0, relative=True)),
        (" p99_latency  <=  80ms ", Gate(Metric.P99_LATENCY, 0.08)),
        ("p50_latency <= 2s", Gate(Metric.P50_LATENCY, 2.0)),
    ],
)
def test_a_gate_is_read(text, gate):
    parsed = Gate.parse(text)
    assert (parsed.metric, parsed.relative) == (gate.metric, gate.relative)
    assert parsed.limit == pytest.approx(gate.limit)


TIMES = ["ms", "s", "x"]
UNITS = {
    Metric.ERROR_RATE: ["%", "x"],
    Metric.P50_LATENCY: TIMES,
    Metric.P90_LATENCY: TIMES,
    Metric.P95_LATENCY: TIMES,
    Metric.P99_LATENCY: TIMES,
    Metric.LATENCY: ["x"],
    Metric.DISAGREEMENT: ["%"],
}


@given(st.sampled_from(list(UNITS)), st.integers(1, 500), st.sampled_from(["%", "ms", "s", "x"]))
def test_a_gate_reads_what_it_writes(metric, number, unit):
    if unit not in UNITS[metric] or (unit == "%" and number > 100):
        return
    gate = Gate.parse(f"{metric.value} <= {number}{unit}")
    again = Gate.parse(str(gate))
    assert (again.metric, again.relative) == (gate.metric, gate.relative)
    assert again.limit == pytest.approx(gate.limit)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("error_rate", "cannot be read"),
        ("", "cannot be read"),
        ("error_rate <= ", "cannot be read"),
        ("error_rate <= 1% and more", "cannot be read"),
        ("accuracy <= 1%", "metric 'accuracy'"),
        ("error_rate < 1%", "operator '<'"),
        ("error_rate >= 1%", "operator '>='"),
        ("error_rate <= 1.2.3%", r"limit '1\.2\.3'"),
        ("error_rate <= .%", r"limit '\.'"),
        ("error_rate <= 1ms", "unit ms"),
        ("error_rate <= 1", "unit none"),
        ("p95_latency <= 5%", "unit %"),
        ("p95_latency <= 5min", "unit min"),
    ],
)
def test_a_wrong_gate_is_refused_and_the_part_is_named(text, part):
    with pytest.raises(ConfigurationError, match=part) as caught:
        Gate.parse(text)
    assert caught.value.hint


def test_a_metric_knows_its_quantile():
    assert Metric.P95_LATENCY.quantile == 0.95
    assert Metric.ERROR_RATE.quantile is None


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


@pytest.mark.parametrize("name", ["soak", "bake", "max_soak"])
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


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -0.1])
def test_a_gate_with_a_limit_that_nothing_can_be_held_against_is_refused(limit):
    with pytest.raises(ConfigurationError, match="limit of a gate on error_rate is"):
        Gate(Metric.ERROR_RATE, limit)
