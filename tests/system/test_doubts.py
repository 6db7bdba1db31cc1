"""Doubts: a file is written in place and given its times back, which nothing tells but that somebody heard of it.

By whatever name that was, and wherever the file has others or goes meanwhile, its hash is that of the new bytes by all
of them. At the end everything is read once more and compared.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.harness import eventually
from tests.system.test_identity import Libraries, fresh_libraries

OLD, NEW = b"1111", b"2222"


@pytest.fixture(scope="module")
def files(fuse: None, announce: Callable[[Path], None]) -> Iterator[Libraries]:
    yield from fresh_libraries(announce, copies=True)


def made(files: Libraries, *paths: str) -> bytes:
    """A file with these names, relative to the locations; returns its hash."""
    first, *others = (files.library.disk / path for path in paths)
    first.write_bytes(OLD)
    for other in others:
        os.link(first, other)
    files.settle()
    return hash_of(files, paths[0])


def hash_of(files: Libraries, path: str) -> bytes:
    return os.getxattr(files.mnt / path, "user.vdfs.hash")


def rewrite(path: Path) -> None:
    st = path.stat()
    with open(path, "r+b") as file:
        file.write(NEW)
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("behind", [True, False], ids=["behind the mount", "through the mount"])
def test_all_names_of_a_file_are_read_again(files, behind):
    """In its location and in another one."""
    paths = [f"A/one {behind}", f"A/two {behind}", f"B/three {behind}"]
    old = made(files, *paths)
    assert {hash_of(files, path) for path in paths} == {old}
    rewrite((files.library.disk if behind else files.mnt) / paths[0])
    files.settle()
    eventually(lambda: old not in {hash_of(files, path) for path in paths}, "every name has the new hash")
    with contextlib.closing(sqlite3.connect(files.library.library_dir / "library.db")) as db:
        names = [os.fsencode(path[2:]) for path in paths[:2]]
        said = db.execute("SELECT version FROM entry WHERE name IN (?, ?)", names).fetchall()
    assert len(said) == 2
    assert len(set(said)) == 1


def test_the_name_that_was_written_to_goes_before_it_is_read(files):
    old = made(files, "A/goes", "A/stays")
    rewrite(files.a / "goes")
    time.sleep(0.2)
    (files.mnt / "A" / "goes").unlink()
    files.settle()
    assert hash_of(files, "A/stays") != old


@pytest.mark.parametrize("place", ["A", "B"])
def test_a_name_is_written_to_that_was_made_a_moment_ago(files, place):
    old = made(files, f"A/first {place}")
    linked = files.library.disk / place / f"linked {place}"
    os.link(files.a / f"first {place}", linked)
    rewrite(linked)
    files.settle()
    assert hash_of(files, f"A/first {place}") != old
    assert hash_of(files, f"{place}/linked {place}") != old


def test_it_moves_where_nobody_listens_yet(files):
    old = made(files, "A/moves")
    (files.a / "new").mkdir()
    rewrite(files.a / "moves")
    (files.a / "moves").rename(files.a / "new" / "moves")
    files.settle()
    assert hash_of(files, "A/new/moves") != old


def test_its_name_is_removed_while_it_is_written_to(files):
    """It has another one, which nobody looked at."""
    (files.a / "sub").mkdir()
    made(files, "A/removed", "A/sub/unseen")
    fd = os.open(files.mnt / "A" / "removed", os.O_RDWR)
    os.unlink(files.mnt / "A" / "removed")
    os.write(fd, NEW * 2)
    os.close(fd)

    def size_of_unseen() -> list[tuple[int]]:
        with contextlib.closing(sqlite3.connect(files.library.library_dir / "library.db")) as db:
            return db.execute("SELECT size_bytes FROM entry WHERE name=?", (b"unseen",)).fetchall()

    eventually(lambda: size_of_unseen() == [(len(NEW) * 2,)], "the other name is known as it is")
