"""Gates: what they read, write and refuse; functions and their names."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.gate import Gate, GateResult, Metric, Verdict


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


def test_a_gate_of_a_word_has_the_metric_of_that_name():
    assert Gate("error_rate", 0.01) == Gate(Metric.ERROR_RATE, 0.01)
    assert str(Gate("error_rate", 0.01)) == "error_rate <= 1%"


@pytest.mark.parametrize("word", ["eror_rate", 5, None])
def test_a_gate_on_what_is_no_metric_is_refused(word):
    with pytest.raises(ConfigurationError, match=f"metric {word!r} of a gate is not known"):
        Gate(word, 0.01)


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -0.1, "1%", None])
def test_a_gate_with_a_limit_that_nothing_can_be_held_against_is_refused(limit):
    with pytest.raises(ConfigurationError, match="limit of a gate on error_rate is"):
        Gate(Metric.ERROR_RATE, limit)


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("disagreement <= 5%", Gate(Metric.DISAGREEMENT, 0.05)),
        ("latency <= 1.2x", Gate(Metric.LATENCY, 1.2, relative=True)),
    ],
)
def test_a_gate_on_copies_and_one_on_all_latencies_are_read(text, gate):
    parsed = Gate.parse(text)
    assert (parsed.metric, parsed.relative) == (gate.metric, gate.relative)
    assert str(parsed) == text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("latency <= 80ms", "unit ms"),
        ("disagreement <= 2x", "unit x"),
        ("error_rate <= 101%", "'101%' in gate 'error_rate <= 101%' is more than everything"),
        ("error_rate <= 0x", "0 times stable's"),
        ("custom <= 1%", "metric 'custom'"),
        ("outcome <= 1x", "metric 'outcome'"),
    ],
)
def test_what_no_gate_can_be_held_against_is_refused(text, part):
    with pytest.raises(ConfigurationError, match=part):
        Gate.parse(text)


def test_a_misspelt_metric_is_guessed():
    with pytest.raises(ConfigurationError) as caught:
        Gate.parse("eror_rate <= 1%")
    assert "did you mean 'error_rate'?" in caught.value.hint


def test_latency_metrics_are_known():
    assert Metric.LATENCY.is_latency
    assert Metric.P99_LATENCY.is_latency
    assert not Metric.DISAGREEMENT.is_latency
    assert Metric.LATENCY.quantile is None


def steady(look):
    return True


def test_a_function_is_a_gate_under_its_name():
    gate = Gate.custom(steady)
    assert (gate.metric, gate.function, str(gate)) == (Metric.CUSTOM, f"{__name__}:steady", "steady")
    assert gate.known is steady


def test_an_object_that_can_be_called_is_a_gate_too():
    class Budget:
        def __call__(self, look):
            return None

    budget = Budget()
    gate = Gate.custom(budget)
    assert gate.known is budget
    assert str(gate).endswith("Budget")


def _at_most(errors):
    return lambda look: look.new.errors <= errors


class _Budget:
    def __init__(self, errors):
        self.errors = errors

    def within(self, look):
        return look.new.errors <= self.errors


@pytest.mark.parametrize("make", [_at_most, lambda errors: _Budget(errors).within, lambda n: functools.partial(max, n)])
def test_functions_that_share_a_name_are_told_apart(make):
    few, many = make(1), make(100)
    gates = [Gate.custom(few), Gate.custom(many)]
    assert [gate.known for gate in gates] == [few, many]
    assert Gate.custom(few) == gates[0]


@pytest.mark.parametrize("text", [5, None, b"error_rate <= 1%"])
def test_a_gate_that_is_no_text_is_not_read(text):
    with pytest.raises(ConfigurationError, match="is no text"):
        Gate.parse(text)


def test_what_cannot_be_called_is_no_gate():
    with pytest.raises(ConfigurationError, match="gate 42 is neither text nor a function"):
        Gate.custom(42)


def test_another_process_knows_a_function_by_its_name_only():
    gate = from_json(Gate, to_json(Gate(Metric.CUSTOM, function="somewhere:else")))
    assert gate.known is None
    assert str(gate) == "else"


def test_the_gate_on_outcomes_says_so():
    assert str(Gate(Metric.OUTCOME, 1.0, relative=True)) == "outcome better than stable's"


def test_what_a_gate_saw_survives_the_journal():
    result = GateResult("g", Verdict.FAIL, 0.1, 0.01, 50, "why", 5, 0.01, 500, 0.05, 0.2, 44.0, 0.1)
    assert from_json(GateResult, to_json(result)) == result
