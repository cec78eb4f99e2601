"""What an agent is told when it is started."""

from __future__ import annotations

from pathlib import Path

import attrs

from modeldeploy.edge.keys import VerifyKey
from modeldeploy.edge.layout import check_device
from modeldeploy.errors import ConfigurationError
from modeldeploy.values.names import check_name

_LEAST_S = 0.01


@attrs.frozen
class Config:
    """One device; times in seconds."""

    device: str = attrs.field(validator=lambda _i, _a, value: _device(value))
    fleet: str = attrs.field(validator=lambda _i, _a, value: _fleet(value))
    home: Path
    keys: tuple[VerifyKey, ...]
    """Whose signature is believed; several while a key is being replaced."""
    port: int = 0
    """On loopback; 0 for the one that it had before, else any."""
    poll: float = 30.0
    """How often the store is asked, give or take a fifth, so that a fleet does not ask at once."""
    heartbeat: float = 300.0
    """How often a report is sent though nothing is new."""
    settle: float = 30.0
    """How long a new version must stay up until it has settled."""
    selftest: float = 60.0
    """How long the self-test of a release may take."""
    patience: float = 20.0
    """How long a model server may owe the agent an answer; then it hangs, and is replaced."""
    grace: float = 5.0
    """For requests in flight when a version goes."""

    def __attrs_post_init__(self) -> None:
        if not self.keys:
            message = "the agent has no key to check signatures with"
            raise ConfigurationError(message, hint="pass --key PUBLIC.pem")
        for name in ("poll", "heartbeat", "settle", "selftest", "patience", "grace"):
            # A poll without a pause would keep a processor busy.
            least = _LEAST_S if name in {"poll", "heartbeat"} else 0
            if not getattr(self, name) >= least:
                message = f"{name} is {getattr(self, name)!r}"
                raise ConfigurationError(message, hint=f"use a number of seconds, {least} or more")


def _device(value: str) -> None:
    check_device(value)


def _fleet(value: str) -> None:
    check_name(value, "fleet name")
