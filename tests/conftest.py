"""What holds for every test: a home of its own, loopback only, and nothing left behind."""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "MODELDEPLOY_TEST_SESSION"
GRACE_S = 5.0
# Helpers of the interpreter itself that live as long as the test session.
INTERPRETERS_OWN = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "loky.backend.resource_tracker")
CACHES = frozenset(
    {"__pycache__", ".pytest_cache", ".hypothesis", ".mypy_cache", ".ruff_cache", ".import_linter_cache"}
)


# ---------------------------------------------------------------- a home for the session and for each test


def pytest_configure(config: pytest.Config) -> None:
    """Point everything that the library writes at a fresh directory, before any fixture of any scope runs."""
    # Short, for a Unix socket's path has room for about a hundred characters only.
    session = Path(tempfile.mkdtemp(prefix="md", dir="/tmp" if os.name == "posix" else None))
    config.stash[_SESSION] = session
    for key in [key for key in os.environ if key.startswith("MODELDEPLOY_") and key != "MODELDEPLOY_TEST_WHEEL"]:
        del os.environ[key]
    os.environ[TOKEN] = uuid.uuid4().hex
    os.environ["MODELDEPLOY_HOME"] = str(session / "home")
    os.environ["XDG_CONFIG_HOME"] = str(session / "config")
    os.environ["XDG_DATA_HOME"] = str(session / "data")
    os.environ["MPLCONFIGDIR"] = str(session / "mpl")
    os.environ["IPYTHONDIR"] = str(session / "ipython")
    os.environ["JUPYTER_CONFIG_DIR"] = str(session / "jupyter")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(session / "kernels")
    config.stash[_BEFORE] = _files_outside()
    _hypothesis_home(session / "hypothesis")


_SESSION = pytest.StashKey[Path]()
_BEFORE = pytest.StashKey[set[str]]()


def _hypothesis_home(path: Path) -> None:
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(path)


@pytest.fixture(autouse=True)
def modeldeploy_home(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give each test a state directory of its own, with a short path, and remove it afterwards."""
    home = Path(tempfile.mkdtemp(prefix="t", dir=request.config.stash[_SESSION]))
    monkeypatch.setenv("MODELDEPLOY_HOME", str(home))
    yield home
    shutil.rmtree(home, ignore_errors=True)


# ---------------------------------------------------------------- waiting


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """Give ``wait_until(condition, timeout=10.0)``: poll until ``condition()`` is truthy and give that, or fail the test."""

    def wait(condition: Callable[[], Any], timeout: float = 10.0, *, what: str = "", interval: float = 0.01) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                pytest.fail(
                    f"{what or getattr(condition, '__name__', 'the condition')} did not hold within {timeout:g} s"
                )
            time.sleep(interval)

    return wait


# ---------------------------------------------------------------- no network but loopback


class NetworkUsedError(RuntimeError):
    """A test tried to reach another machine."""


_violations: list[str] = []


def _is_here(host: str) -> bool:
    if host in {"", "localhost", "localhost.localdomain"}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guard(event: str, args: tuple[Any, ...]) -> None:
    # An audit hook sees what a patched socket.socket would miss: the C type used directly, as gevent does.
    if event in {"socket.connect", "socket.sendto"}:
        address = args[1]
        host = address[0] if isinstance(address, tuple) and address else ""
    elif event == "socket.getaddrinfo":
        host = args[0] or ""
    else:
        return
    host = host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
    if isinstance(host, str) and not _is_here(host) and not (event == "socket.getaddrinfo" and _is_wildcard(host)):
        _violations.append(f"{event} {host!r}")
        message = f"{event} {host!r}: tests reach this machine only"
        raise NetworkUsedError(message)


def _is_wildcard(host: str) -> bool:
    return host in {"0.0.0.0", "::"}


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def _loopback_only() -> Iterator[None]:
    _violations.clear()
    yield
    if _violations:
        seen = "; ".join(_violations)
        _violations.clear()
        pytest.fail(f"the test used the network: {seen}")


# ---------------------------------------------------------------- nothing left behind


def _ours() -> dict[int, psutil.Process]:
    """Find the processes that this session started, however far they detached themselves: by the token that they inherited."""
    found = {process.pid: process for process in psutil.Process().children(recursive=True)}
    token = os.environ.get(TOKEN, "-")
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != os.getpid() and _environment(process).get(TOKEN) == token:
            found[process.pid] = process
    return {pid: process for pid, process in found.items() if _counts(process)}


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _counts(process: psutil.Process) -> bool:
    try:
        line = " ".join(process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not any(each in line for each in INTERPRETERS_OWN)
    except psutil.Error:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"{process.pid}"


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        except psutil.Error:
            continue
    psutil.wait_procs(processes, timeout=GRACE_S)


def _listening() -> set[tuple[str, int]]:
    connections = psutil.Process().net_connections(kind="inet")
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}


@pytest.fixture(scope="module", autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Fail when a module ends and a process or a listening socket that it started is still there."""
    before, listening = set(_ours()), _listening()
    yield
    deadline = time.monotonic() + GRACE_S
    left = _new(before)
    while left and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.05)
        left = _new(before)
    sockets = _listening() - listening
    if left or sockets:
        lines = [f"process {_describe(process)}" for process in left] + [f"listening socket {each}" for each in sockets]
        _end(left)
        pytest.fail("left running after the last test of this module:\n  " + "\n  ".join(lines))


def _new(before: set[int]) -> list[psutil.Process]:
    return [process for pid, process in _ours().items() if pid not in before]


@pytest.fixture
def end_processes() -> Callable[[Path], list[str]]:
    """Give ``end_processes(home)``: end what was started for that state directory, for tests of code that leaves endpoints serving."""

    def end(home: Path) -> list[str]:
        mine = [process for process in _ours().values() if _environment(process).get("MODELDEPLOY_HOME") == str(home)]
        lines = [_describe(process) for process in mine]
        _end(mine)
        return lines

    return end


def _files_outside() -> set[str]:
    """List what stands in the tree and in the user's own directories, where no test may write."""
    if not os.environ.get("MODELDEPLOY_TEST_WHEEL"):
        return set()  # somebody edits a source tree while its tests run
    return {str(path) for path in ROOT.rglob("*") if not CACHES.intersection(path.parts)}


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what was left by a broken test, and fail the run for files written outside the temporary directory."""
    _end(list(_ours().values()))
    shutil.rmtree(session.config.stash[_SESSION], ignore_errors=True)
    written = sorted(_files_outside() - session.config.stash[_BEFORE])
    if written:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line("")
            reporter.write_line(f"ERROR files written outside the temporary directory: {written}", red=True)
