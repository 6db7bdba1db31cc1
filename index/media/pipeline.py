"""Taking in what media workers found, and what is left for them to do: the daemon's half, as plain functions.

Like index/scan/pipeline.py they keep nothing: all state is in the rows, so whatever drives them may stop between two
calls and go on later, from the content it was at.

A queue is read in pages (`Page`): contents of a known full hash that no present version has seen, each with one file to
read it from, on a branch that is there. Who has none is passed over, and found again by the next pass.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import apsw

from index.media import registry
from index.media.registry import EXTRACTORS, Extractor
from index.media.variants import DEFAULT
from index.model.filetype import BY_TYPE, UNKNOWN
from index.store import contents, entries, extracts, filetypes, sidecars
from index.store.extracts import Extracted, Waiting
from index.store.sidecars import THUMB, Sidecar
from index.store.unit import Unit

#: Contents in one page, at most.
PAGE = 256


class Source(NamedTuple):
    """A content that waits, and a file that holds it: a row as it was when its hash became known."""

    content_id: int
    full: bytes
    type_name: str | None
    branch_id: int
    path: list[bytes]
    size_bytes: int
    mtime_ns: int
    inode: int

    def item(self) -> dict[str, Any]:
        """As a worker is told."""
        return {
            "id": self.content_id, "full": self.full, "path": self.path, "size_bytes": self.size_bytes,
            "mtime_ns": self.mtime_ns, "inode": self.inode, "type": self.type_name,
        }  # fmt: skip


class Page(NamedTuple):
    """`next_id` is where to go on; None at the end of the queue. An empty page is not the end."""

    sources: list[Source]
    next_id: int | None


def lacking_fields(
    db: apsw.Connection, live: Collection[int], after_id: int = 0, extractors: Iterable[Extractor] = EXTRACTORS
) -> Page:
    """Contents that no present extractor has read, readable on one of the branches `live`. One look goes through
    `extracts.WINDOW` rows at most (some ms). Those whose type nobody knows are among them: they get it, and come again
    in the next pass if somebody reads that type."""
    table = tuple(extractors)
    types = frozenset(registry.by_type(table))
    waiting, next_id = extracts.lacking(db, types, registry.present(table), after_id, PAGE)
    return Page(_readable(db, waiting, live), next_id)


def lacking_thumbnails(
    db: apsw.Connection, live: Collection[int], after_id: int = 0, variants: Sequence[str] = DEFAULT
) -> Page:
    """Images without a thumbnail of the present version in each of the variants; otherwise as `lacking_fields`."""
    version = registry.THUMB_VERSION
    waiting, next_id = sidecars.lacking(db, registry.THUMB_TYPES, variants, version, after_id, PAGE)
    return Page(_readable(db, waiting, live), next_id)


def count_fields(db: apsw.Connection, branch_id: int, extractors: Iterable[Extractor] = EXTRACTORS) -> int:
    """How many contents of a branch wait for their fields; for a thread."""
    table = tuple(extractors)
    return extracts.count_lacking(db, frozenset(registry.by_type(table)), registry.present(table), branch_id)


def count_thumbnails(db: apsw.Connection, branch_id: int, variants: Sequence[str] = DEFAULT) -> int:
    """How many images of a branch wait for a thumbnail; for a thread."""
    return sidecars.count_lacking(db, registry.THUMB_TYPES, variants, registry.THUMB_VERSION, branch_id)


def _readable(db: apsw.Connection, waiting: Iterable[Waiting], live: Collection[int]) -> list[Source]:
    """Each with a file to read it from. The one place that decides whose files are not read for this."""
    sources = []
    for one in waiting:
        row = next((row for row in entries.holding(db, one.content_id) if row.branch_id in live and not row.rule), None)
        if row is None:
            continue
        path = entries.path_of(db, row.id)
        sources.append(Source(*one, row.branch_id, path, row.size_bytes, row.mtime_ns, row.st_ino))
    return sources


def take_extracted(
    unit: Unit, results: Iterable[tuple[int, list[Any]]], extractors: Iterable[Extractor] = EXTRACTORS
) -> list[int]:
    """Write what `extract` found; returns the contents whose file must be looked at again."""
    again = []
    table = registry.by_type(extractors)
    for content_id, result in results:
        if result[0] == "again":
            again.append(content_id)
        elif contents.get(unit.db, content_id) is None:
            continue  # nobody has it any more
        elif result[0] == "type":
            found, method = BY_TYPE.get(result[1], UNKNOWN), result[2]
            contents.set_type(unit.db, content_id, filetypes.intern(unit.db, found), method)
        elif result[0] == "done":
            _, extractor, version, fields = result
            extracts.put(unit.db, Extracted(content_id, extractor, version, extracts.DONE, None, fields))
        else:
            known = filetypes.of_content(unit.db, content_id)
            reader = None if known is None else table.get(known[0].name)
            if reader is not None:
                row = Extracted(content_id, reader.name, reader.version, extracts.FAILED, result[1], {})
                extracts.put(unit.db, row)
    return again


def take_thumbnails(
    unit: Unit, results: Iterable[tuple[int, list[Any]]], variants: Sequence[str] = DEFAULT
) -> list[int]:
    """Write which thumbnails were made; returns the contents whose file must be looked at again."""
    again = []
    version = registry.THUMB_VERSION
    for content_id, result in results:
        if result[0] == "again":
            again.append(content_id)
            continue
        if contents.get(unit.db, content_id) is None:
            continue
        if result[0] == "failed":
            rows = [
                Sidecar(content_id, THUMB, name, "webp", 0, sidecars.FAILED, result[1], version) for name in variants
            ]
        else:
            rows = [
                Sidecar(
                    content_id, THUMB, name, "webp", size or 0, sidecars.SERVED if size is None else sidecars.READY,
                    None, version,
                )
                for name, size in result[1].items()
            ]  # fmt: skip
        sidecars.put(unit.db, rows)
    return again
