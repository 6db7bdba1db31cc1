"""Who is who: numbers, uuids, tags and bytes of files that move, are linked, saved and put back, from both sides.

Two libraries with the same tests: in one tags are copied to the real files, in the other they are in the library alone.
Each has two locations, `A` and `B`, and one of two branches, `D`.
"""

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.contract.posix.syscalls import RENAME_EXCHANGE, renameat2
from tests.system.conftest import fresh_base, fresh_library
from tests.system.harness import Mounted, eventually, names

TAGS = "user.xdg.tags"
ID = "user.vdfs.id"


class Libraries:
    """One library and its directories."""

    def __init__(self, library: Mounted, *, copies: bool) -> None:
        self.library = library
        self.a, self.b = library.folder("A"), library.folder("B")
        self.one, self.two = library.folder("one", "D"), library.folder("two", "D")
        self.aside = library.folder("aside")
        options = () if copies else ("-o", "xattr=library")
        library.mount(self.a, self.b, self.one, options=options)
        library.sd("location", "add", self.two, "--name", "D")
        self.mnt = library.mnt

    def settle(self) -> None:
        self.library.settle()

    def merged(self, name: str, content: bytes | None = b"the same") -> None:
        """A file (None: a directory) that both branches of D have, known to be one."""
        for branch in (self.one, self.two):
            if content is None:
                (branch / name).mkdir()
                (branch / name / f"in {branch.parent.name}").write_bytes(b"x")
            else:
                (branch / name).write_bytes(content)
                os.utime(branch / name, (10**9, 10**9))
        self.settle()
        assert name in names(self.mnt / "D")
        if content is not None:
            count = len(os.getxattr(self.mnt / "D" / name, "user.vdfs.allpaths").split(b"\0"))
            assert count == 2, "it is one file on two branches"


@pytest.fixture(scope="module", params=["copy", "library"])
def world(fuse: None, announce: Callable[[Path], None], request: pytest.FixtureRequest) -> Iterator[Libraries]:
    """For tests of tags: a library of each kind."""
    yield from fresh_libraries(announce, copies=request.param == "copy")


@pytest.fixture(scope="module")
def files(fuse: None, announce: Callable[[Path], None]) -> Iterator[Libraries]:
    """For tests of bytes and names, which are alike in both."""
    yield from fresh_libraries(announce, copies=True)


def fresh_libraries(announce: Callable[[Path], None], *, copies: bool) -> Iterator[Libraries]:
    for base in fresh_base(announce):
        for library in fresh_library(base):
            world = Libraries(library, copies=copies)
            yield world
            world.settle()
            library.verify("--content")


def tag(path: Path, text: str) -> None:
    os.setxattr(path, TAGS, text.encode())


def attribute(path: Path, name: str = TAGS) -> str | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False).decode()
    except OSError:
        return None


def identity(path: Path) -> tuple[str | None, str | None]:
    """(tags, uuid): what a person and a script know a file by."""
    return attribute(path), attribute(path, ID)


# one number, one inode ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause_s", [0.0, 0.4])
def test_a_replica_that_comes_back_beside_the_other_is_another_file(world, pause_s):
    """mv one/f away; mv two/f to its place; mv the first back beside it, behind the mount."""
    name = f"torn{pause_s}"
    world.merged(name)
    top = world.mnt / "D"
    tag(top / name, "red")
    (world.one / name).rename(world.aside / name)
    time.sleep(pause_s)
    (world.two / name).rename(world.one / name)
    time.sleep(pause_s)
    (world.aside / name).rename(world.one / f"{name}x")
    world.settle()
    eventually(lambda: {name, f"{name}x"} <= set(names(top)), "both are there")
    assert (top / name).stat().st_ino != (top / f"{name}x").stat().st_ino
    assert attribute(top / name, ID) != attribute(top / f"{name}x", ID)
    assert (attribute(top / name), attribute(top / f"{name}x")) == ("red", "red")
    (top / f"{name}x").write_bytes(b"other bytes")
    assert (top / name).read_bytes() == (world.one / name).read_bytes() == b"the same"
    assert (world.one / f"{name}x").read_bytes() == b"other bytes"


def test_a_directory_that_comes_back_inside_the_other_part(files):
    """It was one with the directory that it lies in now."""
    files.merged("nest", None)
    top = files.mnt / "D"
    (files.one / "nest").rename(files.one / "way")
    (files.two / "nest").rename(files.one / "nest")
    (files.one / "way").rename(files.one / "nest" / "deep")
    files.settle()
    assert sorted(names(top / "nest")) == ["deep", "in two"]
    assert names(top / "nest" / "deep") == ["in one"]
    assert (top / "nest").stat().st_ino != (top / "nest" / "deep").stat().st_ino
    (top / "nest" / "deep" / "new").mkdir()
    assert (files.one / "nest" / "deep" / "new").is_dir()


def test_exchanged_with_a_directory_below_its_own_replica(files):
    files.merged("swap", None)
    (files.one / "swap" / "s").mkdir()
    files.settle()
    (files.one / "swap" / "s").rename(files.aside / "s")
    (files.two / "swap").rename(files.one / "swap" / "s")
    (files.aside / "s").rename(files.two / "swap")
    files.settle()
    top = files.mnt / "D" / "swap"
    assert sorted(names(top)) == ["in one", "s"]
    assert names(top / "s") == ["in two"]


