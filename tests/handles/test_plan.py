"""Plans: what they say is what happens, what they refuse is refused, and they change nothing."""

from __future__ import annotations

import json
import sys

import attrs
import pytest

from modeldeploy import Endpoint, Gate, Model, RolloutPolicy
from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.errors import ConfigurationError, ConflictError, NotFoundError, UnavailableError, UnsupportedError
from modeldeploy.handles.parts import How
from modeldeploy.values.capability import Capabilities, Shadow
from modeldeploy.values.codec import from_json
from modeldeploy.values.serving import Revision, Traffic

SLOW = RolloutPolicy.canary((10,), soak=600)
GATED = ["error_rate <= 1%"]


def changed(capabilities=EVERYTHING, **changes):
    return attrs.evolve(capabilities, **changes)


def part(plan, what):
    (found,) = [each for each in plan.parts if each.what == what]
    return found


def acts(plan):
    return [call.act for call in plan.calls]


@pytest.fixture
def serve(make_session, model):
    """Give ``serve(**capabilities)``: an endpoint that serves 1.1.0 on a provider with other capabilities."""

    def make(**changes):
        session = make_session(capabilities=changed(**changes))
        return Endpoint.deploy(model(1), "iris", backend=session)

    return make


# ---------------------------------------------------------------- nothing is changed


VERBS = ["rollout", "deploy", "rollback", "delete"]


def plans(endpoint, model):
    canary = RolloutPolicy.canary((10, 50), gates=GATED)
    return [
        endpoint.plan(model(2), canary),
        Endpoint.plan_deploy(model(3), "other", backend=endpoint._session),
        endpoint.plan_rollback(),
        endpoint.plan_delete(),
    ]


def test_no_plan_writes_anything(endpoint, session, model):
    endpoint.rollout(model(2))
    made, before = model, list(session.backend.writes)
    records, lines = session.journal.unfinished(), len(endpoint.history)
    found = plans(endpoint, made)
    assert [plan.verb for plan in found if plan.ok and plan.calls] == VERBS
    assert session.backend.writes == before
    assert (session.journal.unfinished(), len(endpoint.history)) == (records, lines)


@pytest.mark.skipif(sys.platform == "win32", reason="the local backend needs Unix sockets")
def test_no_plan_touches_this_machine(modeldeploy_home, model):
    endpoint = Endpoint.deploy(model(1), "iris")
    try:
        endpoint.rollout(model(2))
        backend, made = endpoint._session.backend, {number: model(number) for number in (2, 3)}
        before, kept = backend.processes(), _kept(modeldeploy_home)
        assert [plan.verb for plan in plans(endpoint, made.get) if plan.calls] == VERBS
        assert (backend.processes(), _kept(modeldeploy_home)) == (before, kept)
    finally:
        endpoint.delete()
        endpoint._session.backend.shutdown()


def _kept(home):
    """Give the bytes of all state that outlives a call: the journal, the table of endpoints, the store."""
    names = {
        path
        for path in home.rglob("*")
        if path.name in {"journal.sqlite", "journal.sqlite-wal"} or path.suffix == ".json"
    }
    return {path: path.read_bytes() for path in names}


# ---------------------------------------------------------------- what is planned is what happens


def written(session, since):
    """Give the provider's writes since, as acts with the revision or table."""
    verbs = {"create-revision": "put_revision", "set-traffic": "set_traffic", "drop-revision": "drop_revision"}
    verbs["drop-endpoint"] = "drop_endpoint"
    found = []
    for write in session.backend.writes[since:]:
        if write.verb in verbs:
            table = from_json(Traffic, json.loads(write.detail)) if write.verb == "set-traffic" else None
            found.append(
                (verbs[write.verb], table and (table.live, table.copies), write.detail if table is None else "")
            )
    return found


def planned(plan):
    return [
        (call.act, call.traffic and (call.traffic.live, call.traffic.copies), "" if call.traffic else call.subject)
        for call in plan.calls
        if call.act != "golden outputs"
    ]


