"""Entry: one name on one branch, a replica. What a stat says of it, before anything about its bytes.

`Stat` is what the disk answered, `Entry` a row of the store. Rows come by the hundred thousand, so both are plain
tuples; nothing here does I/O.
"""

import os
import stat as _stat
from typing import NamedTuple

from index.model.inode import inode_of

KIND_FILE = 0
KIND_DIR = 1
KIND_SYMLINK = 2
KIND_OTHER = 3

#: The longest name of a file or directory that Linux knows (NAME_MAX of limits.h).
NAME_MAX_BYTES = 255

KIND_NAMES = ("file", "directory", "symlink", "special")

HASH_NONE = 0  # nothing computed yet
HASH_SAMPLED = 1  # the sampled id is known
HASH_FULL = 2  # the full BLAKE3 is known
HASH_FAILED = 3  # could not be read; the reason lies with the row
HASH_LEFT = 4  # not to be read: it lies on a network file system inside a location


#: In the place of a rule: another device has it, and its name was taken away here (index/store/whiteouts.py).
HIDDEN = -1

_NS_MAX = (1 << 63) - 1


def ns(time_ns: int) -> int:
    """A time as the index keeps it: 64 bits of ns end in the years 1677 and 2262, file systems go on."""
    return max(-_NS_MAX, min(_NS_MAX, time_ns))


def is_name(name: bytes) -> bool:
    """Whether bytes can be the name of something in a directory."""
    return name not in (b"", b".", b"..") and b"/" not in name and b"\0" not in name


def kind_of(mode: int) -> int:
    """The kind of a file by its st_mode."""
    fmt = mode & 0o170000
    if fmt == _stat.S_IFREG:
        return KIND_FILE
    if fmt == _stat.S_IFDIR:
        return KIND_DIR
    if fmt == _stat.S_IFLNK:
        return KIND_SYMLINK
    return KIND_OTHER


class Stat(NamedTuple):
    """What lstat said, cut to what the index keeps. Times in ns."""

    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    st_ino: int
    nlink: int
    uid: int
    gid: int

    @classmethod
    def of(cls, st: os.stat_result) -> "Stat":
        mtime_ns, ctime_ns = ns(st.st_mtime_ns), ns(st.st_ctime_ns)
        return cls(st.st_mode, st.st_size, mtime_ns, ctime_ns, inode_of(st), st.st_nlink, st.st_uid, st.st_gid)

    @property
    def kind(self) -> int:
        return kind_of(self.mode)


class Entry(NamedTuple):
    """A row of table entry; the column's prose is beside the table (index/store/entries.py)."""

    id: int
    branch_id: int
    parent_id: int | None
    name: bytes
    node: int
    uuid: bytes | None
    kind: int
    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    st_ino: int
    nlink: int
    uid: int
    gid: int
    content_id: int | None
    hash_state: int
    version: bytes | None
    seq: int
    scanned_ns: int | None
    scanned_mtime_ns: int | None
    rule: int = 0

    @property
    def is_ours(self) -> bool:
        """Whether the row is this device's. Of another's the owner is not known here."""
        return self.uid >= 0

    @property
    def is_hidden(self) -> bool:
        """Whether it is another device's, and its name was taken away here."""
        return self.rule == HIDDEN

    @property
    def stat(self) -> Stat:
        return Stat(
            self.mode, self.size_bytes, self.mtime_ns, self.ctime_ns, self.st_ino, self.nlink, self.uid, self.gid
        )

    def matches(self, st: os.stat_result) -> bool:
        """Whether the row says what the disk says."""
        return (
            (self.mtime_ns == st.st_mtime_ns or self.mtime_ns == ns(st.st_mtime_ns))
            and self.size_bytes == st.st_size
            and (self.ctime_ns == st.st_ctime_ns or self.ctime_ns == ns(st.st_ctime_ns))
            and self.st_ino == inode_of(st)
            and self.mode == st.st_mode
            and self.nlink == st.st_nlink
            and self.uid == st.st_uid
            and self.gid == st.st_gid
        )
