"""Machines: how many cores an instance type has, and how many the subscription may have of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping

from modeldeploy.simulate.azureml.errors import Detail, ServiceError

# The names of this family do not tell the number of cores.
_DS_V2 = {"1": 1, "2": 2, "3": 4, "4": 8, "5": 16, "11": 2, "12": 4, "13": 8, "14": 16, "15": 20}
_DS = re.compile(r"Standard_DS?(\d+)_v2", re.IGNORECASE)
_SIZE = re.compile(r"Standard_[A-Z]+(\d+)", re.IGNORECASE)
# On most sizes a fifth more is set aside for upgrades.
_RESERVE = 1.2


def cores(size: str) -> int:
    """Tell how many cores an instance type has, by its name.

    >>> cores("Standard_DS3_v2"), cores("Standard_F4s_v2"), cores("Standard_NC24ads_A100_v4")
    (4, 4, 24)
    """
    found = _DS.fullmatch(size)
    if found:
        return _DS_V2.get(found[1], int(found[1]))
    numbered = _SIZE.match(size)
    return int(numbered[1]) if numbered else 4


def needed(size: str, count: int) -> int:
    """Tell how many cores so many instances take, with what is set aside for upgrades."""
    return math.ceil(count * _RESERVE) * cores(size)


def check_quota(limits: Mapping[str, int], size: str, count: int, others: Iterable[tuple[str, int]]) -> None:
    """Raise the service's error when the subscription has too few cores; ``others`` are the deployments that there are."""
    limit = {name.lower(): each for name, each in limits.items()}.get(size.lower())
    if limit is None:
        return
    used = sum(needed(each, number) for each, number in others if each.lower() == size.lower())
    more = needed(size, count)
    if used + more > limit:
        raise _quota(size, used, limit, more)


def _quota(size: str, used: int, limit: int, more: int) -> ServiceError:
    text = (
        f"Not enough quota available for {size} in SubscriptionId. Current usage/limit: {used}/{limit}. Additional needed: {more} "
        "Please see troubleshooting guide, available here: https://aka.ms/oe-tsg#error-outofquota"
    )
    inner = {
        "errors": {"VmSize": [text]},
        "type": "https://tools.ietf.org/html/rfc9110#section-15.5.1",
        "title": "One or more validation errors occurred.",
        "status": 400,
    }
    detail = Detail(
        "InferencingClientCreateDeploymentFailed",
        f"InferencingClient HttpRequest error, error detail: {json.dumps(inner)}",
    )
    return ServiceError(400, "BadRequest", "The request is invalid.", details=[detail])


def no_capacity(size: str) -> ServiceError:
    """Make the error of a region that has no machine to give."""
    text = (
        f"The specified VM Size {size} failed to provision due to a lack of Azure Machine Learning capacity. Retry later or try deploying "
        "to a different region."
    )
    return ServiceError(400, "OutOfCapacity", text)
