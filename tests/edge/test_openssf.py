"""The exporter of OpenSSF signatures: what it refuses, and, where the tool is installed, what that tool says of it."""

from __future__ import annotations

import shutil
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modeldeploy.edge.openssf import export, verify
from modeldeploy.errors import ConfigurationError, IntegrityError, MissingDependencyError


@pytest.fixture
def pair(tmp_path):
    """Make a pair of P-256 keys as PEM files."""
    key, pem = ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM
    private, public = tmp_path / "ec.pem", tmp_path / "ec.pub.pem"
    private.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_the_fleets_own_key_is_refused_before_the_tool_stumbles_over_it(bundles, key, tmp_path):
    key.save(tmp_path / "fleet.pem")
    key.public.save(tmp_path / "fleet.pub.pem")
    with pytest.raises(ConfigurationError, match="another kind than elliptic-curve"):
        export(bundles["1.0.0"], tmp_path / "fleet.pem", tmp_path / "model.sig")
    with pytest.raises(ConfigurationError, match="another kind than elliptic-curve"):
        verify(bundles["1.0.0"].path, tmp_path / "model.sig", tmp_path / "fleet.pub.pem")


def test_a_signature_is_not_written_into_the_bundle(bundles, pair):
    bundle = bundles["1.0.0"]
    with pytest.raises(ConfigurationError, match="lies in the bundle"):
        export(bundle, pair[0], bundle.path / "model.sig")


def test_what_is_no_key_is_refused(bundles, tmp_path):
    (tmp_path / "key.pem").write_text("no key")
    for path in (tmp_path / "key.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(ConfigurationError, match="holds no private key"):
            export(bundles["1.0.0"], path, tmp_path / "model.sig")


def test_without_the_tool_the_command_that_installs_it_is_named(bundles, pair, tmp_path, monkeypatch):
    for name in ("model_signing", "model_signing.signing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'modeldeploy\[model-signing\]'"):
        export(bundles["1.0.0"], pair[0], tmp_path / "model.sig")


def test_the_tool_accepts_the_signature_and_refuses_a_changed_bundle(bundles, pair, tmp_path):
    pytest.importorskip("model_signing", reason="the extra model-signing is not installed")
    bundle, (private, public) = bundles["1.0.0"], pair
    signature = export(bundle, private, tmp_path / "model.sig")
    verify(bundle.path, signature, public)
    shutil.copytree(bundle.path, tmp_path / "changed")
    path = tmp_path / "changed" / "artifacts" / "model.onnx"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(IntegrityError, match="does not fit"):
        verify(tmp_path / "changed", signature, public)
