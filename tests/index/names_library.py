"""A small library of rows for tests of searches, with the index of its names at hand."""

import stat
from pathlib import Path

from index.model.entry import HASH_SAMPLED, Entry, Stat
from index.model.filetype import FileType, Method
from index.model.query import parse
from index.scan import recording
from index.store import annotating, contents, devices, entries, filetypes, finding, limbo, places, search
from index.store.finding import Page, Position
from index.store.reading import SearchReader
from index.store.store import Store

DEVICE = b"d" * 16
NOW_NS = 1_700_000_000 * 10**9
FILE = stat.S_IFREG | 0o644
DIRECTORY = stat.S_IFDIR | 0o755
LINK = stat.S_IFLNK | 0o777


class NamesLibrary:
    """One branch, its root, and whatever a test puts below; `close()` it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "library.db"
        self.store = Store(self.path, DEVICE)
        self.index: search.SearchIndex | None = None
        self.reader = SearchReader(self.path)
        with self.store.write("test") as unit:
            devices.put(unit.db, DEVICE, "device", b"k" * 32, 1)
        self.branch, self.root = self.add_branch(b"b" * 16, None)

    def close(self) -> None:
        self.close_index()
        self.reader.close()
        self.store.close()

    def close_index(self) -> None:
        if self.index is not None:
            self.index.close()
            self.index = None

    def add_branch(self, uuid: bytes, location: bytes | None) -> tuple[int, Entry]:
        """A branch, and the row of its root."""
        with self.store.write("test") as unit:
            held = None
            if location is not None:
                found = places.locations(unit.db)
                held = next((row.id for row in found if row.name == location), None)
                if held is None:
                    held = places.put_location(unit, b"l" * 8 + uuid[:8], location)
            branch = places.put_branch(unit.db, uuid, held, DEVICE, "store", b"/somewhere/" + uuid, "fs", 1)
        root = self.add(b"", parent=None, mode=DIRECTORY, branch=branch)
        with self.store.write("test") as unit:
            places.set_branch_root(unit.db, branch, root.id)
        return branch, root

    def add(
        self,
        name: bytes,
        *,
        parent: int | None = 0,
        mtime_ns: int = 0,
        mode: int = FILE,
        size_bytes: int = 3,
        branch: int | None = None,
    ) -> Entry:
        """A row of such a name in the root, or where `parent` says."""
        with self.store.write("test") as unit:
            above = self.root.id if parent == 0 else parent
            st = Stat(mode, size_bytes, mtime_ns, 0, 1000 + unit.seq, 1, 0, 0)
            row = recording.plain_row(unit, self.branch if branch is None else branch, above or 0, name, st)
            row = row._replace(parent_id=above)
            entries.insert(unit.db, row)
        return row

    def remove(self, row: Entry, *, limbo_ns: int | None = None) -> None:
        """The row goes; with a time, into limbo."""
        with self.store.write("test") as unit:
            row = entries.get(unit.db, row.id) or row
            if limbo_ns is not None:
                limbo.put(unit.db, row, limbo_ns)
            entries.delete(unit.db, row.id)

    def bring_back(self, row: Entry, name: bytes) -> bool:
        """A row comes back from limbo with its id, under a name."""
        with self.store.write("test") as unit:
            kept = limbo.take(unit.db, row.branch_id, row.stat, lambda _: True)
            if kept is None or kept.entry_id is None:
                return False
            entries.insert(unit.db, row._replace(name=name))
        return True

    def rename(self, row: Entry, name: bytes) -> None:
        with self.store.write("test") as unit:
            entries.move(unit.db, row.id, row.parent_id or 0, name, unit.seq)

    def tag(self, row: Entry, *names: str) -> None:
        uuid = row.id.to_bytes(16, "big")
        with self.store.write("test") as unit:
            entries.set_uuid(unit.db, row.id, uuid, unit.seq)
            for name in names:
                annotating.add_tag(unit, uuid, name)

    def find_type(self, row: Entry, file_type: FileType, method: Method) -> None:
        """The row's bytes, which nobody else has, were found to be of a type."""
        with self.store.write("test") as unit:
            content_id = contents.hint(unit.db, row.id.to_bytes(8, "big"), row.size_bytes)
            contents.set_type(unit.db, content_id, filetypes.intern(unit.db, file_type), method)
            entries.set_identity(unit.db, row.id, content_id, HASH_SAMPLED, None, unit.seq)

    def step(self) -> bool:
        """One slice of the index; says whether there is more."""
        if self.index is None:
            self.index = search.SearchIndex(self.path)
        return self.index.step()

    def catch_up(self) -> None:
        while self.step():
            pass

    def drop_done(self, lines: int = 1000) -> None:
        assert self.index is not None
        with self.store.write("test") as unit:
            search.drop_done(unit.db, self.index.known.done_seq, lines)

    def page(self, query: str, limit: int = 100, after: Position | None = None) -> Page:
        with self.reader.snapshot() as known:
            return finding.find(self.reader, known, parse(query), NOW_NS, limit, after)

    def search(self, query: str, limit: int = 100) -> list[bytes]:
        return [hit.name for hit in self.page(query, limit).hits]
