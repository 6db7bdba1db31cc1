"""Told: what other devices told, and what is kept of it, held against itself, and put right where that is safe.

In: a connection without foreign keys. Out: faults, a line each (`faults`), and the same mended (`mend`). Rows that are
made of registers are compared with what their registers make now, in a database in memory: the registers are what was
said, so the rows give way, and get numbers that no other row was known by. What was kept for others is only let go of:
whoever asks for it is told that it is not kept, and takes it from elsewhere. What a device tells of its own files it
tells anew when its stream is rewound.

Kept out: whether what devices told makes sense (sync), and entries in their directories (checking.py).
"""

import contextlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import apsw
import msgpack
from blake3 import blake3

from index.model.errors import MissingDependency
from index.store import devices, places, registers, saved, shared, streams, tags

#: Detached is what hangs nowhere; whatever else is noted so could be taken for gone.
_NOT_DETACHED: Final = (
    "SELECT d.entry_id FROM detached d LEFT JOIN entry e ON e.id=d.entry_id "
    "WHERE e.id IS NULL OR e.parent_id IS NOT NULL OR e.uid>=0"
)
_ADRIFT: Final = (
    "SELECT e.id FROM entry e WHERE e.parent_id IS NULL AND e.uid<0 AND e.id NOT IN (SELECT entry_id FROM detached) "
    "AND NOT EXISTS (SELECT 1 FROM branch b WHERE b.id=e.branch_id AND b.root_entry_id=e.id)"
)
_TARGETLESS: Final = "SELECT entry_id FROM target WHERE entry_id NOT IN (SELECT id FROM entry)"
#: An alias leads to the smallest of its class, at once.
_ALIASED: Final = "SELECT lower(hex(uuid)) FROM alias WHERE kept>=uuid OR kept IN (SELECT uuid FROM alias)"
_OWNERLESS: Final = (
    "SELECT DISTINCT lower(hex(device)) FROM stream WHERE device<>:device AND device NOT IN (SELECT uuid FROM device)"
)
_SORTS: Final = (
    (_NOT_DETACHED, "entry {} is noted as detached, and is not"),
    (_ADRIFT, "entry {} of another device hangs nowhere, and nothing is awaited of it"),
    (_TARGETLESS, "entry {} is told to lead somewhere, and is not there"),
    (_ALIASED, "what {} is an alias of is one itself, or greater"),
    (_OWNERLESS, "a stream is of device {}, which is not known"),
)
#: Of a row that is made of registers what they say, its key first.
_MADE: Final[Mapping[str, str]] = {
    devices.MODEL: "SELECT uuid, name, public_key, created_ns, static_key, os, revoked FROM device",
    places.LOCATION: "SELECT uuid, name, mode, rules, removed FROM location",
    places.BRANCH: "SELECT b.uuid, b.device_uuid, b.label, b.root_path, l.uuid FROM branch b "
    "LEFT JOIN location l ON l.id=b.location_id",
    tags.MODEL: "SELECT uuid, name FROM tag",
    saved.MODEL: "SELECT uuid, name, query FROM saved_search",
}
#: Where rows are referred to by numbers of their own: a number that is lost must not become another row's.
_NUMBERED: Final[Mapping[str, str]] = {
    "location": "SELECT max(coalesce((SELECT max(id) FROM location), 0), "
    "coalesce((SELECT max(location_id) FROM branch), 0))",
    "tag": "SELECT max(coalesce((SELECT max(id) FROM tag), 0), coalesce((SELECT max(tag_id) FROM tagging), 0))",
}
_SIGNATURE_BYTES: Final = 64
#: Of the head of a page (sync/log/pages.py): how many elements, where what it is kept as stands, and the hash.
_FACTS: Final = 13


def faults(db: apsw.Connection, device: bytes, most: int) -> Iterator[str]:
    """What contradicts itself, so many of a sort at most. `device`: ours."""
    for sql, words in _SORTS:
        found = db.execute(sql, {"device": device} if ":device" in sql else None)
        yield from (words.format(row[0]) for row in islice(found, most))
    yield from (f"page {page} is not what it is kept as" for page in islice(_bad_pages(db), most))
    for model, key in islice(_unlike(db, device), most):
        yield f"the row of {model} {key.hex()} is not what was said of it"


def mend(db: apsw.Connection, device: bytes) -> list[str]:
    """Inside a transaction; returns what was done."""
    unlike = list(_unlike(db, device))
    done = _make(db, unlike)
    pages = list(_bad_pages(db))
    db.executemany("DELETE FROM page WHERE id=?", [(page,) for page in pages])
    adrift = _let_go(db)
    straight = _straighten(db)
    ownerless: list[Any] = db.execute(_OWNERLESS, {"device": device}).fetchall()
    for (owner,) in ownerless:
        for table in ("stream", "page", "holding"):
            db.execute(f"DELETE FROM {table} WHERE device=?", (bytes.fromhex(owner),))
    counts = (
        (done, "rows are made anew of what was said of them"),
        (len(pages), "pages that were kept for other devices were damaged, and are let go of"),
        (adrift, "notes of what other devices have were stale; they tell it again"),
        (straight, "aliases led astray"),
        (len(ownerless), "devices that nobody knows had told something; it is let go of"),
    )
    return [f"{number} {words}" for number, words in counts if number]


