"""Which operation comes next: chance with a seed, steered so that names collide and the tree stays small.

In: the seed and the names the reference holds. Out: operations, the same for the same seed. Small pools of
names and sizes around page and block limits make collisions, and collisions are where caches go wrong.
"""

import os
import random
import stat
from collections.abc import Collection
from typing import Any

from .operations import BRANCH, EXCHANGE, MOUNT, NOREPLACE, Operation

NAMES = (
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"A",
    b".hidden",
    b"-dash",
    b"sp ace",
    b"new\nline",
    b"\xff\xfe",
    "é".encode(),
    "e\u0301".encode(),
    b"n" * 255,
)
SIZES = (0, 1, 10, 100, 511, 4095, 4096, 4097, 9000, 65_536, 131_072, 140_001)
OFFSETS = (0, 0, 0, 1, 100, 4090, 4096, 70_000, 131_000, 200_001)
ATTRIBUTES = (b"user.a", b"user.note", b"user.xdg.tags", b"user.xdg.comment")
TEXTS = (b"x", b"holiday,2019", "Größe,été 🎉".encode(), b"b,a", b"2019,holiday")  # as desktops write them
VALUES = (*TEXTS, b"", b"\0\xff" * 20, b"v" * 300)
FILE_MODES = (0o644, 0o600, 0o640, 0o755, 0o444, 0o666)
DIR_MODES = (0o755, 0o700, 0o775)
DEPTH_MAX, ENTRIES_MAX, HANDLES_MAX = 4, 90, 8

# How often each kind is tried; makers become rarer and removers more frequent as the tree fills.
WEIGHTS = {
    "create": 10, "overwrite": 6, "write": 8, "append": 8, "truncate": 5, "mmap": 5, "save": 6, "rename": 10,
    "noreplace": 2, "exchange": 3, "link": 5, "symlink": 4, "mkdir": 7, "mkfifo": 1, "rmdir": 3, "unlink": 8,
    "chmod": 4, "utimens": 5, "setxattr": 6, "removexattr": 3, "hold": 5, "held_write": 7, "held_truncate": 2,
    "held_read": 7, "held_close": 3,
}  # fmt: skip
_MAKERS = ("create", "mkdir", "link", "symlink", "mkfifo", "overwrite")


