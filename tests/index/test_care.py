"""The care of a database: faults are found, pages that are destroyed cost no more than what was on them.

Damage is done to the file itself, page by page; which page holds what SQLite says (its table dbstat).
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.care import backup, checking
from index.care.mend import mend
from index.care.pages import Damaged, Pages, record
from index.care.salvage import Saved, salvage
from index.model.errors import VersionUnsupported
from index.store import changes, contents, entries, metadata, tags
from index.store.connection import connect
from index.store.store import Store
from tests.index.damage import PAGE, overwrite, overwrite_at, pages_of, rows
from tests.index.names_library import DEVICE, DIRECTORY, NamesLibrary

FILES = 1200


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed library of 30 directories with 1200 files, of which each tenth has a tag and a comment."""
    directory = tmp_path_factory.mktemp("sound")
    library = NamesLibrary(directory)
    dirs = [library.add(b"directory %d" % number, mode=DIRECTORY) for number in range(30)]
    for number in range(FILES):
        row = library.add(b"file %d" % number, parent=dirs[number % 30].id)
        if number % 10 == 0:
            library.tag(row, f"tag {number % 7}")
            with library.store.write("test") as unit:
                uuid = row.id.to_bytes(16, "big")
                metadata.put(unit.db, uuid, b"user.xdg.comment", b"c" * (number * 9), unit.hlc, DEVICE)
                full = number.to_bytes(32, "big")
                (content,) = contents.exact(unit.db, [contents.Read(full[-8:], full, 3, None)])
                entries.set_identity(unit.db, row.id, content, 2, None, unit.seq)
    library.close()
    return directory


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    """A copy of the database, to be damaged."""
    return Path(shutil.copy(sound / "library.db", tmp_path / "library.db"))


ENTRY_ROWS = "SELECT id, branch_id, parent_id, name, node, uuid, kind, st_ino, size_bytes FROM entry"
TAG_ROWS = "SELECT g.entry_uuid, t.uuid, t.name, g.dot_seq, g.hlc FROM tagging g JOIN tag t ON t.id=g.tag_id"
TAGS = "SELECT g.entry_uuid, t.uuid, t.name, g.dot_seq FROM tagging g JOIN tag t ON t.id=g.tag_id"
COMMENTS = "SELECT entry_uuid, value FROM attribute"


def saved_from(damaged: Path, kept: Path | None = None) -> tuple[Path, dict[str, Saved]]:
    """The database that is saved of a damaged one, mended as a repair does it."""
    fresh = damaged.with_name("fresh.db")
    saved = salvage(damaged, fresh, kept)
    db = connect(fresh)
    db.pragma("foreign_keys", False)
    with db:
        mend(db, DEVICE, b"l" * 16, is_sure=not saved["counter"].losses, relists=True)
    db.close()
    assert checking.check(fresh, DEVICE) == []
    return fresh, saved


# -- Checking


def test_a_sound_library_has_no_faults(sound: Path) -> None:
    """Nor does looking for them change it."""
    before = (sound / "library.db").read_bytes()
    assert checking.check(sound / "library.db", DEVICE) == []
    assert (sound / "library.db").read_bytes() == before


def test_another_schema_is_no_fault(damaged: Path) -> None:
    """It cannot be looked through; what is empty or missing is a fault."""
    with apsw.Connection(str(damaged)) as db:
        db.pragma("user_version", 3)
    with pytest.raises(VersionUnsupported, match="version 3"):
        checking.check(damaged, DEVICE)
    damaged.write_bytes(b"")
    assert "is empty" in checking.check(damaged, DEVICE)[0]
    damaged.unlink()
    assert "cannot be opened" in checking.check(damaged, DEVICE)[0]


