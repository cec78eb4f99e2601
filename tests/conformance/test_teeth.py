"""The suite has teeth: each fault that is put into the reference backend is caught, by the test that is there for it."""

from __future__ import annotations

import inspect

import attrs
import pytest

from modeldeploy.backends.memory import MemoryBackend
from modeldeploy.errors import ConflictError, NotFoundError, UnavailableError
from modeldeploy.testing.batch import BatchConformance
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.serving import Traffic
from modeldeploy.values.ticket import Action, Phase


class IgnoresExpect(MemoryBackend):
    def _aim(self, endpoint, wanted, expect):
        super()._aim(endpoint, wanted, None)


class ChecksExpectOnlyAtTheStart(IgnoresExpect):
    def set_traffic(self, endpoint, traffic, *, expect=None):
        if expect is not None and self.observe(endpoint).version != expect:
            raise ConflictError("stale")
        return super().set_traffic(endpoint, traffic, expect=expect)


class CreatesAgain(MemoryBackend):
    """A put that is not idempotent: a repeated start makes the revision anew."""

    def _create(self, spec, revision):
        endpoint = self._endpoints.get(spec.name)
        if endpoint is not None and revision.id in endpoint.members and len(endpoint.members) > 1:
            del endpoint.members[revision.id]
        super()._create(spec, revision)


class WritesTheTableAgain(MemoryBackend):
    """A repeated advance repeats its write."""

    def _aim(self, endpoint, wanted, expect):
        if endpoint.target.same_as(wanted):
            self._write("set-traffic", endpoint.spec.name, "again")
        super()._aim(endpoint, wanted, expect)


class RefusesItsOwnWrite(MemoryBackend):
    """A repeated start with ``expect`` meets the version that its own first write made."""

    def _aim(self, endpoint, wanted, expect):
        if expect is not None and expect != endpoint.version:
            raise ConflictError("stale")
        super()._aim(endpoint, wanted, expect)


class DropsShadows(MemoryBackend):
    def _aim(self, endpoint, wanted, expect):
        super()._aim(endpoint, Traffic(wanted.weights), expect)


class ChecksNoCapability(MemoryBackend):
    def set_traffic(self, endpoint, traffic, *, expect=None):
        declared, self.capabilities = self.capabilities, Capabilities(serving=True, split=100)
        try:
            return super().set_traffic(endpoint, traffic, expect=expect)
        finally:
            self.capabilities = declared


class RefusesTooLate(MemoryBackend):
    """The capability is checked by the advance, after other work was begun."""

    def set_traffic(self, endpoint, traffic, *, expect=None):
        ticket = MemoryBackend(capabilities=attrs.evolve(self.capabilities, split=100))
        ticket._endpoints = self._endpoints
        return ticket.set_traffic(endpoint, traffic, expect=expect)


class VersionNeverMoves(MemoryBackend):
    def observe(self, endpoint):
        state = super().observe(endpoint)
        return state and attrs.evolve(state, version="1")


class VersionMovesByItself(MemoryBackend):
    def observe(self, endpoint):
        if endpoint in self._endpoints:
            self._endpoints[endpoint].changes += 1
        return super().observe(endpoint)


class StartsWithAWrite(MemoryBackend):
    def put_revision(self, endpoint, revision):
        ticket = super().put_revision(endpoint, revision)
        self._create(endpoint, revision)
        return ticket


class CountsOnlyReports(MemoryBackend):
    """Success is what the provider said, not what is there."""

    def _advance_traffic(self, ticket):
        moved = super()._advance_traffic(ticket)
        reported = moved.phase is Phase.FAILED
        return attrs.evolve(moved, phase=Phase.SUCCEEDED, note="") if reported else moved


class ReportsTooEarly(MemoryBackend):
    def _advance_put(self, ticket):
        moved = super()._advance_put(ticket)
        return attrs.evolve(moved, phase=Phase.SUCCEEDED) if moved.step == "creating" else moved


class ObservesAFrozenState(MemoryBackend):
    """A cache: what was seen first is what is seen ever after."""

    def observe(self, endpoint):
        self._seen = getattr(self, "_seen", {})
        if self._seen.get(endpoint) is None:
            self._seen[endpoint] = super().observe(endpoint)
        return self._seen[endpoint]


class RaisesAnotherClass(MemoryBackend):
    def _found(self, name):
        if name not in self._endpoints:
            raise UnavailableError("not there")
        return super()._found(name)


