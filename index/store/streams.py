"""Tables stream, page, boundary and holding: what devices have told each other, and how far everybody has come.

A device tells what it writes in two *streams*: its own rows (entries: state, by pages that hold what was written last),
and shared rows (registers, attributes, tags: a log of operations). Both are ordered by `seq`, the number of the unit
that wrote them, which only grows; a stream is cut into pages that state the range (from, to] they cover, and ranges
chain. So a cursor (device, epoch, seq) says all that is known, and no time is needed for it: a unit that was committed
late can not slip behind a cursor, as it could behind a clock.

An *epoch* begins when a device comes back from an old copy of its database: what it had told since then it has
forgotten, so that its numbers would come twice. The streams of an old epoch end where they do.

Pages are signed by their author and kept as they came, so that any device can hand them on.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import apsw

from index.store.connection import one

#: The two kinds of streams.
OWNED: Final = 0
SHARED: Final = 1

SCHEMA = """
-- stream: how far we have come with what a device tells in an epoch. Our own streams have rows too: how far they go say
-- the rows and operations themselves.
--   device, epoch   whose, and in which run of numbers
--   kind       0 its rows of entries, 1 its operations on shared rows
--   start_seq  where the epoch begins
--   seq        everything up to here is applied; of our streams of the epoch of now it means nothing
--   part_to, part_after   a range that is half applied: (seq, part_to], up to the row with the id part_after; 0 when
--              there is none
--   floor_seq  what was told up to here is not kept any more: who lacks it takes the current state, of rows all of them
--   round      counts how often all rows of a device were told anew; entries have the one they were told in last in
--              scanned_mtime_ns, and what has an earlier one at the end is gone
CREATE TABLE stream(
    device     BLOB NOT NULL,
    epoch      INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    start_seq  INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    part_to    INTEGER NOT NULL DEFAULT 0,
    part_after INTEGER NOT NULL DEFAULT 0,
    floor_seq  INTEGER NOT NULL,
    round      INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (device, epoch, kind)
) STRICT, WITHOUT ROWID;

