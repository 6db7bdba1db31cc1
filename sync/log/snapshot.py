"""Snapshot: the current state of all shared rows, for who comes first or has been away for too long.

Everything that shared rows are made of, read in one transaction together with how far each stream is applied in it, in
parts: a sort, and rows of it. They come in the order in which rows refer to each other: gaps, and stamps that count as
others, registers, aliases, attributes, tags, then what waits and what is put aside. What takes them in is joining.py.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import apsw

from index.store import gaps, heldback, recalls, streams
from index.store.streams import SHARED

PART_ROWS: Final = 1000
#: With values of so many bytes a part has enough.
_PART_BYTES: Final = 1 << 20


class Part(NamedTuple):
    """Rows of one sort."""

    sort: str
    rows: list[Any]

    def cut(self, most: int) -> Iterator["Part"]:
        """The same in parts of so many rows; what says how far the streams are is one."""
        if self.sort == "stream":
            yield self
            return
        for at in range(0, len(self.rows), most):
            yield Part(self.sort, self.rows[at : at + most])


#: What this device attached to entries that nobody is to hear of is not told; what others did is known to them.
_SORTS: Final[dict[str, str]] = {
    "gap": "SELECT device, from_seq, to_seq FROM gap",
    "fork": f"SELECT device, epoch, seq FROM fork WHERE NOT {gaps.IS_KNOWN}",
    "moved": "SELECT device, hlc, stamp FROM moved",
    "register": "SELECT model, key, field, value, hlc, device FROM register",
    "alias": "SELECT uuid, kept FROM alias",
    "attribute": f"SELECT entry_uuid, name, value, hlc, device FROM attribute WHERE device<>:own OR {heldback.TOLD}",
    "tagging": (
        "SELECT g.entry_uuid, t.uuid, g.dot_device, g.dot_seq, g.dot_part, g.hlc, g.part FROM tagging g "
        f"JOIN tag t ON t.id=g.tag_id WHERE g.dot_device<>:own OR {heldback.TOLD}"
    ),
    "lost": "SELECT dot_device, dot_seq, dot_part, entry_uuid, tag_uuid FROM lost_dot",
    "waiting": "SELECT device, seq, part, body FROM waiting WHERE length(device)=16",
    "aside": "SELECT hlc, device, epoch, seq, part, body FROM quarantine",
}
#: What a row of each sort consists of: d an id of 16 bytes, n a number, x what whoever takes it in looks at.
FORMS: Final = {
    "stream": "dnnn",
    "recall": "dnn",
    "gap": "dnn",
    "fork": "dnn",
    "moved": "dnn",
    "register": "xxxxnd",
    "alias": "dd",
    "attribute": "dxxnd",
    "tagging": "dddnnnn",
    "lost": "dnndd",
    "waiting": "dnnx",
    "aside": "ndnnnx",
}


def read(db: apsw.Connection, device: bytes, epoch: int) -> Iterator[Part]:
    """The state of a library, within a transaction of the caller's; its streams come first."""
    known = [row for row in streams.every(db) if row.kind == SHARED]
    told = db.execute("SELECT coalesce(max(seq), 0) FROM outbox WHERE epoch=?", (epoch,)).fetchone()
    vector = []
    for row in known:
        seq = max(row.floor_seq, int(told[0]) if told else 0) if (row.device, row.epoch) == (device, epoch) else row.seq
        vector.append([row.device, row.epoch, row.start_seq, seq])
    yield Part("stream", vector)
    if reasons := recalls.reasons(db, device, epoch):
        yield Part("recall", reasons)
    for sort, sql in _SORTS.items():
        rows: list[Any] = []
        size_bytes = 0
        for row in db.execute(sql, {"own": device}):
            rows.append(list(row))
            size_bytes += sum(len(value) for value in row if isinstance(value, bytes))
            if len(rows) == PART_ROWS or size_bytes >= _PART_BYTES:
                yield Part(sort, rows)
                rows, size_bytes = [], 0
        if rows:
            yield Part(sort, rows)


def is_sound(sort: str, row: object) -> bool:
    """Whether a row that came from elsewhere has the form of its sort; a sort that is not known has any."""
    form = FORMS.get(sort)
    if form is None:
        return True
    return isinstance(row, list) and len(row) == len(form) and all(map(_is, form, row))


def _is(form: str, value: object) -> bool:
    if form == "d":
        return isinstance(value, bytes) and len(value) == 16
    return form != "n" or (type(value) is int and 0 <= value < 1 << 63)
