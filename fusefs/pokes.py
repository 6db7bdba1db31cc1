"""Pokes: the rounds in which who watches a directory of the mount hears of what came from elsewhere.

In: wishes (wishes.py). Out: calls of the poker, a worker process that pokes the mount (poker.py), and what its
requests are answered by (poked.py). A round takes what is wished for, waits until the kernel has been told to forget
it, asks who watches, has made of it what is to be poked (pokeplan.py), and has that done, some names at a time. Half a
second lies between two rounds. Nobody waits for a round, and one that fails costs its names: their directories are told
of in the next.

Only what the kernel holds can be watched, since a watch keeps its inode. Who watches is asked of /proc; where that does
not show all who may, directories that somebody opened lately count as watched.
"""

import logging
import os
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import trio

from fusefs.invalidate import Notifier
from fusefs.kernel.inodes import Ledger
from fusefs.kernel.poking import Place
from fusefs.pokeplan import Plan, Poke
from fusefs.views.base import ViewNode
from fusefs.wishes import Wish, Wishes
from index.model.change import Change
from index.model.entry import KIND_DIR, KIND_FILE, KIND_SYMLINK
from index.model.errors import VdfsError
from index.scan.workers import WorkerPool
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.mount")

#: Changes are gathered for so long before a round, and so long lies between two.
_GATHER_S: Final = 0.05
_ROUND_S: Final = 0.5
#: Asking who watches is to take at most one part in so many of the time.
_REST: Final = 10
_REST_MAX_S: Final = 1.0
#: How often what failed is tried again.
_TRIES: Final = 4
#: Pokes of one call of the poker.
CALL_POKES_MAX: Final = 32
#: How long the kernel may take to forget, and the poker to answer.
_TOLD_S: Final = 2.0
_CALL_S: Final = 5.0
_START_S: Final = 30.0
#: Directories that count as opened lately.
_RECENT_MAX: Final = 256
_TYPES: Final = {KIND_DIR: stat.S_IFDIR, KIND_SYMLINK: stat.S_IFLNK}


class Phantom(ViewNode):
    """What stands for something that is gone, so that the kernel can take its name away."""

    def __init__(self, name: bytes, kind: int) -> None:
        super().__init__((b"poke", secrets.token_bytes(8), name), os.getuid(), os.getgid())
        self.mode = _TYPES.get(kind, stat.S_IFREG) | 0o600


