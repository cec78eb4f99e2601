"""The conformance suite of backends that serve endpoints: all that can be rolled out on, and what a request meets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modeldeploy.errors import ConflictError, InvalidRequestError, NotFoundError, UnsupportedError
from modeldeploy.spi import Logs, Meters
from modeldeploy.testing import expect
from modeldeploy.testing.harness import Harness
from modeldeploy.testing.rollable import NOWHERE, RollableConformance
from modeldeploy.values.serving import Traffic

_REQUESTS = 100


class ServingConformance(RollableConformance):
    """The rules of the service provider interface, traffic, capabilities, invocation, metrics and logs."""

    def test_it_declares_that_it_serves(self, harness: Harness) -> None:
        """Whoever asks for an endpoint looks at this first."""
        assert harness.backend.capabilities.serving

    def test_only_errors_of_this_library_leave_a_call(self, harness: Harness) -> None:
        """Callers decide by error class, too."""
        spec = harness.deploy(harness.revisions[0])
        backend = harness.backend
        calls: list[Callable[[], object]] = [
            lambda: backend.invoke("x" * 300, harness.payload, timeout=expect.TIMEOUT),
            lambda: backend.invoke(spec.name, harness.payload, timeout=0),
            lambda: backend.invoke(spec.name, harness.payload, revision="\r\n", timeout=expect.TIMEOUT),
        ]
        expect.only_our_errors(calls)

    def test_an_unknown_endpoint_answers_nobody(self, harness: Harness) -> None:
        """The caller is told that there is no such endpoint."""
        with pytest.raises(NotFoundError):
            harness.backend.invoke(NOWHERE, harness.payload, timeout=expect.TIMEOUT)

    # Capabilities, both ways

    def test_copies_work_as_declared_and_are_refused_otherwise(self, harness: Harness) -> None:
        """Shadow entries are part of the table: kept as they are, and never answered to the caller."""
        first, second = harness.revisions[:2]
        spec, shadow = harness.deploy(first, second), harness.backend.capabilities.shadow
        if shadow is None:
            table = Traffic({first.id: 100}, shadow={second.id: 10})
            expect.unsupported(harness, "shadow", lambda: harness.backend.set_traffic(spec.name, table))
            return
        table = Traffic({first.id: 100}, shadow={second.id: shadow.max_percent})
        harness.route(spec, table)
        assert harness.state(spec).traffic.same_as(table), "the copies are not in the table"
        assert expect.answering(harness, spec, 10) <= {first.id}
        expect.refused(harness, ConflictError, lambda: harness.backend.drop_revision(spec.name, second.id))
        if shadow.max_percent < 100:  # noqa: PLR2004 - percent
            more = Traffic({first.id: 100}, shadow={second.id: shadow.max_percent + 1})
            expect.unsupported(harness, "shadow", lambda: harness.backend.set_traffic(spec.name, more))

    def test_a_pinned_call_reaches_its_revision_or_is_refused(self, harness: Harness) -> None:
        """Golden outputs are held against the new revision before it takes traffic, which needs the pin."""
        first, second = harness.revisions[:2]
        spec, backend = harness.deploy(first, second), harness.backend
        if not backend.capabilities.pinned_invoke:
            with pytest.raises(UnsupportedError):
                backend.invoke(spec.name, harness.payload, revision=second.id, timeout=expect.TIMEOUT)
            return
        for revision in (second, first):
            answer = backend.invoke(spec.name, harness.payload, revision=revision.id, timeout=expect.TIMEOUT)
            assert answer.headers.get("modeldeploy-revision") == revision.id
        with pytest.raises(NotFoundError):
            backend.invoke(spec.name, harness.payload, revision=NOWHERE, timeout=expect.TIMEOUT)

    # Invocation, metrics, logs

    def test_requests_follow_the_table(self, harness: Harness) -> None:
        """Who answers is whom the table names, where the answer tells it."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        assert expect.answering(harness, spec, 10) <= {first.id}
        if harness.backend.capabilities.split > 1:
            harness.route(spec, Traffic({first.id: 50, second.id: 50}))
            assert expect.answering(harness, spec, _REQUESTS) in ({first.id, second.id}, set())
        harness.route(spec, Traffic.all_to(second.id))
        assert expect.answering(harness, spec, 10) <= {second.id}

    def test_a_request_that_is_no_request_is_the_callers_mistake(self, harness: Harness) -> None:
        """A time-out that is no time is refused, whoever notices it."""
        spec = harness.deploy(harness.revisions[0])
        with pytest.raises(InvalidRequestError):
            harness.backend.invoke(spec.name, harness.payload, timeout=-1)

    def test_metrics_count_every_answer_or_are_refused(self, harness: Harness) -> None:
        """Gates decide by these figures."""
        first, second = harness.revisions[:2]
        spec, backend = harness.deploy(first, second), harness.backend
        if not backend.capabilities.meters:
            expect.absent(backend, Meters, lambda meters: meters.window(spec.name, first.id, 0.0, 1.0))
            return
        assert isinstance(backend, Meters)
        since = harness.clock.now() - 1.0
        for _request in range(10):
            backend.invoke(spec.name, harness.payload, timeout=expect.TIMEOUT)
        assert harness.wait(lambda: backend.window(spec.name, first.id, since, harness.clock.now()).requests == 10)  # noqa: PLR2004
        found = backend.window(spec.name, first.id, since, harness.clock.now())
        assert (found.revision, found.errors, sum(found.latency.values())) == (first.id, 0, 10)
        assert backend.window(spec.name, second.id, since, harness.clock.now()).requests == 0
        assert backend.window(spec.name, first.id, since - 100, since - 50).requests == 0

    def test_logs_are_read_or_refused(self, harness: Harness) -> None:
        """The last lines, oldest first, no more than asked for."""
        first = harness.revisions[0]
        spec, backend = harness.deploy(first), harness.backend
        if not backend.capabilities.logs:
            expect.absent(backend, Logs, lambda logs: list(logs.lines(spec.name, first.id, since=0.0, limit=5)))
            return
        assert isinstance(backend, Logs)
        lines = list(backend.lines(spec.name, first.id, since=0.0, limit=5))
        assert len(lines) <= 5  # noqa: PLR2004 - the limit asked for
        assert [line.at for line in lines] == sorted(line.at for line in lines)
        assert list(backend.lines(spec.name, first.id, since=0.0, limit=0)) == []
