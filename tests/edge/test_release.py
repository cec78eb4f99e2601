"""Releases: built the same each time, opened only when every byte is what was signed."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.release import BUNDLE, build, check_release, open_release
from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.archive import write_archive
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store

FLEET = "cameras"


@pytest.fixture
def archive(bundles, key, tmp_path) -> Path:
    return build(
        bundles["1.0.0"], fleet=FLEET, revision="v1-0-0-aa", sequence=4, key=key, to=tmp_path / "release.tar.gz"
    )


@pytest.fixture
def opened(archive, key, tmp_path) -> Path:
    open_release(archive, [key.public], fleet=FLEET, into=tmp_path / "opened")
    return tmp_path / "opened"


def test_a_release_holds_the_bundle_and_what_is_needed_to_run_it(archive, bundles, key, tmp_path):
    release = open_release(archive, [key.public], fleet=FLEET, into=tmp_path / "opened")
    assert (release.fleet, release.revision, release.sequence) == (FLEET, "v1-0-0-aa", 4)
    assert release.digest == bundles["1.0.0"].digest
    assert any(text.startswith("onnxruntime==") for text in release.requirements)
    Bundle.open(tmp_path / "opened" / BUNDLE, expect=release.digest).verify()


def test_building_again_gives_the_same_bytes(archive, bundles, key, tmp_path):
    again = build(
        bundles["1.0.0"], fleet=FLEET, revision="v1-0-0-aa", sequence=4, key=key, to=tmp_path / "again.tar.gz"
    )
    assert archive.read_bytes() == again.read_bytes()


def test_every_byte_of_an_unpacked_release_counts(opened, key):
    files = [path for path in sorted(opened.rglob("*")) if path.is_file()]
    assert len(files) == 5
    for path in files:
        data = path.read_bytes()
        for at in (0, len(data) // 2, len(data) - 2):
            changed = bytearray(data)
            changed[at] ^= 1
            path.chmod(0o600)
            path.write_bytes(bytes(changed))
            with pytest.raises(IntegrityError):
                check_release(opened, [key.public], fleet=FLEET)
        path.write_bytes(data)
    check_release(opened, [key.public], fleet=FLEET)


def test_a_refused_archive_leaves_nothing(archive, key, tmp_path):
    into = tmp_path / "into" / "slot"
    with pytest.raises(IntegrityError, match="the keys known here"):
        open_release(archive, [SigningKey(bytes(32)).public], fleet=FLEET, into=into)
    assert [path.name for path in (into.parent).iterdir()] == []


def test_a_release_for_another_fleet_is_refused(archive, key, tmp_path):
    with pytest.raises(IntegrityError, match="made for fleet 'cameras', this device belongs to 'drones'"):
        open_release(archive, [key.public], fleet="drones", into=tmp_path / "opened")


def test_a_file_that_is_missing_or_does_not_belong_is_named(opened, key):
    (opened / "extra.txt").write_text("x")
    with pytest.raises(IntegrityError, match=r"extra\.txt.*does not belong"):
        check_release(opened, [key.public], fleet=FLEET)
    (opened / "extra.txt").unlink()
    (opened / "bundle" / "golden.json").unlink()
    with pytest.raises(IntegrityError, match=r"golden\.json.*is missing"):
        check_release(opened, [key.public], fleet=FLEET)


def test_a_link_in_the_place_of_a_file_is_refused(opened, key, tmp_path):
    path = opened / "bundle" / "golden.json"
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(IntegrityError, match="does not have its recorded digest"):
        check_release(opened, [key.public], fleet=FLEET)


def test_an_archive_that_was_cut_off_is_refused(archive, key, tmp_path):
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        open_release(cut, [key.public], fleet=FLEET, into=tmp_path / "opened")


def test_an_archive_without_a_signature_is_refused(opened, key, tmp_path):
    names = [path.relative_to(opened).as_posix() for path in opened.rglob("*") if path.is_file()]
    bare = write_archive(opened, [name for name in names if name != "manifest.sig"], tmp_path / "bare.tar.gz")
    with pytest.raises(IntegrityError, match=r"manifest\.sig cannot be read"):
        open_release(bare, [key.public], fleet=FLEET, into=tmp_path / "again")


def test_pickled_code_is_not_released(key, tmp_path):
    bundle = package(lambda rows: rows, name="adds", version="1.0.0", example=[[1.0]], store=Store(tmp_path / "store"))
    with pytest.raises(ConfigurationError, match=r"pickled code.*to_onnx"):
        build(bundle, fleet=FLEET, revision="v1", sequence=1, key=key, to=tmp_path / "r.tar.gz")


def test_a_damaged_bundle_is_not_released(bundles, key, tmp_path):
    bundle = Bundle.unpack(bundles["1.0.0"].archive(tmp_path / "b.tar.gz"), tmp_path / "copy")
    artifact = bundle.path / "artifacts" / "model.onnx"
    artifact.chmod(0o600)
    artifact.write_bytes(b"x" * artifact.stat().st_size)
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        build(bundle, fleet=FLEET, revision="v1", sequence=1, key=key, to=tmp_path / "r.tar.gz")


def test_wheels_ride_along_by_architecture(bundles, key, tmp_path):
    from modeldeploy.edge.wheels import own_wheel

    (tmp_path / "wheels").mkdir()
    wheel = own_wheel(tmp_path / "wheels")
    archive = build(
        bundles["1.0.0"],
        fleet=FLEET,
        revision="v1",
        sequence=1,
        key=key,
        to=tmp_path / "r.tar.gz",
        wheels={"aarch64": wheel.parent},
    )
    release = open_release(archive, [key.public], fleet=FLEET, into=tmp_path / "opened")
    assert release.wheels == {"aarch64": (wheel.name,)}
    assert (tmp_path / "opened" / "wheels" / "aarch64" / wheel.name).read_bytes() == wheel.read_bytes()


def test_an_architecture_without_wheels_is_refused(bundles, key, tmp_path):
    with pytest.raises(ConfigurationError, match="no wheels for aarch64"):
        build(
            bundles["1.0.0"],
            fleet=FLEET,
            revision="v1",
            sequence=1,
            key=key,
            to=tmp_path / "r",
            wheels={"aarch64": tmp_path},
        )


def test_the_archive_names_no_user_and_no_time(archive):
    with tarfile.open(archive) as tar:
        assert {(each.uid, each.gid, each.uname, each.mtime) for each in tar} == {(0, 0, "", 0)}
