"""Asking: what the index of names is asked for a query, and what may be expected of its answer.

In: what a query asks of the name, and which trigrams are common. Out: expressions of FTS5 that find all names of a tier
and more, which is why each is held against its row. A list of names in the index is walked from its end, some 10 ns a
name, a row costs some microseconds: so the rarest trigrams are asked for, and others only as far as walking their lists
costs less than the rows that they spare.
"""

from functools import cached_property
from typing import Final, NamedTuple

import apsw

from index.model.filekinds import extensions_of, types_of
from index.model.folding import fold_text
from index.model.query import Ext, Kind, Query, Term
from index.store import contents, filetypes, search
from index.store.matching import TIER_ALL, TIER_BEGIN, TIER_EXACT, Names
from index.store.reading import SearchReader
from index.store.search import MARK

#: Trigrams of a text that are asked for, and how much more common than the rarest the others may be.
_TERMS_MAX: Final = 3
_COMMON_RATIO: Final = 20
#: How much more common than a few all trigrams of a text may be while the text itself may still be rare.
_GUESSED_RATIO: Final = 100
#: So many names of a trigram are passed in the index as soon as one row is looked at.
_WALKED: Final = 80
#: From which part of all names on a pass finds them as soon as an index.
_PASS_SHARE: Final = 0.02
#: As many contents of some types are looked at one by one, however few names there are.
_TYPED_MIN: Final = 100


class Ending(NamedTuple):
    """Names that end so, and bytes of which `kind:` asks under any name."""

    expression: str
    types: list[int]  # as table filetype numbers them


class Asking:
    """What the index is asked for one query; it knows of `indexed` names."""

    def __init__(self, reader: SearchReader, query: Query, names: Names, indexed: int) -> None:
        self._reader = reader
        self._query = query
        self._names = names
        self._indexed = indexed

    def promises_few(self, most: int) -> bool:
        """Whether no more than so many names have all texts, by what is known of some names."""
        reader, part = self._reader, most / max(1, self._indexed)
        share, text = min((reader.share_of(text), text) for text in self._names.texts)
        return share <= part or (share <= _GUESSED_RATIO * part and reader.share_with(text) <= part)

    def expression(self, tier: int, begun: int) -> str | None:
        """What finds a tier; None when a pass is as good. `begun`: as many matches of TIER_BEGIN may be met again."""
        names = self._names
        if not names.texts:
            return None if self.ending is None else self.ending.expression
        if tier == TIER_EXACT:
            return search.all_of([search.whole(names.whole)])
        begin = MARK + names.begin if names.begin else ""
        if tier == TIER_BEGIN and not begin:
            return search.all_of([MARK * 3])  # no name has that
        terms = list(dict.fromkeys(term for text in names.texts for term in search.trigrams(text)))
        if tier == TIER_BEGIN:
            of_begin = search.trigrams(names.begin) if len(names.texts[0]) == len(names.begin) else []
            rest = [term for term in terms if term not in of_begin]
            return search.all_of([begin, *(self._rarest(rest)[: _TERMS_MAX - 1] if rest else ())])
        expression = search.all_of(self._rarest(terms))
        if tier == TIER_ALL or not begin or begun * _WALKED < self._reader.share_of(begin) * self._indexed:
            return expression
        return search.but_not(expression, begin)

    def _rarest(self, terms: list[str]) -> list[str]:
        """The rarest of some trigrams: more only where that costs less than the rows they spare."""
        common = self._reader.common
        terms.sort(key=lambda term: common.get(term, 0))
        most = _COMMON_RATIO * max(1, common.get(terms[0], 0))
        return [terms[0], *(term for term in terms[1:_TERMS_MAX] if common.get(term, 0) <= most)]

    @cached_property
    def ending(self) -> Ending | None:
        """What `ext:` or `kind:` of a query without texts asks for, where that is rare."""
        if self._names.texts:
            return None
        for term in self._query.terms:
            endings = _endings(term)
            if endings is None:
                continue
            texts = [f".{ending}{MARK}{MARK}" for ending in endings]
            kinds = term.condition.kinds if isinstance(term.condition, Kind) else ()
            types = self._known_types(kinds) if sum(map(self._reader.share_of, texts)) <= _PASS_SHARE else None
            if types is not None:
                some = [search.all_of(self._rarest(search.trigrams(text))) for text in texts]
                return Ending(" OR ".join(f"({expression})" for expression in some), types)
        return None

    def _known_types(self, kinds: tuple[str, ...]) -> list[int] | None:
        """The types whose bytes are of some kinds; None where there are many such bytes."""
        db: apsw.Connection = self._reader.db
        types = filetypes.known(db, types_of(kinds)) if kinds else []
        most = int(_PASS_SHARE * self._indexed) + _TYPED_MIN
        return types if not types or contents.count_of_types(db, types, most) < most else None


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
