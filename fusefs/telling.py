"""How notices reach the kernel: by the messenger, a process (messenger.py), or, where none can be had, by a thread.

The server keeps its own device to itself and gives the messenger a clone. Where the system does not let us open
`/dev/fuse` (the session's device came from fusermount3) there is no clone: a thread does the same work then, and a
server that is killed in the middle of a notice may leave a mount that has to be ended by hand.
"""

import contextlib
import fcntl
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from fusefs.messenger import BATCH_BYTES

log = logging.getLogger("sdmount.mount")

_CLONE = 0x8004_E500  # FUSE_DEV_IOC_CLONE
_END_S = 5.0

#: Takes notices in order; returns when the kernel has them.
Tell = Callable[[list[bytes]], Awaitable[None]]


def session_device() -> int | None:
    """The descriptor of this process's FUSE session: pyfuse3 has one, and does not tell it."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                return int(name)
    return None


def clone_device(session: int) -> int:
    """Another device of the same connection; OSError where the system does not allow it."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _CLONE, struct.pack("I", session))
    except BaseException:
        os.close(fd)
        raise
    return fd


def batches(pieces: list[bytes]) -> list[bytes]:
    """Notices put together, as many at a time as one packet takes."""
    out: list[bytes] = []
    now: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > BATCH_BYTES:
            out.append(b"".join(now))
            now, size = [], 0
        now.append(piece)
        size += len(piece)
    if now:
        out.append(b"".join(now))
    return out


@asynccontextmanager
async def telling() -> AsyncIterator[Tell]:
    """The way to the kernel for one session that is mounted."""
    session = session_device()
    try:
        device = clone_device(session) if session is not None else -1
    except OSError as error:
        log.info("/dev/fuse cannot be opened (%s): a thread tells the kernel what changed", error)
        device = -1
    if device < 0:
        yield _by_thread(session)
        return
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life, alive = os.pipe2(os.O_CLOEXEC)
        fds = (device, theirs.fileno(), life)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", "fusefs.messenger", *map(str, fds)],
            stdin=subprocess.DEVNULL, pass_fds=fds, cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *_python_path()])},
        )  # fmt: skip
    finally:
        os.close(device)
    theirs.close()
    os.close(life)
    channel = trio.socket.from_stdlib_socket(ours)
    try:
        yield _by_messenger(channel)
    finally:
        channel.close()
        os.close(alive)
        with trio.move_on_after(_END_S, shield=True):
            await process.wait()


def _python_path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []


def _by_messenger(channel: trio.socket.SocketType) -> Tell:
    async def tell(pieces: list[bytes]) -> None:
        for batch in batches(pieces):
            await channel.send(batch)
            if not await channel.recv(1):
                raise ConnectionError("the messenger has ended")

    return tell


def _by_thread(session: int | None) -> Tell:
    def write(pieces: list[bytes]) -> None:
        for piece in pieces:
            with contextlib.suppress(OSError):
                os.write(session if session is not None else -1, piece)

    async def tell(pieces: list[bytes]) -> None:
        await trio.to_thread.run_sync(write, pieces, abandon_on_cancel=True)

    return tell
