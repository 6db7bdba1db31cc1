"""Do each operation on the tested side and on the reference, then compare what the mount shows.

The reference is a plain directory: what it does is right by definition. After an operation through the
mount the mount must show the right thing at once; after one behind it, within the time to settle, and the
lags are kept. The branch itself must always equal the reference: a mount that writes late or elsewhere
shows there. Checked names: those the operation concerns (its paths, their directories, other links of the
same file, a moved directory's content), some random others, and some absent ones. Only modification times
have no counterpart in the reference: the mount's must equal the branch's, and the reference's where one was
set on purpose.
"""

import os
import stat
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .chooser import Chooser
from .observer import Look, differences, look, names_below
from .operations import BRANCH, MOUNT, Operation, Tree, perform, short_path

HISTORY = 30
_SET_ON_PURPOSE_NS = range(10**18, 12 * 10**17)  # the years 2001 to 2008, as the chooser draws them
_STRUCTURAL = frozenset(
    "create overwrite save rename noreplace exchange link symlink mkdir mkfifo rmdir unlink".split()
)
_ALWAYS_VISIBLE = frozenset("mkdir rmdir unlink symlink mkfifo".split())  # when they succeed
_CHANGES_HELD_FILE = {"held_write", "held_truncate"}
_DESCENDANTS_CHECKED = 40
_POLL_S = 0.002


class Mismatch(Exception):
    """The three trees differ where they must not; the text says where and how."""


@dataclass
class Counts:
    """What a run did."""

    operations: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    comparisons: int = 0
    late_outcomes: int = 0  # refused through the mount, right within the time to settle
    lags_s: list[float] = field(default_factory=list)


