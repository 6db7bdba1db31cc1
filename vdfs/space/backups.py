"""Editors' backup pattern: f is renamed to f~, a new f is made, f~ may go. The new f continues the old one.

Whoever renamed a file aside to something that looks like its backup and then makes the name anew, the same process and
soon, gets the uuid of the old file for the new one, and with it tags and attributes.
"""

import re
import time
from typing import NamedTuple

from index.model.entry import KIND_FILE, Entry
from index.store import entries
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree

_WINDOW_S = 10.0
_SUFFIX = re.compile(
    rb"~|\.?~\d+~|\.\d+|\.(?:sw[a-p]|tmp|dpkg-(?:old|dist)|rpmsave|rpmorig)"
    rb"|[._-](?:bak|bck|bkp|backup|orig|original|old|sav|save)[.-]?\d*~?",
    re.IGNORECASE,
)


class _Backup(NamedTuple):
    parent: Node
    name: bytes
    pid: int
    entry_id: int
    uuid: bytes
    at_s: float


class Backups:
    """The files that were put aside a moment ago. Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._held: list[_Backup] = []

    def note(self, parent: Node, name: bytes, row: Entry | None, new_name: bytes, pid: int) -> None:
        """`name` of a directory was renamed to `new_name` by a process."""
        now_s = time.monotonic()
        self._held = [b for b in self._held if now_s - b.at_s < _WINDOW_S]
        if row is None or row.kind != KIND_FILE or row.uuid is None:
            return
        if pid == 0 or not looks_like_backup(name, new_name):
            return
        self._held.append(_Backup(parent, name, pid, row.id, row.uuid, now_s))

    def heir(self, parent: Node, name: bytes, pid: int) -> tuple[int, bytes] | None:
        """(row put aside, its uuid) when a process makes anew what it put aside; taken out."""
        now_s = time.monotonic()
        for held in self._held:
            if (held.parent, held.name, held.pid) == (parent, name, pid) and now_s - held.at_s < _WINDOW_S:
                self._held.remove(held)
                row = entries.get(self.tree.store.db, held.entry_id)
                return (held.entry_id, held.uuid) if row is not None and row.uuid == held.uuid else None
        return None


def looks_like_backup(name: bytes, new_name: bytes) -> bool:
    """f~, f.~1~, f.bak, .f.old, f.1, #f# and the like: what programs call a file that they are about to write anew.

    Not any longer name: who renames f to f-2019 and then makes a new f has two files.
    """
    if new_name == b"#" + name + b"#":
        return True
    tail = new_name.removeprefix(b"." if not name.startswith(b".") else b"")
    return tail.startswith(name) and _SUFFIX.fullmatch(tail[len(name) :]) is not None
