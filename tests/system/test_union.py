"""Several directories under one name: what is shown, where a change lands, and that nothing is hidden or lost."""

import ctypes
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.posix.syscalls import renameat2
from tests.system.harness import Mounted, errno_of, eventually, names, tree

ENOENT, EXDEV, EEXIST, ENOTEMPTY, EROFS, EBUSY = 2, 18, 17, 39, 30, 16
RENAME_EXCHANGE = 2
SECOND_NS = 1_000_000_000


class Pair(NamedTuple):
    """A location of two directories: how it is shown, and both as they lie on the disk."""

    mnt: Path
    a: Path
    b: Path
    library: Mounted

    def settle(self) -> None:
        self.library.wait_idle()


@pytest.fixture
def pair(shared: Mounted, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two empty directories `a` and `b`, merged; `a` was added first."""
    name = request.node.name[:80].replace("/", "-")
    a, b = shared.folder("a", name), shared.folder("b", name)
    shared.add(a)
    mnt = shared.add(b, name)
    yield Pair(mnt, a, b, shared)
    shared.sd("location", "remove", name)


def put(content: bytes, *paths: Path, mtime_s: int | None = None) -> None:
    """Files made behind the mount, one content for all, in the order of their times."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if mtime_s is not None:
            os.utime(path, ns=(mtime_s * SECOND_NS, mtime_s * SECOND_NS))


def listing(directory: Path) -> list[str]:
    """The names, each once."""
    found = os.listdir(directory)
    assert len(found) == len(set(found)), f"a name is listed twice: {sorted(found)}"
    return sorted(found)


def attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        assert error.errno == 61, error  # ENODATA
        return None


def allpaths(path: Path) -> list[str]:
    value = attribute(path, "user.vdfs.allpaths")
    return [] if value is None else [os.fsdecode(part) for part in value.split(b"\0")]


def uuid(path: Path) -> bytes | None:
    return attribute(path, "user.vdfs.id")


# -- what is shown


def test_a_listing_merges_both(pair):
    """Every name of both once, at every depth, for readdir, lookup and walk alike."""
    put(b"1", pair.a / "one", pair.a / "both" / "x", pair.a / "both" / "deep" / "left")
    put(b"2", pair.b / "two", pair.b / "both" / "y", pair.b / "both" / "deep" / "right")
    assert listing(pair.mnt) == ["both", "one", "two"]
    assert listing(pair.mnt / "both") == ["deep", "x", "y"]
    assert listing(pair.mnt / "both" / "deep") == ["left", "right"]
    assert (pair.mnt / "both" / "deep" / "right").read_bytes() == b"2"
    assert sorted(tree(pair.mnt)) == [
        "both", "both/deep", "both/deep/left", "both/deep/right", "both/x", "both/y", "one", "two"
    ]  # fmt: skip
    assert os.stat(pair.mnt / "both").st_nlink == 1


def test_the_same_content_is_one_entry(pair):
    """Two replicas, one name, one inode number; allpaths has both, the shown one first."""
    put(b"same", pair.a / "f", pair.b / "f")
    pair.settle()
    assert listing(pair.mnt) == ["f"]
    assert sorted(allpaths(pair.mnt / "f")) == sorted([str(pair.a / "f"), str(pair.b / "f")])
    assert attribute(pair.mnt / "f", "user.vdfs.conflict") is None
    assert os.stat(pair.mnt / "f").st_nlink == 1
    info = pair.library.sd_json("info", pair.mnt / "f")
    assert sorted(replica["path"] for replica in info["replicas"]) == sorted([str(pair.a / "f"), str(pair.b / "f")])


def test_empty_files_are_the_same(pair):
    """No bytes are no difference."""
    put(b"", pair.a / "f", pair.b / "f")
    assert listing(pair.mnt) == ["f"]
    assert len(allpaths(pair.mnt / "f")) == 2


def conflict_of(pair: Pair, name: str) -> tuple[str, ...]:
    """The names that the listing shows for one name on the disk, the plain one first."""
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    tail = f"{dot}{extension}"
    return (name, *[n for n in listing(pair.mnt) if n.startswith(f"{stem} (from ") and n.endswith(f"){tail}")])


def test_a_conflict_shows_both_contents(pair):
    """The newest has the plain name, the other is `stem (from device, branch).ext`; both can be read."""
    put(b"old content", pair.a / "report.txt", mtime_s=1_000_000_000)
    put(b"new", pair.b / "report.txt", mtime_s=1_500_000_000)
    plain, *others = conflict_of(pair, "report.txt")
    assert len(others) == 1, listing(pair.mnt)
    assert listing(pair.mnt) == sorted([plain, *others])
    assert (pair.mnt / plain).read_bytes() == b"new"
    assert (pair.mnt / others[0]).read_bytes() == b"old content"
    slug = json.loads((pair.library.data / "device.json").read_text())["slug"]
    assert f"(from {slug}" in others[0]
    assert os.stat(pair.mnt / plain).st_ino != os.stat(pair.mnt / others[0]).st_ino
    assert os.stat(pair.mnt / others[0]).st_mtime == 1_000_000_000
    assert attribute(pair.mnt / plain, "user.vdfs.conflict") == os.fsencode(others[0])
    assert attribute(pair.mnt / others[0], "user.vdfs.conflict") == b"report.txt"


def test_a_conflict_of_equal_size_shows_when_both_are_hashed(pair):
    """Undecided is one name; different hashes are two; the view of conflicts has both."""
    put(b"aaaa", pair.a / "f.txt", mtime_s=1_000_000_000)
    put(b"bbbb", pair.b / "f.txt", mtime_s=1_500_000_000)
    assert (pair.mnt / "f.txt").read_bytes() == b"bbbb"
    pair.settle()
    eventually(lambda: len(conflict_of(pair, "f.txt")) == 2, "two names")
    plain, *others = conflict_of(pair, "f.txt")
    assert (pair.mnt / plain).read_bytes() == b"bbbb"
    assert (pair.mnt / others[0]).read_bytes() == b"aaaa"
    links = names(pair.library.mnt / ".vdfs" / "conflicts")
    contents = {(pair.library.mnt / ".vdfs" / "conflicts" / link).read_bytes() for link in links}
    assert {b"aaaa", b"bbbb"} <= contents


@pytest.mark.parametrize("other", ["b", "b (from c)"])
def test_names_of_a_conflict_are_stable(library, other):
    """The same names and inode numbers whoever looks first, after a remount, and after a kill."""
    a, b = library.folder("a", "Docs"), library.folder(other, "Docs")
    for number in range(5):
        put(b"%d" % number, a / f"f{number}.txt", mtime_s=1_000_000_000 + number)
        put(b"other %d" % number, b / f"f{number}.txt", mtime_s=1_000_000_002)
    library.mount(a)
    library.sd("location", "add", b, "--name", "Docs")
    shown = library.mnt / "Docs"
    library.wait_idle()
    before = {name: (os.stat(shown / name).st_ino, (shown / name).read_bytes()) for name in listing(shown)}
    assert len(before) == 10
    for end in (library.unmount, library.kill):
        end()
        library.mount()
        # by name first, before anything was listed
        for name in reversed(before):
            assert ((shown / name).stat().st_ino, (shown / name).read_bytes()) == before[name]
        assert listing(shown) == sorted(before)


@pytest.mark.parametrize(
    "name", ["noext", ".dotfile", "a.tar.gz", "l" * 255, "é" * 127, "x" * 250 + ".txt", "e." + "x" * 250]
)
def test_names_of_a_conflict_fit_any_name(pair, name):
    """At most 255 bytes, cut between characters, the extension kept where there is room."""
    put(b"old", pair.a / name, mtime_s=1_000_000_000)
    put(b"newer", pair.b / name, mtime_s=1_500_000_000)
    found = listing(pair.mnt)
    assert len(found) == 2
    assert name in found
    (other,) = set(found) - {name}
    assert len(other.encode()) <= 255
    other.encode().decode()
    assert (pair.mnt / name).read_bytes() == b"newer"
    assert (pair.mnt / other).read_bytes() == b"old"


def test_a_name_of_a_conflict_never_covers_a_real_file(pair):
    """If somebody's file has that very name, the loser takes another, and all three are read."""
    put(b"old", pair.a / "f.txt", mtime_s=1_000_000_000)
    put(b"newer", pair.b / "f.txt", mtime_s=1_500_000_000)
    _, other = conflict_of(pair, "f.txt")
    put(b"really called so", pair.b / other)
    eventually(lambda: len(listing(pair.mnt)) == 3, "three names")
    assert (pair.mnt / other).read_bytes() == b"really called so"
    contents = sorted((pair.mnt / name).read_bytes() for name in listing(pair.mnt))
    assert contents == [b"newer", b"old", b"really called so"]


def test_a_directory_beats_a_file(pair):
    """The directory has the plain name; the file is shown beside it."""
    put(b"file", pair.b / "x", mtime_s=2_000_000_000)
    put(b"inside", pair.a / "x" / "f")
    found = listing(pair.mnt)
    assert len(found) == 2
    assert (pair.mnt / "x").is_dir()
    assert (pair.mnt / "x" / "f").read_bytes() == b"inside"
    (other,) = set(found) - {"x"}
    assert (pair.mnt / other).read_bytes() == b"file"


def test_symlinks_and_files_of_one_name(pair):
    """Different kinds are different contents: both are shown."""
    (pair.a / "x").symlink_to("nowhere")
    put(b"file", pair.b / "x", mtime_s=2_000_000_000)
    found = listing(pair.mnt)
    assert len(found) == 2
    kinds = sorted(stat.S_IFMT(os.lstat(pair.mnt / name).st_mode) for name in found)
    assert kinds == [stat.S_IFREG, stat.S_IFLNK]


def test_symlinks_to_different_places_conflict(pair):
    """Also where their targets are of one length; links to the same place are one."""
    for name, target in (("same", "x"), ("other", "one")):
        (pair.a / name).symlink_to(target)
        (pair.b / name).symlink_to(target.replace("one", "two"))
    found = listing(pair.mnt)
    assert [name for name in found if name.startswith("same")] == ["same"]
    others = [name for name in found if name.startswith("other")]
    assert sorted(os.readlink(pair.mnt / name) for name in others) == ["one", "two"]


# -- where a change lands


def test_a_new_file_goes_to_the_branch_that_holds_the_parent(pair):
    """A directory that only `b` has: its new files, directories, links and fifos are made there."""
    (pair.b / "only b").mkdir()
    shown = pair.mnt / "only b"
    (shown / "f").write_bytes(b"x")
    (shown / "d").mkdir()
    (shown / "l").symlink_to("f")
    os.mkfifo(shown / "p")
    os.link(shown / "f", shown / "h")
    assert names(pair.b / "only b") == ["d", "f", "h", "l", "p"]
    assert not (pair.a / "only b").exists()
    assert os.stat(pair.b / "only b" / "f").st_ino == os.stat(pair.b / "only b" / "h").st_ino


def test_a_name_that_exists_on_the_other_branch_exists(pair):
    """O_EXCL, mkdir, symlink and link see what lies on `b` although a new file would go to `a`."""
    put(b"b", pair.b / "f")
    put(b"l", pair.a / "l")
    with pytest.raises(FileExistsError):
        os.open(pair.mnt / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert errno_of(os.mkdir, pair.mnt / "f") == EEXIST
    assert errno_of(os.symlink, "x", pair.mnt / "f") == EEXIST
    assert errno_of(os.link, pair.mnt / "l", pair.mnt / "f") == EEXIST
    assert errno_of(os.mkfifo, pair.mnt / "f") == EEXIST
    assert not (pair.a / "f").exists()
    with open(pair.mnt / "f", "ab") as file:
        file.write(b"+")
    assert (pair.b / "f").read_bytes() == b"b+"
    assert not (pair.a / "f").exists()


def test_mfs_creates_where_there_is_most_room(library, root_only):
    """`-o create=mfs`: the branch with the most free space that holds the parent."""
    small, large = library.folder("small"), library.folder("large")
    for directory, size in ((small, "2m"), (large, "8m")):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)], check=True)
    try:
        for directory in (small, large):
            (directory / "Docs" / "both").mkdir(parents=True)
        library.mount(small / "Docs", options=("-o", "create=mfs"))
        library.sd("location", "add", large / "Docs", "--name", "Docs")
        shown = library.mnt / "Docs"
        (shown / "f").write_bytes(b"x")
        (shown / "both" / "g").write_bytes(b"x")
        assert (large / "Docs" / "f").exists()
        assert (large / "Docs" / "both" / "g").exists()
        library.unmount()
    finally:
        for directory in (small, large):
            subprocess.run(["umount", "-l", str(directory)], check=True)


