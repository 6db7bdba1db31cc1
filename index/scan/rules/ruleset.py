"""Ruleset: the rules of one location as a value: which of the named ones are on, and what its user added.

In: what somebody asks for, or what was packed before. Out: a frozen value that packs into msgpack (the table and the
workers have it so), and the matchers made of it. An entry's row holds the number of the rule that holds it back: 0 for
none, those of `builtin.RuleId`, or from 100 on a rule of the user; a location never gives the number of one to another.

What wins: any rule that rejects, over any that accepts. Rules that accept speak of files only, so that what is accepted
is found in whatever directory it lies.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgpack

from index.model.entry import is_name
from index.model.errors import Invalid
from index.scan.rules.builtin import BUILTIN, RuleId
from index.scan.rules.globs import alternatives, translate
from index.scan.rules.sieve import Passes, Sieve

#: Rules of a user in one location, and bytes of one pattern.
RULES_MAX = 256
PATTERN_MAX_BYTES = 4096

ACCEPT = "accept"  # files that match; others are held back
REJECT = "reject"  # files and directories that match are held back
ACCEPT_WITH = "accept-with"  # a directory that has such a directory, with all below it; files elsewhere are held back
REJECT_WITH = "reject-with"  # a directory that has such a directory is held back
KINDS = (ACCEPT, REJECT, ACCEPT_WITH, REJECT_WITH)

#: A component that no path has: `.` or `..`, be it escaped.
_DOTS = re.compile(rb"(?:\\?\.){1,2}")

_BY_NAME = {one.name: one for one in BUILTIN}
_NAMES = {int(one.id): one.name for one in BUILTIN}
_DEFAULTS = frozenset(one.name for one in BUILTIN if one.default)


class UserRule(NamedTuple):
    """A rule that a user added."""

    id: int
    kind: str
    pattern: bytes

    @property
    def name(self) -> str:
        return f"{self.kind} {self.pattern.decode('utf-8', 'backslashreplace')}"


class Ruleset(NamedTuple):
    """The rules of a location."""

    on: frozenset[str] = _DEFAULTS
    rules: tuple[UserRule, ...] = ()
    next_id: int = int(RuleId.FIRST_OF_USER)

    def name_of(self, rule: int) -> str:
        """What a rule is called; of one that is not there any more, its number."""
        if rule == RuleId.ACCEPT:
            return ACCEPT
        return _NAMES.get(rule) or next((one.name for one in self.rules if one.id == rule), f"rule {rule}")

    def switched(self, on: Iterable[str], off: Iterable[str]) -> "Ruleset":
        """With some rules on and others off. Invalid for a name that no rule has."""
        wanted, unwanted = set(on), set(off)
        for name in sorted(wanted | unwanted):
            if name not in _BY_NAME:
                raise Invalid(f"there is no rule {name} (there are: {', '.join(_BY_NAME)})")
        if both := wanted & unwanted:
            raise Invalid(f"{sorted(both)[0]} can be on or off, not both")
        return self._replace(on=(self.on | wanted) - unwanted)

    def with_rules(self, kind: str, patterns: Iterable[bytes]) -> "Ruleset":
        """With rules of the user added; one that is there already is not there twice. Invalid for a bad pattern."""
        rules, next_id = list(self.rules), self.next_id
        for pattern in patterns:
            _check(kind, pattern)
            if any((one.kind, one.pattern) == (kind, pattern) for one in rules):
                continue
            rules.append(UserRule(next_id, kind, pattern))
            next_id += 1
        if len(rules) > RULES_MAX:
            raise Invalid(f"a location can have {RULES_MAX} rules of its own; use one pattern with {{a,b}} for many")
        return self._replace(rules=tuple(rules), next_id=next_id)

    def cleared(self) -> "Ruleset":
        """The defaults again; numbers that were given stay given."""
        return Ruleset(next_id=self.next_id)

    def pack(self) -> bytes:
        rules = [[one.id, one.kind, one.pattern] for one in self.rules]
        packed: bytes = msgpack.packb({"on": sorted(self.on), "rules": rules, "next": self.next_id})
        return packed

    @staticmethod
    def unpack(packed: bytes | None) -> "Ruleset":
        """The packed ruleset; None is the default one. A rule that this program does not know is left out."""
        if packed is None:
            return Ruleset()
        raw: Mapping[str, Any] = msgpack.unpackb(packed)
        rules = (UserRule(int(number), str(kind), bytes(pattern)) for number, kind, pattern in raw["rules"])
        on = frozenset(name for name in raw["on"] if name in _BY_NAME)
        return Ruleset(on, tuple(one for one in rules if one.kind in KINDS), int(raw["next"]))

    def compiled(self) -> "Compiled":
        return _compiled(self)


def _check(kind: str, pattern: bytes) -> None:
    shown = pattern.decode("utf-8", "backslashreplace")
    if kind not in KINDS:
        raise Invalid(f"there are no rules of kind {kind}")
    if len(pattern) > PATTERN_MAX_BYTES:
        raise Invalid(f"a pattern has {PATTERN_MAX_BYTES} bytes at most")
    if kind in (ACCEPT_WITH, REJECT_WITH):
        if not all(is_name(name) for name in alternatives(pattern)):
            raise Invalid(f"{shown!r} is no name of a directory")
        return
    meant = alternatives(pattern)
    if b"\0" in pattern or not all(one.strip(b"/") and b"//" not in one for one in meant):
        raise Invalid(f"{shown!r} is no pattern; use one like *.iso, build/, /Private or drafts/**")
    if any(_DOTS.fullmatch(part) for one in meant for part in one.split(b"/")):
        raise Invalid(f"{shown!r} has a part . or .., which no path has; write a path from the location, like /Private")
    if not any(translate(one.strip(b"/")) for one in meant):
        raise Invalid(f"nothing can match {shown!r}; is a bracket open, or a backslash at the end?")
    if kind == ACCEPT and all(one.endswith(b"/") for one in meant):
        raise Invalid(f"{shown!r} is a pattern of directories, and accept speaks of files; write {shown + '**'!r}")


# matchers -------------------------------------------------------------------------------------------------------------

#: The path of a name, asked for when a pattern needs it.
Path = Callable[[], bytes]


class Globs:
    """The patterns of one rule. A pattern without a slash is held against names, one that begins with a slash against
    the path from the base, and any other against the end of the path."""

    __slots__ = ("_dirs", "_names", "_paths", "dirs_only", "lasts")

    def __init__(self, patterns: Iterable[bytes], *, dirs_only: bool = False, fold: bool = False) -> None:
        self.dirs_only = dirs_only
        self.lasts: list[tuple[bytes, bool]] = []  # for the sieve
        names: list[bytes] = []
        dirs: list[bytes] = []
        self._paths: list[tuple[Passes, bool]] = []
        for pattern in (one for many in patterns for one in alternatives(many)):
            is_dir = pattern.endswith(b"/")
            bare = (pattern[:-1] if is_dir else pattern).removeprefix(b"**/")
            found = translate(bare.lstrip(b"/"), fold=fold)
            if found is None:
                continue
            if b"/" not in bare:
                (dirs if is_dir else names).append(found.pattern)
                self.lasts.append((bare, fold))
                continue
            anchored = bare if pattern.startswith(b"/") else b"**/" + bare
            path = translate(anchored.removeprefix(b"/"), fold=fold)
            if path is not None:
                self._paths.append((path.fullmatch, is_dir))
                last = bare.rpartition(b"/")[2]
                self.lasts.append((b"*" if b"[" in bare or b"**" in last else last, fold))
        flags = re.DOTALL | (re.IGNORECASE if fold else 0)
        self._names = _either(names, flags)
        self._dirs = _either(dirs, flags)

    def hit(self, name: bytes, is_dir: bool, path: Path) -> bool:
        if self.dirs_only and not is_dir:
            return False
        if self._names is not None and self._names(name):
            return True
        if is_dir and self._dirs is not None and self._dirs(name):
            return True
        if not self._paths:
            return False
        whole = path()
        return any((is_dir or not only) and bool(matches(whole)) for matches, only in self._paths)


def _either(sources: list[bytes], flags: int) -> Passes | None:
    return re.compile(b"|".join(b"(?:%s)" % one for one in sources), flags).fullmatch if sources else None


class Compiled(NamedTuple):
    """What the ruler asks. `from_machine`: paths are given from the root of the machine, else from the location's."""

    rejects: tuple[tuple[int, Globs, bool], ...]  # (rule, patterns, from_machine)
    accepts: tuple[tuple[int, Globs], ...]  # a file is held by each of which no pattern matches
    accept_with: tuple[int, frozenset[bytes]] | None
    reject_with: tuple[tuple[int, frozenset[bytes]], ...]
    reads_gitignore: bool
    lasts: tuple[tuple[bytes, bool], ...]
    asks_all: bool  # every file must be looked at, whatever it is called

    @property
    def looks(self) -> bool:
        """Whether what lies in a directory says something of it, so that it must be looked into."""
        return self.reads_gitignore or bool(self.children)

    @property
    def children(self) -> frozenset[bytes]:
        """Names of directories that say something of the directory they are in."""
        own = self.accept_with[1] if self.accept_with is not None else frozenset()
        return own.union(*(names for _, names in self.reject_with))

    def sieve(self, more: Iterable[tuple[bytes, bool]] = ()) -> Sieve:
        return Sieve([*self.lasts, *more])


