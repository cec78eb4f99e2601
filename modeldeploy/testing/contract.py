"""Checks of form: a backend's methods against the protocols, a suite's overrides against the rule for them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from modeldeploy import spi
from modeldeploy.values.capability import Capabilities

_NEEDS = {"serving": spi.Serving, "edge": spi.Edge, "batch": spi.Batch, "meters": spi.Meters, "logs": spi.Logs}


def protocols(capabilities: Capabilities) -> list[type]:
    """Give the protocols that a backend with these capabilities must have."""
    return [spi.Backend, *(protocol for name, protocol in _NEEDS.items() if getattr(capabilities, name))]


def problems(backend: object, capabilities: Capabilities) -> list[str]:
    """Say where a backend's methods differ from the protocols: missing, or with other parameters."""
    return [
        problem
        for protocol in protocols(capabilities)
        for name, wanted in _methods(protocol)
        for problem in _compare(backend, name, wanted)
    ]


def _methods(protocol: type) -> Iterator[tuple[str, inspect.Signature]]:
    for cls in protocol.__mro__:
        for name, member in vars(cls).items():
            if name.startswith("_") or cls.__module__ != spi.__name__:
                continue
            function = member.__func__ if isinstance(member, classmethod) else member
            if inspect.isfunction(function):
                yield name, _without_self(inspect.signature(function))


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def _compare(backend: object, name: str, wanted: inspect.Signature) -> Iterator[str]:
    method = getattr(backend, name, None)
    if not callable(method):
        yield f"{name} is missing"
        return
    found = inspect.signature(method).parameters
    for parameter in wanted.parameters.values():
        given = found.get(parameter.name)
        if given is None or given.kind is not parameter.kind:
            yield f"{name}: parameter {parameter.name!r} is not there as {parameter.kind.description}"
        elif given.default != parameter.default:
            yield f"{name}: parameter {parameter.name!r} has default {given.default!r}, not {parameter.default!r}"
    for extra in found.values():
        optional = extra.default is not extra.empty or extra.kind in {extra.VAR_POSITIONAL, extra.VAR_KEYWORD}
        if extra.name not in wanted.parameters and not optional:
            yield f"{name}: parameter {extra.name!r} is required and unknown to the engine"


def overridden(suite: type) -> list[str]:
    """Name the standard tests that a subclass replaced without marking them ``xfail`` with a reason."""
    standard = {
        name
        for cls in suite.__mro__
        if cls.__module__.startswith("modeldeploy.testing.")
        for name in vars(cls)
        if name.startswith("test_")
    }
    own = [cls for cls in suite.__mro__ if not cls.__module__.startswith("modeldeploy.testing.") and cls is not object]
    replaced = {name: vars(cls)[name] for cls in reversed(own) for name in vars(cls) if name in standard}
    return sorted(name for name, test in replaced.items() if not _expected_to_fail(test))


def _expected_to_fail(test: object) -> bool:
    marks = getattr(test, "pytestmark", [])
    return any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks)


class Conformance:
    """What every suite has: override the fixture ``harness``, nothing else.

    A standard test that cannot pass yet may be replaced by one marked ``pytest.mark.xfail(reason=...)``, and only so.
    """

    def test_standard_tests_are_replaced_only_as_expected_failures(self) -> None:
        """Replacing a standard test silently would be a way to pass without conforming."""
        assert overridden(type(self)) == []