# moves between locations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [False, True], ids=["through the mount", "behind the mount"])
def test_what_only_the_library_has_goes_to_another_location(world, behind):
    name = f"moved{behind}"
    (world.a / name).write_bytes(b"x")
    os.setxattr(world.a / name, TAGS, b"old")
    world.settle()
    assert attribute(world.mnt / "A" / name) == "old"
    tag(world.mnt / "A" / name, "new,important")
    before = identity(world.mnt / "A" / name)
    top = (world.a, world.b) if behind else (world.mnt / "A", world.mnt / "B")
    (top[0] / name).rename(top[1] / name)
    world.settle()
    assert identity(world.mnt / "B" / name) == before
    assert before[0] == "new,important"


def test_a_tag_taken_off_after_a_move_is_off(files):
    (files.mnt / "A" / "off").write_bytes(b"x")
    tag(files.mnt / "A" / "off", "red")
    (files.a / "off").rename(files.b / "off")
    eventually(lambda: attribute(files.mnt / "B" / "off") == "red", "it has moved")
    os.removexattr(files.b / "off", TAGS)
    eventually(lambda: attribute(files.mnt / "B" / "off") is None, "and lost its tags")


def test_both_names_of_a_file_go_to_another_location(world):
    """A hard link, whose names come one after the other."""
    (world.mnt / "A" / "f1").write_bytes(b"x")
    os.link(world.mnt / "A" / "f1", world.mnt / "A" / "f2")
    tag(world.mnt / "A" / "f1", "red")
    world.settle()
    for name in ("f1", "f2"):
        (world.a / name).rename(world.b / name)
    world.settle()
    assert identity(world.mnt / "B" / "f1") == identity(world.mnt / "B" / "f2")
    assert attribute(world.mnt / "B" / "f1") == "red"
    assert (world.mnt / "B" / "f1").stat().st_ino == (world.mnt / "B" / "f2").stat().st_ino


def test_one_of_two_names_goes_to_another_location_and_the_other_is_saved(world):
    """The save is a new file; the name that moved goes on with the old one, and with copies of its tags."""
    top = world.mnt
    (top / "A" / "s1").write_bytes(b"old")
    os.link(top / "A" / "s1", top / "A" / "s2")
    tag(top / "A" / "s1", "red")
    (world.a / "s2").rename(world.b / "s2")
    eventually(lambda: attribute(top / "B" / "s2") == "red", "it has moved")
    (top / "A" / "s1.new").write_bytes(b"new")
    (top / "A" / "s1.new").rename(top / "A" / "s1")
    tag(top / "A" / "s1", "draft")
    world.settle()
    assert (attribute(top / "A" / "s1"), attribute(top / "B" / "s2")) == ("draft", "red")
    assert attribute(top / "A" / "s1", ID) != attribute(top / "B" / "s2", ID)


# names that are made anew ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["create", "mkdir", "rename"])
def test_a_file_renamed_behind_whose_name_is_made_anew_at_once(world, how):
    """Before the watcher has seen that it left."""
    top, disk = world.mnt / "A", world.a
    (disk / "elsewhere").mkdir(exist_ok=True)
    for number in range(5):
        name = f"{how}{number}"
        (top / name).write_bytes(b"x")
        (top / f"{name} new").write_bytes(b"new")
        tag(top / name, "red")
        before = identity(top / name)
        (disk / name).rename(disk / "elsewhere" / name)
        if how == "create":
            (top / name).write_bytes(b"another")
        elif how == "mkdir":
            (top / name).mkdir()
        else:
            (top / f"{name} new").rename(top / name)
        eventually(lambda: identity(top / "elsewhere" / name) == before, f"{name} is who it was", 5)
        assert attribute(top / name) is None


def test_a_name_of_a_linked_file_that_is_removed_and_linked_again(world):
    """The other name lies outside of the library, as that of a backup does."""
    top = world.mnt / "A"
    (top / "kept").write_bytes(b"x")
    tag(top / "kept", "red")
    os.link(world.a / "kept", world.aside / "kept")
    world.settle()
    before = identity(top / "kept")
    (top / "kept").unlink()
    os.link(world.aside / "kept", world.a / "kept")
    eventually(lambda: (top / "kept").exists(), "it is there again")
    world.settle()
    assert identity(top / "kept") == before


# saves ----------------------------------------------------------------------------------------------------------------


def in_one_process(*steps: Callable[[], Any]) -> None:
    """As an editor does it; the tests themselves are one process."""
    for step in steps:
        step()


def test_a_backup_that_is_put_back_is_the_file(world):
    """f is put aside, written anew, the save fails: f is removed, the backup gets its name back."""
    top = world.mnt / "A"
    (top / "doc").write_bytes(b"old")
    tag(top / "doc", "red")
    os.setxattr(top / "doc", "user.note", b"precious")
    before = identity(top / "doc")
    in_one_process(
        lambda: (top / "doc").rename(top / "doc.bak"),
        lambda: (top / "doc").write_bytes(b"half"),
        lambda: (top / "doc").unlink(),
        lambda: (top / "doc.bak").rename(top / "doc"),
    )
    assert identity(top / "doc") == before
    assert attribute(top / "doc", "user.note") == "precious"


def test_a_backup_whose_heir_lives_on_by_another_name(world):
    """Then both are files of their own."""
    top = world.mnt / "A"
    (top / "t").write_bytes(b"old")
    tag(top / "t", "red")
    in_one_process(
        lambda: (top / "t").rename(top / "t~"),
        lambda: (top / "t").write_bytes(b"new"),
        lambda: os.link(top / "t", top / "tl"),
        lambda: (top / "t").unlink(),
    )
    tag(top / "tl", "draft")
    assert (attribute(top / "t~"), attribute(top / "tl")) == ("red", "draft")
    assert attribute(top / "t~", ID) != attribute(top / "tl", ID)


