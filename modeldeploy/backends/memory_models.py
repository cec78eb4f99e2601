"""The reference backend's answers when it is asked for by name: those of the real models, loaded in this process.

Pickled content is refused here: it loads in a worker process only, and the reference has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from modeldeploy.errors import InvalidRequestError, PredictionError
from modeldeploy.values.serving import Payload, Revision

if TYPE_CHECKING:
    from modeldeploy.serving.app import App
    from modeldeploy.serving.messages import Response

_MISTAKE, _FAULT = 400, 500


class InProcess:
    """A responder that loads a revision's bundle on the first request to it."""

    def __init__(self, find: Callable[[str, str], Revision]) -> None:
        self._find = find
        self._apps: dict[str, App] = {}

    def __call__(self, endpoint: str, revision: str, payload: Payload) -> Payload:
        """Answer as a model server would; InvalidRequestError for 4xx, PredictionError for 5xx."""
        from modeldeploy.serving.messages import Request

        if revision not in self._apps:
            self._apps[revision] = _load(endpoint, self._find(endpoint, revision))
        path = payload.headers.get("path", "/invocations")
        headers = {key: value for key, value in payload.headers.items() if key != "path"}
        (answer,) = self._apps[revision].respond_many([Request("POST", path, headers=headers, body=payload.body)])
        _refuse_failure(endpoint, answer)
        return Payload(answer.body, answer.headers)


def _load(endpoint: str, revision: Revision) -> App:
    from modeldeploy.packaging.bundle import Bundle
    from modeldeploy.packaging.loading import load
    from modeldeploy.serving.app import App

    bundle = Bundle.open(Path(revision.model.uri), expect=revision.model.digest)
    return App(load(bundle), name=endpoint, version=revision.model.version, revision=revision.id)


def _refuse_failure(endpoint: str, answer: Response) -> None:
    if answer.status < _MISTAKE:
        return
    said = orjson.loads(answer.body)
    message = f"endpoint {endpoint!r} answered {answer.status}: {said['error']}"
    if answer.status < _FAULT:
        raise InvalidRequestError(message, field=said.get("field"))
    raise PredictionError(message, status=answer.status, body=answer.body.decode("utf-8", "replace"))
