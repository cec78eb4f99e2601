"""A model on twenty devices, in under two minutes: convert, quantise, rings, a bad version that no device runs, rollback, devices offline.

Run it with ``make quickstart-edge``. The devices are twenty processes of the agent, each with a directory of its own, on this machine; it
works in a state directory of its own and leaves nothing running.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from modeldeploy import EdgeTarget, Model, RolloutPolicy
from modeldeploy.observe.text import table

DEVICES = 20
OFFLINE_AFTER_S = 3.0
# Ten percent of twenty devices may be one or none: a step is raised until its ring holds two.
RINGS = RolloutPolicy.rings((10, 50, 100), min_devices=2, soak=1.0, interval=0.2, patience=60)


def main() -> None:
    """Tell the story."""
    began = time.perf_counter()
    # onnxruntime's quantiser sets the root logger up, which would print what the story says anyway.
    logging.getLogger("modeldeploy").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="modeldeploy-edge-", ignore_cleanup_errors=True) as home:
        os.environ["MODELDEPLOY_HOME"] = home
        (Path(home) / "store").mkdir()
        target = EdgeTarget.fleet("cameras", store=Path(home) / "store", offline_after=OFFLINE_AFTER_S)
        with Street(target, Path(home)) as street:
            story(target, street)
    say(f"\nDone in {time.perf_counter() - began:.1f} s; nothing is left running.")


def story(target: EdgeTarget, street: Street) -> None:
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32)
    first, small, odd = models(X[:1500], y[:1500], X[1500:], y[1500:])

    title(f"3. Deploy {first} to {DEVICES} devices, which each prove it on themselves")
    _, took = timed(lambda: target.deploy(first, RINGS))
    # Agents that were here before the store report to it now; on a busy machine that takes its time.
    wait_until(lambda: len(target.devices) == DEVICES and target.status.settled)
    street.begin(X[1500:])
    say(f"after {took:.1f} s\n{target.status}")

    title(f"4. Roll {small} out in rings")
    say(str(target.plan(small, RINGS)))
    rollout, took = timed(lambda: target.rollout(small, RINGS))
    say(f"{rollout.status} after {took:.1f} s\n{target.rings}\n{street}")

    title(f"5. A bad {odd}: devices cannot reproduce the answers that it was packaged with")
    rollout, took = timed(lambda: target.rollout(odd, RINGS))
    say(f"{rollout.status} after {took:.1f} s: {rollout.outcome[:300]}...\n{target.rings}")
    bad = rollout.revision.id
    say(f"devices that ever answered with {bad}: {street.answered[bad]}\n{street}")

    title("6. Take the halted rollout back, then the whole fleet to the version before")
    target.rollback(reason="self-tests failed")
    _, took = timed(lambda: target.rollback(reason="we liked it better"))
    say(f"back on {target.stable.model} after {took:.1f} s\n{target.status}\n{street}")

    title("7. Three devices lose their network, predict on, and catch up")
    cut = street.cut(3)
    wait_until(lambda: target.status.devices.offline == len(cut))
    before = street.count(cut)
    rollout = target.rollout(small, RINGS)
    say(f"{rollout.status}\n{target.status}")
    say(f"meanwhile the three answered {street.count(cut) - before:,} requests, with {street.running(cut)}")
    street.mend(cut)
    _, took = timed(lambda: wait_until(lambda: target.status.settled))
    say(f"back, and up to date after {took:.1f} s\n{target.status}\n{street}")
    say(str(target.history))


def models(X, y, rows, labels) -> tuple[Model, Model, Model]:
    title("1. Train a network on pictures of digits, and convert it")
    with warnings.catch_warnings():
        # Fifteen rounds do for a story.
        warnings.simplefilter("ignore", ConvergenceWarning)
        network, took = timed(lambda: MLPClassifier((64,), max_iter=15, random_state=0).fit(X, y))
    say(f"accuracy on {len(rows)} held-out rows: {network.score(rows, labels):.3f}, trained in {took:.1f} s")
    plain = Model(network, name="digits", version="1.0.0", example=rows[:20])
    first, took = timed(lambda: plain.to_onnx(sample=rows, labels=labels, version="1.0.1"))
    say(f"{first} in {took:.1f} s")
    parity(first)

    title("2. Quantise it to 8 bits")
    small, took = timed(lambda: first.quantize(sample=rows, labels=labels, version="1.1.0"))
    say(f"{small} in {took:.1f} s")
    parity(small)
    return first, small, Model(noisy(network, X), name="digits", version="1.2.0", example=rows[:20])


def parity(model: Model) -> None:
    """Show what the gate compared: how many answers differ, and what was won."""
    report = model.parity
    for check in report.checks:
        for output in check.outputs:
            say(f"parity on {check.what}: {output.name}, {output.rows} rows, {output.differing} differ")
    sides = [
        (side.what, f"{side.size / 1000:.0f} kB", f"{side.one_row_ms:.3f} ms", f"{side.score:.3f}")
        for side in (report.before, report.after)
    ]
    say(table(sides, ("model", "size", "one row", "accuracy")))


def noisy(network: MLPClassifier, X):
    """Make a model that adds noise to each picture: it never answers twice the same, so nobody can prove it."""
    import onnx
    from skl2onnx import to_onnx

    made = to_onnx(network, X[:1], target_opset={"": 18, "ai.onnx.ml": 3}, options={"zipmap": False})
    name = made.graph.input[0].name
    for node in made.graph.node:
        node.input[:] = ["noised" if each == name else each for each in node.input]
    made.graph.node.insert(0, onnx.helper.make_node("Add", [name, "noise"], ["noised"]))
    made.graph.node.insert(0, onnx.helper.make_node("RandomNormalLike", [name], ["noise"], scale=9.0))
    return made


class Street:
    """Twenty devices, and somebody who keeps asking each of them."""

    def __init__(self, target: EdgeTarget, home: Path) -> None:
        self._target, self._home = target, home
        self.names = [f"camera-{number:02}" for number in range(1, DEVICES + 1)]
        self._agents: dict[str, subprocess.Popen[str]] = {}
        self._ports: dict[str, int] = {}
        self._stop = threading.Event()
        self._asking = threading.Thread(target=self._ask)
        self.answered: collections.Counter[str] = collections.Counter()
        self._by_device: collections.Counter[str] = collections.Counter()
        self._last: dict[str, str] = {}
        self.failures = 0

    def __enter__(self) -> Self:
        began = time.perf_counter()
        for name in self.names:
            self.mend([name])
            home = self._home / name
            command = list(self._target.agent(name, home=home, poll=0.4, heartbeat=1, settle=0.5))
            # Each device reaches the store by a path of its own, which can be cut.
            command[command.index("--store") + 1] = str(self._home / "net" / name / self._target.name)
            log = (self._home / f"{name}.log").open("w")
            self._agents[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            log.close()
        for name, agent in self._agents.items():
            self._ports[name] = json.loads(agent.stdout.readline())["port"]
        say(f"{DEVICES} agents are ready after {time.perf_counter() - began:.1f} s")
        return self

    def begin(self, rows) -> None:
        self._bodies = [json.dumps({"instances": rows[at : at + 1].tolist()}).encode() for at in range(len(rows))]
        self._asking.start()

    def _ask(self) -> None:
        turn = 0
        while not self._stop.wait(0.002):
            name = self.names[turn % DEVICES]
            try:
                self._note(name, self._post(name, self._bodies[turn % len(self._bodies)]))
            except OSError as error:
                self.failures += 1
                say(f"{name}: {error!r}")
            turn += 1

    def _post(self, name: str, body: bytes) -> str:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._ports[name], timeout=20)) as connection:
            connection.request("POST", "/invocations", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                message = f"status {answer.status}"
                raise OSError(message)
            return answer.headers.get("modeldeploy-revision", "?")

    def _note(self, name: str, revision: str) -> None:
        self.answered[revision] += 1
        self._by_device[name] += 1
        self._last[name] = revision

    def cut(self, count: int) -> list[str]:
        """Cut some devices off from the store."""
        found = self.names[:count]
        self._connect(found, self._home / "nowhere")
        return found

    def mend(self, names: list[str]) -> None:
        """Let them reach it (again); a running agent, which asks less and less often while nobody answers, is told so."""
        self._connect(names, self._home / "store")
        for name in names:
            if name in self._agents:
                self._agents[name].send_signal(signal.SIGHUP)

    def _connect(self, names: list[str], where: Path) -> None:
        (self._home / "net").mkdir(exist_ok=True)
        for name in names:
            line = self._home / "net" / name
            line.unlink(missing_ok=True)
            line.symlink_to(where)

    def count(self, names: list[str]) -> int:
        return sum(self._by_device[name] for name in names)

    def running(self, names: list[str]) -> str:
        return ", ".join(sorted({self._last[name] for name in names}))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._asking.ident is not None:
            self._asking.join()
        for agent in self._agents.values():
            agent.terminate()
        for agent in self._agents.values():
            agent.wait(30)
            agent.stdout.close()

    def __str__(self) -> str:
        seen = ", ".join(f"{count:,} by {revision}" for revision, count in self.answered.items())
        return f"callers of the devices saw {seen}; {self.failures} failures"


def wait_until(holds, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            message = f"it did not come true within {seconds:g} s"
            raise TimeoutError(message)
        time.sleep(0.1)


def timed(act):
    began = time.perf_counter()
    return act(), time.perf_counter() - began


def title(text: str) -> None:
    say(f"\n{text}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
