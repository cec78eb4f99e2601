"""The handle of a rollout: what decided it, what users may say, what they report, and what they see; on a provider in memory."""

from __future__ import annotations

import re
import sys

import attrs
import numpy as np
import pytest

from modeldeploy import Endpoint, RolloutPolicy
from modeldeploy.backends.memory import EVERYTHING
from modeldeploy.engine.record import Kind, Record
from modeldeploy.engine.rollout import RolloutCursor
from modeldeploy.errors import (
    ConflictError,
    InvalidRequestError,
    MissingDependencyError,
    RolloutAborted,
)
from modeldeploy.handles.rollout import Rollout
from modeldeploy.observe.text import NOTHING
from modeldeploy.values.assignment import assign
from modeldeploy.values.codec import to_json
from modeldeploy.values.gate import Verdict
from modeldeploy.values.serving import EndpointSpec, Payload, Revision

GATE = "error_rate <= 10%"
NASTY = "<script>alert(1)</script>"


def quick(*steps, gates=(GATE,), **options):
    """A canary that looks often and lets each step last only as long as its gates need."""
    return RolloutPolicy.canary(steps or (50,), soak=0, gates=gates, interval=0.01, **options)


def soaks(rollout, percent):
    """Whether a step has begun, so that what is answered from now on counts for it."""
    cursor = rollout._cursor(rollout.operation.record)
    return cursor.percent == percent and cursor.since is not None


@pytest.fixture
def begin(endpoint, model, wait_until):
    """Give ``begin(policy)``: a rollout of 1.2.0 that runs, at its first step."""

    def go(policy):
        rollout = endpoint.rollout(model(2), policy, wait=False)
        wait_until(lambda: rollout.status != "running" or rollout._cursor(rollout.operation.record).since is not None)
        return rollout

    return go


@pytest.fixture
def answer(endpoint, session):
    """Give ``answer(errors=0, requests=300)``: so many answers of each revision with traffic; the newer one fails so often."""

    def count(errors=0, requests=300):
        stable = endpoint.stable.id
        for name in endpoint.traffic:
            session.backend.record("iris", name, requests=requests, errors=0 if name == stable else errors)

    return count


@pytest.fixture
def good(begin, answer, wait_until):
    """A canary that passed its gate and was promoted."""
    rollout = begin(quick())
    wait_until(lambda: rollout.verdicts)
    answer()
    return rollout.wait(10)


@pytest.fixture
def bad(begin, answer, wait_until):
    """A canary that failed its gate and was taken back."""
    rollout = begin(quick())
    wait_until(lambda: rollout.verdicts)
    answer(errors=150)
    with pytest.raises(RolloutAborted):
        rollout.wait(10)
    return rollout


# ---------------------------------------------------------------- verdicts


def test_every_look_is_kept_with_its_evidence(good):
    looks = good.verdicts
    assert looks[-1].verdict is Verdict.PASS
    assert [look.at for look in looks] == sorted(look.at for look in looks)
    (result,) = looks[-1].gates
    assert looks[-1].gate(GATE) == result
    assert (looks[-1].step, looks[-1].percent, result.sample, result.bad) == (0, 50, 300, 0)
    assert result.favour >= 20
    assert result.low == 0 < result.high < 0.1
    assert good.gates == (result,)
    assert looks[:1] == (looks[0],)


def test_the_evidence_is_shown_as_a_table(bad):
    shown = repr(bad.verdicts).splitlines()
    assert shown[0].split()[:4] == ["after", "traffic", "gate", "verdict"]
    assert "against (of 20)" in shown[0]
    assert re.search(r"50 %  error_rate <= 10%  fail +150 of 300  50.0 %", shown[-1])
    drawn = bad.verdicts._repr_html_()
    assert "150 of 300" in drawn
    assert f"{len(bad.verdicts)} looks" in drawn


def test_many_looks_are_shortened_and_all_are_there(good):
    looks = good.verdicts
    looks.looks = looks.looks * 40
    assert "are not shown" in repr(looks)
    assert "are not shown" in looks._repr_html_()
    assert len(repr(looks).splitlines()) < 30 < len(looks)


