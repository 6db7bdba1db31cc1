"""Ruler: which rule holds back a name, for whoever goes through a tree directory by directory.

A `Scope` stands for one directory and what the way to it has shown: rules that hold all of it, the lists of patterns of
git that count here. `scope.judge(name, is_dir)` is the rule of a name in it (0: none), `scope.inside(name, rule, fd)`
the scope of a directory in it. All below a held directory is held by the same rule, without another look. The
location's own root is never held.

Of git counts what git counts: the lists of each directory from the top of the work tree down, the nearer over the
farther, the last line that matches first; then the repository's `info/exclude`, then the user's own list. A directory
that is ignored is closed: no line below brings anything back. What the index tracks is not ignored. A repository in
another is one of its own. The measure is `git check-ignore`.

Files are read by the descriptor of their directory, from no pipe, and only up to a bound; a `.gitignore` through no
symlink, the files of a git directory through any, as git does. What cannot be read is noted once and counts as empty.
`strict` is for a caller who must not wait: then what lies outside of the directory, leads there, or is large, is not
read, and the scope says that it is `unsure`. What such a list might bring back is not held meanwhile.
"""

import os
import stat
from collections.abc import Callable, Collection
from typing import NamedTuple

from index.scan.rules import files, gitignore, gitindex, gitrepo
from index.scan.rules.builtin import RuleId
from index.scan.rules.files import Stamp
from index.scan.rules.gitignore import UNREAD, Patterns
from index.scan.rules.gitrepo import Caches, Repo, User
from index.scan.rules.ruleset import Compiled, Ruleset
from index.scan.rules.sieve import Passes

#: Names that, where they are listed, make a directory be looked into for what they say.
SPEAKING = frozenset({b".git", b".gitignore"})
_EXCLUDES = b"core.excludesfile"
_NOTES_MAX = 100
_SIEVES_MAX = 256
_PATTERNS_MAX = 4096
#: An index larger than this is not read by who must not wait: some 3000 files, 5 ms.
_STRICT_INDEX_BYTES = 256 << 10
#: Nor is a list larger than this: some 1000 lines, 10 ms if they are names, 100 ms if all have stars.
_STRICT_LIST_BYTES = 16 << 10


class _Git(NamedTuple):
    """What git says in a directory: its repository, the lists that count (nearest first, with their base), the path
    of the directory from the top of the work tree, and whether it is ignored but for what is tracked in it."""

    repo: Repo
    lists: tuple[tuple[Patterns, int], ...]
    above: bytes
    is_closed: bool

    @property
    def has_open_lines(self) -> bool:
        """Whether some lines match names that no sieve can know, in some directories."""
        return any(one.paths for one, _ in self.lists)

    @property
    def is_unsure(self) -> bool:
        """Whether some list that counts was not read."""
        return any(one is UNREAD for one, _ in self.lists)


