"""A connection that searches: the library and, beside it, the index of its names, as one state of both.

It is kept from search to search, for one thread at a time, and remembers which trigrams are common, some names, and
where directories are. `snapshot` begins by reading the index and then the library, so the library is never older; lines
that the index has not followed must be there, or both are read again. Where there is no index, or one that does not
fit, a search does without.
"""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from index.store import entries
from index.store.connection import connect, one
from index.store.search import Known, path_beside, trigrams, uri

_TRIES: Final = 20
#: Directories whose place is remembered.
_DIRS_MAX: Final = 200_000


class SearchReader:
    """An open reader; `close()` it."""

    def __init__(self, library_db: Path) -> None:
        self._index = path_beside(library_db)
        self.db = connect(library_db, read_only=True)
        self._index_ino: int | None = None
        self._shunned_ino: int | None = None
        self.common: dict[str, int] = {}
        self.sampled_names = 0
        self._some_names: tuple[str, int] = "", 0
        self._sampled_id = -1
        self._state = -1
        self._dirs: dict[int, tuple[int | None, bytes]] = {}
        self._paths: dict[int, bytes] = {}

    def close(self) -> None:
        self.db.close()

    @property
    def has_index(self) -> bool:
        return self._index_ino is not None

    def do_without(self) -> None:
        """Search without the index that lies there, until another one does."""
        self._detach()
        self._shunned_ino = self._index.stat().st_ino if self._index.exists() else None

    def interrupt(self) -> None:
        """End the search that runs in another thread."""
        with contextlib.suppress(apsw.ConnectionClosedError):
            self.db.interrupt()

    @contextmanager
    def snapshot(self) -> Iterator[Known | None]:
        """One state of the library and of its index, for as long as it is held; None when there is no index."""
        self._attach()
        known = self._begin()
        try:
            self._forget_if_changed()
            yield known
        finally:
            self.db.execute("ROLLBACK")

    def _begin(self) -> Known | None:
        for _ in range(_TRIES):
            self.db.execute("BEGIN")
            try:
                known = None if self._index_ino is None else self._known()
                first, last = one(
                    self.db, "SELECT (SELECT min(seq) FROM main.search_todo), (SELECT max(seq) FROM main.search_todo)"
                )
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            if known is None or first <= known.done_seq + 1 <= last + 1:
                return known
            self.db.execute("ROLLBACK")
        self.db.execute("BEGIN")
        return None

    def _known(self) -> Known | None:
        """How far the index is; None when it is none (yet)."""
        try:
            row = self.db.execute("SELECT indexed_id, done_seq, sampled_id, sampled_names FROM search.state").fetchone()
        except apsw.SQLError:
            return None
        if row is None:
            return None
        if row[2] != self._sampled_id:
            self._sampled_id, self.sampled_names = row[2:]
            kept = self.db.execute("SELECT names, number FROM search.some_names").fetchone()
            self._some_names = ("", 0) if kept is None else (kept[0], kept[1])
            self.common = dict(self.db.execute("SELECT term, names FROM search.common"))
        return Known(*row[:2])

    def _attach(self) -> None:
        """Look at the index that lies there now."""
        try:
            ino = self._index.stat().st_ino
        except FileNotFoundError:
            ino = None
        if ino == self._index_ino or (ino is not None and ino == self._shunned_ino):
            return
        self._detach()
        if ino is None:
            return
        try:
            self.db.execute("ATTACH ? AS search", (uri(self._index, "ro"),))
        except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.NotADBError, apsw.CorruptError):
            # gone again; about to be written for the first time, or after a crash; not readable, or none
            return
        self.db.pragma("cache_size", -16_000, schema="search")
        self.db.pragma("mmap_size", 256 << 20, schema="search")
        self._index_ino = ino

    def _detach(self) -> None:
        if self._index_ino is not None:
            self.db.execute("DETACH search")
            self._index_ino = None
        self._sampled_id, self.common, self.sampled_names, self._some_names = -1, {}, 0, ("", 0)

    def share_of(self, text: str) -> float:
        """Which part of the names has the rarest trigram of a text, by the sample; 0 where nothing is known."""
        names = min([self.common.get(term, 0) for term in trigrams(text)])
        return names / self.sampled_names if self.sampled_names else 0.0

    def share_with(self, text: str) -> float:
        """Which part of the names contains a text, by some names that are looked at; 0 where nothing is known."""
        names, number = self._some_names
        return names.count(text) / number if number else 0.0

    # where rows are ---------------------------------------------------------------------------------------------------

    def _forget_if_changed(self) -> None:
        state = one(self.db, "PRAGMA main.data_version")[0]
        if state != self._state or len(self._dirs) > _DIRS_MAX:
            self._state = state
            self._dirs.clear()
            self._paths.clear()

    def _dir(self, entry_id: int) -> tuple[int | None, bytes]:
        found = self._dirs.get(entry_id)
        if found is None:
            found = self._dirs[entry_id] = entries.placed(self.db, entry_id) or (None, b"")
        return found

    def is_below(self, entry_id: int | None, above: frozenset[int]) -> bool:
        """Whether a directory is one of some, or hangs below one."""
        while entry_id is not None:
            if entry_id in above:
                return True
            entry_id = self._dir(entry_id)[0]
        return False

    def hangs(self, entry_id: int) -> bool:
        """Whether a directory is in its branch: what is another device's may be detached."""
        above, name = self._dir(entry_id)
        while above is not None:
            above, name = self._dir(above)
        return not name

    def path_of(self, parent_id: int, name: bytes) -> bytes:
        """The names from the root of the branch to a name in a directory, with slashes between them."""
        above = self._paths.get(parent_id)
        return (self._path(parent_id) if above is None else above) + name

    def _path(self, entry_id: int) -> bytes:
        """How the paths of what is in a directory begin."""
        steps = []
        at: int | None = entry_id
        while at is not None and at not in self._paths:
            above, name = self._dir(at)
            steps.append((at, above, name))
            at = above
        for step, above, name in reversed(steps):
            self._paths[step] = b"" if above is None else b"%b%b/" % (self._paths[above], name)
        return self._paths[entry_id]
