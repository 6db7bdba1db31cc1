"""The inotify binding: what arrives, what an overflow looks like, and what it says at the kernel's limits."""

import contextlib
import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import NoSpace
from index.scan import inotify
from index.scan.inotify import Event, Inotify, WatchLimitReached

DEADLINE_S = 10.0


@pytest.fixture
def watching() -> Iterator[Inotify]:
    with Inotify() as instance:
        yield instance


@contextlib.contextmanager
def directory_link(path: Path | bytes) -> Iterator[bytes]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield b"/proc/self/fd/%d" % fd
    finally:
        os.close(fd)


def watch(watching: Inotify, path: Path | bytes) -> int:
    with directory_link(path) as link:
        return watching.add(link)


def drain(watching: Inotify) -> list[Event]:
    """All that is queued; what a system call caused is queued when it returns."""
    events: list[Event] = []
    while found := watching.read():
        events += found
    return events


def seen(events: list[Event]) -> list[tuple[int, bytes]]:
    return [(event.mask & ~inotify.IN_ISDIR, event.name) for event in events]


def test_creating_writing_and_deleting_are_told_in_order(watching: Inotify, tmp_path: Path) -> None:
    wd = watch(watching, tmp_path)
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "a").unlink()
    events = drain(watching)
    assert {event.wd for event in events} == {wd}
    assert seen(events) == [
        (inotify.IN_CREATE, b"a"),
        (inotify.IN_MODIFY, b"a"),
        (inotify.IN_CLOSE_WRITE, b"a"),
        (inotify.IN_ATTRIB, b"a"),
        (inotify.IN_DELETE, b"a"),
    ]


def test_the_halves_of_a_rename_share_a_cookie(watching: Inotify, tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    left.mkdir()
    right.mkdir()
    (left / "x").touch()
    left_wd, right_wd = watch(watching, left), watch(watching, right)
    (left / "x").rename(right / "y")
    gone, come = drain(watching)
    assert (gone.wd, gone.mask, gone.name) == (left_wd, inotify.IN_MOVED_FROM, b"x")
    assert (come.wd, come.mask, come.name) == (right_wd, inotify.IN_MOVED_TO, b"y")
    assert gone.cookie == come.cookie != 0


def test_our_own_reading_makes_no_event(watching: Inotify, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    watch(watching, tmp_path)
    (tmp_path / "a").read_bytes()
    os.listdir(tmp_path)
    assert drain(watching) == []


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"-", b" ", b"n" * 255, b"1234567890123456"])
def test_names_are_bytes_of_any_length(watching: Inotify, tmp_path: Path, name: bytes) -> None:
    watch(watching, tmp_path)
    os.mkdir(os.fsencode(tmp_path) + b"/" + name)
    (event,) = drain(watching)
    assert event.name == name
    assert event.mask == inotify.IN_CREATE | inotify.IN_ISDIR


def test_a_directory_deeper_than_path_max_is_watched_through_its_descriptor(watching: Inotify, tmp_path: Path) -> None:
    step = b"d" * 250
    fds = [os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)]
    try:
        for _ in range(20):
            os.mkdir(step, dir_fd=fds[-1])
            fds.append(os.open(step, os.O_PATH | os.O_DIRECTORY, dir_fd=fds[-1]))
        watching.add(b"/proc/self/fd/%d" % fds[-1])
        os.mkdir(b"deep", dir_fd=fds[-1])
        (event,) = drain(watching)
        assert event.name == b"deep"
        os.rmdir(b"deep", dir_fd=fds[-1])
    finally:
        while len(fds) > 1:
            os.close(fds.pop())
            os.rmdir(step, dir_fd=fds[-1])
        os.close(fds[0])


