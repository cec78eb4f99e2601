"""Connections that a worker answers by itself, because there is nothing to decide about them.

While an endpoint has one revision and a client sends the same head again and again, the front would only carry bytes. So it lends the
client's socket to the worker, which reads, predicts and writes; two processes need not wake for each request. The front keeps the socket
too, and takes the client back when anything is out of the ordinary: another head, a failure, a client that is silent, a change of the
traffic, the death of the worker. What the worker had read and not answered it finds in the ``Ledger``; no request is lost or answered twice.

A loan ends when the worker says so, or when its channel ends, for two must not write to one client. There is one exception: while a worker
predicts it reads nothing, and when it has been told meanwhile to read nothing more, the clients that it had not read from are free.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Collection, Iterable
from math import inf
from typing import Protocol

import attrs

from modeldeploy.serving.connection import Connection
from modeldeploy.serving.head import Repeat
from modeldeploy.serving.ledger import PLACES, Ledger, Leftover, Position, unread_bytes
from modeldeploy.serving.lent import BACK, MESSAGE, RECALL, TERMS, tell
from modeldeploy.serving.link import LOANS, can_lend
from modeldeploy.serving.messages import Response, failure
from modeldeploy.serving.meters import Meter

_SHARE = 100
_LOOK_S = 0.1
_AGAIN_S = 0.002
_LONGEST = 4_096
_NOTHING = Leftover()
_log = logging.getLogger(__name__)


@attrs.frozen
class Terms:
    """What holds for every connection that a revision lends."""

    requests: int
    """How many a worker takes at once."""
    deadline_s: float
    """A request that a worker has had for longer is not sent to another."""
    without: Collection[str]
    """Headers that are of no use to a worker."""


class Owner(Protocol):
    """Who has the workers, and is told of them."""

    def works(self, worker: str, seconds: float) -> None:
        """Take note that a worker has worked for so long on what it took; 0 when it is done."""

    def died(self, worker: str) -> None:
        """Take note that a worker ended with requests in hand; they come next."""


class Lending:
    """What the workers of one revision are lent."""

    def __init__(self, owner: Owner, terms: Terms, meter: Meter) -> None:
        self._owner = owner
        self._terms = terms
        self._meter = meter
        self._addresses: dict[str, str] = {}
        self._loans: dict[str, Loans] = {}

    def __len__(self) -> int:
        """Count the connections that workers have."""
        return sum(map(len, self._loans.values()))

    @property
    def in_hand(self) -> int:
        """Requests that workers have."""
        return sum(loans.in_hand for loans in self._loans.values())

    def at_work(self, worker: str) -> bool:
        """Whether a worker works on what lent clients asked."""
        return worker in self._loans and bool(self._loans[worker].in_hand)

    def know(self, worker: str, address: str) -> None:
        """Lend to one more; what the others have is asked back, so that it gets its share."""
        if can_lend():
            self._addresses[worker] = address
        self.ask_back()
        self._loans = {name: loans for name, loans in self._loans.items() if not loans.ended}

    def lend(self, connection: Connection, repeat: Repeat, workers: Iterable[str]) -> bool:
        """Lend a client to the worker that has the fewest; False when it cannot be."""
        able = [loans for worker in workers if (loans := self._loans_of(worker)) is not None]
        return bool(able) and min(able, key=len).lend(connection, repeat)

    def _loans_of(self, worker: str) -> Loans | None:
        if worker not in self._loans and (address := self._addresses.pop(worker, None)) is not None:
            try:
                loans = Loans(self._owner, worker, address, self._terms, self._meter)
            except OSError as error:
                _log.debug("worker %s is lent nothing: %s", worker, error)
            else:
                self._loans[worker] = loans
        return self._loans.get(worker)

    def ask_back(self) -> None:
        """Ask for everything, and do not wait for it."""
        for loans in self._loans.values():
            loans.ask_back()

    async def recall(self, within: float) -> None:
        """Have everything given back; what takes longer than so many seconds comes later."""
        self.ask_back()
        # No task is made, nor a turn of the loop taken: the clients who are back already ask again, and would come first.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                for loans in list(self._loans.values()):
                    await loans.returned()

    def forget(self, worker: str) -> None:
        """Lend a worker nothing more, and ask back what it has."""
        self._addresses.pop(worker, None)
        if worker in self._loans:
            self._loans[worker].close()

    def died(self, worker: str) -> None:
        """Go on with what a worker had whose process is gone."""
        if worker in self._loans:
            self._loans.pop(worker).end()

    def harvest(self) -> None:
        """Count what workers answered."""
        for loans in self._loans.values():
            loans.harvest()

    def close(self) -> None:
        """Ask everything back, and lend nothing more."""
        self._addresses.clear()
        for loans in list(self._loans.values()):
            loans.close()


class Loans:
    """What one worker is lent."""

    def __init__(self, owner: Owner, worker: str, address: str, terms: Terms, meter: Meter) -> None:
        """Connect; OSError when the worker takes no loans."""
        self._owner = owner
        self._worker = worker
        self._terms = terms
        self._meter = meter
        self._loop = asyncio.get_running_loop()
        self._lent: dict[int, tuple[Connection, Position]] = {}
        self._free = list(range(PLACES))
        self._freed: set[int] = set()
        """Places whose clients are back, of which the worker does not know."""
        self._late = self._closing = self._revoked = False
        self._turns, self._since = 0, inf
        """How often it had ended a turn, and since when it is seen to work on the next."""
        self._timer: asyncio.TimerHandle | None = None
        self._none_left = asyncio.Event()
        self._none_left.set()
        self.ended = False
        with contextlib.ExitStack() as undo:
            self._channel = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self._channel.settimeout(0)
            self._channel.connect(address + LOANS)
            self._ledger = Ledger.make()
            undo.callback(self._ledger.close)
            socket.send_fds(self._channel, [TERMS.pack(terms.requests)], [self._ledger.descriptor])
            undo.pop_all()
        self._loop.add_reader(self._channel.fileno(), self._heard)

    def __len__(self) -> int:
        return len(self._lent)

    @property
    def in_hand(self) -> int:
        """Requests that the worker has."""
        return 0 if self.ended else self._ledger.in_hand

    def lend(self, connection: Connection, repeat: Repeat) -> bool:
        """Lend a connection that nobody reads; False when it cannot be."""
        if (
            self.ended
            or self._closing
            or self._revoked
            or not self._free
            or len(repeat.before) + len(repeat.after) > _LONGEST
        ):
            return False
        place = self._free[-1]
        try:
            with socket.socket(fileno=os.dup(connection.descriptor())) as sock:
                position = Position.of(sock)
                self._ledger.open(place)
                socket.send_fds(self._channel, [tell(place, self._fit(repeat))], [sock.fileno()])
        except OSError as error:
            _log.debug("a connection is not lent: %s", error)
            return False
        self._free.pop()
        self._lent[place] = connection, position
        self._none_left.clear()
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_S, self._look)
        return True

    def _fit(self, repeat: Repeat) -> Repeat:
        head, without = repeat.head, self._terms.without
        headers = {name: text for name, text in head.headers.items() if name not in without}
        return attrs.evolve(repeat, head=attrs.evolve(head, headers=headers))

    async def returned(self) -> None:
        """Wait until everything is given back but the requests that the worker has in hand."""
        while self._lent and not self._free_unread():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await self._none_left.wait()

    def close(self) -> None:
        """Ask everything back, and end when it is there."""
        self._closing = True
        if self._lent:
            self.ask_back()
        else:
            self.end()

    def ask_back(self) -> None:
        """Ask for everything, and do not wait for it."""
        if not self._lent or self.ended:
            return
        self._revoked = True
        self._ledger.revoke(revoked=True)
        with contextlib.suppress(OSError):  # a worker so far behind looks at the ledger
            self._channel.send(RECALL)
        self._free_unread()

    def _free_unread(self) -> bool:
        """Take back whom a worker that predicts has not read from; False when it does not predict, and gives back everybody soon."""
        if self.ended or not self._revoked or not self._ledger.in_hand:
            return False
        for place in list(self._lent):
            if self._left(place) == _NOTHING:
                self._freed.add(place)
                self._take_back(place, _NOTHING)
        return True

    def harvest(self) -> None:
        """Count what was answered."""
        if self.ended:
            return
        buckets, seconds = self._ledger.news()
        if buckets:
            self._meter.record_many(buckets, seconds, _SHARE)

    def _heard(self) -> None:
        try:
            data = self._channel.recv(MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        self.harvest()
        for place, rest in BACK.iter_unpack(data):
            if place in self._freed:
                self._freed.discard(place)
            else:
                self._take_back(place, self._left(place) if rest else _NOTHING)
            self._free.append(place)
        if self._revoked and not self._lent and not self._freed:
            self._ledger.revoke(revoked=False)
            self._revoked = False
        if self._closing and not self._lent:
            self.end()

    def _left(self, place: int) -> Leftover | None:
        connection, before = self._lent[place]
        try:
            with socket.socket(fileno=os.dup(connection.descriptor())) as sock:
                return self._ledger.leftover(place, Position.of(sock).since(before))
        except OSError:  # the client is gone
            return None

    def _take_back(self, place: int, left: Leftover | None, refusal: Response | None = None) -> None:
        connection, _before = self._lent.pop(place)
        if not self._lent:
            self._none_left.set()
        if left is not None and left.request and self.ended:
            self._meter.retried += refusal is None
            if refusal is not None:
                self._meter.record(refusal.status, self._terms.deadline_s, _SHARE)
        try:
            connection.give_back(left, refusal, tried=int(self.ended))
        except Exception:  # noqa: BLE001 - whatever one client does, the others are taken back
            _log.exception("a client could not be taken back")
            connection.abort()

    def _look(self) -> None:
        """Count, and see whether the worker still turns."""
        self._timer = None
        if self.ended:
            return
        self.harvest()
        now, turns = self._loop.time(), self._ledger.turns
        self._free_unread()
        if turns != self._turns or not (self._ledger.in_hand or self._unread()):
            self._turns, self._late = turns, False
            if self._since < inf:
                self._since = inf
                self._owner.works(self._worker, 0.0)
        elif self._since == inf:
            self._since = now
        else:
            self._late = now - self._since > self._terms.deadline_s
            self._owner.works(self._worker, now - self._since)
        if self._lent or self._since < inf:
            self._timer = self._loop.call_later(_LOOK_S, self._look)

    def _unread(self) -> bool:
        """Whether a client waits to be read from, which a worker that turns does at once."""
        for connection, _before in self._lent.values():
            with contextlib.suppress(OSError):
                if unread_bytes(connection.descriptor()):
                    return True
        return False

    def end(self) -> None:
        """Go on with what the worker had, which is gone."""
        if self.ended:
            return
        self.harvest()
        self.ended = True
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._lent:
            self._owner.died(self._worker)
        refusal = failure(504, f"revision {self._meter.revision} did not answer in time") if self._late else None
        for place in list(self._lent):
            self._take_back(place, self._left(place), refusal)
        self._ledger.close()
