"""Target conditions and queries, as the service reads them."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.simulate.iothub.errors import ServiceError
from modeldeploy.simulate.iothub.query import condition, select

TWIN = {
    "deviceId": "d-1",
    "moduleId": "$edgeAgent",
    "capabilities": {"iotEdge": True},
    "tags": {"fleet": "plant", "modeldeploy": {"plant": 37}, "with-hyphen": "x", "nothing": None},
    "properties": {"reported": {"modules": {"my-module": {"version": "v1"}}}},
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("*", True),
        ("tags.fleet = 'plant'", True),
        ('tags.fleet = "plant"', True),
        ("tags.fleet != 'plant'", False),
        ("tags.fleet <> 'dock'", True),
        ("tags.modeldeploy.plant < 38 AND tags.modeldeploy.plant >= 37", True),
        ("(tags.fleet = 'plant') AND tags.modeldeploy.plant < 37", False),
        ("tags.fleet = 'dock' OR capabilities.iotEdge = true", True),
        ("NOT tags.fleet = 'dock'", True),
        ("not (tags.fleet = 'plant' or tags.fleet = 'dock')", False),
        ("deviceId IN ['d-1', 'd-2']", True),
        ("moduleId = '$edgeAgent' AND deviceId IN ['d-2']", False),
        ("is_defined(tags.modeldeploy.plant)", True),
        ("is_defined(tags.modeldeploy.dock)", False),
        ("tags.missing = 1", False),
        ("tags.missing != 1", False),
        ("tags.fleet < 5", False),
        ("tags.nothing = null", True),
        ("tags.[[with-hyphen]] = 'x'", True),
        ("properties.reported.modules.[[my-module]].version = 'v1'", True),
    ],
)
def test_a_condition_holds_or_does_not(text, holds):
    assert condition(text)(TWIN) is holds


@pytest.mark.parametrize(
    "text", ["tags.fleet", "tags.fleet = ", "= 3", "tags.a = 1 tags.b = 2", "(tags.a = 1", "tags.a LIKE 'x'", "tags.with-hyphen = 1", "a = b"]
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(ServiceError, match="not valid"):
        condition(text)


@given(st.integers(0, 99), st.integers(0, 100), st.sampled_from(["<", "<=", ">", ">=", "=", "!="]))
def test_numbers_compare_as_numbers(place, bound, sign):
    known = {
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
        "=": operator.eq,
        "!=": operator.ne,
    }
    assert condition(f"tags.place {sign} {bound}")({"tags": {"place": place}}) is known[sign](place, bound)


def test_a_query_names_its_source():
    assert select("SELECT * FROM devices").source == "devices"
    assert select("select * from devices.modules where moduleId = '$edgeAgent'").holds(TWIN)
    with pytest.raises(ServiceError):
        select("SELECT deviceId FROM devices")
