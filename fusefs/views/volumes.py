"""`volumes/<label>~<fingerprint>/<location>`: what of the library lies on which volume, and `offline`: what is away,
volumes of ours and other devices.

Both are there for a volume that is not: its directories are listed as the index remembers them, and only bytes cannot
be had. The name of a volume begins with what it is called and ends with the first eight digits of its fingerprint,
which stay when it is called otherwise.
"""

import os
from collections.abc import AsyncIterator, Iterable

from fusefs.views.base import ViewDir, ViewNode
from fusefs.views.context import ViewContext
from fusefs.views.devices import BranchesDir
from index.volumes.identity import SHORT
from vdfs.space.branches import LIVE, Branch
from vdfs.space.nodes import Node
from vdfs.space.union import cut
from vdfs.space.volumes import Volume

_NAME_MAX_BYTES = 255


def view_name(volume: Volume) -> bytes:
    """What a volume is called in the view: `/` shows as U+2215."""
    tail = b"~" + volume.fingerprint[:SHORT].encode()
    called = os.fsencode(volume.shown_name.replace("/", "\u2215")).replace(b"\0", b"")
    return cut(called, _NAME_MAX_BYTES - len(tail)) + tail


class VolumeDir(BranchesDir):
    """What lies on one volume."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], volume_id: int) -> None:
        super().__init__(context, path)
        self.volume_id = volume_id

    def branches(self) -> Iterable[Branch]:
        return [branch for branch in self.context.tree.branches.values() if branch.volume_id == self.volume_id]


class VolumesRoot(ViewDir):
    """`volumes`: those that are known, mounted or not."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        for volume in self.context.volumes.all():
            if volume.row is not None:
                name = view_name(volume)
                yield name, VolumeDir(self.context, self.child(name), volume.row.id)


class OfflineDir(BranchesDir):
    """`offline`: what is not there now, by location."""

    shows_all = False

    def branches(self) -> Iterable[Branch]:
        tree = self.context.tree
        away: list[Branch] = [branch for branch in tree.branches.values() if branch.state != LIVE]
        return away + [branch for branch in tree.remotes.values() if not branch.is_online]
