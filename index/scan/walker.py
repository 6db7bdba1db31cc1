"""The walk of a branch, in a worker process: disk against rows, differences out.

In: the library's database (read only), the branch's root, its rules, which of its paths are never looked at, the
directories to begin with. Out: for each directory one report of what differs, in breadth-first order with names sorted,
so that the daemon's inserts append. Directories in which nothing differs report nothing but their number.

A walk is a row of pieces. A piece goes on for a moment, then finishes what it found new and gives back the known
directories that it has not looked into: the daemon hands them out again, so that several workers share a large tree
whatever its shape, nothing long stands in the way of other work, and no piece holds a whole level of a tree.

The rows of a directory are read before its disk listing. So a file that is created through the mount in between looks
like one the daemon adds itself (it then finds the row there and skips), and one that is removed looks gone to both;
never is a row reported gone that was written after the listing was made. Each report about an existing row carries the
row's seq: the daemon applies it only if nobody wrote the row since.

New directories have no id yet; they get a negative number of this piece, and the reports of their children use it.
One that was never listed is watched first, on the daemon's own inotify instance: what happens in it after that the
daemon hears, also before it has the report. So it need not be listed once more.

Each name is judged by the rules on the way: a new one is told with the rule that holds it back, of a known one that is
told when its row says otherwise.

An unreadable directory is reported as such and deletes nothing. Directories are opened by the names their rows had when
the piece began: one that is not there, or is another one by now, is given back as lost, for it may have moved.
"""

import errno
import os
import stat
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import apsw

from index.model.emitter import Emitter
from index.model.entry import Stat, ns
from index.model.inode import DEVICES, inode_of
from index.scan import beneath, differ
from index.scan.fsid import is_root
from index.scan.inotify import Inotify, WatchLimitReached
from index.scan.rules.gitrepo import Caches, User
from index.scan.rules.ruler import SPEAKING, Ruler, Scope
from index.scan.rules.ruleset import Ruleset
from index.scan.volumes import MOUNTED, use_devices
from index.store import entries
from index.store.connection import connect

#: Changes gathered before a batch is sent; about 50 KiB, 5 ms of the daemon's time.
BATCH_ROWS = 300
#: Directories without differences are told at least this often, for progress.
BATCH_DIRS = 200
BATCH_AGE_S = 0.2

#: Where a worker has the daemon's inotify instance.
WATCHES_FD = 3

#: After so long a piece goes into no more directories that have a row; opening the database costs a hundredth of it.
PIECE_S = 0.1

#: One call takes paths below PATH_MAX; what is deeper is opened step by step.
_PATH_MAX_BYTES = 3000

#: What opening a directory says when something else is on the way to it now.
NOT_HERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


Excluded = Mapping[bytes, Any]
#: A directory's stat, its names with theirs, whether it has extended attributes, its watch.
_Looked = tuple[os.stat_result, list[tuple[bytes, os.stat_result]], bool, tuple[int, int] | None]


class Dir:
    """A directory of the walk: how to open it, and what the index calls it."""

    __slots__ = ("entry_id", "excluded", "name", "parent", "rule", "scope", "st_ino", "told")

    def __init__(
        self,
        entry_id: int,
        parent: "Dir | None",
        name: bytes,
        excluded: Excluded | None,
        rule: int | None = None,
        told: int | None = None,
        st_ino: int | None = None,
    ) -> None:
        self.entry_id = entry_id
        self.st_ino = st_ino  # by its row, or, when it is new, as the directory above it was listed
        self.parent = parent
        self.name = name
        self.excluded = excluded
        self.rule = rule  # as it is called, by the rules of the directory it is in; None: not judged yet
        self.told = told  # what its row says, or will when the reports so far are taken in; None: that is to be read
        self.scope: Scope | None = None  # of the names in it, once it was open

    def names(self) -> list[bytes]:
        out = []
        walk: Dir | None = self
        while walk is not None and walk.parent is not None:
            out.append(walk.name)
            walk = walk.parent
        out.reverse()
        return out


