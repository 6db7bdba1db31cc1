"""Departures: what leaves a name by a request, as the rows of it and those beside them have it.

In: a unit, and rows of ours that are about to leave; what the disk says of links among them, before they do. Out: what
other devices have under these names is hidden (index/store/leaving.py), and can be asked for by who wants to know. A
name that goes behind the mount is none of these: then the replica goes, and no more was meant.
"""

import os
from collections.abc import Sequence

from index.model.entry import KIND_DIR, KIND_SYMLINK, Entry
from index.model.errors import NotADirectory, NotFound, VdfsError
from index.scan import recording
from index.store import entries, leaving
from index.store.unit import Unit
from vdfs.space.branches import CALL_DEADLINE_S, LIVE
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node, RowStat, Spot
from vdfs.space.tree import Tree


async def leads_of(tree: Tree, spots: Sequence[Spot]) -> dict[int, bytes]:
    """Where those of some replicas lead that are links, by their rows; only where somebody else may have them."""
    leads: dict[int, bytes] = {}
    for spot in spots if tree.remotes else []:
        row = entries.get(tree.store.db, spot.entry_id)
        if row is None or row.kind != KIND_SYMLINK or spot.dir.branch.state != LIVE:
            continue

        def read(ref: DirRef = spot.dir, name: bytes = spot.name) -> bytes:
            with tree.dirs.opened(ref) as fd:
                return os.readlink(name, dir_fd=fd)

        try:
            leads[row.id] = await spot.dir.branch.call(CALL_DEADLINE_S, read)
        except (OSError, VdfsError):
            continue
    return leads


def leave_name(
    unit: Unit, leaving_rows: Sequence[Entry], together: Sequence[Entry], leads: leaving.Targets | None = None
) -> None:
    """Rows are about to leave their names. `together`: the replicas of a file that leave with it, be it in other units;
    of directories all that is in them leaves, too."""
    if not unit.remote:
        return
    for row in leaving_rows:
        theirs = [other for other in recording.same_name_elsewhere(unit, row) if not other.is_ours]
        if row.kind != KIND_DIR:
            leaving.leave(unit, together, theirs, leads)
        elif theirs:
            leaving.leave_tree(unit, [one for one in together if one.kind == KIND_DIR], theirs)


async def hidden_at(tree: Tree, path: list[bytes]) -> tuple[Node, RowStat] | None:
    """What other devices have at a path of the union that shows nothing since it was removed here; None: nothing. The
    node is nobody's: it is not the one that the path would have."""
    if not path or not tree.remotes:
        return None
    try:
        parent: Node | None = (await tree.resolve(path[:-1]))[0]
    except (NotFound, NotADirectory):
        above = await hidden_at(tree, path[:-1])
        parent = None if above is None else above[0]
    if parent is None or not parent.is_dir:
        return None
    theirs = [part for part in parent.parts if part.branch.is_remote]
    found = [(part, entries.child(tree.store.db, part.entry_id, path[-1])) for part in theirs]
    rows = [(part, row) for part, row in found if row is not None and row.is_hidden]
    rows = [(part, row) for part, row in rows if row.kind == rows[0][1].kind]
    if not rows:
        return None
    node = Node(rows[0][1].node, rows[0][1].kind)
    node.parent, node.name = parent, path[-1]
    if node.is_dir:
        node.parts = tuple(tree.dirs.child(part, row.id, row.name, row.st_ino) for part, row in rows)
    else:
        node.spots = tuple(Spot(part, row.name, row.id) for part, row in rows)
        node.st_ino = rows[0][1].st_ino
    return node, RowStat(rows[0][1])
