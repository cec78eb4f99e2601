"""The guards of ``conftest.py`` are tested by tests that break their rules, in a session of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

CONFTEST = Path(__file__).resolve().parent / "conftest.py"


@pytest.fixture
def session(tmp_path: Path):
    """Give ``session(code)``: run these tests under the same guards; give the exit status and what pytest said."""

    def run(code: str) -> tuple[int, str]:
        guards = CONFTEST.read_text(encoding="utf-8")
        assert "GRACE_S = 5.0" in guards
        folder = tmp_path / "tests"
        folder.mkdir()
        (folder / "conftest.py").write_text(guards.replace("GRACE_S = 5.0", "GRACE_S = 0.3"), encoding="utf-8")
        (folder / "test_planted.py").write_text(code, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--import-mode=importlib",
            str(folder),
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout

    return run


def test_a_test_that_keeps_the_rules_passes(session):
    code = (
        "import os, socket, subprocess, sys\n"
        "def test_it(modeldeploy_home, wait_until):\n"
        "    assert os.environ['MODELDEPLOY_HOME'] == str(modeldeploy_home)\n"
        "    assert len(str(modeldeploy_home)) < 40\n"
        "    child = subprocess.Popen([sys.executable, '-c', ''])\n"
        "    wait_until(lambda: child.poll() is not None)\n"
        "    with socket.create_server(('127.0.0.1', 0)) as server:\n"
        "        socket.create_connection(server.getsockname()).close()\n"
    )
    assert session(code)[0] == 0


@pytest.mark.skipif(os.name != "posix", reason="needs setsid")
def test_a_process_that_detached_itself_is_found_named_and_ended(session):
    code = (
        "import os, subprocess, sys\n"
        "SLEEP = [sys.executable, '-c', 'import time; time.sleep(987)']\n"
        "def test_it():\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os.setsid()\n"
        "        subprocess.Popen(SLEEP, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
    )
    status, said = session(code)
    assert status == 1
    assert "time.sleep(987)" in said
    found = re.search(r"process (\d+): .*987", said)
    assert found
    # Where nobody takes up orphans it stays a zombie.
    assert not psutil.pid_exists(int(found[1])) or psutil.Process(int(found[1])).status() == psutil.STATUS_ZOMBIE


def test_a_listening_socket_that_was_left_open_is_named(session):
    code = "import socket\nkept = []\ndef test_it():\n    kept.append(socket.create_server(('127.0.0.1', 0)))\n"
    status, said = session(code)
    assert status == 1
    assert "listening socket ('127.0.0.1'" in said


@pytest.mark.parametrize(
    ("act", "named"),
    [
        ("socket.create_connection(('192.0.2.1', 80), timeout=1)", "192.0.2.1"),
        ("socket.getaddrinfo('example.org', 80)", "example.org"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))", "192.0.2.1"),
        ("urllib.request.urlopen('http://[2001:db8::1]/')", "2001:db8::1"),
    ],
)
def test_reaching_another_machine_fails_the_test_even_when_it_hides_the_error(session, act, named):
    code = f"import contextlib, socket, urllib.request\ndef test_it():\n    with contextlib.suppress(Exception):\n        {act}\n"
    status, said = session(code)
    assert status == 1
    assert "the test used the network" in said
    assert named in said


def test_waiting_for_what_never_comes_fails_with_its_name(session):
    code = "def test_it(wait_until):\n    wait_until(lambda: False, 0.05, what='the second coming')\n"
    status, said = session(code)
    assert status == 1
    assert "the second coming did not hold within 0.05 s" in said
