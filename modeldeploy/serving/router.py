"""Which revision answers a request: one immutable table for each endpoint, replaced by one assignment.

A request that is under way keeps the revision it was given; the next one sees the new table. Where traffic is split, a failed answer of the
new revision is answered again by stable and counted against the new one (safe canary).
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import attrs

from modeldeploy.serving import keys
from modeldeploy.serving.comparing import LARGEST
from modeldeploy.serving.connection import Connection
from modeldeploy.serving.group import Group
from modeldeploy.serving.head import Repeat
from modeldeploy.serving.messages import REVISION_HEADER, Request, Response, failure, json_response, unavailable
from modeldeploy.serving.meters import Meter, Reading, exposition, is_error
from modeldeploy.serving.shadowing import Shadows
from modeldeploy.serving.units import Unit, Units
from modeldeploy.values.assignment import assign

TIMEOUT_HEADER = "modeldeploy-timeout"
"""Seconds the caller will wait; it can shorten the revision's own deadline, not lengthen it."""
ENDPOINT_HEADER = "modeldeploy-endpoint"
"""The endpoint that the caller means; another one's answers 421, for ports are used again."""
FALLBACK_HEADER = "modeldeploy-fallback-from"
"""On an answer of stable: the revision that failed to give it."""

_WHOLE = 100
# A worker that takes longer to give clients back than this gives them back when it can; the change does not wait for it.
_BACK_S = 0.25
# When a canary has taken this share of the time, stable is asked too, so the caller still gets an answer.
_CANARY_SHARE = 0.5
# Answers of the queue, before any model saw the request: asking again is safe whatever the model does.
_REFUSED = 400
_REFUSALS = frozenset({400, 422})
"""What a model server says of a request that does not fit its model."""
_NEVER_ASKED = frozenset({429, 503})
_VERSIONS = "/versions/"
LIVE = frozenset({"/healthz", "/v2/health/live"})
READY = frozenset({"/readyz", "/ping", "/v2/health/ready"})
_OWN_PATHS = LIVE | READY | {"/metrics"}


@attrs.frozen
class Table:
    """Traffic, prepared for picking."""

    weights: Mapping[str, int]
    stable: str | None
    revisions: tuple[str, ...]
    bounds: tuple[int, ...]
    sole: str | None
    """The revision that has all the traffic."""
    shadow: Mapping[str, int]
    key: str
    key_of: Callable[[Request], str | None] | None

    @classmethod
    def of(
        cls, weights: Mapping[str, int], stable: str | None, shadow: Mapping[str, int] | None = None, key: str = ""
    ) -> Table:
        """Prepare a table of whole percents; ``shadow`` and ``key`` as in ``Traffic``."""
        live = {revision: weight for revision, weight in weights.items() if weight}
        copies = {revision: percent for revision, percent in (shadow or {}).items() if percent}
        revisions, bounds = tuple(live), tuple(itertools.accumulate(live.values()))
        sole = revisions[0] if len(revisions) == 1 else None
        return cls(live, stable, revisions, bounds, sole, copies, key, keys.reader(key))

    def pick(self, draw: float) -> str | None:
        """Give the revision at ``draw`` (0-1); None when there is no traffic."""
        if len(self.revisions) <= 1:
            return self.revisions[0] if self.revisions else None
        return self.revisions[bisect.bisect_right(self.bounds, draw * _WHOLE)]


