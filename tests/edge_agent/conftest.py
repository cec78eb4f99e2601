"""A fleet in a directory, and devices that are real agent processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import orjson
import psutil
import pytest

from modeldeploy.edge.desired import Desired, ReleaseRef
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.layout import DESIRED, report_path
from modeldeploy.edge.release import build
from modeldeploy.edge.reports import Report
from modeldeploy.edge.stores import DirectoryStore
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.manifest import GOLDEN, FileEntry
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store

FLEET = "cameras"
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
WEIGHTS = {"v1": 1.0, "v2": 2.0, "v3": 3.0}
ROW = [1.0, 2.0, 3.0, 4.0]
ANSWERS = {revision: 10.0 * weight for revision, weight in WEIGHTS.items()}
START_S = 60


def linear(weight: float):
    """Make an ONNX graph that multiplies a row of four numbers by a weight and adds them up."""
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((4, 1), weight, dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["rows", "weights"], ["score"])],
        "linear",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def spoilt(bundle: Bundle, to: Path) -> Bundle:
    """Copy a bundle with other golden outputs than its model gives, as it is on a processor that computes otherwise."""
    shutil.copytree(bundle.path, to)
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    data = Golden(golden.inputs, {name: array + 1 for name, array in golden.outputs.items()}).to_bytes()
    files = {**bundle.manifest.files, GOLDEN: FileEntry.of(data)}
    for name, content in ((GOLDEN, data), (MANIFEST, attrs.evolve(bundle.manifest, files=files).to_bytes())):
        (to / name).chmod(0o600)
        (to / name).write_bytes(content)
    return Bundle.open(to)


@pytest.fixture(scope="session")
def key() -> SigningKey:
    return SigningKey(bytes(range(32)))


@pytest.fixture(scope="session")
def archives(tmp_path_factory, key) -> dict[str, Path]:
    """Releases of three good versions, and ``bad``, which no device can prove."""
    folder = tmp_path_factory.mktemp("releases")
    store = Store(folder / "models")
    bundles = {
        revision: package(linear(weight), name="linear", version=f"{weight:.0f}.0.0", example=ROWS, store=store)
        for revision, weight in WEIGHTS.items()
    }
    bundles["bad"] = spoilt(bundles["v3"], folder / "spoilt")
    return {
        revision: build(bundle, fleet=FLEET, revision=revision, sequence=at, key=key, to=folder / f"{revision}.tar.gz")
        for at, (revision, bundle) in enumerate(bundles.items(), 1)
    }


class Fleet:
    """What the person has who publishes."""

    def __init__(self, root: Path, key: SigningKey, archives: dict[str, Path]) -> None:
        self.root = root
        self.key = key
        self.store = DirectoryStore(root / "hub")
        self.public = root / "fleet.pub.pem"
        key.public.save(self.public)
        self.refs = {revision: ReleaseRef.of(archive) for revision, archive in archives.items()}
        for revision, archive in archives.items():
            self.store.put(self.refs[revision].path, archive)
        self.sequence = 0

    def want(self, revision: str | None, **more) -> Desired:
        """Publish that every device is to run this."""
        self.sequence += 1
        table = {revision: 100} if revision is not None else {}
        desired = Desired(fleet=FLEET, sequence=self.sequence, **{"table": table, "releases": self.refs, **more})
        self.store.put(DESIRED, desired.sign(self.key))
        return desired


class Device:
    """One agent process and its home."""

    def __init__(self, fleet: Fleet, name: str, wait_until) -> None:
        self.fleet = fleet
        self.name = name
        self.home = fleet.root / name
        self.log = fleet.root / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self._wait_until = wait_until

    def command(self, *more: str, store: str | None = None) -> list[str]:
        given = {
            "device": self.name,
            "fleet": FLEET,
            "store": store or self.fleet.store.root,
            "home": self.home,
            "key": self.fleet.public,
            "poll": 0.05,
            "settle": 0.2,
        }
        flags = [f"--{name}={value}" for name, value in given.items()]
        return [sys.executable, "-m", "modeldeploy.edge_agent", *flags, *more]

    def start(self, *more: str, **given) -> Device:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(*more, **given), stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.port = json.loads(line)["port"]
        return self

    def ask(self, timeout: float = 10.0) -> tuple[str, float]:
        """Predict one row: which revision answered, and what."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(
                "POST", "/invocations", orjson.dumps({"instances": [ROW]}), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            return answer.headers["modeldeploy-revision"], orjson.loads(body)["predictions"][0][0]
        finally:
            connection.close()

    def serves(self) -> str | None:
        """Name the revision that answers, having seen that its answer is its own; None when nothing does."""
        try:
            revision, value = self.ask()
        except OSError:
            return None
        assert value == ANSWERS[revision]
        return revision

    def report(self) -> Report | None:
        data = self.fleet.store.get(report_path(self.name))
        return None if data is None else Report.from_bytes(data)

    def reports(self, condition, timeout: float = START_S) -> Report:
        """Wait for a report of which ``condition`` holds."""

        def found() -> Report | None:
            report = self.report()
            return report if report is not None and condition(report) else None

        try:
            return self._wait_until(found, timeout, what=f"the report of {self.name}")
        except BaseException:
            sys.stderr.write(f"{self.report()}\n{self.log.read_text()}")
            raise

    def runs(self, revision: str) -> Report:
        """Wait until it says that it has settled on a revision that was wanted last."""
        return self.reports(
            lambda report: report.running == revision and report.settled and report.sequence == self.fleet.sequence
        )

    def server(self) -> psutil.Process | None:
        """Find the process of the model server."""
        children = psutil.Process(self.process.pid).children()
        return children[0] if len(children) == 1 else None

    def kill(self) -> None:
        """Let the power fail."""
        children = psutil.Process(self.process.pid).children()
        self.process.kill()
        self._close()
        psutil.wait_procs(children, timeout=10)

    def stop(self) -> int:
        """End it as a system does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._close()

    def _close(self) -> int:
        with self.process:
            return self.process.wait(30)


@pytest.fixture
def fleet(tmp_path, key, archives) -> Fleet:
    return Fleet(tmp_path, key, archives)


@pytest.fixture
def device(fleet, wait_until):
    made = Device(fleet, "line-1", wait_until)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


@contextlib.contextmanager
def denied(path: Path):
    """Let nobody find a directory, as when the network is away."""
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    try:
        yield
    finally:
        away.rename(path)


@pytest.fixture
def offline(fleet):
    return lambda: denied(fleet.store.root)
