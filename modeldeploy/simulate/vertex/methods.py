"""Which methods there are, with their requests: read off the installed package's own transports, and nothing copied by hand."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from modeldeploy.simulate.vertex import proto

SERVICES = ("ModelService", "EndpointService", "PredictionService", "JobService")
OPERATIONS = "Operations"
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@attrs.frozen
class Method:
    """One method of a service; ``streams`` when it answers with a stream."""

    service: str
    name: str
    path: str
    read: Callable[[bytes], Any]
    streams: bool = False

    @property
    def handler(self) -> str:
        """The name of the function that answers it.

        >>> Method("ModelService", "UploadModel", "/x", bytes).handler
        'upload_model'
        """
        return _WORD.sub("_", self.name).lower()


@functools.cache
def methods() -> tuple[Method, ...]:
    """Give every method of the services, and those of long-running operations."""
    found = [method for service in SERVICES for method in _of_service(service)]
    return (*found, *_of_operations())


def _of_service(service: str) -> Iterator[Method]:
    """Ask a transport for all of its calls, over a channel that only takes notes."""
    transport = getattr(proto.v1(), f"{service}Client").get_transport_class("grpc")
    notes = _recorder()
    made = transport(channel=notes)
    # What logs requests stands between the two and asks the channel only when a call is made.
    made._logged_channel, made._stubs = notes, {}  # noqa: SLF001
    for name in dir(transport):
        if not name.startswith("_") and isinstance(getattr(transport, name), property):
            getattr(made, name)
    for path, (request, asks_one, streams) in notes.seen.items():
        _, owner, name = path.split("/")
        # What all services share is described by protobuf itself, see below.
        if owner.rpartition(".")[2] == service and asks_one:
            yield Method(service, name, path, request.deserialize, streams)


def _of_operations() -> Iterator[Method]:
    from google.protobuf import message_factory

    service = proto.operations().DESCRIPTOR.services_by_name[OPERATIONS]
    for method in service.methods:
        request = message_factory.GetMessageClass(method.input_type)
        yield Method(OPERATIONS, method.name, f"/{service.full_name}/{method.name}", request.FromString)


def _recorder() -> Any:
    """Make a channel that remembers what it was asked for: by path the request's class, whether one is sent, and whether answers stream."""
    import grpc

    seen: dict[str, tuple[Any, bool, bool]] = {}

    def noting(*, asks_one: bool, streams: bool) -> Callable[..., Any]:
        def note(
            _self: Any, path: str, request_serializer: Any = None, *_more: Any, **_named: Any
        ) -> Callable[..., None]:
            seen[path] = getattr(request_serializer, "__self__", None), asks_one, streams
            return _nothing

        return note

    calls = {
        "unary_unary": noting(asks_one=True, streams=False),
        "unary_stream": noting(asks_one=True, streams=True),
        "stream_unary": noting(asks_one=False, streams=False),
        "stream_stream": noting(asks_one=False, streams=True),
    }
    rest = dict.fromkeys(("subscribe", "unsubscribe", "close", "__enter__", "__exit__"), _nothing)
    return type("Recorder", (grpc.Channel,), {**calls, **rest, "seen": seen})()


def _nothing(*_args: Any, **_named: Any) -> None:
    """Stand for a call."""
