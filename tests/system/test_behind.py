"""Changes behind the mount: made by any program in any branch, seen in the mount within a second, caches and all.

Before each change the kernel is made to cache what it can of the old state, as a busy desktop does.
"""

import io
import mmap
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.harness import errno_of, eventually, messengers, names, shows_soon, tree, walk
from vdfs.space import syscalls

TAGS = "user.xdg.tags"
ENOENT = 2


def born_ns(directory: Path, name: bytes) -> int | None:
    """When a file was made, as far as its file system tells."""
    fd = os.open(directory, os.O_PATH)
    try:
        return syscalls.born_ns(fd, name)
    finally:
        os.close(fd)


def warm(directory: Path) -> None:
    """Let the kernel cache names, attributes, listings and bytes."""
    for path in walk(directory):
        os.lstat(path)
        if os.path.isfile(path) and not os.path.islink(path):
            Path(path).read_bytes()
        errno_of(os.stat, path + "-absent")
    os.listdir(directory)


# -- names


def test_a_new_file_shows(place):
    """In a listing, by stat, and where the kernel had learned that there is no such name."""
    warm(place.mnt)

    def make(number: int) -> None:
        assert errno_of(os.stat, place.mnt / f"new{number}") == ENOENT
        assert f"new{number}" not in os.listdir(place.mnt)
        (place.disk / f"new{number}").write_bytes(b"%d" % number)

    shows_soon(make, lambda n: f"new{n}" in os.listdir(place.mnt), "a new file in a listing")
    shows_soon(
        lambda n: make(n + 10), lambda n: (place.mnt / f"new{n + 10}").exists(), "a new file where the name was absent"
    )
    assert (place.mnt / "new0").read_bytes() == b"0"


def test_a_deleted_file_is_gone(place):
    """From listings, from stat, and it cannot be opened."""
    for number in range(3):
        (place.disk / f"f{number}").write_bytes(b"x")
    warm(place.mnt)
    shows_soon(
        lambda n: (place.disk / f"f{n}").unlink(),
        lambda n: errno_of(os.stat, place.mnt / f"f{n}") == ENOENT and f"f{n}" not in os.listdir(place.mnt),
        "a deletion",
    )


def test_a_renamed_file_is_the_same_file(shared, place):
    """The old name is gone, the new one there: with inode number, id and tags."""
    for number in range(3):
        path = place.mnt / f"f{number}"
        path.write_bytes(b"%d" % number)
        os.setxattr(path, TAGS, b"t%d" % number)
    shared.wait_idle()
    warm(place.mnt)
    known = {n: (os.stat(place.mnt / f"f{n}").st_ino, uuid(place.mnt / f"f{n}")) for n in range(3)}
    shows_soon(
        lambda n: os.rename(place.disk / f"f{n}", place.disk / f"g{n}"),
        lambda n: (place.mnt / f"g{n}").exists() and not (place.mnt / f"f{n}").exists(),
        "a rename",
    )
    for number in range(3):
        path = place.mnt / f"g{number}"
        if path.exists():
            assert (os.stat(path).st_ino, uuid(path)) == known[number]
            assert os.getxattr(path, TAGS) == b"t%d" % number


def uuid(path: Path) -> bytes:
    return os.getxattr(path, "user.vdfs.id")


def test_a_renamed_tree_is_the_same_tree(shared, place):
    """A directory with 300 files, moved into another: all numbers, ids and tags come along."""
    top = place.mnt / "top"
    for number in range(300):
        below = top / f"d{number % 7}" / f"e{number % 3}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"f{number}").write_bytes(b"%d" % number)
    (place.mnt / "into").mkdir()
    os.setxattr(top / "d3" / "e0" / "f3", TAGS, b"t")
    os.setxattr(top / "d3", TAGS, b"of the directory")
    shared.wait_idle()
    warm(place.mnt)
    before = {name: (os.lstat(top / name).st_ino, uuid(top / name)) for name in tree(top)}
    contents = tree(top)
    os.rename(place.disk / "top", place.disk / "into" / "moved")
    moved = place.mnt / "into" / "moved"
    eventually(lambda: moved.exists() and not top.exists(), "the move shows", 3)
    assert tree(moved) == contents
    assert {name: (os.lstat(moved / name).st_ino, uuid(moved / name)) for name in contents} == before
    assert os.getxattr(moved / "d3" / "e0" / "f3", TAGS) == b"t"
    assert os.getxattr(moved / "d3", TAGS) == b"of the directory"
    shared.wait_idle()
    assert {name: os.lstat(moved / name).st_ino for name in contents} == {n: i for n, (i, _) in before.items()}


def test_a_directory_takes_the_place_of_the_one_it_was_in(library):
    """Who unpacked too deep does so: what came with it, it keeps."""
    disk = library.folder("L")
    (disk / "d" / "sub" / "deep").mkdir(parents=True)
    (disk / "d" / "sub" / "f").write_text("f")
    (disk / "d" / "beside").write_text("b")
    library.mount(disk)
    library.wait_idle()
    mnt = library.mnt / "L"
    warm(mnt)
    library.sd("tag", "add", "Kept", mnt / "d" / "sub", mnt / "d" / "sub" / "f")
    numbers = [(mnt / "d" / "sub").stat().st_ino, (mnt / "d" / "sub" / "f").stat().st_ino]
    os.rename(disk / "d" / "sub", disk / "aside")
    shutil.rmtree(disk / "d")
    os.rename(disk / "aside", disk / "d")
    eventually(lambda: tree(mnt) == tree(disk), "it is there", 5)
    assert [(mnt / "d").stat().st_ino, (mnt / "d" / "f").stat().st_ino] == numbers
    assert [os.getxattr(path, TAGS) for path in (mnt / "d", mnt / "d" / "f")] == [b"Kept"] * 2
    library.wait_idle()
    library.verify()


