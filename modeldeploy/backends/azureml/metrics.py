"""What Azure Monitor measured of a deployment, as a Window.

The service publishes sums by the minute: requests by deployment, status and the model's own status, and quantiles of the latency. They come
a minute or two late, and count all answers of a deployment: pinned calls and mirrored copies, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from modeldeploy.backends.azureml.client import Client, none_if_missing
from modeldeploy.backends.cloud.quantiles import histogram
from modeldeploy.values.metrics import Window

_VERSION = "2023-10-01"
_REQUESTS, _LATENCY = "RequestsPerMinute", "RequestLatency"
_QUANTILES = (50.0, 90.0, 95.0, 99.0)
_MILLI = 1e-3
_MODEL_ERROR, _TIMED_OUT, _FAILED = 424, 408, 500
Points = dict[float, float]
"""Values by the beginning of their slot, in seconds since the epoch."""


def window(client: Client, endpoint: str, revision: str, since: float, until: float, *, slot: float) -> Window:
    """Count what was answered in the slots that begin at or after ``since`` and before ``until``."""
    start, end = math.floor(since / slot) * slot, math.ceil(until / slot) * slot
    if end <= start:
        return Window(revision, since, until)
    asked = {"timespan": f"{_time(start)}/{_time(end)}", "interval": _duration(slot), "api-version": _VERSION}
    only = f"deployment eq '{revision}'"
    counted = _read(
        client,
        endpoint,
        {**asked, "$filter": f"{only} and statusCode eq '*' and modelStatusCode eq '*'"},
        [_REQUESTS],
        "total",
    )
    if not counted:
        return Window(revision, since, until)
    names = [_LATENCY, *(f"{_LATENCY}_P{each:g}" for each in _QUANTILES)]
    timed = _read(client, endpoint, {**asked, "$filter": only}, names, "maximum")
    return put_together(Window(revision, since, until), counted, timed)


def put_together(empty: Window, counted: Mapping[str, Any], timed: Mapping[str, Any]) -> Window:
    """Make a window of what was read: metrics by name, each with its series."""
    requests, errors = Points(), 0
    for dimensions, points in _series(counted.get(_REQUESTS, {}), "total"):
        for at, value in points.items():
            requests[at] = requests.get(at, 0.0) + value
        if is_error(dimensions.get("statuscode", ""), dimensions.get("modelstatuscode", "")):
            errors += round(sum(points.values()))
    slow = {name: _merged(metric) for name, metric in timed.items()}
    latency: dict[str, int] = {}
    for at, total in requests.items():
        quantiles = {
            each: slow[f"{_LATENCY}_P{each:g}"][at] * _MILLI
            for each in _QUANTILES
            if at in slow.get(f"{_LATENCY}_P{each:g}", {})
        }
        slowest = slow.get(_LATENCY, {}).get(at, 0.0) * _MILLI
        for bucket, count in histogram(round(total), quantiles, slowest):
            latency[str(bucket)] = latency.get(str(bucket), 0) + count
    return Window(empty.revision, empty.since, empty.until, round(sum(requests.values())), errors, latency)


def is_error(status: str, model_status: str) -> bool:
    """Whether an answer was the service's fault: 5xx, a time-out, or a model that failed; its 4xx is the caller's."""
    outer, inner = _number(status), _number(model_status)
    if outer == _MODEL_ERROR:
        return inner == 0 or inner >= _FAILED
    return outer >= _FAILED or outer in {0, _TIMED_OUT}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _read(
    client: Client, endpoint: str, asked: Mapping[str, str], names: list[str], aggregation: str
) -> dict[str, Any]:
    path = f"{client.place}/onlineEndpoints/{endpoint}/providers/Microsoft.Insights/metrics"
    query = {**asked, "metricnames": ",".join(names), "aggregation": aggregation}
    document = none_if_missing(lambda: client.ask("GET", path, query=query)) or {}
    return {each["name"]["value"]: each for each in document.get("value", ())}


def _series(metric: Mapping[str, Any], aggregation: str) -> Iterator[tuple[dict[str, str], Points]]:
    for each in metric.get("timeseries", ()):
        dimensions = {told["name"]["value"].lower(): str(told["value"]) for told in each.get("metadatavalues", ())}
        yield dimensions, {_instant(point["timeStamp"]): float(point.get(aggregation) or 0.0) for point in each["data"]}


def _merged(metric: Mapping[str, Any]) -> Points:
    found = Points()
    for _dimensions, points in _series(metric, "maximum"):
        for at, value in points.items():
            found[at] = max(value, found.get(at, 0.0))
    return found


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _duration(slot: float) -> str:
    return "PT1M" if slot == 60 else f"PT{slot:g}S"  # noqa: PLR2004 - a minute, the service's finest
