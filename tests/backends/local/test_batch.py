"""Batch jobs on this machine by the protocol: put, advance, observe, cancel; runners that are killed and started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import attrs
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeldeploy.backends.local.batch import LocalBatch
from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError, InvalidRequestError, NotFoundError
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store
from modeldeploy.scoring import sharing
from modeldeploy.scoring.durable import Lease
from modeldeploy.spi import Batch
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.ticket import Phase

pytestmark = pytest.mark.skipif(os.name == "nt", reason="runners are detached with POSIX sessions")


def _score(columns):
    import os
    import signal
    import time

    if (columns["x"] == 1e10).any():
        os.kill(os.getpid(), signal.SIGSEGV)
    if (columns["x"] == 1e9).any():
        time.sleep(1000)
    if (columns["x"] < 0).any():
        message = "negative"
        raise ValueError(message)
    time.sleep(0.002)
    return columns["x"] * 2


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def backend(home):
    return LocalBatch(home)


@pytest.fixture
def bundle(home):
    example = {"x": np.array([0.5, 1.0])}
    return package(_score, name="scorer", version="1.0.0", example=example, store=Store(home / "store"))


@pytest.fixture
def spec(tmp_path, bundle):
    path = tmp_path / "in.parquet"
    _write(path)
    return BatchSpec(
        name="the-job",
        model=bundle.model_version(),
        source=(str(path),),
        output=str(tmp_path / "out.parquet"),
        key="id",
        chunk_rows=100,
        workers=1,
    )


def _write(path, rows=4000, bad=(), value=-1):
    x = np.arange(rows, dtype=float)
    x[list(bad)] = value
    pq.write_table(pa.table({"id": np.arange(rows), "x": x}), path, row_group_size=400)


@pytest.fixture
def finish(backend, wait_until):
    """Give ``finish(ticket)``: advance until it ended."""

    def run(ticket):
        moving = [ticket]

        def ended():
            moving[0] = backend.advance(moving[0])
            return moving[0].phase.ended

        wait_until(ended, 60)
        return moving[0]

    return run


def _files(folder: Path):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_it_is_a_batch_backend(backend):
    assert isinstance(backend, Batch)
    assert backend.check().backend == "local"
    backend.close()


def test_a_job_is_scored_and_observed(backend, spec, finish):
    ticket = finish(backend.put_job(spec))
    assert ticket.phase is Phase.SUCCEEDED
    assert ticket.fraction == 1.0
    assert "4,000 of 4,000 rows" in ticket.note
    state = backend.observe_job("the-job")
    assert (state.phase, state.rows_done, state.bad_rows, state.quarantine) == (Phase.SUCCEEDED, 4000, 0, None)
    assert state.rows_per_second > 0
    assert list(backend.jobs()) == ["the-job"]
    result = pq.read_table(spec.output)
    assert result.column("id").to_pylist() == list(range(4000))
    assert result.column("prediction").to_pylist() == [2.0 * n for n in range(4000)]


def test_asking_writes_nothing(backend, spec, tmp_path):
    before = _files(tmp_path)
    backend.put_job(spec)
    assert _files(tmp_path) == before
    assert backend.observe_job("the-job") is None
    assert list(backend.jobs()) == []


def test_a_ticket_advanced_twice_from_its_start_does_the_work_once(backend, spec, finish):
    ticket = backend.put_job(spec)
    backend.advance(ticket)
    assert finish(ticket).phase is Phase.SUCCEEDED
    written = Path(spec.output).stat().st_mtime_ns
    assert finish(ticket).phase is Phase.SUCCEEDED
    assert finish(backend.put_job(spec)).phase is Phase.SUCCEEDED
    assert Path(spec.output).stat().st_mtime_ns == written


def _runner(backend, job="the-job"):
    lease = backend._job(job).lease
    return psutil.Process(int(lease.read_text()))


def test_a_runner_that_is_killed_is_started_again(backend, spec, finish, wait_until):
    ticket = backend.advance(backend.put_job(spec))
    wait_until(lambda: len(backend._job("the-job").entries()) >= 2, 30)
    _runner(backend).send_signal(signal.SIGKILL)
    wait_until(lambda: not Lease.held(backend._job("the-job").lease))
    assert "no process is at work" in backend.observe_job("the-job").note
    assert finish(ticket).phase is Phase.SUCCEEDED
    assert pq.read_table(spec.output).column("id").to_pylist() == list(range(4000))


def test_a_runner_leads_its_own_session_and_leaves_no_zombie(backend, spec, finish, wait_until):
    ticket = backend.advance(backend.put_job(spec))
    wait_until(lambda: backend._job("the-job").lease.read_text().isdigit(), 30)
    runner = _runner(backend)
    assert os.getsid(runner.pid) == runner.pid
    finish(ticket)
    wait_until(lambda: not psutil.pid_exists(runner.pid))


def _children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


def test_the_runner_that_began_while_the_job_was_checked_runs_it(backend, spec, finish, wait_until):
    ticket = backend.put_job(spec)
    (early,) = _children()
    ticket = backend.advance(ticket)
    wait_until(lambda: backend._job("the-job").lease.read_text().isdigit(), 30)
    assert _runner(backend).pid == early
    assert finish(ticket).phase is Phase.SUCCEEDED


def test_the_worker_of_a_large_job_loads_the_model_meanwhile(backend, spec, finish, wait_until, monkeypatch):
    monkeypatch.setattr(sharing, "LARGE", 1)
    ticket = backend.put_job(spec)
    wait_until(lambda: len(_children()) == 2, 30)
    early = _children()
    ticket = backend.advance(ticket)
    wait_until(lambda: len(backend._job("the-job").entries()) >= 2, 30)
    assert _children() == early
    assert finish(ticket).phase is Phase.SUCCEEDED
    assert pq.read_table(spec.output).column("prediction").to_pylist() == [2.0 * n for n in range(4000)]


def test_a_row_that_kills_the_worker_that_began_early_is_found(backend, spec, finish, monkeypatch):
    monkeypatch.setattr(sharing, "LARGE", 1)
    _write(spec.source[0], bad=[1234], value=1e10)
    assert finish(backend.put_job(attrs.evolve(spec, max_bad_rows=1))).phase is Phase.SUCCEEDED
    assert pq.read_table(spec.output).column("id").to_pylist() == [n for n in range(4000) if n != 1234]
    (bad,) = Path(backend.observe_job("the-job").quarantine).read_text().splitlines()
    assert '"row":1234' in bad
    assert "the process that scored it died (SIGSEGV)" in bad


def test_the_worker_that_began_early_ends_with_its_runner(backend, spec, finish, wait_until, monkeypatch):
    monkeypatch.setattr(sharing, "LARGE", 1)
    ticket = backend.advance(backend.put_job(spec))
    wait_until(lambda: len(backend._job("the-job").entries()) >= 2, 30)
    runner = _runner(backend)
    (worker,) = runner.children()
    runner.send_signal(signal.SIGKILL)
    wait_until(lambda: not worker.is_running(), 30)
    assert finish(ticket).phase is Phase.SUCCEEDED
    assert pq.read_table(spec.output).column("id").to_pylist() == list(range(4000))


@pytest.mark.parametrize("large", [False, True])
def test_what_began_for_a_job_that_is_refused_or_never_run_ends(backend, spec, wait_until, monkeypatch, large):
    monkeypatch.setattr(sharing, "LARGE", 1 if large else 1 << 40)
    with pytest.raises(InvalidRequestError):
        backend.put_job(attrs.evolve(spec, columns={"x": "not there"}))
    wait_until(lambda: not _children(), 30)
    backend.put_job(spec)
    backend.put_job(spec)
    assert _children()
    backend.close()
    wait_until(lambda: not _children(), 30)


def test_a_runner_that_died_while_the_job_was_checked_is_replaced(backend, spec, finish, wait_until):
    ticket = backend.put_job(spec)
    (early,) = _children()
    os.kill(early, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(early))
    assert finish(ticket).phase is Phase.SUCCEEDED


def test_what_a_model_says_while_it_loads_is_in_the_log_of_the_job(backend, spec, finish, wait_until, monkeypatch):
    monkeypatch.setattr(sharing, "LARGE", 1)
    monkeypatch.setenv("PYTHONVERBOSE", "1")
    ticket = backend.put_job(spec)
    monkeypatch.delenv("PYTHONVERBOSE")
    wait_until(lambda: len(_children()) == 2, 30)
    assert finish(ticket).phase is Phase.SUCCEEDED
    said = backend.log("the-job").read_text()
    assert "import 'modeldeploy.scoring.early'" in said or "modeldeploy/scoring/early.py" in said
    assert "modeldeploy/scoring/worker.py" in said


def test_a_runner_that_cannot_start_fails_the_job_with_what_it_said(backend, spec, finish, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    ticket = backend.put_job(spec)
    ended = finish(ticket)
    assert ended.phase is Phase.FAILED
    assert "died 3 times" in ended.note
    monkeypatch.delenv("PYTHONHOME")
    assert finish(backend.put_job(spec)).phase is Phase.SUCCEEDED


def test_a_cancelled_job_keeps_what_is_done_and_goes_on(backend, spec, finish, wait_until):
    ticket = backend.advance(backend.put_job(spec))
    wait_until(lambda: len(backend._job("the-job").entries()) >= 2, 30)
    ticket = backend.cancel(ticket)
    assert finish(ticket).phase is Phase.CANCELLED
    assert backend.observe_job("the-job").phase is Phase.CANCELLED
    kept = len(backend._job("the-job").entries())
    assert not Path(spec.output).exists()
    assert finish(backend.put_job(spec)).phase is Phase.SUCCEEDED
    assert len(backend._job("the-job").entries()) > kept >= 2


def test_a_model_that_hangs_is_ended_by_cancelling_twice(backend, spec, finish, wait_until):
    pq.write_table(pa.table({"id": [1], "x": [1e9]}), spec.source[0])
    ticket = backend.advance(backend.put_job(spec))
    wait_until(lambda: backend.observe_job("the-job").note == "scoring", 30)
    children = _runner(backend).children()
    ticket = backend.cancel(backend.cancel(ticket))
    assert finish(ticket).phase is Phase.CANCELLED
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_cancelling_what_was_never_begun_or_is_done_is_harmless(backend, spec, finish):
    ticket = backend.put_job(spec)
    assert backend.cancel(ticket).phase is Phase.CANCELLED
    done = finish(ticket)
    assert backend.cancel(done) == done
    assert backend.cancel(attrs.evolve(done, phase=Phase.RUNNING)).phase is Phase.SUCCEEDED


def test_a_job_that_is_done_is_done_also_while_its_runner_still_goes_away(backend, spec, finish, wait_until):
    done = finish(backend.put_job(spec))
    job = backend._job("the-job")
    wait_until(lambda: not Lease.held(job.lease))
    lease = Lease.take(job.lease)
    try:
        assert backend.cancel(attrs.evolve(done, phase=Phase.RUNNING)).phase is Phase.SUCCEEDED
        ticket = backend.put_job(attrs.evolve(spec, keep=(), options={"overwrite": "true"}))
        assert "lease" in backend.advance(ticket).note
    finally:
        lease.release()
    assert finish(ticket).phase is Phase.SUCCEEDED
    assert pq.read_schema(spec.output).names == ["id", "prediction"]


def test_too_many_bad_rows_fail_and_a_higher_limit_goes_on(backend, spec, finish):
    _write(Path(spec.source[0]), bad=[7, 3999])
    failed = finish(backend.put_job(attrs.evolve(spec, max_bad_rows=1)))
    assert failed.phase is Phase.FAILED
    assert "max_bad_rows" in failed.note
    assert "negative" in failed.note
    done = finish(backend.put_job(attrs.evolve(spec, max_bad_rows=2)))
    assert done.phase is Phase.SUCCEEDED
    state = backend.observe_job("the-job")
    assert state.bad_rows == 2
    assert Path(state.quarantine).read_bytes().count(b"\n") == 2


def test_the_same_name_for_other_content_is_a_conflict(backend, spec, finish):
    finish(backend.put_job(spec))
    other = attrs.evolve(spec, keep=())
    with pytest.raises(ConflictError, match="other content"):
        backend.put_job(other)
    assert finish(backend.put_job(attrs.evolve(other, options={"overwrite": "true"}))).phase is Phase.SUCCEEDED
    assert pq.read_schema(spec.output).names == ["id", "prediction"]


def test_an_input_that_changed_is_a_conflict_unless_it_may_be_overwritten(backend, spec, finish):
    finish(backend.put_job(spec))
    _write(Path(spec.source[0]), rows=500)
    with pytest.raises(ConflictError, match="changed since"):
        backend.put_job(spec)
    assert finish(backend.put_job(attrs.evolve(spec, options={"overwrite": "true"}))).phase is Phase.SUCCEEDED
    assert pq.read_metadata(spec.output).num_rows == 500


def test_an_output_that_somebody_changed_is_a_conflict(backend, spec, finish):
    finish(backend.put_job(spec))
    Path(spec.output).write_bytes(b"theirs")
    with pytest.raises(ConflictError, match="not made by this job"):
        backend.put_job(spec)


def test_an_output_that_was_deleted_is_made_again(backend, spec, finish):
    finish(backend.put_job(spec))
    Path(spec.output).unlink()
    assert finish(backend.put_job(spec)).phase is Phase.SUCCEEDED
    assert pq.read_metadata(spec.output).num_rows == 4000


@pytest.mark.parametrize(
    "case",
    [
        ({"key": "nope"}, InvalidRequestError, "'nope' is missing"),
        ({"output": "/nowhere/at/all.parquet"}, ConfigurationError, "does not exist"),
        ({"source": ("/nowhere.parquet",)}, ConfigurationError, "nowhere"),
        ({"options": {"format": "orc"}}, ConfigurationError, "'orc' is not known"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(backend, spec, tmp_path, case):
    change, error, said = case
    before = _files(tmp_path)
    with pytest.raises(error, match=said):
        backend.put_job(attrs.evolve(spec, **change))
    assert _files(tmp_path) == before


def test_an_output_over_an_input_is_refused(backend, spec):
    with pytest.raises(ConfigurationError, match="one of the input files"):
        backend.put_job(attrs.evolve(spec, output=spec.source[0], options={"overwrite": "true"}))


def test_pickled_content_that_nobody_vouched_for_is_refused_before_anything_runs(spec, bundle, tmp_path):
    if not bundle.manifest.pickled:
        pytest.skip("this bundle holds no pickle")
    stranger = LocalBatch(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="vouched"):
        stranger.put_job(spec)
    assert LocalBatch(tmp_path / "elsewhere", trust=[bundle.digest]).put_job(spec).step == "start"


def test_logs_of_unknown_jobs_are_not_found(backend):
    with pytest.raises(NotFoundError, match="no batch job"):
        backend.log("nope")


def test_settings_that_do_not_exist_are_refused(home):
    assert LocalBatch.configure(home, {}).name == "local"
    with pytest.raises(ConfigurationError, match="'speed'"):
        LocalBatch.configure(home, {"speed": "fast"})
