"""A whole run of ours against the limits, small: real servers, a real load, a real table."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["--peers", "none", "--rounds", "1", "--seconds", "0.2", "--generator", "python", "--levels", "2"]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run(out: Path, *asked: str) -> dict:
    line = [sys.executable, str(BENCHMARKS / "run.py"), *SMALL, "--models", "lr-onnx", "--out", str(out), *asked]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [process for process in psutil.process_iter(["cmdline"]) if str(out) in (process.info["cmdline"] or [])]
    return json.loads(out.read_text())


def test_a_run_loads_ours_and_the_limit_and_writes_what_it_saw(tmp_path):
    out = tmp_path / "out.json"
    found = run(out, "--parts", "serve")
    ours = {("json", 1), ("json", 100), ("binary", 100)}
    for server, forms in {"modeldeploy": ours, "bare HTTP (limit)": ours - {("binary", 100)}}.items():
        cells = [cell for cell in found["cells"] if cell["server"] == server]
        assert {(cell["form"], cell["rows"]) for cell in cells} == forms
        for cell in cells:
            assert cell["requests"] > 10
            assert cell["errors"] == 0
            assert 0 < cell["cpu_s"] < 2 * cell["seconds"]
    assert not [start for start in found["starts"] if start["failed"]]
    assert all(start["peak_bytes"] > 10e6 for start in found["starts"])
    assert "at most 60 us of server CPU" in out.with_suffix(".md").read_text()


@pytest.mark.slow
def test_a_run_scores_a_table_with_ours_and_the_limit(tmp_path):
    found = run(tmp_path / "out.json", "--parts", "batch", "--rows", "20000")
    scores = {(score["tool"], score["rows"]): score for score in found["scores"]}
    loop = "bare loop, a thread for each core (limit)"
    assert set(scores) == {("modeldeploy", 20_000), ("modeldeploy", 4_000), (loop, 20_000)}
    for score in scores.values():
        assert score["failed"] == ""
        assert score["cpu_s"] > 0.1
        assert score["peak_bytes"] > 50e6
    assert {each["name"] for each in found["figures"]} >= {"reading alone, lr-onnx", "predicting alone, lr-onnx"}


@pytest.mark.slow
def test_a_run_changes_a_running_endpoint_under_load(tmp_path):
    found = run(tmp_path / "out.json", "--parts", "change")
    values = {each["name"]: each["value"] for each in found["figures"]}
    for what in ("traffic switch", "rollback"):
        assert 0 < values[f"{what} under load, median, lr-onnx"] <= values[f"{what} under load, slowest, lr-onnx"]
        assert values[f"{what} under load, failed requests, lr-onnx"] == 0
        assert values[f"{what} under load, requests, lr-onnx"] > 100


def test_a_server_that_predicts_otherwise_is_not_loaded(tmp_path):
    """The echo gives one answer to everything; taken for a server of the model it is found out."""
    script = """
        import sys
        from pathlib import Path
        import attrs, models, peers, serving, tree

        tree.adopt_orphans()
        folder = Path(sys.argv[1])
        echo = next(server for server in peers.SERVERS if server.kind == "limit")
        liar = attrs.evolve(echo, kind="peer", form=peers.INSTANCES)
        made = models.make(models.SERVED, "lr-onnx", folder)
        with serving.started(liar, made, folder) as (running, _seconds):
            try:
                running.check(liar.form, 100)
            except serving.FailedError as error:
                print(error)
    """
    line = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(line, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "predicts [0], the model [0 0 0" in done.stdout


def test_a_table_with_one_wrong_row_is_found_out(script, tmp_path):
    """Counts and sums over the ids and predictions differ, whatever the order of the rows."""
    models = script("models")
    made = models.make(models.SCORED, "lr-onnx", tmp_path)
    wanted = models.expected(made, models.table(1000, tmp_path))
    good = [(ids, made.predict(X)) for ids, X in models._draws(1000)]
    assert models.Sums.of((ids[::-1], predictions[::-1]) for ids, predictions in good) == wanted
    swapped = [(ids, predictions.copy()) for ids, predictions in good]
    ones, zeros = swapped[0][1].nonzero()[0][0], (swapped[0][1] == 0).nonzero()[0][0]
    swapped[0][1][[ones, zeros]] = 0, 1
    assert models.Sums.of(iter(swapped)) != wanted


def test_peers_are_chosen_by_name_and_an_unknown_one_is_refused(script):
    peers = script("peers")
    assert peers.parse("none") == []
    assert peers.parse("fastapi litserve") == ["fastapi", "litserve"]
    assert {server.name for server in peers.chosen(peers.SERVERS, ["fastapi"])} > {"modeldeploy", "FastAPI, tutorial"}
    assert "LitServe" not in {server.name for server in peers.chosen(peers.SERVERS, ["fastapi"])}
    with pytest.raises(SystemExit, match="'fastpi'"):
        peers.parse("fastpi")


def test_every_peer_is_pinned(script):
    peers = script("peers")
    assert {each.environment for each in (*peers.SERVERS, *peers.TOOLS)} - {""} == set(peers.KNOWN)
    for name in peers.KNOWN:
        lines = (peers.PROGRAMS / f"{name}.txt").read_text().splitlines()
        assert lines
        assert all("==" in line or line.startswith("#") for line in lines)
