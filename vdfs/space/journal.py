"""Completing at start what a kill interrupted: changes of several replicas that had begun.

A deletion that took the first replica and not the second would leave the file standing under its name; the journal says
which rows it was about, and what is left of them goes now. Only replicas that are still exactly what the rows say.
"""

import logging
import os
from typing import Any

from index.model.change import ORIGIN_MOUNT
from index.model.entry import KIND_DIR
from index.model.errors import VdfsError
from index.store import changes, entries
from vdfs.space.branches import LIVE
from vdfs.space.namespace import Namespace, Wanted

log = logging.getLogger("sdmount.journal")


async def complete(namespace: Namespace) -> None:
    """Finish every open change of the journal."""
    store = namespace.store
    for journal_id, op, body in changes.journal_open(store.db):
        if isinstance(body, dict):
            for entry_id in body.pop("rows", []):
                _complete_one(namespace, op, int(entry_id), body)
        with store.write(ORIGIN_MOUNT) as unit:
            changes.journal_end(unit.db, journal_id)


def _complete_one(namespace: Namespace, op: str, entry_id: int, arguments: dict[str, Any]) -> None:
    """Do to one replica what was asked of all, unless it has been done or the replica is another file now."""
    tree, row = namespace.tree, entries.get(namespace.store.db, entry_id)
    branch = None if row is None else tree.branches.get(row.branch_id)
    if row is None or branch is None or branch.state != LIVE or branch.slow:
        return
    try:
        if row.kind == KIND_DIR and op == "attributes":
            ref, name = tree.ref_of(row.id), b""
        else:
            ref, name = (None if row.parent_id is None else tree.ref_of(row.parent_id)), row.name
        if ref is None:
            return
        if op == "attributes":
            namespace.apply_attributes(ref, name, Wanted(**arguments))
        elif op == "unlink":
            with tree.dirs.opened(ref) as fd:
                if not row.matches(os.stat(name, dir_fd=fd, follow_symlinks=False)):
                    return
                os.unlink(name, dir_fd=fd)
            tree.mend(ref, name, row, None)
        log.warning("completed an interrupted %s of %s", op, os.fsdecode(row.name))
    except (OSError, VdfsError) as error:
        log.warning("an interrupted %s of %s could not be completed: %s", op, os.fsdecode(row.name), error)
