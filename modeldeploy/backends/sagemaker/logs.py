"""The lines of a revision's containers, as CloudWatch keeps them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from modeldeploy.backends.sagemaker import names
from modeldeploy.backends.sagemaker.client import Client
from modeldeploy.errors import ModelDeployError, NotFoundError
from modeldeploy.values.serving import LogLine

_PAGE = 10_000
_PAGES = 20
"""How many pages one reading goes through; a busier log is read from a later ``since``."""
_TAIL_LINES = 5
_TAIL_CHARS = 1_000


def read(client: Client, endpoint: str, revision: str, *, since: float, limit: int) -> list[LogLine]:
    """Give the last ``limit`` lines of all instances at or after ``since``, oldest first; none before a container has started."""
    if not limit:
        return []
    try:
        found = sorted(_events(client, endpoint, revision, since), key=lambda line: line.at)
    except NotFoundError:
        # The group comes with the first line: without it no container ever wrote one.
        return []
    return found[-limit:]


def _events(client: Client, endpoint: str, revision: str, since: float) -> Iterator[LogLine]:
    token: dict[str, str] = {}
    for _page in range(_PAGES):
        page = client.call(
            "logs",
            "filter_log_events",
            logGroupName=names.log_group(endpoint),
            logStreamNamePrefix=f"{revision}/",
            startTime=int(since * 1000),
            limit=_PAGE,
            **token,
        )
        for event in page["events"]:
            yield LogLine(event["timestamp"] / 1000, revision, event["message"].rstrip("\n"))
        if not page.get("nextToken"):
            return
        token = {"nextToken": page["nextToken"]}


class Tail:
    """The last lines of a revision, for whoever tells of a failure: asked for seldom, for a flood of failures must not become one of calls."""

    def __init__(self, client: Client, every: float) -> None:
        self._client = client
        self._every = every
        self._known: dict[tuple[str, str], tuple[float, str]] = {}

    def of(self, endpoint: str, revision: str) -> str:
        """Give the last lines as one text; empty when there are none or they cannot be read."""
        at, text = self._known.get((endpoint, revision), (float("-inf"), ""))
        now = time.monotonic()
        if now - at > self._every:
            text = self._read(endpoint, revision)
            self._known[endpoint, revision] = (now, text)
        return text

    def _read(self, endpoint: str, revision: str) -> str:
        try:
            since = time.time() - _RECENT_S
            lines = read(self._client, endpoint, revision, since=since, limit=_TAIL_LINES)
        except ModelDeployError:
            # It would only hide what is being told.
            return ""
        return " | ".join(line.text.strip() for line in lines if line.text.strip())[-_TAIL_CHARS:]


_RECENT_S = 900.0
