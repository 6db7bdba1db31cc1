"""Branches at run time: which directory is one, what happens when it goes and comes, and how slow ones are called."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import Deadline, Unreachable
from index.scan.fsid import fs_identity
from index.scan.mounts import Mount
from index.store.places import BranchRow
from vdfs.space.branches import LIVE, MISSING, STALLED, Branch, _trie

# A call may take this long where it must not be a matter of time, and this long where it must.
LONG_S = 10.0
SHORT_S = 0.05


def branch_at(path: Path, *, fs_type: str = "ext4", excluded: tuple[bytes, ...] = ()) -> Branch:
    """A branch of a directory that stands there now, on a file system of such a type."""
    root = os.fsencode(path)
    fs_id, root_ino = fs_identity(root)
    row = BranchRow(1, b"b" * 16, 1, b"d" * 16, "label", root, fs_id, root_ino, 5, "done", None, None)
    return Branch(row, b"Place", [Mount(b"/", fs_type, "source", "1:1")], list(excluded))


def names_of(fd: int) -> list[str]:
    with os.scandir(fd) as found:
        return sorted(entry.name for entry in found)


def open_below(path: Path) -> list[str]:
    """What this process holds open at or below a path."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(str(path)):
            found.append(target)
    return found


@pytest.fixture
def root(tmp_path) -> Iterator[Path]:
    """A branch's directory with one file; nothing of it may be left open."""
    path = tmp_path / "root"
    path.mkdir()
    (path / "file").touch()
    yield path
    assert open_below(tmp_path) == []


# -- the root ----------------------------------------------------------------------------------------------------------


def test_the_root_is_opened(root):
    """A descriptor of the very directory."""
    branch = branch_at(root)
    fd = branch.open_root()
    try:
        assert names_of(fd) == ["file"]
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    assert branch.state == LIVE


