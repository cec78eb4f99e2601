"""Requests and answers held against the models that the SDK is generated with."""

from __future__ import annotations

from typing import Any

import pytest

from modeldeploy.simulate.azureml import schemas
from modeldeploy.simulate.azureml.errors import ServiceError

ENDPOINT = {"location": "westeurope", "properties": {"authMode": "Key"}}


def endpoint(**properties: Any) -> dict[str, Any]:
    return {**ENDPOINT, "properties": {"authMode": "Key", **properties}}


def said(body: object, model: str = "OnlineEndpoint") -> list[str]:
    with pytest.raises(ServiceError) as caught:
        schemas.check_request(model, body)
    assert caught.value.status == 400
    return [each.message for each in caught.value.details]


def test_a_request_that_the_model_allows_passes():
    schemas.check_request("OnlineEndpoint", endpoint(traffic={"blue": 100}, properties={"a": "b"}, keys=None))


def test_read_only_members_of_an_echo_pass():
    """The SDK sends back what it was told; the service ignores what it alone writes."""
    schemas.check_request("OnlineEndpoint", {**endpoint(provisioningState="Nonsense"), "id": "/x", "systemData": {}})


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"location": "westeurope", "properties": {}}, "properties.authMode is required"),
        ({"properties": {"authMode": "Key"}}, "location is required"),
        (endpoint(traffic={"blue": "100"}), "properties.traffic.blue: '100' is not of the type int"),
        (endpoint(traffic={"blue": True}), "properties.traffic.blue: True is not of the type int"),
        (endpoint(traffic=[1]), "properties.traffic: [1] is not an object"),
        (endpoint(traffic={"blue": 0.5}), "properties.traffic.blue: 0.5 is not of the type int"),
        (endpoint(mirrortraffic={}), "properties.mirrortraffic is not a member of OnlineEndpointProperties"),
        (endpoint(authMode="Word"), "properties.authMode: 'Word' is none of ['AADToken', 'AMLToken', 'Key']"),
    ],
    ids=["mode", "location", "text", "bool", "list", "fraction", "unknown", "enum"],
)
def test_what_is_wrong_is_named_with_its_place(body: dict[str, Any], text: str):
    assert said(body) == [text]


def test_the_kind_of_a_deployment_decides_about_its_members():
    properties = {"endpointComputeType": "Managed", "containerResourceRequirements": {}}
    body = {"location": "westeurope", "properties": properties}
    assert said(body, "OnlineDeployment") == [
        "properties.containerResourceRequirements is not a member of ManagedOnlineDeployment"
    ]


def test_durations_have_their_form():
    settings = {"requestTimeout": "5 seconds"}
    body = {"location": "westeurope", "properties": {"endpointComputeType": "Managed", "requestSettings": settings}}
    assert said(body, "OnlineDeployment") == [
        "properties.requestSettings.requestTimeout: '5 seconds' is not a duration"
    ]


def test_an_answer_that_the_service_could_not_give_is_an_error():
    told = {
        **endpoint(provisioningState="Fine"),
        "id": "/x",
        "name": "x",
        "type": "y",
        "systemData": {"createdAt": "now"},
    }
    with pytest.raises(ValueError, match=r"provisioningState: 'Fine' is none of .*") as caught:
        schemas.check_answer("OnlineEndpoint", told)
    assert "createdAt: 'now' is not an instant" in str(caught.value)


def test_every_entry_of_a_page_is_checked():
    with pytest.raises(ValueError, match="nonsense is not a member"):
        schemas.check_answer("[OnlineEndpoint]", {"value": [endpoint(), endpoint(nonsense=1)]})
