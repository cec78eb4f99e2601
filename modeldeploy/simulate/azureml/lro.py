"""Long-running operations: begun by a request, looked at by their URLs, ended by themselves."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import uuid
from collections.abc import Callable
from urllib.parse import urlencode

import attrs

from modeldeploy.simulate.azureml.errors import ServiceError, not_found
from modeldeploy.simulate.azureml.exchange import Answer, Json, Request, answer
from modeldeploy.simulate.azureml.world import StoppedError, World, stamp

_log = logging.getLogger(__name__)
# The recorded URLs are signed, and kilobytes long by the certificate that they carry; a client has to keep them as they are.
_CERTIFICATE = secrets.token_urlsafe(1500)
_RUNNING_UNTIL = "0001-01-01T00:00:00+00:00"
_KINDS = {"OnlineEndpoints": "oe", "OnlineDeployments": "od", "BatchEndpoints": "be", "BatchDeployments": "bd"}
_INTERNAL = "An internal server error occurred. Please try again. If the issue persists, contact support."
_CANCELED_CODE = "OperationCanceled"
_CANCELED_TEXT = "The operation was canceled by an operation of higher priority."
SUCCEEDED, FAILED, CANCELED = "Succeeded", "Failed", "Canceled"


@attrs.define(eq=False)
class Operation:
    """One operation; ``name`` is what began it."""

    id: str
    name: str
    status: str
    started: float
    ended: float = 0.0
    error: ServiceError | None = None
    result: Callable[[], Json | None] = lambda: None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended > 0


Work = Callable[[], None]


@attrs.define(eq=False)
class Operations:
    """All operations that were ever begun."""

    world: World
    _all: dict[str, Operation] = attrs.field(factory=dict)
    _secret: bytes = attrs.field(factory=lambda: secrets.token_bytes(32))

    def begin(
        self,
        name: str,
        status: str,
        work: Work,
        *,
        failed: Callable[[ServiceError], None],
        result: Callable[[], Json | None] = lambda: None,
    ) -> Operation:
        """Begin one: ``work`` is done beside, and ``failed`` is called with the error when it raises one."""
        key = f"{_KINDS[name.partition('_')[0]]}:{self.world.site.workspace_id}:{uuid.uuid4()}"
        operation = Operation(key, name, status, self.world.clock.now(), result=result)
        with self.world.lock:
            self._all[operation.id] = operation
        self.world.go(operation.id, lambda: self._run(operation, work, failed))
        return operation

    def _run(self, operation: Operation, work: Work, failed: Callable[[ServiceError], None]) -> None:
        try:
            self._check_faults(operation)
            work()
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - an operation ends in some state, whatever happens
            told = error if isinstance(error, ServiceError) else _broken(error)
            with self.world.lock:
                failed(told)
                self._end(operation, CANCELED if told.code == _CANCELED_CODE else FAILED, told)
        else:
            with self.world.lock:
                self._end(operation, SUCCEEDED, None)

    def _check_faults(self, operation: Operation) -> None:
        faults = self.world.faults
        for switch, code, text in (
            (faults.broken, "InternalServerError", _INTERNAL),
            (faults.canceled, _CANCELED_CODE, _CANCELED_TEXT),
        ):
            if faults.take(switch, operation.name):
                self.world.wait(self.world.timings.keys)
                raise ServiceError(500, code, text)

    def _end(self, operation: Operation, status: str, error: ServiceError | None) -> None:
        operation.error = error
        operation.ended = self.world.clock.now()
        operation.status = status

    def headers(self, operation: Operation) -> dict[str, str]:
        """Write the headers of the answer that begins an operation."""
        return {
            "Azure-AsyncOperation": self._signed(self.status_url(operation)),
            "Location": self._signed(f"{self._base}/mfeOperationResults/{operation.id}"),
            "x-ms-async-operation-timeout": "PT30M",
            **self._patience(),
        }

    def status_url(self, operation: Operation) -> str:
        """Name where an operation is looked at, without the signature that it takes: what properties carry."""
        return f"{self._base}/mfeOperationsStatus/{operation.id}"

    @property
    def _base(self) -> str:
        return f"{self.world.url}{self.world.site.locations}"

    def status(self, request: Request, operation: str) -> Answer:
        """Answer how an operation stands: with status 200, even when it has failed."""
        found = self._get(request, operation)
        return answer(200, self._told(found), {} if found.done else self._patience())

    def outcome(self, request: Request, operation: str) -> Answer:
        """Answer what came of an operation: 202 while it goes on."""
        found = self._get(request, operation)
        if not found.done:
            location = self._signed(f"{self._base}/mfeOperationResults/{found.id}")
            return Answer(202, {"Location": location, **self._patience()}, b"null")
        if found.error is not None:
            raise found.error
        result = found.result()
        return Answer(204) if result is None else answer(200, result)

    def _told(self, operation: Operation) -> Json:
        told: Json = {
            "id": f"{self.world.site.locations}/mfeOperationsStatus/{operation.id}",
            "name": operation.id,
            "status": operation.status,
            "startTime": stamp(operation.started),
            "endTime": stamp(operation.ended) if operation.done else _RUNNING_UNTIL,
            "percentComplete": 100.0 if operation.done else 0.0,
        }
        return told if operation.error is None else {**told, "error": self._failure(operation.error)}

    def _failure(self, error: ServiceError) -> Json:
        body = error.body()
        # Seen in issue threads: no code, and its name before the message.
        return (
            {**body, "code": None, "message": f"{error.code}: {error.message}"} if self.world.faults.nameless else body
        )

    def _get(self, request: Request, operation: str) -> Operation:
        if not hmac.compare_digest(request.query.get("s", ""), self._signature(request.path)):
            raise ServiceError(403, "Forbidden", "The signature of the operation's URL is missing or wrong.")
        with self.world.lock:
            found = self._all.get(operation)
        if found is None:
            raise not_found(f"The operation {operation} could not be found.")
        return found

    def _signed(self, url: str) -> str:
        path = url.removeprefix(self.world.url)
        query = {"api-version": "2022-02-01-preview", "t": "0", "c": _CERTIFICATE, "s": self._signature(path), "h": "0"}
        return f"{url}?{urlencode(query)}"

    def _signature(self, path: str) -> str:
        return hmac.new(self._secret, path.lower().encode(), hashlib.sha256).hexdigest()

    def _patience(self) -> dict[str, str]:
        return self.world.retry_after(self.world.timings.poll)


def _broken(error: Exception) -> ServiceError:
    _log.exception("the simulator failed", exc_info=error)
    return ServiceError(500, "InternalServerError", f"The simulator failed: {error}")
