"""Cloud Monitoring over REST, as far as the metrics of online predictions need it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.vertex.exchange import Answer, Refusal, Request, answer
from modeldeploy.simulate.vertex.filters import compiled
from modeldeploy.simulate.vertex.logs import stamp
from modeldeploy.simulate.vertex.metrics import Distribution, Meters, Series, Slot
from modeldeploy.simulate.vertex.names import Site

PATH = re.compile(r"/v3/projects/([^/]+)/timeSeries")
PREFIX = "aiplatform.googleapis.com/prediction/online/"
_COUNTS, _LATENCIES = ("prediction_count", "error_count", "response_count"), "prediction_latencies"
_SUMS = ("", "ALIGN_NONE", "ALIGN_DELTA", "ALIGN_SUM")
_PERCENTILES = {f"ALIGN_PERCENTILE_{each}": float(each) for each in ("05", "50", "95", "99")}
_GOOD = 2
_MOST = 100_000
Key = tuple[str, tuple[tuple[str, str], ...], str]
"""Metric, its labels, and the endpoint."""


@attrs.frozen
class Alignment:
    """How points are put together: over how many seconds, counted back from where, and which value comes of them."""

    period: float
    aligner: str
    anchor: float

    def begin(self, slot: Slot) -> float:
        """Tell when the interval begins that a slot lies in."""
        if not self.period:
            return slot.begin
        # The middle of the slot, so that no rounding puts it before its own beginning.
        middle = (slot.begin + slot.end) / 2
        return self.anchor - math.ceil((self.anchor - middle) / self.period) * self.period

    def end(self, slot: Slot) -> float:
        """Tell when it ends."""
        return self.begin(slot) + self.period if self.period else slot.end


@attrs.define(eq=False)
class Monitoring:
    """Answers ``timeSeries.list``."""

    site: Site
    meters: Meters
    clock: Clock

    def answer(self, project: str, request: Request) -> Answer:
        """Tell the time series that a filter lets through, their latest points first."""
        if project not in {self.site.project, self.site.number}:
            raise Refusal(403, "forbidden", f"Permission monitoring.timeSeries.list denied on projects/{project}.")
        test, span, alignment = _asked(request.query)
        found = []
        for key, points in self._points(alignment).items():
            series = self._series(key)
            if not test(series):
                continue
            told = [
                _point(key[0], alignment, begin, end, values)
                for (begin, end), values in sorted(points.items(), reverse=True)
                if span[0] < end <= span[1]
            ]
            if told:
                found.append({**series, **_kind(key[0], alignment), "points": told})
        return _page(found, request)

    def _points(self, alignment: Alignment) -> dict[Key, dict[tuple[float, float], list[float]]]:
        """Put the latencies of slots together, by series and interval."""
        found: dict[Key, dict[tuple[float, float], list[float]]] = {}
        for series, slot in self.meters.slots(self.clock.now()):
            for metric, labels in _labels(series):
                key = (metric, tuple(sorted(labels.items())), series.endpoint)
                span = alignment.begin(slot), alignment.end(slot)
                found.setdefault(key, {}).setdefault(span, []).extend(slot.latencies)
        return found

    def _series(self, key: Key) -> dict[str, Any]:
        labels = {
            "resource_container": f"projects/{self.site.number}",
            "location": self.site.location,
            "endpoint_id": key[2],
        }
        return {
            "metric": {"type": PREFIX + key[0], "labels": dict(key[1])},
            "resource": {"type": "aiplatform.googleapis.com/Endpoint", "labels": labels},
        }


def _labels(series: Series) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the metrics that a prediction counts for, with their labels."""
    common = {
        "deployed_model_id": series.deployed,
        "spot": str(series.spot),
        "model_display_name": series.model_name,
        "endpoint_display_name": series.endpoint_name,
    }
    family = series.status // 100
    yield "prediction_count", common
    yield "response_count", {**common, "response_code": f"{family}xx"}
    if family != _GOOD:
        yield "error_count", common
    for kind in ("total", "model"):
        yield _LATENCIES, {**common, "latency_type": kind}


