"""The row of a branch's root directory: the one entry with no parent and no name."""

from index.model.entry import KIND_DIR, Entry, Stat
from index.model.ids import new_uuid
from index.store.unit import Unit


def root_row(unit: Unit, branch_id: int, st: Stat) -> Entry:
    """The row for a root that stands on disk now; not inserted yet."""
    entry_id = unit.new_id()
    return Entry(
        entry_id, branch_id, None, b"", entry_id, new_uuid(), KIND_DIR, st.mode, st.size_bytes, st.mtime_ns,
        st.ctime_ns, st.st_ino, st.nlink, st.uid, st.gid, None, 0, None, unit.seq, None, None,
    )  # fmt: skip
