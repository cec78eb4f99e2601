"""Keys in their file, and as a running server sees them."""

from __future__ import annotations

import errno
import re
import stat
import threading

import pytest

from modeldeploy.errors import ConfigurationError, IntegrityError, NotFoundError
from modeldeploy.serving import keyring
from modeldeploy.serving.access import Scope
from modeldeploy.serving.keyring import Keyring, LiveKeys


@pytest.fixture
def ring(tmp_path):
    return Keyring(tmp_path / "local" / "keys.json")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_shown_once_and_only_its_hash_is_kept(ring):
    key, token = ring.create("ana", scopes=["predict", "admin"], days=1, rate=5, burst=7)
    assert re.fullmatch(r"md_[0-9a-f]{12}_[\w-]{43}", token)
    assert token.split("_")[1] == key.id
    assert token.split("_", 2)[2] not in ring.path.read_text()
    (kept,) = ring.list()
    assert kept == key
    assert (kept.name, kept.scopes, kept.rate, kept.burst) == ("ana", (Scope.PREDICT, Scope.ADMIN), 5.0, 7)
    assert kept.expires == pytest.approx(kept.created + 86_400)


def test_no_two_keys_share_anything(ring):
    tokens = [ring.create("ana")[1] for _each in range(20)]
    assert len({token.split("_")[1] for token in tokens}) == len({token.split("_", 2)[2] for token in tokens}) == 20


def test_the_file_is_private_from_its_first_moment(ring):
    ring.create("ana")
    assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.path.parent.stat().st_mode) == 0o700


def test_neither_key_nor_ring_show_a_hash_when_they_are_printed(ring):
    key, _token = ring.create("ana")
    assert key.sha256 not in repr(key)


def test_a_revoked_key_is_gone_and_an_unknown_one_is_named(ring):
    first, second = ring.create("ana")[0], ring.create("ben")[0]
    assert ring.revoke(first.id) == first
    assert ring.list() == (second,)
    with pytest.raises(NotFoundError, match=f"there is no key 'nope'.*{second.id}"):
        ring.revoke("nope")


def test_nothing_is_listed_and_nothing_written_where_there_is_no_file(ring):
    assert ring.list() == ring.live() == ()
    with pytest.raises(NotFoundError):
        ring.revoke("nope")
    assert not ring.path.parent.exists()


def test_keys_made_at_the_same_time_are_all_kept(ring):
    threads = [threading.Thread(target=ring.create, args=(f"k{at}",)) for at in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in ring.list()} == {f"k{at}" for at in range(12)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "x" * 81}, {"name": "a\nb"}, {"name": "\u202eevil"},
        {"scopes": []}, {"scopes": ["root"]}, {"scopes": "predict"},
        {"days": 0}, {"days": float("nan")}, {"days": -1}, {"rate": -1}, {"rate": float("inf")}, {"burst": 5}, {"rate": 1, "burst": -2},
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_key_is_refused_before_the_file_is_touched(ring, wrong):
    with pytest.raises(ConfigurationError):
        ring.create(**{"name": "ana", **wrong})
    assert not ring.path.exists()


def test_a_file_that_others_may_write_is_not_believed(ring):
    ring.create("ana")
    ring.path.chmod(0o620)
    with pytest.raises(IntegrityError, match=r"can be written by others.*chmod 600"):
        ring.list()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 9, "body": {}}', '{"schema": 1, "body": {"keys": [{}]}}', '{"schema": 1}']
)
def test_a_damaged_file_is_named_with_the_remedy(ring, text):
    ring.path.parent.mkdir(parents=True)
    ring.path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"cannot be read.*make new keys"):
        ring.list()


# As a running server sees them.


def test_a_key_is_found_by_its_whole_text_and_by_nothing_else(ring):
    key, token = ring.create("ana")
    live = LiveKeys(ring)
    assert live.find(token) == key
    other = ring.create("ben")[1]
    half = token.rsplit("_", 1)[0]
    for wrong in (
        "",
        "md",
        "md__",
        f"md_{key.id}_",
        token[:-1],
        f"{token}x",
        token.upper(),
        half,
        f"{half}_{other}",
        "é" * 60,
        "x" * 10_000,
    ):
        assert live.find(wrong) is None, wrong


def test_a_change_is_seen_after_a_second_and_the_file_is_not_looked_at_before(ring, monkeypatch):
    key, token = ring.create("ana")
    clock = Clock()
    live = LiveKeys(ring, clock=clock)
    before = live.generation()
    ring.revoke(key.id)
    clock.now += 0.9
    assert (live.find(token), live.generation()) == (key, before)
    clock.now += 0.2
    assert live.find(token) is None
    assert live.generation() != before


def test_two_keys_are_live_while_one_takes_over_from_the_other(ring):
    (_old, old), (_new, new) = ring.create("ana"), ring.create("ana, next")
    live = LiveKeys(ring)
    assert live.find(old)
    assert live.find(new)


def test_a_file_that_is_damaged_or_gone_lets_nobody_in(ring, caplog):
    _key, token = ring.create("ana")
    clock = Clock()
    live = LiveKeys(ring, clock=clock)
    assert live.find(token)
    ring.path.write_text("{")
    clock.now += 2
    assert live.find(token) is None
    assert "no key is accepted" in caplog.text
    ring.path.unlink()
    clock.now += 2
    assert live.find(token) is None
    _key, again = ring.create("ben")
    clock.now += 2
    assert live.find(again)


def test_a_moment_without_descriptors_changes_nothing(ring, monkeypatch):
    _key, token = ring.create("ana")
    clock = Clock()
    live = LiveKeys(ring, clock=clock)
    assert live.find(token)
    _key, second = ring.create("ben")

    def none_left(_self):
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(keyring.Keyring, "list", none_left)
        clock.now += 2
        assert live.find(token)
        assert live.find(second) is None
    clock.now += 2
    assert live.find(second)


def test_a_key_may_have_a_limit_of_its_own(ring):
    plain, _token = ring.create("ana")
    fast, _token = ring.create("batch", rate=100)
    live = LiveKeys(ring)
    live.generation()
    assert live.limit(plain.id) is None
    assert (live.limit(fast.id).rate, live.limit(fast.id).burst) == (100.0, 100)
