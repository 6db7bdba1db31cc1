"""What the checks are written with: environment, kinds of files, expected errors, clocks, other processes.

A check runs in a process of its own whose working directory is its ``root``, so it may change its umask, its
working directory or its limits and leave descriptors open. What it cannot ask of this tree or this user it
skips, with a reason: ``env.need("other_uids")``.

Source of the promises: POSIX.1-2017 and the Linux manual pages; the name of a check states its own.
"""

import errno
import itertools
import os
import pickle
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
AnyPath = str | bytes | os.PathLike[str]

# Numbers that no account of a normal machine owns; nothing needs them to exist in /etc/passwd.
OTHER, THIRD = 64_321, 64_322
GROUP, SECOND_GROUP = 64_411, 64_412

CHILD_DEADLINE_S = 20.0

_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE of <linux/time.h>: the kernel stamps files with it

FILE_KINDS = ("regular", "fifo", "symlink", "socket")
ALL_KINDS = ("regular", "dir", "fifo", "symlink", "socket", "char", "block")
DEVICE_KINDS = ("char", "block")
MODE_KINDS = ("regular", "dir", "fifo", "socket", "char", "block")  # what chmod by path can reach


class Skipped(Exception):
    """The check asks for something this tree or this user cannot offer; the text says what."""


@dataclass(frozen=True)
class Env:
    """Facts about the tree and the user, found by probing; ``missing`` maps a feature to the reason."""

    is_root: bool
    missing: Mapping[str, str] = field(default_factory=dict)

    def need(self, feature: str) -> None:
        """Skip the running check when the feature is absent."""
        if feature in self.missing:
            raise Skipped(self.missing[feature])

    def need_kind(self, *kinds: str) -> None:
        """Skip when one of these file kinds cannot be made here."""
        if any(kind in DEVICE_KINDS for kind in kinds):
            self.need("devices")

    def as_user(
        self, body: Callable[[], T], *, uid: int = OTHER, gid: int | None = None, groups: Sequence[int] = ()
    ) -> T:
        """Run the body in a child that has become that user for good; its result or OSError comes back."""
        self.need("other_uids")
        group = uid if gid is None else gid

        def become_and_run() -> T:
            os.setgroups(list(groups))
            os.setresgid(group, group, group)
            os.setresuid(uid, uid, uid)
            return body()

        value: T = spawn(become_and_run).result()
        return value


# -- parametrised checks ---------------------------------------------------------------------------

_variants: dict[Any, list[dict[str, Any]]] = {}


def cases(**choices: Sequence[Any]) -> Callable[[T], T]:
    """Run the check once for each combination of the named choices, which arrive as keyword arguments."""

    def remember(check: T) -> T:
        combinations = itertools.product(*choices.values())
        _variants[check] = [dict(zip(choices, values, strict=True)) for values in combinations]
        return check

    return remember


def variants(check: Callable[..., None]) -> list[dict[str, Any]]:
    """The keyword arguments of every run of this check."""
    return _variants.get(check, [{}])


# -- expectations ----------------------------------------------------------------------------------


@contextmanager
def fails(*expected: int) -> Iterator[None]:
    """The body must raise an OSError with one of these errnos."""
    wanted = " or ".join(errno.errorcode[number] for number in expected)
    try:
        yield
    except OSError as error:
        if error.errno in expected:
            return
        got = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise AssertionError(f"expected {wanted}, got {got}") from None
    raise AssertionError(f"expected {wanted}, but the call succeeded")


def equal(actual: object, expected: object, what: str = "value") -> None:
    """Assert equality with both sides in the message, long values shortened."""
    assert actual == expected, f"{what}: expected {_short(expected)}, got {_short(actual)}"


def mode_of(path: AnyPath | int) -> int:
    """Permission bits including suid, sgid and sticky; of the link itself for a symlink."""
    status = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    return stat.S_IMODE(status.st_mode)


def absent(path: AnyPath) -> None:
    """The name must not exist, not even as a dangling link."""
    with fails(errno.ENOENT):
        os.lstat(path)


