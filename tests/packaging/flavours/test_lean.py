"""numpy for models without code; scikit-learn's part is tested with scikit-learn's models."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAN = "from modeldeploy.packaging.flavours import lean; lean.numpy()\nimport numpy\n"


def said(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_what_numpy_has_compiled_is_not_described():
    """It is a seventh of the time that the import takes."""
    code = (
        LEAN
        + "print(numpy.array.__doc__, numpy.array([1.5, 2.0]).sum(), numpy.float32(0.5), numpy.ones(2) @ numpy.ones(2))"
    )
    assert said(code).split() == ["None", "3.5", "0.5", "2.0"]


def test_numpy_that_is_loaded_already_stays_as_it_is():
    assert said("import numpy\n" + LEAN + "print(bool(numpy.array.__doc__))").split() == ["True"]


@pytest.mark.parametrize("module", ["numpy.ma", "numpy.typing", "pandas", "scipy.stats", "sklearn.linear_model"])
def test_what_rests_on_numpy_can_be_imported_afterwards(module):
    assert said(LEAN + f"import {module}; print('there')").split() == ["there"]
