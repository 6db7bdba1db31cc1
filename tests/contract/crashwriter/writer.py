"""One writer process: change files, note each acknowledged change, stop when the tree dies under it.

Every writer works on names of its own, half of them in a directory it shares with the others, so its view
of them is complete and what it was promised is known exactly. ``fsync`` and ``close`` both acknowledge: a
file is written and either synced or only closed before the note. After each operation the writer looks at
the file as any program would and notes inode number and modification time: they must come back too. Kept
out: any wait or retry; the first sign of a dead tree (ENOTCONN, EIO and the like) ends the writer with that
operation in flight.
"""

import errno
import os
import random
import time
from pathlib import Path
from typing import Any

from .journal import Chunks, Journal, State, chunk, content, digest

DEATHS = frozenset((errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV, errno.ESHUTDOWN))
SHARED = "shared"
LENGTHS = (0, 1, 100, 4096, 5000, 20_000, 70_000)
TAG_NAME, COMMENT_NAME = "user.xdg.tags", "user.comment"
FILES_MAX, SIZE_MAX = 40, 400_000
WEIGHTS = {
    "create_sync": 3, "create_close": 3, "append_sync": 3, "append_close": 3, "save": 5, "rename": 2, "replace": 1,
    "unlink": 2, "mkdir": 1, "rmdir": 1, "tag": 4, "comment": 2, "untag": 1, "reread": 1,
}  # fmt: skip


class WrongAnswer(Exception):
    """The living tree showed something else than what it acknowledged; the text says what."""


