"""Finding: the entries that a query means, best first, a page at a time.

Candidates come by the road that promises the fewest: entries of a tag, when they are few; names by their rarest
trigrams; entries below a directory; else a pass over all, newest rows first. Each is held against the row as it is, so
the index may lag and know too much, and what it does not know yet is looked at beside it.

Order: by grade, then by mtime, newest first; so it is while matches are at most `RANKED_MAX`, or come by a road of few.
Of more, which would all have to be read to know the best, tiers come one after the other (matching.py), in a tier
windows of `WINDOW` in the order in which they came to the library, latest first; only a window is ordered as above.

A page goes on where another ended by a `Position`: keys, never a count, so nothing is skipped or shown twice when rows
come and go in between.
"""

import heapq
import itertools
from collections.abc import Container, Iterator
from typing import Any, Final, NamedTuple

from index.model.entry import KIND_FILE
from index.model.filekinds import kind_of
from index.model.query import Kind, Query, Tag, Term
from index.store import entries, matching, places
from index.store.asking import Asking
from index.store.matching import TIER_ALL, TIER_BEGIN, TIER_EXACT, TIER_REST, Value
from index.store.reading import SearchReader
from index.store.search import MARK, Known

#: Matches that are ranked against each other.
WINDOW: Final = 100
#: Matches that are all ranked, where there are no more.
RANKED_MAX: Final = 200
#: Beyond every id.
_LAST_ID: Final = (1 << 63) - 1
#: As many entries of a tag are looked at one by one, however rare the text is.
_TAGGED_MAX: Final = 2000


class Hit(NamedTuple):
    """A row that matches, the columns that are shown of it."""

    id: int
    branch_id: int
    parent_id: int
    name: bytes
    node: int
    kind: int
    size_bytes: int
    mtime_ns: int


_COLUMNS: Final = "e.id, e.branch_id, e.parent_id, e.name, e.node, e.kind, e.size_bytes, e.mtime_ns"
_HIT_COLUMNS: Final = len(Hit._fields)
#: What the bytes of a file were found to be, behind those columns, where a query asks for it.
_TYPE_COLUMNS: Final = (
    "(SELECT k.name FROM content c CROSS JOIN filetype k ON k.id = c.type_id WHERE c.id = e.content_id), "
    "(SELECT c.type_method FROM content c WHERE c.id = e.content_id)"
)

_Key = tuple[int, int, int]
#: The key of a match; its row, whose columns are those of `Hit`; its tier. Sorted, they are in order.
_Ranked = tuple[int, int, int, tuple[Any, ...], int]
_ROW: Final = 3
_TIER: Final = 4
_ID, _PARENT, _NAME, _NODE, _KIND, _MTIME = 0, 2, 3, 4, 5, 7


class Position(NamedTuple):
    """Where a page ended: the window, by its tier and the ids around it, and the key of the last hit in it."""

    tier: int
    below_id: int
    from_id: int
    grade: int
    newest_ns: int
    latest_id: int

    @property
    def key(self) -> _Key:
        return self.grade, self.newest_ns, self.latest_id


class Page(NamedTuple):
    hits: list[Hit]
    end: Position | None  # None: there are no more


def find(
    reader: SearchReader, known: Known | None, query: Query, now_ns: int, limit: int, after: Position | None = None
) -> Page:
    """A page of what a query means in the snapshot that the reader holds."""
    asked = _Search(reader, known, query, now_ns)
    hits: list[Hit] = []
    end: Position | None = None
    below_id = _LAST_ID if after is None else after.below_id
    for tier in asked.tiers() if after is None else _tiers_from(after.tier):
        for window, window_below, from_id in asked.windows(tier, below_id, after):
            window.sort()
            if after is not None:
                key = after.key
                window, after = [ranked for ranked in window if ranked[:3] > key], None
            room = limit - len(hits)
            hits += [Hit(*ranked[_ROW][:_HIT_COLUMNS]) for ranked in window[:room]]
            if len(window) > room:
                return Page(hits, end if not room else Position(tier, window_below, from_id, *window[room - 1][:3]))
            if len(window) == room > 0:
                end = Position(tier, window_below, from_id, *window[-1][:3])
                asked.is_full = True
            asked.count_passed(tier, len(window))
        below_id, after = _LAST_ID, None
    return Page(hits, None)


