"""What a difference between a row and lstat means: each column that moves has one verdict."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model.entry import KIND_DIR, KIND_FILE, KIND_OTHER, KIND_SYMLINK, Entry, Stat, kind_of
from index.scan import differ

FORMATS = {
    KIND_FILE: stat.S_IFREG, KIND_DIR: stat.S_IFDIR, KIND_SYMLINK: stat.S_IFLNK, KIND_OTHER: stat.S_IFIFO,
}  # fmt: skip
BASE = Stat(stat.S_IFREG | 0o644, 10, 1_000, 2_000, 77, 1, 1000, 100)
SMALL = st.integers(0, 2)
STAT = st.builds(
    lambda kind, mode, size, mtime, ctime, ino, nlink, uid, gid: Stat(
        FORMATS[kind] | mode, size, mtime, ctime, ino, nlink, uid, gid
    ),
    st.sampled_from(list(FORMATS)), st.sampled_from([0o600, 0o644]), SMALL, SMALL, SMALL, SMALL, SMALL, SMALL, SMALL,
)  # fmt: skip


def row_of(stat_: Stat) -> Entry:
    """The row that a scan writes for such a stat."""
    return Entry(
        5, 1, 2, b"name", 5, None, stat_.kind, stat_.mode, stat_.size_bytes, stat_.mtime_ns, stat_.ctime_ns,
        stat_.st_ino, stat_.nlink, stat_.uid, stat_.gid, None, 0, None, 1, None, None,
    )  # fmt: skip


def as_kind(stat_: Stat, kind: int) -> Stat:
    return stat_._replace(mode=FORMATS[kind] | stat.S_IMODE(stat_.mode))


@given(STAT)
def test_a_row_says_what_it_was_written_from(stat_):
    """Nothing differs, so nothing is written."""
    assert differ.compare(row_of(stat_), stat_) == differ.SAME


@pytest.mark.parametrize("kind", [KIND_FILE, KIND_SYMLINK, KIND_OTHER])
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"size_bytes": 11}, differ.DATA),
        ({"mtime_ns": 1_001}, differ.DATA),
        ({"ctime_ns": 2_001}, differ.ATTRS),
        ({"nlink": 2}, differ.ATTRS),
        ({"uid": 0}, differ.ATTRS),
        ({"gid": 0}, differ.ATTRS),
        ({"st_ino": 78}, differ.REPLACED),
        ({"st_ino": 78, "size_bytes": 11}, differ.REPLACED),
        ({"mtime_ns": 1_001, "uid": 0}, differ.DATA),
    ],
)
def test_what_moved_decides_for_a_file(kind, change, verdict):
    """The inode first, then what hints at the bytes, then the rest."""
    before = as_kind(BASE, kind)
    assert verdict == differ.compare(row_of(before), before._replace(**change))


@pytest.mark.parametrize("kind", list(FORMATS))
def test_a_new_mode_is_a_change_of_attributes(kind):
    """The bytes are not read again for a chmod."""
    before = as_kind(BASE, kind)
    after = before._replace(mode=FORMATS[kind] | 0o600)
    assert differ.compare(row_of(before), after) == differ.ATTRS


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"size_bytes": 4096}, differ.SAME),
        ({"nlink": 3}, differ.TIMES),
        ({"ctime_ns": 2_001}, differ.TIMES),
        ({"mtime_ns": 1_001}, differ.TIMES),
        ({"mtime_ns": 1_001, "uid": 0}, differ.ATTRS),
        ({"uid": 0}, differ.ATTRS),
        ({"gid": 0}, differ.ATTRS),
        ({"st_ino": 78}, differ.REPLACED),
    ],
)
def test_links_and_times_of_a_directory_are_written_down_and_mean_no_more(change, verdict):
    """They move with each entry in it and when it is renamed; its size says nothing, it has no bytes to ask for."""
    before = as_kind(BASE, KIND_DIR)
    assert verdict == differ.compare(row_of(before), before._replace(**change))


@given(STAT, STAT)
def test_another_kind_is_another_thing(a, b):
    """A file that became a directory is removed and added, whatever else is equal."""
    assert (differ.compare(row_of(a), b) == differ.OTHER_KIND) == (a.kind != b.kind)


@given(STAT, STAT)
def test_no_change_of_bytes_is_taken_for_less(a, b):
    """For a file, SAME and ATTRS are said only when inode, size and mtime are equal; SAME only when all is."""
    verdict = differ.compare(row_of(a), b)
    if a.kind == b.kind == KIND_FILE:
        hints_equal = (a.st_ino, a.size_bytes, a.mtime_ns) == (b.st_ino, b.size_bytes, b.mtime_ns)
        assert (verdict in (differ.SAME, differ.ATTRS)) == hints_equal
        assert (verdict == differ.SAME) == (a == b)


def test_what_the_disk_says_is_read_as_it_is(tmp_path):
    """File, directory, symlink and fifo: each its kind, from a real lstat; `matches` agrees with the verdict."""
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    kinds = {}
    for name in ("file", "dir", "link", "fifo"):
        st_ = os.lstat(tmp_path / name)
        kinds[name] = kind_of(st_.st_mode)
        assert row_of(Stat.of(st_)).matches(st_)
        assert differ.compare(row_of(Stat.of(st_)), Stat.of(st_)) == differ.SAME
    assert kinds == {"file": KIND_FILE, "dir": KIND_DIR, "link": KIND_SYMLINK, "fifo": KIND_OTHER}
    before = row_of(Stat.of(os.lstat(tmp_path / "file")))
    (tmp_path / "file").write_bytes(b"123456")
    after = os.lstat(tmp_path / "file")
    assert not before.matches(after)
    assert differ.compare(before, Stat.of(after)) == differ.DATA
