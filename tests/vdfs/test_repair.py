"""The repair of a library that nobody has open: what comes of each sort of damage, in this process.

The library is made of rows alone; its files are on no disk. Whether a repaired one mounts: tests/system/test_care.py.
"""

import os
import resource
import shutil
from pathlib import Path

import apsw
import pytest

from index.care import backup, checking
from index.care.salvage import salvage
from index.model.errors import Busy, Invalid, VdfsError
from index.store import connection, metadata, saved
from index.store.connection import connect
from tests.index.damage import PAGE, overwrite, pages_of, rows
from tests.index.names_library import DIRECTORY, NamesLibrary
from vdfs.base.config import Config, load_config
from vdfs.library.library import open_library
from vdfs.library.repair import RECOVERED, RESTORED, SOUND, check_closed, repair

FILES = 400
NAME = "Library"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a closed library: its store, a location with 400 files, tags, comments, a saved search."""
    data = tmp_path_factory.mktemp("sound")
    config = load_config(str(data))
    opened = open_library(config, NAME)
    device = opened.device.uuid
    opened.close()
    library = NamesLibrary(opened.directory)
    branch, root = library.add_branch(b"f" * 16, b"Files")
    dirs = [library.add(b"dir %d" % at, parent=root.id, mode=DIRECTORY, branch=branch) for at in range(8)]
    for number in range(FILES):
        row = library.add(b"file %d" % number, parent=dirs[number % 8].id, branch=branch)
        if number % 4 == 0:
            library.tag(row, "kept")
            with library.store.write("test") as unit:
                metadata.put(unit.db, row.id.to_bytes(16, "big"), b"user.xdg.comment", b"c" * number, unit.hlc, device)
    with library.store.write("test") as unit:
        unit.db.execute("UPDATE branch SET device_uuid=?", (device,))
        unit.db.execute("DELETE FROM entry WHERE id=?", (library.root.id,))
        unit.db.execute("DELETE FROM branch WHERE id=?", (library.branch,))
        unit.db.execute("DELETE FROM device WHERE uuid<>?", (device,))
        saved.save(unit, b"often", "tag:kept")
    library.close()
    assert check_closed(config, NAME) == []
    return data


@pytest.fixture
def config(sound: Path, tmp_path: Path) -> Config:
    """The settings of a copy of it, to be damaged."""
    shutil.copytree(sound, tmp_path / "data")
    return load_config(str(tmp_path / "data"))


def database(config: Config) -> Path:
    return config.library_dir(NAME) / "library.db"


def destroy(path: Path, name: str) -> None:
    """All leaves of a table or an index."""
    for page in pages_of(path, name):
        overwrite(path, page)


ENTRIES = "SELECT id, branch_id, parent_id, name, node, uuid, st_ino FROM entry"
TAGS = "SELECT g.entry_uuid, t.name FROM tagging g JOIN tag t ON t.id=g.tag_id"
COMMENTS = "SELECT entry_uuid, value FROM attribute"
SEARCHES = "SELECT name, query FROM saved_search"
PEOPLE = (ENTRIES, TAGS, COMMENTS, SEARCHES)


def test_a_lost_list_of_branches_costs_no_entry_and_no_tag(config: Config) -> None:
    """And no backup is there. The store is where it was; a location whose place is lost counts as away, under its name,
    and on no file system: no directory is taken for it."""
    path = database(config)
    before = [rows(path, sql) for sql in PEOPLE]
    destroy(path, "branch")
    assert repair(config, NAME).how == RECOVERED
    assert check_closed(config, NAME) == []
    assert [rows(path, sql) for sql in PEOPLE] == before
    opened = open_library(config, NAME)
    places = opened.store.db.execute(
        "SELECT b.id, l.name, b.root_path, b.fs_id='' FROM branch b LEFT JOIN location l ON l.id=b.location_id "
        "ORDER BY b.id"
    ).fetchall()
    opened.close()
    assert places[0] == (1, None, bytes(opened.store_dir), 0)
    assert [(name, is_nowhere) for _, name, _, is_nowhere in places[1:]] == [(b"Files", 1)]
    assert not os.path.exists(places[1][2])


def test_a_header_of_a_format_that_nobody_knows_is_a_fault(config: Config) -> None:
    """Told by the check, as any other, and mended."""
    with open(database(config), "r+b") as file:
        file.seek(47)
        file.write(b"\x0e")
    assert len(check_closed(config, NAME)) == 1
    assert repair(config, NAME).lost == []
    assert check_closed(config, NAME) == []


@pytest.mark.parametrize(
    ("declared", "damage"),
    [
        (b"REFERENCES entry(id)", b"REFERENCES entr\xf0(id)"),
        (b"location(\n    id  ", b"location(\n    ix  "),
    ],
)
def test_a_damaged_declaration_costs_nothing(config: Config, declared: bytes, damage: bytes) -> None:
    """Every page is sound, and no query works: the rows are brought over."""
    path = database(config)
    before = [rows(path, sql) for sql in PEOPLE]
    data = path.read_bytes()
    assert declared in data
    path.write_bytes(data.replace(declared, damage))
    assert check_closed(config, NAME)
    assert repair(config, NAME).how == RECOVERED
    assert check_closed(config, NAME) == []
    assert [rows(path, sql) for sql in PEOPLE] == before


def test_a_lost_list_of_branches_comes_from_the_backup_and_the_rest_from_the_file(config: Config) -> None:
    """What was tagged since the backup is not given up for it."""
    path = database(config)
    branches = rows(path, "SELECT * FROM branch")
    assert backup.make(path) == ""
    with apsw.Connection(str(path)) as db:
        db.execute("INSERT INTO tag(uuid, name) VALUES(x'77', 'since')")
        since = "(SELECT id FROM tag WHERE name='since')"
        columns = "dot_device, dot_seq, dot_part, hlc, part"
        db.execute(f"INSERT INTO tagging SELECT entry_uuid, {since}, {columns} FROM tagging LIMIT 3")
    db.close()
    before = [rows(path, sql) for sql in PEOPLE]
    destroy(path, "branch")
    assert repair(config, NAME).how == RECOVERED
    assert rows(path, "SELECT * FROM branch") == branches
    assert [rows(path, sql) for sql in PEOPLE] == before
    assert check_closed(config, NAME) == []


def test_a_disk_that_gets_full_at_the_end_is_told_and_changes_nothing(config: Config) -> None:
    """The rows fit, what was mended does not: neither a torn database in place nor a word of success."""
    path = database(config)
    with apsw.Connection(str(path)) as db:  # many directories, whose sums are added up anew at the end
        db.execute(
            "INSERT INTO entry(id, branch_id, parent_id, name, node, kind, mode, size_bytes, mtime_ns, ctime_ns, "
            "st_ino, nlink, uid, gid, seq) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 4000) "
            "SELECT 100000+i, b.id, b.root_entry_id, CAST('more '||i AS BLOB), 100000+i, 1, 16877, 0, 0, 0, 100000+i, "
            "1, 0, 0, 0 FROM n CROSS JOIN branch b WHERE b.location_id IS NOT NULL"
        )
    db.close()
    destroy(path, "counter")
    before = path.read_bytes()
    salvage(path, path.with_name("size"), None)
    size_bytes = path.with_name("size").stat().st_size
    path.with_name("size").unlink()
    allowed = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + PAGE, allowed[1]))
    try:
        with pytest.raises(VdfsError, match=r"library\.db"):
            repair(config, NAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert path.read_bytes() == before
    assert [*path.parent.glob("library.db.fresh*"), *path.parent.glob("library.db.damaged*")] == []
    assert repair(config, NAME).how == RECOVERED
    assert check_closed(config, NAME) == []


def test_a_library_that_another_program_has_locked_is_not_damaged(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is it looked through nor anything done under that program; it is told in a line."""
    monkeypatch.setattr(connection, "_BUSY_MS", 0)
    path = database(config)
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    with other:
        other.execute("UPDATE counter SET value=value+1")
    before = path.read_bytes()
    for ask in (check_closed, repair):
        with pytest.raises(Busy, match=r"another program has .*library\.db open"):
            ask(config, NAME)
    assert path.read_bytes() == before
    assert list(path.parent.glob("library.db.*")) == []
    other.close()
    assert repair(config, NAME).how == SOUND


