"""A key that is given twice is refused, and nothing else is, however the body is written."""

from __future__ import annotations

import contextlib
import json

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.serving.duplicates import check_keys
from modeldeploy.serving.messages import RefusedError

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(st.sampled_from('ab:"\\\n{}é'), max_size=5)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def check(data: bytes) -> None:
    check_keys(orjson.loads(data), data)


@pytest.mark.row(13)
@pytest.mark.parametrize(
    ("data", "key"),
    [
        (b'{"a":1,"a":1}', "a"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'[[1,2],{"rows":[{"x":1,"y":2},{"x":1,"y":2,"x":3}]}]', "x"),
        (b'{"a":"x:y","a":":"}', "a"),
        (b'{"a":1,"a":2,"b":"\\u003a"}', "a"),
        (b'{"a":1,"a":2,"b":"\\u003A"}', "a"),
        (b'{"a" : {"" : 1, "":2}}', ""),
    ],
)
def test_a_key_given_twice_is_named(data, key):
    with pytest.raises(RefusedError, match="given twice") as caught:
        check(data)
    assert (caught.value.status, caught.value.field) == (400, key)


@patient
@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_a_body_without_any_is_taken(document, ascii_only, indent):
    check(json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode())


@patient
@given(documents, texts, st.booleans())
def test_a_body_with_one_anywhere_is_refused(document, key, ascii_only):
    name, value = json.dumps(key, ensure_ascii=ascii_only), json.dumps(document, ensure_ascii=ascii_only)
    with pytest.raises(RefusedError):
        check(f'[{value},{{{name}:{value},"other":0,{name}:{value}}}]'.encode())


@pytest.mark.parametrize("depth", [10, 300, 1000])
def test_a_body_that_is_nested_deeply_is_judged_or_refused(depth):
    with contextlib.suppress(RefusedError):
        check(b"[" * depth + b'{"a:":1}' + b"]" * depth)
    with pytest.raises(RefusedError):
        check(b"[" * depth + b'{"a":1,"a":2}' + b"]" * depth)
