"""Tidying: what nobody needs any more is found by a reader in a thread, and removed in small units that look again.

Finding is a pass over whole tables, for which the loop must not wait; removing goes by key. What came back into use in
between stays.
"""

from typing import NamedTuple

import apsw

from index.model.hlc import Hlc
from index.store.limbo import KEEP_NS

#: Rows of each kind that one round finds, so that no unit is long.
ROUND_ROWS = 2000
#: So long a whiteout waits for a directory that is gone with all that devices had of it: it may be told again.
WHITEOUT_KEEP_MS = 90 * 86_400_000

#: What waits in limbo comes back with its content, and an id is given again once its row is gone.
_UNUSED_CONTENT = (
    "NOT EXISTS (SELECT 1 FROM entry e WHERE e.content_id = content.id) "
    "AND NOT EXISTS (SELECT 1 FROM limbo l WHERE l.content_id = content.id)"
)
_UNUSED_MIRROR = (
    "node NOT IN (SELECT node FROM limbo) "
    "AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.id = {0}.node AND e.node = e.id) "
    "AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.node = {0}.node AND e.node <> e.id)"
)
_UNUSED_WHITEOUT = "hlc<? AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.uuid = whiteout.dir AND e.uuid IS NOT NULL)"
_OF_CONTENTS = ("manifest", "extracted", "sidecar")
_MIRRORS = ("mirror", "mirror_state")


class Strays(NamedTuple):
    """Keys of rows that were found to be of no use."""

    limbo: list[tuple[int, int]]  # (branch, inode) of what did not come back in time
    contents: list[int]  # contents that no entry has, nor what waits in limbo
    mirrors: list[int]  # numbers of files that no row has and that are not expected back
    whiteouts: list[tuple[bytes, bytes, bytes]]  # names in directories that nobody has any more

    def __bool__(self) -> bool:
        return bool(self.limbo or self.contents or self.mirrors or self.whiteouts)


def find(db: apsw.Connection, now_ns: int) -> Strays:
    """Up to ROUND_ROWS of each kind: passes over whole tables, for a thread."""
    limbo = db.execute("SELECT branch_id, st_ino FROM limbo WHERE removed_ns<? LIMIT ?", (now_ns - KEEP_NS, ROUND_ROWS))
    contents = db.execute(f"SELECT id FROM content WHERE {_UNUSED_CONTENT} LIMIT ?", (ROUND_ROWS,))
    mirrors: set[int] = set()
    for table in _MIRRORS:
        sql = f"SELECT DISTINCT node FROM {table} WHERE {_UNUSED_MIRROR.format(table)} LIMIT ?"
        mirrors.update(node for (node,) in db.execute(sql, (ROUND_ROWS,)))
    sql = f"SELECT dir, name, uuid FROM whiteout WHERE {_UNUSED_WHITEOUT} LIMIT ?"
    whiteouts = [(bytes(d), bytes(n), bytes(u)) for d, n, u in db.execute(sql, (_kept_since(now_ns), ROUND_ROWS))]
    return Strays([(int(b), int(i)) for b, i in limbo], [int(i) for (i,) in contents], sorted(mirrors), whiteouts)


def _kept_since(now_ns: int) -> int:
    """The stamp from which on whiteouts are kept, whatever they hide."""
    return Hlc(max(0, now_ns // 1_000_000 - WHITEOUT_KEEP_MS), 0).packed()


def drop(db: apsw.Connection, strays: Strays, now_ns: int) -> None:
    """Remove what is still of no use; inside a unit."""
    db.executemany(
        "DELETE FROM limbo WHERE branch_id=? AND st_ino=? AND removed_ns<?",
        ((*key, now_ns - KEEP_NS) for key in strays.limbo),
    )
    keys = [(i,) for i in strays.contents]
    for table in _OF_CONTENTS:
        db.executemany(
            f"DELETE FROM {table} WHERE content_id IN (SELECT id FROM content WHERE id=? AND {_UNUSED_CONTENT})", keys
        )
    db.executemany(f"DELETE FROM content WHERE id=? AND {_UNUSED_CONTENT}", keys)
    for table in _MIRRORS:
        db.executemany(
            f"DELETE FROM {table} WHERE node=? AND {_UNUSED_MIRROR.format(table)}", ((n,) for n in strays.mirrors)
        )
    db.executemany(
        f"DELETE FROM whiteout WHERE dir=? AND name=? AND uuid=? AND {_UNUSED_WHITEOUT}",
        ((*key, _kept_since(now_ns)) for key in strays.whiteouts),
    )
