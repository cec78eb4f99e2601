"""Places that lead elsewhere: URLs, encodings, separators (MLflow CVE-2023-1177 and its successors, CVE-2026-2393, LMDeploy CVE-2026-33626)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modeldeploy import Endpoint, Model
from modeldeploy.errors import ConfigurationError, IntegrityError, ModelDeployError, NotFoundError
from modeldeploy.packaging.store import Store
from modeldeploy.serving.__main__ import _parser, find_bundle

URLS = [
    "http://169.254.169.254/latest/meta-data/iam", "http://metadata.google.internal/computeMetadata/v1/", "http://[fd00:ec2::254]/latest",
    "http://127.0.0.1:8080/model.onnx", "http://localhost/model.onnx", "http://2130706433/model.onnx", "http://0x7f.1/model.onnx",
    "https://evil.example/model.onnx", "https://user:password@evil.example/x", "HTTP://evil.example/x", "ftp://evil.example/x", "gopher://evil.example/x",
    "dict://evil.example/x", "s3://bucket/key", "gs://bucket/key", "azureml://x", "file:///etc/passwd", "file://localhost/etc/passwd", "file://evil.example/share/x",
    "FILE:///etc/passwd", "jar:file:///x", "data://text/plain;base64,eA==", "smb://evil.example/x", "ssh://evil.example/x", "mlflow-artifacts://x",
]  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_nothing_is_fetched_whatever_the_scheme(url, modeldeploy_home):
    """The network guard of these tests fails them for so much as asking for an address."""
    for take in (
        lambda: Model.from_path(url, name="iris", version="1.0.0", example=[[1.0]]),
        lambda: Model.from_path(url),
        lambda: Endpoint.deploy(url, name="iris"),
    ):
        with pytest.raises(ConfigurationError, match=r"is a URL, and nothing is fetched here; download it yourself"):
            take()
    assert list(modeldeploy_home.iterdir()) == []


PATHS = [
    "file:/etc/passwd", "file:..\\..\\etc\\passwd", "..\\..\\etc\\passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "%252e%252e%252fetc%252fpasswd",
    "..%5c..%5cetc", "..%c0%af..%c0%afetc", "....//....//etc/passwd", "C:\\Windows\\system.ini", "C:/Windows/system.ini", "\\\\evil.example\\share\\model.onnx", "//evil.example/share/model.onnx",
    "\\\\?\\C:\\x", "models\\..\\..\\x", "model.onnx\x00.txt", "model.onnx%00", "/proc/self/environ\x00", "con", "nul.onnx", "~nobody-of-that-name/x", " ", "\u2024\u2024/etc",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=ascii)
def test_a_path_is_what_it_says_and_nothing_is_decoded(path, tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("secret")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    with pytest.raises(ModelDeployError) as caught:
        Model.from_path(path, name="iris", version="1.0.0", example=[[1.0]])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["models:/../../etc/passwd", "models:/iris/../../../etc", "models:/iris@../../x", "models:/iris/..%2f..%2fx", "models:/%2e%2e/x", "models:/iris\\..\\x/1", "models:/iris/1.0.0\x00", "models:/iris/aliases", "models:///etc/passwd", "models:/iris/.lock", "models:/iris/*"]
)  # fmt: skip
def test_a_name_in_the_store_is_no_path(uri, line, modeldeploy_home):
    store = Store(modeldeploy_home / "store")
    store.add(_copy(line.path, modeldeploy_home / "copy"))
    (modeldeploy_home / "store" / "models" / "iris").mkdir()
    (modeldeploy_home / "secret.json").write_text('{"digest": "sha256:x"}')
    with pytest.raises((ConfigurationError, NotFoundError)):
        Endpoint.deploy(uri, name="iris")


def _copy(source: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(source, to)
    return to


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/model",
        "http://169.254.169.254/model",
        "https://evil.example/model",
        "file://evil.example/share",
        "file:////evil.example/share",
    ],
)
def test_the_container_s_place_is_a_directory_here_or_in_cloud_storage_or_nothing(uri, tmp_path):
    with pytest.raises(ConfigurationError):
        find_bundle(_parser().parse_args([]), {"AIP_STORAGE_URI": uri}, tmp_path)


@pytest.mark.parametrize("name", ["link", "fifo", "device"])
def test_what_is_no_plain_file_is_not_read(name, tmp_path):
    path = tmp_path / "model.onnx"
    if name == "link":
        path.symlink_to("/dev/zero")
    elif name == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises((ConfigurationError, IntegrityError)):
        Model.from_path(path, name="iris", version="1.0.0", example=[[1.0]])
