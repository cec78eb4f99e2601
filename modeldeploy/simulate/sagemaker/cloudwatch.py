"""Lets moto's CloudWatch read the service's metrics: with the exact dimensions, aligned periods, and percentiles, which moto has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.sagemaker.metrics import NAMESPACE, Store, dimensions_of, statistic
from modeldeploy.simulate.sagemaker.site import Site


def install(site: Site, clock: Clock, store: Store) -> None:
    """Put ourselves before the backend of this one account and region; other namespaces are answered as before."""
    from moto.backends import get_backend

    backend: Any = get_backend("cloudwatch")[site.account][site.region]
    reader = _Reader(clock, store, backend.get_metric_data, backend.get_metric_statistics, backend.get_all_metrics)
    backend.get_metric_data = reader.get_metric_data
    backend.get_metric_statistics = reader.get_metric_statistics
    backend.get_all_metrics = reader.get_all_metrics


@attrs.define(eq=False)
class _Reader:
    clock: Clock
    store: Store
    others_data: Callable[..., Any]
    others_statistics: Callable[..., Any]
    others_metrics: Callable[[], list[Any]]

    def get_metric_data(
        self, queries: Sequence[Mapping[str, Any]], start_time: datetime, end_time: datetime, scan_by: str = ""
    ) -> Any:
        """Answer GetMetricData; arithmetic over metrics is left to moto, which knows nothing of ours."""
        if not all(each.get("MetricStat", {}).get("Metric", {}).get("Namespace") == NAMESPACE for each in queries):
            return self.others_data(queries=queries, start_time=start_time, end_time=end_time, scan_by=scan_by)
        span = (_epoch(start_time), _epoch(end_time))
        newest_first = scan_by != "TimestampAscending"
        return [self._result(each, span, newest_first=newest_first) for each in queries]

    def _result(self, query: Mapping[str, Any], span: tuple[float, float], *, newest_first: bool) -> dict[str, Any]:
        asked = query["MetricStat"]
        metric, name = asked["Metric"], asked["Stat"]
        points = self._points(metric["MetricName"], metric.get("Dimensions", []), float(asked["Period"]), span)
        found = sorted(points.items(), reverse=newest_first)
        values = [(at, statistic(name, each)) for at, each in found]
        if any(value is None for _at, value in values):
            raise _unknown(name)
        return {
            "id": query["Id"],
            "label": query.get("Label") or metric["MetricName"],
            "timestamps": [_time(at) for at, _value in values],
            "values": [value for _at, value in values],
            "status_code": "Complete",
        }

    def get_metric_statistics(  # noqa: PLR0917 - moto's signature
        self,
        namespace: str,
        metric_name: str,
        start_time: datetime,
        end_time: datetime,
        period: int,
        stats: Sequence[str],
        dimensions: Sequence[Mapping[str, str]],
        unit: str | None = None,
    ) -> Any:
        """Answer GetMetricStatistics; moto does not pass extended statistics on, which GetMetricData has."""
        if namespace != NAMESPACE:
            return self.others_statistics(
                namespace, metric_name, start_time, end_time, period, stats, dimensions=dimensions, unit=unit
            )
        if not stats:
            raise _unknown("ExtendedStatistics of GetMetricStatistics")
        span = (_epoch(start_time), _epoch(end_time))
        points = self._points(metric_name, dimensions, float(period), span)
        return [
            {"Timestamp": _time(at), "Unit": "None", **{name: statistic(name, values) for name in stats}}
            for at, values in sorted(points.items())
        ]

    def get_all_metrics(self) -> list[Any]:
        """List all metrics there are, for ListMetrics."""
        from moto.cloudwatch.models import MetricDatum

        now = datetime.fromtimestamp(self.clock.now(), UTC).replace(tzinfo=None)
        ours = [
            MetricDatum(NAMESPACE, name, 0.0, [{"Name": key, "Value": value} for key, value in sorted(dimensions)], now)
            for name, dimensions in self.store.series()
        ]
        return [*self.others_metrics(), *ours]

    def _points(
        self, name: str, dimensions: Sequence[Mapping[str, str]], period: float, span: tuple[float, float]
    ) -> Mapping[float, Any]:
        return self.store.periods(name, dimensions_of(dimensions), period, span, self.clock.now())


def _unknown(name: str) -> Exception:
    from moto.cloudwatch.exceptions import InvalidParameterValue

    error: Exception = InvalidParameterValue(f"The value {name} for parameter Stat is not supported.")
    return error


def _epoch(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
