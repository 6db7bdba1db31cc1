"""Salvage: the rows of a damaged library in a fresh database, row by row, whatever page SQLite stumbles over.

In: a damaged file with its log, the empty place of a fresh one, and the last backup if there is one. Out: the fresh
database, with the newest schema and all rows that could be read; for each table what was lost. Nothing is mended here:
rows that point nowhere stay, for mend.py.

Where a page of a table is lost, its rows come back from three places, in this order: leaves that no page leads to any
more, where they look like rows of that table and no other; the indexes, which hold most of what identity needs (an
entry's id, name, directory, inode and uuid; which file has which tag); the backup. What is derived (sums, the notes of
the index of names) is not read at all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import attrs

from index.care.pages import Pages, Record, Value
from index.care.trees import Losses, Trees
from index.model.errors import VersionUnsupported
from index.store.migrations import SCHEMA_VERSION, create
from index.store.search import uri

#: Made anew from other tables.
DERIVED: Final = ("sums", "search_todo")
#: Local notes: a stale row of these would do harm, a lost one does none.
_NOTES: Final = ("mirror", "mirror_state", "limbo", "ruling", "journal", "detached")
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "INTEGER": (int,), "TEXT": (str,), "BLOB": (bytes,), "ANY": (int, float, str, bytes),
}  # fmt: skip
#: What is not known of a row that comes back from the indexes. Of an entry the next look at the disk says it; of a tag
#: it is when it was added, by which those of one file are ordered.
_UNKNOWN: Final[dict[str, dict[str, Value]]] = {
    "entry": {
        "kind": 0, "mode": 0o100600, "size_bytes": 0, "mtime_ns": 0, "ctime_ns": 0, "nlink": 1, "uid": 0, "gid": 0,
        "seq": 0, "rule": 0,
    },
    "tagging": {"hlc": 0, "part": 0},
}  # fmt: skip
#: What it says of a row that an index has it at all.
_SAYS: Final[dict[str, dict[str, Value]]] = {"entry_dirs": {"kind": 1, "mode": 0o40700}}


@attrs.frozen
class Column:
    """A column as rows of the file are held against it."""

    name: str
    types: tuple[type, ...]
    may_lack: bool  # NULL, or not in rows that are older than the column


@attrs.frozen
class Table:
    """A table of the fresh database."""

    name: str
    columns: tuple[Column, ...]
    has_rowids: bool
    rowid_at: int | None  # which column is the rowid
    short: int  # how many columns its oldest rows have
    keys: tuple[str, ...]  # the columns that tell its rows apart, and that its indexes end with; none: a hidden number

    def fits(self, record: Record) -> bool:
        """Whether a record can be one of its rows."""
        if not self.short <= len(record) <= len(self.columns):
            return False
        return all(
            column.may_lack or at == self.rowid_at if value is None else type(value) in column.types
            for at, (column, value) in enumerate(zip(self.columns, record, strict=False))
        )

    def row(self, rowid: int | None, record: Record) -> Record:
        """A record with its rowid in it."""
        if self.rowid_at is None:
            return record
        return (*record[: self.rowid_at], rowid, *record[self.rowid_at + 1 :])


class _Index(NamedTuple):
    """What could be read of an index: its columns, the key of the table among them, and its records."""

    name: str
    columns: tuple[str, ...]
    records: list[Record]


@attrs.define
class Saved:
    """What became of one table."""

    losses: Losses
    read: int = 0
    strays: int = 0  # from leaves that nothing led to
    indexed: int = 0  # from indexes
    backup: int = 0

    @property
    def found(self) -> int:
        """Rows that came from the damaged file."""
        return self.read + self.strays + self.indexed


def salvage(damaged: Path, fresh: Path, backup: Path | None) -> dict[str, Saved]:
    """Bring the rows over. VersionUnsupported for a file of another schema; what it could not read is in the result."""
    pages = Pages(damaged)
    db = apsw.Connection(str(fresh), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI)
    try:
        if pages.version not in (0, SCHEMA_VERSION):
            raise VersionUnsupported(
                f"{damaged} is damaged and has schema version {pages.version}, this program saves version "
                f"{SCHEMA_VERSION}; use the sdmount that wrote it"
            )
        db.pragma("synchronous", 0)
        db.pragma("journal_mode", "off")
        db.pragma("cache_size", -64_000)
        with db:
            create(db)
        return _Salvage(db, Trees(pages), backup).run()
    finally:
        db.close()
        pages.close()


class _Salvage:
    def __init__(self, db: apsw.Connection, trees: Trees, backup: Path | None) -> None:
        self._db = db
        self._trees = trees
        self._tables = {table.name: table for table in _tables(db) if table.name not in DERIVED}
        self._saved: dict[str, Saved] = {}
        self._has_backup = backup is not None and self._attach(backup)

    def run(self) -> dict[str, Saved]:
        with self._db:
            for table in self._tables.values():
                self._saved[table.name] = self._read(table)
            hurt = [self._tables[name] for name, saved in self._saved.items() if saved.losses]
            if hurt:
                indexes = self._indexes()  # before the strays: their pages are none
                self._take_strays([table for table in hurt if table.name not in _NOTES])
            for table in hurt:
                saved = self._saved[table.name]
                is_helped = self._has_backup and table.name not in _NOTES
                if is_helped and not table.has_rowids:  # of these an index knows less than the backup
                    saved.backup = self._from_backup(table)
                saved.indexed = self._from_indexes(table, indexes.get(table.name, []))
                if is_helped and table.has_rowids:
                    saved.backup = self._from_backup(table)
        return self._saved

    def _read(self, table: Table) -> Saved:
        saved = Saved(Losses())
        declared = self._trees.declared.get(table.name)
        if declared is None:
            saved.losses.pages += 1
            return saved

        def rows() -> Iterator[Record]:
            for cell in self._trees.cells(declared.root, rows=table.has_rowids, losses=saved.losses):
                if cell.record is not None and table.fits(cell.record):
                    yield table.row(cell.rowid, cell.record)
                else:
                    saved.losses.cells += 1

        saved.read = self._insert(table, rows())
        return saved

    def _insert(self, table: Table, rows: Iterator[Record]) -> int:
        """Put rows in that are not there; returns how many. A counter that is there is raised."""
        before = self._db.total_changes()
        statements: dict[int, str] = {}
        how = "OR REPLACE" if table.name == "counter" else "OR IGNORE"
        for row in rows:
            sql = statements.get(len(row))
            if sql is None:
                names = ", ".join(column.name for column in table.columns[: len(row)])
                places = ", ".join("?" * len(row))
                sql = statements[len(row)] = f"INSERT {how} INTO {table.name}({names}) VALUES({places})"
            self._db.execute(sql, row)
        return self._db.total_changes() - before

    def _take_strays(self, tables: list[Table]) -> None:
        for cells in self._trees.unreached():
            claims = [
                table
                for table in tables
                if all(
                    cell.record is not None and (cell.rowid is not None) is table.has_rowids and table.fits(cell.record)
                    for cell in cells
                )
            ]
            if len(claims) == 1:
                table = claims[0]
                rows = (table.row(cell.rowid, cell.record) for cell in cells if cell.record is not None)
                self._saved[table.name].strays += self._insert(table, rows)

    def _indexes(self) -> dict[str, list[_Index]]:
        """The indexes of each table that lost rows. The others are gone through as well, so that no leaf of theirs is
        taken for a stray: last those whose name nobody knows, since it is damaged, and so may be where they begin."""
        whose: dict[str, str] = dict(self._db.execute("SELECT name, tbl_name FROM sqlite_master WHERE type='index'"))
        found: dict[str, list[_Index]] = {}
        declared_indexes = [one for one in self._trees.declared.values() if one.kind == "index"]
        for declared in sorted(declared_indexes, key=lambda one: one.name not in whose):
            table = self._tables.get(whose.get(declared.name, ""))
            is_wanted = table is not None and bool(self._saved[table.name].losses) and bool(table.keys)
            columns = self._columns(declared.name, table) if table is not None and is_wanted else ()
            records = [
                cell.record
                for cell in self._trees.cells(declared.root, rows=False, losses=Losses())
                if is_wanted and cell.record and len(cell.record) == len(columns)
            ]
            if table is not None and is_wanted:
                found.setdefault(table.name, []).append(_Index(declared.name, columns, records))
        return found

    def _columns(self, index: str, table: Table) -> tuple[str, ...]:
        """What an index has of a row: what it is ordered by, and the key of the table behind."""
        info = self._db.execute("SELECT name FROM pragma_index_xinfo(?) ORDER BY seqno", (index,))
        return tuple(table.keys[0] if name is None else str(name) for (name,) in info)

    def _from_indexes(self, table: Table, indexes: list[_Index]) -> int:
        """Rows that the indexes know enough of."""
        there = set(self._db.execute(f"SELECT {', '.join(table.keys)} FROM {table.name}")) if indexes else set()
        known: dict[Record, dict[str, Value]] = {}
        for index in indexes:
            more = _SAYS.get(index.name, {})
            for record in index.records:
                values: dict[str, Value] = dict(zip(index.columns, record, strict=True))
                key = tuple(values[name] for name in table.keys)
                if key not in there:
                    known.setdefault(key, {}).update({**values, **more})
        rows = []
        for key, one in known.items():
            one = {**_UNKNOWN.get(table.name, {}), **one}
            if table.name == "entry":  # its content is not taken from there: what it was worth is not known
                one = {"node": key[0], **one, "content_id": None, "hash_state": 0}
            row = tuple(one.get(column.name) for column in table.columns)
            if table.fits(row):
                rows.append(row)
        return self._insert(table, iter(rows))

    def _attach(self, backup: Path) -> bool:
        """Have the backup at hand as `kept`; says whether it is of use."""
        try:
            self._db.execute("ATTACH ? AS kept", (uri(backup, "ro"),))
            version: Any = self._db.pragma("user_version", schema="kept")
        except apsw.Error:
            return False
        return bool(version == SCHEMA_VERSION)

    def _from_backup(self, table: Table) -> int:
        """Rows of the backup that are not there."""
        before = self._db.total_changes()
        names = ", ".join(column.name for column in table.columns)
        if table.name == "counter":  # its numbers are of an earlier time
            kept = "SELECT k.value FROM kept.counter k WHERE k.name=counter.name"
            sql = f"UPDATE counter SET value=max(value, coalesce(({kept}), 0))"
        elif table.name == "entry":  # what it shared a number with may have another one by now
            names = names.replace("node", "CASE WHEN node IN (SELECT id FROM main.entry) THEN id ELSE node END")
            sql = f"INSERT OR IGNORE INTO main.entry SELECT {names} FROM kept.entry"
        else:
            sql = f"INSERT OR IGNORE INTO main.{table.name}({names}) SELECT {names} FROM kept.{table.name}"
        try:
            self._db.execute(sql)
        except apsw.CorruptError:
            return self._db.total_changes() - before
        return self._db.total_changes() - before


def _tables(db: apsw.Connection) -> list[Table]:
    """The tables of the fresh database, in the order they were made."""
    names: list[str] = [
        row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY rowid")
    ]
    without = {row[1] for row in db.execute("PRAGMA table_list") if row[4]}
    return [_table(db, name, has_rowids=name not in without) for name in names]


def _table(db: apsw.Connection, name: str, *, has_rowids: bool) -> Table:
    info: list[tuple[Any, ...]] = db.execute(f"PRAGMA table_info({name})").fetchall()
    columns = []
    for _, column, declared, not_null, default, key in info:
        columns.append(Column(column, _TYPES[declared], not (not_null or key) or default is not None))
    keys = [at for at, row in enumerate(info) if row[5]]
    is_rowid = has_rowids and len(keys) == 1 and info[keys[0]][2] == "INTEGER"
    short = len(info)
    while short > 1 and columns[short - 1].may_lack:
        short -= 1
    names = tuple(columns[at].name for at in keys) if is_rowid or not has_rowids else ()
    return Table(name, tuple(columns), has_rowids, keys[0] if is_rowid else None, short, names)