class Fuzzer:
    """One run over three directories that show the same tree at the start: all empty."""

    def __init__(
        self,
        bases: tuple[bytes, bytes, bytes],
        chooser: Chooser,
        *,
        settle_s: float,
        xattrs: str,
        skip_on_reference: int = -1,
    ) -> None:
        mount, branch, reference = bases
        self.sides = {MOUNT: Tree(mount), BRANCH: Tree(branch)}
        self.reference = Tree(reference)
        self.chooser = chooser
        self.counts = Counts()
        self.history: deque[str] = deque(maxlen=HISTORY)
        self._settle_s = settle_s
        self._xattrs = xattrs
        self._skip_on_reference = skip_on_reference
        self._entries: dict[bytes, tuple[int, int]] = {}
        self._behind_s: dict[bytes, float] = {}  # when a name was last changed behind the mount

    def step(self, number: int) -> None:
        """Draw one operation, do it twice, compare; raises Mismatch."""
        operation = self._sensible(self.chooser.draw(number, self._entries))
        self.history.append(str(operation))
        concerned = self._concerned(operation)
        outcome = perform(operation, self.sides[operation.side])
        done_s = time.monotonic()
        expected = self._do_on_reference(operation, outcome)
        self.history[-1] += f" -> {_brief(outcome)}"
        if operation.kind in _STRUCTURAL:
            self._entries = {name: (inode, kind) for name, inode, kind in names_below(self.reference.base)}
        concerned |= self._concerned(operation)
        self.counts.operations[f"{operation.side}.{operation.kind}"] += 1
        self.counts.refused += isinstance(outcome, str)
        if operation.side == BRANCH:
            parents = {os.path.dirname(path) for path in operation.paths} - set(operation.paths)
            self._behind_s |= dict.fromkeys(concerned - parents, done_s)
        self._compare_outcomes(operation, outcome, expected, done_s)
        self._compare_after(operation, concerned, done_s)

    def walk(self) -> None:
        """Compare the three trees whole; the mount may take its time to settle."""
        deadline_s = time.monotonic() + self._settle_s
        while problem := self._whole_difference():
            if time.monotonic() > deadline_s:
                raise Mismatch(f"in the full walk: {problem}")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """Close all held descriptors."""
        for tree in (*self.sides.values(), self.reference):
            tree.close()

    # -- doing -------------------------------------------------------------------------------------

    def _sensible(self, operation: Operation) -> Operation:
        """What has one right outcome: some operations behind the mount have none, and are changed into one that has.

        No one can see a change made behind the mount to a file without a name: that one is closed. Where a file
        inherits attributes, the mount knows some that the real file lacks: they can be set behind the mount
        whatever the file has, and removed there only if it has them.
        """
        if operation.side != BRANCH:
            return operation
        if operation.kind in _CHANGES_HELD_FILE and not os.fstat(self.reference.handles[operation.handle]).st_nlink:
            return Operation(operation.number, "held_close", operation.side, (), operation.handle)
        if self._xattrs == "inherit" and operation.kind == "setxattr":
            return replace(operation, arguments=operation.arguments | {"flags": 0})
        if self._xattrs == "inherit" and operation.kind == "removexattr":
            attributes = look(self.sides[BRANCH].path(operation.paths[0])).view.attributes
            if operation.arguments["name"] not in [attribute[0] for attribute in attributes]:
                return replace(operation, side=MOUNT)
        return operation

    def _do_on_reference(self, operation: Operation, outcome: object) -> object:
        planted = 0 <= self._skip_on_reference <= operation.number
        if planted and outcome is None and operation.kind in _ALWAYS_VISIBLE:
            self._skip_on_reference = -1
            return outcome
        inherited = self._to_inherit(operation)
        expected = perform(operation, self.reference)
        if expected is None:
            for name, value in inherited:
                _set_anyway(self.reference.path(operation.paths[-1 if operation.kind == "rename" else 0]), name, value)
        if operation.kind == "hold":
            if expected is None:
                self.chooser.held(operation)
        elif operation.kind == "held_close":
            self.chooser.released(operation.handle)
        return expected

    def _to_inherit(self, operation: Operation) -> tuple[tuple[bytes, bytes], ...]:
        """The attributes that a file takes over from the one it replaces, on a mount that keeps them.

        One that has attributes or other names already is somebody of its own and takes over nothing.
        """
        if self._xattrs != "inherit" or operation.kind not in ("rename", "save"):
            return ()
        new, old = operation.paths if operation.kind == "rename" else reversed(operation.paths)
        target, source = look(self.reference.path(old)), look(self.reference.path(new))
        if not stat.S_ISREG(target.view.kind) or isinstance(target.view.attributes, str):
            return ()
        if source.view.attributes or source.view.links > 1 or source.inode == target.inode:
            return ()
        if operation.kind == "rename" and not stat.S_ISREG(source.view.kind):
            return ()
        return target.view.attributes

    # -- what is concerned -------------------------------------------------------------------------

    def _concerned(self, operation: Operation) -> set[bytes]:
        names = set(operation.paths)
        if operation.handle and operation.handle in self.reference.handles:
            inode = os.fstat(self.reference.handles[operation.handle]).st_ino
            names |= {name for name, (known, _) in self._entries.items() if known == inode}
        for name in operation.paths:
            names.add(os.path.dirname(name))
            inode, kind = self._entries.get(name, (0, 0))
            if kind == stat.S_IFDIR:
                below = [known for known in self._entries if known.startswith(name + b"/")]
                names |= set(self.chooser.some(below, _DESCENDANTS_CHECKED))
            elif kind:
                names |= {known for known, (other, _) in self._entries.items() if other == inode}
        return names

    # -- comparing ---------------------------------------------------------------------------------

    def _compare_outcomes(self, operation: Operation, outcome: object, expected: object, done_s: float) -> None:
        if outcome == expected:
            return
        if operation.side == MOUNT and (operation.kind == "held_read" or isinstance(outcome, str)):
            allowed_s = self._still_allowed_s(operation)

            def differs() -> str:
                again = perform(operation, self.sides[MOUNT])
                return "" if again == expected else f"{operation.kind}: {_where(again, expected)}"

            if allowed_s:
                self.counts.late_outcomes += 1
                self._settles(differs, done_s, allowed_s)
                return
        raise Mismatch(f"{operation.kind}: {_where(outcome, expected)}")

    def _still_allowed_s(self, operation: Operation) -> float:
        """How long an operation through the mount may still meet what was there before a change behind it.

        Only where that change touched its names or directories above them; the refused operation did nothing,
        so it can be tried again. A held file may have lost the name that the change was made under.
        """
        if operation.handle:
            latest_s = max(self._behind_s.values(), default=0.0)
        else:
            ancestry = {path[:end] for path in operation.paths for end in _ends(path)}
            latest_s = max((when_s for name, when_s in self._behind_s.items() if name in ancestry), default=0.0)
        return max(0.0, latest_s + self._settle_s - time.monotonic())

    def _compare_after(self, operation: Operation, concerned: set[bytes], done_s: float) -> None:
        others = set(self.chooser.some(self._entries.keys(), 4)) | {
            self.chooser.absent(self._entries) for _ in range(2)
        }
        pending = sorted(concerned | others)
        behind = operation.side == BRANCH and operation.kind not in ("hold", "held_read", "held_close")

        def differs() -> str:
            problems = [(name, self._difference(name)) for name in pending]
            pending[:] = [name for name, problem in problems if problem]
            return next((problem for _, problem in problems if problem), "")

        lag_s = self._settles(differs, done_s, self._settle_s if behind else 0.0)
        if behind:
            self.counts.lags_s.append(lag_s)

    def _settles(self, differs: Callable[[], str], done_s: float, allowed_s: float) -> float:
        """Repeat until nothing differs; the time that took, 0 when nothing differed at the first look."""
        problem = differs()
        if not problem:
            return 0.0
        while problem:
            waited_s = time.monotonic() - done_s
            if waited_s > allowed_s:
                when = f"{waited_s:.2f} s after a change behind the mount" if allowed_s else "at once"
                raise Mismatch(f"{when}: {problem}")
            time.sleep(_POLL_S)
            problem = differs()
        return time.monotonic() - done_s

    def _difference(self, name: bytes) -> str:
        """How the three trees differ at one name, empty when they agree."""
        self.counts.comparisons += 1
        seen, real, right = (self._look(tree, name) for tree in (self.sides[MOUNT], self.sides[BRANCH], self.reference))
        found = differences(seen.view, right.view)
        if not found:
            found = {f"branch's {key}": pair for key, pair in differences(real.view, right.view).items()}
            if self._xattrs == "inherit":
                found.pop("branch's attributes", None)
        if not found:
            found = self._wrong_times(seen, real, right) | self._split_links(name, seen)
        return "; ".join(f"{short_path(name)} {key}: {_where(*pair)}" for key, pair in found.items())

    def _look(self, tree: Tree, name: bytes) -> Look:
        return look(tree.path(name) if name else tree.base, attributes=self._xattrs != "off")

    def _wrong_times(self, seen: Look, real: Look, right: Look) -> dict[str, tuple[object, object]]:
        if seen.view.error:
            return {}
        if right.mtime_ns in _SET_ON_PURPOSE_NS and seen.mtime_ns != right.mtime_ns:
            return {"mtime_ns": (seen.mtime_ns, right.mtime_ns)}
        if seen.mtime_ns != real.mtime_ns:
            return {"mtime_ns against the branch": (seen.mtime_ns, real.mtime_ns)}
        return {}

    def _split_links(self, name: bytes, seen: Look) -> dict[str, tuple[object, object]]:
        """Names of one file must have one inode number."""
        if seen.view.links < 2 or name not in self._entries:
            return {}
        inode = self._entries[name][0]
        others = [known for known, (number, _) in self._entries.items() if number == inode and known != name]
        for other in others[:1]:
            try:
                number = os.lstat(self.sides[MOUNT].path(other)).st_ino
            except (FileNotFoundError, NotADirectoryError):
                return {f"other name {short_path(other)}": ("absent", "there")}
            if number != seen.inode:
                return {f"inode number beside {short_path(other)}": (seen.inode, number)}
        return {}

    def _whole_difference(self) -> str:
        mount, branch, reference = (
            {name: (inode, kind) for name, inode, kind in names_below(tree.base)}
            for tree in (self.sides[MOUNT], self.sides[BRANCH], self.reference)
        )
        for label, found in (("the mount", mount), ("the branch", branch)):
            if found.keys() != reference.keys():
                extra, missing = found.keys() - reference.keys(), reference.keys() - found.keys()
                return f"{label} has {_brief(sorted(extra))} too many and {_brief(sorted(missing))} too few"
        pairs = {(mount[name][0], reference[name][0]) for name in reference}
        if not len(pairs) == len({one for one, _ in pairs}) == len({two for _, two in pairs}):
            return "inode numbers of the mount are shared by different files or split between names of one"
        return next(filter(None, map(self._difference, [b"", *sorted(reference)])), "")


def _ends(path: bytes) -> list[int]:
    """Where the path and each directory above it end."""
    return [place for place, byte in enumerate(path) if byte == ord("/")] + [len(path)]


def _set_anyway(path: bytes, name: bytes, value: bytes) -> None:
    """Set an attribute on the reference also where the mode forbids it."""
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    os.chmod(path, mode | 0o200)
    os.setxattr(path, name, value)
    os.chmod(path, mode)


def _where(seen: object, expected: object) -> str:
    """Both values in short; for bytes the first place that differs."""
    if isinstance(seen, bytes) and isinstance(expected, bytes):
        place = next(
            (index for index, pair in enumerate(zip(seen, expected, strict=False)) if pair[0] != pair[1]),
            min(len(seen), len(expected)),
        )
        return (
            f"{len(seen)} bytes for {len(expected)}, first different at {place}:"
            f" {seen[place : place + 8]!r} for {expected[place : place + 8]!r}"
        )
    return f"got {_brief(seen)}, expected {_brief(expected)}"


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]}… ({len(text)} characters)"
