"""Finding: the entries that a query means, best first, a page at a time.

Candidates come by the road that promises the fewest: entries of a tag, when they are few; names by their rarest
trigrams; entries below a directory; else a pass over all, newest rows first. Each is held against the row as it is, so
the index may lag and know too much, and what it does not know yet is looked at beside it.

Order: by grade, then by mtime, newest first; so it is while matches are at most `WINDOW`, or come by a road of few. Of
more, which would all have to be read to know the best, tiers come one after the other (matching.py), in a tier windows
of so many in the order in which they came to the library, latest first, and only a window is ordered as above.

A page goes on where another ended by a `Position`: keys, never a count, so nothing is skipped or shown twice when rows
come and go in between.
"""

import itertools
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from index.model.filekinds import extensions_of
from index.model.folding import fold_text
from index.model.query import Ext, Kind, Query, Tag, Term
from index.store import entries, matching, search
from index.store.matching import TIER_ALL, TIER_BEGIN, TIER_EXACT, TIER_REST, Value
from index.store.reading import SearchReader
from index.store.search import MARK, Known

#: Matches that are ranked against each other.
WINDOW: Final = 128
#: Beyond every id.
_LAST_ID: Final = (1 << 63) - 1
#: As many entries of a tag are looked at one by one, however rare the text is.
_TAGGED_MAX: Final = 2000
#: Trigrams of a text that are asked for, and how much more common than the rarest the others may be.
_TERMS_MAX: Final = 3
_COMMON_RATIO: Final = 50
#: From which part of all names on a pass finds them as soon as an index, and how many trigrams one asks for at most.
_PASS_SHARE: Final = 0.02
_ANY_MAX: Final = 80


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

_Key = tuple[int, int, int]
#: What `matching.Grader` says of a row, and the row, whose columns are those of `Hit`.
_Graded = tuple[int, tuple[Any, ...]]
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
            for key, row in sorted([(_key(graded), graded[1]) for graded in window]):
                if after is not None and key <= after.key:
                    continue
                if len(hits) == limit:
                    return Page(hits, end)
                hits.append(Hit._make(row))
                if len(hits) == limit:
                    end = Position(tier, window_below, from_id, *key)
            after = None
        below_id, after = _LAST_ID, None
    return Page(hits, None)


def _tiers_from(tier: int) -> tuple[int, ...]:
    return (TIER_ALL,) if tier == TIER_ALL else (TIER_EXACT, TIER_BEGIN, TIER_REST)[tier:]


def _key(graded: _Graded) -> _Key:
    grade, row = graded
    return matching.grade_of(grade), -row[_MTIME], -row[_ID]


