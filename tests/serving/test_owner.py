"""Tickets of the owner: good for one endpoint and one minute, made by who can read one private file."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeldeploy.errors import IntegrityError
from modeldeploy.serving import owner

SECRET = b"s" * 32


def test_a_ticket_is_good_for_its_endpoint_and_its_time():
    ticket = owner.ticket(SECRET, "iris", 1000.5)
    assert owner.is_ticket(ticket)
    assert owner.valid_until(SECRET, "iris", ticket, 1000.5) == 1060
    assert owner.valid_until(SECRET, "iris", ticket, 1059.9) == 1060
    assert owner.valid_until(SECRET, "iris", ticket, 1060.0) is None
    assert owner.valid_until(SECRET, "other", ticket, 1001.0) is None
    assert owner.valid_until(b"t" * 32, "iris", ticket, 1001.0) is None


def test_a_ticket_from_a_clock_far_ahead_is_not_taken():
    assert owner.valid_until(SECRET, "iris", owner.ticket(SECRET, "iris", 5000), 1000) is None


def test_a_longer_life_cannot_be_written_into_it():
    ticket = owner.ticket(SECRET, "iris", 1000)
    prefix, until, mac = ticket.rsplit("_", 2)
    assert owner.valid_until(SECRET, "iris", f"{prefix}_{int(until, 16) + 1:x}_{mac}", 1000) is None


@given(st.text())
def test_no_other_text_is_a_ticket(text):
    assert owner.valid_until(SECRET, "iris", f"md_owner_{text}", 1000) is None


def test_the_secret_is_made_once_and_is_private(tmp_path):
    path = tmp_path / "owner.secret"
    owner.make_secret(path)
    first = owner.read_secret(path)
    owner.make_secret(path)
    assert owner.read_secret(path) == first
    assert len(first) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["owner.secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_secret_that_others_can_read_is_none(tmp_path, mode):
    path = tmp_path / "owner.secret"
    owner.make_secret(path)
    path.chmod(mode)
    with pytest.raises(IntegrityError):
        owner.read_secret(path)
