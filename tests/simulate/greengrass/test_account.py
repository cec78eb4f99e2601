"""Greengrass over the wire, by the unmodified boto3: who may, what it takes, and what devices make of it."""

from __future__ import annotations

import json
from contextlib import contextmanager

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, ParamValidationError

from modeldeploy.simulate.sagemaker import others
from modeldeploy.simulate.server import Server

ROLLBACK = {"failureHandlingPolicy": "ROLLBACK"}


@contextmanager
def refused(code: str, said: str | None = None):
    with pytest.raises(ClientError, match=said) as caught:
        yield
    assert caught.value.response["Error"]["Code"] == code


@pytest.fixture
def greengrass(simulator):
    return simulator.client("greengrassv2")


@pytest.fixture
def group(simulator):
    """Give the ARN of a group with three devices."""
    simulator.add_fleet("plant", 3)
    return simulator.client("iot").describe_thing_group(thingGroupName="plant")["thingGroupArn"]


@pytest.fixture
def make(simulator, greengrass, recipe_of):
    """Give ``make(version)``: put an artefact and its component there."""

    def component(version="1.0.0"):
        simulator.client("s3").put_object(Bucket=simulator.bucket, Key=f"{version}/a.zip", Body=version.encode())
        recipe = recipe_of(version, f"s3://{simulator.bucket}/{version}/a.zip")
        return greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode(), tags={"a": "b"})

    return component


def deploy(greengrass, group, version="1.0.0", **more):
    components = {"com.example.scorer": {"componentVersion": version}}
    return greengrass.create_deployment(targetArn=group, components=components, deploymentPolicies=ROLLBACK, **more)


def statuses(greengrass, simulator, name="plant-0"):
    simulator.act()
    found = greengrass.list_effective_deployments(coreDeviceThingName=name)["effectiveDeployments"]
    return [each["coreDeviceExecutionStatus"] for each in found]


# Who may


def test_other_credentials_are_refused(simulator):
    once = Config(retries={"total_max_attempts": 1})
    other = boto3.client(
        "greengrassv2", endpoint_url=simulator.url, region_name="us-east-1", config=once,
        aws_access_key_id=simulator.credentials.access_key, aws_secret_access_key="wrong",
    )  # fmt: skip
    with refused("InvalidSignatureException"):
        other.list_core_devices()


# What moto has, and what it has not


def test_moto_alone_knows_no_greengrass(simulator):
    """So Greengrass is answered here, and things and groups by moto behind the same door."""
    server = Server()
    try:
        server.start(others.application())
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        once = Config(retries={"total_max_attempts": 1})
        bare = boto3.client("greengrassv2", endpoint_url=f"http://127.0.0.1:{server.port}", config=once, **keys)
        with pytest.raises(ClientError) as caught:
            bare.list_core_devices()
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    finally:
        server.close()
    simulator.add_device("d", group="plant")
    assert simulator.client("iot").list_things_in_thing_group(thingGroupName="plant")["things"] == ["d"]
    assert [
        each["coreDeviceThingName"] for each in simulator.client("greengrassv2").list_core_devices()["coreDevices"]
    ] == ["d"]


# What it takes


def test_requests_are_held_against_the_services_model(greengrass, simulator):
    with pytest.raises(ParamValidationError):
        greengrass.create_deployment(targetArn=1)
    with refused("ValidationException", "regular expression"):
        greengrass.create_deployment(targetArn="arn:aws:iot:us-east-1:1:job/x")
    with refused("ValidationException", "does not simulate"):
        greengrass.get_connectivity_info(thingName="x")


def test_a_recipe_that_is_wrong_is_refused_with_every_fault(greengrass, recipe_of):
    recipe = recipe_of()
    del recipe["ComponentVersion"]
    recipe["Colour"] = "red"
    with refused("ValidationException", "2 faults"):
        greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())
    with refused("ValidationException", "not JSON"):
        greengrass.create_component_version(inlineRecipe=b"RecipeFormatVersion: x")


def test_a_component_version_is_made_once(greengrass, make):
    made = make()
    with refused("ConflictException", "already exists"):
        make()
    found = greengrass.describe_component(arn=made["arn"])
    assert (found["status"]["componentState"], found["tags"]) == ("DEPLOYABLE", {"a": "b"})
    greengrass.delete_component(arn=made["arn"])
    with refused("ResourceNotFoundException"):
        greengrass.describe_component(arn=made["arn"])


