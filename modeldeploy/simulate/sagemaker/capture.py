"""Data capture: requests and answers as lines of JSON in storage."""

from __future__ import annotations

import base64
import random
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.sagemaker.asking import Target
from modeldeploy.simulate.sagemaker.cloud import Cloud, split_s3
from modeldeploy.simulate.sagemaker.invocation import Invocation
from modeldeploy.simulate.sagemaker.world import Json
from modeldeploy.simulate.wire import Reply

_WHOLE = 100
_OCTETS = "application/octet-stream"


@attrs.define(eq=False)
class Captures:
    """Keeps lines until ``flush`` writes them, one object for each variant."""

    cloud: Cloud
    clock: Clock
    _lines: dict[str, list[bytes]] = attrs.field(factory=dict)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def take(self, target: Target, invocation: Invocation, reply: Reply) -> None:
        """Capture one exchange, if capturing is on and the sample wants it."""
        settings = target.fleet.capture
        if settings is None or not settings.get("EnableCapture", False):
            return
        if random.random() * _WHOLE >= settings["InitialSamplingPercentage"]:  # noqa: S311 - no secret
            return
        line = self._line(settings, invocation, reply)
        folder = f"{settings['DestinationS3Uri'].rstrip('/')}/{target.endpoint.name}/{target.variant.name}"
        with self._lock:
            self._lines.setdefault(folder, []).append(line)

    def flush(self) -> None:
        """Write what has come since the last time."""
        with self._lock:
            lines, self._lines = self._lines, {}
        now = datetime.fromtimestamp(self.clock.now(), UTC)
        for folder, each in lines.items():
            name = f"{now:%Y/%m/%d/%H}/{now:%M-%S}-{now.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
            self.cloud.write(*split_s3(f"{folder}/{name}"), b"".join(each))

    def _line(self, settings: Json, invocation: Invocation, reply: Reply) -> bytes:
        modes = {each["CaptureMode"] for each in settings["CaptureOptions"]}
        types = settings.get("CaptureContentTypeHeader", {})
        data: dict[str, Any] = {}
        if modes & {"Input", "InputAndOutput"}:
            kind = invocation.container_headers.get("Content-Type", _OCTETS)
            data["endpointInput"] = _written("INPUT", kind, invocation.body, types)
        if modes & {"Output", "InputAndOutput"}:
            kind = reply.headers.get("content-type", _OCTETS)
            data["endpointOutput"] = _written("OUTPUT", kind, reply.body, types)
        at = datetime.fromtimestamp(self.clock.now(), UTC)
        about = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{at:%Y-%m-%dT%H:%M:%SZ}"}
        for name, key in (("inferenceId", "InferenceId"), ("customAttributes", "CustomAttributes")):
            if key in invocation.given:
                about[name] = invocation.given[key]
        return orjson.dumps({"captureData": data, "eventMetadata": about, "eventVersion": "0"}) + b"\n"


def _written(mode: str, kind: str, body: bytes, types: Mapping[str, list[str]]) -> Json:
    encoding = "BASE64"
    if kind in types.get("CsvContentTypes", []):
        encoding = "CSV"
    elif kind in types.get("JsonContentTypes", []):
        encoding = "JSON"
    text = base64.b64encode(body).decode() if encoding == "BASE64" else body.decode("utf-8", "replace")
    return {"observedContentType": kind, "mode": mode, "data": text, "encoding": encoding}
