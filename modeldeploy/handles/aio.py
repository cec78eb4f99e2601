"""The endpoint's verbs for ``await``: long ones are driven in the background as ever, and no thread is held while they are awaited."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from modeldeploy.errors import OperationTimeout

if TYPE_CHECKING:
    from modeldeploy.handles.edge import EdgeTarget
    from modeldeploy.handles.endpoint import Endpoint
    from modeldeploy.handles.operation import Operation
    from modeldeploy.handles.rollout import Rollout
    from modeldeploy.values.rollout import RolloutPolicy

T = TypeVar("T", "Rollout", "Operation")


class EndpointAio:
    """``await endpoint.aio.predict(X)`` and the like; arguments are those of the plain verbs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def predict(self, data: object, **options: Any) -> Any:
        """Predict without blocking the loop."""
        import asyncio

        return await asyncio.to_thread(self._endpoint.predict, data, **options)

    async def rollout(self, model: object, policy: RolloutPolicy | None = None, **options: Any) -> Rollout:
        """Roll out and wait for its end, unless ``wait=False``."""
        return await _ended(self._endpoint.rollout, model, policy, **options)

    async def rollback(self, **options: Any) -> Rollout:
        """Roll back and wait for its end, unless ``wait=False``."""
        return await _ended(self._endpoint.rollback, **options)

    async def delete(self, **options: Any) -> Operation:
        """Delete and wait for its end, unless ``wait=False``."""
        return await _ended(self._endpoint.delete, **options)


class EdgeAio:
    """``await target.aio.rollout(model)`` and the like; arguments are those of the plain verbs."""

    def __init__(self, target: EdgeTarget) -> None:
        self._target = target

    async def rollout(self, model: object, policy: RolloutPolicy | None = None, **options: Any) -> Rollout:
        """Roll out and wait for its end or its halt, unless ``wait=False``."""
        return await _ended(self._target.rollout, model, policy, **options)

    async def rollback(self, **options: Any) -> Rollout:
        """Roll back and wait for its end, unless ``wait=False``."""
        return await _ended(self._target.rollback, **options)

    async def delete(self, **options: Any) -> Operation:
        """Delete and wait for its end, unless ``wait=False``."""
        return await _ended(self._target.delete, **options)


async def _ended(
    verb: Callable[..., T],
    *arguments: object,
    wait: bool = True,
    timeout: float | None = None,  # noqa: ASYNC109 - the argument of the plain verbs, with their error
    **options: Any,
) -> T:
    """Begin what a verb does and wait for its end; OperationTimeout when patience ended first."""
    import asyncio

    handle = await asyncio.to_thread(verb, *arguments, **options, wait=False)
    if not wait:
        return handle
    try:
        async with asyncio.timeout(timeout):
            return await handle
    except TimeoutError as error:
        message = f"{handle.id} is still running after {timeout:g} s"
        hint = f"it goes on; Operation.get({handle.id!r}).wait() waits again"
        raise OperationTimeout(message, hint=hint, context={"operation": handle.id}) from error