class Chooser:
    """Draws operations; ``entries`` maps the names the reference holds to (inode, kind)."""

    def __init__(self, seed: int, behind_share: float, without: Collection[str]) -> None:
        self.chance = random.Random(seed)
        self._behind_share = behind_share
        self._weights = {kind: weight for kind, weight in WEIGHTS.items() if kind not in without}
        self._next_handle = 1
        self._handles: dict[int, str] = {}

    def draw(self, number: int, entries: dict[bytes, tuple[int, int]]) -> Operation:
        """The next operation."""
        kind = self._kind(entries)
        side = BRANCH if self.chance.random() < self._behind_share else MOUNT
        if kind.startswith("held_"):
            return self._with_handle(number, kind)
        paths: tuple[bytes, ...] = (self._path(entries, existing=kind not in _MAKERS),)
        if kind in ("rename", "noreplace", "exchange", "link"):
            paths = (self._path(entries, existing=True), self._path(entries, existing=kind == "exchange"))
        elif kind == "save":
            paths = (paths[0], os.path.join(os.path.dirname(paths[0]), b".save.tmp"))
        if kind == "hold":
            handle = self._next_handle
            self._next_handle += 1
            flags = self.chance.choice((os.O_RDONLY, os.O_RDWR, os.O_RDWR, os.O_RDWR | os.O_APPEND))
            return Operation(number, kind, side, paths, handle, {"flags": flags})
        return Operation(number, kind, side, paths, 0, self._arguments(kind))

    def held(self, operation: Operation) -> None:
        """The descriptor of this operation is open now."""
        self._handles[operation.handle] = operation.side

    def released(self, handle: int) -> None:
        """That descriptor is closed."""
        self._handles.pop(handle, None)

    def some(self, names: Collection[bytes], count: int) -> list[bytes]:
        """A few of these names."""
        return self.chance.sample(sorted(names), min(count, len(names)))

    def absent(self, entries: dict[bytes, tuple[int, int]]) -> bytes:
        """A name that is not there, mostly one that could be."""
        while (path := self._path(entries, existing=False)) in entries:
            if self.chance.random() < 0.1:
                return os.path.join(os.path.dirname(path), b"never-%d" % self.chance.randrange(50))
        return path

    def _kind(self, entries: dict[bytes, tuple[int, int]]) -> str:
        full = len(entries) / ENTRIES_MAX
        weights = []
        for kind, weight in self._weights.items():
            if kind in _MAKERS:
                weights.append(weight * max(0.1, 1.3 - full))
            elif kind in ("unlink", "rmdir"):
                weights.append(weight * (0.3 + full))
            elif kind == "hold":
                weights.append(weight if len(self._handles) < HANDLES_MAX else 0)
            elif kind.startswith("held_"):
                weights.append(weight if self._handles else 0)
            else:
                weights.append(weight)
        return self.chance.choices(tuple(self._weights), weights)[0]

    def _path(self, entries: dict[bytes, tuple[int, int]], *, existing: bool) -> bytes:
        """A name that exists (mostly, when asked so), else one beside or below what exists."""
        if existing and entries and self.chance.random() < 0.93:
            return self.chance.choice(sorted(entries))
        directories = [name for name, (_, kind) in entries.items() if kind == stat.S_IFDIR]
        roomy = sorted(name for name in directories if name.count(b"/") < DEPTH_MAX - 1)
        draw = self.chance.random()
        parent = self.chance.choice(roomy) if roomy and draw < 0.75 else b"missing" if draw > 0.98 else b""
        return os.path.join(parent, self.chance.choice(NAMES))

    def _with_handle(self, number: int, kind: str) -> Operation:
        handle = self.chance.choice(sorted(self._handles))
        return Operation(number, kind, self._handles[handle], (), handle, self._arguments(kind))

    def _arguments(self, kind: str) -> dict[str, Any]:
        draw = self.chance.choice
        match kind:
            case "create" | "overwrite" | "write" | "append":
                flags = {
                    "create": os.O_CREAT | os.O_EXCL,
                    "overwrite": os.O_CREAT | os.O_TRUNC,
                    "write": 0,
                    "append": os.O_APPEND,
                }[kind]
                offset = draw(OFFSETS) if kind == "write" else 0
                return {
                    "flags": os.O_WRONLY | flags,
                    "mode": draw(FILE_MODES),
                    "offset": offset,
                    "data": self._data(),
                }
            case "mmap" | "held_write":
                return {"offset": draw(OFFSETS), "data": self._data() or b"x"}
            case "save":
                return {"data": self._data()}
            case "truncate":
                return {"size": draw(SIZES), "by_path": draw((True, False))}
            case "held_truncate":
                return {"size": draw(SIZES)}
            case "noreplace" | "exchange":
                return {"flags": NOREPLACE if kind == "noreplace" else EXCHANGE}
            case "symlink":
                return {"target": draw((b"a", b"../b", b"/nowhere", b"\xff", b"t" * 300))}
            case "mkdir":
                return {"mode": draw(DIR_MODES)}
            case "mkfifo" | "chmod":
                return {"mode": draw(FILE_MODES)}
            case "utimens":
                # Long past, so that a time set on purpose differs from one that a change left.
                return {"ns": tuple(self.chance.randrange(10**18, 12 * 10**17) for _ in range(2))}
            case "setxattr":
                name = draw(ATTRIBUTES)
                value = draw(TEXTS if name.startswith(b"user.xdg.") else VALUES)
                return {
                    "name": name,
                    "value": value,
                    "flags": draw((0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE)),
                }
            case "removexattr":
                return {"name": draw(ATTRIBUTES)}
            case _:
                return {}

    def _data(self) -> bytes:
        return self.chance.randbytes(self.chance.choice(SIZES))
