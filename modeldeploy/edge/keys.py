"""The keys of a fleet: the private one signs releases and desired states, devices hold the public one and believe nothing else.

Ed25519 (RFC 8032): small, deterministic, and without parameters that could be chosen badly.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError, ModelDeployError
from modeldeploy.packaging.dependencies import need
from modeldeploy.values.codec import from_json, to_json

_RAW = 32
_ID = 16
_SERIALIZATION = "cryptography.hazmat.primitives.serialization"
_ED25519 = "cryptography.hazmat.primitives.asymmetric.ed25519"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@attrs.frozen
class Signature:
    """What a key made of some bytes; ``key`` is the id of the key and ``value`` hexadecimal."""

    key: str
    value: str


@attrs.frozen
class VerifyKey:
    """The public half, which may be known to everybody."""

    raw: bytes = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if len(self.raw) != _RAW:
            message = f"a public key has {_RAW} bytes, not {len(self.raw)}"
            raise ConfigurationError(message, hint="pass the 64 hexadecimal digits, or the PEM file, of an Ed25519 key")

    @classmethod
    def load(cls, path: Path) -> VerifyKey:
        """Read a PEM file; ConfigurationError when it holds no public Ed25519 key."""
        path = Path(path)
        key = _read_pem(path, need(_SERIALIZATION).load_pem_public_key)
        if not isinstance(key, need(_ED25519).Ed25519PublicKey):
            _refuse_kind(path, "public")
        return cls(key.public_bytes_raw())

    @classmethod
    def from_hex(cls, text: str) -> VerifyKey:
        """Make one of 64 hexadecimal digits."""
        try:
            return cls(bytes.fromhex(text))
        except ValueError as error:
            message = f"{text[:80]!r} is not a public key"
            raise ConfigurationError(message, hint="pass the 64 hexadecimal digits of an Ed25519 key") from error

    @property
    def id(self) -> str:
        """Name the key: the first 16 hexadecimal digits of the SHA-256 of its bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:_ID]

    @property
    def hex(self) -> str:
        """Write it in hexadecimal digits."""
        return self.raw.hex()

    def save(self, path: Path) -> None:
        """Write it as a PEM file, for devices to hold."""
        encoding = need(_SERIALIZATION)
        pem = self._public().public_bytes(encoding.Encoding.PEM, encoding.PublicFormat.SubjectPublicKeyInfo)
        _create(Path(path), pem, 0o644)

    def verify(self, data: bytes, signature: Signature) -> None:
        """Raise IntegrityError unless this key's other half signed exactly these bytes."""
        invalid = need("cryptography.exceptions").InvalidSignature
        try:
            self._public().verify(bytes.fromhex(signature.value), data)
        except (invalid, ValueError) as error:
            message = f"the signature of key {self.id} does not fit what it stands under"
            raise IntegrityError(
                message, hint="it was changed after it was signed, or signed for another purpose"
            ) from error

    def _public(self) -> Any:
        return need(_ED25519).Ed25519PublicKey.from_public_bytes(self.raw)


