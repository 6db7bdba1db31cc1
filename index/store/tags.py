"""Tables tag and tagging: names for sets of entries, and which entry carries which.

An assignment is an add-wins set with dots: each add leaves a dot (device, seq, part) of its own, a removal takes away
the dots it saw, so an add elsewhere that the removal had not seen survives. Two tags of one name made apart
act as one: lookups go by name. Everything is keyed by the entry's uuid, so tags follow the logical file.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import apsw

from index.store import gaps

SCHEMA = """
-- tag: a name; uuid is its key on the wire. Names compare exactly (a search may fold them).
CREATE TABLE tag(
    id   INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL
) STRICT;
CREATE INDEX tag_name ON tag(name);

"""
#: Apart, since a step of the schema made it anew.
TAGGING = """
-- tagging: one row a dot, which is the unit of a device and the line in it that added the tag. (hlc, part) orders the
-- tags of an entry: when it was added first, also where a copy has dots of its own.
CREATE TABLE tagging(
    entry_uuid BLOB NOT NULL,
    tag_id     INTEGER NOT NULL REFERENCES tag(id),
    dot_device BLOB NOT NULL,
    dot_seq    INTEGER NOT NULL,
    dot_part   INTEGER NOT NULL,
    hlc        INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    PRIMARY KEY (entry_uuid, tag_id, dot_device, dot_seq, dot_part)
) STRICT, WITHOUT ROWID;
CREATE INDEX tagging_tag ON tagging(tag_id, entry_uuid);
-- has_dot(): what another device says of an addition.
CREATE INDEX tagging_dot ON tagging(dot_device, dot_seq, dot_part);

