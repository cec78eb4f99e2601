"""Metrics to windows, hardware to instance types, settings to arguments, payloads to requests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from modeldeploy.backends.sagemaker import SageMaker, hardware, metrics
from modeldeploy.backends.sagemaker.capabilities import CAPABILITIES
from modeldeploy.backends.sagemaker.client import Access, Client
from modeldeploy.backends.sagemaker.guard import GUARDED
from modeldeploy.backends.sagemaker.invoke import build, read_timeout
from modeldeploy.backends.sagemaker.pace import Pace
from modeldeploy.backends.sagemaker.settings import arguments, network
from modeldeploy.errors import ConfigurationError, InvalidRequestError, NotFoundError
from modeldeploy.registry import find
from modeldeploy.serving import binary_type
from modeldeploy.values.metrics import bucket_end, bucket_of
from modeldeploy.values.serving import Hardware, Payload


def test_the_backend_is_imported_without_any_package_of_the_provider():
    """The sagemaker package takes seconds, and boto3 half of one."""
    code = (
        "import sys, modeldeploy.backends.sagemaker as found; found.SageMaker(region='eu-west-1', role='r');"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'boto3', 'botocore', 'sagemaker', 'moto', 'werkzeug'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- metrics


def test_a_histogram_is_put_together_from_quantiles_and_never_too_fast():
    """A hundred answers of 1 to 100 ms: p95 is read as what it is, and what lies between two quantiles as the upper one."""
    milli = [float(each) for each in range(1, 101)]
    found = {"requests": {0.0: 100.0}, "answers": {0.0: 100.0}, "slowest": {0.0: 100_000.0}}
    for quantile in metrics._QUANTILES:
        at = max(0, -(-int(quantile * 10) // 10) - 1)
        found[metrics._name(quantile)] = {0.0: milli[at] * 1000}
    window = metrics.put_together("v1", 0.0, 60.0, found)
    assert (window.requests, sum(window.latency.values())) == (100, 100)
    for quantile in (0.5, 0.9, 0.95, 0.99):
        assert window.quantile(quantile) == bucket_end(bucket_of(quantile * 0.1))
    for limit in (0.02, 0.05, 0.09):
        really = sum(each / 1000 > bucket_end(bucket_of(limit)) for each in milli)
        assert really <= window.slower_than(bucket_of(limit)) <= really + 10


def test_slots_are_put_together_by_what_each_had():
    found = {
        "answers": {0.0: 3.0, 60.0: 1.0},
        "slowest": {0.0: 5_000.0, 60.0: 90_000.0},
        "requests": {0.0: 3.0, 60.0: 1.0},
    }
    window = metrics.put_together("v1", 0.0, 120.0, found)
    assert window.latency == {str(bucket_of(0.005)): 3, str(bucket_of(0.09)): 1}


@pytest.mark.parametrize(
    ("failed", "unsuccessful", "refused", "errors"),
    [(2, 2, 0, 2), (0, 3, 3, 0), (1, 6, 3, 3), (9, 0, 0, 5)],
    ids=["by status", "callers'", "without a status", "never more than requests"],
)
def test_errors_are_the_services_fault_and_never_the_callers(failed, unsuccessful, refused, errors):
    counts = {"requests": 5, "failed": failed, "unsuccessful": unsuccessful, "refused": refused}
    found = {name: {0.0: float(value)} for name, value in counts.items()}
    assert metrics.put_together("v1", 0.0, 60.0, found).errors == errors


def test_nothing_measured_is_zeros():
    window = metrics.put_together("v1", 0.0, 60.0, {})
    assert (window.requests, window.errors, window.latency) == (0, 0, {})


# ---------------------------------------------------------------- hardware


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Hardware(), "ml.m5.large"),
        (Hardware(cpu=3), "ml.c5.xlarge"),
        (Hardware(memory_gb=20), "ml.m5.2xlarge"),
        (Hardware(accelerator="gpu"), "ml.g4dn.xlarge"),
        (Hardware(accelerator="A10G", accelerator_count=4), "ml.g5.12xlarge"),
        (Hardware(accelerator_count=8), "ml.g5.48xlarge"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_the_smallest_instance_that_has_it_is_taken(wanted, found):
    assert hardware.choose(wanted, "ml.m5.large") == found


def test_hardware_that_the_table_has_not_is_refused_with_the_option_that_names_one():
    with pytest.raises(ConfigurationError) as caught:
        hardware.choose(Hardware(accelerator="abacus"), "ml.m5.large")
    assert "instance_type" in caught.value.hint


# ---------------------------------------------------------------- settings


def test_it_is_found_by_its_name_and_configured_from_text(tmp_path):
    assert find("sagemaker") is SageMaker
    backend = SageMaker.configure(
        tmp_path,
        {"region": "eu-west-1", "role": "r", "tags": "team=a, cost=b", "subnets": "s-1,s-2", "security_groups": "g"},
    )
    defaults = backend._provider.defaults
    assert (defaults.role, defaults.tags) == ("r", {"team": "a", "cost": "b"})
    assert defaults.vpc == {"Subnets": ("s-1", "s-2"), "SecurityGroupIds": ("g",)}
    assert backend.capabilities.durable


@pytest.mark.parametrize(
    "given",
    [{"zone": "x"}, {"access_key": "AKIA"}, {"tags": "team"}],
    ids=["unknown", "keys are never taken", "no pair"],
)
def test_a_wrong_setting_is_refused(given):
    with pytest.raises(ConfigurationError):
        arguments(given)


@pytest.mark.parametrize(
    "given", [{"Subnets": ["a"]}, {"Subnets": [], "SecurityGroupIds": ["g"]}, {"Nets": ["a"]}], ids=str
)
def test_half_a_network_is_refused(given):
    with pytest.raises(ConfigurationError):
        network(given)


def test_a_session_of_the_sagemaker_package_is_taken_for_the_one_in_it():
    class Session:
        region_name = "eu-central-1"

    class Wrapped:
        boto_session = Session()

    for given in (Session(), Wrapped()):
        assert Client(Access(session=given)).region == "eu-central-1"


def test_no_region_is_told(monkeypatch):
    class Nowhere:
        region_name = None

    with pytest.raises(ConfigurationError, match="region"):
        Client(Access(session=Nowhere())).region  # noqa: B018


def test_capabilities_refuse_with_a_reason_and_what_is_refused_is_not_declared():
    for declared in (CAPABILITIES, GUARDED):
        for name, why in declared.why_not.items():
            assert why
            assert getattr(declared, name) in {False, None, 1, 10}


def test_a_rehearsal_runs_through_the_same_times_faster():
    real, fast = Pace(), Pace(600.0)
    assert (real.poll(0), real.poll(1_000), fast.grace) == (5.0, 30.0, 0.1)
    assert (real.slot, fast.slot) == (60.0, 1.0)


# ---------------------------------------------------------------- requests


def test_only_what_the_service_passes_on_is_sent():
    headers = {
        "content-type": "application/octet-stream",
        binary_type.HEADER: "12",
        "accept": "text/csv",
        "x-user": "7",
        "path": "/v2/models/iris/infer",
        "x-amzn-sagemaker-custom-attributes": "trace=1",
    }
    assert build("iris", Payload(b"x", headers), "v1-0-0-00000000") == {
        "EndpointName": "iris",
        "Body": b"x",
        "ContentType": f"{binary_type.PREFIX}12",
        "Accept": "text/csv",
        "CustomAttributes": "trace=1",
        "TargetVariant": "v1-0-0-00000000",
    }


@pytest.mark.parametrize("value", ["x" * 1_025, "\u00fcber", "two\r\nlines"], ids=["long", "no ascii", "lines"])
def test_a_header_that_the_service_would_refuse_is_refused(value):
    with pytest.raises(InvalidRequestError):
        build("iris", Payload(b"", {"x-amzn-sagemaker-custom-attributes": value}), None)


@pytest.mark.parametrize(("name", "revision"), [("Under_score", None), ("iris", "\r\n")], ids=["endpoint", "revision"])
def test_a_name_that_cannot_be_is_not_there(name, revision):
    with pytest.raises(NotFoundError):
        build(name, Payload(b""), revision)


@pytest.mark.parametrize(("timeout", "read"), [(0.2, 1), (3, 4), (10, 16), (40, 70), (60, 70), (300, 300)])
def test_a_container_is_given_the_time_it_may_take(timeout, read):
    assert read_timeout(timeout) == read
