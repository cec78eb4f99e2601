"""What the suite of every backend does not ask: the generated start, staging, options, labels, large files, what others made."""

from __future__ import annotations

import json
import time

import attrs
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from modeldeploy import Endpoint, Model, RolloutPolicy
from modeldeploy.backends.vertex import Vertex, VertexOptions
from modeldeploy.backends.vertex.entry import File, Shipment
from modeldeploy.backends.vertex.errors import BusyError
from modeldeploy.backends.vertex.rehearsal import Rehearsal, shared, start
from modeldeploy.backends.vertex.ship import Position, Shipper
from modeldeploy.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OperationFailed,
    PredictionError,
    UnavailableError,
    UnsupportedError,
)
from modeldeploy.serving import binary_type
from modeldeploy.values.serving import EndpointSpec, Hardware, Payload, Revision, Scale, Traffic
from modeldeploy.values.ticket import Phase

# Requests


def test_a_wrong_request_is_the_callers_mistake_and_a_broken_model_is_told_with_its_log(town):
    town.deploy("wrong", town.revisions[0])
    with pytest.raises(InvalidRequestError, match="column x is missing") as caught:
        town.ask("wrong", b"wrong")
    assert caught.value.field == "x"
    with pytest.raises(PredictionError, match="the model broke") as broken:
        town.ask("wrong", b"fail")
    assert broken.value.status == 500
    assert "Traceback: the model broke" in str(broken.value)


def test_a_request_that_takes_too_long_is_given_up(town):
    town.deploy("slow", town.revisions[0])
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        town.backend.invoke("slow", Payload(b"slow", {"content-type": "application/json"}), timeout=0.3)
    assert time.monotonic() - began < 1.4


def test_a_request_that_is_too_large_is_refused_before_it_is_sent(town):
    town.deploy("large", town.revisions[0])
    before = town.backend.simulator.calls["RawPredict"]
    with pytest.raises(InvalidRequestError, match="1,500,000"):
        town.ask("large", b" " * 1_500_001)
    assert town.backend.simulator.calls["RawPredict"] == before


def test_the_content_type_goes_along_also_of_binary_tensors(town):
    town.deploy("typed", town.revisions[0])
    sent = {"content-type": "application/octet-stream", binary_type.HEADER: "12"}
    answer = town.backend.invoke("typed", Payload(b"{}", sent), timeout=5)
    assert json.loads(answer.body)["type"] == f"{binary_type.PREFIX}12"
    with pytest.raises(InvalidRequestError, match="content-type"):
        town.backend.invoke("typed", Payload(b"{}", {"content-type": "a\r\nb: c"}), timeout=5)


def test_a_request_whose_answer_was_lost_is_sent_once_more_only_where_the_model_allows_it(town):
    town.deploy("lost", town.revisions[0])
    town.faults.lose = {"RawPredict": 1}
    with pytest.raises(UnavailableError):
        town.ask("lost")
    town.deploy("lost-safe", town.revision(at=1, idempotent="true"))
    town.faults.lose = {"RawPredict": 1}
    assert town.answered("lost-safe")
    assert town.faults.lose == {"RawPredict": 0}


def test_an_endpoint_that_was_made_anew_is_found_again(town):
    town.deploy("anew", town.revisions[0])
    town.ask("anew")
    town.succeed(town.backend.drop_endpoint("anew"))
    with pytest.raises(NotFoundError):
        town.ask("anew")
    town.deploy("anew", town.revisions[1])
    answer = town.ask("anew")
    assert answer.headers["modeldeploy-revision"] == town.revisions[1].id


def test_a_pinned_call_is_refused_with_the_alternative(town):
    town.deploy("pinned", town.revisions[0])
    with pytest.raises(UnsupportedError, match="an endpoint of its own"):
        town.backend.invoke("pinned", Payload(b"{}"), revision=town.revisions[0].id, timeout=5)


def test_copies_are_refused_with_the_alternative(town):
    first, second = town.revisions[:2]
    town.deploy("copies", first, second)
    with pytest.raises(UnsupportedError, match="second endpoint"):
        town.backend.set_traffic("copies", Traffic({first.id: 100}, shadow={second.id: 10}))


# A dedicated endpoint