class Writer:
    """The workload of one process; ``run`` returns why it ended: ``time`` or the symbol of an errno."""

    def __init__(self, tree: Path, journal: Journal, name: str) -> None:
        self.name = name
        self._tree = tree
        self._journal = journal
        self._chance = random.Random(name)
        self._files: dict[str, State] = {}
        self._directories: list[str] = []
        self._count = 0

    def run(self, end_s: float) -> str:
        """Work until the time is over or the tree dies; raises WrongAnswer, or OSError for any other errno."""
        try:
            self._do("mkdir", self.name)
            while time.monotonic() < end_s:
                self._do(*self._choose())
        except OSError as error:
            if error.errno in DEATHS:
                return errno.errorcode[error.errno]
            if error.errno == errno.ENOENT and not os.path.lexists(self._tree / SHARED):
                return "unmounted"
            raise
        return "time"

    # -- choosing ----------------------------------------------------------------------------------

    def _choose(self) -> tuple[str, str]:
        """The next operation and the path it is about."""
        kind = self._chance.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        if kind.startswith("create") and len(self._files) >= FILES_MAX:
            kind = "unlink"
        if kind.startswith("create"):
            return kind, self._fresh("file")
        if kind == "mkdir":
            return (kind, self._fresh("dir")) if len(self._directories) < 6 else ("create_close", self._fresh("file"))
        if kind == "rmdir":
            empty = [path for path in self._directories[1:] if not self._holds(path)]
            return (kind, self._chance.choice(empty)) if empty else ("create_close", self._fresh("file"))
        if not self._files:
            return "create_sync", self._fresh("file")
        path = self._chance.choice(sorted(self._files))
        if kind.startswith("append") and len(content(self.name, self._files[path]["chunks"])) > SIZE_MAX:
            kind = "save"
        return kind, path

    def _fresh(self, word: str) -> str:
        """A name nobody ever used, in a directory of its own or the shared one."""
        place = self._chance.choice([SHARED, *self._directories])
        return f"{place}/{self.name}-{word}-{self._count + 1}"

    def _holds(self, directory: str) -> bool:
        prefix = f"{directory}/"
        return any(path.startswith(prefix) for path in (*self._files, *self._directories))

    # -- doing -------------------------------------------------------------------------------------

    def _do(self, kind: str, path: str) -> None:
        """Note the beginning, do it, note the acknowledgement with the states it leaves."""
        self._count += 1
        arguments: dict[str, Any] = {}
        if kind.startswith(("create", "append")) or kind == "save":
            arguments["length"] = self._chance.choice(LENGTHS)
        if kind == "save":
            arguments["temporary"] = f"{path}.tmp"
        elif kind == "rename":
            arguments["to"] = self._fresh("moved")
        elif kind == "replace":
            others = sorted(self._files.keys() - {path})
            arguments["to"] = self._chance.choice(others) if others else self._fresh("moved")
        elif kind in ("tag", "comment"):
            arguments["name"] = TAG_NAME if kind == "tag" else COMMENT_NAME
            arguments["value"] = self._value(kind).hex()
        elif kind == "untag":
            arguments["name"] = TAG_NAME
        self._journal.append(writer=self.name, n=self._count, phase="begin", op=kind, path=path, **arguments)
        states = self._act(kind, path, arguments)
        self._journal.append(writer=self.name, n=self._count, phase="ack", op=kind, states=states)
        for changed, state in states.items():
            self._remember(changed, state)

    def _value(self, kind: str) -> bytes:
        words = [f"{kind}{self._chance.randrange(1000)}é" for _ in range(self._chance.randrange(1, 5))]
        return ",".join(dict.fromkeys(words)).encode()

    def _remember(self, path: str, state: State | None) -> None:
        self._files.pop(path, None)
        if path in self._directories:
            self._directories.remove(path)
        if state and state["kind"] == "dir":
            self._directories.append(path)
        elif state:
            self._files[path] = state

    def _act(self, kind: str, path: str, arguments: dict[str, Any]) -> dict[str, State | None]:
        """Do it; the states of all paths it changed."""
        target = self._tree / path
        if kind.startswith(("create", "append")):
            return {path: self._write(path, kind, arguments["length"])}
        match kind:
            case "save":
                return {path: self._save(path, arguments["temporary"], arguments["length"])}
            case "rename" | "replace":
                os.rename(target, self._tree / arguments["to"])
                moved = self._look(arguments["to"], self._files[path]["chunks"])
                return {path: None, arguments["to"]: moved}
            case "unlink":
                os.unlink(target)
                return {path: None}
            case "mkdir":
                os.mkdir(target)
                return {path: {"kind": "dir"}}
            case "rmdir":
                os.rmdir(target)
                return {path: None}
            case "tag" | "comment":
                os.setxattr(target, arguments["name"], bytes.fromhex(arguments["value"]))
            case "untag" if arguments["name"] in self._files[path]["xattrs"]:
                os.removexattr(target, arguments["name"])
            case "reread":
                self._reread(path)
        return {path: self._look(path, self._files[path]["chunks"])}

    def _write(self, path: str, kind: str, length: int) -> State:
        chunks: Chunks = self._files[path]["chunks"] if kind.startswith("append") else []
        flags = os.O_WRONLY | (os.O_APPEND if kind.startswith("append") else os.O_CREAT | os.O_EXCL)
        self._put(path, flags, length, sync=kind.endswith("sync"))
        return self._look(path, [*chunks, [self._count, length]])

    def _save(self, path: str, temporary: str, length: int) -> State:
        """As editors do; with fsync every other time, since close alone is a promise here too."""
        self._put(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, length, sync=self._count % 2 == 0)
        os.rename(self._tree / temporary, self._tree / path)
        return self._look(path, [[self._count, length]])

    def _put(self, path: str, flags: int, length: int, *, sync: bool) -> None:
        fd = os.open(self._tree / path, flags, 0o644)
        try:
            view = memoryview(chunk(self.name, self._count, length))
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _look(self, path: str, chunks: Chunks) -> State:
        """The state as the tree shows it now; that its size and attributes are right is checked at once."""
        data, target = content(self.name, chunks), self._tree / path
        status = os.lstat(target)
        if status.st_size != len(data):
            raise WrongAnswer(f"{path} has {status.st_size} bytes after {len(data)} were acknowledged")
        xattrs = {
            name: os.getxattr(target, name).hex() for name in (TAG_NAME, COMMENT_NAME) if name in os.listxattr(target)
        }
        return {
            "kind": "file",
            "chunks": chunks,
            "blake2": digest(data),
            "xattrs": xattrs,
            "inode": status.st_ino,
            "mtime_ns": status.st_mtime_ns,
        }

    def _reread(self, path: str) -> None:
        state = self._files[path]
        if digest((self._tree / path).read_bytes()) != state["blake2"]:
            raise WrongAnswer(f"{path} reads back other bytes than were acknowledged")
        if self._look(path, state["chunks"])["xattrs"] != state["xattrs"]:
            raise WrongAnswer(f"{path} shows other attributes than were acknowledged")
