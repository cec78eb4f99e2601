"""Parts ``import``, ``deploy`` and ``change``: what importing costs, and how fast an endpoint starts, grows, switches and goes back under load."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import load
import models
import numpy as np
import tree
from peers import OURS, PROGRAMS, QUIET
from results import Results
from serving import Round, Settings, median_s, rounds, scratch, watched

if TYPE_CHECKING:
    from modeldeploy import Endpoint, Model
    from modeldeploy.backends.local.backend import LocalBackend
    from modeldeploy.values.ticket import Ticket

IMPORTS = {
    "import modeldeploy": "import modeldeploy",
    "from modeldeploy import Endpoint, Model, BatchJob": "from modeldeploy import Endpoint, Model, BatchJob",
    "import numpy (to compare)": "import numpy",
    "import sklearn.linear_model (to compare)": "import sklearn.linear_model",
}
CHANGES = 10
POLL_S = 0.005
LOADED_CONNECTIONS = 64


def imports(settings: Settings, results: Results) -> None:
    """CPU of a process that only imports, beyond the bare interpreter."""
    for round_ in rounds(settings, results):
        bare = _cpu_of("pass")
        for name, code in IMPORTS.items():
            took, foreign = watched(lambda code=code: _cpu_of(code))
            round_.note(name, took - bare, "s CPU", foreign)


def _cpu_of(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ---------------------------------------------------------------- from an estimator to an answer


def deploys(settings: Settings, results: Results) -> None:
    """A fresh process loads an estimator, packages it, deploys it and predicts; then another deployment, with the supervisor warm."""
    for name in _cheap(settings):
        made = models.make(models.SERVED, name, settings.folder / "served")
        for round_ in rounds(settings, results):
            took, foreign = watched(lambda path=made.path: _deploy(path))
            for what, seconds in took.items():
                round_.note(f"{what}, {name}", seconds, "s", foreign)


def _deploy(path: Path) -> dict[str, float]:
    with scratch() as home:
        began = time.perf_counter()
        environ = {**os.environ, **QUIET, "MODELDEPLOY_HOME": str(home)}
        line = [sys.executable, str(PROGRAMS / "modeldeploy_fresh.py"), str(path)]
        try:
            with subprocess.Popen(line, env=environ, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                said = [(line.strip(), time.perf_counter()) for line in process.stdout]
        finally:
            tree.end_all()
    if [line for line, _at in said] != ["first", "second"]:
        message = f"the fresh process said {said}"
        raise RuntimeError(message)
    (_, first), (_, second) = said
    return {
        "fresh process: load, package, deploy, first answer": first - began,
        "another endpoint, supervisor warm: package, deploy, first answer": second - first,
    }


def _cheap(settings: Settings) -> list[str]:
    return [name for name in settings.models if name.startswith("lr")]


# ---------------------------------------------------------------- changes of a running endpoint


def changes(settings: Settings, results: Results) -> None:
    for name in _cheap(settings):
        for round_ in rounds(settings, results):
            with scratch() as home:
                try:
                    _change(name, home, round_)
                finally:
                    tree.end_all()


def _change(name: str, home: Path, round_: Round) -> None:
    """Give an endpoint a second revision; then, at full load, move its traffic to and fro by the backend alone and by a whole rollback."""
    from modeldeploy import Endpoint
    from modeldeploy.backends.local.backend import LocalBackend
    from modeldeploy.values.serving import Traffic

    first, second = (_packaged(name, round_.settings.folder / f"served-{n}", home, n) for n in (1, 2))
    backend = LocalBackend(home)
    endpoint = Endpoint.deploy(first, name="bench", home=home)
    one = endpoint.stable.id
    ready, foreign = watched(lambda: _further(backend, endpoint, second))
    round_.note(f"a further revision ready, less its model's load time, {name}", 1000 * ready, "ms", foreign)
    endpoint.rollout(second, golden=False)
    ends = (one, endpoint.stable.id) * (CHANGES // 2)
    moves: dict[str, Callable[[str], object]] = {
        "traffic switch": lambda to: _carry(backend, backend.set_traffic("bench", Traffic({to: 100}))),
        "rollback": lambda to: endpoint.rollback(to=to),
    }
    for what, move in moves.items():
        _move(f"{what} under load, {{}}, {name}", move, ends, endpoint, round_)


def _move(title: str, move: Callable[[str], object], ends: Sequence[str], endpoint: Endpoint, round_: Round) -> None:
    with loaded(endpoint, round_.settings) as ended:
        took = [1000 * _timed(lambda to=to: move(to)) for to in ends]
    done, foreign = ended()
    found = {"median": (float(np.median(took)), "ms"), "slowest": (max(took), "ms")}
    found |= {"failed requests": (done.errors, ""), "requests": (done.requests, "")}
    for what, (value, unit) in found.items():
        round_.note(title.format(what), value, unit, foreign)
    round_.say(
        f"{title.format('median')} {found['median'][0]:.1f} ms, {done.errors} of {done.requests:,} requests failed"
    )


def _packaged(name: str, folder: Path, home: Path, number: int) -> Model:
    from modeldeploy import Model

    made = models.make(models.SERVED, name, folder, strength=1 / number)
    estimator = made.path.read_bytes() if made.path.suffix == ".onnx" else joblib.load(made.path)
    example = models.rows(5).astype(made.dtype)
    return Model(estimator, name="bench", version=f"1.{number}.0", example=example, home=home)


def _further(backend: LocalBackend, endpoint: Endpoint, model: Model) -> float:
    """Seconds from asking for a revision to its being ready, less what loading the model takes in a process that is warm."""
    from modeldeploy.packaging.loading import load as load_bundle
    from modeldeploy.values.serving import EndpointSpec, Revision

    loads = median_s(lambda: load_bundle(model.bundle, trust=[model.digest]), 0.2)
    ticket = backend.put_revision(EndpointSpec(endpoint.name), Revision.of(model.identity))
    return _timed(lambda: _carry(backend, ticket)) - loads


def _carry(backend: LocalBackend, ticket: Ticket) -> None:
    """See a ticket through, as the engine does."""
    while not ticket.phase.ended:
        ticket = backend.advance(ticket)
        if not ticket.phase.ended:
            time.sleep(ticket.poll_after or POLL_S)
    if ticket.phase.value != "succeeded":
        raise RuntimeError(ticket.note)


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@contextmanager
def loaded(endpoint: Endpoint, settings: Settings) -> Iterator[Callable[[], tuple[load.Load, float]]]:
    """Load the endpoint meanwhile; what is given tells, afterwards, what came of it and what other programs took."""
    body, headers = OURS.ask(models.rows(1))
    ask = load.Ask(endpoint.url + OURS.path, body, headers)
    seconds = max(3.0, settings.seconds)
    told: list[tuple[load.Load, float]] = []
    before = tree.Reading.take()
    with load.running(ask, LOADED_CONNECTIONS, seconds, settings.folder, by=settings.generator) as process:

        def collect() -> None:
            done = load.ended(process)
            told.append((done, tree.Reading.take().foreign_since(before)))

        thread = threading.Thread(target=collect)
        thread.start()
        time.sleep(0.5)  # until it is at full load
        try:
            yield lambda: told[0]
            if not thread.is_alive():
                message = "the load ended before the changes did"
                raise RuntimeError(message)
        finally:
            thread.join()
