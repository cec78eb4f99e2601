"""From an ONNX model to a quantised one: made, held against the original, and packaged only when they agree."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import attrs
from numpy.typing import NDArray

from modeldeploy.convert import bundling, cpu, measuring, quantizing
from modeldeploy.convert.parity import SAMPLE, compare_coarse, spread
from modeldeploy.convert.quantizing import Method
from modeldeploy.convert.report import Check, ParityReport
from modeldeploy.convert.timing import Ask, batch_rows
from modeldeploy.errors import ConfigurationError, ConversionParityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.golden import Golden
from modeldeploy.packaging.manifest import GOLDEN, Manifest
from modeldeploy.packaging.outputs import NAMES
from modeldeploy.packaging.store import Store
from modeldeploy.values.tolerance import Tolerance

_TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")
_EXAMPLE = "the example"
STEPS = 4
"""By how many of the 256 steps of its spread an answer may be off on another processor."""
_LEVELS = 256


@attrs.frozen
class Wish:
    """How a model is to be quantised, and how much may be lost."""

    method: str = "auto"
    agreement: float = 0.99
    reduce_range: bool = False

    def __attrs_post_init__(self) -> None:
        if not 0 < self.agreement <= 1:
            message = f"agreement is {self.agreement!r}"
            raise ConfigurationError(message, hint="use the share of rows that must be answered the same, such as 0.99")


def quantize(
    bundle: Bundle,
    store: Store,
    wish: Wish,
    *,
    sample: object = None,
    version: str | None = None,
    labels: object = None,
) -> Bundle:
    """Quantise and package; see ``Model.quantize``. The same again gives the bundle that is there."""
    manifest = bundle.manifest
    if manifest.flavour != "onnx":
        message = (
            f"{manifest.name} {manifest.version} is a model of {manifest.flavour}, and only ONNX models are quantised"
        )
        raise ConfigurationError(message, hint="convert it first: model.to_onnx(sample=X).quantize()")
    data = bundle.read(bundling.ARTIFACT)
    method = quantizing.choose(data, manifest, wish.method, sampled=sample is not None)
    columns = _example(bundle) if sample is None else bundling.read_sample(sample, manifest)
    truth = measuring.read_labels(labels, len(next(iter(columns.values()))))
    version = version or bundling.derived(manifest.version, "int8")
    settings = {
        "sample": bundling.fingerprint(columns),
        "labels": str(truth is not None),
        **{key: str(value) for key, value in attrs.asdict(wish).items()},
    }
    found = bundling.known(store, manifest.name, version, bundle.digest, settings)
    if found is not None:
        return found
    feeds = quantizing.calibration(data, manifest, columns)
    made = quantizing.quantize(data, method, feeds, reduce_range=wish.reduce_range)
    before, after = (bundling.answerer(each, manifest, manifest.container) for each in (data, made))
    check = _check(SAMPLE if sample is not None else _EXAMPLE, before, after, columns, wish.agreement)
    measured = _Measured(bundle, method, made, before, after, columns, truth)
    report = measured.report(check, settings, notes=_notes(data, method, reduce_range=wish.reduce_range))
    if not report.passed:
        message = f"{manifest.name} {manifest.version} does not answer the same in 8 bits; {report.problem}"
        raise ConversionParityError(message, report=report, hint=_REMEDY)
    _tell(report, manifest)
    rounding = STEPS * max(map(spread, before(columns).values()), default=0.0) / _LEVELS
    return bundling.keep(
        made, bundle, report, version=version, container=manifest.container, store=store, rounding=rounding
    )


_REMEDY = "calibrate with more real rows (method='static', sample=), or accept less with agreement=0.97 once you have seen the report"


def _example(bundle: Bundle) -> dict[str, NDArray[Any]]:
    inputs = Golden.from_bytes(bundle.read(GOLDEN)).inputs
    return {field.name: inputs[field.name] for field in bundle.manifest.signature.inputs}


def _check(what: str, before: Ask, after: Ask, columns: Mapping[str, NDArray[Any]], least: float) -> Check:
    expected, got = before(columns), after(columns)
    outputs = tuple(compare_coarse(name, expected[name], got[name]) for name in expected)
    return Check(what, len(next(iter(columns.values()))), outputs, least=least)


@attrs.frozen(eq=False)
class _Measured:
    original: Bundle
    method: Method
    data: bytes
    before: Ask
    after: Ask
    columns: dict[str, NDArray[Any]]
    truth: NDArray[Any] | None

    def report(self, check: Check, settings: Mapping[str, str], *, notes: tuple[str, ...]) -> ParityReport:
        metric, scores = self._scores()
        before, after, slower = measuring.sides(
            ("onnx", bundling.size(self.original), self.before),
            (f"int8 {self.method}", len(self.data), self.after),
            self.columns,
            scores,
        )
        return ParityReport(
            source=self.original.digest,
            kind=f"int8 {self.method}",
            settings=settings,
            tolerance=Tolerance(),
            checks=(check,),
            before=before,
            after=after,
            batch_rows=batch_rows(self.columns),
            cpu=cpu.describe(),
            versions=bundling.versions(_TOOLS),
            metric=metric,
            notes=(*notes, *slower),
        )

    def _scores(self) -> tuple[str, tuple[float | None, float | None]]:
        if self.truth is None:
            return "", (None, None)
        answers = self.before(self.columns)
        named = NAMES["predict"]
        labels = {named} if named in answers and answers[named].dtype.kind != "f" else set()
        metric, before = measuring.score(answers, self.truth, labels)
        return metric, (before, measuring.score(self.after(self.columns), self.truth, labels)[1])


def _notes(data: bytes, method: Method, *, reduce_range: bool) -> tuple[str, ...]:
    found = []
    if method is Method.DYNAMIC and quantizing.has_convolutions(data):
        found.append("convolutions were left in float32: quantised dynamically they become slower")
    found.append(
        f"unsigned 8 bits for activations and weights, one range for each tensor{', reduced to 7 bits' if reduce_range else ''}"
    )
    return tuple(found)


def _tell(report: ParityReport, manifest: Manifest) -> None:
    for note in report.notes:
        if note.startswith("slower"):
            warnings.warn(f"{manifest.name} {manifest.version} in 8 bits is {note}", stacklevel=4)
