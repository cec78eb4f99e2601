"""Where a fleet's store and key are, and what this machine takes when nobody says."""

from __future__ import annotations

import contextlib
from pathlib import Path

from modeldeploy import config
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.stores import DirectoryStore, Store, open_store
from modeldeploy.errors import ConfigurationError, ConflictError


def default_home() -> Path:
    """Give the directory of this backend in the state directory that is configured."""
    return config.load().home / "fleet"


def address(store: Store | None, home: Path) -> str:
    """Say where a store is that was not given by its address."""
    if store is None:
        return str(home / "store")
    return str(store.root) if isinstance(store, DirectoryStore) else type(store).__name__


def opened(store: str | Path | Store | None, home: Path, token: str) -> Store:
    """Open the store; the directory of this machine's own is made, another one must be there, for it may be a share."""
    if store is None:
        (home / "store").mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_store(home / "store")
    found = open_store(store, headers={"Authorization": f"Bearer {token}"} if token else None)
    if isinstance(found, DirectoryStore) and not found.root.is_dir():
        message = f"the store {str(found.root)!r} is not there"
        raise ConfigurationError(message, hint="make the directory, or mount the share")
    return found


def own_key(path: Path) -> SigningKey:
    """Load the key of this machine, made when it is first needed."""
    if not path.exists():
        # Another process may be quicker.
        with contextlib.suppress(ConflictError):
            SigningKey.generate().save(path)
    return SigningKey.load(path)
