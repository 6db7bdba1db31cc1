"""Directories without a name for a moment: one that is renamed again and again is under none of the names looked at.

A round of the watch looks at one name after the other, and a directory may be under each of them just when another is
looked at. What is in it would be taken out and found anew, as other files where nothing but an inode's number says
which they are. But a watch ends with its inode, and the kernel tells that at once: as long as it stands, the directory
lives. So while directories are being renamed, one that lives and has no name is looked for again in the next round.
One that was moved out of all locations is let go of at once, or when the renaming is over. Whoever asks meanwhile is
told what the disk says: there is no such name.

In: renames that were heard whole; rows of directories without a name, round by round. Out: whether to wait.
"""

import math
import time

#: Directories are being renamed until a round begins that has heard nothing of it for so long,
_CALM_S = 1.0
#: and none is waited for longer than this.
_WINDOW_S = 3.0


class Roaming:
    """The directories that are waited for. Used on the loop only."""

    def __init__(self) -> None:
        self._heard_s = -math.inf  # when a rename of a directory was heard last
        self._began_s = 0.0  # when this round began
        self._since_s: dict[int, float] = {}  # row -> when it was found to have no name
        self._seen: dict[int, float] = {}  # the same, of those that had none in this round

    def note_renamed(self) -> None:
        """A directory was renamed within what is watched."""
        self._heard_s = time.monotonic()

    def begin_round(self) -> None:
        """Those of which the last round saw nothing have a name, or are given up."""
        self._began_s = time.monotonic()
        self._since_s, self._seen = self._seen, {}

    def is_waited_for(self, entry_id: int) -> bool:
        """A directory that lives has no name: whether it is to be looked for in the next round too."""
        now_s = time.monotonic()
        since_s = self._since_s.get(entry_id, now_s)
        if self._began_s - self._heard_s > _CALM_S or now_s - since_s > _WINDOW_S:
            return False
        self._seen[entry_id] = since_s
        return True