@attrs.frozen
class SigningKey:
    """The private half: whoever has it decides what the fleet runs."""

    raw: bytes = attrs.field(repr=False)

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the system's randomness."""
        return cls(need(_ED25519).Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a PEM file that only its owner may read; ConfigurationError otherwise."""
        path = Path(path)
        if os.name == "posix" and path.is_file() and path.stat().st_mode & _OTHERS:
            message = f"the private key {str(path)!r} can be read by others"
            raise ConfigurationError(
                message, hint=f"run: chmod 600 {str(path)!r}; if others did read it, make a new one"
            )
        key = _read_pem(path, lambda data: need(_SERIALIZATION).load_pem_private_key(data, None))
        if not isinstance(key, need(_ED25519).Ed25519PrivateKey):
            _refuse_kind(path, "private")
        return cls(key.private_bytes_raw())

    def save(self, path: Path) -> None:
        """Write it as a PEM file that only its owner may read; ConflictError when the file exists."""
        encoding = need(_SERIALIZATION)
        pem = self._private().private_bytes(
            encoding.Encoding.PEM, encoding.PrivateFormat.PKCS8, encoding.NoEncryption()
        )
        _create(Path(path), pem, 0o600)

    @property
    def public(self) -> VerifyKey:
        """Give the half that devices hold."""
        return VerifyKey(self._private().public_key().public_bytes_raw())

    def sign(self, data: bytes) -> Signature:
        """Sign these bytes; the same bytes give the same signature."""
        return Signature(self.public.id, self._private().sign(data).hex())

    def _private(self) -> Any:
        return need(_ED25519).Ed25519PrivateKey.from_private_bytes(self.raw)


def write_signatures(purpose: str, data: bytes, keys: Sequence[SigningKey]) -> bytes:
    """Sign ``data`` for one purpose with each key and write the signatures down; what is signed for one purpose is refused for another."""
    signatures = [to_json(key.sign(_for(purpose, data))) for key in keys]
    return orjson.dumps(signatures, option=orjson.OPT_SORT_KEYS) + b"\n"


def check_signatures(purpose: str, data: bytes, written: bytes, keys: Collection[VerifyKey]) -> VerifyKey:
    """Give the key of ours that signed ``data`` for this purpose; IntegrityError says why there is none."""
    known = {key.id: key for key in keys}
    try:
        found = from_json(tuple[Signature, ...], orjson.loads(written))
    except (orjson.JSONDecodeError, ConfigurationError) as error:
        message = f"the signature of the {purpose} cannot be read: {error}"
        raise IntegrityError(message, hint="it is damaged; publish it again") from error
    for signature in found:
        if signature.key in known:
            known[signature.key].verify(_for(purpose, data), signature)
            return known[signature.key]
    message = (
        f"the {purpose} is signed by {[each.key[:_ID] for each in found]}, and the keys known here are {sorted(known)}"
    )
    raise IntegrityError(message, hint="it belongs to another fleet, or its key was never given to this device")


def _for(purpose: str, data: bytes) -> bytes:
    return f"modeldeploy {purpose} 1\n".encode() + data


def _read_pem(path: Path, read: Any) -> Any:
    try:
        return read(path.read_bytes())
    except OSError as error:
        message = f"the key {str(path)!r} cannot be read: {error.strerror}"
        raise ConfigurationError(message, hint="make one with: python -m modeldeploy.edge.keys new KEY.pem") from error
    except (ValueError, TypeError) as error:
        message = f"{str(path)!r} holds no key that can be read here: {error}"
        raise ConfigurationError(message, hint="pass an unencrypted PEM file of an Ed25519 key") from error


def _refuse_kind(path: Path, half: str) -> None:
    message = f"{str(path)!r} holds a key of another kind"
    raise ConfigurationError(message, hint=f"pass the {half} half of an Ed25519 key")


def _create(path: Path, pem: bytes, mode: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        message = f"{str(path)!r} exists already"
        raise ConflictError(message, hint="a key is never written over; choose another name") from error
    with os.fdopen(fd, "wb") as stream:
        stream.write(pem)
        stream.flush()
        os.fsync(stream.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a pair of keys: ``python -m modeldeploy.edge.keys new fleet.pem`` writes ``fleet.pem`` and ``fleet.pub.pem``."""
    parser = argparse.ArgumentParser(prog="python -m modeldeploy.edge.keys", description=main.__doc__)
    parser.add_argument("command", choices=["new"])
    parser.add_argument("file", type=Path, help="for the private half")
    asked = parser.parse_args(arguments)
    public = asked.file.with_name(f"{asked.file.stem}.pub.pem")
    try:
        key = SigningKey.generate()
        key.save(asked.file)
        key.public.save(public)
    except ModelDeployError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"key {key.public.id}: keep {asked.file} where you publish, give {public} to the devices\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
