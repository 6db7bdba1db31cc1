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
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from blake3 import blake3

from index.model.emitter import Emitter
from index.model.entry import is_name, ns
from index.model.inode import inode_of
from index.scan.verifysums import wrong_sums
from index.scan.volumes import MOUNTED, use_devices
from index.store import entries
from index.store.connection import connect

#: (path, kind of difference, what is on which side)
Found = tuple[bytes, str, str]

_EXTRA = ("extra", "in the index, not on disk")

#: How long a difference must last: changes behind the mount are taken in within this time.
SETTLE_S = 1.0

_ROW = (
    "SELECT e.id, e.name, e.kind, e.size_bytes, e.mtime_ns, e.mode, e.st_ino, e.nlink, e.hash_state, c.full "
    "FROM entry e LEFT JOIN content c ON c.id = e.content_id WHERE e.parent_id = ?"
)


class _Name(NamedTuple):
    """A name that looked different: the row of its directory, the names that lead there from the root, itself."""

    parent_id: int
    above: tuple[bytes, ...]
    name: bytes


def differences(
    database: Path, branch_id: int, root: bytes, excluded: Mapping[bytes, Any], content: bool
) -> Iterator[tuple[int, list[Found]]]:
    """(entries compared, differences that last) of one branch, piece by piece; many pieces have nothing to tell."""
    db = connect(database, read_only=True)
    try:
        (root_id,) = next(db.execute("SELECT root_entry_id FROM branch WHERE id=?", (branch_id,)))
        suspects: list[_Name] = []
        todo: list[tuple[int, tuple[bytes, ...], Any]] = [(root_id, (), excluded)]
        while todo:
            entry_id, above, hidden = todo.pop()
            try:
                with _directory(root, above) as fd:
                    names = [os.fsencode(n) for n in os.listdir(fd)]
                    rows = {bytes(r[1]): r for r in db.execute(_ROW, (entry_id,))}
                    checked = 0
                    for name in names:
                        below = hidden.get(name) if isinstance(hidden, Mapping) else None
                        row = rows.pop(name, None)
                        if below is True or below == MOUNTED:
                            continue
                        checked += 1
                        if _compare(row, fd, name, content):
                            suspects.append(_Name(entry_id, above, name))
                        elif row is not None and row[2] == 1:
                            todo.append((row[0], (*above, name), below))
            except (FileNotFoundError, NotADirectoryError) as error:
                if not above:  # it went while this began, or is another's
                    yield 0, [(root, "unreadable", str(error.strerror))]
                continue  # it went a moment ago: its own name is among the suspects, if its row is still there
            except OSError as error:
                yield 0, [(b"/".join((root, *above)), "unreadable", str(error.strerror))]
                continue
            suspects.extend(_Name(entry_id, above, name) for name in rows)
            yield checked, []
        mixed = _mixed_up(db, branch_id)
        if suspects or mixed:
            time.sleep(SETTLE_S)
        for row, detail in wrong_sums(db, branch_id):
            yield 0, [(b"/".join((root, *entries.path_of(db, row))), "aggregate", detail)]
        if mixed:
            still = _mixed_up(db, branch_id)
            yield 0, [(b"/".join((root, *entries.path_of(db, row))), *mixed[row]) for row in mixed if row in still]
        for one in suspects:
            path = b"/".join((root, *one.above, one.name))
            yield 0, [(path, kind, detail) for kind, detail in _again(db, root, one, content)]
    finally:
        db.close()


_SAME_NUMBER = """
SELECT e.id FROM entry e WHERE e.branch_id=? AND e.node<>e.id AND EXISTS (
  SELECT 1 FROM entry o WHERE ((o.id=e.node AND o.node=e.node) OR (o.node=e.node AND o.node<>o.id))
  AND o.branch_id=e.branch_id AND o.st_ino<>e.st_ino)"""
_SAME_UUID = """
SELECT e.uuid, e.id, e.branch_id, b.fs_id, e.st_ino, coalesce(p.node, 0), e.name FROM entry e
JOIN branch b ON b.id=e.branch_id LEFT JOIN entry p ON p.id=e.parent_id WHERE e.kind<>1 AND e.uid>=0 AND e.uuid IN (
  SELECT uuid FROM entry WHERE uuid IS NOT NULL AND uid>=0 GROUP BY uuid HAVING count(*) > 1) ORDER BY e.uuid, e.id"""