class LetsBuiltinErrorsOut(MemoryBackend):
    def invoke(self, endpoint, payload, *, revision=None, timeout):
        return super().invoke(self._endpoints[endpoint].spec.name, payload, revision=revision, timeout=timeout)


class DropsWithTraffic(MemoryBackend):
    def _refuse_used(self, name, revision):
        """Refuse nothing."""


class DropsWithTrafficThatCameLater(MemoryBackend):
    def _advance_drop_revision(self, ticket):
        kept, self._refuse_used = self._refuse_used, lambda *_names: None
        try:
            return super()._advance_drop_revision(ticket)
        finally:
            self._refuse_used = kept


class FailsToDropWhatIsGone(MemoryBackend):
    def _advance_drop_endpoint(self, ticket):
        if ticket.target not in self._endpoints:
            raise NotFoundError("gone")
        return super()._advance_drop_endpoint(ticket)


class GivesTrafficToNewcomers(MemoryBackend):
    def _welcome(self, endpoint):
        super()._welcome(endpoint)
        endpoint.traffic = Traffic.all_to(list(endpoint.members)[-1])


class ForgetsAnEndpointsContent(MemoryBackend):
    """An id may stand for two contents."""

    def _refuse_other_content(self, name, revision):
        """Refuse nothing."""


class IgnoresThePin(MemoryBackend):
    def _route(self, name, pinned):
        return super()._route(name, None)


class HasAnotherShape(MemoryBackend):
    def set_traffic(self, endpoint, table, *, expect=None):
        return super().set_traffic(endpoint, table, expect=expect)


class CountsNothing(MemoryBackend):
    def _count(self, endpoint, revision, answer, share, key):
        """Count nothing."""


class MovesAnEndedTicket(MemoryBackend):
    def advance(self, ticket):
        return attrs.evolve(super().advance(ticket), note=ticket.note + "looked again ")


class ForgetsTheTicketOfAJob(MemoryBackend):
    """Scores again when the name is asked for again."""

    def _refuse_other_job(self, job):
        self._jobs.pop(job.name, None)


class LosesFlightsOnResume(MemoryBackend):
    """A table in flight is forgotten when another driver asks for it again."""

    def _aim(self, endpoint, wanted, expect):
        if endpoint.pending is not None and endpoint.pending.same_as(wanted):
            endpoint.pending = None
            return
        super()._aim(endpoint, wanted, expect)


LITTLE = {"capabilities": Capabilities(serving=True)}
# Fault, the suite, the test that must catch it, how the backend is made.
FAULTS = [
    (IgnoresExpect, ServingConformance, "test_a_table_is_written_only_over_the_version_that_was_expected", {}),
    (ChecksExpectOnlyAtTheStart, ServingConformance, "test_a_version_that_moves_after_the_start_is_noticed_at_the_write", {}),
    (CreatesAgain, ServingConformance, "test_an_answer_lost_after_the_first_write_does_no_harm", {}),
    (WritesTheTableAgain, ServingConformance, "test_every_step_may_be_repeated_from_stored_tickets", {}),
    (RefusesItsOwnWrite, ServingConformance, "test_an_answer_lost_after_the_first_write_does_no_harm", {}),
    (DropsShadows, ServingConformance, "test_copies_work_as_declared_and_are_refused_otherwise", {}),
    (ChecksNoCapability, ServingConformance, "test_a_split_works_as_far_as_declared_and_is_refused_beyond", LITTLE),
    (RefusesTooLate, ServingConformance, "test_a_split_works_as_far_as_declared_and_is_refused_beyond", LITTLE),
    (VersionNeverMoves, ServingConformance, "test_the_version_changes_with_every_change_and_only_then", {}),
    (VersionMovesByItself, ServingConformance, "test_the_version_changes_with_every_change_and_only_then", {}),
    (StartsWithAWrite, ServingConformance, "test_starting_changes_nothing", {}),
    (CountsOnlyReports, ServingConformance, "test_a_table_that_was_put_back_meanwhile_is_no_success", {}),
    (ReportsTooEarly, ServingConformance, "test_success_means_that_the_revision_is_there_and_ready", {}),
    (ObservesAFrozenState, ServingConformance, "test_success_means_that_the_table_holds", {}),
    (RaisesAnotherClass, ServingConformance, "test_an_unknown_endpoint_is_observed_as_none_and_otherwise_not_found", {}),
    (LetsBuiltinErrorsOut, ServingConformance, "test_only_errors_of_this_library_leave_a_call", {}),
    (DropsWithTraffic, ServingConformance, "test_a_revision_with_traffic_is_not_dropped", {}),
    (DropsWithTrafficThatCameLater, ServingConformance, "test_a_revision_with_traffic_is_not_dropped", {}),
    (FailsToDropWhatIsGone, ServingConformance, "test_dropping_what_is_gone_is_success", {}),
    (GivesTrafficToNewcomers, ServingConformance, "test_the_first_revision_takes_everything_and_later_ones_nothing", {}),
    (ForgetsAnEndpointsContent, ServingConformance, "test_other_content_under_a_known_revision_is_a_conflict", {}),
    (IgnoresThePin, ServingConformance, "test_a_pinned_call_reaches_its_revision_or_is_refused", {}),
    (HasAnotherShape, ServingConformance, "test_its_methods_have_the_shape_of_the_protocols", {}),
    (CountsNothing, ServingConformance, "test_metrics_count_every_answer_or_are_refused", {}),
    (MovesAnEndedTicket, ServingConformance, "test_an_ended_ticket_comes_back_unchanged", {}),
    (ForgetsTheTicketOfAJob, BatchConformance, "test_the_same_job_again_is_the_same_job_and_another_is_a_conflict", {}),
]  # fmt: skip


