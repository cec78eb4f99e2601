"""What Cloud Monitoring measured of a deployed model, as a Window, over its REST interface.

The service keeps sums by the minute: answers by response code, and the distribution of their latencies in buckets. They come some minutes late, and count
all answers of a deployed model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from modeldeploy.backends.vertex import names
from modeldeploy.backends.vertex.client import Client
from modeldeploy.backends.vertex.logs import instant
from modeldeploy.values.metrics import Window, bucket_of

_PREFIX = "aiplatform.googleapis.com/prediction/online"
_COUNT, _LATENCY = f"{_PREFIX}/response_count", f"{_PREFIX}/prediction_latencies"
_FINE = frozenset("1234")
"""First digits of codes that are no fault of the service; it tells ``200`` or ``2xx``."""
_MILLI = 1e-3


def window(client: Client, endpoint: str, revision: str, since: float, until: float, *, slot: float) -> Window:
    """Count what was answered in the slots that begin at or after ``since`` and before ``until``; reads two series and writes nothing."""
    start, end = math.floor(since / slot) * slot, math.ceil(until / slot) * slot
    empty = Window(revision, since, until)
    if end <= start:
        return empty
    own = [
        f'resource.labels.endpoint_id="{endpoint}"',
        f'metric.labels.deployed_model_id="{names.deployed_id(revision)}"',
    ]
    counted = list(_series(client, _COUNT, own, start, end))
    if not counted:
        return empty
    timed = list(_series(client, _LATENCY, [*own, 'metric.labels.latency_type="total"'], start, end))
    return put_together(empty, counted, timed, start, end)


def put_together(
    empty: Window, counted: list[Mapping[str, Any]], timed: list[Mapping[str, Any]], start: float, end: float
) -> Window:
    """Make a window of series that were read; points that end outside of the time do not count."""
    requests = errors = 0
    for each in counted:
        total = sum(int(point["value"].get("int64Value", 0)) for point in _within(each, start, end))
        requests += total
        errors += total if is_error(str(each.get("metric", {}).get("labels", {}).get("response_code", ""))) else 0
    latency: dict[str, int] = {}
    for each in timed:
        for point in _within(each, start, end):
            for bucket, count in _buckets(point["value"].get("distributionValue", {})):
                latency[str(bucket)] = latency.get(str(bucket), 0) + count
    return Window(empty.revision, empty.since, empty.until, requests, errors, latency)


def is_error(code: str) -> bool:
    """Whether an answer was the service's fault; a caller's mistake (4xx) is none."""
    return code[:1] not in _FINE


def _series(client: Client, metric: str, own: list[str], start: float, end: float) -> Iterator[Mapping[str, Any]]:
    only = [f'metric.type="{metric}"', 'resource.type="aiplatform.googleapis.com/Endpoint"', *own]
    query = {"filter": " AND ".join(only), "interval.startTime": instant(start), "interval.endTime": instant(end)}
    token = ""
    while True:
        page = {"pageToken": token} if token else {}
        document = client.ask(
            "GET", "monitoring", f"/v3/projects/{client.access.project}/timeSeries", query={**query, **page}
        )
        yield from document.get("timeSeries", ())
        token = document.get("nextPageToken", "")
        if not token:
            return


def _within(series: Mapping[str, Any], start: float, end: float) -> Iterator[Mapping[str, Any]]:
    for point in series.get("points", ()):
        if start < _seconds(point["interval"]["endTime"]) <= end + _MILLI:
            yield point


def _seconds(text: str) -> float:
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6] or '0':0<6}+00:00").timestamp()


def _buckets(found: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """Read a distribution in milliseconds: an answer counts as slow as the upper edge of its bucket, never faster than it was."""
    counts = [int(each) for each in found.get("bucketCounts", ())]
    slowest = float(found.get("range", {}).get("max", 0.0) or 0.0)
    for number, count in enumerate(counts):
        if count:
            edge = _edge(found.get("bucketOptions", {}), number)
            upper = (
                edge if edge is not None else slowest or 2 * (_edge(found.get("bucketOptions", {}), number - 1) or 1.0)
            )
            yield bucket_of(upper * _MILLI), count


def _edge(options: Mapping[str, Any], number: int) -> float | None:
    """Give the upper edge of a bucket; None for the last one, which has none."""
    if "explicitBuckets" in options:
        bounds = [float(each) for each in options["explicitBuckets"].get("bounds", ())]
        return bounds[number] if number < len(bounds) else None
    if "exponentialBuckets" in options:
        told = options["exponentialBuckets"]
        if number > int(told["numFiniteBuckets"]):
            return None
        return float(told["scale"]) * float(told["growthFactor"]) ** number
    told = options.get("linearBuckets", {})
    if not told or number > int(told["numFiniteBuckets"]):
        return None
    return float(told.get("offset", 0.0)) + float(told["width"]) * number
