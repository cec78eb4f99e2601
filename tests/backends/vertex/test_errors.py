"""What Google says, in each of its forms, comes to the error that a caller can act on."""

from __future__ import annotations

import grpc
import pytest
import requests
from google.api_core import exceptions as native
from google.auth import exceptions as auth
from hypothesis import given
from hypothesis import strategies as some

from modeldeploy.backends.vertex.errors import (
    CODES,
    BusyError,
    Said,
    TakenError,
    of_error,
    of_operation,
    of_prediction,
    of_said,
    of_status,
    quota,
    translated,
)
from modeldeploy.errors import (
    AccessDeniedError,
    BackendError,
    ConflictError,
    CredentialsError,
    InvalidRequestError,
    ModelDeployError,
    NotFoundError,
    PredictionError,
    QuotaError,
    ThrottledError,
    UnavailableError,
)

EXCEEDED = "The following quotas are exceeded: CustomModelServingCPUsPerProjectPerRegion"
PER_MINUTE = "Quota exceeded for quota metric 'Online prediction requests' and limit 'per minute'"

TRANSIENT = [
    ("UNAVAILABLE", "", UnavailableError),
    ("DEADLINE_EXCEEDED", "", UnavailableError),
    ("INTERNAL", "", UnavailableError),
    ("UNKNOWN", "", UnavailableError),
    ("RESOURCE_EXHAUSTED", PER_MINUTE, ThrottledError),
    ("ABORTED", "the etag does not match", BusyError),
    ("FAILED_PRECONDITION", "The endpoint is being deployed to.", BusyError),
    ("FAILED_PRECONDITION", "The endpoint still has deployed models: 1.", BusyError),
]
FINAL = [
    ("RESOURCE_EXHAUSTED", EXCEEDED, QuotaError),
    ("RESOURCE_EXHAUSTED", "The zone does not have enough resources", QuotaError),
    ("ALREADY_EXISTS", "", TakenError),
    ("FAILED_PRECONDITION", "the deployed model takes traffic", ConflictError),
    ("NOT_FOUND", "", NotFoundError),
    ("PERMISSION_DENIED", "aiplatform.endpoints.get denied", AccessDeniedError),
    ("UNAUTHENTICATED", "", CredentialsError),
    (
        "UNAVAILABLE",
        "Getting metadata from plugin failed with error: ('invalid_grant: Token has expired')",
        CredentialsError,
    ),
    ("INVALID_ARGUMENT", "", InvalidRequestError),
    ("UNIMPLEMENTED", "", BackendError),
]


@pytest.mark.parametrize(("code", "message", "cls"), TRANSIENT)
def test_what_may_pass_by_itself_is_transient(code, message, cls):
    found = of_said(Said(code, message), {})
    assert type(found) is cls
    assert found.transient


@pytest.mark.parametrize(("code", "message", "cls"), FINAL)
def test_what_will_not_pass_is_not(code, message, cls):
    found = of_said(Said(code, message), {})
    assert type(found) is cls
    assert not found.transient


def test_a_used_up_quota_is_named():
    assert (
        of_said(Said("RESOURCE_EXHAUSTED", EXCEEDED), {}).context["quota"]
        == "CustomModelServingCPUsPerProjectPerRegion"
    )
    assert quota(PER_MINUTE) == {"quota": "Online prediction requests"}
    assert quota("nothing of the kind") == {}


def test_an_api_that_is_not_enabled_is_told_with_the_command():
    said = Said("PERMISSION_DENIED", "Vertex AI API has not been used in project 1 before or it is disabled.")
    assert "gcloud services enable aiplatform.googleapis.com" in of_said(said, {}).hint


@pytest.mark.parametrize(
    ("raised", "cls"),
    [
        (native.Aborted("etag"), BusyError),
        (native.AlreadyExists("there"), TakenError),
        (native.ServiceUnavailable("down"), UnavailableError),
        (native.DeadlineExceeded("late"), UnavailableError),
        (native.from_http_status(503, "storage"), UnavailableError),
        (native.from_http_status(404, "no bucket"), NotFoundError),
        (native.from_http_status(403, "no"), AccessDeniedError),
        (native.from_http_status(429, "slow down"), ThrottledError),
        (native.from_http_status(412, "conditionNotMet"), ConflictError),
        (auth.DefaultCredentialsError("none"), CredentialsError),
        (auth.RefreshError("expired"), CredentialsError),
        (auth.TransportError("no network"), UnavailableError),
        (requests.ConnectionError("refused"), UnavailableError),
        (requests.ReadTimeout("late"), UnavailableError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_each_form_of_error_is_read(raised, cls):
    with pytest.raises(cls) as caught, translated(endpoint="here"):
        raise raised
    assert caught.value.__cause__ is raised
    assert caught.value.context["endpoint"] == "here"


def test_a_bare_error_of_grpc_is_read_too():
    class Bare(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

        def details(self):
            return "socket closed"

    found = of_error(Bare(), {})
    assert isinstance(found, UnavailableError)
    assert "socket closed" in found.message


def test_a_mistake_of_our_own_stays_what_it_is():
    with pytest.raises(KeyError), translated():
        raise KeyError("x")


def test_the_error_of_an_operation_is_read_by_its_number():
    assert of_operation(9, "x").code == "FAILED_PRECONDITION"
    assert of_operation(99, "x").code == "UNKNOWN"
    assert [of_operation(number, "").code for number in range(len(CODES))] == list(CODES)
    # The numbers are gRPC's own.
    assert all(getattr(grpc.StatusCode, name).value[0] == number for number, name in enumerate(CODES))


# Predictions


def test_a_callers_mistake_is_told_with_its_field():
    found = of_prediction(
        Said("FAILED_PRECONDITION", '{"error": "column x is missing", "field": "x"}'), {"endpoint": "e"}
    )
    assert isinstance(found, InvalidRequestError)
    assert (found.field, "column x is missing" in found.message) == ("x", True)


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        ("INVALID_ARGUMENT", InvalidRequestError),
        ("INTERNAL", PredictionError),
        ("RESOURCE_EXHAUSTED", ThrottledError),
        ("UNAVAILABLE", UnavailableError),
        ("DEADLINE_EXCEEDED", UnavailableError),
        ("NOT_FOUND", NotFoundError),
        ("PERMISSION_DENIED", AccessDeniedError),
        ("UNAUTHENTICATED", CredentialsError),
    ],
)
def test_what_a_prediction_ends_with(code, cls):
    found = of_prediction(Said(code, "{not json"), {"endpoint": "e"})
    assert type(found) is cls
    assert "'e'" in found.message or cls in {NotFoundError, AccessDeniedError, CredentialsError}


def test_an_endpoint_on_which_nothing_takes_traffic_yet_is_no_mistake_of_the_callers():
    said = Said("FAILED_PRECONDITION", "Endpoint projects/1/locations/l/endpoints/e doesn't have traffic_split.")
    assert type(of_prediction(said, {"endpoint": "e"})) is UnavailableError


@given(some.sampled_from(CODES[1:]), some.text(max_size=200))
def test_whatever_is_said_comes_to_an_error_of_ours(code, message):
    for found in (of_said(Said(code, message), {}), of_prediction(Said(code, message), {"endpoint": "e"})):
        assert isinstance(found, ModelDeployError)
        assert found.message


@given(some.integers(400, 599))
def test_every_http_status_has_a_code_of_grpc(status):
    assert of_status(status, "x").code in CODES
