"""Where endpoints are called: who may, which deployment answers, and what becomes of it."""

from __future__ import annotations

import hmac
import random
import uuid
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.azureml.endpoint import Deployment, Endpoint
from modeldeploy.simulate.azureml.endpoints import Endpoints
from modeldeploy.simulate.azureml.exchange import Answer, Request, answer
from modeldeploy.simulate.azureml.instances import Fleet
from modeldeploy.simulate.azureml.tokens import Tokens, bearer
from modeldeploy.simulate.azureml.world import World
from modeldeploy.simulate.sagemaker.wire import Reply, UnreachableError

DEPLOYMENT = "azureml-model-deployment"
AUDIENCE = "https://ml.azure.com"
_OK = 200
_HOP = frozenset(
    {
        "connection",
        "transfer-encoding",
        "content-length",
        "host",
        "authorization",
        "keep-alive",
        "date",
        "server",
        "expect",
    }
)


class RefusedError(Exception):
    """The call goes no further."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@attrs.define(eq=False)
class FrontDoor:
    """Answers calls of all online endpoints."""

    world: World
    endpoints: Endpoints
    tokens: Tokens

    def answer(self, request: Request, endpoint: str, path: str) -> Answer:
        """Answer one call."""
        told = {"x-request-id": request.headers.get("x-request-id") or str(uuid.uuid4()), "Server": "azureml-frontdoor"}
        if "x-ms-client-request-id" in request.headers:
            told["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
        try:
            return self._answer(request, endpoint, path).adding(told)
        except RefusedError as error:
            body = {"error": {"code": error.status, "message": str(error)}}
            return answer(error.status, body, {**told, **error.headers})

    def _answer(self, request: Request, name: str, path: str) -> Answer:
        with self.world.lock:
            endpoint = self.endpoints.items.get(name.lower())
        if endpoint is None:
            raise RefusedError(404, f"There is no endpoint {name}.")
        self._authorise(request, endpoint)
        deployment = self._chosen(request, endpoint)
        fleet = deployment.fleet
        if fleet is None:
            raise RefusedError(503, f"The deployment {deployment.name} is not ready.")
        with fleet.slot() as taken:
            if not taken:
                raise RefusedError(429, "Too many requests are pending.", {"Retry-After": "1"})
            return _told(deployment, self._ask(request, fleet, path))

    def _ask(self, request: Request, fleet: Fleet, path: str) -> Reply:
        instance = fleet.next()
        if instance is None:
            raise RefusedError(503, "There is no instance.")
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        target = fleet.paths.scoring if path == "/score" else path
        try:
            return instance.line.ask(request.method, target, headers, request.body(), fleet.timeout_s)
        except TimeoutError as error:
            raise RefusedError(408, "The request timed out.") from error
        except UnreachableError as error:
            raise RefusedError(502, "The model's container did not answer.") from error

    def _authorise(self, request: Request, endpoint: Endpoint) -> None:
        given = bearer(request.headers.get("authorization", ""))
        if not given or not self._accepted(given, endpoint):
            raise RefusedError(401, "The key or token is missing or wrong.")

    def _accepted(self, given: str, endpoint: Endpoint) -> bool:
        mode = endpoint.auth_mode.lower()
        if mode == "key":
            return any(hmac.compare_digest(given, each) for each in endpoint.keys.values())
        wanted = f"endpoint:{endpoint.name}" if mode == "amltoken" else AUDIENCE
        return self.tokens.audience(given) == wanted

    def _chosen(self, request: Request, endpoint: Endpoint) -> Deployment:
        pinned = request.headers.get(DEPLOYMENT)
        with self.world.lock:
            name = pinned or _drawn(endpoint.traffic)
            found = endpoint.deployments.get(name.lower()) if name else None
        if found is None:
            text = f"There is no deployment {pinned}." if pinned else "No deployment has traffic."
            raise RefusedError(404, text)
        return found


def _drawn(traffic: Mapping[str, int]) -> str | None:
    names = [name for name, percent in traffic.items() if percent > 0]
    return random.choices(names, [traffic[name] for name in names])[0] if names else None  # noqa: S311 - a share, no secret


def _told(deployment: Deployment, reply: Reply) -> Answer:
    headers = {name: value for name, value in reply.headers.items() if name not in _HOP}
    headers[DEPLOYMENT] = deployment.name
    if reply.status == _OK:
        return Answer(_OK, headers, reply.body)
    model = {"ms-azureml-model-error-statuscode": str(reply.status), "ms-azureml-model-error-reason": "model_error"}
    return Answer(424, {**headers, **model}, reply.body)
