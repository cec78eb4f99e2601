"""Asks a variant's container, counts the answer, and turns what goes wrong into the runtime's errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import attrs

from modeldeploy.simulate.sagemaker.containers import Container
from modeldeploy.simulate.sagemaker.endpoint import Endpoint
from modeldeploy.simulate.sagemaker.errors import ServiceError
from modeldeploy.simulate.sagemaker.fleets import Fleet, Variant, Yard
from modeldeploy.simulate.sagemaker.invocation import Invocation
from modeldeploy.simulate.sagemaker.metrics import Sample, Store
from modeldeploy.simulate.sagemaker.world import World
from modeldeploy.simulate.wire import Reply, UnreachableError

_BAD, _SERVER = 400, 500
_MODEL_ERROR, _NOT_READY, _UNAVAILABLE = 424, 429, 503
_SHOWN = 1_000
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for each container in "
    "Amazon CloudWatch, resolve the issue, and try again."
)


@attrs.frozen(eq=False)
class Target:
    """Who is to answer."""

    endpoint: Endpoint
    fleet: Fleet
    variant: Variant


@attrs.define(eq=False)
class Asking:
    """Asks containers; each answer, and each that failed to come, is in the metrics."""

    world: World
    yard: Yard
    store: Store
    timeout_s: float

    def ask(self, target: Target, invocation: Invocation, *, timeout_s: float | None = None) -> Reply:
        """Give the container's answer; ModelError when it is an error, or none."""
        container = self._container(target)
        begun = time.perf_counter()
        try:
            reply = self._post(container, invocation, timeout_s or self.timeout_s)
        except TimeoutError as error:
            self._count(target, invocation, 0, begun)
            raise self._model_error(target, 0, _TIMED_OUT) from error
        except UnreachableError as error:
            self._count(target, invocation, _SERVER, begun)
            raise self._model_error(target, _SERVER, str(error)) from error
        self._count(target, invocation, reply.status, begun)
        if reply.status >= _BAD:
            raise self._model_error(target, reply.status, reply.body.decode("utf-8", "replace"))
        return reply

    def stream(self, target: Target, invocation: Invocation) -> tuple[Mapping[str, str], Iterator[bytes]]:
        """Give the headers of the container's answer, and its body as it comes."""
        container = self._container(target)
        begun = time.perf_counter()
        try:
            status, headers, parts = container.line.stream(
                "/invocations", invocation.container_headers, invocation.body, self.timeout_s
            )
        except OSError as error:
            self._count(target, invocation, _SERVER, begun)
            raise self._model_error(target, _SERVER, str(error)) from error
        self._count(target, invocation, status, begun)
        if status >= _BAD:
            raise self._model_error(target, status, b"".join(parts).decode("utf-8", "replace"))
        return headers, parts

    def _container(self, target: Target) -> Container:
        variant = target.variant
        variant.used = self.world.clock.now()
        container = variant.next()
        if container is not None:
            return container
        if variant.serverless:
            self._warm(target)
            raise ServiceError(
                "ModelNotReadyException", "The model is not ready for inference requests.", status=_NOT_READY
            )
        raise ServiceError("ServiceUnavailable", "No instance is available to answer.", status=_UNAVAILABLE)

    def _warm(self, target: Target) -> None:
        """Begin to bring a container up for those who ask later."""
        self.yard.regrow(target.variant, target.endpoint.log_group, after_s=self.world.timings.cold_start)

    @staticmethod
    def _post(container: Container, invocation: Invocation, timeout_s: float) -> Reply:
        return container.line.ask("POST", "/invocations", invocation.container_headers, invocation.body, timeout_s)

    def _count(self, target: Target, invocation: Invocation, status: int, begun: float) -> None:
        model_s = time.perf_counter() - begun
        overhead_s = begun - invocation.begun
        sample = Sample(
            target.endpoint.name, target.variant.name, target.fleet.config.name, status, model_s, max(0.0, overhead_s)
        )
        self.store.record(sample, self.world.clock.now(), target.variant.count)

    def _model_error(self, target: Target, status: int, said: str) -> ServiceError:
        site, group = self.world.site, target.endpoint.log_group
        side = "server" if status >= _SERVER or not status else "client"
        console = f"https://{site.region}.console.aws.amazon.com/cloudwatch/home?region={site.region}#logEventViewer:group={group}"
        text = (
            f'Received {side} error ({status}) from primary with message "{said[:_SHOWN]}". See {console} in account {site.account} for '
            "more information."
        )
        members: dict[str, str | int] = {
            "OriginalStatusCode": status,
            "OriginalMessage": said[:_SHOWN],
            "LogStreamArn": site.log_stream_arn(group, target.variant.stream),
        }
        return ServiceError("ModelError", text, status=_MODEL_ERROR, members=members)