class Router:
    """One endpoint: its table, its groups, and the answers that need no model."""

    def __init__(self, endpoint: str, *, draw: Callable[[], float] = random.random) -> None:  # noqa: S311 - a share, not a secret
        self.endpoint = endpoint
        self.groups: dict[str, Group] = {}
        self.meters: dict[str, Meter] = {}
        self.table = Table.of({}, None)
        self.safe_canary = True
        self.ending = False
        """Whether the endpoint is about to go: whoever asks if it is ready learns of it before the door closes."""
        self.lends = True
        """Whether workers may answer clients by themselves; not while the table is about to change."""
        self._draw = draw
        self._units = Units()
        self._shadows = Shadows()

    def meter(self, revision: str) -> Meter:
        """Find or make the meter of a revision; it stays when the revision goes, so that its last hour can be read."""
        return self.meters.setdefault(revision, Meter(revision))

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer one request. Where it goes to one revision only, what is given is the future of its answer, for which no task is made."""
        own = self._own_answer(request)
        if own is not None:
            return _at_once(own)
        pinned = request.headers.get(REVISION_HEADER) or _version_in(request.path)
        if pinned is not None:
            group = self.groups.get(pinned)
            if not self.groups:
                # There is no endpoint without a revision: this front has not been told yet.
                return _at_once(unavailable(f"endpoint {self.endpoint} is being started"))
            if group is None:
                return _at_once(
                    failure(404, f"endpoint {self.endpoint} has no revision {pinned!r}", field=REVISION_HEADER)
                )
            return group.submit(request, _timeout(request, group))
        return self._by_traffic(request)

    def _by_traffic(self, request: Request) -> Awaitable[Response]:
        table = self.table
        revision, unit = table.sole, None
        if revision is None:
            revision, unit = self._choose(table, request)
        group = self.groups.get(revision) if revision is not None else None
        if group is None:
            return _at_once(unavailable(f"endpoint {self.endpoint} has no revision that takes traffic"))
        # Counted under the share of this moment, also when the table changes before the answer comes.
        share = table.weights[group.revision]
        group.meter.assign(share, unit)
        timeout = _timeout(request, group)
        stable = self.groups.get(table.stable) if table.stable is not None else None
        answer: Awaitable[Response]
        if stable is None or stable is group or not self.safe_canary:
            answer = group.submit(request, timeout, share, unit)
        else:
            answer = _guarded(request, group, stable, timeout, share=share, unit=unit)
        return self._copied(table, request, answer) if table.shadow else answer

    async def _copied(self, table: Table, request: Request, answer: Awaitable[Response]) -> Response:
        response = await answer
        self._copy(table, request, response)
        return response

    def _copy(self, table: Table, request: Request, answer: Response) -> None:
        """Send the shadows their share of copies; an answer of another canary is nothing to hold theirs against."""
        if request.method != "POST":
            return
        by_stable = table.stable not in table.weights or answer.headers[REVISION_HEADER] == table.stable
        comparable = answer if by_stable and len(answer.body) <= LARGEST else None
        for revision, percent in table.shadow.items():
            group = self.groups.get(revision)
            if group is not None and (percent == _WHOLE or self._draw() * _WHOLE < percent):
                self._shadows.send(group, request, _timeout(request, group), comparable)

    def _choose(self, table: Table, request: Request) -> tuple[str | None, Unit | None]:
        """Choose among several revisions: by the request's key where it has one, else by lot."""
        key = table.key_of(request) if table.key_of is not None else None
        if key is None:
            return table.pick(self._draw()), None
        return assign(table.weights, key), self._units.unit(key)

    def lend(self, connection: Connection, repeat: Repeat) -> bool:
        """Lend a client whose requests all go to the revision that has all the traffic, and nowhere else; False for any other."""
        request = Request(repeat.head.method, repeat.path, repeat.query, repeat.head.headers)
        group = self._only(request) if self.lends and not self.ending else None
        return group is not None and group.lend(connection, repeat)

    def _only(self, request: Request) -> Group | None:
        """Find the group that answers a request without anybody having to look at it."""
        table = self.table
        group = self.groups.get(table.sole) if table.sole is not None and not table.shadow else None
        if group is None or REVISION_HEADER in request.headers or _version_in(request.path) is not None:
            return None
        guarded = self.safe_canary and table.stable not in {None, group.revision} and table.stable in self.groups
        own = self._own_answer(request) is not None
        late = _timeout(request, group) < group.policy.deadline_s
        return None if guarded or own or late or request.method != "POST" else group

    def ask_back(self) -> None:
        """Ask for every client that was lent, as ``recall`` does, and do not wait for it."""
        self.lends = False
        for group in self.groups.values():
            group.lending.ask_back()

    async def recall(self) -> None:
        """Have every client given back that was lent, and lend none until ``lends`` is set again."""
        self.lends = False
        for group in list(self.groups.values()):
            await group.lending.recall(_BACK_S)

    def install(self, table: Table) -> None:
        """Let a table decide from now on; the keys that were counted are forgotten when it ends a rollout."""
        if table.sole is not None or table.key != self.table.key:
            self._units = Units()
        self.table = table
        for meter in self.meters.values():
            meter.tidy()

    def harvest(self) -> None:
        """Bring the meters up to date."""
        for group in self.groups.values():
            group.lending.harvest()

    def _own_answer(self, request: Request) -> Response | None:
        if request.path in _OWN_PATHS:
            return self._own_page(request.path)
        meant = request.headers.get(ENDPOINT_HEADER)
        if meant is not None and meant != self.endpoint:
            return failure(421, f"this is endpoint {self.endpoint!r}, not {meant!r}")
        return None

    def _own_page(self, path: str) -> Response:
        if path in LIVE:
            return json_response(200, {"live": True})
        if path in READY:
            return self._readiness()
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        return Response(200, exposition(self.readings()).encode(), headers)

    def _readiness(self) -> Response:
        live = [self.groups[revision] for revision in self.table.revisions if revision in self.groups]
        if self.ending:
            return unavailable(f"endpoint {self.endpoint} is ending")
        if any(group.ready for group in live):
            return json_response(200, {"ready": True})
        return unavailable(f"endpoint {self.endpoint} has no worker ready")

    def readings(self) -> list[Reading]:
        """Read every revision, those that are gone included."""
        self.harvest()
        found = []
        for revision, meter in self.meters.items():
            reading = Reading(self.endpoint, meter, weight=self.table.weights.get(revision, 0))
            group = self.groups.get(revision)
            reading.workers = len(group.links) if group else 0
            if group is not None:
                reading.queued, reading.inflight, reading.breaker_open = (
                    group.queued,
                    group.inflight,
                    group.breaker.open,
                )
            found.append(reading)
        return found