-- renumbered: additions of this device that it said before its database was put back, and has said again in an epoch
-- after. Who has heard of such a one by its old number may remove it by that.
--   seq, part           the unit and the line that it had
--   new_seq, new_part   and has since; both 0 of one that was removed, and is not to be said again
CREATE TABLE renumbered(
    seq      INTEGER NOT NULL,
    part     INTEGER NOT NULL,
    new_seq  INTEGER NOT NULL,
    new_part INTEGER NOT NULL,
    PRIMARY KEY (seq, part)
) STRICT, WITHOUT ROWID;
-- numbers_before()
CREATE INDEX renumbered_new ON renumbered(new_seq, new_part);
"""
SCHEMA += TAGGING


#: The model of the registers that rows of tag are made of.
MODEL = "tag"
#: The attribute of a file that holds its tags as text.
XATTR = b"user.xdg.tags"


#: The number of an addition that is gone.
NOWHERE: Final = (0, 0)


class Dot(NamedTuple):
    """One addition: whose, in which unit and line of it, and what orders it among the tags of an entry."""

    device: bytes
    seq: int
    dot_part: int
    hlc: int
    part: int


def is_tag(tag: str) -> bool:
    """Whether a text can be a tag: one line without a comma, and some text."""
    return bool(tag.strip()) and not {",", "\0", "\n"} & set(tag)


def in_text(text: str) -> list[str]:
    """The tags of a written text: split at commas, trimmed, empty ones and repetitions dropped."""
    parts = (part.strip() for part in text.rstrip("\0").split(","))
    return list(dict.fromkeys(part for part in parts if part))


def find(db: apsw.Connection, name: str) -> tuple[int, bytes] | None:
    """(id, uuid) of the oldest tag of a name."""
    row = db.execute("SELECT id, uuid FROM tag WHERE name=? ORDER BY uuid LIMIT 1", (name,)).fetchone()
    return (int(row[0]), bytes(row[1])) if row else None


def put(db: apsw.Connection, uuid: bytes, name: str) -> int:
    db.execute("INSERT INTO tag(uuid, name) VALUES(?,?)", (uuid, name))
    return db.last_insert_rowid()


def make(db: apsw.Connection, uuid: bytes, fields: Mapping[str, object]) -> None:
    """The row of a tag as its registers say."""
    name = fields.get("name")
    if isinstance(name, str) and is_tag(name):
        sql = "INSERT INTO tag(uuid, name) VALUES(?,?) ON CONFLICT(uuid) DO UPDATE SET name=excluded.name"
        db.execute(sql, (uuid, name))


def id_of(db: apsw.Connection, uuid: bytes) -> int | None:
    """The row of a tag, by its key on the wire."""
    row = db.execute("SELECT id FROM tag WHERE uuid=?", (uuid,)).fetchone()
    return None if row is None else int(row[0])


def of_entry(db: apsw.Connection, entry_uuid: bytes) -> list[str]:
    """The live tags of an entry, in the order they were added."""
    seen: dict[str, None] = {}
    for (name,) in db.execute(
        "SELECT t.name FROM tagging g JOIN tag t ON t.id = g.tag_id "
        "WHERE g.entry_uuid=? ORDER BY g.hlc, g.part, t.name",
        (entry_uuid,),
    ):
        seen.setdefault(str(name))
    return list(seen)


def add_dot(db: apsw.Connection, entry_uuid: bytes, tag_id: int, dot: Dot) -> None:
    db.execute("INSERT OR IGNORE INTO tagging VALUES(?,?,?,?,?,?,?)", (entry_uuid, tag_id, *dot))


def remove_dots(db: apsw.Connection, entry_uuid: bytes, name: str) -> dict[bytes, list[Dot]]:
    """Take a tag off an entry; returns the dots removed, by the uuid of their tag."""
    dots: dict[bytes, list[Dot]] = {}
    for uuid, *dot in db.execute(
        "SELECT t.uuid, dot_device, dot_seq, dot_part, hlc, part FROM tagging g JOIN tag t ON t.id = g.tag_id "
        "WHERE g.entry_uuid=? AND t.name=?",
        (entry_uuid, name),
    ):
        dots.setdefault(bytes(uuid), []).append(Dot._make(dot))
    db.execute(
        "DELETE FROM tagging WHERE entry_uuid=? AND tag_id IN (SELECT id FROM tag WHERE name=?)", (entry_uuid, name)
    )
    return dots


def drop_dot(db: apsw.Connection, device: bytes, seq: int, part: int) -> bool:
    """Take one addition away, by whatever uuid its entry goes here; returns whether it was there."""
    db.execute("DELETE FROM tagging WHERE dot_device=? AND dot_seq=? AND dot_part=?", (device, seq, part))
    return db.changes() > 0


def dots_of(db: apsw.Connection, entry_uuid: bytes, device: bytes) -> list[tuple[int, bytes, Dot]]:
    """(id, uuid of the tag, addition) of the tags that a device added to an entry."""
    rows = db.execute(  # the plus: by what is on the entry, not by all that the device ever added
        "SELECT t.id, t.uuid, g.dot_device, g.dot_seq, g.dot_part, g.hlc, g.part FROM tagging g "
        "JOIN tag t ON t.id=g.tag_id WHERE g.entry_uuid=? AND +g.dot_device=? ORDER BY g.dot_seq, g.dot_part",
        (entry_uuid, device),
    )
    return [(int(row[0]), bytes(row[1]), Dot._make(row[2:])) for row in rows]


def has_dot(db: apsw.Connection, device: bytes, seq: int, part: int) -> bool:
    """Whether an addition is here, of whatever tag to whatever entry."""
    sql = "SELECT 1 FROM tagging WHERE dot_device=? AND dot_seq=? AND dot_part=? LIMIT 1"
    return db.execute(sql, (device, seq, part)).fetchone() is not None


def renumber(db: apsw.Connection, old: tuple[int, int], new: tuple[int, int]) -> None:
    """An addition of this device is known by another unit and line from now on."""
    db.execute("INSERT OR REPLACE INTO renumbered VALUES(?,?,?,?)", (*old, *new))


def renumber_after(db: apsw.Connection, device: bytes, seq: int, beyond: int) -> None:
    """So are all that this device made after a unit, so many numbers later; not what it made in another continuation,
    and has heard of (gaps.py)."""
    db.execute("UPDATE renumbered SET new_seq=new_seq+? WHERE new_seq>?", (beyond, seq))
    made = f"dot_device=?2 AND dot_seq>?3 AND NOT {gaps.DOT_WITHIN}"
    db.execute(
        f"INSERT OR REPLACE INTO renumbered SELECT dot_seq, dot_part, dot_seq+?1, dot_part FROM tagging WHERE {made}",
        (beyond, device, seq),
    )
    db.execute(f"UPDATE tagging SET dot_seq=dot_seq+?1 WHERE {made}", (beyond, device, seq))


def renumbered(db: apsw.Connection, seq: int, part: int) -> tuple[int, int] | None:
    """By what an addition of this device is known by now, if not by that."""
    row = db.execute("SELECT new_seq, new_part FROM renumbered WHERE seq=? AND part=?", (seq, part)).fetchone()
    return None if row is None else (int(row[0]), int(row[1]))


def numbers_before(db: apsw.Connection, seq: int, part: int) -> list[tuple[int, int]]:
    """By what an addition of this device was known, the last first."""
    sql = (
        "WITH RECURSIVE was(seq, part) AS (VALUES(?1, ?2) UNION "
        "SELECT r.seq, r.part FROM renumbered r JOIN was w ON (r.new_seq, r.new_part)=(w.seq, w.part)) "
        "SELECT seq, part FROM was WHERE (seq, part)<>(?1, ?2) ORDER BY seq DESC, part DESC"
    )
    return [(int(seq), int(part)) for seq, part in db.execute(sql, (seq, part))]


def every_dot(db: apsw.Connection, untold_by: bytes) -> Iterator[tuple[bytes, bytes, bytes, int, int]]:
    """All additions that were told: (entry, tag, device, seq, part); not those by which this device (`untold_by`)
    tagged what nobody is to hear of."""
    rows = db.execute(
        "SELECT g.entry_uuid, t.uuid, g.dot_device, g.dot_seq, g.dot_part FROM tagging g JOIN tag t ON t.id=g.tag_id "
        "WHERE g.dot_device<>? OR g.entry_uuid NOT IN (SELECT entry_uuid FROM untold)",
        (untold_by,),
    )
    return ((bytes(u), bytes(t), bytes(d), int(s), int(p)) for u, t, d, s, p in rows)


def in_order(db: apsw.Connection, entry_uuid: bytes) -> list[tuple[int, bytes, int, int]]:
    """The live tags of an entry in the order they were added: (id, uuid, hlc, part)."""
    first: dict[int, tuple[int, bytes, int, int]] = {}
    for row in db.execute(
        "SELECT t.id, t.uuid, g.hlc, g.part FROM tagging g JOIN tag t ON t.id = g.tag_id "
        "WHERE g.entry_uuid=? ORDER BY g.hlc, g.part, t.name",
        (entry_uuid,),
    ):
        first.setdefault(row[0], row)
    return list(first.values())


def names(db: apsw.Connection) -> list[tuple[str, int]]:
    """Every tag in use with the number of entries that carry it and are known here."""
    return [
        (str(n), int(c))
        for n, c in db.execute(
            "SELECT t.name, count(DISTINCT g.entry_uuid) FROM tag t JOIN tagging g ON g.tag_id = t.id "
            "WHERE EXISTS (SELECT 1 FROM entry e WHERE e.uuid = g.entry_uuid AND e.uuid IS NOT NULL AND e.rule >= 0) "
            "GROUP BY t.name ORDER BY t.name"
        )
    ]


def entries_with_all(db: apsw.Connection, tag_names: list[str], limit: int) -> list[bytes]:
    """The uuids of the entries that carry every one of the tags."""
    clauses = " AND ".join(
        "EXISTS (SELECT 1 FROM tagging g JOIN tag t ON t.id = g.tag_id WHERE g.entry_uuid = base.u AND t.name = ?)"
        for _ in tag_names[1:]
    )
    sql = (
        "SELECT DISTINCT base.u FROM (SELECT g.entry_uuid AS u FROM tagging g JOIN tag t ON t.id = g.tag_id "
        "WHERE t.name = ?) AS base" + (f" WHERE {clauses}" if clauses else "") + " LIMIT ?"
    )
    return [bytes(r[0]) for r in db.execute(sql, (*tag_names, limit))]
