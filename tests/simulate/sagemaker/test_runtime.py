"""Invocations: what reaches a container, what comes back, and how failures are told."""

from __future__ import annotations

import base64
import json

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

SERVERLESS = {"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5}}


@pytest.fixture(scope="module")
def served(cloud):
    return cloud.serve("runtime")


def test_a_container_gets_the_headers_of_the_contract_and_no_others(cloud, served):
    def add(params, **_more):
        params["headers"]["X-Other"] = "secret"

    cloud.runtime.meta.events.register("before-call.sagemaker-runtime.InvokeEndpoint", add)
    try:
        answer = cloud.runtime.invoke_endpoint(
            EndpointName=served, Body=b"headers", ContentType="text/csv", Accept="application/json",
            CustomAttributes="trace=1", InferenceId="i-1", TargetVariant=served,
        )  # fmt: skip
    finally:
        cloud.runtime.meta.events.unregister("before-call.sagemaker-runtime.InvokeEndpoint", add)
    got = {name.lower(): value for name, value in json.loads(answer["Body"].read()).items()}
    assert got == {
        "host": "127.0.0.1",
        "content-length": "7",
        "content-type": "text/csv",
        "accept": "application/json",
        "x-amzn-sagemaker-custom-attributes": "trace=1",
        "x-amzn-sagemaker-inference-id": "i-1",
        "x-amzn-sagemaker-target-variant": served,
    }


def test_of_a_containers_headers_only_those_of_the_contract_reach_the_caller(cloud, served):
    answer = cloud.runtime.invoke_endpoint(EndpointName=served, Body=b"x")
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert (answer["ContentType"], answer["CustomAttributes"]) == ("text/csv", served)
    assert answer["InvokedProductionVariant"] == served
    assert "x-secret" not in headers
    answer["Body"].close()


@pytest.mark.parametrize(("status", "side"), [(400, "client"), (503, "server")])
def test_a_container_that_refuses_is_a_model_error_with_its_words(cloud, served, status, side):
    with pytest.raises(cloud.runtime.exceptions.ModelError) as caught:
        cloud.ask(served, f"fail {status}".encode())
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (status, "the model says no")
    assert f":log-group:/aws/sagemaker/Endpoints/{served}:log-stream:{served}/i-" in response["LogStreamArn"]
    assert f'Received {side} error ({status}) from primary with message "the model says no"' in str(caught.value)


def test_a_container_that_does_not_answer_in_time_is_a_model_error_without_a_status(cloud, served):
    with pytest.raises(cloud.runtime.exceptions.ModelError) as caught:
        cloud.ask(served, b"slow")
    assert caught.value.response["OriginalStatusCode"] == 0


def test_an_endpoint_that_is_not_there_is_a_validation_error(cloud):
    with pytest.raises(ClientError, match=r"Endpoint nobody of account [0-9]{12} not found") as caught:
        cloud.ask("nobody")
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_a_body_beyond_the_limit_is_refused(cloud, served):
    with pytest.raises(ClientError, match="Member must have length less than or equal to 1048576"):
        cloud.ask(served, b"x" * 1_048_577)


def test_an_invocation_is_checked_by_the_services_model(cloud, served):
    with pytest.raises(ClientError, match="at 'customAttributes' failed to satisfy constraint") as caught:
        cloud.ask(served, CustomAttributes="x" * 1025)
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_what_endpoints_of_one_model_do_not_know_is_refused(cloud, served):
    with pytest.raises(ClientError, match="TargetModel is not supported"):
        cloud.ask(served, TargetModel="one.tar.gz")


def test_an_answer_can_be_streamed(cloud, served):
    answer = cloud.runtime.invoke_endpoint_with_response_stream(EndpointName=served, Body=b"a\nb")
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert b"".join(parts) == f"{served}:a\n{served}:b\n".encode()
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/csv", served)


def test_a_stream_whose_container_breaks_off_ends_with_an_error(cloud, served):
    answer = cloud.runtime.invoke_endpoint_with_response_stream(EndpointName=served, Body=b"break")
    with pytest.raises(ClientError, match="The connection to the model was closed") as caught:
        list(answer["Body"])
    assert caught.value.response["Error"]["Code"] == "ModelStreamError"
    answer["Body"].close()


def test_a_streamed_refusal_is_a_model_error(cloud, served):
    with pytest.raises(cloud.runtime.exceptions.ModelError, match="the model says no"):
        cloud.runtime.invoke_endpoint_with_response_stream(EndpointName=served, Body=b"fail 500")


def test_shadows_see_copies_and_callers_do_not_see_shadows(cloud, wait_until):
    cloud.model("lit")
    cloud.model("dark")
    shadow = {"VariantName": "dark", "ModelName": "dark", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    cloud.config("shadowed", "lit", more={"ShadowProductionVariants": [shadow]})
    found = cloud.endpoint("shadowed", "shadowed")
    assert [each["VariantName"] for each in found["ShadowProductionVariants"]] == ["dark"]
    assert {cloud.ask("shadowed", b"1234") for _number in range(10)} == {"lit:1234\n"}
    group = "/aws/sagemaker/Endpoints/shadowed"
    wait_until(lambda: cloud.lines(group).count("dark got 4 bytes") == 10, what="ten copies")


def test_serverless_endpoints_are_cold_when_nobody_asked_for_long(cloud, wait_until):
    cloud.model("cold")
    variant = {"VariantName": "cold", "ModelName": "cold", **SERVERLESS}
    cloud.sm.create_endpoint_config(EndpointConfigName="cold", ProductionVariants=[variant])
    found = cloud.endpoint("cold", "cold")
    assert found["ProductionVariants"][0]["CurrentServerlessConfig"] == SERVERLESS["ServerlessConfig"]
    runtime = cloud.simulator.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    assert cloud.ask("cold") == "cold:x\n"

    def status():
        try:
            answer = runtime.invoke_endpoint(EndpointName="cold", Body=b"x")
        except runtime.exceptions.ModelNotReadyException as error:
            return error.response["ResponseMetadata"]["HTTPStatusCode"]
        answer["Body"].close()
        return answer["ResponseMetadata"]["HTTPStatusCode"]

    # 300 seconds without a request are a third of a second here.
    wait_until(lambda: status() == 429, 10, what="it is cold", interval=1.0)
    wait_until(lambda: status() == 200, 10, what="it is warm again")


def test_serverless_variants_stand_alone(cloud):
    cloud.model("alone")
    variants = [{"VariantName": name, "ModelName": "alone", **SERVERLESS} for name in ("one", "two")]
    with pytest.raises(ClientError, match="must have no other variant"):
        cloud.sm.create_endpoint_config(EndpointConfigName="alone", ProductionVariants=variants)


def test_an_asynchronous_answer_comes_to_storage(cloud, wait_until):
    bucket = cloud.simulator.bucket
    cloud.model("later")
    output = {"S3OutputPath": f"s3://{bucket}/later/out", "S3FailurePath": f"s3://{bucket}/later/failed"}
    cloud.config("later", "later", more={"AsyncInferenceConfig": {"OutputConfig": output}})
    assert cloud.endpoint("later", "later")["AsyncInferenceConfig"] == {"OutputConfig": output}
    good = cloud.runtime.invoke_endpoint_async(
        EndpointName="later", InputLocation=cloud.put("later/in", b"x"), InferenceId="mine"
    )
    bad = cloud.runtime.invoke_endpoint_async(EndpointName="later", InputLocation=cloud.put("later/bad", b"fail 500"))
    assert good["InferenceId"] == "mine"
    assert good["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert wait_until(lambda: cloud.find(good["OutputLocation"])) == b"later:x\n"
    assert b"the model says no" in wait_until(lambda: cloud.find(bad["FailureLocation"]))
    with pytest.raises(ClientError, match="InvokeEndpoint is not supported by the asynchronous endpoint"):
        cloud.ask("later")


def test_an_asynchronous_call_to_another_endpoint_is_refused(cloud, served):
    with pytest.raises(ClientError, match="InvokeEndpointAsync is not supported by the real-time endpoint"):
        cloud.runtime.invoke_endpoint_async(EndpointName=served, InputLocation="s3://bucket/key")


def test_data_is_captured_as_lines_of_json(cloud, wait_until):
    bucket = cloud.simulator.bucket
    cloud.model("kept")
    capture = {
        "EnableCapture": True,
        "InitialSamplingPercentage": 100,
        "DestinationS3Uri": f"s3://{bucket}/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"]},
    }
    cloud.config("kept", "kept", more={"DataCaptureConfig": capture})
    assert cloud.endpoint("kept", "kept")["DataCaptureConfig"]["CaptureStatus"] == "Started"
    cloud.ask("kept", b"1,2", ContentType="application/octet-stream", InferenceId="i-7")
    listed = wait_until(
        lambda: cloud.s3.list_objects_v2(Bucket=bucket, Prefix="captured/kept/kept/").get("Contents"), what="a file"
    )
    line = json.loads(cloud.get(f"s3://{bucket}/{listed[0]['Key']}"))
    assert line["captureData"]["endpointInput"] == {
        "observedContentType": "application/octet-stream",
        "mode": "INPUT",
        "data": base64.b64encode(b"1,2").decode(),
        "encoding": "BASE64",
    }
    assert line["captureData"]["endpointOutput"]["data"] == "kept:1,2\n"
    assert line["eventMetadata"]["inferenceId"] == "i-7"


def test_a_container_sees_its_environment_and_the_role_but_nothing_of_ours(cloud, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the user's own")
    monkeypatch.setenv("MY_TOKEN", "secret")
    cloud.serve("seen", COLOUR="blue")
    environment = json.loads(cloud.ask("seen", b"environment"))
    assert environment["COLOUR"] == "blue"
    assert environment["AWS_ENDPOINT_URL"] == cloud.simulator.url
    assert environment["AWS_SECRET_ACCESS_KEY"] == cloud.simulator.credentials.secret_key
    assert "MY_TOKEN" not in environment
    assert json.loads(cloud.ask("seen", b"files")) == ["weights"]


def test_a_container_that_dies_is_started_again(cloud, wait_until):
    cloud.serve("mortal")
    with pytest.raises(cloud.runtime.exceptions.ModelError, match="the container closed the connection"):
        cloud.ask("mortal", b"die")

    def answered():
        try:
            return cloud.ask("mortal") == "mortal:x\n"
        except ClientError:
            return False

    wait_until(answered, 20, what="a new container answers")