def _tiers_from(tier: int) -> tuple[int, ...]:
    return (TIER_ALL,) if tier == TIER_ALL else (TIER_EXACT, TIER_BEGIN, TIER_REST)[tier:]


def _those_of(matches: list[_Ranked], below_id: int, tier: int) -> list[_Ranked]:
    """Those of a tier with smaller ids."""
    return [m for m in matches if m[_ROW][_ID] < below_id and tier in (TIER_ALL, m[_TIER])]


class _Search:
    """One query in one snapshot."""

    def __init__(self, reader: SearchReader, known: Known | None, query: Query, now_ns: int) -> None:
        self._reader = reader
        self._db = reader.db
        self._known = known
        self._query = query
        self._now_ns = now_ns
        self._names = matching.Names.of(query)
        self._grade = self._names.grader()
        self._where = matching.where(query.terms, now_ns)
        self._places = matching.places_of(self._db, query)
        self._has_detached = entries.has_detached(self._db)
        # Else what is another device's may have come before the one that it shares its number with.
        self._is_alone = places.are_of_one_device(self._db)
        self._asking = None if known is None else Asking(reader, query, self._names, known.indexed_id)
        self._changed = self._changed_ids()
        self._kept: dict[str, list[_Ranked] | None] = {}
        self._kinds = [(frozenset(t.condition.kinds), t.negated) for t in query.terms if isinstance(t.condition, Kind)]
        self._columns = f"{_COLUMNS}, {_TYPE_COLUMNS}" if self._kinds else _COLUMNS
        self._begun = 0  # matches of TIER_BEGIN that were gone through
        self._more: Iterator[_Ranked] | None = None  # those of all tiers, where they turned out to be more than few
        self.is_full = False  # the page is: whether there is one more is all that is asked
        self._is_vain = any(not name or MARK in name or "\0" in name for name in self._names.texts) or any(
            not directories and not negated for directories, negated in self._places
        )

    def tiers(self) -> tuple[int, ...]:
        """The tiers that a search goes through."""
        if not self._names.texts or self._few() is not None or self._is_rare():
            return (TIER_ALL,)
        return TIER_EXACT, TIER_BEGIN, TIER_REST

    def windows(self, tier: int, below_id: int, after: Position | None) -> Iterator[tuple[list[_Ranked], int, int]]:
        """The matches of a tier in windows, each with the ids that it lies between; the first one as it was before."""
        few = self._few() if tier == TIER_ALL else None
        if few is not None or (after is not None and after.from_id == 0):
            yield few if few is not None else list(self._tier(tier, below_id)), below_id, 0
            return
        matches = self._tier(tier, below_id)
        if after is not None:
            window = []
            for ranked in matches:
                if ranked[_ROW][_ID] < after.from_id:
                    matches = itertools.chain((ranked,), matches)
                    break
                window.append(ranked)
            yield window, below_id, after.from_id
            below_id = after.from_id
        while window := list(itertools.islice(matches, 1 if self.is_full else WINDOW)):
            from_id = window[-1][_ROW][_ID]
            yield window, below_id, from_id
            below_id = from_id

    def count_passed(self, tier: int, matches: int) -> None:
        """So many matches of a tier were gone through: what follows may meet them again."""
        self._begun += matches if tier == TIER_BEGIN else 0

    def _tier(self, tier: int, below_id: int) -> Iterator[_Ranked]:
        """The matches of a tier with smaller ids, latest first."""
        if self._is_vain:
            return iter(())
        if tier == TIER_REST and below_id == _LAST_ID and self._more is not None:
            matches, self._more = self._more, None
            return (ranked for ranked in matches if ranked[_TIER] == TIER_REST)
        expression = None if self._asking is None else self._asking.expression(tier, self._begun)
        if expression is None:
            return self._passed(0, below_id, tier)
        return self._indexed(expression, below_id, tier)

    def _is_rare(self) -> bool:
        """Whether there are so few matches that all of them are ranked; they are kept then, or where they went on."""
        if self._asking is not None and not self._asking.promises_few(RANKED_MAX):
            return False
        matches = self._tier(TIER_ALL, _LAST_ID)
        found = list(itertools.islice(matches, RANKED_MAX + 1))
        if len(found) > RANKED_MAX:
            self._more = itertools.chain(found, matches)
            return False
        self._kept["few"] = found
        return True

    # roads ------------------------------------------------------------------------------------------------------------

    def _few(self) -> list[_Ranked] | None:
        """All matches, where a road promises few whatever the names are; None where none does."""
        if "few" not in self._kept:
            road = None if self._is_vain else self._tagged() or (None if self._is_indexed() else self._below())
            self._kept["few"] = None if road is None else list(self._matches(*road))
        return self._kept["few"]

    def _tagged(self) -> tuple[str, tuple[Value, ...]] | None:
        """The road by the rarest of the tags, where it has few entries or nothing else leads there."""
        wanted = [t for t in self._query.terms if isinstance(t.condition, Tag) and not t.negated]
        if not wanted:
            return None
        term = wanted[0]
        if len(wanted) > 1 or self._is_indexed():
            count, place = min((self._count_tagged(term), place) for place, term in enumerate(wanted))
            if count > _TAGGED_MAX and self._is_indexed():
                return None
            term = wanted[place]
        assert isinstance(term.condition, Tag)
        rest = matching.where((t for t in self._query.terms if t is not term), self._now_ns)
        return (
            f"SELECT DISTINCT {self._columns} FROM ({matching.TAGGED}) g CROSS JOIN entry e INDEXED BY entry_uuid "
            f"ON e.uuid = g.entry_uuid AND e.uuid IS NOT NULL WHERE {rest.clause} ORDER BY +e.id DESC",
            (term.condition.name, *rest.values),
        )

    def _count_tagged(self, term: Term) -> int:
        """How many dots a tag has, counted as far as that matters."""
        assert isinstance(term.condition, Tag)
        sql = f"SELECT count(*) FROM ({matching.TAGGED} LIMIT {_TAGGED_MAX + 1})"
        return int(next(iter(self._db.execute(sql, (term.condition.name,))))[0])

    def _below(self) -> tuple[str, tuple[Value, ...]] | None:
        """The road through the directories that `in:` names."""
        found = [directories for directories, negated in self._places if not negated]
        if not found:
            return None
        roots = ", ".join(str(entry_id) for entry_id in sorted(found[0]))
        return (
            f"WITH RECURSIVE below(id) AS (SELECT id FROM entry WHERE id IN ({roots}) UNION ALL "
            "SELECT d.id FROM below CROSS JOIN entry d INDEXED BY entry_dirs ON d.parent_id = below.id AND d.kind = 1) "
            f"SELECT {self._columns} FROM below CROSS JOIN entry e ON e.parent_id = below.id "
            f"WHERE {self._where.clause} ORDER BY +e.id DESC",
            self._where.values,
        )

    def _is_indexed(self) -> bool:
        """Whether the index of names leads to the rows, by some text."""
        return self._known is not None and bool(self._names.texts)

    def _passed(self, above_id: int, below_id: int, tier: int = TIER_ALL) -> Iterator[_Ranked]:
        """By a pass over the rows."""
        return self._matches(
            f"SELECT {self._columns} FROM entry e WHERE {self._where.clause} AND e.id > ? AND e.id < ? "
            "ORDER BY e.id DESC",
            (*self._where.values, above_id, below_id),
            tier,
        )

    def _indexed(self, expression: str, below_id: int, tier: int) -> Iterator[_Ranked]:
        """By the index of names, and beside it what that does not know yet."""
        assert self._known is not None
        found = self._matches(
            f"SELECT {self._columns} FROM search.search_names s CROSS JOIN entry e ON e.id = s.rowid "
            f"WHERE search_names MATCH ? AND s.rowid < ? AND {self._where.clause} ORDER BY s.rowid DESC",
            (expression, min(below_id, self._known.indexed_id + 1), *self._where.values),
            tier,
        )
        if self._changed:
            found = self._merged(found, self._changed, _those_of(self._matching_changed(), below_id, tier))
        ending = None if self._asking is None else self._asking.ending
        if ending is not None and ending.types:
            others = self._by_content(ending.types)
            found = self._merged(found, {ranked[_ROW][_ID] for ranked in others}, _those_of(others, below_id, tier))
        if below_id > self._known.indexed_id:
            return itertools.chain(_those_of(self._unindexed(), below_id, tier), found)
        return found

    def _merged(self, found: Iterator[_Ranked], aside: Container[int], others: list[_Ranked]) -> Iterator[_Ranked]:
        """What was found but for those ids, with others that are in the same order."""
        return heapq.merge((ranked for ranked in found if ranked[_ROW][_ID] not in aside), others, key=_newest)

    def _unindexed(self) -> list[_Ranked]:
        """What matches of the rows that are newer than the index."""
        assert self._known is not None
        kept = self._kept.get("new")
        if kept is None:
            kept = self._kept["new"] = list(self._passed(self._known.indexed_id, _LAST_ID))
        return kept

    def _changed_ids(self) -> frozenset[int]:
        """The rows that the index has otherwise than they are."""
        if self._known is None:
            return frozenset()
        sql = "SELECT entry_id FROM main.search_todo WHERE seq > ? AND entry_id <= ?"
        return frozenset(row[0] for row in self._db.execute(sql, (self._known.done_seq, self._known.indexed_id)))

    def _matching_changed(self) -> list[_Ranked]:
        kept = self._kept.get("changed")
        if kept is None:
            assert self._known is not None
            changed = "SELECT entry_id FROM main.search_todo WHERE seq > ? AND entry_id <= ?"
            road = (
                f"SELECT {self._columns} FROM entry e WHERE e.id IN ({changed}) AND {self._where.clause} "
                "ORDER BY e.id DESC"
            )
            values = (self._known.done_seq, self._known.indexed_id, *self._where.values)
            kept = self._kept["changed"] = list(self._matches(road, values)) if self._changed else []
        return kept

    def _by_content(self, types: list[int]) -> list[_Ranked]:
        """What matches of the indexed rows whose bytes are of some types."""
        kept = self._kept.get("content")
        if kept is None:
            assert self._known is not None
            road = (
                f"SELECT {self._columns} FROM content c INDEXED BY content_type "
                "CROSS JOIN entry e INDEXED BY entry_content ON e.content_id = c.id "
                f"WHERE c.type_id IN ({', '.join(map(str, types))}) AND e.id <= ? AND {self._where.clause} "
                "ORDER BY +e.id DESC"
            )
            kept = self._kept["content"] = list(self._matches(road, (self._known.indexed_id, *self._where.values)))
        return kept

    def _matches(self, sql: str, values: tuple[Value, ...], tier: int = TIER_ALL) -> Iterator[_Ranked]:
        """The rows of a statement that match in every way and are of a tier."""
        grade, places, kinds = self._grade, self._places, self._kinds
        for row in self._db.execute(sql, values):  # what stands here is done for every candidate
            graded = grade(row[_NAME], row[_KIND])
            if graded is None or (tier != TIER_ALL and tier != graded >> 2):
                continue
            if kinds and not self._is_of_kinds(row):
                continue
            if places and not self._is_in_place(row[_PARENT]):
                continue
            if self._has_detached and not self._reader.hangs(row[_PARENT]):
                continue
            is_first = row[_NODE] == row[_ID] and self._is_alone
            if is_first or not self._is_shown_already(Hit._make(row[:_HIT_COLUMNS])):
                yield graded & 3, -row[_MTIME], -row[_ID], row, graded >> 2

    def _is_of_kinds(self, row: tuple[Any, ...]) -> bool:
        kind = kind_of(row[_NAME], *row[_HIT_COLUMNS:]) if row[_KIND] == KIND_FILE else None
        return all((kind in kinds) is not negated for kinds, negated in self._kinds)

    def _is_in_place(self, parent_id: int) -> bool:
        return all(
            self._reader.is_below(parent_id, directories) is not negated for directories, negated in self._places
        )

    def _is_shown_already(self, hit: Hit) -> bool:
        """Whether an earlier replica of the same union name matches, too: both are shown by one path."""
        before = entries.replicas_before(self._db, hit.id, hit.node, hit.parent_id, hit.name)
        return any(self._matches_too(other_id) for other_id in before)

    def _matches_too(self, entry_id: int) -> bool:
        """Whether a row of the same name and place as a match is one."""
        sql = f"SELECT {self._columns} FROM entry e WHERE e.id = ? AND {self._where.clause}"
        row = self._db.execute(sql, (entry_id, *self._where.values)).fetchone()
        return row is not None and self._is_of_kinds(row)


def _newest(ranked: _Ranked) -> int:
    return ranked[2]
