"""Logs of real processes and metrics of real predictions, over REST as an authorised session asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3
from google.api_core import exceptions as told
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.simulate.vertex.exchange import Refusal
from modeldeploy.simulate.vertex.filters import compiled
from modeldeploy.simulate.vertex.metrics import Distribution

PREFIX = "aiplatform.googleapis.com/prediction/online/"


@pytest.fixture(scope="module")
def http() -> Iterator[Any]:
    with urllib3.PoolManager() as pool:
        yield pool


@pytest.fixture(scope="module")
def served(cloud: Any, wait_until: Any) -> str:
    """An endpoint that was asked well twice and badly once, and whose minute has passed."""
    endpoint = cloud.serve(NAME="chatty")
    for _number in range(2):
        cloud.raw(endpoint)
    with pytest.raises(told.FailedPrecondition):
        cloud.raw(endpoint, {"instances": ["bad"]})
    meters, clock = cloud.simulator._running.meters, cloud.simulator._settings.clock
    own = endpoint.rpartition("/")[2]
    wait_until(lambda: sum(len(slot.latencies) for key, slot in meters.slots(clock.now()) if key.endpoint == own) == 3)
    return own


@pytest.fixture
def entries(cloud: Any, http: Any) -> Any:
    def ask(asked: str, status: int = 200, **more: Any) -> Any:
        body = {"resourceNames": ["projects/rehearsal"], "filter": asked, **more}
        answer = http.request("POST", f"{cloud.simulator.storage_url}/v2/entries:list", json=body, timeout=10)
        assert answer.status == status, answer.data
        return answer.json()

    return ask


@pytest.fixture
def series(cloud: Any, http: Any) -> Any:
    def ask(asked: str, status: int = 200, **more: str) -> Any:
        now = datetime.now(UTC)
        fields = {
            "filter": asked,
            "interval.startTime": (now - timedelta(hours=1)).isoformat(),
            "interval.endTime": (now + timedelta(hours=1)).isoformat(),
            **{key.replace("__", "."): value for key, value in more.items()},
        }
        url = f"{cloud.simulator.storage_url}/v3/projects/rehearsal/timeSeries"
        answer = http.request("GET", url, fields=fields, timeout=10)
        assert answer.status == status, answer.data
        return answer.json() if status != 200 else answer.json().get("timeSeries", [])

    return ask


def _total(found: list[Any]) -> int:
    return sum(int(point["value"]["int64Value"]) for each in found for point in each["points"])


def test_what_a_container_prints_is_an_entry_of_its_endpoint(served: str, entries: Any, wait_until: Any):
    asked = f'resource.type="aiplatform.googleapis.com/Endpoint" AND resource.labels.endpoint_id="{served}"'
    wait_until(lambda: len(entries(asked).get("entries", [])) == 2)
    first, second = entries(asked, orderBy="timestamp asc")["entries"]
    assert [each["jsonPayload"]["message"] for each in (first, second)] == ["chatty begins", "chatty fails"]
    assert first["labels"]["deployed_model_id"] == "1"
    assert first["logName"] == "projects/rehearsal/logs/aiplatform.googleapis.com%2Fprediction_container"
    later = f'{asked} timestamp > "{first["timestamp"]}"'
    assert [each["insertId"] for each in entries(later)["entries"]] == [second["insertId"]]
    page = entries(asked, pageSize=1, orderBy="timestamp desc")
    assert [each["insertId"] for each in page["entries"]] == [second["insertId"]]
    rest = entries(asked, pageSize=1, orderBy="timestamp desc", pageToken=page["nextPageToken"])
    assert ([each["insertId"] for each in rest["entries"]], "nextPageToken" in rest) == ([first["insertId"]], False)
    assert entries(f'{asked} AND labels.deployed_model_id="2"') == {}


def test_another_project_s_logs_are_not_told(entries: Any):
    assert entries("", 403, resourceNames=["projects/other"])["error"]["code"] == 403
    assert entries("", 400, resourceNames=[])["error"]["message"] == "resourceNames is required."
    assert "orderBy" in entries("", 400, orderBy="severity")["error"]["message"]
    assert "pageToken" in entries("", 400, pageToken="x")["error"]["message"]
    assert "Invalid filter" in entries("severity >= (ERROR OR INFO)", 400)["error"]["message"]


def test_predictions_are_counted_by_the_class_of_their_answers(served: str, series: Any):
    here = f'resource.labels.endpoint_id = "{served}"'
    assert _total(series(f'metric.type = "{PREFIX}prediction_count" AND {here}')) == 3
    assert _total(series(f'metric.type = "{PREFIX}error_count" AND {here}')) == 1
    found = series(f'metric.type = "{PREFIX}response_count" AND {here}')
    counts = {each["metric"]["labels"]["response_code"]: _total([each]) for each in found}
    assert counts == {"2xx": 2, "4xx": 1}
    labels = found[0]["metric"]["labels"]
    assert (labels["deployed_model_id"], labels["endpoint_display_name"], labels["spot"]) == ("1", "here", "False")
    assert (found[0]["metricKind"], found[0]["valueType"]) == ("DELTA", "INT64")
    only = series(f'metric.type = "{PREFIX}response_count" AND {here} AND metric.labels.response_code = "4xx"')
    assert _total(only) == 1


def test_points_of_a_longer_period_are_summed_up(served: str, series: Any):
    asked = f'metric.type = "{PREFIX}prediction_count" AND resource.labels.endpoint_id = "{served}"'
    found = series(asked, aggregation__alignmentPeriod="7200s", aggregation__perSeriesAligner="ALIGN_SUM")
    assert _total(found) == 3
    assert len(found[0]["points"]) <= 2


def test_latencies_are_distributions_and_their_percentiles_numbers(served: str, series: Any):
    asked = f'metric.type = "{PREFIX}prediction_latencies" AND resource.labels.endpoint_id = "{served}"'
    found = series(f'{asked} AND metric.labels.latency_type = "total"')
    values = [point["value"]["distributionValue"] for each in found for point in each["points"]]
    assert sum(int(each["count"]) for each in values) == 3
    assert all(sum(map(int, each["bucketCounts"])) == int(each["count"]) for each in values)
    assert all(each["mean"] > 0 for each in values)
    one = series(asked, aggregation__alignmentPeriod="7200s", aggregation__perSeriesAligner="ALIGN_PERCENTILE_95")
    assert {each["valueType"] for each in one} == {"DOUBLE"}
    assert all(point["value"]["doubleValue"] > 0 for each in one for point in each["points"])


def test_what_cannot_be_asked_is_refused(series: Any):
    assert "metric type" in series('resource.labels.endpoint_id = "x"', 400)["error"]["message"]
    asked = f'metric.type = "{PREFIX}prediction_count"'
    series(asked, 400, aggregation__perSeriesAligner="ALIGN_SUM")
    series(asked, 400, aggregation__perSeriesAligner="ALIGN_RATE", aggregation__alignmentPeriod="60s")
    series(asked, 400, interval__endTime="yesterday")
    series(asked, 400, interval__endTime="2026-01-01T00:00:00")
    series(asked, 400, interval__endTime="2020-01-01T00:00:00Z")
    series(asked, 400, pageToken="x")
    long = {"aggregation__alignmentPeriod": "60s", "aggregation__crossSeriesReducer": "REDUCE_SUM"}
    series(asked, 400, aggregation__perSeriesAligner="ALIGN_SUM", **long)
    series(asked, 400, aggregation__perSeriesAligner="ALIGN_SUM", aggregation__alignmentPeriod="1m")


def test_a_token_that_is_none_is_refused_and_one_is_counted(cloud: Any, http: Any):
    url = f"{cloud.simulator.storage_url}/storage/v1/b?project=rehearsal"
    before = cloud.simulator.authorized
    assert http.request("GET", url, headers={"Authorization": "Basic abc"}).status == 401
    assert http.request("GET", url, headers={"Authorization": "Bearer abc"}).status == 200
    assert cloud.simulator.authorized == before + 1


def test_observing_fails_on_demand_and_storage_does_not(cloud: Any, series: Any, faults: Any):
    faults.fail_observing_every = 1
    series(f'metric.type = "{PREFIX}prediction_count"', 503)
    assert cloud.storage.lookup_bucket("nowhere") is None


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        ('a.b = "x"', True),
        ("a.b = y", False),
        ('a.b != "y" AND n = "7"', True),
        ("a.b : X", True),
        ("a.c:*", False),
        ("severity >= WARNING", True),
        ("severity > ERROR", False),
        ('a.b = starts_with("x")', True),
        ('a.b = one_of("y", "z")', False),
        ('"deep inside"', True),
        ("", True),
    ],
)
def test_a_filter_lets_through_what_it_says(asked, holds):
    entry = {"a": {"b": "x"}, "n": 7, "severity": "ERROR", "text": "Deep inside"}
    assert compiled(asked)(entry) is holds


@given(st.text(max_size=40))
def test_any_text_is_a_filter_or_is_refused(text: str):
    try:
        compiled(text)({"a": {"b": "x"}})
    except Refusal as refusal:
        assert json.dumps(refusal.status) == "400"  # noqa: PT017 - either way is right


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=200), st.floats(1, 100))
def test_a_percentile_lies_in_the_bucket_of_the_value_that_it_stands_for(values: list[float], percent: float):
    found = Distribution(values)
    assert sum(found.counts) == len(values)
    exact = sorted(values)[max(0, -(-len(values) * percent // 100).__trunc__() - 1)]
    estimate = found.percentile(percent)
    assert exact / found.growth - 1 <= estimate <= max(1.0, exact * found.growth) + 1e-6