def _those_of(matches: list[_Graded], below_id: int, tier: int) -> list[_Graded]:
    """Those of a tier with smaller ids."""
    return [m for m in matches if m[1][_ID] < below_id and tier in (TIER_ALL, matching.tier_of(m[0]))]


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
        self._changed = self._changed_ids()
        self._kept: dict[str, list[_Graded] | None] = {}
        self._is_vain = any(not name or MARK in name or "\0" in name for name in self._names.texts) or any(
            not directories and not negated for directories, negated in self._places
        )

    def tiers(self) -> tuple[int, ...]:
        """The tiers that a search goes through."""
        if not self._names.texts or self._few() is not None or self._is_rare():
            return (TIER_ALL,)
        return TIER_EXACT, TIER_BEGIN, TIER_REST

    def windows(self, tier: int, below_id: int, after: Position | None) -> Iterator[tuple[list[_Graded], int, int]]:
        """The matches of a tier in windows, each with the ids that it lies between; the first one as it was before."""
        few = self._few() if tier == TIER_ALL else None
        if few is not None or (after is not None and after.from_id == 0):
            yield few if few is not None else list(self._tier(tier, below_id)), below_id, 0
            return
        matches = self._tier(tier, below_id)
        if after is not None:
            window = []
            for graded in matches:
                if graded[1][_ID] < after.from_id:
                    matches = itertools.chain((graded,), matches)
                    break
                window.append(graded)
            yield window, below_id, after.from_id
            below_id = after.from_id
        while window := list(itertools.islice(matches, WINDOW)):
            from_id = window[-1][1][_ID]
            yield window, below_id, from_id
            below_id = from_id

    def _tier(self, tier: int, below_id: int) -> Iterator[_Graded]:
        """The matches of a tier with smaller ids, latest first."""
        if self._is_vain:
            return iter(())
        expression = None if self._known is None else self._expression(tier)
        if expression is None:
            return self._passed(0, below_id, tier)
        return self._indexed(expression, below_id, tier)

    def _is_rare(self) -> bool:
        """Whether there are so few matches that all of them are ranked; they are kept then."""
        assert self._known is None or self._names.texts
        if self._known is not None and self._expected() > WINDOW:
            return False
        found = list(itertools.islice(self._tier(TIER_ALL, _LAST_ID), WINDOW + 1))
        if len(found) > WINDOW:
            return False
        self._kept["few"] = found
        return True

    def _expected(self) -> float:
        """How many names have the rarest trigram of the texts, by the sample."""
        assert self._known is not None
        shares = [self._reader.share_of(term) for text in self._names.texts for term in search.trigrams(text) or [text]]
        return min(shares, default=1.0) * self._known.indexed_id

    # roads ------------------------------------------------------------------------------------------------------------

    def _few(self) -> list[_Graded] | None:
        """All matches, where a road promises few whatever the names are; None where none does."""
        if "few" not in self._kept:
            road = None if self._is_vain else self._tagged() or (None if self._has_trigrams() else self._below())
            self._kept["few"] = None if road is None else list(self._matches(*road))
        return self._kept["few"]

    def _tagged(self) -> tuple[str, tuple[Value, ...]] | None:
        """The road by the rarest of the tags, where it has few entries or nothing else leads there."""
        wanted = [t for t in self._query.terms if isinstance(t.condition, Tag) and not t.negated]
        counted = []
        for term in wanted:
            assert isinstance(term.condition, Tag)
            name = term.condition.name
            sql = f"SELECT count(*) FROM ({matching.TAGGED} LIMIT {_TAGGED_MAX + 1})"
            counted.append((int(next(iter(self._db.execute(sql, (name,))))[0]), name, term))
        if not counted:
            return None
        count, name, term = min(counted, key=lambda c: c[:2])
        if count > _TAGGED_MAX and self._has_trigrams():
            return None
        rest = matching.where((t for t in self._query.terms if t is not term), self._now_ns)
        return (
            f"SELECT {_COLUMNS} FROM entry e INDEXED BY entry_uuid WHERE e.uuid IS NOT NULL "
            f"AND e.uuid IN ({matching.TAGGED}) AND {rest.clause} ORDER BY +e.id DESC",
            (name, *rest.values),
        )

    def _below(self) -> tuple[str, tuple[Value, ...]] | None:
        """The road through the directories that `in:` names."""
        found = [directories for directories, negated in self._places if not negated]
        if not found:
            return None
        roots = ", ".join(str(entry_id) for entry_id in sorted(found[0]))
        return (
            f"WITH RECURSIVE below(id) AS (SELECT id FROM entry WHERE id IN ({roots}) UNION ALL "
            "SELECT d.id FROM below CROSS JOIN entry d INDEXED BY entry_dirs ON d.parent_id = below.id AND d.kind = 1) "
            f"SELECT {_COLUMNS} FROM below CROSS JOIN entry e ON e.parent_id = below.id WHERE {self._where.clause} "
            "ORDER BY +e.id DESC",
            self._where.values,
        )

    def _has_trigrams(self) -> bool:
        return self._known is not None and any(len(text) >= 3 for text in self._names.texts)

    def _passed(self, above_id: int, below_id: int, tier: int = TIER_ALL) -> Iterator[_Graded]:
        """By a pass over the rows."""
        return self._matches(
            f"SELECT {_COLUMNS} FROM entry e WHERE {self._where.clause} AND e.id > ? AND e.id < ? ORDER BY e.id DESC",
            (*self._where.values, above_id, below_id),
            tier,
        )

    def _indexed(self, expression: str, below_id: int, tier: int) -> Iterator[_Graded]:
        """By the index of names, and beside it what that does not know yet."""
        assert self._known is not None
        found = self._matches(
            f"SELECT {_COLUMNS} FROM search.search_names s CROSS JOIN entry e ON e.id = s.rowid "
            f"WHERE search_names MATCH ? AND s.rowid < ? AND {self._where.clause} ORDER BY s.rowid DESC",
            (expression, min(below_id, self._known.indexed_id + 1), *self._where.values),
            tier,
        )
        if self._changed:
            found = self._with_changed(found, below_id, tier)
        if below_id > self._known.indexed_id:
            return itertools.chain(_those_of(self._unindexed(), below_id, tier), found)
        return found

    def _with_changed(self, found: Iterator[_Graded], below_id: int, tier: int) -> Iterator[_Graded]:
        """What the index found, with what it has otherwise than it is, in order."""
        changed = _those_of(self._matching_changed(), below_id, tier)
        for graded in found:
            if graded[1][_ID] in self._changed:
                continue
            while changed and changed[0][1][_ID] > graded[1][_ID]:
                yield changed.pop(0)
            yield graded
        yield from changed

    def _unindexed(self) -> list[_Graded]:
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

    def _matching_changed(self) -> list[_Graded]:
        kept = self._kept.get("changed")
        if kept is None:
            assert self._known is not None
            road = (
                f"SELECT {_COLUMNS} FROM entry e WHERE e.id IN (SELECT entry_id FROM main.search_todo WHERE "
                f"seq > ? AND entry_id <= ?) AND {self._where.clause} ORDER BY e.id DESC"
            )
            values = (self._known.done_seq, self._known.indexed_id, *self._where.values)
            kept = self._kept["changed"] = list(self._matches(road, values)) if self._changed else []
        return kept

    def _matches(self, sql: str, values: tuple[Value, ...], tier: int = TIER_ALL) -> Iterator[_Graded]:
        """The rows of a statement that match in every way and are of a tier."""
        grade, places = self._grade, self._places
        for row in self._db.execute(sql, values):
            graded = grade(row[_NAME], row[_KIND])
            if graded is None or (tier != TIER_ALL and tier != matching.tier_of(graded)):
                continue
            if places and not self._is_in_place(row[_PARENT]):
                continue
            if row[_NODE] == row[_ID] or not self._is_shown_already(Hit._make(row)):
                yield graded, row

    def _is_in_place(self, parent_id: int) -> bool:
        return all(
            self._reader.is_below(parent_id, directories) is not negated for directories, negated in self._places
        )

    def _is_shown_already(self, hit: Hit) -> bool:
        """Whether an earlier replica of the same union name matches, too: both are shown by one path."""
        place = None
        for other in entries.by_node(self._db, hit.node):
            if other.id >= hit.id or other.name != hit.name:
                continue
            place = place or entries.union_name(self._db, hit.parent_id, hit.name)
            if entries.union_name(self._db, other.parent_id, other.name) == place and self._meets_where(other.id):
                return True
        return False

    def _meets_where(self, entry_id: int) -> bool:
        sql = f"SELECT 1 FROM entry e WHERE e.id = ? AND {self._where.clause}"
        return self._db.execute(sql, (entry_id, *self._where.values)).fetchone() is not None

    # the index of names -----------------------------------------------------------------------------------------------

    def _expression(self, tier: int) -> str | None:
        """What the index is asked for a tier; None when a pass is as good."""
        names = self._names
        if not names.texts:
            return self._by_ending()
        if tier == TIER_EXACT:
            text = f"{MARK}{names.whole}{MARK}"  # how it begins and how it ends says most, however common both are
            return search.all_of(list(dict.fromkeys((text[:3], text[-3:], *self._rarest(search.trigrams(text))[:1]))))
        begin = MARK + names.begin if names.begin else ""
        if tier == TIER_BEGIN and not begin:
            return search.any_of([MARK * 3])  # no name has that
        terms = list(dict.fromkeys(term for text in names.texts for term in search.trigrams(text)))
        if tier == TIER_BEGIN:
            return search.all_of([begin, *(self._rarest(terms)[: _TERMS_MAX - 1] if terms else ())])
        expression = search.all_of(self._rarest(terms)) if terms else self._any_beginning(names.texts, begin)
        if expression is None or tier == TIER_ALL or not begin:
            return expression
        return search.but_not(expression, begin)

    def _rarest(self, terms: list[str]) -> list[str]:
        """The rarest of some trigrams: more only where that costs less than the rows they spare."""
        common = self._reader.common
        terms.sort(key=lambda term: common.get(term, 0))
        most = _COMMON_RATIO * max(1, common.get(terms[0], 0))
        return [terms[0], *(term for term in terms[1:_TERMS_MAX] if common.get(term, 0) <= most)]

    def _any_beginning(self, texts: tuple[str, ...], begin: str) -> str | None:
        """Of texts of one or two characters the rarest: all trigrams that begin so."""
        share, text = min((self._reader.share_of(text), text) for text in texts)
        if share - (self._reader.share_of(begin) if begin else 0.0) > _PASS_SHARE:
            return None
        terms = self._reader.terms_beginning(text, _ANY_MAX)
        return None if terms is None else search.any_of(terms or [(text + MARK * 2)[:3]])

    def _by_ending(self) -> str | None:
        """Names that end in what `ext:` or `kind:` asks for, where these are rare."""
        for term in self._query.terms:
            endings = _endings(term)
            if endings is None:
                continue
            found = [self._rarest(search.trigrams(f".{ending}{MARK}{MARK}")) for ending in endings]
            share = sum(self._reader.share_of(terms[0]) for terms in found)
            if share <= _PASS_SHARE:
                return " OR ".join(f"({search.all_of(terms)})" for terms in found)
        return None


def _endings(term: Term) -> tuple[str, ...] | None:
    """The folded endings that all names have that a term lets through."""
    asked = term.condition
    if term.negated:
        return None
    if isinstance(asked, Ext):
        return tuple(fold_text(extension) for extension in asked.extensions)
    if isinstance(asked, Kind):
        by_kind = [extensions_of(kind) for kind in asked.kinds]
        return None if None in by_kind else tuple(ending for endings in by_kind for ending in endings or ())
    return None
