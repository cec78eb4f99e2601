"""Whether a change came about: InService alone proves nothing."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.backends.sagemaker.described import Seen, Status
from modeldeploy.backends.sagemaker.verdicts import ASKED, BACK, MOVING, Outcome, judge

SEEN = Seen("iris", "arn", Status.IN_SERVICE, "new", 0.0, 0.0)


def look(status, config, phase, age=1.0, **more):
    seen = attrs.evolve(SEEN, status=Status(status), config=config, **more)
    return judge(seen, phase, holds=lambda each: each.config == "new", age=age, grace=60.0)


@pytest.mark.parametrize(
    ("seen", "outcome", "then"),
    [
        (("InService", "new", ASKED, 1), Outcome.DONE, ASKED),
        (("InService", "new", MOVING, 1), Outcome.DONE, MOVING),
        (("InService", "old", ASKED, 1), Outcome.GOES_ON, ASKED),
        (("InService", "old", ASKED, 61), Outcome.FAILED, ASKED),
        (("InService", "old", MOVING, 1), Outcome.FAILED, MOVING),
        (("InService", "new", BACK, 1), Outcome.FAILED, BACK),
        (("InService", "old", BACK, 1), Outcome.FAILED, BACK),
        (("Updating", "old", ASKED, 1), Outcome.GOES_ON, MOVING),
        (("Updating", "new", MOVING, 9_999), Outcome.GOES_ON, MOVING),
        (("SystemUpdating", "old", ASKED, 1), Outcome.GOES_ON, MOVING),
        (("Creating", "new", ASKED, 1), Outcome.GOES_ON, MOVING),
        (("RollingBack", "old", ASKED, 1), Outcome.GOES_ON, BACK),
        (("RollingBack", "new", MOVING, 1), Outcome.GOES_ON, BACK),
        (("Failed", "new", MOVING, 1), Outcome.FAILED, MOVING),
        (("UpdateRollbackFailed", "new", MOVING, 1), Outcome.FAILED, MOVING),
        (("OutOfService", "new", MOVING, 1), Outcome.FAILED, MOVING),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else getattr(value, "name", value),
)
def test_what_a_look_says(seen, outcome, then):
    verdict = look(*seen)
    assert (verdict.outcome, verdict.phase) == (outcome, then)


def test_the_services_reason_is_told_or_that_it_gives_none():
    assert "no capacity" in look("InService", "old", MOVING, reason="no capacity").note
    assert "gives no reason" in look("InService", "old", MOVING).note


@pytest.mark.parametrize(
    ("phase", "age", "outcome"),
    [(ASKED, 1, Outcome.GOES_ON), (ASKED, 61, Outcome.FAILED), (MOVING, 1, Outcome.FAILED)],
    ids=["not yet", "never", "gone"],
)
def test_an_endpoint_that_is_not_seen_is_gone_unless_it_was_just_asked_for(phase, age, outcome):
    assert judge(None, phase, holds=lambda _: True, age=age, grace=60.0).outcome is outcome


def test_a_status_of_a_later_api_is_a_change_under_way():
    assert Status.of("Hibernating") is Status.SYSTEM_UPDATING
    assert not Status.of("Hibernating").settled
