"""The process that starts workers, so that the daemon need not: a worker inherits what its parent has open.

Why: whatever starts a process closes what that one shall not have, in the new process but before its program runs. To
close a file of a file system whose server is dead waits for that server (FUSE_FLUSH), beyond any signal. A daemon with
such a file open could start no worker for anybody, or would hang itself. This process is started before the daemon
opens a user's file, and holds nothing.

In: packets on descriptor 0 (SEQPACKET, from workerprocess.py), one request each. Out: one answer each.
- START and a socket: forks a worker that has the socket as its descriptor 0 -> its pid, and a pidfd of it; or -errno.
- REAP and a pid: of a worker that ended -> its exit code as `subprocess` has it, or UNKNOWN.
- FORGET and a pid: of a worker whose pidfd could not be taken -> 0; it is killed.

A worker is a fork: the modules are loaded already, so it is there in some milliseconds and shares their memory. The
kernel kills it with this process, and this one with the daemon's main thread. Nothing here may start a thread.
"""

import contextlib
import ctypes
import errno
import gc
import os
import signal
import socket
import struct
import sys
import traceback
from typing import NoReturn

from index.scan import workermain
from index.scan.walker import WATCHES_FD

REQUEST = struct.Struct("=Bi")  # what, and the io class or the pid
ANSWER = struct.Struct("=i")
START = 0
REAP = 1
FORGET = 2
IO_NORMAL = 0
IO_IDLE = 1
#: No code of a process: it was not ours, or runs still.
UNKNOWN = 1 << 16

_PR_SET_PDEATHSIG = 1


def bind_to_parent(parent_pid: int) -> None:
    """Asks the kernel to kill this process with its parent, and leaves at once if the parent is gone already."""
    if sys.platform == "linux":
        zero = ctypes.c_ulong(0)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), zero, zero, zero)
    if os.getppid() != parent_pid:
        os._exit(0)


def main(argv: list[str]) -> None:
    """`forkserver PARENT_PID MODULE:TABLE [shares]`, with the socket as descriptor 0; returns at the end of the parent.

    `shares`: descriptor 3 is the parent's inotify instance, for the workers.
    """
    bind_to_parent(int(argv[0]))
    first = WATCHES_FD + 1 if argv[2:] else WATCHES_FD
    if argv[2:]:
        os.set_inheritable(WATCHES_FD, False)  # a fork keeps it all the same
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))  # what the daemon inherited itself, and passes on
    os.chdir("/")
    os.umask(0o077)
    gc.freeze()  # what is loaded stays, and stays shared: the collectors of workers do not touch it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with socket.socket(fileno=0) as control, contextlib.suppress(ConnectionError):  # the end of the parent
        while _answer(control, argv[1]):
            pass


def _answer(control: socket.socket, table: str) -> bool:
    """One request; False when there are no more."""
    data, fds, _, _ = socket.recv_fds(control, REQUEST.size, 1)
    if len(data) != REQUEST.size:
        return False
    what, number = REQUEST.unpack(data)
    if what == START and fds:
        _start(control, fds[0], number == IO_IDLE, table)
    elif what == START:
        control.send(ANSWER.pack(-errno.EMFILE))
    elif what == FORGET:
        _end(number)
        control.send(ANSWER.pack(0))
    else:
        control.send(ANSWER.pack(_reap(number)))
    return True


def _start(control: socket.socket, fd: int, idle_io: bool, table: str) -> None:
    own_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        os.close(fd)
        control.send(ANSWER.pack(-(error.errno or errno.EAGAIN)))
        return
    if pid == 0:
        _work(own_pid, fd, control, table, idle_io=idle_io)
    os.close(fd)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        _end(pid)
        control.send(ANSWER.pack(-(error.errno or errno.EMFILE)))
        return
    try:
        socket.send_fds(control, [ANSWER.pack(pid)], [pidfd])
    finally:
        os.close(pidfd)


def _work(parent_pid: int, fd: int, control: socket.socket, table: str, *, idle_io: bool) -> NoReturn:
    """The worker's life. Whatever ends it, it never returns into the loop of the process it was forked from."""
    status = 1
    try:
        bind_to_parent(parent_pid)
        os.dup2(fd, control.detach(), inheritable=False)
        os.close(fd)
        workermain.run(table, idle_io=idle_io)
    except SystemExit:
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _reap(pid: int) -> int:
    with contextlib.suppress(ChildProcessError):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
    return UNKNOWN


if __name__ == "__main__":
    main(sys.argv[1:])
