"""The door: one WSGI application for Resource Manager, the storage account and the scoring hosts, by the beginning of the path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs

from modeldeploy.simulate.azureml import exchange
from modeldeploy.simulate.azureml.door import Door
from modeldeploy.simulate.azureml.errors import LostAnswerError, ServiceError
from modeldeploy.simulate.azureml.exchange import Answer, Request
from modeldeploy.simulate.azureml.frontdoor import FrontDoor
from modeldeploy.simulate.azureml.storage import Storage
from modeldeploy.simulate.azureml.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger(__name__)
_INFERENCE = ".inference.ml"


@attrs.define(eq=False)
class App:
    """A WSGI application for the whole simulated cloud."""

    world: World
    door: Door
    storage: Storage
    front: FrontDoor
    discovery: Callable[[Request], Answer]
    """Tells anybody where the services of the workspace are."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        found = self._safely(exchange.read(environ))
        headers = [*found.headers.items(), ("Content-Length", str(len(found.body)))]
        if "Content-Length" in found.headers:
            headers.pop()
        start_response(f"{found.status} {_reason(found.status)}", headers)
        return [found.body]

    def _safely(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except ServiceError as error:
            return exchange.refusal(error)
        except LostAnswerError:
            raise
        except Exception as error:  # noqa: BLE001 - the caller gets an answer, the log the trace
            _log.exception("the simulator failed")
            return exchange.refusal(ServiceError(500, "InternalServerError", f"The simulator failed: {error}"))

    def _answer(self, request: Request) -> Answer:
        first, _, rest = request.path.lstrip("/").partition("/")
        if first == self.world.site.account:
            container, _, blob = rest.partition("/")
            return self.storage.answer(request, container, blob)
        if first.endswith(_INFERENCE):
            return self.front.answer(request, first.partition(".")[0], f"/{rest}")
        if request.path == "/discovery":
            return self.discovery(request)
        return self.door.answer(request)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
