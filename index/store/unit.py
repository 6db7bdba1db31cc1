"""The write unit: one transaction, one stamp, one commit.

`with store.write(origin) as unit:` is synchronous and holds no await, so on the loop it is atomic. It hands out ids
and stamps (HLC, device, epoch, seq), collects the changes and outbox rows, and publishes a `Commit` only after the
transaction is in the log. An exception inside rolls everything back, also the numbers handed out.
"""

from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

import apsw

from index.model import hlc as hlc_model
from index.model.change import ADDED, Change, Commit
from index.model.entry import Stat
from index.model.hlc import Hlc
from index.store import changes as changes_table
from index.store import entries, gaps, places, sums
from index.store.feed import Feed

#: How far numbers are reserved ahead: ids, units, and milliseconds of stamps.
_IDS_AHEAD = 4096
_SEQS_AHEAD = 1024
_STAMP_AHEAD_MS = 1000
#: What is told by one number: so many things at most, and no further one after so many bytes. So it fits into a page
#: (sync/log/pages.py), and who takes it in is not held up.
NUMBER_TOLD = 500
NUMBER_BYTES = 1 << 18
#: From so many changes on a unit settles what directories hold (sums.py).
_LARGE_CHANGES = 256


class Reserve(NamedTuple):
    """The bounds on disk: every number handed out so far is at most these."""

    entry_id: int
    seq: int
    hlc: int

    def beyond(self, entry_id: int, seq: int, stamp: Hlc) -> "tuple[int, int, int] | None":
        """New bounds when a unit's numbers pass these, None while they hold."""
        if entry_id <= self.entry_id and seq <= self.seq and stamp.packed() <= self.hlc:
            return None
        ahead = Hlc(stamp.time_ms + _STAMP_AHEAD_MS, 0).packed()
        return (
            self.entry_id if entry_id <= self.entry_id else entry_id + _IDS_AHEAD,
            self.seq if seq <= self.seq else seq + _SEQS_AHEAD,
            max(self.hlc, ahead),
        )


class Rules(Protocol):
    """Who says which rule holds a name back (docs/rules.md), and hears of what may change that."""

    def judge(self, unit: "Unit", branch_id: int, parent_id: int, name: bytes, is_dir: bool) -> int:
        """The rule of a name; 0 for none."""
        ...

    def heard(self, unit: "Unit", changes: Sequence[Change], before_id: int, known: Collection[int]) -> None:
        """A unit is about to be committed. `before_id`: the last number given before it; `known`: directories whose
        lists of patterns were read by who told what is in them."""
        ...

    def forget(self) -> None:
        """What was found out of directories may not be so any more."""
        ...


class NoRules:
    """Where nobody judges, nothing is held."""

    def judge(self, unit: "Unit", branch_id: int, parent_id: int, name: bytes, is_dir: bool) -> int:
        return 0

    def heard(self, unit: "Unit", changes: Sequence[Change], before_id: int, known: Collection[int]) -> None:
        return

    def forget(self) -> None:
        return


