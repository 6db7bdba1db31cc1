"""The write unit: one transaction, one stamp, one commit; what it gave out stays given, also over a crash.

A crash is a copy of the files while the store is open: what a kill leaves behind is exactly what the system has been
told, because every commit is written before the unit ends.
"""

import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path

import apsw
import msgpack
import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index.model import change
from index.model.change import Commit
from index.model.entry import Stat
from index.model.errors import NoSpace, ReadOnly, StoreCorrupt, VersionUnsupported
from index.model.hlc import Hlc
from index.scan import recording
from index.store import changes, contents, devices, entries, filetypes, migrations, places, volumes
from index.store.feed import LAGGED
from index.store.store import Store, translate

DEVICE = b"d" * 16
FILE = Stat(stat.S_IFREG | 0o644, 3, 1, 1, 1000, 1, 0, 0)


class Stop(Exception):
    """What goes wrong in the middle of a unit."""


def _shared(store: Store) -> Store:
    """As one that other devices have too."""
    store.is_shared = True
    return store


def open_store(place: Path) -> Store:
    place.mkdir(parents=True, exist_ok=True)
    return _shared(Store(place / "library.db", DEVICE))


def crashed(store: Store, place: Path) -> Store:
    """The library as a kill of the process would leave it now, opened anew."""
    place.mkdir()
    for file in store.path.parent.glob("library.db*"):
        if not file.name.endswith("-shm"):  # made anew from the log
            shutil.copy(file, place)
    return _shared(Store(place / "library.db", DEVICE))


def put_root(store: Store) -> tuple[int, int]:
    """A branch and its root row; returns their ids."""
    with store.write("test") as unit:
        devices.put(unit.db, DEVICE, "device", b"k" * 32, 1)
        branch = places.put_branch(unit.db, b"b" * 16, None, DEVICE, "store", b"/somewhere", "fs", 1)
        mode = stat.S_IFDIR | 0o755
        root = recording.plain_row(unit, branch, 0, b"", FILE._replace(mode=mode))._replace(parent_id=None)
        entries.insert(unit.db, root)
    return branch, root.id


def outbox(store: Store) -> list[tuple[int, int, int]]:
    """(seq, part, hlc) of everything that other devices will hear, in their order; but for where a start leaped."""
    sql = "SELECT seq, part, hlc FROM outbox WHERE model<>'stream' ORDER BY epoch, seq, part"
    return [tuple(row) for row in store.db.execute(sql)]


def bounds(store: Store) -> dict[str, int]:
    return {name: changes.get_counter(store.db, name) for name in ("entry", "seq", "hlc")}


@pytest.fixture
def store(tmp_path):
    made = open_store(tmp_path / "library")
    yield made
    made.close()


# -- a unit is whole or nothing ----------------------------------------------------------------------------------------


def test_a_unit_writes_rows_and_outbox_in_one_transaction(store):
    """Another connection sees neither, then both."""
    with store.reader() as reader:

        def seen() -> tuple[int, int]:
            facts = reader.execute("SELECT count(*) FROM meta WHERE key='x'").fetchone()
            return facts[0], reader.execute("SELECT count(*) FROM outbox").fetchone()[0]

        with store.write("test") as unit:
            changes.set_meta(unit.db, "x", 1)
            unit.tell("model", "op", b"key", "body")
            assert seen() == (0, 0)
        assert seen() == (1, 1)


def test_the_outbox_says_what_was_told_in_order(store):
    """Parts count within a unit; key and body are msgpack; every row has the stamp of its unit."""
    with store.write("test") as unit:
        for body in ("a", None, [1, b"c"]):
            unit.tell("tag", "put", b"key", body)
        assert unit.part == 3
    found = store.db.execute("SELECT epoch, seq, part, hlc, model, op, key, body FROM outbox ORDER BY part").fetchall()
    assert [row[:4] for row in found] == [(store.epoch, unit.seq, part, unit.hlc) for part in range(3)]
    assert {row[4:6] for row in found} == {("tag", "put")}
    assert [msgpack.unpackb(row[7]) for row in found] == ["a", None, [1, b"c"]]


