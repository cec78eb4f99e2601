"""A bundle to S3: the same bytes each time, in slices, resumed after a crash, adopted when it is there, nothing orphaned."""

from __future__ import annotations

import gzip
import io
import tarfile

import boto3
import numpy as np
import pytest
from moto import mock_aws

from modeldeploy.backends.sagemaker import archive, entry
from modeldeploy.backends.sagemaker.archive import Member, TarStream, pack
from modeldeploy.backends.sagemaker.images import Image
from modeldeploy.backends.sagemaker.ship import Position, Shipper
from modeldeploy.backends.sagemaker.storage import Storage
from modeldeploy.errors import ConflictError, IntegrityError
from modeldeploy.packaging.bundle import Bundle
from modeldeploy.packaging.package import package
from modeldeploy.packaging.store import Store

PART = 5 << 20
IMAGE = Image("123456789012.dkr.ecr.eu-west-1.amazonaws.com/mine:1")


class Heavy:
    """Multiplies by the first of eleven million random bytes, which do not compress."""

    def __init__(self, size=10_800_000):
        self.noise = np.random.default_rng(7).bytes(size)

    def predict(self, columns):
        return columns["x"] * self.noise[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def heavy(store):
    return package(Heavy(), name="heavy", version="1.0.0", example={"x": np.array([0.5, 1.0])}, store=store)


@pytest.fixture(scope="module")
def light(store):
    return package(Heavy(8), name="light", version="1.0.0", example={"x": np.array([0.5, 1.0])}, store=store)


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
        s3.create_bucket(Bucket="bucket")
        yield s3


@pytest.fixture
def storage(client):
    return Storage(client, "bucket")


@pytest.fixture
def shipper(storage):
    return Shipper(storage, prefix="models", least=PART)


def ship(shipper, bundle, position=None):
    """Ship to the end, every position through its text; give how many calls it took."""
    calls = 0
    while position is None or not position.done:
        position = Position.load(shipper.advance(bundle, position).dump())
        calls += 1
    return calls


def uploads(client):
    return client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])


def content(storage, shipper, bundle):
    url = shipper.shipment(bundle, IMAGE, trust=[bundle.digest]).model_data_url
    return storage.get(url.removeprefix("s3://bucket/"))


# The archive.


def test_the_same_members_are_the_same_bytes_in_any_order():
    members = [Member.of("b/c.txt", b"hello"), Member.of("a.bin", bytes(1000))]
    first, second = TarStream(members), TarStream(members[::-1])
    assert first.digest == second.digest
    assert pack(first, 0, 0, 1 << 20).data == pack(second, 0, 0, 1 << 20).data


def test_the_digest_depends_on_names_and_on_bytes():
    digests = {TarStream([Member.of(name, data)]).digest for name, data in (("a", b"x"), ("a", b"y"), ("b", b"x"))}
    assert len(digests) == 3


def test_the_stream_is_a_tar_archive_that_can_be_read_from_any_place(monkeypatch):
    members = [Member.of("x/" + "long" * 40, b"1"), Member.of("empty", b""), Member.of("block", bytes(range(256)) * 4)]
    stream = TarStream(members)
    whole = stream.read(0, stream.size)
    assert len(whole) == stream.size
    assert b"".join(stream.read(at, 7) for at in range(0, stream.size, 7)) == whole
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert {each.name: tar.extractfile(each).read() for each in tar} == {each.name: each.data for each in members}
        assert {(each.mtime, each.uid, each.mode) for each in tar} == {(0, 0, 0o444)}


def test_slices_make_one_gzip_member_with_the_right_check_sum(monkeypatch):
    monkeypatch.setattr(archive, "_STEP", 10_000)
    stream = TarStream([Member.of("noise", np.random.default_rng(1).bytes(1_000_000))])
    packed, offset, crc, count = b"", 0, 0, 0
    while offset < stream.size:
        piece = pack(stream, offset, crc, 150_000)
        packed, offset, crc, count = packed + piece.data, piece.offset, piece.crc, count + 1
    assert piece.last
    assert count > 3
    assert gzip.decompress(packed) == stream.read(0, stream.size)
    assert packed.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") == 1


# What lies in it.


def test_the_archive_holds_the_bundle_the_handlers_and_the_library(light, storage, shipper):
    ship(shipper, light)
    with tarfile.open(fileobj=io.BytesIO(content(storage, shipper, light)), mode="r:gz") as tar:
        names = set(tar.getnames())
        program = tar.extractfile("code/inference.py").read().decode()
        needed = tar.extractfile("code/requirements.txt").read().decode().split()
    assert {"bundle/manifest.json", "bundle/golden.json", "code/modeldeploy/serving/handlers.py"} <= names
    assert not any(name.startswith("code/modeldeploy/backends") for name in names)
    compile(program, "inference.py", "exec")
    assert set(light.manifest.requirements) <= set(needed)
    assert any(each.startswith("orjson") for each in needed)


def test_our_own_server_finds_the_bundle_in_the_unpacked_archive(light, storage, shipper, tmp_path):
    from modeldeploy.serving.__main__ import _look_in

    ship(shipper, light)
    with tarfile.open(fileobj=io.BytesIO(content(storage, shipper, light)), mode="r:gz") as tar:
        tar.extractall(tmp_path, filter="data")
    found = _look_in(tmp_path, tmp_path / "scratch")
    assert Bundle.open(found, expect=light.digest).manifest == light.manifest
    Bundle.open(found).verify()


