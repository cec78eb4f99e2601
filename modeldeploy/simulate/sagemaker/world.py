"""Everything that exists in the simulated account, and the lock that guards it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

import attrs

from modeldeploy.simulate.clock import Clock
from modeldeploy.simulate.sagemaker.errors import exists, not_found
from modeldeploy.simulate.sagemaker.faults import Faults
from modeldeploy.simulate.sagemaker.site import Site

Json = dict[str, Any]
_log = logging.getLogger(__name__)


@attrs.frozen
class Timings:
    """How long the service takes, in its own seconds."""

    create: float = 60.0
    update: float = 60.0
    weights: float = 30.0
    rollback: float = 30.0
    delete: float = 30.0
    transform: float = 60.0
    cold_start: float = 10.0
    idle: float = 300.0
    """How long a serverless container is kept without a request."""
    metrics: float = 60.0
    """The length of one slot of the metrics."""
    late: float = 0.0
    """How long after its end a slot of the metrics can be read; the real one takes a minute or two."""
    watch: float = 10.0
    """How often alarms are looked at while a deployment bakes."""


class StoppedError(Exception):
    """The simulator ends; whoever waits for the service's time gives up."""


@attrs.define(eq=False)
class Record:
    """A thing that was created and does not change: a model, or a configuration."""

    name: str
    arn: str
    request: Json
    created: float
    visible_at: float = 0.0


T = TypeVar("T", bound=Record)


@attrs.define(eq=False)
class Shelf(Generic[T]):
    """The things of one kind by their names, which differ in more than upper and lower case."""

    kind: str
    """As its names of resources have it."""
    called: str
    """As the service's messages call it."""
    site: Site
    clock: Clock
    items: dict[str, T] = attrs.field(factory=dict)

    def arn(self, name: str) -> str:
        """Name a thing of this kind."""
        return self.site.arn(self.kind, name)

    def get(self, name: str) -> T:
        """Find a thing that is there and may be seen already; the service's error otherwise."""
        found = self.items.get(name.lower())
        if found is None or found.visible_at > self.clock.now():
            raise not_found(self.called, self.arn(name))
        return found

    def add(self, item: T) -> None:
        """Put a new thing; the service's error when the name is taken."""
        self.check_free(item.name)
        self.items[item.name.lower()] = item

    def check_free(self, name: str) -> None:
        """Raise the service's error when the name is taken."""
        if name.lower() in self.items:
            raise exists(self.called, self.arn(name))

    def remove(self, name: str) -> T:
        """Take a thing away and give it; the service's error when it is not there."""
        found = self.get(name)
        del self.items[name.lower()]
        return found

    def values(self) -> Iterable[T]:
        """Give what may be seen."""
        now = self.clock.now()
        return [each for each in self.items.values() if each.visible_at <= now]


@attrs.define(eq=False)
class World:
    """What the parts of the simulator share."""

    site: Site
    clock: Clock
    faults: Faults
    timings: Timings
    lock: threading.RLock = attrs.field(factory=threading.RLock)
    tags: MutableMapping[str, dict[str, str]] = attrs.field(factory=dict)
    stopping: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def wait(self, seconds: float) -> None:
        """Let seconds of the service pass; StoppedError when the simulator ends."""
        if self.clock.wait(seconds, self.stopping):
            raise StoppedError

    def go(self, name: str, work: Callable[[], None]) -> None:
        """Do something beside what callers ask for, as the service does."""

        def run() -> None:
            try:
                work()
            except StoppedError:
                return
            except Exception:  # noqa: BLE001 - it is in the log, and nobody waits for it
                _log.exception("%s failed", name)

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self.lock:
            self._threads = [each for each in self._threads if each.is_alive()]
            self._threads.append(thread)
        thread.start()

    def visible_at(self) -> float:
        """Tell when something that is made now is found by those who look for it."""
        return self.clock.after(self.faults.lag_s) if self.faults.lag_s else 0.0

    def stop(self) -> None:
        """Wake whoever waits, and wait until they have ended."""
        self.stopping.set()
        for thread in list(self._threads):
            thread.join()

    def tag(self, arn: str, tags: Iterable[Mapping[str, str]]) -> None:
        """Keep the tags that a thing was created with."""
        self.tags[arn] = {each["Key"]: each["Value"] for each in tags}
