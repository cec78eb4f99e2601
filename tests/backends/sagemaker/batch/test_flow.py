"""A job from its first step to its output: parts, transform jobs, bad rows, resumption, and nothing left behind."""

from __future__ import annotations

import contextlib
import shutil

import attrs
import numpy as np
import pyarrow.parquet as pq
import pytest

from modeldeploy.backends.sagemaker.storage import Storage
from modeldeploy.backends.sagemaker.transform import Status
from modeldeploy.errors import (
    ConfigurationError,
    ConflictError,
    InvalidRequestError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.values.ticket import Action, Phase, Ticket

RAISES, NAN, KILLS = 666.0, 777.0, 888.0


def scored(lab):
    """Name the parts that each transform job had."""
    return [[name.partition(".")[0] for name in names] for names in lab.listed]


def test_every_row_is_scored_once_in_order_and_nothing_is_left(lab):
    table = lab.table(400)
    ticket = lab.succeed(lab.spec(lab.write(table)))
    lab.check(table)
    assert "400 of 400 rows" in ticket.note
    assert lab.left() == []
    assert [len(parts) for parts in scored(lab)] == [3, 3, 2]


def test_starting_writes_nothing(lab, tmp_path):
    before = set(tmp_path.rglob("*"))
    lab.backend.put_job(lab.spec(lab.write(lab.table(10))))
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "in.parquet"}
    assert lab.left() == []
    assert not list(lab.home.rglob("batch"))


def test_the_fraction_never_falls_and_the_work_never_waits_while_there_is_something_to_do(lab):
    ticket, seen = lab.backend.put_job(lab.spec(lab.write(lab.table(200)))), []
    while not ticket.phase.ended:
        ticket = lab.backend.advance(ticket)
        seen.append(ticket.fraction or 0.0)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_what_is_asked_of_the_service(lab):
    lab.succeed(lab.spec(lab.write(lab.table(350)), workers=2))
    first, *_rest, last = lab.service.asked
    place = f"s3://{lab.provider.bucket}/modeldeploy/batch/the-job/"
    assert first["TransformJobName"].startswith("the-job-")
    assert first["TransformJobName"].endswith("-001")
    assert first["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"] == "ManifestFile"
    assert first["TransformInput"]["SplitType"] == first["TransformOutput"]["AssembleWith"] == "Line"
    assert first["TransformOutput"]["S3OutputPath"].startswith(place)
    assert (first["MaxPayloadInMB"], first["BatchStrategy"]) == (6, "MultiRecord")
    # Two machines for three parts, one for the last part alone.
    assert [each["TransformResources"]["InstanceCount"] for each in (first, last)] == [2, 1]


def test_bad_rows_are_set_aside_with_the_reason(lab):
    table = lab.table(200, {3: RAISES, 77: NAN, 199: RAISES})
    lab.succeed(lab.spec(lab.write(table), max_bad_rows=3))
    lab.check(table, without=[3, 77, 199])
    reasons = [each["reason"] for each in lab.quarantine()]
    assert reasons[0] == "the model failed: ValueError: the number of the beast"
    assert reasons[1] == "the prediction is NaN or missing"
    assert lab.backend.observe_job("the-job").bad_rows == 3
    assert [each["key"] for each in lab.quarantine()] == [1003, 1077, 1199]


def test_too_many_bad_rows_fail_and_a_higher_limit_goes_on(lab):
    table = lab.table(200, {3: RAISES, 77: RAISES})
    spec = lab.spec(lab.write(table), max_bad_rows=1)
    failed = lab.run(spec)
    assert failed.phase is Phase.FAILED
    assert "max_bad_rows" in failed.note
    assert "beast" in failed.note
    lab.succeed(attrs.evolve(spec, max_bad_rows=2))
    lab.check(table, without=[3, 77])
    assert [len(parts) for parts in scored(lab)] == [3, 1]
    assert lab.left() == []


def test_rows_that_do_not_fit_the_signature_are_not_sent_at_all(lab):
    """They cost nothing, and too many of them are known before the first transform job."""
    table = lab.table(50, dict.fromkeys(range(20), np.nan))
    failed = lab.run(lab.spec(lab.write(table), max_bad_rows=5))
    assert failed.phase is Phase.FAILED
    assert "column 'x' is NaN or infinite" in failed.note
    assert lab.service.asked == []
    assert len(lab.quarantine()) >= 5


def test_a_table_without_rows_is_a_table_without_rows(lab):
    lab.succeed(lab.spec(lab.write(lab.table(0))))
    assert lab.result().column_names == ["id", "x", "y", "prediction"]
    assert lab.result().num_rows == 0
    assert lab.service.asked == []


