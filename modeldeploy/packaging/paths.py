"""From a path to a bundle in the store: our own bundles and archives, other tools' files."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from modeldeploy.errors import ConfigurationError, PredictionError
from modeldeploy.packaging import foreign, mlflow
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.digest import MANIFEST
from modeldeploy.packaging.flavours.table import Files, find
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.loading import answerer
from modeldeploy.packaging.package import Draft, adapt, finish, read_example, stage
from modeldeploy.packaging.rehearse import answer
from modeldeploy.packaging.store import Store
from modeldeploy.values.names import check_name, check_version

_ARCHIVES = (".tar.gz", ".tgz")


def package_path(  # noqa: PLR0913 - each is the user's own choice
    path: Path,
    *,
    store: Store,
    name: str | None = None,
    version: str | None = None,
    example: object = None,
    method: str | None = None,
    nullable: Collection[str] = (),
    requires: Collection[str] = (),
    trust: str | Collection[str] = (),
) -> Bundle:
    """Package what lies at ``path``: a bundle, its archive, an MLflow model directory, or a model file.

    A bundle has its name and version; anything else needs them, and an example. ``trust`` holds digests of files or bundles with pickled
    content that the caller vouches for. Nothing is unpickled in this process.
    """
    path = _absolute(path)
    trusted = frozenset({trust} if isinstance(trust, str) else trust)
    if not path.exists():
        message = f"{str(path)!r} does not exist"
        raise ConfigurationError(message, hint="pass the path of a model file or of a bundle")
    if (path / MANIFEST).is_file() or path.name.endswith(_ARCHIVES):
        return _adopt(path, store, trusted, (name, version))
    if name is None or version is None or example is None:
        message = f"{str(path)!r} is a bare model without name=, version= and example="
        raise ConfigurationError(message, hint="pass all three; example= is a few rows of what the model takes")
    check_name(name, "model name")
    check_version(version)
    found = _read(path, method, trusted)
    sample = read_example(example, nullable=nullable, adapt=lambda table: _adapt(found, table))
    draft = Draft(
        name=name,
        version=version,
        flavour=found.flavour,
        method=found.method,
        sample=sample,
        saved=found.saved,
        requires=tuple(requires),
    )
    return finish(draft, _golden(draft, store), store)


def _absolute(path: Path) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        message = f"{str(path)!r} begins with the home of somebody who is not known here"
        raise ConfigurationError(message, hint="write the path out") from error


def _adopt(path: Path, store: Store, trust: Collection[str], expected: tuple[str | None, str | None]) -> Bundle:
    """Take a finished bundle into the store as it is; it becomes trusted only when the caller names its digest."""
    with store.staging() as staged:
        bundle = _bring(path, staged / "bundle")
        found = (bundle.manifest.name, bundle.manifest.version)
        for what, wanted, have in zip(("name", "version"), expected, found, strict=True):
            if wanted is not None and wanted != have:
                message = f"the bundle {str(path)!r} has the {what} {have!r}, not {wanted!r}"
                raise ConfigurationError(message, hint=f"leave {what}= out; a bundle keeps its own")
        kept = store.add(bundle.path)
    if kept.digest in trust:
        store.trust(kept.digest)
    return kept


def _bring(path: Path, to: Path) -> Bundle:
    if path.is_file():
        return Bundle.unpack(path, to)
    Bundle.open(path).verify()
    shutil.copytree(path, to, symlinks=True)
    return Bundle.open(to)


def _read(path: Path, method: str | None, trust: Collection[str]) -> foreign.Foreign:
    if not path.is_dir():
        return foreign.read(path, method=method, trust=trust)
    if not (path / "MLmodel").is_file():
        message = f"directory {str(path)!r} is neither a bundle nor an MLflow model"
        raise ConfigurationError(message, hint="it should hold manifest.json or MLmodel")
    return mlflow.read(path, method=method, trust=trust)


def _adapt(found: foreign.Foreign, table: Any) -> Any:
    if found.saved.pickled:
        return adapt(table.kind, table)
    family = find(found.flavour)
    predict = family.load(Files.of(found.saved.files), found.saved.options, method=found.method, trusted=True)
    # The estimator whose method this is, or the bytes of an ONNX model; the others need not be looked at.
    model = found.saved.files.get("model.onnx", getattr(predict, "__self__", None))
    return adapt(family.container(model, table.kind), table, family.labels(model))


def _golden(draft: Draft, store: Store) -> Golden:
    """Ask the model that was read for its answers to the example, in another process when it is pickled."""
    unanswered = Golden(draft.sample.columns, {})
    if draft.saved.pickled:
        with stage(draft, unanswered, store) as staged:
            # Its inputs come back sorted by name, and the order of the columns is that of the example.
            return Golden(draft.sample.columns, answer(staged).outputs)
    try:
        ask = answerer(draft.manifest(unanswered), Files.of(draft.saved.files), trusted=True)
        return Golden(draft.sample.columns, ask(draft.sample.columns))
    except PredictionError as error:
        raise ConfigurationError(error.message, hint=error.hint) from error
