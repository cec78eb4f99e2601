"""SIGKILL at every durable step, at random moments of a real runner, and of its workers; a full disk; two runners."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from modeldeploy.scoring.durable import Lease
from modeldeploy.values.ticket import Phase

PATIENCE = 60
"""Seconds for processes to start and end on a machine that has other things to do."""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.mark.row(21)
@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_a_job_killed_at_any_durable_step_goes_on_and_gives_every_row_once(lab, tmp_path, output):
    driver = Path(__file__).with_name("kill_everywhere.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), output], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    places = sorted(int(path.name) for path in tmp_path.iterdir())
    assert len(places) > 60
    for place in places:
        here = type(lab)(tmp_path / str(place))
        here.check(here.table(60, special={7: 666.0}), without=[7], output=output)
        assert not [path for path in here.folder.iterdir() if path.name.startswith(".")], "the working parts are gone"


def _real(lab, packaged, rows, special=None, **options):
    table = lab.table(rows, special=special)
    path = lab.write(table, row_group=rows // 10)
    job = lab.job(path, model=packaged.model_version(), trust=(packaged.digest,), **options)
    return job, table


@pytest.mark.row(21)
def test_a_runner_killed_again_and_again_gives_every_row_once(lab, packaged, start_runner, wait_until):
    job, table = _real(lab, packaged, 60_000, chunk_rows=500, workers=2)
    moments = random.Random(7)
    for _kill in range(3):
        seen, parts = len(job.entries()), moments.randrange(1, 6)
        runner = start_runner(job)
        wait_until(
            lambda runner=runner, wanted=seen + parts: len(job.entries()) >= wanted or runner.poll() is not None,
            timeout=PATIENCE,
        )
        runner.send_signal(signal.SIGKILL)
        runner.wait()
    runner = start_runner(job)
    assert runner.wait(PATIENCE) == 0, job.progress().note + job.log.read_text()
    lab.check(table)


def test_workers_end_when_their_runner_is_killed(lab, packaged, start_runner, wait_until):
    job, _table = _real(lab, packaged, 60_000, chunk_rows=500, workers=2)
    runner = start_runner(job)
    wait_until(lambda: len(job.entries()) >= 1, timeout=PATIENCE)
    workers = psutil.Process(runner.pid).children()
    assert workers
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert gone
    assert not alive


def test_a_killed_worker_costs_nothing_but_time(lab, packaged, start_runner, wait_until):
    job, table = _real(lab, packaged, 60_000, chunk_rows=500, workers=2)
    runner = start_runner(job)
    wait_until(lambda: len(job.entries()) >= 1, timeout=PATIENCE)
    for worker in psutil.Process(runner.pid).children():
        worker.kill()
    assert runner.wait(PATIENCE) == 0, job.progress().note
    lab.check(table)


@pytest.mark.row(24)
def test_a_row_that_kills_its_process_is_found_and_set_aside(lab, packaged, start_runner):
    job, table = _real(lab, packaged, 5000, special={1234: 888.0, 40: 666.0}, chunk_rows=1000, max_bad_rows=2)
    assert start_runner(job).wait(PATIENCE) == 0, job.progress().note
    lab.check(table, without=[40, 1234])
    reasons = [each["reason"] for each in lab.quarantine()]
    assert "the number of the beast" in reasons[0]
    assert reasons[1] == "the process that scored it died (SIGSEGV)"
    assert lab.quarantine()[1]["values"] == {"id": 2234, "x": 888.0, "y": 2}


def test_a_row_that_kills_its_process_is_named_when_none_may_be_bad(lab, packaged, start_runner):
    job, _table = _real(lab, packaged, 500, special={123: 888.0}, chunk_rows=100)
    assert start_runner(job).wait(PATIENCE) == 1
    assert "row 123 of" in job.progress().note
    assert "SIGSEGV" in job.progress().note


@pytest.mark.row(25)
def test_a_second_runner_of_a_job_refuses(lab, packaged, start_runner):
    job, table = _real(lab, packaged, 100)
    lease = Lease.take(job.lease)
    refused = start_runner(job)
    assert refused.wait(PATIENCE) == 2
    assert "being scored by another process" in job.log.read_text()
    lease.release()
    assert start_runner(job).wait(PATIENCE) == 0
    lab.check(table)


def test_sigterm_lets_the_parts_in_hand_finish_and_the_job_goes_on_later(lab, packaged, start_runner, wait_until):
    job, table = _real(lab, packaged, 60_000, chunk_rows=500, workers=1)
    runner = start_runner(job)
    wait_until(lambda: len(job.entries()) >= 1, timeout=PATIENCE)
    runner.terminate()
    assert runner.wait(PATIENCE) == 1
    assert job.progress().phase is Phase.RUNNING
    assert not list(job.parts.glob(".part*.tmp"))
    assert start_runner(job).wait(PATIENCE) == 0
    lab.check(table)


def test_a_model_that_is_not_trusted_fails_the_job_with_the_remedy(lab, packaged, start_runner):
    if not packaged.manifest.pickled:
        pytest.skip("this bundle holds no pickle")
    path = lab.write(lab.table(10))
    job = lab.job(path, model=packaged.model_version())
    assert start_runner(job).wait(PATIENCE) == 1
    assert "could not be loaded" in job.progress().note
    assert "trust=" in job.progress().note


_LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
sys.argv = ["modeldeploy.scoring", sys.argv[1]]
runpy.run_module("modeldeploy.scoring", run_name="__main__")
"""


@pytest.mark.row(23)
@pytest.mark.parametrize("limit", [20_000, 300_000], ids=["a part does not fit", "the output does not fit"])
def test_a_file_that_may_not_grow_is_a_clear_error_and_loses_nothing(lab, packaged, start_runner, limit):
    job, table = _real(lab, packaged, 40_000, chunk_rows=1000)
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(job.home), str(limit)], capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    note = job.progress().note
    assert job.progress().phase is Phase.FAILED
    assert "no space to write" in note
    assert "goes on from there" in note
    assert not job.output.exists()
    kept = len(job.entries())
    assert start_runner(job).wait(PATIENCE) == 0
    assert len([each for each in job.entries()[:kept] if each["kind"] == "part"]) == kept
    lab.check(table)


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if (
        not sys.platform.startswith("linux")
        or os.geteuid() != 0
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.row(23)
def test_a_full_disk_is_a_clear_error_and_the_job_goes_on_when_there_is_space(lab, packaged, start_runner, small_disk):
    here = type(lab)(small_disk)
    table = lab.table(30_000)
    path = lab.write(table)
    hog = small_disk / "hog"
    hog.write_bytes(b"\0" * 1_700_000)
    job = here.job(path, model=packaged.model_version(), trust=(packaged.digest,), chunk_rows=1000)
    assert start_runner(job).wait(PATIENCE) == 1, job.log.read_text()
    assert job.progress().phase is Phase.FAILED
    assert "no space to write" in job.progress().note
    assert not job.output.exists()
    hog.unlink()
    assert start_runner(job).wait(PATIENCE) == 0, job.progress().note
    here.check(table)
    assert pq.read_metadata(job.output).num_rows == 30_000
