"""Editors' backup pattern: f is renamed to f~, a new f is made, f~ may go. The new f continues the old one.

Whoever renamed a file aside to something that looks like its backup and then makes the name anew, the same process and
soon, gets the uuid of the old file for the new one, and with it tags and attributes. When the save fails and the new
one is removed, the backup has them again.

Behind the mount nobody says which process it was. There the watch tells of the two halves of the rename, and when the
name is there anew within a moment, the same is done (`settle`), before what is gone is taken in: it may be the backup.
The moment is between what was heard of both; how long after that a round comes to the rows is another matter, and the
same name may have been saved again by then: each save hands over, one after the other.
"""

import math
import re
import time
from dataclasses import dataclass
from typing import NamedTuple

from index.model import change
from index.model.change import ORIGIN_SCAN
from index.model.entry import KIND_FILE, Entry
from index.scan import recording
from index.store import entries, metadata
from index.store.unit import Unit
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree

_WINDOW_S = 10.0
_WINDOW_BEHIND_S = 3.0
_ASIDE_MAX = 4096
_ASIDE_EACH = 16
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


class _Handed(NamedTuple):
    entry_id: int  # the backup
    heir_id: int
    uuid: bytes
    at_s: float


@dataclass(slots=True)
class _Aside:
    """A rename that was heard of behind the mount."""

    new_name: bytes
    at_s: float
    came_s: float | None = None  # when the name was heard to be there anew

    @property
    def is_soon(self) -> bool:
        """Whether the name came anew soon enough, or may yet."""
        return (time.monotonic() if self.came_s is None else self.came_s) - self.at_s <= _WINDOW_BEHIND_S