def names_in(directory: AnyPath) -> set[bytes]:
    """The names a fresh listing shows, as bytes."""
    return set(os.listdir(os.fsencode(directory)))


def errno_name(error: OSError) -> str:
    """The symbol of the error's number."""
    return errno.errorcode.get(error.errno or 0, str(error))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:100]}… ({len(text)} characters)"


# -- clocks ----------------------------------------------------------------------------------------


def next_tick(after_ns: int = 0) -> int:
    """Wait until the clock that file systems stamp with has moved past that time and past now; return it."""
    start_ns = max(after_ns, time.clock_gettime_ns(_COARSE_CLOCK))
    deadline_s = time.monotonic() + 5
    while (now_ns := time.clock_gettime_ns(_COARSE_CLOCK)) <= start_ns:
        assert time.monotonic() < deadline_s, "a change time lies seconds in the future"
        time.sleep(0.001)  # one jiffy is 1 to 10 ms; this only keeps the wait from burning the processor
    return now_ns


@contextmanager
def stamps(path: AnyPath | int, *, moved: str = "", kept: str = "") -> Iterator[None]:
    """The body must move the times in ``moved`` to now and leave those in ``kept`` (``"ctime mtime"``)."""

    def look() -> os.stat_result:
        return os.fstat(path) if isinstance(path, int) else os.lstat(path)

    before = look()
    start_ns = next_tick(before.st_ctime_ns)
    yield
    after = look()
    for name in moved.split():
        value_ns = getattr(after, f"st_{name}_ns")
        assert value_ns >= start_ns, f"{name} of {_short(path)} was not updated"
    for name in kept.split():
        attribute = f"st_{name}_ns"
        assert getattr(after, attribute) == getattr(before, attribute), f"{name} of {_short(path)} changed"


# -- files -----------------------------------------------------------------------------------------


def make(kind: str, path: AnyPath, mode: int | None = None) -> None:
    """Make one file of that kind; its mode is set exactly: 0755 for a directory, else 0644, unless given."""
    name = os.fsencode(path)
    if kind == "regular":
        write(name, b"")
    elif kind == "dir":
        os.mkdir(name)
    elif kind == "fifo":
        os.mkfifo(name)
    elif kind == "symlink":
        os.symlink(b"some/where", name)
        return
    elif kind == "socket":
        os.mknod(name, stat.S_IFSOCK | 0o600)
    else:
        format_bits = stat.S_IFCHR if kind == "char" else stat.S_IFBLK
        os.mknod(name, format_bits | 0o600, os.makedev(1, 3))
    if mode is None:
        mode = 0o755 if kind == "dir" else 0o644
    os.chmod(name, mode)


def kind_of(path: AnyPath) -> str:
    """The kind of the name itself, in the words of ``make``."""
    tests = {
        "regular": stat.S_ISREG,
        "dir": stat.S_ISDIR,
        "fifo": stat.S_ISFIFO,
        "symlink": stat.S_ISLNK,
        "socket": stat.S_ISSOCK,
        "char": stat.S_ISCHR,
        "block": stat.S_ISBLK,
    }
    mode = os.lstat(path).st_mode
    return next(kind for kind, test in tests.items() if test(mode))


