"""The gRPC server in front: every method of the installed package, answered by whoever knows how."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from modeldeploy.simulate.vertex import calls, proto
from modeldeploy.simulate.vertex.calls import Call
from modeldeploy.simulate.vertex.errors import ServiceError
from modeldeploy.simulate.vertex.methods import Method, methods
from modeldeploy.simulate.vertex.quotas import REQUESTS, SUBMISSIONS, Quotas
from modeldeploy.simulate.vertex.tls import HOST, Certificate
from modeldeploy.simulate.vertex.tokens import Tokens
from modeldeploy.simulate.vertex.world import World

_log = logging.getLogger(__name__)
_WORKERS = 48
_PREDICTION = "PredictionService"
_SUBMITTING = frozenset(
    {
        "UploadModel",
        "DeleteModel",
        "DeleteModelVersion",
        "CreateEndpoint",
        "DeleteEndpoint",
        "DeployModel",
        "UndeployModel",
        "MutateDeployedModel",
        "CreateBatchPredictionJob",
    }
)
_LOST = "Socket closed"
_MOST_BYTES = 64 * 1024 * 1024
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", _MOST_BYTES),
)


class LostError(Exception):
    """The answer does not reach the caller."""


@attrs.define(eq=False)
class Door:
    """What every request passes: who asks, the faults that were asked for, and the quotas."""

    world: World
    quotas: Quotas
    tokens: Tokens
    seen: Counter[str] = attrs.field(factory=Counter)
    """How often each method was asked."""

    def enter(self, method: Method, call: Call, given_up: threading.Event) -> None:
        """Let a request in, or raise what it is answered with."""
        self._note(method, call)
        faults = self.world.faults
        if faults.take(faults.hang, method.name):
            given_up.wait()
            raise ServiceError("CANCELLED", "The caller gave up.")
        code = faults.next(faults.error, method.name)
        if code:
            raise ServiceError(code, f"{method.name} fails in this rehearsal because it was asked to.")
        if method.service == _PREDICTION:
            if faults.nth("fail_predictions_every"):
                raise ServiceError("UNAVAILABLE", "The service is currently unavailable.")
            return
        if faults.nth("fail_every"):
            raise ServiceError("UNAVAILABLE", "The service is currently unavailable.")
        if faults.nth("throttle_every"):
            raise ServiceError("RESOURCE_EXHAUSTED", f"Quota exceeded for quota metric '{REQUESTS}' (per minute).")
        self.quotas.count(REQUESTS)
        if method.name in _SUBMITTING:
            self.quotas.count(SUBMISSIONS)

    def leave(self, method: Method) -> None:
        """Let an answer out, or lose it."""
        if self.world.faults.take(self.world.faults.lose, method.name):
            raise LostError

    def _note(self, method: Method, call: Call) -> None:
        """Count a request, and refuse what has no token where one is needed, or one that is none."""
        with self.world.lock:
            self.seen[method.name] += 1
        if not self.tokens.accepts(call.metadata.get("authorization")):
            raise ServiceError(
                "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 access token."
            )


class Front:
    """Bound to a port of the loopback device that the operating system chooses; serves from ``start`` to ``close``."""

    def __init__(self, door: Door, certificate: Certificate | None = None) -> None:
        import grpc

        self._door = door
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="vertex")
        self._server = grpc.server(self._pool, options=_OPTIONS)
        self._host = "127.0.0.1" if certificate is None else HOST
        if certificate is None:
            self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        else:
            credentials = grpc.ssl_server_credentials([(certificate.key, certificate.pem)])
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self._host}:{self.port}"

    def start(self, services: Callable[[Method], Callable[..., Any] | None]) -> None:
        """Serve; ``services`` gives what answers a method, or None."""
        handlers: dict[str, dict[str, Any]] = {}
        for method in methods():
            _, owner, name = method.path.split("/")
            handlers.setdefault(owner, {})[name] = _handler(method, services(method), self._door)
        import grpc

        for owner, found in handlers.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(owner, found),))
        self._server.start()

    def close(self) -> None:
        """Stop taking requests and end those that go on."""
        self._server.stop(0.5).wait()
        self._pool.shutdown()


def _handler(method: Method, answer: Callable[..., Any] | None, door: Door) -> Any:
    import grpc

    work = answer or _unimplemented(method)

    def one(request: Any, context: Any) -> Any:
        with _Guard(method, door, context) as call:
            response = work(request, call)
            door.leave(method)
            context.set_trailing_metadata(tuple(call.told.items()))
            return response

    def many(request: Any, context: Any) -> Iterator[Any]:
        with _Guard(method, door, context) as call:
            for part in work(request, call):
                door.leave(method)
                yield part
            context.set_trailing_metadata(tuple(call.told.items()))

    make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
    return make(many if method.streams else one, request_deserializer=method.read, response_serializer=proto.written)


class _Guard:
    """Lets a call in, and turns what is raised while it is answered into the status that its caller gets."""

    def __init__(self, method: Method, door: Door, context: Any) -> None:
        self._method, self._door, self._context = method, door, context

    def __enter__(self) -> Call:
        given_up = threading.Event()
        if not self._context.add_callback(given_up.set):
            given_up.set()
        call = calls.of(self._context)
        try:
            self._door.enter(self._method, call, given_up)
        except ServiceError as error:
            self._abort(error.code, error.message)
        return call

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, LostError):
            self._abort("UNAVAILABLE", _LOST)
        if isinstance(error, ServiceError):
            self._abort(error.code, error.message)
        if isinstance(error, Exception):
            _log.error("%s failed", self._method.path, exc_info=error)
            self._abort("INTERNAL", f"The simulator failed: {error}")

    def _abort(self, code: str, message: str) -> None:
        import grpc

        self._context.abort(grpc.StatusCode[code], message)


def _unimplemented(method: Method) -> Callable[..., Any]:
    def refuse(_request: Any, _call: Call) -> Any:
        raise ServiceError("UNIMPLEMENTED", f"{method.name} is not simulated.")

    return refuse
