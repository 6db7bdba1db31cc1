"""Completing at start what a kill interrupted: changes of several replicas that had begun.

A deletion that took the first replica and not the second would leave the file standing under its name; the journal says
which rows it was about, and what is left of them goes now. Only replicas that are still exactly what the rows say.
"""

import logging
import os

from index.model.change import ORIGIN_MOUNT
from index.store import changes, entries
from vdfs.space.branches import LIVE
from vdfs.space.namespace import Namespace

log = logging.getLogger("sdmount.journal")


async def complete(namespace: Namespace) -> None:
    """Finish every open change of the journal."""
    tree, store = namespace.tree, namespace.store
    for journal_id, op, body in changes.journal_open(store.db):
        if op == "unlink" and isinstance(body, list):
            for entry_id in body:
                row = entries.get(store.db, entry_id)
                branch = None if row is None else tree.branches.get(row.branch_id)
                if row is None or branch is None or row.parent_id is None or branch.state != LIVE:
                    continue
                ref = tree.ref_of(row.parent_id)
                if ref is None or tree.inode_at(row) != row.st_ino:
                    continue
                with tree.dirs.opened(ref) as fd:
                    st = os.stat(row.name, dir_fd=fd, follow_symlinks=False)
                    if row.matches(st):
                        os.unlink(row.name, dir_fd=fd)
                        tree.mend(ref, row.name, row, None)
                        log.warning("completed an interrupted deletion of %s", os.fsdecode(row.name))
        with store.write(ORIGIN_MOUNT) as unit:
            changes.journal_end(unit.db, journal_id)
