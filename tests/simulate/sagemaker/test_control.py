"""The control plane: requests are held against the service's own model, and signatures are verified."""

from __future__ import annotations

import http.client
import json
import urllib.request

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

INSTANCE = {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
PLAIN = {"S3DataSource": {"S3Uri": "s3://b/k/", "S3DataType": "S3Prefix", "CompressionType": "None"}}
ASYNC = {"OutputConfig": {"S3OutputPath": "s3://b/k"}}
UNCHECKED = Config(parameter_validation=False)


@pytest.fixture(scope="module")
def unchecked(simulator):
    """A client that sends what it is given."""
    return simulator.client("sagemaker", config=UNCHECKED)


def refusal(call, **request):
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_name_that_does_not_fit_is_refused_in_the_services_words(cloud):
    code, message = refusal(cloud.sm.create_model, ModelName="bad_name!", ExecutionRoleArn=cloud.simulator.role)
    assert code == "ValidationException"
    assert message == (
        "1 validation error detected: Value 'bad_name!' at 'modelName' failed to satisfy constraint: Member must satisfy regular expression "
        "pattern: [a-zA-Z0-9]([\\-a-zA-Z0-9]*[a-zA-Z0-9])?"
    )


def test_every_fault_of_a_request_is_named(unchecked):
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.none", "InitialInstanceCount": 0}
    code, message = refusal(unchecked.create_endpoint_config, ProductionVariants=[variant])
    assert code == "ValidationException"
    assert message.startswith("3 validation errors detected: ")
    assert "Value null at 'endpointConfigName' failed to satisfy constraint: Member must not be null" in message
    assert "Value '0' at 'productionVariants.1.member.initialInstanceCount'" in message
    assert "Value 'ml.none' at 'productionVariants.1.member.instanceType'" in message
    assert "Member must satisfy enum value set: [" in message


def test_too_many_of_something_is_refused(unchecked):
    variants = [
        {"VariantName": f"v{n}", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        for n in range(11)
    ]
    _code, message = refusal(unchecked.create_endpoint_config, EndpointConfigName="c", ProductionVariants=variants)
    assert (
        "at 'productionVariants' failed to satisfy constraint: Member must have length less than or equal to 10"
        in message
    )


def raw(simulator, operation, body, *, secret="", key="", target="SageMaker."):
    """Send a request that no client of botocore's would send."""
    credentials = Credentials(key or simulator.credentials.access_key, secret or simulator.credentials.secret_key)
    headers = {"X-Amz-Target": f"{target}{operation}", "Content-Type": "application/x-amz-json-1.1"}
    request = AWSRequest("POST", f"{simulator.url}/", headers=headers, data=body)
    SigV4Auth(credentials, "sagemaker", simulator.region).add_auth(request)
    return send(simulator, "POST", "/", body, dict(request.headers.items()))


def send(simulator, method, path, body, headers):
    connection = http.client.HTTPConnection(simulator.url.removeprefix("http://"))
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param('{"ModelName": 3}', "SerializationException", id="type"),
        pytest.param("not json", "SerializationException", id="no-json"),
        pytest.param("[]", "SerializationException", id="no-structure"),
        pytest.param('{"ModelName": "m", "Colour": "blue"}', "ValidationException", id="unknown-member"),
        pytest.param('{"ModelName": null}', "ValidationException", id="null"),
    ],
)
def test_what_no_client_would_send_is_refused(simulator, body, code):
    status, answer = raw(simulator, "DescribeModel", body)
    assert (status, answer["__type"]) == (400, code)


def test_an_operation_that_the_service_does_not_have_is_unknown(simulator):
    assert raw(simulator, "DescribeWeather", "{}")[1]["__type"] == "UnknownOperationException"


def test_an_operation_that_is_not_simulated_is_refused_by_its_name(cloud):
    code, message = refusal(cloud.sm.list_training_jobs)
    assert (code, message) == (
        "ValidationException",
        "The rehearsal of SageMaker does not simulate ListTrainingJobs.",
    )


def test_another_secret_is_refused(simulator):
    status, answer = raw(simulator, "ListModels", "{}", secret="wrong")
    assert (status, answer["__type"]) == (403, "InvalidSignatureException")


def test_another_key_is_refused(simulator):
    status, answer = raw(simulator, "ListModels", "{}", key="AKIAOTHER")
    assert (status, answer["__type"]) == (403, "UnrecognizedClientException")


def test_a_request_without_a_signature_is_refused(simulator):
    status, answer = send(simulator, "POST", "/", "{}", {"X-Amz-Target": "SageMaker.ListModels"})
    assert (status, answer["__type"]) == (403, "MissingAuthenticationTokenException")


def test_the_runtime_verifies_signatures_too(simulator):
    session = boto3.Session("AKIAOTHER", "wrong", region_name=simulator.region)
    runtime = session.client("sagemaker-runtime", endpoint_url=simulator.url)
    code, _message = refusal(runtime.invoke_endpoint, EndpointName="any", Body=b"")
    assert code == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("service", "call", "unknown", "wrong"),
    [
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("s3", "list_buckets", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        ("logs", "describe_log_groups", "UnrecognizedClientException", "InvalidSignatureException"),
    ],
)
def test_other_services_verify_signatures_in_their_own_words(simulator, service, call, unknown, wrong):
    key = simulator.credentials
    for access, secret, code in (("AKIAOTHER", key.secret_key, unknown), (key.access_key, "wrong", wrong)):
        session = boto3.Session(access, secret, region_name=simulator.region)
        client = session.client(service, endpoint_url=simulator.url)
        assert refusal(getattr(client, call))[0] == code


