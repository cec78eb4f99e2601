"""Names that every provider accepts, versions, and ids that follow from content."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.values.names import check_name, check_version, operation_id, revision_id, short_hash, suggest_name

GRAMMAR = re.compile(r"[a-z][a-z0-9-]{1,30}[a-z0-9]")


@given(st.from_regex(GRAMMAR, fullmatch=True))
def test_a_name_of_the_grammar_is_accepted(name):
    assert check_name(name, "endpoint name") == name


@pytest.mark.parametrize(
    "name", ["", "ab", "Iris", "1iris", "iris-", "-iris", "a" * 33, "i_s", "iris\n", "ïris", 7, None]
)
def test_any_other_name_is_refused_with_a_valid_suggestion(name):
    with pytest.raises(ConfigurationError) as caught:
        check_name(name, "endpoint name")
    assert repr(name) in str(caught.value)
    suggestion = re.search(r"for example '(.*)'", caught.value.hint)[1]
    assert check_name(suggestion, "name") == suggestion


@given(st.text())
def test_every_text_has_a_valid_name_near_it(text):
    assert GRAMMAR.fullmatch(suggest_name(text))


@pytest.mark.parametrize("version", ["1.0.0", "0.0.1", "10.20.30", "1.0.0-rc.1", "1.0.0-alpha+001", "1.0.0+build.5"])
def test_a_semantic_version_is_accepted(version):
    assert check_version(version) == version


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0 ", "", 1.0, None])
def test_any_other_version_is_refused(version):
    with pytest.raises(ConfigurationError, match="not a semantic version"):
        check_version(version)


@given(st.from_regex(r"[1-9]{1,12}\.[0-9]\.[0-9](-[a-z0-9-]{0,39}[a-z])?", fullmatch=True), st.text())
def test_a_revision_id_is_a_valid_name_that_follows_from_its_content(version, content):
    name = revision_id(version, content)
    assert GRAMMAR.fullmatch(name)
    assert name == revision_id(version, content)


def test_a_hash_depends_on_the_borders_of_its_parts():
    assert short_hash("ab", "c") != short_hash("a", "bc")


def test_an_operation_id_says_its_kind_and_is_new_each_time():
    one, two = operation_id("rollout"), operation_id("rollout")
    assert re.fullmatch(r"rollout-[0-9a-f]{12}", one)
    assert one != two
