"""The host of a model's own code: by the rules of the provider's prebuilt images."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from botocore.exceptions import ClientError

PYTORCH = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-inference:2.6-cpu-py312"
SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.4-2-cpu-py3"
PROGRAM = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"}
STEPS = """
import json, os
def model_fn(model_dir):
    return open(os.path.join(model_dir, "weights")).read()
def input_fn(body, content_type):
    return type(body).__name__, content_type, body if isinstance(body, str) else body.decode()
def predict_fn(data, model):
    return [*data, model]
def output_fn(prediction, accept):
    return json.dumps([*prediction, accept]), "application/json"
"""
WHOLE = """
def model_fn(model_dir):
    return 2
def transform_fn(model, data, content_type, accept):
    return str(float(data) * model), accept
"""
DEFAULTS = """
class Model:
    def predict(self, array):
        return array.sum(axis=1)
def model_fn(model_dir, context):
    return Model()
"""
REFUSES = """
def model_fn(model_dir):
    return None
def transform_fn(model, data, content_type, accept):
    from sagemaker_inference.errors import BaseInferenceToolkitError
    raise BaseInferenceToolkitError(422, "column x is missing", "Unprocessable")
"""
BROKEN = "def model_fn(model_dir):\n    raise ValueError('no such weights')\n"
OUTSIDE = "import modeldeploy\ndef model_fn(model_dir):\n    return None\n"


def packed(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def serve(cloud, name, code, *, image=PYTORCH, environment=None, **files):
    data = packed({"weights": "w1", "code/inference.py": code, **files})
    container = {
        "Image": image,
        "ModelDataUrl": cloud.put(f"{name}.tar.gz", data),
        "Environment": PROGRAM if environment is None else environment,
    }
    cloud.sm.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=cloud.simulator.role)
    cloud.config(name, name)
    return cloud.endpoint(name, name)


@pytest.mark.parametrize("image", [pytest.param(PYTORCH, id="inference"), pytest.param(SKLEARN, id="containers")])
def test_the_four_functions_are_called_in_turn(cloud, image):
    name = f"steps-{'torch' if image == PYTORCH else 'sklearn'}"
    assert serve(cloud, name, STEPS, image=image)["EndpointStatus"] == "InService"
    answer = cloud.ask(name, b"a,b", ContentType="text/csv", Accept="application/x-own")
    assert json.loads(answer) == ["str", "text/csv", "a,b", "w1", "application/x-own"]
    answer = cloud.ask(name, b"\x01", ContentType="application/octet-stream", Accept="*/*")
    assert json.loads(answer) == ["bytes", "application/octet-stream", "\x01", "w1", "application/json"]


def test_one_function_may_do_it_all(cloud):
    serve(cloud, "whole", WHOLE)
    answer = cloud.runtime.invoke_endpoint(EndpointName="whole", Body=b"4", ContentType="text/csv", Accept="text/csv")
    assert (answer["Body"].read(), answer["ContentType"]) == (b"8.0", "text/csv")


def test_what_is_not_given_is_done_as_the_toolkit_does_it(cloud):
    serve(cloud, "defaults", DEFAULTS)
    assert json.loads(cloud.ask("defaults", b"[[1, 2], [3, 4]]", ContentType="application/json")) == [3, 7]
    assert cloud.ask("defaults", b"1,2\n3,4", ContentType="text/csv", Accept="text/csv") == "3.0\n7.0\n"
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 3)))
    answer = cloud.runtime.invoke_endpoint(
        EndpointName="defaults", Body=buffer.getvalue(), ContentType="application/x-npy", Accept="application/x-npy"
    )
    assert np.load(io.BytesIO(answer["Body"].read())).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("image", "status"), [pytest.param(PYTORCH, 422, id="inference"), pytest.param(SKLEARN, 500, id="containers")]
)
def test_only_one_of_the_hosts_lets_code_choose_the_status(cloud, image, status):
    name = f"refuses-{status}"
    serve(cloud, name, REFUSES, image=image)
    with pytest.raises(cloud.runtime.exceptions.ModelError) as caught:
        cloud.ask(name)
    assert caught.value.response["OriginalStatusCode"] == status


def test_a_type_that_nobody_reads_is_an_error(cloud):
    if "defaults" not in cloud.endpoints():
        serve(cloud, "defaults", DEFAULTS)
    with pytest.raises(ClientError, match="Content type application/x-odd is not supported"):
        cloud.ask("defaults", b"1", ContentType="application/x-odd")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        pytest.param(BROKEN, "no such weights", id="model"),
        pytest.param(OUTSIDE, "ModuleNotFoundError", id="library"),
        pytest.param(WHOLE + "def input_fn(a, b): pass\n", "Cannot use transform_fn", id="both"),
    ],
)
def test_code_that_does_not_load_fails_the_health_check_and_says_why(cloud, code, line, request):
    name = f"broken-{request.node.callspec.id}"
    found = serve(cloud, name, code)
    assert "did not pass the ping health check" in found["FailureReason"]
    assert line in cloud.lines(f"/aws/sagemaker/Endpoints/{name}")


def test_the_library_in_the_archive_is_the_one_that_is_found(cloud):
    code = OUTSIDE + "def transform_fn(model, data, kind, accept):\n    return modeldeploy.WHERE, accept\n"
    serve(cloud, "own", code, **{"code/modeldeploy/__init__.py": "WHERE = 'in the archive'\n"})
    assert cloud.ask("own") == "in the archive"


def test_the_scikit_learn_images_do_not_guess_the_program(cloud):
    found = serve(cloud, "guess", STEPS, image=SKLEARN, environment={"COLOUR": "blue"})
    assert found["EndpointStatus"] == "Failed"
    assert "SAGEMAKER_PROGRAM is not set" in cloud.lines("/aws/sagemaker/Endpoints/guess")
    assert serve(cloud, "guesses", STEPS, environment={"COLOUR": "blue"})["EndpointStatus"] == "InService"