def test_the_backup_of_a_linked_file_is_another_file(world):
    top = world.mnt / "A"
    (top / "l").write_bytes(b"old")
    os.link(top / "l", top / "l2")
    tag(top / "l", "red")
    in_one_process(lambda: (top / "l").rename(top / "l~"), lambda: (top / "l").write_bytes(b"new"))
    tag(top / "l", "draft")
    assert [attribute(top / name) for name in ("l", "l2", "l~")] == ["draft", "red", "red"]
    assert attribute(top / "l2", ID) == attribute(top / "l~", ID) != attribute(top / "l", ID)


def test_the_backup_of_a_merged_file_is_another_file(world):
    top = world.mnt / "D"
    world.merged("m")
    tag(top / "m", "red")
    in_one_process(lambda: (top / "m").rename(top / "m~"), lambda: (top / "m").write_bytes(b"new"))
    world.settle()
    tag(top / "m", "draft")
    assert attribute(top / "m~") != "draft"
    assert attribute(top / "m", ID) != attribute(top / "m~", ID)


def test_a_link_in_another_location_whose_name_another_file_takes(world):
    """It is reached by the names that it has left; what has the other is not touched."""
    a, b = world.mnt / "A", world.mnt / "B"
    (world.a / "t").write_bytes(b"one file")
    for name in ("t2", "t3"):
        os.link(world.a / "t", world.a / name)
    world.settle()
    assert {os.stat(a / name).st_nlink for name in ("t", "t2", "t3")} == {3}
    (world.a / "t").rename(world.b / "t")
    world.settle()
    assert {os.stat(path).st_nlink for path in (b / "t", a / "t2", a / "t3")} == {3}
    (world.b / "new").write_bytes(b"another file")
    os.setxattr(world.b / "new", TAGS, b"mine")
    (world.b / "new").rename(world.b / "t")
    world.settle()
    tag(a / "t2", "red")
    assert os.getxattr(world.b / "t", TAGS) == b"mine"
    assert (attribute(a / "t3"), attribute(b / "t")) == ("red", "mine")
    for number in range(20):
        one, other = ("t2", "t4") if number % 2 == 0 else ("t4", "t2")
        for path in (a / one, b / "t", a / one):
            os.stat(path)
        (world.a / one).rename(world.a / other)
        (world.a / "t3").rename(world.a / "t5")
        with contextlib.suppress(OSError), open(a / one, "r+b") as file:
            file.write(b"ONE")
        (world.a / "t5").rename(world.a / "t3")
        time.sleep(0.05)
    assert (world.b / "t").read_bytes() == b"another file"


def test_names_of_a_file_that_parts_from_its_name_in_another_location_are_listed(files):
    """They get another number; whoever knows them by the old one, which is nobody's soon, hears of it."""
    top, mnt = files.a / "parts", files.mnt
    for name in ("left", "right"):
        (top / name).mkdir(parents=True)
    (top / "name").write_bytes(b"one file")
    for name in ("left", "right"):
        os.link(top / "name", top / name / "link")
    files.settle()
    shown = [mnt / "A" / "parts" / "left", mnt / "A" / "parts" / "right", mnt / "B"]

    def look() -> list[set[int]]:
        return [{entry.inode() for entry in os.scandir(path) if entry.name in ("link", "parting")} for path in shown]

    look()
    (top / "name").rename(files.b / "parting")
    files.settle()
    assert all(look())
    os.link(top / "left" / "link", top / "again")
    files.settle()
    os.listdir(mnt / "B")
    (files.b / "parting").unlink()
    files.settle()
    left, right, gone = look()
    assert left == right == {os.stat(mnt / "A" / "parts" / "again").st_ino}
    assert not gone


def test_a_link_in_another_location_of_what_turns_out_to_be_one_file(world):
    """Two branches get the same bytes, each with tags: all names have both."""
    top, link = world.mnt / "D", world.mnt / "B" / "linked"
    (world.two / "both").write_bytes(b"both")
    os.link(world.two / "both", world.b / "linked")
    world.settle()
    tag(link, "red")
    (world.one / "both").write_bytes(b"both")
    os.setxattr(world.one / "both", TAGS, b"blue")
    world.settle()
    assert "both" in names(top)
    assert set(str(attribute(top / "both")).split(",")) == set(str(attribute(link)).split(",")) == {"red", "blue"}


# versions -------------------------------------------------------------------------------------------------------------


def test_a_version_in_conflict_that_gets_its_own_name_is_a_file_of_its_own(world):
    top = world.mnt / "D"
    world.merged("v.txt")
    tag(top / "v.txt", "red")
    (world.one / "v.txt").write_bytes(b"of one, and longer")
    (world.two / "v.txt").write_bytes(b"of two")
    world.settle()
    (conflict,) = [name for name in names(top) if name.startswith("v (from")]
    (top / conflict).rename(top / "v other.txt")
    tag(top / "v other.txt", "draft")
    assert (attribute(top / "v.txt"), attribute(top / "v other.txt")) == ("red", "draft")