FAULTS: list[tuple[str, str]] = [
    ("UPDATE entry SET parent_id=999999 WHERE id=100", "points to a row of entry"),
    ("UPDATE entry SET parent_id=101 WHERE id=100", "entry 100 hangs in no directory"),
    ("UPDATE entry SET parent_id=(SELECT id FROM entry WHERE name=CAST('directory 2' AS BLOB)) "
     "WHERE name=CAST('directory 2' AS BLOB)", "hangs in no directory"),
    ("INSERT INTO branch SELECT 77, x'77', NULL, device_uuid, '', root_path, fs_id, 0, NULL, 'done', NULL, NULL, NULL, "
     "NULL, 0 FROM branch", "branch 77 has no directory"),
    ("UPDATE entry SET name=CAST('a/b' AS BLOB) WHERE id=100", "entry 100 has a name that no directory can have"),
    ("UPDATE entry SET node=101 WHERE id=100", "entry 100 goes by the number of another file"),
    ("UPDATE entry SET hash_state=2 WHERE id=101", "entry 101 is told to be hashed"),
    ("UPDATE entry SET size_bytes=4 WHERE content_id IS NOT NULL", "is told to be hashed"),
    ("UPDATE sums SET rfiles=rfiles+1 WHERE dir_id=70", "below directory 70 is added up wrongly"),
    ("DELETE FROM sums WHERE dir_id=70", "below directory 70 is added up wrongly"),
    ("UPDATE counter SET value=70 WHERE name='entry'", "counter entry says 70"),
    ("UPDATE counter SET value=7 WHERE name='seq'", "counter seq says 7"),
    ("UPDATE counter SET value=7 WHERE name='hlc'", "counter hlc says 7"),
    ("DELETE FROM counter WHERE name='seq'", "counter seq is missing"),
    ("DELETE FROM tag", "tagging  points to a row of tag"),
    ("UPDATE tag SET name='other' WHERE name='tag 3'", "is not what was said of it"),
    ("INSERT INTO detached SELECT id, branch_id, NULL, 1 FROM entry WHERE id=100", "entry 100 is noted as detached"),
    ("INSERT INTO detached VALUES(999999, 1, NULL, 0)", "entry 999999 is noted as detached"),
    ("INSERT INTO target VALUES(999999, x'2f')", "entry 999999 is told to lead somewhere"),
    ("INSERT INTO alias VALUES(x'03', x'02'), (x'02', x'01')", "what 03 is an alias of"),
    ("INSERT INTO alias VALUES(x'01', x'02')", "what 01 is an alias of"),
    ("INSERT INTO stream(device, epoch, kind, start_seq, seq, floor_seq) VALUES(x'0e', 1, 0, 0, 7, 0)",
     "a stream is of device 0e"),
    ("INSERT INTO page VALUES(5, x'0e', 1, 1, 0, 7, 0, 0, 1, x'00', x'00')", "page 5 is not what it is kept as"),
    ("DELETE FROM meta WHERE key='library_uuid'", "library_uuid is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "words"), FAULTS)
def test_a_planted_fault_is_told_and_mended(damaged: Path, sql: str, words: str) -> None:
    """In a sentence that names it. Afterwards nothing is wrong, and what was given is not given again."""
    given_before = rows(damaged, "SELECT max(id) FROM entry")
    db = apsw.Connection(str(damaged))
    db.execute(sql)
    db.close()
    faults = checking.check(damaged, DEVICE)
    assert any(words in fault for fault in faults), faults
    db = connect(damaged)
    db.pragma("foreign_keys", False)
    with db:
        assert mend(db, DEVICE, b"l" * 16, is_sure=True)
    with db:
        assert mend(db, DEVICE, b"l" * 16, is_sure=True) == []
    db.close()
    assert checking.check(damaged, DEVICE) == []
    store = Store(damaged, DEVICE)
    with store.write("test") as unit:
        assert unit.new_id() > max(row[0] for row in given_before)
    store.close()


def test_what_hangs_nowhere_waits_for_its_file(damaged: Path) -> None:
    """In limbo, with its id, number and uuid: so its tags come back with it."""
    ((entry_id, uuid, st_ino),) = rows(damaged, "SELECT id, uuid, st_ino FROM entry WHERE uuid IS NOT NULL LIMIT 1")
    db = connect(damaged)
    db.pragma("foreign_keys", False)
    with db:
        db.execute("UPDATE entry SET parent_id=999999 WHERE id=?", (entry_id,))
        mend(db, DEVICE, b"l" * 16, is_sure=True)
    db.close()
    assert (entry_id, uuid, st_ino) in rows(damaged, "SELECT entry_id, uuid, st_ino FROM limbo")


def test_names_of_tags_that_are_lost_are_asked_of_the_files(library: NamesLibrary) -> None:
    """Of those that were seen to carry more than the library has: what a file lacks would be taken away here too."""
    carry: list[tuple[bytes, bytes | None]] = [
        (b"both", b"gone, stays"), (b"stays", b"stays"), (b"other", b"gone"), (b"plain", None),
    ]  # fmt: skip
    files = {name: library.add(name) for name, _ in carry}
    library.tag(files[b"both"], "gone", "stays")
    library.tag(files[b"stays"], "stays")
    library.tag(files[b"other"], "gone", "stays")
    with library.store.write("test") as unit:
        for name, value in carry:
            if value is not None:
                metadata.mirror_put(unit.db, files[name], b"user.xdg.tags", value)
                metadata.put(unit.db, files[name].id.to_bytes(16, "big"), b"user.xdg.tags", value, unit.hlc, DEVICE)
            metadata.set_mirror_state(unit.db, files[name], files[name].st_ino, 0)
    db = library.store.db
    db.pragma("foreign_keys", False)
    with db:
        db.execute("DELETE FROM tag WHERE name='gone'")
        mend(db, DEVICE, b"l" * 16, is_sure=True)
    asked = {name for name, row in files.items() if metadata.mirror_state(db, row) is None}
    assert asked == {b"both"}
    assert rows(library.path, "SELECT name FROM entry WHERE ctime_ns<0") == {(b"both",)}
    assert rows(library.path, "SELECT 1 FROM entry WHERE kind=1 AND scanned_ns IS NOT NULL") == set()


# -- Salvage


def test_a_sound_file_is_read_to_the_last_row(sound: Path, damaged: Path) -> None:
    """Every row of every table that is not made of others, long values and all."""
    fresh, saved = saved_from(damaged)
    assert [name for name, one in saved.items() if one.losses] == []
    for (table,) in rows(damaged, "SELECT name FROM sqlite_master WHERE type='table'"):
        if table != "search_todo":
            assert rows(fresh, f"SELECT * FROM {table}") == rows(damaged, f"SELECT * FROM {table}"), table


def test_what_is_only_in_the_log_is_read(sound: Path, tmp_path: Path) -> None:
    """A killed process leaves its last commits there; a frame that is torn ends it."""
    library = NamesLibrary(tmp_path)
    library.store.db.wal_autocheckpoint(0)
    rows_before = [library.add(b"%d" % number) for number in range(50)]
    place = tmp_path / "crashed"
    place.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{library.path}{end}", place)
    expected = rows(library.path, ENTRY_ROWS)
    library.close()
    pages = Pages(place / "library.db")
    assert pages.count > 1
    pages.close()
    with open(place / "library.db-wal", "r+b") as log:
        log.seek(-10, os.SEEK_END)
        log.write(b"torn" * 2)
    with open(place / "library.db", "r+b") as file:
        file.write(b"\0" * file.seek(0, os.SEEK_END))
    fresh = place / "fresh.db"
    salvage(place / "library.db", fresh, None)
    found = rows(fresh, ENTRY_ROWS)
    assert found <= expected
    assert len(found) == len(rows_before)  # the root, and all but the last one


@pytest.mark.parametrize("kind", ["leaf", "internal"])
def test_entries_of_a_destroyed_page_come_back_from_indexes(sound: Path, damaged: Path, kind: str) -> None:
    """With id, number, directory, name and uuid, so that tags and inode numbers stay; what the disk says is asked
    anew."""
    page = pages_of(damaged, "entry", kind)[-1 if kind == "leaf" else 0]
    overwrite(damaged, page)
    assert checking.check(damaged, DEVICE) != []
    fresh, saved = saved_from(damaged)
    assert saved["entry"].losses
    assert saved["entry"].strays if kind == "internal" else saved["entry"].indexed
    keys = "SELECT id, branch_id, parent_id, name, node, uuid, kind, st_ino FROM entry"
    assert rows(fresh, keys) == rows(sound / "library.db", keys)
    for sql in (TAG_ROWS, COMMENTS):
        assert rows(fresh, sql) == rows(sound / "library.db", sql)


def test_tags_of_a_destroyed_page_come_back_from_their_index(sound: Path, damaged: Path) -> None:
    """Which file has which tag stands there; when it was added does not: of that the backup knows."""
    overwrite(damaged, pages_of(damaged, "tagging")[0])
    fresh, saved = saved_from(damaged)
    assert rows(fresh, TAGS) == rows(sound / "library.db", TAGS)
    lost = len(rows(sound / "library.db", TAG_ROWS) - rows(fresh, TAG_ROWS))
    assert saved["tagging"].indexed == lost > 0
    fresh.unlink()
    fresh, saved = saved_from(damaged, sound / "library.db")
    assert (saved["tagging"].backup, saved["tagging"].indexed) == (lost, 0)
    assert rows(fresh, TAG_ROWS) == rows(sound / "library.db", TAG_ROWS)


def test_lost_tags_are_those_of_the_page_and_no_others(sound: Path, damaged: Path) -> None:
    """Where their index is lost too; and the backup gives them back."""
    leaves = pages_of(damaged, "tagging")
    assert len(leaves) > 1
    indexes = [(index, sort) for index in ("tagging_tag", "tagging_dot") for sort in ("leaf", "internal")]
    for page in (leaves[0], *(page for index, sort in indexes for page in pages_of(damaged, index, sort))):
        overwrite(damaged, page)
    fresh, saved = saved_from(damaged)
    expected, found = rows(sound / "library.db", TAG_ROWS), rows(fresh, TAG_ROWS)
    assert found < expected
    assert len(found) > len(expected) // 4
    assert saved["tagging"].losses.pages == 1
    fresh.unlink()
    fresh, saved = saved_from(damaged, sound / "library.db")
    assert saved["tagging"].backup == len(expected) - len(found)
    assert rows(fresh, TAG_ROWS) == expected


def test_a_damaged_name_of_an_index_is_no_part_of_a_statement(sound: Path, damaged: Path) -> None:
    """It is a name that nobody knows, and the other indexes know the rows of the lost page."""
    data = damaged.read_bytes()
    assert data.count(b"indexentry_content") == 1
    damaged.write_bytes(data.replace(b"indexentry_content", b"indexentry'content"))
    overwrite(damaged, pages_of(sound / "library.db", "entry")[-1])
    fresh, saved = saved_from(damaged)
    assert saved["entry"].indexed
    keys = "SELECT id, parent_id, name, node, uuid, st_ino FROM entry"
    assert rows(fresh, keys) == rows(sound / "library.db", keys)


def test_names_of_tags_come_back_from_their_indexes(sound: Path, damaged: Path) -> None:
    """Name and uuid stand there too."""
    overwrite(damaged, pages_of(damaged, "tag")[0])
    fresh, saved = saved_from(damaged)
    assert saved["tag"].indexed == 7
    assert rows(fresh, TAG_ROWS) == rows(sound / "library.db", TAG_ROWS)


def zeroed_header(path: Path) -> None:
    overwrite(path, 1, b"\0" * 100)


def zeroed_first_page(path: Path) -> None:
    overwrite(path, 1, b"\0" * PAGE)


def broken_freelist(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE filler(x); INSERT INTO filler VALUES(zeroblob(100000)); DROP TABLE filler")
    db.close()
    trunk = int.from_bytes(path.read_bytes()[32:36], "big")
    assert trunk
    overwrite(path, trunk)


def broken_index(path: Path) -> None:
    overwrite(path, pages_of(path, "entry_name")[0])


def wrong_page_size(path: Path) -> None:
    overwrite_at(path, 16, b"\x20")


def wrong_reserved_bytes(path: Path) -> None:
    overwrite_at(path, 20, b"\x80")


def few_reserved_bytes(path: Path) -> None:
    overwrite_at(path, 20, b"\x03")


DAMAGES = [
    zeroed_header, zeroed_first_page, broken_freelist, broken_index, wrong_page_size, wrong_reserved_bytes,
    few_reserved_bytes,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_beside_the_rows_loses_none(sound: Path, damaged: Path, damage: Callable[[Path], None]) -> None:
    """The header or a byte of it, the page with the declarations, the list of free pages, an index."""
    damage(damaged)
    assert checking.check(damaged, DEVICE) != []
    fresh, _ = saved_from(damaged)
    for sql in (ENTRY_ROWS, TAG_ROWS, COMMENTS):
        assert rows(fresh, sql) == rows(sound / "library.db", sql)


def test_a_file_that_is_cut_short_keeps_what_is_left(sound: Path, damaged: Path) -> None:
    """Entries from before the cut, and no number twice."""
    size_bytes = damaged.stat().st_size // PAGE * 2 // 3 * PAGE
    os.truncate(damaged, size_bytes)
    fresh, _ = saved_from(damaged)
    expected, found = rows(sound / "library.db", ENTRY_ROWS), rows(fresh, ENTRY_ROWS)
    assert len(found & expected) > len(expected) // 3
    store = Store(fresh, DEVICE)
    with store.write("test") as unit:
        assert unit.new_id() > max(row[0] for row in expected)
    store.close()


def test_lost_counters_leap_and_a_new_epoch_begins(sound: Path, damaged: Path) -> None:
    """Nobody knows how far they were: 2^24 are left out."""
    overwrite(damaged, pages_of(damaged, "counter")[0])
    fresh, saved = saved_from(damaged)
    assert saved["counter"].losses
    ((highest,),) = rows(sound / "library.db", "SELECT max(id) FROM entry")
    assert isinstance(highest, int)
    counters: dict[str, int] = dict(rows(fresh, "SELECT name, value FROM counter"))
    assert counters["entry"] >= highest + (1 << 24)
    assert counters["hlc"] > max(row[4] for row in rows(fresh, TAG_ROWS))
    assert rows(fresh, "SELECT value FROM meta WHERE key='epoch'") == {(2,)}


def test_an_older_schema_is_not_guessed_at(damaged: Path) -> None:
    """It is refused, and the file is as it was."""
    with open(damaged, "r+b") as file:
        file.seek(60)
        file.write((3).to_bytes(4, "big"))
    before = damaged.read_bytes()
    with pytest.raises(VersionUnsupported, match="version 3"):
        salvage(damaged, damaged.with_name("fresh.db"), None)
    assert damaged.read_bytes() == before


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 32), pages=st.integers(1, 12))
def test_whatever_pages_are_destroyed_the_result_is_sound(
    sound: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, pages: int
) -> None:
    """Random bytes, zeros, or another page in their place: no crash, no row that never was, no contradiction."""
    damaged = Path(shutil.copy(sound / "library.db", tmp_path_factory.mktemp("any") / "library.db"))
    chance = random.Random(seed)
    whole = damaged.read_bytes()
    for _ in range(pages):
        other = chance.randrange(len(whole) // PAGE) * PAGE
        data = chance.choice([chance.randbytes(PAGE), b"\0" * PAGE, whole[other : other + PAGE]])
        overwrite(damaged, chance.randrange(1, len(whole) // PAGE + 1), data)
    fresh, _ = saved_from(damaged)
    assert rows(fresh, TAGS) <= rows(sound / "library.db", TAGS)
    commented = "SELECT entry_uuid, name, length(value) FROM attribute"  # of a long value a part may be zeros now
    assert rows(fresh, commented) <= rows(sound / "library.db", commented)
    for keys in (
        "id, name, st_ino FROM entry WHERE parent_id > 0",
        "id, uuid FROM entry WHERE uuid NOT NULL AND kind=0",
    ):
        assert rows(fresh, f"SELECT {keys}") <= rows(sound / "library.db", f"SELECT {keys}")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_damaged(payload: bytes) -> None:
    """Nothing else comes of them."""
    try:
        values = record(payload)
    except (Damaged, IndexError, UnicodeDecodeError):
        return
    assert all(value is None or isinstance(value, int | float | str | bytes) for value in values)


# -- Backup


@pytest.fixture
def library(tmp_path: Path) -> Iterator[NamesLibrary]:
    made = NamesLibrary(tmp_path)
    made.add(b"a")
    yield made
    made.close()


def test_a_backup_is_a_whole_library_of_the_moment(library: NamesLibrary) -> None:
    """While the library is open and written to; it takes the place of the former one."""
    assert backup.is_due(library.path)
    assert backup.make(library.path) == ""
    assert not backup.is_due(library.path)
    library.add(b"b")
    kept = backup.path_beside(library.path)
    assert (rows(kept, "SELECT name FROM entry"), kept.stat().st_mode & 0o777) == ({(b"",), (b"a",)}, 0o600)
    assert backup.make(library.path) == ""
    assert rows(kept, ENTRY_ROWS) == rows(library.path, ENTRY_ROWS)
    assert [path.name for path in kept.parent.glob("*.new*")] == []


def test_a_backup_is_due_after_a_day(library: NamesLibrary) -> None:
    """Also one whose time lies ahead, since no clock can be trusted."""
    backup.make(library.path)
    kept = backup.path_beside(library.path)
    for age_s, is_due in ((3600, False), (90_000, True), (-90_000, True)):
        os.utime(kept, (time.time() - age_s,) * 2)
        assert backup.is_due(library.path) is is_due


def test_a_damaged_library_does_not_replace_its_backup(damaged: Path) -> None:
    """The reason is told, the backup is as it was."""
    assert backup.make(damaged) == ""
    kept = backup.path_beside(damaged).read_bytes()
    overwrite(damaged, pages_of(damaged, "entry")[3])
    assert backup.make(damaged) != ""
    assert backup.path_beside(damaged).read_bytes() == kept


def test_a_backup_that_has_no_time_or_no_room_leaves_nothing(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be stopped; a disk that lacks room is told of."""
    assert "no time" in backup.make(damaged, lambda: True)
    monkeypatch.setattr(backup, "_LEFT_BYTES", 1 << 62)
    assert "lacks room" in backup.make(damaged)
    assert [path.name for path in damaged.parent.glob("*.backup*")] == []


def test_counters_of_a_library_are_read_where_they_are(sound: Path) -> None:
    """The fixture is what it says."""
    db = connect(sound / "library.db", read_only=True)
    assert changes.get_counter(db, "entry") > FILES
    assert len(tags.names(db)) == 7
    db.close()
