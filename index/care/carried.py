"""Carried: what people attached to files and a library has lost, the files themselves may carry; they are asked anew.

In: a database of which tags or attributes are lost, inside a transaction. Out: it is forgotten that the files were ever
seen that carry what the library lacks, and their rows look changed, so the next walk asks them. A file that lacks what
the library has is left alone: what it says would count as an edit, and take that away.
"""

from collections.abc import Iterator

import apsw

from index.store import metadata, tags

#: What was seen of files that have a row, each with the uuid that it goes by.
_SEEN = """
SELECT m.node, m.branch_id, m.name, m.value, e.uuid FROM mirror m CROSS JOIN entry e ON e.id=m.node AND e.node=m.node
UNION SELECT m.node, m.branch_id, m.name, m.value, e.uuid FROM mirror m CROSS JOIN entry e
    ON e.node=m.node AND e.node<>e.id
"""
#: The walk compares the ctime of files and the mode of directories.
_LOOK_CHANGED = (
    "UPDATE entry SET ctime_ns=ctime_ns-1, mode=CASE kind WHEN 1 THEN (mode|1)-(mode&1) ELSE mode END "
    "WHERE branch_id=:branch AND ((id=:node AND node=:node) OR (node=:node AND node<>id))"
)


def ask_anew(db: apsw.Connection) -> int:
    """Have the files asked that carry what is lost; returns how many."""
    asked = set()
    for node, branch_id, name in list(_lacking(db)):
        asked.add((node, branch_id))
        db.execute("DELETE FROM mirror WHERE node=? AND branch_id=? AND name=?", (node, branch_id, name))
    for node, branch_id in asked:
        db.execute("DELETE FROM mirror_state WHERE node=? AND branch_id=?", (node, branch_id))
        db.execute(_LOOK_CHANGED, {"node": node, "branch": branch_id})
    if asked:
        db.execute("UPDATE entry SET scanned_ns=NULL, scanned_mtime_ns=NULL WHERE kind=1")
    return len(asked)


def _lacking(db: apsw.Connection) -> Iterator[tuple[int, int, bytes]]:
    """What was seen on a file and is nowhere in the library."""
    for node, branch_id, name, value, uuid in db.execute(_SEEN):
        if name == tags.XATTR:
            is_lacking = set(tags.in_text(value.decode(errors="replace"))) > set(tags.of_entry(db, uuid or b""))
        else:
            is_lacking = not metadata.has_cell(db, uuid or b"", name)
        if is_lacking:
            yield node, branch_id, name
