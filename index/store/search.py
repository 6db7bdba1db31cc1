"""The index of names: every name's trigrams, in a database of its own beside the library's, `search.db`.

In: rows of table entry, a slice of ids at a time, and what `search_todo` says has changed since. Out: the ids of names
that may contain a text; who asks holds each against the entry's present name, and looks at what is not indexed yet as
well, so an answer is exact whatever the index lags behind (index/store/finding.py).

Why a file of its own: it holds nothing that is not in the library, may be deleted at any time, and is written by a
worker while units write; its pages are in nobody's way when the library's log is synced. What ties the two together:

- ids of entries only grow, so whatever is above `indexed_id` is not indexed yet; making a row writes nothing for it.
- a row that goes, is renamed or comes back from limbo leaves a line in `search_todo`, by triggers, in the same unit.
  Lines are numbered without gaps. The index says up to which it has followed (`done_seq`); lines are dropped only
  after that, all but the last. So whoever finds lines missing between looks at two states that do not belong together.

The text of a name is `/`, the folded name, `//`: a slash is in no name, so beginnings and ends are trigrams as well.
Behind it stands the name once more with a gap between its characters, which makes a trigram of each pair of them and of
each single one, and last a sign that the name shares with few others, for who asks for a whole name.
Source: https://sqlite.org/fts5.html (trigram tokenizer, contentless-delete tables, fts5vocab).
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

import apsw

from index.model.emitter import Emitter
from index.model.folding import fold
from index.store.connection import one

SCHEMA = """
-- search_todo: entries whose names the index of names has otherwise, in the order they changed, numbered without gaps.
-- Written by triggers; the last line stays, so that no number comes twice. Local, never synced.
--   entry_id   was removed or renamed, or came back from limbo with its id
CREATE TABLE search_todo(
    seq      INTEGER PRIMARY KEY,
    entry_id INTEGER NOT NULL
) STRICT;
INSERT INTO search_todo VALUES (0, 0);
CREATE TRIGGER search_removed AFTER DELETE ON entry BEGIN
    INSERT INTO search_todo(entry_id) VALUES (old.id); END;
CREATE TRIGGER search_renamed AFTER UPDATE OF name ON entry WHEN old.name <> new.name BEGIN
    INSERT INTO search_todo(entry_id) VALUES (new.id); END;
CREATE TRIGGER search_returned AFTER DELETE ON limbo WHEN old.entry_id IS NOT NULL BEGIN
    INSERT INTO search_todo(entry_id) VALUES (old.entry_id); END;
