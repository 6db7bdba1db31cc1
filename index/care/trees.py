"""Trees: which pages of a damaged file belong to which table, and the records on them.

In: the pages (pages.py). Out: for a table or an index, its records and what of it is lost; the declarations that the
file has. A page that no tree leads to any more, because the page above it is damaged, is told apart: who knows what a
record of a table looks like may claim it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import attrs

from index.care.pages import INDEX_INNER, INDEX_LEAF, INNER, TABLE_INNER, TABLE_LEAF, Cell, Damaged, Pages

_SCHEMA_ROOT = 1
_KINDS = ("table", "index", "trigger", "view")


class Declared(NamedTuple):
    """A line of sqlite_schema."""

    kind: str
    name: str
    root: int


@attrs.define
class Losses:
    """What could not be read of one tree: pages of it, and cells on pages that could."""

    pages: int = 0
    cells: int = 0

    def __bool__(self) -> bool:
        return bool(self.pages or self.cells)


class Trees:
    """The b-trees of a file."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._reached: set[int] = set()
        self.declared = self._declared()

    def cells(self, root: int, *, rows: bool, losses: Losses) -> Iterator[Cell]:
        """The cells that hold records of a tree; of a table with rowids when `rows`, else of an index."""
        kinds = (TABLE_INNER, TABLE_LEAF) if rows else (INDEX_INNER, INDEX_LEAF)
        todo, seen = [root], {root}
        while todo:
            number = todo.pop()
            try:
                page = self._pages.read(number)
                if page.kind not in kinds:
                    raise Damaged(f"page {number} is one of another tree")
            except Damaged:
                losses.pages += 1
                continue
            self._reached.add(number)
            losses.cells += page.lost
            below = [cell.child for cell in page.cells if cell.child is not None]
            below += [page.right] if page.right is not None else []
            for child in reversed(below):
                if child in seen or child in self._reached:
                    losses.pages += 1
                else:
                    seen.add(child)
                    todo.append(child)
            yield from (cell for cell in page.cells if cell.record is not None)

    def unreached(self) -> Iterator[list[Cell]]:
        """The cells of each leaf that is whole, and that neither a tree nor the freelist leads to."""
        known = self._reached | self._pages.free()
        for number in range(2, self._pages.count + 1):
            if number in known:
                continue
            try:
                page = self._pages.read(number)
            except Damaged:
                continue
            if page.kind not in INNER and page.cells and not page.lost:
                yield page.cells

    def _declared(self) -> dict[str, Declared]:
        """What the file declares, by name; when its own tree is damaged, what looks like a declaration."""
        losses = Losses()
        found = [_line(cell) for cell in self.cells(_SCHEMA_ROOT, rows=True, losses=losses)]
        if losses:
            found += [_line(cell) for cells in self.unreached() for cell in cells]
        return {line.name: line for line in reversed(found) if line is not None}


def _line(cell: Cell) -> Declared | None:
    record = cell.record or ()
    if len(record) != 5 or record[0] not in _KINDS:
        return None
    kind, name, table, root, _ = record
    if isinstance(kind, str) and isinstance(name, str) and isinstance(table, str) and isinstance(root, int):
        return Declared(kind, name, root)
    return None
