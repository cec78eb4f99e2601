"""What the batch service of a cloud must be able to do for a job of ours: hold objects, and run over some of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import attrs


class Object(Protocol):
    """An object as a listing shows it."""

    @property
    def key(self) -> str:
        """Its name in the store."""
        ...


class Objects(Protocol):
    """A store of objects, by key."""

    def put(self, key: str, data: bytes, *, kind: str = ...) -> None:
        """Write one whole."""
        ...

    def get(self, key: str) -> bytes:
        """Read one whole."""
        ...

    def below(self, prefix: str) -> Iterable[Object]:
        """List those below a prefix."""
        ...

    def delete(self, keys: list[str]) -> None:
        """Delete these; those that are gone are no error."""
        ...


class Sizes(Protocol):
    """In what portions a job is done."""

    @property
    def parts_per_job(self) -> int:
        """Parts that one run scores."""
        ...

    @property
    def rows_per_part(self) -> int:
        """Rows in a part."""
        ...

    @property
    def max_payload_mb(self) -> int:
        """The most that a row may have, in megabytes."""
        ...


class Word(Protocol):
    """A word of the service for where a run stands."""

    @property
    def value(self) -> str:
        """The word."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        ...


class Look(Protocol):
    """A run as it is shown."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def status(self) -> Word:
        """Where it stands."""
        ...

    @property
    def reason(self) -> str:
        """Why it failed."""
        ...

    @property
    def blames_rows(self) -> bool:
        """Whether rows, or the model with them, are to blame for what did not come back, and not the service."""
        ...


@attrs.frozen
class Order:
    """A run that is wanted: over the objects ``names`` below ``source``, with its answers below ``output``."""

    name: str
    model: str
    names: tuple[str, ...]
    source: str
    listing: str
    """A key of its own, by which the objects may be listed or gathered."""
    output: str
    payload_mb: int = 1
    instances: int = 1


class Runs(Protocol):
    """The runs of a service; each call may be repeated."""

    @property
    def word(self) -> str:
        """What the service calls one."""
        ...

    def prepare(self, order: Order) -> None:
        """Do what must be there before the run is asked for."""
        ...

    def create(self, order: Order) -> Look:
        """Ask for it, or find it asked for; ConflictError when other work bears its name."""
        ...

    def see(self, name: str) -> Look | None:
        """Look at it; None when there is none."""
        ...

    def stop(self, name: str) -> None:
        """Ask it to stop; one that is gone or has ended is fine."""
        ...

    def lines(self, name: str) -> list[str]:
        """Give the last lines of its log; none when there are none."""
        ...
