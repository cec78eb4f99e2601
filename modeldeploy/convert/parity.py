"""The parity gate: both models are asked for the same rows, and for the same rows with gaps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from modeldeploy.convert import gaps
from modeldeploy.convert.report import Check, Output
from modeldeploy.convert.timing import Ask
from modeldeploy.packaging.golden import same
from modeldeploy.values.model import Signature
from modeldeploy.values.tolerance import Tolerance

PROBABILITY = "probability"
SAMPLE, GAPPED = "the sample", "the sample with gaps"
COARSE = 0.1
"""Of the spread of an output's numbers, from their first to their last hundredth."""
_NARROW = 4
_MATRIX = 2
_SHOWN = 60

Answers: TypeAlias = "Mapping[str, NDArray[Any]]"


@attrs.frozen(eq=False)
class Gate:
    """What both models are asked by, and how their answers are held against each other."""

    before: Ask
    after: Ask
    tolerance: Tolerance
    labels: Collection[str] = ()
    """Outputs that are compared for equality though they may be numbers."""

    def sample(self, columns: Answers) -> Check:
        """Compare the answers to these rows; what the original raises is the caller's own mistake."""
        return self._check(SAMPLE, columns, self.before(columns))

    def gapped(self, columns: Answers, signature: Signature) -> tuple[Check | None, str]:
        """Compare the answers to the copy with gaps, with a note; no check where the original takes none.

        Where the signature lets NaN or null come, a difference refuses the conversion. Elsewhere every server refuses them before a model
        sees them; what would happen is told.
        """
        named = gaps.may_be_missing(signature)
        names = named or gaps.floats(signature)
        if not names:
            return None, "no column can hold a gap"
        copy = gaps.with_gaps(columns, names)
        try:
            expected = self.before(copy)
        except Exception as error:  # noqa: BLE001 - whatever an estimator raises for NaN
            return None, _takes_none(error, nullable=bool(named))
        check = self._check(GAPPED, copy, expected, gaps=names, binding=bool(named))
        note = "" if check.passed or named else f"{_WOULD}: {check.problem}"
        return check, note

    def _check(
        self, what: str, columns: Answers, expected: Answers, *, gaps: tuple[str, ...] = (), binding: bool = True
    ) -> Check:
        rows = len(next(iter(columns.values())))
        try:
            got = self.after(columns)
        except Exception as error:  # noqa: BLE001 - whatever onnxruntime raises is the report
            failure = f"{type(error).__name__}: {error}"
            return Check(what, rows, (), gaps=gaps, binding=binding, failure=failure)
        outputs = tuple(self._output(name, expected, got) for name in expected)
        return Check(what, rows, outputs, gaps=gaps, binding=binding)

    def _output(self, name: str, expected: Answers, got: Answers) -> Output:
        if name in self.labels:
            return compare_labels(name, expected[name], got[name], even=_even(expected, self.tolerance))
        return compare_numbers(name, expected[name], got[name], self.tolerance)


_WOULD = "with gaps the models would differ, but the signature takes none and a server refuses them"


def compare_labels(
    name: str, expected: NDArray[Any], got: NDArray[Any], *, even: NDArray[np.bool_] | None = None
) -> Output:
    """Compare for equality; ``even`` marks rows where the original itself cannot tell which label is likelier."""
    if expected.shape != got.shape:
        return _other_shape(name, expected, got, labels=True)
    wrong = _by_row(expected.astype(object) != got.astype(object))
    ties = wrong & even if even is not None and even.shape == wrong.shape else np.zeros_like(wrong)
    bad = wrong & ~ties
    first = _first(bad, expected, got)
    return Output(name, labels=True, rows=len(bad), differing=int(bad.sum()), ties=int(ties.sum()), first=first)


def compare_numbers(name: str, expected: NDArray[Any], got: NDArray[Any], tolerance: Tolerance) -> Output:
    """Compare within the tolerance of the narrower type; NaN is the same as NaN."""
    if expected.shape != got.shape:
        return _other_shape(name, expected, got, labels=False)
    bad = _by_row(~same(expected, got, tolerance))
    first, largest = _first(bad, expected, got), furthest(expected, got)
    return Output(name, labels=False, rows=len(bad), differing=int(bad.sum()), largest=largest, first=first)


def compare_coarse(name: str, expected: NDArray[Any], got: NDArray[Any]) -> Output:
    """Compare what 8 bits answer: labels for equality, numbers within a tenth of their spread, and of several the largest stays the largest."""
    if expected.shape != got.shape or expected.dtype.kind != "f":
        return compare_labels(name, expected, got)
    far = np.abs(got.astype(np.float64) - expected.astype(np.float64)) > COARSE * spread(expected)
    bad = _by_row(far | ~np.isfinite(got))
    several = expected.ndim == _MATRIX and expected.shape[1] > 1
    if several:
        bad |= expected.argmax(axis=1) != got.argmax(axis=1)
    largest, first = furthest(expected, got), _first(bad, expected, got)
    return Output(name, labels=several, rows=len(bad), differing=int(bad.sum()), largest=largest, first=first)


def spread(expected: NDArray[Any]) -> float:
    """Say how far numbers reach, from their first to their last hundredth; 0 for labels."""
    finite = expected[np.isfinite(expected)] if expected.dtype.kind == "f" else np.empty(0)
    if not finite.size:
        return 0.0
    low, high = np.quantile(finite.astype(np.float64), (0.01, 0.99))
    return float(high - low)


def furthest(expected: NDArray[Any], got: NDArray[Any]) -> float | None:
    """Give the largest distance between two finite numbers; None where there are none."""
    if expected.dtype.kind not in "biuf" or got.dtype.kind not in "biuf":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    finite = apart[np.isfinite(apart)]
    return float(finite.max()) if finite.size else None


def _even(answers: Answers, tolerance: Tolerance) -> NDArray[np.bool_] | None:
    """Mark the rows whose two likeliest classes are nearer than rounding can tell."""
    likely = answers.get(PROBABILITY)
    if likely is None or likely.ndim != _MATRIX or likely.shape[1] < _MATRIX:
        return None
    second, first = np.sort(likely.astype(np.float64), axis=1)[:, -2:].T
    rtol, atol = tolerance.at(_NARROW)
    return np.asarray(first - second <= 2 * (atol + rtol * first))


def _by_row(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(values.reshape(len(values), -1).any(axis=1), dtype=bool)


def _first(bad: NDArray[np.bool_], expected: NDArray[Any], got: NDArray[Any]) -> str:
    if not bad.any():
        return ""
    row = int(np.argmax(bad))
    return f"first in row {row}: expected {_shown(expected[row])}, got {_shown(got[row])}"


def _shown(value: Any) -> str:
    text = np.array2string(value, precision=6, threshold=6) if isinstance(value, np.ndarray) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _other_shape(name: str, expected: NDArray[Any], got: NDArray[Any], *, labels: bool) -> Output:
    first = f"with shape {got.shape} instead of {expected.shape}"
    return Output(name, labels=labels, rows=len(expected), differing=len(expected), first=first)


def _takes_none(error: Exception, *, nullable: bool) -> str:
    raised = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
    if nullable:
        return f"the signature lets gaps come, but the original fails on them, so nothing could be compared: {raised}"
    return "the original takes no NaN, and neither does the signature"