def test_a_rollout_without_looks_says_why(begin, endpoint):
    waiting, plain = "the gates have not looked yet", "a rollback without gates looks at nothing"
    rollout = begin(quick())
    assert rollout.abort("no").verdicts or repr(rollout.verdicts) == waiting
    verdicts = endpoint.rollback(to="1.1.0").verdicts
    assert (len(verdicts), repr(verdicts)) == (0, plain)
    assert plain in verdicts._repr_html_()


def test_a_rollout_without_gates_says_so(endpoint, model):
    rollout = endpoint.rollout(model(2))
    assert repr(rollout.verdicts) == "a rollout without gates looks at nothing"
    assert rollout.gates == ()


# ---------------------------------------------------------------- what users say


def test_a_step_can_be_skipped_while_its_gates_are_not_sure(begin, endpoint, wait_until):
    rollout = begin(quick(10, 60))
    rollout.skip_step("known to be fine")
    wait_until(lambda: endpoint.traffic.get(rollout.revision.id) == 60)
    assert rollout.status == "running"
    skipped = [event for event in rollout.operation.events() if event.name == "rollout.skipped"]
    assert [event.fields["reason"] for event in skipped] == ["known to be fine"]
    rollout.abort()


def test_a_skipped_gate_still_takes_the_revision_back(begin, endpoint, answer, wait_until):
    rollout = begin(quick(10, 60)).skip_step()
    wait_until(lambda: soaks(rollout, 60))
    answer(errors=200)
    with pytest.raises(RolloutAborted):
        rollout.wait(10)
    assert rollout.revision.id not in endpoint.traffic


def test_skipping_the_last_step_of_a_paused_rollout_ends_it(begin):
    rollout = begin(quick(50)).pause("lunch", wait=True, timeout=10)
    rollout.skip_step()
    # 100 % is a step too, and has no bake time here.
    assert rollout.wait(10).status == "succeeded"


def test_what_has_ended_cannot_be_skipped_and_a_rollback_has_no_steps(good, endpoint):
    with pytest.raises(ConflictError, match="has ended already"):
        good.skip_step()
    back = endpoint.rollback()
    for verb in (back.skip_step, back.pause, back.resume, back.promote, back.abort):
        with pytest.raises(ConflictError, match="no steps"):
            verb()


def test_pausing_can_be_waited_for(begin):
    rollout = begin(quick()).pause("lunch", wait=True, timeout=10)
    assert (rollout.status, rollout.outcome) == ("paused", "paused: lunch")
    assert rollout.abort("no").status == "cancelled"


def test_aborting_again_changes_nothing(begin, endpoint, session):
    rollout = begin(quick()).abort("no")
    before, told = endpoint.traffic, list(session.backend.writes)
    assert rollout.abort("really").outcome == "no"
    assert (endpoint.traffic, list(session.backend.writes)) == (before, told)
    assert rollout.status == "cancelled"


def test_aborting_what_failed_already_changes_nothing(bad):
    outcome = bad.outcome
    assert bad.abort("me too").outcome == outcome


def test_aborting_what_was_promoted_says_how_to_go_back(good, endpoint):
    before = endpoint.traffic
    with pytest.raises(ConflictError, match=r"has ended already.*nothing was changed; endpoint.rollback\(\)"):
        good.abort("too late")
    assert endpoint.traffic == before


def test_an_end_that_comes_between_is_told_too(good, monkeypatch):
    seen = iter([False, True])
    monkeypatch.setattr(good, "_ended", lambda: next(seen))
    with pytest.raises(ConflictError, match=r"endpoint\.rollback"):
        good.abort("too late")


def test_aborting_before_anything_began_harms_nothing(endpoint, model):
    stable = endpoint.stable.id
    rollout = endpoint.rollout(model(2), quick(), wait=False).abort("changed my mind")
    assert rollout.status == "cancelled"
    assert endpoint.traffic == {stable: 100}
    assert [each.revision.id for each in endpoint.revisions] in ([stable], [stable, rollout.revision.id])


# ---------------------------------------------------------------- outcomes of an A/B test

TEST = RolloutPolicy.ab_test(50, key="header:x-user", until=600, interval=0.01)


@pytest.fixture
def test(begin):
    """An A/B test that runs."""
    rollout = begin(TEST)
    yield rollout
    rollout.operation.done or rollout.abort()