class Host(Protocol):
    """What a unit needs of the store it writes to: the connection, the last numbers given, begin and end."""

    db: apsw.Connection
    feed: Feed
    device_uuid: bytes
    epoch: int
    last_seq: int
    last_hlc: Hlc
    versions_ahead: int
    last_entry_id: int
    moved: set[int]
    reserved: Reserve
    shallow: set[int]
    remote: set[int]
    before_commit: Callable[["Unit", Sequence[Change]], None]
    is_settled: bool
    stays_settled: int
    is_shared: bool
    has_said: bool
    number_bytes: int
    rules: Rules

    def now_ms(self) -> int: ...

    def wrote(self) -> None: ...

    def begin(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def failure(self, error: apsw.Error) -> Exception: ...


class Unit:
    """One open transaction. `db`, `seq`, `hlc`, `device` and `epoch` are for the table functions.

    `seq` is the number that rows are written with, `said_seq` the one that what is told just now goes by: the same, but
    where a unit tells so much that it takes several, one after the other.
    """

    def __init__(self, store: Host, origin: str) -> None:
        self._store = store
        self.origin = origin
        self.db: apsw.Connection = store.db
        self.device = store.device_uuid
        self.epoch = store.epoch
        self.shallow = store.shallow
        self.remote = store.remote
        self.seq = self.said_seq = store.last_seq + 1
        self._stamp = hlc_model.tick(store.last_hlc, store.now_ms())
        while store.moved and self._stamp.packed() in store.moved:
            self._stamp = hlc_model.tick(self._stamp, 0)
        self.hlc = self._stamp.packed()
        self._next_id = store.last_entry_id
        self._changes: list[Change] = []
        self._part = 0
        self._told = self._told_bytes = 0  # by the number that has its turn
        self.is_told = False  # something is in the outbox, or a tombstone
        self._says = False
        self._settles = False
        self._one_with: dict[int, list[int]] = {}
        self._branch_uuids: dict[int, bytes] = {}
        self._known_lists: set[int] = set()
        self._linked: dict[tuple[int, int], tuple[Stat, int]] = {}

    def new_id(self) -> int:
        """The id of a new entry row, which is its inode number too unless it shares another's."""
        self._next_id += 1
        return self._next_id

    def new_ids(self, count: int) -> range:
        """The ids of so many new rows."""
        first = self._next_id + 1
        self._next_id += count
        return range(first, first + count)

    @property
    def last_id(self) -> int:
        """The highest id that was given so far."""
        return self._next_id

    @property
    def version(self) -> int:
        """The stamp of the versions of files that are made in the unit: its own, and as much later as the clock was
        turned back since, so that it is later than any that a version has."""
        return self.hlc + self._store.versions_ahead

    def one_with(self, directory: int) -> list[int]:
        """The directories of other branches that are one with a directory, asked once a unit."""
        found = self._one_with.get(directory)
        if found is None:
            found = self._one_with[directory] = entries.one_with(self.db, directory)
        return found

    def branch_uuid(self, branch_id: int) -> bytes:
        """The uuid of a branch, asked once a unit."""
        if branch_id not in self._branch_uuids:
            self._branch_uuids = {branch.id: branch.uuid for branch in places.branches(self.db)}
        return self._branch_uuids[branch_id]

    def settle(self) -> None:
        """What directories hold is to be carried up to the roots when the unit ends (sums.py)."""
        self._settles = True

    def judge(self, branch_id: int, parent_id: int, name: bytes, *, is_dir: bool) -> int:
        """The rule that holds a name of a directory back; 0 for none."""
        return self._store.rules.judge(self, branch_id, parent_id, name, is_dir)

    def rules_changed(self) -> None:
        """A directory is held by another rule now."""
        self._store.rules.forget()

    def lists_are_known(self, directory: int) -> None:
        """What is added to a directory was judged by who has read its lists of patterns."""
        self._known_lists.add(directory)

    def all_say(self, branch_id: int, st: Stat, entry_id: int) -> None:
        """The rows of all names of an inode say that stat, and those in the branch are one file; this is one of them.
        Of a file with thousands of names that is found out once."""
        self._linked[branch_id, st.st_ino] = st, entry_id

    def name_of(self, branch_id: int, st: Stat) -> int | None:
        """A row of an inode in a branch, if all its rows were made to say that stat; new names do not end that."""
        said, entry_id = self._linked.get((branch_id, st.st_ino), (None, 0))
        return entry_id if said == st else None

    def parts_changed(self) -> None:
        """Directories became one, or went apart."""
        self._one_with.clear()

    def changed(self, what: str, branch_id: int, entry_id: int, parent_id: int | None, name: bytes, node: int) -> None:
        self._changes.append(Change(what, branch_id, entry_id, parent_id, name, node))
        if what != ADDED and self._linked:
            self._linked.clear()

    def tell(self, model: str, op: str, key: object, body: object, hlc: int | None = None) -> None:
        """Put the change of a shared row into the outbox; a library without other devices needs none. `hlc`: when it
        was said first, for what is told again."""
        self._tell(self.said_seq, model, op, key, body, self.hlc if hlc is None else hlc)
        if self._told >= NUMBER_TOLD or self._told_bytes >= self._store.number_bytes:
            self.said_seq += 1
            self._told = self._told_bytes = 0

    def _tell(self, seq: int, model: str, op: str, key: object, body: object, hlc: int) -> None:
        if self._store.is_shared:
            self._told_bytes += changes_table.put_outbox(
                self.db, self.epoch, seq, self._part, hlc, model, op, key, body
            )
            self._told += 1
            self.is_told = self._says = True
        self._part += 1  # also of several numbers: it orders what one unit did

    def leave_out(self) -> None:
        """Something is told later, or never; what is told next has the next number all the same."""
        self._part += 1

    def gone(self, entry_id: int, branch_id: int, kind: int = changes_table.GONE) -> None:
        """A row of ours is gone, or held back: other devices that may have it hear of that."""
        if self._store.is_shared:
            changes_table.put_tombstone(self.db, entry_id, branch_id, self.seq, kind)
            self.is_told = True

    def observe(self, hlc: int) -> None:
        """Something stamped so was taken in: what is stamped here from the next unit on is later."""
        self._stamp = max(self._stamp, Hlc.unpacked(hlc))

    @property
    def part(self) -> int:
        """How many outbox rows the unit wrote so far: orders what one unit did."""
        return self._part

    def __enter__(self) -> "Unit":
        self._store.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        store = self._store
        if error is not None:
            self._roll_back()
            if isinstance(error, apsw.FullError | apsw.IOError | apsw.ReadOnlyError | apsw.CorruptError):
                raise store.failure(error) from error
            return
        try:
            if self._changes:
                store.before_commit(self, self._changes)  # may add some
                store.rules.heard(self, tuple(self._changes), store.last_entry_id, self._known_lists)
            is_settled = self._settle()
            if self._says and not store.has_said:
                self._say_gap()
            bounds = store.reserved.beyond(self._next_id, self.said_seq, self._stamp)
            if bounds is not None:
                for name, value in zip(("entry", "seq", "hlc"), bounds, strict=True):
                    changes_table.set_counter(self.db, name, value)
            store.commit()
            if bounds is not None:
                store.reserved = Reserve(*bounds)
        except BaseException:
            self._roll_back()
            raise
        store.is_settled = is_settled
        store.has_said |= self._says
        store.last_seq = self.said_seq
        store.last_hlc = self._stamp
        store.last_entry_id = self._next_id
        store.wrote()
        if self._changes:
            store.feed.publish(Commit(self.seq, self.hlc, self.origin, tuple(self._changes)))

    def _settle(self) -> bool:
        """Carry up what directories hold where that is cheap beside the unit; returns whether nothing is left."""
        if self._settles or self._store.stays_settled or len(self._changes) >= _LARGE_CHANGES:
            sums.settle(self.db)
            return True
        return self._store.is_settled and not sums.leave(self.db)

    def _say_gap(self) -> None:
        """The first that is said since the store was opened: what lies before it is of no continuation (gaps.py)."""
        gap = gaps.before(self.db, self.device, self.seq)
        if gap is not None:
            gaps.note(self.db, self.device, *gap)
            self._tell(self.seq, *gaps.GAP, gap, None, self.hlc)  # by the first number: who hears one has heard of it

    def _roll_back(self) -> None:
        self._store.rollback()
        self._store.rules.forget()  # it may have seen rows that never were
