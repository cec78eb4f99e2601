"""Log lines from events: through structlog if the application configured it, else through the standard logger "modeldeploy".

Nobody's logging is configured from here. Without a handler of the application's own nothing is written anywhere: structlog that is not
configured prints to stdout, and a standard logger without a handler writes warnings to stderr; an embedded library must do neither.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
from collections.abc import Mapping, MutableMapping
from typing import Any

from modeldeploy.errors import ConfigurationError
from modeldeploy.observe.redact import redacted
from modeldeploy.values.events import Event, Level

LOGGER = "modeldeploy"

_logger = logging.getLogger(LOGGER)
_logger.addHandler(logging.NullHandler())
_lock = threading.Lock()
# structlog and its processors give these a meaning of their own; a field of ours must not take their place.
_TAKEN = frozenset({"event", "exc_info", "level", "logger", "stack_info", "timestamp"})


def sink(event: Event) -> None:
    """Log one event; give it to ``Sinks``."""
    fields = {"operation": event.operation, **event.fields} if event.operation else event.fields
    write(event.name.value, event.level, fields, at=event.at)


def write(name: str, level: Level, fields: Mapping[str, Any], *, at: float | None = None) -> None:
    """Log a name and its fields, redacted. ``at``, in seconds since the epoch, is when it happened, if that is not now."""
    if _structlog_is_configured():
        import structlog

        safe = {_own_name(key): value for key, value in redacted(fields).items()}
        getattr(structlog.get_logger(LOGGER), level.value)(name, **safe)
    elif _logger.isEnabledFor(_number(level)):
        # Asked first: importing structlog takes longer than a whole deployment on this machine.
        getattr(_private(), level.value)(name, at=at, fields=redacted(fields))


def _structlog_is_configured() -> bool:
    structlog = sys.modules.get("structlog")  # who configured it has imported it
    # Half a module while another thread imports it for the first time.
    asked = getattr(structlog, "is_configured", None)
    return asked is not None and asked()


def _own_name(key: str) -> str:
    return f"{key}_" if key in _TAKEN else key


def _number(level: Level) -> int:
    return int(logging.getLevelNamesMapping()[level.value.upper()])


def _private() -> Any:
    import structlog

    return structlog.wrap_logger(
        _logger, processors=[_as_record], wrapper_class=structlog.stdlib.BoundLogger, context_class=dict
    )


def _as_record(_logger: object, _method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], dict[str, Any]]:
    name, fields = event["event"], event["fields"]
    # Formatters of the application find the parts in record.modeldeploy; the message holds them all in words.
    extra = {"modeldeploy": {"event": name, "at": event["at"], **fields}}
    return (_line(name, fields),), {"extra": extra}


def _line(name: str, fields: Mapping[str, Any]) -> str:
    return " ".join([name, *(f"{key}={_word(value)}" for key, value in fields.items())])


def _word(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and not set(text) & set(" =\"'") else repr(text)


def log_to_console(*, json: bool = False, level: str = "info") -> None:
    """Write this library's log lines to stderr, for scripts and notebooks; a second call replaces the first.

    Only the logger "modeldeploy" is touched. An application that configured structlog or logging itself needs no call of this.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        message = f"log level {level!r} is not known"
        raise ConfigurationError(message, hint=f"one of {[each.value for each in Level]}")
    console = _Console()
    console.setFormatter(_JsonLines() if json else _PlainLines())
    with _lock:
        for handler in [each for each in _logger.handlers if isinstance(each, _Console)]:
            _logger.removeHandler(handler)
        _logger.addHandler(console)
        _logger.setLevel(level.upper())


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Looked up each time: notebooks and test runners replace sys.stderr; it is None in a windowed program.
        if sys.stderr is not None:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()


class _PlainLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = _moment(record).astimezone().strftime("%H:%M:%S")
        return f"{moment} {record.levelname.lower():<7} {record.getMessage()}"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import orjson

        parts = dict(getattr(record, "modeldeploy", {"event": record.getMessage()}))
        parts.pop("at", None)
        head = {"at": _moment(record).isoformat(), "level": record.levelname.lower(), "event": parts.pop("event")}
        return orjson.dumps({**head, **parts, **head}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _moment(record: logging.LogRecord) -> dt.datetime:
    at = getattr(record, "modeldeploy", {}).get("at")
    return dt.datetime.fromtimestamp(record.created if at is None else at, tz=dt.UTC)
