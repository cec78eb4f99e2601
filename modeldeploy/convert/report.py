"""The parity report: how a converted model compares with the one that it was made of; a file of its bundle."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import orjson

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.manifest import PARITY
from modeldeploy.values.codec import from_document, to_document
from modeldeploy.values.tolerance import Tolerance

_HUNDRED = 100.0


@attrs.frozen
class Output:
    """How one output of both models compares, over the rows of one check."""

    name: str
    labels: bool
    """Whether it was compared for equality; numbers are compared within the tolerance."""
    rows: int
    differing: int
    """Rows that differ, ties not counted."""
    ties: int = 0
    """Rows whose label differs where the original itself holds both labels for equally likely, within the tolerance."""
    largest: float | None = None
    """Largest distance between two finite numbers."""
    first: str = ""
    """The first difference in words."""

    @property
    def agreement(self) -> float:
        """Share of the rows that agree, 0-1."""
        return 1.0 - self.differing / self.rows if self.rows else 1.0


@attrs.frozen
class Check:
    """Both models asked for the same rows."""

    what: str
    """Which rows: those of the sample, or their copy with gaps."""
    rows: int
    outputs: tuple[Output, ...]
    gaps: tuple[str, ...] = ()
    """Columns that hold NaN or null in this copy."""
    binding: bool = True
    """Whether a difference refuses the conversion; one that no request can bring about is told only."""
    least: float = 1.0
    """Share of the rows that must agree, 0-1."""
    failure: str = ""
    """What the converted model raised instead of an answer."""

    @property
    def passed(self) -> bool:
        """Whether the models agree."""
        return not self.failure and all(output.agreement >= self.least for output in self.outputs)

    @property
    def problem(self) -> str:
        """Say the first difference; empty when there is none."""
        if self.failure:
            return f"{self.what}: the converted model fails: {self.failure}"
        worst = next((output for output in self.outputs if output.agreement < self.least), None)
        if worst is None:
            return ""
        share = f"{worst.differing} of {worst.rows} rows ({_HUNDRED * (1 - worst.agreement):.3g} %)"
        largest = "" if worst.largest is None else f"; largest difference {worst.largest:.3g}"
        return f"{self.what}: {worst.name} differs in {share}, {worst.first}{largest}"


@attrs.frozen
class Side:
    """What was measured of one of the two models, in this process with one thread for ONNX."""

    what: str
    size: int
    """Bytes of its artifacts."""
    one_row_ms: float
    """Median time of a prediction for one row."""
    batch_ms: float
    """Median time of a prediction for ``batch_rows`` rows."""
    score: float | None = None
    """Against the labels that were given; see ``ParityReport.metric``."""


@attrs.frozen
class Cpu:
    """The processor that a report was made on: whole-number arithmetic in 8 bits differs between processors."""

    machine: str
    model: str
    features: tuple[str, ...]
    """The extensions that decide how 8-bit numbers are multiplied, as the system names them."""


@attrs.frozen
class ParityReport:
    """How a converted model compares with its original; the conversion was refused unless every binding check passed.

    Times are of this one machine at that moment, and say nothing about a device.
    """

    source: str
    """Digest of the model that it was made of."""
    kind: str
    """What was done: ``onnx``, ``int8 dynamic`` or ``int8 static``."""
    settings: Mapping[str, str]
    """By which settings; the same conversion again is recognised by them."""
    tolerance: Tolerance
    checks: tuple[Check, ...]
    before: Side
    after: Side
    batch_rows: int
    cpu: Cpu
    versions: Mapping[str, str]
    metric: str = ""
    """What ``score`` is: ``accuracy``, or ``rmse`` (root of the mean squared error); empty when no labels were given."""
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every binding check passed."""
        return all(check.passed for check in self.checks if check.binding)

    @property
    def problem(self) -> str:
        """Say the first difference of a binding check; empty when there is none."""
        return next((check.problem for check in self.checks if check.binding and not check.passed), "")

    def to_bytes(self) -> bytes:
        """Write it as the file of a bundle."""
        return orjson.dumps(to_document(self), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> ParityReport:
        """Read what ``to_bytes`` wrote; IntegrityError when it is something else."""
        try:
            return from_document(cls, orjson.loads(data))
        except (orjson.JSONDecodeError, ConfigurationError) as error:
            message = f"the parity report cannot be read: {error}"
            raise IntegrityError(message, hint="the bundle is damaged; convert the model again") from error

    def __str__(self) -> str:
        from modeldeploy.convert.view import text

        return text(self)

    def _repr_html_(self) -> str:
        from modeldeploy.convert.view import html

        return html(self)


def read(bundle: Bundle) -> ParityReport | None:
    """Read the report of a bundle; None when it was not converted here."""
    return ParityReport.from_bytes(bundle.read(PARITY)) if PARITY in bundle.manifest.files else None