def test_a_component_whose_artefact_is_not_there_is_not_deployable(greengrass, recipe_of, simulator, group):
    recipe = recipe_of(uri=f"s3://{simulator.bucket}/nothing.zip")
    made = greengrass.create_component_version(inlineRecipe=json.dumps(recipe).encode())
    status = greengrass.describe_component(arn=made["arn"])["status"]
    assert (status["componentState"], "Cannot access" in status["message"]) == ("FAILED", True)
    with refused("ValidationException", "not deployable"):
        deploy(greengrass, group)


def test_the_same_token_makes_one_deployment(greengrass, make, group):
    make()
    one, other = (deploy(greengrass, group, clientToken="x" * 32) for _ in range(2))
    assert one["deploymentId"] == other["deploymentId"]
    third = deploy(greengrass, group)
    listed = greengrass.list_deployments(targetArn=group, historyFilter="ALL")["deployments"]
    assert [(each["deploymentStatus"], each["isLatestForTarget"]) for each in listed] == [
        ("INACTIVE", False),
        ("ACTIVE", True),
    ]
    with refused("ConflictException", "is active"):
        greengrass.delete_deployment(deploymentId=third["deploymentId"])
    greengrass.cancel_deployment(deploymentId=third["deploymentId"])
    greengrass.delete_deployment(deploymentId=third["deploymentId"])


# What devices make of it


def test_devices_of_the_group_follow_and_later_ones_too(greengrass, make, group, simulator):
    make()
    deploy(greengrass, group)
    assert statuses(greengrass, simulator) == ["SUCCEEDED"]
    installed = greengrass.list_installed_components(coreDeviceThingName="plant-0")["installedComponents"]
    assert [(each["componentVersion"], each["lifecycleState"]) for each in installed] == [("1.0.0", "RUNNING")]
    simulator.add_device("late", group="plant")
    assert statuses(greengrass, simulator, "late") == ["SUCCEEDED"]


def test_a_device_whose_self_test_fails_goes_back(greengrass, make, group, simulator):
    make("1.0.0")
    make("2.0.0")
    deploy(greengrass, group)
    simulator.act()
    simulator.faults.broken.add("v2.0.0")
    deploy(greengrass, group, "2.0.0")
    assert statuses(greengrass, simulator) == ["SUCCEEDED", "FAILED"]
    assert simulator.device("plant-0").installed == {"com.example.scorer": "1.0.0"}


def test_an_artefact_that_somebody_changed_is_refused_by_the_device(greengrass, make, group, simulator):
    make()
    simulator.client("s3").put_object(Bucket=simulator.bucket, Key="1.0.0/a.zip", Body=b"tampered")
    deploy(greengrass, group)
    simulator.act()
    (found,) = greengrass.list_effective_deployments(coreDeviceThingName="plant-0")["effectiveDeployments"]
    assert (found["coreDeviceExecutionStatus"], "Integrity check" in found["reason"]) == ("FAILED", True)
    assert simulator.device("plant-0").installed == {}


def test_a_device_that_is_off_waits_in_the_queue(greengrass, make, group, simulator):
    make()
    simulator.set_online("plant-0", online=False)
    deploy(greengrass, group)
    assert statuses(greengrass, simulator) == ["QUEUED"]
    simulator.set_online("plant-0", online=True)
    assert statuses(greengrass, simulator) == ["SUCCEEDED"]


def test_the_service_stops_a_deployment_of_which_too_many_fail(greengrass, make, group, simulator):
    make()
    simulator.faults.broken.add("v1.0.0")
    simulator.set_online("plant-2", online=False)
    criterion = {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 50.0, "minNumberOfExecutedThings": 2}
    made = deploy(greengrass, group, iotJobConfiguration={"abortConfig": {"criteriaList": [criterion]}})
    assert statuses(greengrass, simulator) == ["FAILED"]
    assert greengrass.get_deployment(deploymentId=made["deploymentId"])["deploymentStatus"] == "CANCELED"
    assert statuses(greengrass, simulator, "plant-2") == ["CANCELED"]


# Bad days


def test_bad_days_come_on_demand(greengrass, simulator, make):
    make()
    simulator.faults.throttle_every = 1
    with refused("ThrottlingException"):
        greengrass.list_core_devices()
    with refused("ThrottlingException"):
        simulator.client("iot").list_thing_groups()
    simulator.faults.throttle_every = 0
    simulator.faults.drop_before["ListCoreDevices"] = 1
    with pytest.raises(ConnectionClosedError):
        greengrass.list_core_devices()
    simulator.faults.drop_after["ListCoreDevices"] = 1
    with pytest.raises(ConnectionClosedError):
        greengrass.list_core_devices()
    assert greengrass.list_core_devices()["coreDevices"] == []
