"""The runtime: invocations of endpoints, answered by the containers."""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs

from modeldeploy.simulate.sagemaker import answers
from modeldeploy.simulate.sagemaker.answers import Answer
from modeldeploy.simulate.sagemaker.containers import Container
from modeldeploy.simulate.sagemaker.endpoint import Endpoint
from modeldeploy.simulate.sagemaker.errors import ServiceError
from modeldeploy.simulate.sagemaker.fleets import Variant
from modeldeploy.simulate.sagemaker.invocation import Invocation
from modeldeploy.simulate.sagemaker.routing import choose, pinned
from modeldeploy.simulate.sagemaker.wire import Reply, UnreachableError
from modeldeploy.simulate.sagemaker.world import Shelf, World

_OK, _BAD, _SERVER = 200, 400, 500
_MODEL_ERROR = 424
_SHOWN = 2_000
_VALIDATION = "ValidationError"


@attrs.define(eq=False)
class Runtime:
    """Answers what is asked of endpoints."""

    world: World
    endpoints: Shelf[Endpoint]
    timeout_s: float

    def answer(self, invocation: Invocation) -> Answer:
        """Answer one invocation."""
        try:
            return self._invoke(invocation)
        except ServiceError as error:
            return answers.runtime_error(error)

    def _invoke(self, invocation: Invocation) -> Answer:
        endpoint, variant = self._find(invocation)
        reply = self._ask(endpoint, variant, invocation)
        if reply.status >= _BAD:
            raise self._model_error(endpoint, variant, reply.status, reply.body.decode("utf-8", "replace"))
        return _answered(variant, reply)

    def _find(self, invocation: Invocation) -> tuple[Endpoint, Variant]:
        name = invocation.endpoint
        endpoint = self.endpoints.items.get(name.lower())
        fleet = None if endpoint is None else endpoint.route.fleet()
        if endpoint is None or fleet is None:
            raise ServiceError(_VALIDATION, f"Endpoint {name} of account {self.world.site.account} not found.")
        target = invocation.target_variant
        variant = choose(fleet) if target is None else pinned(fleet, target)
        if variant is None:
            raise ServiceError(_VALIDATION, f"Variant {target} not found for endpoint {name}.")
        return endpoint, variant

    def _ask(self, endpoint: Endpoint, variant: Variant, invocation: Invocation) -> Reply:
        container = variant.next()
        if container is None:
            raise ServiceError("ServiceUnavailable", "No instance is available.", status=503)
        try:
            return self._post(container, invocation)
        except TimeoutError as error:
            text = "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each container in Amazon CloudWatch, resolve the issue, and try again."
            raise self._model_error(endpoint, variant, 0, text) from error
        except UnreachableError as error:
            raise self._model_error(endpoint, variant, _SERVER, str(error)) from error

    def _post(self, container: Container, invocation: Invocation) -> Reply:
        return container.line.ask("POST", "/invocations", invocation.container_headers, invocation.body, self.timeout_s)

    def _model_error(self, endpoint: Endpoint, variant: Variant, status: int, said: str) -> ServiceError:
        site = self.world.site
        side = "server" if status >= _SERVER or not status else "client"
        console = f"https://{site.region}.console.aws.amazon.com/cloudwatch/home?region={site.region}#logEventViewer:group={endpoint.log_group}"
        text = (
            f'Received {side} error ({status}) from primary with message "{said[:_SHOWN]}". See {console} in account {site.account} for '
            "more information."
        )
        members: dict[str, str | int] = {
            "OriginalStatusCode": status,
            "OriginalMessage": said[:_SHOWN],
            "LogStreamArn": site.log_stream_arn(endpoint.log_group, variant.name),
        }
        return ServiceError("ModelError", text, status=_MODEL_ERROR, members=members)


def _answered(variant: Variant, reply: Reply) -> Answer:
    headers = {
        "Content-Type": reply.headers.get("content-type", "application/octet-stream"),
        "x-Amzn-Invoked-Production-Variant": variant.name,
        "x-amzn-RequestId": answers.request_id(),
    }
    return Answer(_OK, {**headers, **returned(reply.headers)}, reply.body)


def returned(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers of a container that reach the caller."""
    name = "x-amzn-sagemaker-custom-attributes"
    return {name: headers[name]} if name in headers else {}


def now() -> float:
    """Tell the time for latencies."""
    return time.perf_counter()
