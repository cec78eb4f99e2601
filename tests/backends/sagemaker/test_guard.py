"""The provider's own guard: it moves the traffic, and takes it back when an alarm rings."""

from __future__ import annotations

import threading

import attrs
import pytest

from modeldeploy.backends.sagemaker import ServerGuard
from modeldeploy.backends.sagemaker.guard import GUARDED
from modeldeploy.errors import ConfigurationError, ConflictError, ModelDeployError, UnsupportedError
from modeldeploy.testing.serving import ServingConformance
from modeldeploy.values.serving import EndpointSpec, Traffic
from modeldeploy.values.ticket import Phase

CANARY = ServerGuard(max_errors=3, canary_percent=50, wait_s=120, bake_s=120)


@pytest.fixture
def guarded(opened, town_of):
    """A guarded backend on the same account."""
    town = town_of(opened(guard=CANARY))
    yield town
    town.clear()


def switch(town, name, revision):
    state = town.backend.observe(name)
    return town.backend.set_traffic(name, Traffic.all_to(revision.id), expect=state.version)


def alarms(town):
    return town.backend._client.call("cloudwatch", "describe_alarms")["MetricAlarms"]


def test_a_revision_waits_as_a_model_and_takes_over_as_the_guard_says(guarded):
    first, second = guarded.revisions[:2]
    guarded.deploy("guarded", first, second)
    state = guarded.backend.observe("guarded")
    assert [(each.revision.id, each.ready, bool(each.note)) for each in state.revisions] == [
        (first.id, True, False),
        (second.id, True, True),
    ]
    assert state.traffic.live == {first.id: 100}
    guarded.succeed(switch(guarded, "guarded", second))
    described = guarded.described("guarded")
    policy = described["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"]["CanarySize"] == {"Type": "CAPACITY_PERCENT", "Value": 50}
    assert policy["TerminationWaitInSeconds"] == 120
    assert [each["VariantName"] for each in described["ProductionVariants"]] == ["primary"]
    assert guarded.answered("guarded") == second.id
    (alarm,) = alarms(guarded)
    dimensions = {each["Name"]: each["Value"] for each in alarm["Dimensions"]}
    assert dimensions["EndpointConfigName"] == described["EndpointConfigName"]
    guarded.succeed(guarded.backend.drop_endpoint("guarded"))
    assert alarms(guarded) == []
    assert guarded.left() == {"endpoints": [], "configs": [], "models": [], "objects": []}


@pytest.mark.timeout(240)
def test_the_service_takes_a_bad_revision_back_by_itself(guarded):
    """Real answers with 5xx reach CloudWatch, the alarm rings, and no process of ours has a part in it."""
    first, broken = guarded.revisions[0], guarded.revision("broken")
    slow = attrs.evolve(CANARY, wait_s=3_600, bake_s=3_600)
    guarded.backend._guard = slow
    guarded.deploy("taken-back", first, broken)
    stop = threading.Event()
    callers = threading.Thread(target=asking, args=(guarded, "taken-back", stop))
    callers.start()
    try:
        ended = guarded.carry(switch(guarded, "taken-back", broken), until=120)
    finally:
        stop.set()
        callers.join()
    assert ended.phase is Phase.FAILED
    assert "alarms" in ended.note
    assert guarded.backend.observe("taken-back").traffic.live == {first.id: 100}


def asking(town, name, stop):
    while not stop.wait(0.002):
        try:
            town.ask(name)
        except ModelDeployError:
            continue


def test_going_back_is_not_guarded(guarded):
    """Whoever goes back does not expect a version, and does not wait for a canary."""
    first, second = guarded.revisions[:2]
    guarded.deploy("goes-back", first, second)
    guarded.succeed(switch(guarded, "goes-back", second))
    guarded.succeed(guarded.backend.set_traffic("goes-back", Traffic.all_to(first.id)))
    assert "LastDeploymentConfig" not in guarded.described("goes-back")
    assert guarded.answered("goes-back") == first.id


def test_what_a_guarded_endpoint_cannot_do_is_refused(guarded):
    first, second = guarded.revisions[:2]
    guarded.deploy("refuses", first, second)
    for table in (Traffic({first.id: 50, second.id: 50}), Traffic({first.id: 100}, shadow={second.id: 10})):
        with pytest.raises(UnsupportedError):
            guarded.backend.set_traffic("refuses", table)
    with pytest.raises(UnsupportedError, match="one variant"):
        guarded.ask("refuses", revision=first.id)
    with pytest.raises(UnsupportedError, match="watches the alarms"):
        guarded.backend.window("refuses", first.id, 0.0, 1.0)
    serverless = guarded.revision(serverless_memory_mb="1024")
    old = guarded.revision(instance_type="ml.inf1.xlarge")
    for revision in (serverless, old):
        with pytest.raises(UnsupportedError) as caught:
            guarded.backend.put_revision(EndpointSpec("another"), revision)
        assert caught.value.capability == "server_side_guard"


def test_the_two_kinds_of_endpoints_are_not_mixed(town, guarded):
    first, second = town.revisions[:2]
    town.deploy("plain", first)
    guarded.deploy("kept", first)
    for backend, name in ((guarded.backend, "plain"), (town.backend, "kept")):
        with pytest.raises(ConflictError, match="guard"):
            backend.observe(name)
        with pytest.raises(ConflictError, match="guard"):
            backend.put_revision(EndpointSpec(name), second)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alarms": [f"a{number}" for number in range(11)]},
        {"max_errors": 1, "canary_percent": 60},
        {"max_errors": 1, "linear_percent": 5},
        {"max_errors": 1, "canary_percent": 10, "linear_percent": 10},
        {"max_errors": 1, "wait_s": 3_601},
    ],
    ids=["nothing rings", "too many", "large canary", "small steps", "both", "long"],
)
def test_a_guard_that_the_service_would_not_take_is_refused(options):
    with pytest.raises(ConfigurationError):
        ServerGuard(**options)


def test_steps_and_a_switch_are_written_as_the_service_has_them():
    linear = ServerGuard(alarms=["mine"], linear_percent=20, wait_s=60).deployment("config")
    assert linear["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"] == {
        "Type": "LINEAR",
        "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 20},
        "WaitIntervalInSeconds": 60,
    }
    assert linear["AutoRollbackConfiguration"] == {"Alarms": [{"AlarmName": "mine"}]}
    at_once = ServerGuard(alarms=["mine"]).deployment("config")
    assert at_once["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"


@pytest.mark.slow
class TestGuarded(ServingConformance):
    """A guarded backend keeps the same rules; what it does not declare it refuses."""

    @pytest.fixture
    def harness(self, harness, opened):
        guard = ServerGuard(max_errors=1_000, wait_s=0, bake_s=0)
        backend = opened(guard=guard)
        assert backend.capabilities.split == GUARDED.split
        harness.backend, harness.reopen = backend, lambda: opened(guard=guard)
        harness.writes = lambda: backend._client.writes
        return harness
