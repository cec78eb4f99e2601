"""The terms of batch jobs: what the service refuses is refused here, by name."""

from __future__ import annotations

import pytest

from modeldeploy.backends.sagemaker import settings
from modeldeploy.backends.sagemaker.terms import Terms
from modeldeploy.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_payload_mb": 101}, "max_payload_mb is 101"),
        ({"max_payload_mb": 0}, "max_payload_mb is 0"),
        ({"max_payload_mb": 30, "concurrency": 4}, "30 and concurrency 4"),
        ({"timeout": 3601}, "timeout is 3601"),
        ({"parts_per_job": 0}, "parts_per_job is 0"),
    ],
    ids=["large", "none", "product", "timeout", "parts"],
)
def test_what_the_service_refuses_is_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        Terms(**given)


def test_terms_come_from_settings():
    found = settings.arguments(
        {"batch_instance_type": "ml.c5.xlarge", "batch_max_payload_mb": "20", "region": "eu-west-1"}
    )
    assert found["batch_terms"] == Terms(instance_type="ml.c5.xlarge", max_payload_mb=20)


def test_a_setting_that_is_no_number_is_named():
    with pytest.raises(ConfigurationError, match="batch_timeout is 'long'"):
        settings.arguments({"batch_timeout": "long"})


def test_a_setting_that_is_not_known_is_named():
    with pytest.raises(ConfigurationError, match="batch_speed"):
        settings.arguments({"batch_speed": "1"})