def test_delete_acts_on_all_replicas(pair):
    """One unlink, both files gone, nothing reappears."""
    put(b"same", pair.a / "f", pair.b / "f")
    pair.settle()
    (pair.mnt / "f").unlink()
    assert not (pair.a / "f").exists()
    assert not (pair.b / "f").exists()
    assert listing(pair.mnt) == []
    pair.library.sd("location", "rescan", pair.mnt.name)
    pair.settle()
    assert listing(pair.mnt) == []


def test_attributes_act_on_all_replicas(pair):
    """chmod and utimes; and chown for root."""
    put(b"same", pair.a / "f", pair.b / "f")
    pair.settle()
    os.chmod(pair.mnt / "f", 0o640)
    os.utime(pair.mnt / "f", ns=(1_234_567_890_123_456_789, 1_111_111_111_222_222_222))
    for path in (pair.mnt / "f", pair.a / "f", pair.b / "f"):
        st = os.stat(path)
        assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o640, 1_111_111_111_222_222_222), path
    if os.geteuid() == 0:
        os.chown(pair.mnt / "f", 1234, 4321)
        for path in (pair.mnt / "f", pair.a / "f", pair.b / "f"):
            assert (os.stat(path).st_uid, os.stat(path).st_gid) == (1234, 4321)
    pair.settle()
    assert listing(pair.mnt) == ["f"]


