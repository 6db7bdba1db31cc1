"""Events of directories that are watched and that the index does not have yet.

A worker that walks sets the watch of a new directory before it lists it, on the inotify instance of this process. What
happens there until its report is written has no row to go to: it waits here, by the number of the watch, and is told
when the directory has its row (`Watch.place`). So nothing between a listing and its report is missed, and nothing has
to be listed twice.

In: events of numbers that nobody knows. Out: those of one number. What is kept is bounded: `lapses` counts how often
some were lost, here or in the kernel's queue, and who gets a row then is looked at whole.
"""

from index.scan.inotify import Event

#: Names kept for all directories together.
_NAMES_MAX = 65_536


class Unplaced:
    """Used on the loop only."""

    def __init__(self) -> None:
        self._of: dict[int, dict[tuple[int, bytes], None]] = {}
        self._count = 0
        self.lapses = 0

    def add(self, event: Event) -> None:
        """Keep an event until its directory has a row."""
        kept = self._of.setdefault(event.wd, {})
        if (event.mask, event.name) in kept:
            return
        if self._count >= _NAMES_MAX:
            self.lapse()
            return
        kept[event.mask, event.name] = None
        self._count += 1

    def take(self, wd: int) -> list[Event]:
        """What was kept of a number, in the order of its first coming."""
        kept = self._of.pop(wd, {})
        self._count -= len(kept)
        return [Event(wd, mask, 0, name) for mask, name in kept]

    def lapse(self) -> None:
        """Some were lost: what was kept says no more than the rest."""
        self.lapses += 1
        self.clear()

    def clear(self) -> None:
        """Nobody walks any more: who has no row now gets none."""
        self._of.clear()
        self._count = 0
