"""All endpoints of one home, inside the supervisor: what is wanted, what runs, and how the one becomes the other.

What is wanted is written down before it is acted upon, so that whoever is killed at whatever moment, the next supervisor carries on from
there. Listening sockets are held here, so that neither a port nor a waiting connection is lost with the front.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.backends.local import state as wanted
from modeldeploy.backends.local.begun import Begun, BegunFront
from modeldeploy.backends.local.fleet import Replicas, prove
from modeldeploy.backends.local.fronts import FrontProcess
from modeldeploy.backends.local.launcher import Launcher
from modeldeploy.backends.local.logs import LogFile
from modeldeploy.backends.local.options import LOOPBACK, EndpointOptions, RevisionOptions, read
from modeldeploy.backends.local.paths import Paths
from modeldeploy.backends.local.state import Deployed, Record, State
from modeldeploy.errors import ConflictError, ModelDeployError, NotFoundError, UnavailableError
from modeldeploy.serving import owner
from modeldeploy.values.codec import to_json
from modeldeploy.values.serving import EndpointState, RevisionState, Traffic

_DRAIN_HTTP_S = 5.0
_BACKLOG = 1024
_RECONNECT_S = 0.1


class Machine:
    """Every endpoint of one home, as wanted and as it runs."""

    def __init__(
        self,
        paths: Paths,
        runtime: Path,
        *,
        begun: Mapping[tuple[str, str], Begun] | None = None,
        front: BegunFront | None = None,
    ) -> None:
        self.paths = paths
        self.state = wanted.load(paths.state)
        self._runtime = runtime
        self._numbers = itertools.count(1)
        self._listeners: dict[str, socket.socket] = {}
        self._replicas: dict[tuple[str, str], Replicas] = {}
        self._told: dict[str, int] = {}
        self._ending: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._launcher = Launcher(report, begun)
        for record in list(self.state.endpoints.values()):
            self._listen(record)
        self._front = FrontProcess(
            started=self._tell_all, hung=self._kill_hung, lost=self._reconnect, report=report, begun=front
        )
        for record in self.state.endpoints.values():
            for deployed in record.revisions:
                self._start(record.name, deployed)

    # ------------------------------------------------------------ what is asked for

    async def put(self, endpoint: str, options: dict[str, str], deployed: Deployed) -> None:
        """Have a revision served; the first one makes the endpoint and takes all its traffic."""
        if endpoint in self._ending:
            message = f"endpoint {endpoint!r} is being deleted"
            raise UnavailableError(message, retry_after=0.1, hint="wait until it is gone")
        record = self.state.endpoints.get(endpoint)
        if record is None:
            self._create(endpoint, options, deployed)
        else:
            self._extend(record, options, deployed)

    def _create(self, endpoint: str, options: dict[str, str], deployed: Deployed) -> None:
        chosen = read(EndpointOptions, options, "endpoint")
        record = Record(endpoint, chosen.host, chosen.port, options, (deployed,), Traffic(), None, 0)
        owner.make_secret(self.paths.owner)
        listener = _bind(record)
        self._listeners[endpoint] = listener
        try:
            self._save(self.state.put(attrs.evolve(record, port=listener.getsockname()[1])))
        except ModelDeployError:
            self._listeners.pop(endpoint).close()
            raise
        with contextlib.suppress(UnavailableError):  # a front that starts right now is told everything anyway
            self._serve_on(endpoint)
        self._start(endpoint, deployed)

    def _extend(self, record: Record, options: dict[str, str], deployed: Deployed) -> None:
        _check_same_options(record, options)
        revision = deployed.revision
        known = record.find(revision.id)
        if known is not None and known.revision != revision:
            message = f"endpoint {record.name!r} has another revision {revision.id!r}"
            raise ConflictError(message, hint="an id stands for one content; use Revision.of")
        replicas = self._replicas.get((record.name, revision.id))
        if replicas is not None and replicas.retired:
            message = f"revision {revision.id!r} of endpoint {record.name!r} is being dropped"
            raise UnavailableError(message, retry_after=0.1, hint="wait until it is gone")
        if known is not None and not (replicas is not None and replicas.failed):
            return
        if known is None:
            self._save(self.state.put(attrs.evolve(record, revisions=(*record.revisions, deployed))))
        else:
            self._save(self.state.put(_swap(record, deployed)))
        if replicas is None:
            self._start(record.name, deployed)
        else:
            self._spawn(self._restart(record.name, deployed, replicas))

    async def _restart(self, endpoint: str, deployed: Deployed, old: Replicas) -> None:
        """Try again with a revision that failed to load."""
        if self._replicas.get((endpoint, deployed.revision.id)) is old:
            self._start(endpoint, deployed)
            await old.stop()

    async def traffic(self, endpoint: str, traffic: Traffic, expect: str | None) -> None:
        """Replace a table; one that is in force already is found done, whatever was expected."""
        record = self._find(endpoint)
        if not record.traffic.same_as(traffic):
            if expect is not None and expect != str(record.version):
                message = f"endpoint {endpoint!r} was changed by somebody else: it is at version {record.version}, expected {expect}"
                raise ConflictError(message, hint="look at it again and decide anew", context={"endpoint": endpoint})
            for revision in {**traffic.live, **traffic.copies}:
                self._check_can_serve(record, revision)
            stable = next(iter(traffic.live)) if len(traffic.live) == 1 else record.stable
            with contextlib.suppress(UnavailableError):  # a front that starts right now has lent nothing
                _forget_result(self._front.send("ask_back", endpoint=endpoint))
            try:
                self._replace(self.state.put(attrs.evolve(record, traffic=traffic, stable=stable)))
            except ModelDeployError:
                await self._tell(endpoint)
                raise
        telling = self._tell_now(self._find(endpoint))
        # While the front obeys: a loss of power, which may bring the old table back until this is done, ends the front too.
        wanted.settle(self.paths.state)
        await telling

    def _check_can_serve(self, record: Record, revision: str) -> None:
        record.check_has(revision)
        replicas = self._replicas.get((record.name, revision))
        if replicas is None or not replicas.proven:
            why = replicas.note if replicas else "it is not running"
            message = f"revision {revision!r} of endpoint {record.name!r} was never ready: {why}"
            raise ConflictError(message, hint="wait until it is ready before it gets traffic")

    async def drop(self, endpoint: str, revision: str) -> bool:
        """Have a revision gone; True when it is."""
        record = self.state.endpoints.get(endpoint)
        if record is not None and record.find(revision) is not None:
            wanted.check_unused(endpoint, record.traffic, revision)
            if len(record.revisions) == 1:  # an endpoint cannot be without a revision
                return await self.drop_endpoint(endpoint)
            rest = tuple(each for each in record.revisions if each.revision.id != revision)
            traffic = _without(record.traffic, revision)
            stable = record.stable if record.stable != revision else None
            self._save(self.state.put(attrs.evolve(record, revisions=rest, traffic=traffic, stable=stable)))
            self._retire(endpoint, revision)
        return (endpoint, revision) not in self._replicas and endpoint not in self._ending

    def _retire(self, endpoint: str, revision: str) -> None:
        self._replicas[endpoint, revision].retired = True
        self._spawn(self._end(endpoint, revision))

    async def _end(self, endpoint: str, revision: str) -> None:
        """Let a revision finish what it has, then end its workers."""
        replicas = self._replicas[endpoint, revision]
        await self._tell(endpoint)
        grace = replicas.options.grace
        with contextlib.suppress(ModelDeployError, TimeoutError):
            await self._front.call("drain", endpoint=endpoint, revision=revision, grace=grace, answer_within=grace + 5)
        await replicas.stop()
        del self._replicas[endpoint, revision]
        await self._tell(endpoint)
        self._tidy()

    async def drop_endpoint(self, endpoint: str) -> bool:
        """Have an endpoint gone; True when it is."""
        if endpoint in self.state.endpoints:
            self._save(self.state.drop(endpoint))
            self._ending.add(endpoint)
            self._spawn(self._end_endpoint(endpoint))
        return endpoint not in self._ending

    async def _end_endpoint(self, endpoint: str) -> None:
        mine = {key: each for key, each in self._replicas.items() if key[0] == endpoint}
        grace = max([_DRAIN_HTTP_S, *(each.options.grace for each in mine.values())])
        with contextlib.suppress(ModelDeployError, TimeoutError):
            await self._front.call("forget", endpoint=endpoint, grace=grace, answer_within=grace + 5)
        self._listeners.pop(endpoint).close()
        for replicas in mine.values():
            replicas.retired = True
        await asyncio.gather(*(each.stop() for each in mine.values()))
        for key in mine:
            self._replicas.pop(key, None)
        self._told.pop(endpoint, None)
        self._ending.discard(endpoint)
        self._tidy()

    # ------------------------------------------------------------ what is seen

    def observe(self, endpoint: str) -> dict[str, Any] | None:
        """Show an endpoint as it is now, with what only our own backend needs to know."""
        record = self.state.endpoints.get(endpoint)
        if record is None:
            return None
        mine = {key[1]: each for key, each in self._replicas.items() if key[0] == endpoint}
        told = self._told.get(endpoint) == record.version
        seen = EndpointState(
            name=endpoint,
            url=f"http://{_reachable(record.host)}:{record.port}",
            revisions=tuple(_seen(each, mine.get(each.revision.id)) for each in record.revisions),
            traffic=record.traffic,
            version=str(record.version),
            settled=told and not any(each.starting or each.retired for each in mine.values()),
        )
        failed = {revision: each.failed for revision, each in mine.items() if each.failed}
        keyed = read(EndpointOptions, record.options, "endpoint").access(None).keyed
        return {"state": to_json(seen), "failed": failed, "told": told, "keyed": keyed}

    async def outcome(self, endpoint: str, revision: str, within: float) -> None:
        """Wait until it is known what became of a revision, or for so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self._is_open(endpoint, revision):
                    await self._news.wait()

    def _is_open(self, endpoint: str, revision: str) -> bool:
        """Whether a revision is yet to become ready and be told to the front."""
        record, replicas = self.state.endpoints.get(endpoint), self._replicas.get((endpoint, revision))
        if record is None or record.find(revision) is None or (replicas and replicas.failed):
            return False
        return not (replicas and replicas.ready and self._told.get(endpoint) == record.version)

    def _tell_news(self) -> None:
        """Wake who waits for an outcome."""
        self._news.set()
        self._news = asyncio.Event()

    async def window(self, endpoint: str, revision: str, since: float, until: float, share: int | None) -> Any:
        """Read a meter of the front."""
        self._find(endpoint)
        asked: dict[str, Any] = {"revision": revision, "since": since, "until": until, "share": share}
        return await self._front.call("window", endpoint=endpoint, **asked)

    def processes(self) -> dict[str, Any]:
        """Name every process: the supervisor, the front, the fork servers, the workers by endpoint and revision."""
        workers = {
            f"{key[0]}/{key[1]}": [each.pid for each in replicas.processes.values()]
            for key, replicas in self._replicas.items()
        }
        return {
            "supervisor": os.getpid(),
            "front": self._front.pid,
            "forkservers": self._launcher.pids(),
            "workers": workers,
        }

    def warm(self, python: str, flavour: str) -> None:
        """Start loading what a revision will need."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # whoever needs it is told
                self._launcher.warm(python, flavour)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to serve and nothing to end."""
        return not (self.state.endpoints or self._replicas or self._ending)

    # ------------------------------------------------------------ making it so

    def _find(self, endpoint: str) -> Record:
        record = self.state.endpoints.get(endpoint)
        if record is None:
            message = f"there is no endpoint {endpoint!r}"
            raise NotFoundError(message, hint=f"there are {sorted(self.state.endpoints)}", context={"backend": "local"})
        return record

    def _save(self, state: State) -> None:
        self._replace(state)
        wanted.settle(self.paths.state)

    def _replace(self, state: State) -> None:
        wanted.save(self.paths.state, state)
        self.state = state

    def _listen(self, record: Record) -> None:
        """Take an endpoint's port again; another one only when somebody else has it."""
        try:
            listener = _bind(record)
        except ConflictError as error:
            report(f"{record.name}: {error}; taking another port")
            listener = _bind(attrs.evolve(record, port=0))
            self._save(self.state.put(attrs.evolve(record, port=listener.getsockname()[1])))
        self._listeners[record.name] = listener

    def _start(self, endpoint: str, deployed: Deployed) -> None:
        revision = deployed.revision

        def changed() -> asyncio.Task[None]:
            self._note_proven(endpoint, revision.id)
            self._tell_news()
            return self._spawn(self._tell(endpoint))

        replicas = Replicas(
            endpoint,
            deployed,
            read(RevisionOptions, revision.options, "revision"),
            self._launcher,
            log=LogFile(self.paths.log(endpoint, revision.id)),
            runtime=self._runtime,
            number=lambda: next(self._numbers),
            changed=changed,
        )
        self._replicas[endpoint, revision.id] = replicas
        replicas.start()
        self._spawn(self._tell(endpoint))

    def _note_proven(self, endpoint: str, revision: str) -> None:
        replicas = self._replicas.get((endpoint, revision))
        record = self.state.endpoints.get(endpoint)
        known = record.find(revision) if record is not None else None
        if record is None or known is None or known.proven or replicas is None or not replicas.proven:
            return
        evolved = _swap(record, prove(known))
        with contextlib.suppress(ModelDeployError):  # said again when a worker starts the next time
            if len(record.revisions) == 1 and not record.traffic.live:
                self._save(self.state.put(attrs.evolve(evolved, traffic=Traffic.all_to(revision), stable=revision)))
            else:
                # Readiness is no change that anybody asked for: the version stays, so a compare-and-set under way holds.
                self._save(State(self.state.serial, {**self.state.endpoints, endpoint: evolved}))

    async def _tell_all(self) -> None:
        self._told.clear()
        # The tables first: whoever waits for the new front must not find it without one.
        for endpoint in list(self.state.endpoints):
            await self._tell(endpoint)
        with contextlib.suppress(UnavailableError):  # it ended again; the next one is told
            for endpoint in self._listeners:
                self._serve_on(endpoint)

    def _serve_on(self, endpoint: str) -> None:
        """Hand an endpoint's socket to the front, with the word who may ask."""
        record = self.state.endpoints.get(endpoint)
        if record is None:  # it is being deleted, and the new front knows nothing of it
            return
        access = read(EndpointOptions, record.options, "endpoint").access(self.paths)
        with contextlib.suppress(
            ModelDeployError
        ):  # without it keys are taken and the owner's tickets are not, as its log says
            owner.make_secret(self.paths.owner)
        _forget_result(self._front.listen(endpoint, self._listeners[endpoint], to_json(access)))

    async def _tell(self, endpoint: str) -> None:
        record = self.state.endpoints.get(endpoint)
        if record is not None:
            await self._tell_now(record)

    def _tell_now(self, record: Record) -> asyncio.Task[None]:
        """Tell the front what an endpoint is, and give what waits until it has obeyed; one that is not there is told everything when it starts."""
        try:
            sent = self._front.send("configure", **self._view(record))
        except UnavailableError:
            return self._spawn(asyncio.sleep(0))
        return self._spawn(self._obeyed(record, sent))

    async def _obeyed(self, record: Record, sent: asyncio.Future[Any]) -> None:
        with contextlib.suppress(ModelDeployError, TimeoutError):
            await self._front.answer(sent)
            self._told[record.name] = max(record.version, self._told.get(record.name, 0))
            self._tell_news()

    def _view(self, record: Record) -> dict[str, Any]:
        mine = {key[1]: each for key, each in self._replicas.items() if key[0] == record.name}
        return {
            "endpoint": record.name,
            "weights": dict(record.traffic.weights),
            "shadow": dict(record.traffic.shadow),
            "key": record.traffic.key,
            "stable": record.stable,
            "safe_canary": read(EndpointOptions, record.options, "endpoint").safe_canary,
            "revisions": {revision: _group(each) for revision, each in mine.items()},
        }

    def _kill_hung(self, worker: str) -> None:
        for replicas in self._replicas.values():
            replicas.kill(worker)

    def _reconnect(self, endpoint: str, worker: str) -> None:
        """Tell the front again of a worker that it lost; one that died is no longer listed by then."""

        def again() -> None:
            if any(worker in each.addresses for each in self._replicas.values()):
                self._spawn(self._tell(endpoint))

        asyncio.get_running_loop().call_later(_RECONNECT_S, again)

    def _tidy(self) -> None:
        self._launcher.keep_only({each.library for each in self._replicas.values()})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            report(f"internal error: {task.exception()!r}")

    async def close(self) -> None:
        """End everything; what is wanted stays written down and comes back with the next supervisor."""
        grace = _DRAIN_HTTP_S
        calls = [
            self._front.call("forget", endpoint=endpoint, grace=grace, answer_within=grace + 5)
            for endpoint in self.state.endpoints
        ]
        await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.gather(*(each.stop() for each in self._replicas.values()))
        await self._front.close()
        await self._launcher.close()
        for listener in self._listeners.values():
            listener.close()


