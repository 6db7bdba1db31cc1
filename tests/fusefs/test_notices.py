"""What is told to the kernel, byte by byte, and the process that tells it."""

import errno
import os
import socket
import struct
import subprocess
import sys
import threading

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from fusefs import messenger as messenger_module
from fusefs import telling
from fusefs.kernel import notices
from fusefs.messenger import BATCH_BYTES, Messenger

INO = 0x1122334455667788
PIECES = st.lists(
    st.one_of(
        st.builds(notices.inval_inode, st.integers(1, (1 << 64) - 1), attr_only=st.booleans()),
        st.builds(notices.inval_entry, st.integers(1, (1 << 64) - 1), st.binary(min_size=1, max_size=255)),
    ),
    max_size=400,
)


def test_an_inode_as_the_kernel_reads_it():
    """fuse_out_header with the notice's code, then inode, offset and length: -1 leaves the pages alone, 0, 0 is all."""
    head = struct.pack("<IiQ", 40, 2, 0)
    assert notices.inval_inode(INO, attr_only=True) == head + struct.pack("<Qqq", INO, -1, 0)
    assert notices.inval_inode(INO, attr_only=False) == head + struct.pack("<Qqq", INO, 0, 0)


def test_a_name_as_the_kernel_reads_it():
    """Its length without the NUL that follows it; the flag FUSE_EXPIRE_ONLY is 1."""
    expected = struct.pack("<IiQ", 16 + 16 + 5, 3, 0) + struct.pack("<QII", INO, 4, 0) + b"n\xff\nm\0"
    assert notices.inval_entry(INO, b"n\xff\nm") == expected
    expired = struct.pack("<IiQ", 16 + 16 + 2, 3, 0) + struct.pack("<QII", INO, 1, 1) + b"n\0"
    assert notices.inval_entry(INO, b"n", expire=True) == expired


@given(PIECES)
def test_batches_lose_nothing(pieces):
    """What is put together comes apart as it was, in order, and no batch is larger than a packet."""
    batches = telling.batches(pieces)
    assert [piece for batch in batches for piece in notices.split(batch)] == pieces
    assert all(0 < len(batch) <= BATCH_BYTES for batch in batches)


@pytest.mark.parametrize("opcode", [1, 3, 14, 27, 44])
def test_requests_are_refused(opcode):
    """With ENOTCONN, under their own number."""
    request = struct.pack("<IIQ", 60, opcode, 77) + bytes(44)
    assert notices.refusal(request) == struct.pack("<IiQ", 16, -errno.ENOTCONN, 77)


@pytest.mark.parametrize("opcode", [2, 36, 42])
def test_what_expects_no_answer_gets_none(opcode):
    """FORGET, INTERRUPT and BATCH_FORGET."""
    assert notices.refusal(struct.pack("<IIQ", 60, opcode, 77) + bytes(44)) is None


class Started:
    """A messenger whose device is a socket that a test reads, as the kernel would."""

    def __init__(self) -> None:
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life, self.alive = os.pipe()
        fds = (device.fileno(), orders.fileno(), life)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fusefs.messenger", *map(str, fds)], pass_fds=fds, stdin=subprocess.DEVNULL
        )
        for end in (device, orders):
            end.close()
        os.close(life)
        for end in (self.kernel, self.server):
            end.settimeout(20)

    def close(self) -> None:
        self.kernel.close()
        self.server.close()
        if self.alive >= 0:
            os.close(self.alive)
        self.process.kill()
        self.process.wait(10)

    def end_of_the_server(self) -> None:
        os.close(self.alive)
        self.alive = -1


@pytest.fixture
def messenger():
    started = Started()
    yield started
    started.close()


def test_each_notice_is_one_write(messenger):
    """In order; the batch is acknowledged when the kernel has all of it."""
    pieces = [notices.inval_entry(1, b"a"), notices.inval_inode(2, attr_only=True), notices.inval_entry(3, b"b")]
    messenger.server.send(b"".join(pieces))
    assert [messenger.kernel.recv(4096) for _ in pieces] == pieces
    assert messenger.server.recv(1) == b"+"


def test_it_ends_with_the_server(messenger):
    """At once, when nothing is in flight; signals do not end it sooner."""
    messenger.server.send(notices.inval_entry(1, b"a"))
    assert messenger.server.recv(1) == b"+"
    messenger.process.terminate()
    messenger.server.send(notices.inval_entry(1, b"b"))
    assert messenger.server.recv(1) == b"+"
    messenger.end_of_the_server()
    assert messenger.process.wait(10) == 0


def test_a_server_that_goes_with_something_unread_is_no_error(messenger, capfd):
    """Its end of the socket is reset then: a killed server does not read what was acknowledged."""
    for _ in range(3):
        messenger.server.send(notices.inval_entry(1, b"a"))
        messenger.kernel.recv(4096)
    messenger.server.close()
    messenger.end_of_the_server()
    assert messenger.process.wait(10) == 0
    assert "Traceback" not in capfd.readouterr().err


def test_what_waits_for_a_dead_server_is_refused_while_a_notice_is_in_flight(monkeypatch):
    """Request after request, until the notice is done; then it ends."""
    ended = threading.Event()
    monkeypatch.setattr(messenger_module.os, "_exit", lambda _code: ended.set())
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    life, alive = os.pipe()
    kernel.settimeout(20)
    one = Messenger(device.fileno(), -1)
    one.writing.acquire()  # as while the kernel has not taken a notice yet
    thread = threading.Thread(target=one.let_go, args=(life,), daemon=True)
    thread.start()
    try:
        os.close(alive)
        for number in (4711, 4712):
            kernel.send(struct.pack("<IIQ", 40, 2, 1) + bytes(24))  # a FORGET, which nobody answers
            kernel.send(struct.pack("<IIQ", 40, 1, number) + bytes(24))
            assert kernel.recv(4096) == struct.pack("<IiQ", 16, -errno.ENOTCONN, number)
        assert not ended.is_set()
        one.writing.release()
        assert ended.wait(10)
        thread.join(10)
    finally:
        for end in (kernel, device):
            end.close()
        os.close(life)


def test_without_a_clone_a_thread_does_it(monkeypatch):
    """Where /dev/fuse cannot be opened: through the session's own device."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    monkeypatch.setattr(telling, "session_device", ours.fileno)
    pieces = [notices.inval_entry(1, b"a"), notices.inval_inode(2, attr_only=True)]

    def refuses(_session: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/dev/fuse")

    monkeypatch.setattr(telling, "clone_device", refuses)

    async def main() -> None:
        async with telling.telling() as tell:
            await tell(pieces)

    trio.run(main)
    with ours, kernel:
        assert [kernel.recv(4096) for _ in pieces] == pieces
