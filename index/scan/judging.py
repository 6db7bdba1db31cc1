"""Judging again, in a worker process: which rows say another rule than their branch's rules do now.

In: as for a walk (walker.py), and how deep each directory is judged. Out: batches of [directory, [[entry, name, rule],
...]], differences alone. Names are those of the rows, not of the disk: what the disk has beside them is the walk's
matter. Of the disk only the lists of patterns are read.

What cannot be opened for want of permission is judged by what is known above it. A directory that is not where its row
says is left out: it has moved, or is gone, and who sees that has it judged.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw

from index.model.emitter import Emitter
from index.model.entry import KIND_DIR
from index.model.inode import inode_of
from index.scan.fsid import fs_identity_fd
from index.scan.rules.ruler import SPEAKING, Ruler
from index.scan.volumes import MOUNTED, use_devices
from index.scan.walker import BATCH_ROWS, ELSEWHERE, NOT_HERE, Dir, Walk, places_of, ruler_of
from index.store import entries
from index.store.connection import connect


class Judging(Walk):
    """One pass over the rows of some directories."""

    def __init__(self, db: apsw.Connection, root_fd: int, context: Emitter, ruler: Ruler) -> None:
        super().__init__(db, root_fd, context, ruler)
        self.shut: set[int] = set()  # directories of slow file systems that are mounted inside: nobody opens them

    def judge_all(self, starts: list[tuple[Dir, bool]]) -> None:
        todo = starts[::-1]
        while todo and not self.context.stopped():
            directory, deep = todo.pop()
            below = self.judge_in(directory)
            todo.extend((one, True) for one, differs in reversed(below) if deep or differs)
        self.flush_ruled()

    def judge_in(self, directory: Dir) -> list[tuple[Dir, bool]]:
        """Compare the rows of one directory, tell what differs, return its directories, and whether their rule does."""
        me = entries.listed_as(self.db, directory.entry_id)
        if me is None:
            return []
        rows = entries.ruled_names(self.db, directory.entry_id)
        directory.told = me[3] if directory.told is None else directory.told
        try:
            self.look_in(directory, {name for _, name, _, _ in rows if name in SPEAKING}, me[2])
        except OSError as error:
            if error.errno in NOT_HERE:
                return []
            self.enter(directory, None)
        scope = directory.scope
        assert scope is not None
        ruled: list[Any] = []
        if directory.parent is not None and scope.rule != directory.told:
            ruled.append([directory.entry_id, directory.name, scope.rule])
        judge, hides = scope.judging(), directory.excluded
        below: list[tuple[Dir, bool]] = []
        for entry_id, name, kind, told in rows:
            is_dir = kind == KIND_DIR
            rule = judge(name, is_dir)
            differs = rule != told and not (is_dir and told in self.by_children)
            if differs:
                ruled.append([entry_id, name, rule])
                told = rule
            if is_dir:
                leaf = hides.get(name) if hides else None
                if directory.entry_id in self.shut or leaf is True or leaf == MOUNTED:
                    self.shut.add(entry_id)
                    leaf = None
                below.append((Dir(entry_id, directory, name, leaf, rule, told), differs))
        self.report_ruled(directory, ruled)
        return below

    def look_in(self, directory: Dir, speaking: set[bytes], st_ino: int) -> None:
        """Find out what the rules say in a directory; it is opened only where that may tell something."""
        above = directory.parent
        if directory.entry_id in self.shut or directory.rule or (above and above.scope and above.scope.rule):
            self.enter(directory, None)
            return
        fd = self.open(directory)
        try:
            if directory.parent is not None and inode_of(os.fstat(fd)) != st_ino:
                raise FileNotFoundError(2, "another directory stands there")
            self.enter(directory, fd, speaking)
        finally:
            os.close(fd)

    def report_ruled(self, directory: Dir, ruled: list[Any]) -> None:
        for start in range(0, len(ruled), BATCH_ROWS):
            some = ruled[start : start + BATCH_ROWS]
            self.batch.append([directory.entry_id, some])
            self.rows += len(some)
            if self.rows >= BATCH_ROWS:
                self.flush_ruled()

    def flush_ruled(self) -> None:
        if self.batch:
            self.context.emit(self.batch)
        self.batch, self.rows = [], 0


def judge(args: Mapping[str, Any], context: Emitter) -> list[list[Any]]:
    """Stream the differences; return the notes on lists of patterns that count as empty, as [path, why].

    args: as for `walker.scan`, but starts are pairs of an entry and whether all below it is judged too; below a
    directory that gets another rule all is, since it was judged by the old one.
    """
    use_devices(*args["devices"])
    ruler = ruler_of(args)
    assert ruler is not None
    db = connect(Path(args["database"]), read_only=True)
    root_fd = os.open(args["root"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if list(fs_identity_fd(root_fd)) != list(args["root_id"]):
            raise FileNotFoundError(2, "another directory stands at the branch's root")
        places = places_of(db, args["root_entry"], [entry_id for entry_id, _ in args["starts"]], args["excluded"])
        starts = [
            (place, bool(deep))
            for place, (_, deep) in zip(places, args["starts"], strict=True)
            if place is not None and place is not ELSEWHERE
        ]
        Judging(db, root_fd, context, ruler).judge_all(starts)
        return [[path, why] for path, why in ruler.notes]
    finally:
        os.close(root_fd)
        db.close()
