"""The service of endpoints, but for what is deployed on them."""

from __future__ import annotations

from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.checks import check_etag, masked
from modeldeploy.simulate.vertex.endpoint import Endpoint
from modeldeploy.simulate.vertex.errors import ServiceError, exists, invalid, not_found, precondition
from modeldeploy.simulate.vertex.listing import chosen, page
from modeldeploy.simulate.vertex.names import ENDPOINT_ID, check_display_name, check_id, check_labels
from modeldeploy.simulate.vertex.operations import Operation, Operations
from modeldeploy.simulate.vertex.world import World

_CHANGEABLE = (
    "display_name",
    "description",
    "labels",
    "traffic_split",
    "predict_request_response_logging_config",
    "client_connection_config",
)
_FIELDS = ("display_name", "name", "endpoint")


@attrs.define(eq=False)
class Endpoints:
    """All endpoints by their ids; answers the part of ``EndpointService`` that is about endpoints themselves."""

    world: World
    operations: Operations
    known: dict[str, Endpoint] = attrs.field(factory=dict)
    _reserved: set[str] = attrs.field(factory=set)

    def find(self, name: str) -> Endpoint:
        """Find an endpoint by its name."""
        own = self.world.site.id_of(name, "endpoints")
        found = self.known.get(own)
        if found is None:
            kind = "Endpoint"
            raise not_found(kind, name)
        return found

    def create_endpoint(self, request: Any) -> Any:
        """Begin to make an endpoint; its id is taken at once, and it can be read when the operation has ended."""
        self.world.site.check_parent(request.parent)
        message = proto.copy(request.endpoint)
        self._check(message)
        with self.world.lock:
            endpoint_id = self._take(request.endpoint_id)
        name = f"{self.world.site.parent}/endpoints/{endpoint_id}"
        kind = proto.v1().CreateEndpointOperationMetadata

        def work(operation: Operation) -> Any:
            return self._create(operation, endpoint_id, name, message)

        def after() -> None:
            self._reserved.discard(endpoint_id)

        return self.operations.start("CreateEndpoint", name, kind(), work, after=after)

    @staticmethod
    def _check(message: Any) -> None:
        check_display_name(message.display_name)
        check_labels(message.labels)
        if message.network or message.enable_private_service_connect or "private_service_connect_config" in message:
            raise ServiceError("UNIMPLEMENTED", "Private endpoints are not simulated.")
        if message.deployed_models or message.traffic_split:
            text = "deployed_models and traffic_split cannot be set when an endpoint is created."
            raise invalid(text)

    def _take(self, asked: str) -> str:
        if asked:
            check_id(asked, ENDPOINT_ID, "endpoint_id")
        endpoint_id = asked or self.world.new_id()
        if endpoint_id in self.known or endpoint_id in self._reserved:
            kind = "Endpoint"
            raise exists(kind, f"{self.world.site.parent}/endpoints/{endpoint_id}")
        self._reserved.add(endpoint_id)
        return endpoint_id

    def _create(self, operation: Operation, endpoint_id: str, name: str, message: Any) -> Any:
        operation.wait(self.world.timings.endpoint)
        with self.world.lock:
            operation.check()
            operation.final = True
            message.name, message.etag = name, self.world.etag()
            message.create_time = message.update_time = self.world.now()
            if message.dedicated_endpoint_enabled:
                site = self.world.site
                message.dedicated_endpoint_dns = f"{endpoint_id}.{site.location}-{site.number}.prediction.vertexai.goog"
            self.known[endpoint_id] = Endpoint(message)
            return proto.copy(message)

    def get_endpoint(self, request: Any) -> Any:
        """Tell an endpoint."""
        with self.world.lock:
            return told(self.find(request.name))

    def list_endpoints(self, request: Any) -> Any:
        """Tell the endpoints, the latest first."""
        self.world.site.check_parent(request.parent)
        with self.world.lock:
            every = [told(each) for each in reversed(self.known.values())]
        found, token = page(chosen(every, request.filter, _FIELDS), request.page_size, request.page_token)
        return proto.v1().ListEndpointsResponse(endpoints=found, next_page_token=token)

    def update_endpoint(self, request: Any) -> Any:
        """Change an endpoint at once, if it is as the caller read it."""
        asked, fields = request.endpoint, masked(request.update_mask, _CHANGEABLE)
        with self.world.lock:
            endpoint = self.find(asked.name)
            if self.world.faults.take(self.world.faults.race, "UpdateEndpoint"):
                self.changed(endpoint)
            check_etag(asked.etag, endpoint.message.etag)
            check_display_name(asked.display_name, needed="display_name" in fields)
            check_labels(asked.labels)
            if "traffic_split" in fields:
                endpoint.check_split(asked.traffic_split)
            for field in fields:
                setattr(endpoint.message, field, getattr(asked, field))
            self.changed(endpoint)
            return told(endpoint)

    def delete_endpoint(self, request: Any) -> Any:
        """Begin to delete an endpoint on which nothing is deployed."""
        with self.world.lock:
            endpoint = self.find(request.name)
            check_empty(endpoint)

        def work(operation: Operation) -> Any:
            operation.wait(self.world.timings.delete)
            with self.world.lock:
                check_empty(endpoint)
                if self.known.get(endpoint.id) is endpoint:
                    del self.known[endpoint.id]

        return self.operations.start("DeleteEndpoint", endpoint.name, proto.v1().DeleteOperationMetadata(), work)

    def changed(self, endpoint: Endpoint) -> None:
        """Say that an endpoint is another now than it was when somebody read it."""
        endpoint.message.etag = self.world.etag()
        endpoint.message.update_time = self.world.now()


def told(endpoint: Endpoint) -> Any:
    """Give an endpoint as callers see it."""
    message = proto.copy(endpoint.message)
    message.deployed_models = [each.message for each in endpoint.deployed.values()]
    return message


def check_empty(endpoint: Endpoint) -> None:
    """Refuse to delete an endpoint that has something deployed, or soon will."""
    there = sorted({*endpoint.deployed, *endpoint.reserved})
    if there:
        message = f"Endpoint {endpoint.name} still has deployed models: {', '.join(there)}. Undeploy them first."
        raise precondition(message)
