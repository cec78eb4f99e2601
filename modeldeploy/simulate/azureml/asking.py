"""Asks a deployment's containers, tells what came of it in the service's statuses, and measures it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.azureml.endpoint import Deployment, Endpoint
from modeldeploy.simulate.azureml.exchange import Answer
from modeldeploy.simulate.azureml.instances import Fleet
from modeldeploy.simulate.azureml.metrics import Meters, Sample
from modeldeploy.simulate.azureml.world import World
from modeldeploy.simulate.wire import Reply, UnreachableError

DEPLOYMENT = "azureml-model-deployment"
HOP = frozenset(
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
_OK, _MODEL_ERROR = 200, 424


class RefusedError(Exception):
    """The call goes no further."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


@attrs.frozen
class Call:
    """What a container is asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@attrs.define(eq=False)
class Asking:
    """Asks containers."""

    world: World
    meters: Meters

    def ask(self, endpoint: Endpoint, deployment: Deployment, fleet: Fleet, call: Call) -> Answer:
        """Ask a deployment once; RefusedError when it gives no answer. Either is counted."""
        begun, status, model = time.perf_counter(), 0, 0
        try:
            reply = self._limited(fleet, call)
            answer = _told(deployment, reply)
            status, model = answer.status, reply.status
        except RefusedError as error:
            status = error.status
            raise
        finally:
            took = time.perf_counter() - begun
            sample = Sample(endpoint.name, deployment.name, status, model, took)
            self.meters.add(sample, self.world.clock.now())
        return answer

    def _limited(self, fleet: Fleet, call: Call) -> Reply:
        if not fleet.slots.acquire(blocking=False):
            raise too_many()
        try:
            return self._ask(fleet, call)
        finally:
            fleet.slots.release()

    @staticmethod
    def _ask(fleet: Fleet, call: Call) -> Reply:
        instance = fleet.next()
        if instance is None:
            raise RefusedError(503, "There is no instance.")
        # The endpoint's own route leads to wherever the container scores; all others are passed on as they are.
        path = fleet.paths.scoring if call.path == "/score" else call.path
        try:
            return instance.line.ask(call.method, path, call.headers, call.body, fleet.timeout_s)
        except TimeoutError as error:
            raise RefusedError(408, "upstream request timeout") from error
        except UnreachableError as error:
            raise RefusedError(502, "The model's container did not answer.") from error


def too_many() -> RefusedError:
    """Make the refusal of a request that is one too many."""
    return RefusedError(429, "Too many requests are pending.", {"Retry-After": "1"})


def _told(deployment: Deployment, reply: Reply) -> Answer:
    headers = {name: value for name, value in reply.headers.items() if name not in HOP}
    headers[DEPLOYMENT] = deployment.name
    if reply.status == _OK:
        return Answer(_OK, headers, reply.body)
    model = {"ms-azureml-model-error-statuscode": str(reply.status), "ms-azureml-model-error-reason": "model_error"}
    return Answer(_MODEL_ERROR, {**headers, **model}, reply.body)