class Backups:
    """The files that were put aside a moment ago. Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._held: list[_Backup] = []
        self._handed: list[_Handed] = []
        self._aside: dict[tuple[int, bytes], list[_Aside]] = {}  # (directory, name) -> what is not settled
        self._ours: dict[tuple[int, bytes, bytes], float] = {}  # the same renames through the mount -> when

    def note_behind(self, directory: int, name: bytes, new_name: bytes) -> None:
        """In the directory of a row a name was renamed; if that was done through the mount, `note` knows better."""
        noted_s = self._ours.pop((directory, name, new_name), -math.inf)
        if time.monotonic() - noted_s < _WINDOW_S:
            return
        if looks_like_backup(name, new_name) and (len(self._aside) < _ASIDE_MAX or (directory, name) in self._aside):
            asides = self._aside.setdefault((directory, name), [])
            del asides[: 1 - _ASIDE_EACH]
            asides.append(_Aside(new_name, time.monotonic()))

    def note_made_behind(self, directory: int, name: bytes) -> None:
        """In the directory of a row a name was made, or something was renamed to it."""
        for aside in self._aside.get((directory, name), ()):
            if aside.came_s is None:
                aside.came_s = time.monotonic()

    def is_aside(self, directory: int, name: bytes) -> bool:
        """Whether a name was put aside behind the mount a moment ago, and its coming anew is not settled."""
        return any(aside.is_soon for aside in self._aside.get((directory, name), ()))

    def settle(self, before_s: float) -> None:
        """Where both names have their rows by now, the file that came anew continues the one that was put aside. What
        was heard since `before_s` is left: rows of that are from before it."""
        for (directory, name), asides in list(self._aside.items()):
            left = [aside for aside in asides if not self._is_settled(directory, name, aside, before_s)]
            if left:
                self._aside[directory, name] = left
            else:
                del self._aside[directory, name]

    def _is_settled(self, directory: int, name: bytes, aside: _Aside, before_s: float) -> bool:
        """Whether nothing more is to be expected of a rename; what follows from it is done."""
        if not aside.is_soon:
            return True
        if aside.at_s > before_s:
            return False
        db = self.tree.store.db
        heir, backup = entries.child(db, directory, name), entries.child(db, directory, aside.new_name)
        if heir is None or backup is None:  # not yet; or it is gone again, of which a whole round has told
            return aside.came_s is not None and before_s - aside.came_s > _WINDOW_BEHIND_S
        if heir.kind == backup.kind == KIND_FILE and heir.st_ino != backup.st_ino:
            self._continue(heir, backup)
        return True

    def _continue(self, heir: Entry, backup: Entry) -> None:
        """A file gets the identity of its backup, where that has one that matters and it has none of its own."""
        with self.tree.store.write(ORIGIN_SCAN) as unit:
            if backup.uuid is None or not metadata.has_any(unit.db, backup.uuid):
                return
            if heir.uuid is not None and metadata.has_any(unit.db, heir.uuid):
                return
            if recording.same_name_elsewhere(unit, heir):
                return  # it is a version of what has the name there
            self.hand_over(unit, backup, entries.by_node(unit.db, heir.node))
            for row in (heir, backup):
                unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)

    def note(self, parent: Node, name: bytes, row: Entry | None, new_name: bytes, pid: int) -> None:
        """`name` of a directory was renamed to `new_name` by a process."""
        now_s = time.monotonic()
        self._held = [b for b in self._held if now_s - b.at_s < _WINDOW_S]
        self._ours = {renamed: at_s for renamed, at_s in self._ours.items() if now_s - at_s < _WINDOW_S}
        if looks_like_backup(name, new_name):
            for ref in parent.parts:
                asides = self._aside.get((ref.entry_id, name), [])
                heard = next((aside for aside in asides if aside.new_name == new_name), None)
                if heard is not None:  # already
                    asides.remove(heard)
                elif len(self._ours) < _ASIDE_MAX:
                    self._ours[ref.entry_id, name, new_name] = now_s
        if row is None or row.kind != KIND_FILE or row.uuid is None:
            return
        if pid == 0 or not looks_like_backup(name, new_name):
            return
        self._held.append(_Backup(parent, name, pid, row.id, row.uuid, now_s))

    def hand_over(self, unit: Unit, backup: Entry, heirs: list[Entry], *, uuid: bytes | None = None) -> None:
        """The rows of a new version get the identity of the file that was put aside, whose own rows give it up.

        Names that were linked with the backup go on with it, as another file, with copies of the annotations. `uuid`:
        the one that the name has kept, since others have it there (leaving.py); the backup had but copies.
        """
        assert backup.uuid is not None
        kept = uuid or backup.uuid
        rows = [row for row in entries.by_uuid(unit.db, backup.uuid) if row.is_ours]
        is_linked = len({entries.union_name(unit.db, one.parent_id, one.name) for one in rows}) > 1
        left = recording.copy_of(unit, backup.uuid) if is_linked else None
        for one in rows:
            entries.set_uuid(unit.db, one.id, left, unit.seq)
        for heir in heirs:
            entries.set_uuid(unit.db, heir.id, kept, unit.seq)
        now_s = time.monotonic()
        self._handed = [handed for handed in self._handed if now_s - handed.at_s < _WINDOW_S]
        if left is None:
            self._handed.append(_Handed(backup.id, heirs[0].id, kept, now_s))

    def take_back(self, unit: Unit, heir: Entry) -> bool:
        """A new version is removed: if it took over from a backup, that is the file again. Returns whether it is."""
        handed = next((one for one in self._handed if (one.heir_id, one.uuid) == (heir.id, heir.uuid)), None)
        if handed is None:
            return False
        self._handed.remove(handed)
        row = entries.get(unit.db, handed.entry_id)
        if row is None or row.uuid is not None or time.monotonic() - handed.at_s > _WINDOW_S:
            return False
        goes_on = any(one.id != heir.id for one in entries.by_uuid(unit.db, handed.uuid))  # by another name
        uuid = recording.copy_of(unit, handed.uuid) if goes_on else handed.uuid
        for one in entries.by_node(unit.db, row.node):
            if one.is_ours:
                entries.set_uuid(unit.db, one.id, uuid, unit.seq)
        return not goes_on

    def take_back_behind(self, row: Entry) -> Entry:
        """A file is gone behind the mount: if it took over from a backup, that is the file again. Returns its row."""
        if not any((one.heir_id, one.uuid) == (row.id, row.uuid) for one in self._handed):
            return row
        with self.tree.store.write(ORIGIN_SCAN) as unit:
            if not self.take_back(unit, row):
                return row
            entries.set_uuid(unit.db, row.id, None, unit.seq)
            return recording.again(unit, row.id)

    def heir(self, parent: Node, name: bytes, pid: int) -> Entry | None:
        """The row put aside when a process makes anew what it put aside; taken out."""
        now_s = time.monotonic()
        for held in self._held:
            if (held.parent, held.name, held.pid) == (parent, name, pid) and now_s - held.at_s < _WINDOW_S:
                self._held.remove(held)
                row = entries.get(self.tree.store.db, held.entry_id)
                return row if row is not None and row.uuid == held.uuid else None
        return None


def looks_like_backup(name: bytes, new_name: bytes) -> bool:
    """f~, f.~1~, f.bak, .f.old, f.1, #f# and the like: what programs call a file that they are about to write anew.

    Not any longer name: who renames f to f-2019 and then makes a new f has two files.
    """
    if new_name == b"#" + name + b"#":
        return True
    tail = new_name.removeprefix(b"." if not name.startswith(b".") else b"")
    return tail.startswith(name) and _SUFFIX.fullmatch(tail[len(name) :]) is not None
