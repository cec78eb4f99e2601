"""What Azure says becomes an error of ours, by status, codes and message; the forms are those that users met."""

from __future__ import annotations

import json

import pytest

from modeldeploy.backends.azureml.errors import (
    BusyError,
    Said,
    of_answer,
    of_error,
    of_scoring,
    rule_of,
    said,
    translated,
)
from modeldeploy.errors import (
    AccessDeniedError,
    BackendError,
    ConfigurationError,
    ConflictError,
    CredentialsError,
    InvalidRequestError,
    NotFoundError,
    PredictionError,
    QuotaError,
    ThrottledError,
    UnavailableError,
)

QUOTA = {
    "error": {
        "code": "BadRequest",
        "message": "The request is invalid.",
        "details": [
            {
                "code": "InferencingClientCreateDeploymentFailed",
                "message": 'InferencingClient HttpRequest error, error detail: {"errors":{"VmSize":["Not enough quota available for '
                'Standard_F4s_v2 in SubscriptionId 0000. Current usage/limit: 0/6. Additional needed: 8 Please see troubleshooting guide"]},'
                '"type":"https://tools.ietf.org/html/rfc9110","title":"One or more validation errors occurred.","status":400}',
            }
        ],
    }
}


def test_a_quota_is_told_with_its_name_and_how_far_it_is_used():
    error = of_answer(said(QUOTA, 400), {"endpoint": "iris"})
    assert isinstance(error, QuotaError)
    assert error.context["quota"] == "Standard_F4s_v2"
    assert [error.context[key] for key in ("usage", "limit", "needed")] == [0, 6, 8]
    assert "VmSize: Not enough quota" in error.message
    assert "instance_type" in error.hint


@pytest.mark.parametrize(
    ("status", "code", "message", "wanted"),
    [
        (429, "TooManyRequests", "slow down", ThrottledError),
        (503, "ServiceUnavailable", "", UnavailableError),
        (500, "InternalServerError", "", UnavailableError),
        (409, "Conflict", "another one goes on", BusyError),
        (409, "SomethingElse", "", ConflictError),
        (
            400,
            "BadRequest",
            "Cannot create a deployment in endpoint x because it is in Updating provisioning state",
            BusyError,
        ),
        (
            400,
            "BadRequest",
            "There is already an endpoint with this name, endpoint names are unique in a region",
            BusyError,
        ),
        (200, "OperationCanceled", "The operation was overridden", BusyError),
        (200, "OutOfCapacity", "", QuotaError),
        (400, "OutOfQuota", "", QuotaError),
        (403, "AuthorizationFailed", "", AccessDeniedError),
        (401, "InvalidAuthenticationToken", "", CredentialsError),
        (404, "ResourceNotFound", "", NotFoundError),
        (200, "ImageBuildFailure", "", BackendError),
        (400, "ValidationError", "", InvalidRequestError),
        (418, "Teapot", "", BackendError),
    ],
)
def test_the_most_specific_rule_counts(status, code, message, wanted):
    assert rule_of(Said(status, (code,), message)).cls is wanted


def test_a_name_before_the_message_counts_as_a_code():
    found = said({"error": {"code": None, "message": "ResourceNotReady: User container has crashed"}}, 200)
    assert found.code == "ResourceNotReady"
    assert rule_of(found).cls is BackendError


def test_a_word_before_a_colon_is_no_code():
    assert said({"error": {"code": "BadRequest", "message": "Warning: the name"}}).codes == ("BadRequest",)


@pytest.mark.parametrize(
    "document", [{}, {"error": None}, {"error": []}, {"error": {"details": ["x", None]}}], ids=range(4)
)
def test_an_error_without_a_shape_is_told_all_the_same(document):
    assert "Azure gives no reason" in str(of_answer(said(document, 500), {}))


@pytest.mark.parametrize(
    "message", ['x {"errors" no json', 'x {"errors": [1]}', 'x {"errors": {"A": "b"}}'], ids=range(3)
)
def test_json_within_a_message_is_read_where_it_is_json(message):
    found = said({"error": {"code": "BadRequest", "message": message}})
    assert found.message == ("A: b" if message.endswith('"b"}}') else message)


def _answered(status, document, headers=None):
    from azure.core.exceptions import HttpResponseError

    class Answer:
        status_code, reason = status, "Bad"
        content_type = "application/json"

        def __init__(self):
            self.headers = headers or {}

        def text(self, *_more):
            return json.dumps(document)

    return HttpResponseError(response=Answer())


def test_an_error_of_azure_core_is_read_whole():
    error = of_error(_answered(429, {"error": {"code": "TooManyRequests"}}, {"Retry-After": "7"}), {})
    assert isinstance(error, ThrottledError)
    assert error.retry_after == 7.0
    milli = of_error(_answered(503, {}, {"retry-after-ms": "250"}), {})
    assert milli.retry_after == 0.25


def test_what_the_sdk_refuses_by_itself_is_a_wrong_configuration():
    from azure.ai.ml.exceptions import MlException

    assert isinstance(of_error(MlException("no", no_personal_data_message="no"), {}), ConfigurationError)


def test_an_error_that_was_wrapped_is_read_through():
    from azure.ai.ml.exceptions import MlException

    inner = _answered(403, {"error": {"code": "AuthorizationFailed"}})
    assert isinstance(of_error(MlException("no", no_personal_data_message="no", error=inner), {}), AccessDeniedError)


def test_a_line_that_is_not_there_is_unavailable():
    from azure.core.exceptions import ServiceRequestError

    with pytest.raises(UnavailableError, match="was not reached") as caught, translated(endpoint="iris"):
        raise ServiceRequestError("Connection refused\nat length")
    assert isinstance(caught.value.__cause__, ServiceRequestError)
    assert caught.value.context == {"endpoint": "iris"}


def test_an_error_of_nobody_is_left_as_it_is():
    with pytest.raises(ZeroDivisionError), translated():
        _ = 1 / 0


MODEL = "ms-azureml-model-error-statuscode"


@pytest.mark.parametrize(
    ("status", "headers", "wanted"),
    [
        (424, {MODEL: "422"}, InvalidRequestError),
        (424, {MODEL: "500"}, PredictionError),
        (424, {MODEL: "429"}, ThrottledError),
        (424, {MODEL: "503"}, UnavailableError),
        (424, {}, PredictionError),
        (429, {}, ThrottledError),
        (500, {}, UnavailableError),
        (408, {}, PredictionError),
        (401, {}, CredentialsError),
        (403, {}, AccessDeniedError),
        (404, {}, NotFoundError),
        (413, {}, InvalidRequestError),
    ],
)
def test_an_answer_of_the_scoring_address_is_told_apart(status, headers, wanted):
    error = of_scoring(status, headers, b'{"error": "column x is missing", "field": "x"}', {"endpoint": "iris"})
    assert type(error) is wanted
    assert "column x is missing" in str(error)
    if wanted is InvalidRequestError and status == 424:
        assert error.field == "x"