def test_attributes_of_a_merged_directory_act_on_both(pair):
    """Mode on both; the mtime shown is the newest."""
    for side in (pair.a, pair.b):
        (side / "d").mkdir()
    os.chmod(pair.mnt / "d", 0o750)
    assert stat.S_IMODE(os.stat(pair.a / "d").st_mode) == 0o750
    assert stat.S_IMODE(os.stat(pair.b / "d").st_mode) == 0o750
    put(b"x", pair.b / "d" / "new")
    os.utime(pair.b / "d", ns=(0, 2_000_000_000 * SECOND_NS))
    eventually(lambda: os.stat(pair.mnt / "d").st_mtime == 2_000_000_000, "the newest mtime")


def test_none_is_changed_when_one_would_refuse(library, root_only):
    """Delete, chmod, rename of a name with a replica on a read-only volume: EROFS, and nothing was done."""
    a, b = library.folder("a", "Docs"), library.folder("b", "Docs")
    put(b"same", a / "f", b / "f")
    put(b"same", a / "d" / "f", b / "d" / "f")
    subprocess.run(["mount", "--bind", str(b), str(b)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(b)], check=True)
    try:
        library.mount(a)
        library.sd("location", "add", b, "--name", "Docs")
        library.wait_idle()
        shown = library.mnt / "Docs"
        before = tree(a)
        mode = os.stat(a / "f").st_mode
        assert errno_of(os.unlink, shown / "f") == EROFS
        assert errno_of(os.chmod, shown / "f", 0o600) == EROFS
        assert errno_of(os.utime, shown / "f", (0, 0)) == EROFS
        assert errno_of(os.rename, shown / "f", shown / "g") == EROFS
        assert errno_of(os.rename, shown / "d", shown / "e") == EROFS
        assert tree(a) == before
        assert os.stat(a / "f").st_mode == mode
        assert listing(shown) == ["d", "f"]
        assert sorted(allpaths(shown / "f")) == [str(a / "f"), str(b / "f")]
        library.verify()
        library.unmount()
    finally:
        subprocess.run(["umount", "-l", str(b)], check=True)


def test_a_write_makes_the_other_replica_stale(library):
    """The shown one gets the bytes; the other keeps the old ones and is not listed any more, also after a remount."""
    a, b = library.folder("a", "Docs"), library.folder("b", "Docs")
    put(b"same content", a / "f", b / "f", mtime_s=1_000_000_000)
    library.mount(a)
    library.sd("location", "add", b, "--name", "Docs")
    library.wait_idle()
    shown = library.mnt / "Docs"
    (first, second) = allpaths(shown / "f")
    with open(shown / "f", "r+b") as file:
        file.write(b"SAME")
    assert Path(first).read_bytes() == b"SAME content"
    assert Path(second).read_bytes() == b"same content", "not written by us"

    def fine() -> None:
        assert listing(shown) == ["f"]
        assert (shown / "f").read_bytes() == b"SAME content"
        assert set(allpaths(shown / "f")) == {first, second}
        assert attribute(shown / "f", "user.vdfs.conflict") is None
        assert names(library.mnt / ".vdfs" / "conflicts") == []

    fine()
    library.wait_idle()
    fine()
    library.remount()
    fine()
    library.wait_idle()
    library.kill()
    library.mount()
    library.wait_idle()
    fine()
    (shown / "f").unlink()
    assert not Path(first).exists()
    assert not Path(second).exists(), "a deletion takes the stale replica, too"


@pytest.mark.parametrize("how", ["truncate", "O_TRUNC", "append", "mmap"])
def test_every_way_to_write_makes_the_other_stale(pair, how):
    """Not only write(): the size, O_TRUNC, appending, a shared mapping."""
    put(b"same content", pair.a / "f", pair.b / "f", mtime_s=1_000_000_000)
    pair.settle()
    first, second = allpaths(pair.mnt / "f")
    path = pair.mnt / "f"
    if how == "truncate":
        os.truncate(path, 4)
    elif how == "O_TRUNC":
        path.write_bytes(b"new")
    elif how == "append":
        with open(path, "ab") as file:
            file.write(b"+")
    else:
        import mmap

        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
            view[:4] = b"SAME"
            view.flush()
    expected = {"truncate": b"same", "O_TRUNC": b"new", "append": b"same content+", "mmap": b"SAME content"}[how]
    assert path.read_bytes() == expected
    pair.settle()
    assert listing(pair.mnt) == ["f"]
    assert path.read_bytes() == expected
    assert Path(first).read_bytes() == expected
    assert Path(second).read_bytes() == b"same content"


def test_an_edit_behind_the_mount_of_one_replica(pair):
    """It is a new version of that replica: the other is older, and the new bytes are shown under the plain name."""
    put(b"same content", pair.a / "f", pair.b / "f", mtime_s=1_000_000_000)
    pair.settle()
    assert len(allpaths(pair.mnt / "f")) == 2
    (pair.b / "f").write_bytes(b"edited behind the mount")
    eventually(lambda: (pair.mnt / "f").read_bytes() == b"edited behind the mount", "the newer version is shown")
    pair.settle()
    assert (pair.mnt / "f").read_bytes() == b"edited behind the mount"
    assert listing(pair.mnt) == ["f"], "a dominated version is stale, not a conflict"


def test_edits_of_both_replicas_behind_the_mount_are_a_conflict(library):
    """Neither knew of the other: both are shown."""
    a, b = library.folder("a", "Docs"), library.folder("b", "Docs")
    put(b"same content", a / "f", b / "f", mtime_s=1_000_000_000)
    library.mount(a)
    library.sd("location", "add", b, "--name", "Docs")
    library.wait_idle()
    library.unmount()
    (a / "f").write_bytes(b"edited in a")
    (b / "f").write_bytes(b"edited over there in b")
    library.mount()
    library.wait_idle()
    shown = library.mnt / "Docs"
    assert sorted((shown / name).read_bytes() for name in listing(shown)) == [
        b"edited in a", b"edited over there in b"
    ]  # fmt: skip


