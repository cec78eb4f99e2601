"""Endpoints of this machine under load, whose callers keep their own books and know what stable alone would have answered.

Every request carries two numbers, drawn for it alone and uniform in 0-1. Stable fails where the first is below its rate, a new revision where
the second is below its own: so both fail at random and independently of each other, a second try of the same revision changes nothing however
requests are batched, and the callers can tell for each single request whether stable would have failed. That the callers see no more errors
than stable alone gives is then no matter of chance.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import shutil
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pytest

from modeldeploy import Endpoint, Model
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.handles.session import Session

FIRST, SECOND = 0, 1
TIMEOUT_S = 60.0
_NEWCOMERS, _REMEMBERED = 3 / 4, 40


class Faulty:
    """Adds its two inputs up; fails where the number in ``column`` is below ``rate``, after ``seconds``, and ``wrong`` adds to the sum.

    Its example holds numbers below 0, at which it does all right: whatever checks it before it takes traffic finds nothing.
    """

    def __init__(
        self, column: int, rate: float, *, seconds: float = 0.0, hangs: bool = False, wrong: float = 0
    ) -> None:
        self.column = column
        self.rate = rate
        self.seconds = seconds
        self.hangs = hangs
        self.wrong = wrong

    def predict(self, x):
        import time

        given = np.asarray(x, dtype=float)
        draws = given[:, self.column]
        real = bool((draws >= 0).any())
        if self.seconds and real:
            time.sleep(self.seconds)
        if self.hangs and real:
            time.sleep(3600)
        if ((draws >= 0) & (draws < self.rate)).any():
            message = "a fault of the model's own"
            raise RuntimeError(message)
        return given.sum(axis=1) + self.wrong * real


class Answer(NamedTuple):
    """What one caller wrote down about one request."""

    at: float
    """Seconds since the epoch when it was sent."""
    seconds: float
    draws: tuple[float, float]
    key: str
    status: int
    revision: str
    failed_first: str
    """The revision that failed before this answer was given."""
    body: bytes


class Callers:
    """Clients on kept-alive connections, each asking one request after the other at a pace, from ``with`` to its end."""

    def __init__(self, url: str, number: int, *, pace: float, headers: dict[str, str], seed: int) -> None:
        self._address = urllib.parse.urlsplit(url).netloc
        self._pace, self._headers = pace, headers
        self._books: list[list[Answer]] = [[] for _ in range(number)]
        self._stop = threading.Event()
        self._failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._run, args=(each, seed)) for each in range(number)]

    @property
    def answers(self) -> list[Answer]:
        """Everything so far, each caller's in the order in which it asked."""
        return [answer for book in self._books for answer in tuple(book)]

    @property
    def count(self) -> int:
        """How much was answered so far."""
        return sum(len(book) for book in self._books)

    @staticmethod
    def now() -> float:
        """Give the moment by the callers' clock."""
        return time.time()

    def since(self, at: float) -> list[Answer]:
        """Give what was asked after a moment."""
        return [each for each in self.answers if each.at > at]

    def by(self, revision: str) -> list[Answer]:
        """Give what a revision was asked: what it answered, and what stable answered after it had failed."""
        return [each for each in self.answers if revision in {each.revision, each.failed_first}]

    def _run(self, caller: int, seed: int) -> None:
        try:
            self._ask_on(caller, random.Random(f"{seed}-{caller}"))
        except Exception as error:  # noqa: BLE001 - told by the test's own thread
            self._failures.append(error)

    def _ask_on(self, caller: int, rng: random.Random) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
        book, names = self._books[caller], 0
        while not self._stop.wait(self._pace):
            # Three requests in four are a newcomer's, the others are of somebody who was there before. A caller's keys are its own, so
            # that the order of each key's answers is known.
            new = not names or rng.random() < _NEWCOMERS
            names += new
            key = names if new else rng.randint(max(1, names - _REMEMBERED), names)
            book.append(self._ask(connection, (rng.random(), rng.random()), f"{caller}-{key}"))
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, draws: tuple[float, float], key: str) -> Answer:
        began, at = time.perf_counter(), time.time()
        headers = {"content-type": "application/json", "x-user": key, **self._headers}
        connection.request("POST", "/invocations", json.dumps({"instances": [draws]}).encode(), headers)
        response = connection.getresponse()
        body = response.read()
        seen = response.headers
        seconds = time.perf_counter() - began
        revision, failed = seen.get("modeldeploy-revision", ""), seen.get("modeldeploy-fallback-from", "")
        return Answer(at, seconds, draws, key, response.status, revision, failed, body)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        # A connection that broke is the router's failure, however it answered the others.
        assert self._failures == []


class Stage:
    """One state directory whose processes serve all tests of a module, each an endpoint of its own."""

    faulty = Faulty

    def __init__(self, home: Path, wait_until: Callable[..., Any]) -> None:
        self.home = home
        self.backend = LocalBackend(home)
        self.session = Session.of(self.backend, home=home)
        self.wait_until = wait_until
        self._endpoints: list[Endpoint] = []
        self._versions = itertools.count(1)

    def model(self, faulty: Faulty, name: str) -> Model:
        """Package a model under the next version."""
        example = np.array([[-1.0, -2.0], [-3.0, -4.0]])
        version = f"1.{next(self._versions)}.0"
        return Model(faulty, name=name, version=version, example=example, home=self.home)

    def serve(self, faulty: Faulty, **options: Any) -> Endpoint:
        """Deploy stable under a name of its own."""
        name = f"load-{next(self._versions)}"
        self._endpoints.append(Endpoint.deploy(self.model(faulty, name), name, backend=self.session, **options))
        return self._endpoints[-1]

    def callers(
        self, endpoint: Endpoint, number: int = 6, *, pace: float = 0.006, seed: int = 0, **headers: str
    ) -> Callers:
        """Give callers of an endpoint, as a context; ``pace`` is the seconds between an answer and the next request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Callers(endpoint.url, number, pace=pace, headers=named, seed=seed)

    def warm(self, callers: Callers, more: int = 100) -> None:
        """Wait until they have got so many more answers."""
        before = callers.count
        self.wait_until(lambda: callers.count > before + more, timeout=TIMEOUT_S)

    def clear(self) -> None:
        """Delete what was deployed since the last time."""
        while self._endpoints:
            self._endpoints.pop().delete()

    def close(self) -> None:
        """End all processes."""
        self.backend.close()
        self.backend.shutdown()


@pytest.fixture(scope="module")
def _stage(wait_until: Callable[..., Any]) -> Iterator[Stage]:
    home = Path(tempfile.mkdtemp(prefix="ml"))
    made = Stage(home, wait_until)
    yield made
    made.close()
    shutil.rmtree(home)


@pytest.fixture
def stage(_stage: Stage) -> Iterator[Stage]:
    yield _stage
    _stage.clear()
