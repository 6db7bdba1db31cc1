"""Rules of rows as they are written: what the store is told at once, and what is left to be judged behind.

A real library on a real directory, without tasks: so what is noted stays noted and can be looked at.
"""

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from index.model.entry import Entry, Stat
from index.model.inode import DEVICES
from index.scan import apply, judging
from index.scan.rules.builtin import RuleId
from index.scan.rules.ruleset import REJECT_WITH
from index.store import entries, rulings
from tests.index.gitworld import LARGE, track
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.space.branches import Branch


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Runs a test with a library, the branch of its one location, and that directory: a repository."""

    async def with_core(test: Callable[..., Awaitable[None]]) -> None:
        config = Config(tmp_path / "data", tmp_path / "state", tmp_path / "run")
        async with open_core(config, "Library") as core:
            for name in ("objects", "refs", "info"):
                (tmp_path / "L" / ".git" / name).mkdir(parents=True)
            (tmp_path / "L" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
            (tmp_path / "L" / ".gitignore").write_text("*.o\n")
            added = await core.locations.add(os.fsencode(tmp_path / "L"), b"L")
            await test(core, added.branch, tmp_path / "L")

    return lambda test: trio.run(with_core, test)


def add(core: Core, branch: Branch, above: int, path: Path) -> Entry:
    """The row of a name that was just made."""
    st = Stat.of(os.lstat(path))
    with core.library.store.write("test") as unit:
        return apply.add(unit, branch.id, above, os.fsencode(path.name), st, core.tree, fresh=True)


def made(core: Core, branch: Branch, above: int, path: Path) -> Entry:
    """A new directory with its row, and nothing noted of it."""
    path.mkdir()
    row = add(core, branch, above, path)
    forget(core)
    return row


def noted(core: Core) -> dict[int, bool]:
    """Directory -> whether all below it is to be judged."""
    live = [branch.id for branch in core.tree.branches.values()]
    return {one.entry_id: one.deep for one in rulings.first(core.library.store.db, live, 99)}


def forget(core: Core) -> None:
    core.library.store.db.execute("DELETE FROM ruling")


class Told(list[list[Any]]):
    """What a worker tells."""

    def emit(self, batch: object) -> None:
        assert isinstance(batch, list)
        self.extend(batch)

    def stopped(self) -> bool:
        return False


def judged(core: Core, branch: Branch) -> dict[int, int]:
    """What a worker finds in what is noted: row -> rule, of those that are to get another one."""
    told = Told()
    args = {
        "database": str(core.library.store.path), "root": branch.root_path,
        "root_id": [branch.fs_id, branch.root_ino], "root_entry": branch.root_entry_id,
        "starts": list(noted(core).items()), "excluded": branch.for_workers(), "devices": DEVICES.told(),
        **core.rulers.for_worker(branch),
    }  # fmt: skip
    judging.judge(args, told)
    return {entry_id: rule for _, ruled in told for entry_id, _, rule in ruled}


def touched(path: Path, text: str = "") -> Path:
    path.write_text(text)
    return path


def test_a_new_row_has_its_rule_at_once(run):
    """By the lists on the way to it, and by the directory it is in; nothing is left to do."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        root = branch.root_entry_id
        assert add(core, branch, root, touched(top / "a.o")).rule == RuleId.GITIGNORE
        assert add(core, branch, root, touched(top / "a.c")).rule == 0
        directory = made(core, branch, root, top / "node_modules")
        assert add(core, branch, directory.id, touched(top / "node_modules" / "x")).rule == directory.rule == RuleId.DEV
        assert noted(core) == {}

    run(test)


def test_a_list_that_changes_is_heard_of_wherever_it_speaks(run):
    """In a directory, in the git directory; not in one that is held, of which all is said."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        root = branch.root_entry_id
        sub = made(core, branch, root, top / "sub")
        held = made(core, branch, root, top / "build")
        add(core, branch, sub.id, touched(top / "sub" / "x.log"))
        add(core, branch, sub.id, touched(top / "sub" / ".gitignore", "*.log\n"))
        assert noted(core) == {sub.id: True}
        assert add(core, branch, sub.id, touched(top / "sub" / "y.log")).rule == RuleId.GITIGNORE
        forget(core)
        add(core, branch, held.id, touched(top / "build" / ".gitignore"))
        assert noted(core) == {}
        git = add(core, branch, root, top / ".git")
        info = add(core, branch, git.id, top / ".git" / "info")
        forget(core)
        for row, path in ((info, top / ".git" / "info" / "exclude"), (git, top / ".git" / "index")):
            add(core, branch, row.id, touched(path))
            assert noted(core) == {root: True}
            forget(core)

    run(test)


def test_a_directory_that_moves_is_judged_with_all_below_it(run):
    """Its own rule at once, the rest behind; where it was and is held by the same rule nothing is to do."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        root = branch.root_entry_id
        build, dist = (made(core, branch, root, top / name) for name in ("build", "dist"))
        moved = made(core, branch, root, top / "moved")

        def move(above: int, path: Path) -> Entry:
            os.rename(next(top.glob("**/moved")), path)
            with core.library.store.write("test") as unit:
                return apply.add(unit, branch.id, above, b"moved", Stat.of(os.lstat(path)), core.tree)

        assert move(build.id, top / "build" / "moved").id == moved.id
        assert entries.get(core.library.store.db, moved.id).rule == RuleId.DEV
        assert noted(core) == {moved.id: True}
        forget(core)
        move(dist.id, top / "dist" / "moved")
        assert noted(core) == {}
        move(root, top / "moved")
        assert entries.get(core.library.store.db, moved.id).rule == 0

    run(test)


