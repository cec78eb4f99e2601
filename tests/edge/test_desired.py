"""The desired state: who is to run what, and which documents a device believes."""

from __future__ import annotations

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.edge.desired import Desired, ReleaseRef, place, verify, wanted
from modeldeploy.edge.keys import SigningKey
from modeldeploy.errors import ConfigurationError, IntegrityError

FLEET = "cameras"
DEVICES = [f"line-{number}" for number in range(400)]
devices = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)


def ref(letter: str) -> ReleaseRef:
    return ReleaseRef(letter * 64, f"releases/{letter * 64}.tar.gz", 10)


RELEASES = {"v1": ref("1"), "v2": ref("2"), "v3": ref("3")}


def desired(sequence: int = 1, /, **more) -> Desired:
    given = {"table": {"v1": 100}, "releases": RELEASES, "order": ("v2", "v1"), **more}
    return Desired(fleet=FLEET, sequence=sequence, **given)


# Who runs what


@given(device=devices, small=st.integers(0, 100), large=st.integers(0, 100))
def test_who_has_the_new_revision_keeps_it_while_its_share_grows(device, small, large):
    small, large = sorted((small, large))
    before = desired(table={"v2": small, "v1": 100 - small})
    after = desired(table={"v2": large, "v1": 100 - large})
    if wanted(before, device) == "v2":
        assert wanted(after, device) == "v2"


@given(device=devices, share=st.integers(0, 100))
def test_a_device_runs_the_new_revision_exactly_when_its_place_is_below_the_share(device, share):
    state = desired(table={"v2": share, "v1": 100 - share})
    assert (wanted(state, device) == "v2") == (place(FLEET, device) < share)


@given(device=devices, shares=st.permutations([20, 30, 50]))
def test_every_device_has_exactly_one_revision(device, shares):
    state = desired(table=dict(zip(RELEASES, shares, strict=True)))
    assert wanted(state, device) in RELEASES


def test_places_are_spread_evenly_and_differ_between_fleets():
    places = [place(FLEET, device) for device in DEVICES]
    assert set(places) <= set(range(100))
    # 400 devices in ten bins of 40: five standard deviations of a binomial count are 30.
    assert all(10 <= sum(low <= each < low + 10 for each in places) <= 70 for low in range(0, 100, 10))
    assert places != [place("drones", device) for device in DEVICES]


def test_a_place_never_changes():
    # Written down: a release of this library that moved devices between rings would activate on all of them.
    assert [place("cameras", name) for name in ("line-1", "line-2", "line-3")] == [43, 13, 81]


def test_nothing_is_wanted_of_a_device_in_the_share_of_a_blocked_revision():
    state = desired(table={"v2": 50, "v1": 50}, blocked=("v2",))
    assert {wanted(state, device) for device in DEVICES} == {None, "v1"}


def test_an_empty_table_wants_nothing():
    assert wanted(desired(table={}), "line-1") is None


@pytest.mark.parametrize("table", [{"v1": 99}, {"v1": 101}, {"v1": 150, "v2": -50}, {"v1": 0}])
def test_shares_that_are_no_whole_are_refused(table):
    with pytest.raises(ConfigurationError, match="sum 100"):
        desired(table=table)


def test_a_revision_without_a_release_is_refused():
    with pytest.raises(ConfigurationError, match=r"names no release for \['v9'\]"):
        desired(table={"v9": 100})


def test_a_sequence_counts_from_one():
    with pytest.raises(ConfigurationError, match="sequence 0"):
        desired(0)


# Which documents are believed


def test_a_signed_state_is_read_back(key):
    state = desired(7, table={"v2": 10, "v1": 90}, blocked=("v3",), issued=1.5)
    assert verify(state.sign(key), [key.public], fleet=FLEET, after=6) == state


def test_the_same_state_is_the_same_bytes(key):
    assert desired().sign(key) == desired().sign(key)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_changed_bit_changes_what_is_wanted(at, bit):
    key = SigningKey(bytes(32))
    state = desired(3, table={"v2": 10, "v1": 90})
    document = bytearray(state.sign(key))
    document[at % len(document)] ^= 1 << bit
    try:
        found = verify(bytes(document), [key.public], fleet=FLEET)
    except IntegrityError:
        return
    assert found == state  # white space of the wrapping, or an unknown field beside it


def test_a_state_of_an_unknown_key_is_refused(key):
    with pytest.raises(IntegrityError, match="the keys known here"):
        verify(desired().sign(SigningKey(bytes(32))), [key.public], fleet=FLEET)


def test_a_state_of_another_fleet_is_refused(key):
    foreign = attrs.evolve(desired(), fleet="drones").sign(key)
    with pytest.raises(IntegrityError, match="of fleet 'drones', this device belongs to 'cameras'"):
        verify(foreign, [key.public], fleet=FLEET)


def test_an_older_state_is_refused(key):
    with pytest.raises(IntegrityError, match="sequence 4, and 5 was seen"):
        verify(desired(4).sign(key), [key.public], fleet=FLEET, after=5)


def test_another_content_under_the_number_that_was_seen_is_refused(key):
    seen, other = desired(5), desired(5, table={"v2": 100})
    assert verify(seen.sign(key), [key.public], fleet=FLEET, after=5, known=seen.digest) == seen
    with pytest.raises(IntegrityError, match="two desired states"):
        verify(other.sign(key), [key.public], fleet=FLEET, after=5, known=seen.digest)


def test_a_release_is_no_desired_state(key, bundles, tmp_path):
    import tarfile

    from modeldeploy.edge.release import build

    archive = build(bundles["1.0.0"], fleet=FLEET, revision="v1", sequence=1, key=key, to=tmp_path / "r.tar.gz")
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json").read()
        signatures = tar.extractfile("manifest.sig").read()
    document = orjson.dumps({"payload": manifest.decode(), "signatures": orjson.loads(signatures)})
    with pytest.raises(IntegrityError, match="does not fit"):
        verify(document, [key.public], fleet=FLEET)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b'{"payload": 1, "signatures": []}', b"\xff\xfe"])
def test_what_is_no_document_is_refused(key, data):
    with pytest.raises(IntegrityError):
        verify(data, [key.public], fleet=FLEET)


def test_a_signed_state_of_a_newer_version_says_so(key):
    from modeldeploy.edge.desired import PURPOSE
    from modeldeploy.edge.keys import write_signatures

    payload = orjson.dumps({"schema": 99, "body": {}})
    signatures = orjson.loads(write_signatures(PURPOSE, payload, [key]))
    document = orjson.dumps({"payload": payload.decode(), "signatures": signatures})
    with pytest.raises(IntegrityError, match="signed but cannot be read"):
        verify(document, [key.public], fleet=FLEET)
