"""Where endpoints are called: who may, which deployment answers, and what becomes of it."""

from __future__ import annotations

import hmac
import random
import uuid
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.azureml.asking import DEPLOYMENT, HOP, Asking, Call, RefusedError, too_many
from modeldeploy.simulate.azureml.batch_jobs import BatchJobs
from modeldeploy.simulate.azureml.endpoint import Deployment, Endpoint
from modeldeploy.simulate.azureml.endpoints import Endpoints
from modeldeploy.simulate.azureml.errors import LostAnswerError, ServiceError
from modeldeploy.simulate.azureml.exchange import Answer, Request, answer, refusal
from modeldeploy.simulate.azureml.mirroring import Mirroring
from modeldeploy.simulate.azureml.tokens import AUDIENCE, Tokens, bearer
from modeldeploy.simulate.azureml.world import World

_SCORE, _INVOKE = "OnlineEndpoints_Score", "BatchEndpoints_Invoke"


@attrs.define(eq=False)
class FrontDoor:
    """Answers calls of all online endpoints."""

    world: World
    endpoints: Endpoints
    tokens: Tokens
    asking: Asking
    mirroring: Mirroring
    jobs: BatchJobs

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
            batch = name.lower() in self.jobs.endpoints.items
        if batch:
            return self._batch(request, name, path)
        if endpoint is None:
            raise RefusedError(404, f"There is no endpoint {name}.")
        self._authorise(request, endpoint)
        deployment = self._chosen(request, endpoint)
        fleet = deployment.fleet
        if fleet is None:
            raise RefusedError(503, f"The deployment {deployment.name} is not ready.")
        if self.world.faults.throttles_score():
            raise too_many()
        self._drop(self.world.faults.drop_before, _SCORE)
        call = Call(request.method, path, _passed(request.headers), request.body())
        answer = self.asking.ask(endpoint, deployment, fleet, call)
        if DEPLOYMENT not in request.headers:
            self.mirroring.copy(endpoint, call)
        self._drop(self.world.faults.drop_after, _SCORE)
        return answer

    def _batch(self, request: Request, name: str, path: str) -> Answer:
        if self.tokens.audience(bearer(request.headers.get("authorization", ""))) != AUDIENCE:
            raise RefusedError(401, "The token is missing or wrong.")
        if request.method == "POST" and path == "/jobs":
            return self._invoke(request, name)
        raise RefusedError(404, f"There is nothing at {path}.")

    def _invoke(self, request: Request, name: str) -> Answer:
        self._drop(self.world.faults.drop_before, _INVOKE)
        try:
            found = self.jobs.invoke(request, name)
        except ServiceError as error:
            return refusal(error)
        self._drop(self.world.faults.drop_after, _INVOKE)
        return found

    def _drop(self, switch: dict[str, int], operation: str) -> None:
        if self.world.faults.take(switch, operation):
            raise LostAnswerError

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


def _passed(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name not in HOP}