@pytest.mark.parametrize("behind", [False, True], ids=["here", "behind"])
def test_a_link_of_a_version_in_conflict_that_is_left_alone_is_a_file_of_its_own(world, behind):
    top, name = world.mnt / "D", f"w {behind}"
    world.merged(name)
    tag(top / name, "red")
    (world.one / name).write_bytes(b"of one, and longer")
    (world.two / name).write_bytes(b"of two")
    world.settle()
    (conflict,) = [found for found in names(top) if found.startswith(f"{name} (from")]
    lies = next(d for d in (world.one, world.two) if (d / name).read_bytes() == (top / conflict).read_bytes())
    os.link(top / conflict, top / f"{name} link")
    (lies / name if behind else top / conflict).unlink()
    world.settle()
    tag(top / f"{name} link", "draft")
    assert (attribute(top / name), attribute(top / f"{name} link")) == ("red", "draft")


def test_a_linked_replica_brings_its_tags_along(world):
    """One branch has two names of a file, the other gets the same bytes under one of them."""
    top = world.mnt / "D"
    (world.two / "j").write_bytes(b"joined")
    os.link(world.two / "j", world.two / "j2")
    world.settle()
    tag(top / "j", "red")
    before = identity(top / "j")
    (world.one / "j").write_bytes(b"joined")
    world.settle()
    assert "j" in names(top)
    assert identity(top / "j") == identity(top / "j2") == before


def test_a_file_that_is_linked_while_it_is_written_has_one_version(files):
    top = files.mnt / "D"
    files.merged("w")
    with open(top / "w", "r+b") as file:
        file.write(b"written anew")
        file.flush()
        os.link(top / "w", top / "w2")
    files.settle()
    assert sorted(name for name in names(top) if name.startswith("w")) == ["w", "w2"]


def stamps(files: Libraries, first: str) -> dict[bytes, int]:
    """When each name of a file had its latest version."""
    with contextlib.closing(sqlite3.connect(files.library.library_dir / "library.db")) as db:
        sql = "SELECT name, version FROM entry WHERE cast(name AS text) LIKE ?"
        return {
            name: max(stamp for _, stamp in msgpack.unpackb(said)) for name, said in db.execute(sql, (f"{first}%",))
        }


@pytest.mark.parametrize("behind", [False, True], ids=["through the mount", "behind the mount"])
def test_all_names_of_a_file_that_is_linked_while_it_is_written_have_the_new_version(files, behind):
    top, first = files.mnt / "A", "behind" if behind else "here"
    (top / first).write_bytes(b"old")
    for number in range(2):
        os.link(top / first, top / f"{first} {number}")
    files.settle()
    before = stamps(files, first)
    with open((files.a if behind else top) / f"{first} 0", "r+b") as file:
        file.write(b"newer")
        file.flush()
        os.link(top / first, top / f"{first} 2")
    files.settle()
    after = stamps(files, first)  # whoever came first, the watch or the link
    assert len(after) == 4
    assert min(after.values()) > max(before.values()), (before, after)


def test_a_thousand_names_of_one_file_in_two_locations(files):
    """Each that comes or goes changes what is said of all of them: a name must not cost as much as there are names."""
    places = [files.a / "many", files.b / "many"]
    shown = [files.mnt / "A" / "many", files.mnt / "B" / "many"]
    for place in places:
        place.mkdir()
    (places[0] / "first").write_bytes(b"one")
    for number in range(1000):
        os.link(places[0] / "first", places[number % 2] / f"a\nname {number}")
    files.settle()
    assert [len(names(place)) for place in shown] == [501, 500]
    whose = {identity(shown[number % 2] / f"a\nname {number}") for number in range(0, 1000, 99)}
    assert whose == {identity(shown[0] / "first")}
    assert {(shown[number % 2] / f"a\nname {number}").stat().st_nlink for number in range(0, 1000, 99)} == {1001}
    with open(places[1] / "a\nname 1", "r+b") as file:
        file.write(b"two")
    files.settle()
    hashes = {os.getxattr(shown[n % 2] / f"a\nname {n}", "user.vdfs.hash") for n in range(0, 1000, 99)}
    assert hashes == {os.getxattr(shown[0] / "first", "user.vdfs.hash")}
    assert (shown[0] / "a\nname 2").read_bytes() == b"two"
    for number in range(2, 1000):
        (places[number % 2] / f"a\nname {number}").unlink()
    files.settle()
    assert [names(place) for place in shown] == [["a\nname 0", "first"], ["a\nname 1"]]
    for name in (shown[0] / "first", shown[1] / "a\nname 1"):
        assert name.stat().st_nlink == 3
        assert name.read_bytes() == b"two"


# nothing that was not seen is destroyed -------------------------------------------------------------------------------


def of_each_branch(files, name: str) -> None:
    """Two files of one name and size, so new that nobody has read them."""
    (files.one / name).write_bytes(b"1111")
    (files.two / name).write_bytes(b"2222")
    eventually(lambda: name in names(files.mnt / "D"), "it is there", 5)


def everything(files) -> set[bytes]:
    return {path.read_bytes() for branch in (files.one, files.two) for path in branch.iterdir() if path.is_file()}


def test_rm_takes_the_shown_one_of_two_that_differ(files):
    of_each_branch(files, "rm")
    shown = (files.mnt / "D" / "rm").read_bytes()
    (files.mnt / "D" / "rm").unlink()
    (other,) = {b"1111", b"2222"} - {shown}
    assert (files.mnt / "D" / "rm").read_bytes() == other
    (files.mnt / "D" / "rm").unlink()
    assert "rm" not in names(files.mnt / "D")


