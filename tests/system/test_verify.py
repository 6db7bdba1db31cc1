"""`sd index verify` sees every fault that is planted, by a fault's own name, and nothing where nothing is wrong."""

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from index.scan import verify
from tests.system.harness import Mounted


def test_what_is_not_there_is_no_clean_library(indexed):
    """Also where it went a moment ago, and nobody looked since."""
    docs = indexed.disk / "Docs"
    away = docs.rename(docs.with_name("away"))
    said = indexed.sd_fails("index", "verify", code=2)
    assert f"{docs} could not be compared: not there" in said
    with contextlib.closing(sqlite3.connect(indexed.library_dir / "library.db")) as db:
        ((branch_id,),) = db.execute("SELECT id FROM branch WHERE location_id IS NOT NULL")
    compared = list(verify.differences(indexed.library_dir / "library.db", branch_id, os.fsencode(docs), {}, False))
    assert compared[0] == (0, [(os.fsencode(docs), "unreadable", "No such file or directory")])
    away.rename(docs)
    indexed.verify()


@pytest.fixture
def indexed(library):
    """A library that is up to date, and that nobody has open: what is planted stays."""
    docs = library.folder("Docs")
    (docs / "below" / "deep").mkdir(parents=True)
    for name in ("a", "b", "below/c", "below/deep/d"):
        (docs / name).write_text(name * 10)
    os.link(docs / "a", docs / "below" / "a too")
    os.symlink("a", docs / "link")
    library.mount(docs)
    library.settle()
    library.verify("--content")
    library.unmount()
    return library


def found(library: Mounted, *arguments: str) -> dict[str, set[str]]:
    """What `sd index verify` finds: kind -> names."""
    done = library.run("vdfs.cli", "--data-dir", library.data, "--json", "index", "verify", *arguments)
    result = json.loads(done.stdout)
    assert done.returncode == (1 if result["differences"] else 0), done
    out: dict[str, set[str]] = {}
    for difference in result["differences"]:
        out.setdefault(difference["kind"], set()).add(Path(difference["path"]).name)
    return out


def edit(library: Mounted, sql: str) -> None:
    """Change the index as a bug would."""
    db = sqlite3.connect(library.library_dir / "library.db")
    with db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute(sql)
    db.close()


def test_nothing_wrong_is_exit_0(indexed):
    assert found(indexed, "--content") == {}


ROW = "(SELECT id FROM entry WHERE name = CAST('{}' AS BLOB))"


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("DELETE FROM entry WHERE id = {b}", {"missing": {"b"}}),
        ("INSERT INTO entry SELECT id + 99999, branch_id, parent_id, CAST('ghost' AS BLOB), node + 99999, NULL, kind, "
         "mode, size_bytes, mtime_ns, ctime_ns, st_ino + 7777777, 1, uid, gid, NULL, 0, NULL, seq, NULL, NULL{rest} "
         "FROM entry WHERE id = {b}", {"extra": {"ghost"}}),
        ("UPDATE entry SET size_bytes = size_bytes + 1 WHERE id = {b}", {"size": {"b"}}),
        ("UPDATE entry SET mtime_ns = mtime_ns + 1 WHERE id = {b}", {"mtime": {"b"}}),
        ("UPDATE entry SET mode = mode & ~4 WHERE id = {b}", {"mode": {"b"}}),
        ("UPDATE entry SET st_ino = st_ino + 7777777 WHERE id = {b}", {"inode": {"b"}}),
        ("UPDATE entry SET nlink = 5 WHERE id = {b}", {"links": {"b"}}),
        ("UPDATE entry SET parent_id = {below} WHERE id = {b}", {"missing": {"b"}, "extra": {"b"}}),
        ("UPDATE entry SET name = CAST('bb' AS BLOB) WHERE id = {b}", {"missing": {"b"}, "extra": {"bb"}}),
        ("UPDATE entry SET kind = 2 WHERE id = {b}", {"kind": {"b"}}),
        ("UPDATE entry SET node = {b} WHERE id = {c}", {"number": {"c"}}),
        ("UPDATE entry SET uuid = (SELECT uuid FROM entry WHERE id = {b}) WHERE id = {c}", {"uuid": {"c"}}),
        ("UPDATE sums SET rbytes = rbytes + 1 WHERE dir_id = {deep}", {"aggregate": {"deep"}}),
        ("UPDATE sums SET rfiles = rfiles - 1 WHERE dir_id = {below}", {"aggregate": {"below"}}),
        ("UPDATE sums SET rdirs = 9 WHERE dir_id = {below}", {"aggregate": {"below"}}),
        ("DELETE FROM sums WHERE dir_id = {deep}", {"aggregate": {"deep"}}),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(indexed, sql, kinds):
    """Each by its kind and its name; what a fault makes wrong above it is told too."""
    db = sqlite3.connect(indexed.library_dir / "library.db")
    columns = [row[1] for row in db.execute("PRAGMA table_info(entry)")]
    db.close()
    rest = "".join(f", {name}" for name in columns[21:])
    rows = {name: ROW.format(name) for name in ("b", "c", "below", "deep")}
    edit(indexed, sql.format(rest=rest, **rows))
    seen = found(indexed)
    assert {kind: names for kind, names in seen.items() if kind != "aggregate" or "aggregate" in kinds} == kinds


def test_a_byte_that_changed_under_its_old_mtime_is_found_by_its_content(indexed):
    """And only when contents are asked for."""
    path = indexed.disk / "Docs" / "b"
    st = path.stat()
    with open(path, "r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
    assert found(indexed) == {}
    assert found(indexed, "--content") == {"content": {"b"}}


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (lambda docs: (docs / "new").touch(), {"missing": {"new"}}),
        (lambda docs: (docs / "b").unlink(), {"extra": {"b"}}),
        (lambda docs: shutil.rmtree(docs / "below" / "deep"), {"extra": {"deep"}}),
        (lambda docs: (docs / "b").rename(docs / "below" / "b"), {"extra": {"b"}, "missing": {"b"}}),
    ],
)
def test_what_changed_on_disk_while_nothing_ran_is_found(indexed, change: Callable[[Path], object], kinds):
    change(indexed.disk / "Docs")
    assert found(indexed) == kinds
    indexed.mount()
    indexed.settle()
    indexed.verify("--content")


def test_what_cannot_be_compared_is_exit_2(indexed):
    """The location's directory is away: that is no difference."""
    (indexed.disk / "Docs").rename(indexed.disk / "Elsewhere")
    assert "could not be compared" in indexed.sd_fails("index", "verify", "Docs", code=2)