@lru_cache(maxsize=64)
def _compiled(ruleset: Ruleset) -> Compiled:
    rejects: list[tuple[int, Globs, bool]] = []
    accepts: list[tuple[int, Globs]] = []
    for one in BUILTIN:
        if one.name in ruleset.on and one.patterns:
            globs = Globs([p.encode() for p in one.patterns], dirs_only=one.dirs_only, fold=one.folds)
            if one.accepts:
                accepts.append((int(one.id), globs))
            else:
                rejects.append((int(one.id), globs, True))
    wanted = [rule.pattern for rule in ruleset.rules if rule.kind == ACCEPT]
    if wanted:
        accepts.append((int(RuleId.ACCEPT), Globs(wanted)))
    rejects += [(rule.id, Globs([rule.pattern]), False) for rule in ruleset.rules if rule.kind == REJECT]
    with_these = [rule for rule in ruleset.rules if rule.kind == ACCEPT_WITH]
    accept_with = (
        (with_these[0].id, frozenset(n for r in with_these for n in alternatives(r.pattern))) if with_these else None
    )
    reject_with = tuple(
        (rule.id, frozenset(alternatives(rule.pattern))) for rule in ruleset.rules if rule.kind == REJECT_WITH
    )
    return Compiled(
        rejects=tuple(rejects),
        accepts=tuple(accepts),
        accept_with=accept_with,
        reject_with=reject_with,
        reads_gitignore=_NAMES[RuleId.GITIGNORE] in ruleset.on,
        lasts=tuple(last for _, globs, _ in rejects for last in globs.lasts),
        asks_all=bool(accepts) or accept_with is not None,
    )
