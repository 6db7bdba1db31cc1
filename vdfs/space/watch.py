"""Watch: changes behind the mount, from inotify to the index, name by name.

Which directories are watched, and since when, is watches.py's; nothing that the kernel is told for a day can change
unseen. Events only say where to look: each name is stat-ed and mended
by the same functions as a lookup, and a row that already says what the disk says costs one stat and changes nothing,
which is all that our own changes cost. A new directory is handed on to be scanned. Overflow of the kernel's queue makes
every watched directory suspect.

Events are gathered for a moment and the names of all directories are then taken in together: first those the index does
not know, then those that changed, at last those that are gone. So the two halves of a move meet, wherever they lie. A
lookup that finds a name gone sees one half only: it leaves the row to the next round here.
"""

import contextlib
import errno
import logging
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from index.model.entry import KIND_DIR, KIND_FILE, Entry, Stat, ns
from index.model.errors import NoSpace, Stale, Unreachable, VdfsError
from index.model.inode import inode_of
from index.scan import differ, inotify
from index.store import entries
from index.store.links import beside
from vdfs.space.backups import Backups
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.holdings import forget_nothing
from vdfs.space.nodes import Node
from vdfs.space.roaming import Roaming
from vdfs.space.tree import Tree
from vdfs.space.watches import Watches

log = logging.getLogger("sdmount.watch")

#: Events are gathered this long before they are looked at: an editor's save is then one change.
GATHER_S = 0.02
#: Names looked at between two turns of the loop.
_SLICE = 64
#: How long a round waits after one that found no room for the index.
_HELD_UP_S = 1.0
#: How long a change is kept whose directory is not where the index has it; then it is walked wherever it turns up.
_KEPT_S = 10.0

_WRITTEN = inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE
_SELF_GONE = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT


#: A directory, and a name in it.
_Look = tuple[DirRef, bytes]