def away(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


def replaced(root: Path) -> None:
    away(root)
    root.mkdir()


def a_file(root: Path) -> None:
    away(root)
    root.touch()


def a_link_to_another(root: Path) -> None:
    away(root)
    (root.parent / "another").mkdir()
    root.symlink_to("another")


@pytest.mark.parametrize("go", [away, replaced, a_file, a_link_to_another])
def test_what_is_not_the_root_makes_the_branch_missing(root, go):
    """Nothing there, an empty mount point, another stick, something else: Unreachable, and nothing is opened."""
    branch = branch_at(root)
    go(root)
    with pytest.raises(Unreachable) as caught:
        branch.open_root()
    assert str(root) in str(caught.value)
    assert branch.state == MISSING


@pytest.mark.parametrize("go", [away, replaced, a_file, a_link_to_another])
def test_a_root_that_comes_back_makes_the_branch_live(root, go):
    """The same directory at the same path; each change of state is told once."""
    branch = branch_at(root)
    assert not branch.check()
    go(root)
    assert branch.check()
    assert not branch.check()
    assert branch.state == MISSING
    if root.is_symlink() or root.is_file():
        root.unlink()
    elif root.exists():
        root.rmdir()
    root.with_name("elsewhere").rename(root)
    assert branch.check()
    assert not branch.check()
    assert branch.state == LIVE


def test_a_link_to_the_root_is_the_root(root):
    """A user may move a folder and leave a link: identity decides, not the way to it."""
    branch = branch_at(root)
    away(root)
    root.symlink_to("elsewhere")
    os.close(branch.open_root())
    assert branch.state == LIVE


def test_a_root_on_another_file_system_is_another_root(root):
    """Equal inode numbers of two sticks are no identity."""
    branch = branch_at(root)
    branch.fs_id = "uuid:0011"
    with pytest.raises(Unreachable):
        branch.open_root()


def test_a_root_that_may_not_be_read_is_refused_as_itself(root):
    """EACCES is no absence; `check` still counts it as away, as nothing of it can be reached."""
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    branch = branch_at(root)
    root.chmod(0)
    try:
        with pytest.raises(PermissionError):
            branch.open_root()
        assert branch.check()
    finally:
        root.chmod(0o755)


# -- calls on a fast branch --------------------------------------------------------------------------------------------


def test_a_fast_branch_is_called_in_place(root):
    """No thread, and errors as they are."""
    branch = branch_at(root)

    async def main() -> None:
        assert await branch.call(LONG_S, threading.get_ident) == threading.get_ident()
        with pytest.raises(FileNotFoundError):
            await branch.call(LONG_S, os.stat, root / "absent")

    trio.run(main)


# -- calls on a slow branch --------------------------------------------------------------------------------------------


class Blocker:
    """A system call that hangs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.calls = 0
        self.running = 0

    def __call__(self) -> str:
        self.calls += 1
        self.running += 1
        try:
            assert self.go.wait(60)
        finally:
            self.running -= 1
        return "late"


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    found = Blocker()
    yield found
    found.go.set()
    until_s = time.monotonic() + LONG_S
    while found.running and time.monotonic() < until_s:
        time.sleep(0.001)  # its threads end before the next test


async def eventually(fact: Callable[[], Any], what: str) -> None:
    with trio.move_on_after(LONG_S):
        while not fact():  # noqa: ASYNC110  (a thread of the branch changes it, which announces nothing)
            await trio.sleep(0.002)
        return
    pytest.fail(f"not within {LONG_S} s: {what}")


async def stall(branch: Branch, blocker: Blocker) -> None:
    with pytest.raises(Deadline):
        await branch.call(SHORT_S, blocker)
    assert branch.state == STALLED


def slow_branch(root: Path) -> Branch:
    branch = branch_at(root, fs_type="fuse.sshfs")
    assert branch.slow
    return branch


def test_a_slow_branch_is_called_in_a_thread(root):
    """Results and errors come through."""
    branch = slow_branch(root)

    async def main() -> None:
        assert await branch.call(LONG_S, threading.get_ident) != threading.get_ident()
        assert await branch.call(LONG_S, pow, 2, 10) == 1024
        with pytest.raises(OSError) as caught:
            await branch.call(LONG_S, os.rmdir, root)
        assert caught.value.errno == errno.ENOTEMPTY
        assert branch.state == LIVE

    trio.run(main)


def test_a_call_that_does_not_answer_ends_at_its_deadline(root, blocker):
    """With Deadline, while the loop goes on; the branch counts as stalled."""
    branch = slow_branch(root)

    async def main() -> None:
        turns = 0
        async with trio.open_nursery() as nursery:

            async def live() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await trio.sleep(0.005)

            nursery.start_soon(live)
            began_s = trio.current_time()
            await stall(branch, blocker)
            assert SHORT_S <= trio.current_time() - began_s < LONG_S
            nursery.cancel_scope.cancel()
        assert turns > 1

    trio.run(main)


def test_a_stalled_branch_answers_at_once(root, blocker):
    """Unreachable, without another thread that hangs."""
    branch = slow_branch(root)

    async def main() -> None:
        await stall(branch, blocker)
        began_s = trio.current_time()
        for _ in range(20):
            with pytest.raises(Unreachable):
                await branch.call(LONG_S, blocker)
        assert trio.current_time() - began_s < LONG_S / 2
        assert blocker.calls == 1

    trio.run(main)


def test_a_stalled_branch_recovers_when_its_call_comes_back(root, blocker):
    """By itself; it is called as before then, and can stall again."""
    branch = slow_branch(root)

    async def main() -> None:
        for _ in range(3):
            blocker.go.clear()
            await stall(branch, blocker)
            blocker.go.set()
            await eventually(lambda: branch.state == LIVE, "a branch whose call came back is live")
            assert await branch.call(LONG_S, pow, 2, 3) == 8

    trio.run(main)


def test_a_branch_recovers_after_more_calls_than_it_has_threads(root, blocker):
    """Those that never got a thread left nothing behind to wait for."""
    branch = slow_branch(root)

    async def main() -> None:
        async def one() -> None:
            with pytest.raises((Deadline, Unreachable)):
                await branch.call(SHORT_S, blocker)

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(one)
        assert branch.state == STALLED
        blocker.go.set()
        await eventually(lambda: branch.state == LIVE and not blocker.running, "the branch is live again")
        assert await branch.call(LONG_S, pow, 2, 3) == 8

    trio.run(main)


def test_a_branch_stays_stalled_until_the_last_of_its_calls_is_back(root):
    """One answer of two says little about the other."""
    branch = slow_branch(root)
    first, second = Blocker(), Blocker()

    async def main() -> None:
        async def late(blocker: Blocker) -> None:
            with pytest.raises(Deadline):
                await branch.call(SHORT_S, blocker)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(late, first)
            nursery.start_soon(late, second)
        first.go.set()
        await eventually(lambda: not first.running, "the first call ends")
        assert branch.state == STALLED
        with pytest.raises(Unreachable):
            await branch.call(LONG_S, pow, 2, 3)
        second.go.set()
        await eventually(lambda: branch.state == LIVE, "the branch is live")

    try:
        trio.run(main)
    finally:
        first.go.set()
        second.go.set()


def test_one_stalled_branch_stops_no_other(root, blocker):
    """Each has threads of its own."""
    dead, alive = slow_branch(root), slow_branch(root)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(_ignoring, dead, blocker)
            await eventually(lambda: blocker.calls, "the dead branch is called")
            assert await alive.call(LONG_S, pow, 2, 3) == 8
            assert alive.state == LIVE

    trio.run(main)


async def _ignoring(branch: Branch, blocker: Blocker) -> None:
    with pytest.raises((Deadline, Unreachable)):
        await branch.call(SHORT_S, blocker)


def test_a_caller_who_gives_up_does_not_stall_the_branch(root, blocker):
    """Cancellation says nothing about the file system; it takes the caller away at once."""
    branch = slow_branch(root)

    async def main() -> None:
        with trio.move_on_after(SHORT_S) as scope:
            await branch.call(LONG_S, blocker)
        assert scope.cancelled_caught
        assert branch.state == LIVE
        assert await branch.call(LONG_S, pow, 2, 3) == 8

    trio.run(main)


def test_a_late_error_is_an_answer_too(root):
    """The file system lives again, whatever it said."""
    branch = slow_branch(root)
    go = threading.Event()

    def fail() -> None:
        go.wait(60)
        raise OSError(errno.ENOTCONN, "the server is gone")

    async def main() -> None:
        with pytest.raises(Deadline):
            await branch.call(SHORT_S, fail)
        go.set()
        await eventually(lambda: branch.state == LIVE, "the branch is live")

    try:
        trio.run(main)
    finally:
        go.set()


# -- what is never looked at -------------------------------------------------------------------------------------------


def test_excluded_paths_are_a_tree_of_names():
    """Only those below the root; a path within an excluded one adds nothing, in whatever order they come."""
    paths = [b"/r/a/b", b"/r/mnt", b"/elsewhere", b"/r", b"/rest/x", b"/r/mnt/inner"]
    wanted = {b"a": {b"b": True}, b"mnt": True}
    assert wanted == _trie(b"/r", [(p, True) for p in paths]) == _trie(b"/r", [(p, True) for p in paths[::-1]])


def test_paths_below_the_root_of_the_machine():
    """Its path ends with the slash that others lack."""
    assert _trie(b"/", [(b"/proc", True), (b"/home/u/m", True)]) == {b"proc": True, b"home": {b"u": {b"m": True}}}


NAMES = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=4)


@given(st.lists(NAMES, max_size=5), NAMES)
def test_a_path_is_excluded_with_all_below_it(excluded, path):
    """The tree says so exactly for those that start with an excluded path."""
    level: Any = _trie(b"/r", [(b"/r/" + b"/".join(names), True) for names in excluded])
    for name in path:
        level = level.get(name) if isinstance(level, dict) else level
    below_an_excluded = any(path[: len(names)] == names for names in excluded)
    assert (level is True) == below_an_excluded
