"""Metrics of real requests, and autoscale settings, over the monitor's REST interface."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

INSIGHTS = "/providers/microsoft.insights"


@pytest.fixture(scope="module")
def served(cloud: Any) -> str:
    """Make an endpoint of two deployments that had nine good requests and three bad ones."""
    endpoint = cloud.serve("blue", "green")
    call = cloud.caller(endpoint)
    for _number in range(7):
        call()
    for _number in range(2):
        call(**{"azureml-model-deployment": "green"})
    for _number in range(3):
        call({"raise": "no"})
    return endpoint


def metrics(cloud: Any, endpoint: str, names: str, **more: str) -> Any:
    now = time.time()
    span = "/".join(datetime.fromtimestamp(at, UTC).isoformat() for at in (now - 600, now + 600))
    query = {"api-version": "2023-10-01", "metricnames": names, "timespan": span, "interval": "PT5M", **more}
    return cloud.ask("GET", f"/onlineEndpoints/{endpoint}{INSIGHTS}/metrics?{urlencode(query)}")


def series(answer: Any) -> Mapping[tuple[str, ...], float]:
    found = {}
    for each in answer.json()["value"][0]["timeseries"]:
        key = tuple(value["value"] for value in each["metadatavalues"])
        found[key] = sum(point.get("total", 0) for point in each["data"])
    return found


def settled(cloud: Any, endpoint: str, **more: str) -> Any:
    """Wait until all twelve requests are told."""
    cloud.wait_until(
        lambda: sum(series(metrics(cloud, endpoint, "RequestsPerMinute", aggregation="Total")).values()) == 12,
        10,
        what="metrics",
    )
    return metrics(cloud, endpoint, "RequestsPerMinute", aggregation="Total", **more)


def test_requests_are_counted_by_deployment_and_status(cloud: Any, served: str):
    filters = {"$filter": "deployment eq '*' and statusCode eq '*'"}
    assert series(settled(cloud, served, **filters)) == {("blue", "200"): 7, ("blue", "424"): 3, ("green", "200"): 2}


def test_one_deployment_may_be_asked_for(cloud: Any, served: str):
    filters = {"$filter": "deployment eq 'blue' and statusCodeClass eq '4xx'"}
    assert series(settled(cloud, served, **filters)) == {("blue", "4xx"): 3}


def test_the_models_own_status_is_a_dimension(cloud: Any, served: str):
    filters = {"$filter": "modelStatusCode eq '*'"}
    assert series(settled(cloud, served, **filters)) == {("200",): 9, ("500",): 3}


def test_latencies_and_their_percentiles_are_in_order(cloud: Any, served: str):
    settled(cloud, served)
    names = ["RequestLatency_P50", "RequestLatency_P90", "RequestLatency_P95", "RequestLatency_P99"]
    answer = metrics(cloud, served, ",".join([*names, "RequestLatency"]), aggregation="Average,Maximum")
    told = {each["name"]["value"]: each["timeseries"][0]["data"] for each in answer.json()["value"]}
    values = [told[name][-1]["average"] for name in names]
    assert values == sorted(values)
    assert 0 < values[0] <= told["RequestLatency"][-1]["maximum"]
    assert {each["unit"] for each in answer.json()["value"]} == {"MilliSeconds"}


def test_metrics_wait_for_the_end_of_the_services_minute(cloud: Any, simulator: Any):
    assert simulator.metric_period_s == pytest.approx(60 / 2000)


@pytest.mark.parametrize(
    ("names", "more"),
    [
        ("Nonsense", {}),
        ("RequestLatency", {"$filter": "statusCode eq '*'"}),
        ("RequestsPerMinute", {"timespan": "yesterday/today"}),
        ("RequestsPerMinute", {"aggregation": "Mode"}),
        ("RequestsPerMinute", {"$filter": "nonsense"}),
    ],
    ids=["name", "dimension", "timespan", "aggregation", "filter"],
)
def test_a_question_that_cannot_be_is_refused(cloud: Any, served: str, names: str, more: dict[str, str]):
    assert metrics(cloud, served, names, **more).status == 400


def test_the_metrics_that_there_are_can_be_listed(cloud: Any, served: str):
    told = cloud.get(f"/onlineEndpoints/{served}{INSIGHTS}/metricDefinitions")["value"]
    assert {"RequestsPerMinute", "RequestLatency_P95"} <= {each["name"]["value"] for each in told}


def setting(target: str, **capacity: Any) -> dict[str, Any]:
    trigger = {
        "metricName": "CpuUtilizationPercentage", "metricResourceUri": target, "timeGrain": "PT1M", "statistic": "Average",
        "timeWindow": "PT5M", "timeAggregation": "Average", "operator": "GreaterThan", "threshold": 70,
    }  # fmt: skip
    action = {"direction": "Increase", "type": "ChangeCount", "value": "1", "cooldown": "PT5M"}
    profile = {
        "name": "usual",
        "capacity": {"minimum": "1", "maximum": "3", "default": "1", **capacity},
        "rules": [{"metricTrigger": trigger, "scaleAction": action}],
    }
    return {"location": "westeurope", "properties": {"targetResourceUri": target, "profiles": [profile]}}


def test_a_setting_is_kept_told_and_deleted(cloud: Any, served: str):
    target = f"{cloud.site}/onlineEndpoints/{served}/deployments/blue"
    path = f"{cloud.group}{INSIGHTS}/autoscalesettings/one"
    assert [cloud.ask("PUT", path, setting(target)).status for _number in range(2)] == [201, 200]
    told = cloud.get(path)["properties"]
    assert (told["targetResourceUri"], told["profiles"][0]["capacity"]["maximum"]) == (target, "3")
    assert [each["name"] for each in cloud.get(path.rpartition("/")[0])["value"]] == ["one"]
    assert [cloud.ask("DELETE", path).status for _number in range(2)] == [200, 204]
    assert cloud.ask("GET", path).status == 404


def test_a_setting_that_cannot_be_is_refused(cloud: Any, served: str):
    target = f"{cloud.site}/onlineEndpoints/{served}/deployments/blue"
    path = f"{cloud.group}{INSIGHTS}/autoscalesettings/two"
    wrong = [
        setting(target, minimum="5"),
        setting(target, minimum=1),
        setting(f"{target}x"),
        {"location": "westeurope"},
    ]
    for each in wrong:
        assert cloud.ask("PUT", path, each).status == 400
