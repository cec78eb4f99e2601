"""The HTTP server's application: Cloud Storage, Cloud Logging and Cloud Monitoring at one address."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from modeldeploy.simulate.vertex import logs, monitoring
from modeldeploy.simulate.vertex.exchange import Answer, Refusal, Request, read, refused
from modeldeploy.simulate.vertex.logs import Logs
from modeldeploy.simulate.vertex.monitoring import Monitoring
from modeldeploy.simulate.vertex.objects import PreconditionError
from modeldeploy.simulate.vertex.storage import Storage
from modeldeploy.simulate.vertex.tokens import Tokens
from modeldeploy.simulate.vertex.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_LOST = "the answer is lost"
_BUSY = "We encountered an internal error. Please try again."


@attrs.define(eq=False)
class Web:
    """Answers every request over HTTP, and does to it what faults say."""

    world: World
    storage: Storage
    logs: Logs
    monitoring: Monitoring
    tokens: Tokens

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = read(environ)
        answer = self._answered(request)
        if self._stores(request) and self.world.faults.take(self.world.faults.lose_storage, request.method):
            raise ConnectionError(_LOST)
        return answer.send(start_response)

    def _answered(self, request: Request) -> Answer:
        try:
            return self._routed(request)
        except PreconditionError:
            message = "At least one of the pre-conditions you specified did not hold."
            # A reader who has what there is already is told so.
            unchanged = request.method == "GET" and "ifgenerationnotmatch" in request.query
            return refused(Refusal(304 if unchanged else 412, "conditionNotMet", message))
        except Refusal as refusal:
            return refused(refusal)

    def _routed(self, request: Request) -> Answer:
        if not self.tokens.accepts(request.headers.get("authorization")):
            raise Refusal(401, "authError", "Invalid Credentials")
        if self._stores(request):
            if self.world.faults.nth("fail_storage_every"):
                raise Refusal(503, "backendError", _BUSY)
            return self.storage.answer(request)
        if self.world.faults.nth("fail_observing_every"):
            raise Refusal(503, "backendError", _BUSY)
        if request.path == logs.PATH:
            return self.logs.answer(request)
        found = monitoring.PATH.fullmatch(request.path)
        if found is None:
            raise Refusal(404, "notFound", f"{request.method} {request.path} is not simulated.")
        return self.monitoring.answer(found[1], request)

    @staticmethod
    def _stores(request: Request) -> bool:
        return "/storage/v1/" in request.path
