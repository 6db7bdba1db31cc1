"""Devices with real stores, which hand each other pages by hand: what the log does without a network."""

import stat
from pathlib import Path

from blake3 import blake3

from index.model.entry import HASH_FULL, KIND_FILE, KIND_SYMLINK, Entry, Stat
from index.model.errors import MissingDependency, RewindNeeded, SnapshotNeeded
from index.scan import recording
from index.store import annotating, changes, contents, devices, entries, gaps, places, registers, streams
from index.store.contents import Read
from index.store.shared import Merged
from index.store.store import Store
from index.store.streams import OWNED, SHARED, StreamId
from sync.log import epochs
from sync.log.incoming import Gap, Incoming
from sync.log.joining import Joining
from sync.log.outgoing import Outgoing
from sync.log.pages import Page, kept
from sync.log.pruning import prune
from sync.log.snapshot import read
from sync.wire.identity import Keys, uuid_of

LIBRARY = b"L" * 16
FILE, DIRECTORY, LINK = 0o100644, 0o40755, 0o120777


class Device:
    """One device: its store, and both ends of the log."""

    def __init__(self, directory: Path, name: str, clock=None) -> None:
        self.name = name
        self.keys = Keys(blake3(name.encode()).digest())
        self.uuid = uuid_of(self.keys.public_key)
        self.path = directory / f"{name}.db"
        self.clock = clock
        self.targets: dict[int, bytes] = {}
        self.heard: list[Merged] = []
        self.ino = 1000
        self.open()

    def open(self) -> None:
        more = {} if self.clock is None else {"now_ns": self.clock}
        self.store = Store(self.path, self.uuid, **more)
        self.store.is_shared = True
        with self.store.note() as db:
            changes.set_meta(db, "library_uuid", LIBRARY)
        self.store.library_uuid = LIBRARY
        epochs.begin(self.store, "file")
        self.out = Outgoing(self.store, self.keys, self.targets.get)
        self.into = Incoming(self.store, self.key_of, self.heard.append)
        with self.store.write("test") as unit:
            card = [self.keys.public_key, self.keys.static_key, self.keys.sign_static(), 1]
            devices.say(unit, self.uuid, self.name, card, "Linux")

    def kept(self) -> bytes:
        """A copy of its database, to be put back."""
        self.store.close()
        copy = self.path.read_bytes()
        self.open()
        return copy

    def put_back(self, copy: bytes) -> None:
        """It comes back from an old copy, and does not know that."""
        self.store.close()
        self.path.write_bytes(copy)
        self.open()

    def key_of(self, uuid: bytes) -> bytes | None:
        found = devices.get(self.store.db, uuid)
        return KEYS.get(uuid) if found is None else found.public_key

    @property
    def db(self):
        return self.store.db

    # what a device does ---------------------------------------------------------------------------------------------

    def branch(self, location: bytes) -> int:
        """A branch of a location, with its root; returns the root's id."""
        with self.store.write("test") as unit:
            held = next((row for row in places.locations(unit.db) if row.name == location), None)
            uuid = blake3(self.name.encode() + location).digest(16)
            location_id = held.id if held is not None else places.put_location(unit, uuid, location)
            branch_id = places.put_branch(
                unit.db, blake3(uuid + b"b").digest(16), location_id, unit.device, "label", b"/" + location, "fs", 1
            )
            root = self.row(unit, branch_id, None, b"", DIRECTORY)
            places.set_branch_root(unit.db, branch_id, root.id)
            places.tell_branch(unit, branch_id)
        return root.id

    def row(self, unit, branch_id, parent_id, name, mode, data=b"", **more) -> Entry:
        self.ino += 1
        links = 2 if mode == DIRECTORY else 1
        st = Stat(mode, len(data), self.ino * 10**9, self.ino * 10**9, self.ino, links, 0, 0)
        row = recording.plain_row(unit, branch_id, parent_id, name, st, rule=0, **more)
        return recording.insert(unit, row)

    def add(self, parent: int, name: bytes, mode: int = FILE, data: bytes = b"", *, identified: bool = True) -> int:
        above = entries.get(self.db, parent)
        with self.store.write("test") as unit:
            row = self.row(unit, above.branch_id, parent, name, mode, data)
            if mode == LINK:
                self.targets[row.id] = data
        if mode == FILE and data and identified:
            self.identify(row.id, data)
        return row.id

    def identify(self, entry_id: int, data: bytes) -> None:
        with self.store.write("test") as unit:
            row = entries.get(unit.db, entry_id)
            full = blake3(data).digest()
            (content_id,) = contents.exact(unit.db, [Read(full[:8], full, len(data), None)])
            recording.ensure_uuid(unit, row)
            entries.set_identity(unit.db, entry_id, content_id, HASH_FULL, None, unit.seq)

    def rewrite(self, entry_id: int, data: bytes) -> None:
        with self.store.write("test") as unit:
            row = entries.get(unit.db, entry_id)
            self.ino += 1
            st = row.stat._replace(size_bytes=len(data), mtime_ns=self.ino * 10**9, ctime_ns=self.ino * 10**9)
            recording.restat(unit, row, st)
        self.identify(entry_id, data)

    def move(self, entry_id: int, parent: int, name: bytes) -> None:
        with self.store.write("test") as unit:
            entries.move(unit.db, entry_id, parent, name, unit.seq)

    def remove(self, entry_id: int) -> None:
        with self.store.write("test") as unit:
            for row in reversed(list(entries.subtree(unit.db, entry_id))):
                unit.gone(row.id, row.branch_id)
                entries.delete(unit.db, row.id)

    def uuid_of(self, entry_id: int) -> bytes:
        with self.store.write("test") as unit:
            return recording.ensure_uuid(unit, entries.get(unit.db, entry_id))

    def tag(self, uuid: bytes, *names: str) -> None:
        with self.store.write("test") as unit:
            for name in names:
                annotating.add_tag(unit, uuid, name)

    def untag(self, uuid: bytes, name: str) -> None:
        with self.store.write("test") as unit:
            annotating.remove_tag(unit, uuid, name)

    def note(self, uuid: bytes, name: bytes, value: bytes | None) -> None:
        with self.store.write("test") as unit:
            annotating.set_cell(unit, uuid, name, value)

    # what devices tell each other -----------------------------------------------------------------------------------

    def pages_for(self, other: "Device", limit: int = 3):
        """Pages that go on from where another stands, one at a time; shared rows first."""
        for kind in (SHARED, OWNED):
            for stream in sorted({row.id for row in streams.every(self.db) if row.kind == kind}):
                if stream.device == other.uuid and (kind == OWNED or stream.epoch == other.store.epoch):
                    continue
                while True:
                    at = streams.get(other.db, stream)
                    start = streams.get(self.db, stream).start_seq
                    seq, part_to, after = (start, 0, 0) if at is None else (at.seq, at.part_to, at.part_after)
                    page = self.page(stream, seq, part_to, after, limit)
                    if page is None:
                        break
                    yield page

    def page(self, stream: StreamId, seq: int, part_to: int, after: int, limit: int) -> Page | None:
        if stream.device == self.uuid and stream.epoch == self.store.epoch:
            if stream.kind == OWNED:
                return self.out.owned(seq, part_to, after, limit)
            return self.out.shared(seq, limit)
        row = streams.next_page(self.db, stream, seq, part_to, after)
        if row is None and seq < streams.get(self.db, stream).floor_seq:
            raise SnapshotNeeded("it is not kept any more")
        return None if row is None else kept(row)

    def tell(self, other: "Device", limit: int = 3) -> int:
        """Tell another all that he lacks; returns how many pages that took."""
        count = 0
        try:
            for page in self.pages_for(other, limit):
                before = streams.get(other.db, page.facts.stream)
                for _ in other.into.take(other.into.proven(page.head, page.body), lambda: 2):
                    pass
                assert streams.get(other.db, page.facts.stream) != before, "a page did not go on"
                count += 1
        except RewindNeeded:
            with other.store.note() as db:
                streams.rewind(db, self.out.stream(OWNED))
            return count + self.tell(other, limit)
        except SnapshotNeeded:
            self.give_state(other)
            return count + self.tell(other, limit)
        except MissingDependency:
            return count
        return count

    def give_state(self, other: "Device", *, is_whole: bool = True) -> None:
        joining = Joining(other.store, other.into.believed, other.into.tell)
        for part in list(read(self.db, self.uuid, self.store.epoch)):
            joining.take(part)
        if is_whole:
            joining.finish()
            for _ in epochs.say_all_again(other.store):
                pass

    def acknowledge(self, other: "Device") -> None:
        """Say to another what is here."""
        with other.store.note() as db:
            streams.note_holding(db, self.uuid, {row.id: row.seq for row in streams.every(self.db)})

    def prune(self) -> None:
        prune(self.store, devices.others(self.db, self.uuid))

    # what they know -------------------------------------------------------------------------------------------------

    def shared_rows(self) -> dict[str, list[tuple]]:
        """Every shared row, in words that are the same everywhere."""
        return {
            "register": [tuple(row) for row in registers.every(self.db)],
            "alias": self.db.execute("SELECT * FROM alias ORDER BY uuid").fetchall(),
            "attribute": self.db.execute("SELECT * FROM attribute ORDER BY entry_uuid, name").fetchall(),
            "tagging": sorted(
                self.db.execute(
                    "SELECT g.entry_uuid, t.uuid, dot_device, dot_seq, dot_part, hlc, part "
                    "FROM tagging g JOIN tag t ON t.id=g.tag_id"
                ).fetchall()
            ),
            "tag": self.db.execute("SELECT uuid, name FROM tag ORDER BY uuid").fetchall(),
            "location": self.db.execute(
                "SELECT uuid, name, mode, rules, removed FROM location ORDER BY uuid"
            ).fetchall(),
            "device": self.db.execute("SELECT * FROM device ORDER BY uuid").fetchall(),
            "waiting": self.db.execute("SELECT missing, device, seq, part FROM waiting").fetchall(),
            "lost": [row for row in self.db.execute("SELECT * FROM lost_dot") if not gaps.holds(self.db, *row[:2])],
            "quarantine": self.db.execute("SELECT * FROM quarantine").fetchall(),
        }

    def rows_of(self, device: bytes) -> list[tuple]:
        """What is known of a device's entries, by the numbers that they have there."""
        own = device == self.uuid
        rid = "id" if own else "st_ino"
        told = " AND e.rule=0 AND (e.kind<>0 OR e.size_bytes=0 OR e.hash_state>=2)" if own else ""
        rows = self.db.execute(
            f"SELECT b.uuid, e.{rid}, (SELECT p.{rid} FROM entry p WHERE p.id=e.parent_id), e.name, e.uuid, e.kind, "
            "e.mode, e.size_bytes, e.mtime_ns, e.ctime_ns, e.nlink, e.hash_state, c.full, e.version, t.target "
            "FROM entry e JOIN branch b ON b.id=e.branch_id LEFT JOIN content c ON c.id=e.content_id "
            f"LEFT JOIN target t ON t.entry_id=e.id WHERE b.device_uuid=?{told} ORDER BY 1, 2",
            (device,),
        ).fetchall()
        if own:
            rows = [(*row[:-1], self.targets.get(row[1]) if row[5] == KIND_SYMLINK else None) for row in rows]
        states = [(*row[:11], row[11] if row[5] == KIND_FILE and row[7] else 0, *row[12:]) for row in rows]
        return states

    def detached(self) -> int:
        return self.db.execute("SELECT count(*) FROM detached").fetchone()[0]

    def tree(self, device: bytes) -> dict[bytes, tuple]:
        """Paths of a device's entries, as seen here."""
        out = {}
        for row in self.db.execute(
            "SELECT e.id, e.kind, e.size_bytes FROM entry e JOIN branch b ON b.id=e.branch_id "
            "WHERE b.device_uuid=? AND e.parent_id IS NOT NULL",
            (device,),
        ).fetchall():
            path = b"/".join(entries.path_of(self.db, row[0]))
            out[path] = row[1:]
        return out


