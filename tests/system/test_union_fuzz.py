"""A union is a directory: random operations give what they give in a plain one, wherever the branches hold what.

Each operation is done through the mount and on a reference directory; the outcome (errno or bytes) and the whole trees
must be equal. Between operations files are moved from branch to branch behind the mount, or copied to the other
branch, which must not be seen: the union says the same as before.
"""

import ctypes
import os
import random
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.harness import Mounted, errno_of, eventually, tree

NAMES = ("a", "b", "c.txt", "d")
EXCHANGE, NOREPLACE = 2, 1
RENAMEAT2 = ctypes.CDLL(None, use_errno=True).renameat2


def rename2(one: Path, other: Path, flags: int) -> None:
    if RENAMEAT2(-100, os.fsencode(one), -100, os.fsencode(other), flags) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


class Fuzzer:
    """The union, its two branches, the reference, and a die."""

    def __init__(self, library: Mounted, seed: int) -> None:
        self.library = library
        self.dice = random.Random(seed)
        self.a, self.b = library.folder("a", "Docs"), library.folder("b", "Docs")
        self.reference = library.base / "reference"
        self.reference.mkdir()
        self.history: list[str] = []
        self.before: object = None
        library.mount(self.a)
        library.sd("location", "add", self.b, "--name", "Docs")
        self.mnt = library.mnt / "Docs"

    def path(self) -> str:
        """Mostly something that is there, or a new name beside it."""
        found = [os.path.relpath(os.path.join(d, n), self.reference)
                 for d, dirs, files in os.walk(self.reference) for n in (*dirs, *files)]  # fmt: skip
        if found and self.dice.random() < 0.6:
            return self.dice.choice(sorted(found))
        directories = [p for p in found if (self.reference / p).is_dir()]
        above = self.dice.choice(["", *sorted(directories)])
        return os.path.join(above, self.dice.choice(NAMES)) if above.count("/") < 3 else above

    def step(self, number: int) -> None:
        """One operation on both sides, then the same outcome."""
        one, other = self.path(), self.path()
        data = b"%d " % number * self.dice.choice((0, 1, 5, 2000))
        offset = self.dice.choice((0, 3, 5000))
        operations: dict[str, tuple[int, Callable[[Path], object]]] = {
            "mkdir": (4, lambda top: os.mkdir(top / one)),
            "write": (6, lambda top: self.write(top / one, data, offset)),
            "replace": (3, lambda top: (top / one).write_bytes(data)),
            "create": (3, lambda top: os.close(os.open(top / one, os.O_CREAT | os.O_EXCL | os.O_WRONLY))),
            "append": (2, lambda top: self.append(top / one, data)),
            "truncate": (1, lambda top: os.truncate(top / one, offset)),
            "unlink": (3, lambda top: os.unlink(top / one)),
            "rmdir": (3, lambda top: os.rmdir(top / one)),
            "rename": (8, lambda top: os.rename(top / one, top / other)),
            "noreplace": (1, lambda top: rename2(top / one, top / other, NOREPLACE)),
            "exchange": (2, lambda top: rename2(top / one, top / other, EXCHANGE)),
            "save": (3, lambda top: self.save(top / one, data)),
            "symlink": (1, lambda top: os.symlink("a/b", top / one)),
            "chmod": (1, lambda top: os.chmod(top / one, 0o600 + number % 64, follow_symlinks=True)),
            "read": (3, lambda top: (top / one).read_bytes()),
            "list": (2, lambda top: sorted(os.listdir(top / one))),
            "rmtree": (1, lambda top: shutil.rmtree(top / one)),
        }  # fmt: skip
        (kind,) = self.dice.choices(list(operations), [weight for weight, _ in operations.values()])
        self.history.append(f"{number}: {kind} {one!r} {other!r} {len(data)} bytes at {offset}")
        act = operations[kind][1]
        self.before = self.sides()
        expected, got = self.outcome(act, self.reference), self.outcome(act, self.mnt)
        assert got == expected, self.story(f"{got} instead of {expected}")

    @staticmethod
    def outcome(act: Callable[[Path], object], top: Path) -> object:
        result: object = None

        def call() -> None:
            nonlocal result
            result = act(top)

        return errno_of(call) or result

    @staticmethod
    def write(path: Path, data: bytes, offset: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    @staticmethod
    def append(path: Path, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    @staticmethod
    def save(path: Path, data: bytes) -> None:
        temporary = path.with_name(".save")
        try:
            temporary.write_bytes(data)
            os.rename(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def shift(self, number: int) -> None:
        """Move a file, or copy it, to the same place on the other branch; nothing may be seen of it."""
        here, there = self.dice.sample((self.a, self.b), 2)
        files = sorted(p for p in here.rglob("*") if p.is_file() and not p.is_symlink())
        files = [p for p in files if not os.path.lexists(there / p.relative_to(here))]
        # Older versions that are hidden stay where they are: alone on their branch they would be shown.
        files = [p for p in files if (self.reference / p.relative_to(here)).is_file()]
        if not files:
            return
        path = self.dice.choice(files)
        target = there / path.relative_to(here)
        for above in reversed(target.relative_to(there).parents):
            like = here / above
            if not (there / above).exists():
                (there / above).mkdir(mode=like.stat().st_mode & 0o7777)
        copy = self.dice.random() < 0.4
        what = "copy" if copy else "move"
        self.history.append(f"{number}: {what} {path.relative_to(here)} {here.parent.name}->{there.parent.name}")
        if copy:
            shutil.copy2(path, there / "copying")
            os.rename(there / "copying", target)
            self.until_known(target)
            self.library.wait_idle()
        else:
            os.rename(path, target)
            self.until_known(target)

    def until_known(self, target: Path) -> None:
        try:
            eventually(lambda: self.knows(target), "it is known", 10)
        except AssertionError as error:
            raise AssertionError(self.story(f"{target}: {error}")) from error

    def knows(self, target: Path) -> bool:
        shown = self.mnt / target.relative_to(self.a if target.is_relative_to(self.a) else self.b)
        return os.fsencode(target) in os.getxattr(shown, "user.vdfs.allpaths").split(b"\0")

    def compare(self) -> None:
        expected = tree(self.reference)
        got = tree(self.mnt)
        assert got.keys() == expected.keys(), self.story(
            f"names: too many {sorted(got.keys() - expected.keys())}, too few {sorted(expected.keys() - got.keys())}"
        )
        wrong = [name for name in expected if got[name] != expected[name]]
        assert not wrong, self.story(f"different: {wrong}")
        for name in expected:
            ours, theirs = os.lstat(self.mnt / name), os.lstat(self.reference / name)
            assert ours.st_mode == theirs.st_mode, self.story(f"{name}: mode {ours.st_mode:o}, not {theirs.st_mode:o}")

    def story(self, what: str) -> str:
        lines = "\n".join(self.history[-60:])
        shown = []
        for name in sorted(os.listdir(self.mnt)):
            for attribute in ("allpaths", "version", "conflict"):
                try:
                    shown.append(f"{name}: {attribute} {os.getxattr(self.mnt / name, f'user.vdfs.{attribute}')!r}")
                except OSError:
                    continue
        told = "\n".join(shown)
        return f"{what}\nafter\n{lines}\non the disk before: {self.before}\nafter: {self.sides()}\nat the top:\n{told}"

    def sides(self) -> dict[str, dict[str, int]]:
        """Every file of each branch with its size."""
        return {
            top.parent.name: {str(p.relative_to(top)): p.lstat().st_size for p in sorted(top.rglob("*"))}
            for top in (self.a, self.b)
        }


def is_a_directory(library: Mounted, operations: int, seed: int) -> None:
    print(f"seed {seed}")
    fuzzer = Fuzzer(library, seed)
    for number in range(operations):
        fuzzer.step(number)
        if number % 5 == 4:
            fuzzer.compare()
        if number % 15 == 14:
            fuzzer.shift(number)
            fuzzer.compare()
    library.wait_idle()
    fuzzer.compare()
    library.verify("--content")
    library.kill()
    library.mount()
    fuzzer.compare()
    library.wait_idle()
    fuzzer.compare()
    library.verify("--content")


def test_a_union_is_a_directory(library):
    is_a_directory(library, 250, secrets.randbelow(1 << 32))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_union_is_a_directory_for_long(library):
    is_a_directory(library, 8000, secrets.randbelow(1 << 32))
