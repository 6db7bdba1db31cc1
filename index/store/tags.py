"""Tables tag and tagging: names for sets of entries, and which entry carries which.

An assignment is an add-wins set with dots: each add leaves a dot (device, seq) of the unit that made it, a removal
takes away the dots it saw, so an add elsewhere that the removal had not seen survives. Two tags of one name made apart
act as one: lookups go by name. Everything is keyed by the entry's uuid, so tags follow the logical file.
"""

import apsw

SCHEMA = """
-- tag: a name; uuid is its key on the wire. Names compare exactly (a search may fold them).
CREATE TABLE tag(
    id   INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL
) STRICT;
CREATE INDEX tag_name ON tag(name);

-- tagging: one row a dot. hlc is when it was added and orders the tags of an entry; part orders those of one unit.
CREATE TABLE tagging(
    entry_uuid BLOB NOT NULL,
    tag_id     INTEGER NOT NULL REFERENCES tag(id),
    dot_device BLOB NOT NULL,
    dot_seq    INTEGER NOT NULL,
    hlc        INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    PRIMARY KEY (entry_uuid, tag_id, dot_device, dot_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX tagging_tag ON tagging(tag_id, entry_uuid);
"""


#: The attribute of a file that holds its tags as text.
XATTR = b"user.xdg.tags"


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


def add_dot(db: apsw.Connection, entry_uuid: bytes, tag_id: int, device: bytes, seq: int, hlc: int, part: int) -> None:
    db.execute("INSERT OR IGNORE INTO tagging VALUES(?,?,?,?,?,?)", (entry_uuid, tag_id, device, seq, hlc, part))


def remove_dots(db: apsw.Connection, entry_uuid: bytes, name: str) -> list[tuple[bytes, bytes, int]]:
    """Take a tag off an entry; returns the dots removed as (tag uuid, device, seq)."""
    dots = [
        (bytes(u), bytes(d), int(s))
        for u, d, s in db.execute(
            "SELECT t.uuid, g.dot_device, g.dot_seq FROM tagging g JOIN tag t ON t.id = g.tag_id "
            "WHERE g.entry_uuid=? AND t.name=?",
            (entry_uuid, name),
        )
    ]
    db.execute(
        "DELETE FROM tagging WHERE entry_uuid=? AND tag_id IN (SELECT id FROM tag WHERE name=?)", (entry_uuid, name)
    )
    return dots


def names(db: apsw.Connection) -> list[tuple[str, int]]:
    """Every tag in use with the number of entries that carry it and are known here."""
    return [
        (str(n), int(c))
        for n, c in db.execute(
            "SELECT t.name, count(DISTINCT g.entry_uuid) FROM tag t JOIN tagging g ON g.tag_id = t.id "
            "WHERE EXISTS (SELECT 1 FROM entry e WHERE e.uuid = g.entry_uuid AND e.uuid IS NOT NULL) "
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
