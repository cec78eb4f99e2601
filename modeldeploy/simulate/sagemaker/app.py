"""The door: SageMaker's requests are answered here, all others by moto in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs

from modeldeploy.simulate.sagemaker import answers, invocation, others, signature
from modeldeploy.simulate.sagemaker.answers import Answer
from modeldeploy.simulate.sagemaker.control import Control
from modeldeploy.simulate.sagemaker.errors import LostAnswerError, ServiceError
from modeldeploy.simulate.sagemaker.faults import Faults
from modeldeploy.simulate.sagemaker.runtime import Runtime
from modeldeploy.simulate.sagemaker.signature import Credentials, Scope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)
_TARGET = "SageMaker."


@attrs.define(eq=False)
class App:
    """A WSGI application for the whole simulated cloud."""

    control: Control
    runtime: Runtime
    faults: Faults
    credentials: Credentials
    account: str
    others: WSGIApplication
    asked: Callable[[str], None]
    """Told the name of each other service before it answers."""
    max_body: int

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        scope = Scope.of(environ)
        if scope is not None and scope.service == "sagemaker":
            answer = self._answer(scope, environ)
        elif scope is None and _is_ours(environ):
            answer = _no(environ, signature.unsigned())
        else:
            return self._pass_on(scope, environ, start_response)
        return _send(answer, start_response)

    def _pass_on(self, scope: Scope | None, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Let another service answer. What is not signed at all may be for everybody: that is for the service to say."""
        if scope is not None:
            try:
                signature.verify(scope, environ, _signed_body(scope, environ), self.credentials)
            except ServiceError as error:
                storage, json = scope.service == signature.STORAGE, "HTTP_X_AMZ_TARGET" in environ
                return _send(answers.refused(error, storage=storage, json=json), start_response)
            self.asked(scope.service)
        others.address(environ, self.account)
        return self.others(environ, start_response)

    def _answer(self, scope: Scope, environ: WSGIEnvironment) -> Answer:
        body = environ["wsgi.input"].read()
        try:
            signature.verify(scope, environ, body, self.credentials)
        except ServiceError as error:
            return _no(environ, error)
        operation = _operation(environ)
        return self._with_faults(operation, environ, lambda: self._perform(operation, environ, body))

    def _perform(self, operation: str, environ: WSGIEnvironment, body: bytes) -> Answer:
        if _is_control(environ):
            return self.control.answer(operation, body)
        try:
            asked = invocation.read(environ, body, max_body=self.max_body)
        except ServiceError as error:
            return answers.runtime_error(error)
        return self.runtime.answer(asked)

    def _with_faults(self, operation: str, environ: WSGIEnvironment, perform: Callable[[], Answer]) -> Answer:
        if self.faults.throttled(operation):
            return _no(environ, ServiceError("ThrottlingException", "Rate exceeded"))
        if self.faults.drops_before(operation):
            raise LostAnswerError
        answer = self._safely(environ, perform)
        if self.faults.drops_after(operation):
            raise LostAnswerError
        return answer

    @staticmethod
    def _safely(environ: WSGIEnvironment, perform: Callable[[], Answer]) -> Answer:
        try:
            return perform()
        except Exception as error:  # noqa: BLE001 - the caller gets an answer, the log the trace
            _log.exception("the simulator failed")
            return _no(environ, ServiceError("InternalFailure", f"The simulator failed: {error}", status=500))


def _signed_body(scope: Scope, environ: WSGIEnvironment) -> bytes:
    """Read the body that was signed; storage signs its digest, which is in a header, and its bodies are large."""
    if scope.service == signature.STORAGE:
        return b""
    source = environ["wsgi.input"]
    body: bytes = source.read()
    source.seek(0)
    return body


def _is_control(environ: WSGIEnvironment) -> bool:
    return str(environ.get("HTTP_X_AMZ_TARGET", "")).startswith(_TARGET)


def _is_ours(environ: WSGIEnvironment) -> bool:
    return _is_control(environ) or invocation.operation_of(environ["PATH_INFO"]) is not None


def _operation(environ: WSGIEnvironment) -> str:
    if _is_control(environ):
        return str(environ["HTTP_X_AMZ_TARGET"]).removeprefix(_TARGET)
    return invocation.operation_of(environ["PATH_INFO"]) or ""


def _no(environ: WSGIEnvironment, error: ServiceError) -> Answer:
    return answers.control_error(error) if _is_control(environ) else answers.runtime_error(error)


def _send(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    status = f"{answer.status} {_reason(answer.status)}"
    headers = [(name, value) for name, value in answer.headers.items()]
    if answer.parts is not None:
        start_response(status, headers)
        return answer.parts
    start_response(status, [*headers, ("Content-Length", str(len(answer.body)))])
    return [answer.body]


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # 530 is AWS's own
        return "Error"
