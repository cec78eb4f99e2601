"""The workers of one revision and the requests that wait for them.

Whenever a worker is idle it is given everything that waits, as one frame: batches form by themselves while the previous one is predicted,
without a timer, so a lone request never waits for company.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable, Iterator
from math import inf

import attrs

from modeldeploy.serving.breaker import Breaker
from modeldeploy.serving.connection import Connection
from modeldeploy.serving.head import Repeat
from modeldeploy.serving.ledger import PLACE_BYTES
from modeldeploy.serving.link import FrameError, Frames, decode_responses, encode_requests
from modeldeploy.serving.loans import Lending, Terms
from modeldeploy.serving.messages import REVISION_HEADER, Request, Response, failure, unavailable
from modeldeploy.serving.meters import Meter
from modeldeploy.serving.units import Unit

# A worker that has not answered this long after the last deadline in its frame hangs: it is given up and replaced.
_HANG_GRACE_S = 1.0
_POLL_S = 0.005
# Event loops tell the time in whole milliseconds, and may wake up one too early.
_TICK_S = 0.001
# Between the caller and us, and nothing to a model: the rest goes along.
_KEPT_BACK = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "transfer-encoding",
        "user-agent",
    }
)
# A worker whose frames take longer than this is lent nobody: carrying bytes is nothing beside its work, and it may be wanted back at once.
_LENDABLE_S = 0.1
_RELENT_S = 1.0
# With each frame, how long an exceptionally slow one took counts for less.
_FORGET = 0.9
# A request is given to a worker when there is this much more time left for it than a frame is expected to take.
_MARGIN = 1.5


@attrs.frozen
class Policy:
    """How a revision treats its requests."""

    queue: int = 1_000
    """Requests that may wait; one more is turned away with 429."""
    deadline_s: float = 30.0
    patience_s: float = 10.0
    """How long a request waits while no worker is there, such as after a crash."""
    max_batch: int = 256
    max_batch_bytes: int = 8 << 20
    retry_on_crash: bool = True
    """Whether a request whose worker died is sent once more; a model with side effects may not want that."""


class _Pending:
    __slots__ = ("alone", "deadline", "future", "request", "sent", "share", "started", "unit")

    def __init__(
        self, request: Request, future: asyncio.Future[Response], deadline: float, share: int | None, unit: Unit | None
    ) -> None:
        self.request = request
        self.future = future
        self.deadline = deadline
        self.share = share
        self.unit = unit
        self.started = time.perf_counter()
        self.sent = request.tried
        self.alone = bool(request.tried)


class Group:
    """One revision's queue and workers."""

    def __init__(
        self, revision: str, policy: Policy, meter: Meter, *, report: Callable[[str, str], None] | None = None
    ) -> None:
        self.revision = revision
        self.policy = policy
        self.meter = meter
        self.broken = ""
        """Why no worker will come, or empty."""
        self.links: dict[str, Link] = {}
        self.leaving: set[Link] = set()
        """Workers that get nothing more and still answer what they have."""
        self.breaker = Breaker()
        self._died: set[str] = set()
        self._idle: collections.deque[Link] = collections.deque()
        self._queue: collections.deque[_Pending] = collections.deque()
        self._woken = False
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = inf
        self._tidied_at = -inf
        self._closed = False
        self._frame_s = 0.0
        self._lends_at = -inf
        self._report = report or (lambda _event, _worker: None)
        self._loop = asyncio.get_running_loop()
        at_once = max(1, min(policy.max_batch, policy.max_batch_bytes // PLACE_BYTES))
        terms = Terms(at_once, policy.deadline_s, _KEPT_BACK)
        self.lending = Lending(self, terms, meter)

    @property
    def queued(self) -> int:
        """Requests that wait for a worker."""
        return sum(not pending.future.done() for pending in self._queue)

    @property
    def inflight(self) -> int:
        """Requests that a worker has."""
        batches = sum(len(link.batch) for link in (*self.links.values(), *self.leaving))
        return batches + self.lending.in_hand

    @property
    def ready(self) -> bool:
        """Whether a worker is there."""
        return bool(self.links)

    def submit(
        self, request: Request, within: float, share: int | None = None, unit: Unit | None = None
    ) -> asyncio.Future[Response]:
        """Have one request answered ``within`` so many seconds, whatever happens to the worker.

        Counted in the meter, under the ``share`` and the ``unit`` that the request was given with; see ``Meter.record``. Nobody who cancels
        the future is answered or counted.
        """
        wait = within if self.links else min(within, self.policy.patience_s)
        pending = _Pending(request, self._loop.create_future(), self._loop.time() + wait, share, unit)
        refusal = self._refusal(request)
        if refusal is not None:
            self.settle(pending, refusal)
            return pending.future
        self._queue.append(pending)
        self._look_by(pending.deadline)
        self._wake()
        return pending.future

    def settle(self, pending: _Pending, response: Response) -> None:
        """Answer, count, and name who answered; one who is answered already, or went away, is not."""
        if not pending.future.done():
            self.meter.record(response.status, time.perf_counter() - pending.started, pending.share, pending.unit)
            if response.headers.get(REVISION_HEADER) != self.revision:
                response = attrs.evolve(response, headers={**response.headers, REVISION_HEADER: self.revision})
            pending.future.set_result(response)

    def _refusal(self, request: Request) -> Response | None:
        if not self.links and (why := self._why_none_will_come()):
            return self._shed("broken", unavailable(f"revision {self.revision} is not serving: {why}"))
        if self.breaker.convicted and self.breaker.refuses(request.body):
            return failure(
                500, f"a request like this one killed the workers of revision {self.revision} again and again"
            )
        if len(self._queue) >= self.policy.queue and not self._made_room():
            message = f"revision {self.revision} has {len(self._queue)} requests waiting already"
            return self._shed("queue", failure(429, message, headers={"retry-after": "1"}))
        return None

    def _made_room(self) -> bool:
        """Take out who wants no answer any more; a flood of requests makes us look once in a tick."""
        now = self._loop.time()
        if now >= self._tidied_at + _TICK_S:
            self._tidied_at = now
            self._tidy()
        return len(self._queue) < self.policy.queue

    def _tidy(self) -> None:
        self._queue = collections.deque(pending for pending in self._queue if not pending.future.done())

    def _why_none_will_come(self) -> str:
        if self.broken or not self.breaker.hopeless(self.meter.outcomes["ok"]):
            return self.broken
        return "its workers die, and nothing has succeeded since"

    def _shed(self, reason: str, response: Response) -> Response:
        self.meter.shed[reason] += 1
        return response

    # Deadlines. One timer for all of them: most requests are answered long before theirs, and pay no more than a comparison.

    def _look_by(self, deadline: float) -> None:
        if deadline < self._looks_at:
            if self._timer is not None:
                self._timer.cancel()
            self._looks_at = deadline
            self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        """Answer whose time is up, give up workers that hang, and come back when the next deadline passes."""
        self._timer, self._looks_at = None, inf
        now = self._loop.time() + _TICK_S
        for pending in [each for each in self._unanswered() if each.deadline <= now]:
            self.settle(pending, self._too_late(pending))
        for link in [link for link in self._busy() if link.hangs_at <= now]:
            self._give_up(link)
        self._tidy()
        deadlines = [pending.deadline for pending in self._unanswered()]
        deadlines += [link.hangs_at for link in self._busy()]
        if deadlines:
            self._look_by(min(deadlines))

    def _unanswered(self) -> Iterator[_Pending]:
        waiting = [self._queue, *(link.batch.values() for link in self._busy())]
        return (pending for each in waiting for pending in each if not pending.future.done())

    def _busy(self) -> list[Link]:
        return [link for link in (*self.links.values(), *self.leaving) if link.batch]

    def _too_late(self, pending: _Pending) -> Response:
        if pending.sent:
            return failure(504, f"revision {self.revision} did not answer in time")
        # No worker has seen it: it may be repeated, whatever the model does.
        if self.links:
            return self._shed("late", unavailable(f"revision {self.revision} had no worker free in time"))
        return self._shed("no_worker", unavailable(f"revision {self.revision} has no worker ready"))

    def _give_up(self, link: Link) -> None:
        """Let go of a worker that does not answer; its requests had their answer (504) by now."""
        self._count_death(link)
        self._let_go(link)
        self._report("hung", link.worker)

    # Batches.

    def _wake(self) -> None:
        # Not at once but after this turn of the loop, so that what was read in the same turn goes out in one frame.
        if self._idle and not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._woken = False
        while self._queue and self._idle:
            share = -(-len(self._queue) // len(self._idle))
            batch = self._take(min(share, self.policy.max_batch))
            if batch:
                self._next_idle().send(batch)

    def _next_idle(self) -> Link:
        """Take the worker that has been idle for longest; before any that works on what lent clients asked."""
        free = (link for link in self._idle if not self.lending.at_work(link.worker))
        link = next(free, None) or self._idle[0]
        self._idle.remove(link)
        return link

    def _take(self, count: int) -> list[_Pending]:
        soonest = self._loop.time() + _MARGIN * self._frame_s
        batch: list[_Pending] = []
        size = 0
        while self._queue and len(batch) < count:
            pending = self._queue[0]
            size += len(pending.request.body)
            if batch and (pending.alone or size > self.policy.max_batch_bytes):
                break
            self._queue.popleft()
            if self._queue and pending.deadline < soonest and not pending.sent and not pending.future.done():
                # Its answer would come too late, and there are others whose answers would not.
                self.settle(pending, self._too_late(pending))
            if pending.future.done():  # its deadline passed, or its client went away
                size -= len(pending.request.body)
                continue
            batch.append(pending)
            if pending.alone:
                break
        return batch

    async def connect(self, worker: str, address: str) -> None:
        """Connect to a worker that listens at ``address``; OSError when it does not."""
        link = Link(self, worker)
        if address.startswith("tcp:"):
            host, _colon, port = address.removeprefix("tcp:").rpartition(":")
            await self._loop.create_connection(lambda: link, host, int(port))
        else:
            await self._loop.create_unix_connection(lambda: link, address)
        if link.ended:
            raise ConnectionResetError
        self.links[worker] = link
        self.lending.know(worker, address)
        self.freed(link)

    def lend(self, connection: Connection, repeat: Repeat) -> bool:
        """Lend a client to a worker; False where that is of no use now, or a crash must not have a request sent again."""
        busy = self._frame_s > _LENDABLE_S or self._loop.time() < self._lends_at or self.breaker.open
        if self._closed or busy or not self.policy.retry_on_crash:
            return False
        return self.lending.lend(connection, repeat, self.links)

    def works(self, worker: str, seconds: float) -> None:
        """Take note of how long a worker has worked on what lent clients asked, 0 when it is done; one that hangs is given up."""
        link = self.links.get(worker)
        if seconds > _LENDABLE_S:
            self._lends_at = self._loop.time() + _RELENT_S
            self.lending.ask_back()
        if link is None:
            return
        if seconds > self.policy.deadline_s:
            self._give_up(link)
        elif not link.batch and link not in self._idle and not seconds:
            self.freed(link)
        elif seconds > _LENDABLE_S:
            self._unlist(link)

    def died(self, worker: str) -> None:
        """Let go of a worker that ended with requests of lent clients, so that it is not given them again."""
        link = self.links.get(worker)
        if link is not None:
            self._unlist(link)
            link.close()

    def took(self, seconds: float) -> None:
        """Take note of how long a frame took: what the next one is expected to take at most."""
        self._frame_s = max(seconds, _FORGET * self._frame_s)
        if seconds > _LENDABLE_S:
            # Who waits in the queue can go to any worker, and who is lent only to the one that has him.
            self.lending.ask_back()

    def freed(self, link: Link) -> None:
        """Take note that a worker has nothing to do; what waits is given to it at once, so that it works while answers are written."""
        if self.links.get(link.worker) is link:
            self._idle.append(link)
            self._flush()
        elif link in self.leaving:
            link.close()

    def lost(self, link: Link) -> None:
        """Take note that a connection ended; what its worker had goes to another one, or is answered with the failure."""
        self._remove(link)
        if not link.dismissed:
            self._count_death(link)
            self._report("lost", link.worker)
        for pending in reversed(link.batch.values()):
            if pending.future.done():
                continue
            if self._closed:
                self.settle(pending, self._stopped())
            elif self.policy.retry_on_crash and pending.sent < 2:  # noqa: PLR2004 - once more, not for ever
                # Alone: if one request of the batch killed the worker, it must not take the others along again.
                pending.alone = True
                self.meter.retried += 1
                self._queue.appendleft(pending)
                self._look_by(pending.deadline)
            else:
                if pending.alone:
                    self.breaker.convict(pending.request.body)
                message = f"the worker of revision {self.revision} died while it answered"
                self.settle(pending, failure(500, message))
        link.batch.clear()
        self._wake()

    def _count_death(self, link: Link) -> None:
        if link.worker in self._died:
            # The socket it listens on outlives its connections by a moment, in which we may have connected to it again.
            return
        self._died.add(link.worker)
        self.meter.restarts += 1
        # First those whose worker died, each alone.
        self._lends_at = self._loop.time() + _RELENT_S
        self.lending.harvest()
        busy = bool(link.batch) or self.lending.at_work(link.worker)
        self.breaker.crashed(self.meter.outcomes["ok"], busy=busy)

    def dismiss(self, worker: str) -> None:
        """Let go of a worker at once."""
        link = self.links.get(worker)
        if link is not None:
            self._let_go(link)

    def _let_go(self, link: Link) -> None:
        self._remove(link)
        link.dismissed = True
        link.close()

    def drop(self, worker: str) -> None:
        """Take note that a worker has died, whose connection is not known to have ended yet."""
        self.links[worker].close()
        self.lending.died(worker)

    def release(self, worker: str) -> None:
        """Let go of a worker that is to end: it gets nothing more, and answers what it has."""
        link = self.links.get(worker)
        if link is not None and link.batch:
            self._remove(link)
            link.dismissed = True
            self.leaving.add(link)
        elif link is not None:
            self._let_go(link)

    def _remove(self, link: Link) -> None:
        self.lending.forget(link.worker)
        self.leaving.discard(link)
        if self.links.get(link.worker) is link:
            del self.links[link.worker]
        self._unlist(link)

    def _unlist(self, link: Link) -> None:
        if link in self._idle:
            self._idle.remove(link)

    async def drained(self, grace: float) -> bool:
        """Wait until nothing waits or is in flight; False when that took longer than ``grace`` seconds."""
        end = self._loop.time() + grace
        while self.queued or self.inflight or len(self.lending):
            if self._loop.time() > end:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def close(self) -> None:
        """Let go of every worker; whoever still waits is told that the revision is gone."""
        self._closed = True
        for worker in list(self.links):
            self.dismiss(worker)
        for link in list(self.leaving):
            link.close()
        while self._queue:
            self.settle(self._queue.popleft(), self._stopped())
        self.lending.close()
        if self._timer is not None:
            self._timer.cancel()

    def _stopped(self) -> Response:
        return unavailable(f"revision {self.revision} was stopped")


class Link(asyncio.Protocol):
    """The connection to one worker; one frame is under way at a time."""

    def __init__(self, group: Group, worker: str) -> None:
        self.worker = worker
        self.dismissed = False
        self.ended = False
        self._since = 0.0
        self.batch: dict[int, _Pending] = {}
        self._group = group
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.hangs_at = inf
        """When it must have answered what it has."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport can be written to

    def send(self, batch: list[_Pending]) -> None:
        """Give the worker a batch."""
        self.batch = dict(enumerate(batch))
        for pending in batch:
            pending.sent += 1
        # Not before the revision's own deadline: a caller in a hurry must not have a worker taken for one that hangs.
        self._since = time.monotonic()
        latest = max(pending.deadline for pending in batch)
        self.hangs_at = max(latest, self._loop.time() + self._group.policy.deadline_s) + _HANG_GRACE_S
        if self._transport is not None:
            asked = [(number, pending.request) for number, pending in self.batch.items()]
            self._transport.write(encode_requests(asked, without=_KEPT_BACK))

    def data_received(self, data: bytes) -> None:
        """Hand answers to whoever waits for them, after the worker has something to do again."""
        try:
            for frame in self._frames.feed(data):
                self._answered(decode_responses(frame))
        except FrameError:
            self.close()

    def _answered(self, answers: list[tuple[int, Response]]) -> None:
        if not answers:  # it is about to end
            self._group.release(self.worker)
            return
        found = [(pending, answer) for number, answer in answers if (pending := self.batch.pop(number, None))]
        if not self.batch and self.hangs_at < inf:
            self.hangs_at = inf
            self._group.took(time.monotonic() - self._since)
            self._group.freed(self)
        for pending, answer in found:
            self._group.settle(pending, answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop passes it
        """Tell the group."""
        self.ended = True
        self._group.lost(self)

    def close(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()
