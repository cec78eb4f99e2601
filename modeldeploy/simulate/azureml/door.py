"""Resource Manager's door: who may, what goes wrong on demand, and the headers that every answer has."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.azureml.errors import LostAnswerError, ServiceError, conflict
from modeldeploy.simulate.azureml.exchange import Answer, Request, refusal
from modeldeploy.simulate.azureml.routes import Routes
from modeldeploy.simulate.azureml.tokens import AUDIENCE, Tokens, bearer
from modeldeploy.simulate.azureml.world import World

# The buckets that answers of 2025 tell; listing keys, tokens and secrets count as writes.
_BUCKETS: Mapping[str, tuple[str, int]] = {
    "GET": ("reads", 1_100),
    "PUT": ("writes", 800),
    "POST": ("writes", 800),
    "PATCH": ("writes", 800),
    "DELETE": ("deletes", 800),
}

_WORKSPACE = ("/history/", "/mferp/")


@attrs.define(eq=False)
class Door:
    """Answers requests of the control plane."""

    world: World
    routes: Routes
    tokens: Tokens

    def answer(self, request: Request) -> Answer:
        """Answer one request."""
        try:
            return self._answer(request).adding(_told(request))
        except ServiceError as error:
            return refusal(error).adding(_told(request))

    def _answer(self, request: Request) -> Answer:
        self._authorise(request)
        route, names = self.routes.find(request.method, request.path)
        self._before(route.operation)
        answer = route.perform(request, names)
        if self.world.faults.take(self.world.faults.drop_after, route.operation):
            raise LostAnswerError
        return answer

    def _before(self, operation: str) -> None:
        faults = self.world.faults
        throttled, failed = faults.count()
        if throttled:
            text = "The request was throttled: too many requests were made of the subscription."
            raise ServiceError(429, "TooManyRequests", text, headers=self.world.retry_after(1))
        if failed:
            raise ServiceError(500, "InternalServerError", "Received 500 from a service request")
        if faults.take(faults.conflict, operation):
            raise conflict("Another operation on the resource is in progress.")
        if faults.take(faults.refuse, operation):
            text = f"The client does not have authorization to perform action {operation}."
            raise ServiceError(403, "AuthorizationFailed", text)
        if faults.take(faults.drop_before, operation):
            raise LostAnswerError

    def _authorise(self, request: Request) -> None:
        given = bearer(request.headers.get("authorization", ""))
        # Run history and the lists of batch jobs belong to the workspace, not to Resource Manager.
        accepted = {self.world.url, AUDIENCE} if request.path.startswith(_WORKSPACE) else {self.world.url}
        if self.tokens.audience(given) not in accepted:
            text = "Authentication failed. The 'Authorization' header is missing, or its access token is not valid for this audience."
            raise ServiceError(401, "AuthenticationFailed", text)


def _told(request: Request) -> dict[str, str]:
    kind, left = _BUCKETS.get(request.method, ("reads", 1_100))
    told = {"x-ms-request-id": str(uuid.uuid4()), f"x-ms-ratelimit-remaining-subscription-{kind}": str(left - 1)}
    asked = request.headers.get("x-ms-client-request-id")
    return {**told, "x-ms-client-request-id": asked} if asked else told
