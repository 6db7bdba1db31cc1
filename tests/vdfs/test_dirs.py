"""Directories by descriptor: deep ones, few at a time, none for long, and never another than was meant."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from index.model.errors import Stale, Unreachable
from index.scan.fsid import fs_identity
from index.scan.mounts import Mount
from index.store.places import BranchRow
from vdfs.space import dirs
from vdfs.space.branches import Branch
from vdfs.space.dirs import CAPACITY, IDLE_S, DirRef, DirTable

T = TypeVar("T")


class Disk:
    """A branch's directory and the table over it; entry ids are handed out here, in place of the index."""

    def __init__(self, path: Path, fs_type: str = "ext4", excluded: tuple[str, ...] = ()) -> None:
        self.path = path
        path.mkdir()
        fs_id, root_ino = fs_identity(os.fsencode(path))
        row = BranchRow(1, b"b" * 16, 1, b"d" * 16, "label", os.fsencode(path), fs_id, root_ino, 1, "done", None, None)
        paths = [os.fsencode(path / name) for name in excluded]
        self.branch = Branch(row, b"Place", [Mount(b"/", fs_type, "source", "1:1")], paths)
        self.table = DirTable()
        self.root = self.table.root(self.branch)
        self.ids = iter(range(2, 1_000_000))

    def mkdir(self, parent: DirRef, name: bytes) -> DirRef:
        """A new directory on disk and its DirRef; made by descriptor, so at any depth."""

        def make() -> int:
            with self.table.opened(parent) as fd:
                os.mkdir(name, dir_fd=fd)
                return os.stat(name, dir_fd=fd).st_ino

        made = in_thread(make) if self.branch.slow else make()
        return self.table.child(parent, next(self.ids), name, made)

    def chain(self, names: list[bytes]) -> DirRef:
        ref = self.root
        for name in names:
            ref = self.mkdir(ref, name)
        return ref

    def open_now(self) -> list[str]:
        """What this process holds open at or below the branch."""
        found = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            if target.startswith(str(self.path)):
                found.append(target)
        return found


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """A local branch; what the table opened it closes."""
    found = Disk(tmp_path / "disk")
    try:
        yield found
        found.table.close_all()
        assert found.open_now() == []
    finally:
        found.table.close_all()
        subprocess.run(["rm", "-rf", found.path], check=True)  # deeper than Python's own removal goes


@pytest.fixture
def slow_disk(tmp_path) -> Iterator[Disk]:
    """A branch whose calls may hang; nothing of it is ever kept open."""
    found = Disk(tmp_path / "slow", "fuse.sshfs")
    try:
        yield found
        assert found.open_now() == []
    finally:
        found.table.close_all()


def in_thread(call: Callable[[], T]) -> T:
    """Slow branches are asked in threads only."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def is_at(fd: int, ref: DirRef) -> bool:
    return os.fstat(fd).st_ino == ref.st_ino


# -- reaching ----------------------------------------------------------------------------------------------------------


def test_a_path_longer_than_any_path_may_be_is_reached(disk):
    """20 names of 255 bytes; also when nothing on the way is open."""
    leaf = disk.chain([b"%c" % (97 + i) * 255 for i in range(20)])
    assert sum(len(ref.name) + 1 for ref in leaf.chain()) > os.pathconf("/", "PC_PATH_MAX")
    for _ in range(2):
        assert is_at(disk.table.fd(leaf), leaf)
        disk.table.close_all()
    with disk.table.opened(leaf) as fd:
        assert is_at(fd, leaf)


def test_a_directory_thousands_of_levels_deep_is_reached(disk):
    """Nothing on the way is open, and nobody's stack is that high."""
    leaf = disk.chain([b"d"] * 3_000)
    disk.table.close_all()
    assert is_at(disk.table.fd(leaf), leaf)


def test_names_of_any_bytes_are_reached(disk):
    """Newlines, bytes that are no UTF-8, dashes and dots."""
    for name in (b"\xff\xfe", b"a\nb", b"-rf", b"...", b" ", b"\xc3\xa4" * 127):
        ref = disk.mkdir(disk.root, name)
        disk.table.close_all()
        assert is_at(disk.table.fd(ref), ref)


def test_a_rename_above_leads_no_call_astray(disk):
    """An open directory is the one that it was; a closed one is found again once the table is told."""
    leaf = disk.chain([b"a", b"b"])
    held = disk.table.fd(leaf)
    (disk.path / "a").rename(disk.path / "moved")
    assert disk.table.fd(leaf) == held
    assert is_at(held, leaf)
    disk.table.close_all()
    with pytest.raises(Stale):
        disk.table.fd(leaf)
    assert leaf.parent is not None
    disk.table.child(disk.root, leaf.parent.entry_id, b"moved", leaf.parent.st_ino)
    assert is_at(disk.table.fd(leaf), leaf)


