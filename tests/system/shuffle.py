"""Trees that are shuffled in front of a mount's eyes or behind its back, for tests that compare afterwards."""

import os
import random
import shutil
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

from tests.contract.posix.syscalls import RENAME_EXCHANGE, renameat2
from tests.system.harness import Mounted, errno_of, eventually

NAMES = ("a", "b", "c", "d")
#: What a directory's names are: path -> (mode, size, mtime, bytes).
Tree = dict[str, tuple[int, int, int, bytes]]


def seen(root: Path) -> Tree:
    found: Tree = {}
    for path in root.rglob("*"):
        st = path.lstat()
        is_file = stat.S_ISREG(st.st_mode)
        found[str(path.relative_to(root))] = (
            st.st_mode, st.st_size if is_file else 0, st.st_mtime_ns, path.read_bytes() if is_file else b"",
        )  # fmt: skip
    return found


def is_in(path: Path, above: Path) -> bool:
    return path == above or above in path.parents


class Shuffle:
    """Two locations on one file system, and what was done in them."""

    KINDS: tuple[str, ...] = ("mkdir", "mkdir", "write", "write", *["rename"] * 6, "remove", "swap", "link")

    def __init__(self, library: Mounted, seed: int) -> None:
        self.dice = random.Random(seed)
        self.library = library
        self.tops = self.mount()
        library.wait_idle()
        self.history: list[str] = []

    def mount(self) -> list[Path]:
        """The directories that are shuffled."""
        tops = [self.library.folder("A"), self.library.folder("B")]
        self.library.mount(*tops)
        return tops

    @staticmethod
    def all(tops: list[Path], *, dirs: bool) -> list[Path]:
        above = tops if dirs else []
        return [*above, *(path for top in tops for path in sorted(top.rglob("*")) if not dirs or path.is_dir())]

    def step(self) -> None:
        self.act(self.dice.choice(self.KINDS), self.tops)

    def act(self, kind: str, tops: list[Path]) -> None:
        """Do something of a kind somewhere below some directories, if it can be done."""
        target = self.dice.choice(self.all(tops, dirs=True)) / self.dice.choice(NAMES)
        there = self.all(tops, dirs=False)
        one, other = (self.dice.choice(there), self.dice.choice(there)) if there else (target, target)
        try:
            if kind == "mkdir":
                target.mkdir()
                other = one = target
            elif kind == "write":
                with target.open("ab") as file:
                    file.write(self.dice.choice((b"x", b"yy", b"zzz")))
                other = one = target
            elif kind == "rename" and not is_in(target, one) and (one.is_dir() or not target.is_dir()):
                os.rename(one, target)
                other = target
            elif kind == "remove":
                shutil.rmtree(one) if one.is_dir() else one.unlink()
                other = one
            elif kind == "swap" and not is_in(one, other) and not is_in(other, one):
                renameat2(one, other, RENAME_EXCHANGE)
            elif kind == "link" and one.is_file():
                os.link(one, target)
                other = target
            else:
                return
        except OSError:
            return
        self.note(kind, one, other)

    def note(self, kind: str, *paths: Path) -> None:
        self.history.append(" ".join([kind, *(str(path.relative_to(self.library.base)) for path in paths)]))

    def burst(self) -> None:
        self.history = [*self.history, "--"][-80:]
        for _ in range(self.dice.choice((1, 2, 3, 5, 8, 15, 30))):
            self.step()
            if self.dice.random() < 0.1:
                time.sleep(self.dice.choice((0, 0.01, 0.03)))
            if self.dice.random() < 0.1:  # somebody looks while it goes on
                looked = self.dice.choice(self.all(self.tops, dirs=True)).relative_to(self.library.disk)
                errno_of(os.listdir, self.library.mnt / looked)

    def wrong(self) -> list[str]:
        """What the mount shows, and what it should."""
        found = []
        for top in self.tops:
            shown, there = seen(self.library.mnt / top.name), seen(top)
            wrong = [name for name in sorted({*shown, *there}) if shown.get(name) != there.get(name)]
            found += [f"{top.name}/{name}: {shown.get(name)}, not {there.get(name)}" for name in wrong]
        return found

    def torn(self) -> list[str]:
        """Inodes whose names in one location have several numbers, numbers that several inodes there have, and rows
        that hang where nothing can."""
        with closing(sqlite3.connect(f"file:{self.library.library_dir / 'library.db'}?mode=ro", uri=True)) as db:
            names = (
                "SELECT group_concat(id || ': ' || node || ' ' || st_ino || ' ' || nlink || ' ' || name) FROM entry "
                "WHERE kind=0 GROUP BY branch_id, st_ino HAVING count(DISTINCT node)>1"
            )
            inodes = (
                "SELECT 'several inodes: ' || group_concat(id || ': ' || node || ' ' || st_ino || ' ' || name) "
                "FROM entry GROUP BY branch_id, node HAVING count(DISTINCT st_ino)>1"
            )
            rows = (
                "SELECT 'hangs wrong: ' || e.id || ' ' || e.name FROM entry e JOIN entry p ON e.parent_id = p.id "
                "WHERE p.kind <> 1 OR p.branch_id <> e.branch_id OR instr(e.name, '/')"
            )
            return [text for sql in (names, inodes, rows) for (text,) in db.execute(sql)]

    def compare(self, *, closely: bool) -> None:
        try:
            eventually(lambda: not self.wrong(), "everything shows", 10)
            eventually(lambda: not self.torn(), "a file has one number by all its names, and hangs in a directory", 5)
            if closely:
                self.library.wait_idle()
                self.library.verify()
            assert "Traceback" not in self.library.log()
        except (AssertionError, OSError) as error:
            raise AssertionError(
                "\n".join([str(error), *self.history, *self.torn(), *self.wrong(), self.library.log()])
            ) from error
