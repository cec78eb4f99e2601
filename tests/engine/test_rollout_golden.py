"""Golden outputs on a staging endpoint: asked there, gone afterwards, whatever happens in between."""

from __future__ import annotations

import pytest

from modeldeploy.engine.record import Verb
from modeldeploy.engine.rollout_golden import staging_name
from modeldeploy.errors import OperationFailed
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.names import check_name
from modeldeploy.values.rollout import RolloutPolicy
from modeldeploy.values.ticket import Phase

STAGES = Capabilities(serving=True, split=2, staging=True)
POLICY = RolloutPolicy.canary((10,), soak=60.0)


def never(revision):
    message = "it cannot be asked here"
    raise AssertionError(message)


@pytest.fixture
def shared(make_scene, v1):
    """An endpoint on which a call cannot name its revision, with one that serves."""
    scene = make_scene(capabilities=STAGES)
    scene.put(v1)
    scene.asked = []

    def ask(revision, endpoint):
        state = scene.backend.observe(endpoint)
        scene.asked.append((revision.id, endpoint, state.traffic.live))

    scene.on_staging = ask
    return scene


def differ(revision, endpoint):
    message = "row 3 differs"
    raise OperationFailed(message)


def test_a_revision_is_asked_on_an_endpoint_that_it_has_alone_and_that_is_gone_afterwards(shared, v1, v2):
    record = shared.drive(shared.rollout(v2, POLICY), check=never)
    assert record.phase is Phase.SUCCEEDED
    assert shared.asked == [(v2.id, staging_name("iris", v2.id), {v2.id: 100})]
    assert list(shared.backend.endpoints()) == ["iris"]
    assert shared.live == {v2.id: 100}


def test_one_that_differs_takes_no_traffic_and_leaves_nothing(shared, v1, v2):
    shared.on_staging = differ
    record = shared.drive(shared.rollout(v2, POLICY), check=never)
    assert record.phase is Phase.FAILED
    assert "row 3 differs" in record.outcome
    assert (list(shared.backend.endpoints()), shared.there, shared.tables) == (["iris"], [v1.id], [])


def test_a_first_revision_needs_no_staging(make_scene, v1):
    scene, checked = make_scene(capabilities=STAGES), []
    scene.on_staging = differ
    scene.drive(scene.rollout(v1), check=checked.append)
    assert checked == [v1]


def test_who_declined_the_check_pays_for_no_staging(shared, v2):
    record = shared.drive(shared.rollout(v2, POLICY), check=None)
    assert record.phase is Phase.SUCCEEDED
    assert shared.asked == []


def test_a_backend_that_can_name_revisions_needs_no_staging(make_scene, v1, v2):
    scene, checked = make_scene(capabilities=Capabilities(serving=True, split=2, pinned_invoke=True, staging=True)), []
    scene.put(v1)
    scene.on_staging = differ
    assert scene.drive(scene.rollout(v2, POLICY), check=checked.append).phase is Phase.SUCCEEDED
    assert checked == [v2]


def test_an_abort_while_it_is_being_staged_leaves_nothing(shared, meets, v1, v2):
    record = shared.rollout(v2, POLICY)
    seen = []

    def on_staging_now(effect):
        return meets.call("advance put-revision")(effect) and shared.cursor(record).ticket.target != "iris"

    shared.once(on_staging_now, lambda: (seen.append(1), shared.tell(record, Verb.ABORT, "enough")))
    ended = shared.drive(record, check=never)
    assert seen
    assert (ended.phase, ended.outcome) == (Phase.CANCELLED, "enough")
    assert (list(shared.backend.endpoints()), shared.there) == (["iris"], [v1.id])


class KilledError(BaseException):
    """The process ends here."""


def kill_before(scene, number):
    """End the driver just before its ``number``-th effect; whether it came so far."""
    seen = []

    def die():
        raise KilledError

    scene.once(lambda effect: seen.append(1) or len(seen) == number, die)
    return seen


@pytest.mark.parametrize("good", [True, False])
def test_a_driver_that_dies_before_any_effect_leaves_no_staging_endpoint(make_scene, v1, v2, good):
    number = 0
    while True:
        number += 1
        scene = make_scene(capabilities=STAGES)
        scene.put(v1)
        scene.on_staging = (lambda revision, endpoint: None) if good else differ
        record = scene.rollout(v2, RolloutPolicy.all_at_once())
        seen = kill_before(scene, number)
        try:
            ended = scene.drive(record, check=never)
        except KilledError:
            scene.meet = lambda effect: None
            ended = scene.drive(record, check=never)
        assert ended.phase is (Phase.SUCCEEDED if good else Phase.FAILED), number
        assert list(scene.backend.endpoints()) == ["iris"], number
        assert scene.live == ({v2.id: 100} if good else {v1.id: 100}), number
        if len(seen) < number:
            break
    assert number > 20


def test_the_name_of_a_staging_endpoint_is_a_name_however_long_the_endpoints_is():
    for name in ("abc", "a" * 32, "a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q"[:32].rstrip("-")):
        found = staging_name(name, "v1-0-0-aaaa0000")
        assert check_name(found, "endpoint name") == found
        assert found == staging_name(name, "v1-0-0-aaaa0000") != staging_name(name, "v1-0-1-aaaa0000")
