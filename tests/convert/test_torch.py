"""PyTorch modules are exported for any number of rows, and keep what they take and answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from modeldeploy.errors import ConversionError

pytestmark = pytest.mark.filterwarnings("ignore:.*is slower")


class Two(torch.nn.Module):
    """Two columns in, two answers out."""

    def __init__(self):
        super().__init__()
        self.dense = torch.nn.Linear(2, 3)

    def forward(self, left, right):
        return {"sum": self.dense(torch.stack([left, right], 1)), "difference": left - right}


class Branching(torch.nn.Module):
    """Goes another way for other rows, which no graph can."""

    def forward(self, rows):
        return rows * 2 if float(rows.sum()) > 0 else rows[:, :1]


@pytest.fixture(autouse=True)
def _same_weights():
    torch.manual_seed(0)


def same(converted, original, rows):
    ours, theirs = converted.predict(rows), original.predict(rows)
    pairs = [(ours[name], theirs[name]) for name in theirs] if isinstance(theirs, dict) else [(ours, theirs)]
    for got, expected in pairs:
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_frame_goes_into_a_module_and_one_row_is_as_good_as_many(model):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 4)), columns=list("abcd"))
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    original = model(net.train(), table.head(8))
    converted = original.to_onnx(sample=table)
    same(converted, original, table)
    same(converted, original, table.head(1))
    assert net.training
    assert (converted.signature, converted.pickled) == (original.signature, False)


def test_columns_by_name_and_several_answers_keep_their_names(model):
    rng = np.random.default_rng(0)
    columns = {"left": rng.normal(size=30), "right": rng.normal(size=30)}
    original = model(Two(), columns)
    converted = original.to_onnx(sample=columns)
    same(converted, original, columns)
    assert [field.name for field in converted.signature.outputs] == ["sum", "difference"]


def test_images_keep_their_shape(model):
    rows = np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype(np.float32)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(108, 2))
    original = model(net, rows[:4])
    converted = original.to_onnx(sample=rows, labels=np.arange(12) % 2)
    same(converted, original, rows)
    assert converted.parity.metric == "accuracy"
    assert converted.parity.before.score == converted.parity.after.score


def test_a_module_that_looks_at_its_numbers_is_refused_by_name(model, capsys):
    rows = np.ones((8, 4), np.float32)
    with pytest.raises(ConversionError, match="torch cannot export Branching"):
        model(Branching(), rows).to_onnx(sample=rows)
    assert capsys.readouterr().out == ""
