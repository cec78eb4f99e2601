"""What stands before a server's handler, put together once when the server is made: what was not asked for costs nothing.

A gate judges heads; the wrapper that this module makes sees whole requests on their way to the handler and back: it keeps the rate limit,
takes notes for the audit log, and adds its own figures to the metrics.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from modeldeploy.serving import targets
from modeldeploy.serving.access import Access, Doors
from modeldeploy.serving.gates import CALLER_HEADER, OWNER, Gate, KeyGate, by_address, in_turn, owners_secret
from modeldeploy.serving.messages import REVISION_HEADER, ROWS_HEADER, Request, Response, failure
from modeldeploy.serving.origins import ANY, HostCheck, is_loopback
from modeldeploy.serving.ratelimit import Buckets

if TYPE_CHECKING:
    from modeldeploy.serving.audit import AuditLog, Note
    from modeldeploy.serving.keyring import LiveKeys

Handler = Callable[[Request], Awaitable[Response]]

_PEER_HEADER = "modeldeploy-peer"
_REQUEST_IDS = ("x-request-id", "x-ms-client-request-id")
_METRICS = "/metrics"
_OK, _THROTTLED = 200, 429
_REASONS = {400: "target", 401: "unauthenticated", 403: "forbidden", 421: "host"}


class Entrance:
    """The gate and the wrapper of one server, as ``Access`` asks for them; ``endpoint`` is what notes and tickets name it."""

    def __init__(
        self, access: Access, *, endpoint: str = "", doors: Doors | None = None, log: AuditLog | None = None
    ) -> None:
        self._access = access
        self._endpoint = endpoint
        self._doors = doors or Doors()
        self._log = log
        self._keys = _live_keys(access.keys) if access.keyed else None
        self._limit = access.limit
        self._buckets = Buckets()
        self._refused: collections.Counter[str] = collections.Counter()
        gate = in_turn(self._gates())
        self.gate: Gate | None = gate if self.is_plain else functools.partial(self._watch, gate)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is asked for that needs a look at each request; the gate then says the same of the same head each time."""
        return self._keys is None and self._limit is None and self._log is None

    def _gates(self) -> list[Gate]:
        gates: list[Gate] = []
        if is_loopback(self._access.host) and ANY not in self._access.allowed_hosts:
            gates.append(HostCheck(self._access.host, self._access.allowed_hosts))
        if self._keys is not None:
            secret = owners_secret(self._access.owner)
            gates.append(KeyGate(self._keys, self._doors, endpoint=self._endpoint, secret=secret))
        elif not self.is_plain:
            gates.append(by_address)
        return gates

    def wrap(self, handler: Handler) -> Handler:
        """Give the handler with the wrapper before it; the very same one when there is nothing to do."""
        if self.is_plain:
            return handler
        limited = functools.partial(self._pass, handler)
        return limited if self._log is None else functools.partial(self._record, limited, self._log)

    def close(self) -> None:
        """Write out what the audit log holds."""
        if self._log is not None:
            self._log.close()

    # Heads

    def _watch(self, gate: Gate | None, method: str, url: bytes, headers: dict[str, str], peer: str) -> Response | None:
        headers[_PEER_HEADER] = peer
        refusal = gate(method, url, headers, peer) if gate is not None else None
        if refusal is not None:
            self._refused[_REASONS[refusal.status]] += 1
            if self._log is not None:
                path, _query = targets.read(url) or ("", "")
                self._log.add(self._note(Request(method, path, headers=headers), refusal, 0.0))
        return refusal

    # Requests

    def _pass(self, handler: Handler, request: Request) -> Awaitable[Response]:
        wait = self._wait(request)
        if wait:
            self._refused["rate"] += 1
            answer = asyncio.get_running_loop().create_future()
            answer.set_result(_throttled(wait))
            return answer
        return self._with_figures(handler(request)) if request.path == _METRICS else handler(request)

    def _wait(self, request: Request) -> float:
        caller = request.headers.get(CALLER_HEADER, "")
        if not caller or caller == OWNER or request.path in self._doors.health:
            return 0.0
        own = self._keys.limit(caller) if self._keys is not None else None
        limit = own or self._limit
        return self._buckets.take(caller, limit) if limit is not None else 0.0

    async def _with_figures(self, waiting: Awaitable[Response]) -> Response:
        answer = await waiting
        if answer.status != _OK:
            return answer
        return Response(answer.status, answer.body + self.metrics().encode(), answer.headers)

    def metrics(self) -> str:
        """Write what was refused here, and what became of the notes, in Prometheus' text format."""
        refused = {reason: self._refused[reason] for reason in (*_REASONS.values(), "rate")}
        text = self._family("refused_total", "Requests refused before the model", "reason", refused)
        if self._log is None:
            return text
        fates = {"written": self._log.written, "dropped": self._log.dropped}
        return text + self._family("audit_lines_total", "Lines of the audit log", "fate", fates)

    def _family(self, name: str, what: str, label: str, counts: Mapping[str, int]) -> str:
        metric = f"modeldeploy_{name}"
        # The name grammar of endpoints has nothing that needs escaping.
        lines = [f'{metric}{{endpoint="{self._endpoint}",{label}="{each}"}} {count}' for each, count in counts.items()]
        return "\n".join([f"# HELP {metric} {what}, by {label}.", f"# TYPE {metric} counter", *lines, ""])

    # Notes

    def _record(self, handler: Handler, log: AuditLog, request: Request) -> Awaitable[Response]:
        began = time.perf_counter()
        asked = attrs.evolve(request, headers={**request.headers, ROWS_HEADER: ""})
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def done(future: asyncio.Future[Response]) -> None:
            error = None if future.cancelled() else future.exception()
            response = Response(500) if future.cancelled() or error else future.result()
            log.add(self._note(request, response, time.perf_counter() - began))
            if future.cancelled() or answer.cancelled():
                answer.cancel()
            elif error is not None:
                answer.set_exception(error)
            else:
                rest = {name: text for name, text in response.headers.items() if name != ROWS_HEADER}
                answer.set_result(attrs.evolve(response, headers=rest))

        asyncio.ensure_future(handler(asked)).add_done_callback(done)
        return answer

    def _note(self, request: Request, response: Response, seconds: float) -> Note:
        from modeldeploy.serving.audit import Note

        asked = request.headers
        return Note(
            at=time.time(),
            endpoint=self._endpoint,
            key=asked.get(CALLER_HEADER, "") if self._keys is not None else "",
            client=asked.get(_PEER_HEADER, ""),
            method=request.method,
            path=request.path,
            status=response.status,
            revision=response.headers.get(REVISION_HEADER, ""),
            rows=response.headers.get(ROWS_HEADER, ""),
            received=len(request.body),
            sent=len(response.body),
            ms=seconds * 1000,
            request=next((asked[name] for name in _REQUEST_IDS if name in asked), ""),
        )


def _throttled(wait: float) -> Response:
    message = "too many requests for this key or address"
    return failure(_THROTTLED, message, headers={"retry-after": str(math.ceil(wait))})


def _live_keys(path: str) -> LiveKeys:
    from modeldeploy.serving.keyring import Keyring, LiveKeys

    return LiveKeys(Keyring(Path(path)))