def test_the_first_outcome_of_a_key_counts(test):
    assert test.score({7: 1, 8: np.bool_(0)}) == 2
    assert test.score([0, 0], keys=["7", 8.0]) == 0
    assert test.score({"ana": 1, "ben": 0}) == 2
    assert test.score({"ana": 0, "cem": 1}) == 1
    assert test.score([0, 1], keys=["ana", "ana"]) == 0
    assert sum(each.count * (each.mean or 0) for each in test.outcomes.values()) == 3


def test_an_outcome_belongs_to_the_revision_that_answered(test, endpoint, session):
    answered = {}
    for number in range(40):
        headers = {"path": "/health/ready", "x-user": f"user-{number}"}
        session.backend._responder = lambda _endpoint, _revision, _payload: Payload(b"{}")
        answer = session.backend.invoke("iris", Payload(b"{}", headers), timeout=5)
        answered[f"user-{number}"] = answer.headers["modeldeploy-revision"]
    assert len(set(answered.values())) == 2
    new = test.revision.id
    test.score({key: int(revision == new) for key, revision in answered.items()})
    assert (test.outcomes[new].mean, test.outcomes[endpoint.stable.id].mean) == (1, 0)


def test_whoever_knows_who_answered_may_say_so(test, endpoint):
    new, stable = test.revision.id, endpoint.stable.id
    assert test.score({"ana": 1, "ben": 1}, revision=new) == 2
    assert test.score([0, 0], keys=["cem", "dia"], revision=[new, stable]) == 2
    assert (test.outcomes[new].count, test.outcomes[stable].count) == (3, 1)


@pytest.mark.parametrize("value", [2, float("nan"), "good"])
def test_a_wrong_outcome_is_refused_by_name_and_none_is_written(test, value):
    with pytest.raises(InvalidRequestError, match="outcome of unit 'ben'"):
        test.score({"ana": 1, "ben": value})
    assert [each.count for each in test.outcomes.values()] == [0, 0]


def test_outcomes_are_shown_with_intervals_and_the_difference(test, endpoint):
    new, stable = test.revision.id, endpoint.stable.id
    assert "the difference is not known yet" in repr(test.outcomes)
    test.score([1, 0] * 100, keys=range(200), revision=new)
    test.score([0, 1] * 100, keys=range(200, 400), revision=stable)
    outcomes = test.outcomes
    assert list(outcomes) == [stable, new]
    assert outcomes[new].low < outcomes[new].mean == 0.5 < outcomes[new].high
    low, high = outcomes.difference
    assert low < 0 < high
    assert "not decided" in repr(outcomes)
    assert "0.5" in outcomes._repr_html_()


@pytest.mark.parametrize(("better", "status"), [("the new revision", "succeeded"), ("stable", "failed")])
def test_the_better_revision_wins_the_test(begin, endpoint, wait_until, better, status):
    rollout = begin(TEST)
    winner = endpoint.stable.id if better == "stable" else rollout.revision.id
    keys = [f"user-{number}" for number in range(1000)]
    rollout.score({key: assign(endpoint.traffic, key) == winner for key in keys})
    wait_until(lambda: rollout.status == status)
    assert f"{better} is better" in repr(rollout.outcomes)
    with pytest.raises(ConflictError, match="has ended already"):
        rollout.score({"late": 1})


def test_a_test_that_has_not_begun_takes_no_outcomes(session, endpoint, model):
    cursor = RolloutCursor(EndpointSpec("iris"), Revision.of(model(2).identity), TEST)
    session.journal.create(Record("rollout-early", Kind.ROLLOUT, "memory", "iris", to_json(cursor)))
    with pytest.raises(ConflictError, match="not dividing its keys, but at 'prepare'"):
        Rollout.get("rollout-early", backend=session).score({"ana": 1})


def test_only_an_ab_test_takes_outcomes(good, endpoint):
    for rollout, kind in [(good, "canary"), (endpoint.rollback(), "rollback")]:
        with pytest.raises(ConflictError, match=f"no A/B test but a {kind}"):
            rollout.score({"ana": 1})
        with pytest.raises(ConflictError, match="no A/B test"):
            _ = rollout.outcomes


# ---------------------------------------------------------------- what it shows


