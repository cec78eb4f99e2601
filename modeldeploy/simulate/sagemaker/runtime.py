"""The runtime: invocations of endpoints, answered by the containers."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from modeldeploy.simulate.sagemaker import answers, shapes, streaming
from modeldeploy.simulate.sagemaker.answers import Answer
from modeldeploy.simulate.sagemaker.asking import Asking, Target
from modeldeploy.simulate.sagemaker.asynchronous import Asynchronous
from modeldeploy.simulate.sagemaker.capture import Captures
from modeldeploy.simulate.sagemaker.endpoint import Endpoint
from modeldeploy.simulate.sagemaker.errors import ServiceError
from modeldeploy.simulate.sagemaker.fleets import Variant
from modeldeploy.simulate.sagemaker.invocation import Invocation
from modeldeploy.simulate.sagemaker.routing import choose, pinned
from modeldeploy.simulate.sagemaker.shadowing import Shadows
from modeldeploy.simulate.sagemaker.world import Shelf, World
from modeldeploy.simulate.wire import Reply

_OK = 200
_VALIDATION = "ValidationError"
_SERVERLESS_BODY = 4 * 1024 * 1024
_ASYNC = "InvokeEndpointAsync"
_STREAM = "InvokeEndpointWithResponseStream"
_RETURNED = (
    "x-amzn-sagemaker-custom-attributes",
    "x-amzn-sagemaker-new-session-id",
    "x-amzn-sagemaker-closed-session-id",
)
_UNKNOWN = ("TargetModel", "TargetContainerHostname", "InferenceComponentName", "EnableExplanations")


@attrs.define(eq=False)
class Runtime:
    """Answers what is asked of endpoints."""

    world: World
    endpoints: Shelf[Endpoint]
    asking: Asking
    shadows: Shadows
    captures: Captures
    asynchronous: Asynchronous

    def answer(self, invocation: Invocation) -> Answer:
        """Answer one invocation."""
        try:
            answer = self._invoke(invocation)
        except ServiceError as error:
            return answers.runtime_error(error)
        model = shapes.load("sagemaker-runtime").operation_model(invocation.operation)
        shapes.check_headers(invocation.operation, model.output_shape, answer.headers)
        return answer

    def _invoke(self, invocation: Invocation) -> Answer:
        target = self._find(invocation)
        _check_kind(target, invocation)
        if invocation.operation == _ASYNC:
            return self.asynchronous.accept(target, invocation)
        if target.fleet.shadows:
            self.shadows.copy(target, invocation)
        if invocation.operation == _STREAM:
            return self._stream(target, invocation)
        reply = self.asking.ask(target, invocation)
        self.captures.take(target, invocation, reply)
        return _answered(target.variant, reply)

    def _stream(self, target: Target, invocation: Invocation) -> Answer:
        headers, parts = self.asking.stream(target, invocation)
        told = {
            "Content-Type": streaming.CONTENT_TYPE,
            "X-Amzn-SageMaker-Content-Type": headers.get("content-type", "application/octet-stream"),
            "x-Amzn-Invoked-Production-Variant": target.variant.name,
            "x-amzn-RequestId": answers.request_id(),
        }
        return Answer(_OK, {**told, **_returned(headers)}, parts=streaming.events(parts))

    def _find(self, invocation: Invocation) -> Target:
        name = invocation.endpoint
        endpoint = self.endpoints.items.get(name.lower())
        fleet = None if endpoint is None else endpoint.route.fleet()
        if endpoint is None or fleet is None:
            raise ServiceError(_VALIDATION, f"Endpoint {name} of account {self.world.site.account} not found.")
        wanted = invocation.target_variant
        variant = choose(fleet) if wanted is None else pinned(fleet, wanted)
        if variant is None:
            raise ServiceError(_VALIDATION, f"Variant {wanted} not found for endpoint {name}.")
        return Target(endpoint, fleet, variant)


def _check_kind(target: Target, invocation: Invocation) -> None:
    unknown = next((name for name in _UNKNOWN if name in invocation.given), None)
    if unknown is not None:
        raise ServiceError(_VALIDATION, f"{unknown} is not supported by endpoint {target.endpoint.name}.")
    later = "AsyncInferenceConfig" in target.fleet.config.request
    if later != (invocation.operation == _ASYNC):
        kind = "asynchronous" if later else "real-time"
        raise ServiceError(
            _VALIDATION, f"{invocation.operation} is not supported by the {kind} endpoint {target.endpoint.name}."
        )
    if target.variant.serverless and len(invocation.body) > _SERVERLESS_BODY:
        raise ServiceError(
            _VALIDATION, f"The body is larger than the {_SERVERLESS_BODY} bytes that a serverless endpoint takes."
        )


def _answered(variant: Variant, reply: Reply) -> Answer:
    headers = {
        "Content-Type": reply.headers.get("content-type", "application/octet-stream"),
        "x-Amzn-Invoked-Production-Variant": variant.name,
        "x-amzn-RequestId": answers.request_id(),
    }
    return Answer(_OK, {**headers, **_returned(reply.headers)}, reply.body)


def _returned(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers of a container that reach the caller; no others do."""
    return {name: headers[name] for name in _RETURNED if name in headers}
