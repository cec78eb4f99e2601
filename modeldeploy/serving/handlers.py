"""The functions that SageMaker's prebuilt framework images call, over the same App as everywhere.

An image that honours them (the public ``sagemaker-inference`` toolkit) loads ``code/inference.py``, which takes its functions from here. A
wrong request gets the status that our own server gives it where the toolkit lets a function say so.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs

from modeldeploy.serving import lines
from modeldeploy.serving.app import App
from modeldeploy.serving.boot import boot
from modeldeploy.serving.messages import Request, Response

_FAILED = 400


def model_fn(model_dir: str, context: object = None) -> App:
    """Load the bundle in ``model_dir`` and prove it by its golden outputs."""
    del context
    trust = os.environ.get("MODELDEPLOY_TRUST", "").replace(",", " ").split()
    return boot(Path(model_dir) / "bundle", trust=trust, row_by_row=lines.wanted(os.environ))


def input_fn(body: bytes | bytearray | str, content_type: str, context: object = None) -> Request:
    """Take the request as it came; only the model's signature tells what is in it."""
    del context
    data = body.encode() if isinstance(body, str) else bytes(body)
    return Request("POST", "/invocations", headers={"content-type": content_type or ""}, body=data)


def predict_fn(request: Request, app: App, context: object = None) -> tuple[App, Request]:
    """Leave the prediction to ``output_fn``, which is told what the caller accepts."""
    del context
    return app, request


def output_fn(prediction: tuple[App, Request], accept: str, context: object = None) -> Any:
    """Predict and write the answer in the form that the caller accepts: bytes and their type.

    A request that cannot be answered has the status of our own server where the image lets a function say so: its library's error in the
    newer ones, its library's response in the scikit-learn ones. Elsewhere it is a plain error, for which an image answers 500.
    """
    del context
    app, request = prediction
    asked = attrs.evolve(request, headers={**request.headers, "accept": accept or ""})
    (response,) = app.respond_many([asked])
    if response.status >= _FAILED:
        return _refused(response)
    return response.body, _type_of(response)


def _refused(response: Response) -> Any:
    answer = _response_class()
    if answer is not None:
        return answer(response=response.body, status=response.status, mimetype=_type_of(response))
    error: Exception = _error_class()(response.body.decode("utf-8", "replace"))
    error.status_code, error.message, error.phrase = response.status, str(error), str(error)  # type: ignore[attr-defined]  # the toolkit's names
    raise error


def _type_of(response: Response) -> str:
    return response.headers.get("content-type", "application/json").partition(";")[0]


def _response_class() -> Any:
    """Find the response of ``sagemaker-containers``, the host of the scikit-learn images; None in others."""
    try:
        from sagemaker_containers.beta.framework import worker
    except ImportError:
        return None
    return worker.Response


def _error_class() -> Any:
    """Find the error of ``sagemaker-inference``, whose ``status_code`` that host sends; any other error is a 500 there."""
    try:
        from sagemaker_inference.errors import BaseInferenceToolkitError
    except ImportError:
        return RuntimeError
    return type("RefusedError", (BaseInferenceToolkitError,), {"__init__": Exception.__init__})