def test_no_descriptor_is_inherited(disk):
    """A worker that kept one would keep the volume busy."""
    assert not os.get_inheritable(disk.table.fd(disk.mkdir(disk.root, b"a")))


def test_a_directory_that_may_not_be_listed_still_leads_on(disk):
    """Search permission is enough to go through, as everywhere else."""
    if os.geteuid() == 0:
        pytest.skip("root may list everything")
    inner = disk.chain([b"closed", b"inner"])
    disk.table.close_all()
    (disk.path / "closed").chmod(0o111)
    try:
        assert is_at(disk.table.fd(inner), inner)
    finally:
        (disk.path / "closed").chmod(0o755)


# -- what is not it any more -------------------------------------------------------------------------------------------


def gone(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))


def another_directory(place: Path) -> None:
    gone(place)
    (place / "b").mkdir(parents=True)


def a_file(place: Path) -> None:
    gone(place)
    place.touch()


def a_link_to_itself(place: Path) -> None:
    gone(place)
    place.symlink_to("elsewhere")


def a_link_out_of_the_branch(place: Path) -> None:
    gone(place)
    place.symlink_to("/")


@pytest.mark.parametrize("replace", [gone, another_directory, a_file, a_link_to_itself, a_link_out_of_the_branch])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("level", ["the directory", "one above it"])
def test_what_took_a_directory_s_place_is_not_entered(disk, slow_disk, replace, slow, level):
    """Another directory, a file, a symlink even to the same directory: Stale, and nothing stays open."""
    chosen = slow_disk if slow else disk
    a = chosen.mkdir(chosen.root, b"a")
    ref = a if level == "the directory" else chosen.mkdir(a, b"b")
    chosen.table.close_all()
    replace(chosen.path / "a")

    def enter() -> None:
        with chosen.table.opened(ref):
            pytest.fail("it was entered")

    with pytest.raises(Stale):
        in_thread(enter) if slow else enter()
    chosen.table.close_all()
    assert chosen.open_now() == []


def test_a_root_that_is_away_is_unreachable(disk):
    """The branch is away, not its directories gone: nobody deletes anything for it."""
    ref = disk.mkdir(disk.root, b"a")
    disk.table.close_all()
    disk.path.rename(disk.path.with_name("elsewhere"))
    try:
        with pytest.raises(Unreachable):
            disk.table.fd(ref)
    finally:
        disk.path.with_name("elsewhere").rename(disk.path)


# -- how many, how long ------------------------------------------------------------------------------------------------


def test_a_bounded_number_is_open(disk):
    """However many are used; the limit lies below that of a process."""
    refs = [disk.mkdir(disk.root, b"%d" % i) for i in range(CAPACITY + 40)]
    for ref in refs:
        assert is_at(disk.table.fd(ref), ref)
    assert len(disk.open_now()) == CAPACITY
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > CAPACITY


def test_the_least_recently_used_is_closed_first(disk):
    """What is used all the time stays open."""
    kept = disk.mkdir(disk.root, b"kept")
    held = disk.table.fd(kept)
    for i in range(2 * CAPACITY):
        disk.table.fd(disk.mkdir(disk.root, b"%d" % i))
        assert disk.table.fd(kept) == held
    names = {os.path.basename(path) for path in disk.open_now()}
    assert names == {"disk", "kept", *(str(i) for i in range(CAPACITY + 2, 2 * CAPACITY))}


@pytest.mark.parametrize("depth", [12, CAPACITY + 20])
def test_two_directories_are_open_at_once_however_deep_they_lie(disk, depth):
    """A rename needs both: the way to the second does not close the first, whose number would be another's then."""
    first, second = (disk.chain([b"%d-%d" % (side, i) for i in range(depth)]) for side in range(2))
    disk.table.close_all()
    for i in range(CAPACITY):
        disk.table.fd(disk.mkdir(disk.root, b"x%d" % i))
    with disk.table.opened(first) as first_fd, disk.table.opened(second) as second_fd:
        assert is_at(first_fd, first)
        assert is_at(second_fd, second)


def test_a_directory_in_use_stays_open(disk):
    """However many others are opened meanwhile; afterwards it is one of many."""
    refs = [disk.mkdir(disk.root, b"%d" % i) for i in range(CAPACITY + 10)]
    with disk.table.opened(refs[0]) as fd:
        for ref in refs[1:]:
            disk.table.fd(ref)
        assert is_at(fd, refs[0])
        assert len(disk.open_now()) == CAPACITY
    for ref in refs[1:]:
        disk.table.fd(ref)
    assert "0" not in {os.path.basename(path) for path in disk.open_now()}


def test_what_has_been_open_for_a_while_is_closed(disk):
    """No idle descriptor keeps a volume busy; what was opened a moment ago stays."""
    ref = disk.chain([b"a", b"b"])
    disk.table.fd(ref)
    disk.table.close_idle(time.monotonic())
    assert len(disk.open_now()) == 3
    disk.table.close_idle(time.monotonic() + IDLE_S + 1)
    assert disk.open_now() == []
    assert is_at(disk.table.fd(ref), ref)


