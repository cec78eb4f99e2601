"""From a method and a path to what answers; names in a path are matched as the service does, whatever their case."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs
import orjson

from modeldeploy.simulate.azureml import schemas
from modeldeploy.simulate.azureml.errors import ServiceError
from modeldeploy.simulate.azureml.exchange import Answer, Request

Handler = Callable[..., Answer]
_TOLD = frozenset({200, 201})
_NAME = re.compile(r"\{(\w+)(\*?)\}")


@attrs.frozen
class Route:
    """One operation: its name is what faults call it."""

    operation: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler
    asks: str = ""
    """The model of its request in the SDK; none where it takes no body."""
    tells: str = ""
    """The model of its answer, ``[Name]`` for a page of them."""

    def perform(self, request: Request, names: dict[str, str]) -> Answer:
        """Answer a request, both held against the SDK's models."""
        if self.asks:
            schemas.check_request(self.asks, request.json())
        found = self.handler(request, **names)
        if self.tells and found.body and found.status in _TOLD:
            schemas.check_answer(self.tells, orjson.loads(found.body))
        return found


@attrs.define(eq=False)
class Routes:
    """All routes; the first that fits is taken."""

    _routes: list[Route] = attrs.field(factory=list)

    def add(self, operation: str, where: str, handler: Handler, *, asks: str = "", tells: str = "") -> None:
        """Add one: ``where`` is method and path, in which ``{name}`` stands for a segment, ``{name*}`` for all that follows."""
        method, _, template = where.partition(" ")
        self._routes.append(Route(operation, method, _compiled(template), handler, asks, tells))

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Find what answers, and the names in the path; the service's error when there is nothing."""
        allowed: set[str] = set()
        for route in self._routes:
            found = route.pattern.fullmatch(path)
            if found and route.method == method:
                return route, found.groupdict()
            if found:
                allowed.add(route.method)
        raise _nothing(method, path, allowed)


def _compiled(template: str) -> re.Pattern[str]:
    parts = _NAME.split(template)
    text = re.escape(parts[0])
    for name, rest, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        text += f"(?P<{name}>{'.*' if rest else '[^/]+'}){re.escape(literal)}"
    return re.compile(text, re.IGNORECASE)


def _nothing(method: str, path: str, allowed: set[str]) -> ServiceError:
    if allowed:
        text = f"The requested resource does not support http method '{method}'."
        return ServiceError(405, "MethodNotAllowed", text, headers={"Allow": ", ".join(sorted(allowed))})
    return ServiceError(404, "InvalidResourceType", f"The resource type could not be found: {path}")