def remove(path: AnyPath) -> None:
    """Unlink or rmdir, whichever fits."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)


def write(path: AnyPath, data: bytes) -> None:
    """Create or replace the bytes of a file through one descriptor."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write until every byte went out."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def read(path: AnyPath) -> bytes:
    """All bytes of a file through one descriptor."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def read_all(fd: int) -> bytes:
    """From the descriptor's position to the end of the file."""
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def opened(path: AnyPath, flags: int = os.O_RDONLY, mode: int = 0o666) -> Iterator[int]:
    """A raw descriptor for the body; no Python buffering between the check and the kernel."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def bind_socket(path: AnyPath, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket bound to that name; the name must be short, so checks bind relative to their root."""
    endpoint = socket.socket(socket.AF_UNIX, kind)
    endpoint.bind(os.fsencode(path))
    return endpoint


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes without a short period, so that a shifted or repeated block shows."""
    state, words = seed * 2_654_435_761 & 0xFFFFFFFF, bytearray()
    while len(words) < min(length, 65_521):  # a prime: no block size divides it
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFFFFFF
        words += state.to_bytes(4, "little")
    block = bytes(words[:65_521])
    return (block * (length // 65_521 + 1))[:length]


def descend(names: Sequence[AnyPath]) -> None:
    """Make these directories one inside the other and end in the deepest, by single steps."""
    for name in names:
        os.mkdir(name)
        os.chdir(name)


def sweep(directory: Path) -> None:
    """Remove a directory and all in it, by single steps, so that no depth and no mode stops it."""
    parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sweep_at(parent, os.fsencode(directory.name))
    finally:
        os.close(parent)


def _sweep_at(parent: int, name: bytes) -> None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        if os.fstat(fd).st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)
        for entry in map(os.fsencode, os.listdir(fd)):
            if stat.S_ISDIR(os.lstat(entry, dir_fd=fd).st_mode):
                _sweep_at(fd, entry)
            else:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


# -- other processes -------------------------------------------------------------------------------


class Child:
    """A forked process that computes one value; ``result`` waits for it within a deadline."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid, self._pipe = pid, pipe

    def result(self, deadline_s: float = CHILD_DEADLINE_S) -> Any:
        """The value; an OSError, AssertionError or Skipped of the child is raised here again."""
        data, end_s = b"", time.monotonic() + deadline_s
        while True:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, end_s - time.monotonic()))
            if not ready:
                self.kill()
                raise AssertionError(f"another process did not end within {deadline_s:g} s")
            if not (part := os.read(self._pipe, 1 << 16)):
                break
            data += part
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            raise AssertionError(f"another process died of {signal.Signals(os.WTERMSIG(status)).name}")
        assert data, "another process ended without an answer"
        succeeded, value = pickle.loads(data)
        if succeeded:
            return value
        raise value

    def kill(self) -> None:
        """End it and reap it; one that is stuck in the kernel is given up after a second."""
        os.kill(self.pid, signal.SIGKILL)
        end_s = time.monotonic() + 1
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0 and time.monotonic() < end_s:
            time.sleep(0.001)

    def signal_of_death(self, deadline_s: float = CHILD_DEADLINE_S) -> int:
        """The signal that ended it, 0 when it ended by itself."""
        end_s = time.monotonic() + deadline_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._pipe)
                return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            if time.monotonic() > end_s:
                self.kill()
                raise AssertionError(f"another process did not end within {deadline_s:g} s")
            time.sleep(0.001)


def spawn(body: Callable[[], Any]) -> Child:
    """Start the body in a forked process."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    os.close(reader)
    _answer_and_exit(body, writer)


def _answer_and_exit(body: Callable[[], Any], writer: int) -> NoReturn:
    try:
        try:
            answer = pickle.dumps((True, body()))
        except OSError as error:
            answer = pickle.dumps((False, OSError(error.errno, error.strerror)))
        except (AssertionError, Skipped) as error:
            answer = pickle.dumps((False, type(error)(str(error))))
        except Exception as error:
            answer = pickle.dumps((False, AssertionError(f"{type(error).__name__}: {error}")))
        view = memoryview(answer)
        while view:
            view = view[os.write(writer, view) :]
    finally:
        os._exit(0)


def together(count: int, body: Callable[[int], T], deadline_s: float = CHILD_DEADLINE_S) -> list[T]:
    """Run ``body(0..count-1)`` in as many processes, started at the same moment; their values in order."""
    gate_reader, gate_writer = os.pipe()

    def wait_and_run(number: int) -> T:
        os.close(gate_writer)
        os.read(gate_reader, 1)  # returns at the end of file, for all of them at once
        return body(number)

    children = [spawn(lambda number=number: wait_and_run(number)) for number in range(count)]  # type: ignore[misc]
    os.close(gate_writer)
    os.close(gate_reader)
    return [child.result(deadline_s) for child in children]