def test_a_file_with_names_in_two_locations(library):
    """What is done to it by one name, behind the mount or through it, is so by the other, in the index too."""
    one, other = library.folder("A"), library.folder("B")
    (one / "f").write_text("one")
    os.link(one / "f", other / "g")
    library.mount(one, other)
    library.wait_idle()

    def agrees(what: str) -> None:
        eventually(lambda: (library.mnt / "B" / "g").read_text() == (other / "g").read_text(), what, 5)
        assert (library.mnt / "B" / "g").stat().st_nlink == (other / "g").stat().st_nlink
        library.wait_idle()
        library.verify()

    (one / "f").write_text("two two")
    agrees("written behind the mount")
    (library.mnt / "A" / "f").write_text("three three three")
    agrees("written through the mount")
    os.link(one / "f", one / "h")
    agrees("linked behind the mount")
    os.rename(one / "h", one / "i")
    agrees("renamed behind the mount")
    os.rename(one / "i", other / "h")
    agrees("moved to the other location behind the mount")
    os.rename(other / "h", one / "h")
    agrees("moved back")
    (library.mnt / "A" / "f").unlink()
    agrees("removed through the mount")
    (one / "h").unlink()
    agrees("removed behind the mount")


def test_a_directory_that_moved_into_what_it_held(place):
    """Whoever stands in the lower one looks for the upper one in it; nobody goes round in a circle for ever."""
    (place.disk / "a" / "b" / "d").mkdir(parents=True)
    eventually(lambda: (place.mnt / "a" / "b" / "d").is_dir(), "it shows")
    fd = os.open(place.mnt / "a" / "b", os.O_RDONLY)
    try:
        os.rename(place.disk / "a" / "b", place.disk / "b")
        os.rename(place.disk / "a", place.disk / "b" / "a")
        errno_of(lambda: os.stat("a", dir_fd=fd))
        errno_of(lambda: os.rename("d", "d2", src_dir_fd=fd, dst_dir_fd=fd))
        eventually(lambda: sorted(os.listdir(place.mnt / "b")) == sorted(os.listdir(place.disk / "b")), "it shows", 5)
        os.mkdir(place.mnt / "b" / "a" / "e")
        assert (place.disk / "b" / "a" / "e").is_dir()
    finally:
        os.close(fd)


def test_tags_of_directories_show(shared, place):
    """Set, changed and removed on the real directory, with nobody looking at it here."""
    (place.disk / "d").mkdir()
    shared.wait_idle()
    eventually(lambda: (place.mnt / "d").is_dir(), "it shows")

    for value in (b"LiveTag", b"OtherTag"):
        os.setxattr(place.disk / "d", TAGS, value)
        eventually(lambda value=value: value.decode() in shared.sd("tag", "list"), "a tag of a directory", 5)
    os.removexattr(place.disk / "d", TAGS)
    eventually(lambda: "OtherTag" not in shared.sd("tag", "list"), "it is gone", 5)


def test_what_was_written_and_linked_at_once_has_a_new_hash(shared, place):
    """The other name is seen before the bytes are."""
    (place.disk / "d").mkdir()
    (place.disk / "f").write_bytes(b"first")
    shared.wait_idle()
    with open(place.disk / "f", "ab") as file:
        file.write(b" and more")
    os.link(place.disk / "f", place.disk / "d" / "g")
    eventually(lambda: (place.mnt / "d" / "g").read_bytes() == b"first and more", "it shows")
    shared.wait_idle()
    shared.verify("--content")


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "while nothing runs"])
def test_bytes_that_changed_with_mode_or_tags_and_kept_the_mtime(library, is_running):
    """As `cp -p` and `rsync --inplace -a` leave them: nothing but the ctime tells, which the mode explains as well."""
    disk = library.folder("L")
    hows = ("chmod", "xattr", "nothing", *["link"] * is_running)  # what got a link while nothing ran is believed
    for how in hows:
        (disk / how).write_bytes(b"aaaa")
        os.utime(disk / how, ns=(10**18, 10**18))
    library.mount(disk)
    library.wait_idle()
    if not is_running:
        library.unmount()
    for how in hows:
        with open(disk / how, "r+b") as file:
            file.write(b"bbbb")
        os.utime(disk / how, ns=(10**18, 10**18))
    os.chmod(disk / "chmod", 0o600)
    os.setxattr(disk / "xattr", TAGS, b"new")
    if is_running:
        os.link(disk / "link", disk / "link2")
        eventually(lambda: (library.mnt / "L" / "link2").exists(), "it shows")
    else:
        library.mount()
    library.wait_idle()
    eventually(lambda: library.verify("--content") or True, "all hashes are true", 10)


def test_a_file_that_comes_back_after_a_restart_has_its_own_hash(library):
    """What it had was let go of by then, and may be another's."""
    disk, out = library.folder("L"), library.folder("out")
    (disk / "photo").write_bytes(b"a photo of a holiday")
    library.mount(disk)
    library.wait_idle()
    os.rename(disk / "photo", out / "photo")
    eventually(lambda: not (library.mnt / "L" / "photo").exists(), "it is gone", 5)
    library.remount()
    library.wait_idle()
    time.sleep(1)
    (disk / "other").write_bytes(b"something else, of another size")
    eventually(lambda: (library.mnt / "L" / "other").exists(), "it shows", 5)
    library.wait_idle()
    os.rename(out / "photo", disk / "photo")
    eventually(lambda: (library.mnt / "L" / "photo").exists(), "it is back", 5)
    library.wait_idle()
    library.verify("--content")
    assert os.listdir(library.mnt / ".vdfs" / "duplicates") == []


def test_out_and_in_again(shared, place):
    """mv out of the location and back: the same file, with its tags; a tree as well."""
    outside = shared.disk / f"outside-{place.disk.name}"
    outside.mkdir()
    (place.mnt / "f").write_bytes(b"x")
    (place.mnt / "d" / "e").mkdir(parents=True)
    (place.mnt / "d" / "e" / "g").write_bytes(b"y")
    os.setxattr(place.mnt / "f", TAGS, b"t")
    os.setxattr(place.mnt / "d" / "e" / "g", TAGS, b"u")
    shared.wait_idle()
    known = {name: uuid(place.mnt / name) for name in ("f", "d", "d/e/g")}
    warm(place.mnt)
    for name in ("f", "d"):
        os.rename(place.disk / name, outside / name)
    eventually(lambda: names(place.mnt) == [], "they are gone", 3)
    eventually(lambda: not (shared.mnt / "Tags" / "t" / "f").exists(), "its tag's view knows", 3)
    for name in ("f", "d"):
        os.rename(outside / name, place.disk / name)
    eventually(lambda: names(place.mnt) == ["d", "f"], "they are back", 3)
    assert (place.mnt / "d" / "e" / "g").read_bytes() == b"y"
    assert os.getxattr(place.mnt / "f", TAGS) == b"t"
    assert os.getxattr(place.mnt / "d" / "e" / "g", TAGS) == b"u"
    assert {name: uuid(place.mnt / name) for name in known} == known


