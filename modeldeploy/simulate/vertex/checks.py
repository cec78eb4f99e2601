"""Requests are checked before anything is done: what is required, and what values there are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from modeldeploy.simulate.vertex.errors import ServiceError, invalid
from modeldeploy.simulate.vertex.names import ALIAS, check_display_name, check_id, check_labels

# Families whose machines serve predictions, with the number of CPUs at the end of the name.
_MACHINE = re.compile(
    r"(?:n1|n2|n2d|n4|e2|c2|c2d|c3|c3d|c4|m1|g4)-(?:standard|highmem|highcpu|megamem|ultramem)-(\d+)"
    r"|(?:a2-(?:highgpu|megagpu|ultragpu)|a3-(?:highgpu|megagpu|edgegpu|ultragpu)|a4-highgpu)-(\d+)g|g2-standard-(\d+)"
)
_CPUS_OF_GPU = 12
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FULL = 100
_PORTS = 65_536


def check_container(container: Any) -> None:
    """Refuse a container that cannot be started."""
    if not container.image_uri:
        message = "container_spec.image_uri is required."
        raise invalid(message)
    names = [each.name for each in container.env]
    for name in names:
        if _VARIABLE.fullmatch(name) is None:
            message = f"container_spec.env has {name!r}, which is not the name of a variable."
            raise invalid(message)
        if name.startswith("AIP_"):
            message = f"container_spec.env must not set {name}: names that begin with AIP_ are reserved."
            raise invalid(message)
    if len(set(names)) != len(names):
        message = "container_spec.env names a variable twice."
        raise invalid(message)
    for field in ("predict_route", "health_route"):
        route = getattr(container, field)
        if route and not route.startswith("/"):
            message = f"container_spec.{field} must begin with '/': {route!r}."
            raise invalid(message)
    if any(not 0 < each.container_port < _PORTS for each in container.ports):
        message = "container_spec.ports has a number that is no port."
        raise invalid(message)


def check_model(model: Any) -> None:
    """Refuse a model that lacks something or has something that is not allowed."""
    check_display_name(model.display_name)
    check_labels(model.labels)
    for alias in model.version_aliases:
        check_id(alias, ALIAS, "version alias")
    if not model.container_spec.image_uri and not model.artifact_uri:
        message = "container_spec or artifact_uri is required."
        raise invalid(message)
    check_container(model.container_spec)
    if model.artifact_uri and not model.artifact_uri.startswith("gs://"):
        message = f"artifact_uri must be a Cloud Storage URI: {model.artifact_uri!r}."
        raise invalid(message)


def cpus(machine_type: str) -> int:
    """Tell how many CPUs a machine has; an error when there is no such machine.

    >>> cpus("n1-standard-4"), cpus("a2-highgpu-2g")
    (4, 24)
    """
    found = _MACHINE.fullmatch(machine_type)
    if found is None:
        message = f"Machine type {machine_type!r} is not supported."
        raise invalid(message)
    return int(found[1] or found[3]) if found[1] or found[3] else int(found[2]) * _CPUS_OF_GPU


def check_machine(spec: Any) -> None:
    """Refuse a machine that there is not, or whose accelerators do not fit together."""
    if not spec.machine_type:
        message = "machine_spec.machine_type is required."
        raise invalid(message)
    cpus(spec.machine_type)
    has_kind, has_count = int(spec.accelerator_type) != 0, spec.accelerator_count > 0
    if has_kind is not has_count:
        message = "machine_spec.accelerator_type and accelerator_count must be given together."
        raise invalid(message)


def check_dedicated(resources: Any) -> None:
    """Refuse numbers of replicas that do not fit together; the largest becomes what the smallest is when it is not said."""
    check_machine(resources.machine_spec)
    if resources.min_replica_count < 1:
        message = "dedicated_resources.min_replica_count must be at least 1."
        raise invalid(message)
    resources.max_replica_count = resources.max_replica_count or resources.min_replica_count
    if resources.max_replica_count < resources.min_replica_count:
        message = "dedicated_resources.max_replica_count must not be below min_replica_count."
        raise invalid(message)
    if resources.required_replica_count > resources.min_replica_count:
        message = "dedicated_resources.required_replica_count must not be above min_replica_count."
        raise invalid(message)
    for each in resources.autoscaling_metric_specs:
        if not each.metric_name.startswith(("aiplatform.googleapis.com/", "pubsub.googleapis.com/")):
            message = f"autoscaling_metric_specs: {each.metric_name!r} is not supported."
            raise invalid(message)


def check_split(split: Mapping[str, int], deployed: Collection[str]) -> None:
    """Refuse a traffic table that names what is not deployed, or does not sum up to 100; an empty one is right."""
    unknown = sorted(set(split) - set(deployed))
    if unknown:
        message = f"Traffic split refers to deployed models that are not on the endpoint: {', '.join(unknown)}."
        raise invalid(message)
    if any(value < 0 for value in split.values()):
        message = "Traffic split has a value below 0."
        raise invalid(message)
    if split and sum(split.values()) != _FULL:
        message = f"Traffic split must sum up to 100, and not to {sum(split.values())}."
        raise invalid(message)


def check_etag(asked: str, now: str) -> None:
    """Refuse a change of something that has changed since it was read; which code the service gives is assumed."""
    if asked and asked != now:
        message = f"The etag {asked} does not match the current etag {now}."
        raise ServiceError("ABORTED", message)


def masked(mask: Any, allowed: Collection[str]) -> list[str]:
    """Give the fields that a change is about; an error when there is none, or one that cannot be changed."""
    paths = list(mask.paths)
    wrong = sorted({each for each in paths if each.partition(".")[0] not in allowed})
    if not paths or wrong:
        message = f"Invalid update_mask {','.join(paths)!r}: {', '.join(sorted(allowed))} may be changed."
        raise invalid(message)
    return [each.partition(".")[0] for each in paths]