@pytest.mark.parametrize("when", ["inside", "at the commit"])
def test_what_went_wrong_leaves_no_trace(store, monkeypatch, when):
    """Neither rows nor outbox, nor a number, nor a word to those who listen; the next unit gets what was given back."""
    listener = store.feed.subscribe()
    before = (outbox(store), bounds(store), store.last_seq, store.last_entry_id, store.last_hlc)

    def full() -> None:
        raise NoSpace("the disk is full")

    if when == "at the commit":
        monkeypatch.setattr(store, "commit", full)
    with pytest.raises((Stop, NoSpace)), store.write("test") as unit:
        given = unit.new_id()
        changes.set_meta(unit.db, "x", 1)
        unit.tell("model", "op", b"key", "body")
        unit.changed(change.ADDED, 1, given, None, b"", given)
        if when == "inside":
            raise Stop
    monkeypatch.undo()
    assert changes.get_meta(store.db, "x") is None
    assert (outbox(store), bounds(store), store.last_seq, store.last_entry_id, store.last_hlc) == before
    with pytest.raises(trio.WouldBlock):
        listener.receive_nowait()
    with store.write("test") as unit:
        assert unit.new_id() == given


def test_a_commit_is_published_after_it_can_be_read(store):
    """Whoever hears of a change finds it."""
    listener = store.feed.subscribe()
    with store.write(change.ORIGIN_SCAN) as unit:
        changes.set_meta(unit.db, "x", 1)
        unit.changed(change.META, 1, 2, 3, b"name", 4)
        with pytest.raises(trio.WouldBlock):
            listener.receive_nowait()
    told = listener.receive_nowait()
    changed = change.Change(change.META, 1, 2, 3, b"name", 4)
    assert told == Commit(unit.seq, unit.hlc, change.ORIGIN_SCAN, (changed,))
    with store.reader() as reader:
        assert changes.get_meta(reader, "x") == 1


def test_a_unit_without_changes_tells_nobody(store):
    """But has its number and its stamp."""
    listener = store.feed.subscribe()
    before = store.last_seq
    with store.write("test"):
        pass
    assert store.last_seq == before + 1
    with pytest.raises(trio.WouldBlock):
        listener.receive_nowait()


def test_who_listens_slowly_is_told_that_commits_were_lost(store):
    """Once, before the next one that fits; who asked to be spared an origin hears nothing of it."""
    slow, deaf = store.feed.subscribe(2), store.feed.subscribe(without=frozenset({"test"}))

    def write(number: int) -> None:
        with store.write("test") as unit:
            unit.changed(change.META, 1, number, None, b"", number)

    for number in range(4):
        write(number)
    assert [slow.receive_nowait().changes[0].entry_id for _ in range(2)] == [0, 1]
    write(4)
    assert slow.receive_nowait() is LAGGED
    assert slow.receive_nowait().changes[0].entry_id == 4
    with pytest.raises(trio.WouldBlock):
        deaf.receive_nowait()


def test_the_log_is_folded_in_when_it_has_grown(store):
    """By `checkpoint` alone, once; then there is nothing to do until it has grown again."""

    def write_much() -> None:
        for number in range(30):
            with store.write("test") as unit:
                changes.set_meta(unit.db, f"blob{number}", bytes(700_000))

    def in_the_database() -> int:
        return store.path.stat().st_size

    write_much()
    before = in_the_database()
    assert before < 1 << 20
    trio.run(store.checkpoint)
    assert in_the_database() > 20 << 20
    assert store._log_pages == 0
    with store.write("test") as unit:
        changes.set_meta(unit.db, "small", 1)
    assert 0 < store._log_pages < 100, "the log begins anew"


def test_who_only_forgets_is_told_in_the_moment(store):
    """Before the unit ends, every commit, and none that was rolled back."""
    heard: list[Commit] = []
    store.feed.at_once(heard.append)
    with store.write("test") as unit:
        unit.changed(change.META, 1, 5, None, b"", 5)
        assert heard == []
    assert [c.changes[0].entry_id for c in heard] == [5]
    with pytest.raises(Stop), store.write("test") as unit:
        unit.changed(change.META, 1, 6, None, b"", 6)
        raise Stop
    assert len(heard) == 1


