"""What a device says of itself when it can: which revision runs, which one failed, and how far it has followed the desired state.

Reports are plain, not signed: nothing is ever installed or trusted because of one. Who may write them is the store's affair (a token of
the hub, the rights of a bucket). A device that lies could sign its lies; one that lies about another can hold a rollout up, or hide a
failure of that device from the health gate, so give each device the right to write its own report only where that matters.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs
import orjson

from modeldeploy.edge.layout import check_device
from modeldeploy.errors import IntegrityError, ModelDeployError
from modeldeploy.values.codec import from_document, to_document


class Health(enum.StrEnum):
    """How a device is."""

    OK = "ok"
    FAILED = "failed"


@attrs.frozen
class Report:
    """One device at one moment."""

    device: str = attrs.field(validator=lambda _i, _a, value: _checked(value))
    fleet: str
    running: str | None
    """The revision that answers on this device; None before the first."""
    sequence: int
    """The newest desired state that the device has carried out, or tried to; 0 before the first."""
    health: Health
    """``failed`` when what it last tried failed its self-test or kept dying, or when nothing answers."""
    failed_revision: str | None = None
    """What was tried and did not stay."""
    note: str = ""
    """Why, in one sentence; also what was refused, and by which rule."""
    settled: bool = True
    """Whether what runs has stayed up for its trial; until then the device may still go back by itself."""
    answers: int = 0
    """Predictions that what runs has given since it started."""
    errors: int = 0
    """Those that failed by the model's fault."""
    at: float = 0.0
    """Seconds since 1970 by the device's clock."""
    versions: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """``python``, ``modeldeploy``, ``onnxruntime``, ``numpy`` and ``machine``, as they run there."""

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        return orjson.dumps(to_document(self), option=orjson.OPT_SORT_KEYS) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Report:
        """Read what ``to_bytes`` wrote; IntegrityError when it is something else."""
        try:
            return from_document(cls, orjson.loads(data))
        except (orjson.JSONDecodeError, ModelDeployError) as error:
            message = f"the report of a device cannot be read: {error}"
            raise IntegrityError(message, hint="it is damaged; the device writes it anew at its next report") from error


def _checked(device: str) -> None:
    check_device(device)
