"""A bundle and its runtime on another processor: aarch64 by user-mode emulation, in a root file system without a network.

``make test-aarch64`` runs it. What is emulated says nothing about speed; correctness, packaging and the kernels of that processor are
really exercised.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modeldeploy.edge import wheels
from modeldeploy.edge.desired import Desired, ReleaseRef
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.layout import DESIRED, report_path
from modeldeploy.edge.release import build
from modeldeploy.edge.reports import Health, Report
from modeldeploy.edge.stores import DirectoryStore
from modeldeploy.packaging.golden import same
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package
from modeldeploy.packaging.signature import check
from modeldeploy.packaging.store import Store

HERE = Path(__file__).parent
QEMU, PYTHON, DEBIAN = "qemu-aarch64-static", "3.11", "bookworm"
TOOLS = {QEMU: "qemu-user-static", "mmdebstrap": "mmdebstrap", "unshare": "util-linux"}
ROWS = 400
# The emulator has a thread of its own, which keeps the agent from forking; where nothing emulates there is none.
AGENT = """
import sys
from modeldeploy.edge_agent import child
from modeldeploy.edge_agent.__main__ import main
child.can_fork = lambda: True
sys.exit(main())
"""

pytestmark = [pytest.mark.aarch64, pytest.mark.timeout(1500)]


def run(command: list[str], *, timeout: float = 900) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Make a root file system of Debian for aarch64; nothing of it is run to make it."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        pytest.skip(f"run: apt-get install --no-install-recommends {' '.join(missing)}")
    folder = tmp_path_factory.mktemp("aarch64")
    include = "--include=python3,libgomp1,libstdc++6"
    run(["mmdebstrap", "--variant=extract", "--architectures=arm64", include, DEBIAN, str(folder / "root.tar")])
    root = folder / "root"
    root.mkdir()
    run(["tar", "--extract", "--file", str(folder / "root.tar"), "--directory", str(root), "--exclude=./dev/*"])
    shutil.copy(shutil.which(QEMU), root / "usr" / "bin")
    for name in ("home", "releases", "opened", "hub", "device", "tmp", "dev", "proc"):
        (root / name).mkdir(exist_ok=True)
    (root / "dev" / "null").touch()
    return root


@pytest.fixture(scope="module")
def runtime(root, tmp_path_factory) -> Path:
    """Fetch the wheels for the device here, and unpack them, pruned, there."""
    found = wheels.resolve(wheels.pins(), architecture="aarch64", to=tmp_path_factory.mktemp("wheels"), python=PYTHON)
    assert {path.name.partition("-")[0] for path in found} == {*wheels.RUNTIME, "modeldeploy"}
    return wheels.install(found, root / "site")


def trained() -> dict[str, object]:
    """Train models of three kinds and turn them into ONNX graphs."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 8)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype(int)
    models = {
        "forest": RandomForestClassifier(30, max_depth=6, random_state=0),
        "linear": make_pipeline(StandardScaler(), LogisticRegression()),
        "network": MLPClassifier((32, 16), max_iter=200, tol=1e-2, random_state=0),
    }
    opset = {"": 18, "ai.onnx.ml": 3}
    return {
        name: to_onnx(model.fit(x, y), x[:1], target_opset=opset, options={"zipmap": False})
        for name, model in models.items()
    }


@pytest.fixture(scope="module")
def releases(root, tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """Sign releases of the models for the device, and give what the models answer on this machine."""
    key = SigningKey(bytes(range(32)))
    key.public.save(root / "fleet.pub.pem")
    store = Store(tmp_path_factory.mktemp("models"))
    rows = np.random.default_rng(1).normal(size=(ROWS, 8)).astype(np.float32)
    hub, refs, answers = DirectoryStore(root / "hub"), {}, {}
    for at, (name, graph) in enumerate(trained().items(), 1):
        bundle = package(graph, name=name, version="1.0.0", example=rows[:32], store=store)
        archive = build(
            bundle, fleet="cameras", revision=name, sequence=at, key=key, to=root / "releases" / f"{name}.tar.gz"
        )
        np.save(root / "releases" / f"{name}.rows.npy", rows)
        refs[name] = ReleaseRef.of(archive)
        hub.put(refs[name].path, archive)
        model = load(bundle)
        (field,) = model.signature.inputs
        answers[name] = model.predict(check(model.signature, {field.name: rows}))
    hub.put(DESIRED, Desired("cameras", 1, {"forest": 100}, refs).sign(key))
    return answers


def on_the_device(root: Path, *arguments: str, timeout: float = 900) -> str:
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = [sys.executable, str(HERE / "enter.py"), str(root), f"/usr/bin/{QEMU}", "/usr/bin/python3", *arguments]
    return run(
        ["unshare", *own, "--net", "--pid", "--fork", "--kill-child", f"--mount-proc={root / 'proc'}", *inside],
        timeout=timeout,
    )


def test_predictions_are_those_of_this_machine_within_the_tolerance(root, runtime, releases, capsys):
    shutil.copy(HERE / "device.py", root / "device.py")
    seen = json.loads(on_the_device(root, "/device.py").splitlines()[-1])
    assert seen["machine"] == "aarch64"
    assert seen["network"] == "Network is unreachable"
    # Nothing is left by telemetry, nor by anything else.
    assert seen["home"] == []
    assert seen["models"].keys() == releases.keys()
    furthest = {}
    for name, expected in releases.items():
        with np.load(root / "opened" / f"{name}.npz", allow_pickle=False) as got:
            for output, array in expected.items():
                assert same(array, got[output]).all(), f"{name} {output}"
            floats = [output for output, array in expected.items() if array.dtype.kind == "f"]
            furthest[name] = max(float(np.abs(got[each] - expected[each]).max()) for each in floats)
    size = sum(path.stat().st_size for path in runtime.rglob("*") if path.is_file())
    with capsys.disabled():
        print(f"\naarch64: runtime {size / 1e6:.0f} MB, largest differences {furthest}, seconds {seen['models']}")  # noqa: T201 - figures for whoever runs this tier


def test_an_agent_installs_and_proves_a_release_there(root, runtime, releases):
    given = {"device": "pi-1", "fleet": "cameras", "store": "/hub", "home": "/device", "key": "/fleet.pub.pem"}
    flags = [f"--{name}={value}" for name, value in {**given, "selftest": 600, "settle": 0, "poll": 5}.items()]
    on_the_device(root, "-c", AGENT, "--once", *flags)
    report = Report.from_bytes(DirectoryStore(root / "hub").get(report_path("pi-1")))
    assert (report.running, report.health, report.settled, report.note) == ("forest", Health.OK, True, "")
    assert report.versions["machine"] == "aarch64"
    assert list((root / "home").iterdir()) == []