@pytest.mark.parametrize(
    "policy",
    [
        RolloutPolicy.all_at_once(),
        RolloutPolicy.canary((10, 50), soak=0, key="header:who"),
        RolloutPolicy.linear(40, every=0),
        RolloutPolicy.blue_green(bake=0),
        RolloutPolicy.shadow(20, soak=0, then=(10,)),
        RolloutPolicy.shadow(20, soak=0),
    ],
    ids=str,
)
def test_a_rollout_calls_what_was_planned(endpoint, session, model, policy):
    plan = endpoint.plan(model(2), policy)
    since = len(session.backend.writes)
    endpoint.rollout(model(2), policy)
    assert written(session, since) == planned(plan)
    assert plan.diff.after.same_as(endpoint.state.traffic)
    assert list(plan.diff.added) == [endpoint.revisions[-1].revision.id]


def test_a_rollout_over_a_staging_endpoint_calls_what_was_planned(serve, model):
    endpoint = serve(pinned_invoke=False, staging=True)
    plan = endpoint.plan(model(2))
    assert part(plan, "golden outputs").how is How.OURS
    assert "a second deployment" in str(part(plan, "golden outputs"))
    since = len(endpoint._session.backend.writes)
    endpoint.rollout(model(2))
    acts = [act for act, _table, _subject in written(endpoint._session, since)]
    assert acts == [act for act, _table, _subject in planned(plan)]
    assert acts == ["put_revision", "put_revision", "drop_endpoint", "set_traffic"]


def test_what_is_not_kept_warm_is_planned_to_go(endpoint, session, model):
    endpoint.rollout(model(2))
    plan = endpoint.plan(model(3), keep=0)
    assert [call.subject for call in plan.calls if call.act == "drop_revision"] == list(plan.diff.dropped)
    assert len(plan.diff.dropped) == 2
    assert any("keep=0" in warning for warning in plan.warnings)
    since = len(session.backend.writes)
    endpoint.rollout(model(3), keep=0)
    assert written(session, since) == planned(plan)


