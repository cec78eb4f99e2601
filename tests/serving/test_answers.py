"""Heads of answers."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from modeldeploy.serving.answers import http_date


@pytest.mark.parametrize(
    "at", [0.0, 784_111_777.9, 951_827_696.0, 1_893_456_000.0, *(86_400.0 * 31 * n for n in range(12))]
)
def test_dates_are_those_of_the_standard_library(at):
    assert http_date(at) == formatdate(at, usegmt=True)