def test_a_branch_is_let_go_of(disk, slow_disk):
    """All its directories, and no other's."""
    disk.table.fd(disk.mkdir(disk.root, b"a"))
    disk.table.close_branch(slow_disk.branch)
    assert len(disk.open_now()) == 2
    disk.table.close_branch(disk.branch)
    assert disk.open_now() == []


def test_a_slow_branch_keeps_nothing_open(slow_disk):
    """Each block owns its descriptor, in any thread; the table is not touched."""
    a = slow_disk.root
    (slow_disk.path / "a" / "b").mkdir(parents=True)
    for name in (b"a", b"b"):
        below = slow_disk.path / "a" if name == b"a" else slow_disk.path / "a" / "b"
        a = slow_disk.table.child(a, next(slow_disk.ids), name, below.stat().st_ino)
    failed: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(50):
                with slow_disk.table.opened(a) as fd:
                    assert is_at(fd, a)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert slow_disk.open_now() == []


def test_the_loop_may_not_ask_a_slow_branch(slow_disk):
    """It is refused at once: a wait there would be everybody's."""
    with pytest.raises(Unreachable), slow_disk.table.opened(slow_disk.root):
        pytest.fail("it was asked")
    with pytest.raises(Unreachable):
        slow_disk.table.fd(slow_disk.root)


def test_a_thread_does_not_use_the_table(disk):
    """Also for a fast branch: it opens what it needs, and leaves nothing open."""
    leaf = disk.chain([b"a", b"b"])
    disk.table.close_all()

    def use() -> None:
        with disk.table.opened(leaf) as fd:
            assert is_at(fd, leaf)
            assert len(disk.open_now()) == 1

    in_thread(use)
    assert disk.open_now() == []


# -- the table ---------------------------------------------------------------------------------------------------------


def test_a_directory_has_one_ref(disk):
    """Whoever asks gets the same one, brought up to date; nobody asks any more, and it is forgotten."""
    ref = disk.mkdir(disk.root, b"a")
    assert disk.table.known(ref.entry_id) is ref
    assert disk.table.child(disk.root, ref.entry_id, b"renamed", ref.st_ino) is ref
    assert ref.name == b"renamed"
    assert set(disk.table.of_branch(disk.branch)) == {disk.root, ref}
    entry_id = ref.entry_id
    disk.table.close_all()
    del ref
    assert disk.table.known(entry_id) is None
    assert disk.table.root(disk.branch) is disk.root


def test_another_inode_under_a_row_closes_what_was_open(disk):
    """The row now means the directory that took the place."""
    ref = disk.mkdir(disk.root, b"a")
    disk.table.fd(ref)
    another_directory(disk.path / "a")
    disk.table.child(disk.root, ref.entry_id, b"a", (disk.path / "a").stat().st_ino)
    fd = disk.table.fd(ref)
    assert os.listdir(fd) == ["b"]


def test_a_tree_that_changes_branches_belongs_there_wholly(disk, slow_disk):
    """And what lies beside it does not."""
    leaf = disk.chain([b"a", b"b"])
    beside = disk.mkdir(disk.root, b"beside")
    assert leaf.parent is not None
    leaf.parent.parent = slow_disk.root
    disk.table.settle_below(leaf.parent.entry_id)
    assert leaf.branch is leaf.parent.branch is slow_disk.branch
    assert beside.branch is disk.root.branch is disk.branch


def test_excluded_names_are_known_on_the_way_down(tmp_path):
    """Only at their own place, and at no other of the same name."""
    disk = Disk(tmp_path / "disk", excluded=("home/u/mnt", "data"))
    try:
        assert disk.root.hides(b"data")
        assert not disk.root.hides(b"home")
        home = disk.mkdir(disk.root, b"home")
        user = disk.mkdir(home, b"u")
        assert user.hides(b"mnt")
        assert not user.hides(b"data")
        assert not disk.mkdir(user, b"x").hides(b"mnt")
        assert not disk.mkdir(home, b"mnt").hides(b"mnt")
    finally:
        disk.table.close_all()


def test_the_limits_are_what_the_documents_say():
    """A few hundred directories, a few seconds."""
    assert (dirs.CAPACITY, dirs.IDLE_S) == (256, 3.0)


def test_what_is_lent_is_not_closed_by_a_change_of_mounts(disk):
    """Two directories are in use at once: what is asked before the second one must not take the first away."""
    a, b = disk.mkdir(disk.root, b"a"), disk.mkdir(disk.root, b"b")
    disk.table.before_reach = lambda: disk.table.settle(disk.branch)
    with disk.table.opened(a) as first, disk.table.opened(b) as second:
        assert os.fstat(first).st_ino == a.st_ino
        assert os.fstat(second).st_ino == b.st_ino
        assert first != second