def test_a_dedicated_endpoint_is_called_at_its_own_address_and_takes_more(town):
    town.deploy("own", town.revisions[0], dedicated="true", inference_timeout_s="120")
    entity = town.backend._provider.entity("own")
    assert entity.dedicated_endpoint_enabled
    assert entity.client_connection_config.inference_timeout.total_seconds() == 120
    assert town.answered("own") == town.revisions[0].id
    assert town.ask("own", b" " * 2_000_000).body
    assert entity.dedicated_endpoint_dns in town.backend.observe("own").url


# What is asked for


def test_options_reach_the_deployed_model(town):
    options = VertexOptions(
        image="stub", machine_type="n1-standard-8", accelerator="NVIDIA_TESLA_T4", spot=True, least_replicas=1,
        most_replicas=3, cpu_percent=50, service_account="me@p.iam.gserviceaccount.com", access_logging=True,
    )  # fmt: skip
    revision = Revision.of(town.models[0], options=dict(options))
    town.deploy("options", revision)
    (found,) = town.backend._provider.entity("options").deployed_models
    made = found.dedicated_resources
    assert (made.machine_spec.machine_type, made.machine_spec.accelerator_count) == ("n1-standard-8", 1)
    assert made.machine_spec.accelerator_type.name == "NVIDIA_TESLA_T4"
    assert (made.min_replica_count, made.max_replica_count, made.spot) == (1, 3, True)
    assert found.service_account == "me@p.iam.gserviceaccount.com"
    assert found.enable_access_logging
    assert town.backend.observe("options").revisions[0].revision == revision


def test_hardware_and_workers_are_asked_for(town):
    revision = Revision.of(
        town.models[0], scale=Scale(2), hardware=Hardware(cpu=4, memory_gb=8), options={"image": "stub"}
    )
    town.deploy("hardware", revision)
    (found,) = town.backend._provider.entity("hardware").deployed_models
    assert found.dedicated_resources.machine_spec.machine_type == "e2-standard-4"
    assert found.dedicated_resources.min_replica_count == 2


def test_what_is_made_bears_labels_for_whoever_pays(town):
    town.backend._provider.defaults.labels["team"] = "ml"
    try:
        town.deploy("labelled", town.revision(at=0, startup_s="700"))
    finally:
        town.backend._provider.defaults.labels.clear()
    entity = town.backend._provider.entity("labelled")
    model = town.backend._client.call(
        "model",
        "get_model",
        {"name": f"{entity.deployed_models[0].model}@{entity.deployed_models[0].model_version_id}"},
    )
    assert entity.labels["team"] == model.labels["team"] == "ml"


def test_versions_are_those_of_the_registry_and_bear_the_revision_as_alias(town):
    town.deploy("registry", town.revisions[0], town.revisions[1])
    client = town.backend._client
    versions = client.every("model", "list_model_versions", {"name": f"{client.access.parent}/models/adds"})
    aliases = {alias: each for each in versions for alias in each.version_aliases}
    assert {revision.id for revision in town.revisions[:2]} <= set(aliases)
    # Registering another version never moves the default.
    assert "default" in min(versions, key=lambda each: int(each.version_id)).version_aliases


# What others made


def test_what_others_made_is_not_touched(town):
    client = town.backend._client
    request = {"parent": client.access.parent, "endpoint": {"display_name": "theirs"}, "endpoint_id": "theirs"}
    client.begin("endpoint", "create_endpoint", request)
    until = time.monotonic() + 5
    while town.backend._provider.entity("theirs") is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert "theirs" not in town.backend.endpoints()
    for call in (
        lambda: town.backend.put_revision(EndpointSpec("theirs"), town.revisions[0]),
        lambda: town.backend.drop_endpoint("theirs"),
        lambda: town.backend.observe("theirs"),
    ):
        with pytest.raises(ConflictError, match="modeldeploy did not make"):
            call()
    client.begin("endpoint", "delete_endpoint", {"name": town.backend._provider.resource("theirs")})


# Files


class Bucket:
    """The bucket of the rehearsal, for shipments that are made here."""

    def __init__(self, town):
        self.storage = town.backend._provider.storage
        self.shipper = Shipper(self.storage, slice=512 * 1024)

    def carry(self, shipment, position=None):
        position, steps = position or Position(), 0
        while not position.done:
            position = self.shipper.advance(shipment, Position.load(position.dump()))
            steps += 1
            assert steps < 50
        return steps


