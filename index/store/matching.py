"""Matching: what the terms of a query mean for a row: conditions for SQL, and what is decided by the name in Python.

In: a query, and where in the tree its `in:` lead. Out: a WHERE clause over a row `e` of table entry with its values; a
function that grades a name, None where it does not match. Both must say yes; both are negated as the terms are. The
grades, best first: the whole name, its beginning, beginnings of words in it, anything else. Beside its grade a name has
a tier by how it begins, which an index can tell as well: a search that finds much goes through one tier after another.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import apsw
import attrs

from index.model.entry import KIND_DIR, KIND_FILE, KIND_SYMLINK
from index.model.folding import fold, fold_text
from index.model.query import Ext, In, Modified, Query, Size, Tag, Term, Text, Type
from index.store import entries

EXACT: Final = 0
PREFIX: Final = 1
WORD: Final = 2
INNER: Final = 3
#: Tiers of a name: it is what was asked for; it begins with the same two characters; any other. ALL: without tiers.
TIER_EXACT: Final = 0
TIER_BEGIN: Final = 1
TIER_REST: Final = 2
TIER_ALL: Final = 3
#: How many characters of the first text tell the tier.
BEGIN_CHARS: Final = 2

#: What searches show at all: the one place for whatever holds entries back.
SHOWN: Final = "e.parent_id IS NOT NULL AND e.rule = 0"

TAGGED: Final = "SELECT g.entry_uuid FROM tag t CROSS JOIN tagging g ON g.tag_id = t.id WHERE t.name = ?"
_HAS_TAG: Final = (
    "EXISTS (SELECT 1 FROM tag t CROSS JOIN tagging g ON g.tag_id = t.id AND g.entry_uuid = e.uuid WHERE t.name = ?)"
)
_TYPE_KINDS: Final = {"file": KIND_FILE, "dir": KIND_DIR, "link": KIND_SYMLINK}

#: From a name and the kind of its row to (tier, grade), packed: see `tier_of` and `grade_of`.
Grader = Callable[[bytes, int], int | None]
_Test = Callable[[bytes, int], bool]
Value = int | str


def _packed(tier: int, grade: int) -> int:
    return tier << 2 | grade


def tier_of(graded: int) -> int:
    return graded >> 2


def grade_of(graded: int) -> int:
    return graded & 3


@attrs.frozen
class Where:
    """A clause and its values."""

    clause: str
    values: tuple[Value, ...]


def where(terms: Iterable[Term], now_ns: int) -> Where:
    """What SQL can decide of some terms."""
    clauses, values = [SHOWN], list[Value]()
    for term in terms:
        found = _condition(term, now_ns)
        if found is not None:
            clauses.append(f"NOT ({found.clause})" if term.negated else found.clause)
            values += found.values
    return Where(" AND ".join(clauses), tuple(values))


def _condition(term: Term, now_ns: int) -> Where | None:
    """The clause of one term as if it were not negated; None when it is decided by the name or the place."""
    asked = term.condition
    if isinstance(asked, Tag):
        return Where(_HAS_TAG, (asked.name,))
    if isinstance(asked, Type):
        return Where(f"e.kind IN ({', '.join(str(_TYPE_KINDS[name]) for name in asked.types)})", ())
    if isinstance(asked, Size):
        low, high = asked.sizes.low, asked.sizes.high
        return _between(f"e.kind = {KIND_FILE} AND e.size_bytes", low, None if high is None else high + 1)
    if isinstance(asked, Modified):
        return _between("e.mtime_ns", *asked.period.bounds_ns(now_ns))
    return None


def _between(column: str, low: int | None, end: int | None) -> Where:
    """At least `low`, less than `end`."""
    parts = [f"{column} {sign} ?" for sign, value in ((">=", low), ("<", end)) if value is not None]
    return Where(" AND ".join(parts), tuple(_in_64_bits(value) for value in (low, end) if value is not None))


def _in_64_bits(value: int) -> int:
    return max(-(1 << 63), min((1 << 63) - 1, value))


@attrs.frozen
class Names:
    """What a query asks of the name: folded texts, in its order."""

    texts: tuple[str, ...]
    without: tuple[str, ...]
    only: tuple[_Test, ...]

    @classmethod
    def of(cls, query: Query) -> "Names":
        texts: dict[bool, dict[str, None]] = {False: {}, True: {}}
        only: list[_Test] = []
        for term in query.terms:
            asked = term.condition
            if isinstance(asked, Text):
                texts[term.negated][fold_text(asked.text)] = None
            elif isinstance(asked, Ext):
                only.append(_test_of(asked, negated=term.negated))
        return cls(tuple(texts[False]), tuple(texts[True]), tuple(only))

    @property
    def whole(self) -> str:
        """The name that would be exactly what was asked for."""
        return " ".join(self.texts)

    @property
    def begin(self) -> str:
        """How the names of TIER_BEGIN begin; empty where there are none."""
        return self.texts[0][:BEGIN_CHARS] if self.texts and len(self.texts[0]) >= BEGIN_CHARS else ""

    def grader(self) -> Grader:
        """A function that grades names."""
        texts, without, only, whole = self.texts, self.without, self.only, self.whole
        first, others, begin = texts[0] if texts else "", texts[1:], self.begin
        exact = _packed(TIER_EXACT, EXACT)
        first_begins, word_begins, inner_begins = (_packed(TIER_BEGIN, grade) for grade in (PREFIX, WORD, INNER))
        first_rest, word_rest, inner_rest = (_packed(TIER_REST, grade) for grade in (PREFIX, WORD, INNER))
        has_more = bool(others or without or only)
        if not texts and not has_more:
            return lambda name, kind: exact

        def meets_more(folded: str, name: bytes, kind: int) -> bool:
            return (
                all(text in folded for text in others)
                and not any(text in folded for text in without)
                and all(is_wanted(name, kind) for is_wanted in only)
            )

        def grade(name: bytes, kind: int) -> int | None:
            folded = name.decode("ascii").lower() if name.isascii() else fold(name)
            at = folded.find(first)
            if at < 0 or (has_more and not meets_more(folded, name, kind)):
                return None
            if at == 0:  # so is a name of which no text is asked
                if folded == whole or not texts:
                    return exact
                return first_begins if begin else first_rest
            # A loop for each text, not a function: this is done for every candidate.
            word, inner = (word_begins, inner_begins) if begin and folded.startswith(begin) else (word_rest, inner_rest)
            while at > 0 and folded[at - 1].isalnum():
                at = folded.find(first, at + 1)
            if at < 0 or (others and not all(_begins_word(text, folded) for text in others)):
                return inner
            return word

        return grade


def _test_of(asked: Ext, *, negated: bool) -> _Test:
    ends = tuple(f".{fold_text(extension)}" for extension in asked.extensions)

    def ends_so(name: bytes, kind: int) -> bool:
        folded = fold(name)
        return (kind != KIND_DIR and folded.endswith(ends) and folded not in ends) is not negated

    return ends_so


def _begins_word(text: str, folded: str) -> bool:
    """Whether a text stands somewhere in a name where a word begins."""
    at = folded.find(text)
    while at > 0 and folded[at - 1].isalnum():
        at = folded.find(text, at + 1)
    return at >= 0


def places_of(db: apsw.Connection, query: Query) -> list[tuple[frozenset[int], bool]]:
    """For each `in:` of a query the directories that are meant, one on each branch, and whether it is negated."""
    return [
        (_directories_at(db, term.condition.names), term.negated)
        for term in query.terms
        if isinstance(term.condition, In)
    ]


def _directories_at(db: apsw.Connection, names: tuple[str, ...]) -> frozenset[int]:
    """The rows of a directory of the union: of the location that the first name is, and of what has no location."""
    parts = [name.encode("utf-8", "surrogateescape") for name in names]
    of_location = db.execute(
        "SELECT b.root_entry_id FROM location l JOIN branch b ON b.location_id = l.id "
        "WHERE l.name = ? AND l.removed = 0 AND b.root_entry_id IS NOT NULL",
        (parts[0],),
    )
    found = {_below(db, root, parts[1:]) for (root,) in of_location.fetchall()}
    of_none = db.execute("SELECT root_entry_id FROM branch WHERE location_id IS NULL AND root_entry_id IS NOT NULL")
    found |= {_below(db, root, parts) for (root,) in of_none.fetchall()}
    return frozenset(entry_id for entry_id in found if entry_id is not None)


def _below(db: apsw.Connection, root: Any, parts: list[bytes]) -> int | None:
    at: int = root
    for name in parts:
        row = entries.child(db, at, name)
        if row is None or row.kind != KIND_DIR:
            return None
        at = row.id
    return at
