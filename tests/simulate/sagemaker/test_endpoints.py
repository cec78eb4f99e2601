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
