"""The conformance suite of backends that score tables; the harness needs ``job``, which makes a new small job each time."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.errors import ConflictError, UnsupportedError
from modeldeploy.spi import Batch
from modeldeploy.testing.contract import Conformance, problems
from modeldeploy.testing.harness import Harness, through_json
from modeldeploy.values.batch import BatchSpec, BatchState
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.ticket import Phase


class BatchConformance(Conformance):
    """Rules 1 to 3 for jobs, and the refusal of them."""

    def test_its_methods_have_the_shape_of_the_batch_protocol(self, harness: Harness) -> None:
        """The engine calls by the protocols' parameters."""
        assert problems(harness.backend, harness.backend.capabilities) == []

    def test_a_job_is_done_or_refused(self, harness: Harness) -> None:
        """Done means that every row is counted and the output bears its name."""
        backend, job = _batch(harness), _job(harness)
        if not harness.backend.capabilities.batch:
            with pytest.raises(UnsupportedError):
                backend.put_job(job)
            return
        harness.succeed(backend.put_job(job))
        state = _state(backend, job)
        assert (state.phase, state.output) == (Phase.SUCCEEDED, job.output)
        assert state.rows_done == (state.rows_total or state.rows_done) > 0
        assert job.name in set(backend.jobs())
        assert from_json(BatchState, to_json(state)) == state

    def test_starting_a_job_writes_nothing(self, harness: Harness) -> None:
        """Validation may read; the first write belongs to the first advance."""
        backend, job = _declared(harness), _job(harness)
        ticket = backend.put_job(job)
        assert (ticket.step, ticket.phase, ticket.target) == ("start", Phase.RUNNING, job.name)
        assert from_json(BatchSpec, ticket.wanted["job"]) == job
        assert backend.observe_job(job.name) is None
        assert job.name not in set(backend.jobs())

    def test_every_step_of_a_job_may_be_repeated(self, harness: Harness) -> None:
        """A crash costs work at most, never rows."""
        backend, job = _declared(harness), _job(harness)
        start = through_json(backend.put_job(job))
        for ticket in harness.steps(start):
            if not ticket.phase.ended:
                backend.advance(start)
                backend.advance(through_json(ticket))
        assert _state(backend, job).phase is Phase.SUCCEEDED
        harness.succeed(start)

    def test_the_same_job_again_is_the_same_job_and_another_is_a_conflict(self, harness: Harness) -> None:
        """Running a cell again must not score twice; a name stands for one content."""
        backend, job = _declared(harness), _job(harness)
        harness.succeed(backend.put_job(job))
        done = _state(backend, job)
        harness.succeed(backend.put_job(job))
        assert _state(backend, job) == done
        folder, slash, file = job.output.rpartition("/")
        other = attrs.evolve(job, output=f"{folder}{slash}other-{file}")
        with pytest.raises(ConflictError):
            harness.carry(backend.put_job(other))
        assert _state(backend, job) == done

    def test_an_unknown_job_is_observed_as_none(self, harness: Harness) -> None:
        """None is an answer, not an error."""
        assert _declared(harness).observe_job("no-such-job") is None

    def test_a_cancelled_job_ends_as_cancelled(self, harness: Harness) -> None:
        """Where cancelling is declared; refused with nothing stopped otherwise."""
        backend, job = _declared(harness), _job(harness)
        ticket = backend.advance(backend.put_job(job))
        if not harness.backend.capabilities.cancel:
            with pytest.raises(UnsupportedError):
                harness.backend.cancel(ticket)
            return
        ended = harness.carry(backend.cancel(ticket))
        assert ended.phase in {Phase.CANCELLED, Phase.SUCCEEDED}
        assert _state(backend, job).phase is ended.phase


def _batch(harness: Harness) -> Batch:
    assert isinstance(harness.backend, Batch), "the backend has no batch methods"
    return harness.backend


def _declared(harness: Harness) -> Batch:
    if not harness.backend.capabilities.batch:
        pytest.skip("batch is not declared; that it is refused is a test of its own")
    return _batch(harness)


def _job(harness: Harness) -> BatchSpec:
    assert harness.job is not None, "Harness(job=...) is needed: a function that makes a new job"
    return harness.job()


def _state(backend: Batch, job: BatchSpec) -> BatchState:
    state = backend.observe_job(job.name)
    assert state is not None, f"job {job.name!r} is not there"
    return state
