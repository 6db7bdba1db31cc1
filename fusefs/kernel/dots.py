"""`.` and `..`: the first two lines of every listing, which the kernel neither adds nor looks up.

It takes number and type from them and no reference (fs/fuse/readdir.c: fuse_direntplus_link), so they are not counted
in the ledger. The top of the mount is its own parent, as `/` is: what lies above it belongs to another file system.
"""

import stat

import pyfuse3

from fusefs.views.base import ViewNode, view_inode
from index.model.ids import ROOT_INODE
from vdfs.space.nodes import Node

#: Positions of a listing that they take.
DOTS = 2


def dots(node: Node | ViewNode) -> list[tuple[bytes, int]]:
    """The two names with the numbers of what they mean."""
    if isinstance(node, ViewNode):
        above = view_inode(node.path[:-1]) if node.path else ROOT_INODE
    else:
        above = ROOT_INODE if node.parent is None else node.parent.ino
    return [(b".", node.ino), (b"..", above)]


def dot_face(ino: int) -> pyfuse3.EntryAttributes:
    """What the kernel reads of such a line."""
    face = pyfuse3.EntryAttributes()
    face.st_ino = ino
    face.st_mode = stat.S_IFDIR
    return face
