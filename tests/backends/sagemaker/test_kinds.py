"""Kinds of endpoints: what each option brings about at the service, and what is refused with a reason before anything is sent."""

from __future__ import annotations

import json

import pytest

from modeldeploy.backends.sagemaker import SageMakerEndpointOptions, SageMakerOptions
from modeldeploy.errors import ConfigurationError, PredictionError, UnavailableError, UnsupportedError
from modeldeploy.values.serving import EndpointSpec, Hardware, Payload, Revision, Scale, Traffic


def variant(town, name):
    config = town.described(name)["EndpointConfigName"]
    return town.aws.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]


def refused(town, capability, spec, revision):
    before = town.left()
    with pytest.raises(UnsupportedError) as caught:
        town.backend.put_revision(spec, revision)
    assert (caught.value.capability, bool(caught.value.hint)) == (capability, True)
    assert town.left() == before
    return caught.value


# ---------------------------------------------------------------- instances


def test_hardware_picks_an_instance_type_and_an_option_overrules_it(town):
    gpu = Hardware(accelerator="t4")
    first = Revision.of(town.models[0], hardware=gpu, scale=Scale(2))
    town.deploy("gpu", first)
    found = variant(town, "gpu")
    assert (found["InstanceType"], found["InitialInstanceCount"]) == ("ml.g4dn.xlarge", 2)
    options = SageMakerOptions(instance_type="ml.c5.xlarge", volume_gb=30, startup_timeout=600)
    second = Revision.of(town.models[1], hardware=gpu, options=options)
    town.deploy("named", second)
    found = variant(town, "named")
    assert (found["InstanceType"], found["VolumeSizeInGB"]) == ("ml.c5.xlarge", 30)
    assert found["ContainerStartupHealthCheckTimeoutInSeconds"] == 600


# ---------------------------------------------------------------- serverless


