"""Updates: every policy moves the traffic, and whatever goes wrong is undone."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError


def all_at_once(wait=0):
    return {
        "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
        "TerminationWaitInSeconds": wait,
    }


def canary(percent, wait):
    size = {"Type": "CAPACITY_PERCENT", "Value": percent}
    return {"TrafficRoutingConfiguration": {"Type": "CANARY", "WaitIntervalInSeconds": wait, "CanarySize": size}}


def linear(percent, wait):
    size = {"Type": "CAPACITY_PERCENT", "Value": percent}
    return {"TrafficRoutingConfiguration": {"Type": "LINEAR", "WaitIntervalInSeconds": wait, "LinearStepSize": size}}


@pytest.fixture
def served(cloud, request):
    """An endpoint that serves the first of two models, each with a configuration of its own and the same variant's name."""
    name = request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:30].strip("-")
    return prepare(cloud, name)


def prepare(cloud, name):
    for number, late in ((1, "0"), (2, "0.5")):
        cloud.model(f"{name}-{number}", name=f"v{number}", LATE=late)
        cloud.config(f"{name}-{number}", primary=f"{name}-{number}")
    assert cloud.endpoint(name, f"{name}-1")["EndpointStatus"] == "InService"
    return name


def update(cloud, name, **more):
    cloud.sm.update_endpoint(EndpointName=name, EndpointConfigName=f"{name}-2", **more)


def answers(cloud, name, count=40):
    return {cloud.ask(name).strip() for _number in range(count)}


def share(cloud, name, wait_until):
    """Wait until both fleets answer, and tell what a hundred requests got."""
    wait_until(lambda: len(answers(cloud, name, 20)) == 2, 20, what="both fleets answer")
    asked = [cloud.ask(name).strip() for _number in range(100)]
    return asked.count("v2:x")


def test_an_update_replaces_the_fleet(cloud, served):
    update(cloud, served)
    pending = cloud.sm.describe_endpoint(EndpointName=served)
    assert pending["EndpointConfigName"] == f"{served}-1"
    assert pending["PendingDeploymentSummary"]["EndpointConfigName"] == f"{served}-2"
    assert answers(cloud, served, 5) == {"v1:x"}
    found = cloud.settled(served)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", f"{served}-2")
    assert "FailureReason" not in found
    assert "PendingDeploymentSummary" not in found
    assert answers(cloud, served) == {"v2:x"}


@pytest.mark.parametrize(
    "policy", [pytest.param(canary(30, 3000), id="canary"), pytest.param(linear(40, 3000), id="linear")]
)
def test_a_policy_shares_the_traffic(cloud, policy, wait_until):
    kind = policy["TrafficRoutingConfiguration"]["Type"].lower()
    name = prepare(cloud, f"shared-{kind}")
    update(cloud, name, DeploymentConfig={"BlueGreenUpdatePolicy": policy})
    assert 5 < share(cloud, name, wait_until) < 75
    found = cloud.settled(name)
    assert found["EndpointConfigName"] == f"{name}-2"
    assert found["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == kind.upper()
    assert answers(cloud, name) == {"v2:x"}


def test_a_rolling_update_ends_with_the_new_fleet(cloud, served):
    rolling = {"MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 10}
    update(cloud, served, DeploymentConfig={"RollingUpdatePolicy": rolling})
    assert cloud.settled(served)["EndpointConfigName"] == f"{served}-2"


def test_an_alarm_rolls_the_deployment_back(cloud, served, wait_until):
    cloudwatch = cloud.simulator.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=served, Namespace="Mine", MetricName="Bad", Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    policy = {
        "BlueGreenUpdatePolicy": canary(50, 3600),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": served}]},
    }
    update(cloud, served, DeploymentConfig=policy)
    share(cloud, served, wait_until)
    cloudwatch.set_alarm_state(AlarmName=served, StateValue="ALARM", StateReason="try")
    found = cloud.settled(served)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", f"{served}-1")
    assert served in found["FailureReason"]
    assert answers(cloud, served) == {"v1:x"}


def test_an_alarm_that_is_not_there_is_refused(cloud, served):
    policy = {
        "BlueGreenUpdatePolicy": all_at_once(),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "nobody"}]},
    }
    with pytest.raises(ClientError, match="alarms do not exist: nobody"):
        update(cloud, served, DeploymentConfig=policy)
    assert cloud.status(served) == "InService"