class Pokes:
    """Used on the loop only; `run()` is its life. `device` is the mount's, as mountinfo has it."""

    def __init__(
        self, tree: Tree, ledger: Ledger, notifier: Notifier, pool: WorkerPool, mountpoint: Path, device: str
    ) -> None:
        self.tree = tree
        self.ledger = ledger
        self.notifier = notifier
        self.pool = pool
        self.mountpoint = os.fsencode(mountpoint)
        self.device = os.makedev(*map(int, device.split(":"))) if device else 0
        self.wishes = Wishes(tree, ledger)
        self.plan = Plan(tree, ledger)
        #: A name at the top that the poker looks up first.
        self.greeting = b".poke-" + secrets.token_hex(8).encode()
        self.greeted = Phantom(self.greeting, KIND_FILE)
        self.pids: dict[int, int] = {}  # pokers that were greeted, and when each began
        self._caller = 0  # the one of them that is at work just now,
        self._asked: dict[Place, Poke] = {}  # what it is to do yet, by each name of it,
        self.shown: set[Place] = set()  # and what it was shown that is not there
        self._recent: OrderedDict[int, None] = OrderedDict()
        self._wake = trio.Event()
        self._is_refused = False
        self._failures = 0  # one after the other
        self.done = 0

    def note(self, origin: str, parent: Node, one: Change) -> None:
        """A change of a name that the kernel is told to forget."""
        if self.wishes.note(origin, parent, one):
            self._wake.set()

    def opened(self, directory: Node) -> None:
        """Somebody lists a directory."""
        self._recent[directory.ino] = None
        self._recent.move_to_end(directory.ino)
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)

    # the poker's requests ---------------------------------------------------------------------------------------------

    def greets(self, pid: int) -> bool:
        """Who looks up the greeting is the poker, if we have one of that number."""
        if pid not in self.pool.pids():
            return False
        self.pids = {old: began for old, began in self.pids.items() if _began(old) == began}
        self.pids[pid] = _began(pid)
        self._caller = pid
        return True

    def is_poker(self, pid: int) -> bool:
        """Whether a request comes from a poker, be it one that nobody waits for any more."""
        if pid not in self.pids:
            return False
        if pid == self._caller or _began(pid) == self.pids[pid]:
            return True
        del self.pids[pid]  # the number is somebody else's by now
        return False

    def asked(self, pid: int, place: Place) -> Poke | None:
        """The poke that a request of a poker belongs to; None when there is none, or none any more."""
        return self._asked.get(place) if pid == self._caller else None

    def answered(self, poke: Poke) -> None:
        """The kernel raises the event of a poke with our answer: its names mean what is there from now on."""
        self.done += 1
        for place in poke.places:
            self._asked.pop(place, None)
            self.wishes.settle(place)

    # rounds -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have what is wished for poked, round by round, for ever."""
        self.notifier.names_changed = self.note
        if self.tree.remotes:
            with suppress(VdfsError, trio.TooSlowError):
                await self._who_watches()  # so that the poker is there when somebody tells of something
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(_GATHER_S)
            began_s = time.monotonic()
            await self._round()
            await trio.sleep(_ROUND_S - (time.monotonic() - began_s) if began_s + _ROUND_S > time.monotonic() else 0)

    async def _round(self) -> None:
        taken, directories = self.wishes.take()
        try:
            with trio.move_on_after(_TOLD_S):
                await self.notifier.all_told()
            began_s = time.monotonic()
            is_watched = await self._who_watches()
            took_s = time.monotonic() - began_s
            names = {place: wish for place, wish in taken.items() if is_watched(place[0], wish.number)}
            pokes, left = await self.plan.of(names, [ino for ino in directories if is_watched(ino, 0)])
            self.wishes.settle_but({place for poke in pokes for place in poke.places})
            for at in range(0, len(pokes), CALL_POKES_MAX):
                began_s = time.monotonic()
                await self._call(pokes[at : at + CALL_POKES_MAX])
                await trio.sleep(time.monotonic() - began_s)  # the poker is in the mount, so it cannot be ended
            self._failures = 0
            for ino in left:
                self.wishes.too_many(ino)
                self._wake.set()
            await trio.sleep(0 if pokes else min(_REST * took_s, _REST_MAX_S))
        except (VdfsError, trio.TooSlowError) as error:
            await self._failed(error, {*directories, *(place[0] for place in taken)})
        finally:
            self.wishes.settle_but()
            self._forget_faces(taken.values())

    async def _failed(self, error: Exception, directories: set[int]) -> None:
        """Pokes were lost, all or some: their directories are told of later, if the poker comes back."""
        log.info("events of what came from elsewhere were not raised: %s", str(error) or "the poker does not answer")
        self._failures += 1
        if self._failures <= _TRIES:
            for ino in directories:
                self.wishes.too_many(ino)
            self._wake.set()
        await trio.sleep(_ROUND_S * min(self._failures, _TRIES))

    def _forget_faces(self, taken: Iterable[Wish]) -> None:
        """Answers that were prepared while a name was awaited say that it is to be asked for each time."""
        for wish in taken:
            node = self.tree.nodes.get(wish.number)
            if node is not None:
                node.face = None

    async def _who_watches(self) -> Any:
        """Whether somebody may watch a directory, or what has that number in it."""
        with trio.fail_after(_START_S):
            told = await self.pool.call("watched", {"device": self.device, "shared": self.tree.is_shared})
        watched, recent = set(told["inodes"]), self._recent if told["blind"] else ()
        return lambda directory, number: directory in watched or number in watched or directory in recent

    async def _call(self, pokes: list[Poke]) -> None:
        arguments = {"mountpoint": self.mountpoint, "device": self.device, "greeting": self.greeting}
        with self._answering(pokes), trio.fail_after(_CALL_S):
            done = await self.pool.call("poke", {**arguments, "pokes": [poke.packed() for poke in pokes]})
        if done is None and not self._is_refused:
            log.info("the mount is not where it was, or the poker is not known: no events are raised")
        self._is_refused = done is None

    @contextmanager
    def _answering(self, pokes: list[Poke]) -> Iterator[None]:
        """While the poker is at work its requests are answered as these pokes need it."""
        self._asked = {place: poke for poke in pokes for place in poke.places}
        try:
            yield
        finally:
            self._asked, self._caller = {}, 0
            self.shown.clear()


def _began(pid: int) -> int:
    """When a process began, in ticks of the system; 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
