"""A converted model as a bundle in the store: the signature of its original, its own golden outputs, and the parity report."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Collection, Mapping
from typing import Any

import attrs
import numpy as np
import orjson
from numpy.typing import NDArray

from modeldeploy.convert.report import ParityReport, read
from modeldeploy.errors import ConfigurationError, ConflictError, ConversionError, IntegrityError, InvalidRequestError
from modeldeploy.packaging import containers
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.flavours import onnx as flavour
from modeldeploy.packaging.golden import OPTION, Golden
from modeldeploy.packaging.manifest import ARTIFACTS, GOLDEN, PARITY, Manifest
from modeldeploy.packaging.package import Draft, Sample, finish
from modeldeploy.packaging.signature import to_columns
from modeldeploy.packaging.store import Store
from modeldeploy.values.names import check_version

ARTIFACT = f"{ARTIFACTS}model.onnx"
_METHOD = "run"


def read_sample(sample: object, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Read the rows that both models are asked for; ConfigurationError names the column that does not fit."""
    try:
        columns = to_columns(sample, manifest.signature)
    except InvalidRequestError as error:
        message = f"the sample does not fit {manifest.name} {manifest.version}: {error.message}"
        raise ConfigurationError(message, hint=error.hint) from error
    if not len(next(iter(columns.values()))):
        message = "the sample has no rows"
        raise ConfigurationError(message, hint="pass some hundred real rows, with the gaps that real rows have")
    return columns


def derived(version: str, suffix: str) -> str:
    """Give the version of a conversion, which is the original's with a note: ``1.0.0+onnx``."""
    return f"{version}{'.' if '+' in version else '+'}{suffix}"


def fingerprint(columns: Mapping[str, NDArray[Any]]) -> str:
    """Give a short digest of rows, to know them again."""
    return hashlib.sha256(Golden(dict(columns), {}).to_bytes()).hexdigest()[:16]


def known(store: Store, name: str, version: str, source: str, settings: Mapping[str, str]) -> Bundle | None:
    """Find the same conversion, made before; None when there is none, or the version is something else."""
    check_version(version)
    if version not in store.versions(name):
        return None
    bundle = store.get(name, version)
    report = read(bundle)
    same = report is not None and report.source == source and dict(report.settings) == dict(settings)
    return bundle if same else None


def answerer(data: bytes, manifest: Manifest, container: str) -> Any:
    """Give the function from columns to the answers of these bytes of ONNX."""
    build = containers.builder(container, (), [field.name for field in manifest.signature.inputs])
    try:
        run = flavour.bind(data, method=_METHOD)
    except IntegrityError as error:
        message = f"onnxruntime cannot run what the converter made: {error.message}"
        raise ConversionError(message, hint="leave out the part of the model that it names") from error
    return lambda columns: {name: np.asarray(array) for name, array in run(build(columns)).items()}


def keep(
    data: bytes,
    original: Bundle,
    report: ParityReport,
    *,
    version: str,
    container: str,
    store: Store,
    rounding: float = 0.0,
) -> Bundle:
    """Package the converted model, proved by its own golden outputs; it keeps what its original takes and answers.

    ``rounding`` is how far an answer may be off on another processor, where that is more than usual.
    """
    manifest = original.manifest
    inputs = Golden.from_bytes(original.read(GOLDEN)).inputs
    columns = {field.name: inputs[field.name] for field in manifest.signature.inputs}
    nullable = frozenset(field.name for field in manifest.signature.inputs if field.nullable)
    draft = Draft(
        name=manifest.name,
        version=version,
        flavour="onnx",
        method=_METHOD,
        sample=Sample(columns=columns, container=container, looks=(), nullable=nullable),
        saved=attrs.evolve(flavour.save(data, method=_METHOD), options=_options(rounding)),
        signature=manifest.signature,
        papers={PARITY: report.to_bytes()},
    )
    golden = Golden(columns, answerer(data, manifest, container)(columns))
    try:
        return finish(draft, golden, store)
    except ConflictError:
        # Another process made the same conversion meanwhile; its report holds other times.
        found = known(store, manifest.name, version, report.source, report.settings)
        if found is None:
            raise
        return found


def _options(rounding: float) -> dict[str, str]:
    allowed = {name: [0.0, rounding] for name in ("float16", "float32", "float64")}
    return {OPTION: orjson.dumps(allowed).decode()} if rounding else {}


def size(bundle: Bundle) -> int:
    """Count the bytes of a bundle's artifacts."""
    return sum(entry.size for path, entry in bundle.manifest.files.items() if path.startswith(ARTIFACTS))


def versions(distributions: Collection[str]) -> dict[str, str]:
    """Name the versions of these distributions that are installed, and of Python."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