class Watch(Watches):
    """What the watches of one library tell. Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        self._dirty: dict[int, set[bytes] | None] = {}  # entry id of a directory -> names to look at, None for all
        self._written: set[tuple[int, bytes]] = set()  # names whose files were written to since the last round,
        self._writing: set[tuple[int, bytes]] = set()  # and of which this round takes in
        self._told_gone: set[tuple[int, bytes]] = set()  # names that somebody was told are not there
        self._begun_s = 0.0  # what was heard later than this is of the next round
        self._spread: set[tuple[int, bool]] = set()  # inodes whose other names were looked for in this round
        self._sent: set[tuple[int, bytes]] = set()  # names that are looked at for another's sake alone
        self._tries: dict[int, float] = {}  # directory that is not where the index has it -> since when
        self._batch: dict[int, set[bytes] | None] = {}  # what this round takes in
        self._has_events = select.poll()
        self._has_events.register(self._inotify.fd, select.POLLIN)
        self._wake = trio.Event()
        self._attributes: set[int] = set()  # directories whose own attributes may have changed
        #: Told of entries whose real attributes are to be read again.
        self.imports: Callable[[list[int]], None] = lambda _: None
        #: Files that were renamed aside, and are perhaps made anew.
        self.put_aside = Backups(tree)
        self._roaming = Roaming()
        self._left = (0, 0, b"")  # of the rename whose first half was heard last: its number, directory, name
        self._held_up = False  # something could not be written down for want of room
        self.overflows = 0

    def is_quiet(self, node: Node) -> bool:
        """Whether the index says of a directory what the disk says: it is watched, and no event waits to be looked at.

        The kernel queues an event before the call that caused it returns. So what was read while it was quiet and has
        not been dropped since is as good as reading again.
        """
        if self._has_events.poll(0):
            self._gather()
        for ref in node.parts:
            if ref.branch.is_remote:
                continue  # what comes of it comes by the index
            if ref.watch < 0 or ref.branch.state != LIVE or ref.entry_id in self._dirty or ref.entry_id in self._batch:
                return False
        return True

    def has_attributes(self) -> bool:
        """Whether directories have attributes that were heard to have changed and were not asked for yet."""
        return bool(self._attributes)

    def pending_dirs(self) -> int:
        """In how many directories something was heard that has not been looked at."""
        if self._has_events.poll(0):
            self._gather()
        return len(self._dirty.keys() | self._batch.keys() | self._attributes)

    def place(self, entry_id: int, wd: int, st_ino: int, lapses: int) -> None:
        """A worker watched a directory before it listed it, and here is its row (0: there is none). What was heard
        since is looked at; all of the directory, when some of that was lost since there were so many lapses. One that
        the daemon watches already stays in `catching_up`: what it heard then may have had no rows to go to."""
        if not entry_id:
            self._let_go(wd)
            return
        heard = self.unplaced.take(wd)
        if self.unplaced.lapses != lapses:  # the end of the watch may be among what was lost: looking sets it again
            self._look_at_all(entry_id)
            return
        other = self._entry_of.get(wd)
        if other not in (None, entry_id):  # one of the two has it by a name that it had
            self._unhook(other)
            self._look_at_all(other)
        self._entry_of[wd] = entry_id
        self._wd_of[entry_id] = (wd, st_ino)
        ref = self.tree.dirs.known(entry_id)
        if ref is not None and ref.st_ino == st_ino:
            ref.watch = wd
        for event in heard:
            self._hear(event)

    async def forget_branch(self, branch: Branch) -> None:
        """A branch went away, came back or leaves: its watches mean nothing any more.

        The kernel tells the end of each, and its queue is bounded.
        """
        branch.is_followed = False
        for count, entry_id in enumerate(list(self._wd_of)):
            if count % _SLICE == _SLICE - 1:
                self._gather()
                await trio.lowlevel.checkpoint()
            ref = self.tree.dirs.known(entry_id)
            row = entries.get(self.tree.store.db, entry_id) if ref is None else None
            if (ref is not None and ref.branch is branch) or (row is not None and row.branch_id == branch.id):
                self.forget(entry_id)
                self._full = False
                self._has_room = True
                self._asked.set()

    # events -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read events for ever, and take them in round by round."""
        self.tree.left_to_watch = self._suspect
        self.tree.is_watched = self._is_watched
        self.tree.look_at = self.look_at
        self.tree.heard_written = self._heard_written
        self.tree.forget_watches = self.forget_branch
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                while True:
                    await self._wake.wait()
                    await trio.sleep(GATHER_S)
                    self._wake = trio.Event()
                    await self._round()
                    if self._held_up:
                        self._held_up = False
                        await trio.sleep(_HELD_UP_S)
        finally:
            self.tree.left_to_watch = lambda _ref, _name: False
            self.tree.is_watched = lambda _id, _ino: False
            self.tree.look_at = lambda _id, _name: None
            self.tree.heard_written = lambda _id, _name: None
            self.tree.forget_watches = forget_nothing

    async def _listen(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._inotify.fd)
            self._gather()
            await trio.sleep(GATHER_S)

    def _suspect(self, ref: DirRef, name: bytes) -> bool:
        """Look at a name that somebody found gone; not where the disk may make the loop wait."""
        if ref.branch.slow:
            return False
        self._told_gone.add((ref.entry_id, name))
        self.look_at(ref.entry_id, name)
        return True

    def _is_watched(self, entry_id: int, st_ino: int) -> bool:
        """Whether the watch of a row's directory still stands: it ends with its inode, and that is told at once."""
        self._gather()
        known = self._wd_of.get(entry_id)
        return known is not None and known[1] == st_ino

    def _heard_written(self, entry_id: int, name: bytes) -> bool | None:
        """Whether a file was written to since it was last looked at; None in a directory where that may be missed."""
        self._gather()
        ref = self.tree.ref_of(entry_id)
        if ref is None or not ref.branch.is_followed or self._wd_of.get(entry_id, (-1, 0))[1] != ref.st_ino:
            return None
        if None in (self._dirty.get(entry_id, ()), self._batch.get(entry_id, ())) or entry_id in self.catching_up:
            return None
        return (entry_id, name) in self._written or (entry_id, name) in self._writing

    def look_at(self, entry_id: int, name: bytes) -> None:
        """A name in a directory may have changed: it is held against the index in the next round."""
        names = self._dirty.setdefault(entry_id, set())
        if names is not None:
            names.add(name)
        self._wake.set()

    def _look_at_all(self, entry_id: int) -> None:
        self._dirty[entry_id] = None
        self._wake.set()

    def _gather(self) -> None:
        """Hear all that is queued by now: who asks what a directory is like must not miss the end of a long queue."""
        for event in self._inotify.read():
            self._hear(event)

    def _hear(self, event: inotify.Event) -> None:
        if event.mask & inotify.IN_Q_OVERFLOW:
            self._overflow()
            return
        entry_id = self._entry_of.get(event.wd)
        if entry_id is None:
            self._hear_unplaced(event)
        elif event.mask & inotify.IN_IGNORED:
            del self._entry_of[event.wd]
            if self._late:  # a worker may be about to report it as watched
                self.unplaced.add(event)
            if self._wd_of.get(entry_id, (-1, 0))[0] == event.wd:
                self._unhook(entry_id)
                self._look_at_all(entry_id)  # if there is a directory still, or again, it is watched anew
        elif event.mask & _SELF_GONE:
            self._gone(entry_id, moved=bool(event.mask & inotify.IN_MOVE_SELF))
        elif event.name:
            self._hear_move(entry_id, event)
            self.look_at(entry_id, event.name)
            self._sent.discard((entry_id, event.name))
            if event.mask & _WRITTEN:
                self._written.add((entry_id, event.name))
        elif event.mask & inotify.IN_ATTRIB:
            self._attributes.add(entry_id)
            self._wake.set()

    def _hear_move(self, entry_id: int, event: inotify.Event) -> None:
        """The halves of a rename come one after the other, with a number of their own."""
        if event.mask & (inotify.IN_CREATE | inotify.IN_MOVED_TO):
            self.put_aside.note_made_behind(entry_id, event.name)
        if event.mask & inotify.IN_MOVED_FROM:
            self._left = (event.cookie, entry_id, event.name)
        elif event.mask & inotify.IN_MOVED_TO and event.cookie and event.cookie == self._left[0]:
            if event.mask & inotify.IN_ISDIR:
                self._roaming.note_renamed()
            elif entry_id == self._left[1]:
                self.put_aside.note_behind(entry_id, self._left[2], event.name)

    def _hear_unplaced(self, event: inotify.Event) -> None:
        """A directory without a row: a walk may be about to bring it; where nobody walks, its watch is of no use."""
        if self._late:
            self.unplaced.add(event)
        elif not event.mask & inotify.IN_IGNORED:
            self._inotify.remove(event.wd)

    def _overflow(self) -> None:
        self.overflows += 1
        self.unplaced.lapse()
        log.warning("the kernel's event queue overflowed; all watched directories are looked at again")
        for entry_id in list(self._wd_of):
            self._unhook(entry_id)  # the end of a watch may be among what was lost: looking sets it again
            self._look_at_all(entry_id)

    def _gone(self, entry_id: int, *, moved: bool) -> None:
        """A watched directory itself was removed, moved or unmounted: its branch's root is looked at again."""
        ref = self.tree.dirs.known(entry_id)
        if ref is not None and not moved:  # the descriptor of a moved one is as good as before
            self.tree.dirs.close(ref)
        for branch in self.tree.branches.values():
            if branch.root_entry_id == entry_id:
                self.tree.check(branch)

    # rounds -----------------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        """All that was heard by now."""
        self._gather()
        self._begun_s = time.monotonic()
        self._batch, self._dirty = self._dirty, {}
        self._writing, self._written = self._written, set()
        try:
            await self._take_in(self._batch)
        finally:
            self._batch = {}
            self._writing = set()

    async def _take_in(self, batch: dict[int, set[bytes] | None]) -> None:
        """One round: every name that may have changed, in the order that lets moves be seen as moves."""
        self._roaming.begin_round()
        self._spread.clear()
        sent, self._sent = self._sent, set()
        told_gone, self._told_gone = self._told_gone, set()
        unknown: list[_Look] = []
        changed: list[_Look] = []
        gone: list[_Look] = []
        seen: list[DirRef] = []
        for entry_id, names in batch.items():
            ref = self.tree.ref_of(entry_id)
            if ref is None and entry_id in self._wd_of:
                self._note_strays()
            if ref is None or ref.branch.state == MISSING:
                continue
            if not ref.branch.slow:
                seen.append(ref)
            if names is None:
                with self._tolerant(ref, None):
                    await self.tree.list_part(ref)
                    self.tree.found_dir(ref)
                continue
            for count, name in enumerate(sorted(names)):
                if count % _SLICE == _SLICE - 1:
                    await trio.lowlevel.checkpoint()
                with self._tolerant(ref, name):
                    row, st = self._at(ref, name)
                    if (entry_id, name) not in sent:
                        self._look_at_links(ref.branch, row, st)
                    was_gone = (entry_id, name) in told_gone
                    if st is None and row is not None:
                        gone.append((ref, name))
                    elif st is None or (self._is_known(row, st) and not was_gone):
                        continue
                    elif row is None:
                        unknown.append((ref, name))
                    elif was_gone or ref.mounted(name) or differ.compare(row, Stat.of(st)) > differ.TIMES:
                        changed.append((ref, name))
                    elif (directory := self.tree.ref_of(row.id)) is not None and not directory.branch.slow:
                        seen.append(directory)
        for names_there in ((*unknown, *changed), gone):
            for count, (ref, name) in enumerate(names_there):
                if count % _SLICE == _SLICE - 1:
                    await trio.lowlevel.checkpoint()
                with self._tolerant(ref, name):
                    await self._mend(ref, name, (ref.entry_id, name) in told_gone)
            with contextlib.suppress(NoSpace):
                self.put_aside.settle(self._begun_s)
        with contextlib.suppress(NoSpace):
            self.tree.restamp(seen)
        await self._import_attributes()

    async def _import_attributes(self) -> None:
        """Directories whose own attributes may be others: a file's are read by whoever hears of its change."""
        for count, entry_id in enumerate(sorted(self._attributes)):
            if count % _SLICE == _SLICE - 1:
                await trio.lowlevel.checkpoint()
            self._attributes.discard(entry_id)
            try:
                self.imports([entry_id])
            except NoSpace:
                self._attributes.add(entry_id)
                self._held_up = True
                self._wake.set()
                return
            except (OSError, VdfsError) as error:
                log.warning("the attributes of directory %d could not be taken in: %s", entry_id, error)

    def _at(self, ref: DirRef, name: bytes) -> tuple[Entry | None, os.stat_result | None]:
        """What the index and the disk have under a name."""
        if ref.hides(name) or ref.branch.slow:
            return None, None
        try:
            st = self.tree.lstat(ref, name)
        except FileNotFoundError:
            st = None
        self._tries.pop(ref.entry_id, None)
        return entries.child(self.tree.store.db, ref.entry_id, name), st

    def _look_at_links(
        self, branch: Branch, row: Entry | None, st: os.stat_result | None, *, after: bool = False
    ) -> None:
        """A file may have other names: of what is done to it by this one, these hear nothing. Once a round and file,
        and once more `after` a name of it was found to be gone, for others may have come in the meantime."""
        links = {inode_of(st)} if st is not None and st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode) else set()
        if row is not None and row.nlink > 1 and row.kind != KIND_DIR:
            links.add(row.st_ino)
        db = self.tree.store.db
        for number in links:
            if (number, after) in self._spread:
                continue
            self._spread.add((number, after))
            for other in (*entries.by_st_ino(db, branch.id, number), *beside(db, branch.id, number)):
                if other.parent_id is None or (row is not None and other.id == row.id):
                    continue
                if st is None or not self._is_known(other, st):
                    if other.name not in (self._dirty.get(other.parent_id) or ()):
                        self._sent.add((other.parent_id, other.name))
                    self.look_at(other.parent_id, other.name)

    def _is_known(self, row: Entry | None, st: os.stat_result) -> bool:
        """Whether the row says so already, or will when a handle that wrote through the mount is closed."""
        if row is None or row.matches(st):
            return row is not None
        node = self.tree.nodes.get(row.node)
        return node is not None and node.st_is_ours(st)

    async def _mend(self, ref: DirRef, name: bytes, was_gone: bool) -> None:
        """`was_gone`: what has the name now came after the file of the row had left it, so it is no version of it."""
        row, st = self._at(ref, name)
        if row is not None and st is None and row.kind == KIND_DIR:
            if self._is_watched(row.id, row.st_ino) and self._roaming.is_waited_for(row.id):
                self.look_at(ref.entry_id, name)
                self.tree.tell_again(ref, name)
                return
            await self.tree.clear(row, ref.branch.uuid)
            row, st = self._at(ref, name)  # time has passed
        is_aside = row is not None and row.kind == KIND_FILE and self.put_aside.is_aside(ref.entry_id, name)
        if is_aside and st is None:
            self.look_at(ref.entry_id, name)  # whoever put it aside is about to make it anew
            return
        if row is not None and (st is None or (was_gone and not is_aside and not _is_same(row, st))):
            self.tree.take_out(ref, self.put_aside.take_back_behind(row))
            self._look_at_links(ref.branch, row, None, after=True)  # it may have moved
            row = None
        if st is not None and not self._is_known(row, st):
            self.tree.mend(ref, name, row, st)
        if st is not None and was_gone:
            self.tree.tell_again(ref, name)

    @contextmanager
    def _tolerant(self, ref: DirRef, name: bytes | None) -> Iterator[None]:
        """One name's trouble must not blind the watcher."""
        try:
            yield
        except Stale:
            self._try_again(ref, name)
        except NoSpace:  # the library's own disk: later
            self._held_up = True
            self._look_at_all(ref.entry_id)
        except (FileNotFoundError, NotADirectoryError, PermissionError, Unreachable):
            return
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOTCONN, errno.ESTALE):
                log.exception("a change in directory %d could not be read", ref.entry_id)
        except Exception:
            log.exception("a change in directory %d could not be taken in", ref.entry_id)

    def _try_again(self, ref: DirRef, name: bytes | None) -> None:
        """A directory is not where the index has it: its own move is in this round or one of the next."""
        since_s = self._tries.setdefault(ref.entry_id, self._begun_s)
        if name is not None and (ref.entry_id, name) in self._writing:
            self._written.add((ref.entry_id, name))
        is_known = entries.get(self.tree.store.db, ref.entry_id) is not None
        if not is_known or self._begun_s - since_s > _KEPT_S:
            self._tries.pop(ref.entry_id, None)
            if is_known:
                self.tree.found_dir(ref)
            return
        if name is None:
            self._look_at_all(ref.entry_id)
        else:
            self.look_at(ref.entry_id, name)


def _is_same(row: Entry, st: os.stat_result) -> bool:
    """Whether a file that was away and is back is the one of the row: numbers of inodes are used again."""
    unchanged = (row.mtime_ns, row.size_bytes) == (ns(st.st_mtime_ns), st.st_size)
    return row.st_ino == inode_of(st) and (unchanged or row.kind == KIND_DIR)
