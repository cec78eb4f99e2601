"""What is deployed on endpoints: how it comes there, changes, and goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.checks import check_dedicated, masked
from modeldeploy.simulate.vertex.endpoint import Deployed, Endpoint
from modeldeploy.simulate.vertex.endpoints import Endpoints
from modeldeploy.simulate.vertex.errors import exceeded, exists, invalid, precondition
from modeldeploy.simulate.vertex.names import DEPLOYED_ID, check_display_name, check_id
from modeldeploy.simulate.vertex.operations import Operation, Operations
from modeldeploy.simulate.vertex.quotas import Quotas
from modeldeploy.simulate.vertex.registry import Registry
from modeldeploy.simulate.vertex.replicas import Fleet, Plan, Replicas
from modeldeploy.simulate.vertex.usage import Usage
from modeldeploy.simulate.vertex.world import STAGES, World

NEW = "0"
"""What the model that is being deployed is called in a traffic split."""
_CHANGEABLE = ("dedicated_resources", "disable_container_logging")
_STARTING = STAGES.index("STARTING_MODEL_SERVER")


@attrs.define(eq=False)
class Deployments:
    """Answers the part of ``EndpointService`` that is about deployed models."""

    world: World
    operations: Operations
    endpoints: Endpoints
    registry: Registry
    replicas: Replicas
    quotas: Quotas
    usage: Usage

    # Deploying.

    def deploy_model(self, request: Any) -> Any:
        """Begin to deploy a model; the traffic split that came along holds from the end on."""
        deployed = proto.copy(request.deployed_model)
        split = dict(request.traffic_split)
        with self.world.lock:
            endpoint = self.endpoints.find(request.endpoint)
            plan = self._planned(endpoint, deployed)
            # A split that is empty leaves the traffic as it is.
            if split:
                endpoint.check_split(split, NEW)
            self.quotas.take_machines(endpoint.name, deployed.id, deployed.dedicated_resources)
            endpoint.reserved.add(deployed.id)
        metadata = proto.v1().DeployModelOperationMetadata()

        def work(operation: Operation) -> Any:
            return self._deploy(operation, endpoint, deployed, plan, split)

        def after() -> None:
            endpoint.reserved.discard(deployed.id)
            if deployed.id not in endpoint.deployed:
                self.quotas.give_back(endpoint.name, deployed.id)

        return self.operations.start("DeployModel", endpoint.name, metadata, work, after=after)

    def _planned(self, endpoint: Endpoint, deployed: Any) -> Plan:
        """Check what is asked for, complete it, and say what its processes are made of."""
        if not deployed.model:
            message = "deployed_model.model is required."
            raise invalid(message)
        entry, number, model = self.registry.version(deployed.model)
        check_display_name(deployed.display_name, needed=False)
        if deployed.id:
            check_id(deployed.id, DEPLOYED_ID, "deployed_model.id")
        deployed.id = deployed.id or self.world.new_id()
        if deployed.id in endpoint.deployed or deployed.id in endpoint.reserved:
            kind = "DeployedModel"
            raise exists(kind, f"{deployed.id} on {endpoint.name}")
        if "dedicated_resources" not in deployed:
            message = f"Model {entry.name} supports dedicated_resources only, which are not set."
            raise invalid(message)
        check_dedicated(deployed.dedicated_resources)
        deployed.model, deployed.model_version_id = entry.name, number
        deployed.display_name = deployed.display_name or model.display_name
        return Plan(endpoint.id, deployed.id, entry.id, number, model.container_spec, deployed.dedicated_resources)

    def _deploy(self, operation: Operation, endpoint: Endpoint, deployed: Any, plan: Plan, split: Any) -> Any:
        if self.world.faults.once("stockout"):
            raise exceeded("CustomModelServingCPUsPerProjectPerRegion")
        self._pass(operation, STAGES[:_STARTING])
        operation.stage(STAGES[_STARTING])
        fleet = self.replicas.fleet(plan, operation.cancelled)
        try:
            self._pass(operation, STAGES[_STARTING:])
            return self._deployed(operation, endpoint, deployed, fleet, split)
        except BaseException:
            self.replicas.end(fleet)
            raise

    def _pass(self, operation: Operation, stages: Sequence[str]) -> None:
        for stage in stages:
            operation.stage(stage)
            operation.wait(self.world.timings.stage)

    def _deployed(self, operation: Operation, endpoint: Endpoint, deployed: Any, fleet: Fleet, split: Any) -> Any:
        with self.world.lock:
            operation.check()
            operation.final = True
            deployed.create_time = self.world.now()
            count = len(fleet.replicas)
            deployed.status = {"available_replica_count": max(count, deployed.dedicated_resources.min_replica_count)}
            renamed = {deployed.id if key == NEW else key: value for key, value in split.items()}
            endpoint.check_split(renamed, deployed.id)
            endpoint.deployed[deployed.id] = Deployed(deployed, fleet, fleet.plan.model_id)
            if renamed:
                endpoint.message.traffic_split = renamed
            self.usage.add(endpoint.name, deployed.id, fleet.plan.model_id, fleet.plan.version)
            self.endpoints.changed(endpoint)
            operation.stage("SUCCESSFULLY_DEPLOYED")
            return proto.v1().DeployModelResponse(deployed_model=proto.copy(deployed))

    # Undeploying.

    def undeploy_model(self, request: Any) -> Any:
        """Begin to undeploy a model that has no traffic, or will have none by the split that came along."""
        with self.world.lock:
            endpoint = self.endpoints.find(request.endpoint)
            deployed = endpoint.find(request.deployed_model_id)
            split = dict(request.traffic_split)
            self._check_idle(endpoint, deployed, split)
            _begin(endpoint, deployed)
            deployed.leaving = True
            # From here on it gets nothing, and the others get what they shall have.
            endpoint.message.traffic_split = _without(split or dict(endpoint.message.traffic_split), deployed.id)
            self.endpoints.changed(endpoint)
        metadata = proto.v1().UndeployModelOperationMetadata()

        def work(operation: Operation) -> Any:
            return self._undeploy(operation, endpoint, deployed)

        def after() -> None:
            deployed.going = deployed.leaving = False

        return self.operations.start("UndeployModel", endpoint.name, metadata, work, after=after)

    @staticmethod
    def _check_idle(endpoint: Endpoint, deployed: Deployed, split: dict[str, int]) -> None:
        last = set(endpoint.deployed) == {deployed.id}
        if split:
            endpoint.check_split(split)
        remaining = (split or dict(endpoint.message.traffic_split)).get(deployed.id, 0)
        if remaining and not last:
            message = f"DeployedModel {deployed.id} of {endpoint.name} still has {remaining} percent of the traffic."
            raise precondition(message)

    def _undeploy(self, operation: Operation, endpoint: Endpoint, deployed: Deployed) -> Any:
        operation.wait(self.world.timings.undeploy)
        with self.world.lock:
            operation.check()
            operation.final = True
            endpoint.deployed.pop(deployed.id, None)
            endpoint.message.traffic_split = _without(dict(endpoint.message.traffic_split), deployed.id)
            self.usage.remove(endpoint.name, deployed.id)
            self.quotas.give_back(endpoint.name, deployed.id)
            self.endpoints.changed(endpoint)
        self.replicas.end(deployed.fleet)
        return proto.v1().UndeployModelResponse()

    # Changing.

    def mutate_deployed_model(self, request: Any) -> Any:
        """Begin to change how many replicas a deployed model has."""
        fields = masked(request.update_mask, _CHANGEABLE)
        with self.world.lock:
            endpoint = self.endpoints.find(request.endpoint)
            deployed = endpoint.find(request.deployed_model.id)
            wanted = proto.copy(deployed.message)
            _change(wanted, request.deployed_model, list(request.update_mask.paths))
            check_dedicated(wanted.dedicated_resources)
            if wanted.dedicated_resources.machine_spec != deployed.message.dedicated_resources.machine_spec:
                message = "The machine of a deployed model cannot be changed; deploy it anew."
                raise invalid(message)
            self.quotas.take_machines(endpoint.name, deployed.id, wanted.dedicated_resources)
            _begin(endpoint, deployed)
        metadata = proto.v1().MutateDeployedModelOperationMetadata()

        def work(operation: Operation) -> Any:
            return self._mutate(operation, endpoint, deployed, wanted, fields)

        def after() -> None:
            deployed.going = False
            self.quotas.note_machines(endpoint.name, deployed.id, deployed.message.dedicated_resources)

        return self.operations.start("MutateDeployedModel", endpoint.name, metadata, work, after=after)

    def _mutate(
        self, operation: Operation, endpoint: Endpoint, deployed: Deployed, wanted: Any, fields: list[str]
    ) -> Any:
        operation.wait(self.world.timings.mutate)
        if "dedicated_resources" in fields:
            self.replicas.resize(deployed.fleet, wanted.dedicated_resources, operation.cancelled)
        with self.world.lock:
            operation.final = True
            for field in fields:
                setattr(deployed.message, field, getattr(wanted, field))
            least = wanted.dedicated_resources.min_replica_count
            deployed.message.status = {"available_replica_count": max(len(deployed.fleet.replicas), least)}
            self.endpoints.changed(endpoint)
            return proto.v1().MutateDeployedModelResponse(deployed_model=proto.copy(deployed.message))


def _begin(endpoint: Endpoint, deployed: Deployed) -> None:
    """Refuse a change of what is changing; which code the service gives is assumed."""
    if deployed.going:
        message = f"DeployedModel {deployed.id} of {endpoint.name} is being changed by another operation."
        raise precondition(message)
    deployed.going = True


def _without(split: dict[str, int], deployed: str) -> dict[str, int]:
    """Give a split without a model that goes; of the last one nothing is left."""
    left = {key: value for key, value in split.items() if key != deployed}
    return left if any(left.values()) else {}


def _change(message: Any, asked: Any, paths: list[str]) -> None:
    """Set the fields that a mask names, down to those of the resources."""
    for path in paths:
        first, _, rest = path.partition(".")
        if not rest:
            setattr(message, first, getattr(asked, first))
        else:
            own = rest.partition(".")[0]
            setattr(getattr(message, first), own, getattr(getattr(asked, first), own))
