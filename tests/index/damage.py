"""Damage to a database file, page by page, and what is left in it; which page holds what SQLite says (its table
dbstat)."""

from pathlib import Path
from typing import Any

import apsw

from index.store.connection import connect

PAGE = 4096


def pages_of(path: Path, name: str, kind: str = "leaf") -> list[int]:
    """The pages of a table or an index."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = db.execute("SELECT pageno FROM dbstat WHERE name=? AND pagetype=? ORDER BY pageno", (name, kind))
        return [int(row[0]) for row in found]
    finally:
        db.close()


def overwrite(path: Path, page: int, data: bytes = b"\xa5" * PAGE) -> None:
    overwrite_at(path, (page - 1) * PAGE, data)


def overwrite_at(path: Path, at: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def rows(path: Path, sql: str) -> set[tuple[Any, ...]]:
    db = connect(path, read_only=True)
    try:
        return {tuple(row) for row in db.execute(sql)}
    finally:
        db.close()
