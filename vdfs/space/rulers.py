"""Rulers: which rule holds back a name that comes by the mount or by the watcher; and what makes rows be judged again.

The store asks while it writes: of each new row, and once more of each row that moved, before the unit is committed.
What the way to a directory says is kept in memory, by the directory's row, until a list of patterns, a rule of a
directory, or the place of one changes. Lists are read here and now on fast file systems, by descriptors below the
branch's root and without leaving its mount; where that would mean to wait (a slow file system, a git directory or
files of one elsewhere, a large list, a large git index) a name is judged by what is known, and its directory is noted
to be judged by a worker (ruling.py).

In: every change of a unit. Out: rules of rows, and rows of table ruling: a list of patterns that came, changed or went,
what git says is tracked or configured, a directory that moved.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import trio

from index.model import change
from index.model.change import Change
from index.model.entry import KIND_DIR, Entry
from index.model.errors import VdfsError
from index.scan import recording
from index.scan.beneath import open_beneath
from index.scan.mounts import mount_of, mounts
from index.scan.rules.gitrepo import User
from index.scan.rules.ruler import Ruler, Scope
from index.scan.rules.ruleset import Ruleset
from index.store import entries, places, rulings
from index.store.unit import Unit
from vdfs.space.branches import Branch
from vdfs.space.holdings import Holdings

log = logging.getLogger("sdmount.rules")

#: Scopes kept; about a kilobyte each.
_SCOPES_MAX = 8192
#: How far above a file of git its `.git` may be (`.git/modules/a/b/index`).
_GIT_DEPTH = 12
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_LISTS = frozenset({b".gitignore", b".git"})
#: Files in a git directory that say what is ignored, tracked or in which case; and what makes it one.
_IN_GIT = frozenset(
    {b"exclude", b"index", b"config", b"config.worktree", b"HEAD", b"commondir", b"objects", b"refs", b"info"}
)
#: What happens to a file that does not make it say something else.
_SILENT = frozenset({change.META, change.TIMES})


class Rulers:
    """The rulers of all branches of a library. Used on the loop only, also by the store (`index.store.unit.Rules`)."""

    def __init__(self, tree: Holdings, user: User) -> None:
        self.tree = tree
        self.store = tree.store
        self.user = user
        self.wake = trio.Event()  # something is to be judged again
        self.pieces: dict[object, Branch] = {}  # of walks that run now: what they tell may be judged by older lists
        #: Asked whether nothing is left to be judged again; a true answer where nobody does that.
        self.settled: Callable[[], bool] = lambda: True
        self._rulers: dict[int, Ruler] = {}
        self._scopes: dict[int, Scope] = {}
        of_children = (self.of_location(one.id).compiled().children for one in places.locations(self.store.db))
        self._speaking: frozenset[bytes] = (_LISTS | _IN_GIT).union(*of_children)
        self.store.rules = self

    # rules of locations -----------------------------------------------------------------------------------------------

    def ruleset(self, branch: Branch) -> Ruleset:
        """The rules that hold in a branch: those of its location, or the default ones."""
        return self.of_location(branch.location_id)

    def of_location(self, location_id: int | None) -> Ruleset:
        return Ruleset.unpack(None if location_id is None else places.rules_of(self.store.db, location_id))

    def change(self, unit: Unit, location_id: int, ruleset: Ruleset, branches: Sequence[Branch]) -> None:
        """A location has these rules from now on; all that lies in it here is judged again, behind."""
        places.set_rules(unit, location_id, ruleset.pack())
        self._speaking |= ruleset.compiled().children
        for branch in branches:
            self._rulers.pop(branch.id, None)
            self._note(unit, branch.root_entry_id)
        self.forget()

    def for_worker(self, branch: Branch) -> dict[str, object]:
        """What a worker is told to judge by."""
        ruler = self._ruler(branch)
        return {"rules": ruler.ruleset.pack(), "within": ruler.within}

    @contextmanager
    def walking(self, branch: Branch) -> Iterator[None]:
        """A piece of a walk runs: what it tells was judged by the lists that it has read."""
        piece = object()
        self.pieces[piece] = branch
        try:
            yield
        finally:
            del self.pieces[piece]

    def _ruler(self, branch: Branch) -> Ruler:
        ruler = self._rulers.get(branch.id)
        if ruler is None:
            mount = mount_of(branch.root_path, mounts())
            within = branch.root_path if mount is None else mount.mount_point
            ruler = Ruler(self.ruleset(branch), branch.root_path, within=within, user=self.user, strict=True)
            self._rulers[branch.id] = ruler
        return ruler

    # what the store asks ----------------------------------------------------------------------------------------------

    def judge(self, unit: Unit, branch_id: int, parent_id: int, name: bytes, is_dir: bool) -> int:
        """The rule that holds back a name of a directory; 0 for none."""
        scope = self._scopes.get(parent_id)
        if scope is None:
            scope = self._scope(unit, parent_id)
            if scope is None:
                return 0
        rule = scope.judge(name, is_dir)
        if (scope.unsure or scope.doubted) and not scope.rule:
            self._note(unit, parent_id, deep=False)
        return rule

    def heard(self, unit: Unit, changes: Sequence[Change], before_id: int, known: Collection[int]) -> None:
        """Before a unit is committed: rows that moved are judged anew; what may change the rule of others is noted."""
        speaking = self._speaking
        spoken = [one for one in changes if one.name in speaking and one.what not in _SILENT]
        for one in spoken:
            if one.parent_id is not None and one.parent_id not in known:
                self._spoke(unit, one)
        came = {one.entry_id: one for one in changes if one.what == change.ADDED and one.entry_id <= before_id}
        if not came:
            return
        left = {one.entry_id for one in changes if one.what == change.REMOVED}
        rows = [row for row in (entries.get(unit.db, entry_id) for entry_id in came) if row is not None and row.is_ours]
        if any(row.kind == KIND_DIR for row in rows):
            self.forget()
        for row in rows:
            if row.parent_id is not None:
                self._judge_again(unit, row, moved=row.id in left)

    def forget(self) -> None:
        """What was found out of directories may not be so any more."""
        self._scopes.clear()

    # working ----------------------------------------------------------------------------------------------------------

    def _judge_again(self, unit: Unit, row: Entry, *, moved: bool) -> None:
        """A row is somewhere else, or another inode: so may its rule be, and all that lies in it."""
        assert row.parent_id is not None
        before, rule = row.rule, self.judge(unit, row.branch_id, row.parent_id, row.name, row.kind == KIND_DIR)
        if rule != before:
            recording.set_rule(unit, row, rule)
        if row.kind == KIND_DIR and moved and not (rule and rule == before):
            self._note(unit, row.id)

    def _spoke(self, unit: Unit, one: Change) -> None:
        """A name came, went or changed that may say what is held."""
        branch = self.tree.branches.get(one.branch_id)
        if branch is None or one.parent_id is None:
            return
        compiled = self._ruler(branch).compiled
        by_children = {rule for rule, _ in compiled.reject_with}
        if one.name not in _IN_GIT and self._rule_of(unit, one.parent_id) not in {0, *by_children}:
            return  # it is held, and so is all that is in it, whatever it says
        if one.name in compiled.children and one.what in (change.ADDED, change.REMOVED):
            self._tell(unit, one.parent_id)
        if not compiled.reads_gitignore:
            return
        if one.name in _LISTS:
            if one.name == b".gitignore" or one.what in (change.ADDED, change.REMOVED):
                self._tell(unit, one.parent_id)
            return
        above: int | None = one.parent_id
        for _ in range(_GIT_DEPTH):
            placed = None if above is None else entries.placed(unit.db, above)
            if placed is None:
                return
            above = placed[0]
            if placed[1] == b".git" and above is not None:
                if not self._rule_of(unit, above):
                    self._tell(unit, above)
                return

    def _rule_of(self, unit: Unit, entry_id: int) -> int:
        row = entries.get(unit.db, entry_id)
        return 0 if row is None else row.rule

    def _tell(self, unit: Unit, entry_id: int) -> None:
        self.forget()
        self._note(unit, entry_id)

    def _note(self, unit: Unit, entry_id: int, *, deep: bool = True) -> None:
        rulings.put(unit.db, entry_id, unit.seq, deep=deep)
        self.wake.set()

    def _scope(self, unit: Unit, entry_id: int) -> Scope | None:
        """What the rules say in a directory, from the last one on the way to it that is known."""
        way: list[Entry] = []
        scope: Scope | None = None
        wanted: int | None = entry_id
        while wanted is not None:
            scope = self._scopes.get(wanted)
            row = None if scope is not None else entries.get(unit.db, wanted)
            if row is None:
                break
            way.append(row)
            if row.rule:
                break
            wanted = row.parent_id
        branch = self.tree.branches.get(way[-1].branch_id) if way else None
        if branch is None:
            return scope
        ruler = self._ruler(branch)
        if len(self._scopes) > _SCOPES_MAX:
            self._scopes.clear()
        names = self._names_of(unit, way[-1]) if scope is not None or way[-1].rule else []
        with self._root_of(branch) as root_fd:
            for row in reversed(way):
                if row.rule:
                    scope = ruler.held(row.rule)
                elif row.parent_id is None:
                    scope = ruler.root(root_fd)
                elif scope is None:  # something above is gone
                    return None
                else:
                    names = [*names, row.name]
                    with _opened(root_fd, names) as fd:
                        scope = scope.inside(row.name, 0, fd)
                self._scopes[row.id] = scope
        return scope

    def _names_of(self, unit: Unit, row: Entry) -> list[bytes]:
        return entries.path_of(unit.db, row.parent_id) if row.parent_id is not None else []

    @contextmanager
    def _root_of(self, branch: Branch) -> Iterator[int | None]:
        """A descriptor of a branch's root; None where asking for it may mean to wait, or it is not there."""
        fd: int | None = None
        if not branch.slow:
            with contextlib.suppress(OSError, VdfsError):
                fd = branch.open_root()
        try:
            yield fd
        finally:
            if fd is not None:
                os.close(fd)


@contextmanager
def _opened(root_fd: int | None, names: list[bytes]) -> Iterator[int | None]:
    """A directory below a root, on the same mount, through no symlink; None where it cannot be had so."""
    fd: int | None = None
    if root_fd is not None:
        try:
            fd = open_beneath(root_fd, b"/".join(names), _OPEN, same_mount=True)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EXDEV, errno.ENOTDIR, errno.ELOOP):
                log.info("rules of %s are not read here: %s", os.fsdecode(names[-1]), error)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)
