"""Searches as operations: pages by cursor, the task that keeps the index, and what happens when it is damaged."""

import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from index.model.errors import Exists, Invalid, NotFound
from index.store import finding, registers, saved, search
from index.store.connection import one
from index.store.reading import SearchReader
from sync.log import epochs
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.ops.table import load
from vdfs.space.indexer import Indexer

PATIENCE_S = 30


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Runs a test with an open library; `files` are made in its store, and known."""

    async def with_core(test: Callable[..., Awaitable[None]]) -> None:
        config = Config(tmp_path / "data", tmp_path / "state", tmp_path / "run")
        async with open_core(config, "Library") as core:
            await test(core)

    return lambda test: trio.run(with_core, test)


async def make(core: Core, *names: str) -> None:
    for name in names:
        (core.library.store_dir / name).write_bytes(b"x")
    await core.tree.listing(core.tree.root)


async def ask(core: Core, method: str, **params: Any) -> Any:
    return await load().dispatch(core, method, params)


async def found(core: Core, query: str) -> list[str]:
    result = await ask(core, "query:search.names", query=query, limit=10_000)
    return sorted(hit["path"].removeprefix("sd:/") for hit in result["hits"])


async def eventually(check: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_S):
        while not check():  # noqa: ASYNC110  (what is waited for tells nobody)
            await trio.sleep(0.01)


def is_in_its_file(path: Path) -> bool:
    """Whether nothing of a database is in its log any more, and nobody else has it open."""
    with contextlib.closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return not path.with_name(f"{path.name}-wal").exists()


def is_indexed(core: Core) -> bool:
    """Whether the index of names has followed all there is."""
    reader = SearchReader(core.library.store.path)
    try:
        with reader.snapshot() as known:
            pass
    except apsw.Error:  # damaged
        return False
    finally:
        reader.close()
    if known is None:
        return False
    newest = one(core.library.store.db, "SELECT max(id) FROM entry")[0]
    return known.indexed_id >= newest and known.done_seq >= search.last_line(core.library.store.db)


def test_pages_follow_each_other_by_their_cursors(run):
    """Each hit once; the last page has no cursor, and says so."""

    async def check(core: Core) -> None:
        names = [f"beach {number}" for number in range(30)]
        await make(core, *names)
        paths, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = await ask(core, "query:search.names", query="beach type:file", limit=7, cursor=cursor)
            assert page["truncated"] is (page["cursor"] is not None)
            assert page["took"] >= 0
            paths += [hit["path"] for hit in page["hits"]]
            cursor, pages = page["cursor"], pages + 1
        assert pages == 5
        assert sorted(paths) == sorted(f"sd:/{name}" for name in names)
        page = await ask(core, "query:search.names", query="beach", limit=3)
        for query, given in (("other", page["cursor"]), ("beach", "nonsense"), ("beach", "é"), ("beach", "")):
            with pytest.raises(Invalid, match="cursor is of another search"):
                await ask(core, "query:search.names", query=query, cursor=given)

    run(check)


@pytest.mark.parametrize(
    ("query", "said"), [("  ", "give some text"), ("x:y", r"at character 1"), ("size:>", "nothing")]
)
def test_what_is_no_query_is_refused(run, query, said):
    """With the one line of the language."""

    async def check(core: Core) -> None:
        with pytest.raises(Invalid, match=said):
            await ask(core, "query:search.names", query=query)

    run(check)


def test_the_index_follows_while_the_library_is_open(run):
    """What is made, renamed and removed is found as it is at any moment; followed lines are forgotten."""

    async def check(core: Core) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(core.scanner.pool.run)
            nursery.start_soon(Indexer(core.library.store, core.scanner.pool).run)
            await make(core, *(f"beach {number}" for number in range(200)))
            assert len(await found(core, "beach")) == 200
            await eventually(lambda: is_indexed(core))
            for number in range(100):
                os.rename(core.library.store_dir / f"beach {number}", core.library.store_dir / f"sea {number}")
            await core.tree.listing(core.tree.root)
            assert (len(await found(core, "beach")), len(await found(core, "sea"))) == (100, 100)
            await eventually(lambda: is_indexed(core))
            db = core.library.store.db
            await eventually(lambda: one(db, "SELECT count(*) FROM search_todo")[0] <= 64)
            assert (len(await found(core, "beach")), len(await found(core, "sea"))) == (100, 100)
            assert await trio.to_thread.run_sync(search.check, core.library.store.path) == []
            nursery.cancel_scope.cancel()

    run(check)


def test_an_index_of_another_epoch_is_made_anew_while_the_library_is_open(run):
    """A device that learns from others that its database was an old copy counts anew from that moment on."""

    async def check(core: Core) -> None:
        store = core.library.store
        await make(core, *(f"beach {number}" for number in range(50)))
        async with trio.open_nursery() as nursery:
            await nursery.start(core.scanner.pool.run)
            nursery.start_soon(Indexer(store, core.scanner.pool).run)
            await eventually(lambda: is_indexed(core))
            epochs.new_epoch(store, copied_seq=0, known_seq=store.last_seq)
            assert any("another state" in fault for fault in search.check(store.path))
            await eventually(lambda: search.check(store.path) == [] and is_indexed(core))
            assert len(await found(core, "beach")) == 50
            nursery.cancel_scope.cancel()

    run(check)


def test_an_index_that_is_just_being_made_is_no_fault(run):
    """Its file comes before its tables, and who checks makes none."""

    async def check(core: Core) -> None:
        path = search.path_beside(core.library.store.path)
        assert search.check(core.library.store.path) == []
        assert not path.exists()
        path.touch()
        assert search.check(core.library.store.path) == []
        search.SearchIndex(core.library.store.path).close()
        assert search.check(core.library.store.path) == []

    run(check)


def test_a_damaged_index_is_done_without_and_built_anew(run):
    """Searches go on, exact; who keeps it notices and begins again."""

    async def check(core: Core) -> None:
        await make(core, *(f"beach {number}" for number in range(50)))
        path = search.path_beside(core.library.store.path)
        async with trio.open_nursery() as pool:
            await pool.start(core.scanner.pool.run)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Indexer(core.library.store, core.scanner.pool).run)
                await eventually(lambda: is_indexed(core))
                nursery.cancel_scope.cancel()
            await eventually(lambda: is_in_its_file(path))  # the worker that wrote it may not have closed it yet
            assert len(await found(core, "beach")) == 50
            whole = path.read_bytes()
            path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
            assert not is_indexed(core)
            await make(core, "beach after")
            assert len(await found(core, "beach")) == 51
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Indexer(core.library.store, core.scanner.pool).run)
                await eventually(lambda: is_indexed(core))
                assert len(await found(core, "beach")) == 51
                nursery.cancel_scope.cancel()
            pool.cancel_scope.cancel()

    run(check)


def test_verifying_the_whole_library_asks_the_index_of_names_too(run):
    """What is wrong with it is told as of its file; one location alone is compared with the disk only."""

    async def check(core: Core) -> None:
        await make(core, "beach", "sea")
        index = search.SearchIndex(core.library.store.path)
        while index.step():
            pass
        assert await ask(core, "query:index.verify") == {"checked": 2, "differences": []}
        index._db.execute("DELETE FROM search_names")
        index.close()
        differences = (await ask(core, "query:index.verify"))["differences"]
        assert {one["kind"] for one in differences} == {"search"}
        assert {Path(one["path"]).name for one in differences} == {"search.db"}
        assert any("is not in the index of names" in one["detail"] for one in differences)

    run(check)


def test_a_search_that_nobody_waits_for_ends(run, monkeypatch):
    """Its thread is free again, whatever it was doing."""

    def endless(reader, *_: object) -> None:
        reader.db.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
        ).fetchall()

    async def check(core: Core) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(finding, "find", endless)
            for _ in range(6):
                with trio.move_on_after(0.05) as scope:
                    await found(core, "beach")
                assert scope.cancelled_caught
        await make(core, "beach")
        with trio.fail_after(PATIENCE_S):
            assert await found(core, "beach") == ["beach"]

    run(check)


def test_saved_searches_are_rows_that_other_devices_hear_of(run):
    """By uuid; each change is told, a name is taken once, and what is gone keeps its row."""

    async def check(core: Core) -> None:
        store = core.library.store
        await ask(core, "action:search.save", name="sea", query="  beach   kind:image ")
        assert await ask(core, "query:search.saved") == {"searches": [{"name": "sea", "query": "beach kind:image"}]}
        await ask(core, "action:search.save", name="sea", query="waves")
        with store.write("test") as unit:
            saved.save(unit, b"other", "x")
        with pytest.raises(Exists), store.write("test") as unit:
            saved.rename(unit, b"other", b"sea")
        with store.write("test") as unit:
            saved.rename(unit, b"other", b"sea", replace=True)
        await ask(core, "action:search.forget", name="sea")
        with pytest.raises(NotFound, match="sd search --saved"):
            await ask(core, "action:search.forget", name="sea")
        assert await ask(core, "query:search.saved") == {"searches": []}
        keys = registers.keys_of(store.db, "saved_search")
        said = [registers.fields_of(store.db, "saved_search", key) for key in keys]
        named = sorted((row["query"], row["name"], row["removed"]) for row in said)
        assert named == [("waves", b"sea", True), ("x", b"sea", True)]
        assert one(store.db, "SELECT count(*) FROM saved_search") == (0,)
        for name in ("", "a/b", ".."):
            with pytest.raises(Invalid):
                await ask(core, "action:search.save", name=name, query="x")

    run(check)