def test_a_requirement_that_the_model_pins_is_named_once(light):
    lines = entry.requirements(light).splitlines()
    names = [line.partition("=")[0].partition(">")[0] for line in lines]
    assert len(set(names)) == len(names)
    assert f"numpy=={np.__version__}" in lines or "numpy>=1.26" in lines


# Shipping.


def test_a_small_archive_goes_in_one_call(light, shipper, storage):
    assert ship(shipper, light) == 1
    assert shipper.arrived(light)


def test_a_large_archive_goes_in_slices_and_comes_out_whole(heavy, shipper, storage, client):
    assert ship(shipper, heavy) >= 4
    unpacked = gzip.decompress(content(storage, shipper, heavy))
    stream = TarStream(entry.members(heavy))
    assert unpacked == stream.read(0, stream.size)
    assert uploads(client) == []


def test_the_fraction_grows(heavy, shipper):
    position, seen = None, []
    while position is None or not position.done:
        position = shipper.advance(heavy, position)
        seen.append(position.fraction)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_what_is_there_is_adopted_without_sending(heavy, shipper, storage, monkeypatch):
    ship(shipper, heavy)
    for call in ("put", "begin", "send"):
        monkeypatch.setattr(storage, call, lambda *_args, **_named: pytest.fail("sent again"))
    assert ship(shipper, heavy) == 1


@pytest.mark.parametrize("crash_after", range(4))
def test_a_driver_that_dies_after_any_step_leaves_no_orphan(heavy, shipper, storage, client, crash_after):
    """Its last answer is lost: the next one begins with the ticket before it."""
    position = Position()
    for _step in range(crash_after):
        position = shipper.advance(heavy, position)
    shipper.advance(heavy, position)
    ship(shipper, heavy, position)
    assert uploads(client) == []
    assert gzip.decompress(content(storage, shipper, heavy))


def test_a_driver_that_forgot_everything_takes_the_upload_up(heavy, shipper, client):
    shipper.advance(heavy, shipper.advance(heavy))
    assert len(uploads(client)) == 1
    ship(shipper, heavy)
    assert uploads(client) == []


def test_two_that_ship_the_same_model_do_each_others_work(heavy, storage, shipper, client):
    other, first, second = Shipper(storage, prefix="models", least=PART), Position(), Position()
    while not (first.done and second.done):
        first, second = shipper.advance(heavy, first), other.advance(heavy, second)
    assert uploads(client) == []


def test_parts_that_somebody_else_cut_elsewhere_are_not_put_together(heavy, storage, shipper, client):
    other = Shipper(storage, prefix="models", least=PART + (1 << 20))
    position = shipper.advance(heavy, shipper.advance(heavy))
    other.advance(heavy, other.advance(heavy))
    ship(shipper, heavy, position)
    stream = TarStream(entry.members(heavy))
    assert gzip.decompress(content(storage, shipper, heavy)) == stream.read(0, stream.size)
    assert uploads(client) == []


def test_an_upload_that_was_thrown_away_is_begun_anew(heavy, shipper, storage, client):
    position = Position()
    while position.fraction < 1:
        position = shipper.advance(heavy, position)
    shipper.abandon(heavy)
    assert uploads(client) == []
    ship(shipper, heavy, position)
    assert shipper.arrived(heavy)
    assert uploads(client) == []


def test_something_else_under_the_key_is_a_conflict(light, shipper, storage):
    key = shipper.shipment(light, IMAGE, trust=[light.digest]).model_data_url.removeprefix("s3://bucket/")
    storage.put(key, b"theirs")
    with pytest.raises(ConflictError, match="something else"):
        shipper.advance(light)


def test_a_bundle_that_changed_is_not_sent(store, shipper, client):
    bundle = package(Heavy(16), name="changed", version="1.0.0", example={"x": np.array([0.5])}, store=store)
    path = bundle.path / "golden.json"
    path.chmod(0o600)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IntegrityError, match="digest"):
        shipper.advance(bundle)
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


def test_withdrawing_takes_the_archive_and_unfinished_uploads_away(heavy, light, shipper, client):
    ship(shipper, light)
    shipper.advance(heavy)
    for bundle in (heavy, light):
        shipper.withdraw(shipper.shipment(bundle, IMAGE, trust=[bundle.digest]).digest)
    assert uploads(client) == []
    assert client.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


def test_a_shipment_says_what_create_model_needs(light, shipper):
    shipment = shipper.shipment(light, IMAGE, trust=[light.digest])
    assert shipment.model_data_url == f"s3://bucket/models/{shipment.digest}/model.tar.gz"
    assert shipment.container() == {
        "Image": IMAGE.uri,
        "ModelDataUrl": shipment.model_data_url,
        "Environment": {
            "SAGEMAKER_PROGRAM": "inference.py",
            "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code",
            "PYTHONUNBUFFERED": "1",
            "MODELDEPLOY_TRUST": light.digest,
        },
    }


def test_pickled_content_that_nobody_vouched_for_is_refused(light, shipper, client):
    with pytest.raises(IntegrityError, match="vouched"):
        shipper.shipment(light, IMAGE)