def test_a_rollout_from_a_share_that_it_has_already_goes_on_from_there(endpoint, session, model, wait_until):
    rollout = endpoint.rollout(model(2), RolloutPolicy.canary((10, 50), soak=600), wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    rollout.pause()
    rollout.wait(10)
    share = dict(endpoint.traffic)
    rollout.abort()
    ticket = session.backend.set_traffic("iris", Traffic(share))
    while not ticket.phase.ended:
        ticket = session.backend.advance(ticket)
    plan = endpoint.plan(model(2), RolloutPolicy.canary((5, 10, 50), soak=0))
    assert plan.calls[0].note == "it is there already"
    assert [step[endpoint.revisions[-1].revision.id] for step in plan.steps] == [50, 100]


def test_a_rollback_and_a_deletion_call_what_was_planned(endpoint, session, model):
    endpoint.rollout(model(2))
    plan, since = endpoint.plan_rollback(), len(session.backend.writes)
    endpoint.rollback()
    assert written(session, since) == planned(plan) != []
    plan, since = endpoint.plan_delete(), len(session.backend.writes)
    endpoint.delete()
    assert written(session, since) == [("drop_endpoint", None, "")]
    assert acts(plan) == ["drop_endpoint"]
    assert len(plan.diff.dropped) == 2


def test_a_first_deployment_is_planned_without_an_endpoint(session, model):
    plan = Endpoint.plan_deploy(model(1), backend=session)
    assert (plan.verb, plan.endpoint, acts(plan)) == ("deploy", "iris", ["put_revision", "golden outputs"])
    assert plan.diff.before.live == {}
    endpoint = Endpoint.deploy(model(1), backend=session)
    assert endpoint.traffic == plan.diff.after.live
    assert list(endpoint.traffic) == list(plan.diff.added)


def test_the_same_model_again_is_planned_as_no_work(endpoint, session, model, wait_until):
    again = Endpoint.plan_deploy(model(1), "iris", backend=session)
    assert (again.calls, again.ok) == ((), True)
    assert "nothing would change" in str(again)
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    assert f"{rollout.id} does it already" in str(endpoint.plan(model(2), SLOW))
    rollout.abort()
    known = endpoint.plan(model(1))
    assert acts(known) == ["put_revision", "golden outputs"]
    assert any("nothing would change" in warning for warning in known.warnings)


# ---------------------------------------------------------------- who does what, and what is refused


def test_sticky_keys_are_native_or_ours_or_refused(serve, model):
    policy = RolloutPolicy.canary((10,), key="header:who")
    assert part(serve().plan(model(2), policy), "sticky assignment").how is How.NATIVE
    ours = part(serve(sticky=False).plan(model(2), policy), "sticky assignment")
    assert (ours.how, "Endpoint.predict(key=...) only" in ours.why) == (How.OURS, True)
    endpoint = serve(sticky=False, pinned_invoke=False, why_not={"sticky": "its router draws"})
    refused = endpoint.plan(model(2), policy)
    assert not refused.ok
    assert str(refused.refused[0]) == (
        "sticky assignment: refused: its router draws; "
        "leave key= out, or call through a router of your own that sends each key to one revision"
    )
    with pytest.raises(UnsupportedError, match="its router draws") as caught:
        endpoint.rollout(model(2), policy)
    assert (caught.value.capability, bool(caught.value.hint)) == ("sticky", True)


KEYLESS = attrs.evolve(RolloutPolicy.ab_test(key="id", until=9), key="")


@pytest.mark.parametrize(
    ("changes", "policy", "refusal"),
    [
        ({"shadow": None}, RolloutPolicy.shadow(), ("shadow", "not declared", "canary")),
        ({"shadow": Shadow(max_percent=50)}, RolloutPolicy.shadow(60), ("shadow", "at most 50 %", "canary")),
        (
            {"shadow": None, "why_not": {"shadow": "no mirror"}},
            RolloutPolicy.shadow(),
            ("shadow", "no mirror", "predict"),
        ),
        ({"split": 1}, RolloutPolicy.canary(), ("split", "at most 1", "all_at_once")),
        ({"split": 1}, RolloutPolicy.shadow(then=(10,)), ("split", "at most 1", "all_at_once")),
        ({"meters": False}, RolloutPolicy.canary(gates=GATED), ("meters", "does not measure", "promote")),
        ({"meters": False}, RolloutPolicy.ab_test(key="id", until=9), ("meters", "does not measure", "promote")),
        (
            {"compares": False},
            RolloutPolicy.shadow(gates=["disagreement <= 1%"]),
            ("compares", "does not hold", "error_rate"),
        ),
        ({}, RolloutPolicy.blue_green(bake=0, gates=GATED), ("", "no time in which they could look", "bake=")),
        ({}, KEYLESS, ("", "who asks", "key=")),
    ],
)
def test_a_policy_is_held_against_the_backend_in_full_before_its_first_step(serve, model, changes, policy, refusal):
    endpoint, made = serve(**changes), model(2)
    session, before = endpoint._session, list(endpoint._session.backend.writes)
    (refused,) = endpoint.plan(made, policy).refused
    capability, reason, instead = refusal
    assert (refused.capability, reason in refused.why, instead in refused.instead) == (capability, True, True)
    with pytest.raises(UnsupportedError if capability else ConfigurationError) as caught:
        endpoint.rollout(made, policy)
    assert reason in caught.value.message
    assert instead in caught.value.hint
    assert (session.backend.writes, session.journal.unfinished()) == (before, ())


def test_a_shadow_needs_somebody_to_copy_from(endpoint, session, model):
    ticket = session.backend.set_traffic("iris", Traffic())
    while not ticket.phase.ended:
        ticket = session.backend.advance(ticket)
    plan = Endpoint.plan_deploy(model(2), "iris", policy=RolloutPolicy.shadow(), backend=session)
    assert "no revision takes traffic that could be copied" in str(plan.refused)
    with pytest.raises(ConfigurationError, match="could be copied"):
        Endpoint.deploy(model(2), "iris", policy=RolloutPolicy.shadow(), backend=session)
    assert Endpoint.plan_deploy(model(2), "iris", policy=SLOW, backend=session).steps == ({_id(model(2)): 100},)


def _id(made):
    return Revision.of(made.identity).id


def test_a_first_revision_takes_everything_whatever_the_policy_says(session, model):
    policy = RolloutPolicy.shadow(then=(10,), gates=GATED)
    plan = Endpoint.plan_deploy(model(1), backend=session, policy=policy)
    assert {part(plan, what).how for what in ("traffic split", "shadow copies")} == {How.SKIPPED}
    assert any("takes all of it at once" in warning for warning in plan.warnings)


def test_another_operation_is_in_the_way(endpoint, model, wait_until):
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    wait_until(lambda: len(endpoint.traffic) == 2)
    plan = endpoint.plan(model(3))
    assert rollout.id in str(plan.refused[0])
    with pytest.raises(ConflictError, match="not finished"):
        endpoint.rollout(model(3))
    for ending in (endpoint.plan_rollback(), endpoint.plan_delete()):
        assert ending.ok
        assert any(f"{rollout.id} goes on and is ended" in warning for warning in ending.warnings)
    rollout.abort()


def test_what_the_provider_would_refuse_is_refused_in_the_plan(endpoint, session, model, monkeypatch):
    def refuse(_spec, _revision):
        message = "no such hardware"
        raise ConfigurationError(message, hint="take another")

    monkeypatch.setattr(session.backend, "put_revision", refuse)
    plan = endpoint.plan(model(2))
    assert str(plan.refused[0]) == "revision: refused: no such hardware; take another"


def test_a_provider_that_is_down_gives_no_plan(endpoint, session, model, monkeypatch):
    def down(_spec, _revision):
        message = "no route"
        raise UnavailableError(message)

    monkeypatch.setattr(session.backend, "put_revision", down)
    with pytest.raises(UnavailableError):
        endpoint.plan(model(2))


def test_golden_outputs_are_asked_or_skipped_with_the_reason(serve, model):
    plan = serve().plan(model(2), golden=False)
    assert part(plan, "golden outputs").how is How.SKIPPED
    assert "golden outputs" not in acts(plan)
    unpinned = serve(pinned_invoke=False).plan(model(2))
    assert "cannot name its revision" in str(part(unpinned, "golden outputs"))
    first = Endpoint.plan_deploy(model(2), "other", backend=serve(pinned_invoke=False)._session)
    assert part(first, "golden outputs").how is How.OURS


def test_failed_canary_answers_are_told(serve, model):
    assert "reach the caller" in str(serve().plan(model(2), SLOW))
    assert "answered again by stable" in str(serve(safe_canary=True).plan(model(2), SLOW))


# ---------------------------------------------------------------- warnings


def test_a_policy_without_gates_is_warned_of_in_the_plan_and_told_once_in_the_rollout(endpoint, session, model):
    told = []
    session.subscribe(lambda event: told.append(event.fields.get("note")))
    assert any("no gates" in warning for warning in endpoint.plan(model(2), SLOW).warnings)
    assert any("no gates" in warning for warning in endpoint.plan(model(2), RolloutPolicy.shadow()).warnings)
    assert not any("no gates" in warning for warning in endpoint.plan(model(2)).warnings)
    assert told == []
    rollout = endpoint.rollout(model(2), SLOW, wait=False)
    endpoint.rollout(model(2), SLOW, wait=False)
    rollout.abort()
    assert [note for note in told if note and "no gates" in note] == [
        "no gates: the new revision is promoted however it behaves"
    ]


@pytest.mark.parametrize(
    ("changes", "policy", "warning"),
    [
        (
            {"meter_resolution": 60.0},
            RolloutPolicy.canary(gates=GATED),
            "slots of 60 s: gates see something new that often",
        ),
        (
            {"meter_resolution": 60.0},
            RolloutPolicy.canary(gates=GATED, soak=5),
            "soak=5 ends before the first is whole",
        ),
        ({"meters_by_share": False}, RolloutPolicy.canary(gates=GATED), "the gates count them too"),
        ({"sticky": False}, RolloutPolicy.canary(gates=GATED, key="id"), "the gates do not count them"),
        ({}, RolloutPolicy.canary(gates=[Gate.custom(lambda look: True)]), "another one that takes the rollout up"),
    ],
)
def test_gates_that_see_less_than_one_thinks_are_warned_of(serve, model, changes, policy, warning):
    found = serve(**changes).plan(model(2), policy).warnings
    assert [each for each in found if warning in each]


def test_a_verdict_that_will_not_come_at_the_present_traffic_is_warned_of(endpoint, model, table):
    policy = RolloutPolicy.canary((5,), gates=GATED)
    quiet = endpoint.plan(model(2), policy)
    for _request in range(30):
        endpoint.predict(table.head(1))
    plan = endpoint.plan(model(2), policy)
    assert plan.forecast.rps == pytest.approx(0.1, rel=0.1)
    assert any(
        "requests/s, as in the last 5 min: at 5 % gate 'error_rate <= 1%' needs" in each for each in plan.warnings
    )
    assert quiet.forecast is None or quiet.forecast.rps < plan.forecast.rps
    assert endpoint.plan(model(2)).forecast is None


def test_a_changed_signature_is_warned_of(endpoint, table):
    from sklearn.linear_model import LinearRegression

    other = table.rename(columns={"age": "years"}).assign(income=1)
    made = Model(LinearRegression().fit(other, other["years"]), name="iris", version="2.0.0", example=other.head())
    found = endpoint.plan(made).warnings
    assert "input 'age' is gone in the new model" in found
    assert "input 'years' is new in the new model" in found
    assert "input 'income' changes from float64 to int64" in found


def test_a_rollback_to_what_is_not_warm_starts_it_first(endpoint, model):
    endpoint.rollout(model(2), keep=0)
    plan = endpoint.plan_rollback(to="1.1.0")
    assert acts(plan) == ["put_revision", "set_traffic"]
    assert any("not warm" in warning for warning in plan.warnings)
    assert "takes all traffic already" in str(endpoint.plan_rollback(to="1.2.0"))
    with pytest.raises(NotFoundError):
        endpoint.plan_rollback(to="9.9.9")


def test_deleting_what_is_gone_is_planned_as_no_work(endpoint):
    endpoint.delete()
    plan = endpoint.plan_delete()
    assert (plan.calls, plan.parts) == ((), ())
    assert "nothing would change" in str(plan)
    with pytest.raises(NotFoundError, match="there is no endpoint 'iris'"):
        endpoint.plan_rollback()


# ---------------------------------------------------------------- arguments and views


def test_a_plan_takes_the_shape_that_is_asked_for(endpoint, model):
    plain, wide = endpoint.plan(model(2)), endpoint.plan(model(2), workers=3, options={"x": "1"})
    assert plain.diff.added != wide.diff.added
    with pytest.raises(ConfigurationError, match="workers is 0"):
        endpoint.plan(model(2), workers=0)
    with pytest.raises(ConfigurationError, match="policy is 'canary'"):
        endpoint.plan(model(2), "canary")
    with pytest.raises(ConfigurationError, match="golden is 3"):
        endpoint.plan(model(2), golden=3)


def test_a_plan_reads_line_by_line(endpoint, model):
    policy = RolloutPolicy.shadow(20, soak=60, then=(10,), gates=GATED)
    plan = endpoint.plan(model(2), policy)
    old, new = next(iter(endpoint.traffic)), _id(model(2))
    lines = repr(plan).splitlines()
    assert lines[0] == f"rollout of iris 1.2.0 on 'iris' (memory); {policy}"
    assert lines[1] == f"traffic {old} 100 % -> {new} 100 %, + {new}"
    assert lines[4] == f"3. set_traffic {old} 100 %, copies of 20 % to {new} (for 60 s and until the gates pass)"
    assert lines[5] == f"4. set_traffic {old} 90 %, {new} 10 % (for 60 s and until the gates pass)"
    assert "shadow copies: native: the caller's answer is stable's" in lines
    assert plan._repr_html_().count("<tr") >= len(plan.calls) + len(plan.parts)


def test_a_bare_backend_refuses_what_it_never_declared(make_session, model):
    session = make_session(capabilities=Capabilities(serving=True))
    endpoint = Endpoint.deploy(model(1), "iris", backend=session)
    plan = endpoint.plan(model(2), RolloutPolicy.shadow(then=(10,), gates=["disagreement <= 5%"]))
    assert [each.capability for each in plan.refused] == ["split", "shadow", "meters"]
    assert "sticky by" not in str(plan)
