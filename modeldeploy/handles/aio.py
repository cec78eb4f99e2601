"""The endpoint's verbs for ``await``: long ones are driven in the background as ever, and no thread is held while they are awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeldeploy.handles.endpoint import Endpoint
    from modeldeploy.handles.operation import Operation
    from modeldeploy.handles.rollout import Rollout
    from modeldeploy.values.rollout import RolloutPolicy


class EndpointAio:
    """``await endpoint.aio.predict(X)`` and the like; arguments are those of the plain verbs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def predict(self, data: object, **options: Any) -> Any:
        """Predict without blocking the loop."""
        import asyncio

        return await asyncio.to_thread(self._endpoint.predict, data, **options)

    async def rollout(self, model: object, policy: RolloutPolicy | None = None, **options: Any) -> Rollout:
        """Roll out and wait for its end."""
        import asyncio

        rollout = await asyncio.to_thread(self._endpoint.rollout, model, policy, **{**options, "wait": False})
        return await rollout

    async def rollback(self, **options: Any) -> Rollout:
        """Roll back and wait for its end."""
        import asyncio

        rollout = await asyncio.to_thread(self._endpoint.rollback, **{**options, "wait": False})
        return await rollout

    async def delete(self, **options: Any) -> Operation:
        """Delete and wait for its end."""
        import asyncio

        operation = await asyncio.to_thread(self._endpoint.delete, **{**options, "wait": False})
        return await operation
