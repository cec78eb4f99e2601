"""The service that predicts: a replica drawn by the traffic split is asked over HTTP, and its answer passed on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.processes import Child
from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.calls import Call
from modeldeploy.simulate.vertex.endpoint import Deployed, Endpoint
from modeldeploy.simulate.vertex.endpoints import Endpoints
from modeldeploy.simulate.vertex.errors import ServiceError, from_container, invalid, precondition
from modeldeploy.simulate.vertex.metrics import Meters, Series
from modeldeploy.simulate.vertex.quotas import PREDICTIONS, Quotas
from modeldeploy.simulate.vertex.world import World
from modeldeploy.simulate.wire import UnreachableError

_JSON = "application/json"
_OK = 200
_GONE, _LATE = 503, 504
SHARED_LIMIT = 1_572_864
DEDICATED_LIMIT = 10 * 1024 * 1024
_SHARED_TIMEOUT_S = 60.0
_LONGEST_TIMEOUT_S = 3_600.0
ENDPOINT_HEADER = "x-vertex-ai-endpoint-id"
DEPLOYED_HEADER = "x-vertex-ai-deployed-model-id"


@attrs.define(eq=False)
class Prediction:
    """Answers ``PredictionService``."""

    world: World
    endpoints: Endpoints
    meters: Meters
    quotas: Quotas

    def raw_predict(self, request: Any, call: Call) -> Any:
        """Pass a body on as it is, and the answer back as it is."""
        endpoint, deployed = self._chosen(request.endpoint, request.http_body.data, call)
        with self._measured(endpoint, deployed) as measured:
            replica, timeout = self._replica(deployed), self._timeout(endpoint, call)
            content = request.http_body.content_type or _JSON
            reply = replica.line.ask(
                "POST", deployed.fleet.start.predict, {"Content-Type": content}, request.http_body.data, timeout
            )
            measured.status = reply.status
        if reply.status != _OK:
            raise from_container(reply.status, reply.body)
        self._tell(endpoint, deployed, call)
        return _http_body(reply.headers, reply.body)

    def stream_raw_predict(self, request: Any, call: Call) -> Iterator[Any]:
        """Pass a body on as it is, and the parts of the answer back as they come."""
        endpoint, deployed = self._chosen(request.endpoint, request.http_body.data, call)
        with self._measured(endpoint, deployed) as measured:
            replica, timeout = self._replica(deployed), self._timeout(endpoint, call)
            content = {"Content-Type": request.http_body.content_type or _JSON}
            status, headers, parts = replica.line.stream(
                deployed.fleet.start.predict, content, request.http_body.data, timeout
            )
            measured.status = status
            if status != _OK:
                raise from_container(status, b"".join(parts))
            self._tell(endpoint, deployed, call)
            for part in parts:
                yield _http_body(headers, part)

    def predict(self, request: Any, call: Call) -> Any:
        """Make JSON of instances and parameters, and a message of the predictions; all numbers become doubles on the way."""
        from google.protobuf import json_format

        plain = proto.plain(request)
        asked: dict[str, Any] = {"instances": [json_format.MessageToDict(each) for each in plain.instances]}
        if plain.HasField("parameters"):
            asked["parameters"] = json_format.MessageToDict(plain.parameters)
        endpoint, deployed = self._chosen(request.endpoint, proto.written(request), call)
        with self._measured(endpoint, deployed) as measured:
            replica, timeout = self._replica(deployed), self._timeout(endpoint, call)
            reply = replica.line.ask(
                "POST", deployed.fleet.start.predict, {"Content-Type": _JSON}, orjson.dumps(asked), timeout
            )
            measured.status = reply.status
        if reply.status != _OK:
            raise from_container(reply.status, reply.body)
        self._tell(endpoint, deployed, call)
        return _predicted(reply.body, deployed)

    def _chosen(self, name: str, body: bytes, call: Call) -> tuple[Endpoint, Deployed]:
        self.quotas.count(PREDICTIONS)
        with self.world.lock:
            endpoint = self.endpoints.find(name)
            dedicated = endpoint.message.dedicated_endpoint_enabled
            if dedicated and call.metadata.get(ENDPOINT_HEADER) != endpoint.id:
                raise precondition(
                    f"Dedicated endpoint {endpoint.name} cannot be accessed through the shared Vertex AI domain; "
                    f"use {endpoint.message.dedicated_endpoint_dns}."
                )
            limit = DEDICATED_LIMIT if dedicated else SHARED_LIMIT
            if len(body) > limit:
                raise invalid(f"Request payload size exceeds the limit: {limit} bytes.")
            return endpoint, endpoint.draw()

    @staticmethod
    def _replica(deployed: Deployed) -> Child:
        replica = deployed.fleet.next()
        if replica is None:
            raise UnreachableError
        return replica

    @staticmethod
    def _timeout(endpoint: Endpoint, call: Call) -> float:
        """Tell how long the container may take: what the endpoint says, and no longer than the caller waits."""
        asked = endpoint.message.client_connection_config.inference_timeout.total_seconds()
        allowed = min(asked, _LONGEST_TIMEOUT_S) if asked and endpoint.message.dedicated_endpoint_enabled else 0.0
        return min(allowed or _SHARED_TIMEOUT_S, call.remaining)

    @contextlib.contextmanager
    def _measured(self, endpoint: Endpoint, deployed: Deployed) -> Iterator[_Measured]:
        """Count what happens within, and turn a replica that cannot be asked into the service's answer."""
        measured, begun = _Measured(), time.monotonic()
        try:
            yield measured
        except TimeoutError as error:
            measured.status = _LATE
            raise ServiceError("DEADLINE_EXCEEDED", "The model server did not answer in time.") from error
        except ConnectionError as error:
            measured.status = _GONE
            raise ServiceError("UNAVAILABLE", "The model server is not available.") from error
        finally:
            series = _series(endpoint, deployed, measured.status or _GONE)
            self.meters.add(series, time.monotonic() - begun, self.world.clock.now())

    @staticmethod
    def _tell(endpoint: Endpoint, deployed: Deployed, call: Call) -> None:
        """Say who answered; over gRPC the names of the headers are assumed."""
        call.tell({ENDPOINT_HEADER: endpoint.id, DEPLOYED_HEADER: deployed.id})


@attrs.define
class _Measured:
    """What became of a prediction."""

    status: int = 0


def _series(endpoint: Endpoint, deployed: Deployed, status: int) -> Series:
    message = deployed.message
    spot = bool(message.dedicated_resources.spot)
    return Series(endpoint.id, deployed.id, status, message.display_name, endpoint.message.display_name, spot)


def _http_body(headers: Mapping[str, str], data: bytes) -> Any:
    from google.api import httpbody_pb2

    return httpbody_pb2.HttpBody(content_type=headers.get("content-type", _JSON), data=data)


def _predicted(body: bytes, deployed: Deployed) -> Any:
    from google.protobuf import json_format, struct_pb2

    try:
        predictions = list(orjson.loads(body)["predictions"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError("INTERNAL", "The model server's answer has no predictions.") from error
    message = deployed.message
    told = proto.v1().PredictResponse(
        deployed_model_id=message.id,
        model=message.model,
        model_version_id=message.model_version_id,
        model_display_name=message.display_name,
    )
    plain = proto.plain(told)
    plain.predictions.extend(json_format.ParseDict(each, struct_pb2.Value()) for each in predictions)
    return told