def test_the_end_of_a_directory_is_told_and_its_watch_is_over(watching: Inotify, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    wd = watch(watching, tmp_path / "d")
    (tmp_path / "d").rmdir()
    assert seen(drain(watching)) == [(inotify.IN_DELETE_SELF, b""), (inotify.IN_IGNORED, b"")]
    watching.remove(wd)  # no error: the kernel removed it


def test_a_moved_directory_says_so(watching: Inotify, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    watch(watching, tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "e")
    assert seen(drain(watching)) == [(inotify.IN_MOVE_SELF, b"")]


def test_a_removed_watch_is_silent_after_its_last_event(watching: Inotify, tmp_path: Path) -> None:
    wd = watch(watching, tmp_path)
    watching.remove(wd)
    (tmp_path / "a").touch()
    assert drain(watching) == [Event(wd, inotify.IN_IGNORED, 0, b"")]


def test_the_same_directory_has_one_watch(watching: Inotify, tmp_path: Path) -> None:
    assert watch(watching, tmp_path) == watch(watching, tmp_path)


def test_only_directories_are_watched(watching: Inotify, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="directory") as not_directory:
        watching.add(os.fsencode(tmp_path / "file"))
    assert not_directory.value.errno == errno.ENOTDIR
    with pytest.raises(FileNotFoundError):
        watching.add(os.fsencode(tmp_path / "absent"))


def test_a_full_queue_is_visible(watching: Inotify, tmp_path: Path) -> None:
    queue_max = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queue_max > 100_000:
        pytest.skip(f"the queue here holds {queue_max} events, too many to fill in a test")
    watch(watching, tmp_path)
    name = os.fsencode(tmp_path / "x")
    for _ in range(queue_max // 2 + 1):
        os.mkdir(name)
        os.rmdir(name)
    events = drain(watching)
    assert events[-1] == Event(-1, inotify.IN_Q_OVERFLOW, 0, b"")
    assert len(events) == queue_max + 1


def test_a_storm_of_nested_trees_loses_nothing_when_new_directories_are_watched_then_scanned(
    watching: Inotify, tmp_path: Path
) -> None:
    """The rule of the module's story, on 300 trees of nine entries made as fast as this process can."""
    root = os.fsencode(tmp_path)
    paths: dict[int, bytes] = {}
    found: set[bytes] = set()

    def take(path: bytes) -> None:
        paths[watch(watching, path)] = path
        with os.scandir(path) as entries:
            for entry in entries:
                found.add(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    take(entry.path)

    def follow() -> None:
        for event in drain(watching):
            if event.mask & inotify.IN_CREATE:
                path = paths[event.wd] + b"/" + event.name
                found.add(path)
                if event.mask & inotify.IN_ISDIR:
                    take(path)

    take(root)
    made: set[bytes] = set()
    for tree in range(300):
        top = root + b"/t%d" % tree
        for name in (top, top + b"/a", top + b"/a/b", top + b"/c"):
            os.mkdir(name)
            made.add(name)
        for name in (top + b"/1", top + b"/a/2", top + b"/a/b/3", top + b"/c/4", top + b"/c/5"):
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
            made.add(name)
        if tree % 7 == 0:
            follow()
    follow()
    assert made - found == set()


def test_the_limit_of_watches_is_named_with_its_sysctl_and_value(
    watching: Inotify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __getattr__(self, _: str) -> object:
            def refuse(*_: object) -> int:
                ctypes.set_errno(errno.ENOSPC)
                return -1

            return refuse

    value = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
    with monkeypatch.context() as patch:
        patch.setattr(watching, "_libc", Full())
        with pytest.raises(WatchLimitReached) as reached:
            watch(watching, tmp_path)
    assert reached.value.limit == value
    assert f"fs.inotify.max_user_watches is {value}" in str(reached.value)
    assert isinstance(reached.value, NoSpace)
    assert reached.value.errno == errno.ENOSPC


def test_the_limit_of_instances_is_named_too() -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 1000:
        pytest.skip(f"this user may have {limit} inotify instances, too many to use up in a test")
    with contextlib.ExitStack() as stack, pytest.raises(WatchLimitReached) as reached:
        for _ in range(limit + 1):
            stack.enter_context(Inotify())
    assert reached.value.sysctl == "fs.inotify.max_user_instances"


def test_closing_twice_is_no_error_and_nothing_leaks() -> None:
    before = len(os.listdir("/proc/self/fd"))
    instance = Inotify()
    instance.close()
    instance.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_descriptor_is_not_inherited(watching: Inotify) -> None:
    assert not os.get_inheritable(watching.fd)


def test_trio_wakes_when_something_happens(watching: Inotify, tmp_path: Path) -> None:
    watch(watching, tmp_path)

    async def touch_from_a_thread() -> None:
        await trio.to_thread.run_sync((tmp_path / "late").touch)

    async def main() -> list[Event]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(touch_from_a_thread)
            with trio.fail_after(DEADLINE_S):
                await trio.lowlevel.wait_readable(watching.fd)
            return watching.read()

    assert trio.run(main)[0].name == b"late"


def test_an_event_is_there_when_the_call_that_caused_it_returns(watching: Inotify, tmp_path: Path) -> None:
    watch(watching, tmp_path)
    (tmp_path / "now").touch()
    started_s = time.monotonic()
    assert select.select([watching.fd], [], [], DEADLINE_S)[0]
    assert time.monotonic() - started_s < 1
    assert drain(watching)[0].name == b"now"


NAMES = st.binary(max_size=255).map(lambda raw: raw.replace(b"\0", b"x"))
U32 = st.integers(0, (1 << 32) - 1)


@given(st.lists(st.builds(Event, st.integers(-1, (1 << 31) - 1), U32, U32, NAMES)))
def test_parse_reads_back_what_the_kernel_lays_out(events: list[Event]) -> None:
    data = b""
    for event in events:
        padded = event.name + b"\0" * (16 - len(event.name) % 16) if event.name else b""
        data += struct.pack("iIII", event.wd, event.mask, event.cookie, len(padded)) + padded
    assert inotify.parse(data) == events