# -- numbers and stamps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_no_number_is_given_twice_over_a_restart(tmp_path, how):
    """Ids are inode numbers, which the kernel of a program that still runs may remember."""
    store = open_store(tmp_path / "library")
    with store.write("test") as unit:
        ids = [unit.new_id() for _ in range(10)]
    seq, hlc = unit.seq, unit.hlc
    if how == "closed":
        store.close()
        again = open_store(tmp_path / "library")
    else:
        again = crashed(store, tmp_path / "crashed")
        store.close()
    with again.write("test") as unit:
        assert unit.new_id() > max(ids)
        assert unit.seq > seq
        assert unit.hlc > hlc
    again.close()


def test_numbers_reserved_ahead_hold_however_many_a_unit_takes(tmp_path):
    """More than are reserved at a time, in one unit."""
    store = open_store(tmp_path / "library")
    with store.write("test") as unit:
        last = max(unit.new_id() for _ in range(3 * 4096))
    again = crashed(store, tmp_path / "crashed")
    assert again.last_entry_id >= last
    for opened in (store, again):
        opened.close()


def test_no_number_is_below_those_of_the_kernel_and_the_views(store):
    """1 is the root; the first numbers are ours."""
    with store.write("test") as unit:
        assert unit.new_id() > 64


def test_stamps_go_on_when_the_clock_goes_back(tmp_path):
    """By a day, in one run and over a restart."""
    store = open_store(tmp_path / "library")
    stamps = []
    for offset_s in (0, -86_400, -86_400, 10):
        now_ns = 1_800_000_000_000_000_000 + offset_s * 1_000_000_000
        if offset_s:
            store.close()
            store = open_store(tmp_path / "library")
        store.now_ns = lambda now_ns=now_ns: now_ns
        for _ in range(2):
            with store.write("test") as unit:
                stamps.append(unit.hlc)
    store.close()
    assert stamps == sorted(set(stamps))
    assert Hlc.unpacked(stamps[-1]).time_ms == 1_800_000_010_000


# -- files that are not ours to write ----------------------------------------------------------------------------------


def test_a_newer_library_is_refused_unharmed(tmp_path):
    """By its version, before anything is read or written."""
    path = tmp_path / "library" / "library.db"
    open_store(path.parent).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {migrations.SCHEMA_VERSION + 1}")
    db.execute("CREATE TABLE of_the_future(x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(VersionUnsupported, match=r"library\.db.*newer sdmount"):
        Store(path, DEVICE)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["library.db"]


@pytest.mark.parametrize("application_id", [77, 0])
def test_the_database_of_another_program_is_refused(tmp_path, application_id):
    """By its application id, or by tables in one that has none; what is in it stays in it."""
    path = tmp_path / "library.db"
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA application_id = {application_id}")
    db.execute("CREATE TABLE theirs(x)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(VersionUnsupported, match="another program"):
        Store(path, DEVICE)
    assert path.read_bytes() == before
    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    assert db.execute("PRAGMA user_version").fetchone() == (0,)
    db.close()


def test_what_is_no_database_is_named_and_left_alone(tmp_path):
    """A line that says which file."""
    path = tmp_path / "library.db"
    path.write_bytes(b"no database at all, but long enough to look like something" * 20)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"library\.db"):
        Store(path, DEVICE)
    assert path.read_bytes() == before


def test_a_library_of_the_third_version_follows_its_names_from_now_on(tmp_path):
    """It gets what the index of names needs, and saved searches; its rows are all new to the index."""
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 3)
    old_row(db, 1, None, b"", kind=1)
    old_row(db, 70, 1, b"beach")
    db.commit()
    db.close()
    store = open_store(path.parent)
    assert store.db.execute("SELECT seq, entry_id FROM search_todo").fetchall() == [(0, 0)]
    with store.write("test") as unit:
        entries.move(unit.db, 70, 1, b"sea", unit.seq)
        entries.delete(unit.db, 70)
    assert store.db.execute("SELECT entry_id FROM search_todo").fetchall() == [(0,), (70,), (70,)]
    store.close()