def test_a_delete_behind_the_mount_takes_that_replica_only(pair):
    """The other is still there, under the same name, with the same number and tags."""
    put(b"same", pair.a / "f", pair.b / "f")
    pair.settle()
    os.setxattr(pair.mnt / "f", "user.xdg.tags", b"kept")
    identity = (os.stat(pair.mnt / "f").st_ino, uuid(pair.mnt / "f"))
    first, second = allpaths(pair.mnt / "f")
    Path(first).unlink()
    eventually(lambda: allpaths(pair.mnt / "f") == [second], "one replica is left")
    assert (pair.mnt / "f").read_bytes() == b"same"
    assert (os.stat(pair.mnt / "f").st_ino, uuid(pair.mnt / "f")) == identity
    assert attribute(pair.mnt / "f", "user.xdg.tags") == b"kept"


# -- conflicts that are worked on


def make_conflict(pair: Pair) -> tuple[Path, Path]:
    """(winner, loser) as shown; the winner lies on `b`."""
    put(b"loser", pair.a / "f.txt", mtime_s=1_000_000_000)
    put(b"the winner", pair.b / "f.txt", mtime_s=1_500_000_000)
    plain, other = conflict_of(pair, "f.txt")
    return pair.mnt / plain, pair.mnt / other


def test_deleting_the_winner_leaves_the_loser(pair):
    """Which then has the plain name."""
    winner, loser = make_conflict(pair)
    winner.unlink()
    assert not (pair.b / "f.txt").exists()
    assert (pair.a / "f.txt").read_bytes() == b"loser"
    assert listing(pair.mnt) == ["f.txt"]
    assert (pair.mnt / "f.txt").read_bytes() == b"loser"
    assert errno_of(os.stat, loser) == ENOENT


def test_deleting_the_loser_leaves_the_winner(pair):
    winner, loser = make_conflict(pair)
    loser.unlink()
    assert not (pair.a / "f.txt").exists()
    assert listing(pair.mnt) == ["f.txt"]
    assert winner.read_bytes() == b"the winner"


def test_writing_to_the_loser_writes_that_file(pair):
    """Through its name of conflict; the winner is not touched by it."""
    _, loser = make_conflict(pair)
    with open(loser, "ab") as file:
        file.write(b" no more")
    assert (pair.a / "f.txt").read_bytes() == b"loser no more"
    assert (pair.b / "f.txt").read_bytes() == b"the winner"
    contents = sorted((pair.mnt / name).read_bytes() for name in listing(pair.mnt))
    assert contents == [b"loser no more", b"the winner"]


def test_renaming_the_loser_ends_the_conflict(pair):
    """It has a name of its own then, on its own branch."""
    winner, loser = make_conflict(pair)
    os.rename(loser, pair.mnt / "mine.txt")
    assert listing(pair.mnt) == ["f.txt", "mine.txt"]
    assert (pair.a / "mine.txt").read_bytes() == b"loser"
    assert not (pair.a / "f.txt").exists()
    assert winner.read_bytes() == b"the winner"
    assert attribute(winner, "user.vdfs.conflict") is None


def test_renaming_the_winner_leaves_the_loser_with_the_plain_name(pair):
    winner, _ = make_conflict(pair)
    os.rename(winner, pair.mnt / "g.txt")
    assert listing(pair.mnt) == ["f.txt", "g.txt"]
    assert (pair.mnt / "g.txt").read_bytes() == b"the winner"
    assert (pair.mnt / "f.txt").read_bytes() == b"loser"


def test_making_both_equal_ends_the_conflict(pair):
    """The same bytes in both: one name again."""
    _, loser = make_conflict(pair)
    loser.write_bytes(b"the winner")
    pair.settle()
    eventually(lambda: listing(pair.mnt) == ["f.txt"], "one name")
    assert (pair.mnt / "f.txt").read_bytes() == b"the winner"


# -- moving


def test_a_rename_keeps_each_replica_on_its_branch(pair):
    """Into a directory that only `a` has: its counterpart is made on `b`."""
    put(b"same", pair.a / "f", pair.b / "f")
    (pair.a / "to" / "here").mkdir(parents=True)
    pair.settle()
    identity = (os.stat(pair.mnt / "f").st_ino, uuid(pair.mnt / "f"))
    os.rename(pair.mnt / "f", pair.mnt / "to" / "here" / "g")
    assert (pair.a / "to" / "here" / "g").read_bytes() == b"same"
    assert (pair.b / "to" / "here" / "g").read_bytes() == b"same"
    assert not (pair.a / "f").exists()
    assert not (pair.b / "f").exists()
    shown = pair.mnt / "to" / "here" / "g"
    assert (os.stat(shown).st_ino, uuid(shown)) == identity
    assert len(allpaths(shown)) == 2
    assert listing(pair.mnt) == ["to"]
    pair.settle()
    assert tree(pair.mnt) == {"to": ("dir",), "to/here": ("dir",), "to/here/g": ("file", b"same")}


def test_a_file_of_b_moves_within_b(pair):
    """Never EXDEV inside a location, and no byte is copied."""
    put(b"x", pair.b / "f")
    (pair.a / "to").mkdir()
    ino = os.stat(pair.b / "f").st_ino
    os.rename(pair.mnt / "f", pair.mnt / "to" / "f")
    assert os.stat(pair.b / "to" / "f").st_ino == ino
    assert not (pair.a / "to" / "f").exists()
    assert (pair.mnt / "to" / "f").read_bytes() == b"x"


def test_a_merged_directory_moves_as_one(pair):
    """What each branch has of it goes along; inode numbers and tags inside stay."""
    put(b"left", pair.a / "d" / "deep" / "left")
    put(b"right", pair.b / "d" / "deep" / "right")
    os.setxattr(pair.mnt / "d" / "deep" / "right", "user.xdg.tags", b"t")
    before = {n: os.lstat(pair.mnt / "d" / n).st_ino for n in tree(pair.mnt / "d")}
    (pair.a / "new").mkdir()
    os.rename(pair.mnt / "d", pair.mnt / "new" / "e")
    assert (pair.a / "new" / "e" / "deep" / "left").read_bytes() == b"left"
    assert (pair.b / "new" / "e" / "deep" / "right").read_bytes() == b"right"
    assert listing(pair.mnt) == ["new"]
    shown = pair.mnt / "new" / "e"
    assert {n: os.lstat(shown / n).st_ino for n in tree(shown)} == before
    assert attribute(shown / "deep" / "right", "user.xdg.tags") == b"t"
    assert errno_of(os.stat, pair.mnt / "d") == ENOENT


