"""What changed: a row held against what lstat says. Pure; one place for the scan, the watcher and the mount.

A file's bytes count as changed when its size, its mtime or its inode differ. A directory's size, link count and times
move with each entry in it and say nothing by themselves.
"""

from index.model.entry import KIND_DIR, Entry, Stat

SAME = 0
ATTRS = 1  # mode, owner, times or link count
DATA = 2  # the bytes, in the same inode
REPLACED = 3  # another inode of the same kind stands under the name
OTHER_KIND = 4  # a file became a directory, and so on: remove and add


def compare(row: Entry, st: Stat) -> int:
    """How far `st` has moved from the row."""
    if row.kind != st.kind:
        return OTHER_KIND
    if row.kind == KIND_DIR:
        if row.st_ino != st.st_ino:
            return REPLACED
        same = row.mode == st.mode and row.uid == st.uid and row.gid == st.gid and row.mtime_ns == st.mtime_ns
        return SAME if same else ATTRS
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
