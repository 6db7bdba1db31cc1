"""flock(2) and fcntl(2) locks between the processes of one host."""

import errno
import fcntl
import os
import struct
from pathlib import Path

from .kit import Env, cases, equal, fails, opened, read, spawn, together, write

EX, SH, NB, UN = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_NB, fcntl.LOCK_UN
BUSY = (errno.EWOULDBLOCK, errno.EACCES)


def _in_another_process(kind: str, mode: int, start: int = 0, length: int = 0) -> bool:
    """Whether another process gets that lock on ``f`` without waiting."""

    def attempt() -> bool:
        with opened("f", os.O_RDWR) as fd:
            try:
                _lock(kind, fd, mode | NB, start, length)
            except OSError as error:
                equal(error.errno in BUSY, True, f"errno {error.errno}")
                return False
            return True

    return bool(spawn(attempt).result())


def _lock(kind: str, fd: int, mode: int, start: int = 0, length: int = 0) -> None:
    if kind == "flock":
        fcntl.flock(fd, mode)
    else:
        fcntl.lockf(fd, mode, length, start)


@cases(kind=("flock", "fcntl"))
def check_an_exclusive_lock_excludes(root: Path, env: Env, kind: str) -> None:
    write("f", b"")
    with opened("f", os.O_RDWR) as fd:
        _lock(kind, fd, EX)
        equal([_in_another_process(kind, mode) for mode in (EX, SH)], [False, False])
        _lock(kind, fd, UN)
        equal([_in_another_process(kind, mode) for mode in (EX, SH)], [True, True])


@cases(kind=("flock", "fcntl"))
def check_shared_locks_share(root: Path, env: Env, kind: str) -> None:
    write("f", b"")
    with opened("f", os.O_RDWR) as fd:
        _lock(kind, fd, SH)
        equal([_in_another_process(kind, mode) for mode in (EX, SH)], [False, True])


@cases(kind=("flock", "fcntl"))
def check_close_gives_the_lock_back(root: Path, env: Env, kind: str) -> None:
    write("f", b"")
    with opened("f", os.O_RDWR) as fd:
        _lock(kind, fd, EX)
    equal(_in_another_process(kind, EX), True)


@cases(kind=("flock", "fcntl"))
def check_a_dead_process_holds_no_lock(root: Path, env: Env, kind: str) -> None:
    write("f", b"")
    reader, writer = os.pipe()

    def hold() -> None:
        fd = os.open("f", os.O_RDWR)
        _lock(kind, fd, EX)
        os.write(writer, b"1")
        os.read(os.pipe()[0], 1)

    child = spawn(hold)
    os.read(reader, 1)
    equal(_in_another_process(kind, EX), False)
    child.kill()
    equal(_in_another_process(kind, EX), True)


@cases(kind=("flock", "fcntl"))
def check_a_waiting_process_gets_the_lock(root: Path, env: Env, kind: str) -> None:
    write("f", b"")

    def wait() -> bool:
        with opened("f", os.O_RDWR) as other:
            _lock(kind, other, EX)
            return os.fstat(other).st_size == 4

    with opened("f", os.O_RDWR) as fd:
        _lock(kind, fd, EX)
        child = spawn(wait)
        os.write(fd, b"done")
        _lock(kind, fd, UN)
        equal(child.result(), True)


def check_byte_ranges_are_locked_apart(root: Path, env: Env) -> None:
    write("f", b"")
    with opened("f", os.O_RDWR) as fd:
        _lock("fcntl", fd, EX, 100, 50)
        _lock("fcntl", fd, SH, 1 << 33, 10)
        ranges = ((0, 100), (149, 1), (150, 10), (100, 1), (1 << 33, 1), (0, 0))
        equal(
            [_in_another_process("fcntl", EX, start, length) for start, length in ranges],
            [True, False, True, False, False, False],
        )
        equal(_in_another_process("fcntl", SH, 1 << 33, 10), True)


def check_the_holder_of_a_range_is_told(root: Path, env: Env) -> None:
    write("f", b"")
    layout = struct.Struct("hhqqi4x")
    with opened("f", os.O_RDWR) as fd:
        _lock("fcntl", fd, EX, 10, 5)
        holder = os.getpid()

        def ask() -> tuple[int, int, int]:
            with opened("f", os.O_RDWR) as other:
                question = layout.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                _, _, start, length, pid = layout.unpack(fcntl.fcntl(other, fcntl.F_GETLK, question))
                return start, length, pid

        equal(spawn(ask).result(), (10, 5, holder))


def check_two_descriptors_of_one_process_hold_flocks_apart(root: Path, env: Env) -> None:
    write("f", b"")
    with opened("f") as one, opened("f") as two:
        fcntl.flock(one, EX)
        with fails(*BUSY):
            fcntl.flock(two, EX | NB)
        fcntl.flock(one, SH)
        fcntl.flock(two, SH | NB)


def check_a_lock_survives_rename_and_unlink(root: Path, env: Env) -> None:
    write("a", b"")
    with opened("a", os.O_RDWR) as fd:
        fcntl.flock(fd, EX)
        os.rename("a", "f")
        equal(_in_another_process("flock", EX), False)
        os.unlink("f")
        write("f", b"")
        equal(_in_another_process("flock", EX), True, "another file of that name")


@cases(kind=("flock", "fcntl"))
def check_a_counter_under_a_lock_counts_right(root: Path, env: Env, kind: str) -> None:
    write("f", b"0")

    def count(number: int) -> None:
        for _ in range(50):
            with opened("f", os.O_RDWR) as fd:
                _lock(kind, fd, EX)
                value = int(os.pread(fd, 20, 0)) + 1
                os.pwrite(fd, b"%d" % value, 0)
                _lock(kind, fd, UN)

    together(4, count)
    equal(read("f"), b"200")