@pytest.mark.parametrize(
    ("source", "target"),
    [("a", "a"), ("a", "b"), ("b", "a"), ("a", "ab"), ("b", "ab"), ("ab", "a"), ("ab", "b"), ("ab", "ab")],
)
def test_rename_over_shows_the_source_alone(pair, source, target):
    """Wherever source and target lie: one name, the source's bytes, the target's tags, no ghost of the old bytes."""
    for side, root in (("a", pair.a), ("b", pair.b)):
        if side in source:
            put(b"the new bytes", root / "src", mtime_s=1_000_000_000)
        if side in target:
            put(b"old", root / "dst", mtime_s=1_500_000_000)
    pair.settle()
    os.setxattr(pair.mnt / "dst", "user.xdg.tags", b"kept")
    identity = uuid(pair.mnt / "dst")
    number = os.stat(pair.mnt / "src").st_ino
    os.rename(pair.mnt / "src", pair.mnt / "dst")

    def fine() -> None:
        assert listing(pair.mnt) == ["dst"]
        assert (pair.mnt / "dst").read_bytes() == b"the new bytes"
        assert os.stat(pair.mnt / "dst").st_ino == number
        assert uuid(pair.mnt / "dst") == identity
        assert attribute(pair.mnt / "dst", "user.xdg.tags") == b"kept"
        assert errno_of(os.stat, pair.mnt / "src") == ENOENT

    fine()
    pair.library.sd("location", "rescan", pair.mnt.name)
    pair.settle()
    fine()


@pytest.mark.parametrize("sides", ["ab", "aa", "ba"])
def test_exchange_swaps_names(pair, sides):
    """RENAME_EXCHANGE: each name has the other's bytes, number and tags, on the same branch or not."""
    roots = {"a": pair.a, "b": pair.b}
    put(b"this is x", roots[sides[0]] / "x")
    put(b"and y", roots[sides[1]] / "y")
    pair.settle()
    os.setxattr(pair.mnt / "x", "user.xdg.tags", b"tag of x")
    before = {name: (os.stat(pair.mnt / name).st_ino, uuid(pair.mnt / name)) for name in "xy"}
    exchange(pair.mnt / "x", pair.mnt / "y")
    assert listing(pair.mnt) == ["x", "y"]
    assert (pair.mnt / "x").read_bytes() == b"and y"
    assert (pair.mnt / "y").read_bytes() == b"this is x"
    assert attribute(pair.mnt / "y", "user.xdg.tags") == b"tag of x"
    assert attribute(pair.mnt / "x", "user.xdg.tags") is None
    assert {name: (os.stat(pair.mnt / name).st_ino, uuid(pair.mnt / name)) for name in "xy"} == {
        "x": before["y"], "y": before["x"],
    }  # fmt: skip
    pair.settle()
    assert listing(pair.mnt) == ["x", "y"]


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def test_a_directory_over_an_empty_one_on_the_other_branch(pair):
    """rename(2) of directories: the empty one goes, wherever it lies."""
    put(b"x", pair.a / "d" / "f")
    (pair.b / "e").mkdir()
    os.rename(pair.mnt / "d", pair.mnt / "e")
    assert tree(pair.mnt) == {"e": ("dir",), "e/f": ("file", b"x")}
    put(b"y", pair.b / "full" / "g")
    eventually(lambda: (pair.mnt / "full" / "g").exists(), "it shows")
    assert errno_of(os.rename, pair.mnt / "e", pair.mnt / "full") == ENOTEMPTY
    assert (pair.mnt / "e" / "f").read_bytes() == b"x"


def test_rmdir_asks_all_branches(pair):
    """Not empty on one of them: ENOTEMPTY and nothing happens; empty on both: both go."""
    (pair.a / "d").mkdir()
    put(b"x", pair.b / "d" / "f")
    assert errno_of(os.rmdir, pair.mnt / "d") == ENOTEMPTY
    assert (pair.a / "d").is_dir()
    (pair.mnt / "d" / "f").unlink()
    os.rmdir(pair.mnt / "d")
    assert not (pair.a / "d").exists()
    assert not (pair.b / "d").exists()
    assert listing(pair.mnt) == []


def test_a_symlink_renamed_over_a_file_hides_its_older_versions(pair):
    """What replaces a name has seen all that was there: a stale replica on the other branch stays hidden."""
    put(b"old", pair.a / "f", pair.b / "f", mtime_s=1_000_000_000)
    pair.settle()
    (pair.mnt / "f").write_bytes(b"newer")
    (pair.mnt / "l").symlink_to("nowhere")
    os.rename(pair.mnt / "l", pair.mnt / "f")
    assert listing(pair.mnt) == ["f"]
    assert os.readlink(pair.mnt / "f") == "nowhere"
    assert listing(pair.mnt) == ["f"]


def test_rmdir_of_a_directory_with_only_a_stale_file(pair):
    """What is not listed still counts: `rm -r` gets rid of it, rmdir alone destroys nothing unseen."""
    put(b"same content", pair.a / "d" / "f", pair.b / "d" / "f", mtime_s=1_000_000_000)
    pair.settle()
    first, second = allpaths(pair.mnt / "d" / "f")
    (pair.mnt / "d" / "f").write_bytes(b"newer")
    pair.settle()
    Path(first).unlink()  # behind the mount: the newer version is gone, the older one is what is left
    eventually(lambda: listing(pair.mnt / "d") == ["f"], "the older version is shown")
    assert (pair.mnt / "d" / "f").read_bytes() == b"same content"
    assert errno_of(os.rmdir, pair.mnt / "d") == ENOTEMPTY
    shutil.rmtree(pair.mnt / "d")
    assert not Path(second).exists()
    assert listing(pair.mnt) == []


def test_a_hard_link_stays_on_its_branch(pair):
    """Into a directory that only the other branch has: the counterpart is made, no EXDEV inside a location."""
    put(b"x", pair.b / "f")
    (pair.a / "d").mkdir()
    os.link(pair.mnt / "f", pair.mnt / "d" / "g")
    assert os.stat(pair.b / "f").st_ino == os.stat(pair.b / "d" / "g").st_ino
    assert os.stat(pair.mnt / "f").st_ino == os.stat(pair.mnt / "d" / "g").st_ino
    assert os.stat(pair.mnt / "f").st_nlink == 2
    with open(pair.mnt / "d" / "g", "ab") as file:
        file.write(b"+")
    assert (pair.mnt / "f").read_bytes() == b"x+"
    assert os.stat(pair.mnt / "f").st_size == 2


# -- between locations


