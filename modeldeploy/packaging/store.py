"""The models on this machine: bundles by their content, versions and aliases by name, digests that this user vouched for."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError, NotFoundError, QuotaError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.values.names import check_name, check_version

_PREFIX = "sha256:"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Store:
    """Bundles, versions and aliases in one directory; every write is whole or absent, whoever else writes."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a fresh private directory on the store's own disk, gone at the end unless it was added."""
        import shutil

        staged = self._folder("staging") / os.urandom(8).hex()
        staged.mkdir(mode=0o700)
        try:
            yield staged
        except OSError as error:
            if error.errno in _FULL:
                self._refuse_full(staged, error)
            raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _refuse_full(self, staged: Path, error: OSError) -> NoReturn:
        import shutil

        shutil.rmtree(staged, ignore_errors=True)
        free = shutil.disk_usage(self.root).free
        message = f"no space for the model in {str(self.root)!r} ({free / 1e6:,.0f} MB free): {error.strerror}"
        raise QuotaError(
            message, hint="free some space, or choose another disk with home= or MODELDEPLOY_HOME"
        ) from error

    def add(self, staged: Path) -> Bundle:
        """Take a complete bundle directory into the store; adding the same content again is the same bundle.

        ConflictError when the version exists with other content.
        """
        bundle = Bundle.open(staged)
        bundle.verify()
        name, version = bundle.manifest.name, bundle.manifest.version
        self._refuse_conflict(bundle, self._recorded(name, version))
        kept = self._publish(bundle)
        record = self._folder("models", name) / f"{version}.json"
        if not _create(record, {"digest": bundle.digest}):
            self._refuse_conflict(bundle, self._recorded(name, version))
        return kept

    def get(self, name: str, version: str) -> Bundle:
        """Find a model by version or alias; NotFoundError lists what there is."""
        check_name(name, "model name")
        wanted = self.aliases(name).get(version, version)
        digest = self._recorded(name, wanted) if wanted in self.versions(name) else None
        if digest is None:
            self._refuse_unknown(name, version)
        path = self._bundle_path(digest)
        if not path.is_dir():
            message = f"the files of {name} {wanted} ({digest}) are gone from {str(self.root)!r}"
            raise IntegrityError(message, hint="package the model again")
        return Bundle.recorded(path, digest)

    def versions(self, name: str) -> tuple[str, ...]:
        """Name the versions of a model, oldest first by semantic version; empty when there is none."""
        check_name(name, "model name")
        folder = self.root / "models" / name
        found = [path.stem for path in folder.glob("*.json") if path.name != "aliases.json"] if folder.is_dir() else []
        return tuple(sorted(found, key=_precedence))

    def names(self) -> tuple[str, ...]:
        """Name every model."""
        folder = self.root / "models"
        return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()

    def aliases(self, name: str) -> dict[str, str]:
        """Give ``{alias: version}`` of a model."""
        path = self.root / "models" / check_name(name, "model name") / "aliases.json"
        return {str(key): str(value) for key, value in _read(path).items()} if path.is_file() else {}

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let ``alias`` mean this version from now on; it may be moved at any time."""
        check_name(alias, "alias")
        if version not in self.versions(name):
            self._refuse_unknown(name, version)
        with self._locked(name):
            _replace(self._folder("models", name) / "aliases.json", {**self.aliases(name), alias: version})

    def trusted(self) -> frozenset[str]:
        """Give the digests that this user's own packaging recorded."""
        folder = self.root / "trusted"
        return frozenset(f"{_PREFIX}{path.name}" for path in folder.iterdir()) if folder.is_dir() else frozenset()

    def trust(self, digest: str) -> None:
        """Vouch for a digest: its pickled content may be loaded by workers on this machine."""
        value = digest.removeprefix(_PREFIX)
        if not digest.startswith(_PREFIX) or len(value) != 64 or set(value) - set("0123456789abcdef"):  # noqa: PLR2004
            message = f"{digest!r} is not a digest"
            raise ConfigurationError(message, hint="pass the bundle's digest, 'sha256:' and 64 hexadecimal digits")
        (self._folder("trusted") / value).touch(mode=0o600)

    def _bundle_path(self, digest: str) -> Path:
        return self.root / "bundles" / digest.removeprefix(_PREFIX)

    def _folder(self, *parts: str) -> Path:
        path = self.root
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in parts:
            path /= part
            path.mkdir(mode=0o700, exist_ok=True)
        return path

    def _recorded(self, name: str, version: str) -> str | None:
        path = self.root / "models" / name / f"{version}.json"
        return str(_read(path).get("digest")) if path.is_file() else None

    def _publish(self, bundle: Bundle) -> Bundle:
        """Give the staged directory its final name; the same content that is there already is kept, if it is sound."""
        target = self._folder("bundles") / bundle.digest.removeprefix(_PREFIX)
        if target.exists() and not is_sound(target, bundle.digest):
            target.rename(self._folder("staging") / f"damaged-{os.urandom(8).hex()}")
        with contextlib.suppress(OSError):
            os.rename(bundle.path, target)  # noqa: PTH104 - refuses a directory that is there and not empty
            _sync(target.parent)
        return Bundle.open(target, expect=bundle.digest)

    def _refuse_conflict(self, bundle: Bundle, existing: str | None) -> None:
        if existing in {None, bundle.digest}:
            return
        name, version = bundle.manifest.name, bundle.manifest.version
        message = f"{name} {version} exists with other content: {existing} is stored, {bundle.digest} is new"
        raise ConflictError(
            message, hint=f"give the new content a new version, such as {_next(version)!r}; versions are immutable"
        )

    def _refuse_unknown(self, name: str, version: str) -> NoReturn:
        versions, aliases = self.versions(name), self.aliases(name)
        if not versions:
            message = f"there is no model {name!r} in {str(self.root)!r}"
            raise NotFoundError(message, hint=f"models there are {list(self.names())}")
        message = f"model {name!r} has no version or alias {version!r}"
        raise NotFoundError(message, hint=f"versions are {list(versions)}, aliases {aliases}")

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Keep other processes from changing the aliases of a model meanwhile; nothing to hold on Windows."""
        with (self._folder("models", name) / ".lock").open("w") as lock:
            with contextlib.suppress(ImportError):
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def is_sound(path: Path, digest: str) -> bool:
    """Whether the bundle in ``path`` is complete and unchanged."""
    try:
        Bundle.open(path, expect=digest).verify()
    except (ConfigurationError, IntegrityError):
        return False
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        message = f"{str(path)!r} is not JSON: {error}"
        raise IntegrityError(message, hint="delete it and package the model again") from error
    return dict(document)


def _create(path: Path, document: dict[str, str]) -> bool:
    """Write a new file whole; False when there is one already, also when another process was faster."""
    if path.exists():
        return False
    written = _written_beside(path, document)
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    finally:
        written.unlink()
    _sync(path.parent)
    return True


def _replace(path: Path, document: dict[str, str]) -> None:
    _written_beside(path, document).replace(path)
    _sync(path.parent)


def _written_beside(path: Path, document: dict[str, str]) -> Path:
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    with temporary.open("xb") as stream:
        stream.write(json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
        stream.flush()
        os.fsync(stream.fileno())
    return temporary


def _sync(folder: Path) -> None:
    """Make names durable; Windows has no handle for a directory, and does it by itself."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _precedence(version: str) -> tuple[Any, ...]:
    """Order as semver.org 2.0.0 section 11 does: a pre-release comes before its release, numbers before words."""
    core, _plus, _build = version.partition("+")
    core, _dash, pre = core.partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    words = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".") if part]
    return (numbers, not words, words, version)


def _next(version: str) -> str:
    check_version(version)
    major, minor, patch = version.partition("+")[0].partition("-")[0].split(".")
    return f"{major}.{minor}.{int(patch) + 1}"
