"""The door: Greengrass's requests are answered here, those to IoT, storage and the others by moto in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import attrs
import orjson

from modeldeploy.simulate.greengrass import wire
from modeldeploy.simulate.greengrass.account import OPERATIONS, Account
from modeldeploy.simulate.sagemaker import others, signature
from modeldeploy.simulate.sagemaker.errors import LostAnswerError, ServiceError
from modeldeploy.simulate.sagemaker.signature import Credentials, Scope

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

GREENGRASS, IOT = "greengrass", "iot"
_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class App:
    """A WSGI application for the whole simulated account."""

    account: Account
    credentials: Credentials
    others: WSGIApplication
    heard: list[tuple[str, Mapping[str, Any]]] = attrs.field(factory=list)
    """Every request to Greengrass that was let in: its operation and parameters."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            scope = self._scope(environ)
            if scope.service != GREENGRASS:
                if scope.service == IOT and self.account.faults.throttled():
                    raise _throttled()
                others.address(environ, self.account.number)
                return self.others(environ, start_response)
            status, body = self._answer(environ)
        except ServiceError as error:
            return _send(error.status, {"message": error.message, **error.members}, start_response, error.code)
        return _send(status, body, start_response)

    def _scope(self, environ: WSGIEnvironment) -> Scope:
        scope = Scope.of(environ)
        if scope is None:
            raise signature.unsigned()
        body = b""
        if scope.service != signature.STORAGE:
            source = environ["wsgi.input"]
            body = source.read()
            source.seek(0)
        signature.verify(scope, environ, body, self.credentials)
        return scope

    def _answer(self, environ: WSGIEnvironment) -> tuple[int, Mapping[str, Any]]:
        path = str(environ.get("RAW_URI", environ["PATH_INFO"])).partition("?")[0]
        body = environ["wsgi.input"].read()
        operation, asked = wire.read(environ["REQUEST_METHOD"], path, environ.get("QUERY_STRING", ""), body)
        faults = self.account.faults
        if faults.throttled():
            raise _throttled()
        if operation not in OPERATIONS:
            raise ServiceError("ValidationException", f"The rehearsal of Greengrass does not simulate {operation}.")
        if faults.take(faults.drop_before, operation):
            raise LostAnswerError
        self.heard.append((operation, asked))
        with self.account.lock:
            self.account.go_on()
            answer = OPERATIONS[operation](self.account, asked)
        status = wire.check_answer(operation, answer)
        if faults.take(faults.drop_after, operation):
            raise LostAnswerError
        return status, answer


def _throttled() -> ServiceError:
    return ServiceError("ThrottlingException", "Rate exceeded", status=429)


def _send(status: int, body: Mapping[str, Any], start_response: StartResponse, code: str = "") -> Iterable[bytes]:
    data = b"" if status == HTTPStatus.NO_CONTENT else orjson.dumps(body)
    head = [("Content-Type", "application/json"), ("Content-Length", str(len(data)))]
    start_response(f"{status} {HTTPStatus(status).phrase}", [*head, ("x-amzn-ErrorType", code)] if code else head)
    return [data]
