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
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from modeldeploy.errors import InvalidRequestError
from modeldeploy.packaging.blocks import Block, count_rows
from modeldeploy.packaging.signature import check
from modeldeploy.serving import binary_type, datatypes, lines, matrix, payloads, wire
from modeldeploy.serving.batching import MAX_ROWS, Batcher, Call, Columns, Predictor
from modeldeploy.serving.matrix import Rows
from modeldeploy.serving.messages import (
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


@attrs.frozen(eq=False)
class _Unread:
    """A request whose rows are read together with those of others."""

    rows: Rows
    encode: Callable[[Columns], Response]


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
        self.row_by_row = False
        """Whether each of several JSON Lines is answered by itself (``lines.py``), as batch services need it."""
        self._batcher = Batcher(model, max_rows=max_rows, batchable=batchable)
        self._metrics_text = metrics
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
        taken = self._read([self._take(request) for request in requests])
        answers = iter(self._batcher.answer([each for each in taken if isinstance(each, Call)]))
        return [
            self._finish(request, _telling(each.rows, request, next(answers)) if isinstance(each, Call) else each)
            for request, each in zip(requests, taken, strict=True)
        ]

    def _read(self, taken: list[Response | Call | _Unread]) -> list[Response | Call]:
        """Read the rows of all requests at once, which costs little more than to read those of one."""
        blocks = iter(matrix.together([each.rows for each in taken if isinstance(each, _Unread)]))
        return [self._read_one(each, next(blocks)) if isinstance(each, _Unread) else each for each in taken]

    def _read_one(self, unread: _Unread, block: Block | None) -> Response | Call:
        """Take what was read; what needed a closer look gets it here."""
        try:
            inputs = check(self._signature, unread.rows) if block is None else block
        except InvalidRequestError as error:
            return failure(422, str(error), field=error.field)
        return Call(inputs, len(unread.rows.rows), unread.encode)

    def respond_now(self, request: Request) -> Response | None:
        """Answer what needs no model: health, metadata, metrics and wrong routes; None for a prediction."""
        found = self._route(request)
        return self._finish(request, found) if isinstance(found, Response) else None

    def _finish(self, request: Request, response: Response) -> Response:
        response.headers[REVISION_HEADER] = self.revision
        for name in _ECHOED:
            if name in request.headers and _is_plain(request.headers[name]):
                response.headers[name] = request.headers[name][:_MAX_ECHO]
        return response

    def _take(self, request: Request) -> Response | Call | _Unread:
        found = self._route(request)
        if isinstance(found, Response):
            return found
        try:
            return found(request)
        except RefusedError as error:
            return error.response()
        except InvalidRequestError as error:
            return failure(422, str(error), field=error.field)

    # Routes.

    def _route(self, request: Request) -> Response | Callable[[Request], Response | Call | _Unread]:
        path = request.path
        pinned = request.headers.get(REVISION_HEADER)
        if pinned is not None and pinned != self.revision:
            return failure(404, f"there is no revision {pinned[:80]!r} here", field=REVISION_HEADER)
        if path in self._predicting:
            return self._take_any if request.method == "POST" else _not_allowed("POST")
        read = self._reading.get(path)
        if read is not None:
            return read() if request.method in _READING else _not_allowed("GET, HEAD")
        if path.startswith("/v2/models/"):
            return self._route_model(request, path.removeprefix("/v2/models/").split("/"))
        return failure(404, f"there is nothing at {path[:200]!r}")

    def _route_model(self, request: Request, parts: list[str]) -> Response | Callable[[Request], Call]:
        name, *rest = parts
        if name != self.name:
            return failure(404, f"there is no model {name[:80]!r} here", field="model")
        if len(rest) > 1 and rest[0] == "versions":
            if rest[1] not in {self.revision, self.version}:
                return failure(404, f"model {name!r} has no version {rest[1][:80]!r} here", field="version")
            rest = rest[2:]
        if rest == ["infer"]:
            return self._take_infer if request.method == "POST" else _not_allowed("POST")
        read = {(): self._model_metadata, ("ready",): self._readiness}.get(tuple(rest))
        if read is None:
            return failure(404, f"there is nothing at {request.path[:200]!r}")
        return read() if request.method in _READING else _not_allowed("GET, HEAD")

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

    def _take_any(self, request: Request) -> Response | Call | _Unread:
        if binary_type.is_binary(request.headers.get("content-type", "")):
            return self._take_folded(request)
        return self._take_rows(request)

    def _take_folded(self, request: Request) -> Call:
        """Take binary tensors whose header the provider dropped, and answer in the same form."""
        call = self._take_infer(attrs.evolve(request, headers=binary_type.unfolded(request.headers)))

        def encode(outputs: Columns) -> Response:
            answer = call.encode(outputs)
            return attrs.evolve(answer, headers=binary_type.folded(answer.headers))

        return attrs.evolve(call, encode=encode)

    def _take_rows(self, request: Request) -> Response | Call | _Unread:
        content_type = request.headers.get("content-type", "")
        if self.row_by_row and payloads.plain_type(content_type) == payloads.LINES_TYPE:
            return lines.answer(request.body, self._model)
        if self.row_by_row and (answered := lines.answer_instances(request.body, self._model)) is not None:
            return answered
        raw = payloads.decode(request.body, content_type, self._signature)
        kind = payloads.accepted(request.headers.get("accept", ""), content_type)
        encode = functools.partial(payloads.encode, kind=kind)
        if isinstance(raw, Rows):
            _bound(len(raw.rows))
            return _Unread(raw, encode)
        inputs = check(self._signature, raw)
        return Call(inputs, _bound(count_rows(inputs)), encode)

    def _take_infer(self, request: Request) -> Call:
        infer = wire.decode(request, self._signature)
        columns = infer.columns
        inputs = columns if isinstance(columns, Block) else check(self._signature, columns)

        def encode(outputs: Columns) -> Response:
            return wire.encode(infer, outputs, model=self.name, version=self.revision)

        return Call(inputs, _bound(count_rows(inputs)), encode)


def _is_plain(text: str) -> bool:
    # What a client or a log behind it might act on is not sent back.
    return text.isascii() and text.isprintable()


def _telling(rows: int, request: Request, answer: Response) -> Response:
    if ROWS_HEADER in request.headers:
        answer.headers[ROWS_HEADER] = str(rows)
    return answer


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
