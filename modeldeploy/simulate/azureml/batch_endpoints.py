"""Batch endpoints and their deployments: create, update, show, list, delete."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from modeldeploy.simulate.azureml.batch_endpoint import (
    BatchDeployment,
    BatchEndpoint,
    deployment_told,
    endpoint_told,
    filled,
)
from modeldeploy.simulate.azureml.endpoint import CREATING, DELETING, FAILED, IN_PROGRESS, SUCCEEDED, UPDATING
from modeldeploy.simulate.azureml.endpoints import Endpoints, check_name
from modeldeploy.simulate.azureml.errors import ServiceError, bad_request, conflict, not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.lro import Operation, Operations
from modeldeploy.simulate.azureml.materials import Materials
from modeldeploy.simulate.azureml.resources import Born
from modeldeploy.simulate.azureml.world import World

Thing = BatchEndpoint | BatchDeployment


@attrs.define(eq=False)
class BatchEndpoints:
    """All batch endpoints of the workspace."""

    world: World
    operations: Operations
    materials: Materials
    online: Endpoints
    items: dict[str, BatchEndpoint] = attrs.field(factory=dict)

    def get(self, name: str) -> BatchEndpoint:
        """Find an endpoint; the service's error when it is not there."""
        with self.world.lock:
            found = self.items.get(name.lower())
        if found is None:
            raise not_found(f"Batch endpoint {name} could not be found in workspace {self.world.site.workspace}.")
        return found

    def find(self, endpoint: str, deployment: str) -> tuple[BatchEndpoint, BatchDeployment]:
        """Find a deployment; the service's error when it is not there."""
        found = self.get(endpoint)
        with self.world.lock:
            there = found.deployments.get(deployment.lower())
        if there is None:
            raise not_found(f"Batch deployment {deployment} could not be found in endpoint {endpoint}.")
        return found, there

    def put(self, request: Request, endpoint: str) -> Answer:
        """Create an endpoint, or replace what is asked of it."""
        asked = request.json()
        check_name(endpoint)
        with self.world.lock:
            found = self.items.get(endpoint.lower())
            self._check_default(asked, found)
            if found is None and endpoint.lower() in self.online.items:
                raise bad_request("There is already an endpoint with this name", "InferencingClientCallFailed")
            if found is None:
                found = self.items[endpoint.lower()] = BatchEndpoint(endpoint, asked, Born.now(self.world))
                return self._begin_endpoint(found, CREATING, asked)
            _check_free(found)
            return self._begin_endpoint(found, UPDATING, asked)

    @staticmethod
    def _check_default(asked: Json, found: BatchEndpoint | None) -> None:
        name = (asked["properties"].get("defaults") or {}).get("deploymentName")
        if name and (found is None or name.lower() not in found.deployments):
            raise bad_request(f"The default deployment {name} does not exist.")

    def _begin_endpoint(self, endpoint: BatchEndpoint, state: str, asked: Json) -> Answer:
        def told() -> Json:
            return endpoint_told(self.world, endpoint)

        def done() -> None:
            endpoint.asked = asked

        operation = self._begin(
            "BatchEndpoints_CreateOrUpdate", endpoint, state, self.world.timings.endpoint, done, told=told
        )
        return answer(201, told(), self.operations.headers(operation))

    def put_deployment(self, request: Request, endpoint: str, deployment: str) -> Answer:
        """Create a deployment, or put another in its place."""
        asked = filled(request.json())
        check_name(deployment)
        found = self.get(endpoint)
        self.materials.check_batch(asked["properties"])
        with self.world.lock:
            _check_free(found)
            there = found.deployments.get(deployment.lower())
            state = CREATING if there is None else UPDATING
            if there is None:
                there = found.deployments[deployment.lower()] = BatchDeployment(deployment, asked, Born.now(self.world))
            else:
                _check_free(there)
            return self._begin_deployment(found, there, state, asked)

    def _begin_deployment(
        self, endpoint: BatchEndpoint, deployment: BatchDeployment, state: str, asked: Json
    ) -> Answer:
        def told() -> Json:
            return deployment_told(self.world, endpoint, deployment)

        def done() -> None:
            deployment.asked = asked

        takes = self.world.timings.batch_deployment
        operation = self._begin("BatchDeployments_CreateOrUpdate", deployment, state, takes, done, told=told)
        return answer(201, told(), self.operations.headers(operation))

    def _begin(
        self,
        name: str,
        thing: Thing,
        state: str,
        takes: float,
        done: Callable[[], None],
        *,
        told: Callable[[], Json | None],
    ) -> Operation:
        thing.state = state

        def work() -> None:
            self.world.wait(takes)
            with self.world.lock:
                done()
                thing.born.modified = self.world.clock.now()
                thing.state = SUCCEEDED

        def failed(_error: ServiceError) -> None:
            thing.state = FAILED

        operation = self.operations.begin(name, state, work, failed=failed, result=told)
        thing.operation = self.operations.status_url(operation)
        return operation

    def show(self, _request: Request, endpoint: str) -> Answer:
        """Answer an endpoint."""
        found = self.get(endpoint)
        with self.world.lock:
            return answer(200, endpoint_told(self.world, found))

    def page(self, _request: Request) -> Answer:
        """Answer all endpoints."""
        with self.world.lock:
            return answer(200, {"value": [endpoint_told(self.world, each) for each in self.items.values()]})

    def show_deployment(self, _request: Request, endpoint: str, deployment: str) -> Answer:
        """Answer a deployment."""
        found, there = self.find(endpoint, deployment)
        with self.world.lock:
            return answer(200, deployment_told(self.world, found, there))

    def deployments(self, _request: Request, endpoint: str) -> Answer:
        """Answer the deployments of an endpoint."""
        found = self.get(endpoint)
        with self.world.lock:
            told = [deployment_told(self.world, found, each) for each in found.deployments.values()]
            return answer(200, {"value": told})

    def delete(self, _request: Request, endpoint: str) -> Answer:
        """Delete an endpoint with all its deployments; 204 when there is none."""
        with self.world.lock:
            found = self.items.get(endpoint.lower())
            if found is None:
                return Answer(204)
            _check_free(found)
            return self._delete("BatchEndpoints_Delete", found, lambda: self.items.pop(endpoint.lower(), None))

    def delete_deployment(self, _request: Request, endpoint: str, deployment: str) -> Answer:
        """Delete a deployment; 204 when there is none."""
        with self.world.lock:
            found = self.items.get(endpoint.lower())
            there = None if found is None else found.deployments.get(deployment.lower())
            if found is None or there is None:
                return Answer(204)
            _check_free(there)
            within = found.deployments
            return self._delete("BatchDeployments_Delete", there, lambda: within.pop(deployment.lower(), None))

    def _delete(self, name: str, thing: Thing, remove: Callable[[], object]) -> Answer:
        thing.state = DELETING

        def work() -> None:
            self.world.wait(self.world.timings.delete)
            with self.world.lock:
                remove()

        def failed(_error: ServiceError) -> None:
            thing.state = FAILED

        operation = self.operations.begin(name, DELETING, work, failed=failed)
        return Answer(202, {"Content-Type": "application/json", **self.operations.headers(operation)}, b"null")


def _check_free(thing: Thing) -> None:
    if thing.state in IN_PROGRESS:
        raise conflict(f"{thing.name} cannot be changed because it is in {thing.state} provisioning state.")
