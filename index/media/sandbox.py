"""Confining a worker before it decodes what a stranger wrote: what a decoder that goes wrong can do is to die.

`confine` is called once, before the first file; what it takes away does not come back. Limits of the process hold on
any kernel; the other two where the kernel has them, and without a word where not.

- limits: 1.5 GiB of address space, files of 64 MiB, few descriptors, no core dump
- system calls (seccomp): no socket is made or connected, no program started, no other process traced or killed
- files (Landlock): nothing is written, made or removed outside of one directory

`time_limit` bounds one file: 20 s of CPU, 60 s by the clock. Beyond that the process is ended by SIGPROF or SIGALRM,
inside of a decoder too, which no exception could interrupt.

Source: setrlimit(2), setitimer(2), seccomp(2), landlock(7).
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MEMORY_MAX_BYTES: Final = 3 << 29
FILE_MAX_BYTES: Final = 64 << 20
DESCRIPTORS_MAX: Final = 64
CPU_MAX_S: Final = 20.0
WALL_MAX_S: Final = 60.0

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | 1  # SECCOMP_RET_ERRNO | EPERM

#: Machine -> (AUDIT_ARCH, numbers of: socket, socketpair, connect, bind, listen, accept, accept4, execve, execveat,
#: ptrace, kill, process_vm_readv, process_vm_writev, pidfd_getfd, io_uring_setup, bpf, unshare, setns, mount,
#: perf_event_open; on x86-64 also fork and vfork). New processes by clone stay possible, since that makes threads, but
#: start no program.
_REFUSED: Final = {
    "x86_64": (
        0xC000003E,
        (41, 53, 42, 49, 50, 43, 288, 59, 322, 101, 62, 310, 311, 438, 425, 321, 272, 308, 165, 298, 57, 58),
    ),
    "aarch64": (
        0xC00000B7,
        (198, 199, 203, 200, 201, 202, 242, 221, 281, 117, 129, 270, 271, 438, 425, 280, 97, 268, 40, 241),
    ),
}
_X32: Final = 0x40000000  # numbers of another way to call the same system, from here on

# Landlock: the same numbers on every machine.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1, 2, 16, 32, 128, 256
_MAKE_OTHERS: Final = 64 | 512 | 1024 | 2048 | 4096
_TRUNCATE: Final = 1 << 14

_confined_to: list[bytes] = []


def confine(writable: bytes) -> None:
    """Take away from this process all that decoding does not need; it may write below `writable`, which exists.

    A second call is nothing. Raises ValueError when it names another directory, OSError when there is none.
    """
    if _confined_to:
        if _confined_to != [writable]:
            raise ValueError("a confined process stays with its directory")
        return
    _confined_to.append(writable)
    for which, most in (
        (resource.RLIMIT_AS, MEMORY_MAX_BYTES),
        (resource.RLIMIT_FSIZE, FILE_MAX_BYTES),
        (resource.RLIMIT_NOFILE, DESCRIPTORS_MAX),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(which, (most, most))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _keep_files(libc, writable)
        _refuse_calls(libc)


def _refuse_calls(libc: ctypes.CDLL) -> None:
    if platform.machine() not in _REFUSED:
        return
    arch, numbers = _REFUSED[platform.machine()]
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, _REFUSE), (load, 0, 0, 0)]
    for at, number in enumerate(numbers):
        program.append((equal, len(numbers) - at + 1, 0, number))
    program += [(at_least, 1, 0, _X32), (answer, 0, 0, _ALLOW), (answer, 0, 0, _REFUSE)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    head = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(head), 0, 0)


def _keep_files(libc: ctypes.CDLL, writable: bytes) -> None:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    inside = _WRITE_FILE | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | (_TRUNCATE if version >= 3 else 0)
    handled = ctypes.create_string_buffer(struct.pack("=Q", inside | _EXECUTE | _REMOVE_DIR | _MAKE_OTHERS), 8)
    ruleset = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return
    try:
        fd = os.open(writable, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            beneath = ctypes.create_string_buffer(struct.pack("=Qi", inside, fd), 12)
            if libc.syscall(_ADD_RULE, ruleset, 1, beneath, 0) == 0:
                libc.syscall(_RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(fd)
    finally:
        os.close(ruleset)


@contextmanager
def time_limit(cpu_s: float = CPU_MAX_S, wall_s: float = WALL_MAX_S) -> Iterator[None]:
    """End the process when what is inside takes longer."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