def test_rm_takes_all_replicas_that_are_equal(files):
    for branch in (files.one, files.two):
        (branch / "both").write_bytes(b"equal")
    eventually(lambda: "both" in names(files.mnt / "D"), "it is there", 5)
    (files.mnt / "D" / "both").unlink()
    assert not (files.one / "both").exists()
    assert not (files.two / "both").exists()


@pytest.mark.parametrize("known", [False, True], ids=["not hashed yet", "in conflict"])
def test_renaming_over_a_name_leaves_the_version_in_conflict(files, known):
    """It lies where the new file goes, on the branch of the source."""
    name = f"over{known}"
    (files.one / f"{name} new").write_bytes(b"the new one")
    (files.one / name).write_bytes(b"hidden")
    time.sleep(0.05)
    (files.two / name).write_bytes(b"shown!")
    top = files.mnt / "D"
    eventually(lambda: {name, f"{name} new"} <= set(names(top)), "they are there", 5)
    if known:
        files.settle()
    assert (top / name).read_bytes() == b"shown!"
    (top / f"{name} new").rename(top / name)
    assert (top / name).read_bytes() == b"the new one"
    files.settle()
    (conflict,) = [found for found in names(top) if found.startswith(f"{name} (from")]
    assert (top / conflict).read_bytes() == b"hidden"
    assert b"hidden" in everything(files)


def test_a_file_renamed_over_newer_versions_has_the_name(files):
    """Whatever lies under it elsewhere, equal or not, and however new: it was replaced, or shows beside it."""
    top = files.mnt / "D"
    for name, contents in (("alike", (b"x" * (20 << 20),) * 2), ("unlike", (b"first", b"other"))):
        (files.one / f"{name} new").write_bytes(b"what was meant")
        os.utime(files.one / f"{name} new", (10**9, 10**9))
        for branch, content in zip((files.one, files.two), contents, strict=True):
            (branch / name).write_bytes(content)
        eventually(lambda: {name, f"{name} new"} <= set(names(top)), "they are there", 5)
        if name == "unlike":
            files.settle()
        (top / f"{name} new").rename(top / name)
        files.settle()
        assert (top / name).read_bytes() == b"what was meant"
    assert [n for n in names(top) if n.startswith("alike")] == ["alike"]
    assert [(top / n).read_bytes() for n in names(top) if n.startswith("unlike (")] == [b"first"]


def test_a_tree_with_large_equal_files_is_removed(files):
    """Not hashed yet: they are compared."""
    for branch in (files.one, files.two):
        (branch / "tree").mkdir()
        (branch / "tree" / "big").write_bytes(b"y" * (20 << 20))
    eventually(lambda: "tree" in names(files.mnt / "D"), "it is there", 5)
    shutil.rmtree(files.mnt / "D" / "tree")
    assert not (files.one / "tree").exists()
    assert not (files.two / "tree").exists()


@pytest.mark.parametrize("how", ["moved here", "moved there", "made anew", "while nothing ran"])
def test_files_of_directories_that_become_one_have_not_seen_each_other(files, how):
    """What a file had seen of another branch says nothing of what came under its name there since."""
    top = files.mnt / "D"
    name, other = f"dir {how}", f"other {how}"
    for branch in (files.one, files.two):
        (branch / name).mkdir()
        (branch / name / "g").write_bytes(b"the same")
    files.settle()
    assert names(top / name) == ["g"]
    shutil.rmtree(files.two / name)
    files.settle()
    if how.startswith("moved"):
        (files.two / other).mkdir()
        (files.two / other / "g").write_bytes(b"precious")
        files.settle()
        assert names(top / other) == ["g"]
        came, goes = (files.two / other, name) if how == "moved here" else (files.one / name, other)
        came.rename(came.parent / goes)
        name = goes
    else:
        if how == "while nothing ran":
            files.library.unmount()
        (files.two / name).mkdir()
        (files.two / name / "g").write_bytes(b"precious")
        if how == "while nothing ran":
            files.library.mount()
    files.settle()
    assert {(top / name / shown).read_bytes() for shown in names(top / name)} == {b"precious", b"the same"}
    (top / name / "g").unlink()
    files.settle()
    assert len(names(top / name)) == 1


def test_an_exchange_hides_no_version_in_conflict(files):
    top = files.mnt / "D"
    files.merged("had seen")
    (files.two / "had seen").unlink()
    files.settle()
    (files.two / "ex").write_bytes(b"precious")
    (files.one / "ex").write_bytes(b"of one")
    files.settle()
    before = everything(files)
    renameat2(top / "had seen", top / "ex", RENAME_EXCHANGE)
    files.settle()
    assert {(top / name).read_bytes() for name in names(top) if name.startswith(("ex", "had seen"))} >= {
        b"precious", b"of one", b"the same",
    }  # fmt: skip
    (top / "ex").unlink()
    files.settle()
    assert len(before - everything(files)) == 1


