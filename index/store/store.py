"""Store: the library's database as the rest of the house sees it: a connection to read, units to write, a feed.

One writer, on the loop. Point reads run inline on the same connection (about 15 us; a hop through a thread costs ten
times that); long reads (search, statistics, verification) take a connection of their own from `reader()` in a thread.
A unit that fails because the disk is full leaves the file as it was and raises NoSpace. From then on the ballast is
gone (ballast.py), units that follow the disk find room again, and who would make something new is refused
(`refuse_if_full`) until `hold_ballast` finds room.

What was committed goes from the log into the database in a thread (`checkpoint`), since that waits for the disk.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import apsw

from index.model import ids
from index.model.change import ORIGIN_SCAN, Change
from index.model.errors import NoSpace, StoreCorrupt, VdfsError
from index.model.hlc import Hlc
from index.model.ids import new_uuid
from index.store import changes, devices, pending, sums
from index.store.ballast import Ballast
from index.store.connection import translate
from index.store.feed import Feed
from index.store.ground import Ground
from index.store.migrations import migrate
from index.store.unit import NUMBER_BYTES, NoRules, Reserve, Rules, Unit

_T = TypeVar("_T")
log = logging.getLogger("sdmount.store")

#: Pages in the log from which on it is folded into the database: 16 MiB.
_CHECKPOINT_PAGES = 4096
#: Among so many numbers the first unit of a store that was opened gets its own, where there are other devices; and its
#: stamp, whose least bits are a quarter of a second.
_LEAP_BYTES = 3


class Store:
    """An open library database; `close()` it."""

    def __init__(
        self,
        path: Path,
        device_uuid: bytes,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        ground: Ground | None = None,
    ) -> None:
        self.path = path
        self.now_ns = now_ns
        self._ground = Ground() if ground is None else ground
        self.feed = Feed()
        self.rules: Rules = NoRules()
        self.is_full = False
        self.shallow: set[int] = set()  # branches whose files nobody is to read
        self.remote: set[int] = set()  # branches of other devices
        #: Told of the changes of each unit that is about to be committed; may write in it.
        self.before_commit: Callable[[Unit, Sequence[Change]], None] = lambda _unit, _changes: None
        self.is_settled = True
        self.stays_settled = 0  # how many ask for that, see `settled`
        self.number_bytes = NUMBER_BYTES
        self.has_said = False  # something that others are to hear of, since it was opened
        self.is_shared = False  # there are other devices, which are to hear of what changes
        self.wrote: Callable[[], None] = lambda: None  # called after each unit
        self.device_uuid = device_uuid
        self.db = self._ground.connect(path)
        try:
            migrate(self.db, path)
            sums.attend(self.db)
            if changes.get_meta(self.db, "library_uuid") is None:
                with self.db:
                    changes.set_meta(self.db, "library_uuid", new_uuid())
                    changes.set_meta(self.db, "epoch", 1)
                    changes.set_meta(self.db, "created_ns", now_ns())
            self.library_uuid = bytes(_need(changes.get_meta(self.db, "library_uuid"), bytes, path))
            self.epoch = _need(changes.get_meta(self.db, "epoch"), int, path)
            self.last_seq = changes.get_counter(self.db, "seq")
            self.last_entry_id = changes.get_counter(self.db, "entry")
            packed = changes.get_counter(self.db, "hlc")
            self.last_hlc = Hlc.unpacked(packed)
            self.versions_ahead = _need(changes.get_meta(self.db, changes.VERSIONS_AHEAD) or 0, int, path)
            self.moved = set(pending.moved_of(self.db, device_uuid))  # stamps that were given up
            self.reserved = Reserve(self.last_entry_id, self.last_seq, packed)
            self.is_shared = bool(devices.others(self.db, device_uuid))
            if self.is_shared:  # so that a copy of this very moment, put in place later, gives other numbers
                self.last_seq += int.from_bytes(ids.random_bytes(_LEAP_BYTES), "big")
                self.last_hlc = Hlc.unpacked(packed + int.from_bytes(ids.random_bytes(_LEAP_BYTES), "big"))
        except apsw.Error as error:
            self.db.close()
            raise translate(error, path) from error
        except BaseException:
            self.db.close()
            raise
        self.ballast = Ballast(path.with_suffix(".ballast"))
        self._log_pages = 0
        self.db.set_wal_hook(self._log_grew)
        self._wal = Path(f"{path}-wal")
        self._sync_lock = threading.Lock()
        self._commits = 1  # units and notes alike; the one is what another process may have left unsynced
        self._durable_commits = 0

    def close(self) -> None:
        with suppress(VdfsError):  # what could not be settled is added up at the next start
            self.settle()
        self.ballast.give_up()
        self.db.close()

    def now_ms(self) -> int:
        """The wall clock, for stamps."""
        return self.now_ns() // 1_000_000

    def write(self, origin: str) -> Unit:
        """A unit; use as a context manager, without an await inside."""
        return Unit(self, origin)

    @contextmanager
    def note(self) -> Iterator[apsw.Connection]:
        """A transaction that is no unit: notes of what others have, and were told. Nobody hears of it."""
        self.begin()
        try:
            yield self.db
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def leap(self, seq: int) -> None:
        """The number of the last unit is this from now on, which was put on disk; those between are given to none."""
        self.last_seq = seq
        self.reserved = self.reserved._replace(seq=seq)

    def turn_back(self, stamp: Hlc) -> None:
        """What is stamped from now on comes after a stamp that is earlier than the last one. Versions of files do not
        go back: what they were compared with is not given up."""
        ahead = self.versions_ahead + max(0, self.last_hlc.packed() - stamp.packed())
        with self.note() as db:
            changes.set_counter(db, "hlc", stamp.packed())
            changes.set_meta(db, changes.VERSIONS_AHEAD, ahead)
        self.versions_ahead = ahead
        self.last_hlc = stamp
        self.reserved = self.reserved._replace(hlc=stamp.packed())

    def settle(self) -> None:
        """Bring table sums up to date; a few steps for each directory in which something changed."""
        if not self.is_settled:
            with self.write(ORIGIN_SCAN) as unit:
                unit.settle()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Within it table sums is right in every commit, for readers with a connection of their own."""
        self.stays_settled += 1
        try:
            self.settle()
            yield
        finally:
            self.stays_settled -= 1

    def sums_below(self, dir_ids: Iterable[int]) -> sums.Sums:
        """What lies below some directories together, just now."""
        self.settle()
        return sums.of(self.db, dir_ids)

    @contextmanager
    def reader(self) -> Iterator[apsw.Connection]:
        """A read-only connection for a thread of its own."""
        db = self._ground.connect(self.path, read_only=True)
        try:
            yield db
        finally:
            db.close()

    def following(self, work: Callable[[], _T]) -> _T:
        """Do what writes down a change that the disk has made already; once more when the ballast had to go for it."""
        had_room = not self.is_full
        try:
            return work()
        except NoSpace:
            if not had_room:
                raise
            return work()

    def hold_ballast(self) -> None:
        """Take the ballast, for a library that is kept open; and see whether a disk that was full has room again."""
        if self.ballast.is_held:
            return
        if self.ballast.hold():
            self.is_full = False

    def refuse_if_full(self) -> None:
        """NoSpace while the disk of the library has no room for anything new."""
        if self.is_full:
            raise NoSpace(f"the disk that holds {self.path} is full; free some space")

    async def checkpoint(self) -> None:
        """Move what was committed from the log into the database once there is much of it, in a thread."""
        if self._log_pages >= _CHECKPOINT_PAGES:
            self._log_pages = 0  # the next commit says how much is there then
            await self._ground.aside(self._checkpoint)

    def _log_grew(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        db = self._ground.connect(self.path)
        try:
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:  # it stays in the log, and is tried again
            log.info("the log of %s could not be folded in: %s", self.path, error)
        finally:
            db.close()

    async def make_durable(self) -> None:
        """Return when everything committed so far survives a loss of power. Concurrent callers share one sync."""
        target = self._commits
        if self._durable_commits >= target:
            return
        await self._ground.aside(lambda: self._sync_wal(target))

    def _sync_wal(self, target: int) -> None:
        with self._sync_lock:
            if self._durable_commits >= target:
                return
            reached = self._commits
            try:
                self._ground.sync(self._wal)
            except FileNotFoundError:
                self._ground.sync(self.path)
            self._durable_commits = max(self._durable_commits, reached)

    # the unit's side ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._guarded("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._guarded("COMMIT")
        self._commits += 1

    def rollback(self) -> None:
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")

    def _guarded(self, sql: str) -> None:
        try:
            self.db.execute(sql)
        except apsw.Error as error:
            raise self.failure(error) from error

    def failure(self, error: apsw.Error) -> VdfsError:
        """Our error for what SQLite says inside a unit. A full disk is noted."""
        if isinstance(error, apsw.FullError):
            if not self.is_full:
                log.warning("the disk that holds %s is full: nothing new is made until it has room", self.path)
            self.is_full = True
            self.ballast.give_up()
        return translate(error, self.path)


def _need(value: object, kind: type[_T], path: Path) -> _T:
    if not isinstance(value, kind):
        raise StoreCorrupt(f"{path} lacks a fact it must have; `sd library repair` mends it")
    return value
