"""From a fitted model to the same model as ONNX: converted, held against the original, and packaged only when they agree."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from numpy.typing import NDArray

from modeldeploy.convert import bundling, cpu, graphs, measuring
from modeldeploy.convert.originals import Original, packaged
from modeldeploy.convert.parity import Gate
from modeldeploy.convert.report import Check, ParityReport, Side
from modeldeploy.convert.timing import batch_rows, first_rows
from modeldeploy.errors import ConversionError, ConversionParityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.store import Store
from modeldeploy.values.tolerance import Tolerance, ToleranceLike

TOLERANCE = Tolerance(float32=(1e-4, 1e-5), float64=(1e-4, 1e-5))
"""Room for the rounding of float32, in which a converted model computes: measured are 1e-6 in probabilities, 2e-5 in logits."""
KIND = "onnx"
_TOOLS = (
    "lightgbm", "numpy", "onnx", "onnxmltools", "onnxruntime", "onnxscript", "protobuf", "scikit-learn", "skl2onnx", "torch", "xgboost",
)  # fmt: skip


def to_onnx(
    original: Original,
    store: Store,
    *,
    sample: object,
    version: str | None = None,
    labels: object = None,
    tolerance: ToleranceLike | None = None,
) -> Bundle:
    """Convert and package; see ``Model.to_onnx``. The same conversion again gives the bundle that is there."""
    bundle = original.bundle
    columns = bundling.read_sample(sample, bundle.manifest)
    truth = measuring.read_labels(labels, len(next(iter(columns.values()))))
    allowed = TOLERANCE if tolerance is None else Tolerance.of(tolerance)
    version = version or bundling.derived(bundle.manifest.version, "onnx")
    settings = {"sample": bundling.fingerprint(columns), "tolerance": repr(allowed), "labels": str(truth is not None)}
    found = bundling.known(store, bundle.manifest.name, version, bundle.digest, settings)
    if found is not None:
        return found
    done = _attempt(original, columns, store.root.parent, allowed)
    report = Measured(done, original, columns, truth).report(settings)
    _refuse(report, original)
    _tell(report, original)
    return bundling.keep(done.data, bundle, report, version=version, container=done.container, store=store)


@attrs.frozen(eq=False)
class Attempt:
    """A conversion that is done: the graph that is to be packaged, and the gate before it."""

    gate: Gate
    data: bytes
    container: str
    check: Check
    """The answers to the sample."""
    note: str


def _attempt(original: Original, columns: dict[str, NDArray[Any]], home: Path, allowed: Tolerance) -> Attempt:
    """Convert in one precision, and in the other where that does not answer the sample as the original does."""
    attempts: list[Attempt] = []
    error: ConversionError | None = None
    for double in original.precisions:
        try:
            attempts.append(_convert(original, columns, home, allowed, double=double))
        except ConversionError as caught:
            error = error or caught
        if attempts and attempts[-1].check.passed:
            return attempts[-1]
    if not attempts and error is not None:
        raise error
    return attempts[0]


def _convert(
    original: Original, columns: dict[str, NDArray[Any]], home: Path, allowed: Tolerance, *, double: bool
) -> Attempt:
    few = first_rows(columns, 2)
    raw, answers = original.convert(few, home, double=double), original.answer(few)
    manifest = original.manifest
    gate = Gate(
        before=original.answer,
        after=bundling.answerer(graphs.assemble(raw, answers), manifest, raw.container),
        tolerance=allowed,
        labels=original.labels,
    )
    final = graphs.assemble(raw, packaged(answers, manifest))
    note = f"computes in {'float64' if double else 'float32'}"
    return Attempt(gate, final, raw.container, gate.sample(columns), note)


@attrs.frozen(eq=False)
class Measured:
    """A conversion that is done, and what it is held against."""

    done: Attempt
    original: Original
    columns: dict[str, NDArray[Any]]
    truth: NDArray[Any] | None

    def report(self, settings: Mapping[str, str]) -> ParityReport:
        """Ask both models, measure both, and write down what was found."""
        gapped, note = self.done.gate.gapped(self.columns, self.original.manifest.signature)
        checks = (self.done.check, *((gapped,) if gapped is not None else ()))
        metric, scores = self._scores() if checks[0].outputs else ("", (None, None))
        before, after, slower = self._sides(scores)
        return ParityReport(
            source=self.original.bundle.digest,
            kind=KIND,
            settings=settings,
            tolerance=self.done.gate.tolerance,
            checks=checks,
            before=before,
            after=after,
            batch_rows=batch_rows(self.columns),
            cpu=cpu.describe(),
            versions=bundling.versions(_TOOLS),
            metric=metric,
            notes=tuple(text for text in (self.done.note, note, *slower) if text),
        )

    def _scores(self) -> tuple[str, tuple[float | None, float | None]]:
        if self.truth is None:
            return "", (None, None)
        gate = self.done.gate
        metric, before = measuring.score(gate.before(self.columns), self.truth, gate.labels)
        return metric, (before, measuring.score(gate.after(self.columns), self.truth, gate.labels)[1])

    def _sides(self, scores: tuple[float | None, float | None]) -> tuple[Side, Side, tuple[str, ...]]:
        manifest = self.original.manifest
        return measuring.sides(
            (manifest.flavour, bundling.size(self.original.bundle), self.original.alone),
            (KIND, len(self.done.data), bundling.answerer(self.done.data, manifest, self.done.container)),
            self.columns,
            scores,
        )


def _refuse(report: ParityReport, original: Original) -> None:
    if report.passed:
        return
    manifest = original.manifest
    message = f"{manifest.name} {manifest.version} does not answer the same as ONNX; {report.problem}"
    gapped = any(check.gaps and check.binding and not check.passed for check in report.checks)
    raise ConversionParityError(message, report=report, hint=_GAPS if gapped else _ROUNDING)


_GAPS = (
    "decision trees and forests lose where NaN goes: fill the gaps in the pipeline (SimpleImputer), fit a HistGradientBoosting*, XGBoost or"
    " LightGBM model, which keep it, or package the model with an example without gaps, so that NaN is refused"
)
_ROUNDING = (
    "look at error.report; what is rounding may be allowed by tolerance={'float32': (1e-3, 1e-4)}, and a model that is fitted with float32 rows"
    " rounds less"
)


def _tell(report: ParityReport, original: Original) -> None:
    for note in report.notes:
        if note.startswith("slower"):
            manifest = original.manifest
            message = f"{manifest.name} {manifest.version} as ONNX is {note}"
            warnings.warn(message, stacklevel=4)
