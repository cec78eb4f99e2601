from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modeldeploy.errors import ConfigurationError
from modeldeploy.serving import link
from modeldeploy.serving.messages import Request, Response

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
texts = st.text(max_size=20)
headers = st.dictionaries(texts, texts, max_size=3)
requests = st.builds(Request, texts, texts, texts, headers, st.binary(max_size=200))
responses = st.builds(Response, st.integers(100, 599), st.binary(max_size=200), headers)
LENGTH = 4


@patient
@given(st.lists(st.tuples(st.integers(0, 2**53), requests), max_size=5))
def test_requests_come_back_as_they_were(items):
    assert link.decode_requests(link.encode_requests(items)[LENGTH:]) == items


@patient
@given(st.lists(st.tuples(st.integers(0, 2**53), responses), max_size=5))
def test_responses_come_back_as_they_were(items):
    assert link.decode_responses(link.encode_responses(items)[LENGTH:]) == items


@patient
@given(st.lists(st.lists(st.tuples(st.integers(0, 99), requests), max_size=3), max_size=4), st.integers(1, 50))
def test_frames_are_found_however_the_bytes_are_cut(batches, step):
    data = b"".join(link.encode_requests(items) for items in batches)
    frames = link.Frames()
    found = [frame for at in range(0, len(data), step) for frame in frames.feed(data[at : at + step])]
    assert [link.decode_requests(frame) for frame in found] == batches


@patient
@given(st.binary(max_size=100))
def test_rubbish_is_a_frame_error_and_nothing_else(data):
    for decode in (link.decode_requests, link.decode_responses):
        with contextlib.suppress(link.FrameError):
            assert isinstance(decode(data), list)


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_frame_that_lost_its_end_is_refused(cut):
    frame = link.encode_requests([(1, Request("POST", "/x", "", {}, b"0123456789" * 5))])[LENGTH:]
    with pytest.raises(link.FrameError):
        link.decode_requests(frame[:-cut])


def test_a_frame_above_the_limit_is_refused_before_it_is_collected():
    with pytest.raises(link.FrameError):
        link.Frames(limit=100).feed((101).to_bytes(4, "little"))


def test_a_frame_whose_meta_is_none_is_refused():
    for meta in (b"{}", b"[1]", b"[[1]]", b'[[1,"GET","/","",{},"3"]]'):
        with pytest.raises(link.FrameError):
            link.decode_requests(len(meta).to_bytes(4, "little") + meta)


def test_a_frame_too_large_for_its_length_is_refused_by_the_sender(monkeypatch):
    monkeypatch.setattr(link, "MAX_FRAME", 100)
    with pytest.raises(link.FrameError, match="too large"):
        link.encode_requests([(1, Request("POST", "/", "", {}, b"x" * 100))])


def test_connecting_where_nobody_listens_is_an_oserror(modeldeploy_home):
    with pytest.raises(OSError, match="No such file"):
        link.connect(str(modeldeploy_home / "nobody"), timeout=1)


def test_blocking_read_gives_frames_then_none_at_the_end():
    here, there = socket.socketpair()
    with here, there:
        items = [(7, Request("POST", "/", "", {}, b"x" * 300_000))]
        sender = threading.Thread(target=lambda: (there.sendall(link.encode_requests(items)), there.close()))
        sender.start()
        assert link.decode_requests(link.receive_frame(here)) == items
        assert link.receive_frame(here) is None
        sender.join()


@pytest.mark.parametrize("data", [b"\x01", b"\x09\x00\x00\x00abc"])
def test_blocking_read_of_half_a_frame_is_a_frame_error(data):
    here, there = socket.socketpair()
    with here, there:
        there.sendall(data)
        there.close()
        with pytest.raises(link.FrameError):
            link.receive_frame(here)


def test_stream_read_gives_frames_none_at_the_end_and_an_error_within():
    async def read(data: bytes) -> list[bytes | None]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return [await link.read_frame(reader), await link.read_frame(reader)]

    frame = link.encode_responses([(1, Response(200, b"x"))])
    first, second = asyncio.run(read(frame))
    assert link.decode_responses(first) == [(1, Response(200, b"x"))]
    assert second is None
    for cut in (2, len(frame) - 1):
        with pytest.raises(link.FrameError):
            asyncio.run(read(frame[:cut]))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_listener_is_reached_at_the_address_it_gives(kind, modeldeploy_home):
    wanted = "tcp:127.0.0.1:0" if kind == "tcp" else str(modeldeploy_home / "s")
    listener, address = link.listen(wanted)
    with listener, link.connect(address, timeout=5) as client:
        accepted, _address = listener.accept()
        with accepted:
            accepted.sendall(b"hello")
            assert client.recv(5) == b"hello"


def test_a_socket_file_left_by_a_dead_process_is_replaced(modeldeploy_home):
    path = str(modeldeploy_home / "s")
    link.listen(path)[0].close()
    listener, address = link.listen(path)
    with listener, link.connect(address, timeout=5):
        assert Path(path).stat().st_mode & 0o777 == 0o600


def test_a_path_too_long_for_a_socket_is_refused_by_name(modeldeploy_home):
    with pytest.raises(ConfigurationError, match="no socket can be made"):
        link.listen(str(modeldeploy_home / ("x" * 150)))


@pytest.mark.parametrize("address", ["tcp:127.0.0.1", "tcp:", "tcp::80", "tcp:host:port"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ConfigurationError, match="is not 'tcp:HOST:PORT'"):
        link.listen(address)


def test_who_listens_for_loans_does_not_import_what_only_lent_clients_need(modeldeploy_home):
    """A worker is ready some milliseconds sooner."""
    program = (
        "import sys\n"
        "from modeldeploy.serving import link\n"
        f"_listener, address = link.listen({str(modeldeploy_home / 's')!r})\n"
        "link.listen_for_loans(address)\n"
        "print('modeldeploy.serving.ledger' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
