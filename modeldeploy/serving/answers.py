"""Heads of answers, written once for all that share them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

from modeldeploy.serving.messages import Response

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}

# In English whatever the locale; what the standard library has for it takes four milliseconds to import.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(at: float) -> str:
    """Write a moment, in seconds since the epoch, as HTTP dates do (RFC 9110, 5.6.7).

    >>> http_date(784111777)
    'Sun, 06 Nov 1994 08:49:37 GMT'
    """
    now = time.gmtime(at)
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    return f"{_DAYS[now.tm_wday]}, {now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {now.tm_year:04} {clock} GMT"


class AnswerHeads:
    """Writes heads; whoever has it says once a second that time passes."""

    def __init__(self) -> None:
        self.tick()

    def tick(self) -> None:
        """Take a new date from now on."""
        self._date = http_date(time.time())
        self._last: tuple[int, Mapping[str, str], bytes] = (0, {}, b"")

    def before_length(self, answer: Response) -> bytes:
        """Write the head of an answer up to its length; answers that share their headers come one after another."""
        status, headers, written = self._last
        if headers is not answer.headers or status != answer.status:
            line = _LINES.get(answer.status) or f"HTTP/1.1 {answer.status} \r\n"
            fields = "".join([f"{key}: {value}\r\n" for key, value in answer.headers.items()])
            written = f"{line}{fields}date: {self._date}\r\ncontent-length: ".encode("latin-1", "replace")
            self._last = answer.status, answer.headers, written
        return written
