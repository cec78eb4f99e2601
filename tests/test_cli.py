"""The command, verb by verb; what it says is for people, what it returns is for scripts."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request

import attrs
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from modeldeploy import Endpoint, Model, Operation
from modeldeploy.cli import main
from modeldeploy.engine.journal import Journal
from modeldeploy.engine.record import HistoryEntry, Kind, Record
from modeldeploy.serving.audit_file import AuditFile
from modeldeploy.values.ticket import Phase

ROWS = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]})
DRIVER = """
import sys
import pandas as pd
from sklearn.linear_model import LogisticRegression
from modeldeploy import Endpoint, Model, RolloutPolicy

rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0]})
model = Model(LogisticRegression(C=0.5).fit(rows, [0, 0, 1, 1]), name="double", version="1.1.0", example=rows)
rollout = Endpoint.get("cli").rollout(model, RolloutPolicy.canary((50,), soak=0.2, interval=0.05), wait=False)
while rollout.traffic.get(rollout.revision.id) != 50:
    pass
print(rollout.id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def model(modeldeploy_home):
    return Model(LogisticRegression().fit(ROWS, [0, 0, 1, 1]), name="double", version="1.0.0", example=ROWS)


@pytest.fixture
def endpoint(model):
    yield Endpoint.deploy(model, name="cli")
    main(["stop"])


def test_list_shows_endpoints_and_what_is_unfinished(endpoint, capsys):
    assert main(["list"]) == 0
    assert "'cli' on 'local'" in capsys.readouterr().out


def test_history_is_shown_and_verified(endpoint, capsys):
    assert main(["history", "cli", "--verify"]) == 0
    out = capsys.readouterr().out
    assert "promoted" in out
    assert "1 lines verified" in out


@pytest.fixture
def written(modeldeploy_home):
    """A journal in which an endpoint has two lines of history; no endpoint is needed for it."""
    journal = Journal(modeldeploy_home / "journal.sqlite")
    for number in range(2):
        made = journal.create(Record(f"rollout-{number}", Kind.ROLLOUT, "local", "iris", {}))
        entry = HistoryEntry("promoted", f"v{number}", "because")
        journal.save(attrs.evolve(made, phase=Phase.SUCCEEDED), history=entry, keep=False)
    yield journal
    journal.close()


def test_history_names_its_last_line_so_that_it_can_be_kept_elsewhere(written, capsys):
    assert main(["history", "iris", "--verify"]) == 0
    (_first, last) = written.history(backend="local", target="iris")
    assert f"2 lines verified; the last one is {last.chain}\n" in capsys.readouterr().out


def test_a_history_that_is_not_there_is_told_so_that_no_name_is_mistyped(written, capsys):
    for more in ([], ["--verify"]):
        assert main(["history", "irsi", *more]) == 1
        assert "there is no history of endpoint 'irsi' on 'local'" in capsys.readouterr().err


def test_history_whose_end_was_cut_off_ends_with_1_and_names_the_line(written, modeldeploy_home, capsys):
    other = sqlite3.connect(modeldeploy_home / "journal.sqlite")
    other.executescript("DELETE FROM history WHERE number=2")
    other.close()
    assert main(["history", "iris", "--verify"]) == 1
    captured = capsys.readouterr()
    assert "promoted     v0" in captured.out
    assert "history of 'iris' is not whole: line 2 is missing" in captured.err
    assert main(["history", "iris"]) == 0


def test_a_key_is_made_alone_on_standard_output_listed_and_revoked(modeldeploy_home, capsys):
    assert (
        main(
            ["keys", "create", "ana's laptop", "--scope", "predict", "--scope", "admin", "--days", "30", "--rate", "5"]
        )
        == 0
    )
    made = capsys.readouterr()
    token = made.out.strip()
    assert token.startswith("md_")
    assert "keep it now" in made.err
    assert token not in made.err
    assert main(["keys", "list"]) == 0
    listed = capsys.readouterr().out
    (line,) = listed.splitlines()
    key_id = token.split("_")[1]
    assert all(word in line for word in (key_id, "predict,admin", "5/s", "ana's laptop", "expires"))
    assert token.split("_", 2)[2] not in listed
    assert main(["keys", "revoke", key_id]) == 0
    capsys.readouterr()
    assert main(["keys", "list"]) == 0
    assert not capsys.readouterr().out


def test_the_keys_of_a_server_that_runs_by_itself_lie_where_they_are_asked_for(modeldeploy_home, tmp_path, capsys):
    assert main(["keys", "create", "ana", "--file", str(tmp_path / "keys.json")]) == 0
    assert (tmp_path / "keys.json").is_file()
    assert list(modeldeploy_home.iterdir()) == []


def test_a_key_that_is_not_there_ends_with_1(modeldeploy_home, capsys):
    assert main(["keys", "revoke", "nope"]) == 1
    assert "there is no key 'nope'" in capsys.readouterr().err


def test_the_audit_log_is_shown_and_verified(modeldeploy_home, capsys):
    path = modeldeploy_home / "local" / "audit.jsonl"
    file = AuditFile(path)
    file.append([b'{"status":200}', b'{"dropped":3}'])
    file.close()
    assert main(["audit"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1]["status"] == 200
    chain = lines[-1]["chain"]
    assert main(["audit", "--verify"]) == 0
    assert f"3 lines verified, 3 could not be written; the last one is {chain}" in capsys.readouterr().out
    assert main(["audit", "--anchor", "0" * 64]) == 1
    path.write_bytes(path.read_bytes().replace(b"200", b"201"))
    assert main(["audit", "--verify", "--file", str(path)]) == 1
    assert "is not whole" in capsys.readouterr().err


def test_an_audit_log_that_was_never_kept_ends_with_1(modeldeploy_home, capsys):
    assert main(["audit", "--verify"]) == 1
    assert "it is off unless it was asked for" in capsys.readouterr().err


def test_stop_ends_the_processes_and_the_next_call_brings_the_endpoint_back(endpoint):
    before = endpoint.predict(ROWS).tolist()
    assert main(["stop"]) == 0
    assert endpoint.predict(ROWS).tolist() == before


def test_stop_says_that_the_reference_backend_runs_nothing(modeldeploy_home, capsys):
    assert main(["stop", "--backend", "memory"]) == 1
    assert "runs nothing on this machine" in capsys.readouterr().err


def test_doctor_says_what_is_there(modeldeploy_home, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "scikit-learn: " in out
    assert f"home: {modeldeploy_home}" in out


WRONG = [[], ["deploy"], ["history"], ["list", "--no-such"], ["drive", "--every", "0"], ["drive", "--every", "soon"]]


@pytest.mark.parametrize("arguments", [*WRONG, ["drive", "--every", "1", "--once"]], ids=str)
def test_a_wrong_call_ends_with_2_and_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: modeldeploy" in capsys.readouterr().err


def test_an_unknown_backend_ends_with_1_and_the_remedy(modeldeploy_home, capsys):
    assert main(["list", "--backend", "locl"]) == 1
    assert "did you mean 'local'" in capsys.readouterr().err


def test_a_home_that_is_no_directory_ends_with_1_and_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "modeldeploy.cli", "list", "--home", str(tmp_path / "file" / "home")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ConfigurationError: state directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_driving_says_who_goes_on(modeldeploy_home, monkeypatch, capsys):
    def interrupt(_self, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "unfinished", interrupt)
    assert main(["drive"]) == 130
    assert "modeldeploy drive takes it up" in capsys.readouterr().err


def test_an_unknown_operation_ends_with_1(modeldeploy_home, capsys):
    assert main(["drive", "rollout-none"]) == 1
    assert "no operation 'rollout-none'" in capsys.readouterr().err


def test_drive_leaves_a_paused_one_to_its_user_and_says_so(modeldeploy_home, capsys):
    journal = Journal(modeldeploy_home / "journal.sqlite")
    made = journal.create(Record("rollout-1", Kind.ROLLOUT, "local", "iris", {"paused": True}))
    journal.save(attrs.evolve(made, outcome="paused: lunch"), keep=False)
    assert main(["drive", "--once"]) == 0
    assert capsys.readouterr().out == "rollout-1: paused: lunch\n"
    journal.close()


def test_drive_of_one_that_failed_ends_with_1(modeldeploy_home, capsys):
    journal = Journal(modeldeploy_home / "journal.sqlite")
    made = journal.create(Record("rollout-1", Kind.ROLLOUT, "local", "iris", {}))
    journal.save(attrs.evolve(made, phase=Phase.FAILED, outcome="gate failed"), keep=False)
    assert main(["drive", "rollout-1"]) == 1
    assert capsys.readouterr().err == "rollout-1: failed gate failed\n"
    assert main(["drive"]) == 0
    journal.close()


def test_drive_takes_up_what_any_backend_left_unless_told_which(modeldeploy_home, capsys):
    journal = Journal(modeldeploy_home / "journal.sqlite")
    journal.create(Record("rollout-1", Kind.ROLLOUT, "nowhere", "iris", {}))
    assert main(["drive", "--backend", "local"]) == 0
    assert main(["drive"]) == 1
    assert "rollout-1: no backend is called 'nowhere'" in capsys.readouterr().err
    journal.close()


def test_drive_ends_what_a_killed_process_began(endpoint, capsys):
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        operation = killed.stdout.readline().strip()
        killed.send_signal(signal.SIGKILL)
    assert Operation.get(operation).status == "running"
    assert main(["drive"]) == 0
    assert f"{operation}: succeeded" in capsys.readouterr().out
    assert endpoint.stable.model.version == "1.1.0"
    assert Operation.unfinished() == ()


def test_serve_serves_a_bundle_as_a_container_does(model):
    command = [sys.executable, "-m", "modeldeploy.cli", "serve", "--bundle", model.uri, "--port", "0", "--announce"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
    ) as server:
        try:
            at = json.loads(server.stdout.readline())
            body = json.dumps({"instances": [{"a": 3.0}]}).encode()
            request = urllib.request.Request(
                f"http://{at['host']}:{at['port']}/invocations", body, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer) == {"predictions": [1]}
        finally:
            server.terminate()
    assert server.returncode == 0