def test_the_live_table_shows_revisions_and_evidence(bad, endpoint):
    for shown in (str(bad), bad._repr_html_()):
        for word in ("1.2.0 on iris", "failed", bad.revision.id, endpoint.stable.id, "stable", "new", "150 of 300"):
            assert word in shown
        assert "copies" not in shown
    assert re.search(rf"{bad.revision.id}  new +0 % +30\d +150  1.04 ms  1.04 ms", str(bad))
    assert "\n" not in repr(bad)


def test_a_provider_that_measures_nothing_is_shown_with_dashes(make_session, model):
    session = make_session(capabilities=attrs.evolve(EVERYTHING, meters=False))
    Endpoint.deploy(model(1), "iris", backend=session)
    rollout = Endpoint.get("iris", backend=session).rollout(model(2))
    assert re.search(rf"{rollout.revision.id}  new +100 % +{NOTHING} +{NOTHING}", str(rollout))


def test_a_rollout_that_has_not_begun_tells_its_policy(session, endpoint, model):
    cursor = RolloutCursor(EndpointSpec("iris"), Revision.of(model(2).identity), quick(10, 60))
    session.journal.create(Record("rollout-early", Kind.ROLLOUT, "memory", "iris", to_json(cursor)))
    shown = str(Rollout.get("rollout-early", backend=session)).splitlines()
    assert shown[1] == f"canary 10 % > 60 % > 100 %, gates: {GATE}"


def test_a_running_rollout_tells_its_step(begin, endpoint):
    rollout = begin(quick(10, 60))
    assert rollout.traffic == endpoint.traffic == {rollout.revision.id: 10, endpoint.stable.id: 90}
    assert "step 1 of 3, 10 % for 0 s; canary 10 % > 60 % > 100 %" in str(rollout)
    rollout.abort()


def test_a_shadow_is_shown_with_its_copies_and_its_disagreement(begin, endpoint, table, wait_until):
    policy = RolloutPolicy.shadow(40, soak=600, gates=["error_rate <= 50%"], min_sample=5000, interval=0.01)
    rollout = begin(policy)
    for _request in range(10):
        endpoint.predict(table.head(1))
    shown = wait_until(lambda: (" of " in str(rollout).split("gate")[1] and str(rollout)) or None)
    assert re.search(r"shadow +0 % +40 % +\d+ .* (\d) of \1 \(100 %\)", shown)
    drawn = rollout._repr_html_()
    assert "disagreement" in drawn
    assert "copies" in drawn
    rollout.abort()
    assert "copies" not in rollout._repr_html_()


def test_a_rollback_is_shown_without_gates(good, endpoint):
    back = endpoint.rollback(reason=NASTY)
    assert "rollback of iris 1.1.0 on iris: succeeded" in str(back)
    assert NASTY not in back._repr_html_()
    assert "verdict" not in str(back)


def test_why_a_users_gate_decided_is_told_below(begin, wait_until):
    def nasty(_look):
        return Verdict.INCONCLUSIVE, NASTY

    rollout = begin(quick(gates=[nasty]))
    wait_until(lambda: rollout.gates)
    assert NASTY in str(rollout)
    assert NASTY not in rollout._repr_html_()
    assert "alert" in rollout._repr_html_()
    rollout.abort()


def test_a_rollout_is_found_and_shown_by_another_handle(good, session):
    again = Rollout.get(good.id, backend=session)
    assert str(again) == str(good)
    assert again.verdicts.looks == good.verdicts.looks


# ---------------------------------------------------------------- the picture


def test_a_rollout_draws_its_traffic_gates_and_evidence(bad):
    figure = bad.plot()
    titles = [axes.get_title(loc="left").strip() for axes in figure.axes]
    assert titles == ["", GATE, "evidence against the new revision", "evidence for the new revision"]
    assert "1.2.0 on iris: failed" in figure._suptitle.get_text()


def test_a_rollback_draws_its_traffic_only(good, endpoint):
    (axes,) = endpoint.rollback().plot().axes
    assert axes.get_ylabel() == "traffic (%)"


def test_without_matplotlib_the_command_that_installs_it_is_named(good, monkeypatch):
    from modeldeploy.observe import plots

    plots._figure_class.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'modeldeploy\[plot\]'"):
        good.plot()