def large(name="big"):
    data = np.random.default_rng(3).bytes(1_300_000)
    return Shipment(
        (File("a.bin", data=data), File("b.txt", data=b"small"), File("empty")), f"modeldeploy/tests/{name}"
    ), data


def test_a_large_file_goes_in_slices_and_arrives_whole(town):
    shipment, data = large("slices")
    assert Bucket(town).carry(shipment) >= 4
    assert town.backend._provider.storage.get(f"{shipment.place}/a.bin") == data
    before = town.backend._client.writes
    Bucket(town).carry(shipment)
    assert town.backend._client.writes == before


def test_every_position_of_a_shipment_may_be_repeated(town):
    shipment, data = large("repeated")
    bucket, position, seen = Bucket(town), Position(), [Position()]
    while not position.done:
        bucket.shipper.advance(shipment, position)
        position = bucket.shipper.advance(shipment, position)
        seen.append(position)
    assert all(bucket.carry(shipment, each) for each in seen if not each.done)
    assert town.backend._provider.storage.get(f"{shipment.place}/a.bin") == data


def test_something_else_under_the_name_of_a_file_is_noticed(town):
    shipment, _data = large("else")
    town.backend._provider.storage.put(f"{shipment.place}/b.txt", b"other")
    with pytest.raises(ConflictError, match="something else"):
        Bucket(town).carry(shipment)


# The handles, over the generated start


@pytest.fixture
def real():
    """A rehearsal whose containers are started as those of the service are; what is packaged here is trusted here."""
    made = start(speed=1_000.0, patience_s=60.0)
    yield made
    made.close()


class Lies(LinearRegression):
    """Answers as it did when it was packaged, but for requests there: its server asks once when it starts."""

    def predict(self, x):
        import os

        self.asked_ = getattr(self, "asked_", 0) + ("AIP_ENDPOINT_ID" in os.environ)
        return super().predict(x) + (0.5 if self.asked_ > 1 else 0.0)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_rollout_asks_the_new_revision_on_an_endpoint_of_its_own(real):
    x = np.arange(12.0).reshape(6, 2)
    fitted = [LinearRegression().fit(x, x.sum(axis=1) * factor) for factor in (1, 2)]
    first, second = (Model(each, name="sums", version=f"1.{number}.0", example=x) for number, each in enumerate(fitted))
    endpoint = Endpoint.deploy(first, name="sums", backend=real)
    try:
        rollout = endpoint.rollout(second, RolloutPolicy.all_at_once())
        assert rollout.status == "succeeded"
        np.testing.assert_allclose(endpoint.predict(x), x.sum(axis=1) * 2)
        # It was made, asked, and taken away.
        assert real.endpoints() == ["sums"]
        assert real.simulator.calls["CreateEndpoint"] == 2
        liar = Model(Lies().fit(x, x.sum(axis=1)), name="sums", version="1.2.0", example=x)
        with pytest.raises(OperationFailed, match="golden outputs"):
            endpoint.rollout(liar, RolloutPolicy.all_at_once())
        assert endpoint.traffic == {endpoint.stable.id: 100}
        assert real.endpoints() == ["sums"]
    finally:
        endpoint.delete()


def test_a_rehearsal_that_is_named_is_one_for_each_home(tmp_path):
    first = shared(tmp_path)
    try:
        assert shared(tmp_path) is first
        assert isinstance(Vertex.configure(tmp_path, {"rehearsal": "1"}), Rehearsal)
        assert not first.capabilities.durable
    finally:
        first.shutdown()


def test_a_revision_that_is_being_made_elsewhere_is_waited_for(town, monkeypatch):
    ticket = town.backend.put_revision(EndpointSpec("elsewhere"), town.revisions[0])
    town.made.append("elsewhere")
    provider = town.backend._provider
    real = provider.put_endpoint
    refused = []

    def busy(asked):
        if len(refused) < 3:
            refused.append(asked)
            raise BusyError("the id is taken")
        return real(asked)

    monkeypatch.setattr(provider, "put_endpoint", busy)
    assert town.carry(ticket).phase is Phase.SUCCEEDED
    assert len(refused) == 3
    assert attrs.asdict(town.backend.observe("elsewhere"))["settled"]
