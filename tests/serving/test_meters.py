"""What each revision answered, counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from modeldeploy.serving.meters import KEPT_S, Meter, Reading, exposition, is_error
from modeldeploy.values.metrics import bucket_end, bucket_of


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


answers = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from([200, 400, 422, 429, 500, 503, 504]), st.floats(0, 100)), max_size=60
)


@given(answers, st.integers(0, 60))
def test_windows_that_meet_at_a_second_add_up_to_the_whole(rows, border):
    clock = Clock()
    meter = Meter("v1", clock=clock)
    for second, status, seconds in sorted(rows, key=lambda row: row[0]):
        clock.now = 1_000_000.0 + second
        meter.record(status, seconds)
    start, end, middle = 1_000_000.0, 1_000_100.0, 1_000_000.0 + border
    parts = [meter.window(start, middle), meter.window(middle, end)]
    assert sum(part.requests for part in parts) == len(rows)
    assert sum(part.errors for part in parts) == sum(is_error(status) for _second, status, _seconds in rows)
    assert sum(sum(part.latency.values()) for part in parts) == len(rows)


@given(st.lists(st.floats(0, 50), min_size=1, max_size=100))
def test_the_histogram_counts_each_answer_at_or_below_its_edges(latencies):
    meter = Meter("v1")
    for seconds in latencies:
        meter.record(200, seconds)
    for edge, count in meter.cumulative():
        # A latency stands for its bucket, which ends at most 9 % above it.
        expected = sum(bucket_end(bucket_of(seconds)) <= float(edge) * 1.0001 for seconds in latencies)
        assert count == (len(latencies) if edge == "+Inf" else expected)


def test_a_second_that_is_partly_inside_counts():
    clock = Clock(1_000_000.9)
    meter = Meter("v1", clock=clock)
    meter.record(200, 0.001)
    assert meter.window(1_000_000.5, 1_000_000.95).requests == 1


def test_what_is_older_than_an_hour_is_forgotten():
    clock = Clock()
    meter = Meter("v1", clock=clock)
    meter.record(200, 0.001)
    clock.now += KEPT_S + 1
    meter.record(200, 0.001)
    assert meter.window(0, 2e9).requests == 1


def test_a_clock_that_is_set_back_loses_nothing():
    clock = Clock()
    meter = Meter("v1", clock=clock)
    meter.record(200, 0.001)
    clock.now -= 100
    meter.record(200, 0.001)
    assert meter.window(1_000_000.0, 1_000_001.0).requests == 2


@pytest.mark.parametrize(
    ("status", "error"), [(200, False), (404, False), (422, False), (429, True), (500, True), (504, True)]
)
def test_an_error_is_the_service_s_fault_only(status, error):
    assert is_error(status) is error


def test_prometheus_understands_what_we_write():
    meter = Meter("v1")
    for status, seconds in ((200, 0.001), (422, 0.002), (500, 3.0)):
        meter.record(status, seconds)
    meter.shed["queue"] += 2
    text = exposition([Reading("iris", meter, weight=30, queued=4, inflight=5)])
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    mine = (("endpoint", "iris"), ("revision", "v1"))
    assert samples["modeldeploy_requests_total", mine[0], ("outcome", "error"), mine[1]] == 1
    assert samples["modeldeploy_requests_total", mine[0], ("outcome", "refused"), mine[1]] == 1
    assert samples["modeldeploy_shed_total", mine[0], ("reason", "queue"), mine[1]] == 2
    assert samples["modeldeploy_request_duration_seconds_count", *mine] == 3
    assert samples["modeldeploy_request_duration_seconds_sum", *mine] == pytest.approx(3.003)
    assert samples["modeldeploy_request_duration_seconds_bucket", mine[0], ("le", "+Inf"), mine[1]] == 3
    assert samples["modeldeploy_rollout_weight", *mine] == 30
    assert samples["modeldeploy_inflight", *mine] == 5
