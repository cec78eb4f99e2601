"""The lines of a revision's containers, as Cloud Logging has them, over its REST interface: no package is needed for that beside the session."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from modeldeploy.backends.vertex import names
from modeldeploy.backends.vertex.client import Client
from modeldeploy.errors import ModelDeployError
from modeldeploy.values.serving import LogLine

_MOST = 1_000
"""Entries of one page."""
_TAIL_LINES, _TAIL_CHARS = 5, 1_000


def read(client: Client, endpoint: str, revision: str, *, since: float, limit: int) -> list[LogLine]:
    """Give the last ``limit`` lines at or after ``since``, oldest first; reads entries and writes nothing."""
    if limit <= 0:
        return []
    only = [
        'resource.type="aiplatform.googleapis.com/Endpoint"',
        f'resource.labels.endpoint_id="{endpoint}"',
        f'labels.deployed_model_id="{names.deployed_id(revision)}"',
        f'timestamp>="{instant(since)}"',
    ]
    found = list(_entries(client, " AND ".join(only), limit))
    return [LogLine(_time(each), revision, _text(each)) for each in reversed(found)]


def _entries(client: Client, only: str, limit: int) -> Iterator[Mapping[str, Any]]:
    """Give entries, the latest first."""
    token, left = "", limit
    while left > 0:
        body = {
            "resourceNames": [f"projects/{client.access.project}"],
            "filter": only,
            "orderBy": "timestamp desc",
            "pageSize": min(left, _MOST),
            **({"pageToken": token} if token else {}),
        }
        document = client.ask("POST", "logging", "/v2/entries:list", body=body)
        page = list(document.get("entries", ()))[:left]
        yield from page
        left -= len(page)
        token = document.get("nextPageToken", "")
        if not token:
            return


def instant(at: float) -> str:
    """Write a time as the service's filters have it."""
    return datetime.fromtimestamp(max(0.0, at), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _time(entry: Mapping[str, Any]) -> float:
    text = str(entry.get("timestamp") or entry.get("receiveTimestamp") or "")
    # Nanoseconds, of which Python reads six digits.
    whole, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{rest[:6] or '0':0<6}+00:00").timestamp() if whole else 0.0


def _text(entry: Mapping[str, Any]) -> str:
    if "textPayload" in entry:
        return str(entry["textPayload"]).rstrip("\n")
    told = entry.get("jsonPayload") or entry.get("protoPayload") or {}
    message = told.get("message") if isinstance(told, Mapping) else None
    return str(message).rstrip("\n") if message else json.dumps(told, sort_keys=True)


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
