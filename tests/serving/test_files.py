"""Private files: whole or not at all."""

from __future__ import annotations

import stat
import threading

import pytest

from modeldeploy.errors import QuotaError
from modeldeploy.serving.files import create_file, rotate, write_file


def test_a_file_is_replaced_and_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_who_make_a_file_one_wins(tmp_path):
    path = tmp_path / "file"
    threads = [threading.Thread(target=create_file, args=(path, b"%d" % at)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = path.read_bytes()
    create_file(path, b"late")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_file, create_file])
def test_a_place_that_cannot_be_written_is_named(write, tmp_path):
    with pytest.raises(QuotaError, match="nothing was changed"):
        write(tmp_path / "no" / "file", b"x")


def test_older_files_move_up_and_the_oldest_goes(tmp_path):
    path = tmp_path / "log"
    for number in range(4):
        path.write_text(str(number))
        rotate(path, 2)
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"log.1": "3", "log.2": "2"}
