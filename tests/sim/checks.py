"""Checks: what must be true when everybody has heard everything. Each fault is a sentence."""

import itertools
from collections.abc import Sequence
from typing import Any

from index.store import aliases, devices, gaps, pending, sums, tags
from sync.log import pruning
from tests.sim.machine import Machine


def wrong(machines: Sequence[Machine], members: Sequence[Machine], promised: dict[Any, int]) -> list[str]:
    """All that is wrong. `machines` have spoken at some time; `members` have to be equal."""
    found = list(itertools.chain.from_iterable(_alone(one) for one in members))
    found += _differences(members)
    found += _lost(machines, members, promised)
    for one in members:
        for other in machines:
            if other in members or not _is_out(one, other):
                continue
            if rows := one.rows_of(other.uuid):
                found.append(f"{one.name} still knows what {other.name} holds, which is out: {rows[:2]}")
    return found


def _is_out(machine: Machine, other: Machine) -> bool:
    """Whether a device knows that another was put out: nobody may who was told so by one that came back from a copy
    of before, and told nobody else but the one."""
    found = machine.db.execute("SELECT revoked FROM device WHERE uuid=?", (other.uuid,)).fetchone()
    return found is None or bool(found[0])


def _alone(machine: Machine) -> list[str]:
    """What is wrong with one device."""
    db, found = machine.db, []
    pruning.prune(machine.store, devices.others(db, machine.uuid))  # as it does from time to time
    for table in ("detached", "waiting", "lost_dot", "quarantine"):
        rows = db.execute(f"SELECT * FROM {table}").fetchall()
        if table == "lost_dot":  # what has a number in a gap is kept until it was heard that all have all
            rows = [row for row in rows if not gaps.holds(db, row[0], row[1])]
        if rows:
            found.append(f"{machine.name} has {len(rows)} rows in {table}: {rows[:2]}")
    machine.store.settle()
    if faulty := sums.wrong(db):
        found.append(f"{machine.name} adds up wrong what lies in {sorted(faulty)[:5]}")
    if broken := db.execute("PRAGMA foreign_key_check").fetchall():
        found.append(f"{machine.name} has rows that refer to nothing: {broken[:3]}")
    said = db.execute("PRAGMA integrity_check").fetchall()
    if said != [("ok",)]:
        found.append(f"{machine.name} has a damaged database: {said[:3]}")
    for seq, entry_seq in db.execute("SELECT (SELECT value FROM counter WHERE name='seq'), max(seq) FROM entry"):
        if entry_seq is not None and entry_seq > seq:
            found.append(f"{machine.name} has given numbers of units beyond what it reserved")
    return found


def told_too_early(machine: Machine, others: Sequence[Machine]) -> list[str]:
    """Whether anybody has heard of entries that rules of a device have held back from their first day."""
    found = []
    for uuid in sorted(machine.never_told) if machine.is_up else ():
        for other in others:
            # Who has found out that it is one with another may be heard of that later, when its clock ran ahead.
            if other is machine or not other.is_up or _is_one_with(other, uuid) or _has_alias(machine, uuid):
                continue
            for table in ("attribute", "tagging"):
                sql = f"SELECT 1 FROM {table} WHERE entry_uuid=?"
                if other.db.execute(sql, (uuid,)).fetchone() is not None:
                    found.append(f"{other.name} knows what {machine.name} attached to what it holds back: {table}")
    return found


def _is_one_with(other: Machine, uuid: bytes) -> bool:
    """Whether a device has the same file itself, as the one that holds it back has found out."""
    sql = "SELECT 1 FROM entry WHERE uuid=? AND uid>=0"
    return _has_alias(other, uuid) or other.db.execute(sql, (uuid,)).fetchone() is not None


def _has_alias(machine: Machine, uuid: bytes) -> bool:
    sql = "SELECT 1 FROM alias WHERE uuid=?1 OR kept=?1"
    return machine.db.execute(sql, (uuid,)).fetchone() is not None


