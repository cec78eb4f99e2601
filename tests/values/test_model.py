"""A packaged model's identity and signature."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.model import DType, Field, Signature


def test_a_field_is_found_by_name(model):
    assert model.signature.input("x").dtype is DType.FLOAT64
    assert model.signature.input("z") is None


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_name_that_occurs_twice_is_refused(side):
    fields = {"inputs": (), "outputs": (), side: (Field("x", DType.BOOL), Field("x", DType.INT8))}
    with pytest.raises(ConfigurationError, match=r"\['x'\] occur more than once"):
        Signature(**fields)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("name", "Iris"),
        ("version", "1"),
        ("digest", "ab" * 32),
        ("digest", "sha256:" + "AB" * 32),
        ("digest", "sha256:ab"),
    ],
)
def test_a_wrong_part_of_the_identity_is_refused_and_named(model, part, value):
    with pytest.raises(ConfigurationError, match=repr(value)):
        attrs.evolve(model, **{part: value})


def test_a_model_is_read_by_people(model):
    assert str(model) == "iris 1.0.0"
