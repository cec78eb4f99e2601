"""Metrics: what CloudWatch tells of real traffic, and the alarms that it trips."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter

import pytest
from botocore.exceptions import ClientError

from modeldeploy.simulate.sagemaker import metrics


def read(cloud, name, stat, dimensions, *, period=1):
    now = dt.datetime.now(dt.UTC)
    query = {
        "Id": "q",
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/SageMaker",
                "MetricName": name,
                "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
            },
            "Period": period,
            "Stat": stat,
        },
    }
    answer = cloud.simulator.client("cloudwatch").get_metric_data(
        MetricDataQueries=[query], StartTime=now - dt.timedelta(minutes=5), EndTime=now + dt.timedelta(minutes=1),
        ScanBy="TimestampAscending",
    )  # fmt: skip
    (result,) = answer["MetricDataResults"]
    return result["Values"]


@pytest.fixture(scope="module")
def asked(cloud):
    cloud.serve("metered")
    for _number in range(7):
        cloud.ask("metered")
    for status in (400, 400, 500):
        with contextlib.suppress(ClientError):
            cloud.ask("metered", f"fail {status}".encode())
    return {"EndpointName": "metered", "VariantName": "metered"}


def test_every_request_is_counted_once(cloud, asked, wait_until):
    wait_until(lambda: sum(read(cloud, "Invocations", "Sum", asked)) == 10, what="ten invocations")
    by_config = {**asked, "EndpointConfigName": "metered"}
    assert sum(read(cloud, "Invocations", "Sum", by_config)) == 10
    assert sum(read(cloud, "Invocation4XXErrors", "Sum", asked)) == 2
    assert sum(read(cloud, "Invocation5XXErrors", "Sum", asked)) == 1
    assert sum(read(cloud, "InvocationModelErrors", "Sum", asked)) == 3
    assert read(cloud, "Invocations", "Sum", {"EndpointName": "metered"}) == []


def test_latency_is_in_microseconds_and_has_percentiles(cloud, asked, wait_until):
    wait_until(lambda: read(cloud, "ModelLatency", "SampleCount", asked, period=60), what="latencies")
    (median, *_more) = read(cloud, "ModelLatency", "p50", asked, period=60)
    (largest, *_more) = read(cloud, "ModelLatency", "Maximum", asked, period=60)
    assert 50 < median <= largest < 2_000_000
    assert read(cloud, "OverheadLatency", "p99.9", asked, period=60)[0] > 0


def test_a_statistic_that_is_not_known_is_refused(cloud, asked, wait_until):
    wait_until(lambda: read(cloud, "Invocations", "Sum", asked), what="invocations")
    with pytest.raises(ClientError, match="nonsense"):
        read(cloud, "Invocations", "nonsense", asked)


def test_the_older_call_and_the_list_know_the_metrics_too(cloud, asked, wait_until):
    wait_until(lambda: read(cloud, "Invocations", "Sum", asked), what="invocations")
    client, now = cloud.simulator.client("cloudwatch"), dt.datetime.now(dt.UTC)
    dimensions = [{"Name": key, "Value": value} for key, value in asked.items()]
    found = client.get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName="Invocations", Dimensions=dimensions, Period=3600, Statistics=["Sum"],
        StartTime=now - dt.timedelta(hours=2), EndTime=now + dt.timedelta(hours=1),
    )  # fmt: skip
    assert sum(each["Sum"] for each in found["Datapoints"]) == 10
    listed = client.list_metrics(Namespace="AWS/SageMaker", MetricName="ModelLatency", Dimensions=dimensions)
    assert {len(each["Dimensions"]) for each in listed["Metrics"]} == {2, 3}


def test_metrics_of_others_are_left_to_others(cloud):
    client, now = cloud.simulator.client("cloudwatch"), dt.datetime.now(dt.UTC)
    client.put_metric_data(Namespace="Mine", MetricData=[{"MetricName": "n", "Value": 3, "Timestamp": now}])
    found = client.get_metric_statistics(
        Namespace="Mine", MetricName="n", Period=60, Statistics=["Sum"],
        StartTime=now - dt.timedelta(minutes=1), EndTime=now + dt.timedelta(minutes=1),
    )  # fmt: skip
    assert [each["Sum"] for each in found["Datapoints"]] == [3.0]


def test_errors_of_real_requests_trip_an_alarm_and_recovery_clears_it(cloud, wait_until):
    cloud.serve("alarming")
    client = cloud.simulator.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName="errors", Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Statistic="Average", Period=60,
        EvaluationPeriods=1, Threshold=0.5, ComparisonOperator="GreaterThanThreshold", TreatMissingData="notBreaching",
        Dimensions=[{"Name": "EndpointName", "Value": "alarming"}, {"Name": "VariantName", "Value": "alarming"}],
    )  # fmt: skip

    def state_after(body):
        with contextlib.suppress(ClientError):
            cloud.ask("alarming", body)
        return client.describe_alarms(AlarmNames=["errors"])["MetricAlarms"][0]["StateValue"]

    wait_until(lambda: state_after(b"fail 500") == "ALARM", what="the alarm rings")
    wait_until(lambda: state_after(b"x") == "OK", what="the alarm is quiet")


VALUES = Counter({1.0: 90, 10.0: 9, 100.0: 1})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Sum", 280.0), ("SampleCount", 100.0), ("Average", 2.8), ("Minimum", 1.0), ("Maximum", 100.0), ("p50", 1.0), ("p90", 1.0),
        ("p90.5", 10.0), ("p99", 10.0), ("p99.5", 100.0), ("p100", 100.0), ("TC(:10)", 99.0), ("PR(1:)", 10.0), ("TS(1:10)", 90.0),
        ("TM(:99%)", 180 / 99), ("nonsense", None),
    ],
)  # fmt: skip
def test_statistics_are_cloudwatchs(name, expected):
    assert metrics.statistic(name, VALUES) == expected


@pytest.mark.parametrize(
    ("points", "missing", "expected"),
    [
        pytest.param([None, None], "missing", None, id="nothing-known"),
        pytest.param([1.0, 1.0], "missing", "ALARM", id="all-breach"),
        pytest.param([1.0, 0.0], "missing", "OK", id="one-does-not"),
        pytest.param([1.0, None], "notBreaching", "OK", id="one-is-missing"),
        pytest.param([1.0, None], "breaching", "ALARM", id="missing-counts"),
    ],
)
def test_an_alarm_is_judged_by_its_latest_periods(points, missing, expected):
    breaching = [point is not None and point > 0 for point in points]
    assert metrics.judged(points, needed=2, breaching=breaching, missing=missing) == expected


def test_a_slot_can_be_read_once_it_has_ended():
    store = metrics.Store(10.0)
    store.record(metrics.Sample("e", "v", "c", 200, 0.001, 0.0001), at=1005.0, instances=2)
    dimensions = frozenset({("EndpointName", "e"), ("VariantName", "v")})
    assert store.slots("Invocations", dimensions, now=1009.9) == {}
    assert store.slots("ModelLatency", dimensions, now=1010.0) == {100: Counter({1000.0: 1})}
    assert store.slots("InvocationsPerInstance", dimensions, now=1010.0) == {100: Counter({0.5: 1})}
    assert store.periods("Invocations", dimensions, 60.0, (960.0, 1020.0), now=1020.0) == {960.0: Counter({1.0: 1})}
    assert store.periods("Invocations", dimensions, 60.0, (1020.0, 1080.0), now=1020.0) == {}


def test_the_oldest_slots_are_forgotten(monkeypatch):
    monkeypatch.setattr(metrics, "_KEPT", 2)
    store = metrics.Store(1.0)
    for at in (1.5, 2.5, 3.5):
        store.record(metrics.Sample("e", "v", "c", 200, 0.001, 0.0001), at=at, instances=1)
    dimensions = frozenset({("EndpointName", "e"), ("VariantName", "v")})
    assert set(store.slots("Invocations", dimensions, now=9.0)) == {2, 3}
    assert set(store.slots("Invocations", dimensions, 9.0, (3.0, 9.0))) == {3}


def test_a_slot_may_come_late():
    store = metrics.Store(10.0, late_s=5.0)
    store.record(metrics.Sample("e", "v", "c", 200, 0.001, 0.0001), at=1005.0, instances=1)
    dimensions = frozenset({("EndpointName", "e"), ("VariantName", "v")})
    assert store.slots("Invocations", dimensions, now=1014.9) == {}
    assert set(store.slots("Invocations", dimensions, now=1015.0)) == {100}
