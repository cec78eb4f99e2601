"""Capabilities: closed until declared, and refused with a reason."""

from __future__ import annotations

import attrs
import pytest

from modeldeploy.errors import UnsupportedError
from modeldeploy.values.capability import Capabilities, Shadow
from modeldeploy.values.serving import Traffic

FLAGS = [
    field.name for field in attrs.fields(Capabilities) if field.name not in {"split", "meter_resolution", "why_not"}
]


@pytest.mark.parametrize("flag", FLAGS)
def test_everything_is_refused_until_declared(flag):
    with pytest.raises(UnsupportedError, match=f"backend 'b' has no {flag}: not declared") as caught:
        Capabilities().require(flag, backend="b")
    assert caught.value.capability == flag
    assert caught.value.context == {"backend": "b"}


@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_declared_is_not_refused(flag):
    Capabilities(**{flag: Shadow() if flag == "shadow" else True}).require(flag, backend="b")


def test_a_refusal_gives_the_backends_reason():
    with pytest.raises(UnsupportedError, match="copies come later"):
        Capabilities(why_not={"shadow": "copies come later"}).require("shadow", backend="b")


def test_only_one_revision_takes_traffic_until_a_split_is_declared():
    table = Traffic({"a": 50, "b": 50})
    with pytest.raises(UnsupportedError, match=r"cannot split traffic over \['a', 'b'\]: at most 1") as caught:
        Capabilities().check_traffic(table, backend="b")
    assert caught.value.capability == "split"
    Capabilities(split=2).check_traffic(table, backend="b")
    Capabilities().check_traffic(Traffic({"a": 100, "b": 0}), backend="b")


@pytest.mark.parametrize(
    ("shadow", "table", "reason"),
    [
        (None, Traffic({"a": 100}, {"b": 1}), "has no shadow"),
        (Shadow(), Traffic({"a": 100}, {"b": 1, "c": 1}), "at most 1 revision"),
        (Shadow(max_percent=50), Traffic({"a": 100}, {"b": 51}), "at most 50 %"),
        (Shadow(alone=True), Traffic({"a": 50, "b": 50}, {"c": 10}), "exclude a split"),
    ],
)
def test_copies_beyond_what_is_declared_are_refused(shadow, table, reason):
    with pytest.raises(UnsupportedError, match=reason) as caught:
        Capabilities(split=2, shadow=shadow).check_traffic(table, backend="b")
    assert caught.value.capability == "shadow"


def test_copies_within_what_is_declared_pass():
    Capabilities(split=2, shadow=Shadow(max_percent=50)).check_traffic(
        Traffic({"a": 50, "b": 50}, {"c": 50}), backend="b"
    )
    Capabilities().check_traffic(Traffic({"a": 100}, {"b": 0}), backend="b")


def test_a_key_is_refused_where_the_router_keeps_none():
    keyed = Traffic({"a": 50, "b": 50}, key="header:user")
    with pytest.raises(UnsupportedError, match="pin the revision") as caught:
        Capabilities(split=2, why_not={"sticky": "pin the revision"}).check_traffic(keyed, backend="b")
    assert caught.value.capability == "sticky"
    Capabilities(split=2, sticky=True).check_traffic(keyed, backend="b")


def test_metrics_are_of_any_moment_and_without_shares_until_declared():
    assert Capabilities().meter_resolution == 0.0
    assert not Capabilities().meters_by_share