KEYS: dict[bytes, bytes] = {}


def introduce(*members: Device) -> None:
    """All know each other's keys, as after a pairing."""
    for one in members:
        KEYS[one.uuid] = one.keys.public_key


def settle(*members: Device, limit: int = 3) -> None:
    """Everybody tells everybody until nobody has anything to say."""
    for _ in range(50):
        if not sum(one.tell(other, limit) for one in members for other in members if one is not other):
            return
    raise AssertionError("they never come to an end")


def put_back_beyond(device: Device, copy: bytes) -> None:
    """An old copy of a device's database is put in place; what it goes on with lies beyond what it has forgotten."""
    known_seq = device.store.last_seq
    device.put_back(copy)
    device.store.leap(max(known_seq, device.store.last_seq) + 1)


def fork(author: Device, one: Device, other: Device, uuid: bytes) -> None:
    """An author tells one what its copy has forgotten, and another what the copy goes on with."""
    copy = author.kept()
    author.tag(uuid, "forgotten")
    author.note(uuid, b"user.note", b"forgotten")
    author.tell(one)
    put_back_beyond(author, copy)
    author.tag(uuid, "since")
    author.tell(other)


def assert_equal(*members: Device) -> None:
    """All say the same of everything that is shared, and know of each other what each says of itself."""
    first = members[0]
    for other in members[1:]:
        for table, rows in first.shared_rows().items():
            assert other.shared_rows()[table] == rows, f"{table} of {other.name} differs from that of {first.name}"
    for one in members:
        for other in members:
            assert other.rows_of(one.uuid) == one.rows_of(one.uuid), f"{other.name} knows {one.name} otherwise"
        assert not one.detached(), f"{one.name} has rows that hang nowhere"


__all__ = [
    "DIRECTORY",
    "FILE",
    "LINK",
    "Device",
    "Gap",
    "assert_equal",
    "fork",
    "introduce",
    "put_back_beyond",
    "settle",
    "stat",
]