def test_a_serverless_revision_has_no_instances_and_stands_alone(town):
    alone = town.revision(serverless_memory_mb="2048", serverless_concurrency="5")
    spec = town.deploy("serverless", alone)
    found = variant(town, "serverless")
    assert found["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 5}
    assert "InstanceType" not in found
    assert town.answered("serverless") == alone.id
    error = refused(town, "split", spec, town.revisions[0])
    assert "serverless variant alone" in error.message
    town.deploy("instances", town.revisions[0])
    refused(town, "split", EndpointSpec("instances"), alone)


# ---------------------------------------------------------------- the asynchronous queue


@pytest.mark.parametrize("size", [2, 200_000], ids=["inline", "through storage"])
def test_an_asynchronous_endpoint_answers_and_leaves_nothing_in_the_bucket(town, size):
    options = SageMakerEndpointOptions(asynchronous=True, invocations_per_instance=4)
    name = f"queue-{size}"
    town.deploy(name, town.revisions[0], **options)
    before = town.left()["objects"]
    answer = town.ask(name, b" " * (size - 2) + b"{}")
    assert json.loads(answer.body)["revision"] == town.revisions[0].id
    assert answer.headers["content-type"] == "application/json"
    assert town.left()["objects"] == before
    assert town.described(name)["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}


def test_a_failure_in_the_queue_is_the_models(town):
    town.deploy("queue-fails", town.revisions[0], asynchronous="true")
    with pytest.raises(PredictionError, match="the model broke"):
        town.ask("queue-fails", b"fail")


def test_who_waits_too_short_for_the_queue_is_told(town):
    town.deploy("queue-slow", town.revisions[0], asynchronous="true")
    with pytest.raises(UnavailableError, match="did not answer within"):
        town.backend.invoke("queue-slow", Payload(b"slow"), timeout=0.1)


def test_a_request_to_the_queue_cannot_name_one_of_several_revisions(town):
    first, second = town.revisions[:2]
    town.deploy("queue-pins", first, second, asynchronous="true")
    assert town.answered("queue-pins", revision=first.id) == first.id
    with pytest.raises(UnsupportedError) as caught:
        town.ask("queue-pins", revision=second.id)
    assert caught.value.capability == "pinned_invoke"


def test_an_asynchronous_endpoint_copies_nothing(town):
    first, second = town.revisions[:2]
    town.deploy("queue-shadow", first, second, asynchronous="true")
    with pytest.raises(UnsupportedError, match="asynchronous"):
        town.backend.set_traffic("queue-shadow", Traffic({first.id: 100}, shadow={second.id: 10}))


# ---------------------------------------------------------------- captured data


def test_data_is_captured_to_the_bucket_and_stays_when_the_endpoint_goes(town):
    town.deploy("captured", town.revisions[0], capture_percent="100")
    capture = town.described("captured")["DataCaptureConfig"]
    place = f"s3://{town.backend.simulator.bucket}/modeldeploy/captured/captured"
    assert (capture["CurrentSamplingPercentage"], capture["DestinationS3Uri"]) == (100, place)
    town.succeed(town.backend.put_revision(EndpointSpec("captured"), town.revisions[1]))
    assert town.described("captured")["DataCaptureConfig"]["EnableCapture"] is True


# ---------------------------------------------------------------- scaling


def test_instances_follow_the_load_and_the_clock(town):
    options = SageMakerOptions(
        least_instances=1,
        most_instances=4,
        requests_per_instance=300,
        schedule="cron(0 7 * * ? *)=2-4; rate(1 day)=1-2",
    )
    revision = Revision.of(town.models[0], options=options)
    town.deploy("scaled", revision)
    scaling = town.backend._client.service("application-autoscaling")
    space = {"ServiceNamespace": "sagemaker"}
    (target,) = scaling.describe_scalable_targets(**space)["ScalableTargets"]
    assert target["ResourceId"] == f"endpoint/scaled/variant/{revision.id}"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
    (policy,) = scaling.describe_scaling_policies(**space)["ScalingPolicies"]
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    metric = tracking["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert (tracking["TargetValue"], metric) == (300.0, "SageMakerVariantInvocationsPerInstance")
    actions = scaling.describe_scheduled_actions(**space)["ScheduledActions"]
    assert {each["Schedule"] for each in actions} == {"cron(0 7 * * ? *)", "rate(1 day)"}
    town.deploy("scaled", town.revisions[1])
    town.succeed(town.backend.set_traffic("scaled", Traffic.all_to(town.revisions[1].id)))
    town.succeed(town.backend.drop_revision("scaled", revision.id))
    assert scaling.describe_scalable_targets(**space)["ScalableTargets"] == []
    assert scaling.describe_scaling_policies(**space)["ScalingPolicies"] == []
    assert scaling.describe_scheduled_actions(**space)["ScheduledActions"] == []


def test_zero_instances_are_for_the_queue_only(town):
    options = {"least_instances": "0", "most_instances": "2", "requests_per_instance": "5"}
    revision = town.revision(**options)
    error = refused(town, "scale_to_zero", EndpointSpec("to-zero"), revision)
    assert "asynchronous=true" in error.hint
    town.deploy("queue-zero", revision, asynchronous="true")
    scaling = town.backend._client.service("application-autoscaling")
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 2)
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    tracked = policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]["MetricName"]
    assert tracked == "ApproximateBacklogSizePerInstance"


# ---------------------------------------------------------------- copies


def test_copies_need_an_endpoint_of_two(town):
    first, second, third = town.revisions
    town.deploy("three", first, second, third)
    with pytest.raises(UnsupportedError) as caught:
        town.backend.set_traffic("three", Traffic({first.id: 100}, shadow={second.id: 10}))
    assert (caught.value.capability, "keep=0" in caught.value.hint) == ("shadow", True)


def test_an_endpoint_is_never_left_without_traffic(town):
    town.deploy("never", town.revisions[0])
    with pytest.raises(UnsupportedError, match="cannot be left without traffic"):
        town.backend.set_traffic("never", Traffic())


def test_the_eleventh_revision_is_refused(town, monkeypatch):
    monkeypatch.setattr("modeldeploy.backends.sagemaker.backend.MOST_VARIANTS", 2)
    spec = town.deploy("crowd", *town.revisions[:2])
    refused(town, "split", spec, town.revisions[2])


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instance_typ": "ml.m5.large"}, "did you mean 'instance_type'"),
        ({"instance_type": "m5.large"}, "ml.m5.large"),
        ({"serverless_memory_mb": "1000"}, "1024"),
        ({"serverless_concurrency": "201"}, "200"),
        ({"volume_gb": "many"}, "default"),
        ({"most_instances": "2"}, "both bounds"),
        ({"least_instances": "1", "most_instances": "2"}, "requests_per_instance or schedule"),
        ({"requests_per_instance": "5"}, "least_instances"),
        ({"least_instances": "1", "most_instances": "2", "schedule": "at noon"}, "LEAST-MOST"),
        ({"least_instances": "1", "most_instances": "2", "schedule": "rate(1 day)=3-2"}, "LEAST-MOST"),
        (
            {
                "least_instances": "1",
                "most_instances": "2",
                "schedule": "rate(1 day)=1-2",
                "serverless_memory_mb": "1024",
            },
            "scaled by the service",
        ),
        ({"startup_timeout": "10"}, "60"),
        ({"idempotent": "perhaps"}, "default"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_wrong_option_is_refused_by_name(options, said):
    with pytest.raises(ConfigurationError) as caught:
        SageMakerOptions.read(options, "revision")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"capture_percent": "101"},
        {"capture_to": "s3://b/x"},
        {"capture_percent": "5", "capture_to": "b"},
        {"invocations_per_instance": "3"},
    ],
    ids=["percent", "to without percent", "no place", "no queue"],
)
def test_a_wrong_option_of_an_endpoint_is_refused(options):
    with pytest.raises(ConfigurationError):
        SageMakerEndpointOptions.read(options, "endpoint")


def test_options_are_a_mapping_of_what_was_set():
    options = SageMakerOptions(instance_type="ml.m5.large", idempotent=True)
    assert dict(options) == {"instance_type": "ml.m5.large", "idempotent": "True"}
    assert SageMakerOptions.read(dict(options), "revision") == options
    assert (len(SageMakerOptions()), len(options)) == (0, 2)
