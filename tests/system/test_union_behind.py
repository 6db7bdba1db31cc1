"""Several directories under one name, changed behind the mount only: everything that lies in them shows, as what it is.

Random files are made, moved, copied and removed on single branches; none is ever written to, and each step is seen
before the next, so that no name gets another file between two looks, which would be a new version of it. So every
content that lies under a path of any branch is shown under that path's name, or under a name of conflict, and what has
different bytes has different numbers.
"""

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from tests.contract.posix.syscalls import RENAME_EXCHANGE, renameat2
from tests.system.harness import Mounted, eventually

NAMES = ("a", "b", "c", "d.txt")
CONFLICT = re.compile(r" \(from [^)]*\)( \d+)?")


class Behind:
    """Three branches, two of one location, and what was done to them."""

    def __init__(self, library: Mounted, seed: int) -> None:
        self.dice = random.Random(seed)
        self.library = library
        self.tops = {
            library.folder("a", "L"): "L",
            library.folder("b", "L"): "L",
            library.folder("M"): "M",
        }
        self.history: list[str] = []
        self.count = 0
        for top in self.tops:
            for name in ("x", "y"):
                (top / name).mkdir()
            library.add(top, self.tops[top]) if library.is_mounted(library.mnt) else library.mount(top)

    def place(self, top: Path) -> Path:
        return top / self.dice.choice(("", "x", "y")) / self.dice.choice(NAMES)

    def files(self, top: Path) -> list[Path]:
        return sorted(path for path in top.rglob("*") if path.is_file())

    def step(self) -> None:
        top = self.dice.choice(list(self.tops))
        target = self.place(top)
        there = self.files(top)
        kind = self.dice.choice(("make", "make", "move", "move", "beside", "copy", "remove", "swap"))
        if kind == "swap" and len(there) > 1:
            one, other = self.dice.sample(there, 2)
            renameat2(one, other, RENAME_EXCHANGE)  # by way of a third name it would be a new version over an old one
            self.note(kind, one, other)
        elif kind == "remove" and there:
            one = self.dice.choice(there)
            one.unlink()
            self.note(kind, one)
        elif target.exists() or not target.parent.is_dir():
            return
        elif kind == "make":
            self.count += 1
            target.write_bytes(b"content %d" % self.count)
            self.note(kind, target)
        elif there and kind in ("move", "beside", "copy"):
            source = self.dice.choice(self.files(top) if kind == "move" else there)
            if kind != "move":
                beside = self.dice.choice([one for one in self.tops if one != top])
                target = beside / source.relative_to(top)
                if target.exists() or not target.parent.is_dir():
                    return
            if kind == "copy":
                shutil.copy2(source, top / ".copying")
                os.rename(top / ".copying", target)
            else:
                os.rename(source, target)
            self.note(kind, source, target)

    def note(self, kind: str, *paths: Path) -> None:
        self.history.append(f"{kind} {' '.join(str(path.relative_to(self.library.disk)) for path in paths)}")

    def expected(self) -> dict[str, set[bytes]]:
        """Path in the union -> every content that lies under it."""
        found: dict[str, set[bytes]] = {}
        for top, location in self.tops.items():
            for path in self.files(top):
                found.setdefault(f"{location}/{path.relative_to(top)}", set()).add(path.read_bytes())
        return found

    def shown(self) -> dict[str, set[bytes]]:
        found: dict[str, set[bytes]] = {}
        numbers: dict[int, bytes] = {}
        for location in ("L", "M"):
            for path in self.files(self.library.mnt / location):
                data = path.read_bytes()
                plain = str(path.relative_to(self.library.mnt).with_name(CONFLICT.sub("", path.name)))
                found.setdefault(plain, set()).add(data)
                before = numbers.setdefault(path.stat().st_ino, data)
                assert before == data, f"{path}: two files under one number"
        return found

    def compare(self) -> None:
        expected = self.expected()
        try:
            eventually(lambda: self.shown() == expected, "everything shows", 10)
        except AssertionError as error:
            shown = self.shown()
            wrong = {path: (shown.get(path), expected.get(path)) for path in {*shown, *expected}}
            wrong = {path: pair for path, pair in wrong.items() if pair[0] != pair[1]}
            raise AssertionError("\n".join([*self.history[-40:], f"(shown, there): {wrong}"])) from error


def everything_shows(library: Mounted, steps: int, seed: int) -> None:
    print(f"seed {seed}")
    behind = Behind(library, seed)
    for _ in range(steps):
        behind.step()
        behind.compare()
        if behind.dice.random() < 0.2:
            behind.library.wait_idle()  # what is known to be the same becomes one file
            behind.compare()
    library.wait_idle()
    behind.compare()
    library.verify("--content")


def test_everything_shows(library):
    everything_shows(library, 50, 20260101)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_everything_shows_for_long(library):
    everything_shows(library, 800, int(os.environ.get("SDMOUNT_SEED", "7")))