OLD_SCHEMA = Path(__file__).parent / "schemas" / "v3.sql"


def old_library(path: Path, version: int) -> sqlite3.Connection:
    """A database with the tables of version 3, called one of `version`."""
    path.parent.mkdir(parents=True)
    db = sqlite3.connect(path)
    db.executescript(OLD_SCHEMA.read_text("utf-8"))
    db.execute(f"PRAGMA user_version = {version}")
    for key, value in (("library_uuid", b"l" * 16), ("epoch", 1), ("created_ns", 1)):
        db.execute("INSERT INTO meta VALUES(?,?)", (key, value))
    db.execute("INSERT INTO device VALUES(?,'device','device',?,1)", (DEVICE, b"k" * 32))
    columns = "id, uuid, device_uuid, label, root_path, fs_id, root_ino"
    db.execute(f"INSERT INTO branch({columns}) VALUES(1,?,?,'',x'2f78','1',1)", (b"b" * 16, DEVICE))
    return db


def old_row(db: sqlite3.Connection, number: int, parent: int | None, name: bytes, **more: object) -> None:
    """A row as version 3 had it."""
    row = {"id": number, "branch_id": 1, "parent_id": parent, "name": name, "node": number, "kind": 0, "size_bytes": 0}
    row |= dict.fromkeys(("mode", "mtime_ns", "ctime_ns", "nlink", "uid", "gid", "seq"), 1) | {"st_ino": number} | more
    db.execute(f"INSERT INTO entry({','.join(row)}) VALUES({','.join('?' * len(row))})", tuple(row.values()))


def columns(db: apsw.Connection) -> dict[str, set[str]]:
    """What each table has."""
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    return {name: {row[1] for row in db.execute(f"PRAGMA table_info({name})")} for name in tables}


def test_an_older_library_gets_what_a_new_one_has(tmp_path):
    """Tables and columns, whatever step brings them; what it held stays, and nobody knows its types."""
    new = open_store(tmp_path / "new")
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 3)
    db.execute("INSERT INTO content VALUES(1, ?, ?, ?, 10)", (b"u" * 16, b"s" * 8, b"f" * 32))
    db.commit()
    db.close()
    store = open_store(path.parent)
    assert columns(store.db) == columns(new.db)
    assert contents.get(store.db, 1).full == b"f" * 32
    assert filetypes.of_content(store.db, 1) is None
    store.close()
    new.close()


def test_a_library_of_the_first_version_is_taken_on(tmp_path):
    """Its limbo, which lacked a column, begins anew; all else stays."""
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 1)
    db.execute("DROP TABLE limbo")
    db.execute("CREATE TABLE limbo(branch_id INTEGER, st_ino INTEGER)")
    db.commit()
    db.close()
    store = open_store(path.parent)
    assert store.library_uuid == b"l" * 16
    assert "ctime_ns" in [row[1] for row in store.db.execute("PRAGMA table_info(limbo)")]
    assert store.db.pragma("user_version") == migrations.SCHEMA_VERSION
    store.close()


def test_a_library_of_the_second_version_hashes_again_what_had_the_content_of_another(tmp_path):
    """It shows by the size; what agrees stays."""
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 2)
    db.execute("INSERT INTO content VALUES(1, ?, ?, ?, 10)", (b"u" * 16, b"s" * 8, b"f" * 32))
    old_row(db, 1, None, b"", kind=1)
    old_row(db, 70, 1, b"agrees", size_bytes=10, content_id=1, hash_state=2)
    old_row(db, 71, 1, b"not", size_bytes=11, content_id=1, hash_state=2)
    db.execute("DROP INDEX limbo_content")
    db.commit()
    db.close()
    store = open_store(path.parent)
    assert store.db.pragma("user_version") == migrations.SCHEMA_VERSION
    states = {row.name: row.hash_state for row in entries.children(store.db, 1)}
    assert states == {b"agrees": 2, b"not": 0}
    store.close()


