"""What containers print, on its way to CloudWatch Logs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import attrs

from modeldeploy.simulate.sagemaker.cloud import Cloud
from modeldeploy.simulate.sagemaker.world import World

ENDPOINTS = "/aws/sagemaker/Endpoints"
TRANSFORM_JOBS = "/aws/sagemaker/TransformJobs"
_BATCH = 1_000
_TAKEN = "ResourceAlreadyExistsException"
_Line = tuple[int, str]


@attrs.define(eq=False)
class Logbook:
    """Lines are kept until ``flush`` writes them; groups and streams are made when their first line is."""

    world: World
    cloud: Cloud
    _lines: dict[tuple[str, str], list[_Line]] = attrs.field(factory=dict)
    _made: set[tuple[str, str]] = attrs.field(factory=set)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)
    _flushing: threading.Lock = attrs.field(factory=threading.Lock)

    def writer(self, group: str, stream: str) -> Callable[[str], None]:
        """Give what takes the lines of one stream."""

        def write(line: str) -> None:
            at = int(self.world.clock.now() * 1000)
            with self._lock:
                self._lines.setdefault((group, stream), []).append((at, line))

        return write

    def flush(self) -> None:
        """Write what has come since the last time."""
        with self._flushing:
            with self._lock:
                lines, self._lines = self._lines, {}
            for (group, stream), each in lines.items():
                self._make(group, stream)
                for batch in _batches(each):
                    self._put(group, stream, batch)

    def forget(self, group: str) -> None:
        """Forget that a group was made, for somebody deleted it."""
        with self._lock:
            self._made = {each for each in self._made if each[0] != group}

    def _put(self, group: str, stream: str, lines: list[_Line]) -> None:
        events = [{"timestamp": at, "message": line or " "} for at, line in lines]
        self.cloud.client("logs").put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    def _make(self, group: str, stream: str) -> None:
        if (group, stream) in self._made:
            return
        client = self.cloud.client("logs")
        _create(client.create_log_group, logGroupName=group)
        _create(client.create_log_stream, logGroupName=group, logStreamName=stream)
        self._made.add((group, stream))


def _batches(lines: list[_Line]) -> Iterator[list[_Line]]:
    for start in range(0, len(lines), _BATCH):
        yield lines[start : start + _BATCH]


def _create(call: Callable[..., object], **names: str) -> None:
    from botocore.exceptions import ClientError

    try:
        call(**names)
    except ClientError as error:
        if error.response["Error"]["Code"] != _TAKEN:
            raise
