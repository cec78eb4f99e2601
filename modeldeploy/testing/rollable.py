"""The conformance suite of all backends that can be rolled out on: the rules of ``modeldeploy.spi``, one test for each consequence.

A capability that is declared must work; one that is not must be refused before anything is written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import attrs
import pytest

from modeldeploy.errors import ConflictError, NotFoundError
from modeldeploy.spi import Identity
from modeldeploy.testing import expect
from modeldeploy.testing.contract import Conformance, problems
from modeldeploy.testing.harness import Harness, through_json
from modeldeploy.values.capability import Capabilities
from modeldeploy.values.codec import from_json, to_json
from modeldeploy.values.serving import EndpointSpec, EndpointState, Revision, Traffic
from modeldeploy.values.ticket import Phase, Ticket

NOWHERE = "no-such-thing"


class RollableConformance(Conformance):
    """Rules 1 to 6 of the service provider interface, compare-and-set, and tables, for endpoints and for fleets of devices."""

    # Form

    def test_its_methods_have_the_shape_of_the_protocols(self, harness: Harness) -> None:
        """The engine calls by the protocols' parameters."""
        assert problems(harness.backend, harness.backend.capabilities) == []

    def test_it_says_who_and_where_it_is(self, harness: Harness) -> None:
        """``check`` writes nothing and names the backend."""
        before = harness.fingerprint()
        identity = harness.backend.check()
        assert isinstance(identity, Identity)
        assert identity.backend == harness.backend.name
        assert harness.fingerprint() == before

    def test_its_capabilities_are_plain_data(self, harness: Harness) -> None:
        """They are shown in tables and stored beside plans."""
        capabilities = harness.backend.capabilities
        assert from_json(Capabilities, to_json(capabilities)) == capabilities
        assert capabilities.serving or capabilities.edge

    # Rule 1: starting changes nothing

    def test_starting_changes_nothing(self, harness: Harness) -> None:
        """A ticket must be in the journal before the first write."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        new, backend = harness.endpoint(), harness.backend
        starts: list[Callable[[], Ticket]] = [
            lambda: backend.put_revision(new, first),
            lambda: backend.put_revision(spec, second),
            lambda: backend.set_traffic(spec.name, Traffic.all_to(first.id)),
            lambda: backend.drop_revision(spec.name, second.id),
            lambda: backend.drop_endpoint(spec.name),
        ]
        for start in starts:
            before = harness.fingerprint()
            ticket = start()
            assert harness.fingerprint() == before, f"starting {ticket.action.value} wrote something"
            assert (ticket.step, ticket.phase) == ("start", Phase.RUNNING)

    def test_a_ticket_says_what_is_wanted(self, harness: Harness) -> None:
        """A ticket of a revision holds the endpoint and the revision whole, for whoever takes it up."""
        spec, revision = harness.endpoint(), harness.revisions[0]
        ticket = harness.backend.put_revision(spec, revision)
        assert ticket.target == spec.name
        assert from_json(EndpointSpec, ticket.wanted["endpoint"]) == spec
        assert from_json(Revision, ticket.wanted["revision"]) == revision

    # Rule 2: advance may be repeated

    def test_every_step_may_be_repeated_from_stored_tickets(self, harness: Harness) -> None:
        """A crash after a write and before the journal's next entry makes the next driver repeat that step."""
        expect.every_change(harness, lambda ticket: expect.carry_repeating(harness, ticket))

    def test_an_answer_lost_after_the_first_write_does_no_harm(self, harness: Harness) -> None:
        """The same "start" ticket is advanced again whenever a step was done."""
        expect.every_change(harness, lambda ticket: expect.carry_restarting(harness, ticket))

    def test_an_ended_ticket_comes_back_unchanged(self, harness: Harness) -> None:
        """The end is the end, whatever happened since."""
        spec = harness.endpoint()
        ended = harness.carry(harness.backend.put_revision(spec, harness.revisions[0]))
        before = harness.fingerprint()
        assert harness.backend.advance(through_json(ended)) == ended
        assert harness.fingerprint() == before

    def test_the_same_revision_twice_is_the_same_revision(self, harness: Harness) -> None:
        """Names are derived from content, so running a cell again changes nothing."""
        first = harness.revisions[0]
        spec = harness.deploy(first)
        before = harness.fingerprint()
        harness.succeed(harness.backend.put_revision(spec, first))
        assert harness.fingerprint() == before

    def test_the_same_table_twice_is_written_once(self, harness: Harness) -> None:
        """Asking for what is there already is success and no act."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        harness.route(spec, Traffic.all_to(second.id))
        before = harness.fingerprint()
        harness.route(spec, Traffic.all_to(second.id))
        assert harness.fingerprint() == before

    def test_other_content_under_a_known_revision_is_a_conflict(self, harness: Harness) -> None:
        """An id stands for one content for ever."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        before = harness.fingerprint()
        impostor = attrs.evolve(second, id=first.id)
        expect.refused(harness, ConflictError, lambda: harness.backend.put_revision(spec, impostor))
        assert harness.fingerprint() == before

    def test_another_process_takes_a_ticket_up_in_the_middle(self, harness: Harness) -> None:
        """All that is needed to go on stands in the ticket and at the provider."""
        spec = harness.endpoint()
        ticket = harness.backend.advance(harness.backend.put_revision(spec, harness.revisions[0]))
        mine, harness.backend = harness.backend, harness.other()
        try:
            harness.succeed(through_json(ticket))
            assert [each.revision for each in harness.state(spec).revisions] == [harness.revisions[0]]
        finally:
            harness.backend = mine

    # Rule 3: success is observed

    def test_success_means_that_the_revision_is_there_and_ready(self, harness: Harness) -> None:
        """What was wanted is what is observed, word for word."""
        spec = harness.endpoint()
        harness.succeed(harness.backend.put_revision(spec, harness.revisions[0]))
        state = harness.state(spec)
        assert state.name == spec.name
        assert state.settled
        (found,) = state.revisions
        assert (found.revision, found.ready) == (harness.revisions[0], True)

    def test_success_means_that_the_table_holds(self, harness: Harness) -> None:
        """Not that the provider said so."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        harness.route(spec, Traffic.all_to(second.id))
        state = harness.state(spec)
        assert state.traffic.live == {second.id: 100}
        assert state.settled

    def test_a_table_that_was_put_back_meanwhile_is_no_success(self, harness: Harness) -> None:
        """Providers report success for changes that they silently rolled back."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        ticket = harness.backend.advance(harness.backend.set_traffic(spec.name, Traffic.all_to(second.id)))
        if ticket.phase.ended:
            assert harness.state(spec).traffic.live == {second.id: 100}
            return
        harness.route(spec, Traffic.all_to(first.id))
        expect.not_done(harness, ticket)
        assert harness.state(spec).traffic.live == {first.id: 100}

    def test_what_it_says_of_an_unfinished_change_is_true(self, harness: Harness) -> None:
        """While a ticket runs, the endpoint is either as it was or as it will be, and never more ready than it is."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        for ticket in harness.steps(harness.backend.put_revision(spec, second)):
            found = harness.state(spec).revision(second.id)
            ready = found is not None and found.ready
            assert ready or ticket.phase is Phase.RUNNING
            assert harness.state(spec).traffic.live == {first.id: 100}

    # Rule 4: no endpoint without a revision

    def test_there_is_no_endpoint_before_its_first_revision(self, harness: Harness) -> None:
        """Some providers cannot hold an empty endpoint."""
        spec = harness.endpoint()
        harness.backend.put_revision(spec, harness.revisions[0])
        assert harness.backend.observe(spec.name) is None
        assert spec.name not in set(harness.backend.endpoints())

    def test_the_first_revision_takes_everything_and_later_ones_nothing(self, harness: Harness) -> None:
        """A new revision must never meet traffic before somebody decides it."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        assert harness.state(spec).traffic.live == {first.id: 100}
        harness.succeed(harness.backend.put_revision(spec, second))
        assert harness.state(spec).traffic.live == {first.id: 100}
        assert {each.revision.id for each in harness.state(spec).revisions} == {first.id, second.id}
        assert spec.name in set(harness.backend.endpoints())

    # Rule 5: calls return within seconds

    def test_every_call_returns_soon(self, harness: Harness) -> None:
        """Waiting is the engine's work; a call that waits cannot be interrupted."""
        spec, revision = harness.endpoint(), harness.revisions[0]
        ticket = expect.timed(harness, lambda: harness.backend.put_revision(spec, revision))
        until = harness.clock.now() + harness.seconds
        while not ticket.phase.ended and harness.clock.now() < until:
            ticket = expect.timed(harness, functools.partial(harness.backend.advance, ticket))
            expect.timed(harness, lambda: harness.backend.observe(spec.name))
            harness.clock.sleep(ticket.poll_after or 0.01)
        assert ticket.phase is Phase.SUCCEEDED

    # Rule 6: only our errors

    def test_only_errors_of_this_library_leave_it(self, harness: Harness) -> None:
        """The engine decides by error class; anything else would pass it by."""
        spec = harness.deploy(harness.revisions[0])
        backend, wide = harness.backend, "x" * 300
        calls: list[Callable[[], object]] = [
            lambda: backend.observe("../../etc/passwd"),
            lambda: backend.observe(wide),
            lambda: backend.set_traffic(spec.name, Traffic.all_to(wide)),
            lambda: backend.drop_revision("no/such", "../.."),
            lambda: harness.carry(backend.drop_endpoint("no/such")),
        ]
        expect.only_our_errors(calls)

    # What is not there

    def test_an_unknown_endpoint_is_observed_as_none_and_otherwise_not_found(self, harness: Harness) -> None:
        """None is an answer, not an error, only for whoever looks."""
        backend = harness.backend
        assert backend.observe(NOWHERE) is None
        assert NOWHERE not in set(backend.endpoints())
        expect.refused(
            harness, NotFoundError, lambda: backend.set_traffic(NOWHERE, Traffic.all_to(harness.revisions[0].id))
        )

    def test_an_unknown_revision_gets_no_traffic(self, harness: Harness) -> None:
        """Refused before anything is written."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        before = harness.fingerprint()
        expect.refused(
            harness, NotFoundError, lambda: harness.backend.set_traffic(spec.name, Traffic.all_to(second.id))
        )
        assert harness.fingerprint() == before

    def test_dropping_what_is_gone_is_success(self, harness: Harness) -> None:
        """It is the state that was wanted."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        harness.succeed(harness.backend.drop_revision(spec.name, second.id))
        assert harness.state(spec).revision(second.id) is None
        before = harness.fingerprint()
        harness.succeed(harness.backend.drop_revision(spec.name, second.id))
        assert harness.fingerprint() == before
        harness.succeed(harness.backend.drop_endpoint(spec.name))
        harness.succeed(harness.backend.drop_endpoint(spec.name))
        harness.succeed(harness.backend.drop_revision(spec.name, first.id))
        harness.succeed(harness.backend.drop_endpoint(NOWHERE))

    def test_a_dropped_endpoint_is_gone_and_its_name_is_free(self, harness: Harness) -> None:
        """Nothing of the old one shows in a new one."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        harness.succeed(harness.backend.drop_endpoint(spec.name))
        assert harness.backend.observe(spec.name) is None
        assert spec.name not in set(harness.backend.endpoints())
        harness.succeed(harness.backend.put_revision(spec, second))
        assert harness.state(spec).traffic.live == {second.id: 100}
        assert harness.state(spec).revision(first.id) is None

    def test_a_revision_with_traffic_is_not_dropped(self, harness: Harness) -> None:
        """Refused at the start, and at the write when the traffic came in between."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        expect.refused(harness, ConflictError, lambda: harness.backend.drop_revision(spec.name, first.id))
        ticket = harness.backend.drop_revision(spec.name, second.id)
        harness.route(spec, Traffic.all_to(second.id))
        expect.not_done(harness, ticket)
        assert harness.state(spec).revision(second.id) is not None
        assert harness.state(spec).traffic.live == {second.id: 100}

    def test_two_endpoints_do_not_touch_each_other(self, harness: Harness) -> None:
        """The same revision may serve in both."""
        first, second = harness.revisions[:2]
        one, two = harness.deploy(first, second), harness.deploy(first)
        before = harness.state(two)
        harness.route(one, Traffic.all_to(second.id))
        harness.succeed(harness.backend.drop_endpoint(one.name))
        assert harness.state(two) == before

    # Compare-and-set

    def test_the_version_changes_with_every_change_and_only_then(self, harness: Harness) -> None:
        """It is what a careful writer holds on to."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        versions = [harness.state(spec).version]
        changes: list[Callable[[], Ticket]] = [
            lambda: harness.backend.put_revision(spec, second),
            lambda: harness.backend.set_traffic(spec.name, Traffic.all_to(second.id)),
            lambda: harness.backend.drop_revision(spec.name, first.id),
        ]
        for change in changes:
            harness.succeed(change())
            versions.append(harness.state(spec).version)
            assert harness.state(spec).version == versions[-1]
        assert len(set(versions)) == len(versions), f"the same version twice: {versions}"

    def test_a_table_is_written_only_over_the_version_that_was_expected(self, harness: Harness) -> None:
        """Otherwise one writer silently undoes another's decision."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        seen = harness.state(spec).version
        harness.succeed(harness.backend.set_traffic(spec.name, Traffic.all_to(second.id), expect=seen))
        before = harness.fingerprint()
        expect.refused(
            harness,
            ConflictError,
            lambda: harness.backend.set_traffic(spec.name, Traffic.all_to(first.id), expect=seen),
        )
        assert harness.fingerprint() == before
        assert harness.state(spec).traffic.live == {second.id: 100}

    def test_a_version_that_moves_after_the_start_is_noticed_at_the_write(self, harness: Harness) -> None:
        """The check belongs to the write: hours may lie between a ticket and its first step."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first, second)
        seen = harness.state(spec).version
        late = harness.backend.set_traffic(spec.name, Traffic.all_to(first.id), expect=seen)
        harness.route(spec, Traffic.all_to(second.id))
        with pytest.raises(ConflictError):
            harness.carry(late)
        assert harness.state(spec).traffic.live == {second.id: 100}

    # Capabilities, both ways

    def test_a_split_works_as_far_as_declared_and_is_refused_beyond(self, harness: Harness) -> None:
        """Refused before anything is written."""
        spec, split = harness.deploy(*harness.revisions), harness.backend.capabilities.split
        names = [revision.id for revision in harness.revisions]
        for wide in range(2, len(names) + 1):
            table = Traffic(expect.even(names[:wide]))
            if wide <= split:
                harness.route(spec, table)
                assert harness.state(spec).traffic.live == table.live
            else:
                expect.unsupported(harness, "split", functools.partial(harness.backend.set_traffic, spec.name, table))
        harness.route(spec, Traffic.all_to(names[-1]))
        assert harness.state(spec).traffic.live == {names[-1]: 100}

    def test_work_is_cancelled_or_cancelling_is_refused(self, harness: Harness) -> None:
        """A backend that says that it can must end what was begun."""
        first, second = harness.revisions[:2]
        spec = harness.deploy(first)
        ticket = harness.backend.put_revision(spec, second)
        if not harness.backend.capabilities.cancel:
            expect.unsupported(harness, "cancel", lambda: harness.backend.cancel(ticket))
            return
        before = harness.fingerprint()
        assert harness.carry(harness.backend.cancel(ticket)).phase is Phase.CANCELLED
        assert harness.fingerprint() == before, "cancelling what was not begun wrote something"
        ended = harness.carry(harness.backend.cancel(harness.backend.advance(ticket)))
        assert ended.phase in {Phase.CANCELLED, Phase.SUCCEEDED}
        found = harness.state(spec).revision(second.id)
        assert (found is not None and found.ready) is (ended.phase is Phase.SUCCEEDED)
        assert harness.state(spec).traffic.live == {first.id: 100}

    def test_the_state_goes_through_json(self, harness: Harness) -> None:
        """States are stored as evidence and shown in other processes."""
        state = harness.state(harness.deploy(*harness.revisions[:2]))
        assert from_json(EndpointState, to_json(state)) == state