def _at_once(response: Response) -> asyncio.Future[Response]:
    future = asyncio.get_running_loop().create_future()
    future.set_result(response)
    return future


async def _guarded(
    request: Request, canary: Group, stable: Group, within: float, *, share: int, unit: Unit | None
) -> Response:
    """Ask the canary, and stable when it fails, takes long or refuses; the failure is the canary's, and the second answer is no draw of the table's."""
    until = time.monotonic() + within
    answer = await _one_or_other(request, canary, stable, until, share=share, unit=unit)
    if answer.status not in _REFUSALS or answer.headers.get(FALLBACK_HEADER):
        return answer
    # It predicted nothing. Whose mistake that is stable can tell: the caller's, or that of a model which takes less than the one before.
    again = await _by_stable(request, canary, stable, until)
    if again.status >= _REFUSED:
        return answer
    canary.meter.blame(share, unit)
    return again


async def _one_or_other(
    request: Request, canary: Group, stable: Group, until: float, *, share: int, unit: Unit | None
) -> Response:
    within = until - time.monotonic()
    if not canary.policy.retry_on_crash:
        answer = await canary.submit(request, within, share, unit)
        return await _by_stable(request, canary, stable, until) if answer.status in _NEVER_ASKED else answer
    # It has all the time that stable would have, so that being as slow as stable is no failure.
    asked = asyncio.ensure_future(canary.submit(request, within, share, unit))
    await asyncio.wait({asked}, timeout=within * _CANARY_SHARE)
    if asked.done() and not is_error(asked.result().status):
        return asked.result()
    return await _first_good(asked, asyncio.ensure_future(_by_stable(request, canary, stable, until)))


async def _by_stable(request: Request, canary: Group, stable: Group, until: float) -> Response:
    answer = await stable.submit(request, min(until - time.monotonic(), stable.policy.deadline_s))
    return attrs.evolve(answer, headers={**answer.headers, FALLBACK_HEADER: canary.revision})


async def _first_good(asked: asyncio.Future[Response], again: asyncio.Future[Response]) -> Response:
    """Give whichever answer is good first, or stable's failure when neither is."""
    waiting = {asked, again}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        good = [each.result() for each in done if not is_error(each.result().status)]
        if good:
            again.cancel()
            return good[0]
    return again.result()


def _timeout(request: Request, group: Group) -> float:
    asked = request.headers.get(TIMEOUT_HEADER)
    if asked is None:
        return group.policy.deadline_s
    try:
        seconds = float(asked)
    except ValueError:
        return group.policy.deadline_s
    # "nan" fails the comparison and falls back to the revision's own deadline.
    return seconds if 0 < seconds < group.policy.deadline_s else group.policy.deadline_s


def _version_in(path: str) -> str | None:
    if _VERSIONS not in path or not path.startswith("/v2/models/"):
        return None
    return path.split(_VERSIONS, 1)[1].split("/", 1)[0] or None
