"""From a fitted model and an example to a bundle in the store, proved to answer as the model does."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.errors import ConfigurationError, IntegrityError, InvalidRequestError, PredictionError
from modeldeploy.packaging import containers, outputs, requirements, tables
from modeldeploy.packaging.bundle import Bundle, write_files
from modeldeploy.packaging.digest import MANIFEST
from modeldeploy.packaging.flavours.table import Files, Predict, Saved, detect, find
from modeldeploy.packaging.golden import ROWS, Golden
from modeldeploy.packaging.loading import LoadedModel, answerer
from modeldeploy.packaging.manifest import ARTIFACTS, GOLDEN, Column, FileEntry, Manifest
from modeldeploy.packaging.rehearse import compare, rehearse
from modeldeploy.packaging.signature import INPUT, has_gaps, infer
from modeldeploy.packaging.store import Store
from modeldeploy.values.model import Signature
from modeldeploy.values.names import check_name, check_version


def package(
    obj: object,
    *,
    name: str,
    version: str,
    example: object,
    store: Store,
    method: str | None = None,
    nullable: Collection[str] = (),
    requires: Collection[str] = (),
) -> Bundle:
    """Package a fitted model; the same model, example and version again give the same bundle.

    ``example`` is a few real rows of what the model was fitted with: it tells the types, and its answers are kept as golden outputs.
    ``method`` is what is called (``predict``, ``predict_proba``); ``nullable`` names columns that take NaN or null though the example has
    none; ``requires`` adds requirements to the ones found. ConflictError when the version exists with other content.
    """
    check_name(name, "model name")
    check_version(version)
    flavour = detect(obj)
    family = find(flavour)
    called = family.check_method(obj, method)
    sample = read_example(
        example,
        nullable=nullable,
        adapt=lambda table: adapt(family.container(obj, table.kind), table, family.labels(obj)),
    )
    golden = golden_of(family.bind(obj, method=called), sample, called)
    saved = family.save(obj, method=called)
    draft = Draft(
        name=name, version=version, flavour=flavour, method=called, sample=sample, saved=saved, requires=tuple(requires)
    )
    return finish(draft, golden, store)


@attrs.frozen(eq=False)
class Sample:
    """The rows of the example that are kept, as the model server will see them."""

    columns: dict[str, NDArray[Any]]
    container: str
    looks: tuple[Column, ...]
    nullable: frozenset[str]


@attrs.frozen(eq=False)
class Draft:
    """Everything about a bundle but its outputs."""

    name: str
    version: str
    flavour: str
    method: str
    sample: Sample
    saved: Saved
    requires: tuple[str, ...] = ()
    signature: Signature | None = None
    """What goes in and out, where the golden examples do not say it: a converted model keeps the types of its original."""
    papers: Mapping[str, bytes] = attrs.field(factory=dict[str, bytes])
    """Files beside the model that tell about it."""

    def manifest(self, golden: Golden) -> Manifest:
        """Write the manifest for these golden examples."""
        files = self.files(golden)
        modules = (
            self.saved.modules
            | {"numpy"}
            | ({_BRINGS[self.sample.container]} if self.sample.container in _BRINGS else set())
        )
        return Manifest(
            name=self.name,
            version=self.version,
            flavour=self.flavour,
            method=self.method,
            options=dict(self.saved.options),
            signature=self.signature or _signature(golden, self.sample.nullable),
            container=self.sample.container,
            columns=self.sample.looks,
            requirements=requirements.merge(requirements.of_modules(modules), self.requires),
            python=platform.python_version(),
            pickled=self.saved.pickled,
            files={path: FileEntry.of(data) for path, data in files.items()},
        )

    def files(self, golden: Golden) -> dict[str, bytes]:
        """Collect every file but the manifest."""
        artifacts = {f"{ARTIFACTS}{path}": data for path, data in self.saved.files.items()}
        return {GOLDEN: golden.to_bytes(), **self.papers, **artifacts}


_BRINGS = {"pandas": "pandas", "polars": "polars", "arrow": "pyarrow"}


def finish(draft: Draft, golden: Golden, store: Store) -> Bundle:
    """Prove that the saved model answers as recorded, then put the bundle into the store and vouch for it."""
    manifest = draft.manifest(golden)
    existing = _existing(manifest, store)
    if existing is not None and _same(existing, manifest, golden):
        return existing
    if not manifest.pickled:
        _prove(manifest, draft.saved, golden)
    with stage(draft, golden, store) as staged:
        if manifest.pickled:
            rehearse(staged)
        bundle = store.add(staged)
    if manifest.pickled or draft.saved.trusted:
        store.trust(bundle.digest)
    return bundle


@contextlib.contextmanager
def stage(draft: Draft, golden: Golden, store: Store) -> Iterator[Path]:
    """Write a complete bundle into a fresh directory of the store, gone at the end unless it was added."""
    with store.staging() as staged:
        write_files(staged, {MANIFEST: draft.manifest(golden).to_bytes(), **draft.files(golden)})
        yield staged


def _existing(manifest: Manifest, store: Store) -> Bundle | None:
    """Find the version in the store; None when there is none, or when it is damaged and must be written again."""
    if manifest.version not in store.versions(manifest.name):
        return None
    try:
        existing = store.get(manifest.name, manifest.version)
        existing.verify()
    except IntegrityError:
        return None
    return existing


def _same(existing: Bundle, manifest: Manifest, golden: Golden) -> bool:
    """Whether only the rounding of the golden outputs differs, as it does for models that sum over threads."""
    old = existing.manifest
    if attrs.evolve(old, files={}) != attrs.evolve(manifest, files={}):
        return False
    if {k: v for k, v in old.files.items() if k != GOLDEN} != {k: v for k, v in manifest.files.items() if k != GOLDEN}:
        return False
    recorded = Golden.from_bytes(existing.read(GOLDEN))
    same_inputs = Golden(recorded.inputs, {}).to_bytes() == Golden(golden.inputs, {}).to_bytes()
    return same_inputs and not recorded.differences(golden.outputs)


def _prove(manifest: Manifest, saved: Saved, golden: Golden) -> None:
    answer = answerer(manifest, Files.of(saved.files), trusted=True)
    compare(LoadedModel(manifest.signature, golden, answer))


def read_example(example: object, *, nullable: Collection[str], adapt: Any) -> Sample:
    """Read the example and keep its first rows; ConfigurationError says what is wrong with it."""
    if isinstance(example, str | bytes) or example is None:
        message = f"example is {example!r:.60}, not a table"
        raise ConfigurationError(message, hint="pass a few real rows, such as X.head()")
    try:
        table = tables.read(example)
        container, looks, columns = adapt(table)
    except InvalidRequestError as error:
        message = f"the example cannot be used: {error.message}"
        raise ConfigurationError(message, hint=error.hint) from error
    whole = {key: _whole(key, values) for key, values in columns.items()}
    # The kept rows may hold no gap though the example does.
    gaps = {key for key, array in whole.items() if has_gaps(array)}
    kept = {key: np.ascontiguousarray(array[:ROWS]) for key, array in whole.items()}
    if not kept or not all(array.size for array in kept.values()):
        message = "the example has no rows or no columns"
        raise ConfigurationError(message, hint="pass a few real rows, such as X.head()")
    if len({len(array) for array in kept.values()}) > 1:
        message = f"the columns of the example differ in length: { {key: len(array) for key, array in list(kept.items())[:5]} }"
        raise ConfigurationError(message, hint="every column needs the same number of rows")
    infer(kept, {}, nullable=nullable)  # a column of dates is refused as such, not by whatever the model makes of it
    return Sample(columns=kept, container=container, looks=looks, nullable=frozenset(nullable) | gaps)


def adapt(
    container: str, table: tables.Table, labels: tuple[str, ...] = ()
) -> tuple[str, tuple[Column, ...], dict[str, Any]]:
    """Fit a table to the container that the model is given, and say how its columns look there."""
    if table.array is None:
        looks = table.looks or tuple(Column(name=key, label=key) for key in table.columns)
        looks = looks if container == table.kind else tuple(attrs.evolve(look, dtype="") for look in looks)
        return container, looks if container not in {"matrix", "columns"} else (), dict(table.columns)
    if container != "pandas":
        return container, (), {labels[0] if len(labels) == 1 else INPUT: table.array}
    if table.array.ndim != 2 or table.array.shape[1] != len(labels):  # noqa: PLR2004 - rows and columns
        message = f"it has shape {table.array.shape}, where the model was fitted with {len(labels)} columns"
        raise InvalidRequestError(message, hint=f"its columns are {list(labels[:5])}")
    columns = {key: table.array[:, at] for at, key in enumerate(labels)}
    return container, tuple(Column(name=key, label=key, dtype=table.array.dtype.name) for key in labels), columns


def _whole(name: str, values: Any) -> NDArray[Any]:
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
    except ValueError as error:
        message = f"column {name!r} of the example is ragged"
        raise ConfigurationError(message, hint="every row needs the same shape") from error
    if array.dtype.kind == "U":
        array = np.array(values, dtype=object)
    if array.dtype == object:
        array = tables.tidy(array) if array.ndim == 1 else array
    return array


def golden_of(predict: Predict, sample: Sample, method: str) -> Golden:
    """Ask the model in memory for its answers to the example."""
    native = containers.builder(sample.container, sample.looks, list(sample.columns))(
        # A function may change its table in place, and the golden inputs are what it was given.
        {key: array.copy() for key, array in sample.columns.items()}
    )
    try:
        raw = predict(native)
    except Exception as error:
        message = f"the model cannot predict its own example: {type(error).__name__}: {error}"
        raise ConfigurationError(
            message, hint="pass a few rows of what the model was fitted with as example="
        ) from error
    try:
        answers = outputs.read(raw, method)
    except PredictionError as error:
        raise ConfigurationError(error.message, hint=error.hint) from error
    rows = len(next(iter(sample.columns.values())))
    for key, array in answers.items():
        if len(array) != rows:
            message = f"output {key!r} has {len(array)} rows for the example's {rows}"
            hint = "a model answers each row with one entry"
            if sample.container in _BRINGS and len(sample.columns) == 1:
                hint += "; for a model that takes a list of texts, pass a list: example=column.tolist()"
            raise ConfigurationError(message, hint=hint)
    return Golden(inputs=sample.columns, outputs=answers)


def _signature(golden: Golden, nullable: Collection[str]) -> Signature:
    return infer(golden.inputs, golden.outputs, nullable=nullable)


def in_memory(obj: object, bundle: Bundle) -> LoadedModel:
    """Give the model in memory the surface of the loaded one; ``obj`` is what ``bundle`` was packaged from."""
    manifest = bundle.manifest
    predict = find(manifest.flavour).bind(obj, method=manifest.method)
    names = [field.name for field in manifest.signature.inputs]
    build = containers.builder(manifest.container, manifest.columns, names)
    golden = Golden.from_bytes(bundle.read(GOLDEN))
    return LoadedModel(
        manifest.signature, golden, lambda columns: outputs.read(predict(build(columns)), manifest.method)
    )
