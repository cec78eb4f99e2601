import numpy as np
import pytest
import torch

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.package import package


class Tied(torch.nn.Module):
    """Shared weights, a buffer, a flag in Python, dropout: what a state dict or a trace would lose or change."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4)
        self.second = self.first
        self.drop = torch.nn.Dropout(0.9)
        self.register_buffer("shift", torch.arange(4.0), persistent=False)
        self.flip = True

    def forward(self, rows):
        out = self.drop(self.second(torch.relu(self.first(rows)))) + self.shift
        return -out if self.flip else out


class Named(torch.nn.Module):
    """Takes columns by name and gives several outputs."""

    def forward(self, left, right):
        return {"total": left + right, "product": left * right}


def test_a_module_answers_after_loading_as_before_in_evaluation_mode(iris, round_trip):
    data = iris[0].to_numpy(np.float32)
    model = Tied().train()
    made, answers = round_trip(model, data[:5], data)
    assert model.training, "packaging leaves the module as it was"
    model.eval()
    with torch.no_grad():
        np.testing.assert_allclose(answers["prediction"], model(torch.tensor(data)).numpy(), rtol=1e-6)
    assert set(made.manifest.files) == {"golden.json", "artifacts/model.pkl", "artifacts/tensors.safetensors"}
    stored_once = 4 * 4 * 4 * 2
    assert made.manifest.files["artifacts/tensors.safetensors"].size < 300 + stored_once


def test_a_frame_and_numpys_doubles_become_the_type_of_the_module(iris, round_trip):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1))
    _made, answers = round_trip(model, iris[0].head(), iris[0])
    assert answers["prediction"].shape == (150, 3)
    assert answers["prediction"].dtype == np.float32


def test_columns_are_keywords_and_a_dict_is_several_outputs(round_trip):
    columns = {"left": [1.0, 2.0], "right": [3.0, 4.0]}
    _made, answers = round_trip(Named(), columns, columns)
    assert {name: array.tolist() for name, array in answers.items()} == {"total": [4.0, 6.0], "product": [3.0, 8.0]}


def test_images_keep_their_shape(round_trip):
    images = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
    model(torch.from_numpy(images))
    made, answers = round_trip(model, images, images)
    assert made.manifest.signature.inputs[0].shape == (1, 8, 8)
    assert answers["prediction"].shape == (3, 2)


def test_a_tensor_is_an_example_and_a_module_is_loaded_only_with_trust(iris, store):
    data = torch.tensor(iris[0].to_numpy(np.float32))
    made = package(torch.nn.Linear(4, 1), name="net", version="1.0.0", example=data[:5], store=store)
    assert made.manifest.signature.inputs[0].dtype.value == "float32"
    with pytest.raises(IntegrityError, match="nobody here vouched"):
        load(made)


def test_a_state_dict_is_refused_with_what_to_pass(store):
    model = torch.nn.Linear(2, 1)
    with pytest.raises(ConfigurationError, match="is not a model"):
        package(model.state_dict(), name="net", version="1.0.0", example=np.ones((2, 2)), store=store)
    with pytest.raises(ConfigurationError, match=r"not its state_dict or a tensor"):
        package(torch.ones(3), name="net", version="1.0.0", example=np.ones((2, 2)), store=store)


def test_text_for_a_module_is_refused(store):
    with pytest.raises(ConfigurationError, match="holds text"):
        package(torch.nn.Linear(2, 1), name="net", version="1.0.0", example=["a", "b"], store=store)