def test_a_library_of_the_third_version_gets_to_know_its_volumes(tmp_path):
    """Its branches stay, on no volume yet."""
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 3)
    db.commit()
    db.close()
    store = open_store(path.parent)
    assert volumes.volumes(store.db) == []
    (row,) = places.branches(store.db)
    assert (row.volume_id, row.volume_path, row.one_fs) == (None, None, 0)
    store.close()


def test_a_library_of_the_third_version_gets_rules(tmp_path):
    """Its rows are held by nothing, and what waited for the hasher still does."""
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 3)
    old_row(db, 1, None, b"", kind=1)
    old_row(db, 70, 1, b"file", size_bytes=5)
    db.commit()
    db.close()
    store = open_store(path.parent)
    row = entries.get(store.db, 70)
    assert (row.rule, row.size_bytes) == (0, 5)
    assert entries.count_unidentified(store.db) == 1
    with store.write("test") as unit:
        entries.set_rule(unit.db, row.id, 4, unit.seq)
    assert entries.count_unidentified(store.db) == 0
    store.close()


def test_a_library_of_the_third_version_learns_what_lies_below_its_directories(tmp_path):
    """Table sums is made from the rows that are there."""
    path = tmp_path / "library" / "library.db"
    db = old_library(path, 3)
    old_row(db, 70, None, b"", kind=1)
    old_row(db, 71, 70, b"below", kind=1)
    old_row(db, 72, 71, b"file", size_bytes=10)
    old_row(db, 73, 70, b"other", size_bytes=5)
    old_row(db, 74, 70, b"link", kind=2, size_bytes=5)
    db.commit()
    db.close()
    store = open_store(path.parent)
    assert store.sums_below([70]) == (15, 2, 1)
    assert store.sums_below([71]) == (10, 1, 0)
    store.close()


def test_a_migration_that_fails_leaves_the_old_version(tmp_path, monkeypatch):
    """Each step is one transaction."""
    path = tmp_path / "library" / "library.db"
    open_store(path.parent).close()

    def step(db: apsw.Connection) -> None:
        db.execute("CREATE TABLE half_done(x)")
        raise Stop

    version = migrations.SCHEMA_VERSION
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", version + 1)
    monkeypatch.setitem(migrations.STEPS, version, step)
    with pytest.raises(Stop):
        Store(path, DEVICE)
    monkeypatch.undo()
    store = Store(path, DEVICE)
    assert store.db.execute("SELECT count(*) FROM sqlite_master WHERE name='half_done'").fetchone() == (0,)
    store.close()


def test_a_library_keeps_who_it_is(tmp_path):
    """Its uuid is made once."""
    first = open_store(tmp_path / "library")
    first.close()
    again = open_store(tmp_path / "library")
    assert (again.library_uuid, again.epoch) == (first.library_uuid, first.epoch)
    again.close()


@pytest.mark.parametrize(
    ("theirs", "ours"), [(apsw.FullError, NoSpace), (apsw.ReadOnlyError, ReadOnly), (apsw.IOError, StoreCorrupt)]
)
def test_errors_of_the_database_are_ours_with_the_file_in_them(theirs, ours):
    """What the kernel gets is their errno."""
    error = translate(theirs("message"), Path("/somewhere/library.db"))
    assert type(error) is ours
    assert "/somewhere/library.db" in str(error)


def test_the_log_is_synced_once_for_what_is_durable_already(store, monkeypatch):
    """`make_durable` costs a sync only when something was committed since; and one at first, for what a process before
    this one may have left."""
    synced = []
    monkeypatch.setattr("index.store.ground.os.fdatasync", synced.append)

    async def twice() -> None:
        await store.make_durable()
        await store.make_durable()

    trio.run(twice)
    assert len(synced) == 1
    with store.write("test"):
        pass
    trio.run(twice)
    assert len(synced) == 2
    with store.note():
        pass
    trio.run(twice)
    assert len(synced) == 3


# -- any units, kills and clocks ---------------------------------------------------------------------------------------


