"""An agent as a real process: it follows what is signed for it, and serves whatever happens."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import attrs
import orjson
import psutil
import pytest

from modeldeploy.edge.desired import ReleaseRef, place
from modeldeploy.edge.hub import Hub
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.layout import DESIRED
from modeldeploy.edge.release import build, open_release
from modeldeploy.edge.reports import Health
from modeldeploy.edge_agent.__main__ import main
from modeldeploy.packaging.bundle import Bundle

FLEET = "cameras"
START_S = 60


def test_a_device_installs_what_is_wanted_and_serves_it(device, fleet):
    fleet.want("v1")
    device.start()
    report = device.runs("v1")
    assert report.health is Health.OK
    assert (report.note, report.failed_revision) == ("", None)
    assert report.versions.keys() == {"python", "machine", "modeldeploy", "numpy", "onnxruntime"}
    assert device.ask() == ("v1", 10.0)
    assert device.stop() == 0


def test_a_new_version_takes_the_port_over_without_an_unanswered_request(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    seen, ended = [], threading.Event()

    def load():
        while not ended.is_set():
            seen.append(device.ask())

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for revision in ("v2", "v3", "v1"):
        fleet.want(revision)
        device.runs(revision)
    ended.set()
    for thread in threads:
        thread.join()
    # A thread that met an error would have ended, and pytest fails a test whose thread raised.
    assert set(seen) == {("v1", 10.0), ("v2", 20.0), ("v3", 30.0)}


def test_a_release_that_fails_its_self_test_is_never_served(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    fleet.want("bad")
    report = device.reports(lambda report: report.sequence == fleet.sequence)
    assert (report.running, report.health, report.failed_revision) == ("v1", Health.FAILED, "bad")
    assert "failed its self-test on this device" in report.note
    assert "does not give its recorded answers" in report.note
    assert device.serves() == "v1"
    fleet.want("v1")
    assert device.runs("v1").health is Health.OK


def test_a_failed_self_test_is_tried_again_only_when_something_new_is_wanted(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    fleet.want("bad")
    device.reports(lambda report: report.sequence == fleet.sequence)
    failures = json.loads((device.home / "failures.json").read_text())
    assert [(each["revision"], each["sequence"], each["lasting"]) for each in failures] == [("bad", 2, False)]
    fleet.want("bad", blocked=("v2",))
    device.reports(lambda report: report.sequence == fleet.sequence)
    failures = json.loads((device.home / "failures.json").read_text())
    assert [(each["revision"], each["sequence"]) for each in failures] == [("bad", 3)]


def test_going_back_needs_no_download(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    fleet.want("v2")
    device.runs("v2")
    for ref in fleet.refs.values():
        fleet.store.delete(ref.path)
    fleet.want("v1")
    device.runs("v1")
    assert device.serves() == "v1"


def test_a_version_that_keeps_dying_goes_back_by_itself_and_for_good(device, fleet, wait_until):
    fleet.want("v1")
    device.start("--settle=0")
    device.runs("v1")
    device.stop()
    device.start("--settle=600")
    fleet.want("v2")
    device.reports(lambda report: report.running == "v2")
    known = None
    while (report := device.report()).running == "v2":
        server = device.server()
        if server is not None and server.pid != known and device.serves() == "v2":
            known = server.pid
            server.kill()
        time.sleep(0.01)
    assert (report.running, report.health, report.failed_revision) == ("v1", Health.FAILED, "v2")
    assert "v2 died 3 times after it was activated" in report.note
    wait_until(lambda: device.serves() == "v1")
    # Nor is it tried again for another desired state, nor after a restart.
    fleet.want("v2", blocked=("v3",))
    report = device.reports(lambda report: report.sequence == fleet.sequence)
    assert (report.running, report.failed_revision) == ("v1", "v2")
    device.stop()
    device.start()
    assert device.serves() == "v1"


def test_a_version_that_takes_the_device_down_three_times_goes_back(device, fleet):
    fleet.want("v1")
    device.start("--settle=0")
    device.runs("v1")
    device.stop()
    fleet.want("v2")
    device.start("--settle=600")
    device.reports(lambda report: report.running == "v2")
    for _ in range(2):
        device.kill()
        device.start("--settle=600")
        assert device.serves() == "v2"
    device.kill()
    device.start("--settle=600")
    assert device.serves() == "v1"
    report = device.reports(lambda report: report.running == "v1" and report.sequence == fleet.sequence)
    assert (report.health, report.failed_revision) == (Health.FAILED, "v2")
    assert "did not stay up with it in 3 attempts" in report.note


def test_a_server_that_dies_is_started_again_on_the_same_port(device, fleet, wait_until):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    first = wait_until(device.server)
    first.kill()
    # The agent holds the socket: the request waits in the kernel until the next server takes it.
    assert device.ask(timeout=30) == ("v1", 10.0)
    assert wait_until(device.server).pid != first.pid


def test_a_server_that_hangs_is_replaced(device, fleet, wait_until):
    fleet.want("v1")
    device.start("--patience=0.5")
    device.runs("v1")
    first = wait_until(device.server)
    first.send_signal(signal.SIGSTOP)
    wait_until(lambda: not psutil.pid_exists(first.pid), 60, what="the end of the server that hangs")
    assert device.ask(timeout=30) == ("v1", 10.0)


def test_a_device_serves_offline_and_catches_up(device, fleet, offline):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    with offline():
        device.stop()
        device.start()
        assert device.serves() == "v1"
    fleet.want("v2")
    device.runs("v2")
    assert device.serves() == "v2"


def test_a_device_that_never_had_anything_waits_for_its_store(device, fleet, offline):
    fleet.want("v1")
    with offline():
        device.start()
        assert device.serves() is None
    device.runs("v1")
    assert device.serves() == "v1"


def test_a_desired_state_that_is_not_to_be_believed_changes_nothing(device, fleet):
    old = fleet.want("v2").sign(fleet.key)
    wanted = fleet.want("v1")
    device.start()
    device.runs("v1")
    newer = attrs.evolve(wanted, sequence=9, table={"v2": 100})
    documents = {
        "was seen already": old,
        "is of fleet 'drones'": attrs.evolve(newer, fleet="drones").sign(fleet.key),
        "the keys known here": newer.sign(SigningKey(bytes(32))),
        "does not fit": wanted.sign(fleet.key).replace(b"v1", b"v2"),
        "is no signed document": b"<html>",
        "two desired states": attrs.evolve(newer, sequence=wanted.sequence).sign(fleet.key),
    }
    for words, document in documents.items():
        fleet.store.put(DESIRED, document)
        report = device.reports(lambda report, words=words: words in report.note)
        assert (report.running, report.health, report.sequence) == ("v1", Health.OK, 2)
        assert device.serves() == "v1"
    # An honest state is followed as soon as there is one again.
    fleet.want("v3")
    assert device.runs("v3").note == ""


def test_an_older_state_is_refused_after_a_restart_too(device, fleet):
    old = fleet.want("v2").sign(fleet.key)
    fleet.want("v1")
    device.start()
    device.runs("v1")
    device.stop()
    fleet.store.put(DESIRED, old)
    device.start()
    assert "was seen already" in device.reports(lambda report: bool(report.note)).note
    assert device.serves() == "v1"


def test_a_release_that_was_changed_in_the_store_is_refused(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    path = fleet.refs["v2"].path
    data = bytearray(fleet.store.get(path))
    data[len(data) // 2] ^= 1
    fleet.store.put(path, bytes(data))
    fleet.want("v2")
    report = device.reports(lambda report: report.sequence == fleet.sequence)
    assert (report.running, report.health, report.failed_revision) == ("v1", Health.FAILED, "v2")
    assert "is not what the desired state says" in report.note
    assert list((device.home / "incoming").iterdir()) == []


def test_a_download_that_stopped_goes_on(device, fleet):
    data = fleet.store.get(fleet.refs["v1"].path)
    (device.home / "incoming").mkdir(parents=True)
    (device.home / "incoming" / f"{fleet.refs['v1'].digest}.tar.gz.part").write_bytes(data[:500])
    fleet.want("v1")
    device.start()
    device.runs("v1")
    assert device.serves() == "v1"


def test_a_slot_that_decayed_is_not_served(device, fleet, wait_until):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    fleet.want("v2")
    device.runs("v2")
    device.stop()
    active = orjson.loads((device.home / "active.json").read_bytes())["slot"]
    model = device.home / "slots" / active / "bundle" / "artifacts" / "model.onnx"
    model.chmod(0o600)
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    device.start()
    # The other slot answers meanwhile, and what is wanted is fetched anew.
    wait_until(lambda: device.serves() == "v2", START_S)
    assert "does not hold" in device.log.read_text()


def test_a_device_follows_its_own_place_in_the_fleet(device, fleet):
    at = place(FLEET, device.name)
    fleet.want(None, table={"v2": at, "v1": 100 - at}, order=("v2", "v1"))
    device.start()
    device.runs("v1")
    fleet.want(None, table={"v2": at + 1, "v1": 99 - at}, order=("v2", "v1"))
    device.runs("v2")


def test_a_blocked_revision_is_left_for_the_one_before(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    fleet.want("v2")
    device.runs("v2")
    fleet.want(None, table={}, blocked=("v2",))
    report = device.runs("v1")
    assert report.health is Health.OK
    assert device.serves() == "v1"


def test_when_nothing_is_wanted_a_device_keeps_what_it_has(device, fleet):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    fleet.want(None)
    device.runs("v1")
    assert device.serves() == "v1"


def test_while_a_version_is_on_trial_the_one_before_it_is_kept(device, fleet, wait_until):
    fleet.want("v1")
    device.start("--settle=0")
    device.runs("v1")
    device.stop()
    device.start("--settle=600")
    fleet.want("v2")
    device.reports(lambda report: report.running == "v2")
    fleet.want("v3")
    # It has seen the new state, and waits; going back is possible meanwhile, from the disk.
    wait_until(
        lambda: (
            orjson.loads(orjson.loads((device.home / "desired.json").read_bytes())["payload"])["body"]["sequence"] == 3
        )
    )
    assert device.serves() == "v2"
    fleet.want("v1")
    device.reports(lambda report: report.running == "v1")
    assert device.serves() == "v1"


def test_the_port_stays_the_same_when_the_agent_comes_back(device, fleet):
    device.start()
    port = device.port
    device.stop()
    device.start()
    assert device.port == port


def test_two_agents_cannot_have_one_home(device, fleet):
    device.start()
    done = subprocess.run(device.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "another agent runs in" in done.stderr


def test_an_agent_over_http_follows_and_reports(device, fleet):
    fleet.want("v1")
    with Hub(fleet.store.root, token="publisher", device_token="device") as hub:
        token = fleet.root / "token"
        token.write_text("device\n")
        device.start(f"--token-file={token}", store=hub.url)
        device.runs("v1")
        assert device.serves() == "v1"
    fleet.want("v2")
    with Hub(fleet.store.root, port=hub.port) as again:
        assert again.port == hub.port
        device.runs("v2")


def test_once_does_what_is_wanted_and_ends(device, fleet):
    fleet.want("v1")
    done = subprocess.run(device.command("--once"), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert device.report().running == "v1"
    fleet.want("bad")
    done = subprocess.run(device.command("--once"), capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert device.report().failed_revision == "bad"


def test_a_report_that_nobody_takes_stops_nothing(device, fleet):
    fleet.want("v1")
    (fleet.store.root / "reports").write_text("in the way")
    device.start()
    deadline = time.monotonic() + 30
    while device.serves() != "v1":
        assert time.monotonic() < deadline
    (fleet.store.root / "reports").unlink()
    device.runs("v1")


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process are Linux's")
def test_a_full_disk_stops_nothing_and_what_is_wanted_comes_when_there_is_room(device, fleet, wait_until):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    agent = psutil.Process(device.process.pid)
    _soft, hard = agent.rlimit(psutil.RLIMIT_FSIZE)
    agent.rlimit(psutil.RLIMIT_FSIZE, (0, hard))  # no file of this process may grow: every write fails, for real
    seen = device.fleet.store.modified("reports/line-1.json")
    fleet.want("v2")
    # The limit holds for a server that is started now too, and it needs no file.
    wait_until(device.server).kill()
    assert device.ask(timeout=30) == ("v1", 10.0)
    assert device.fleet.store.modified("reports/line-1.json") == seen
    agent.rlimit(psutil.RLIMIT_FSIZE, (hard, hard))
    device.runs("v2")
    assert device.serves() == "v2"


def test_a_pointer_that_cannot_be_written_leaves_what_is_served_and_no_server_beside_it(device, fleet, wait_until):
    for revision in ("v1", "v2"):
        fleet.want(revision)
        if device.process is None:
            device.start()
        device.runs(revision)
    pointer = device.home / "active.json"
    content = pointer.read_bytes()
    pointer.unlink()
    (pointer / "in the way").mkdir(parents=True)  # a rename over it fails
    fleet.want("v1")
    report = device.reports(lambda report: "the disk of this device" in report.note)
    assert (report.running, report.health) == ("v2", Health.OK)
    assert wait_until(device.server)  # one, whenever no attempt is under way
    assert device.serves() == "v2"
    (pointer / "in the way").rmdir()
    pointer.rmdir()
    pointer.write_bytes(content)
    device.process.send_signal(signal.SIGHUP)  # it would look by itself, later and later
    device.runs("v1")
    assert wait_until(device.server)
    assert device.serves() == "v1"


@pytest.mark.skipif(sys.platform != "linux", reason="a shell that limits its files stands for a full disk")
def test_a_device_whose_disk_is_full_serves_what_it_has_after_a_restart(device, fleet, monkeypatch):
    fleet.want("v1")
    device.start()
    device.runs("v1")
    device.stop()
    (device.home / "address.json").unlink()
    usual = device.command
    monkeypatch.setattr(
        device, "command", lambda *more, **given: ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *usual(*more, **given)]
    )
    device.start()
    assert device.serves() == "v1"
    assert not (device.home / "address.json").exists()


def test_a_report_counts_the_answers_of_what_runs(device, fleet):
    fleet.want("v1")
    device.start("--heartbeat=0.05")
    device.runs("v1")
    for _ in range(5):
        device.ask()
    assert device.reports(lambda report: report.answers >= 5).errors == 0


@pytest.mark.parametrize("flag", ["--device=../x", "--fleet=X", "--store=ftp://x", "--key=/nowhere.pem", "--poll=0"])
def test_a_wrong_argument_ends_the_agent_with_the_reason(device, flag, caplog):
    assert main(device.command(flag)[3:]) == 1
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "; " in record.getMessage()  # the reason and the remedy
    assert not device.home.exists()


def test_a_release_with_its_own_libraries_runs_in_an_interpreter_of_its_own(device, fleet, monkeypatch, wait_until):
    tmp_path = fleet.root
    # Python imports sitecustomize before anything else: it shows which interpreter had these libraries.
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "mark-1-py3-none-any.whl", "w") as wheel:
        code = "import os, sys\nopen(os.environ['MARK'], 'a').write(' '.join(sys.orig_argv) + '\\n')\n"
        wheel.writestr("sitecustomize.py", code)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    bundle = Bundle.open(open_release_of(fleet.store.root / fleet.refs["v2"].path, fleet, tmp_path / "v2"))
    brought = {platform.machine(): tmp_path / "wheels"}
    archive = build(
        bundle, fleet=FLEET, revision="v2", sequence=9, key=fleet.key, to=tmp_path / "r.tar.gz", wheels=brought
    )
    fleet.refs["v2"] = ReleaseRef.of(archive)
    fleet.store.put(fleet.refs["v2"].path, archive)
    fleet.want("v1")
    device.start()
    device.runs("v1")
    assert not (tmp_path / "mark").exists()
    fleet.want("v2")
    device.runs("v2")
    assert device.serves() == "v2"
    assert "-m modeldeploy.edge_agent.server" in (tmp_path / "mark").read_text()
    # It is bound to the agent as a forked one is.
    server = wait_until(device.server)
    device.kill()
    wait_until(lambda: not psutil.pid_exists(server.pid) or server.status() == psutil.STATUS_ZOMBIE)


def open_release_of(archive: Path, fleet, into: Path) -> Path:
    open_release(archive, [fleet.key.public], fleet=FLEET, into=into)
    return into / "bundle"
