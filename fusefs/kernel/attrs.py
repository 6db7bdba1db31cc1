"""Node to EntryAttributes, and how long the kernel may believe them.

A day where every change reaches us (a watch on each local branch of the directory, or a branch that nobody but us
writes to), less than a second elsewhere. Files with several names get the short time, because a change through a name
in an unwatched directory would not be seen.
"""

import stat

import pyfuse3

from vdfs.space.nodes import AnyStat, Node

LONG_S = 86_400.0
SHORT_S = 0.8  # what changes shows within a second
_BLOCK_BYTES = 4096


def fill(face: pyfuse3.EntryAttributes, node: Node, st: AnyStat) -> pyfuse3.EntryAttributes:
    """Write a stat into the answer of a node."""
    mode = st.st_mode
    face.st_ino = node.ino
    face.st_mode = mode
    face.st_uid = st.st_uid
    face.st_gid = st.st_gid
    face.st_atime_ns = st.st_atime_ns
    face.st_mtime_ns = st.st_mtime_ns
    face.st_ctime_ns = st.st_ctime_ns
    if stat.S_ISDIR(mode):
        face.st_nlink = min(1, st.st_nlink)  # so many directories in it need not be counted; 0 when it is removed
        face.st_size = _BLOCK_BYTES
        face.st_blocks = 8
    else:
        face.st_nlink = st.st_nlink
        face.st_size = st.st_size
        face.st_blocks = st.st_blocks
        node.told(st)
    return face


def absent(seconds: float) -> pyfuse3.EntryAttributes:
    """The answer "no such name", which the kernel may keep for a while."""
    face = pyfuse3.EntryAttributes()
    face.st_ino = 0
    face.entry_timeout = seconds
    return face
