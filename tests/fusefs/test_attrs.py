"""A node's attributes as the kernel gets them: the file's own, a directory's made plain, and how long they hold."""

import os
import stat

import pyfuse3
import pytest

from fusefs.kernel import attrs
from index.model.entry import KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry, Stat
from vdfs.space.nodes import Node, RowStat, removed_stat, stamp_of

FIELDS = tuple(f"st_{name}" for name in "mode nlink uid gid size blocks atime_ns mtime_ns ctime_ns".split())


def answer(node: Node, st) -> pyfuse3.EntryAttributes:
    return attrs.fill(pyfuse3.EntryAttributes(), node, st)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10_000)
    path.chmod(0o640)
    os.utime(path, ns=(1_600_000_000_123_456_789, -1_500_000_000_987_654_321))
    return path


def test_a_file_s_attributes_are_the_real_ones_under_the_node_s_number(file):
    """To the nanosecond, also before 1970; only the inode number is ours."""
    st = os.stat(file)
    face = answer(Node(4711, KIND_FILE), st)
    assert {name: getattr(st, name) for name in FIELDS} == {name: getattr(face, name) for name in FIELDS}
    assert face.st_ino == 4711


def test_what_is_told_of_a_file_is_remembered(file):
    """It decides whether the kernel's pages are still good, and what is an append."""
    node, st = Node(70, KIND_FILE), os.stat(file)
    answer(node, st)
    assert node.stamp == stamp_of(st)
    assert node.kernel_size == st.st_size


def test_a_file_with_more_names_says_so(file):
    """Programs that copy trees keep hard links by it."""
    os.link(file, file.with_name("twin"))
    assert answer(Node(70, KIND_FILE), os.stat(file)).st_nlink == 2


def test_a_directory_is_4096_bytes_with_one_link_everywhere(tmp_path):
    """A merged one has no size or link count of its own; one link tells `find` not to count subdirectories by it."""
    (tmp_path / "below").mkdir()
    st, node = os.stat(tmp_path), Node(70, KIND_DIR)
    face = answer(node, st)
    assert (face.st_nlink, face.st_size, face.st_blocks) == (1, 4096, 8)
    assert (face.st_mode, face.st_uid, face.st_mtime_ns) == (st.st_mode, st.st_uid, st.st_mtime_ns)
    assert node.stamp is None


def test_a_symlink_has_the_length_of_its_target(tmp_path):
    """As everywhere; `readlink` allocates by it."""
    (tmp_path / "link").symlink_to("target")
    st = os.lstat(tmp_path / "link")
    face = answer(Node(70, KIND_SYMLINK), st)
    assert stat.S_ISLNK(face.st_mode)
    assert face.st_size == len("target")


def row(size_bytes: int) -> Entry:
    st = Stat(stat.S_IFREG | 0o604, size_bytes, 1_000, 2_000, 9, 3, 12, 34)
    return Entry(5, 1, 2, b"n", 5, None, KIND_FILE, *st, None, 0, None, 1, None, None)


def test_a_file_whose_branch_is_away_is_told_from_its_row():
    """Size, times, owner and mode as they were; never without blocks, or archivers would take it for a hole."""
    face = answer(Node(70, KIND_FILE), RowStat(row(10)))
    assert (face.st_size, face.st_nlink, face.st_uid, face.st_gid) == (10, 3, 12, 34)
    assert (face.st_mtime_ns, face.st_ctime_ns) == (1_000, 2_000)
    assert face.st_blocks > 0
    assert answer(Node(70, KIND_FILE), RowStat(row(0))).st_blocks == 0


def test_a_removed_file_has_no_link_left(file):
    """And everything else as it was."""
    st = os.stat(file)
    gone = removed_stat(st)
    assert gone.st_nlink == 0
    assert {name: getattr(st, name) for name in FIELDS if name != "st_nlink"} == {
        name: getattr(gone, name) for name in FIELDS if name != "st_nlink"
    }