class Units(RuleBasedStateMachine):
    """Units that succeed and fail, restarts, kills and a clock that jumps, against a list."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory(prefix="store-")
        self._rooms = 0
        self.old: list[Store] = []
        self.now_ms = 1_800_000_000_000
        self.store = self._timed(open_store(Path(self._place.name) / "0"))
        self.branch, self.root = put_root(self.store)
        self.listener = self.store.feed.subscribe()
        self.told: list[tuple[int, int, int]] = []  # the outbox as it must be
        self.rows: dict[bytes, int] = {}
        self.ids = {self.root}
        self.stamps = [self.store.last_hlc.packed()]
        self.seqs = [self.store.last_seq]

    def _timed(self, store: Store) -> Store:
        store.now_ns = lambda: self.now_ms * 1_000_000
        return store

    def teardown(self) -> None:
        for store in (*self.old, self.store):
            store.close()
        self._place.cleanup()

    @rule(rows=st.integers(0, 3), parts=st.integers(0, 3), fails=st.booleans())
    def unit(self, rows, parts, fails) -> None:
        """Rows, outbox and changes together; or an exception after all of them."""
        name = f"{len(self.seqs)}-{fails}-{len(self.ids)}".encode()
        made, told = [], []
        try:
            with self.store.write("test") as unit:
                for number in range(rows):
                    row = recording.plain_row(unit, self.branch, self.root, name + b"-%d" % number, FILE)
                    entries.insert(unit.db, row)
                    made.append(row)
                for part in range(parts):
                    unit.tell("model", "op", name, part)
                    told.append((unit.seq, part, unit.hlc))
                if fails:
                    raise Stop
        except Stop:
            return
        assert self.ids.isdisjoint(row.id for row in made)
        self.ids.update(row.id for row in made)
        self.rows.update((row.name, row.id) for row in made)
        self.told += told
        self.stamps.append(unit.hlc)
        self.seqs.append(unit.seq)
        if made:
            commit = self.listener.receive_nowait()
            assert (commit.seq, commit.hlc) == (unit.seq, unit.hlc)
            assert [one.entry_id for one in commit.changes] == [row.id for row in made]

    @rule(rows=st.integers(0, 3))
    def killed_inside(self, rows) -> None:
        """The process dies in the middle of a unit: nothing of it is there afterwards."""
        with pytest.raises(Stop), self.store.write("test") as unit:
            for number in range(rows):
                entries.insert(unit.db, recording.plain_row(unit, self.branch, self.root, b"lost-%d" % number, FILE))
            unit.tell("model", "op", b"lost", None)
            self._open(crashed)
            raise Stop

    @rule()
    def killed_between(self) -> None:
        self._open(crashed)

    @rule()
    def restart(self) -> None:
        self.store.close()
        self._open(lambda store, _: Store(store.path, DEVICE))

    def _open(self, how) -> None:
        old, self._rooms = self.store, self._rooms + 1
        self.old.append(old)  # a killed process closes nothing
        self.store = self._timed(_shared(how(old, Path(self._place.name) / str(self._rooms))))
        self.listener = self.store.feed.subscribe()

    @rule(by_ms=st.integers(-5000, 5000))
    def clock(self, by_ms) -> None:
        self.now_ms += by_ms

    @invariant()
    def the_outbox_is_what_was_told(self) -> None:
        assert outbox(self.store) == self.told

    @invariant()
    def the_rows_are_those_of_whole_units(self) -> None:
        assert {row.name: row.id for row in entries.children(self.store.db, self.root)} == self.rows

    @invariant()
    def numbers_and_stamps_only_grow(self) -> None:
        for given in (self.stamps, self.seqs):
            assert given == sorted(set(given))
        assert self.store.last_entry_id >= max(self.ids)

    @invariant()
    def the_bounds_on_disk_hold(self) -> None:
        """Nothing was given out that the disk does not know to be taken."""
        found = bounds(self.store)
        assert found["entry"] >= max(self.ids)
        assert found["seq"] >= self.seqs[-1]
        assert found["hlc"] >= self.stamps[-1]


TestUnits = Units.TestCase
TestUnits.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
