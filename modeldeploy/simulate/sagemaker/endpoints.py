"""CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DescribeEndpoint, DeleteEndpoint, ListEndpoints."""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs

from modeldeploy.simulate.sagemaker import policies
from modeldeploy.simulate.sagemaker.alarms import Alarms
from modeldeploy.simulate.sagemaker.deployments import Deployments
from modeldeploy.simulate.sagemaker.endpoint import (
    DELETING,
    FAILED,
    IN_PROGRESS,
    IN_SERVICE,
    UPDATING,
    Endpoint,
    Pending,
    described,
)
from modeldeploy.simulate.sagemaker.errors import ServiceError, invalid
from modeldeploy.simulate.sagemaker.fleets import Fleet, Variant
from modeldeploy.simulate.sagemaker.listing import listed
from modeldeploy.simulate.sagemaker.world import Json, Record, Shelf, World


@attrs.define(eq=False)
class Endpoints:
    """The endpoints of the account."""

    world: World
    models: Shelf[Record]
    configs: Shelf[Record]
    shelf: Shelf[Endpoint]
    alarms: Alarms
    deployments: Deployments

    def create(self, request: Json) -> Json:
        """Begin to create an endpoint out of a configuration that is there."""
        world, name = self.world, request["EndpointName"]
        with world.lock:
            self.shelf.check_free(name)
            fleet = self._fleet(self.configs.get(request["EndpointConfigName"]))
            self._check_policy(request.get("DeploymentConfig"), fleet)
            now = world.clock.now()
            endpoint = Endpoint(name, self.shelf.arn(name), request, now, world.visible_at(), fleet=fleet, modified=now)
            self.shelf.add(endpoint)
            world.tag(endpoint.arn, request.get("Tags", []))
        self._go("create", endpoint, functools.partial(self.deployments.create, endpoint))
        return {"EndpointArn": endpoint.arn}

    def update(self, request: Json) -> Json:
        """Begin to bring an endpoint to another configuration."""
        with self.world.lock:
            endpoint = self._at_rest(request["EndpointName"])
            # The service reads the configuration that is in use, and fails when somebody has deleted it.
            self.configs.get(endpoint.fleet.config.name)
            green = self._fleet(self.configs.get(request["EndpointConfigName"]))
            policy = request.get("DeploymentConfig")
            if request.get("RetainDeploymentConfig") and policy is None:
                policy = endpoint.deployment
            self._check_policy(policy, green)
            if request.get("RetainAllVariantProperties"):
                _retain(endpoint.fleet, green, request.get("ExcludeRetainedVariantProperties", []))
            self._begin(endpoint, UPDATING)
            endpoint.pending = Pending(green, self.world.clock.now())
        self._go("update", endpoint, functools.partial(self.deployments.update, endpoint, green, policy))
        return {"EndpointArn": endpoint.arn}

    def reweigh(self, request: Json) -> Json:
        """Begin to change weights and numbers of instances of a running fleet."""
        with self.world.lock:
            endpoint = self._at_rest(request["EndpointName"])
            changes = {each["VariantName"]: each for each in request["DesiredWeightsAndCapacities"]}
            variants = {each.name: each for each in endpoint.fleet.variants}
            unknown = sorted(set(changes) - set(variants))
            if unknown:
                raise invalid(
                    f'The variant name(s) "{", ".join(unknown)}" is/are not present within endpoint configuration.'
                )
            self._begin(endpoint, UPDATING)
            for name, change in changes.items():
                _want(variants[name], change)
        self._go("weights", endpoint, functools.partial(self.deployments.reweigh, endpoint, changes))
        return {"EndpointArn": endpoint.arn}

    def delete(self, request: Json) -> Json:
        """Begin to delete an endpoint that has come to rest."""
        with self.world.lock:
            endpoint = self._settled(request["EndpointName"])
            self._begin(endpoint, DELETING)
        self._go("delete", endpoint, functools.partial(self.deployments.delete, endpoint))
        return {}

    def describe(self, request: Json) -> Json:
        """Tell how an endpoint is, or for a while how it was."""
        with self.world.lock:
            endpoint = self.shelf.get(request["EndpointName"])
            if endpoint.stale_until > self.world.clock.now():
                return endpoint.stale
            return described(endpoint)

    def page(self, request: Json) -> Json:
        """List the endpoints."""
        with self.world.lock:
            return listed(
                self.shelf.values(), request, "Endpoints", _summary, status=("StatusEquals", "EndpointStatus")
            )

    def _fleet(self, config: Record) -> Fleet:
        return Fleet(
            config,
            self._variants(config, "ProductionVariants"),
            self._variants(config, "ShadowProductionVariants"),
            config.request.get("DataCaptureConfig"),
        )

    def _variants(self, config: Record, member: str) -> list[Variant]:
        return [Variant.of(each, self.models.get(each["ModelName"])) for each in config.request.get(member, [])]

    def _check_policy(self, policy: Json | None, fleet: Fleet) -> None:
        if policy is None:
            return
        instances = sum(variant.count for variant in fleet.variants)
        serverless = any(variant.serverless for variant in fleet.variants)
        policies.check(policy, len(fleet.variants), instances, serverless=serverless)
        self.alarms.check(policies.alarms(policy))

    def _settled(self, name: str) -> Endpoint:
        endpoint = self.shelf.get(name)
        if endpoint.status in IN_PROGRESS:
            raise _busy(endpoint)
        return endpoint

    def _at_rest(self, name: str) -> Endpoint:
        endpoint = self._settled(name)
        if endpoint.status != IN_SERVICE:
            state = "failed" if endpoint.status == FAILED else endpoint.status
            raise invalid(f'Cannot update {state} endpoint "{endpoint.arn}".')
        return endpoint

    def _begin(self, endpoint: Endpoint, status: str) -> None:
        """Remember how it was, for those who are told too late, and change the status."""
        faults, clock = self.world.faults, self.world.clock
        if faults.stale_s:
            endpoint.stale, endpoint.stale_until = described(endpoint), clock.after(faults.stale_s)
        endpoint.status, endpoint.modified, endpoint.reason = status, clock.now(), ""

    def _go(self, what: str, endpoint: Endpoint, work: Callable[[], None]) -> None:
        self.world.go(f"{what} {endpoint.name}", work)


def _busy(endpoint: Endpoint) -> ServiceError:
    return invalid(f'Cannot update in-progress endpoint "{endpoint.arn}".')


def _want(variant: Variant, change: Json) -> None:
    variant.desired_weight = float(change.get("DesiredWeight", variant.desired_weight))
    variant.desired_count = int(change.get("DesiredInstanceCount", variant.desired_count))


def _retain(old: Fleet, new: Fleet, excluded: list[Json]) -> None:
    left_out = {each["VariantPropertyType"] for each in excluded}
    if "DataCaptureConfig" not in left_out:
        new.capture = old.capture
    known = {variant.name: variant for variant in old.variants}
    for variant in new.variants:
        if variant.name in known:
            _take_over(variant, known[variant.name], left_out)


def _take_over(variant: Variant, old: Variant, left_out: set[str]) -> None:
    if "DesiredWeight" not in left_out:
        variant.weight = variant.desired_weight = old.weight
    if "DesiredInstanceCount" not in left_out:
        variant.count = variant.desired_count = old.count


def _summary(endpoint: Endpoint) -> Json:
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "CreationTime": endpoint.created,
        "LastModifiedTime": endpoint.modified,
        "EndpointStatus": endpoint.status,
    }
