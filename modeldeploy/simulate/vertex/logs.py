"""Cloud Logging over REST, as far as reading the logs of containers needs it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs

from modeldeploy.simulate.vertex.exchange import Answer, Refusal, Request, answer
from modeldeploy.simulate.vertex.filters import compiled
from modeldeploy.simulate.vertex.logbook import Line, Logbook
from modeldeploy.simulate.vertex.names import Site

PATH = "/v2/entries:list"
CONTAINER_LOG = "aiplatform.googleapis.com%2Fprediction_container"
_ORDERS = {"": False, "timestamp asc": False, "timestamp desc": True}
_MOST = 1_000
_USUAL = 50


@attrs.define(eq=False)
class Logs:
    """Answers ``entries:list``."""

    site: Site
    logbook: Logbook

    def answer(self, request: Request) -> Answer:
        """Tell the entries that a filter lets through, a page at a time; the token says how many came before."""
        asked = request.json()
        self._check(asked)
        test = compiled(str(asked.get("filter", "")))
        entries = [each for each in map(self._entry, self.logbook.lines()) if test(each)]
        if _ORDERS[asked.get("orderBy", "")]:
            entries.reverse()
        begin, size = (_number(asked, name) for name in ("pageToken", "pageSize"))
        end = begin + max(1, min(size or _USUAL, _MOST))
        found = {"entries": entries[begin:end]} if entries[begin:end] else {}
        return answer(200, {**found, **({"nextPageToken": str(end)} if end < len(entries) else {})})

    def _check(self, asked: dict[str, Any]) -> None:
        names = asked.get("resourceNames") or []
        known = {f"projects/{self.site.project}", f"projects/{self.site.number}"}
        if not names:
            raise Refusal(400, "badRequest", "resourceNames is required.")
        if not set(names) <= known:
            raise Refusal(403, "forbidden", f"Permission denied for all log views of {', '.join(names)}.")
        if asked.get("orderBy", "") not in _ORDERS:
            raise Refusal(400, "badRequest", f"orderBy {asked['orderBy']!r} is not supported.")

    def _entry(self, line: Line) -> dict[str, Any]:
        """Write a line as entries of real containers were seen to be; job's lines have a resource of their own."""
        container = f"projects/{self.site.number}"
        if line.job:
            kind = "ml_job"
            labels = {"project_id": self.site.project, "job_id": line.job, "task_name": "service"}
        else:
            kind = "aiplatform.googleapis.com/Endpoint"
            labels = {
                "endpoint_id": line.endpoint,
                "location": self.site.location,
                "resource_container": container,
            }
        moment = stamp(line.at)
        log = line.job or CONTAINER_LOG
        return {
            "insertId": f"r{line.number:012d}",
            "logName": f"projects/{self.site.project}/logs/{log}",
            "resource": {"type": kind, "labels": labels},
            "timestamp": moment,
            "receiveTimestamp": moment,
            # What a container writes to its standard error is an error there, whatever it says.
            "severity": "ERROR",
            "jsonPayload": {"message": line.text},
            "labels": {}
            if line.job
            else {"deployed_model_id": line.deployed, "replica_id": f"predictor-{line.deployed}"},
        }


def _number(asked: dict[str, Any], name: str) -> int:
    text = str(asked.get(name) or 0)
    if not text.isdecimal():
        raise Refusal(400, "badRequest", f"Invalid {name}: {text!r}")
    return int(text)


def stamp(at: float) -> str:
    """Write an instant with microseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