"""

#: Of what is indexed and how: another one makes every index be built anew.
_VERSION = 2
#: Before a name and twice behind it, in the index.
MARK = "/"
#: Between the characters of a name where short texts are looked for. One in a name itself finds too much, never less.
_GAP = "\x01"
#: So many signs tell whole names apart: the characters of the second plane.
_SIGNS = 1 << 16

_TRIGRAMS = "name, tokenize='trigram case_sensitive 1', detail='none', content=''"
_INDEX_SCHEMA = f"""
CREATE VIRTUAL TABLE search_names USING fts5({_TRIGRAMS}, contentless_delete=1);
CREATE TABLE state(
    version       INTEGER NOT NULL,
    library_uuid  BLOB NOT NULL,
    epoch         INTEGER NOT NULL,
    indexed_id    INTEGER NOT NULL,
    done_seq      INTEGER NOT NULL,
    done_entry    INTEGER NOT NULL,
    sampled_id    INTEGER NOT NULL DEFAULT 0,
    sampled_names INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE some_names(
    names  TEXT NOT NULL,
    number INTEGER NOT NULL
) STRICT;
CREATE TABLE common(
    term  TEXT PRIMARY KEY,
    names INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

#: The indexed text of a row of table e.
_TEXT = "indexed_text(e.name)"

#: Rows of one transaction: some 100 ms of a thread, which leaves the interpreter to the others meanwhile.
SLICE_ROWS = 20_000
#: Names that are looked at to learn which trigrams are common, and in how many of them one must be to be noted.
_SAMPLE_NAMES = 8192
_COMMON_MIN = 2
#: Of how many of the sampled names one is kept.
_SOME_OF = 4
_CHECKED_NAMES = 500
#: How long who writes the index waits for who checks it, and the other way round: putting a large one in order takes
#: seconds.
_PATIENCE_MS = 5_000
_CHECK_PATIENCE_MS = 60_000


class Known(NamedTuple):
    """How far the index of names is."""

    indexed_id: int  # rows up to this id are in it, but for those that search_todo names
    done_seq: int  # what search_todo says up to this line was followed


def indexed_text(name: Any) -> str:
    """A name as it is indexed."""
    folded = fold(name)
    return f"{MARK}{folded}{MARK}{MARK}{_GAP}{_GAP.join(folded)}{whole(folded)}"


def whole(folded: str) -> str:
    """The trigram of names that are a text as a whole, and of few others."""
    return _GAP + MARK + chr(_SIGNS + crc32(folded.encode()) % _SIGNS)


def trigrams(text: str) -> list[str]:
    """The trigrams that every name has which contains a text, each once."""
    if len(text) < 3:
        return [_GAP.join(text) if len(text) == 2 else f"{_GAP}{text}{_GAP}"]
    return list(dict.fromkeys([text[at : at + 3] for at in range(len(text) - 2)]))


def all_of(terms: list[str]) -> str:
    """The expression of FTS5 for names that have all of the trigrams."""
    return " AND ".join(map(_term, terms))


def but_not(expression: str, term: str) -> str:
    """The expression of FTS5 for what another one finds, without the names that have a trigram."""
    return f"({expression}) NOT {_term(term)}"


def _term(term: str) -> str:
    return '"' + term.replace('"', '""') + '"'


# -- the library's side ------------------------------------------------------------------------------------------------


def last_line(db: apsw.Connection) -> int:
    """The number of the last line of search_todo."""
    return int(one(db, "SELECT max(seq) FROM search_todo")[0])


def drop_done(db: apsw.Connection, done_seq: int, lines: int) -> bool:
    """Forget up to so many lines that the index has followed, inside a unit; says whether more of them are left."""
    first = int(one(db, "SELECT min(seq) FROM search_todo")[0])
    until = min(done_seq, last_line(db), first + lines)
    db.execute("DELETE FROM search_todo WHERE seq < ?", (until,))
    return until < min(done_seq, last_line(db))


# -- the index's side --------------------------------------------------------------------------------------------------


def path_beside(library_db: Path) -> Path:
    """Where the index of the names of a library lies."""
    return library_db.with_name("search.db")


def uri(path: Path, mode: str) -> str:
    """A file as SQLite takes it where it is to be opened in a mode (`ro`, `rwc`)."""
    return f"file:{quote(os.fsencode(path))}?mode={mode}"


def remove(library_db: Path) -> None:
    """Throw the index away; nobody may be writing it."""
    for end in ("", "-wal", "-shm"):
        Path(f"{path_beside(library_db)}{end}").unlink(missing_ok=True)


class SearchIndex:
    """The index as who brings it up sees it: a connection of its own, for one thread at a time. `close()` it."""

    def __init__(self, library_db: Path) -> None:
        """Opened where it lies; made anew where there is none, or one that does not belong to this library's state."""
        try:
            self._db = _connected(library_db)
        except (apsw.CorruptError, apsw.NotADBError):
            remove(library_db)
            self._db = _connected(library_db)
        if not _belongs(self._db):
            self._db.close()
            remove(library_db)
            self._db = _connected(library_db)
            self._begin()
        self.known = Known._make(one(self._db, "SELECT indexed_id, done_seq FROM state"))

    def close(self) -> None:
        self._db.close()

    def step(self) -> bool:
        """Take in one slice of what changed, or else of what is new; says whether there is more."""
        with self._unit():  # reads one state of the library, and writes the other file
            last_id = int(one(self._db, "SELECT coalesce(max(id), 0) FROM library.entry")[0])
            last_seq = int(one(self._db, "SELECT max(seq) FROM library.search_todo")[0])
            known = self._follow(self.known, last_seq) if self.known.done_seq < last_seq else self._take(self.known)
            self._db.execute(
                "UPDATE state SET indexed_id=?1, done_seq=?2, "
                "done_entry=(SELECT entry_id FROM library.search_todo WHERE seq=?2)",
                known,
            )
        self.known = known
        has_more = known.indexed_id < last_id or known.done_seq < last_seq
        if not has_more and self._has_grown():
            self._sample()
            self._db.execute("INSERT INTO search_names(search_names) VALUES('optimize')")
            self._db.execute("PRAGMA main.incremental_vacuum").fetchall()  # what it was before, a third as much again
        return has_more

    @contextmanager
    def _unit(self) -> Iterator[None]:
        """All or nothing. Locked at the beginning: SQLite waits there, but not where somebody has read, and a table of
        FTS5 reads its settings first."""
        self._db.execute("BEGIN IMMEDIATE")  # `with` alone would hold the interpreter as long as it waits
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _has_grown(self) -> bool:
        """Whether the index is half as large again as when it was last put in order."""
        sampled_id = int(one(self._db, "SELECT sampled_id FROM state")[0])
        return self.known.indexed_id >= sampled_id + sampled_id // 2 + _SAMPLE_NAMES

    def _follow(self, known: Known, last_seq: int) -> Known:
        """The next lines of search_todo: what is gone goes, what has another name has that."""
        until = min(last_seq, known.done_seq + SLICE_ROWS)
        changed = "SELECT entry_id FROM library.search_todo WHERE seq > ?1 AND seq <= ?2 AND entry_id <= ?3"
        args = (known.done_seq, until, known.indexed_id)
        self._db.execute(f"DELETE FROM search_names WHERE rowid IN ({changed})", args)
        self._db.execute(
            f"INSERT INTO search_names(rowid, name) SELECT e.id, {_TEXT} FROM library.entry e "
            f"WHERE e.id IN ({changed}) ORDER BY e.id",
            args,
        )
        return Known(known.indexed_id, until)

    def _take(self, known: Known) -> Known:
        """The next rows that are new."""
        rows = "SELECT id FROM library.entry WHERE id > ? ORDER BY id LIMIT ?"
        until = one(self._db, f"SELECT max(id) FROM ({rows})", known.indexed_id, SLICE_ROWS)[0]
        if until is None:
            return known
        self._db.execute(
            f"INSERT INTO search_names(rowid, name) SELECT e.id, {_TEXT} FROM library.entry e "
            "WHERE e.id > ? AND e.id <= ? ORDER BY e.id",
            (known.indexed_id, until),
        )
        return Known(int(until), known.done_seq)

    def _sample(self) -> None:
        """Learn which trigrams are common, since a search begins with its rarest ones, and keep some names."""
        self._db.execute(
            f"CREATE VIRTUAL TABLE temp.sample USING fts5({_TRIGRAMS}, columnsize=0);"
            "CREATE VIRTUAL TABLE temp.sampled USING fts5vocab(temp, sample, row)"
        )
        try:
            with self._unit():
                picked = (
                    "WITH RECURSIVE pick(id) AS (SELECT 1 UNION ALL SELECT id + ?1 FROM pick WHERE id + ?1 <= ?2) "
                    "%s FROM pick CROSS JOIN library.entry e ON e.id = pick.id"
                )
                every = self.known.indexed_id // _SAMPLE_NAMES, self.known.indexed_id
                self._db.execute(picked % f"INSERT INTO temp.sample(rowid, name) SELECT e.id, {_TEXT}", every)
                self._db.execute("DELETE FROM common")
                self._db.execute("INSERT INTO common SELECT term, doc FROM temp.sampled WHERE doc >= ?", (_COMMON_MIN,))
                names = [fold(name) for (name,) in self._db.execute(picked % "SELECT e.name", every)]
                self._db.execute("UPDATE state SET sampled_id=indexed_id, sampled_names=?", (len(names),))
                self._db.execute("DELETE FROM some_names")
                some = names[::_SOME_OF]
                self._db.execute("INSERT INTO some_names VALUES (?, ?)", (MARK.join(some), len(some)))
        finally:
            self._db.execute("DROP TABLE temp.sampled; DROP TABLE temp.sample")

    def _begin(self) -> None:
        """An empty index. What is in search_todo concerns rows that will be indexed as they are."""
        with self._unit():
            self._db.execute(_INDEX_SCHEMA)
            self._db.execute(
                "INSERT INTO state(version, library_uuid, epoch, indexed_id, done_seq, done_entry) "
                "SELECT ?, ?, ?, 0, seq, entry_id FROM library.search_todo ORDER BY seq DESC LIMIT 1",
                _owner(self._db),
            )


def follow_in_worker(args: Mapping[str, Any], context: Emitter) -> None:
    """In a worker: take in what is new, and stream how far the index is (`Known`) after each slice; at least once.

    args: database. An index that turns out to be damaged is thrown away; it is built when this is asked for again. So
    is the rest taken in of one that somebody checks for longer than this waits.
    """
    library_db = Path(args["database"])
    index = SearchIndex(library_db)
    try:
        context.emit(index.known)
        has_more = True
        while has_more and not context.stopped():
            try:
                has_more = index.step()
            except (apsw.CorruptError, apsw.NotADBError) as error:
                print(f"the index of names is damaged ({error}) and is built anew", file=sys.stderr)
                index.close()
                remove(library_db)
                index, has_more = SearchIndex(library_db), False  # it may be the library that is: not without a pause
            except apsw.BusyError:
                has_more = False
            context.emit(index.known)
    finally:
        index.close()


def _connected(library_db: Path, mode: str = "rwc") -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    db = apsw.Connection(uri(path_beside(library_db), mode), flags=flags)
    try:
        db.set_busy_timeout(_PATIENCE_MS)
        db.pragma("cache_size", -16_000)
        db.pragma("temp_store", 2)
        if db.pragma("page_count") == 0:
            db.pragma("auto_vacuum", 2)
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", 1)
        db.pragma("journal_size_limit", 16 << 20)
        db.execute("ATTACH ? AS library", (uri(library_db, "ro"),))
        db.create_scalar_function("indexed_text", lambda *names: indexed_text(names[0]), 1, deterministic=True)
    except BaseException:
        db.close()
        raise
    return db


def _belongs(db: apsw.Connection) -> bool:
    """Whether it was made by this program from this library, and from no later state of it than there is now."""
    try:
        found = db.execute(
            "SELECT version, library_uuid, epoch, indexed_id, done_seq, done_entry FROM state"
        ).fetchone()
    except (apsw.CorruptError, apsw.SQLError):  # an empty file, one of another version, or no index at all
        return False
    if found is None or tuple(found[:3]) != _owner(db):
        return False
    indexed_id, done_seq, done_entry = found[3:]
    line = db.execute("SELECT entry_id FROM library.search_todo WHERE seq=?", (done_seq,)).fetchone()
    given = one(db, "SELECT value FROM library.counter WHERE name='entry'")[0]
    return line == (done_entry,) and indexed_id <= given


def _owner(db: apsw.Connection) -> tuple[int, bytes, int]:
    facts = dict(db.execute("SELECT key, value FROM library.meta WHERE key IN ('library_uuid', 'epoch')"))
    return _VERSION, facts["library_uuid"], facts["epoch"]


def _faults(db: apsw.Connection) -> list[str]:
    """What is wrong with it, in sentences; a pass over the index and a sample of the names."""
    try:
        db.execute("INSERT INTO search_names(search_names, rank) VALUES('integrity-check', 1)")
    except apsw.CorruptError as error:
        return [f"the index of names is damaged: {error}"]
    return list(_strays(db))


def _strays(db: apsw.Connection) -> Iterator[str]:
    """Rows that are not indexed though they should be, and the other way round."""
    indexed_id, done_seq = one(db, "SELECT indexed_id, done_seq FROM state")
    settled = (
        "e.id <= ?1 AND e.id NOT IN (SELECT entry_id FROM library.search_todo WHERE seq > ?2)",
        (indexed_id, done_seq),
    )
    missing = db.execute(
        f"SELECT e.id FROM library.entry e WHERE {settled[0]} "
        "AND e.id NOT IN (SELECT id FROM search_names_docsize) LIMIT 10",
        settled[1],
    )
    yield from (f"entry {entry_id} is not in the index of names" for (entry_id,) in missing.fetchall())
    unknown = db.execute(
        "SELECT e.id FROM search_names_docsize e WHERE e.id NOT IN (SELECT id FROM library.entry) "
        "AND e.id NOT IN (SELECT entry_id FROM library.search_todo WHERE seq > ?) LIMIT 10",
        (done_seq,),
    )
    yield from (f"the index of names has entry {entry_id}, which is gone" for (entry_id,) in unknown.fetchall())
    names = db.execute(
        f"SELECT e.id, e.name FROM library.entry e WHERE {settled[0]} AND e.id % max(1, ?1 / {_CHECKED_NAMES}) = 0 "
        "AND e.id IN (SELECT id FROM search_names_docsize)",
        settled[1],
    )
    some: list[Any] = names.fetchall()
    for entry_id, name in some:
        found = db.execute(
            "SELECT 1 FROM search_names WHERE search_names MATCH ? AND rowid = ?",
            (all_of(trigrams(indexed_text(name))), entry_id),
        )
        if found.fetchone() is None:
            yield f"entry {entry_id} is in the index under another name than {os.fsdecode(name)}"


def check(library_db: Path) -> list[str]:
    """What is wrong with the index of a library's names, in sentences; where there is none, nothing is.

    For a thread; it waits while somebody writes the index.
    """
    if not path_beside(library_db).exists():
        return []
    try:
        db = _connected(library_db, "rw")  # made by who keeps it only, who may be throwing this one away
        try:
            db.set_busy_timeout(_CHECK_PATIENCE_MS)
            if one(db, "SELECT count(*) FROM main.sqlite_master")[0] == 0:  # being made, by who made the file just now
                return []
            if not _belongs(db):
                return ["the index of names is of another state of the library; while mounted it is made anew"]
            return _faults(db)
        finally:
            db.close()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        return [f"the index of names is damaged: {error}"]
    except apsw.Error as error:
        is_gone = isinstance(error, apsw.CantOpenError) and not path_beside(library_db).exists()
        return [] if is_gone else [f"the index of names cannot be checked: {error}"]
