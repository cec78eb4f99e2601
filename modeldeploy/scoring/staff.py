"""The workers of one run: the first begins while the job is planned, others where they pay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from modeldeploy.scoring import sharing
from modeldeploy.scoring.growth import Growth
from modeldeploy.scoring.job import Job, Request
from modeldeploy.scoring.pool import Pool

PoolOf = Callable[[Job, int], Pool]


class Staff:
    """Holds the pool, and decides how large it is."""

    def __init__(self, job: Job, request: Request, pool_of: PoolOf) -> None:
        self._job = job
        self._asked = request.spec.workers
        self._pool_of = pool_of
        self._seats = 0
        self._pool: Pool | None = None
        if sharing.is_large(request.spec):
            # A model takes seconds to load, and planning does not need it.
            self._open(sharing.most(request.spec))

    def _open(self, most: int) -> Pool:
        self._most, self._growth = most, Growth(most)
        self._pool = self._pool_of(self._job, most)
        self._seats = self._pool.start()
        self._growth.started(self._seats)
        return self._pool

    def settle(self, parts: int) -> Pool:
        """Give the pool for so many parts: as many workers as were asked for; one, to begin with, where that is left to us."""
        most = max(1, min(self._asked or sharing.cores(), parts))
        pool = self._pool
        if pool is None or self._most != most:
            # The first guess would share the cores among seats that have nothing to do.
            self.close()
            pool = self._open(most)
        while self._asked and self._seats < most:
            self._add(pool)
        return pool

    def _add(self, pool: Pool) -> None:
        seats = pool.start()
        self._seats += seats
        self._growth.started(seats)

    def ready(self) -> None:
        """Note that a worker has loaded the model."""
        self._growth.ready()

    def grow(self, *, waiting: int, taken: int) -> None:
        """Add a worker if that pays; see ``Growth.pays``."""
        if self._pool is not None and self._growth.pays(waiting=waiting, taken=taken):
            self._add(self._pool)

    def dismiss(self) -> None:
        """Let all workers end at once, without waiting until they have."""
        if self._pool is not None:
            self._pool.dismiss()

    def close(self) -> None:
        """End all workers, and wait until they have ended."""
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
