"""The control plane: from X-Amz-Target to an operation, its request and its answer held against the service's model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import orjson

from modeldeploy.simulate.sagemaker import answers, shapes
from modeldeploy.simulate.sagemaker.answers import Answer
from modeldeploy.simulate.sagemaker.errors import ServiceError, not_simulated
from modeldeploy.simulate.sagemaker.world import Json

Operation = Callable[[Json], Json]


@attrs.define(eq=False)
class Control:
    """Dispatches the operations that are simulated, and refuses the others by their names."""

    operations: Mapping[str, Operation]

    def answer(self, operation: str, body: bytes) -> Answer:
        """Answer one request."""
        try:
            return answers.result(self._perform(operation, body))
        except ServiceError as error:
            return answers.control_error(error)

    def _perform(self, operation: str, body: bytes) -> Json:
        service = shapes.load("sagemaker")
        if operation not in service.operation_names:
            raise ServiceError("UnknownOperationException", f"{operation} is not an operation of the service.")
        request = _parse(body)
        model = service.operation_model(operation)
        if model.input_shape is not None:
            shapes.check_request(model.input_shape, request)
        if operation not in self.operations:
            raise not_simulated(operation)
        answer = self.operations[operation](request)
        shapes.check_answer(operation, model.output_shape, answer)
        return answer


def _parse(body: bytes) -> Json:
    try:
        request = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        code, text = "SerializationException", "The request is not JSON."
        raise ServiceError(code, text) from error
    if not isinstance(request, dict):
        code, text = "SerializationException", "Start of structure or map found where not expected."
        raise ServiceError(code, text)
    return request