-- page: pages of other devices, as they came, for whoever asks (docs/protocol/peer-v1.md, 13). What is beside head and
-- body stands in the head too.
--   device, epoch, kind   the stream
--   from_seq, to_seq      the range (from_seq, to_seq] of it
--   after_id, last_id     of a range that has several pages: the rows above after_id, up to last_id
--   is_last   1 where the range ends with it
--   head      what was signed, and the signature
--   body      compressed, as it came
CREATE TABLE page(
    id       INTEGER PRIMARY KEY,
    device   BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq   INTEGER NOT NULL,
    after_id INTEGER NOT NULL,
    last_id  INTEGER NOT NULL,
    is_last  INTEGER NOT NULL,
    head     BLOB NOT NULL,
    body     BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX page_range ON page(device, epoch, kind, to_seq, after_id, from_seq);

-- boundary: where pages of ours ended that others may have. Whoever says that he stands elsewhere has heard what this
-- database has forgotten: it is an old copy.
--   epoch, kind, to_seq   the place
--   digest   the first 8 bytes of the hash of the page's head
CREATE TABLE boundary(
    epoch  INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (epoch, kind, to_seq)
) STRICT, WITHOUT ROWID;

-- holding: what a device said that it has durably, stream by stream. What all have is kept no longer.
--   holder   who said it
--   device, epoch, kind   of which stream
--   seq      up to where; never lowered
CREATE TABLE holding(
    holder BLOB NOT NULL,
    device BLOB NOT NULL,
    epoch  INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (holder, device, epoch, kind)
) STRICT, WITHOUT ROWID;

-- seen: when a device was heard of last, by our clock, to the hour.
CREATE TABLE seen(
    device  BLOB PRIMARY KEY,
    time_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


#: A device that was not heard of for so long is retired: nobody waits for it, and it comes back by the current state.
RETIRED_NS: Final = 90 * 86_400 * 10**9


class StreamId(NamedTuple):
    """Whose stream, of which epoch and kind."""

    device: bytes
    epoch: int
    kind: int


#: How far somebody has come with each stream he knows of.
Vector = Mapping[StreamId, int]


class Stream(NamedTuple):
    """A row of table stream."""

    device: bytes
    epoch: int
    kind: int
    start_seq: int
    seq: int
    part_to: int
    part_after: int
    floor_seq: int
    round: int

    @property
    def id(self) -> StreamId:
        return StreamId(self.device, self.epoch, self.kind)


class PageRow(NamedTuple):
    """A page that is kept: where it lies in its stream, and what was sent."""

    device: bytes
    epoch: int
    kind: int
    from_seq: int
    to_seq: int
    after_id: int
    last_id: int
    is_last: int
    head: bytes
    body: bytes


def get(db: apsw.Connection, stream: StreamId) -> Stream | None:
    row = db.execute("SELECT * FROM stream WHERE device=? AND epoch=? AND kind=?", stream).fetchone()
    return None if row is None else Stream._make(row)


def every(db: apsw.Connection) -> list[Stream]:
    """All streams that are known, ours among them."""
    return [Stream._make(row) for row in db.execute("SELECT * FROM stream ORDER BY device, epoch, kind")]


def begin(db: apsw.Connection, stream: StreamId, start_seq: int) -> None:
    """A stream is known from here on; nothing of it is applied. One that is known stays as it is."""
    db.execute(
        "INSERT OR IGNORE INTO stream(device, epoch, kind, start_seq, seq, floor_seq, round) "
        "SELECT ?,?,?,?,?,?, 1 + coalesce((SELECT max(round) FROM stream WHERE device=? AND kind=?), 0)",
        (*stream, start_seq, start_seq, start_seq, stream.device, stream.kind),
    )


def rewind(db: apsw.Connection, stream: StreamId) -> None:
    """All of it is to be told anew, from the beginning: what is kept of it is none of what will come."""
    db.execute(
        "UPDATE stream SET seq=start_seq, part_to=0, part_after=0, round=round+1 WHERE device=? AND epoch=? AND kind=?",
        stream,
    )
    db.execute("DELETE FROM page WHERE device=? AND epoch=? AND kind=?", stream)


def drop_epochs_before(db: apsw.Connection, device: bytes, epoch: int, kind: int) -> None:
    """What a device told in an earlier epoch is told anew in this one."""
    for table in ("stream", "page"):
        db.execute(f"DELETE FROM {table} WHERE device=? AND epoch<? AND kind=?", (device, epoch, kind))


def drop_all(db: apsw.Connection, device: bytes, kind: int) -> None:
    """What a device told is of no interest any more."""
    for table in ("stream", "page"):
        db.execute(f"DELETE FROM {table} WHERE device=? AND kind=?", (device, kind))


def newest_epoch(db: apsw.Connection, device: bytes, kind: int) -> int:
    """The last epoch of a device that is known here; 0 without any."""
    found = db.execute("SELECT max(epoch) FROM stream WHERE device=? AND kind=?", (device, kind)).fetchone()
    return 0 if found is None or found[0] is None else int(found[0])


def advance(db: apsw.Connection, stream: StreamId, seq: int) -> None:
    """Everything up to here is applied; a cursor never goes back."""
    db.execute(
        "UPDATE stream SET seq=max(seq, ?), part_to=0, part_after=0 WHERE device=? AND epoch=? AND kind=?",
        (seq, *stream),
    )


def advance_part(db: apsw.Connection, stream: StreamId, part_to: int, part_after: int) -> None:
    """Of the range up to `part_to` the rows up to an id are applied."""
    db.execute(
        "UPDATE stream SET part_to=?, part_after=? WHERE device=? AND epoch=? AND kind=?",
        (part_to, part_after, *stream),
    )


def raise_floor(db: apsw.Connection, stream: StreamId, seq: int) -> None:
    """What was told up to here is not kept as operations any more, here."""
    db.execute("UPDATE stream SET floor_seq=max(floor_seq, ?) WHERE device=? AND epoch=? AND kind=?", (seq, *stream))


def covers(db: apsw.Connection, device: bytes, seq: int) -> bool:
    """Whether what a device told in shared rows with a unit is applied here."""
    sql = "SELECT 1 FROM stream WHERE device=? AND kind=? AND start_seq<? AND seq>=? LIMIT 1"
    return db.execute(sql, (device, SHARED, seq, seq)).fetchone() is not None


def end_of(db: apsw.Connection, stream: Stream) -> int | None:
    """Where the next epoch of a stream's device begins; None while there is none."""
    sql = "SELECT min(start_seq) FROM stream WHERE device=? AND kind=? AND start_seq>?"
    (start_seq,) = one(db, sql, stream.device, stream.kind, stream.start_seq)
    return None if start_seq is None else int(start_seq)


def is_same_epoch(db: apsw.Connection, device: bytes, seq: int, later_seq: int) -> bool:
    """Whether a unit of a device that others heard of is of the epoch in which it made a later one."""
    sql = "SELECT max(start_seq) FROM stream WHERE device=? AND kind=? AND start_seq<?"
    found = db.execute(sql, (device, SHARED, later_seq)).fetchone()
    return found is not None and found[0] is not None and found[0] < seq <= later_seq


def keep(db: apsw.Connection, page: PageRow) -> None:
    """Keep a page for those who will ask."""
    db.execute(
        "INSERT OR REPLACE INTO page(device, epoch, kind, from_seq, to_seq, after_id, last_id, is_last, head, body) "
        "VALUES(?,?,?,?,?,?,?,?,?,?)",
        page,
    )


#: All rows told anew are for who stands at the beginning, and only these.
_SUITS = "(kind=1 OR (from_seq=?)=(?=?))"
_PAGE = "SELECT device, epoch, kind, from_seq, to_seq, after_id, last_id, is_last, head, body FROM page "


def next_page(db: apsw.Connection, stream: StreamId, seq: int, part_to: int, part_after: int) -> PageRow | None:
    """The page that goes on from a cursor: the rest of the range that it stands in, or the range that comes next.

    All rows of a device are told to who stands at the beginning only: they say nothing of what went.
    """
    known = get(db, stream)
    start_seq = 0 if known is None else known.start_seq
    row = None
    if part_to:
        sql = (
            f"{_PAGE}WHERE device=? AND epoch=? AND kind=? AND to_seq=? AND from_seq<=? AND after_id<=? "
            f"AND (last_id>? OR is_last=1) AND {_SUITS} ORDER BY after_id DESC LIMIT 1"
        )
        row = db.execute(sql, (*stream, part_to, seq, part_after, part_after, start_seq, seq, start_seq)).fetchone()
    if row is None:
        sql = (
            f"{_PAGE}WHERE device=? AND epoch=? AND kind=? AND to_seq>? AND after_id=0 AND from_seq<=? "
            f"AND {_SUITS} ORDER BY to_seq LIMIT 1"
        )
        row = db.execute(sql, (*stream, seq, seq, start_seq, seq, start_seq)).fetchone()
    return None if row is None else PageRow._make(row)


def drop_pages(db: apsw.Connection, stream: StreamId, up_to: int) -> None:
    """Pages that end at or before a number are needed by nobody."""
    db.execute("DELETE FROM page WHERE device=? AND epoch=? AND kind=? AND to_seq<=?", (*stream, up_to))


def note_boundary(db: apsw.Connection, stream: StreamId, to_seq: int, digest: bytes) -> None:
    """A page of ours ended here."""
    db.execute("INSERT OR REPLACE INTO boundary VALUES(?,?,?,?)", (stream.epoch, stream.kind, to_seq, digest))


def drop_boundaries(db: apsw.Connection, stream: StreamId, before: int) -> None:
    """Nobody stands before a place any more, but for those who take the current state."""
    db.execute("DELETE FROM boundary WHERE epoch=? AND kind=? AND to_seq<?", (stream.epoch, stream.kind, before))


def last_boundary(db: apsw.Connection, stream: StreamId) -> int:
    """Where the last page of a stream of ours ended that others may have; 0 when there was none."""
    return int(one(db, "SELECT coalesce(max(to_seq), 0) FROM boundary WHERE epoch=? AND kind=?", *stream[1:])[0])


def has_boundary(db: apsw.Connection, stream: StreamId, to_seq: int) -> bool:
    """Whether a page of ours ended there."""
    sql = "SELECT 1 FROM boundary WHERE epoch=? AND kind=? AND to_seq=?"
    return db.execute(sql, (stream.epoch, stream.kind, to_seq)).fetchone() is not None


def note_holding(db: apsw.Connection, holder: bytes, vector: Vector) -> None:
    """A device said what it has; it never has less than it had."""
    db.executemany(
        "INSERT INTO holding VALUES(?,?,?,?,?) ON CONFLICT(holder, device, epoch, kind) "
        "DO UPDATE SET seq=max(seq, excluded.seq)",
        [(holder, *stream, seq) for stream, seq in vector.items()],
    )


def note_seen(db: apsw.Connection, device: bytes, now_ns: int) -> None:
    """A device was heard of."""
    db.execute(
        "INSERT INTO seen VALUES(?,?) ON CONFLICT(device) DO UPDATE SET time_ns=excluded.time_ns", (device, now_ns)
    )


def seen_ns(db: apsw.Connection, device: bytes) -> int | None:
    """When a device was heard of last; None when it never was."""
    row = db.execute("SELECT time_ns FROM seen WHERE device=?", (device,)).fetchone()
    return None if row is None else int(row[0])


def holdings(db: apsw.Connection, holder: bytes) -> dict[StreamId, int]:
    """What a device said that it has."""
    rows = db.execute("SELECT device, epoch, kind, seq FROM holding WHERE holder=?", (holder,))
    return {StreamId(*row[:3]): row[3] for row in rows}


def held_by_all(db: apsw.Connection, holders: Iterable[bytes], stream: StreamId) -> int:
    """Up to where every one of some devices has a stream; 0 when one of them never said."""
    held = []
    for holder in holders:
        row = db.execute(
            "SELECT seq FROM holding WHERE holder=? AND device=? AND epoch=? AND kind=?", (holder, *stream)
        ).fetchone()
        held.append(0 if row is None else int(row[0]))
    return min(held, default=0)


def overgrown(db: apsw.Connection, least: int) -> list[StreamId]:
    """Streams of rows of which more pages are kept than are worth it: so many at least, and twice the room of a telling
    of all rows."""
    rows = db.execute(
        "SELECT p.device, p.epoch, p.kind FROM page p JOIN stream s USING(device, epoch, kind) WHERE kind=? "
        "GROUP BY p.device, p.epoch, p.kind HAVING count(*)>? AND sum(length(p.body))>"
        "3*sum(CASE WHEN p.from_seq=s.start_seq THEN length(p.body) ELSE 0 END) ORDER BY 1, 2",
        (OWNED, least),
    )
    return [StreamId(bytes(device), int(epoch), int(kind)) for device, epoch, kind in rows]


def kept_pages(db: apsw.Connection, stream: StreamId) -> list[PageRow]:
    """All pages that are kept of a stream, in order."""
    sql = f"{_PAGE}WHERE device=? AND epoch=? AND kind=? ORDER BY to_seq, after_id"
    return [PageRow._make(row) for row in db.execute(sql, stream)]
