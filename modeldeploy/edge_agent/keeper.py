"""Keeps one release served: starts it, restarts it when it dies, lets a new one take its place without closing the port."""

from __future__ import annotations

import logging
import select
import socket
import time
from collections.abc import Callable

from modeldeploy.edge_agent import durable
from modeldeploy.edge_agent.child import Child, Order
from modeldeploy.edge_agent.config import Config
from modeldeploy.edge_agent.slots import Slot
from modeldeploy.errors import IntegrityError
from modeldeploy.serving.breaker import Breaker

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_START_S = 30.0
_LOOK_S = 0.2
_log = logging.getLogger(__name__)


class Keeper:
    """What is served on the agent's port."""

    def __init__(self, config: Config, listener: socket.socket, *, check: Callable[[], None] = lambda: None) -> None:
        self._config = config
        self._listener = listener
        self._check = check
        self.child: Child | None = None
        self.slot: Slot | None = None
        self.since = 0.0
        """When what is served was put there, by the monotonic clock."""
        self.deaths = 0
        """How often it has died since."""
        self.reason = ""
        """Why it died last."""
        self._breaker = Breaker()
        self._pause = _FIRST_PAUSE_S
        self._again_at = 0.0

    @property
    def up(self) -> bool:
        """Whether something answers."""
        return self.child is not None and self.child.serving and not self.child.ended()

    @property
    def settled_for(self) -> float:
        """For how many seconds the process that answers has been there; 0 while there is none."""
        return time.monotonic() - max(self.since, self.child.began) if self.child is not None else 0.0

    @property
    def failing(self) -> bool:
        """Whether what is served has died three times within a minute."""
        return self._breaker.open

    # A new release

    def prove(self, slot: Slot) -> Child:
        """Start a server that passes the self-test of a release and waits; IntegrityError says why it did not."""
        child = Child(self._order(slot), self._listener)
        try:
            self._hear(child, lambda: child.proved or bool(child.failed), self._config.selftest)
        except BaseException:
            child.kill()
            raise
        if child.proved:
            return child
        over = child.failed or child.ended()
        child.kill()
        child.close()
        reason = child.reason if over else f"it did not end within {self._config.selftest:g} s"
        message = f"release {slot.release.revision!r} failed its self-test on this device: {reason}"
        raise IntegrityError(message, hint="the device keeps what it has")

    def serve(self, slot: Slot, child: Child) -> None:
        """Let a proved server answer, and only then the one before it end."""
        child.go()
        self._hear(child, lambda: child.serving, _START_S)
        durable.reached("serve")
        before = self.child
        self._put(slot, child)
        if before is not None:
            before.retire()
        durable.reached("retire")

    def resume(self, slot: Slot) -> None:
        """Serve a slot whose server is still to be started, as after its own end."""
        self.stop()
        self._put(slot, None)
        self.mind()

    def stop(self) -> None:
        """Serve nothing."""
        child, self.child, self.slot = self.child, None, None
        if child is not None:
            child.retire()

    def _put(self, slot: Slot, child: Child | None) -> None:
        self.slot, self.child = slot, child
        self.since, self.deaths, self.reason = time.monotonic(), 0, ""
        self._breaker, self._pause, self._again_at = Breaker(), _FIRST_PAUSE_S, 0.0

    def _order(self, slot: Slot) -> Order:
        return Order(slot.path / "bundle", slot.release.revision, self._config.grace, slot.site)

    def _hear(self, child: Child, said: Callable[[], bool], seconds: float) -> None:
        """Wait until it has said something, has ended, or the time has; what is served is kept up meanwhile."""
        deadline = time.monotonic() + seconds
        while not (said() or child.ended() or time.monotonic() > deadline):
            select.select([child], [], [], max(0.0, min(_LOOK_S, deadline - time.monotonic())))
            child.read()
            self.mind()
            self._check()
        child.read()

    # What is served

    def mind(self) -> None:
        """Start again what has ended, end what hangs; never waits."""
        child = self.child
        if child is None:
            if self.slot is not None and time.monotonic() >= self._again_at:
                self.child = Child(self._order(self.slot), self._listener)
            return
        child.read()
        if child.proved:
            child.go()
        if self._hangs(child):
            _log.warning("%s does not answer the agent and is ended", child.order.revision)
            child.kill()
        if child.ended():
            self._note_end(child)

    def ask(self) -> None:
        """Ask what is served how it is; ``mind`` hears the answer."""
        if self.child is not None and self.child.serving:
            self.child.ask()

    def _hangs(self, child: Child) -> bool:
        starting = not child.serving and time.monotonic() - child.began > self._config.selftest + _START_S
        return starting or child.silent > self._config.patience

    def _note_end(self, child: Child) -> None:
        child.read()
        child.close()
        self.child, self.reason = None, child.reason
        self.deaths += 1
        self._breaker.crashed()
        self._again_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        _log.warning("%s ended and is started again: %s", child.order.revision, self.reason)
