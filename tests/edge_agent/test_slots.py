"""Slots and their pointer: whatever is cut off, what the pointer names is whole and is what was pointed at last."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.edge.desired import ReleaseRef
from modeldeploy.edge.keys import SigningKey
from modeldeploy.edge_agent import durable
from modeldeploy.edge_agent.memory import Failure, Memory
from modeldeploy.edge_agent.slots import Pointer, Slots
from modeldeploy.errors import IntegrityError

FLEET = "cameras"


class PowerLossError(Exception):
    """The power failed here."""


@pytest.fixture
def slots(tmp_path, key) -> Slots:
    return Slots(tmp_path / "home", [key.public], fleet=FLEET)


@pytest.fixture
def fill(archives):
    """Give ``fill(slots, revision)``: bring a release into the spare slot."""
    refs = {revision: ReleaseRef.of(archive) for revision, archive in archives.items()}
    return lambda slots, revision: slots.fill(archives[revision], refs[revision].digest)


def install(slots: Slots, fill, revision: str) -> None:
    slots.point(Pointer(fill(slots, revision).name))


def served(slots: Slots) -> str | None:
    return slots.active.release.revision if slots.active is not None else None


def test_a_fresh_home_serves_nothing(slots):
    assert slots.pointer == Pointer()
    assert slots.active is None


def test_releases_take_turns_in_two_slots(slots, fill):
    names = []
    for revision in ("v1", "v2", "v3"):
        install(slots, fill, revision)
        names.append(slots.pointer.slot)
        assert served(slots) == revision
    assert names == ["a", "b", "a"]
    assert slots.look(slots.spare).release.revision == "v2"


def test_what_is_served_is_never_written(slots, fill):
    install(slots, fill, "v1")
    before = {path: path.stat().st_mtime_ns for path in slots.active.path.rglob("*")}
    fill(slots, "v2")
    assert {path: path.stat().st_mtime_ns for path in slots.active.path.rglob("*")} == before


def test_everything_is_on_the_disk_before_the_pointer_moves(slots, fill, monkeypatch):
    flushed: set[tuple[int, int]] = set()
    fsync = os.fsync

    def watch(fd: int) -> None:
        facts = os.fstat(fd)
        flushed.add((facts.st_dev, facts.st_ino))
        fsync(fd)

    monkeypatch.setattr(durable.os, "fsync", watch)
    slot = fill(slots, "v1")
    missing = []

    def reached(step: str) -> None:
        if step == "rename active.json":
            root = slot.path.parent
            paths = [root, root / f"{slot.name}.digest", slot.path, *slot.path.rglob("*")]
            missing.extend(path for path in paths if (path.stat().st_dev, path.stat().st_ino) not in flushed)
            missing.append(None)

    monkeypatch.setattr(durable, "reached", reached)
    slots.point(Pointer(slot.name))
    assert missing == [None]


def test_a_release_that_was_changed_on_the_disk_is_not_there(slots, fill, tmp_path, key):
    install(slots, fill, "v1")
    model = slots.active.path / "bundle" / "artifacts" / "model.onnx"
    model.chmod(0o600)
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    again = Slots(tmp_path / "home", [key.public], fleet=FLEET)
    assert again.look(again.pointer.slot, files=True) is None


def test_a_release_of_a_key_that_was_taken_away_is_not_there(slots, fill, tmp_path):
    install(slots, fill, "v1")
    again = Slots(tmp_path / "home", [SigningKey(bytes(32)).public], fleet=FLEET)
    assert again.active is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"slot": "c"}', b'{"slot": 1}', b'{"slot": "../x"}'])
def test_a_pointer_that_the_disk_lost_is_made_up_for_by_a_whole_slot(slots, fill, tmp_path, key, content):
    install(slots, fill, "v1")
    (tmp_path / "home" / "active.json").write_bytes(content)
    assert served(Slots(tmp_path / "home", [key.public], fleet=FLEET)) == "v1"


def test_what_a_power_loss_left_half_done_is_removed(slots, fill, tmp_path):
    install(slots, fill, "v1")
    root = tmp_path / "home" / "slots"
    (root / ".b.0123456789abcdef").mkdir()
    (root / "b").mkdir()
    (root / "b" / "half").write_text("x")
    (tmp_path / "home" / ".active.json.0a1b2c3d").write_text("{")
    slots.tidy()
    assert sorted(path.name for path in root.iterdir()) == ["a", "a.digest"]
    assert [path.name for path in (tmp_path / "home").glob(".*")] == []
    assert served(slots) == "v1"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=st.lists(st.tuples(st.sampled_from(["v1", "v2", "v3"]), st.integers(1, 24)), min_size=1, max_size=6))
def test_after_any_losses_of_power_the_pointer_names_a_whole_release(lives, tmp_path, key, fill):
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    last: set[str | None] = {None}
    usual = durable.reached
    for revision, steps in lives:
        left = steps

        def reached(_step: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerLossError

        slots = Slots(root, [key.public], fleet=FLEET)
        slots.tidy()
        assert served(slots) in last
        assert slots.pointer.slot is None or slots.look(slots.pointer.slot, files=True) is not None
        before = served(slots)
        durable.reached = reached
        try:
            install(slots, fill, revision)
            last = {revision}
        except PowerLossError:
            last = {before, revision}
        finally:
            durable.reached = usual


# What a device remembers


def test_a_damaged_memory_is_an_empty_one(tmp_path, key):
    for name in ("desired.json", "failures.json"):
        (tmp_path / name).write_bytes(b"{")
    memory = Memory(tmp_path, [key.public], fleet=FLEET)
    assert memory.desired is None
    assert memory.failures == {}


def test_the_newest_failures_are_kept(tmp_path, key):
    memory = Memory(tmp_path, [key.public], fleet=FLEET)
    for number in range(40):
        memory.remember(Failure(f"{number:064x}", f"v{number}", number, "reason", lasting=bool(number % 2)))
    again = Memory(tmp_path, [key.public], fleet=FLEET)
    assert again.failures == memory.failures
    assert len(again.failures) == 32
    assert again.failure(f"{39:064x}", 1000).lasting
    assert again.failure(f"{38:064x}", 1000) is None
    assert again.failure(f"{38:064x}", 38).revision == "v38"


def test_a_state_that_is_refused_is_not_remembered(tmp_path, key, fleet):
    memory = Memory(tmp_path, [key.public], fleet=FLEET)
    fleet.want("v1")
    document = fleet.store.get("desired.json")
    assert memory.take(document)
    assert not memory.take(document)
    payload = orjson.loads(document)
    payload["signatures"] = []
    with pytest.raises(IntegrityError):
        memory.take(orjson.dumps(payload))
    assert Memory(Path(tmp_path), [key.public], fleet=FLEET).desired == memory.desired
