"""Keys and signatures: what is signed verifies, and nothing else does."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.edge.keys import Signature, SigningKey, VerifyKey, check_signatures, main, write_signatures
from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError


def test_a_key_survives_its_pem_files(key, tmp_path):
    key.save(tmp_path / "key.pem")
    key.public.save(tmp_path / "key.pub.pem")
    assert SigningKey.load(tmp_path / "key.pem") == key
    assert VerifyKey.load(tmp_path / "key.pub.pem") == key.public == VerifyKey.from_hex(key.public.hex)


def test_the_id_of_a_key_is_the_beginning_of_its_digest(key):
    assert key.public.hex == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert key.public.id == "56475aa75463474c"


def test_a_private_key_is_readable_by_its_owner_alone(key, tmp_path):
    key.save(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_private_key_that_others_can_read_is_refused(key, tmp_path):
    key.save(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        SigningKey.load(tmp_path / "key.pem")


def test_a_key_is_never_written_over(key, tmp_path):
    key.save(tmp_path / "key.pem")
    with pytest.raises(ConflictError, match="exists already"):
        SigningKey.generate().save(tmp_path / "key.pem")
    assert SigningKey.load(tmp_path / "key.pem") == key


def test_the_private_half_shows_nowhere(key):
    assert key.raw.hex() not in repr(key)
    assert repr(key.raw) not in repr(key)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_as_such(content, tmp_path):
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    file.chmod(0o600)
    for load in (SigningKey.load, VerifyKey.load):
        with pytest.raises(ConfigurationError, match="holds no key"):
            load(file)


def test_a_key_of_another_kind_is_refused(tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "ec.pem").write_bytes(private.private_bytes(pem, pkcs8, plain))
    (tmp_path / "ec.pem").chmod(0o600)
    with pytest.raises(ConfigurationError, match="another kind"):
        SigningKey.load(tmp_path / "ec.pem")


@given(data=st.binary(max_size=200), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_of_data_or_signature_is_refused(data, at, bit):
    key = SigningKey(bytes(32))
    written = write_signatures("release", data, [key])
    assert check_signatures("release", data, written, [key.public]) == key.public
    if data:
        changed = bytearray(data)
        changed[at % len(data)] ^= 1 << bit
        with pytest.raises(IntegrityError):
            check_signatures("release", bytes(changed), written, [key.public])
    signature = key.sign(data)
    raw = bytearray(bytes.fromhex(signature.value))
    raw[at % len(raw)] ^= 1 << bit
    with pytest.raises(IntegrityError, match="does not fit"):
        key.public.verify(data, Signature(signature.key, raw.hex()))


def test_what_was_signed_for_one_purpose_is_refused_for_another(key):
    written = write_signatures("release", b"data", [key])
    with pytest.raises(IntegrityError, match="does not fit"):
        check_signatures("desired state", b"data", written, [key.public])


def test_an_unknown_key_is_named(key):
    written = write_signatures("release", b"data", [key])
    other = SigningKey(bytes(32)).public
    with pytest.raises(IntegrityError, match=f"signed by .*{key.public.id}.*known here are .*{other.id}"):
        check_signatures("release", b"data", written, [other])


def test_while_a_key_is_replaced_either_is_believed(key):
    new = SigningKey(bytes(32))
    written = write_signatures("release", b"data", [key, new])
    for held in ([key.public], [new.public], [new.public, key.public]):
        assert check_signatures("release", b"data", written, held) in held


@pytest.mark.parametrize("written", [b"", b"{}", b'[{"key": 1, "value": "00"}]', b"[]", b'[{"key": "x"}]'])
def test_a_signature_that_cannot_be_read_is_refused(key, written):
    with pytest.raises(IntegrityError):
        check_signatures("release", b"data", written, [key.public])


def test_the_command_makes_a_pair_and_never_writes_one_over(tmp_path, capsys):
    file = tmp_path / "fleet.pem"
    assert main(["new", str(file)]) == 0
    key = SigningKey.load(file)
    assert VerifyKey.load(tmp_path / "fleet.pub.pem") == key.public
    assert key.public.id in capsys.readouterr().out
    assert main(["new", str(file)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet.pem", "fleet.pub.pem"]