class Ruler:
    """The rules of one branch. Keeps what it has read of files that did not change."""

    def __init__(
        self,
        ruleset: Ruleset,
        root_path: bytes,
        *,
        within: bytes | None = None,
        user: User | None = None,
        strict: bool = False,
        caches: Caches | None = None,
    ) -> None:
        """`root_path`: the location's directory here, without symlinks. `within`: how far up a repository around it is
        looked for (its mount point; the root itself by default). `user`: git's configuration of whoever runs us."""
        self.ruleset = ruleset
        self.compiled: Compiled = ruleset.compiled()
        self.root_path = root_path
        self.within = root_path if within is None else within
        self.user = User() if user is None else user
        self.strict = strict
        self.notes: list[tuple[bytes, str]] = []  # (file, why it does not count)
        self._noted: set[bytes] = set()
        self._caches = Caches() if caches is None else caches
        self._patterns: dict[tuple[Stamp, bool], Patterns] = {}
        self._sieves: dict[tuple[int, ...], tuple[tuple[Patterns, ...], Passes]] = {}
        self._held: dict[int, Scope] = {}
        self._users_lists: dict[bool, Patterns] = {}
        self._machine = root_path.strip(b"/") + b"/" if root_path.strip(b"/") else b""

    def root(self, fd: int | None) -> "Scope":
        """The scope of the location's root, open as `fd`; None where nobody may look at the disk."""
        compiled = self.compiled
        if fd is None:
            return Scope(self, b"", None, compiled.accept_with is None, compiled.looks)
        accepted = compiled.accept_with is None or _has_any(fd, compiled.accept_with[1])
        git, unsure = self._git_of(fd, self.root_path, None) if compiled.reads_gitignore else (None, False)
        if git is None and compiled.reads_gitignore:
            git, unsure = self._git_around(fd, unsure)
        return Scope(self, b"", git, accepted, unsure)

    def held(self, rule: int) -> "Scope":
        """The scope of what lies in a directory that is held, or below it."""
        scope = self._held.get(rule)
        if scope is None:
            scope = self._held[rule] = Scope(self, b"", None, True, False, rule)
        return scope

    def note(self, path: bytes, text: str) -> None:
        if path not in self._noted and len(self.notes) < _NOTES_MAX:
            self._noted.add(path)
            self.notes.append((path, text))

    def machine_path(self, path: bytes) -> bytes:
        """The path of something from the machine's root, without the slash it begins with."""
        return self._machine + path

    # git ------------------------------------------------------------------------------------------------------------

    def _git_of(self, fd: int, path: bytes, names: Collection[bytes] | None) -> tuple[_Git | None, bool]:
        """What git says in a directory that is the top of a work tree, if it is one; and whether that is unsure."""
        if names is not None and b".git" not in names:
            return None, False
        if files.look(b".git", fd) is None:
            return None, False
        here = b"/proc/self/fd/%d" % fd
        repo = self._find(here if self.strict else path)
        if isinstance(repo, str):
            return None, True
        if repo is None:
            return None, False
        if self.strict:
            repo.tracked(self._caches, self.note)  # by the descriptor, while it is open
        lists = self._lists_of(repo)
        own = self._own_list(fd, path, repo, names)
        return _Git(repo, lists if own is None else ((own, 0), *lists), b"", False), False

    def _find(self, path: bytes) -> Repo | str | None:
        index_max_bytes = _STRICT_INDEX_BYTES if self.strict else gitindex.INDEX_MAX_BYTES
        may_leave = not self.strict
        return gitrepo.find(path, self._caches, self.user, may_leave=may_leave, index_max_bytes=index_max_bytes)

    def _git_around(self, fd: int, unsure: bool) -> tuple[_Git | None, bool]:
        """What git says in the root where it lies inside a work tree: looked for above it, on the same mount."""
        if unsure:
            return None, True
        path = self.root_path
        while path != self.within and path.strip(b"/"):
            path = os.path.dirname(path)
            repo = self._find(path)
            if isinstance(repo, str):
                return None, True
            if repo is not None:
                break
        else:
            return None, False
        between = os.path.relpath(self.root_path, path)
        lists = self._lists_of(repo)
        above = b""
        for name in [b"", *between.split(b"/")[:-1]]:
            above += name + b"/" if name else b""
            found = self._read(os.path.join(path, above, b".gitignore"), None, repo.folds)
            lists = lists if found is None else ((found, len(above)), *lists)
        above = between + b"/"
        own = self._own_list(fd, self.root_path, repo, None)
        return _Git(repo, lists if own is None else ((own, len(above)), *lists), above, False), False

    def _lists_of(self, repo: Repo) -> tuple[tuple[Patterns, int], ...]:
        """The lists of a whole repository: its own, then the user's."""
        found = [self._excluded(repo), self._users_in(repo)]
        return tuple((one, 0) for one in found if one is not None)

    def _excluded(self, repo: Repo) -> Patterns | None:
        """A repository's own list: it may be a link, or lie in a directory that is one."""
        info = repo.common + b"/info"
        if self.strict and any(_is_link(place) for place in (info, info + b"/exclude")):
            return UNREAD
        return self._read(info + b"/exclude", None, repo.folds, follow=not self.strict)

    def _users_in(self, repo: Repo) -> Patterns | None:
        """The user's list, or the one that a repository names instead."""
        named = repo.config.get(_EXCLUDES)
        if named == self.user.config.get(_EXCLUDES):
            return self._users(repo.folds)
        if self.strict:
            return UNREAD
        place = self.user.expanded(named or b"")
        return self._read(place, None, repo.folds, follow=True) if place else None

    def _users(self, fold: bool) -> Patterns | None:
        if self.strict and len(self.user.patterns) > _STRICT_LIST_BYTES:
            return UNREAD
        found = self._users_lists.get(fold)
        if found is None:
            found = self._users_lists[fold] = gitignore.parse(self.user.patterns, fold=fold)
        return found if found.lines else None

    def _own_list(self, fd: int, path: bytes, repo: Repo, names: Collection[bytes] | None) -> Patterns | None:
        if names is not None and b".gitignore" not in names:
            return None
        return self._read(b".gitignore", fd, repo.folds, os.path.join(path, b".gitignore"))

    def _read(
        self, name: bytes, fd: int | None, fold: bool, shown: bytes | None = None, *, follow: bool = False
    ) -> Patterns | None:
        """A list of patterns; None for one that is not there, or says nothing."""
        st = files.look(name, fd, follow=follow)
        if st is None:
            return None
        if self.strict and _STRICT_LIST_BYTES < st.st_size <= files.PATTERNS_MAX_BYTES and stat.S_ISREG(st.st_mode):
            return UNREAD
        key = (files.stamp_of(st), fold)
        known = self._patterns.get(key)
        if known is None:
            found = files.read(name, fd, follow=follow)
            if found.note is not None:
                self.note(shown or name, f"it counts as empty: {found.note}")
            known = gitignore.parse(found.text or b"", fold=fold)
            if found.stamp is not None and files.is_settled(found.stamp):
                if len(self._patterns) >= _PATTERNS_MAX:
                    self._patterns.clear()
                self._patterns[found.stamp, fold] = known
        return known if known.lines else None

    def tracks(self, repo: Repo, path: bytes) -> bool | None:
        """Whether a repository tracks a path, or something below it; None: that could not be found out here."""
        tracked = repo.tracked(self._caches, self.note)
        return None if tracked is None else tracked.has(path)

    def passes(self, git: _Git | None) -> Passes:
        """What lets through the names that some pattern may match, where these lists count."""
        if self.compiled.asks_all or (git is not None and git.is_closed):
            return _all
        lists = () if git is None else tuple(one for one, _ in git.lists)
        key = tuple(map(id, lists))
        found = self._sieves.get(key)
        if found is None:
            if len(self._sieves) >= _SIEVES_MAX:
                self._sieves.clear()
            found = (lists, self.compiled.sieve(last for one in lists for last in one.sieved).passes)
            self._sieves[key] = found
        if git is not None and any(
            line.may_match_in(git.above[base:]) for one, base in git.lists for line in one.paths
        ):
            return _all
        return found[1]


