"""A library whose database is damaged: refused with the cure, repaired, mounted again, and nobody sees a difference.

Damage is done to the file between two mounts. What is where on its pages is told by their first byte (13: rows of a
table, 10: an index) and by the names on them.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.system.harness import Mounted, eventually

PAGE = 4096
TABLE_LEAF = 13
INDEX_LEAF = 10
FILES = 240


@pytest.fixture
def tagged(library: Mounted) -> Mounted:
    """A library with 240 files in 8 directories, of which some have a tag, and that nobody has open."""
    files = library.folder("Files")
    for number in range(FILES):
        below = files / f"dir {number % 8}"
        below.mkdir(exist_ok=True)
        (below / f"file {number:03}").write_bytes(b"%d" % number)
    library.mount(files)
    library.settle()
    chosen = sorted((library.mnt / "Files").glob("dir */file *0"))
    library.sd("tag", "add", "kept", *chosen)
    library.sd("tag", "add", "also", *chosen[:3])
    library.unmount()
    return library


def database(library: Mounted) -> Path:
    return library.library_dir / "library.db"


def inodes(library: Mounted) -> dict[str, int]:
    top = library.mnt / "Files"
    return {str(path.relative_to(top)): path.stat().st_ino for path in sorted(top.rglob("*"))}


def tags(library: Mounted, tag: str = "kept") -> set[str]:
    hits = library.sd_json("search", f"tag:{tag}", "--all")["hits"]
    return {os.path.basename(hit["path"]) for hit in hits}


def pages(path: Path, kind: int, text: bytes) -> list[int]:
    """Where the pages of a kind begin on which a text stands."""
    data = path.read_bytes()
    return [at for at in range(PAGE, len(data), PAGE) if data[at] == kind and text in data[at : at + PAGE]]


def destroy(path: Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * PAGE)


def rows_page(path: Path) -> None:
    destroy(path, pages(path, TABLE_LEAF, b"file 1")[-1])


def index_page(path: Path) -> None:
    destroy(path, pages(path, INDEX_LEAF, b"file 1")[0])


def header(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"\0" * 100)


def first_page(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"\0" * PAGE)


def test_tags_and_inodes_outlive_damaged_pages(tagged: Mounted) -> None:
    """One damage after the other, and no backup: numbers, uuids and tags stand in more than one place."""
    tagged.mount()
    before, kept = inodes(tagged), tags(tagged)
    assert len(kept) == FILES // 10
    tagged.unmount()
    damages: list[Callable[[Path], None]] = [rows_page, index_page, header, first_page]
    for damage in damages:
        (tagged.library_dir / "library.db.backup").unlink(missing_ok=True)
        damage(database(tagged))
        done = tagged.run("vdfs.cli", "--data-dir", tagged.data, "library", "check")
        assert (done.returncode, done.stderr) == (1, ""), damage
        repaired = tagged.sd_json("library", "repair")
        assert repaired["how"] == "recovered", damage
        assert Path(repaired["aside"]).parent == tagged.library_dir
        tagged.mount()
        tagged.wait_idle()
        assert inodes(tagged) == before, damage
        assert tags(tagged) == kept, damage
        tagged.settle()
        tagged.verify("--content")
        assert tagged.sd_json("library", "check") == {"faults": []}, damage
        tagged.unmount()


def test_lost_tags_are_read_back_from_the_files_that_carry_them(tagged: Mounted) -> None:
    """All assignments and attributes are gone and there is no backup: files, empty ones and directories have copies,
    and searches find them. A tag that is added then does not write over them."""
    tagged.mount()
    top = tagged.mnt / "Files"
    (tagged.disk / "Files" / "empty").touch()
    tagged.settle()
    tagged.sd("tag", "add", "kept", top / "empty", top / "dir 3")
    before, kept = inodes(tagged), tags(tagged)
    assert {"empty", "dir 3"} < kept
    carried = tagged.disk / "Files" / "dir 0" / "file 000"
    if "user.xdg.tags" not in os.listxattr(carried):
        pytest.skip("the file system of the temporary directory has no attributes")
    tagged.unmount()
    (tagged.library_dir / "library.db.backup").unlink(missing_ok=True)
    db = apsw.Connection(str(database(tagged)), flags=apsw.SQLITE_OPEN_READONLY)
    names = "('tagging', 'tagging_tag', 'tagging_dot', 'attribute')"
    found = db.execute(f"SELECT pageno FROM dbstat WHERE pagetype='leaf' AND name IN {names}").fetchall()
    db.close()
    for (page,) in found:
        destroy(database(tagged), (page - 1) * PAGE)
    assert any("asked" in line for line in tagged.sd_json("library", "repair")["did"])
    tagged.mount()
    tagged.settle()
    assert inodes(tagged) == before
    eventually(lambda: tags(tagged) == kept, "the files are asked for their tags")
    tagged.sd("tag", "add", "later", top / "dir 0" / "file 000")
    assert set(os.getxattr(carried, "user.xdg.tags").decode().split(",")) == {"kept", "also", "later"}
    tagged.verify()


def test_a_damaged_library_is_refused_with_the_cure(tagged: Mounted) -> None:
    """One line, exit code 2, and the file is as it was."""
    header(database(tagged))
    before = database(tagged).read_bytes()
    for fails in (tagged.sd_fails("status", code=2), tagged.sdmount().stderr):
        assert "sd library repair" in fails
    assert database(tagged).read_bytes() == before


def test_a_library_that_is_cut_short_comes_back_with_its_backup(tagged: Mounted) -> None:
    """What is lost of the file is in the backup, and what is newer on the disk."""
    tagged.mount()
    before, kept = inodes(tagged), tags(tagged)
    tagged.unmount()
    os.truncate(database(tagged), database(tagged).stat().st_size // 2)
    (tagged.disk / "Files" / "newer").write_bytes(b"since")
    repaired = tagged.sd_json("library", "repair")
    assert repaired["lost"] or repaired["did"]
    tagged.mount()
    tagged.settle()
    after = inodes(tagged)
    assert after.pop("newer") not in before.values()
    assert after == before
    assert tags(tagged) == kept
    tagged.verify()


def test_a_library_that_is_gone_comes_back_from_its_backup(tagged: Mounted) -> None:
    """With the tags of that time; numbers that were given since are not given again."""
    tagged.mount()
    before, kept = inodes(tagged), tags(tagged)
    (tagged.mnt / "Files" / "after the backup").write_bytes(b"x")
    given = (tagged.mnt / "Files" / "after the backup").stat().st_ino
    tagged.unmount()
    for data in (b"\0" * database(tagged).stat().st_size, b"", None):
        if data is None:
            database(tagged).unlink()
        else:
            database(tagged).write_bytes(data)
        tagged.sd_fails("status", code=2)
        assert tagged.sd_json("library", "repair")["how"] == "restored"
    tagged.mount()
    tagged.settle()
    after = inodes(tagged)
    assert after.pop("after the backup") > given
    assert after == before
    assert tags(tagged) == kept
    tagged.verify()


def test_nothing_to_save_and_no_backup_is_one_line(tagged: Mounted) -> None:
    """What is there stays as it is."""
    (tagged.library_dir / "library.db.backup").unlink()
    database(tagged).write_bytes(b"\0" * 50_000)
    assert "no backup" in tagged.sd_fails("library", "repair", code=2)
    assert database(tagged).read_bytes() == b"\0" * 50_000
    assert sorted(path.name for path in tagged.library_dir.glob("library.db*")) == ["library.db"]


def test_a_sound_library_is_checked_while_mounted_and_left_alone(tagged: Mounted) -> None:
    """The check asks the server; the repair says who holds the library, and how to end it, and later does nothing."""
    assert tagged.sd_json("library", "repair") == {"how": "sound", "did": [], "lost": [], "aside": None}
    tagged.mount()
    assert tagged.sd_json("library", "check") == {"faults": []}
    assert "sdumount" in tagged.sd_fails("library", "repair", code=2)
    assert inodes(tagged)


def test_an_unmount_leaves_a_backup_at_most_once_a_day(tagged: Mounted) -> None:
    """A day later there is a new one; the library can be made of it alone."""
    kept = tagged.library_dir / "library.db.backup"
    first = kept.stat()
    tagged.mount()
    tagged.unmount()
    assert kept.stat().st_ino == first.st_ino
    os.utime(kept, (first.st_mtime - 90_000,) * 2)
    tagged.mount()
    tagged.unmount()
    eventually(lambda: kept.stat().st_ino != first.st_ino, "a day later there is a new one")
    shutil.copy(kept, database(tagged))
    assert "sound" in tagged.sd("library", "check")


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copies(library: Mounted) -> Mounted:
    """Two locations: equal files within one and over both, hard links, a file that is held, one that is alone."""
    one, two = library.folder("One"), library.folder("Two")
    for path, text in (
        (one / "large", b"L" * 5000), (one / "large too", b"L" * 5000), (two / "large three", b"L" * 5000),
        (one / "small", b"s"), (two / "small", b"s"), (one / "alone", b"alone"), (one / "twice", b"twice"),
        (one / "twice too", b"twice"), (two / "empty", b""), (one / "empty", b""),
    ):  # fmt: skip
        path.write_bytes(text)
    os.link(one / "large", one / "linked")
    (one / "node_modules").mkdir()
    (one / "node_modules" / "held").write_bytes(b"L" * 5000)
    library.mount(one, two)
    library.settle()
    return library


def test_duplicates_are_told_by_what_they_waste(copies: Mounted) -> None:
    """Hard links are one file, with all of their names; empty files and what rules hold back are no duplicates."""
    result = copies.sd_json("duplicates")
    told = [(one["size_bytes"], one["files"], one["wasted_bytes"]) for one in result["sets"]]
    assert told == [(5000, 3, 10_000), (5, 2, 5), (1, 2, 1)]
    first = {os.path.relpath(copy["path"], copies.mnt): copy["linked"] for copy in result["sets"][0]["paths"]}
    assert first.keys() == {"One/large", "One/linked", "One/large too", "Two/large three"}
    assert sum(first.values()) == 1
    assert (result["held"], result["unhashed"], result["cursor"]) == (1, 0, None)
    assert set(os.listdir(copies.mnt / ".vdfs" / "duplicates")) >= {one["hash"] for one in result["sets"]}
    assert [one["size_bytes"] for one in copies.sd_json("duplicates", "--min-size", "1kB")["sets"]] == [5000]
    assert [one["size_bytes"] for one in copies.sd_json("duplicates", "--limit", "2")["sets"]] == [5000, 5]
    printed = copies.sd("duplicates")
    assert "3 sets, 9.8 KiB wasted" in printed
    assert "not compared: 1 file held back by rules" in printed
    copies.unmount()
    assert [one["hash"] for one in copies.sd_json("duplicates")["sets"]] == [one["hash"] for one in result["sets"]]


def test_what_is_unique_in_a_location_is_told(copies: Mounted) -> None:
    """Files that no other location has; two copies in one place are in no other. The rest is counted apart."""
    result = copies.sd_json("unique", "One")
    assert {os.path.basename(one["path"]) for one in result["files"]} == {"alone", "twice", "twice too"}
    assert (result["held"], result["unhashed"]) == (1, 0)
    assert copies.sd_json("unique", "Two")["files"] == []
    assert "nothing of it" in copies.sd("unique", "Two")
    assert len(copies.sd_json("unique", "One", "--limit", "2")["files"]) == 2
    assert "3 files" in copies.sd("unique", "One")
    assert "no location" in copies.sd_fails("unique", "Three", code=1)


def test_what_was_not_hashed_is_counted_apart(library: Mounted) -> None:
    """Of a location whose files nobody reads nothing is known to be unique."""
    shallow = library.folder("Shallow")
    (shallow / "a").write_bytes(b"a")
    library.mount()
    library.sd("location", "add", shallow, "--mode", "shallow")
    library.settle()
    result = library.sd_json("unique", "Shallow")
    assert (result["files"], result["unhashed"]) == ([], 1)
    assert "1 file without a full hash" in library.sd("unique", "Shallow")
