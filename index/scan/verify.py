"""Verification: rows against disk by code of its own, shared with no scanner, so that it can find the scanner wrong.

It walks with os.walk's primitives, reads rows by plain SQL, compares name by name and reports; it mends nothing. A
difference may also be a change of this very moment: each is looked at again, a second later, before it is told.

Runs in a worker process, or in a thread where none runs. It reads through apsw like everybody: a second SQLite in one
process (the standard library's) takes the first one's locks away when it closes a file (sqlite.org/howtocorrupt.html,
2.2.1), and the next to close the database then cuts the log under everybody's feet.
"""

import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import apsw
from blake3 import blake3

from index.store.connection import connect

#: (path, kind of difference, what is on which side)
Found = tuple[bytes, str, str]

#: How long a difference must last: changes behind the mount are taken in within this time.
SETTLE_S = 1.0

_ROW = (
    "SELECT e.id, e.name, e.kind, e.size_bytes, e.mtime_ns, e.mode, e.st_ino, e.nlink, e.hash_state, c.full "
    "FROM entry e LEFT JOIN content c ON c.id = e.content_id WHERE e.parent_id = ?"
)


class _Name(NamedTuple):
    """A name that looked different: the row of its directory, itself, where it is."""

    parent_id: int
    name: bytes
    path: bytes


def differences(
    database: Path, branch_id: int, root: bytes, excluded: Mapping[bytes, Any], content: bool
) -> Iterator[tuple[int, list[Found]]]:
    """(entries compared, differences that last) of one branch, piece by piece; many pieces have nothing to tell."""
    db = connect(database, read_only=True)
    try:
        (root_id,) = next(db.execute("SELECT root_entry_id FROM branch WHERE id=?", (branch_id,)))
        suspects: list[_Name] = []
        todo: list[tuple[int, bytes, Any]] = [(root_id, root, excluded)]
        while todo:
            entry_id, path, hidden = todo.pop()
            try:
                names = [os.fsencode(n) for n in os.listdir(os.fsdecode(path))]
            except FileNotFoundError:
                continue  # it went a moment ago: its own name is among the suspects, if its row is still there
            except OSError as error:
                yield 0, [(path, "unreadable", str(error.strerror))]
                continue
            rows = {bytes(r[1]): r for r in db.execute(_ROW, (entry_id,))}
            checked = 0
            for name in names:
                below = hidden.get(name) if isinstance(hidden, Mapping) else None
                row = rows.pop(name, None)
                if below is True:
                    continue
                checked += 1
                one = _Name(entry_id, name, path + b"/" + name)
                if _compare(row, one.path, content):
                    suspects.append(one)
                elif row is not None and row[2] == 1:
                    todo.append((row[0], one.path, below))
            suspects.extend(_Name(entry_id, name, path + b"/" + name) for name in rows)
            yield checked, []
        if suspects:
            time.sleep(SETTLE_S)
        for one in suspects:
            yield 0, [(one.path, kind, detail) for kind, detail in _again(db, one, content)]
    finally:
        db.close()


def _again(db: apsw.Connection, one: _Name, content: bool) -> list[tuple[str, str]]:
    row = next(iter(db.execute(f"{_ROW} AND e.name = ?", (one.parent_id, one.name))), None)
    return _compare(row, one.path, content)


def _compare(row: tuple[Any, ...] | None, path: bytes, content: bool) -> list[tuple[str, str]]:
    """(kind, detail) of what differs between the row of a name, or its lack, and the disk."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return [] if row is None else [("extra", "in the index, not on disk")]
    if row is None:
        return [("missing", "on disk, not in the index")]
    _, _, kind, size, mtime_ns, mode, st_ino, nlink, hash_state, full = row
    out: list[tuple[str, str]] = []
    real = 1 if stat.S_ISDIR(st.st_mode) else 0 if stat.S_ISREG(st.st_mode) else 2 if stat.S_ISLNK(st.st_mode) else 3
    if real != kind:
        return [("kind", f"disk {real}, index {kind}")]
    if kind != 1:
        out.extend(
            (what, f"disk {on_disk}, index {in_index}")
            for what, on_disk, in_index in (
                ("size", st.st_size, size), ("mtime", st.st_mtime_ns, mtime_ns), ("links", st.st_nlink, nlink),
            )
            if on_disk != in_index
        )  # fmt: skip
    out.extend(
        (what, f"disk {on_disk}, index {in_index}")
        for what, on_disk, in_index in (("mode", st.st_mode, mode), ("inode", st.st_ino, st_ino))
        if on_disk != in_index
    )
    if content and kind == 0 and hash_state == 2 and st.st_size and full is not None:
        digest = blake3()
        try:
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
        except OSError as error:
            return [*out, ("unreadable", str(error.strerror))]
        if digest.digest() != bytes(full):
            out.append(("content", f"disk {digest.hexdigest()[:16]}…, index {bytes(full).hex()[:16]}…"))
    return out


class Emitter(Protocol):
    """What it needs of a worker's context."""

    def emit(self, batch: object) -> None: ...

    def stopped(self) -> bool: ...


def verify(args: Mapping[str, Any], context: Emitter) -> None:
    """In a worker: streams [entries compared, differences]. args: database, branch, root, excluded, content."""
    checked = 0
    found: list[Found] = []
    sent_s = time.monotonic()
    pieces = differences(Path(args["database"]), args["branch"], args["root"], args["excluded"], args["content"])
    for count, more in pieces:
        if context.stopped():
            return
        checked += count
        found += more
        if len(found) >= 200 or time.monotonic() - sent_s > 0.2:
            context.emit([checked, found])
            checked, found, sent_s = 0, [], time.monotonic()
    context.emit([checked, found])
