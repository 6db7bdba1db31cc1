"""What changed: a row held against what lstat says. Pure; one place for the scan, the watcher and the mount.

A file's bytes count as changed when its size, its mtime or its inode differ. A directory's size, link count and times
move with each entry in it: but for the size they are written down, and mean nothing more.
"""

from index.model.entry import KIND_DIR, Entry, Stat

SAME = 0
TIMES = 1  # a directory's times or link count and nothing else: names in it came or went, or it was renamed
ATTRS = 2  # mode, owner, times or link count
DATA = 3  # the bytes, in the same inode
REPLACED = 4  # another inode of the same kind stands under the name
OTHER_KIND = 5  # a file became a directory, and so on: remove and add


def compare(row: Entry, st: Stat) -> int:
    """How far `st` has moved from the row."""
    if row.kind != st.kind:
        return OTHER_KIND
    if row.kind == KIND_DIR:
        if row.st_ino != st.st_ino:
            return REPLACED
        if row.mode != st.mode or row.uid != st.uid or row.gid != st.gid:
            return ATTRS
        told = (row.mtime_ns, row.ctime_ns, row.nlink) == (st.mtime_ns, st.ctime_ns, st.nlink)
        return SAME if told else TIMES
    if row.st_ino != st.st_ino:
        return REPLACED
    if row.size_bytes != st.size_bytes or row.mtime_ns != st.mtime_ns:
        return DATA
    if (
        row.ctime_ns != st.ctime_ns
        or row.mode != st.mode
        or row.nlink != st.nlink
        or row.uid != st.uid
        or row.gid != st.gid
    ):
        return ATTRS
    return SAME