def _all(_name: bytes) -> object:
    return True


class Scope:
    """One directory, and what its rules say of the names in it."""

    __slots__ = ("_git", "doubted", "is_accepted", "passes", "path", "rule", "ruler", "unsure")

    def __init__(
        self,
        ruler: Ruler,
        path: bytes,
        git: _Git | None,
        is_accepted: bool,
        unsure: bool,
        rule: int = 0,
        passes: Passes | None = None,
    ) -> None:
        self.ruler = ruler
        self.path = path  # from the root, with a slash at its end
        self._git = git
        self.is_accepted = is_accepted  # no rule asks for certain directories, or this one or one above has them
        self.unsure = unsure or (git is not None and git.is_unsure)  # what git says here could not be found out,
        self.doubted = False  # or of some name that was judged whether it is tracked
        self.rule = rule  # holds all that is in it; 0: each name is judged
        self.passes: Passes = (_all if rule else ruler.passes(git)) if passes is None else passes

    def judge(self, name: bytes, is_dir: bool) -> int:
        """The rule that holds back a name; 0 for none."""
        if self.rule:
            return self.rule
        return self.judge_surely(name, is_dir) if self.passes(name) else 0

    def judging(self) -> Callable[[bytes, bool], int]:
        """`judge`, for many names."""
        held, passes, surely = self.rule, self.passes, self.judge_surely
        if held:
            return lambda _name, _is_dir: held

        def judge(name: bytes, is_dir: bool) -> int:
            return surely(name, is_dir) if passes(name) else 0

        return judge

    def judge_surely(self, name: bytes, is_dir: bool) -> int:
        """The same for a name that passed, where nothing holds the whole directory."""
        ruler = self.ruler
        compiled = ruler.compiled

        def path() -> bytes:
            return self.path + name

        def machine_path() -> bytes:
            return ruler.machine_path(self.path + name)

        for rule, globs, from_machine in compiled.rejects:
            if globs.hit(name, is_dir, machine_path if from_machine else path):
                return rule
        if self._git is not None and self.ignores(name, is_dir) and not self._tracks(self._git, name):
            return int(RuleId.GITIGNORE)
        if not is_dir:
            for rule, globs in compiled.accepts:
                if not globs.hit(name, False, path):
                    return rule
            if not self.is_accepted and compiled.accept_with is not None:
                return compiled.accept_with[0]
        return 0

    def ignores(self, name: bytes, is_dir: bool) -> bool:
        """Whether git's patterns say that a name is ignored, be it tracked or not."""
        git = self._git
        if git is None:
            return False
        if git.is_closed:
            return True
        whole = git.above + name
        for patterns, base in git.lists:
            verdict = patterns.verdict(whole[base:], name, is_dir)
            if verdict is not None:
                return verdict
        return False

    def _tracks(self, git: _Git, name: bytes) -> bool:
        found = self.ruler.tracks(git.repo, git.above + name)
        if found is None:
            self.doubted = True
        return bool(found)

    def inside(self, name: bytes, rule: int, fd: int | None, names: Collection[bytes] | None = None) -> "Scope":
        """The scope of a directory in this one, open as `fd` (None: nobody may look), whose own rule is known. `names`:
        those of SPEAKING that are in it, where somebody knows; without it they are looked for."""
        ruler = self.ruler
        if rule or self.rule:
            return ruler.held(rule or self.rule)
        compiled = ruler.compiled
        if fd is None:
            git = None if self._git is None else self._git._replace(above=self._git.above + name + b"/")
            return Scope(ruler, self.path + name + b"/", git, self.is_accepted, compiled.looks)
        for number, children in compiled.reject_with:
            if _has_any(fd, children):
                return ruler.held(number)
        accepted = self.is_accepted or compiled.accept_with is None or _has_any(fd, compiled.accept_with[1])
        path = self.path + name + b"/"
        if not compiled.reads_gitignore:
            return Scope(ruler, path, None, accepted, False, passes=self.passes)
        outer = self._git
        if names is not None and not names:  # as most are: what counts here is what counts above
            if outer is None:
                return Scope(ruler, path, None, accepted, self.unsure, passes=self.passes)
            if not outer.has_open_lines and not outer.is_closed and not self.passes(name):
                git = outer._replace(above=outer.above + name + b"/")
                return Scope(ruler, path, git, accepted, self.unsure, passes=self.passes)
        where = os.path.join(ruler.root_path, path[:-1])
        git, unsure = ruler._git_of(fd, where, names)
        if git is None and not unsure and outer is not None:
            closed = outer.is_closed or (bool(self.passes(name)) and self.ignores(name, True))
            above = outer.above + name + b"/"
            own = ruler._own_list(fd, where, outer.repo, names)
            lists = outer.lists if own is None else ((own, len(above)), *outer.lists)
            git = _Git(outer.repo, lists, above, closed)
        is_same = git is None or (outer is not None and git.repo is outer.repo)
        return Scope(ruler, path, git, accepted, unsure or (is_same and self.unsure))


def _is_link(path: bytes) -> bool:
    st = files.look(path)
    return st is not None and stat.S_ISLNK(st.st_mode)


def _has_any(fd: int, names: frozenset[bytes]) -> bool:
    """Whether a directory has one of some directories."""
    for name in names:
        st = files.look(name, fd)
        if st is not None and stat.S_ISDIR(st.st_mode):
            return True
    return False
