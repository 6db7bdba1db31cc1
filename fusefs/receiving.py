"""How requests are taken from the kernel's queue, so that an empty queue never holds the loop.

pyfuse3 waits until the session's descriptor is readable and then reads it, by a read that waits, with the
interpreter's lock held. What it was woken for may be gone by then: the kernel takes a request out of its queue when the
program that made it is killed, and the notice of a signal when the request it belongs to is answered. The read then
waits for somebody's next request, and with it the whole process: socket, links, watch and all. So

* the descriptor is looked at again in the moment before the read (`Receiving`): nothing of ours can run in between, and
* should the kernel take out the only request in the microseconds that are left, a timer that the loop keeps winding
  (`keep_awake`) ends the read by a signal.

The descriptor cannot be made non-blocking instead: pyfuse3 takes EAGAIN for the end of the session.

Source: fuse(4); request_wait_answer and fuse_dev_do_read of the kernel; setitimer(2); the loop of pyfuse3, which finds
trio where `pyfuse3.asyncio` puts something else.
"""

import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import pyfuse3
import trio

#: How often the timer is wound, and after how long without it the loop counts as held.
_WOUND_S: Final = 0.5
_HELD_S: Final = 1.5


class Receiving:
    """trio.lowlevel for pyfuse3, whose `wait_readable` returns when the descriptor is readable now."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        """Wait for something to read, or for the end of the session, which shows as readable, too."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while True:
            await trio.lowlevel.wait_readable(fd)
            if poll.poll(0):
                return


class _Trio:
    """trio for pyfuse3."""

    lowlevel = Receiving()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


@contextmanager
def receiving() -> Iterator[None]:
    """While it lasts pyfuse3 takes requests as told above."""
    pyfuse3.trio = _Trio()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        pyfuse3.trio = trio  # type: ignore[attr-defined]


async def keep_awake() -> None:
    """Until cancelled: a system call that holds the loop is ended by SIGALRM. In the main thread only."""
    before = signal.signal(signal.SIGALRM, _go_on)
    try:
        while True:
            signal.setitimer(signal.ITIMER_REAL, _HELD_S, _HELD_S)
            await trio.sleep(_WOUND_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _go_on(number: int, frame: FrameType | None) -> None:
    """That it came is all it is for."""