class Walk:
    """One piece of a walk; `run()` it."""

    def __init__(
        self,
        db: apsw.Connection,
        root_fd: int,
        context: Emitter,
        ruler: Ruler | None = None,
        since_ns: int | None = None,
        watches: Inotify | None = None,
    ) -> None:
        self.db = db
        self.watches = watches  # where what was never listed is watched, before it is listed
        self.since_ns = since_ns  # what was listed since then is not listed again
        self.root_fd = root_fd
        self.context = context
        self.ruler = ruler
        #: Rules that only a look into a directory can tell: of it they are told when it is visited.
        self.by_children = frozenset(rule for rule, _ in ruler.compiled.reject_with) if ruler else frozenset()
        self.next_new = -1
        self.lost: list[int] = []
        self.batch: list[Any] = []
        self.rows = 0
        self.dirs_seen = 0
        self.entries_seen = 0
        self.sent_s = time.monotonic()
        self.beneath = beneath.is_known(root_fd)

    def run(self, starts: list[Dir]) -> list[int]:
        """Visit some directories and those below them; returns those that were left for another piece."""
        left: list[int] = []
        level, first = starts, True
        until_s = time.monotonic() + PIECE_S
        while level:
            below: list[Dir] = []
            for directory in level:
                if self.context.stopped():
                    self.flush()
                    return []
                if not first and directory.entry_id > 0 and time.monotonic() > until_s:
                    left.append(directory.entry_id)
                else:
                    below.extend(self.visit(directory))
                    first = False
            level = below
        self.flush()
        return left

    def visit(self, directory: Dir) -> list[Dir]:
        """List one directory, report what differs, return its subdirectories."""
        known: dict[bytes, entries.Known] = {}
        listed_as: int | None = None  # None: never
        if directory.entry_id > 0:
            known = entries.known_names(self.db, directory.entry_id)
            me = entries.listed_as(self.db, directory.entry_id)
            if me is None:
                return []
            scanned_ns, listed_as, directory.st_ino, own_rule = me
            if self.since_ns is not None and scanned_ns is not None and scanned_ns >= self.since_ns:
                return self.below(directory)
            if directory.told is None:
                directory.told = own_rule
        looked = self.looked(directory, watched=listed_as is None)
        if looked is None:
            return []
        dir_st, listed, dir_carries, watch = looked
        self.dirs_seen += 1
        self.entries_seen += len(listed)
        changed: list[Any] = []
        ruled: list[Any] = []
        below: list[Dir] = []
        unknown: list[tuple[bytes, os.stat_result]] = []
        hides = directory.excluded
        for name, leaf in hides.items() if hides else ():
            if leaf == MOUNTED:
                known.pop(name, None)  # it is there, and not ours to ask
        device = dir_st.st_dev if DEVICES.is_plain(dir_st.st_dev) else None
        take, seen = known.pop, slice(entries.KNOWN_SEEN, None)
        scope, by_children = directory.scope, self.by_children
        held, passes, surely = (0, _none, _free) if scope is None else (scope.rule, scope.passes, scope.judge_surely)
        if scope is not None and directory.parent is not None and scope.rule != directory.told:
            ruled.append([directory.entry_id, directory.name, scope.rule])
        for name, st in listed:
            found = take(name, None)
            if found is None:
                unknown.append((name, st))
                continue
            mode = st.st_mode
            entry_id = found[0]
            is_dir = stat.S_ISDIR(mode)
            rule = held or (surely(name, is_dir) if passes(name) else 0)
            told = found[2]
            if rule != told and scope is not None and not (is_dir and told in by_children):
                ruled.append([entry_id, name, rule])
                told = rule
            # All of a quiet tree ends here, 200 000 times over: what `seen_as` says, without its two corrections.
            plain = (st.st_mtime_ns, st.st_size, st.st_ctime_ns, st.st_ino, mode, st.st_nlink, st.st_uid, st.st_gid)
            if (st.st_dev != device or found[seen] != plain) and found[seen] != entries.seen_as(st):
                row = entries.get(self.db, entry_id)
                verdict = differ.SAME if row is None else differ.compare(row, Stat.of(st))
                if verdict != differ.SAME:
                    changed.append([entry_id, found[1], tuple(Stat.of(st))])
                if verdict == differ.OTHER_KIND:
                    continue  # the daemon removes and adds; the next walk goes in
            if is_dir:
                below.append(Dir(entry_id, directory, name, hides.get(name) if hides else None, rule, told))
        added, new = self.found_new(directory, unknown)
        below.extend(new)
        gone = [[entry_id, seq] for entry_id, seq, *_ in known.values()]
        carrying = self.carrying(directory, [name for name, raw, *_ in added if _is_empty_file(raw)])
        if dir_carries:  # few do; whether they are new is for the daemon to say
            carrying.append(b"")
        settled = ns(dir_st.st_mtime_ns)
        while len(ruled) > BATCH_ROWS:  # somebody switched a rule
            self.report([directory.entry_id, None, 0, [], [], [], [], ruled[-BATCH_ROWS:], None], BATCH_ROWS)
            del ruled[-BATCH_ROWS:]
        if added or changed or gone or carrying or ruled or listed_as != settled:
            self.report(
                [directory.entry_id, settled, 0, added, changed, gone, carrying, ruled, watch],
                1 + len(added) + len(changed) + len(gone) + len(ruled),
            )
        elif time.monotonic() - self.sent_s > BATCH_AGE_S:
            self.flush()
        return below

    def below(self, directory: Dir) -> list[Dir]:
        """The subdirectories of one that an earlier run of this walk has listed, by their rows."""
        hides = directory.excluded
        out = []
        for entry_id, name in entries.subdirectories(self.db, directory.entry_id):
            leaf = hides.get(name) if hides else None
            if leaf is None or isinstance(leaf, Mapping):
                out.append(Dir(entry_id, directory, name, leaf))
        return out

    def found_new(self, directory: Dir, unknown: list[tuple[bytes, os.stat_result]]) -> tuple[list[Any], list[Dir]]:
        """Names without a row as additions, sorted, and the directories among them."""
        added: list[Any] = []
        below: list[Dir] = []
        hides, scope = directory.excluded, directory.scope
        judge = _free if scope is None else scope.judging()
        for name, st in sorted(unknown, key=_name):
            number = 0
            is_dir = stat.S_ISDIR(st.st_mode)
            rule = judge(name, is_dir)
            if is_dir:
                number = self.next_new
                self.next_new -= 1
                leaf = hides.get(name) if hides else None
                below.append(Dir(number, directory, name, leaf, rule, rule, inode_of(st)))
            added.append([name, tuple(Stat.of(st)), number, None if scope is None else rule])
        return added, below

    def carrying(self, directory: Dir, names: list[bytes]) -> list[bytes]:
        """Those of some files that have extended attributes; a file with bytes is asked by whoever hashes it."""
        if not names:
            return []
        try:
            fd = self.open(directory)
        except OSError:
            return []
        try:
            return [name for name in names if _has_attributes(b"/proc/self/fd/%d/%s" % (fd, name))]
        finally:
            os.close(fd)

    def looked(self, directory: Dir, *, watched: bool) -> _Looked | None:
        """What `look` gives of a directory; None, and told, where it cannot be read or another one has its name."""
        try:
            looked = self.look(directory, watched=watched)
        except OSError as error:
            if error.errno in NOT_HERE:
                self.lost.append(directory.entry_id)
            else:
                self.report([directory.entry_id, None, error.errno or 0, [], [], [], [], [], None], 1)
            return None
        dir_st, _, _, watch = looked
        if directory.parent is not None and inode_of(dir_st) != directory.st_ino:
            self.lost.append(directory.entry_id)
            if watch is not None:  # whoever reads this has it end
                self.report([directory.entry_id, None, 0, [], [], [], [], [], watch], 1)
            return None
        return looked

    def look(self, directory: Dir, *, watched: bool = False) -> _Looked:
        """The directory's stat, its names with theirs, whether it has extended attributes, and its watch: set before
        all that if it is to be `watched`, None where that is not wanted, or there is no room."""
        fd = self.open(directory)
        try:
            wd = self.watch(fd) if watched else None
            dir_st = os.fstat(fd)
            found = []
            speaking: set[bytes] = set()
            hides = directory.excluded
            with os.scandir(fd) as scan:
                for item in scan:
                    name = item.name.encode("utf-8", "surrogateescape")
                    if name in SPEAKING:
                        speaking.add(name)
                    if hides and (hides.get(name) is True or hides.get(name) == MOUNTED):
                        continue
                    try:
                        found.append((name, item.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue
            self.enter(directory, fd, speaking)
            watch = None if wd is None else (wd, inode_of(dir_st))
            return dir_st, found, _has_attributes(fd), watch
        finally:
            os.close(fd)

    def watch(self, fd: int) -> int | None:
        """Watch a directory that is open, where there is somebody who hears of it; the number of the watch."""
        try:
            return None if self.watches is None else self.watches.add(b"/proc/self/fd/%d" % fd)
        except WatchLimitReached:
            self.watches = None
        except OSError:
            pass
        return None

    def enter(self, directory: Dir, fd: int | None, speaking: Collection[bytes] | None = None) -> None:
        """See what rules say in a directory that is open, and in those above it that the piece did not come by."""
        if self.ruler is None or directory.scope is not None:
            return
        above: list[Dir] = []
        walk = directory.parent
        while walk is not None and walk.scope is None:
            above.append(walk)
            walk = walk.parent
        for one in reversed(above):
            its = self.open(one)
            try:
                self._enter(one, its, None)
            finally:
                os.close(its)
        self._enter(directory, fd, speaking)

    def _enter(self, directory: Dir, fd: int | None, speaking: Collection[bytes] | None) -> None:
        assert self.ruler is not None
        if directory.parent is None:
            directory.scope = self.ruler.root(fd)
            return
        outer = directory.parent.scope
        assert outer is not None
        if directory.rule is None:
            directory.rule = outer.judge(directory.name, True)
        directory.scope = outer.inside(directory.name, directory.rule, fd, speaking)

    def open(self, directory: Dir) -> int:
        try:
            return self._open(directory, _OPEN | os.O_NOATIME)
        except PermissionError:
            return self._open(directory, _OPEN)

    def _open(self, directory: Dir, flags: int) -> int:
        names = directory.names()
        if not names:
            return os.open(b".", flags, dir_fd=self.root_fd)
        path = b"/".join(names)
        if self.beneath and len(path) < _PATH_MAX_BYTES:
            return beneath.open_beneath(self.root_fd, path, flags)
        fd = os.dup(self.root_fd)
        for name in names:
            try:
                below = os.open(name, flags, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def report(self, line: list[Any], rows: int) -> None:
        added = line[3]
        if len(added) > BATCH_ROWS:  # a huge directory goes in slices; only the last says that it is whole
            for start in range(0, len(added), BATCH_ROWS):
                piece = added[start : start + BATCH_ROWS]
                last = start + BATCH_ROWS >= len(added)
                rest = line[4:] if last else [[], [], [], [], None]
                self.batch.append([line[0], line[1] if last else None, 0, piece, *rest])
                self.flush()
            return
        self.batch.append(line)
        self.rows += rows
        if self.rows >= BATCH_ROWS or time.monotonic() - self.sent_s > BATCH_AGE_S:
            self.flush()

    def flush(self) -> None:
        self.context.emit([self.dirs_seen, self.entries_seen, self.batch])
        self.batch = []
        self.rows = self.dirs_seen = self.entries_seen = 0
        self.sent_s = time.monotonic()


def _has_attributes(file: int | bytes) -> bool:
    try:
        return bool(os.listxattr(file, follow_symlinks=False) if isinstance(file, bytes) else os.listxattr(file))
    except OSError:
        return False


def _is_empty_file(raw: tuple[int, ...]) -> bool:
    return stat.S_ISREG(raw[0]) and raw[1] == 0


def _say_notes(ruler: Ruler | None) -> None:
    """Lists of patterns that count as empty go into the log of the workers, once for each process."""
    for path, why in [] if ruler is None else ruler.notes:
        if path not in _NOTED and len(_NOTED) < _NOTED_MAX:
            _NOTED.add(path)
            print(f"{os.fsdecode(path)!r}: {why}", file=sys.stderr)


def _none(_name: bytes) -> object:
    return False


def _free(_name: bytes, _is_dir: bool) -> int:
    return 0


def ruler_of(args: Mapping[str, Any]) -> Ruler | None:
    """The ruler that a worker is told to judge by: `rules`, packed, and `within`; None where nothing is judged."""
    if args.get("rules") is None:
        return None
    user = User.of(os.environb)
    return Ruler(Ruleset.unpack(args["rules"]), args["root"], within=args["within"], user=user, caches=_CACHES)


def _name(pair: tuple[bytes, os.stat_result]) -> bytes:
    return pair[0]


#: What was read for one piece serves the next, while the files are as they were.
_CACHES = Caches()
_NOTED: set[bytes] = set()
_NOTED_MAX = 1000

#: What stands for a directory of another branch.
ELSEWHERE = Dir(0, None, b"", None)


def places_of(db: apsw.Connection, root_entry_id: int, ids: list[int], excluded: Excluded) -> list[Dir | None]:
    """Where some directories of a branch are by their rows; None for one that is gone or is never looked at."""
    known: dict[int | None, Dir | None] = {None: ELSEWHERE, root_entry_id: Dir(root_entry_id, None, b"", excluded)}

    def place(entry_id: int) -> Dir | None:
        above: int | None = entry_id
        chain: list[tuple[int, bytes]] = []
        while above is not None and above not in known:
            row = entries.placed(db, above)
            if row is None:
                known[above] = None
            else:
                chain.append((above, row[1]))
                above = row[0]
        found = known[above]
        for child_id, name in reversed(chain):
            if found is not None and found is not ELSEWHERE:
                hides = found.excluded.get(name) if found.excluded else None
                is_ours = hides is None or isinstance(hides, Mapping)
                found = Dir(child_id, found, name, hides) if is_ours else None
            known[child_id] = found
        return found

    return [place(entry_id) for entry_id in ids]


def scan(args: Mapping[str, Any], context: Emitter) -> list[list[int]]:
    """Stream [dirs, entries, reports], the figures since the last batch; return [directories that were left to walk,
    directories that were lost].

    A report is [directory, its mtime or None, errno, added, changed, gone, carrying, ruled, watch]. An addition is
    [name, stat, number of a directory or 0, rule or None]; carrying are names of new empty files with attributes, and
    b"" where it has some itself; ruled are [entry, name, rule] of known ones, which may be the directory; watch is
    None, or [number, inode] of the watch that stood before the directory was listed.

    args: database, root, root_id (file system, inode of the root), root_entry (its entry id), starts (entry ids of
    directories), excluded (nested mapping by name; true or MOUNTED ends a path), devices (numbers of branches' roots),
    since_ns (of a walk that goes on: when it began; what it has listed already is not listed again), watching (whether
    what was never listed is to be watched), rules and within
    (see `ruler_of`).
    """
    use_devices(*args["devices"])
    db = connect(Path(args["database"]), read_only=True)
    root_fd = os.open(args["root"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not is_root(root_fd, *args["root_id"]):
            raise FileNotFoundError(2, "another directory stands at the branch's root")
        watches = Inotify(WATCHES_FD) if args.get("watching") else None
        walk = Walk(db, root_fd, context, ruler_of(args), args.get("since_ns"), watches)
        places = places_of(db, args["root_entry"], args["starts"], args["excluded"])
        for entry_id, place in zip(args["starts"], places, strict=True):
            if place is ELSEWHERE:  # the daemon has it walked there
                walk.report([entry_id, None, 0, [], [], [], [], [], None], 1)
        left = walk.run([place for place in places if place is not None and place is not ELSEWHERE])
        _say_notes(walk.ruler)
        return [left, walk.lost]
    finally:
        os.close(root_fd)
        db.close()