def _mixed_up(db: apsw.Connection, branch_id: int) -> dict[int, tuple[str, str]]:
    """Rows of a branch that go by what is another file's: a number there, or a uuid anywhere.

    Two rows are one file when they are names of one inode, or when several branches have them under one name.
    """
    wrong = {row: ("number", "that of another inode") for (row,) in db.execute(_SAME_NUMBER, (branch_id,))}
    for _, group in groupby(db.execute(_SAME_UUID), key=itemgetter(0)):
        files: list[tuple[set[tuple[Any, ...]], list[tuple[int, int]]]] = []  # what makes rows one, these rows
        for _, row, branch, fs_id, st_ino, above, name in group:
            marks = {("inode", fs_id, st_ino), ("name", above, name)}
            joined = [file for file in files if file[0] & marks]
            files = [file for file in files if not file[0] & marks]
            rows = [one for file in joined for one in file[1]]
            files.append((marks.union(*(file[0] for file in joined)), [*rows, (row, branch)]))
        files.sort(key=lambda file: min(file[1]))
        for _, rows in files[1:]:
            wrong.update({row: ("uuid", "that of another file") for row, branch in rows if branch == branch_id})
    return wrong


@contextmanager
def _directory(root: bytes, names: tuple[bytes, ...]) -> Iterator[int]:
    """A directory's descriptor, opened name by name: paths may be longer than the kernel takes."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in names:
            above, fd = fd, os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(above)
        yield fd
    finally:
        os.close(fd)


def _again(db: apsw.Connection, root: bytes, one: _Name, content: bool) -> list[tuple[str, str]]:
    row = next(iter(db.execute(f"{_ROW} AND e.name = ?", (one.parent_id, one.name))), None)
    try:
        with _directory(root, one.above) as fd:
            return _compare(row, fd, one.name, content)
    except (FileNotFoundError, NotADirectoryError):
        return [] if row is None else [_EXTRA]
    except OSError as error:
        return [("unreadable", str(error.strerror))]


def _compare(row: tuple[Any, ...] | None, fd: int, name: bytes, content: bool) -> list[tuple[str, str]]:
    """(kind, detail) of what differs between the row of a name, or its lack, and the disk."""
    try:
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return [] if row is None else [_EXTRA]
    if row is None:
        return [("missing", "on disk, not in the index")]
    if not is_name(name):
        return [_EXTRA]  # no listing has it
    _, _, kind, size, mtime_ns, mode, st_ino, nlink, hash_state, full = row
    out: list[tuple[str, str]] = []
    real = 1 if stat.S_ISDIR(st.st_mode) else 0 if stat.S_ISREG(st.st_mode) else 2 if stat.S_ISLNK(st.st_mode) else 3
    if real != kind:
        return [("kind", f"disk {real}, index {kind}")]
    if kind != 1:
        out.extend(
            (what, f"disk {on_disk}, index {in_index}")
            for what, on_disk, in_index in (
                ("size", st.st_size, size),
                ("mtime", ns(st.st_mtime_ns), mtime_ns),
                ("links", st.st_nlink, nlink),
            )
            if on_disk != in_index
        )  # fmt: skip
    out.extend(
        (what, f"disk {on_disk}, index {in_index}")
        for what, on_disk, in_index in (("mode", st.st_mode, mode), ("inode", inode_of(st), st_ino))
        if on_disk != in_index
    )
    if content and kind == 0 and hash_state == 2 and st.st_size and full is not None:
        try:
            digest = _hash(fd, name)
        except OSError as error:
            return [*out, ("unreadable", str(error.strerror))]
        if digest != bytes(full):
            out.append(("content", f"disk {digest.hex()[:16]}…, index {bytes(full).hex()[:16]}…"))
    return out


def _hash(fd: int, name: bytes) -> bytes:
    digest = blake3()
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd), "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.digest()


def verify(args: Mapping[str, Any], context: Emitter) -> None:
    """In a worker: streams [entries compared, differences].

    args: database, branch, root, excluded, content, devices (of branches' roots).
    """
    use_devices(*args["devices"])
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