def test_a_move_between_locations_of_one_volume_is_a_rename(library):
    """No copy: the real inode stays, and with it uuid and tags."""
    one, two = library.folder("One"), library.folder("Two")
    put(b"x" * 100_000, one / "f")
    put(b"y", one / "d" / "deep" / "g")
    library.mount(one, two)
    library.wait_idle()
    os.setxattr(library.mnt / "One" / "f", "user.xdg.tags", b"t")
    identity = (uuid(library.mnt / "One" / "f"), os.stat(library.mnt / "One" / "f").st_ino)
    real = os.stat(one / "f").st_ino
    os.rename(library.mnt / "One" / "f", library.mnt / "Two" / "f")
    os.rename(library.mnt / "One" / "d", library.mnt / "Two" / "d")
    assert os.stat(two / "f").st_ino == real
    assert (uuid(library.mnt / "Two" / "f"), os.stat(library.mnt / "Two" / "f").st_ino) == identity
    assert attribute(library.mnt / "Two" / "f", "user.xdg.tags") == b"t"
    assert names(library.mnt / "One") == []
    assert (library.mnt / "Two" / "d" / "deep" / "g").read_bytes() == b"y"
    assert sorted(tree(two)) == ["d", "d/deep", "d/deep/g", "f"]
    library.wait_idle()
    library.verify("--content")
    library.remount()
    assert attribute(library.mnt / "Two" / "f", "user.xdg.tags") == b"t"