def _swap(record: Record, deployed: Deployed) -> Record:
    revisions = tuple(deployed if each.revision.id == deployed.revision.id else each for each in record.revisions)
    return attrs.evolve(record, revisions=revisions)


def _check_same_options(record: Record, options: dict[str, str]) -> None:
    read(EndpointOptions, options, "endpoint")
    for name, text in options.items():
        if record.options.get(name) != text:
            message = f"endpoint {record.name!r} exists with option {name}={record.options.get(name)!r}, not {text!r}"
            raise ConflictError(message, hint="delete the endpoint, or leave the option out")


def _without(traffic: Traffic, revision: str) -> Traffic:
    """Take a revision that is sent nothing out of a table."""
    weights = {name: percent for name, percent in traffic.weights.items() if name != revision}
    shadow = {name: percent for name, percent in traffic.shadow.items() if name != revision}
    return attrs.evolve(traffic, weights=weights, shadow=shadow)


def _seen(deployed: Deployed, replicas: Replicas | None) -> RevisionState:
    if replicas is None:
        return RevisionState(deployed.revision, ready=False, note="not running")
    return RevisionState(deployed.revision, ready=replicas.ready, note=replicas.note)


def _group(replicas: Replicas) -> dict[str, Any]:
    options = replicas.options
    policy = {
        "queue": options.queue,
        "deadline_s": options.deadline,
        "max_batch": options.max_batch,
        "retry_on_crash": options.retry_on_crash,
    }
    state = "retired" if replicas.retired else "serving"
    return {
        "state": state,
        "policy": policy,
        "broken": replicas.failed,
        "workers": dict(replicas.addresses),
        "leaving": list(replicas.relief.leaving),
        "lines_dropped": replicas.lines_dropped,
    }


def _bind(record: Record) -> socket.socket:
    host = record.host or LOOPBACK  # an empty one, as state files had it, would be every address of this machine
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, record.port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)  # noqa: FBT003 - the signature of the standard library
    except OSError as error:
        listener.close()
        message = f"endpoint {record.name!r} cannot listen on {host} port {record.port}: {error.strerror}"
        raise ConflictError(message, hint="leave the port out to get a free one") from error
    return listener


def _reachable(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - what was asked for; from here it is reached over loopback
        return LOOPBACK
    return f"[{host}]" if ":" in host else host


def _forget_result(answer: asyncio.Future[Any]) -> None:
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())


def report(text: str) -> None:
    """Say something in the supervisor's own log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):  # a full disk must not end what serves
        sys.stderr.write(f"{stamp} {text}\n")
        sys.stderr.flush()
