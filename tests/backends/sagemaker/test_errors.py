"""One table from what AWS says to what we raise: by code and message, most specific first."""

from __future__ import annotations

import pickle

import botocore.exceptions as native
import pytest

from modeldeploy import errors
from modeldeploy.backends.sagemaker.errors import AlreadyThereError, BusyError, of_answer, of_error, translated

CASES = [
    ("ValidationException", 'Could not find endpoint "arn".', errors.NotFoundError),
    ("ValidationError", "Endpoint iris of account 1 not found.", errors.NotFoundError),
    ("ValidationException", "Cannot create already existing endpoint", AlreadyThereError),
    ("ValidationException", "Cannot update in-progress endpoint", BusyError),
    ("ValidationException", "1 validation error detected", errors.InvalidRequestError),
    ("ResourceNotFoundException", "The specified log group does not exist.", errors.NotFoundError),
    ("ResourceInUse", "Job name must be unique", AlreadyThereError),
    (
        "ResourceLimitExceeded",
        "The account-level service limit 'ml.g5.xlarge for endpoint usage' is 0",
        errors.QuotaError,
    ),
    ("ThrottlingException", "Rate exceeded", errors.ThrottledError),
    ("ThrottlingException", None, errors.ThrottledError),
    ("SomethingNew", "Rate exceeded", errors.ThrottledError),
    ("InternalFailure", "", errors.UnavailableError),
    ("ServiceUnavailable", "", errors.UnavailableError),
    ("ModelNotReadyException", "loading", errors.UnavailableError),
    ("InternalDependencyException", "", errors.UnavailableError),
    ("AccessDeniedException", "not authorized to perform: sagemaker:CreateModel", errors.AccessDeniedError),
    ("ExpiredTokenException", "expired", errors.CredentialsError),
    ("InvalidSignatureException", "", errors.CredentialsError),
    ("UnrecognizedClientException", "", errors.CredentialsError),
    ("SomethingNew", "unheard of", errors.BackendError),
]


def answer(code, message, **more):
    said = {"Code": code} | ({"Message": message} if message is not None else {})
    return {"Error": said, "ResponseMetadata": {"RequestId": "r-1", "HTTPHeaders": {"retry-after": "7"}}, **more}


@pytest.mark.parametrize(
    ("code", "message", "cls"), CASES, ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)]
)
def test_an_error_is_of_the_most_specific_class(code, message, cls):
    found = of_answer(answer(code, message), "CreateModel", {"model": "m"})
    assert type(found) is cls
    assert "CreateModel" in str(found)
    assert found.context == {"model": "m", "request": "r-1"}
    assert type(pickle.loads(pickle.dumps(found))) is cls
    if found.transient:
        assert found.retry_after == 7.0


def test_the_quotas_name_and_the_way_out_are_told():
    found = of_answer(
        answer("ResourceLimitExceeded", "limit 'ml.g5.xlarge for endpoint usage' is 0"), "CreateEndpoint", {}
    )
    assert "ml.g5.xlarge for endpoint usage" in str(found)
    assert "Service Quotas" in found.hint


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (0, errors.PredictionError),
        (400, errors.InvalidRequestError),
        (422, errors.InvalidRequestError),
        (429, errors.ThrottledError),
        (500, errors.PredictionError),
        (503, errors.UnavailableError),
    ],
)
def test_what_the_container_said_decides_whose_fault_it_is(status, cls):
    said = answer(
        "ModelError", "Received error", OriginalStatusCode=status, OriginalMessage='{"error": "no", "field": "x"}'
    )
    found = of_answer(said, "InvokeEndpoint", {"endpoint": "iris"})
    assert type(found) is cls
    if cls is errors.InvalidRequestError:
        assert found.field == "x"
    if cls is errors.PredictionError:
        assert found.status == (status or 504)


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        (native.NoCredentialsError(), errors.CredentialsError),
        (native.ProfileNotFound(profile="p"), errors.ConfigurationError),
        (native.NoRegionError(), errors.ConfigurationError),
        (native.EndpointConnectionError(endpoint_url="u"), errors.UnavailableError),
        (native.ReadTimeoutError(endpoint_url="u"), errors.UnavailableError),
        (native.ConnectionClosedError(endpoint_url="u"), errors.UnavailableError),
        (native.ParamValidationError(report="r"), errors.InvalidRequestError),
        (native.UnknownServiceError(service_name="s", known_service_names="k"), errors.BackendError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_botocore_raises_without_an_answer_is_translated(error, cls):
    with pytest.raises(cls) as caught, translated(endpoint="iris"):
        raise error
    assert caught.value.__cause__ is error


def test_what_is_no_error_of_aws_passes():
    assert of_error(KeyError("x"), {}) is None
    with pytest.raises(KeyError), translated():
        raise KeyError
    with pytest.raises(errors.QuotaError), translated():
        raise errors.QuotaError("ours")
