"""What can be set for a revision on Greengrass; everything else is refused by name."""

from __future__ import annotations

from typing import ClassVar

import attrs

from modeldeploy.backends.options import Options, check_range, refuse

INSTALL, PRESENT = "install", "present"


@attrs.frozen(eq=True)
class GreengrassOptions(Options):
    """Options of a revision."""

    backend: ClassVar[str] = "greengrass"

    port: int = 8080
    """The port of the device's loopback on which the model answers."""
    python: str = "python3"
    """The interpreter on the device."""
    libraries: str = INSTALL
    """``install``: into an environment of the component's own, from the package index that the device is set up for; ``present``: they are there."""
    install_timeout: int = 900
    """Seconds that installing and the self-test may take on the device."""

    def __attrs_post_init__(self) -> None:
        check_range("port", self.port, 1, 65_535)
        check_range("install_timeout", self.install_timeout, 10, 86_400)
        if self.libraries not in {INSTALL, PRESENT}:
            refuse("libraries", self.libraries, f"use {INSTALL!r} or {PRESENT!r}")
        if not self.python or any(sign in self.python for sign in "\"'`$;|&<>\n "):
            refuse("python", self.python, "name an interpreter or its path, without spaces")
