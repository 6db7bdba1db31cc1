"""Table filetype: the types of files that the library has met, so that a content names its type by a number.

What a type is stands in index/model/filetype.py; the row repeats its kind and media type for queries, and is mended
when the program knows them better.
"""

import apsw

from index.model.filetype import BY_TYPE, UNKNOWN, FileType, Method

SCHEMA = """
-- filetype: a type that some content has.
--   name  as in docs/types.md; keeps its meaning for ever
--   kind  0 unknown, 1 image, 2 video, …: the place in the list of docs/types.md
--   mime  the media type
CREATE TABLE filetype(
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind INTEGER NOT NULL,
    mime TEXT NOT NULL
) STRICT;
"""


def intern(db: apsw.Connection, one: FileType) -> int:
    """The number of a type; its row is made or mended. Inside a unit."""
    row = db.execute("SELECT id, kind, mime FROM filetype WHERE name=?", (one.name,)).fetchone()
    if row is None:
        db.execute("INSERT INTO filetype(name, kind, mime) VALUES(?,?,?)", (one.name, one.kind, one.mime))
        return db.last_insert_rowid()
    if row[1:] != (one.kind, one.mime):
        db.execute("UPDATE filetype SET kind=?, mime=? WHERE id=?", (one.kind, one.mime, row[0]))
    return int(row[0])


def of_content(db: apsw.Connection, content_id: int) -> tuple[FileType, Method] | None:
    """What a content was found to be, and how; None while nobody looked. A type of a newer program is UNKNOWN."""
    row = db.execute(
        "SELECT t.name, c.type_method FROM content c JOIN filetype t ON t.id = c.type_id WHERE c.id=?", (content_id,)
    ).fetchone()
    return None if row is None else (BY_TYPE.get(row[0], UNKNOWN), Method(row[1]))


def known(db: apsw.Connection, names: "frozenset[str]") -> list[int]:
    """The numbers of those of the types that have one."""
    rows = db.execute("SELECT id, name FROM filetype")
    return [int(type_id) for type_id, name in rows if name in names]
