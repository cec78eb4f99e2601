"""The parts that need no process: options, paths, the state file, the log files, errors on the wire."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy import errors
from modeldeploy.backends.local import client, logs, state, wire
from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.backends.local.fleet import back_off
from modeldeploy.backends.local.options import EndpointOptions, RevisionOptions, read
from modeldeploy.backends.local.paths import Paths, check_private, make_private
from modeldeploy.errors import ConfigurationError, IntegrityError, QuotaError, ThrottledError, UnsupportedError
from modeldeploy.values.serving import Traffic


def record(name: str = "iris", **changes) -> state.Record:
    fields = {
        "host": "127.0.0.1",
        "port": 8080,
        "options": {},
        "revisions": (),
        "traffic": Traffic(),
        "stable": None,
        "version": 0,
    }
    return state.Record(name=name, **{**fields, **changes})


def test_options_are_typed():
    options = read(RevisionOptions, {"threads": "4", "deadline": "0.5", "retry_on_crash": "no"}, "revision")
    assert (options.threads, options.deadline, options.retry_on_crash) == (4, 0.5, False)


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'deadline'"):
        read(RevisionOptions, {"dedline": "1"}, "revision")


@pytest.mark.parametrize(
    ("name", "text"), [("port", "65536"), ("port", "-1"), ("port", "http"), ("host", ""), ("safe_canary", "perhaps")]
)
def test_a_wrong_endpoint_option_is_refused(name, text):
    with pytest.raises(ConfigurationError, match=name):
        read(EndpointOptions, {name: text}, "endpoint")


def test_the_state_comes_back_as_it_was_written(tmp_path):
    written = state.State().put(record()).put(record("other", traffic=Traffic.all_to("v1")))
    state.save(tmp_path / "state.json", written)
    assert state.load(tmp_path / "state.json") == written
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_no_version_is_used_twice():
    first = state.State().put(record())
    again = first.drop("iris").put(record())
    assert again.endpoints["iris"].version > first.endpoints["iris"].version


def test_a_torn_state_file_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "state.json").write_bytes(b'{"schema": 1, "bo')
    with pytest.raises(ConfigurationError, match="move it away"):
        state.load(tmp_path / "state.json")


def test_a_state_of_another_schema_is_refused(tmp_path):
    (tmp_path / "state.json").write_bytes(b'{"schema": 99, "body": {}}')
    with pytest.raises(ConfigurationError, match="schema 99"):
        state.load(tmp_path / "state.json")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(QuotaError, match="nothing was changed"):
        state.save(tmp_path / "no" / "state.json", state.State())


def test_log_lines_come_back_with_their_time(tmp_path):
    before = time.time()
    log = logs.LogFile(tmp_path / "v1.log")
    for text in ("one", "two", "drei é"):
        log.write(text)
    log.close()
    lines = list(logs.read(tmp_path / "v1.log", "v1", since=0, limit=2))
    assert [line.text for line in lines] == ["two", "drei é"]
    assert before - 1 <= lines[0].at <= time.time() + 1
    assert list(logs.read(tmp_path / "v1.log", "v1", since=time.time() + 5, limit=2)) == []


def test_a_log_is_rotated_and_read_across_its_files(tmp_path):
    log = logs.LogFile(tmp_path / "v1.log", max_bytes=400)
    for number in range(30):
        log.write(f"line {number}")
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1.log", "v1.log.1", "v1.log.2"]
    assert all(path.stat().st_size <= 400 for path in tmp_path.iterdir())
    texts = [line.text for line in logs.read(tmp_path / "v1.log", "v1", since=0, limit=100)]
    assert texts == [f"line {number}" for number in range(30 - len(texts), 30)]
    assert len(texts) > 10


def test_a_log_that_cannot_be_written_costs_lines_only(tmp_path):
    (tmp_path / "file").write_text("")
    log = logs.LogFile(tmp_path / "file" / "v1.log")
    log.write("lost")
    assert log.dropped == 1


def test_a_log_of_nothing_is_empty(tmp_path):
    assert list(logs.read(tmp_path / "none.log", "v1", since=0, limit=5)) == []


def test_sockets_lie_in_a_short_private_directory(tmp_path):
    runtime = Paths(tmp_path / ("deep" * 50)).runtime()
    assert len(str(runtime)) < 80
    assert Paths(tmp_path / ("deep" * 50)).runtime() == runtime
    assert Paths(tmp_path).runtime() != runtime


def test_a_directory_that_others_may_enter_is_not_trusted(tmp_path):
    made = make_private(tmp_path / "mine")
    made.chmod(0o755)
    with pytest.raises(IntegrityError, match="not a private directory"):
        check_private(made)


def test_a_link_in_the_place_of_the_directory_is_not_trusted(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError):
        check_private(tmp_path / "link")


@given(st.integers(1, 100))
def test_pauses_grow_and_stay_bounded(failures):
    assert back_off(1) == 0
    assert back_off(failures) <= back_off(failures + 1) <= 10


def test_errors_go_through_the_wire():
    for cls in (errors.ConflictError, errors.NotFoundError, errors.QuotaError):
        error = wire.to_error(wire.from_error(cls("what happened", hint="do this", context={"endpoint": "iris"})))
        assert type(error) is cls
        assert str(error) == "what happened [endpoint='iris']; do this"
    unknown = wire.to_error({"type": "SystemExit", "message": "no class of ours"})
    assert type(unknown) is errors.BackendError
    assert isinstance(wire.to_error(wire.from_error(ThrottledError("later"))), ThrottledError)


def test_the_backend_is_light_to_import():
    code = "import sys, modeldeploy.backends.local.backend as _; print([m for m in ('numpy', 'asyncio', 'urllib3') if m in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"


def test_windows_is_refused_with_the_reason_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setattr(client, "_WINDOWS", True)
    backend = LocalBackend(tmp_path / "home")
    for refused in (backend.check, lambda: backend.put_revision(None, None), lambda: backend.warm("sklearn")):
        with pytest.raises(UnsupportedError, match="Windows"):
            refused()
    assert not (tmp_path / "home").exists()
