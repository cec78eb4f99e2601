"""The fleet backend over a store: what is signed, what is left behind, and how devices stand to what is wanted."""

from __future__ import annotations

import stat

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression

from modeldeploy import Model
from modeldeploy.backends.fleet import reports
from modeldeploy.backends.fleet.backend import FleetBackend
from modeldeploy.backends.fleet.ledger import Ledger
from modeldeploy.backends.fleet.settings import arguments
from modeldeploy.backends.fleet.shelf import LEDGERS, Within, ranked
from modeldeploy.edge.desired import Desired, ReleaseRef, place, wanted
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge.layout import DESIRED, report_path
from modeldeploy.edge.release import open_release
from modeldeploy.edge.reports import Health, Report
from modeldeploy.edge.stores import DirectoryStore
from modeldeploy.errors import ConfigurationError, ConflictError, IntegrityError, UnavailableError
from modeldeploy.testing.devices import MemoryStore
from modeldeploy.values.edge import DeviceHealth
from modeldeploy.values.serving import EndpointSpec, Revision, Traffic

SPEC = EndpointSpec("cameras")


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    home, x = tmp_path_factory.mktemp("models"), np.arange(12.0).reshape(6, 2)
    models = [
        Model(LinearRegression().fit(x, step * x[:, 0]), name="line", version=f"1.{step}.0", example=x[:2], home=home)
        for step in range(2)
    ]
    return tuple(Revision.of(model.identity) for model in models)


@pytest.fixture
def store():
    return MemoryStore(lambda: 1_000.0)


@pytest.fixture
def fleet(store, tmp_path):
    return FleetBackend(store, key=SigningKey.generate(), home=tmp_path, clock=lambda: 1_000.0)


def carry(backend, ticket):
    while not ticket.phase.ended:
        ticket = backend.advance(ticket)
    return ticket


def deploy(fleet, *revisions):
    for revision in revisions:
        carry(fleet, fleet.put_revision(SPEC, revision))


# ---------------------------------------------------------------- what is signed


@pytest.mark.parametrize("path", [f"{LEDGERS}cameras.json", f"cameras/{DESIRED}"], ids=["ledger", "desired"])
def test_what_was_changed_in_the_store_is_noticed(fleet, store, revisions, path):
    deploy(fleet, revisions[0])
    document = orjson.loads(store.get(path))
    document["payload"] = document["payload"].replace("cameras", "camerae")
    store.put(path, orjson.dumps(document))
    with pytest.raises(IntegrityError):
        fleet.observe("cameras")


@pytest.mark.parametrize("path", [f"{LEDGERS}cameras.json", f"cameras/{DESIRED}"], ids=["ledger", "desired"])
def test_what_is_no_document_is_noticed(fleet, store, revisions, path):
    deploy(fleet, revisions[0])
    store.put(path, b"<html>not found</html>")
    with pytest.raises(IntegrityError):
        fleet.observe("cameras")


def test_a_fleet_of_another_key_is_not_taken_over(fleet, store, revisions, tmp_path):
    deploy(fleet, revisions[0])
    other = FleetBackend(store, key=SigningKey.generate(), home=tmp_path)
    with pytest.raises(IntegrityError):
        other.put_revision(SPEC, revisions[1])


def test_the_ledger_of_another_fleet_is_refused(fleet, store, revisions):
    deploy(fleet, revisions[0])
    store.put(f"{LEDGERS}kiosks.json", store.get(f"{LEDGERS}cameras.json"))
    with pytest.raises(IntegrityError, match="that of fleet 'cameras'"):
        fleet.observe("kiosks")


def test_a_release_is_one_that_a_device_opens(fleet, store, revisions, tmp_path):
    deploy(fleet, revisions[0])
    (path,) = store.list("cameras/releases/")
    archive = tmp_path / "release.tar.gz"
    archive.write_bytes(store.get(path))
    release = open_release(archive, [fleet.public_key], fleet="cameras", into=tmp_path / "slot")
    assert (release.revision, release.digest) == (revisions[0].id, revisions[0].model.digest)


