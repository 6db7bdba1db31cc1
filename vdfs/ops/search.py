"""search.names: entries by their name."""

import attrs
import trio

from index.model.entry import KIND_NAMES, Entry
from index.model.errors import Invalid
from index.store import entries, names
from vdfs.ops.context import Core
from vdfs.ops.paths import row_path
from vdfs.ops.registry import doc, query

_LIMIT_MAX = 10_000


@attrs.frozen
class Search:
    query: str = attrs.field(metadata=doc("words that the name contains, all of them"))
    limit: int = 100


@attrs.frozen
class Hit:
    path: bytes
    kind: str
    size_bytes: int
    mtime_ns: int


@attrs.frozen
class Hits:
    hits: list[Hit]
    truncated: bool


@query("search.names")
async def search(core: Core, asked: Search) -> Hits:
    """Entries whose name contains every word, best first."""
    if not asked.query.strip():
        raise Invalid("give some text to search for")
    if asked.limit < 1:
        raise Invalid(f"a limit is a number from 1, not {asked.limit}")
    limit = min(asked.limit, _LIMIT_MAX)

    def find() -> list[tuple[Entry, list[bytes]]]:
        with core.library.store.reader() as db:
            return [(row, entries.path_of(db, row.id)) for row in names.search(db, asked.query, limit + 1)]

    found = await trio.to_thread.run_sync(find)
    hits = []
    for row, path in found[:limit]:
        told = row_path(core, row.branch_id, path)
        if told is not None:
            hits.append(Hit(told, KIND_NAMES[row.kind], row.size_bytes, row.mtime_ns))
    return Hits(hits, len(found) > limit)
