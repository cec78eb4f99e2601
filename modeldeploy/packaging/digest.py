"""What a bundle is known by: the digest of its manifest."""

from __future__ import annotations

import hashlib

MANIFEST = "manifest.json"


def digest_of(manifest: bytes) -> str:
    """Give the digest of a bundle, which is that of its manifest, which holds those of its files."""
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
