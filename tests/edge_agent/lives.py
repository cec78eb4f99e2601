"""Agents that die by SIGKILL at each step of what they do, one after the other: ``lives.py scenario home store key``.

Each life is a process of its own, forked from this one, which has loaded the libraries. The first finds how many steps there are; each
further one dies at one of them, and the life after it is watched: what it serves first, and where it ends. One line of JSON for each.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from modeldeploy.edge.desired import verify
from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.layout import DESIRED
from modeldeploy.edge.stores import DirectoryStore
from modeldeploy.edge_agent import durable
from modeldeploy.edge_agent.agent import Agent
from modeldeploy.edge_agent.child import preload
from modeldeploy.edge_agent.config import Config
from modeldeploy.edge_agent.home import alone, listen
from modeldeploy.edge_agent.keeper import Keeper

SCENARIO, HOME, STORE, KEY = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
ONLY = set(sys.argv[5:])
"""Names of steps to die at; all of them when there are none."""
ROW = {"instances": [[1.0, 2.0, 3.0, 4.0]]}
PATIENCE_S = 60
keys = (VerifyKey.load(KEY),)
wanted = verify((STORE / DESIRED).read_bytes(), keys, fleet="cameras")
(goal,) = wanted.table
END = "v1" if SCENARIO == "dying" else goal


def live(home: Path, note: Path, die_at: int = 0) -> int:
    """Be an agent until what is wanted has settled; with ``die_at`` die at that step."""
    count = 0

    def reached(step: str) -> None:
        nonlocal count
        if "address" in step:
            return
        count += 1
        with note.open("a") as stream:
            stream.write(f"{step}\n")
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    durable.reached = reached
    if SCENARIO == "dying":
        doom(Keeper)
    settle = 600 if SCENARIO == "dying" else 0
    config = Config("line-1", "cameras", home, keys, poll=0.05, settle=settle)
    with alone(home), listen(config) as listener:
        return Agent(config, DirectoryStore(STORE), listener).run(lambda: None, once=True)


def watched(home: Path) -> int:
    """Be an agent until SIGTERM."""
    if SCENARIO == "dying":
        doom(Keeper)
    config = Config("line-1", "cameras", home, keys, poll=0.05, settle=600 if SCENARIO == "dying" else 0)
    with alone(home), listen(config) as listener:
        return Agent(config, DirectoryStore(STORE), listener).run((home / "ready").touch)


def doom(keeper: type[Keeper]) -> None:
    """Let the new version die whenever it serves."""
    mind = keeper.mind

    def mind_and_kill(self: Keeper) -> None:
        mind(self)
        if self.up and self.child is not None and self.child.order.revision == goal:
            os.kill(self.child.pid, signal.SIGKILL)

    keeper.mind = mind_and_kill


def fork(act, *arguments) -> int:
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = act(*arguments)
        finally:
            os._exit(code)
    return pid


def ask(home: Path) -> tuple[str, float] | None:
    """Ask the device; None when nothing answers."""
    port = json.loads((home / "address.json").read_text())["port"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/invocations", json.dumps(ROW), {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        return answer.headers["modeldeploy-revision"], json.loads(body)["predictions"][0][0]
    except OSError:
        return None
    finally:
        connection.close()


def pointer(home: Path) -> str | None:
    """Name the revision that the disk says is served."""
    with contextlib.suppress(FileNotFoundError):
        slot = json.loads((home / "active.json").read_text())["slot"]
        return slot and json.loads((home / "slots" / slot / "manifest.json").read_text())["body"]["revision"]
    return None


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    return found


def one(number: int, step: str) -> dict[str, object]:
    """Die at a step, come back, and say what was seen."""
    home, note = HOME.with_name(f"life-{number}"), HOME.with_name(f"note-{number}")
    shutil.copytree(HOME, home)
    _pid, status = os.waitpid(fork(live, home, note, number), 0)
    pointed = pointer(home)
    pid = fork(watched, home)
    until((home / "ready").exists)
    first = ask(home)
    ended = until(lambda: (found := ask(home)) is not None and found[0] == END and found)
    os.kill(pid, signal.SIGTERM)
    _pid, code = os.waitpid(pid, 0)
    shutil.rmtree(home)
    return {
        "step": step,
        "killed": os.WIFSIGNALED(status),
        "pointer": pointed,
        "first": first,
        "ended": ended,
        "code": code,
    }


def main() -> None:
    preload()
    home, note = HOME.with_name("rehearsal"), HOME.with_name("note")
    shutil.copytree(HOME, home)
    os.waitpid(fork(live, home, note), 0)
    steps = note.read_text().split("\n")[:-1]
    shutil.rmtree(home)
    for number, step in enumerate(steps, 1):
        if not ONLY or step in ONLY:
            sys.stdout.write(json.dumps(one(number, step)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
