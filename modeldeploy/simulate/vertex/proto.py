"""The messages of the installed package, which is imported when one is first needed."""

from __future__ import annotations

from typing import Any


def v1() -> Any:
    """Give the package of the API's version 1."""
    from google.cloud import aiplatform_v1

    return aiplatform_v1


def operations() -> Any:
    """Give the messages of long-running operations."""
    from google.longrunning import operations_pb2

    return operations_pb2


def empty() -> Any:
    """Make the message that says nothing."""
    from google.protobuf import empty_pb2

    return empty_pb2.Empty()


def copy(message: Any) -> Any:
    """Copy a message, so that what a caller gets is what was so at the moment."""
    kind = type(message)
    return kind.deserialize(kind.serialize(message))


def plain(message: Any) -> Any:
    """Give the message of protobuf itself."""
    return type(message).pb(message) if hasattr(type(message), "pb") else message


def written(message: Any) -> bytes:
    """Serialize a message of either kind."""
    data: bytes = plain(message).SerializeToString()
    return data


def instant(seconds: float) -> Any:
    """Write an instant."""
    from google.protobuf import timestamp_pb2

    whole = int(seconds)
    return timestamp_pb2.Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e6) * 1000)
