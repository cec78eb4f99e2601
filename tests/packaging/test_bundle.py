import os
import stat
import tarfile

import orjson
import pytest

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import digest_of
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.manifest import FileEntry, Manifest


def files_of(bundle):
    return sorted(path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file())


def overwrite(path, data):
    path.chmod(0o600)
    path.write_bytes(data)


def test_files_are_read_only_and_directories_private(bundle):
    for path in [bundle.path, *bundle.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o400)


@pytest.mark.parametrize("name", ["manifest.json", "golden.json", "artifacts/model.skops"])
def test_a_changed_byte_in_any_file_is_found_and_named(bundle, name):
    path = bundle.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    overwrite(path, bytes(data))
    with pytest.raises(IntegrityError, match=name):
        load(bundle)


@pytest.mark.parametrize("name", ["golden.json", "artifacts/model.skops"])
def test_a_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}' of the bundle .* is missing"):
        bundle.verify()


def test_every_file_of_a_bundle_is_tampered_with_above(bundle):
    assert files_of(bundle) == ["artifacts/model.skops", "golden.json", "manifest.json"]


def test_a_truncated_and_a_grown_file_are_found(bundle):
    path = bundle.path / "golden.json"
    data = path.read_bytes()
    for changed in (data[:-1], data + b" "):
        overwrite(path, changed)
        with pytest.raises(IntegrityError, match=r"golden\.json"):
            bundle.read("golden.json")
        with pytest.raises(IntegrityError, match=r"golden\.json"):
            bundle.verify()


def test_a_file_that_does_not_belong_is_found(bundle):
    (bundle.path / "artifacts" / "sitecustomize.py").write_text("")
    with pytest.raises(IntegrityError, match=r"'artifacts/sitecustomize.py' does not belong"):
        bundle.verify()


def test_a_link_in_place_of_a_file_is_refused_though_the_content_is_right(bundle, tmp_path):
    path = bundle.path / "golden.json"
    (tmp_path / "copy").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "copy")
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        bundle.verify()


def test_a_linked_directory_is_refused(bundle, tmp_path):
    (bundle.path / "artifacts").rename(tmp_path / "moved")
    (bundle.path / "artifacts").symlink_to(tmp_path / "moved")
    with pytest.raises(IntegrityError, match="not a plain file or directory"):
        bundle.verify()


def test_a_fifo_in_place_of_a_file_does_not_hang(bundle):
    path = bundle.path / "golden.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(IntegrityError, match=r"golden\.json"):
        bundle.verify()


def test_a_manifest_rewritten_with_matching_digests_is_another_bundle(bundle):
    """Whoever changes the content changes the digest, and so loses its trust and its place in the store."""
    document = orjson.loads((bundle.path / "manifest.json").read_bytes())
    changed = b"{}"
    overwrite(bundle.path / "golden.json", changed)
    entry = FileEntry.of(changed)
    document["body"]["files"]["golden.json"] = {"sha256": entry.sha256, "size": entry.size}
    overwrite(bundle.path / "manifest.json", orjson.dumps(document))
    assert Bundle.open(bundle.path).digest != bundle.digest
    with pytest.raises(IntegrityError, match="expected"):
        Bundle.open(bundle.path, expect=bundle.digest)


def test_a_directory_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds no manifest\.json"):
        Bundle.open(tmp_path)


def test_a_manifest_of_another_schema_is_refused(bundle):
    document = orjson.loads((bundle.path / "manifest.json").read_bytes())
    overwrite(bundle.path / "manifest.json", orjson.dumps({**document, "schema": 99}))
    with pytest.raises(ConfigurationError, match="schema 99"):
        Bundle.open(bundle.path)


def test_an_archive_is_the_same_bytes_twice_and_unpacks_to_the_same_bundle(bundle, tmp_path):
    first = bundle.archive(tmp_path / "a.tar.gz")
    os.utime(bundle.path / "golden.json", (1, 1))
    second = bundle.archive(tmp_path / "other-name.tar.gz")
    assert first.read_bytes() == second.read_bytes()
    again = Bundle.unpack(first, tmp_path / "unpacked")
    assert again.digest == bundle.digest
    assert files_of(again) == files_of(bundle)
    with tarfile.open(first) as tar:
        assert {(info.uid, info.gid, info.mtime, info.uname) for info in tar} == {(0, 0, 0, "")}


def test_unpacking_over_something_is_refused(bundle, tmp_path):
    archive = bundle.archive(tmp_path / "a.tar.gz")
    (tmp_path / "there").mkdir()
    with pytest.raises(ConflictError, match="exists already"):
        Bundle.unpack(archive, tmp_path / "there")


def test_the_identity_of_a_bundle_names_its_place_and_content(bundle):
    identity = bundle.model_version()
    assert (identity.name, identity.version, identity.digest) == ("iris", "1.0.0", bundle.digest)
    assert identity.uri == str(bundle.path)
    assert identity.signature == bundle.manifest.signature


def test_a_recorded_bundle_is_checked_at_once_and_read_when_it_is_asked_for(bundle, monkeypatch):
    read = []
    monkeypatch.setattr(Manifest, "from_bytes", lambda data: read.append(data) or bundle.manifest)
    again = Bundle.recorded(bundle.path, bundle.digest)
    assert (again, again.flavour, read) == (bundle, bundle.flavour, [])
    assert again.manifest is bundle.manifest
    with pytest.raises(IntegrityError, match="expected sha256:0"):
        Bundle.recorded(bundle.path, f"sha256:{'0' * 64}")


@pytest.mark.parametrize(
    "written",
    [b"{", b"[]", b"{}", b'{"schema": 2, "body": {"flavour": "onnx"}}', b'{"schema": 1, "body": {"flavour": 1}}'],
)
def test_a_manifest_that_is_none_is_refused_when_it_is_found_also_where_it_was_recorded(bundle, written):
    overwrite(bundle.path / "manifest.json", written)
    with pytest.raises((ConfigurationError, IntegrityError)):
        Bundle.recorded(bundle.path, digest_of(written))


def test_bundles_are_the_same_by_place_and_content(bundle, tmp_path):
    again = Bundle.open(bundle.path)
    assert again == bundle
    assert {again, bundle} == {bundle}
    assert again != Bundle(tmp_path, bundle.digest, b"")
    assert bundle.digest in repr(bundle)