def test_storage_takes_names_that_need_quoting(cloud):
    key = "a b/ü+&=?.txt"
    cloud.s3.put_object(Bucket=cloud.simulator.bucket, Key=key, Body=b"1")
    listed = cloud.s3.list_objects_v2(Bucket=cloud.simulator.bucket, Prefix="a b/ü+", StartAfter="a b")["Contents"]
    assert [each["Key"] for each in listed] == [key]
    url = cloud.s3.generate_presigned_url("get_object", Params={"Bucket": cloud.simulator.bucket, "Key": key})
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.read() == b"1"


@pytest.mark.parametrize(
    ("container", "text"),
    [
        pytest.param({"Image": "none:1"}, "Requested image none:1 not found", id="image"),
        pytest.param({"ModelDataUrl": "s3://b/k"}, "You must provide an Image", id="no-image"),
        pytest.param(
            {"Image": "echo:1", "ModelDataUrl": "s3://nobody/k"},
            "Could not find model data at s3://nobody/k",
            id="data",
        ),
        pytest.param({"Image": "echo:1", "Mode": "MultiModel"}, "does not simulate multi-model containers", id="multi"),
        pytest.param({"ModelPackageName": "p"}, "does not simulate models from model packages", id="package"),
        pytest.param(
            {"Image": "echo:1", "ModelDataUrl": "s3://b/k", "ModelDataSource": PLAIN}, "only one of them", id="both"
        ),
    ],
)
def test_a_model_that_cannot_be_is_refused(cloud, container, text):
    _code, message = refusal(
        cloud.sm.create_model, ModelName="impossible", PrimaryContainer=container, ExecutionRoleArn=cloud.simulator.role
    )
    assert text in message


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        pytest.param({"PrimaryContainer": {"Image": "echo:1"}}, "ExecutionRoleArn is required", id="role"),
        pytest.param(
            {"PrimaryContainer": {"Image": "echo:1"}, "Containers": [{"Image": "echo:1"}]},
            "only one of them",
            id="both",
        ),
        pytest.param(
            {"Containers": [{"Image": "echo:1"}] * 2}, "does not simulate models of more than one", id="several"
        ),
    ],
)
def test_a_model_of_no_container_or_several_is_refused(cloud, request_, text):
    role = {} if "role" in text.lower() else {"ExecutionRoleArn": cloud.simulator.role}
    _code, message = refusal(cloud.sm.create_model, ModelName="impossible", **request_, **role)
    assert text in message


def test_a_model_may_be_a_list_of_one_container_without_data(cloud):
    cloud.sm.create_model(ModelName="bare", Containers=[{"Image": "echo:1"}], ExecutionRoleArn=cloud.simulator.role)
    assert cloud.sm.describe_model(ModelName="bare")["Containers"] == [
        {"Image": "echo:1", "Mode": "SingleModel", "Environment": {}}
    ]
    cloud.config("bare", "bare")
    assert cloud.endpoint("bare", "bare")["EndpointStatus"] == "InService"
    assert json.loads(cloud.ask("bare", b"files")) == []


@pytest.mark.parametrize(
    ("variant", "more", "text"),
    [
        pytest.param({"InstanceType": "ml.m5.large"}, {}, "InitialInstanceCount is required", id="count"),
        pytest.param({"InitialInstanceCount": 1}, {}, "InstanceType is required", id="type"),
        pytest.param({"ServerlessConfig": {"MemorySizeInMB": 1500, "MaxConcurrency": 1}}, {}, "a multiple of 1024", id="memory"),
        pytest.param(
            {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}, "InitialInstanceCount": 1}, {},
            "Instance settings are not allowed", id="serverless-instances",
        ),
        pytest.param(
            {"ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1}}, {"AsyncInferenceConfig": ASYNC},
            "not supported with asynchronous", id="serverless-later",
        ),
        pytest.param(
            INSTANCE, {"AsyncInferenceConfig": {"OutputConfig": {"S3OutputPath": "s3://b/k", "NotificationConfig": {}}}},
            "does not simulate NotificationConfig", id="notified",
        ),
        pytest.param(
            INSTANCE, {"ShadowProductionVariants": [{"VariantName": "t", "ModelName": "c", **INSTANCE}] * 2},
            "must be unique", id="twice",
        ),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(cloud, variant, more, text):
    try:
        cloud.sm.describe_model(ModelName="c")
    except ClientError:
        cloud.model("c")
    production = [{"VariantName": "v", "ModelName": "c", **variant}]
    _code, message = refusal(
        cloud.sm.create_endpoint_config, EndpointConfigName="impossible", ProductionVariants=production, **more
    )
    assert text in message


def test_two_shadows_are_refused(cloud):
    cloud.model("sun")
    shadows = [{"VariantName": name, "ModelName": "sun", **INSTANCE} for name in ("s", "t")]
    _code, message = refusal(
        cloud.sm.create_endpoint_config, EndpointConfigName="sun", ShadowProductionVariants=shadows,
        ProductionVariants=[{"VariantName": "v", "ModelName": "sun", **INSTANCE}],
    )  # fmt: skip
    assert "exactly one production variant and one shadow variant" in message


def test_a_page_that_was_not_given_out_is_refused(cloud):
    assert refusal(cloud.sm.list_models, NextToken="nonsense")[1] == "Invalid next token."


def test_more_tags_than_fifty_are_refused(cloud):
    cloud.model("many")
    arn = cloud.sm.describe_model(ModelName="many")["ModelArn"]
    for start in (0, 25):
        cloud.sm.add_tags(ResourceArn=arn, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(start, start + 25)])
    assert (
        "must not be more than 50" in refusal(cloud.sm.add_tags, ResourceArn=arn, Tags=[{"Key": "k", "Value": ""}])[1]
    )
    pages = list(cloud.sm.get_paginator("list_tags").paginate(ResourceArn=arn))
    assert [len(page["Tags"]) for page in pages] == [50]
