"""Table ruling: the directories in which rules may say something else by now; and what is held below a directory.

Which rule holds an entry back is in its own row (entries.py). What may change many rows at once (a list of patterns, a
switch, a directory that moved) is noted here in the same unit, and worked off behind: a kill in between loses nothing.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from index.model.entry import KIND_DIR
from index.store.connection import one

SCHEMA = """
-- ruling: a directory whose names are to be judged again.
--   entry_id   the directory's row
--   seq        the unit that noted it last: who has judged deletes the row if it still says so
--   deep       1: all that is below, 0: its own names only
CREATE TABLE ruling(
    entry_id INTEGER PRIMARY KEY,
    seq      INTEGER NOT NULL,
    deep     INTEGER NOT NULL
) STRICT;
"""


class Ruling(NamedTuple):
    """A row of the table."""

    entry_id: int
    seq: int
    deep: bool
    branch_id: int | None  # None: the directory is gone


def put(db: apsw.Connection, entry_id: int, seq: int, *, deep: bool = True) -> None:
    """Note a directory; one that is noted already is judged no less deep."""
    db.execute(
        "INSERT INTO ruling VALUES(?,?,?) ON CONFLICT(entry_id) DO UPDATE SET seq=excluded.seq, "
        "deep=max(deep, excluded.deep)",
        (entry_id, seq, int(deep)),
    )


def first(db: apsw.Connection, branches: Iterable[int], limit: int) -> list[Ruling]:
    """Some of the directories that are noted, of certain branches, and those that are gone; those above others come
    first as far as their numbers tell."""
    rows = db.execute(
        "SELECT r.entry_id, r.seq, r.deep, e.branch_id FROM ruling r LEFT JOIN entry e ON e.id = r.entry_id "
        "WHERE e.id IS NULL OR e.branch_id IN (SELECT value FROM json_each(?)) ORDER BY r.entry_id LIMIT ?",
        (json.dumps(list(branches)), limit),
    )
    return [Ruling(entry_id, seq, bool(deep), branch_id) for entry_id, seq, deep, branch_id in rows]


def done(db: apsw.Connection, ruling: Ruling) -> None:
    """A directory was judged; if it was noted again meanwhile it stays noted."""
    db.execute("DELETE FROM ruling WHERE entry_id=? AND seq=? AND deep=?", (ruling.entry_id, ruling.seq, ruling.deep))


# what is held ---------------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """An entry that a rule holds back: its names from the directory that was asked for, and how many hang below it."""

    path: tuple[bytes, ...]
    entry_id: int
    kind: int
    rule: int
    below: int


def held(
    db: apsw.Connection, directory_id: int, after: tuple[bytes, ...] = (), *, everything: bool = False
) -> Iterator[Held]:
    """What is held below a directory, each directory before what is in it, by name, from behind a path on.

    Of a directory that is held only how much is in it is told, unless everything is asked for. For a thread: it goes
    through all directories that are not held.
    """
    stack = [_rows_in(db, directory_id, (), after)]
    while stack:
        found = next(stack[-1], None)
        if found is None:
            stack.pop()
            continue
        one_held, rest = found
        is_dir = one_held.kind == KIND_DIR
        if one_held.rule and rest is None:
            below = count_below(db, one_held.entry_id) if is_dir and not everything else 0
            yield one_held._replace(below=below)
        if is_dir and (everything or not one_held.rule):
            stack.append(_rows_in(db, one_held.entry_id, one_held.path, rest or ()))


def _rows_in(
    db: apsw.Connection, entry_id: int, above: tuple[bytes, ...], after: tuple[bytes, ...]
) -> Iterator[tuple[Held, tuple[bytes, ...] | None]]:
    """The directories and the held names of a directory; of one that was told before, what of the path is in it."""
    rows: list[Any] = db.execute(
        "SELECT id, name, kind, rule FROM entry WHERE parent_id=? AND name>=? AND (kind=1 OR rule<>0) ORDER BY name",
        (entry_id, after[0] if after else b""),
    ).fetchall()
    for child_id, name, kind, rule in rows:
        is_told = bool(after) and name == after[0]
        found = Held((*above, name), child_id, kind, rule, 0)
        yield found, after[1:] if is_told else None


_BELOW = (
    "WITH RECURSIVE below(id) AS (SELECT ? UNION ALL SELECT e.id FROM below JOIN entry e ON e.parent_id = below.id "
    "AND e.kind = 1) SELECT {} FROM below CROSS JOIN entry e ON e.parent_id = below.id "
)


def count_below(db: apsw.Connection, directory_id: int) -> int:
    """How many entries are below a directory."""
    return int(one(db, _BELOW.format("count(*)"), directory_id)[0])


def counts(db: apsw.Connection, directory_id: int) -> dict[int, int]:
    """Rule -> how many entries it holds below a directory; a pass over all of them, for a thread."""
    sql = _BELOW.format("e.rule, count(*)") + "WHERE e.rule<>0 GROUP BY e.rule"
    return {int(rule): int(number) for rule, number in db.execute(sql, (directory_id,))}