def _let_go(db: apsw.Connection) -> int:
    """Notes of rows that are not there, or not detached, go; what is adrift is awaited again."""
    number = 0
    for table, sql in (("detached", _NOT_DETACHED), ("target", _TARGETLESS)):
        found: list[Any] = db.execute(sql).fetchall()
        db.executemany(f"DELETE FROM {table} WHERE entry_id=?", found)
        number += len(found)
    adrift: list[Any] = db.execute(_ADRIFT).fetchall()
    db.executemany("INSERT INTO detached SELECT id, branch_id, NULL, 0 FROM entry WHERE id=?", adrift)
    sql = "SELECT DISTINCT b.device_uuid FROM entry e JOIN branch b ON b.id=e.branch_id WHERE e.id=?"
    owners = {bytes(owner) for row in adrift for (owner,) in db.execute(sql, row)}
    _tell_anew(db, owners)
    return number + len(adrift)


def _tell_anew(db: apsw.Connection, owners: set[bytes]) -> None:
    """Devices are asked to tell all their rows again."""
    for one in streams.every(db):
        if one.device in owners and one.kind == streams.OWNED:
            streams.rewind(db, one.id)


def _straighten(db: apsw.Connection) -> int:
    """Whatever leads to each other is one class, and all of it leads to the least."""
    above: dict[bytes, bytes] = {}

    def top(uuid: bytes) -> bytes:
        while above.get(uuid, uuid) != uuid:
            uuid = above[uuid]
        return uuid

    known: dict[bytes, bytes] = dict(db.execute("SELECT uuid, kept FROM alias"))
    for uuid, kept in known.items():
        least, other = sorted((top(uuid), top(kept)))
        above[other] = least
    members = {*known, *known.values()}
    wanted = {uuid: top(uuid) for uuid in members if top(uuid) != uuid}
    if wanted == known:
        return 0
    db.execute("DELETE FROM alias")
    db.executemany("INSERT INTO alias VALUES(?,?)", wanted.items())
    return len(wanted.items() ^ known.items())


def _bad_pages(db: apsw.Connection) -> Iterator[int]:
    """Pages whose head or body is not what they are kept as. That their author signed them is not asked again."""
    sql = "SELECT id, device, epoch, kind, from_seq, to_seq, after_id, last_id, is_last, head, body FROM page"
    for page, *kept, head, body in db.execute(sql):
        try:
            facts: Any = msgpack.unpackb(head[:-_SIGNATURE_BYTES])
        except ValueError:  # all that msgpack raises
            facts = None
        is_head = isinstance(facts, list) and len(facts) == _FACTS
        if not is_head or [*facts[2:5], *facts[6:10], int(bool(facts[10])), facts[12]] != [
            *kept,
            blake3(body).digest(),
        ]:
            yield int(page)


# rows that are made of registers --------------------------------------------------------------------------------------


def _unlike(db: apsw.Connection, device: bytes) -> Iterator[tuple[str, bytes]]:
    """Models and keys of rows that are other than their registers say. Of our own branches nobody tells us."""
    with contextlib.closing(apsw.Connection(":memory:")) as made:
        for module in (devices, places, tags, saved):
            made.execute(module.SCHEMA)
        keys = {model: registers.keys_of(db, model) for model in shared.ORDER}
        fields = {
            (model, key): registers.fields_of(db, model, key)
            for model in shared.ORDER
            for key in keys[model]
            if model != places.BRANCH or key[:16] != device
        }
        for (model, key), said in fields.items():
            with contextlib.suppress(MissingDependency, apsw.ConstraintError):
                shared.make_row(made, model, key, said)
        for model in shared.ORDER:
            wanted, there = _rows(made, model), _rows(db, model)
            for key in keys[model]:
                said = fields.get((model, key), {})
                is_gone = bool(said.get("removed"))
                if model == places.BRANCH and is_gone:  # it goes when its rows have
                    continue
                row = wanted.get(key[-16:])
                if row != there.get(key[-16:]) and (row is not None or (model == saved.MODEL and is_gone)):
                    yield model, key


def _rows(db: apsw.Connection, model: str) -> dict[bytes, tuple[Any, ...]]:
    return {bytes(row[0]): tuple(row[1:]) for row in db.execute(_MADE[model])}


def _make(db: apsw.Connection, unlike: list[tuple[str, bytes]]) -> int:
    """Rows as their registers say, in the order in which they refer to each other."""
    if not unlike:
        return 0
    for table, sql in _NUMBERED.items():  # a row beyond all numbers for as long as others are made
        last = int(next(iter(db.execute(sql)))[0]) + 1
        db.execute(f"INSERT INTO {table}(id, uuid, name) VALUES(?, x'00', {_NOBODY[table]})", (last,))
    made = 0
    for model, key in unlike:
        with contextlib.suppress(MissingDependency, apsw.ConstraintError):
            shared.make_row(db, model, key, registers.fields_of(db, model, key))
            made += 1
            if model == places.BRANCH:  # where its row was lost, so were its entries
                _tell_anew(db, {key[:16]})
    for table in _NUMBERED:
        db.execute(f"DELETE FROM {table} WHERE uuid=x'00'")
    return made


_NOBODY: Final[Mapping[str, str]] = {"location": "x''", "tag": "''"}
