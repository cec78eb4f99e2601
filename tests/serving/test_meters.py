"""What each revision answered, counted."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from modeldeploy.backends import memory_meters
from modeldeploy.serving.meters import COPY, KEPT_S, Meter, Reading, exposition, is_error
from modeldeploy.serving.router import Router, Table
from modeldeploy.serving.units import Units
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


@given(st.floats(0, 1e9))
def test_a_latency_goes_into_the_bucket_that_everybody_means(seconds):
    meter = Meter("v1")
    meter.record(200, seconds)
    assert meter.window(0, 1e12).latency == {str(bucket_of(seconds)): 1}


def test_the_end_of_a_bucket_belongs_to_it():
    meter = Meter("v1")
    for bucket in range(bucket_of(1e9) + 1):
        meter.record(200, bucket_end(bucket))
    assert set(meter.buckets) == {1}


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


@pytest.mark.row(19)
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


# ---------------------------------------------------------------- what the table gave


def test_a_share_counts_what_the_table_gave_under_it_and_nothing_else():
    meter = Meter("v2", clock=Clock())
    meter.assign(5)
    meter.record(500, 0.001, 5)
    meter.assign(25)
    meter.record(200, 0.001, 25)
    meter.record(200, 0.001)  # pinned
    meter.record(200, 0.001, COPY)
    five, whole = meter.window(0, 2e9, share=5), meter.window(0, 2e9)
    assert (five.assigned, five.requests, five.errors, sum(five.latency.values())) == (1, 1, 1, 1)
    assert (whole.assigned, whole.requests, whole.errors) == (2, 4, 1)
    assert meter.window(0, 2e9, share=50).requests == 0


def test_a_request_is_assigned_in_the_second_it_came_and_answered_in_the_second_it_was():
    clock = Clock(1_000_000.9)
    meter = Meter("v2", clock=clock)
    meter.assign(5)
    clock.now += 0.2
    meter.record(200, 0.2, 5)
    first, second = (meter.window(at, at + 1, share=5) for at in (1_000_000, 1_000_001))
    assert [(each.assigned, each.requests) for each in (first, second)] == [(1, 0), (0, 1)]


@given(answers, st.sampled_from([5, 25]), st.integers(0, 60))
def test_whole_seconds_of_a_share_are_disjoint_and_complete(rows, share, border):
    clock = Clock()
    meter = Meter("v1", clock=clock)
    for second, status, seconds in sorted(rows, key=lambda row: row[0]):
        clock.now = 1_000_000.0 + second
        given_under = 5 if status == 200 else 25
        meter.assign(given_under)
        meter.record(status, seconds, given_under)
    parts = [meter.window(1_000_000 + a, 1_000_000 + b, share=share) for a, b in ((0, border), (border, 100))]
    expected = sum((status == 200) == (share == 5) for _second, status, _seconds in rows)
    assert sum(part.requests for part in parts) == sum(part.assigned for part in parts) == expected


def test_a_key_counts_once_for_each_thing_that_can_happen_to_it():
    meter, units = Meter("v2", clock=Clock()), Units()
    for status in (200, 500, 500, 200):
        unit = units.unit("ana")
        meter.assign(5, unit)
        meter.record(status, 0.001, 5, unit)
    seen, whole = meter.window(0, 2e9, share=5), meter.window(0, 2e9)
    assert (seen.assigned, seen.requests, seen.errors, sum(seen.latency.values())) == (1, 1, 1, 1)
    assert (whole.assigned, whole.requests, whole.errors) == (1, 4, 2)


@pytest.mark.parametrize(("status", "requests"), [(200, 1), (500, 0)])
def test_a_key_that_moves_may_still_fail_there_unless_it_did(status, requests):
    old, new, units = Meter("v1"), Meter("v2"), Units()
    for meter, share, answer in ((old, 95, status), (new, 25, 500), (new, 25, 500)):
        unit = units.unit("ana")
        meter.assign(share, unit)
        meter.record(answer, 0.001, share, unit)
    assert old.window(0, 1e12, share=95).requests == 1
    moved = new.window(0, 1e12, share=25)
    assert (moved.assigned, moved.requests, moved.errors) == (0, requests, requests)
    assert sum(moved.latency.values()) == 0
    assert new.window(0, 1e12).requests == 2


def test_keys_beyond_the_limit_are_served_and_said_not_to_be_counted():
    meter, units = Meter("v2"), Units(limit=2)
    for key in ("ana", "ben", "cem", "ana"):
        unit = units.unit(key)
        meter.assign(5, unit)
        meter.record(500, 0.001, 5, unit)
    seen = meter.window(0, 1e12, share=5)
    assert (seen.assigned, seen.requests, seen.errors) == (2, 2, 2)
    text = exposition([Reading("iris", meter, weight=5, queued=0, inflight=0)])
    assert 'modeldeploy_uncounted_keys_total{endpoint="iris",revision="v2"} 1\n' in text


def test_copies_are_counted_apart():
    meter = Meter("v2", clock=Clock())
    meter.record(200, 0.001, COPY)
    meter.compared(agree=True)
    meter.record(200, 0.001, COPY)
    meter.compared(agree=False)
    meter.record(504, 1.0, COPY)
    meter.dropped()
    seen = meter.window(0, 2e9, share=COPY)
    assert (seen.requests, seen.errors, seen.compared, seen.disagreed, seen.dropped) == (3, 1, 2, 1, 1)
    assert meter.window(0, 2e9, share=5).requests == 0


events = st.lists(
    st.tuples(st.sampled_from(["v1", "v2"]), st.sampled_from([5, 50, 95]), st.sampled_from(["", "ana", "ben", "cem"]),
              st.sampled_from([200, 422, 500])), max_size=40,
)  # fmt: skip


@given(events)
def test_shares_mean_what_the_reference_backend_means(rows):
    meters, units = {revision: Meter(revision) for revision in ("v1", "v2")}, Units()
    reference, counted = memory_meters.Samples(), memory_meters.Units()
    for revision, share, key, status in rows:
        unit = units.unit(key) if key else None
        meters[revision].assign(share, unit)
        meters[revision].record(status, 0.001, share, unit)
        seen = memory_meters.sample(revision, 1.0, requests=1, errors=status // 500, latency=0.001, assigned=1)
        reference.add("iris", memory_meters.per_key(seen, key, counted) if key else seen, share)
    for revision, share in itertools.product(meters, (5, 50, 95)):
        expected = reference.window("iris", revision, 0, 1e12, share)
        assert meters[revision].window(0, 1e12, share=share) == expected


def test_a_revision_that_is_gone_takes_no_room_for_its_seconds_after_they_are_over():
    clock, router = Clock(), Router("iris")
    meter = router.meters["v1"] = Meter("v1", clock=clock)
    meter.record(200, 0.01)
    router.install(Table.of({"v2": 100}, "v2"))
    assert meter.window(0, 1e12).requests == 1
    clock.now += KEPT_S + 1
    router.install(Table.of({"v3": 100}, "v3"))
    assert meter.window(0, 1e12).requests == 0
    assert meter.outcomes["ok"] == 1
