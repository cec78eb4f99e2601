"""One request to an asynchronous endpoint: it goes to a queue, its answer comes to S3, and whoever asked looks there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.client import wait_for
from modeldeploy.backends.sagemaker.invoke import RUNTIME, build
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.provider import Provider
from modeldeploy.errors import NotFoundError, PredictionError, UnavailableError, UnsupportedError
from modeldeploy.serving import binary_type
from modeldeploy.values.serving import Payload

MOST_INLINE_BYTES = 128_000
"""What InvokeEndpointAsync takes in the request itself; more goes to S3 first."""
_MOST_S = 3_600
_LOOK_S = 1.0


class Queue:
    """Asks by way of the queue, and waits for the answer as long as the caller does."""

    def __init__(self, provider: Provider, pace: Pace) -> None:
        self._provider = provider
        self._every = max(0.02, _LOOK_S / pace.speed)

    def call(self, endpoint: str, payload: Payload, *, revision: str | None, timeout: float) -> Payload:
        """Send one request and give its answer; both leave nothing in the bucket."""
        if revision is not None:
            self._refuse_pin(endpoint, revision)
        until = time.monotonic() + timeout
        request = build(endpoint, payload, None)
        request.pop("SessionId", None)
        body = request.pop("Body")
        key = "" if len(body) <= MOST_INLINE_BYTES else self._put(endpoint, body)
        where = {"InputLocation": self._provider.storage.url(key)} if key else {"Body": body}
        answer = self._provider.client.call(
            RUNTIME, "invoke_endpoint_async", **request, **where, InvocationTimeoutSeconds=_whole(timeout)
        )
        try:
            return self._await(endpoint, answer, until, timeout)
        finally:
            if key:
                self._provider.storage.delete([key])

    def _refuse_pin(self, endpoint: str, revision: str) -> None:
        """Refuse to name one of several variants: a request to the queue cannot."""
        seen = self._provider.seen(endpoint)
        if seen is None or seen.traffic.live != {revision: 100}:
            message = (
                f"endpoint {endpoint!r} is asynchronous, and a request to its queue cannot name revision {revision!r}"
            )
            raise UnsupportedError(
                message, capability="pinned_invoke", hint="roll out with golden=False, and let the gates watch"
            )

    def _put(self, endpoint: str, body: bytes) -> str:
        key = f"{names.place(endpoint)}asked/{uuid.uuid4().hex}"
        self._provider.storage.put(key, body)
        return key

    def _await(self, endpoint: str, answer: Mapping[str, Any], until: float, timeout: float) -> Payload:
        places = [answer[name] for name in ("OutputLocation", "FailureLocation") if answer.get(name)]
        found = wait_for(lambda: self._first(places), until=until, every=self._every)
        if found is None:
            message = f"endpoint {endpoint!r} did not answer within {timeout:.6g} s"
            raise UnavailableError(message, hint="give it more time; one that was scaled to zero takes minutes to wake")
        place, kind, body = found
        bucket, _, key = place.removeprefix("s3://").partition("/")
        self._provider.client.call("s3", "delete_object", Bucket=bucket, Key=key)
        if place != places[0]:
            text = body.decode("utf-8", "replace")
            message = f"endpoint {endpoint!r} failed: {text[:200]}"
            raise PredictionError(message, status=500, body=text, context={"endpoint": endpoint})
        return Payload(body, binary_type.unfolded({"content-type": kind}))

    def _first(self, places: list[str]) -> tuple[str, str, bytes] | None:
        for place in places:
            bucket, _, key = place.removeprefix("s3://").partition("/")
            try:
                answer = self._provider.client.call("s3", "get_object", Bucket=bucket, Key=key)
            except NotFoundError:
                continue
            return place, answer.get("ContentType", ""), self._provider.client.read(answer["Body"])
        return None


def _whole(timeout: float) -> int:
    return max(1, min(_MOST_S, round(timeout)))
