"""What CloudWatch measured of a variant, as a Window.

SageMaker publishes sums by the minute: invocations, errors, and the distribution of the model's latency. CloudWatch gives no histogram, but
any quantile; the histogram here is put together from the quantiles of each minute. Between two of them an answer counts as slow as the
upper one, so a share of slow answers is never told smaller than it was, and by at most the distance of the two quantiles too large: five
percent of the answers below p90, one percent above p95.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modeldeploy.backends.cloud.quantiles import histogram
from modeldeploy.backends.sagemaker.client import Client
from modeldeploy.values.metrics import Window

_NAMESPACE = "AWS/SageMaker"
_LATENCY = "ModelLatency"
_QUANTILES = (10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 99, 99.5, 99.9)
_COUNTS = {
    "requests": "Invocations",
    "failed": "Invocation5XXErrors",
    "unsuccessful": "InvocationModelErrors",
    "refused": "Invocation4XXErrors",
}
_MICRO = 1e-6
Series = Mapping[str, Mapping[float, float]]
"""Values by query and by the beginning of their slot."""


def window(client: Client, endpoint: str, revision: str, since: float, until: float, *, slot: float) -> Window:
    """Count what was answered in the slots that begin at or after ``since`` and before ``until``."""
    start, end = math.floor(since / slot) * slot, math.ceil(until / slot) * slot
    if end <= start:
        return Window(revision, since, until)
    found = _read(client, _queries(endpoint, revision, max(1, round(slot))), start, end)
    return put_together(revision, since, until, found)


def put_together(revision: str, since: float, until: float, found: Series) -> Window:
    """Make a window of what was read."""
    counts = {name: round(sum(found.get(name, {}).values())) for name in _COUNTS}
    latency: dict[str, int] = {}
    for at, total in found.get("answers", {}).items():
        for bucket, count in _histogram(round(total), at, found):
            latency[str(bucket)] = latency.get(str(bucket), 0) + count
    # What broke without a status, such as a time-out, is in neither of the two counts by status.
    errors = max(counts["failed"], counts["unsuccessful"] - counts["refused"])
    return Window(revision, since, until, counts["requests"], min(errors, counts["requests"]), latency)


def _histogram(total: int, at: float, found: Series) -> Iterator[tuple[int, int]]:
    known = {each: found.get(_name(each), {}).get(at) for each in _QUANTILES}
    quantiles = {each: value * _MICRO for each, value in known.items() if value is not None}
    return histogram(total, quantiles, found.get("slowest", {}).get(at, 0.0) * _MICRO)


def _read(client: Client, queries: Sequence[Mapping[str, Any]], start: float, end: float) -> Series:
    found: dict[str, dict[float, float]] = {}
    token: dict[str, str] = {}
    while True:
        page = client.call(
            "cloudwatch", "get_metric_data", MetricDataQueries=queries, ScanBy="TimestampAscending",
            StartTime=_time(start), EndTime=_time(end), **token,
        )  # fmt: skip
        for series in page["MetricDataResults"]:
            known = found.setdefault(series["Id"], {})
            known |= _points(series["Timestamps"], series["Values"], start, end)
        if not page.get("NextToken"):
            return found
        token = {"NextToken": page["NextToken"]}


def _points(times: Sequence[dt.datetime], values: Sequence[float], start: float, end: float) -> dict[float, float]:
    pairs = zip((each.timestamp() for each in times), values, strict=True)
    return {at: value for at, value in pairs if start <= at < end}


def _queries(endpoint: str, revision: str, period: int) -> list[dict[str, Any]]:
    wanted = {name: (metric, "Sum") for name, metric in _COUNTS.items()}
    wanted |= {"answers": (_LATENCY, "SampleCount"), "slowest": (_LATENCY, "Maximum")}
    wanted |= {_name(each): (_LATENCY, f"p{each:g}") for each in _QUANTILES}
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": revision}]
    found = []
    for name, (metric, stat) in wanted.items():
        about = {"Namespace": _NAMESPACE, "MetricName": metric, "Dimensions": dimensions}
        found.append({"Id": name, "MetricStat": {"Metric": about, "Period": period, "Stat": stat}})
    return found


def _name(quantile: float) -> str:
    return f"q{round(quantile * 10)}"


def _time(at: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)
