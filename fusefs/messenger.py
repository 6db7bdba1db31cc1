"""The messenger: a process that hands notices to the kernel, and can be stuck there without anybody waiting for it.

The kernel takes a directory's lock to forget a name in it, and somebody may hold that lock until the server has
answered him. While the server lives that is a short wait. But a server that is killed in it cannot end: the thread in
the kernel waits for the lock, the lock for an answer, and the answer for the end of the connection, which the thread
keeps open. So notices are written by a process of their own, through a device of its own (a clone of the session's,
FUSE_DEV_IOC_CLONE): when the server is gone, its device is closed and what it had read ends with an error. What it had
not read is refused here, until the notice in flight is done; then this process ends, the last device with it, and so
the connection.

Run as `-m fusefs.messenger DEVICE ORDERS LIFE`, three descriptors: the clone, a socket with batches of notices (each
answered by one byte), a pipe whose end of file is the end of the server. Imports next to nothing.
Source: fs/fuse/dev.c (fuse_dev_release, fuse_dev_ioctl_clone), fs/fuse/dir.c (fuse_reverse_inval_entry).
"""

import contextlib
import os
import select
import signal
import sys
import threading

from fusefs.kernel import notices

#: The largest batch; a socket of sequenced packets keeps it whole.
BATCH_BYTES = 32 << 10
#: A request is at most this long: the largest write, and its head.
_REQUEST_BYTES = (1 << 20) + (64 << 10)
_POLL_MS = 20


class Messenger:
    """Writes what it is told to write. `let_go` runs in a thread of its own, which no notice can hold up."""

    def __init__(self, device: int, orders: int) -> None:
        self.device = device
        self.orders = orders
        self.writing = threading.Lock()

    def serve(self) -> None:
        """Until the server closes its side."""
        while batch := self._next():
            with self.writing:
                for notice in notices.split(batch):
                    # ENOENT: the kernel does not know it, which is fine. Anything else is not worth the mount.
                    with contextlib.suppress(OSError):
                        os.write(self.device, notice)
            with contextlib.suppress(OSError):
                os.write(self.orders, b"+")

    def _next(self) -> bytes:
        """The next batch; nothing when the server is gone, however it went."""
        try:
            return os.read(self.orders, BATCH_BYTES)
        except ConnectionError:
            return b""

    def let_go(self, life: int) -> None:
        """Wait for the end of the server; refuse what waits for him while a notice is in flight, then end."""
        while os.read(life, 1):
            pass
        poll = select.poll()
        poll.register(self.device, select.POLLIN)
        os.set_blocking(self.device, False)
        while not self.writing.acquire(blocking=False):
            if poll.poll(_POLL_MS):
                with contextlib.suppress(OSError):
                    answer = notices.refusal(os.read(self.device, _REQUEST_BYTES))
                    if answer is not None:
                        os.write(self.device, answer)
        os._exit(0)


def main(argv: list[str]) -> None:
    device, orders, life = map(int, argv)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with the server, not before
    messenger = Messenger(device, orders)
    threading.Thread(target=messenger.let_go, args=(life,), daemon=True).start()
    messenger.serve()


if __name__ == "__main__":
    main(sys.argv[1:])
