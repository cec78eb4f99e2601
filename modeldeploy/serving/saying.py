"""What processes that serve have to say, by the standard library's loggers, which are imported when there is something to say."""

from __future__ import annotations

from typing import Any


class Log:
    """Stands for the logger of a module; whoever starts without trouble never imports it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, level: str) -> Any:
        import logging

        return getattr(logging.getLogger(self._name), level)
