"""Rows of other devices, as they come by sync: what tests put into a library in place of an engine and a network.

In: an open store. Out: devices, locations, branches and entries of theirs, in units of origin `sync`, by the contract
that index/store/entries.py tells. A path is text, from the root of a branch on; what lies above it is made.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from index.model import change, hlc, versions
from index.model.change import ORIGIN_SYNC
from index.model.content import sampled_id
from index.model.entry import HASH_FULL, HASH_NONE, KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry
from index.model.ids import new_entry_uuid, new_uuid
from index.scan import meeting
from index.store import contents, devices, entries, places, targets
from index.store.store import Store
from index.store.unit import Unit
from sync.wire.identity import load_or_create

#: A moment long ago, so that files of tests are newer unless they say otherwise.
OLD_NS = 1_500_000_000_123_456_789


@contextmanager
def closed_library(library_dir: Path, data_dir: Path) -> Iterator["RemoteRows"]:
    """The rows of a library that nobody has open."""
    store = Store(library_dir / "library.db", load_or_create(data_dir).uuid)
    try:
        yield RemoteRows(store)
    finally:
        store.close()


class RemoteRows:
    """What other devices have told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.meets = False  # what comes meets at once what is there, as an engine has it, or is left to whoever looks

    def meet(self, meets: bool) -> None:
        self.meets = meets

    def own_work(self) -> list[int]:
        """How much this device has done itself: what it tells of shared rows, the last unit of its own, its journal."""
        queries = ("count(*) FROM outbox", "max(seq) FROM entry WHERE uid>=0", "count(*) FROM journal")
        return [int(value) for query in queries for (value,) in self.store.db.execute(f"SELECT {query}")]

    # devices, locations, branches -------------------------------------------------------------------------------------

    def device(self, name: str) -> bytes:
        """A device; its uuid is made of its name, and so is what it is called in paths."""
        uuid = blake2b(name.encode(), digest_size=16).digest()
        with self.store.write(ORIGIN_SYNC) as unit:
            devices.put(unit.db, uuid, name, b"k" * 32, OLD_NS)
        return uuid

    def location(self, name: str) -> int:
        """The location of a name, made if there is none."""
        known = next((row.id for row in places.locations(self.store.db) if row.name == os.fsencode(name)), None)
        if known is not None:
            return known
        with self.store.write(ORIGIN_SYNC) as unit:
            return places.put_location(unit, new_uuid(), os.fsencode(name))

    def rename_location(self, old: str, new: str) -> None:
        with self.store.write(ORIGIN_SYNC) as unit:
            places.rename_location(unit, self.location(old), os.fsencode(new))

    def branch(self, device: bytes, location: str | None, label: str = "", path: str = "/far/away") -> int:
        """A branch with its root; `location` None: the device's store."""
        location_id = None if location is None else self.location(location)
        with self.store.write(ORIGIN_SYNC) as unit:
            branch_id = places.put_branch(
                unit.db, new_uuid(), location_id, device, label or location or "store", os.fsencode(path), "", 0
            )
            root = self._row(unit, branch_id, None, b"", stat.S_IFDIR | 0o755, 4096, OLD_NS, new_entry_uuid())
            entries.insert(unit.db, root)
            places.set_branch_root(unit.db, branch_id, root.id)
        return branch_id

    def forget_branch(self, branch_id: int) -> None:
        """A branch goes with all that is in it."""
        with self.store.write(ORIGIN_SYNC) as unit:
            root = self.root(branch_id)
            for row in reversed(list(entries.subtree(unit.db, root))):
                unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
                entries.delete(unit.db, row.id)
            places.delete_branch(unit.db, branch_id)

    def files(self, branch_id: int, path: str, count: int) -> None:
        """Many small files in one directory, in units as a backfill has them."""
        for start in range(0, count, 500):
            with self.store.write(ORIGIN_SYNC) as unit:
                parent_id = self._above(unit, branch_id, f"{path}/")
                for number in range(start, min(start + 500, count)):
                    name = b"many %d" % number
                    row = self._row(unit, branch_id, parent_id, name, stat.S_IFREG | 0o644, 1, OLD_NS, new_entry_uuid())
                    entries.insert(unit.db, row)
                    unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)

    # entries ----------------------------------------------------------------------------------------------------------

    def root(self, branch_id: int) -> int:
        row = next(row for row in places.branches(self.store.db) if row.id == branch_id)
        assert row.root_entry_id is not None
        return row.root_entry_id

    def at(self, branch_id: int, path: str) -> Entry:
        """The row at a path."""
        at = entries.get(self.store.db, self.root(branch_id))
        for name in filter(None, path.split("/")):
            assert at is not None
            at = entries.child(self.store.db, at.id, os.fsencode(name))
        assert at is not None, path
        return at

    def file(
        self, branch_id: int, path: str, data: bytes, *, mtime_ns: int = OLD_NS, mode: int = 0o644,
        uuid: bytes | None = None, version: dict[bytes, int] | None = None, hashed: bool = True, nlink: int = 1,
    ) -> int:  # fmt: skip
        """A file that holds some bytes; of one that is there already, a new version."""
        with self.store.write(ORIGIN_SYNC) as unit:
            parent_id = self._above(unit, branch_id, path)
            name = os.fsencode(path.rpartition("/")[2])
            old = entries.child(unit.db, parent_id, name)
            content_id = content_of(unit, data) if hashed and data else None
            row = self._row(
                unit, branch_id, parent_id, name, stat.S_IFREG | mode, len(data), mtime_ns,
                uuid or (old.uuid if old else None) or new_entry_uuid(),
                entry_id=old.id if old else None,
            )._replace(
                content_id=content_id, hash_state=HASH_FULL if content_id else HASH_NONE, nlink=nlink,
                version=None if version is None else versions.pack(version),
            )  # fmt: skip
            if old is None:
                entries.insert(unit.db, row)
                unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)
                self._meet(unit, row)
            else:
                columns = "mode, size_bytes, mtime_ns, ctime_ns, content_id, hash_state, version, uuid, seq"
                values = [getattr(row, column) for column in columns.split(", ")]
                unit.db.execute(
                    f"UPDATE entry SET ({columns})=({','.join('?' * len(values))}) WHERE id=?", (*values, old.id)
                )
                unit.changed(change.DATA, branch_id, old.id, parent_id, name, old.node)
        return row.id

    def uuid_of(self, branch_id: int, path: str) -> bytes:
        uuid = self.at(branch_id, path).uuid
        assert uuid is not None
        return uuid

    def later(self, branch_id: int, path: str) -> dict[bytes, int]:
        """The vector of a version that was written over the one that the owner has."""
        row = self.at(branch_id, path)
        branch = next(one for one in places.branches(self.store.db) if one.id == branch_id)
        return versions.bump(versions.unpack(row.version) or {branch.uuid: 1}, branch.uuid, self.stamp())

    def stamped(self, branch_id: int) -> dict[bytes, int]:
        """The vector of a file that has come to a name just now."""
        return {next(one.uuid for one in places.branches(self.store.db) if one.id == branch_id): self.stamp()}

    def stamp(self) -> int:
        """A stamp as the other device's clock gives it now."""
        return hlc.tick(self.store.last_hlc, self.store.now_ms()).packed()

    def directory(self, branch_id: int, path: str, *, mtime_ns: int = OLD_NS, mode: int = 0o755) -> int:
        """An empty directory."""
        with self.store.write(ORIGIN_SYNC) as unit:
            parent_id = self._above(unit, branch_id, path)
            name = os.fsencode(path.rpartition("/")[2])
            return self._put(unit, branch_id, parent_id, name, stat.S_IFDIR | mode, 4096, mtime_ns)

    def put_directory(self, unit: Unit, branch_id: int, path: str, uuid: bytes) -> int:
        """A directory as it was told before, by its uuid; of what is in it nothing is said in the changes."""
        parent_id, name = self._above(unit, branch_id, path), os.fsencode(path.rpartition("/")[2])
        row = self._row(unit, branch_id, parent_id, name, stat.S_IFDIR | 0o755, 4096, OLD_NS, uuid)
        entries.insert(unit.db, row)
        if "/" not in path:
            unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)
        return row.id

    def put_file(self, unit: Unit, branch_id: int, path: str, data: bytes, uuid: bytes) -> None:
        """The same of a file."""
        parent_id, name = self._above(unit, branch_id, path), os.fsencode(path.rpartition("/")[2])
        row = self._row(unit, branch_id, parent_id, name, stat.S_IFREG | 0o644, len(data), OLD_NS, uuid)
        row = row._replace(content_id=content_of(unit, data), hash_state=HASH_FULL)
        entries.insert(unit.db, row)

    def link(self, branch_id: int, path: str, target: str | None, *, mtime_ns: int = OLD_NS) -> int:
        """A symbolic link; `target` None: it has not been told."""
        with self.store.write(ORIGIN_SYNC) as unit:
            parent_id = self._above(unit, branch_id, path)
            name = os.fsencode(path.rpartition("/")[2])
            size = len(os.fsencode(target or "?"))
            entry_id = self._put(unit, branch_id, parent_id, name, stat.S_IFLNK | 0o777, size, mtime_ns)
            if target is not None:
                targets.put(unit.db, entry_id, os.fsencode(target))
        return entry_id

    def remove(self, branch_id: int, path: str) -> None:
        with self.store.write(ORIGIN_SYNC) as unit:
            for row in reversed(list(entries.subtree(unit.db, self.at(branch_id, path).id))):
                unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
                entries.delete(unit.db, row.id)

    def move(self, branch_id: int, old: str, new: str | None) -> int:
        """Another place; None: none for now, it is detached."""
        row = self.at(branch_id, old)
        version = None if row.kind == KIND_DIR or new is None else versions.pack(self.stamped(branch_id))
        with self.store.write(ORIGIN_SYNC) as unit:
            if version is not None:
                entries.set_version(unit.db, row.id, version, unit.seq)
            parent_id = None if new is None else self._above(unit, branch_id, new)
            name = row.name if new is None else os.fsencode(new.rpartition("/")[2])
            unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
            self._hang(unit, row, parent_id, name)
        return row.id

    def attach(self, entry_id: int, branch_id: int, path: str) -> None:
        """A row that was detached gets its place."""
        row = entries.get(self.store.db, entry_id)
        assert row is not None
        with self.store.write(ORIGIN_SYNC) as unit:
            self._hang(unit, row, self._above(unit, branch_id, path), os.fsencode(path.rpartition("/")[2]))

    def _hang(self, unit: Unit, row: Entry, parent_id: int | None, name: bytes) -> None:
        unit.db.execute("UPDATE entry SET parent_id=?, name=?, seq=? WHERE id=?", (parent_id, name, unit.seq, row.id))
        unit.db.execute("DELETE FROM detached WHERE entry_id=?", (row.id,))
        if parent_id is None:
            unit.db.execute("INSERT INTO detached VALUES(?,?,NULL,0)", (row.id, row.branch_id))
        if parent_id is not None:
            unit.changed(change.ADDED, row.branch_id, row.id, parent_id, name, row.node)

    def _above(self, unit: Unit, branch_id: int, path: str) -> int:
        at = self.root(branch_id)
        for name in map(os.fsencode, path.split("/")[:-1]):
            row = entries.child(unit.db, at, name)
            at = row.id if row else self._put(unit, branch_id, at, name, stat.S_IFDIR | 0o755, 4096, OLD_NS)
        return at

    def _put(self, unit: Unit, branch_id: int, parent_id: int, name: bytes, mode: int, size: int, mtime_ns: int) -> int:
        row = self._row(unit, branch_id, parent_id, name, mode, size, mtime_ns, new_entry_uuid())
        entries.insert(unit.db, row)
        unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)
        self._meet(unit, row)
        return row.id

    def _meet(self, unit: Unit, row: Entry) -> None:
        if self.meets:
            meeting.meet(unit, row.branch_id, [row])

    def _row(
        self, unit: Unit, branch_id: int, parent_id: int | None, name: bytes, mode: int, size: int, mtime_ns: int,
        uuid: bytes, *, entry_id: int | None = None,
    ) -> Entry:  # fmt: skip
        entry_id = entry_id or unit.new_id()
        kind = {stat.S_IFDIR: KIND_DIR, stat.S_IFLNK: KIND_SYMLINK}.get(stat.S_IFMT(mode), KIND_FILE)
        return Entry(
            entry_id, branch_id, parent_id, name, entry_id, uuid, kind, mode, size, mtime_ns, mtime_ns,
            entry_id + 7_000_000, 1, -1, -1, None, 0, None, unit.seq, None, None,
        )  # fmt: skip


def content_of(unit: Unit, data: bytes) -> int:
    """The content of some bytes, as hashing makes it."""
    sampled = sampled_id(lambda offset, length: data[offset : offset + length], len(data))
    assert sampled is not None
    read = contents.Read(bytes.fromhex(sampled), blake3(data).digest(), len(data), None)
    return contents.exact(unit.db, [read])[0]


class Own(NamedTuple):
    """A file of this device."""

    uuid: bytes
    branch_uuid: bytes
    version: dict[bytes, int]


def own_version(store: Store, name: bytes) -> Own:
    """The one file of this device that has a name, identified."""
    sql = "SELECT e.uuid, b.uuid, e.version FROM entry e JOIN branch b ON b.id=e.branch_id WHERE e.name=? AND e.uid>=0"
    ((uuid, branch_uuid, version),) = store.db.execute(sql, (name,)).fetchall()
    assert isinstance(uuid, bytes)
    assert isinstance(branch_uuid, bytes)
    return Own(uuid, branch_uuid, versions.unpack(version) or {branch_uuid: 1})
