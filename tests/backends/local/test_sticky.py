"""Who asks with the same key is answered by the same revision; what the table gave is counted under the share it gave."""

from __future__ import annotations

import json
import struct
import time

import pytest

from modeldeploy.values.assignment import assign
from modeldeploy.values.serving import Payload

STEPS = (5, 25, 50)


def by_header(value: int) -> Payload:
    return _infer(0.0, **{"x-user": str(value)})


def by_field(value: int) -> Payload:
    return _infer(float(value))


def by_binary_field(value: int) -> Payload:
    tensor = {"name": "input", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return Payload(head + struct.pack("<d", value), {"inference-header-content-length": str(len(head))})


def by_parameter(value: int) -> Payload:
    body = json.loads(_infer(0.0).body) | {"parameters": {"user": value}}
    return Payload(json.dumps(body).encode(), {"content-type": "application/json"})


def _infer(value: float, **headers: str) -> Payload:
    tensor = {"name": "input", "shape": [1], "datatype": "FP64", "data": [value]}
    return Payload(json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json", **headers})


FORMS = (
    ("header:X-User", by_header),
    ("field:input", by_field),
    ("field:input", by_binary_field),
    ("field:user", by_parameter),
)


@pytest.fixture
def answered_by(local):
    def ask(payload: Payload) -> str:
        return local.backend.invoke("iris", payload, timeout=10).headers["modeldeploy-revision"]

    return ask


def test_a_key_keeps_its_revision_while_the_new_one_grows(local, answered_by):
    old, new = local.revision(1), local.revision(2)
    local.deploy(old, new)
    for key, write in FORMS:
        moved: set[int] = set()
        for share in STEPS:
            table = {old.id: 100 - share, new.id: share}
            local.shift(table, key=key)
            answers = {number: answered_by(write(number)) for number in range(40)}
            assert answers == {number: assign(table, str(number)) for number in range(40)}
            now = {number for number, revision in answers.items() if revision == new.id}
            assert moved <= now
            moved = now
        assert moved
        local.shift({old.id: 100})


def test_a_share_counts_keys_once_and_no_second_answers_or_pinned_calls(local, answered_by, broken_model):
    stable, canary = local.revision(1), local.revision(2, model=broken_model)
    local.deploy(stable, canary)
    table = {stable.id: 50, canary.id: 50}
    local.shift(table, key="header:x-user")
    users = [str(number) for number in range(30)]
    chosen = [user for user in users if assign(table, user) == canary.id]
    for user in [*users, *users]:
        assert answered_by(_infer(7.0, **{"x-user": user})) == stable.id  # the canary fails, stable answers again
        assert local.predict(1.0, revision=canary.id) == [2.0]
    seen, whole = local.seen(canary, 50), local.seen(canary)
    assert (seen.assigned, seen.requests, seen.errors) == (len(chosen), len(chosen), len(chosen))
    assert (whole.requests, whole.errors) == (2 * len(chosen) + 60, 2 * len(chosen))
    given = local.seen(stable, 50)
    assert (given.assigned, given.requests, given.errors) == (30 - len(chosen), 30 - len(chosen), 0)
    assert local.seen(stable).requests == 60


def test_requests_under_way_count_under_the_share_they_were_given_under(local, under_load):
    old, new = local.revision(1), local.revision(2)
    local.deploy(old, new)
    since = int(time.time())
    with under_load(1.0, connections=8) as load:
        for share in STEPS:
            local.shift({old.id: 100 - share, new.id: share})
    until = int(time.time()) + 1
    for revision, shares in ((old, (100, 95, 75, 50)), (new, STEPS)):
        windows = [local.seen(revision, share) for share in shares]
        answered = sum(1 for _status, by in load.statuses if by == revision.id)
        assert sum(each.requests for each in windows) == answered
        assert all(each.requests == each.assigned for each in windows)
        # Whole seconds are disjoint and complete.
        seconds = [
            local.backend.window("iris", revision.id, at, at + 1, share=share)
            for at in range(since, until)
            for share in shares
        ]
        assert sum(each.requests for each in seconds) == answered