@pytest.mark.parametrize("seconds", [0.0, attrs.SHORT_S, attrs.LONG_S])
def test_an_absent_name_may_be_remembered(seconds):
    """Inode 0 is how the kernel is told that a name is not there, and for how long."""
    face = attrs.absent(seconds)
    assert (face.st_ino, face.entry_timeout) == (0, seconds)


def test_an_answer_is_believed_for_a_day_or_a_second():
    """Nothing between: either every change reaches us, or hardly anything is promised."""
    assert (attrs.LONG_S, attrs.SHORT_S) == (86_400.0, 0.8)


def made(size_bytes: int, mtime_ns: int = 5, ctime_ns: int = 7) -> RowStat:
    st = RowStat.__new__(RowStat)
    st.st_size, st.st_mtime_ns, st.st_ctime_ns = size_bytes, mtime_ns, ctime_ns
    return st


@pytest.mark.parametrize("mtime_ns", [0, -1, 1 << 62, -(1 << 62)])
def test_a_stamp_tells_every_part_apart(mtime_ns):
    """Size, mtime (also before 1970) and ctime, each alone; later states are greater."""
    base = stamp_of(made(1 << 40, mtime_ns, 9))
    assert base == stamp_of(made(1 << 40, mtime_ns, 9))
    others = {stamp_of(made((1 << 40) + 1, mtime_ns, 9)), stamp_of(made(1 << 40, mtime_ns + 1, 9))}
    others.add(stamp_of(made(1 << 40, mtime_ns, 10)))
    assert base not in others
    assert len(others) == 3
    assert stamp_of(made(0, mtime_ns, 10)) > base


def test_what_the_kernel_believes_of_a_size():
    """It is what it was told or wrote itself: not what somebody else appended meanwhile."""
    node = Node(9, KIND_FILE)
    assert node.kernel_size == 0
    node.told(made(10))
    assert node.kernel_size == 10
    node.seen(made(50, ctime_ns=8))
    assert node.kernel_size == 10, "somebody made it longer; the kernel has not asked"
    node.written(14, made(64, ctime_ns=9), at_end=False)
    assert node.kernel_size == 14
    node.written(12, made(64, ctime_ns=8), at_end=False)
    assert (node.kernel_size, node.stamp) == (14, stamp_of(made(64, ctime_ns=9))), "an older write that ended later"
    node.renamed(made(64, ctime_ns=11))
    assert (node.kernel_size, node.stamp) == (14, stamp_of(made(64, ctime_ns=11)))
    node.renamed(made(65, ctime_ns=12))
    assert node.stamp == stamp_of(made(64, ctime_ns=11)), "other bytes: no mere change of name"
    node.told(made(65, ctime_ns=12))
    assert node.kernel_size == 65


def test_where_an_append_begins():
    """At what the kernel was told last, or before, since it drops answers that cross a write. Pages do not count."""
    node = Node(9, KIND_FILE)
    node.told(made(100))
    node.told(made(250, ctime_ns=8))
    assert [node.begins_at_end(offset, 10) for offset in (250, 100, 0, 99, 300)] == [True, True, False, False, False]
    node.written(110, made(260, ctime_ns=9), at_end=True)
    assert [node.begins_at_end(offset, 10) for offset in (110, 250, 100)] == [True, True, False]
    node.written(260, made(270, ctime_ns=9), at_end=True)
    assert [node.begins_at_end(offset, 10) for offset in (260, 250, 110)] == [True, False, False]
    node.told(made(0, ctime_ns=10))
    assert node.begins_at_end(260, 10), "the file was cut behind the mount, and the kernel may not know"
    page = 4096
    node.told(made(page, ctime_ns=11))
    node.told(made(4 * page, ctime_ns=12))
    assert node.begins_at_end(page, page), "a page that the kernel has never had is not written back"
    node.reach = 2 * page
    assert not node.begins_at_end(page, page), "a page that is written back"
    assert node.begins_at_end(page, page, pages=False), "by a handle that cannot be mapped"
    assert not node.begins_at_end(page, 3 * page)
    assert node.begins_at_end(page, 30)
