"""Merged directories shuffled from both sides at once, while somebody walks through them and files are open.

Nothing here says what the union should look like after a step: only what must be true of it once nobody moves.
Everything that is listed is there, under the number that was listed, with bytes that some branch has under that name;
every file of every branch is shown, by its name or by one of conflict, but for the versions that another has replaced;
no number is two files, and the index agrees with the disk.
"""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from index.model import versions
from tests.system.harness import Mounted, errno_of
from tests.system.shuffle import Shuffle, is_in

#: Walks and reads for as long as its parent lives; what goes away meanwhile is none of its business.
WALKER = """
import os, sys
parent = os.getppid()
while os.getppid() == parent:
    for top, _, files in os.walk(sys.argv[1]):
        for name in files:
            try:
                with open(os.path.join(top, name), "rb") as file:
                    file.read()
            except OSError:
                pass
"""


class Shown(NamedTuple):
    ino: int
    mode: int
    content: bytes


class Union(Shuffle):
    """A location of two or three branches, and one beside it."""

    BEHIND = (*Shuffle.KINDS, "swap", "replica", "replica", "conflict", "sideways", "mkdirs")
    THROUGH = (*Shuffle.KINDS, "swap", "open", "open", "put", "put", "put", "close")

    def mount(self) -> list[Path]:
        library = self.library
        branches = [library.folder(f"b{number}", "D") for number in range(self.dice.choice((2, 2, 3)))]
        beside = library.folder("c", "E")
        library.mount(branches[0], beside)
        for branch in branches[1:]:
            library.sd("location", "add", branch, "--name", "D")
        self.fds: list[int] = []
        return [*branches, beside]

    def step(self) -> None:
        if self.dice.random() < 0.3:
            kind, tops = self.dice.choice(self.THROUGH), [self.library.mnt / "D", self.library.mnt / "E"]
        else:
            kind, tops = self.dice.choice(self.BEHIND), self.tops
        try:
            if kind in ("replica", "conflict", "sideways", "mkdirs"):
                self.sideways(kind)
            elif kind in ("open", "put", "close"):
                self.hold(kind, tops)
            else:
                self.act(kind, tops)
        except OSError:
            return

    def sideways(self, kind: str) -> None:
        """Something that another branch is to have under the same name."""
        there = self.all(self.tops, dirs=False)
        if not there:
            return
        one = self.dice.choice(there)
        top = next(top for top in self.tops if is_in(one, top))
        others = [other for other in self.tops if other is not top and other.name == top.name]
        other = self.dice.choice(others or [top]) / one.relative_to(top)
        if other == one or (other.is_dir() and kind != "mkdirs"):
            return
        if kind == "mkdirs" and one.is_dir():
            other.mkdir(parents=True, exist_ok=True)
        elif kind == "sideways" and other.parent.is_dir():
            one.rename(other)
        elif kind in ("replica", "conflict") and one.is_file():
            other.parent.mkdir(parents=True, exist_ok=True)
            if kind == "conflict":
                other.write_bytes(b"other")
            else:
                other.unlink(missing_ok=True)
                shutil.copy2(one, other)
        else:
            return
        self.note(kind, one, other)

    def hold(self, kind: str, tops: list[Path]) -> None:
        """Files are open while their names go elsewhere."""
        if kind == "open":
            files = [path for path in self.all(tops, dirs=False) if path.is_file()]
            if files and len(self.fds) < 6:
                path = self.dice.choice(files)
                self.fds.append(os.open(path, self.dice.choice((os.O_RDWR | os.O_APPEND, os.O_RDWR, os.O_RDONLY))))
                self.note(kind, path)
        elif self.fds and kind == "put":
            os.write(self.dice.choice(self.fds), b"held")
        elif self.fds:
            os.close(self.fds.pop())

    def compare(self, *, closely: bool) -> None:
        for fd in self.fds:
            errno_of(os.close, fd)
        self.fds.clear()
        super().compare(closely=closely)

    # what is there, and what is shown ---------------------------------------------------------------------------------

    def wrong(self) -> list[str]:
        found: list[str] = []
        shown = {top: self.shown_in(self.library.mnt / top, found) for top in ("D", "E")}
        real: dict[tuple[str, str], list[tuple[Path, bytes | None]]] = {}
        for top in self.tops:
            for path in top.rglob("*"):
                place = (str(path.parent.relative_to(top.parent)), path.name)
                real.setdefault(place, []).append((path, None if path.is_dir() else path.read_bytes()))
        lines = {place: one for tree in shown.values() for place, one in tree.items()}
        for (above, name), there in real.items():
            if any(content is None for _, content in there):
                line = lines.get((above, name))
                if line is None or not stat.S_ISDIR(line.mode):
                    found.append(f"{above}/{name}: the directory is not shown")
            beside = [one.content for (up, by), one in lines.items() if up == above and may_be_of(name, by)]
            for path, content in there:
                if content is not None and content not in beside and path.stat().st_ino not in self.replaced():
                    found.append(f"{path}: {content!r} is not shown, but {beside}")
        for (above, name), line in lines.items():
            if stat.S_ISREG(line.mode):
                there = [c for (up, of), files in real.items() for _, c in files if up == above and may_be_of(of, name)]
                if line.content not in there:
                    found.append(f"{above}/{name}: {line.content!r} is nowhere, but {there}")
        return found

    def shown_in(self, top: Path, found: list[str]) -> dict[tuple[str, str], Shown]:
        lines: dict[tuple[str, str], Shown] = {}
        left = [top]
        for directory in left:  # grows on the way
            with os.scandir(directory) as scan:
                entries = list(scan)
            for entry in entries:
                path = directory / entry.name
                try:
                    st = path.lstat()
                    content = path.read_bytes() if stat.S_ISREG(st.st_mode) else b""
                except OSError as error:
                    found.append(f"{path} is listed: {error.strerror}")
                    continue
                if st.st_ino != entry.inode() or len(content) not in (st.st_size, 0):
                    found.append(f"{path}: listed as {entry.inode()}, it is {st.st_ino}, of {st.st_size} bytes")
                if stat.S_ISDIR(st.st_mode):
                    left.append(path)
                place = (str(directory.relative_to(self.library.mnt)), entry.name)
                if place in lines:
                    found.append(f"{path} is listed twice")
                lines[place] = Shown(st.st_ino, st.st_mode, content)
        return lines

    def replaced(self) -> set[int]:
        """The inodes of versions that another one of their name has seen: these are not shown."""
        with closing(sqlite3.connect(f"file:{self.library.library_dir / 'library.db'}?mode=ro", uri=True)) as db:
            uuids = {branch: bytes(uuid) for branch, uuid in db.execute("SELECT id, uuid FROM branch")}
            rows = db.execute(
                "SELECT a.branch_id, a.st_ino, a.version, b.branch_id, b.version FROM entry a JOIN entry b "
                "ON b.name = a.name AND b.id <> a.id WHERE a.kind <> 1 AND b.kind <> 1"
            ).fetchall()
        return {
            st_ino
            for branch, st_ino, version, other, theirs in rows
            if versions.dominates(vector(theirs, uuids[other]), vector(version, uuids[branch]))
        }


def vector(packed: bytes | None, branch: bytes) -> versions.Vector:
    return {branch: 1} if packed is None else versions.unpack(packed)


def may_be_of(name: str, shown: str) -> bool:
    """Whether a name is shown so: as it is, or as that of a version in conflict."""
    return shown == name or shown.startswith(f"{name} (from ")


def ends_true(library: Mounted, bursts: int, seed: int) -> None:
    print(f"seed {seed}")
    union = Union(library, seed)
    walker = subprocess.Popen([sys.executable, "-c", WALKER, library.mnt])
    try:
        for number in range(bursts):
            union.burst()
            if number % 6 == 5:
                library.settle()
            union.compare(closely=number % 6 == 5)
    finally:
        for fd in union.fds:
            os.close(fd)
        walker.kill()
        walker.wait()


def test_shuffled_unions_end_true(library):
    ends_true(library, 30, 1)


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seed", [int(os.environ["SDMOUNT_SEED"])] if "SDMOUNT_SEED" in os.environ else [2, 3, 4])
def test_shuffled_unions_end_true_for_long(library, seed):
    ends_true(library, 300, seed)
