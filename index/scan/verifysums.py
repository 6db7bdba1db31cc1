"""Verification of table sums: what the rows of a branch add up to, found out without the code that keeps the table.

A pass over the rows of one moment, from the leaves up; run in a worker beside the comparison with the disk (verify.py).
The caller has the store keep the table settled meanwhile (`Store.settled`).
"""

from typing import Any

import apsw

_FIELDS = ("rbytes", "rfiles", "rdirs")


def wrong_sums(db: apsw.Connection, branch_id: int) -> list[tuple[int, str]]:
    """(directory, what differs) for each directory whose row of table sums is not what the rows below add up to."""
    with db:  # of one moment
        rows = "SELECT id, coalesce(parent_id, 0), kind, size_bytes FROM entry WHERE branch_id=? AND kind<2"
        sums = "SELECT s.* FROM sums s JOIN entry e ON e.id = s.dir_id WHERE e.branch_id=?"
        entries: list[tuple[Any, ...]] = db.execute(rows, (branch_id,)).fetchall()
        told = {row[0]: list(row[1:]) for row in db.execute(sums, (branch_id,))}
    right: dict[int, list[int]] = {row: [0, 0, 0] for row, _, kind, _ in entries if kind == 1}
    below: dict[int, list[int]] = {}
    for row, parent, kind, size_bytes in entries:
        if kind == 1:
            below.setdefault(parent, []).append(row)
        elif parent in right:
            right[parent][0] += size_bytes
            right[parent][1] += 1
    downwards = list(below.get(0, ()))
    for row in downwards:
        downwards.extend(below.get(row, ()))
    for row in reversed(downwards):
        for child in below.get(row, ()):
            for field, value in enumerate(right[child]):
                right[row][field] += value
            right[row][2] += 1
    out = []
    for row, values in right.items():
        found = told.get(row)
        if found is None:
            out.append((row, "no row in table sums"))
        elif found != values:
            fields = zip(_FIELDS, found, values, strict=True)
            wrong = [f"{name} {was}, rows add up to {adds}" for name, was, adds in fields if was != adds]
            out.append((row, ", ".join(wrong)))
    return out
