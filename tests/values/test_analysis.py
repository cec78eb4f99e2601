"""Analyses: how sure gates must be."""

from __future__ import annotations

import pytest

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.analysis import Analysis, Method
from modeldeploy.values.codec import from_json, to_json


def test_the_default_is_the_sequential_one():
    analysis = Analysis()
    assert (analysis.method, analysis.alpha, analysis.beta) == (Method.SEQUENTIAL, 0.05, 0.05)
    assert (analysis.max_ratio, analysis.max_rate) == (2.0, 0.01)


@pytest.mark.parametrize("name", ["alpha", "beta", "max_rate"])
@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, float("nan"), "5%", None])
def test_what_is_no_probability_is_refused_and_named(name, value):
    with pytest.raises(ConfigurationError, match=f"{name} is"):
        Analysis(**{name: value})


@pytest.mark.parametrize("value", [1, 0.5, 31, float("nan"), float("inf"), "2x", None])
def test_a_ratio_that_cannot_be_bet_on_is_refused(value):
    with pytest.raises(ConfigurationError, match="max_ratio is"):
        Analysis(max_ratio=value)


@pytest.mark.parametrize("method", list(Method))
def test_a_method_is_named(method):
    assert Analysis.of(method.value).method is method


def test_one_that_is_given_is_taken_as_it_is():
    analysis = Analysis(alpha=0.01)
    assert Analysis.of(analysis) is analysis


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="analysis is 'magic'") as caught:
        Analysis.of("magic")
    assert "mannwhitney" in caught.value.hint


def test_an_analysis_survives_the_journal():
    analysis = Analysis(Method.THRESHOLD, alpha=0.01, max_ratio=3.0)
    assert from_json(Analysis, to_json(analysis)) == analysis
