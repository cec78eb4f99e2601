"""From a method and a path to what answers; names in a path are matched as the service does, whatever their case."""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from modeldeploy.simulate.azureml.errors import ServiceError
from modeldeploy.simulate.azureml.exchange import Answer, Request

Handler = Callable[..., Answer]
_NAME = re.compile(r"\{(\w+)(\*?)\}")


@attrs.frozen
class Route:
    """One operation: its name is what faults call it."""

    operation: str
    method: str
    pattern: re.Pattern[str]
    handler: Handler


@attrs.define(eq=False)
class Routes:
    """All routes; the first that fits is taken."""

    _routes: list[Route] = attrs.field(factory=list)

    def add(self, operation: str, method: str, template: str, handler: Handler) -> None:
        """Add one: ``{name}`` stands for a segment, ``{name*}`` for the rest of the path."""
        self._routes.append(Route(operation, method, _compiled(template), handler))

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

    def answer(self, request: Request) -> Answer:
        """Answer a request by whatever is there for it."""
        route, names = self.find(request.method, request.path)
        return route.handler(request, **names)


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
