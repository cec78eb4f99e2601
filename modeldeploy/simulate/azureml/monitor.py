"""Azure Monitor as far as online endpoints need it: metrics of real traffic over its REST interface."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import attrs

from modeldeploy.simulate.azureml.durations import seconds
from modeldeploy.simulate.azureml.endpoints import Endpoints
from modeldeploy.simulate.azureml.errors import ServiceError
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.metrics import Meters, Values, percentile
from modeldeploy.simulate.azureml.world import NAMESPACE, World

_REQUESTS, _LATENCY = "RequestsPerMinute", "RequestLatency"
_PERCENTILES = {f"{_LATENCY}_P{each}": float(each) for each in (50, 90, 95, 99)}
_UNITS = {_REQUESTS: "Count", _LATENCY: "MilliSeconds", **dict.fromkeys(_PERCENTILES, "MilliSeconds")}
_DIMENSIONS = {_REQUESTS: ("deployment", "modelStatusCode", "statusCode", "statusCodeClass"), _LATENCY: ("deployment",)}
_AGGREGATIONS = ("total", "average", "count", "minimum", "maximum")
_CONDITION = re.compile(r"(\w+)\s+eq\s+'([^']*)'", re.IGNORECASE)
_MINUTE_S = 60.0
Series = dict[tuple[str, ...], dict[float, Values]]


@attrs.frozen
class Query:
    """What is asked for; conditions are the values of each dimension, ``*`` for each by itself."""

    names: Sequence[str]
    begins: float
    ends: float
    interval: str
    aggregations: Sequence[str]
    conditions: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, request: Request) -> Query:
        """Read a request; the service's error when it cannot be."""
        query = request.query
        begins, _, ends = query.get("timespan", "").partition("/")
        names = [each for each in query.get("metricnames", "").split(",") if each]
        unknown = [each for each in names if each not in _UNITS]
        if unknown or not names:
            raise _bad(f"Failed to find metric configuration for provider: {NAMESPACE}, metric: {', '.join(unknown)}")
        asked = [each.strip().lower() for each in query.get("aggregation", "Average").split(",")]
        if not set(asked) <= set(_AGGREGATIONS):
            raise _bad(f"Unexpected aggregation type(s): {', '.join(asked)}")
        return cls(
            names,
            _instant(begins),
            _instant(ends),
            query.get("interval", "PT1M"),
            asked,
            _conditions(query.get("$filter", "")),
        )


@attrs.define(eq=False)
class Monitor:
    """Answers for metrics."""

    world: World
    endpoints: Endpoints
    meters: Meters

    def metrics(self, request: Request, endpoint: str) -> Answer:
        """Answer what was measured of an endpoint."""
        found = self.endpoints.get(endpoint)
        query = Query.of(request)
        at = f"{self.world.site.id}/onlineEndpoints/{found.name}"
        told = {
            "cost": 0,
            "timespan": f"{_time(query.begins)}/{_time(query.ends)}",
            "interval": query.interval,
            "value": [self._metric(found.name, at, name, query) for name in query.names],
            "namespace": f"{NAMESPACE}/workspaces/onlineEndpoints",
            "resourceregion": self.world.site.region,
        }
        return answer(200, told)

    def definitions(self, _request: Request, endpoint: str) -> Answer:
        """Answer which metrics there are."""
        found = self.endpoints.get(endpoint)
        at = f"{self.world.site.id}/onlineEndpoints/{found.name}"
        return answer(200, {"value": [_definition(at, name) for name in _UNITS]})

    def _metric(self, endpoint: str, at: str, name: str, query: Query) -> Json:
        possible = _DIMENSIONS.get(name, _DIMENSIONS[_LATENCY])
        wrong = sorted(set(query.conditions) - {each.lower() for each in possible})
        if wrong:
            raise _bad(f"The metric {name} has no dimension {', '.join(wrong)}")
        split = [each for each in possible if each.lower() in query.conditions]
        series = self._series(endpoint, query, split)
        return {
            "id": f"{at}/providers/Microsoft.Insights/metrics/{name}",
            "type": "Microsoft.Insights/metrics",
            "name": {"value": name, "localizedValue": name},
            "displayDescription": name,
            "unit": _UNITS[name],
            "timeseries": [
                _timeseries(name, split, values, points, query) for values, points in sorted(series.items())
            ],
            "errorCode": "Success",
        }

    def _series(self, endpoint: str, query: Query, split: Sequence[str]) -> Series:
        length = seconds(query.interval)
        found: Series = {}
        span, now = (query.begins, query.ends), self.world.clock.now()
        for dimensions, begins, values in self.meters.intervals(endpoint, length, span, now):
            if _fits(dimensions, query.conditions):
                key = tuple(dimensions[each] for each in split)
                found.setdefault(key, {}).setdefault(begins, Counter()).update(values)
        return found


