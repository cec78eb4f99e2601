"""The fan-out of events: each goes to every sink; a sink that raises is reported once and dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeAlias

from modeldeploy.values.events import Event, Level

Sink: TypeAlias = Callable[[Event], object]


class Sinks:
    """Where one session's events go; call it with an event. Safe to use from several threads.

    >>> seen = []
    >>> sinks = Sinks()
    >>> unsubscribe = sinks.subscribe(seen.append)
    >>> unsubscribe()
    """

    def __init__(self, *sinks: Sink) -> None:
        self._lock = threading.Lock()
        self._sinks: tuple[Sink, ...] = sinks

    def __call__(self, event: Event) -> None:
        """Give the event to every sink, in the order of subscription; never raises what a sink raises."""
        for sink in self._sinks:
            try:
                sink(event)
            except Exception as error:  # noqa: BLE001 - what watches the work must not stop it
                self._drop(sink, event, error)

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Add a sink and give the function that takes it away again. It is called in the thread that does the work: be quick."""
        with self._lock:
            self._sinks = (*self._sinks, sink)

        def unsubscribe() -> None:
            self._remove(sink)

        return unsubscribe

    def _remove(self, sink: Sink) -> bool:
        with self._lock:
            left = tuple(each for each in self._sinks if each is not sink)
            gone, self._sinks = len(left) < len(self._sinks), left
        return gone

    def _drop(self, sink: Sink, event: Event, error: Exception) -> None:
        # Two threads may fail in one sink at the same time; the one that takes it out reports it.
        if self._remove(sink):
            from modeldeploy.observe import log

            name = getattr(sink, "__qualname__", type(sink).__qualname__)
            fields = {"sink": name, "during": event.name.value, "error": f"{type(error).__name__}: {error}"}
            log.write("sink.dropped", Level.WARNING, fields)
