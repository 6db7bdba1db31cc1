"""Verification: rows against disk by code of its own, shared with no scanner, so that it can find the scanner wrong.

It walks with os.walk's primitives, reads rows by plain SQL, compares name by name and reports; it mends nothing. A
difference may also be a change of this very moment: each is looked at a second time before it is told.
"""

import os
import sqlite3
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

Found = tuple[bytes, str, str]

_SQL = (
    "SELECT e.id, e.name, e.kind, e.size_bytes, e.mtime_ns, e.mode, e.st_ino, e.nlink, e.hash_state, c.full "
    "FROM entry e LEFT JOIN content c ON c.id = e.content_id WHERE e.parent_id = ?"
)


def verify_branch(
    database: Path, branch_id: int, root: bytes, excluded: Mapping[bytes, Any], content: bool
) -> tuple[int, list[Found]]:
    """(entries compared, differences as (path, kind, detail)) of one branch."""
    db = sqlite3.connect(f"file:{_quoted(database)}?mode=ro", uri=True)
    db.text_factory = bytes
    try:
        (root_id,) = db.execute("SELECT root_entry_id FROM branch WHERE id=?", (branch_id,)).fetchone()
        return _compare(db, root_id, root, excluded, content)
    finally:
        db.close()


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _compare(
    db: sqlite3.Connection, root_id: int, root: bytes, excluded: Mapping[bytes, Any], content: bool
) -> tuple[int, list[Found]]:
    checked = 0
    found: list[Found] = []
    todo: list[tuple[int, bytes, Any]] = [(root_id, root, excluded)]
    while todo:
        entry_id, path, hidden = todo.pop()
        rows = {bytes(r[1]): r for r in db.execute(_SQL, (entry_id,))}
        try:
            names = [os.fsencode(n) for n in os.listdir(os.fsdecode(path))]
        except OSError as error:
            found.append((path, "unreadable", str(error.strerror)))
            continue
        for name in names:
            below = hidden.get(name) if isinstance(hidden, Mapping) else None
            if below is True:
                rows.pop(name, None)
                continue
            full_path = path + b"/" + name
            row = rows.pop(name, None)
            try:
                st = os.lstat(full_path)
            except FileNotFoundError:
                continue
            checked += 1
            if row is None:
                found.append((full_path, "missing", "on disk, not in the index"))
                continue
            found.extend((full_path, kind, detail) for kind, detail in _differences(row, st, full_path, content))
            if stat.S_ISDIR(st.st_mode) and row[2] == 1:
                todo.append((row[0], full_path, below))
        gone = [path + b"/" + name for name in rows]
        found.extend((p, "extra", "in the index, not on disk") for p in gone if not os.path.lexists(p))
    return checked, found


def _differences(row: tuple[Any, ...], st: os.stat_result, path: bytes, content: bool) -> list[tuple[str, str]]:
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
