"""Tables untold and withdrawn: whether other devices hear of what people attach to entries that a rule holds back.

An entry that is held back from its first day is told to nobody, and so is what is attached to it: it waits here, by the
entry's uuid, and is told once the entry is (`due`). An entry that was told before a rule came to hold it is only
withdrawn; others know its uuid, and what is said of it is told as ever.
"""

import apsw

SCHEMA = """
-- untold: entries that nobody was told of and that something is attached to.
CREATE TABLE untold(
    entry_uuid BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- withdrawn: entries that were told, or might have been, and are held back now.
CREATE TABLE withdrawn(
    entry_uuid BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;
"""

#: Of a row of table attribute or tagging: others are told of what it is attached to.
TOLD = "entry_uuid NOT IN (SELECT entry_uuid FROM untold)"


def _held(uuid: str) -> str:
    return (
        f"EXISTS (SELECT 1 FROM entry WHERE uuid={uuid}) "
        f"AND NOT EXISTS (SELECT 1 FROM entry WHERE uuid={uuid} AND (rule=0 OR uid<0)) "
        f"AND NOT EXISTS (SELECT 1 FROM withdrawn WHERE entry_uuid={uuid})"
    )


_IS_HELD = f"SELECT {_held(':uuid')}"
#: So many of those that wait are looked at in a step, and so many found.
_LOOKED_AT = 1000
_FOUND = 100


def is_held(db: apsw.Connection, uuid: bytes) -> bool:
    """Whether nobody is to hear of what is attached to an entry."""
    return bool(next(iter(db.execute(_IS_HELD, {"uuid": uuid})))[0])


def waits(db: apsw.Connection, uuid: bytes) -> bool:
    """The same of something that is attached just now; it is remembered that it waits. So does what comes before that
    is told which waited."""
    if not is_held(db, uuid) and db.execute("SELECT 1 FROM untold WHERE entry_uuid=?", (uuid,)).fetchone() is None:
        return False
    db.execute("INSERT OR IGNORE INTO untold VALUES(?)", (uuid,))
    return True


def withdraw(db: apsw.Connection, uuid: bytes) -> None:
    """An entry that others may know is held back from now on."""
    db.execute("INSERT OR IGNORE INTO withdrawn VALUES(?)", (uuid,))


def release(db: apsw.Connection, uuid: bytes) -> None:
    """No rule holds an entry any more."""
    db.execute("DELETE FROM withdrawn WHERE entry_uuid=?", (uuid,))


def renamed(db: apsw.Connection, uuid: bytes, kept: bytes) -> None:
    """What is attached to an entry is attached to another one from now on."""
    db.execute("INSERT OR IGNORE INTO untold SELECT ? FROM untold WHERE entry_uuid=?", (kept, uuid))
    db.execute("DELETE FROM untold WHERE entry_uuid=?", (uuid,))


_DUE = (
    "SELECT entry_uuid, (EXISTS (SELECT 1 FROM entry WHERE uuid=u.entry_uuid) "
    "OR EXISTS (SELECT 1 FROM tagging WHERE entry_uuid=u.entry_uuid AND +dot_device<>?1) "
    "OR EXISTS (SELECT 1 FROM attribute WHERE entry_uuid=u.entry_uuid AND +device<>?1)) "
    f"AND NOT ({_held('u.entry_uuid')}) FROM untold u WHERE entry_uuid>?2 ORDER BY 1 LIMIT ?3"
)


def due(db: apsw.Connection, own: bytes, after: bytes) -> tuple[list[bytes], bytes]:
    """Entries of which it can be told by now what is attached to them; also those that are gone, where another device
    has heard of them before. Some of those whose uuids are greater than `after`, and after what to go on; nothing at
    the end. `own`: this device."""
    found: list[bytes] = []
    for looked_at, (uuid, is_due) in enumerate(db.execute(_DUE, (own, after, _LOOKED_AT)), 1):
        if is_due:
            found.append(bytes(uuid))
        if looked_at == _LOOKED_AT or len(found) == _FOUND:
            return found, bytes(uuid)
    return found, b""


def told(db: apsw.Connection, uuid: bytes) -> None:
    """What is attached to an entry waits no more."""
    db.execute("DELETE FROM untold WHERE entry_uuid=?", (uuid,))


def tidy(db: apsw.Connection, after: bytes) -> bytes:
    """Let go of some entries that are there no more, those whose uuids come after one; returns after which to go on."""
    sql = "SELECT entry_uuid FROM withdrawn WHERE entry_uuid>? ORDER BY entry_uuid LIMIT ?"
    some = [bytes(uuid) for (uuid,) in db.execute(sql, (after, _LOOKED_AT))]
    db.execute(
        "DELETE FROM withdrawn WHERE entry_uuid>? AND entry_uuid<=? "
        "AND NOT EXISTS (SELECT 1 FROM entry WHERE uuid=withdrawn.entry_uuid)",
        (after, some[-1] if some else after),
    )
    return some[-1] if len(some) == _LOOKED_AT else b""
