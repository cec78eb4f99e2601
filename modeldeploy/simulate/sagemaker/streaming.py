"""The binary event stream in which answers are sent part by part."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable, Iterator, Mapping

import orjson

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7
_OVERHEAD = 16


def events(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Frame the parts of a body; a container that breaks off ends the stream with a ModelStreamError."""
    try:
        for part in parts:
            yield _frame(
                {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"},
                part,
            )
    except OSError:
        body = orjson.dumps({"Message": "The connection to the model was closed.", "ErrorCode": "StreamBroken"})
        yield _frame(
            {":message-type": "exception", ":exception-type": "ModelStreamError", ":content-type": "application/json"},
            body,
        )


def _frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", len(encoded) + len(payload) + _OVERHEAD, len(encoded))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + encoded + payload
    return message + struct.pack("!I", binascii.crc32(message))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(text)) + text
