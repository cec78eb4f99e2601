"""The steps of a deployment's policy."""

from __future__ import annotations

import pytest

from modeldeploy.simulate.sagemaker import policies
from modeldeploy.simulate.sagemaker.errors import ServiceError
from modeldeploy.simulate.sagemaker.policies import Step


def routing(kind, pause=0, **size):
    return {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": pause, **size}}
    }


def percent(value):
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value):
    return {"Type": "INSTANCE_COUNT", "Value": value}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param(None, [Step(100, 0)], id="none"),
        pytest.param(routing("ALL_AT_ONCE"), [Step(100, 0)], id="all-at-once"),
        pytest.param(routing("CANARY", 60, CanarySize=percent(10)), [Step(10.0, 60), Step(100, 0)], id="canary"),
        pytest.param(routing("CANARY", 60, CanarySize=instances(1)), [Step(25.0, 60), Step(100, 0)], id="canary-count"),
        pytest.param(
            routing("LINEAR", 5, LinearStepSize=percent(40)), [Step(40.0, 5), Step(80.0, 5), Step(100, 0)], id="linear"
        ),
        pytest.param(
            {"RollingUpdatePolicy": {"MaximumBatchSize": instances(2), "WaitIntervalInSeconds": 7}},
            [Step(50.0, 7), Step(100, 7)],
            id="rolling",
        ),
    ],
)
def test_a_policy_is_a_list_of_steps(policy, expected):
    assert list(policies.steps(policy, instances=4)) == expected


def test_the_old_fleet_is_kept_for_the_termination_wait():
    policy = routing("ALL_AT_ONCE")
    policy["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] = 300
    assert list(policies.steps(policy, instances=1)) == [Step(100, 300)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param(None, float("inf"), id="none"),
        pytest.param({"BlueGreenUpdatePolicy": {"MaximumExecutionTimeoutInSeconds": 600}}, 600.0, id="blue-green"),
        pytest.param({"RollingUpdatePolicy": {"MaximumExecutionTimeoutInSeconds": 700}}, 700.0, id="rolling"),
    ],
)
def test_patience_is_what_the_policy_says(policy, expected):
    assert policies.patience(policy) == expected


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        pytest.param(routing("ALL_AT_ONCE", CanarySize=percent(10)), "CanarySize is not allowed", id="size-of-another"),
        pytest.param(routing("LINEAR"), "LinearStepSize is required", id="no-size"),
        pytest.param(routing("CANARY", CanarySize=instances(3)), "at most 50%", id="too-many-instances"),
        pytest.param(
            {"RollingUpdatePolicy": {"MaximumBatchSize": percent(50), "WaitIntervalInSeconds": 0}},
            "not supported for serverless or multi-variant endpoints",
            id="rolling-of-two",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy, text):
    with pytest.raises(ServiceError, match=text):
        policies.check(policy, variants=2, instances=4, serverless=False)


def test_one_instance_may_be_the_canary_of_one():
    policies.check(routing("CANARY", CanarySize=instances(1)), variants=1, instances=1, serverless=False)