def test_on_a_slow_file_system_names_are_judged_by_what_is_known(run):
    """Nobody waits for it here; its directories are noted to be judged by somebody who may."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        branch.slow = True
        root = branch.root_entry_id
        assert add(core, branch, root, touched(top / "a.o")).rule == 0
        assert add(core, branch, root, touched(top / "a~")).rule == RuleId.SYSTEM
        assert noted(core) == {root: False}

    run(test)


def test_a_large_list_is_left_to_a_worker(run):
    """A name is judged by what is known, which does not hold what the list might bring back; its directory is noted."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        root = branch.root_entry_id
        sub = made(core, branch, root, top / "sub")
        add(core, branch, sub.id, touched(top / "sub" / ".gitignore", "!kept.o\n*.log\n" + "#" * LARGE))
        forget(core)
        files = [touched(top / "sub" / name) for name in ("a.log", "b.o", "kept.o")]
        log, other, kept = (add(core, branch, sub.id, path) for path in files)
        assert [log.rule, other.rule, kept.rule] == [0, 0, 0]
        assert add(core, branch, sub.id, touched(top / "sub" / "a~")).rule == RuleId.SYSTEM
        assert noted(core) == {sub.id: False}
        assert judged(core, branch) == {log.id: RuleId.GITIGNORE, other.id: RuleId.GITIGNORE}

    run(test)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_what_lies_in_a_directory_that_was_judged_wrongly_is_judged_with_it(run):
    """Of a directory that was held nobody asks what is in it, so nobody has noted it."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        root = branch.root_entry_id
        (top / ".gitignore").write_text("out/\n")
        track(os.fsencode(top), top.parent, [b"n%0200d" % number for number in range(2000)] + [b"out/deep/tracked"])
        (top / "out" / "deep").mkdir(parents=True)
        out = add(core, branch, root, top / "out")
        deep = add(core, branch, out.id, top / "out" / "deep")
        tracked = add(core, branch, deep.id, touched(top / "out" / "deep" / "tracked"))
        other = add(core, branch, deep.id, touched(top / "out" / "deep" / "other"))
        assert {row.rule for row in (out, deep, tracked, other)} == {RuleId.GITIGNORE}
        assert noted(core) == {root: False}
        assert judged(core, branch) == {out.id: 0, deep.id: 0, tracked.id: 0}

    run(test)


def test_a_unit_that_is_rolled_back_leaves_nothing_behind(run):
    """The numbers that it gave are given again, to others."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        root = branch.root_entry_id
        (top / "build").mkdir()
        st = Stat.of(os.lstat(top / "build"))
        with pytest.raises(ZeroDivisionError), core.library.store.write("test") as unit:
            row = apply.add(unit, branch.id, root, b"build", st, core.tree, fresh=True)
            assert unit.judge(branch.id, row.id, b"x", is_dir=False) == RuleId.DEV
            raise ZeroDivisionError
        other = made(core, branch, root, top / "src")
        assert other.id == row.id
        assert add(core, branch, other.id, touched(top / "src" / "x")).rule == 0

    run(test)


def test_a_child_that_says_no_is_heard_of_when_it_comes_and_goes(run):
    """Also after a restart, before anybody asked for a rule."""

    async def test(core: Core, branch: Branch, top: Path) -> None:
        ruleset = core.rulers.ruleset(branch).with_rules(REJECT_WITH, [b".svn"])
        with core.library.store.write("test") as unit:
            core.rulers.change(unit, branch.location_id, ruleset, [branch])
        assert noted(core) == {branch.root_entry_id: True}
        directory = made(core, branch, branch.root_entry_id, top / "d")
        (top / "d" / ".svn").mkdir()
        child = add(core, branch, directory.id, top / "d" / ".svn")
        assert noted(core) == {directory.id: True}
        forget(core)
        core.rulers.forget()
        core.rulers._rulers.clear()
        with core.library.store.write("test") as unit:
            apply.remove(unit, child, branch.uuid)
        assert noted(core) == {directory.id: True}

    run(test)