def _fits(dimensions: Mapping[str, str], conditions: Mapping[str, frozenset[str]]) -> bool:
    lowered = {name.lower(): value.lower() for name, value in dimensions.items()}
    return all("*" in wanted or lowered[name] in wanted for name, wanted in conditions.items())


def _timeseries(
    name: str, split: Sequence[str], values: Sequence[str], points: Mapping[float, Values], query: Query
) -> Json:
    told = [
        {"name": {"value": each, "localizedValue": each}, "value": value}
        for each, value in zip(split, values, strict=True)
    ]
    data = [{"timeStamp": _time(at), **_point(name, each, query)} for at, each in sorted(points.items())]
    return {"metadatavalues": told, "data": data}


def _point(name: str, values: Values, query: Query) -> Json:
    compute: Callable[[Values, Query], Mapping[str, float]] = _requests if name == _REQUESTS else _latencies
    found = compute(values, query)
    if name in _PERCENTILES:
        found = dict.fromkeys(_AGGREGATIONS, percentile(values, _PERCENTILES[name]))
    return {each: found[each] for each in query.aggregations}


def _requests(values: Values, query: Query) -> Mapping[str, float]:
    total = float(values.total())
    rate = total * _MINUTE_S / seconds(query.interval)
    return {"total": total, "average": rate, "count": total, "minimum": rate, "maximum": rate}


def _latencies(values: Values, _query: Query) -> Mapping[str, float]:
    total, count = sum(value * times for value, times in values.items()), float(values.total())
    return {"total": total, "average": total / count, "count": count, "minimum": min(values), "maximum": max(values)}


def _definition(at: str, name: str) -> Json:
    dimensions = _DIMENSIONS.get(name, _DIMENSIONS[_LATENCY])
    return {
        "id": f"{at}/providers/microsoft.insights/metricdefinitions/{name}",
        "resourceId": at,
        "namespace": f"{NAMESPACE}/workspaces/onlineEndpoints",
        "name": {"value": name, "localizedValue": name},
        "unit": _UNITS[name],
        "primaryAggregationType": "Average",
        "supportedAggregationTypes": [each.capitalize() for each in _AGGREGATIONS],
        "metricAvailabilities": [{"timeGrain": "PT1M", "retention": "P93D"}],
        "dimensions": [{"value": each, "localizedValue": each} for each in dimensions],
        "isDimensionRequired": False,
    }


def _conditions(text: str) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, value in _CONDITION.findall(text):
        found.setdefault(name.lower(), set()).add(value.lower())
    if text and not found:
        raise _bad(f"The filter {text} is not valid.")
    return {name: frozenset(values) for name, values in found.items()}


def _instant(text: str) -> float:
    try:
        # A plus sign that was not encoded arrives as a blank.
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        message = f"The time {text} of the time span is not valid."
        raise _bad(message) from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _time(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds" if at % 1 else "seconds")
    return text.replace("+00:00", "Z")


def _bad(message: str) -> ServiceError:
    return ServiceError(400, "BadRequest", message)