def test_a_wide_table_is_cut_into_smaller_parts(lab, monkeypatch):
    from modeldeploy.backends.cloud import batch_parts

    monkeypatch.setattr(batch_parts, "_MOST_PART", 20 * 2 * 4)
    lab.succeed(lab.spec(lab.write(lab.table(12))))
    lab.check(lab.table(12))
    assert sum(len(parts) for parts in scored(lab)) == 3


def test_a_part_without_a_good_row_needs_no_transform_job(lab):
    table = lab.table(100, dict.fromkeys(range(50), np.nan))
    lab.succeed(lab.spec(lab.write(table), max_bad_rows=None))
    lab.check(table, without=range(50))
    assert scored(lab) == [["part-00001"]]


def test_a_row_that_kills_the_container_is_found_and_set_aside(lab):
    table = lab.table(200, {57: KILLS})
    lab.service.kills = True
    lab.succeed(lab.spec(lab.write(table), max_bad_rows=1))
    lab.check(table, without=[57])
    assert "container failed on it: ClientError" in lab.quarantine()[0]["reason"]
    # The part, its rows one by one, the row once more; the other parts are not scored again.
    assert len(lab.service.asked) <= 5
    assert sum(parts.count("part-00003") for parts in scored(lab)) == 1


def test_a_row_that_kills_the_container_fails_a_job_that_may_have_none(lab):
    lab.service.kills = True
    lab.service.log = ["loading", "Segmentation fault"]
    failed = lab.run(lab.spec(lab.write(lab.table(100, {57: KILLS}))))
    assert failed.phase is Phase.FAILED
    assert "ClientError" in failed.note
    assert "Segmentation fault" in failed.note
    assert "max_bad_rows" in failed.note
    assert len(lab.service.asked) == 1


def test_a_model_that_scores_nothing_is_given_up_with_its_log(lab):
    lab.service.fail = ["AlgorithmError: cannot load"] * 9
    lab.service.log = ["no module named numpy"]
    failed = lab.run(lab.spec(lab.write(lab.table(100)), max_bad_rows=None))
    assert failed.phase is Phase.FAILED
    assert "no row at all was scored" in failed.note
    assert "no module named numpy" in failed.note
    assert len(lab.service.asked) == 2


def test_what_is_not_the_rows_fault_is_tried_again_without_cutting_them(lab):
    table = lab.table(100)
    lab.service.fail = ["CapacityError: no machines", "InternalServerError"]
    lab.succeed(lab.spec(lab.write(table)))
    lab.check(table)
    assert scored(lab)[0] == scored(lab)[1] == scored(lab)[2]


def test_it_is_tried_three_times_and_the_same_job_goes_on_later(lab):
    table = lab.table(100)
    lab.service.fail = ["CapacityError: no machines"] * 3
    spec = lab.spec(lab.write(table))
    failed = lab.run(spec)
    assert failed.phase is Phase.FAILED
    assert "CapacityError" in failed.note
    assert "never started" in failed.note
    lab.succeed(spec)
    lab.check(table)
    assert len({each["TransformJobName"] for each in lab.service.asked}) == 4


def test_an_image_that_answers_with_another_number_of_lines_fails_the_job(lab, monkeypatch):
    """Joining by position would put answers beside the wrong rows."""
    put = lab.service.storage.put
    monkeypatch.setattr(
        lab.service.storage,
        "put",
        lambda key, data: put(key, data.partition(b"\n")[2] if key.endswith(".out") else data),
    )
    failed = lab.run(lab.spec(lab.write(lab.table(50))))
    assert failed.phase is Phase.FAILED
    assert "gave 49 lines for the 50 rows" in failed.note
    assert not (lab.folder / "out.parquet").exists()


