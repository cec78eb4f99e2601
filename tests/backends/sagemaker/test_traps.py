"""One test for each trap of the service: what it leaves out, takes back, tells too late, or answers to nobody."""

from __future__ import annotations

import json
import time

import attrs
import pytest

from modeldeploy.errors import (
    ConflictError,
    IntegrityError,
    InvalidRequestError,
    NotFoundError,
    PredictionError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase

WRITES = (
    "CreateModel",
    "CreateEndpointConfig",
    "CreateEndpoint",
    "UpdateEndpoint",
    "UpdateEndpointWeightsAndCapacities",
    "DeleteEndpoint",
    "DeleteEndpointConfig",
    "DeleteModel",
)


@pytest.fixture
def sent(town):
    """Note every request of the control plane as it goes out."""
    found = []
    client = town.backend.native

    def note(params, model, **_):
        found.append((model.name, json.loads(params["body"]) if params["body"] else {}))

    client.meta.events.register("before-call.sagemaker.*", note)
    yield found
    client.meta.events.unregister("before-call.sagemaker.*", note)


def members(sent, operation):
    return [body for name, body in sent if name == operation]


# ---------------------------------------------------------------- what is left out


def test_a_weight_of_zero_is_really_sent(town, sent):
    """Left out, a variant's first weight would be 1, and a desired one would stay as it is."""
    first, second = town.revisions[:2]
    town.deploy("zero", first, second)
    town.succeed(town.backend.set_traffic("zero", Traffic.all_to(second.id)))
    (config,) = [each for each in members(sent, "CreateEndpointConfig") if len(each["ProductionVariants"]) == 2]
    assert [each["InitialVariantWeight"] for each in config["ProductionVariants"]] == [100.0, 0.0]
    (change,) = members(sent, "UpdateEndpointWeightsAndCapacities")
    assert change["DesiredWeightsAndCapacities"] == [
        {"VariantName": first.id, "DesiredWeight": 0.0},
        {"VariantName": second.id, "DesiredWeight": 100.0},
    ]
    assert {town.answered("zero") for _ in range(20)} == {second.id}


def test_weights_are_restated_when_a_revision_comes(town, sent):
    """A new configuration's weights hold, and those of the old one are as old as that."""
    first, second, third = town.revisions
    town.deploy("restated", first, second)
    town.succeed(town.backend.set_traffic("restated", Traffic({first.id: 30, second.id: 70})))
    town.succeed(town.backend.put_revision(EndpointSpec("restated"), third))
    assert town.backend.observe("restated").traffic.live == {first.id: 30, second.id: 70}
    update = members(sent, "UpdateEndpoint")[-1]
    assert update["RetainAllVariantProperties"] is True
    assert update["ExcludeRetainedVariantProperties"] == [{"VariantPropertyType": "DesiredWeight"}]


# ---------------------------------------------------------------- what is taken back


def test_an_update_that_was_silently_rolled_back_is_a_failure(town):
    """The service says InService, by the old configuration, and gives no reason."""
    first, second = town.revisions[:2]
    town.deploy("silent", first)
    town.faults.silent_rollback = True
    ended = town.carry(town.backend.put_revision(EndpointSpec("silent"), second))
    assert (ended.phase, town.described("silent")["EndpointStatus"]) == (Phase.FAILED, "InService")
    assert "took the change back" in ended.note
    assert town.backend.observe("silent").revision(second.id) is None


def test_weights_that_were_silently_rolled_back_are_a_failure(town):
    first, second = town.revisions[:2]
    town.deploy("back", first, second)
    town.faults.silent_rollback = True
    ended = town.carry(town.backend.set_traffic("back", Traffic.all_to(second.id)))
    assert ended.phase is Phase.FAILED
    assert str({first.id: 100}) in ended.note
    assert town.backend.observe("back").traffic.live == {first.id: 100}


def test_a_rollback_that_fails_is_told(town):
    first = town.revisions[0]
    town.deploy("stuck", first)
    town.faults.rollback_fails = True
    ended = town.carry(town.backend.put_revision(EndpointSpec("stuck"), town.revision("dies")))
    assert ended.phase is Phase.FAILED
    assert "UpdateRollbackFailed" in ended.note


def test_no_capacity_is_told_in_the_services_words(town):
    town.faults.capacity = True
    ended = town.carry(town.backend.put_revision(EndpointSpec("full"), town.revisions[0]))
    assert ended.phase is Phase.FAILED
    assert "Unable to provision requested ML compute capacity" in ended.note
    town.made.append("full")


@pytest.mark.parametrize(("kind", "said"), [("dies", "libgpu: no device found"), ("sick", "the container is up")])
def test_a_container_that_does_not_come_up_is_told_with_its_last_lines(town, kind, said):
    """Without them "did not pass the ping health check" is all that users ever learn."""
    name = f"endpoint-{kind}"
    town.made.append(name)
    town.backend.simulator.faults.ping = kind == "sick"
    ended = town.carry(town.backend.put_revision(EndpointSpec(name), town.revision(kind)), until=60)
    assert ended.phase is Phase.FAILED
    assert said in ended.note


# ---------------------------------------------------------------- what is told too late


def test_an_in_service_that_is_stale_is_no_success(town):
    """DescribeEndpoint may go on showing what was before the request."""
    first, second = town.revisions[:2]
    town.deploy("stale", first)
    town.faults.stale_s = 30.0
    ticket, looks = town.backend.put_revision(EndpointSpec("stale"), second), []
    while not ticket.phase.ended:
        ticket = town.backend.advance(ticket)
        looks.append(ticket.note)
        time.sleep(min(ticket.poll_after, 0.005))
    assert ticket.phase is Phase.SUCCEEDED
    assert any("still shows what was before" in note for note in looks)
    assert town.answered("stale", revision=second.id) == second.id


def test_what_was_just_made_and_is_not_found_yet_is_waited_for(town):
    town.faults.lag_s = 30.0
    town.deploy("late", *town.revisions[:2])
    assert town.backend.observe("late").traffic.live == {town.revisions[0].id: 100}


def test_a_change_that_is_under_way_is_waited_for(town):
    """Cannot update in-progress endpoint: no failure, and not to be tried again and again."""
    first, second = town.revisions[:2]
    town.deploy("busy", first, second)
    one = town.backend.advance(town.backend.set_traffic("busy", Traffic.all_to(second.id)))
    other = town.backend.advance(town.backend.set_traffic("busy", Traffic({first.id: 50, second.id: 50})))
    assert other.phase is Phase.RUNNING
    town.succeed(other)
    assert one.phase is Phase.RUNNING
    assert town.backend.observe("busy").traffic.live == {first.id: 50, second.id: 50}


# ---------------------------------------------------------------- what is answered to nobody


@pytest.mark.parametrize(
    ("when", "operation"),
    [*(("drop_after", each) for each in WRITES), ("drop_before", "CreateEndpoint"), ("drop_before", "UpdateEndpoint")],
)
def test_an_answer_that_is_lost_does_no_harm(town, sent, operation, when):
    """What was done is found done; most of all an endpoint that we made ourselves and that exists already."""
    first, second = town.revisions[:2]
    spec = EndpointSpec(f"lost-{WRITES.index(operation)}-{when[5:]}")
    town.made.append(spec.name)
    getattr(town.faults, when)[operation] = 1
    starts = [
        lambda: town.backend.put_revision(spec, first),
        lambda: town.backend.put_revision(spec, second),
        lambda: town.backend.set_traffic(spec.name, Traffic.all_to(second.id)),
        lambda: town.backend.drop_revision(spec.name, first.id),
        lambda: town.backend.drop_endpoint(spec.name),
    ]
    lost = [carried(town, start()) for start in starts]
    assert sum(lost) == 1
    assert town.backend.observe(spec.name) is None
    assert town.left() == {"endpoints": [], "configs": [], "models": [], "objects": []}


def carried(town, ticket) -> int:
    """Carry a ticket as the engine does: what is transient is tried again with the same ticket. Counts how often."""
    lost, deadline = 0, time.monotonic() + 30
    while not ticket.phase.ended:
        assert time.monotonic() < deadline, ticket
        try:
            ticket = town.backend.advance(ticket)
        except UnavailableError:
            lost += 1
        time.sleep(ticket.poll_after or 0.002)
    assert ticket.phase is Phase.SUCCEEDED, ticket.note
    return lost


def test_a_request_is_sent_once_where_the_model_does_not_allow_more(town):
    """botocore sends InvokeEndpoint up to three times by itself."""
    town.deploy("once", town.revisions[0])
    town.ask("once")
    town.faults.drop_after["InvokeEndpoint"] = 1
    with pytest.raises(UnavailableError):
        town.ask("once")
    assert json.loads(town.ask("once").body)["asked"] == 3


def test_a_request_is_sent_once_more_where_the_model_allows_it(town):
    town.deploy("twice", town.revision(idempotent="true"))
    town.ask("twice")
    town.faults.drop_after["InvokeEndpoint"] = 1
    assert json.loads(town.ask("twice").body)["asked"] == 3


# ---------------------------------------------------------------- what must never be deleted


def test_the_configuration_of_a_live_endpoint_is_never_deleted(town, sent):
    """The service does not refuse it, and loses sight of what it runs."""
    first, second, third = town.revisions
    town.deploy("alive", first, second, third)
    town.succeed(town.backend.set_traffic("alive", Traffic({second.id: 100})))
    town.succeed(town.backend.drop_revision("alive", third.id))
    town.succeed(town.backend.set_traffic("alive", Traffic({second.id: 100}, shadow={first.id: 10})))
    used, gone = set(), []
    for name, body in sent:
        if name in {"CreateEndpoint", "UpdateEndpoint"}:
            used = {body["EndpointConfigName"]}
        if name == "DeleteEndpointConfig":
            gone.append(body["EndpointConfigName"])
            assert body["EndpointConfigName"] not in used
    assert len(gone) == 4
    assert town.left()["configs"] == [town.described("alive")["EndpointConfigName"]]


def test_what_others_made_is_not_touched(town):
    """Neither an endpoint without our tag nor a configuration whose name looks like one of ours."""
    town.deploy("mine", town.revisions[0])
    model = town.left()["models"][0]
    variant = {"VariantName": "primary", "ModelName": model, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    for name in ("theirs-config", "mine-0123456789ab"):
        town.aws.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    town.aws.create_endpoint(EndpointName="theirs", EndpointConfigName="theirs-config")
    try:
        assert town.backend.endpoints() == ["mine"]
        for act in (town.backend.drop_endpoint, town.backend.observe):
            with pytest.raises(ConflictError, match="modeldeploy did not make"):
                act("theirs")
        town.succeed(town.backend.drop_endpoint("mine"))
        assert town.left()["configs"] == ["mine-0123456789ab", "theirs-config"]
    finally:
        while town.described("theirs")["EndpointStatus"] != "InService":
            time.sleep(0.02)
        town.aws.delete_endpoint(EndpointName="theirs")
        while "theirs" in town.left()["endpoints"]:
            time.sleep(0.02)
        for name in ("theirs-config", "mine-0123456789ab"):
            town.aws.delete_endpoint_config(EndpointConfigName=name)


def test_nothing_is_left_of_an_endpoint(town):
    town.deploy(
        "leaves", *town.revisions, town.revision(least_instances="1", most_instances="3", schedule="rate(1 hour)=1-2")
    )
    town.succeed(town.backend.drop_endpoint("leaves"))
    assert town.left() == {"endpoints": [], "configs": [], "models": [], "objects": []}
    scaling = town.backend._client.service("application-autoscaling")
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_nothing_is_left_of_a_revision_that_was_cancelled_while_it_was_sent(town):
    """An upload in parts that nobody finishes is stored, and paid for, and not to be seen among the objects."""
    s3, bucket = town.backend._client.service("s3"), town.backend.simulator.bucket
    ticket = town.backend.advance(town.backend.put_revision(EndpointSpec("half"), town.revisions[0]))
    place = f"modeldeploy/endpoints/half/{town.revisions[0].id}/part"
    s3.create_multipart_upload(Bucket=bucket, Key=place)
    town.backend.advance(ticket)
    assert town.left()["objects"]
    assert town.backend.cancel(ticket).phase is Phase.CANCELLED
    assert town.left()["objects"] == []
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_an_update_that_was_asked_for_cannot_be_cancelled(town):
    town.deploy("goes-on", town.revisions[0])
    ticket = town.backend.put_revision(EndpointSpec("goes-on"), town.revisions[1])
    while not ticket.step.startswith("moving"):
        ticket = town.backend.advance(ticket)
    with pytest.raises(UnsupportedError, match="asked for already"):
        town.backend.cancel(ticket)
    town.succeed(ticket)


# ---------------------------------------------------------------- what is refused before the wire


@pytest.mark.parametrize(
    ("operation", "parameters", "member"),
    [
        ("delete_model", {"ModelName": "bad_name!"}, "ModelName"),
        ("delete_model", {"ModelName": "x" * 64}, "ModelName"),
        ("describe_endpoint", {"EndpointName": "under_score"}, "EndpointName"),
        (
            "create_model",
            {"ModelName": "m", "PrimaryContainer": {"Image": "has blanks", "Environment": {"A": "x"}}},
            "PrimaryContainer.Image",
        ),
        (
            "create_model",
            {"ModelName": "m", "PrimaryContainer": {"Image": "i", "Environment": {"A": "x" * 1025}}},
            "PrimaryContainer.Environment['A']",
        ),
        ("create_model", {"ModelName": "m", "ExecutionRoleArn": "no-arn-of-any-role-at-all"}, "ExecutionRoleArn"),
    ],
    ids=["form", "length", "underscore", "nested", "map", "pattern"],
)
def test_what_the_service_would_refuse_is_refused_before_it_is_sent(town, sent, operation, parameters, member):
    """botocore checks what is there and of which type, and leaves forms and lengths to the service."""
    with pytest.raises(InvalidRequestError) as caught:
        town.backend._client.sagemaker(operation, **parameters)
    assert caught.value.field == member
    assert sent == []


def test_an_instance_type_that_botocore_does_not_know_is_left_to_the_service(town, sent):
    """Enumerations grow every month."""
    ticket = town.backend.put_revision(EndpointSpec("new-type"), town.revision(instance_type="ml.zz9.large"))
    town.made.append("new-type")
    with pytest.raises(InvalidRequestError) as caught:
        town.carry(ticket)
    assert caught.value.context["request"]
    assert len(members(sent, "CreateEndpointConfig")) == 1


# ---------------------------------------------------------------- what errors mean


def test_throttling_may_be_repeated(town):
    town.deploy("throttled", town.revisions[0])
    town.faults.throttle_every = 1
    with pytest.raises(ThrottledError) as caught:
        town.backend.observe("throttled")
    assert caught.value.transient
    town.faults.throttle_every, town.faults.throttle_invocations_every = 0, 1
    with pytest.raises(ThrottledError):
        town.ask("throttled")


def test_a_models_failure_is_told_with_the_last_lines_of_its_log(town, wait_until):
    town.deploy("fails", town.revisions[0])

    def told():
        with pytest.raises(PredictionError) as caught:
            town.ask("fails", b"fail")
        return caught.value if "Traceback: the model broke" in str(caught.value) else None

    error = wait_until(told, 20, interval=0.3)
    assert (error.status, "the model broke" in error.body) == (500, True)


def test_a_callers_mistake_is_told_with_the_field(town):
    town.deploy("mistakes", town.revisions[0])
    with pytest.raises(InvalidRequestError) as caught:
        town.ask("mistakes", b"wrong")
    assert caught.value.field == "x"


def test_an_unknown_revision_or_endpoint_is_not_found(town):
    town.deploy("known", town.revisions[0])
    for name, revision in (("known", "v9-9-9-00000000"), ("unknown", None)):
        with pytest.raises(NotFoundError):
            town.ask(name, revision=revision)


def test_an_endpoint_that_is_not_in_service_yet_is_unavailable_and_not_unknown(town):
    """The runtime says of both that there is no such endpoint."""
    ticket = town.backend.put_revision(EndpointSpec("soon"), town.revisions[0])
    town.made.append("soon")
    while town.backend.observe("soon") is None:
        ticket = town.backend.advance(ticket)
    with pytest.raises(UnavailableError, match="Creating"):
        town.ask("soon")
    town.succeed(ticket)
    assert town.answered("soon") == town.revisions[0].id


def test_a_record_that_was_changed_is_not_believed(town):
    """What a revision is stands in the bucket, and its hash at the service."""
    town.deploy("records", town.revisions[0])
    provider = town.backend._provider
    (key,) = [each.key for each in provider.storage.below("") if each.key.endswith("revision.json")]
    document = json.loads(provider.storage.get(key))
    provider.storage.put(key, json.dumps({**document, "options": {"image": "evil"}}).encode())
    provider._revisions.clear()
    with pytest.raises(IntegrityError, match="was changed"):
        town.backend.observe("records")


def test_pickled_content_that_nobody_vouched_for_is_refused_at_the_start(town, opened, tmp_path):
    """The store of this machine vouches for what was packaged here; another home knows nothing of it."""
    stranger = opened()
    stranger._home = tmp_path
    with pytest.raises(IntegrityError, match="nobody here vouched"):
        stranger.put_revision(EndpointSpec("stranger"), town.revisions[0])


def test_another_revision_of_the_same_id_is_a_conflict(town):
    first, second = town.revisions[:2]
    town.deploy("impostor", first)
    with pytest.raises(ConflictError):
        town.backend.put_revision(EndpointSpec("impostor"), attrs.evolve(second, id=first.id))
