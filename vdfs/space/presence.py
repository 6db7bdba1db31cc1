"""Presence: what follows when a branch goes away or comes back.

Whoever finds it out (a request, the watcher, the housekeeping, a volume that was plugged in) only notes the branch's
state; here the change is acted upon, once: descriptors and watches of what was there are let go, whoever shows its
entries looks again, and one that is back is watched and walked.
"""

import logging
import os
from collections.abc import Callable

from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.tree import Tree
from vdfs.space.watch import Watch

log = logging.getLogger("sdmount.core")


class Presence:
    """Used on the loop only."""

    def __init__(self, tree: Tree, watch: Watch, begin: Callable[[Branch], None]) -> None:
        self.tree = tree
        self.watch = watch
        self._begin = begin  # have a branch watched and walked that is back
        self._acted: dict[int, bool] = {}  # branch -> whether it was away when that was last acted upon

    async def look(self, branch: Branch) -> bool:
        """Look at a branch's root, and act upon a change; returns whether there was one."""
        before = branch.state
        was_away = self._acted.setdefault(branch.id, before == MISSING)
        has_changed = await branch.check_slow() if branch.slow else self.tree.check(branch)
        is_away = branch.state == MISSING
        if not has_changed and is_away == was_away:
            return False
        self._acted[branch.id] = is_away
        log.warning("%s is %s now (was %s)", os.fsdecode(branch.root_path), branch.state, before)
        await self.came_or_went(branch)
        return True

    async def came_or_went(self, branch: Branch) -> None:
        """A branch is another way than before, or stands elsewhere."""
        self._acted[branch.id] = branch.state == MISSING
        self.tree.dirs.close_branch(branch)
        await self.watch.forget_branch(branch)
        self.tree.branch_changed(branch)
        if branch.state == LIVE:
            self._begin(branch)
