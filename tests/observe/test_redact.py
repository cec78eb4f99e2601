from __future__ import annotations

import enum
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.observe.redact import REDACTED, redacted

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "key",
    [
        "password", "db_passwd", "secret", "client-secret", "token", "accessToken", "API_KEY", "apiKey", "aws.access_key",
        "authorization", "Cookie", "x-amz-signature", "private_key", "connectionString", "auth", "sas", "credentials",
    ],
)  # fmt: skip
def test_a_field_named_like_a_secret_is_redacted(key):
    assert redacted({key: "hunter2"}) == {key: REDACTED}


@pytest.mark.parametrize(
    "key", ["endpoint", "key", "author", "percent", "passes", "assign", "revision", "fraction", "target"]
)
def test_a_field_named_like_an_identifier_stays(key):
    assert redacted({key: "iris"}) == {key: "iris"}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("denied for AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("Authorization: Bearer abcdef123456789", "abcdef123456789"),
        (f"sent {JWT} to it", JWT),
        ("https://me:hunter2@host/path", "hunter2"),
        ("https://host/blob?sv=1&sig=abc%2Fdef&se=2", "abc%2Fdef"),
        ("https://bucket/x?X-Amz-Credential=ab/cd&X-Amz-Signature=0123", "0123"),
        ("AccountName=me;AccountKey=aGVsbG8=;End", "aGVsbG8="),
        ("login with password: hunter2 failed", "hunter2"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("asked with md_0123456789ab_abcdefghijklmnopqrstuvwxyz-0123456789_ABCDE", "abcdefghijklmnop"),
        ("asked with md_owner_65f0a1b2_0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("git clone with ghp_abcdefghijklmnopqrst", "ghp_abcdefghijklmnopqrst"),
    ],
)
def test_a_text_that_holds_a_secret_loses_only_the_secret(text, secret):
    clean = redacted({"error": text})["error"]
    assert secret not in clean
    assert REDACTED in clean
    assert clean.split()[0][:4] == text.split()[0][:4] or clean.startswith(REDACTED)


def test_secrets_are_found_in_nested_tables_and_lists():
    fields = {"settings": {"region": "eu", "token": "t"}, "tried": ["https://a:pw@b/", ("x", {"pwd": "p"})]}
    assert redacted(fields) == {
        "settings": {"region": "eu", "token": REDACTED},
        "tried": [f"https://a:{REDACTED}@b/", ["x", {"pwd": REDACTED}]],
    }


def test_figures_flags_and_enums_come_out_plain():
    fields = {"n": 3, "x": 0.5, "ok": True, "none": None, "colour": Colour.RED, "path": Path("a/b"), "token": None}
    assert redacted(fields) == {
        "n": 3, "x": 0.5, "ok": True, "none": None, "colour": "red", "path": "a/b", "token": None,
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=12), JSON, max_size=4))
def test_anything_becomes_json_and_a_second_pass_changes_nothing(fields):
    once = redacted(fields)
    json.dumps(once)
    assert redacted(once) == once


@given(st.sampled_from(["password", "api_key", "Token"]), JSON.filter(lambda value: value not in (None, True, False)))
def test_whatever_a_secret_field_holds_is_gone(key, value):
    assert redacted({"settings": {key: value}}) == {"settings": {key: REDACTED}}
