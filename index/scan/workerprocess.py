"""Worker processes as the daemon holds them: started, killed and waited for without a wait on the loop.

In: a wish for a process. Out: a `Process` with the daemon's end of its socket. Who really starts them is forkserver.py,
whose file says why; this is its one client.

Invariant: no call here waits for a file system. The fork server itself is started by posix_spawn(3), which returns when
the new program is there and before the descriptors that close with that are closed; and it is started first of all.
"""

import contextlib
import errno
import os
import select
import signal
import site
import socket
import struct
import sys
from pathlib import Path

import trio

from index.scan.forkserver import ANSWER, FORGET, IO_IDLE, IO_NORMAL, REAP, REQUEST, START, UNKNOWN
from index.scan.walker import WATCHES_FD

_DEADLINE_S = 30.0
_END_S = 2.0
_INT = struct.Struct("=i")


class Process:
    """One process that runs, or ran: `returncode` as in `subprocess`, None while it is not known to have ended."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.has_ended = False
        self._pidfd = pidfd

    def kill(self) -> None:
        """SIGKILL, to this process and no other that got its number since."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def look(self) -> bool:
        """Whether it has ended by now."""
        if not self.has_ended:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            self.has_ended = bool(poll.poll(0))
        return self.has_ended

    async def wait(self) -> None:
        """Until it has ended."""
        if not self.look():
            await trio.lowlevel.wait_readable(self._pidfd)
            self.has_ended = True

    def close(self) -> None:
        """Lets go of a process that has ended, or never will."""
        fd, self._pidfd = self._pidfd, -1
        if fd >= 0:
            os.close(fd)


class ForkServer:
    """The process that starts the others; started itself at the first wish, and again when it died."""

    def __init__(self, table: str, log_path: Path | None, watches_fd: int | None = None) -> None:
        self._table = table
        self._watches_fd = watches_fd
        self._log_path = log_path
        self._turn = trio.Lock()
        self._control: trio.socket.SocketType | None = None
        self._pid = 0

    async def start(self, *, idle_io: bool) -> tuple[Process, socket.socket]:
        """A new worker and our end of its socket. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                data, fds = await self._ask(START, IO_IDLE if idle_io else IO_NORMAL, theirs)
            (pid,) = ANSWER.unpack(data)
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
            if not fds:  # there was no descriptor left for it
                await self._ask(FORGET, pid)
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return Process(pid, fds[0]), ours
        except BaseException:
            ours.close()
            raise

    async def reap(self, process: Process) -> None:
        """Asks how a process ended that has."""
        with contextlib.suppress(OSError):
            data, _ = await self._ask(REAP, process.pid)
            code = ANSWER.unpack(data)[0]
            process.returncode = None if code == UNKNOWN else code

    async def close(self) -> None:
        """Ends it, and with it what workers are left."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
            await _until_ended(self._pid)

    async def _ask(self, what: int, number: int, passed: socket.socket | None = None) -> tuple[bytes, list[int]]:
        """One request and its answer. Nothing cuts the two apart but a deadline, which ends the server."""
        data, fds = b"", list[int]()
        with trio.CancelScope(shield=True):
            async with self._turn:
                try:
                    with trio.fail_after(_DEADLINE_S):
                        data, fds = await self._exchange(REQUEST.pack(what, number), passed)
                except (OSError, trio.TooSlowError) as error:
                    await self._forget()
                    raise OSError(str(error) or "the process that starts workers does not answer") from error
        return data, fds

    async def _exchange(self, request: bytes, passed: socket.socket | None) -> tuple[bytes, list[int]]:
        control = self._control or self._launch()
        rights = [] if passed is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(passed.fileno()))]
        await control.sendmsg([request], rights)
        data, more, _, _ = await control.recvmsg(ANSWER.size, socket.CMSG_LEN(_INT.size), socket.MSG_CMSG_CLOEXEC)
        if len(data) != ANSWER.size:
            raise OSError("the process that starts workers has ended")
        return data, [_INT.unpack(fd)[0] for _, _, fd in more]

    def _launch(self) -> trio.socket.SocketType:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            log = os.devnull if self._log_path is None else os.fspath(self._log_path)
            actions = [
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            shared = []
            if self._watches_fd is not None:
                actions.append((os.POSIX_SPAWN_DUP2, self._watches_fd, WATCHES_FD))
                shared.append("shares")
            # -P: nothing is imported from where the daemon happened to be started, its own mount above all.
            # A session of its own: the terminal's Ctrl-C and hang-up are the daemon's business.
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "index.scan.forkserver", str(os.getpid()), self._table, *shared],
                _environment(), file_actions=actions, setsid=True,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = trio.socket.from_stdlib_socket(ours)
        return self._control

    async def _forget(self) -> None:
        """It is of no use any more; the next wish starts another."""
        control, self._control = self._control, None
        if control is not None:
            control.close()
            if not _has_ended(self._pid):
                os.kill(self._pid, signal.SIGKILL)
                await _until_ended(self._pid)


async def _until_ended(pid: int) -> None:
    """Until a child of ours has; one that cannot end, because a file system it waits for hangs, is left behind."""
    with trio.move_on_after(_END_S, shield=True):
        while not _has_ended(pid):  # noqa: ASYNC110 (another process makes it true)
            await trio.sleep(0.002)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _environment() -> dict[str, str]:
    """Ours, with PYTHONPATH such that the worker finds the packages we run from.

    What is installed is found anyway, and named there it would come before the standard library.
    """
    root = str(Path(__file__).resolve().parents[2])
    parts = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(part)]
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        parts.insert(0, root)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}
