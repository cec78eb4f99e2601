"""Every row exactly once, whatever the sizes and whatever happens on the way."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.values.ticket import Phase


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_good_row_is_written_once_and_every_bad_one_set_aside(lab, data):
    rows = data.draw(st.integers(0, 130), label="rows")
    special = st.sampled_from([666.0, 777.0, float("nan"), float("inf")])
    bad = (
        data.draw(st.dictionaries(st.integers(0, max(rows - 1, 0)), special, max_size=12), label="bad") if rows else {}
    )
    table = lab.table(rows, special=bad)
    with tempfile.TemporaryDirectory() as folder:
        here = type(lab)(Path(folder))
        path = here.write(table, row_group=data.draw(st.integers(1, 140), label="row group"))
        output = data.draw(st.sampled_from(["out.parquet", "out/"]), label="output")
        chunk = data.draw(st.integers(1, 60), label="chunk")
        job = here.job(path, output=output, chunk_rows=chunk, max_bad_rows=None)
        assert here.run(job) is Phase.SUCCEEDED, job.progress().note
        if rows or output == "out.parquet":
            here.check(table, without=bad, output=output)
        progress = job.progress()
        assert (progress.rows_done, progress.rows_total, progress.bad_rows) == (rows, rows, len(bad))
        assert not job.parts.exists()


def test_a_stopped_job_scores_only_what_is_missing(lab, doubler):
    table = lab.table(400)
    job = lab.job(lab.write(table))
    doubler.on_call = lambda: doubler.rows >= 200 and job.ask_to_stop()
    assert lab.run(job, doubler) is Phase.CANCELLED
    assert not job.output.exists()
    before, doubler.on_call = doubler.rows, lambda: None
    job.allow()
    assert lab.run(job, doubler) is Phase.SUCCEEDED
    assert 200 <= before < 400
    assert doubler.rows == 400
    lab.check(table)


@pytest.fixture
def half_done(lab, doubler):
    """Give a job that stopped in the middle, with at least two parts done."""
    table = lab.table(400, special={3: 666.0})
    job = lab.job(lab.write(table), max_bad_rows=5)
    doubler.on_call = lambda: doubler.rows >= 200 and job.ask_to_stop()
    assert lab.run(job, doubler) is Phase.CANCELLED
    assert len(list(job.parts.glob("part-*.parquet"))) >= 2
    job.allow()
    return job, table


@pytest.mark.row(22)
def test_a_torn_part_is_found_and_scored_again(lab, half_done):
    job, table = half_done
    part = sorted(job.parts.glob("part-*.parquet"))[1]
    part.write_bytes(part.read_bytes()[:-100])
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, without=[3])


@pytest.mark.row(22)
def test_a_part_with_one_flipped_bit_is_found_and_scored_again(lab, half_done):
    job, table = half_done
    part = min(job.parts.glob("part-*.parquet"))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, without=[3])


def test_a_torn_list_of_bad_rows_is_found_and_made_again(lab, half_done):
    job, table = half_done
    (bad,) = job.parts.glob("part-*.bad.jsonl")
    bad.write_bytes(b"")
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, without=[3])


def test_a_deleted_part_is_scored_again(lab, half_done):
    job, table = half_done
    sorted(job.parts.glob("part-*.parquet"))[1].unlink()
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, without=[3])


def test_a_torn_line_of_the_ledger_costs_only_its_part(lab, half_done):
    job, table = half_done
    ledger = job.home / "ledger.jsonl"
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[:-7])
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, without=[3])


def test_a_finished_job_does_no_work_again(lab, doubler):
    table = lab.table(100)
    job = lab.job(lab.write(table))
    assert lab.run(job, doubler) is Phase.SUCCEEDED
    assert lab.run(job, doubler) is Phase.SUCCEEDED
    assert doubler.rows == 100


def test_an_input_that_changed_is_refused(lab, half_done):
    job, _table = half_done
    lab.write(lab.table(401))
    assert lab.run(job) is Phase.FAILED
    assert "changed since the job began" in job.progress().note
    assert not job.output.exists()


def test_an_input_that_changes_while_it_is_scored_is_noticed_before_the_output_has_its_name(lab, doubler):
    path = lab.write(lab.table(100))
    job = lab.job(path)
    doubler.on_call = path.touch
    assert lab.run(job, doubler) is Phase.FAILED
    assert "changed since the job began" in job.progress().note
    assert not job.output.exists()


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_an_output_that_is_not_ours_is_left_alone(lab, output):
    table = lab.table(100)
    job = lab.job(lab.write(table), output=output)
    theirs = job.output / "theirs.parquet" if output.endswith("/") else job.output
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"precious")
    assert lab.run(job) is Phase.FAILED
    assert "was not made by this job" in job.progress().note
    assert theirs.read_bytes() == b"precious"


@pytest.mark.parametrize("output", ["out.parquet", "out/"])
def test_an_output_that_is_not_ours_is_replaced_when_asked(lab, output):
    table = lab.table(100)
    job = lab.job(lab.write(table), output=output, overwrite=True)
    theirs = job.output / "theirs.parquet" if output.endswith("/") else job.output
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"old")
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, output=output)


@pytest.mark.parametrize("name", ["notes.txt", "more/part-00000.parquet"])
def test_a_directory_that_holds_more_than_tables_is_never_replaced(lab, name):
    job = lab.job(lab.write(lab.table(100)), output="out/", overwrite=True)
    theirs = job.output / name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    assert lab.run(job) is Phase.FAILED
    assert f"holds {theirs.relative_to(job.output).parts[0]!r}" in job.progress().note
    assert theirs.read_bytes() == b"precious"


def test_an_empty_directory_may_become_the_output(lab):
    table = lab.table(100)
    job = lab.job(lab.write(table), output="out/")
    job.output.mkdir()
    assert lab.run(job) is Phase.SUCCEEDED
    lab.check(table, output="out/")


def test_several_files_keep_their_order_and_their_row_numbers(lab):
    tables = [lab.table(70, special={5: 666.0}), lab.table(0), lab.table(30, special={29: 666.0})]
    paths = [lab.write(table, f"in-{n}.parquet", row_group=20) for n, table in enumerate(tables)]
    job = lab.job(*paths, max_bad_rows=2)
    assert lab.run(job) is Phase.SUCCEEDED, job.progress().note
    found = [(Path(each["file"]).name, each["row"], each["key"]) for each in lab.quarantine()]
    assert found == [("in-0.parquet", 5, 1005), ("in-2.parquet", 29, 1029)]


@pytest.mark.row(24)
def test_too_many_bad_rows_fail_the_job_and_keep_what_is_done(lab, doubler):
    table = lab.table(400, special={350: 666.0, 351: 666.0})
    path = lab.write(table)
    job = lab.job(path, max_bad_rows=1)
    assert lab.run(job, doubler) is Phase.FAILED
    note = job.progress().note
    assert "more than 1 bad rows" in note
    assert "row 350 of" in note
    assert "the number of the beast" in note
    assert [each["row"] for each in lab.quarantine()] == [350, 351]
    assert not job.output.exists()
    before = doubler.rows
    again = lab.job(path, max_bad_rows=2)
    assert lab.run(again, doubler) is Phase.SUCCEEDED
    assert doubler.rows - before < 150
    lab.check(table, without=[350, 351])


def test_a_stale_quarantine_goes_when_the_job_succeeds_without_bad_rows(lab):
    table = lab.table(100, special={1: 666.0})
    path = lab.write(table)
    assert lab.run(lab.job(path)) is Phase.FAILED
    assert lab.quarantine()
    path = lab.write(lab.table(100), "better.parquet")
    assert lab.run(lab.job(path, name="other")) is Phase.SUCCEEDED
    assert lab.quarantine() == []


def test_limits_below_what_is_bad_already_refuse_at_once(lab, doubler):
    table = lab.table(400, special={3: 666.0})
    path = lab.write(table)
    job = lab.job(path, max_bad_rows=1)
    doubler.on_call = lambda: doubler.rows >= 200 and job.ask_to_stop()
    assert lab.run(job, doubler) is Phase.CANCELLED
    job = lab.job(path, max_bad_rows=0)
    job.allow()
    assert lab.run(job, doubler) is Phase.FAILED
    assert "row 3 of" in job.progress().note
