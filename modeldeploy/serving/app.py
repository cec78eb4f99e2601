"""The contracts of every place that serves models, over one model: routes, decode, predict together, encode.

======================  =============================================================================================
SageMaker               ``GET /ping``, ``POST /invocations``, ``GET /execution-parameters``
Vertex AI               the routes that ``AIP_HEALTH_ROUTE`` and ``AIP_PREDICT_ROUTE`` name
Azure ML                ``GET /``, ``POST /score``
Open Inference V2       ``/v2``, ``/v2/health/live|ready``, ``/v2/models/M[/versions/V][/ready]``, ``POST .../infer``
Health and metrics      ``GET /healthz``, ``GET /readyz``, ``GET /metrics``
======================  =============================================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import attrs

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging.blocks import Block, count_rows
from modeldeploy.packaging.signature import check
from modeldeploy.serving import binary_type, datatypes, lines, matrix, payloads, wire
from modeldeploy.serving.batching import MAX_ROWS, Batcher, Call, Columns, Predictor, Writer
from modeldeploy.serving.matrix import Rows
from modeldeploy.serving.messages import (
    JSON_TYPE,
    REVISION_HEADER,
    ROWS_HEADER,
    RefusedError,
    Request,
    Response,
    failure,
    json_response,
    unavailable,
)
from modeldeploy.values.model import Field

MOST_ROWS = 500_000
"""Rows of one request: while a worker predicts them, nobody else is answered."""

_FEW = 8
"""Rows of so many at most are read together with those of other requests."""
_TYPE = "content-type"
_ECHOED = ("x-request-id", "x-ms-client-request-id")
_MAX_ECHO = 256
_READING = frozenset({"GET", "HEAD"})
# Batch transform asks for these; the payload limit of the service itself is 6 MB by default.
_EXECUTION = {"MaxConcurrentTransforms": 4, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 6}


@attrs.frozen
class Routes:
    """Where a place wants health and predictions to be, as Vertex AI tells its containers."""

    health: str = "/ping"
    predict: str = "/invocations"


@attrs.define(slots=True, eq=False)
class _Unread:
    """A request whose rows are read together with those of others."""

    rows: Sequence[Sequence[Any]]
    write: Writer


_Taken: TypeAlias = Response | Call | _Unread
_Take: TypeAlias = Callable[[Request], _Taken]


@attrs.frozen(eq=False)
class _Plan:
    """What is done with every request that has the same head."""

    take: _Take
    told: Mapping[str, str]
    """Headers of each answer."""
    predicts: bool = False
    counts: bool = False
    """Whether the caller wants to know how many rows were predicted."""

    def finish(self, answer: Response, rows: int | None = None) -> Response:
        """Tell with an answer what each of them tells."""
        if self.counts and rows is not None:
            return Response(answer.status, answer.body, {**answer.headers, **self.told, ROWS_HEADER: str(rows)})
        if REVISION_HEADER in answer.headers:  # told already
            return answer
        return Response(answer.status, answer.body, {**answer.headers, **self.told})


class App:
    """One model behind all contracts.

    ``name`` and ``revision`` are what V2 paths may name (the model's ``version`` works as well); ``batchable=False`` predicts each request
    by itself. ``metrics`` gives Prometheus' text where the App stands alone; behind a front the front counts.
    """

    def __init__(
        self,
        model: Predictor,
        *,
        name: str,
        version: str,
        revision: str,
        batchable: bool = True,
        max_rows: int = MAX_ROWS,
        routes: Routes | None = None,
        metrics: Callable[[], str] | None = None,
    ) -> None:
        self.ready = True
        self.name, self.version, self.revision = name, version, revision
        self._signature = model.signature
        self._model = model
        self._tensors = wire.Reader(model.signature)
        self.row_by_row = False
        """Whether each of several JSON Lines is answered by itself (``lines.py``), as batch services need it."""
        self._batcher = Batcher(model, max_rows=max_rows, batchable=batchable)
        self._metrics_text = metrics
        # Callers say the same again and again; a few dozen ways to say it are remembered.
        self._plan = functools.lru_cache(maxsize=64)(self._make_plan)
        self._predicting = {"/invocations", "/score"}
        self._reading = self._reading_routes()
        if routes is not None:
            self._predicting.add(routes.predict)
            self._reading[routes.health] = self._readiness

    def _reading_routes(self) -> dict[str, Callable[[], Response]]:
        return {
            "/": lambda: Response(200, b"Healthy", {"content-type": "text/plain"}),
            "/ping": self._ping,
            "/healthz": lambda: json_response(200, {"status": "ok"}),
            "/readyz": self._readiness,
            "/metrics": self._metrics,
            "/execution-parameters": lambda: json_response(200, _EXECUTION),
            "/v2": self._server_metadata,
            "/v2/health/live": lambda: json_response(200, {"live": True}),
            "/v2/health/ready": self._readiness,
        }

    # Answering.

    def respond_many(self, requests: Sequence[Request]) -> list[Response]:
        """Answer every request, in order; those for the model are predicted together where they fit together."""
        if len(requests) == 1:
            return [self._respond(requests[0])]
        plans = [self._plan_of(request) for request in requests]
        taken = self._read([_take(plan, request) for plan, request in zip(plans, requests, strict=True)])
        answers = iter(self._batcher.answer([each for each in taken if isinstance(each, Call)]))
        return [
            plan.finish(next(answers), each.rows) if isinstance(each, Call) else plan.finish(each)
            for plan, each in zip(plans, taken, strict=True)
        ]

    def _respond(self, request: Request) -> Response:
        """Answer a lone request, by the least code: it has left the processor's caches."""
        plan = self._plan_of(request)
        taken = _take(plan, request)
        if isinstance(taken, _Unread):
            taken = self._read_one(taken, matrix.read(taken.rows, self._signature))
        if isinstance(taken, Call):
            return plan.finish(self._batcher.answer_one(taken), taken.rows)
        return plan.finish(taken)

    def _read(self, taken: list[_Taken]) -> list[Response | Call]:
        """Read the rows of all requests at once, which costs little more than to read those of one."""
        unread = [each.rows for each in taken if isinstance(each, _Unread)]
        blocks = iter(matrix.together(unread, self._signature))
        return [self._read_one(each, next(blocks)) if isinstance(each, _Unread) else each for each in taken]

    def _read_one(self, unread: _Unread, block: Block | None) -> Response | Call:
        """Take what was read; what needed a closer look gets it here."""
        try:
            inputs = check(self._signature, Rows(unread.rows, self._signature)) if block is None else block
        except InvalidRequestError as error:
            return failure(422, str(error), field=error.field)
        return Call(inputs, len(unread.rows), unread.write)

    def respond_now(self, request: Request) -> Response | None:
        """Answer what needs no model: health, metadata, metrics and wrong routes; None for a prediction."""
        plan = self._plan_of(request)
        return None if plan.predicts else plan.finish(self._page(request))

    # Plans.

    def _plan_of(self, request: Request) -> _Plan:
        return self._plan(request.method, request.path, tuple(request.headers.items()))

    def _make_plan(self, method: str, path: str, headers: tuple[tuple[str, str], ...]) -> _Plan:
        head = Request(method, path, headers=dict(headers))
        told = self._told(head.headers)
        found = self._route(head)
        if isinstance(found, Response):
            return _Plan(self._page, told)
        return _Plan(found, told, predicts=True, counts=ROWS_HEADER in head.headers)

    def _told(self, headers: Mapping[str, str]) -> dict[str, str]:
        echoed = [name for name in _ECHOED if name in headers and _is_plain(headers[name])]
        return {REVISION_HEADER: self.revision, **{name: headers[name][:_MAX_ECHO] for name in echoed}}

    def _page(self, request: Request) -> Response:
        return cast("Response", self._route(request))

    # Routes.

    def _route(self, head: Request) -> Response | _Take:
        """Say how requests with this head are read, or answer where no model is asked."""
        path = head.path
        pinned = head.headers.get(REVISION_HEADER)
        if pinned is not None and pinned != self.revision:
            return failure(404, f"there is no revision {pinned[:80]!r} here", field=REVISION_HEADER)
        if path in self._predicting:
            return self._take_any(head.headers) if head.method == "POST" else _not_allowed("POST")
        read = self._reading.get(path)
        if read is not None:
            return read() if head.method in _READING else _not_allowed("GET, HEAD")
        if path.startswith("/v2/models/"):
            return self._route_model(head, path.removeprefix("/v2/models/").split("/"))
        return failure(404, f"there is nothing at {path[:200]!r}")

    def _route_model(self, head: Request, parts: list[str]) -> Response | _Take:
        name, *rest = parts
        if name != self.name:
            return failure(404, f"there is no model {name[:80]!r} here", field="model")
        if len(rest) > 1 and rest[0] == "versions":
            if rest[1] not in {self.revision, self.version}:
                return failure(404, f"model {name!r} has no version {rest[1][:80]!r} here", field="version")
            rest = rest[2:]
        if rest == ["infer"]:
            return self._take_infer if head.method == "POST" else _not_allowed("POST")
        read = {(): self._model_metadata, ("ready",): self._readiness}.get(tuple(rest))
        if read is None:
            return failure(404, f"there is nothing at {head.path[:200]!r}")
        return read() if head.method in _READING else _not_allowed("GET, HEAD")

    def _readiness(self) -> Response:
        return json_response(200, {"ready": True}) if self.ready else unavailable("not ready")

    def _ping(self) -> Response:
        return Response(200) if self.ready else unavailable("not ready")

    def _metrics(self) -> Response:
        if self._metrics_text is None:
            return failure(404, "metrics are kept by the front")
        return Response(
            200, self._metrics_text().encode(), {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def _server_metadata(self) -> Response:
        from importlib.metadata import version

        data = {"name": "modeldeploy", "version": version("modeldeploy"), "extensions": ["binary_tensor_data"]}
        return json_response(200, data)

    def _model_metadata(self) -> Response:
        data = {
            "name": self.name,
            "versions": [self.revision],
            "platform": "modeldeploy",
            "inputs": [_tensor_metadata(field) for field in self._signature.inputs],
            "outputs": [_tensor_metadata(field) for field in self._signature.outputs],
        }
        return json_response(200, data)

    # Predictions.

    def _take_any(self, headers: Mapping[str, str]) -> Response | _Take:
        content_type = headers.get(_TYPE, "")
        if binary_type.is_binary(content_type):
            return self._take_folded
        try:
            kind = payloads.plain_type(content_type)
            form = payloads.accepted(headers.get("accept", ""), content_type)
        except RefusedError as error:
            return error.response()
        write = payloads.Writer(form, self._told(headers))
        take = functools.partial(self._take_rows, kind=kind, write=write)
        if kind != JSON_TYPE or self.row_by_row or not self._signature.width:
            return take
        return self._usually(take, write)

    def _usually(self, otherwise: _Take, write: Writer) -> _Take:
        """Take the usual table of numbers by a short way, and everything else by the long one."""
        keys, width = payloads.row_keys(self._signature), self._signature.width

        def take(request: Request) -> _Taken:
            rows = matrix.rows_in(request.body, keys, width)
            if rows is None or len(rows) > MOST_ROWS:
                return otherwise(request)
            # Many rows are read at once, while they are in the processor's cache, and their objects are gone before the next request.
            block = matrix.of_rows(rows, self._signature) if len(rows) > _FEW else None
            return _Unread(rows, write) if block is None else Call(block, len(rows), write)

        return take

    def _take_folded(self, request: Request) -> Call:
        """Take binary tensors whose header the provider dropped, and answer in the same form."""
        call = self._take_infer(attrs.evolve(request, headers=binary_type.unfolded(request.headers)))

        def write(outputs: Columns) -> Response:
            answer = write_plain(outputs)
            return attrs.evolve(answer, headers=binary_type.folded(answer.headers))

        write_plain, call.write = call.write, write
        return call

    def _take_rows(self, request: Request, kind: str, write: Writer) -> _Taken:
        if self.row_by_row and kind == payloads.LINES_TYPE:
            return lines.answer(request.body, self._model)
        if self.row_by_row and (answered := lines.answer_instances(request.body, self._model)) is not None:
            return answered
        raw = payloads.decode(request.body, kind, self._signature)
        if isinstance(raw, Rows):
            _bound(len(raw.rows))
            return _Unread(raw.rows, write)
        inputs = check(self._signature, raw)
        return Call(inputs, _bound(count_rows(inputs)), write)

    def _take_infer(self, request: Request) -> Call:
        infer = self._tensors.decode(request)
        columns = infer.columns
        inputs = columns if isinstance(columns, Block) else check(self._signature, columns)

        write = functools.partial(wire.encode, infer, model=self.name, version=self.revision)
        return Call(inputs, _bound(count_rows(inputs)), write)


def _take(plan: _Plan, request: Request) -> _Taken:
    try:
        return plan.take(request)
    except RefusedError as error:
        return error.response()
    except InvalidRequestError as error:
        return failure(422, str(error), field=error.field)


def _is_plain(text: str) -> bool:
    # What a client or a log behind it might act on is not sent back.
    return text.isascii() and text.isprintable()


def _bound(rows: int) -> int:
    if rows > MOST_ROWS:
        message = f"the request has {rows} rows, and one may have {MOST_ROWS}"
        raise RefusedError(413, message, hint="send several requests, or score the table as a batch job")
    return rows


def _not_allowed(allow: str) -> Response:
    return failure(405, f"this route takes {allow}", headers={"allow": allow})


def _tensor_metadata(field: Field) -> dict[str, Any]:
    shape = [-1, *(-1 if size is None else size for size in field.shape)]
    return {"name": field.name, "datatype": datatypes.of_field(field), "shape": shape}