def shared_of(machine: Machine) -> dict[str, list[Any]]:
    """Every shared row; not what is told of nobody's entries yet."""
    rows: dict[str, list[Any]] = dict(machine.shared_rows())
    untold = {bytes(uuid) for (uuid,) in machine.db.execute("SELECT entry_uuid FROM untold")}
    for table in ("attribute", "tagging"):
        rows[table] = [row for row in rows[table] if row[0] not in untold]
    rows["saved_search"] = machine.db.execute("SELECT uuid, name, query FROM saved_search ORDER BY uuid").fetchall()
    rows["branch"] = machine.db.execute(
        "SELECT b.uuid, l.uuid, b.device_uuid, b.label, b.root_path FROM branch b "
        "LEFT JOIN location l ON l.id=b.location_id ORDER BY b.uuid"
    ).fetchall()
    return rows


def _differences(members: Sequence[Machine]) -> list[str]:
    found = []
    first = members[0]
    said = shared_of(first)
    for other in members[1:]:
        theirs = shared_of(other)
        for table, rows in said.items():
            if theirs[table] != rows:
                only_first = [row for row in rows if row not in theirs[table]]
                only_other = [row for row in theirs[table] if row not in rows]
                found.append(f"{table}: only {first.name} has {only_first[:3]}, only {other.name} has {only_other[:3]}")
    for one in members:
        own = one.rows_of(one.uuid)
        for other in members:
            theirs = other.rows_of(one.uuid)
            if theirs != own:
                only_own = [row for row in own if row not in theirs]
                only_theirs = [row for row in theirs if row not in own]
                found.append(
                    f"{other.name} knows {one.name} otherwise: lacks {only_own[:2]}, has beyond {only_theirs[:2]}"
                )
    return found


def _lost(machines: Sequence[Machine], members: Sequence[Machine], promised: dict[Any, int]) -> list[str]:
    """Operations of which somebody said that he has them durably, and that nobody has any more."""
    found = []
    db = members[0].db
    removed = set().union(*(machine.removed for machine in machines))
    for author in machines:
        if author.is_revoked:
            continue
        moved = pending.moved_of(db, author.uuid)
        for (epoch, seq), ops in author.said:
            if seq > promised.get((author.uuid, epoch, 1), 0):
                continue
            for part, hlc, model, op, key, body in ops:
                if not _is_kept(db, author.uuid, seq, part, moved.get(hlc, hlc), model, op, key, removed, body):
                    found.append(f"lost: {author.name} said at {seq}.{part} {model} {op} {key} {body!r:.60}")
    return found[:5]


def _is_kept(
    db: Any, device: bytes, seq: int, part: int, hlc: int, model: str, op: str, key: Any, removed: Any, body: Any
) -> bool:
    if (model, op) == ("register", "set"):
        held = db.execute("SELECT hlc, device FROM register WHERE model=? AND key=? AND field=?", key).fetchone()
        return _is_later(db, held, hlc, device)
    if (model, op) == ("attribute", "set"):
        uuid = aliases.canon(db, key[0])
        held = db.execute("SELECT hlc, device FROM attribute WHERE entry_uuid=? AND name=?", (uuid, key[1])).fetchone()
        return _is_later(db, held, hlc, device)
    if (model, op) == ("tagging", "add"):
        return tags.has_dot(db, device, seq, part) or (device, seq, part) in removed
    if (model, op) == ("alias", "join"):
        return aliases.canon(db, key) == aliases.canon(db, body)
    return True


def _is_later(db: Any, held: Any, hlc: int, device: bytes) -> bool:
    """Whether what a cell holds was said over something. It may have had a later stamp when all forgot the other, and
    has given that up since: by a clock that runs behind now, those of others are of the future too."""
    if held is None or held >= (hlc, device):
        return held is not None
    given = [one for one, stamp in pending.moved_of(db, held[1]).items() if stamp == held[0]]
    return (max(given, default=0), held[1]) >= (hlc, device)
