"""Online deployments: create, update, scale, show, list, delete, logs."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import attrs

from modeldeploy.simulate.azureml import defaults, machines
from modeldeploy.simulate.azureml.endpoint import (
    CREATING,
    DELETING,
    FAILED,
    IN_PROGRESS,
    SCALING,
    SUCCEEDED,
    UPDATING,
    Deployment,
    Endpoint,
    deployment_told,
)
from modeldeploy.simulate.azureml.endpoints import Endpoints, check_name
from modeldeploy.simulate.azureml.errors import ServiceError, bad_request, conflict, not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.lro import Operations
from modeldeploy.simulate.azureml.memory import Memory
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import World
from modeldeploy.simulate.azureml.yard import Yard

_TAIL = 100
_ID = re.compile(r".*/onlineEndpoints/(?P<endpoint>[^/]+)/deployments/(?P<deployment>[^/]+)", re.IGNORECASE)


@attrs.define(eq=False)
class Deployments:
    """All deployments of all online endpoints."""

    world: World
    operations: Operations
    endpoints: Endpoints
    yard: Yard
    memory: Memory

    def get(self, endpoint: str, deployment: str) -> tuple[Endpoint, Deployment]:
        """Find a deployment; the service's error when it is not there."""
        found = self.endpoints.get(endpoint)
        with self.world.lock:
            there = found.deployments.get(deployment.lower())
        if there is None:
            raise not_found(f"Online deployment {deployment} could not be found in endpoint {endpoint}.")
        return found, there

    def exists(self, reference: str) -> bool:
        """Say whether a resource id names a deployment that there is."""
        found = _ID.fullmatch(reference)
        if found is None or not reference.lower().startswith(self.world.site.id.lower()):
            return False
        with self.world.lock:
            endpoint = self.endpoints.items.get(found["endpoint"].lower())
            return endpoint is not None and found["deployment"].lower() in endpoint.deployments

    def put(self, request: Request, endpoint: str, deployment: str) -> Answer:
        """Create a deployment, or put another in its place."""
        asked = defaults.filled(request.json())
        check_name(deployment)
        found = self.endpoints.get(endpoint)
        self.yard.materials.check(asked["properties"])
        with self.world.lock:
            self._check_endpoint(found)
            there = found.deployments.get(deployment.lower())
            self._check_quota(asked, there)
            self._remember(found, there, deployment)
            if there is None:
                there = Deployment(deployment, asked, Born.now(self.world))
                found.deployments[deployment.lower()] = there
                return self._begin(found, there, CREATING, functools.partial(self._raise, found, there))
            _check_free(there)
            return self._replace(found, there, asked)

    def _check_quota(self, asked: Json, instead: Deployment | None) -> None:
        every = [each for endpoint in self.endpoints.items.values() for each in endpoint.deployments.values()]
        others = [(each.size, each.count) for each in every if each is not instead]
        size, count = asked["properties"]["instanceType"], int(asked["sku"]["capacity"])
        machines.check_quota(self.world.faults.quota, size, count, others)

    def _remember(self, endpoint: Endpoint, deployment: Deployment | None, name: str) -> None:
        told = None if deployment is None else deployment_told(self.world, endpoint, deployment)
        self.memory.keep(told, endpoint.name.lower(), name.lower())

    def _replace(self, endpoint: Endpoint, deployment: Deployment, asked: Json) -> Answer:
        scaled = _without_capacity(deployment.asked) == _without_capacity(asked) and deployment.fleet is not None
        deployment.asked = asked
        deployment.born.modified = self.world.clock.now()
        return self._begin(
            endpoint, deployment, SCALING if scaled else UPDATING, functools.partial(self._raise, endpoint, deployment)
        )

    def _begin(self, endpoint: Endpoint, deployment: Deployment, state: str, work: Callable[[], None]) -> Answer:
        deployment.state = state
        operation = self.operations.begin(
            "OnlineDeployments_CreateOrUpdate",
            state,
            work,
            failed=_fail(deployment),
            result=lambda: deployment_told(self.world, endpoint, deployment),
        )
        deployment.operation = self.operations.status_url(operation)
        return answer(201, deployment_told(self.world, endpoint, deployment), self.operations.headers(operation))

    def _raise(self, endpoint: Endpoint, deployment: Deployment) -> None:
        self.world.wait(self.world.timings.deployment)
        fleet = self.yard.fleet(endpoint, deployment)
        with self.world.lock:
            old, deployment.fleet = deployment.fleet, fleet
            deployment.state = SUCCEEDED
        self.yard.end(old)

    def _check_endpoint(self, endpoint: Endpoint) -> None:
        state = UPDATING if endpoint.settled > self.world.clock.now() else endpoint.state
        if state in IN_PROGRESS:
            raise conflict(
                f"Cannot create a deployment in endpoint {endpoint.name} because it is in {state} provisioning state."
            )

    def show(self, _request: Request, endpoint: str, deployment: str) -> Answer:
        """Answer a deployment."""
        with self.world.lock:
            stale, told = self.memory.old(endpoint.lower(), deployment.lower())
            if stale and told is not None:
                return answer(200, told)
            if stale:
                raise not_found(f"Online deployment {deployment} could not be found in endpoint {endpoint}.")
            found, there = self.get(endpoint, deployment)
            return answer(200, deployment_told(self.world, found, there))

    def page(self, _request: Request, endpoint: str) -> Answer:
        """Answer the deployments of an endpoint."""
        found = self.endpoints.get(endpoint)
        with self.world.lock:
            return answer(
                200, {"value": [deployment_told(self.world, found, each) for each in found.deployments.values()]}
            )

    def delete(self, _request: Request, endpoint: str, deployment: str) -> Answer:
        """Delete a deployment that takes no traffic; 204 when there is none."""
        with self.world.lock:
            found = self.endpoints.items.get(endpoint.lower())
            there = None if found is None else found.deployments.get(deployment.lower())
            if found is None or there is None:
                return Answer(204)
            self._check_endpoint(found)
            _check_free(there)
            _check_idle(found, there)
            self._remember(found, there, deployment)
            there.state = DELETING
        work = functools.partial(self._delete, found, there)
        operation = self.operations.begin("OnlineDeployments_Delete", DELETING, work, failed=_fail(there))
        return Answer(202, {"Content-Type": "application/json", **self.operations.headers(operation)}, b"null")

    def _delete(self, endpoint: Endpoint, deployment: Deployment) -> None:
        self.world.wait(self.world.timings.delete)
        with self.world.lock:
            endpoint.deployments.pop(deployment.name.lower(), None)
            fleet, deployment.fleet = deployment.fleet, None
        self.yard.end(fleet)
        self.yard.forget(endpoint.name, deployment.name)

    def logs(self, request: Request, endpoint: str, deployment: str) -> Answer:
        """Answer the latest lines of what a deployment's containers printed."""
        self.get(endpoint, deployment)
        asked = request.json()
        kind = asked.get("containerType") or "InferenceServer"
        lines = self.yard.log(endpoint, deployment, kind).tail(
            _TAIL if asked.get("tail") is None else int(asked["tail"])
        )
        return answer(200, {"content": "".join(f"{line}\n" for line in lines)})


def _fail(deployment: Deployment) -> Callable[[ServiceError], None]:
    def failed(_error: ServiceError) -> None:
        deployment.state = FAILED

    return failed


def _check_free(deployment: Deployment) -> None:
    if deployment.state in IN_PROGRESS:
        raise conflict(
            f"The deployment {deployment.name} cannot be changed because it is in {deployment.state} provisioning state."
        )


def _check_idle(endpoint: Endpoint, deployment: Deployment) -> None:
    if endpoint.traffic.get(deployment.name) or endpoint.mirror.get(deployment.name):
        raise bad_request(
            f"The deployment {deployment.name} takes traffic of the endpoint {endpoint.name}: set its traffic to 0 before it is deleted."
        )


def _without_capacity(asked: Json) -> Json:
    return {**asked, "sku": {**asked["sku"], "capacity": 0}}
