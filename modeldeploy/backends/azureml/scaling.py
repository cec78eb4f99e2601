"""Numbers of instances that Azure Monitor chooses: by load and by the clock. It knows a deployment by its resource id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modeldeploy.backends.azureml import names
from modeldeploy.backends.azureml.client import Client, none_if_missing
from modeldeploy.backends.azureml.options import AzureMLOptions, Bounds
from modeldeploy.errors import UnsupportedError
from modeldeploy.values.serving import Revision

_VERSION = {"api-version": "2022-10-01"}
_METRIC = "CpuUtilizationPercentage"
_LOWER = 3.0
"""An instance is taken away below this part of the load above which one is added, so that the two do not chase each other."""


def refuse(revision: Revision) -> None:
    """Refuse bounds that the revision's own number of instances does not fit, before anything is sent."""
    options = AzureMLOptions.read(revision.options, "revision")
    if options.most_instances and not options.least_instances <= revision.scale.workers <= options.most_instances:
        message = f"workers is {revision.scale.workers}, and the bounds are {options.least_instances} and {options.most_instances}"
        raise UnsupportedError(message, capability="scale_to_zero", hint="start within the bounds")


class Scaling:
    """The autoscale setting of a deployment; each call may be repeated."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def apply(self, endpoint: str, revision: Revision, location: str) -> None:
        """Let Azure Monitor scale a deployment as the revision's options say; does nothing when they say nothing."""
        options = AzureMLOptions.read(revision.options, "revision")
        if not options.most_instances:
            return
        target = f"{self._client.place}/onlineEndpoints/{endpoint}/deployments/{revision.id}"
        setting = {
            "location": location,
            "tags": {names.TAG_ENDPOINT: endpoint, names.TAG_REVISION: revision.id},
            "properties": {
                "name": names.autoscale(endpoint, revision.id),
                # Left out, the service would take it for switched off.
                "enabled": True,
                "targetResourceUri": target,
                "profiles": list(_profiles(options, target)),
            },
        }
        if not _same(self._find(endpoint, revision.id), setting):
            self._client.ask("PUT", self._path(endpoint, revision.id), body=setting, query=_VERSION)

    def remove(self, endpoint: str, revision: str) -> None:
        """Take the setting of a deployment away, if there is one; before the deployment goes."""
        if self._find(endpoint, revision) is not None:
            self._client.ask("DELETE", self._path(endpoint, revision), query=_VERSION)

    def _find(self, endpoint: str, revision: str) -> Any:
        return none_if_missing(lambda: self._client.ask("GET", self._path(endpoint, revision), query=_VERSION))

    def _path(self, endpoint: str, revision: str) -> str:
        access, name = self._client.access, names.autoscale(endpoint, revision)
        group = f"/subscriptions/{access.subscription_id}/resourceGroups/{access.resource_group}"
        return f"{group}/providers/Microsoft.Insights/autoscalesettings/{name}"


def _same(found: Any, wanted: dict[str, Any]) -> bool:
    return found is not None and found["properties"]["profiles"] == wanted["properties"]["profiles"]


def _profiles(options: AzureMLOptions, target: str) -> Iterator[dict[str, Any]]:
    rules = list(_rules(options.cpu_percent, target)) if options.cpu_percent else []
    yield {"name": "default", "capacity": _capacity(options.least_instances, options.most_instances), "rules": rules}
    for number, each in enumerate(options.bounds()):
        yield {
            "name": f"schedule-{number}",
            "capacity": _capacity(each.least, each.most),
            "rules": rules,
            "recurrence": {"frequency": "Week", "schedule": _when(each)},
        }


def _capacity(least: int, most: int) -> dict[str, str]:
    return {"minimum": str(least), "maximum": str(most), "default": str(least)}


def _when(bounds: Bounds) -> dict[str, Any]:
    return {"timeZone": "UTC", "days": list(bounds.days), "hours": [bounds.hour], "minutes": [bounds.minute]}


def _rules(percent: float, target: str) -> Iterator[dict[str, Any]]:
    for direction, operator, threshold in (
        ("Increase", "GreaterThan", percent),
        ("Decrease", "LessThan", percent / _LOWER),
    ):
        yield {
            "metricTrigger": {
                "metricName": _METRIC,
                "metricResourceUri": target,
                "timeGrain": "PT1M",
                "statistic": "Average",
                "timeWindow": "PT5M",
                "timeAggregation": "Average",
                "operator": operator,
                "threshold": threshold,
            },
            "scaleAction": {"direction": direction, "type": "ChangeCount", "value": "1", "cooldown": "PT5M"},
        }
