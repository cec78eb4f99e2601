"""The lines of a revision's containers, as the service's ``getLogs`` gives them: text without times, the last lines first asked for."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from modeldeploy.backends.azureml.client import Client
from modeldeploy.errors import ModelDeployError, NotFoundError
from modeldeploy.values.serving import LogLine

_MOST = 2_000
"""Lines that one reading asks for."""
_TAIL_LINES, _TAIL_CHARS = 5, 1_000
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?(Z|[+-]\d\d:\d\d)?")
_HEADING = re.compile(r"^Instance status:|^SystemSetup:|^UserContainer|^Container events:|^Kind: |^Container logs:")


def read(client: Client, endpoint: str, revision: str, *, since: float, limit: int) -> list[LogLine]:
    """Give the last ``limit`` lines at or after ``since``, oldest first; none for a revision that is not there.

    A line that bears no time counts as old as the last one before it that does; lines before the first such are as old as the oldest.
    """
    if limit <= 0:
        return []
    try:
        text = client.call(lambda sdk: sdk.online_deployments.get_logs(revision, endpoint, min(_MOST, max(limit, 1))))
    except NotFoundError:
        return []
    found = [line for line in _dated(str(text or ""), revision) if line.at >= since]
    return found[-limit:]


def _dated(text: str, revision: str) -> Iterator[LogLine]:
    lines = [line for line in text.splitlines() if line.strip() and not _HEADING.match(line)]
    stamps = [_time(line) for line in lines]
    at = next((stamp for stamp in stamps if stamp is not None), time.time())
    for line, stamp in zip(lines, stamps, strict=True):
        at = max(at, stamp or at)
        yield LogLine(at, revision, line)


def _time(line: str) -> float | None:
    match = _STAMP.search(line[:80])
    if match is None:
        return None
    day, clock, part, zone = match.groups()
    found = datetime.fromisoformat(f"{day}T{clock}.{(part or '0'):0<6}{(zone or '+00:00').replace('Z', '+00:00')}")
    return found.astimezone(UTC).timestamp()


class Tail:
    """The last lines of a revision, for whoever tells of a failure: asked for seldom, for a flood of failures must not become one of calls."""

    def __init__(self, client: Client, every: float) -> None:
        self._client = client
        self._every = every
        self._known: dict[tuple[str, str], tuple[float, str]] = {}

    def of(self, endpoint: str, revision: str) -> str:
        """Give the last lines as one text; empty when there are none or they cannot be read."""
        if not revision:
            return ""
        at, text = self._known.get((endpoint, revision), (float("-inf"), ""))
        now = time.monotonic()
        if now - at > self._every:
            text = self._read(endpoint, revision)
            self._known[endpoint, revision] = (now, text)
        return text

    def _read(self, endpoint: str, revision: str) -> str:
        try:
            lines = read(self._client, endpoint, revision, since=0.0, limit=_TAIL_LINES)
        except ModelDeployError:
            # It would only hide what is being told.
            return ""
        return " | ".join(line.text.strip() for line in lines if line.text.strip())[-_TAIL_CHARS:]