def test_a_move_between_volumes_is_exdev_and_mv_copies(library, root_only):
    """As between any two file systems; mv then copies with mode, times and attributes."""
    one, two = library.folder("One"), library.folder("Two")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(two)], check=True)
    try:
        put(b"content", one / "f", mtime_s=1_000_000_000)
        library.mount(one, two)
        library.wait_idle()
        os.chmod(library.mnt / "One" / "f", 0o640)
        os.setxattr(library.mnt / "One" / "f", "user.xdg.tags", b"t")
        assert errno_of(os.rename, library.mnt / "One" / "f", library.mnt / "Two" / "f") == EXDEV
        assert errno_of(os.link, library.mnt / "One" / "f", library.mnt / "Two" / "g") == EXDEV
        assert (one / "f").read_bytes() == b"content"
        done = subprocess.run(
            ["mv", str(library.mnt / "One" / "f"), str(library.mnt / "Two" / "f")], capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        st = os.stat(library.mnt / "Two" / "f")
        assert (stat.S_IMODE(st.st_mode), st.st_mtime) == (0o640, 1_000_000_000)
        assert (two / "f").read_bytes() == b"content"
        assert attribute(library.mnt / "Two" / "f", "user.xdg.tags") == b"t"
        assert names(library.mnt / "One") == []
        library.unmount()
    finally:
        subprocess.run(["umount", "-l", str(two)], check=True)


# -- the root


def test_an_older_version_never_goes_over_the_newer_in_a_move(library):
    """A file of two branches leaves for a location that takes one of them: mv copies what is shown."""
    a, b, other = library.folder("a", "L"), library.folder("b", "L"), library.folder("M")
    put(b"old", a / "x", b / "x", a / "dir" / "in-a", b / "dir" / "in-b")
    library.mount(a, other)
    library.add(b, "L")
    library.wait_idle()
    mnt = library.mnt
    (mnt / "L" / "x").write_bytes(b"new and precious")
    assert errno_of(os.rename, mnt / "L" / "x", mnt / "M" / "x") == EXDEV
    assert errno_of(os.rename, mnt / "L" / "x", mnt / "x") == EXDEV
    assert errno_of(os.rename, mnt / "L" / "dir", mnt / "M" / "dir") == EXDEV
    assert (mnt / "L" / "x").read_bytes() == b"new and precious"
    for name in ("x", "dir"):
        subprocess.run(["mv", mnt / "L" / name, mnt / "M" / name], check=True)
    assert (other / "x").read_bytes() == b"new and precious"
    assert tree(mnt / "M" / "dir").keys() == {"in-a", "in-b"}
    assert listing(mnt / "L") == []
    library.wait_idle()
    library.verify()


def test_an_exchange_between_locations_loses_neither(library):
    """It is refused where no branch holds both, and both are as before."""
    one, other = library.folder("L"), library.folder("M")
    put(b"one", one / "x")
    put(b"other", other / "y")
    library.mount(one, other)
    library.wait_idle()
    (library.mnt / "New").mkdir()
    (library.mnt / "New" / "z").write_bytes(b"in the store")
    for place in (library.mnt / "M" / "y", library.mnt / "New" / "z"):
        before = place.read_bytes()
        assert errno_of(renameat2, library.mnt / "L" / "x", place, RENAME_EXCHANGE) == EXDEV
        assert ((library.mnt / "L" / "x").read_bytes(), place.read_bytes()) == (b"one", before)
    library.wait_idle()
    library.verify()


def test_the_root_works_with_no_location_at_all(library):
    """mkdir and files at the root lie in the library's own store and are there after a remount."""
    library.mount()
    store = library.library_dir / "store"
    (library.mnt / "New" / "deep").mkdir(parents=True)
    (library.mnt / "New" / "deep" / "f").write_bytes(b"f")
    (library.mnt / "note.txt").write_bytes(b"note")
    (library.mnt / "link").symlink_to("note.txt")
    assert (store / "New" / "deep" / "f").read_bytes() == b"f"
    assert (store / "note.txt").read_bytes() == b"note"
    os.rename(library.mnt / "note.txt", library.mnt / "New" / "moved.txt")
    os.rename(library.mnt / "New", library.mnt / "Newer")
    assert (library.mnt / "Newer" / "moved.txt").read_bytes() == b"note"
    library.sd("tag", "add", "t", library.mnt / "Newer" / "deep" / "f")
    library.remount()
    assert listing(library.mnt) == ["Devices", "Newer", "Search", "Tags", "link"]
    assert library.sd("tag", "list", library.mnt / "Newer" / "deep" / "f") == "t\n"
    library.wait_idle()
    library.verify("--content")
    shutil.rmtree(library.mnt / "Newer")
    (library.mnt / "link").unlink()
    assert names(store) == []


def test_a_location_that_joins_a_directory_is_seen_once_the_command_is_answered(library):
    """Also by a script that asks the socket and looks at once, at what the kernel had a moment before."""
    library.mount()
    for number in range(40):
        directory = library.mnt / f"D{number}"
        directory.mkdir()
        put(b"s", directory / "from the store")
        assert listing(directory) == ["from the store"]
        real = library.folder(f"D{number}")
        put(b"p", real / "from the disk")
        library.call("action:location.add", {"path": str(real)})
        assert listing(directory) == ["from the disk", "from the store"]


def test_a_location_joins_a_directory_of_the_store(library):
    """mkdir Photos first, add Photos later: one directory, both contents, new files go to the location."""
    library.mount()
    (library.mnt / "Photos").mkdir()
    (library.mnt / "Photos" / "from the store").write_bytes(b"s")
    photos = library.folder("Photos")
    put(b"p", photos / "from the disk")
    number = os.stat(library.mnt / "Photos").st_ino
    library.add(photos)
    assert listing(library.mnt / "Photos") == ["from the disk", "from the store"]
    assert os.stat(library.mnt / "Photos").st_ino == number
    (library.mnt / "Photos" / "new").write_bytes(b"n")
    assert (photos / "new").exists()
    library.sd("location", "remove", "Photos")
    assert listing(library.mnt / "Photos") == ["from the store"]
    assert names(photos) == ["from the disk", "new"]


def test_mv_of_a_location_at_the_root_renames_it(library):
    """Its name in the library; the folder on the disk keeps its own; tags, numbers and open files stay."""
    photos = library.folder("Photos")
    put(b"x", photos / "d" / "f")
    library.mount(photos)
    os.setxattr(library.mnt / "Photos" / "d" / "f", "user.xdg.tags", b"t")
    number = os.stat(library.mnt / "Photos" / "d" / "f").st_ino
    with open(library.mnt / "Photos" / "d" / "f", "rb") as file:
        os.rename(library.mnt / "Photos", library.mnt / "Pictures")
        assert file.read() == b"x"
    assert listing(library.mnt) == ["Devices", "Pictures", "Search", "Tags"]
    assert errno_of(os.stat, library.mnt / "Photos") == ENOENT
    assert photos.is_dir()
    (location,) = library.sd_json("location", "list")["locations"]
    assert location["name"] == "Pictures"
    library.remount()
    shown = library.mnt / "Pictures" / "d" / "f"
    assert shown.read_bytes() == b"x"
    assert os.stat(shown).st_ino == number
    assert attribute(shown, "user.xdg.tags") == b"t"
    assert library.sd_json("search", "f")["hits"][0]["path"] == str(shown)


def test_a_location_is_renamed_over_nothing(library):
    """Onto another location, a directory of the store, into a directory: refused, and all stay as they are."""
    one, two = library.folder("One"), library.folder("Two")
    put(b"1", one / "f")
    put(b"2", two / "g")
    library.mount(one, two)
    (library.mnt / "Mine").mkdir()
    for target in ("Two", "Mine", "Mine/One", "Two/One", "Tags", ".vdfs"):
        assert errno_of(os.rename, library.mnt / "One", library.mnt / target) != 0, target
    assert errno_of(os.rename, library.mnt / "Mine", library.mnt / "One") != 0
    assert errno_of(os.mkdir, library.mnt / "One") == EEXIST
    assert (library.mnt / "One" / "f").read_bytes() == b"1"
    assert (library.mnt / "Two" / "g").read_bytes() == b"2"
    assert names(library.mnt / "Mine") == []


def test_rmdir_of_a_location_at_the_root_forgets_it(library):
    """The folder of the user stays; one that still shows files is not empty."""
    photos, full = library.folder("Photos"), library.folder("Full")
    put(b"x", full / "f")
    library.mount(photos, full)
    assert errno_of(os.rmdir, library.mnt / "Full") == ENOTEMPTY
    assert (library.mnt / "Full" / "f").read_bytes() == b"x"
    os.rmdir(library.mnt / "Photos")
    assert photos.is_dir()
    assert "Photos" not in listing(library.mnt)
    assert [location["name"] for location in library.sd_json("location", "list")["locations"]] == ["Full"]
    library.remount()
    assert "Photos" not in listing(library.mnt)
    (library.mnt / "Photos").mkdir()
    assert names(photos) == []


def test_a_users_own_tags_directory_wins_over_the_link(library):
    """mkdir Tags replaces the link of that name; the view is still at .vdfs/tags; rmdir brings the link back."""
    library.mount()
    store = library.library_dir / "store"
    (store / "Tags").mkdir()
    (store / "Tags" / "mine").write_bytes(b"mine")
    eventually(lambda: not os.path.islink(library.mnt / "Tags"), "the directory is shown")
    assert names(library.mnt / "Tags") == ["mine"]
    assert listing(library.mnt) == ["Devices", "Search", "Tags"]
    library.sd("tag", "add", "t", library.mnt / "Tags" / "mine")
    assert (library.mnt / ".vdfs" / "tags" / "t" / "mine").read_bytes() == b"mine"
    shutil.rmtree(library.mnt / "Tags")
    eventually(lambda: os.path.islink(library.mnt / "Tags"), "the link is back")
    search = library.folder("Search")
    library.add(search)
    assert not os.path.islink(library.mnt / "Search")
    assert listing(library.mnt) == ["Devices", "Search", "Tags"]


def test_the_links_can_be_hidden(library):
    """`-o show=…` says which; `.vdfs` still answers by name."""
    library.mount(options=("-o", "show=tags"))
    assert listing(library.mnt) == ["Tags"]
    assert (library.mnt / ".vdfs" / "search").is_dir()
    library.unmount()
    library.mount(options=("-o", "show=none"))
    assert listing(library.mnt) == []
    assert (library.mnt / ".vdfs" / "README.txt").read_bytes()


# -- after a kill


def test_a_kill_between_two_replicas_is_completed(library):
    """kill -9 while names with two replicas are deleted: after the start, each name is there on both or on none."""
    a, b = library.folder("a", "Docs"), library.folder("b", "Docs")
    for number in range(400):
        put(b"%d" % number, a / f"f{number}", b / f"f{number}")
    library.mount(a)
    library.sd("location", "add", b, "--name", "Docs")
    library.wait_idle()
    shown = library.mnt / "Docs"
    deleter = subprocess.Popen(
        ["sh", "-c", f"cd / && for i in $(seq 0 399); do rm '{shown}'/f$i || exit 1; done"], stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: len(os.listdir(a)) < 350, "some are deleted")
        library.kill()
    finally:
        deleter.wait(30)
    left = len(os.listdir(a))
    assert left > 0, "all were deleted before the kill: the test needs more files"
    library.mount()
    assert sorted(os.listdir(a)) == sorted(os.listdir(b))
    assert listing(shown) == sorted(os.listdir(a))
    library.wait_idle()
    library.verify()


# -- a replica that is moved behind the mount


@pytest.mark.parametrize("where", ["within", "beside", "over", "exchange"])
def test_a_replica_that_moved_behind_the_mount_is_a_file_of_its_own(library, where):
    """What is written to the one does not reach the other; both keep the tags."""
    a, b, c = library.folder("a", "L"), library.folder("b", "L"), library.folder("M")
    put(b"same", a / "k", b / "k", mtime_s=1_000_000)
    put(b"other", a / "n", b / "n", mtime_s=1_000_000)
    library.mount(a, c)
    library.add(b, "L")
    left = library.mnt / "L" / "k"
    library.wait_idle()
    os.setxattr(left, "user.xdg.tags", b"kept")
    assert len(allpaths(left)) == 2
    new, target = {
        "within": (library.mnt / "L" / "g", a / "g"),
        "beside": (library.mnt / "M" / "k2", c / "k2"),
        "over": (library.mnt / "M" / "there", c / "there"),
        "exchange": (library.mnt / "L" / "n", a / "n"),
    }[where]
    if where == "over":
        target.write_bytes(b"what was there")
        eventually(lambda: new.read_bytes() == b"what was there", "it is seen", 3)
        library.wait_idle()
    if where == "exchange":
        exchange(a / "k", a / "n")
        eventually(lambda: len(listing(library.mnt / "L")) == 4, "both are conflicts", 5)
        held = sorted((library.mnt / "L" / name).read_bytes() for name in listing(library.mnt / "L"))
        assert held == [b"other", b"other", b"same", b"same"]
    else:
        os.rename(a / "k", target)
        eventually(lambda: new.read_bytes() == b"same", "it is there", 3)
        eventually(lambda: len(allpaths(left)) == 1, "one is left under the old name", 3)
        assert os.stat(left).st_ino != os.stat(new).st_ino
        assert uuid(left) != uuid(new)
        assert attribute(left, "user.xdg.tags") == attribute(new, "user.xdg.tags") == b"kept"
        new.write_bytes(b"changed")
        assert (target.read_bytes(), (b / "k").read_bytes()) == (b"changed", b"same")
        assert (new.read_bytes(), left.read_bytes()) == (b"changed", b"same")
        os.chmod(new, 0o600)
        assert os.stat(b / "k").st_mode & 0o777 != 0o600
        os.setxattr(new, "user.xdg.tags", b"mine")
        assert attribute(left, "user.xdg.tags") == b"kept"
        left.unlink()
        assert new.read_bytes() == b"changed"
    library.wait_idle()
    numbers = {os.stat(library.mnt / "L" / n).st_ino for n in listing(library.mnt / "L")}
    assert len(numbers) == len(os.listdir(library.mnt / "L"))
    library.verify("--content")


def test_what_comes_to_a_name_behind_the_mount_hides_nothing_and_is_not_hidden(pair):
    """A new file where this branch had one before, and a file that was moved here: it has seen nobody's version."""
    put(b"both", pair.a / "again", pair.b / "again", mtime_s=1_000_000)
    put(b"moved", pair.a / "from", pair.b / "from", mtime_s=1_000_000)
    put(b"there", pair.b / "to", mtime_s=1_000_000)
    pair.settle()
    for name in listing(pair.mnt):
        (pair.mnt / name).read_bytes()
    (pair.a / "again").unlink()
    eventually(lambda: len(allpaths(pair.mnt / "again")) == 1, "one is left", 3)
    (pair.a / "again").write_bytes(b"new")
    os.rename(pair.a / "from", pair.a / "to")

    def shown() -> list[bytes]:
        return sorted((pair.mnt / name).read_bytes() for name in listing(pair.mnt))

    eventually(lambda: shown() == [b"both", b"moved", b"moved", b"new", b"there"], "all is there", 5)
    pair.settle()
    assert shown() == [b"both", b"moved", b"moved", b"new", b"there"]


def test_a_part_of_a_directory_that_moved_behind_the_mount_is_a_directory_of_its_own(library):
    """It shows what is in it, and what is made in the one is not in the other."""
    a, b, c = library.folder("a", "L"), library.folder("b", "L"), library.folder("M")
    put(b"one", a / "photos" / "sub" / "same", b / "photos" / "sub" / "same", mtime_s=1_000_000)
    put(b"a", a / "photos" / "a1")
    put(b"b", b / "photos" / "b1")
    library.mount(a, c)
    library.add(b, "L")
    library.wait_idle()
    left, new = library.mnt / "L" / "photos", library.mnt / "M" / "album"
    assert listing(left) == ["a1", "b1", "sub"]
    assert listing(left / "sub") == ["same"]
    held = os.open(left, os.O_RDONLY)
    os.rename(a / "photos", c / "album")
    eventually(lambda: listing(new) == ["a1", "sub"], "it is there", 3)
    eventually(lambda: listing(left) == ["b1", "sub"], "the other is left", 3)
    assert sorted(os.listdir(held)) == ["b1", "sub"]
    os.close(held)
    assert os.stat(left).st_ino != os.stat(new).st_ino
    assert os.stat(left / "sub" / "same").st_ino != os.stat(new / "sub" / "same").st_ino
    (new / "sub" / "made").write_bytes(b"m")
    (left / "b2").write_bytes(b"b")
    assert (c / "album" / "sub" / "made").exists()
    assert (b / "photos" / "b2").exists()
    assert listing(left / "sub") == ["same"]
    (new / "sub" / "same").write_bytes(b"changed")
    assert (left / "sub" / "same").read_bytes() == (b / "photos" / "sub" / "same").read_bytes() == b"one"
    library.wait_idle()
    library.verify("--content")


def test_a_hard_link_of_a_merged_file_is_a_name_of_that_replica_alone(library):
    """Made behind the mount, beside a replica on another branch that has no such name; and the same by the mount."""
    a, b = library.folder("a", "L"), library.folder("b", "L")
    put(b"first", a / "f1", b / "f1", a / "g1", b / "g1", mtime_s=1_000_000)
    library.mount(a)
    library.add(b, "L")
    library.wait_idle()
    shown = library.mnt / "L"
    assert len(allpaths(shown / "f1")) == len(allpaths(shown / "g1")) == 2
    os.link(a / "f1", a / "f9")
    eventually(lambda: (shown / "f9").read_bytes() == b"first", "the link shows", 3)
    os.link(shown / "g1", shown / "g9")
    linked = a if (a / "g9").exists() else b
    other = b if linked is a else a
    (b / "f1").write_bytes(b"newer on b")
    (other / "g1").write_bytes(b"newer there")
    eventually(lambda: (shown / "f1").read_bytes() == b"newer on b", "the newer version", 5)
    eventually(lambda: (shown / "g1").read_bytes() == b"newer there", "the newer version", 5)
    library.wait_idle()
    assert (shown / "f9").read_bytes() == (shown / "g9").read_bytes() == b"first"
    assert os.stat(shown / "f9").st_ino != os.stat(shown / "f1").st_ino
    (shown / "f9").write_bytes(b"w9")
    (shown / "g9").write_bytes(b"w9")
    assert ((a / "f1").read_bytes(), (b / "f1").read_bytes()) == (b"w9", b"newer on b")
    assert ((linked / "g1").read_bytes(), (other / "g1").read_bytes()) == (b"w9", b"newer there")
    library.wait_idle()
    library.verify("--content")
