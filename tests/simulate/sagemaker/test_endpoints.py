"""Endpoints: how they come, change and go."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError


def test_an_endpoint_is_created_and_answers(cloud):
    cloud.serve("first")
    assert cloud.ask("first", b"a\nb") == "first:a\nfirst:b\n"


def test_a_deleted_endpoint_is_gone_and_its_name_free(cloud):
    cloud.serve("goes")
    cloud.gone("goes")
    with pytest.raises(ClientError, match=r'Could not find endpoint "arn:aws:sagemaker:us-east-1:.*:endpoint/goes"'):
        cloud.sm.describe_endpoint(EndpointName="goes")
    assert cloud.endpoint("goes", "goes")["EndpointStatus"] == "InService"


def test_a_name_that_is_taken_is_refused_with_the_services_text(cloud):
    cloud.serve("taken")
    for call, kind in (
        (lambda: cloud.model("taken"), "model"),
        (lambda: cloud.config("taken", "taken"), "endpoint configuration"),
        (lambda: cloud.sm.create_endpoint(EndpointName="Taken", EndpointConfigName="taken"), "endpoint"),
    ):
        with pytest.raises(ClientError, match=f'Cannot create already existing {kind} "arn:aws:sagemaker:'):
            call()


def test_an_endpoint_under_way_takes_no_change(cloud):
    cloud.model("busy", LATE="1")
    cloud.config("busy", "busy")
    cloud.sm.create_endpoint(EndpointName="busy", EndpointConfigName="busy")
    for call in (
        lambda: cloud.sm.delete_endpoint(EndpointName="busy"),
        lambda: cloud.sm.update_endpoint(EndpointName="busy", EndpointConfigName="busy"),
        lambda: cloud.weigh("busy", busy=1),
    ):
        with pytest.raises(ClientError, match='Cannot update in-progress endpoint "arn:aws'):
            call()
    assert cloud.settled("busy")["EndpointStatus"] == "InService"


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        pytest.param(
            {"CRASH": "1"}, "CannotStartContainerError. Please ensure the model container for variant", id="crash"
        ),
        pytest.param({"UNWELL": "1"}, "did not pass the ping health check. Please check CloudWatch logs", id="unwell"),
    ],
)
def test_a_container_that_does_not_come_up_fails_the_endpoint(cloud, environment, reason):
    name = f"never-{next(iter(environment)).lower()}"
    cloud.model(name, **environment)
    cloud.config(name, name)
    found = cloud.endpoint(name, name)
    assert found["EndpointStatus"] == "Failed"
    assert reason in found["FailureReason"]
    with pytest.raises(ClientError, match=f"Endpoint {name} of account [0-9]+ not found"):
        cloud.ask(name)
    with pytest.raises(ClientError, match="Cannot update failed endpoint"):
        cloud.sm.update_endpoint(EndpointName=name, EndpointConfigName=name)
    cloud.gone(name)


def test_the_last_lines_of_a_container_that_crashed_are_in_its_log(cloud):
    cloud.model("crashed", CRASH="1")
    cloud.config("crashed", "crashed")
    cloud.endpoint("crashed", "crashed")
    assert "the model cannot be loaded" in cloud.lines("/aws/sagemaker/Endpoints/crashed")


def test_model_data_that_is_gone_when_the_endpoint_is_made_fails_it(cloud):
    url = cloud.put("passing/model.tar.gz", b"")
    cloud.model("gone-data", url=url)
    cloud.s3.delete_object(Bucket=cloud.simulator.bucket, Key="passing/model.tar.gz")
    cloud.config("gone-data", "gone-data")
    found = cloud.endpoint("gone-data", "gone-data")
    assert f'Failed to download model data for container "container_1" from URL: "{url}"' in found["FailureReason"]


def test_model_data_that_is_no_archive_fails_the_endpoint(cloud):
    cloud.model("no-archive", url=cloud.put("no-archive.tar.gz", b"not compressed"))
    cloud.config("no-archive", "no-archive")
    assert "Failed to extract model data archive" in cloud.endpoint("no-archive", "no-archive")["FailureReason"]


def test_no_capacity_fails_the_endpoint(cloud):
    cloud.model("no-room")
    cloud.config("no-room", "no-room")
    cloud.simulator.faults.capacity = True
    try:
        found = cloud.endpoint("no-room", "no-room")
    finally:
        cloud.simulator.faults.capacity = False
    assert "Unable to provision requested ML compute capacity" in found["FailureReason"]


def test_weights_move_the_traffic_and_zero_is_zero(cloud):
    cloud.model("left")
    cloud.model("right")
    cloud.config("pair", "left", "right")
    cloud.endpoint("pair", "pair")
    cloud.weigh("pair", left=0, right=1)
    found = cloud.settled("pair")
    weights = {each["VariantName"]: each["CurrentWeight"] for each in found["ProductionVariants"]}
    assert weights == {"left": 0.0, "right": 1.0}
    assert {cloud.ask("pair") for _number in range(20)} == {"right:x\n"}


def test_traffic_is_split_by_the_weights(cloud):
    cloud.model("nine")
    cloud.model("one")
    cloud.config("split", "nine", "one")
    cloud.endpoint("split", "split")
    cloud.weigh("split", nine=9, one=1)
    cloud.settled("split")
    asked = [cloud.ask("split") for _number in range(300)]
    # Within six standard deviations of a tenth.
    assert 0 < asked.count("one:x\n") < 62


def test_a_variant_can_be_pinned_against_the_weights(cloud):
    cloud.model("main")
    cloud.model("idle")
    cloud.config("pinned", "main", "idle")
    cloud.endpoint("pinned", "pinned")
    cloud.weigh("pinned", main=1, idle=0)
    cloud.settled("pinned")
    answer = cloud.runtime.invoke_endpoint(EndpointName="pinned", Body=b"x", TargetVariant="idle")
    assert (answer["Body"].read(), answer["InvokedProductionVariant"]) == (b"idle:x\n", "idle")
    with pytest.raises(ClientError, match="Variant nobody not found"):
        cloud.ask("pinned", TargetVariant="nobody")


def test_weights_of_an_unknown_variant_are_refused(cloud):
    cloud.serve("known")
    with pytest.raises(ClientError, match=r'The variant name\(s\) "other" is/are not present'):
        cloud.weigh("known", other=1)


def test_the_live_configuration_must_be_there_for_an_update(cloud):
    cloud.serve("live")
    cloud.config("live-2", "live")
    cloud.sm.delete_endpoint_config(EndpointConfigName="live")
    with pytest.raises(ClientError, match=r'Could not find endpoint configuration "arn:.*endpoint-config/live"'):
        cloud.sm.update_endpoint(EndpointName="live", EndpointConfigName="live-2")


def test_lists_have_filters_order_and_pages(cloud):
    for number in range(5):
        cloud.model(f"listed-{number}")
        cloud.config(f"listed-{number}", f"listed-{number}")
    pages = cloud.sm.get_paginator("list_models").paginate(
        NameContains="LISTED", SortBy="Name", SortOrder="Descending", MaxResults=2
    )
    found = [[each["ModelName"] for each in page["Models"]] for page in pages]
    assert found == [["listed-4", "listed-3"], ["listed-2", "listed-1"], ["listed-0"]]
    configs = cloud.sm.list_endpoint_configs(NameContains="listed-", SortBy="Name", SortOrder="Ascending")
    assert [each["EndpointConfigName"] for each in configs["EndpointConfigs"]] == [f"listed-{n}" for n in range(5)]
    assert cloud.sm.list_endpoints(StatusEquals="OutOfService")["Endpoints"] == []


def test_tags_are_kept_changed_and_forgotten(cloud):
    cloud.model("tagged")
    arn = cloud.sm.describe_model(ModelName="tagged")["ModelArn"]
    cloud.sm.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    cloud.sm.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "3"}])
    cloud.sm.delete_tags(ResourceArn=arn, TagKeys=["b"])
    assert cloud.sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "3"}]
    cloud.sm.delete_model(ModelName="tagged")
    with pytest.raises(ClientError, match="Could not find resource"):
        cloud.sm.list_tags(ResourceArn=arn)