def test_who_has_a_directory_open_that_is_removed_behind_the_mount(place):
    """An empty directory without a link, as anywhere; what is made under the name then is another one."""
    (place.disk / "d" / "deep").mkdir(parents=True)
    fds = [os.open(place.mnt / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("d", "d/deep")]
    try:
        number = os.fstat(fds[0]).st_ino
        shutil.rmtree(place.disk / "d")
        eventually(lambda: not (place.mnt / "d").exists(), "the directory is gone")
        for fd in fds:
            eventually(lambda fd=fd: os.fstat(fd).st_nlink == 0, "it has no link")
            assert stat.S_ISDIR(os.fstat(fd).st_mode)
            assert os.listdir(fd) == []
            assert errno_of(os.mkdir, "x", dir_fd=fd) == ENOENT
        (place.disk / "d").mkdir()
        eventually(lambda: (place.mnt / "d").exists(), "a new one is there")
        assert os.stat(place.mnt / "d").st_ino != number
        assert os.fstat(fds[0]).st_nlink == 0
    finally:
        for fd in fds:
            os.close(fd)


def test_a_file_replaced_by_a_directory(place):
    """And back: the kind is the disk's, nothing of the old kind is remembered."""
    (place.disk / "x").write_bytes(b"file")
    warm(place.mnt)

    def swap(number: int) -> None:
        if number % 2 == 0:
            (place.disk / "x").unlink()
            (place.disk / "x").mkdir()
            (place.disk / "x" / "inside").write_bytes(b"i")
        else:
            shutil.rmtree(place.disk / "x")
            (place.disk / "x").write_bytes(b"file again")

    def shown(number: int) -> bool:
        if number % 2 == 0:
            return names(place.mnt / "x") == ["inside"]
        return (place.mnt / "x").is_file() and (place.mnt / "x").read_bytes() == b"file again"

    for number in range(4):
        swap(number)
        eventually(lambda number=number: shown(number), "the new kind", 3)
        warm(place.mnt)


def test_symlinks_change_their_target(place):
    """A link made anew behind the mount points to the new place, although the kernel may cache targets."""
    (place.disk / "link").symlink_to("one")
    assert os.readlink(place.mnt / "link") == "one"

    def change(number: int) -> None:
        (place.disk / "link.new").symlink_to(f"target{number}")
        os.rename(place.disk / "link.new", place.disk / "link")

    shows_soon(change, lambda n: os.readlink(place.mnt / "link") == f"target{n}", "a new target")


def test_exchanged_names(place):
    """mv --exchange and the three-step swap: each name has the other's bytes."""
    for round_ in range(3):
        (place.disk / "x").write_bytes(b"x%d" % round_)
        (place.disk / "y").write_bytes(b"y%d" % round_)
        warm(place.mnt)
        os.rename(place.disk / "x", place.disk / "t")
        os.rename(place.disk / "y", place.disk / "x")
        os.rename(place.disk / "t", place.disk / "y")
        eventually(
            lambda r=round_: (
                (place.mnt / "x").read_bytes() == b"y%d" % r and (place.mnt / "y").read_bytes() == b"x%d" % r
            ),
            "the swap", 3,
        )  # fmt: skip
        assert names(place.mnt) == ["x", "y"]


# -- attributes and bytes


def test_attributes_show(place):
    """Mode, size, mtime, owner, link count: what fstat on the disk says, through all caches."""
    real, path = place.disk / "f", place.mnt / "f"
    real.write_bytes(b"x")
    warm(place.mnt)
    shows_soon(lambda n: os.chmod(real, 0o600 + n), lambda n: os.stat(path).st_mode & 0o777 == 0o600 + n, "a mode")
    shows_soon(
        lambda n: os.utime(real, ns=(1, 1_000_000_007 + n)),
        lambda n: os.stat(path).st_mtime_ns == 1_000_000_007 + n, "an mtime",
    )  # fmt: skip
    shows_soon(lambda n: os.truncate(real, 1000 + n), lambda n: os.stat(path).st_size == 1000 + n, "a size")
    shows_soon(
        lambda n: os.link(real, place.disk / f"link{n}"), lambda n: os.stat(path).st_nlink == 2 + n, "a link count"
    )
    if os.geteuid() == 0:
        shows_soon(lambda n: os.chown(real, 100 + n, 200), lambda n: os.stat(path).st_uid == 100 + n, "an owner")
    (place.disk / "d").mkdir()
    eventually((place.mnt / "d").exists, "the directory")
    shows_soon(
        lambda n: os.chmod(place.disk / "d", 0o700 + n),
        lambda n: os.stat(place.mnt / "d").st_mode & 0o777 == 0o700 + n,
        "a directory's mode",
    )  # fmt: skip


def test_attributes_are_set_by_the_name_that_is_left(place):
    """Of two names of one file the one that was looked at last is removed behind the mount; the other is known."""
    for number in range(5):
        one, other = f"one{number}", f"other{number}"
        (place.disk / one).write_bytes(b"x")
        os.link(place.disk / one, place.disk / other)
        eventually(lambda one=one: os.stat(place.mnt / one).st_nlink == 2, "both names are known")
        os.stat(place.mnt / other)
        (place.disk / other).unlink()
        os.utime(place.mnt / one, ns=(10**18, 10**18))
        os.chmod(place.mnt / one, 0o640)
        os.truncate(place.mnt / one, 3)
        st = os.stat(place.disk / one)
        assert (st.st_atime_ns, stat.S_IMODE(st.st_mode), st.st_size) == (10**18, 0o640, 3)


def test_attributes_are_never_set_on_the_file_that_came_in_place(place):
    """A name was given to another file behind the mount, and the kernel still means the old one: it looks again."""
    (place.disk / "f").write_bytes(b"old")
    with open(place.mnt / "f", "rb") as held:
        (place.disk / "new").write_bytes(b"new")
        os.chmod(place.disk / "new", 0o600)
        os.rename(place.disk / "new", place.disk / "f")
        os.chmod(held.fileno(), 0o604)
        assert stat.S_IMODE(os.fstat(held.fileno()).st_mode) == 0o604
        assert stat.S_IMODE(os.stat(place.disk / "f").st_mode) == 0o600
    os.chmod(place.mnt / "f", 0o640)
    assert stat.S_IMODE(os.stat(place.disk / "f").st_mode) == 0o640


def test_bytes_show_for_who_opens_anew(place):
    """Same size, other bytes; longer; shorter: `cat` never gives an old or a mixed content for long."""
    real, path = place.disk / "f", place.mnt / "f"
    real.write_bytes(b"start" * 10_000)
    warm(place.mnt)

    def content(number: int) -> bytes:
        return (b"%05d" % number) * (10_000 + (number % 3 - 1) * 500)

    shows_soon(lambda n: real.write_bytes(content(n)), lambda n: path.read_bytes() == content(n), "new bytes", tries=5)
    for number in range(10, 14):
        real.write_bytes(content(number))
        eventually(lambda number=number: path.read_bytes() == content(number), "new bytes", 3)
        warm(place.mnt)


def test_bytes_show_through_an_open_descriptor(place):
    """Without a new open: in place (same inode), appended, cut."""
    real, path = place.disk / "f", place.mnt / "f"
    real.write_bytes(b"0" * 8192)
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == b"0" * 10

        def in_place(number: int) -> None:
            with open(real, "r+b") as other:
                other.write(b"%010d" % (number + 1))

        shows_soon(
            in_place, lambda n: os.pread(file.fileno(), 10, 0) == b"%010d" % (n + 1), "bytes changed in place", tries=5
        )

        def appended(number: int) -> None:
            with open(real, "ab") as other:
                other.write(b"tail%d" % number)

        before = os.stat(real).st_size
        appended(7)
        eventually(lambda: os.pread(file.fileno(), 100, before) == b"tail7", "appended bytes", 3)
        os.truncate(real, 100)
        eventually(lambda: os.fstat(file.fileno()).st_size == 100, "the size", 3)
        assert os.pread(file.fileno(), 100, 100) == b""


def test_bytes_show_through_a_mapping(place):
    """mmap of a file whose bytes change in place behind the mount."""
    real, path = place.disk / "f", place.mnt / "f"
    real.write_bytes(b"0" * 16384)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert view[:10] == b"0" * 10
        assert view[8192:8202] == b"0" * 10

        def in_place(number: int) -> None:
            with open(real, "r+b") as other:
                other.seek(8192)
                other.write(b"%010d" % (number + 1))

        shows_soon(in_place, lambda n: view[8192:8202] == b"%010d" % (n + 1), "bytes in a mapping", tries=5)


def test_appending_to_what_grew_behind_the_mount(place):
    """O_APPEND never overwrites: the kernel's idea of the size does not count."""
    real, path = place.disk / "log", place.mnt / "log"
    real.write_bytes(b"")
    with open(path, "ab", buffering=0) as through, open(real, "ab", buffering=0) as behind:
        expected = []
        for number in range(200):
            file, who = (through, b"mount") if number % 3 else (behind, b"disk")
            line = b"%s %d\n" % (who, number)
            file.write(line)
            expected.append(line)
        assert real.read_bytes() == b"".join(expected)
    eventually(lambda: path.read_bytes() == b"".join(expected), "all lines, in order", 3)


@pytest.mark.parametrize("how", ["cut", "appended to"])
def test_a_log_that_is_written_while_somebody_looks_at_it(place, how):
    """Appends here land at the end, whatever is done to the file behind and however often its size is asked: none
    leaves a hole, none goes over another's line."""
    real, ours = place.disk / "log", place.mnt / "log"
    real.write_bytes(b"")
    eventually(ours.exists, "it shows")
    script = """
import os, sys, time
kind, path, seconds = sys.argv[1:]
end, count = time.monotonic() + float(seconds), 0
fd = os.open(path, os.O_WRONLY | os.O_APPEND)
while time.monotonic() < end:
    if kind == "look":
        os.stat(path); time.sleep(0.02)
    elif kind == "cut":
        os.truncate(path, 0); time.sleep(0.2)
    else:
        count += os.write(fd, b"a line of thirty bytes, or so.\\n"); time.sleep(0.0005)
print(count)
"""
    kinds = [("write", ours), ("look", ours), ("cut" if how == "cut" else "write", real)]
    workers = [
        subprocess.Popen([sys.executable, "-c", script, kind, path, "3"], stdout=subprocess.PIPE, text=True)
        for kind, path in kinds
    ]
    counts = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert counts[0]
    assert b"\0" not in real.read_bytes()
    if how == "appended to":
        assert real.stat().st_size == sum(counts)
    eventually(lambda: ours.read_bytes() == real.read_bytes(), "it shows", 5)


def test_a_deleted_file_stays_readable_by_who_has_it_open(place):
    """As on any file system."""
    (place.disk / "f").write_bytes(b"still here")
    with open(place.mnt / "f", "r+b", buffering=0) as file:
        (place.disk / "f").unlink()
        eventually(lambda: not (place.mnt / "f").exists(), "the name is gone", 3)
        assert file.read() == b"still here"
        assert os.fstat(file.fileno()).st_size == 10
        file.write(b", and written")
        assert os.pread(file.fileno(), 100, 0) == b"still here, and written"
        (place.disk / "f").write_bytes(b"another file")
        eventually(lambda: (place.mnt / "f").read_bytes() == b"another file", "the new file", 3)
        assert os.pread(file.fileno(), 100, 0) == b"still here, and written"


def test_a_file_replaced_while_open(place):
    """Who has the old one open reads the old bytes; who opens the name reads the new."""
    (place.disk / "f").write_bytes(b"old bytes")
    with open(place.mnt / "f", "rb", buffering=0) as file:
        assert file.read(3) == b"old"
        (place.disk / "t").write_bytes(b"new and longer bytes")
        os.rename(place.disk / "t", place.disk / "f")
        eventually(lambda: (place.mnt / "f").read_bytes() == b"new and longer bytes", "the new file", 3)
        assert os.pread(file.fileno(), 100, 0) == b"old bytes"
    assert names(place.mnt) == ["f"]


# -- bursts


def make_tar(path: Path, directories: int, files: int) -> None:
    with tarfile.open(path, "w") as archive:
        for number in range(directories):
            for file in range(files):
                info = tarfile.TarInfo(f"pack/d{number % 10}/e{number}/needle{file}")
                data = b"%d/%d" % (number, file)
                info.size = len(data)
                info.mtime = 1_000_000_000
                archive.addfile(info, io.BytesIO(data))


def test_a_burst_of_new_directories(shared, place):
    """tar x behind the mount: the mount shows it all, listings and names, while and after it runs."""
    archive = shared.disk / "pack.tar"
    make_tar(archive, 150, 20)
    subprocess.run(["tar", "xf", str(archive), "-C", str(place.disk)], check=True)
    expected = tree(place.disk)
    assert len(expected) > 3000
    eventually(lambda: names(place.mnt) == ["pack"], "the top shows", 3)
    assert tree(place.mnt) == expected, "whoever looks gets the whole truth at once"
    shared.wait_idle()
    assert tree(place.mnt) == expected
    assert len(shared.sd_json("search", "needle19", "--limit", "1000")["hits"]) >= 150
    shutil.rmtree(place.disk / "pack")
    eventually(lambda: names(place.mnt) == [], "the removal shows", 3)
    shared.wait_idle()
    eventually(lambda: shared.sd_json("search", "needle19", "--limit", "1000")["hits"] == [], "nothing is left", 5)


def test_a_burst_while_somebody_watches(shared, place):
    """A thousand files come while the directory is listed all the time: every listing is a state that there was."""
    warm(place.mnt)
    count = 1000
    writer = subprocess.Popen(
        ["sh", "-c", f'i=0; while [ $i -lt {count} ]; do : > "$0/f$i"; i=$((i+1)); done', str(place.disk)]
    )
    seen: set[str] = set()
    try:
        while writer.poll() is None:
            found = os.listdir(place.mnt)
            assert len(found) == len(set(found))
            assert seen <= set(found), "a name that was there is missing"
            seen = set(found)
    finally:
        writer.wait(60)
    eventually(lambda: len(os.listdir(place.mnt)) == count, "all are there", 3)
    shared.wait_idle()


def test_a_large_tree_goes_and_comes_back(shared, place):
    """It leaves the index in portions, and all that is known of it waits for it."""
    tree_ = place.disk / "tree"
    for folder in range(12):
        (tree_ / f"d{folder}" / "deep").mkdir(parents=True)
        for number in range(50):
            (tree_ / f"d{folder}" / "deep" / f"f{number}").write_bytes(b"")
            (tree_ / f"d{folder}" / f"g{number}").write_bytes(b"")
    shared.wait_idle()
    seen = {path: os.lstat(path).st_ino for path in walk(place.mnt / "tree")}
    assert len(seen) > 1200
    outside = shared.base / f"outside-{place.disk.name}"
    os.rename(tree_, outside)
    eventually(lambda: names(place.mnt) == [], "the tree is gone")
    eventually(lambda: shared.sd("search", "g49").strip() == "", "it is not found any more", 20)
    shared.verify()
    os.rename(outside, tree_)
    eventually(lambda: len(list(walk(place.mnt / "tree"))) == len(seen), "it is back")
    shared.wait_idle()
    back = {path: os.lstat(path).st_ino for path in walk(place.mnt / "tree")}
    assert back == seen
    shared.verify()


def test_random_changes_end_equal(shared, place):
    """A few hundred random changes of names behind the mount, then both sides are the same, and the index, too."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    directories = [place.disk]
    for step in range(400):
        directories = [d for d in directories if d.is_dir()] or [place.disk]
        where, other = dice.choice(directories), dice.choice(directories)
        name, target = where / f"n{dice.randrange(12)}", other / f"n{dice.randrange(12)}"
        choice = dice.randrange(7)
        try:
            if choice == 0:
                name.mkdir()
                directories.append(name)
            elif choice in (1, 2):
                name.write_bytes(b"%d" % step)
            elif choice == 3:
                os.rename(name, target)
                directories.append(target)
            elif choice == 4:
                name.unlink()
            elif choice == 5 and name != place.disk:
                shutil.rmtree(name)
            else:
                os.link(name, target)
        except OSError:
            continue
        if dice.random() < 0.1:
            errno_of(os.listdir, place.mnt / name.relative_to(place.disk))
            errno_of(os.stat, place.mnt / target.relative_to(place.disk))
    eventually(lambda: tree(place.mnt) == tree(place.disk), "both sides are the same", 3)
    shared.wait_idle()
    assert tree(place.mnt) == tree(place.disk)
    for path in walk(place.disk):
        shown = place.mnt / os.path.relpath(path, place.disk)
        ours, real = os.lstat(shown), os.lstat(path)
        assert (ours.st_mode, ours.st_size, ours.st_mtime_ns, ours.st_nlink if not os.path.isdir(path) else 0) == (
            real.st_mode, real.st_size if not os.path.isdir(path) else ours.st_size, real.st_mtime_ns,
            real.st_nlink if not os.path.isdir(path) else 0,
        ), shown  # fmt: skip


# -- what was never scanned


def test_who_looks_into_a_big_new_tree_sees_all_of_it(library):
    """Right after the mount, with the scan just begun: any directory is complete, also the last one."""
    source = library.folder("Big")
    for number in range(300):
        below = source / f"d{number:03}" / "x"
        below.mkdir(parents=True)
        for file in range(40):
            (below / f"f{file:02}").write_bytes(b"%d" % file)
    library.mount(source)
    top = library.mnt / "Big"
    assert not library.sd_json("status")["scan"]["idle"], "the tree is too small for this test"
    assert names(top / "d299" / "x") == [f"f{file:02}" for file in range(40)]
    (source / "d298" / "x" / "added").write_bytes(b"a")
    (source / "d298" / "x" / "f00").unlink()
    assert names(top / "d298" / "x") == sorted(["added", *(f"f{file:02}" for file in range(1, 40))])
    assert (top / "d297" / "x" / "f39").read_bytes() == b"39"
    assert errno_of(os.stat, top / "d297" / "x" / "f40") == ENOENT
    assert len(names(top)) == 300
    library.wait_idle()
    library.verify()


def test_changes_while_nothing_ran_are_there_at_once(library):
    """After a start nobody sees the past: names, sizes, bytes, before any rescan is done."""
    source = library.folder("Files")
    for number in range(50):
        (source / f"d{number}").mkdir()
        for file in range(20):
            (source / f"d{number}" / f"f{file}").write_bytes(b"%d" % file)
    library.mount(source)
    library.wait_idle()
    library.unmount()
    for number in range(50):
        (source / f"d{number}" / "f0").unlink()
        (source / f"d{number}" / "new").write_bytes(b"new")
        (source / f"d{number}" / "f1").write_bytes(b"longer than before")
    os.rename(source / "d7", source / "renamed")
    library.mount()
    top = library.mnt / "Files"
    assert names(top / "d49") == sorted(["new", *(f"f{file}" for file in range(1, 20))])
    assert (top / "d48" / "f1").read_bytes() == b"longer than before"
    assert os.stat(top / "d47" / "f1").st_size == 18
    assert errno_of(os.stat, top / "d46" / "f0") == ENOENT
    assert "renamed" in names(top)
    assert "d7" not in names(top)
    assert tree(top) == tree(source)
    library.wait_idle()
    library.verify("--content")


def test_a_move_while_nothing_ran_keeps_tags(library):
    """By device, inode, size and mtime: the tag is on the file, wherever it went."""
    source = library.folder("Files")
    (source / "a").mkdir()
    (source / "b").mkdir()
    (source / "a" / "f").write_bytes(b"x")
    (source / "tree" / "deep").mkdir(parents=True)
    (source / "tree" / "deep" / "g").write_bytes(b"y")
    library.mount(source, options=("-o", "xattr=library"))
    top = library.mnt / "Files"
    os.setxattr(top / "a" / "f", TAGS, b"t")
    os.setxattr(top / "tree" / "deep" / "g", TAGS, b"u")
    known = (os.stat(top / "a" / "f").st_ino, uuid(top / "a" / "f"))
    library.wait_idle()
    library.unmount()
    os.rename(source / "a" / "f", source / "b" / "moved")
    os.rename(source / "tree", source / "b" / "grove")
    library.mount(options=("-o", "xattr=library"))
    library.wait_idle()
    assert os.getxattr(top / "b" / "moved", TAGS) == b"t"
    assert os.getxattr(top / "b" / "grove" / "deep" / "g", TAGS) == b"u"
    assert (os.stat(top / "b" / "moved").st_ino, uuid(top / "b" / "moved")) == known
    assert names(library.mnt / "Tags" / "t") == ["moved"]
    library.verify()


def test_a_file_written_and_moved_while_nothing_ran_keeps_tags(library):
    """Its inode is older than what was last seen of it, so it is the same; a new file with its number is not."""
    source = library.folder("Files")
    for name in ("kept", "gone"):
        (source / name).write_bytes(b"x")
    if born_ns(source, b"kept") is None:
        pytest.skip("this file system does not remember when a file was made")
    time.sleep(0.05)  # more than a tick of its clock
    for name in ("kept", "gone"):
        (source / name).write_bytes(b"xy")
    library.mount(source, options=("-o", "xattr=library"))
    top = library.mnt / "Files"
    for name in ("kept", "gone"):
        os.setxattr(top / name, TAGS, name.encode())
    library.wait_idle()
    library.unmount()
    (source / "kept").write_bytes(b"written anew")
    os.rename(source / "kept", source / "moved")
    gone = os.stat(source / "gone").st_ino
    (source / "gone").unlink()
    for number in range(64):
        (source / f"new{number}").write_bytes(b"new")
        if os.stat(source / f"new{number}").st_ino == gone:
            break
    library.mount(options=("-o", "xattr=library"))
    library.wait_idle()
    assert os.getxattr(top / "moved", TAGS) == b"kept"
    assert [name for name in names(top) if name.startswith("new") and TAGS in os.listxattr(top / name)] == []
    library.verify()


def test_a_watch_needs_no_looking(shared, place):
    """What nobody ever looked at in the mount is in the index soon: found by search."""
    (place.disk / "quiet" / "deep").mkdir(parents=True)
    shared.wait_idle()
    word = f"unlooked{time.monotonic_ns()}"
    shows_soon(
        lambda n: (place.disk / "quiet" / "deep" / f"{word}-{n}").write_bytes(b"x"),
        lambda n: len(shared.sd_json("search", f"{word}-{n}")["hits"]) == 1,
        "a file that is only searched for",
    )


@pytest.mark.parametrize("how", ["touch", "truncate", "rewrite"])
def test_the_index_follows_without_looking(shared, place, how):
    """A change of a known file: `sd info` has it within a second, and its hash a little later."""
    real = place.disk / "f"
    real.write_bytes(b"0123456789")
    shared.wait_idle()

    def change(number: int) -> None:
        if how == "touch":
            os.utime(real, ns=(0, 1_000_000_000 + number))
        elif how == "truncate":
            os.truncate(real, number)
        else:
            real.write_bytes(b"x" * (100 + number))

    def shown(number: int) -> bool:
        with_path = shared.sd_json("search", "f", "--limit", "1000")["hits"]
        (hit,) = [h for h in with_path if h["path"] == str(place.mnt / "f")]
        if how == "touch":
            return bool(hit["mtime_ns"] == 1_000_000_000 + number)
        return bool(hit["size_bytes"] == (number if how == "truncate" else 100 + number))

    shows_soon(change, shown, f"a {how}")
    shared.wait_idle()


@pytest.mark.parametrize("how", ["chmod", "utimes", "write", "fchmod", "link", "setxattr", "truncate"])
def test_bytes_that_changed_just_before_a_request_of_ours(shared, place, how):
    """What was written behind the mount is read, however soon somebody changes something else of the file here."""
    for number in range(6):
        real, ours = place.disk / f"f{number}", place.mnt / f"f{number}"
        real.write_bytes(b"aaaa" * 2000)
        eventually(lambda ours=ours: ours.exists() and ours.read_bytes() == b"aaaa" * 2000, "it is read")
        with open(ours, "r+b", buffering=0) as file:
            with open(real, "r+b", buffering=0) as other:
                other.write(b"bbbb")
            if how == "chmod":
                os.chmod(ours, 0o600)
            elif how == "utimes":
                os.utime(ours, ns=(5, 5))
            elif how == "write":
                os.pwrite(file.fileno(), b"cccc", 7000)
            elif how == "fchmod":
                os.fchmod(file.fileno(), 0o640)
            elif how == "link":
                os.link(ours, place.mnt / f"g{number}")
            elif how == "setxattr":
                os.setxattr(ours, TAGS, b"t")
            else:
                os.ftruncate(file.fileno(), 7900)
            eventually(lambda file=file: os.pread(file.fileno(), 4, 0) == b"bbbb", f"after {how} {number}", 2)
        assert ours.read_bytes() == real.read_bytes()


@pytest.mark.parametrize("is_open", [False, True])
def test_bytes_that_changed_and_kept_size_and_mtime(shared, place, is_open):
    """Tools that write in place and give the mtime back leave only the ctime: read and hashed all the same."""
    real, ours = place.disk / "f", place.mnt / "f"
    real.write_bytes(b"aaaa" * 2000)
    os.utime(real, ns=(1, 1577836800_000000000))
    shared.wait_idle()
    assert ours.read_bytes() == b"aaaa" * 2000
    before = os.getxattr(ours, "user.vdfs.hash")
    version = os.getxattr(ours, "user.vdfs.version")
    with open(ours, "rb") as file:
        if is_open:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            assert mapped[:4] == b"aaaa"
        with open(real, "r+b", buffering=0) as other:
            other.write(b"bbbb")
        os.utime(real, ns=(1, 1577836800_000000000))
        if is_open:
            eventually(lambda: mapped[:4] == b"bbbb", "who maps it sees it", 2)
            eventually(lambda: os.pread(file.fileno(), 4, 0) == b"bbbb", "who has it open sees it", 2)
            mapped.close()
        eventually(lambda: ours.read_bytes()[:4] == b"bbbb", "it is read", 2)
    shared.wait_idle()
    eventually(lambda: os.getxattr(ours, "user.vdfs.hash") != before, "it is hashed anew", 10)
    assert os.getxattr(ours, "user.vdfs.version") != version
    shared.verify("--content")


def test_attributes_alone_read_no_file_again(shared, place):
    """chmod, a tag, a link: the hash that is known stays."""
    real, ours = place.disk / "f", place.mnt / "f"
    real.write_bytes(b"x" * 5000)
    shared.wait_idle()
    known = os.getxattr(ours, "user.vdfs.hash")
    changes = (
        lambda: os.chmod(real, 0o600),
        lambda: os.setxattr(real, TAGS, b"outside"),
        lambda: os.link(real, place.disk / "g"),
        lambda: os.setxattr(ours, TAGS, b"inside"),
        lambda: os.chmod(ours, 0o640),
        lambda: os.rename(real, place.disk / "h"),
    )
    for change in changes:
        change()
        name = place.mnt / ("h" if (place.disk / "h").exists() else "f")
        for _ in range(20):
            eventually(name.exists, "it is there")
            assert os.getxattr(name, "user.vdfs.hash") == known
            time.sleep(0.02)


@pytest.mark.parametrize("when", ["2300-01-01", "1600-01-01"])
def test_times_beyond_what_64_bits_hold(shared, place, when):
    """Files, directories and what is set through the mount: listed with their times as far as the file system keeps
    them."""
    (place.disk / "d").mkdir()
    for name in ("one", "far", "d/in"):
        (place.disk / name).write_bytes(b"x")
    for name in ("far", "d"):
        subprocess.run(["touch", "-h", "-d", when, place.disk / name], check=True)
    expected = {name: os.lstat(place.disk / name).st_mtime_ns for name in ("far", "d")}
    eventually(lambda: names(place.mnt) == ["d", "far", "one"], "all are listed")
    eventually(lambda: {n: os.lstat(place.mnt / n).st_mtime_ns for n in expected} == expected, "with their times")
    subprocess.run(["touch", "-d", when, place.mnt / "one", place.mnt / "d" / "in"], check=True)
    for name in ("one", "d/in"):
        assert os.lstat(place.mnt / name).st_mtime_ns == os.lstat(place.disk / name).st_mtime_ns
    assert names(place.mnt) == ["d", "far", "one"]
    (place.disk / "late").write_bytes(b"y")
    eventually(lambda: (place.mnt / "late").exists(), "life goes on")
    assert names(place.mnt / "d") == ["in"]
    assert shared.sd_json("info", place.mnt / "far")["path"] == str(place.mnt / "far")
    shared.wait_idle()
    shared.verify("--content")


def test_an_open_directory_that_is_listed_later_is_listed_as_it_is_then(place):
    """What came between opendir and the first reading, or a rewinding, is in it."""
    fd = os.open(place.mnt, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(20):
            time.sleep(0.06 if number % 4 == 0 else 0)
            (place.disk / f"f{number}").write_bytes(b"x")
            time.sleep(0.06)
            assert len(os.listdir(fd)) == number + 1
    finally:
        os.close(fd)


@pytest.mark.parametrize("delay_s", [0, 0.01, 0.022, 0.03])
def test_a_hard_linked_name_that_is_replaced_and_renamed_at_once(shared, place, delay_s):
    """The new name means the file that came, not the one whose other name still stands."""
    for number in range(4):
        top, disk = place.mnt / f"w{number}", place.disk / f"w{number}"
        top.mkdir()
        (top / "h").write_bytes(b"old")
        os.link(top / "h", top / "hl")
        (disk / "t").write_bytes(b"new text")
        eventually(lambda top=top: sorted(os.listdir(top)) == ["h", "hl", "t"], "all are there")
        assert (top / "h").read_bytes() == (top / "hl").read_bytes() == b"old"
        os.rename(disk / "t", disk / "h")
        time.sleep(delay_s)
        os.rename(top / "h", top / "hr")
        eventually(lambda top=top: (top / "hr").read_bytes() == b"new text", "the new file", 1)
        with open(top / "hr", "ab") as file:
            file.write(b" and more")
        assert (disk / "hr").read_bytes() == b"new text and more"
        assert (disk / "hl").read_bytes() == (top / "hl").read_bytes() == b"old"


def test_a_move_between_locations_behind_the_mount(library):
    """On one file system a file or a tree stays what it is: uuid, tags, and what no real file could carry."""
    one, two = library.folder("One"), library.folder("Two")
    library.mount(one, two, options=("-o", "xattr=library"))
    (library.mnt / "One" / "d" / "e").mkdir(parents=True)
    for name in ("f", "d/e/g"):
        (library.mnt / "One" / name).write_bytes(b"x" * 100)
        os.setxattr(library.mnt / "One" / name, TAGS, b"t")
        os.setxattr(library.mnt / "One" / name, "user.big", b"y" * 20000)
    os.setxattr(library.mnt / "One" / "d", TAGS, b"dir")
    library.wait_idle()
    known = {name: uuid(library.mnt / "One" / name) for name in ("f", "d", "d/e", "d/e/g")}
    with open(library.mnt / "One" / "f", "rb") as held:
        for name in ("f", "d"):
            os.rename(one / name, two / name)
        there = lambda: [n for n in known if not (library.mnt / "Two" / n).exists()] == []  # noqa: E731
        eventually(there, "they are there", 2)
        eventually(lambda: names(library.mnt / "One") == [], "and not here", 2)
        assert {name: uuid(library.mnt / "Two" / name) for name in known} == known
        assert held.read() == b"x" * 100
    for name in ("f", "d/e/g"):
        assert os.getxattr(library.mnt / "Two" / name, TAGS) == b"t"
        assert os.getxattr(library.mnt / "Two" / name, "user.big") == b"y" * 20000
    assert os.getxattr(library.mnt / "Two" / "d", TAGS) == b"dir"
    (library.mnt / "Two" / "d" / "e" / "new").write_bytes(b"new")
    assert (two / "d" / "e" / "new").read_bytes() == b"new"
    (two / "d" / "e" / "late").write_bytes(b"late")
    eventually(lambda: (library.mnt / "Two" / "d" / "e" / "late").exists(), "it is watched there")
    library.wait_idle()
    library.verify("--content")
    library.unmount()
    os.rename(two / "d", one / "back")
    library.mount(options=("-o", "xattr=library"))
    library.wait_idle()
    assert uuid(library.mnt / "One" / "back" / "e" / "g") == known["d/e/g"]
    assert os.getxattr(library.mnt / "One" / "back" / "e" / "g", TAGS) == b"t"
    library.verify("--content")


STANDS = """
import os, sys
os.chdir(sys.argv[1])
while sys.stdin.readline():
    print(os.getcwd(), len(os.listdir(".")), flush=True)
"""


@contextmanager
def standing(directory: Path) -> Iterator[Callable[[], str]]:
    """A process that stands in a directory; asking it gives where it is, and how many names are there."""
    with subprocess.Popen(
        [sys.executable, "-c", STANDS, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def ask() -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("?\n")
            process.stdin.flush()
            return process.stdout.readline()

        try:
            yield ask
        finally:
            process.kill()


def test_who_stands_in_a_directory_stays(shared, place):
    """What happens to it behind the mount (names in it, its times, its mode, a scan) leaves him where he is."""
    inner = place.disk / "a" / "b"
    inner.mkdir(parents=True)
    eventually(lambda: (place.mnt / "a" / "b").is_dir(), "it is there")
    changes = (
        lambda n: (inner / f"f{n}").write_bytes(b"x"),
        lambda n: os.utime(inner, ns=(n, n)),
        lambda n: os.chmod(inner, 0o700 + n % 8),
        lambda n: (place.disk / "a" / f"g{n}").mkdir(),
        lambda n: (place.mnt / "a" / "b" / f"own{n}").mkdir(),
        lambda n: shared.sd("location", "rescan", "Files"),
    )
    with standing(place.mnt / "a" / "b") as ask:
        for number in range(24):
            changes[number % len(changes)](number)
            for _ in range(8):
                assert ask().startswith(str(place.mnt / "a" / "b") + " "), number
                time.sleep(0.02)


def test_what_the_messenger_could_not_deliver_is_told_by_the_next(library):
    """It is killed while a notice waits: the name was absent, and the kernel believes that for a day."""
    library.may_complain = True
    disk = library.folder("Files")
    library.mount(disk)
    library.wait_idle()
    assert not (library.mnt / "Files" / "absent").exists()
    (messenger,) = messengers(library.pid)
    os.kill(messenger, signal.SIGSTOP)
    (disk / "absent").write_bytes(b"x")
    eventually(lambda: library.sd_json("search", "absent")["hits"], "it is in the index")
    time.sleep(0.2)
    os.kill(messenger, signal.SIGKILL)
    eventually(lambda: (library.mnt / "Files" / "absent").exists(), "the kernel is told", 10)


KERNEL = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


@pytest.mark.skipif(KERNEL < (6, 2), reason="the kernel cannot take a notice that a name is to be asked for again")
def test_who_was_there_before_the_kernel_was_told_stays(shared, place):
    """He finds a new directory, or has a file open that changes behind the mount; the notice comes later than he."""
    (messenger,) = messengers(shared.pid)
    log, new = place.disk / "log", place.mnt / "a" / "standing"
    log.write_bytes(b"x")
    eventually(lambda: (place.mnt / "log").exists(), "it is there")
    shared.wait_idle()
    os.kill(messenger, signal.SIGSTOP)
    try:
        with open(place.mnt / "log", "rb") as file:
            (place.disk / "a" / "standing").mkdir(parents=True)
            log.write_bytes(b"more")
            eventually(lambda: shared.sd_json("search", "standing")["hits"], "it is in the index")
            with standing(new) as ask:
                for number in range(30):
                    assert ask() == f"{new} 0\n", number
                    os.kill(messenger, signal.SIGCONT)
                    time.sleep(0.02)
            assert os.readlink(f"/proc/self/fd/{file.fileno()}") == str(place.mnt / "log")
    finally:
        os.kill(messenger, signal.SIGCONT)


def test_what_comes_into_an_empty_location_after_a_restart_is_heard(library):
    """Nothing in it is new when the daemon begins again: it is to be watched all the same."""
    disk = library.folder("empty")
    library.mount(disk)
    library.settle()
    library.unmount()
    library.mount()
    library.settle()
    (disk / "new").write_bytes(b"new")
    library.settle()
    library.verify("--content")
