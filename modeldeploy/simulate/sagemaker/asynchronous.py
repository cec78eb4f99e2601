"""InvokeEndpointAsync: the answer comes to storage, later."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import attrs
import orjson

from modeldeploy.simulate.sagemaker import answers
from modeldeploy.simulate.sagemaker.answers import Answer
from modeldeploy.simulate.sagemaker.asking import Asking, Target
from modeldeploy.simulate.sagemaker.cloud import Cloud, split_s3
from modeldeploy.simulate.sagemaker.errors import ServiceError
from modeldeploy.simulate.sagemaker.invocation import Invocation
from modeldeploy.simulate.sagemaker.world import Json

_ACCEPTED = 202
_THREADS = 4
_DEFAULT_TIMEOUT_S = 900
_OUTPUT, _FAILURE = "X-Amzn-SageMaker-OutputLocation", "X-Amzn-SageMaker-FailureLocation"


@attrs.define(eq=False)
class Asynchronous:
    """The queue of all asynchronous endpoints."""

    asking: Asking
    cloud: Cloud
    _threads: ThreadPoolExecutor = attrs.field(
        factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="asynchronous"), init=False
    )

    def accept(self, target: Target, invocation: Invocation) -> Answer:
        """Take a request, and say where its answer or its error will lie."""
        given, config = invocation.given, target.fleet.config.request["AsyncInferenceConfig"]["OutputConfig"]
        if ("InputLocation" in given) == bool(invocation.body):
            raise ServiceError("ValidationError", "Exactly one of InputLocation and Body must be given.")
        identity = str(given.get("InferenceId") or uuid.uuid4())
        places = _places(config, str(uuid.uuid4()))
        self._threads.submit(self._work, target, invocation, places)
        body = orjson.dumps({"InferenceId": identity})
        headers = {"Content-Type": "application/json", "x-amzn-RequestId": answers.request_id(), **places}
        return Answer(_ACCEPTED, headers, body)

    def close(self) -> None:
        """Wait for those under way."""
        self._threads.shutdown(cancel_futures=True)

    def _work(self, target: Target, invocation: Invocation, places: dict[str, str]) -> None:
        timeout = float(invocation.given.get("InvocationTimeoutSeconds", _DEFAULT_TIMEOUT_S))
        try:
            reply = self.asking.ask(target, self._with_body(invocation), timeout_s=timeout)
        except ServiceError as error:
            failure = places.get(_FAILURE)
            if failure is not None:
                self.cloud.write(*split_s3(failure), error.message.encode())
        else:
            kind = reply.headers.get("content-type", "application/octet-stream")
            self.cloud.write(*split_s3(places[_OUTPUT]), reply.body, kind)

    def _with_body(self, invocation: Invocation) -> Invocation:
        location = invocation.given.get("InputLocation")
        if location is None:
            return invocation
        body = self.cloud.read(*split_s3(location))
        if body is None:
            raise ServiceError("ValidationError", f"The input at {location} cannot be read.")
        return attrs.evolve(invocation, body=body)


def _places(config: Json, name: str) -> dict[str, str]:
    found = {_OUTPUT: f"{config['S3OutputPath'].rstrip('/')}/{name}.out"}
    if "S3FailurePath" in config:
        found[_FAILURE] = f"{config['S3FailurePath'].rstrip('/')}/{name}-error.out"
    return found