def test_what_cannot_be_opened_is_not_damaged(config: Config) -> None:
    """A directory in its place, or a log that may not be opened: told as what it is, and left as it is."""
    path = database(config)
    log = Path(f"{path}-wal")
    log.unlink(missing_ok=True)
    log.mkdir()
    with pytest.raises(VdfsError, match="unable to open"):
        repair(config, NAME)
    log.rmdir()
    path.unlink()
    path.mkdir()
    for ask in (check_closed, repair):
        with pytest.raises(Invalid, match="no regular file"):
            ask(config, NAME)
    assert path.is_dir()


@pytest.mark.parametrize("error", [apsw.IOError("disk I/O error"), apsw.FullError("disk is full")])
def test_a_disk_that_fails_is_not_a_damaged_database(
    config: Config, error: apsw.Error, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error goes out; nothing is recovered for it."""

    def fail(_: apsw.Connection) -> list[str]:
        raise error

    monkeypatch.setattr(checking, "structure", fail)
    for ask in (check_closed, repair):
        with pytest.raises(VdfsError, match="disk"):
            ask(config, NAME)
    assert list(database(config).parent.glob("library.db.*")) == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_log_outlives_its_database(config: Config, is_gone: bool) -> None:
    """The file is empty or gone, all of its pages are in the log. A check leaves that alone, a repair reads and keeps
    it."""
    path, log = database(config), Path(f"{database(config)}-wal")
    before = [rows(path, sql) for sql in PEOPLE]
    db = connect(path)
    db.wal_autocheckpoint(0)
    db.execute("VACUUM")  # rewrites every page, in the log
    text = log.read_bytes()
    db.close()
    path.write_bytes(b"")
    log.write_bytes(text)
    if is_gone:
        path.unlink()
    assert len(check_closed(config, NAME)) == 1
    assert log.read_bytes() == text
    done = repair(config, NAME)
    assert (done.how, done.lost) == (RECOVERED, [])
    assert [rows(path, sql) for sql in PEOPLE] == before
    assert [one.read_bytes() for one in path.parent.glob("library.db.damaged-*-wal")] == [text]
    assert done.aside is not None
    assert os.path.exists(done.aside)


def test_a_log_in_which_nothing_is_is_kept_too(config: Config) -> None:
    """Beside a database that is gone, when the backup takes the place."""
    path = database(config)
    assert backup.make(path) == ""
    path.unlink()
    Path(f"{path}-wal").write_bytes(b"torn")
    done = repair(config, NAME)
    assert done.how == RESTORED
    assert done.aside is not None
    assert Path(os.fsdecode(done.aside)).read_bytes() == b"torn"