def _asked(query: Mapping[str, str]) -> tuple[Callable[[Mapping[str, Any]], bool], tuple[float, float], Alignment]:
    """Read what is asked for; an error when something is missing or not simulated."""
    if "filter" not in query or "interval.endtime" not in query:
        raise Refusal(400, "badRequest", "filter and interval.endTime are required.")
    aligner = query.get("aggregation.perseriesaligner", "")
    if aligner not in {*_SUMS, *_PERCENTILES}:
        raise Refusal(400, "badRequest", f"perSeriesAligner {aligner} is not simulated.")
    if query.get("aggregation.crossseriesreducer", "REDUCE_NONE") != "REDUCE_NONE":
        raise Refusal(400, "badRequest", "crossSeriesReducer is not simulated.")
    period = query.get("aggregation.alignmentperiod", "")
    if aligner not in {"", "ALIGN_NONE"} and not period:
        raise Refusal(400, "badRequest", "aggregation.alignmentPeriod is required with a perSeriesAligner.")
    if "metric.type" not in query["filter"]:
        raise Refusal(400, "badRequest", "The filter must name a metric type.")
    end = _instant(query["interval.endtime"])
    begin = _instant(query.get("interval.starttime", query["interval.endtime"]))
    if begin > end:
        raise Refusal(400, "badRequest", "The interval begins after its end.")
    alignment = Alignment(_seconds(period) if aligner not in {"", "ALIGN_NONE"} else 0.0, aligner, end)
    return compiled(query["filter"]), (begin, end), alignment


def _kind(metric: str, alignment: Alignment) -> dict[str, str]:
    if metric in _COUNTS:
        return {"metricKind": "DELTA", "valueType": "INT64"}
    if alignment.aligner in _PERCENTILES:
        return {"metricKind": "GAUGE", "valueType": "DOUBLE"}
    return {"metricKind": "DELTA", "valueType": "DISTRIBUTION"}


def _point(metric: str, alignment: Alignment, begin: float, end: float, values: list[float]) -> dict[str, Any]:
    percent = _PERCENTILES.get(alignment.aligner)
    if metric in _COUNTS:
        if percent is not None:
            raise Refusal(400, "badRequest", f"{alignment.aligner} cannot be applied to INT64 values of kind DELTA.")
        value: dict[str, Any] = {"int64Value": str(len(values))}
    elif percent is not None:
        # What is aligned to a percentile is a gauge, which has an end and no beginning of its own.
        begin = end
        value = {"doubleValue": Distribution(values).percentile(percent)}
    else:
        value = {"distributionValue": _distribution(Distribution(values))}
    return {"interval": {"startTime": stamp(begin), "endTime": stamp(end)}, "value": value}


def _distribution(found: Distribution) -> dict[str, Any]:
    options = {"numFiniteBuckets": found.buckets, "growthFactor": found.growth, "scale": 1}
    return {
        "count": str(len(found.values)),
        "mean": found.mean,
        "sumOfSquaredDeviation": found.deviation,
        "bucketOptions": {"exponentialBuckets": options},
        "bucketCounts": [str(each) for each in _trimmed(found.counts)],
    }


def _trimmed(counts: list[int]) -> Iterable[int]:
    """Leave the empty buckets at the end out, as the service may."""
    last = max((number for number, each in enumerate(counts) if each), default=-1)
    return counts[: last + 1]


def _page(found: list[dict[str, Any]], request: Request) -> Answer:
    begin = request.number("pagetoken") or 0
    end = begin + max(1, min(request.number("pagesize") or _MOST, _MOST))
    told: dict[str, Any] = {"timeSeries": found[begin:end]} if found[begin:end] else {}
    return answer(200, {**told, **({"nextPageToken": str(end)} if end < len(found) else {})})


def _instant(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Refusal(400, "badRequest", f"{text!r} is no instant.") from error
    if moment.tzinfo is None:
        raise Refusal(400, "badRequest", f"{text!r} has no offset.")
    return moment.timestamp()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s", text)
    if found is None or not float(found[1]):
        raise Refusal(400, "badRequest", f"{text!r} is no duration in seconds.")
    return float(found[1])