@pytest.mark.parametrize("when", ["before it is back", "afterwards"])
def test_what_came_back_says_nothing_of_what_its_replica_may_become(library, when):
    """One of two equal files leaves and returns beside a newer version; the other is edited: all three show."""
    branches = [library.folder(name, "X") for name in "abc"]
    one, newer, other = branches
    for branch in (one, other):
        (branch / "f").write_bytes(b"the same")
        os.utime(branch / "f", (10**9, 10**9))
    library.mount()
    for branch in branches:
        library.sd("location", "add", branch, "--name", "X")
    top = library.mnt / "X"
    library.settle()
    assert names(top) == ["f"]
    (newer / "g").write_bytes(b"newer")
    eventually(lambda: "g" in names(top), "it shows")
    (top / "g").rename(top / "f")
    assert (names(top), (top / "f").read_bytes()) == (["f"], b"newer")
    (one / "f").rename(library.base / "aside")
    time.sleep(1)

    def edit() -> None:
        (other / "f").write_bytes(b"edited on its branch")
        time.sleep(1.3)

    if when == "before it is back":
        edit()
    (library.base / "aside").rename(one / "f")
    time.sleep(1)
    if when == "afterwards":
        edit()
    library.wait_idle()
    assert {(top / name).read_bytes() for name in names(top)} == {b"newer", b"the same", b"edited on its branch"}
    library.verify("--content")


@pytest.mark.parametrize("shown", ["two of three", "the third"])
def test_an_exchange_does_not_bring_an_old_version_back(library, shown):
    """Of what is moved one replica was outdated before; where it goes lies a version in conflict."""
    one, two, three = (library.folder(name, "X") for name in "abc")
    for branch in (one, two):
        (branch / "src").write_bytes(b"src old")
        os.utime(branch / "src", (10**9, 10**9))
    for branch in (one, two, three):
        (branch / "dst").write_bytes(b"dst")
        os.utime(branch / "dst", (10**9, 10**9))
    library.mount()
    for branch in (one, two, three):
        library.sd("location", "add", branch, "--name", "X")
    top = library.mnt / "X"
    library.settle()
    assert names(top) == ["dst", "src"]
    (top / "src").write_bytes(b"src new")
    library.settle()
    assert sorted(branch.joinpath("src").read_bytes() for branch in (one, two)) == [b"src new", b"src old"]
    (three / "dst").write_bytes(b"dst of c")
    os.utime(three / "dst", (10**9 + 99,) * 2 if shown == "the third" else (10**9 + 3,) * 2)
    library.settle()
    for branch in (one, two):
        (branch / "dst").write_bytes(b"dst of a and b")
        os.utime(branch / "dst", (10**9 + 9, 10**9 + 9))
    library.settle()
    before = {(top / name).read_bytes() for name in names(top)}
    assert before == {b"src new", b"dst of c", b"dst of a and b"}
    renameat2(top / "src", top / "dst", RENAME_EXCHANGE)
    library.settle()
    assert {(top / name).read_bytes() for name in names(top)} == before
    library.verify("--content")


def test_names_in_two_locations_stay_one_when_one_is_written_and_renamed_at_once(world):
    (world.a / "two names").write_bytes(b"x")
    os.link(world.a / "two names", world.b / "two names")
    world.settle()
    tag(world.mnt / "B" / "two names", "red")
    world.settle()
    with open(world.mnt / "A" / "two names", "ab") as file:
        file.write(b"more")
    (world.mnt / "A" / "two names").rename(world.mnt / "A" / "renamed")
    world.settle()
    tag(world.mnt / "B" / "two names", "blue")
    world.settle()
    assert identity(world.mnt / "A" / "renamed") == identity(world.mnt / "B" / "two names")


def in_conflict_with_a_link(files: Libraries, name: str) -> str:
    """A tagged file of two versions, of which the one in conflict has a name in another location; returns its name."""
    files.merged(name)
    top = files.mnt / "D"
    tag(top / name, "old")
    os.link(files.two / name, files.b / name)
    files.settle()
    (files.two / name).write_bytes(b"of two, edited")
    os.utime(files.two / name, (10**9 + 5, 10**9 + 5))
    files.settle()
    (files.one / name).write_bytes(b"of one, edited otherwise")
    files.settle()
    (conflict,) = [found for found in names(top) if found.startswith(f"{name} (from")]
    return conflict


@pytest.mark.parametrize("behind", [False, True], ids=["through the mount", "behind the mount"])
def test_a_version_in_conflict_goes_its_own_way_with_its_name_in_another_location(files, behind):
    name, goes = f"way {behind}", f"its own way {behind}"
    top, link = files.mnt / "D", files.mnt / "B" / name
    conflict = in_conflict_with_a_link(files, name)
    if behind:
        (files.two / name).rename(files.two / goes)
    else:
        (top / conflict).rename(top / goes)
    files.settle()
    tag(top / name, "of one")
    tag(top / goes, "of two")
    files.settle()
    assert (attribute(top / name), attribute(top / goes), attribute(link)) == ("of one", "of two", "of two")
    assert identity(link) == identity(top / goes)


