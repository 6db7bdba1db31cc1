"""Outgoing: what this device tells, cut into signed pages.

In: the store, and where somebody stands with one of our streams. Out: the page that goes on from there, made of the
rows as they are now; None when there is nothing to tell. Whoever stands at the beginning of an epoch is told all rows
that there are, by their numbers; others what was written since, by the units that wrote it.

A page must not be sent before what it tells is durable (`Store.make_durable`): a unit that is lost with the power after
others heard of it would be followed by another with its number. Files that are told without anybody having read them
(empty ones, those that are not to be read) get their uuid here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

from index.model.change import ORIGIN_SYNC
from index.model.entry import KIND_FILE, KIND_SYMLINK
from index.model.errors import RewindNeeded, SnapshotNeeded
from index.model.ids import new_entry_uuids
from index.store import annotating, entries, heldback, streams
from index.store.remote import RemoteRow
from index.store.store import Store
from index.store.streams import OWNED, SHARED, StreamId
from index.store.unit import NUMBER_TOLD
from sync.log import pages, rows
from sync.log.pages import Head, Page
from sync.log.rows import Gone
from sync.wire.identity import Keys

#: Rows and operations of a page at most, when nobody says otherwise.
PAGE_ROWS: Final = 2000
#: So many operations are a page at most, which is taken in at once, and none comes after so many bytes, unpacked. As
#: many as a unit tells by one number, which is not cut in two.
PAGE_OPS: Final = NUMBER_TOLD
PAGE_BYTES: Final = 1 << 20

_ROW: Final = (
    "SELECT e.id, e.branch_id, coalesce(e.parent_id, 0), e.name, e.uuid, e.kind, e.mode, e.size_bytes, e.mtime_ns, "
    "e.ctime_ns, e.nlink, e.hash_state, c.full, c.sampled, e.version, e.seq FROM entry e "
)
_CONTENT: Final = "LEFT JOIN content c ON c.id=e.content_id AND e.kind=0 AND e.hash_state=2 AND e.size_bytes>0 "
_BY_ID: Final = f"{_ROW}{_CONTENT}WHERE {entries.E_TELLABLE} AND e.id>? ORDER BY e.id LIMIT ?"
_BY_SEQ: Final = (
    f"{_ROW}INDEXED BY entry_seq {_CONTENT}WHERE {entries.E_TELLABLE} AND e.seq>? AND e.seq<=? ORDER BY e.seq LIMIT ?"
)
_OF_RANGE: Final = (
    f"{_ROW}INDEXED BY entry_seq {_CONTENT}WHERE {entries.E_TELLABLE} AND e.seq>? AND e.seq<=? "
    "AND e.id>? ORDER BY e.id LIMIT ?"
)
_OPS: Final = "SELECT seq, part, hlc, model, op, key, body FROM outbox"


class Outgoing:
    """This device's own streams. Used on the loop only.

    `target_of`: where a symlink of ours leads (its row's number), None where that cannot be said.
    """

    def __init__(self, store: Store, keys: Keys, target_of: Callable[[int], bytes | None]) -> None:
        self.store = store
        self.keys = keys
        self.target_of = target_of
        self._branches: dict[int, bytes] = {}

    def stream(self, kind: int) -> StreamId:
        return StreamId(self.store.device_uuid, self.store.epoch, kind)

    def head_of(self, kind: int) -> int:
        """The last unit in which something was written that this stream tells."""
        db = self.store.db
        if kind == SHARED:
            sql = "SELECT max(seq) FROM outbox WHERE epoch=?"
            found = db.execute(sql, (self.store.epoch,)).fetchone()
        else:
            told = f"SELECT seq FROM entry INDEXED BY entry_seq WHERE {entries.TELLABLE} ORDER BY seq DESC LIMIT 1"
            sql = f"SELECT max(coalesce(({told}), 0), coalesce((SELECT max(seq) FROM tombstone), 0))"
            found = db.execute(sql).fetchone()
        row = streams.get(db, self.stream(kind))
        told_seq = 0 if found is None or found[0] is None else int(found[0])
        if row is None:
            return told_seq
        # Of a later epoch also that there are no rows is told: others have those of the one before.
        least_seq = row.start_seq + 1 if kind == OWNED and row.start_seq else 0
        return max(row.floor_seq, told_seq, least_seq)

    # rows -------------------------------------------------------------------------------------------------------------

    def owned(self, from_seq: int, part_to: int = 0, part_after: int = 0, limit: int = PAGE_ROWS) -> Page | None:
        """The page of rows that goes on from a place in the stream of rows. Of fewer rows than asked for, where these
        (links that lead far) make more than a page holds."""
        while True:
            page = self._owned(from_seq, part_to, part_after, limit)
            if page is None:
                return None
            if pages.fits(page):
                return self._noted(page)
            limit = max(1, limit // 4)

    def _owned(self, from_seq: int, part_to: int, part_after: int, limit: int) -> Page | None:
        start, floor = self._bounds(OWNED)
        last = self.store.last_seq
        if from_seq < start or start < from_seq < floor or max(from_seq, part_to) > last:
            raise RewindNeeded("what went since is not known any more")
        if from_seq == start:
            to_seq = part_to or last
            found = self._rows(_BY_ID, part_after, limit + 1)
            return self._page(OWNED, start, to_seq, part_after, found, limit, []) if to_seq > start else None
        if part_to:
            return self._part(from_seq, part_to, part_after, limit)
        found = self._rows(_BY_SEQ, from_seq, last, limit + 1)
        gone = self._gone("seq", from_seq, last, 0, limit + 1)
        if not found and not gone:
            return None
        to_seq = _cut(sorted([row[-1] for row in found] + [one[-1] for one in gone]), limit, last)
        gone = [one for one in gone if one[-1] <= to_seq]
        found = sorted(row for row in found if row[-1] <= to_seq)
        if len(found) + len(gone) > limit:  # one unit that wrote more than a page
            return self._part(from_seq, to_seq, 0, limit)
        return self._page(OWNED, from_seq, to_seq, 0, found, limit, gone)

    def _part(self, from_seq: int, to_seq: int, after_id: int, limit: int) -> Page:
        """Of a range what has the next numbers, rows and tombstones alike."""
        found = self._rows(_OF_RANGE, from_seq, to_seq, after_id, limit + 1)
        gone = self._gone("entry_id", from_seq, to_seq, after_id, limit + 1)
        ids = sorted([row[0] for row in found] + [one[1] for one in gone])
        if len(ids) <= limit:
            return self._page(OWNED, from_seq, to_seq, after_id, found, limit, gone)
        last_id = ids[limit - 1]
        found = [row for row in found if row[0] <= last_id]
        gone = [one for one in gone if one[1] <= last_id]
        return self._page(OWNED, from_seq, to_seq, after_id, found, limit, gone, last_id)

    def _rows(self, sql: str, *values: int) -> list[Any]:
        return self.store.db.execute(sql, values).fetchall()

    def _gone(self, order: str, from_seq: int, to_seq: int, after_id: int, limit: int) -> list[Any]:
        """Tombstones of rows that have not come back since: (branch, number, kind, seq)."""
        return self.store.db.execute(
            "SELECT branch_id, entry_id, kind, seq FROM tombstone t WHERE seq>? AND seq<=? AND entry_id>? AND "
            f"NOT EXISTS (SELECT 1 FROM entry e WHERE e.id=t.entry_id AND {entries.E_TELLABLE}) "
            f"ORDER BY {order} LIMIT ?",
            (from_seq, to_seq, after_id, limit),
        ).fetchall()

    def _page(
        self,
        kind: int,
        from_seq: int,
        to_seq: int,
        after_id: int,
        found: list[Any],
        limit: int,
        gone: Sequence[Any],
        last_id: int | None = None,
    ) -> Page:
        """`last_id`: where the page ends, if that is known; else it is the last one unless there are too many rows."""
        is_last = last_id is None and len(found) <= limit
        found = found[:limit]
        self._give_uuids(found)
        told = [(self._branch(row[1]), self._told(row)) for row in found]
        tombs = [Gone(self._branch(branch_id), rid, why) for branch_id, rid, why, _ in gone]
        if last_id is None:
            last_id = found[-1][0] if found else after_id
        return self._seal(kind, from_seq, to_seq, after_id, last_id, is_last, len(found), rows.packed(told, tombs))

    def _told(self, row: Any) -> RemoteRow:
        rid, _, parent, name, uuid, kind, mode, size, mtime, ctime, nlink, state, full, sampled, version, _ = row
        target = self.target_of(rid) if kind == KIND_SYMLINK else None
        if kind != KIND_FILE or size == 0:
            state = 0
        return RemoteRow(
            rid, parent, name, uuid, kind, mode, size, mtime, ctime, nlink, state, full, sampled, version, target
        )

    def _give_uuids(self, found: list[Any]) -> None:
        """Rows that nobody has named yet are named now; other names of their inode with them."""
        nameless = [at for at, row in enumerate(found) if row[4] is None]
        if not nameless:
            return
        with self.store.note() as db:
            for at, uuid in zip(nameless, new_entry_uuids(len(nameless)), strict=True):
                row = list(found[at])
                held = db.execute("SELECT uuid FROM entry WHERE id=?", (row[0],)).fetchone()
                if held is None or held[0] is None:
                    entries.name_links(db, row[0], uuid)
                    row[4] = uuid
                else:
                    row[4] = held[0]
                found[at] = tuple(row)

    def _branch(self, branch_id: int) -> bytes:
        if branch_id not in self._branches:
            self._branches = {int(i): bytes(u) for i, u in self.store.db.execute("SELECT id, uuid FROM branch")}
        return self._branches.get(branch_id, bytes(16))

    # shared rows ------------------------------------------------------------------------------------------------------

    def shared(self, from_seq: int, limit: int = PAGE_OPS) -> Page | None:
        """The page of operations that goes on from a place in the stream of shared rows. SnapshotNeeded where they are
        not kept any more."""
        limit = min(limit, PAGE_OPS)
        if from_seq < self._bounds(SHARED)[1]:
            raise SnapshotNeeded("what was told since is not kept any more")
        found = self._ops("seq>?", from_seq, limit + 1, PAGE_BYTES)
        if not found:
            return None
        to_seq = _cut([op[0] for op in found], limit, found[-1][0])  # none that nothing was said in: see gaps.py
        if len(found) > limit and to_seq == found[0][0]:  # one unit that said more than a page
            found = self._ops("seq=?", to_seq, -1)
        ops = [[*op[:5], msgpack.unpackb(op[5]), msgpack.unpackb(op[6])] for op in found if op[0] <= to_seq]
        return self._noted(self._seal(SHARED, from_seq, to_seq, 0, 0, True, len(ops), ops))

    def _ops(self, where: str, seq: int, limit: int, most_bytes: int = 1 << 62) -> list[Any]:
        """Operations in order; no further unit once they have so many bytes."""
        found: list[Any] = []
        size_bytes = 0
        sql = f"{_OPS} WHERE epoch=? AND {where} ORDER BY seq, part LIMIT ?"
        rows: Any = self.store.db.execute(sql, (self.store.epoch, seq, limit))
        for row in rows:
            if size_bytes >= most_bytes and row[0] != found[-1][0]:
                break
            size_bytes += len(row[-2]) + len(row[-1])
            found.append(row)
        return found

    def _bounds(self, kind: int) -> tuple[int, int]:
        """(start_seq, floor_seq) of a stream of ours."""
        row = streams.get(self.store.db, self.stream(kind))
        return (0, 0) if row is None else (row.start_seq, row.floor_seq)

    def _seal(
        self,
        kind: int,
        from_seq: int,
        to_seq: int,
        after_id: int,
        last_id: int,
        is_last: bool,
        told: int,
        body: object,
    ) -> Page:
        store = self.store
        head = Head(
            store.library_uuid, store.device_uuid, store.epoch, kind, self._bounds(kind)[0], from_seq, to_seq, after_id,
            last_id, is_last, told, b"",
        )  # fmt: skip
        return pages.seal(self.keys, head, body)

    def _noted(self, page: Page) -> Page:
        """Where a page ends that others may have is remembered."""
        with self.store.note() as db:
            streams.note_boundary(db, page.facts.stream, page.facts.to_seq, page.digest)
        return page


def _cut(seqs: list[int], limit: int, last: int) -> int:
    """Up to which unit a page goes that is to hold so many of what these units wrote; none is cut in two."""
    if len(seqs) <= limit:
        return last
    beyond = seqs[limit]
    whole = [seq for seq in seqs[:limit] if seq < beyond]
    return whole[-1] if whole else beyond


def begin_sharing(store: Store) -> None:
    """There are other devices from now on: what was said before is told by the current state, what comes by the log."""
    if store.is_shared:
        return
    with store.note() as db:
        for row in streams.every(db):
            if row.device == store.device_uuid and row.epoch == store.epoch and row.kind == SHARED:
                db.execute("DELETE FROM outbox WHERE seq<=?", (store.last_seq,))
                streams.raise_floor(db, row.id, store.last_seq)
    store.is_shared = True


def tell_untold(store: Store, after: bytes = b"") -> tuple[bytes, bool]:
    """What waited for entries that a rule held back is told, where it holds them no more: a step, from a place on.
    Returns where to go on, and whether anything was told."""
    due, after = heldback.due(store.db, store.device_uuid, after)
    if due:
        with store.write(ORIGIN_SYNC) as unit:
            annotating.tell_untold(unit, due)
    return after, bool(due)
