"""The number of the form in which values are stored."""

from __future__ import annotations

SCHEMA = 1
"""Written into every stored document; a document with another number is refused, never guessed at."""