def test_this_machines_own_key_is_made_once_and_is_nobody_elses(tmp_path):
    first, second = FleetBackend(home=tmp_path), FleetBackend(home=tmp_path)
    assert first.public_key == second.public_key
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert first.public_key_file() == second.public_key_file()


def test_a_key_that_was_named_is_never_made(tmp_path):
    backend = FleetBackend(key=tmp_path / "missing.pem", home=tmp_path)
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        backend.check()


# ---------------------------------------------------------------- what is left behind


def test_a_dropped_revision_leaves_no_release(fleet, store, revisions):
    deploy(fleet, *revisions)
    carry(fleet, fleet.set_traffic("cameras", Traffic.all_to(revisions[1].id)))
    carry(fleet, fleet.drop_revision("cameras", revisions[0].id))
    assert len(store.list("cameras/releases/")) == 1
    assert fleet.observe("cameras").revision(revisions[1].id).ready


def test_a_dropped_fleet_leaves_its_number_and_nothing_else(fleet, store, revisions):
    deploy(fleet, *revisions)
    store.put("cameras/" + report_path("d-1"), b"{}")
    carry(fleet, fleet.drop_endpoint("cameras"))
    assert store.list("") == [f"{LEDGERS}cameras.json"]
    assert Ledger.verify(store.get(f"{LEDGERS}cameras.json"), fleet._key, "cameras").sequence == 1
    assert list(fleet.endpoints()) == []


def test_a_release_that_went_missing_is_shown_and_stored_again(fleet, store, revisions):
    deploy(fleet, revisions[0])
    (path,) = store.list("cameras/releases/")
    store.delete(path)
    (state,) = fleet.observe("cameras").revisions
    assert not state.ready
    assert "gone from the store" in state.note
    deploy(fleet, revisions[0])
    assert fleet.observe("cameras").revision(revisions[0].id).ready


def test_a_table_that_devices_refused_is_published_once_more_when_it_is_asked_for(fleet, store, revisions):
    first, second = revisions
    deploy(fleet, first, second)
    carry(fleet, fleet.set_traffic("cameras", Traffic.all_to(second.id)))
    shelf = Within(store, "cameras")
    refused = Report("d-1", "cameras", first.id, 2, Health.FAILED, second.id, "row 0 differs")
    shelf.put(report_path("d-1"), refused.to_bytes())
    assert [device.health for device in fleet.devices("cameras")] == [DeviceHealth.FAILED]
    ticket = fleet.advance(fleet.set_traffic("cameras", Traffic.all_to(second.id)))
    assert [device.health for device in fleet.devices("cameras")] == [DeviceHealth.PENDING]
    before = store.writes
    fleet.advance(fleet.set_traffic("cameras", Traffic.all_to(second.id)))
    assert store.writes == before, "nobody has answered to it yet"
    assert ticket.step == "published"


# ---------------------------------------------------------------- devices


REF = ReleaseRef("a" * 64, "releases/" + "a" * 64 + ".tar.gz", 1)
ALL_NEW = Desired("cameras", 5, {"new": 100}, {"new": REF, "old": REF})


def seen(report, *, offline=False, desired=ALL_NEW):
    store = MemoryStore(lambda: 10.0)
    store.put(report_path("d-1"), report.to_bytes())
    (device,) = reports.devices(store, desired, "cameras", 20.0 if offline else 0.0)
    return device


WELL = Report("d-1", "cameras", "new", 5, Health.OK)
BEHIND = attrs.evolve(WELL, running="old", sequence=4)
REFUSED = attrs.evolve(WELL, running="old", health=Health.FAILED, failed_revision="new", note="row 0 differs")


