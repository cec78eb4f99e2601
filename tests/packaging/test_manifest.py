import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.digest import digest_of
from modeldeploy.packaging.manifest import Column, FileEntry, Manifest, check_path
from modeldeploy.values.model import DType, Field, Signature

_TEXT = st.text(max_size=12)
_FIELD = st.builds(
    Field,
    name=st.text(min_size=1, max_size=8),
    dtype=st.sampled_from(DType),
    shape=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=3).map(tuple),
    nullable=st.booleans(),
)
_FIELDS = st.lists(_FIELD, max_size=4, unique_by=lambda field: field.name).map(tuple)
_LABEL = st.one_of(st.text(max_size=5), st.integers(-(2**53), 2**53))
_COLUMN = st.builds(
    Column,
    name=_TEXT,
    label=_LABEL,
    dtype=_TEXT,
    categories=st.one_of(st.none(), st.lists(_LABEL, max_size=3).map(tuple)),
    ordered=st.booleans(),
)
_FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}(/[a-z0-9_]{1,8}\.[a-z]{2})?", fullmatch=True),
    st.binary(max_size=9).map(FileEntry.of),
    max_size=3,
)
_REQUIREMENT = st.sampled_from(
    [
        "numpy==2.1.0",
        "numpy>=2,<3",
        "a-b[c,d]==1.0.0+cpu ; python_version < '4'",
        "x",
        "p @ https://example.org/p-1.whl",
    ]
)
MANIFESTS = st.builds(
    Manifest,
    name=st.just("iris"),
    version=st.sampled_from(["1.0.0", "2.1.0-rc.1", "0.0.1+build.5"]),
    flavour=_TEXT,
    method=_TEXT,
    options=st.dictionaries(_TEXT, _TEXT, max_size=3),
    signature=st.builds(Signature, inputs=_FIELDS, outputs=_FIELDS),
    container=_TEXT,
    columns=st.lists(_COLUMN, max_size=3).map(tuple),
    requirements=st.lists(_REQUIREMENT, max_size=3).map(tuple),
    python=st.just("3.11.4"),
    pickled=st.booleans(),
    files=_FILES,
)


@given(MANIFESTS)
def test_a_manifest_is_read_as_it_was_written(manifest):
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert digest_of(again.to_bytes()) == digest_of(manifest.to_bytes())


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_refused(data):
    with pytest.raises((IntegrityError, ConfigurationError)):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "a/",
        "./a",
        ".hidden",
        "a\\b",
        "C:/x",
        "C:x",
        "a\x00b",
        "a\nb",
        "a b",
        "~/x",
        "a" * 300,
        "%2e%2e/x",
        "\uff41/../x",
        "file:///etc/passwd",
        "\\\\host\\share",
        "a/..",
        "..",
    ],
)
def test_a_path_that_could_leave_a_bundle_is_refused(path):
    with pytest.raises(IntegrityError, match="not a path inside a bundle"):
        check_path(path)


@pytest.mark.parametrize("path", ["manifest.json", "artifacts/model.ubj", "artifacts/a/b-c_d+e=f@2.x"])
def test_plain_names_are_paths_of_a_bundle(path):
    assert check_path(path) == path
