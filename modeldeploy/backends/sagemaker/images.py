"""Which image serves a bundle: the provider's prebuilt one for its flavour, or the one that the user names."""

from __future__ import annotations

import attrs


@attrs.frozen
class Image:
    """A container image and what is known about it."""

    uri: str
    python: str = ""
    """Its Python, such as ``3.12``; empty when nobody here knows."""
    prebuilt: bool = False
    """Whether it is one of the provider's, which calls the handler functions of ``code/inference.py``."""