def test_a_fleet_that_does_not_come_up_is_rolled_back(cloud, served):
    cloud.simulator.faults.ping = True
    try:
        update(cloud, served)
        found = cloud.settled(served)
    finally:
        cloud.simulator.faults.ping = False
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", f"{served}-1")
    assert "did not pass the ping health check" in found["FailureReason"]
    assert answers(cloud, served) == {"v1:x"}


def test_a_silent_rollback_tells_no_reason(cloud, served):
    cloud.simulator.faults.silent_rollback = True
    try:
        update(cloud, served)
        found = cloud.settled(served)
    finally:
        cloud.simulator.faults.silent_rollback = False
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", f"{served}-1")
    assert "FailureReason" not in found


def test_a_silent_rollback_of_weights_leaves_them_as_they_were(cloud, served):
    cloud.simulator.faults.silent_rollback = True
    try:
        cloud.weigh(served, primary=0)
        found = cloud.settled(served)
    finally:
        cloud.simulator.faults.silent_rollback = False
    (variant,) = found["ProductionVariants"]
    assert (variant["CurrentWeight"], variant["DesiredWeight"]) == (1.0, 1.0)


def test_a_rollback_that_fails_says_so_and_the_endpoint_can_be_deleted(cloud, served):
    faults = cloud.simulator.faults
    faults.ping = faults.rollback_fails = True
    try:
        update(cloud, served)
        assert cloud.settled(served)["EndpointStatus"] == "UpdateRollbackFailed"
    finally:
        faults.ping = faults.rollback_fails = False
    cloud.gone(served)


def test_a_deployment_that_takes_too_long_is_rolled_back(cloud, served):
    policy = {**canary(50, 3600), "MaximumExecutionTimeoutInSeconds": 600}
    update(cloud, served, DeploymentConfig={"BlueGreenUpdatePolicy": policy})
    found = cloud.settled(served)
    assert found["EndpointConfigName"] == f"{served}-1"
    assert "MaximumExecutionTimeoutInSeconds" in found["FailureReason"]


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        pytest.param({"BlueGreenUpdatePolicy": canary(60, 0)}, "CanarySize must be between 1% and 50%", id="canary-size"),
        pytest.param({"BlueGreenUpdatePolicy": linear(5, 0)}, "LinearStepSize must be between 10% and 50%", id="linear-size"),
        pytest.param(
            {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "CANARY", "WaitIntervalInSeconds": 0}}},
            "CanarySize is required",
            id="canary-without-size",
        ),
        pytest.param(
            {
                "BlueGreenUpdatePolicy": all_at_once(),
                "RollingUpdatePolicy": {
                    "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 0,
                },
            },
            "Only one of",
            id="both",
        ),
    ],
)  # fmt: skip
def test_a_policy_beyond_the_limits_is_refused(cloud, policy, text):
    if "refused" not in cloud.endpoints():
        prepare(cloud, "refused")
    with pytest.raises(ClientError, match=text):
        update(cloud, "refused", DeploymentConfig=policy)


def test_variant_properties_are_retained_but_for_those_excluded(cloud, served):
    cloud.weigh(served, primary=7)
    cloud.settled(served)
    update(cloud, served, RetainAllVariantProperties=True)
    assert cloud.settled(served)["ProductionVariants"][0]["CurrentWeight"] == 7.0
    cloud.sm.update_endpoint(
        EndpointName=served,
        EndpointConfigName=f"{served}-1",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )
    assert cloud.settled(served)["ProductionVariants"][0]["CurrentWeight"] == 1.0


def test_an_update_without_retaining_takes_the_weights_of_the_configuration(cloud, served):
    cloud.weigh(served, primary=7)
    cloud.settled(served)
    update(cloud, served)
    assert cloud.settled(served)["ProductionVariants"][0]["CurrentWeight"] == 1.0


def test_instances_that_cannot_be_had_are_rolled_back(cloud, served):
    cloud.simulator.faults.capacity = True
    try:
        cloud.sm.update_endpoint_weights_and_capacities(
            EndpointName=served, DesiredWeightsAndCapacities=[{"VariantName": "primary", "DesiredInstanceCount": 4}]
        )
        found = cloud.settled(served)
    finally:
        cloud.simulator.faults.capacity = False
    (variant,) = found["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    assert "Unable to provision requested ML compute capacity" in found["FailureReason"]


def test_more_instances_are_told(cloud, served):
    cloud.sm.update_endpoint_weights_and_capacities(
        EndpointName=served, DesiredWeightsAndCapacities=[{"VariantName": "primary", "DesiredInstanceCount": 4}]
    )
    assert cloud.settled(served)["ProductionVariants"][0]["CurrentInstanceCount"] == 4
    assert cloud.ask(served).strip() == "v1:x"