@pytest.mark.parametrize("how", ["removed", "removed behind", "replaced", "replaced behind"])
def test_a_version_in_conflict_goes_and_its_name_in_another_location_is_a_file_of_its_own(files, how):
    name = f"left {how}"
    top, link = files.mnt / "D", files.mnt / "B" / name
    conflict = in_conflict_with_a_link(files, name)
    place = files.two / name if how.endswith("behind") else top / conflict
    if how.startswith("removed"):
        place.unlink()
    else:
        other = place.with_name(f"{name} new")
        other.write_bytes(b"a new one")
        other.rename(place)
    files.settle()
    assert attribute(link) == attribute(top / name) == "old"
    tag(link, "of its own")
    files.settle()
    assert (attribute(link), attribute(top / name)) == ("of its own", "old")


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_version_in_conflict_that_has_another_name(files, how):
    """What is done to it by the name of conflict is done to that one of its names."""
    top, name = files.mnt / "D", f"c {how}"
    (files.two / name).write_bytes(b"of two")
    os.utime(files.two / name, (10**9, 10**9))
    os.link(files.two / name, files.two / f"{name} link")
    (files.one / name).write_bytes(b"of one")
    files.settle()
    (conflict,) = [found for found in names(top) if found.startswith(f"{name} (from")]
    (files.one / "new").write_bytes(b"new")
    eventually(lambda: "new" in names(top), "it shows")
    if how == "removed":
        (top / conflict).unlink()
    elif how == "moved":
        (top / conflict).rename(top / f"{name} moved")
    else:
        (top / "new").rename(top / conflict)
    files.settle()
    assert (files.two / f"{name} link").read_bytes() == b"of two"
    assert not (files.two / name).exists()
    expected = {"removed": [], "moved": [f"{name} moved"], "replaced": [conflict]}[how]
    assert names(top) == sorted({name, f"{name} link", *expected, *(n for n in names(top) if not n.startswith(name))})
    (top / "new").unlink(missing_ok=True)


def test_a_link_gets_a_name_that_looks_like_one_of_conflict(files):
    (files.a / "song").write_bytes(b"x")
    os.link(files.a / "song", files.a / "song too")
    files.settle()
    (files.mnt / "A" / "song too").rename(files.mnt / "A" / "song (from album)")
    assert {"song", "song (from album)"} <= set(names(files.a))


@pytest.mark.parametrize("behind", [False, True], ids=["here", "behind"])
def test_a_third_name_goes_and_those_in_two_locations_stay_one(world, behind):
    name = f"three {behind}"
    (world.a / name).write_bytes(b"x")
    os.link(world.a / name, world.a / f"{name} too")
    os.link(world.a / name, world.b / name)
    world.settle()
    tag(world.mnt / "B" / name, "red")
    ((world.a if behind else world.mnt / "A") / name).unlink()
    world.settle()
    tag(world.mnt / "A" / f"{name} too", "blue")
    assert identity(world.mnt / "A" / f"{name} too") == identity(world.mnt / "B" / name)
    assert attribute(world.mnt / "B" / name) == "blue"


def test_what_is_set_before_equal_files_are_read_stays(files):
    top = files.mnt / "D"
    for branch in (files.one, files.two):
        (branch / "young").write_bytes(b"the same")
        os.utime(branch / "young", (10**9, 10**9))
    eventually(lambda: "young" in names(top), "it is there", 2)
    (top / "young").chmod(0o600)
    os.utime(top / "young", (10**8, 10**8))
    tag(top / "young", "red")
    files.settle()
    for path in (top / "young", files.one / "young", files.two / "young"):
        assert (path.stat().st_mode & 0o777, path.stat().st_mtime, attribute(path)) == (0o600, 10**8, "red")


def test_an_editor_saves_a_version_in_conflict(world):
    """By the name that it is shown under: it is replaced, and what has the plain name has nothing to do with it."""
    top = world.mnt / "D"
    (world.two / "saved.txt").write_bytes(b"of two")
    (world.one / "saved.txt").write_bytes(b"of one")
    world.settle()
    (conflict,) = [name for name in names(top) if name.startswith("saved (from")]
    tag(top / conflict, "red")
    tag(top / "saved.txt", "blue")
    plain = (top / "saved.txt").read_bytes()
    (top / ".tmp").write_bytes(b"edited")
    (top / ".tmp").rename(top / conflict)
    world.settle()
    assert [name for name in names(top) if name.startswith("saved")] == [conflict, "saved.txt"]
    assert ((top / conflict).read_bytes(), attribute(top / conflict)) == (b"edited", "red")
    assert ((top / "saved.txt").read_bytes(), attribute(top / "saved.txt")) == (plain, "blue")
    tag(top / conflict, "green")
    assert attribute(top / "saved.txt") == "blue"


def test_what_may_be_another_file_is_neither_tagged_nor_changed(files):
    """Two files of one size are one until they are read; what is done in that second is done to the one that shows."""
    top = files.mnt / "D"
    for branch, own in ((files.two, b"of two"), (files.one, b"of one")):
        (branch / "unread").write_bytes(own)
        os.setxattr(branch / "unread", TAGS, own)
        (branch / "unread").chmod(0o640)
        time.sleep(0.02)
    eventually(lambda: "unread" in names(top), "it is there", 2)
    shown = (top / "unread").read_bytes()
    tag(top / "unread", "red")
    (top / "unread").chmod(0o600)
    files.settle()
    (conflict,) = [name for name in names(top) if name.startswith("unread (from")]
    assert attribute(top / "unread") == "red"
    (other,) = {b"of one", b"of two"} - {shown}
    assert ((top / conflict).read_bytes(), attribute(top / conflict)) == (other, other.decode())
    assert (top / conflict).stat().st_mode & 0o777 == 0o640


# bytes ----------------------------------------------------------------------------------------------------------------


