"""Operations of one ticket: deleting an endpoint, scoring a table."""

from __future__ import annotations

import pytest

from modeldeploy.engine.record import HistoryEntry, Kind, Verb
from modeldeploy.engine.single import SingleCursor
from modeldeploy.errors import FencedError, OperationCancelled, OperationFailed, QuotaError, UnavailableError
from modeldeploy.testing.faults import FaultyBackend
from modeldeploy.values.batch import BatchSpec
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.ticket import Phase


@pytest.fixture
def serving(scene, revision):
    scene.put(revision("1.0.0"))
    return scene


def delete(scene):
    cursor = SingleCursor(scene.backend.drop_endpoint("iris"), history=HistoryEntry("deleted", "", "done with it"))
    return scene.begin(Kind.DELETE, cursor)


def score(scene, revision):
    job = BatchSpec("job-1", revision("1.0.0").model, ("in.parquet",), "out.parquet")
    return scene.begin(Kind.BATCH, SingleCursor(scene.backend.put_job(job)))


def test_a_deletion_goes_through_and_is_remembered(serving):
    assert serving.drive(delete(serving)).phase is Phase.SUCCEEDED
    assert serving.backend.observe("iris") is None
    assert serving.history() == [("deleted", "")]
    assert serving.names()[-1] == "operation.succeeded"


def test_a_job_is_cancelled_by_its_backend(make_scene, revision):
    scene = make_scene(steps=5)
    record = score(scene, revision)
    scene.after(0.01, lambda: scene.tell(record, Verb.CANCEL))
    with pytest.raises(OperationCancelled):
        scene.drive(record)
    assert scene.journal.read(record.id).phase is Phase.CANCELLED
    assert scene.backend.observe_job("job-1").phase is Phase.CANCELLED
    assert scene.history() == []


def test_other_words_are_passed_over(make_scene, revision):
    scene = make_scene(steps=5)
    record = score(scene, revision)
    scene.tell(record, Verb.PAUSE)
    assert scene.drive(record).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("capabilities", [None, Capabilities(serving=True)])
def test_work_that_cannot_be_stopped_goes_on(make_scene, revision, capabilities):
    """The cancel is refused, once; the work is not."""
    scene = make_scene(**({"capabilities": capabilities} if capabilities else {}))
    scene.put(revision("1.0.0"))
    record = delete(scene)
    scene.tell(record, Verb.CANCEL)
    assert scene.drive(record).phase is Phase.SUCCEEDED
    assert [event.fields["note"] for event in scene.emitted if "goes on" in str(event.fields.get("note"))]


class Refusing(FaultyBackend):
    error: Exception

    def advance(self, ticket):
        raise self.error


@pytest.mark.parametrize("error", [OperationFailed("no"), QuotaError("no")])
def test_a_failure_ends_it(serving, error):
    backend = Refusing(serving.backend)
    backend.error = error
    record = delete(serving)
    with pytest.raises(type(error)):
        serving.drive(record, backend=backend)
    assert serving.journal.read(record.id).phase is Phase.FAILED
    assert serving.history() == []


def test_an_outage_leaves_it_to_be_taken_up_again(serving):
    backend = Refusing(serving.backend)
    backend.error = UnavailableError("down")
    record = delete(serving)
    with pytest.raises(UnavailableError):
        serving.drive(record, backend=backend)
    assert serving.journal.read(record.id).phase is Phase.RUNNING
    assert serving.drive(record).phase is Phase.SUCCEEDED


def test_a_superseded_one_stops(serving, meets):
    record = delete(serving)
    other = type(record)("other", Kind.DELETE, "memory", "iris", {})
    serving.once(meets.call("advance drop-endpoint"), lambda: serving.journal.create(other, supersede=record.id))
    with pytest.raises(FencedError):
        serving.drive(record)