@pytest.mark.parametrize(
    ("report", "offline", "health"),
    [
        (WELL, False, DeviceHealth.OK),
        (WELL, True, DeviceHealth.OFFLINE),
        (BEHIND, False, DeviceHealth.PENDING),
        (BEHIND, True, DeviceHealth.OFFLINE),
        (REFUSED, False, DeviceHealth.FAILED),
        (REFUSED, True, DeviceHealth.FAILED),
        (attrs.evolve(REFUSED, sequence=4), False, DeviceHealth.PENDING),
        (attrs.evolve(REFUSED, failed_revision="other"), False, DeviceHealth.PENDING),
        (attrs.evolve(WELL, health=Health.FAILED), False, DeviceHealth.FAILED),
        (attrs.evolve(WELL, health=Health.FAILED, failed_revision="other"), False, DeviceHealth.OK),
        (attrs.evolve(WELL, running=None, sequence=0), False, DeviceHealth.PENDING),
    ],
    ids=[
        "well", "well-and-off", "behind", "behind-and-off", "refused", "refused-and-off", "refused-before", "refused-another",
        "runs-and-is-ill", "failed-another-before", "new-device",
    ],
)  # fmt: skip
def test_a_report_says_how_a_device_stands(report, offline, health):
    assert seen(report, offline=offline).health is health


def test_where_nothing_is_wanted_a_device_is_well():
    device = seen(WELL, desired=None)
    assert (device.health, device.wanted) == (DeviceHealth.OK, None)


@pytest.mark.parametrize(
    "data",
    [b"garbage", attrs.evolve(WELL, device="d-2").to_bytes(), attrs.evolve(WELL, fleet="kiosks").to_bytes()],
    ids=["damaged", "of-another-device", "of-another-fleet"],
)
def test_a_report_that_says_nothing_of_its_device_halts_nobody(data):
    store = MemoryStore(lambda: 10.0)
    store.put(report_path("d-1"), data)
    (device,) = reports.devices(store, ALL_NEW, "cameras", 0.0)
    assert (device.health, device.revision, device.wanted) == (DeviceHealth.OFFLINE, None, "new")


tables = st.lists(st.integers(1, 99), min_size=0, max_size=4, unique=True).map(sorted)


@given(shares=tables, device=st.from_regex(r"[a-z]{1,8}-[0-9]{1,3}", fullmatch=True))
def test_a_device_that_has_the_new_revision_keeps_it_while_its_share_grows(shares, device):
    order, had = ("old",), False
    for share in [*shares, 100]:
        live = {"old": 100 - share, "new": share} if share < 100 else {"new": 100}
        order = ranked(live, order)
        desired = Desired("cameras", 1, live, {"old": REF, "new": REF}, order=order)
        has = wanted(desired, device) == "new"
        assert has == (place("cameras", device) < share)
        assert has or not had
        had = has


# ---------------------------------------------------------------- settings and wrong use


def test_settings_are_read_and_wrong_ones_named(tmp_path):
    backend = FleetBackend.configure(tmp_path, {"offline_after": "30", "settle": "5"})
    assert (backend.offline_after, backend.settle) == (30.0, 5.0)
    with pytest.raises(ConfigurationError, match="did you mean 'offline_after'"):
        arguments({"offline_afte": "30"})
    with pytest.raises(ConfigurationError, match="settle"):
        FleetBackend.configure(tmp_path, {"settle": "-1"})


def test_options_are_refused_by_name(fleet, revisions):
    with pytest.raises(ConfigurationError, match="rate"):
        fleet.put_revision(EndpointSpec("cameras", {"rate": "5"}), revisions[0])
    with pytest.raises(ConfigurationError, match="max_memory_mb"):
        fleet.put_revision(SPEC, Revision.of(revisions[0].model, options={"max_memory_mb": "5"}))


def test_a_store_that_is_lost_later_may_come_back(tmp_path, revisions):
    (tmp_path / "share").mkdir()
    fleet = FleetBackend(tmp_path / "share", key=SigningKey.generate(), home=tmp_path)
    deploy(fleet, revisions[0])
    (tmp_path / "share").rename(tmp_path / "gone")
    with pytest.raises(UnavailableError):
        fleet.observe("cameras")
    (tmp_path / "gone").rename(tmp_path / "share")
    assert fleet.observe("cameras").settled
    assert isinstance(fleet._store, DirectoryStore)


def test_the_whole_table_is_expected_or_nothing_is_written(fleet, store, revisions):
    deploy(fleet, *revisions)
    before = store.writes
    with pytest.raises(ConflictError):
        fleet.advance(fleet.set_traffic("cameras", Traffic.all_to(revisions[1].id), expect="0.0"))
    assert store.writes == before
