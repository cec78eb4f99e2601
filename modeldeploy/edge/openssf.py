"""Signatures in the format of OpenSSF Model Signing, for tools beside this library that check it; needs ``model-signing`` and pyOpenSSL.

A detached file over every file of a bundle, by an elliptic-curve key (P-256, P-384 or P-521). Nothing is sent: the keyless method of that
project, which asks an identity provider and writes into a public log, is not offered here. Devices do not read these signatures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modeldeploy.errors import ConfigurationError, IntegrityError, MissingDependencyError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.dependencies import need

_CURVES = "SECP256R1, SECP384R1 or SECP521R1"


def export(bundle: Bundle, key: Path, to: Path) -> Path:
    """Write the signature of a bundle at ``to``, outside of its directory; safe to repeat.

    ``key`` is an unencrypted PEM file. ConfigurationError for a key of another kind, which the tool itself would stumble over.
    """
    to = Path(to).absolute()
    if to.is_relative_to(bundle.path):
        message = f"{str(to)!r} lies in the bundle that it signs"
        raise ConfigurationError(message, hint="write the signature beside it; a bundle never changes")
    _check_key(Path(key), private=True)
    bundle.verify()
    to.parent.mkdir(parents=True, exist_ok=True)
    _module("signing").Config().use_elliptic_key_signer(private_key=Path(key)).sign(bundle.path, to)
    return to


def verify(directory: Path, signature: Path, key: Path) -> None:
    """Raise IntegrityError unless ``key``, a public one, signed exactly the files of ``directory``."""
    _check_key(Path(key), private=False)
    try:
        _module("verifying").Config().use_elliptic_key_verifier(public_key=Path(key)).verify(directory, signature)
    except (ValueError, OSError) as error:
        message = f"the signature {str(signature)!r} does not fit {str(directory)!r}: {str(error)[:300]}"
        raise IntegrityError(message, hint="it was changed after it was signed, or signed by another key") from error


def _module(name: str) -> Any:
    try:
        return need(f"model_signing.{name}")
    except MissingDependencyError as error:
        # It imports pyOpenSSL without asking for it (model-signing 1.1.1).
        message = f"model-signing cannot be used: {error.message}"
        raise MissingDependencyError(message, hint="run: pip install 'modeldeploy[model-signing]'") from error


def _check_key(path: Path, *, private: bool) -> None:
    serialization = need("cryptography.hazmat.primitives.serialization")
    ec = need("cryptography.hazmat.primitives.asymmetric.ec")
    half = "private" if private else "public"
    try:
        data = path.read_bytes()
        key = serialization.load_pem_private_key(data, None) if private else serialization.load_pem_public_key(data)
    except (OSError, ValueError, TypeError) as error:
        message = f"{str(path)!r} holds no {half} key that can be read here: {error}"
        raise ConfigurationError(message, hint=f"pass an unencrypted PEM file of a key on {_CURVES}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey if private else ec.EllipticCurvePublicKey):
        message = f"{str(path)!r} holds a key of another kind than elliptic-curve"
        raise ConfigurationError(
            message, hint=f"make one on {_CURVES}; the fleet's own Ed25519 key cannot be used here"
        )