def caught_by(suite, harness_of, backend_class, options):
    """Run every test of a suite against a fresh backend and name those that fail."""
    caught = set()
    for name, test in inspect.getmembers(suite, inspect.isfunction):
        parameters = inspect.signature(test).parameters
        if not name.startswith("test_") or "harness" not in parameters:
            continue
        try:
            test(suite(), harness_of(backend_class, **options))
        except pytest.skip.Exception:
            continue
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - whatever fails a test
            caught.add(name)
    return caught


@pytest.mark.parametrize(
    ("fault", "suite", "test", "options"),
    FAULTS,
    ids=[f"{fault.__name__}-{suite.__name__}" for fault, suite, *_ in FAULTS],
)
def test_a_fault_is_caught_by_the_test_that_is_there_for_it(fault, suite, test, options, harness_of):
    assert test in caught_by(suite, harness_of, fault, options)


@pytest.mark.parametrize("suite", [ServingConformance, BatchConformance])
@pytest.mark.parametrize("options", [{}, LITTLE], ids=["everything", "little"])
def test_a_backend_without_fault_is_caught_by_none(suite, options, harness_of):
    assert caught_by(suite, harness_of, MemoryBackend, options) == set()


def test_every_test_of_the_serving_suite_can_fail(harness_of):
    """Not one of them passes whatever a backend does."""

    class Nothing(MemoryBackend):
        """Starts well, and then does not a thing."""

        def advance(self, ticket):
            return ticket if ticket.action is Action.PUT_JOB else attrs.evolve(ticket, phase=Phase.FAILED)

    every = {name for name in dir(ServingConformance) if name.startswith("test_")}
    of_form = {
        "test_its_methods_have_the_shape_of_the_protocols",
        "test_it_says_who_and_where_it_is",
        "test_its_capabilities_are_plain_data",
        "test_a_ticket_says_what_is_wanted",
        "test_there_is_no_endpoint_before_its_first_revision",
        "test_an_ended_ticket_comes_back_unchanged",
        "test_an_unknown_endpoint_is_observed_as_none_and_otherwise_not_found",
        "test_an_unknown_endpoint_answers_nobody",
        "test_it_declares_that_it_serves",
        "test_standard_tests_are_replaced_only_as_expected_failures",
    }
    assert every - caught_by(ServingConformance, harness_of, Nothing, {}) <= of_form


def test_a_standard_test_is_replaced_only_as_an_expected_failure():
    class Cheating(ServingConformance):
        def test_starting_changes_nothing(self):
            """Pass."""

    class Honest(ServingConformance):
        @pytest.mark.xfail(reason="the provider writes when it validates")
        def test_starting_changes_nothing(self):
            """Fail."""

    class WithoutReason(ServingConformance):
        @pytest.mark.xfail
        def test_starting_changes_nothing(self):
            """Fail."""

    with pytest.raises(AssertionError, match="test_starting_changes_nothing"):
        Cheating().test_standard_tests_are_replaced_only_as_expected_failures()
    with pytest.raises(AssertionError, match="test_starting_changes_nothing"):
        WithoutReason().test_standard_tests_are_replaced_only_as_expected_failures()
    Honest().test_standard_tests_are_replaced_only_as_expected_failures()
