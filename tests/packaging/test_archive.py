"""Hostile archives: each must be refused, and leave nothing behind anywhere."""

import gzip
import io
import tarfile
import tracemalloc

import pytest

from modeldeploy.errors import ConfigurationError, IntegrityError
from modeldeploy.packaging.archive import read_archive, write_archive


def accept(_staged):
    """Check nothing: the unpacker alone must refuse."""


def archive_of(path, *entries):
    with tarfile.open(path, "w:gz") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def entry(name, kind=tarfile.REGTYPE, link="", data=b"x"):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info, data if kind == tarfile.REGTYPE else b""


HOSTILE = {
    "absolute": [entry("/tmp/evil")],
    "parent": [entry("../evil")],
    "deep parent": [entry("a/b/../../../evil")],
    "backslash": [entry("..\\evil")],
    "drive": [entry("C:/evil")],
    "hidden": [entry(".bashrc")],
    "symlink out": [entry("a", tarfile.SYMTYPE, "/etc")],
    "symlink in": [entry("a"), entry("b", tarfile.SYMTYPE, "a")],
    "write through a symlink": [entry("a", tarfile.SYMTYPE, ".."), entry("a/evil")],
    "hard link": [entry("a"), entry("b", tarfile.LNKTYPE, "a")],
    "hard link out": [entry("b", tarfile.LNKTYPE, "/etc/passwd")],
    "fifo": [entry("a", tarfile.FIFOTYPE)],
    "character device": [entry("a", tarfile.CHRTYPE)],
    "block device": [entry("a", tarfile.BLKTYPE)],
    "contiguous": [entry("a", tarfile.CONTTYPE)],
    "twice": [entry("a"), entry("a")],
    "twice by case": [entry("a"), entry("A")],
    "file below a file": [entry("a"), entry("a/b")],
    "very long name": [entry("a" * 5_000)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_and_leaves_nothing(kind, tmp_path):
    archive = archive_of(tmp_path / "evil.tar.gz", *HOSTILE[kind])
    home = tmp_path / "home"
    home.mkdir()
    with pytest.raises(IntegrityError):
        read_archive(archive, home / "bundle", check=accept)
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar.gz", "home"]


def test_a_sparse_entry_is_refused(tmp_path):
    info = tarfile.TarInfo("a")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "../evil",
        "GNU.sparse.realsize": "1",
    }
    archive = archive_of(tmp_path / "evil.tar.gz", (info, b"1\n0\n1\n".ljust(512, b"\0")))
    with pytest.raises(IntegrityError):
        read_archive(archive, tmp_path / "bundle", check=accept)


def test_a_bomb_stops_at_the_limit_of_bytes(tmp_path):
    archive = archive_of(tmp_path / "bomb.tar.gz", entry("a", data=bytes(3_000_000)))
    with pytest.raises(IntegrityError, match="more than 1000000 bytes"):
        read_archive(archive, tmp_path / "bundle", check=accept, max_bytes=1_000_000)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK], ids=ascii
)
@pytest.mark.parametrize(
    "before", [[], [entry("a", data=bytes(30_000)), entry("b", tarfile.DIRTYPE)]], ids=["first", "later"]
)
def test_a_bomb_in_a_header_is_not_read_into_memory(kind, before, tmp_path):
    """Names and attributes are read whole by tarfile, before any entry can be judged."""
    plain = archive_of(tmp_path / "before.tar.gz", *before)
    with gzip.open(plain) as stream:
        start = stream.read().rstrip(b"\0") if before else b""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 64 << 20
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as packed:
        packed.write(start.ljust(-(-len(start) // 512) * 512, b"\0") + header.tobuf(tarfile.USTAR_FORMAT))
        for _each in range(64):
            packed.write(bytes(1 << 20))
        packed.write(bytes(1024))
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="a header of the archive is larger"):
        read_archive(tmp_path / "bomb.tar.gz", tmp_path / "bundle", check=accept)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_too_many_entries_are_refused(tmp_path):
    archive = archive_of(tmp_path / "many.tar.gz", *(entry(f"f{at}") for at in range(11)))
    with pytest.raises(IntegrityError, match="more than 10 entries"):
        read_archive(archive, tmp_path / "bundle", check=accept, max_files=10)


@pytest.mark.parametrize(
    "data",
    [b"", b"text", gzip.compress(b"text", mtime=0), gzip.compress(bytes(10_240), mtime=0)[:-9]],
    ids=["nothing", "text", "zipped-text", "cut-off"],
)
def test_bytes_that_are_no_archive_are_refused(data, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises((IntegrityError, ConfigurationError)):
        read_archive(tmp_path / "a.tar.gz", tmp_path / "bundle", check=refuse_empty)


def refuse_empty(staged):
    if not any(staged.iterdir()):
        raise ConfigurationError("empty")


def test_a_truncated_archive_is_refused(tmp_path):
    whole = archive_of(tmp_path / "whole.tar.gz", entry("a", data=bytes(range(256)) * 400)).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        read_archive(tmp_path / "cut.tar.gz", tmp_path / "bundle", check=accept)


def test_a_refusal_by_the_check_leaves_nothing(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", entry("a"))

    def refuse(_staged):
        raise IntegrityError("no")

    with pytest.raises(IntegrityError, match="no"):
        read_archive(archive, tmp_path / "bundle", check=refuse)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_writing_does_not_take_a_name_that_leaves_the_directory(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "bundle").mkdir()
    with pytest.raises(IntegrityError):
        write_archive(tmp_path / "bundle", ["../secret"], tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()


def test_an_archive_that_is_absent_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        read_archive(tmp_path / "none.tar.gz", tmp_path / "bundle", check=accept)