def append(path: Path, mark: bytes, count: int, size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(count):
        os.write(fd, (mark * size)[: size - 1] + b"\n")
        if number % 8 == 0:
            time.sleep(0.001)
    os.close(fd)


def look(path: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.stat(path)
        time.sleep(0.0005)


@pytest.mark.parametrize("size", [4096, 5000, 100])
def test_appends_from_both_sides_lose_nothing(files, size):
    """While somebody asks for the size, so that the kernel's end of the file moves."""
    name = f"log{size}"
    (files.a / name).write_bytes(b"")
    eventually(lambda: (files.mnt / "A" / name).exists(), "it is there", 5)
    fork = multiprocessing.get_context("fork")
    workers = [
        fork.Process(target=append, args=(files.mnt / "A" / name, b"m", 300, size)),
        fork.Process(target=append, args=(files.a / name, b"d", 300, size)),
        fork.Process(target=look, args=(files.mnt / "A" / name, 1.0)),
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    data = (files.a / name).read_bytes()
    assert (len(data), data.count(b"\0")) == (600 * size, 0)
    assert (data.count(b"m"), data.count(b"d")) == (300 * (size - 1), 300 * (size - 1))


def test_who_takes_the_append_flag_off_writes_where_he_says(files):
    """F_SETFL is not told to the server; that the file grew behind the mount makes no append of a write at its head."""
    path, real = files.mnt / "A" / "setfl", files.a / "setfl"
    path.write_bytes(b"." * 5000)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    with real.open("ab") as file:
        file.write(b"+" * 100)
    os.pwrite(fd, b"HEAD", 0)
    os.close(fd)
    assert real.read_bytes() == b"HEAD" + b"." * 4996 + b"+" * 100


@pytest.mark.parametrize("flags", [0, os.O_TRUNC], ids=["in place", "cut first"])
def test_a_write_whose_times_are_given_back_is_hashed_anew(files, flags):
    """Size and mtime are what they were; the library's verification at the end reads all bytes."""
    path = files.mnt / "A" / f"utime{flags}"
    path.write_bytes(b"aaaaa")
    files.settle()
    before = path.stat()
    fd = os.open(path, os.O_WRONLY | flags)
    os.write(fd, b"bbbbb")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.close(fd)
    digest = attribute(path, "user.vdfs.hash")
    files.settle()
    (files.mnt / "A" / f"utime{flags} twin").write_bytes(b"bbbbb")
    files.settle()
    assert attribute(path, "user.vdfs.hash") == attribute(files.mnt / "A" / f"utime{flags} twin", "user.vdfs.hash")
    assert attribute(path, "user.vdfs.hash") != digest


def test_a_write_behind_with_its_times_given_back_beside_a_chmod_here(files):
    path, real = files.mnt / "A" / "beside", files.a / "beside"
    path.write_bytes(b"aaaaa")
    files.settle()
    before = real.stat()
    digest = attribute(path, "user.vdfs.hash")
    with open(path, "rb") as file:
        real.write_bytes(b"zzzzz")
        os.utime(real, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.fchmod(file.fileno(), 0o600)
    files.settle()
    assert attribute(path, "user.vdfs.hash") != digest


# files that refuse ----------------------------------------------------------------------------------------------------


def test_a_tag_on_a_file_that_refuses_to_be_written_stays(files, root_only):
    """Immutable: the real file keeps what it had, which must not look like an edit later."""
    if shutil.which("chattr") is None:
        pytest.skip("chattr is not installed")
    real, path = files.a / "immutable", files.mnt / "A" / "immutable"
    real.write_bytes(b"x")
    os.setxattr(real, TAGS, b"old")
    files.settle()
    assert attribute(path) == "old"
    if subprocess.run(["chattr", "+i", real], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        tag(path, "important,vip")
    finally:
        subprocess.run(["chattr", "-i", real], check=True, timeout=30)
    files.settle()
    real.chmod(0o600)
    files.settle()
    assert attribute(path) == "important,vip"
    assert attribute(real) == "old"


def test_more_tags_than_an_attribute_holds_are_refused(files):
    path = files.mnt / "A" / "tagged"
    path.write_bytes(b"x")
    wanted = [f"{n:02}" + "t" * 990 for n in range(68)]
    tag(path, ",".join(wanted[:60]))
    done = [
        files.library.run("vdfs.cli", "--data-dir", files.library.data, "tag", "add", one, path) for one in wanted[60:]
    ]
    assert done[0].returncode == 0
    assert done[-1].returncode == 1
    assert "64 KiB" in done[-1].stderr
    assert len(os.getxattr(path, TAGS)) <= 65_536


# verification ---------------------------------------------------------------------------------------------------------


def test_verification_sees_what_goes_by_the_identity_of_another(library):
    """A number of another inode of the branch; the uuid of a file that is neither a link nor a replica."""
    disk = library.folder("Files")
    for name in ("a", "b", "c"):
        (disk / name).write_bytes(name.encode())
    os.link(disk / "a", disk / "a2")
    library.mount(disk)
    library.settle()
    library.unmount()
    library.verify()
    with contextlib.closing(sqlite3.connect(library.library_dir / "library.db")) as db, db:
        a, b, c = (
            db.execute("SELECT id FROM entry WHERE name=?", (name,)).fetchone()[0] for name in (b"a", b"b", b"c")
        )
        db.execute("UPDATE entry SET node=? WHERE id=?", (a, b))
        db.execute("UPDATE entry SET uuid=(SELECT uuid FROM entry WHERE id=?) WHERE id=?", (a, c))
    found = library.run("vdfs.cli", "--data-dir", library.data, "index", "verify", "--json")
    kinds = {(Path(one["path"]).name, one["kind"]) for one in json.loads(found.stdout)["differences"]}
    assert found.returncode == 1
    assert ("c", "uuid") in kinds
    assert {name for name, kind in kinds if kind == "number"} & {"a", "a2", "b"}
