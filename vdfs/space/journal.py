"""Journal: changes of several replicas, noted before they begin and completed at start when a kill interrupted them.

A deletion that took the first replica and not the second would leave the file standing under its name; the journal says
which rows it was about, and what is left of them goes then. Only replicas that are still what the rows say. Where other
devices have what was removed or moved, and the disk says that it was, that is hidden then.
"""

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from index.model.change import ORIGIN_MOUNT
from index.model.entry import KIND_DIR, Entry
from index.model.errors import VdfsError
from index.store import changes, entries
from index.store.store import Store
from vdfs.space.branches import LIVE
from vdfs.space.departures import leave_name
from vdfs.space.dirs import DirRef
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.journal")

#: What is done to the replicas that are left; of other changes only what they leave behind is.
_COMPLETED = frozenset(("attributes", "unlink"))

#: Completes a change of attributes: the replica's directory (itself, for a directory), its row, what was asked.
SetAttributes = Callable[[DirRef, Entry, dict[str, Any]], None]


class Noted:
    """Around a change of several replicas; a single one needs no note, unless other devices have what leaves its name
    here (`leaves`)."""

    def __init__(
        self, store: Store, op: str, rows: list[int], arguments: dict[str, Any] | None = None, *, leaves: bool = False
    ) -> None:
        self._store = store
        self._op = op
        self._rows = rows
        self._arguments = arguments or {}
        self._is_noted = leaves or (len(rows) > 1 and op in _COMPLETED)
        self._id: int | None = None

    def __enter__(self) -> None:
        if self._is_noted:
            with self._store.write(ORIGIN_MOUNT) as unit:
                self._id = changes.journal_begin(unit.db, self._op, {"rows": self._rows, **self._arguments})

    def __exit__(self, *_: object) -> None:
        if self._id is not None:
            with self._store.write(ORIGIN_MOUNT) as unit:
                changes.journal_end(unit.db, self._id)


def complete(tree: Tree, set_attributes: SetAttributes) -> None:
    """Finish every open change of the journal."""
    store = tree.store
    for journal_id, op, body in changes.journal_open(store.db):
        if isinstance(body, dict):
            for entry_id in body.pop("rows", []):
                _complete_one(tree, set_attributes, op, int(entry_id), body)
        with store.write(ORIGIN_MOUNT) as unit:
            changes.journal_end(unit.db, journal_id)


def _complete_one(tree: Tree, set_attributes: SetAttributes, op: str, entry_id: int, arguments: dict[str, Any]) -> None:
    """Do to one replica what was asked of all, unless it has been done or the replica is another file now."""
    row = entries.get(tree.store.db, entry_id)
    branch = None if row is None else tree.branches.get(row.branch_id)
    if row is None or branch is None or branch.state != LIVE or branch.slow:
        return
    is_dir = row.kind == KIND_DIR and op == "attributes"
    above = row.id if is_dir else row.parent_id
    ref = None if above is None else tree.ref_of(above)
    if ref is None:
        return
    try:
        if op == "attributes":
            set_attributes(ref, row, arguments)
        else:
            if op == "unlink":
                _unlink(tree, ref, row)
            there = tree.stat_at(row)
            if there is not None and there.st_ino == row.st_ino:
                return
            with tree.store.write(ORIGIN_MOUNT) as unit:
                leave_name(unit, [row], [row])
            if op != "rename" and there is None:  # else the scan finds out where it is
                tree.mend(ref, row.name, row, None)
        log.warning("completed an interrupted %s of %s", op, os.fsdecode(row.name))
    except (OSError, VdfsError) as error:
        log.warning("an interrupted %s of %s could not be completed: %s", op, os.fsdecode(row.name), error)


def _unlink(tree: Tree, ref: DirRef, row: Entry) -> None:
    """Take a name away that is still the row's."""
    with tree.dirs.opened(ref) as fd, contextlib.suppress(FileNotFoundError):
        if row.matches(os.stat(row.name, dir_fd=fd, follow_symlinks=False)):
            os.unlink(row.name, dir_fd=fd)
