"""search.*: entries by what is known of them, in the language of searches (docs/search.md); searches that are kept."""

import time

import attrs

from index.model.change import ORIGIN_CALL
from index.model.entry import KIND_NAMES, is_name
from index.model.errors import Invalid, NameTooLong
from index.model.query import Query, parse
from index.store import saved
from vdfs.ops.context import Core
from vdfs.ops.paths import branch_prefix
from vdfs.ops.registry import Nothing, action, doc, query

_LIMIT_MAX = 10_000


@attrs.frozen
class Search:
    query: str = attrs.field(metadata=doc("words that the name contains, and terms like `tag:x`; see docs/search.md"))
    limit: int = 100
    cursor: str | None = attrs.field(default=None, metadata=doc("that of the page before, to go on behind it"))


@attrs.frozen
class Hit:
    path: bytes
    kind: str
    size_bytes: int
    mtime_ns: int


@attrs.frozen
class Hits:
    hits: list[Hit]
    cursor: str | None = attrs.field(metadata=doc("gives the next page; null when there are no more"))
    truncated: bool = attrs.field(metadata=doc("whether there are more"))
    took: float = attrs.field(metadata=doc("seconds"))


@query("search.names")
async def search(core: Core, asked: Search) -> Hits:
    """A page of the entries that a query means, best first."""
    began_s = time.perf_counter()
    meant = _parsed(asked.query)
    if asked.limit < 1:
        raise Invalid(f"a limit is a number from 1, not {asked.limit}")
    found = await core.finder.find(meant, min(asked.limit, _LIMIT_MAX), asked.cursor)
    begins = {branch_id: branch_prefix(core, branch_id) for branch_id in {row.branch_id for row, _ in found.hits}}
    hits = []
    for row, path in found.hits:
        begin = begins[row.branch_id]
        if begin is not None:
            hits.append(Hit(begin + path, KIND_NAMES[row.kind], row.size_bytes, row.mtime_ns))
    return Hits(hits, found.cursor, found.cursor is not None, time.perf_counter() - began_s)


@attrs.frozen
class SavedSearch:
    name: bytes
    query: str


@attrs.frozen
class SavedName:
    name: bytes


@attrs.frozen
class SavedSearches:
    searches: list[SavedSearch]


@action("search.save")
async def save(core: Core, asked: SavedSearch) -> SavedSearch:
    """Keep a query under a name, or give the name another query; it shows as `.vdfs/search/saved/<name>`."""
    if not is_name(asked.name):
        raise Invalid("a saved search needs a name without '/' that is not '.' or '..'")
    if len(asked.name) > 255:
        raise NameTooLong("the name of a saved search has more than 255 bytes")
    text = str(_parsed(asked.query))
    store = core.library.store
    store.refuse_if_full()
    with store.write(ORIGIN_CALL) as unit:
        if saved.find(unit.db, asked.name) is None:
            saved.save(unit, asked.name, text)
        else:
            saved.set_query(unit, asked.name, text)
    await store.make_durable()
    return SavedSearch(asked.name, text)


@query("search.saved")
async def list_saved(core: Core, asked: Nothing) -> SavedSearches:
    """The saved searches, by name."""
    return SavedSearches([SavedSearch(row.name, row.query) for row in saved.every(core.library.store.db)])


@action("search.forget")
async def forget(core: Core, asked: SavedName) -> SavedName:
    """Remove a saved search."""
    with core.library.store.write(ORIGIN_CALL) as unit:
        saved.remove(unit, asked.name)
    await core.library.store.make_durable()
    return asked


def _parsed(text: str) -> Query:
    found = parse(text)
    if not found.terms:
        raise Invalid("give some text to search for")
    return found