def test_what_cannot_be_cleaned_up_is_told_and_fails_nothing(lab, monkeypatch):
    refused = {"Errors": [{"Key": "modeldeploy/batch/x", "Code": "AccessDenied", "Message": "no"}]}
    inner = Storage._call

    def call(self, operation, **arguments):
        return refused if operation == "delete_objects" else inner(self, operation, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_call", call)
        ticket = lab.succeed(lab.spec(lab.write(lab.table(20))))
    assert "left in the bucket" in ticket.note
    assert "s3:DeleteObject" in ticket.note
    assert "left in the bucket" in lab.backend.observe_job("the-job").note
    lab.check(lab.table(20))


# Resumption.


class Died(BaseException):
    """The driver is gone."""


@pytest.mark.parametrize(
    "at", [pytest.param(at, marks=[] if at % 11 == 1 else pytest.mark.slow) for at in range(76)], ids=str
)
def test_a_driver_that_dies_at_any_call_is_followed_by_one_that_goes_on(lab, monkeypatch, at):
    """Killed before or after the call, whose answer is lost; the ticket is the last one that was saved. The slow tier has every call."""
    table = lab.table(200, {3: RAISES})
    spec = lab.spec(lab.write(table), max_bad_rows=1)
    with monkeypatch.context() as patch:
        calls = _dying(lab, patch, at)
        ticket = lab.backend.put_job(spec)
        for _step in range(500):
            with contextlib.suppress(Died):
                ticket = lab.backend.advance(ticket)
            if ticket.phase.ended:
                break
    assert ticket.phase is Phase.SUCCEEDED, ticket.note
    lab.check(table, without=[3])
    assert lab.left() == []
    # No part is scored twice: jobs of three parts and of one, whatever was lost.
    assert [len(parts) for parts in scored(lab)] == [3, 1]
    assert calls[0] > at // 2


def _dying(lab, monkeypatch, at):
    """Count the calls to the outside; die once, at number ``at // 2``: before it if ``at`` is even, after it if odd."""
    calls = [0]
    storage = type(lab.provider.storage)

    def dying(inner):
        def call(self, *args, **named):
            mine, calls[0] = calls[0], calls[0] + 1
            if mine == at // 2 and at % 2 == 0:
                raise Died
            answer = inner(self, *args, **named)
            if mine == at // 2:
                raise Died
            return answer

        return call

    monkeypatch.setattr(storage, "_call", dying(storage._call))
    for name in ("create", "see", "stop"):
        monkeypatch.setattr(type(lab.service), name, dying(getattr(type(lab.service), name)))
    monkeypatch.setattr(type(lab.provider), "put_model", dying(type(lab.provider).put_model))
    monkeypatch.setattr(type(lab.provider), "delete_model", dying(type(lab.provider).delete_model))
    return calls


def test_a_transient_error_leaves_the_job_running_and_the_ticket_good(lab, monkeypatch):
    table = lab.table(100)
    ticket = lab.backend.advance(lab.backend.put_job(lab.spec(lab.write(table))))
    lab.service.before = lambda call: (_ for _ in ()).throw(UnavailableError("not now")) if call == "create" else None
    while lab.backend._job("the-job").entries()[-1]["kind"] != "attempt":
        try:
            ticket = lab.backend.advance(ticket)
        except UnavailableError:
            break
    assert lab.backend.observe_job("the-job").phase is Phase.RUNNING
    lab.service.before = lambda _call: None
    while not ticket.phase.ended:
        ticket = lab.backend.advance(ticket)
    lab.check(table)


def test_a_cancelled_job_stops_its_transform_job_and_goes_on_by_part(lab):
    table = lab.table(400)
    spec = lab.spec(lab.write(table))
    lab.service.looks = 1000
    ticket = lab.backend.put_job(spec)
    while len(lab.service.asked) < 1:
        ticket = lab.backend.advance(ticket)
    lab.service.left[next(iter(lab.service.jobs))] = 0
    while len(lab.service.asked) < 2:
        ticket = lab.backend.advance(ticket)
    ticket = lab.backend.cancel(ticket)
    while not ticket.phase.ended:
        ticket = lab.backend.advance(ticket)
    assert ticket.phase is Phase.CANCELLED
    assert lab.backend.observe_job("the-job").phase is Phase.CANCELLED
    assert [each.status for each in lab.service.jobs.values()] == [Status.COMPLETED, Status.STOPPED]
    lab.service.looks = 1
    lab.succeed(spec)
    lab.check(table)
    assert not set(lab.listed[0]) & {part for parts in lab.listed[1:] for part in parts}
    assert lab.left() == []


def test_cancelling_what_was_never_begun_or_is_done_is_harmless(lab):
    ticket = lab.backend.put_job(lab.spec(lab.write(lab.table(10))))
    assert lab.backend.cancel(ticket).phase is Phase.CANCELLED
    done = lab.run(lab.spec(lab.folder / "in.parquet"))
    assert lab.backend.cancel(done) == done
    assert lab.backend.cancel(attrs.evolve(done, phase=Phase.RUNNING)).phase is Phase.SUCCEEDED
    with pytest.raises(UnsupportedError):
        lab.backend.cancel(Ticket(Action.SET_TRAFFIC, "an-endpoint"))


def test_the_same_job_again_does_nothing(lab):
    spec = lab.spec(lab.write(lab.table(50)))
    lab.succeed(spec)
    before = (lab.folder / "out.parquet").stat().st_mtime_ns
    lab.succeed(spec)
    assert (lab.folder / "out.parquet").stat().st_mtime_ns == before
    assert len(lab.service.asked) == 1


def test_a_job_whose_directory_was_lost_takes_new_names(lab):
    """Those of transform jobs stay taken for ever."""
    table = lab.table(50)
    spec = lab.spec(lab.write(table))
    lab.succeed(spec)
    shutil.rmtree(lab.home / "sagemaker")
    (lab.folder / "out.parquet").unlink()
    lab.succeed(spec)
    lab.check(table)
    assert [each["TransformJobName"][-3:] for each in lab.service.asked] == ["001", "002"]


def test_parts_that_were_lost_on_this_machine_are_read_again_from_what_came_back(lab):
    table = lab.table(400, {5: RAISES})
    spec = lab.spec(lab.write(table), max_bad_rows=1)
    ticket = lab.backend.put_job(spec)
    while not lab.backend._job("the-job").entries() or lab.backend._job("the-job").entries()[-1]["kind"] != "part":
        ticket = lab.backend.advance(ticket)
    shutil.rmtree(lab.backend._job("the-job").parts)
    lab.succeed(attrs.evolve(spec)) if ticket.phase.ended else lab.backend.cancel(ticket)
    while not ticket.phase.ended:
        ticket = lab.backend.advance(ticket)
    lab.succeed(spec)
    lab.check(table, without=[5])


def test_an_input_that_changed_is_a_conflict_unless_it_may_be_overwritten(lab):
    lab.succeed(lab.spec(lab.write(lab.table(50))))
    table = lab.table(70)
    spec = lab.spec(lab.write(table))
    with pytest.raises(ConflictError, match="changed since"):
        lab.backend.put_job(spec)
    lab.succeed(attrs.evolve(spec, options={"overwrite": "true"}))
    lab.check(table)
    assert lab.left() == []


def test_an_input_that_changes_under_way_fails_the_job_and_stops_what_costs(lab):
    spec = lab.spec(lab.write(lab.table(50)))
    lab.service.looks = 1000
    ticket = lab.backend.put_job(spec)
    while not lab.service.jobs:
        ticket = lab.backend.advance(ticket)
    lab.write(lab.table(60))
    while not ticket.phase.ended:
        ticket = lab.backend.advance(ticket)
    assert ticket.phase is Phase.FAILED
    assert "changed since" in ticket.note
    assert [each.status for each in lab.service.jobs.values()] == [Status.STOPPING]
    lab.service.looks = 1
    lab.succeed(attrs.evolve(spec, options={"overwrite": "true"}))
    lab.check(lab.table(60))
    assert lab.left() == []


def test_a_limit_that_is_changed_under_way_counts(lab):
    table = lab.table(100, {3: RAISES})
    spec = lab.spec(lab.write(table))
    ticket = lab.backend.advance(lab.backend.put_job(spec))
    assert lab.backend.observe_job("the-job").phase is Phase.RUNNING
    del ticket
    lab.succeed(attrs.evolve(spec, max_bad_rows=1))
    lab.check(table, without=[3])


def test_two_drivers_do_not_do_the_same_step_at_once(lab):
    from modeldeploy.scoring.durable import Lease

    ticket = lab.backend.advance(lab.backend.put_job(lab.spec(lab.write(lab.table(50)))))
    lease = Lease.take(lab.backend._job("the-job").lease)
    waiting = lab.backend.advance(ticket)
    lease.release()
    assert "another process" in waiting.note
    assert waiting.step == ticket.step


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"key": "nope"}, InvalidRequestError, "'nope' is missing"),
        ({"output": "/nowhere/at/all.parquet"}, ConfigurationError, "does not exist"),
        ({"source": ("/nowhere.parquet",)}, ConfigurationError, "nowhere"),
    ],
    ids=["key", "output", "source"],
)
def test_mistakes_are_refused_before_anything_is_sent(lab, change, error, said):
    with pytest.raises(error, match=said):
        lab.backend.put_job(attrs.evolve(lab.spec(lab.write(lab.table(10))), **change))
    assert lab.left() == []


def test_a_row_that_is_larger_than_a_request_may_be_is_a_bad_row(lab, monkeypatch):
    from modeldeploy.backends.cloud import batch_work

    monkeypatch.setattr(batch_work, "MEBIBYTE", 1)
    lab.terms = attrs.evolve(lab.terms, max_payload_mb=10)
    table = lab.table(50)
    lab.succeed(lab.spec(lab.write(table), max_bad_rows=None))
    reasons = {each["reason"] for each in lab.quarantine()}
    assert reasons
    assert all("bytes as JSON, and one request may have 10" in reason for reason in reasons)
    assert pq.read_metadata(lab.folder / "out.parquet").num_rows + len(lab.quarantine()) == 50
