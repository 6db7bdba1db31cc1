"""Queries of the loop go by an index, however large the library: SQLite's own plan is asked.

A partial index is used only where a query repeats its conditions word for word, and a plan that reads the whole table
is right in every other respect: no other test would see it.
"""

import re
from collections.abc import Callable

import apsw
import pytest

from index.model.entry import HASH_NONE, HASH_SAMPLED
from index.store import contents, entries, heldback, metadata, rulings, tags
from index.store.store import Store

QUERIES = {
    "get": lambda db: entries.get(db, 5),
    "child": lambda db: entries.child(db, 1, b"name"),
    "children": lambda db: entries.children(db, 1),
    "names_beginning": lambda db: entries.names_beginning(db, 1, b"stem"),
    "subdirectories": lambda db: entries.subdirectories(db, 1),
    "by_st_ino": lambda db: entries.by_st_ino(db, 1, 77),
    "by_node": lambda db: entries.by_node(db, 5),
    "replicas_before": lambda db: entries.replicas_before(db, 5, 5, 1, b"name"),
    "by_uuid": lambda db: entries.by_uuid(db, b"u" * 16),
    "unidentified": lambda db: entries.unidentified(db, 1, HASH_NONE, 0, 10**18, 256),
    "sampled only": lambda db: entries.unidentified(db, 1, HASH_SAMPLED, 0, 10**18, 256),
    "count_unidentified": entries.count_unidentified,
    "has_unidentified": entries.has_unidentified,
    "path_of": lambda db: entries.path_of(db, 5),
    "ruled_names": lambda db: entries.ruled_names(db, 1),
    "listed_as": lambda db: entries.listed_as(db, 1),
    "held": lambda db: list(rulings.held(db, 1)),
    "delete": lambda db: entries.delete(db, 5),
    "some": lambda db: entries.some(db, [5, 6]),
    "unread_of": lambda db: entries.unread_of(db, [5, 6]),
    "is_empty": lambda db: entries.is_empty(db, 1),
    "content of a sampled id": lambda db: contents.hint(db, b"s" * 8, 5 << 20),
    "contents of full hashes": lambda db: contents.exact(db, [contents.Read(b"s" * 8, b"f" * 32, 7, None)]),
    "content by full hash": lambda db: contents.by_full(db, b"h" * 32),
    "tags of a file": lambda db: tags.of_entry(db, b"u" * 16),
}


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "library.db", b"d" * 16)
    yield opened
    opened.close()


#: Passes over what a query itself has bounded.
HARMLESS = ("SCAN up", "SCAN json_each", "SCAN (subquery")


def asked(store: Store, query: Callable[[apsw.Connection], object]) -> list[tuple[str, object]]:
    """What a query asks of the database, with what it binds."""
    found: list[tuple[str, object]] = []
    store.db.exec_trace = lambda _cursor, sql, bindings: found.append((sql, bindings)) or True
    query(store.db)
    store.db.exec_trace = None
    assert found
    return found


def plan_of(store: Store, sql: str, bindings: object) -> list[str]:
    """SQLite's own plan, step by step."""
    return [row[3] for row in store.db.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]


def passes(store: Store, sql: str, bindings: object) -> list[str]:
    """The steps of a plan that read a table from its first row, or from some row on, to its end."""
    plan = plan_of(store, sql, bindings)
    return [step for step in plan if "entry_todo" not in step and (step.startswith("SCAN ") or "(rowid>?)" in step)]


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_of_the_loop_reads_a_table(store, name):
    """No plan has such a step; a pass over the partial index of what is to be done is what that index is for."""
    for sql, bindings in asked(store, QUERIES[name]):
        assert [s for s in passes(store, sql, bindings) if not s.startswith(HARMLESS)] == [], sql


OF_ONE_ENTRY = {
    "tags": lambda db: tags.of_entry(db, b"u" * 16),
    "tags in order": lambda db: tags.in_order(db, b"u" * 16),
    "additions of a device": lambda db: tags.dots_of(db, b"u" * 16, b"d" * 16),
    "removed tag": lambda db: tags.remove_dots(db, b"u" * 16, "name"),
    "attributes": lambda db: metadata.all_of(db, b"u" * 16),
    "attributes of a device": lambda db: metadata.cells_of(db, b"u" * 16, b"d" * 16),
    "what waits for rules": lambda db: heldback.due(db, b"d" * 16, b""),
}


@pytest.mark.parametrize("name", OF_ONE_ENTRY)
def test_what_is_asked_of_one_entry_goes_by_that(store, name):
    """Not by all that a device ever attached to anything, by whatever index."""
    for sql, bindings in asked(store, OF_ONE_ENTRY[name]):
        plan = plan_of(store, sql, bindings)
        looked = [step for step in plan if re.match(r"(SEARCH|SCAN) .*\b(g|tagging|attribute)\b", step)]
        assert looked, plan
        assert all("entry_uuid=?" in step for step in looked), plan


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM entry WHERE size_bytes=7",
        "SELECT id FROM entry WHERE kind=0 AND hash_state=? AND size_bytes>0 AND id>5 ORDER BY id",
    ],
)
def test_a_pass_is_seen(store, sql):
    """The check can fail: for a column without an index, and for a partial index whose conditions are not repeated."""
    assert passes(store, sql, (0,) if "?" in sql else ())
