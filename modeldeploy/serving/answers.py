"""Heads of answers, written once for all that share them."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from modeldeploy.serving.messages import Response

_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class AnswerHeads:
    """Writes heads; whoever has it says once a second that time passes."""

    def __init__(self) -> None:
        self.tick()

    def tick(self) -> None:
        """Take a new date from now on."""
        self._date = formatdate(usegmt=True)
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
