"""Long-running operations: what goes on after a request was taken, and what ``google.longrunning.Operations`` tells about it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto
from modeldeploy.simulate.vertex.errors import ServiceError, invalid, not_found, precondition
from modeldeploy.simulate.vertex.listing import page
from modeldeploy.simulate.vertex.world import StoppedError, World

_log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 30.0
_DEPLOYING = "DeployModel"
_STUCK = "CREATING_SERVING_CLUSTER"
_BROKEN = "The operation failed in this rehearsal because it was asked to."


@attrs.define(eq=False)
class Operation:
    """One operation; ``metadata`` is the service's own message, which tells its progress."""

    name: str
    rpc: str
    metadata: Any
    world: World
    response: Any = None
    error: ServiceError | None = None
    ended: threading.Event = attrs.field(factory=threading.Event)
    cancelled: threading.Event = attrs.field(factory=threading.Event)
    final: bool = False
    """Whether it has come to where it can no longer be cancelled."""

    def wait(self, seconds: float) -> None:
        """Let seconds of the service pass; an error when somebody cancels the operation meanwhile."""
        if self.world.clock.wait(seconds, self.cancelled):
            self.check()

    def check(self) -> None:
        """Raise when somebody has cancelled it, or the simulator ends."""
        if self.world.stopping.is_set():
            raise StoppedError
        if self.cancelled.is_set():
            message = "The operation was cancelled."
            raise ServiceError("CANCELLED", message)

    def stage(self, name: str) -> None:
        """Tell how far a deployment has come."""
        with self.world.lock:
            self.metadata.deployment_stage = name
            self.touch()

    def touch(self) -> None:
        """Say that it has changed."""
        self.metadata.generic_metadata.update_time = self.world.now()

    def message(self) -> Any:
        """Give it as callers see it."""
        with self.world.lock:
            told = proto.operations().Operation(name=self.name, done=self.ended.is_set())
            told.metadata.Pack(proto.plain(self.metadata))
            if told.done and self.error is not None:
                told.error.CopyFrom(self.error.status())
            elif told.done:
                told.response.Pack(proto.plain(self.response))
            return told


@attrs.define(eq=False)
class Operations:
    """All operations that were not deleted, by their names."""

    world: World
    _known: dict[str, Operation] = attrs.field(factory=dict)

    def start(
        self,
        rpc: str,
        resource: str,
        metadata: Any,
        work: Callable[[Operation], Any],
        *,
        after: Callable[[], None] | None = None,
    ) -> Any:
        """Take an operation and give it as it is at its beginning.

        ``work`` gives the response at its end; ``after`` is called however it ends, and before anybody is told.
        """
        metadata.generic_metadata.create_time = metadata.generic_metadata.update_time = self.world.now()
        operation = Operation(f"{resource}/operations/{self.world.new_id()}", rpc, metadata, self.world)
        with self.world.lock:
            self._known[operation.name] = operation
        told = operation.message()
        self.world.go(f"operation {rpc}", lambda: self._run(operation, work, after or _nothing))
        return told

    def _run(self, operation: Operation, work: Callable[[Operation], Any], after: Callable[[], None]) -> None:
        response, error = None, None
        try:
            self._check_faults(operation)
            response = work(operation)
        except StoppedError:
            raise
        except ServiceError as refused:
            error = refused
        except Exception as failed:  # noqa: BLE001 - an operation ends, whatever happens
            _log.exception("the simulator failed")
            error = ServiceError("INTERNAL", f"The simulator failed: {failed}")
        with self.world.lock:
            after()
            self._end(operation, response, error)

    def _check_faults(self, operation: Operation) -> None:
        faults = self.world.faults
        if faults.take(faults.stuck, operation.rpc):
            if operation.rpc == _DEPLOYING:
                operation.stage(_STUCK)
            operation.cancelled.wait()
            operation.check()
        code = faults.next(faults.broken, operation.rpc)
        if code:
            raise ServiceError(code, _BROKEN)

    def _end(self, operation: Operation, response: Any, error: ServiceError | None) -> None:
        if error is not None and operation.rpc == _DEPLOYING:
            operation.stage("DEPLOYMENT_TERMINATED" if error.code == "CANCELLED" else "FAILED_TO_DEPLOY")
        operation.response = proto.empty() if response is None else response
        operation.error = error
        operation.touch()
        operation.ended.set()

    def stop(self) -> None:
        """Wake every operation that waits."""
        with self.world.lock:
            known = list(self._known.values())
        for each in known:
            each.cancelled.set()

    # What callers ask for.

    def get_operation(self, request: Any) -> Any:
        """Tell how an operation is."""
        return self._find(request.name).message()

    def list_operations(self, request: Any) -> Any:
        """Tell all operations below a name, the latest first; ``done=true`` and ``done=false`` are the filters that there are."""
        wanted = {"": None, "done=true": True, "done=false": False}
        asked = request.filter.replace(" ", "").lower()
        if asked not in wanted:
            message = f"The filter {request.filter!r} is not simulated; done=true and done=false are."
            raise invalid(message)
        with self.world.lock:
            known = [each for each in reversed(self._known.values()) if self._below(each.name, request.name)]
        if wanted[asked] is not None:
            known = [each for each in known if each.ended.is_set() is wanted[asked]]
        found, token = page(known, request.page_size, request.page_token)
        told = [each.message() for each in found]
        return proto.operations().ListOperationsResponse(operations=told, next_page_token=token)

    def _below(self, name: str, asked: str) -> bool:
        parent = self._own(asked.removesuffix("/operations").rstrip("/"))
        return name.startswith(f"{parent}/")

    def wait_operation(self, request: Any) -> Any:
        """Wait until an operation has ended, half a minute of the service at most, and tell how it is."""
        operation = self._find(request.name)
        asked = request.timeout.seconds + request.timeout.nanos / 1e9
        self.world.clock.wait(min(asked or _LONGEST_WAIT_S, _LONGEST_WAIT_S), operation.ended)
        return operation.message()

    def cancel_operation(self, request: Any) -> Any:
        """Cancel an operation if it still can be."""
        operation = self._find(request.name)
        with self.world.lock:
            if not operation.final and not operation.ended.is_set():
                operation.cancelled.set()
        return proto.empty()

    def delete_operation(self, request: Any) -> Any:
        """Forget an operation that has ended."""
        operation = self._find(request.name)
        if not operation.ended.is_set():
            message = f"Operation {request.name} is not done."
            raise precondition(message)
        with self.world.lock:
            self._known.pop(operation.name, None)
        return proto.empty()

    def _find(self, name: str) -> Operation:
        with self.world.lock:
            operation = self._known.get(self._own(name)) or self._short(name)
        if operation is None:
            raise not_found("Operation", name)
        return operation

    def _own(self, name: str) -> str:
        """Write a name with the project's number."""
        return name.replace(f"projects/{self.world.site.project}/", f"projects/{self.world.site.number}/", 1)

    def _short(self, name: str) -> Operation | None:
        """Find an operation that is asked for without the resource that it belongs to."""
        parent, _, own = self._own(name).partition("/operations/")
        if parent != self.world.site.parent or not own:
            return None
        return next((each for key, each in self._known.items() if key.endswith(f"/operations/{own}")), None)


def _nothing() -> None:
    """Nothing is to be done when the operation has ended."""
