"""A library of made-up rows that answers on a socket: run by the project's Python, spoken to by search_bench.

    search_library.py DIRECTORY ENTRIES QUERIES SEED

Makes the library, lets the index of its names be built, measures searches in this process, prints what it found as one
line of JSON, and serves the socket until its standard input ends. Nothing of the rows is on a disk, so nothing scans.
"""

import json
import random
import sys
import time
from functools import partial
from pathlib import Path

import trio

from benchlib.search_names import FILES_PER_DIRECTORY, directory_names, names, queries
from index.model.entry import KIND_DIR, KIND_FILE, Entry
from index.model.query import parse
from index.store import annotating, entries, search
from index.store.search import SearchIndex
from index.store.store import Store
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.ops.table import load
from vdfs.wire import server

FIRST = 100
ALL = 1_000_000_000
TAGGED = 2_000
_YEAR_NS = 365 * 86_400 * 10**9
_BATCH = 50_000


def fill(store: Store, root: Entry, count: int, seed: int) -> None:
    """So many files in directories below the root of the store, some of them tagged."""
    luck = random.Random(seed)
    now_ns = time.time_ns()
    homes: list[int] = []
    with store.write("bench") as unit:
        for name in directory_names(count // FILES_PER_DIRECTORY + 1):
            above = luck.choice(homes[-200:]) if homes and luck.random() < 0.7 else root.id
            homes.append(unit.new_id())
            entries.insert(unit.db, _row(root, homes[-1], above, name, KIND_DIR, now_ns))
    rows: list[tuple[int, str]] = []
    for number, name in enumerate(names(count, seed)):
        rows.append((homes[number // FILES_PER_DIRECTORY], name))
        if len(rows) == _BATCH or number == count - 1:
            with store.write("bench") as unit:
                entries.insert_many(
                    unit.db,
                    [
                        _row(root, unit.new_id(), home, name, KIND_FILE, now_ns - luck.randrange(15 * _YEAR_NS))
                        for home, name in rows
                    ],
                )
            rows.clear()
    with store.write("bench") as unit:
        for _ in range(min(TAGGED, count // 10)):
            entry_id = luck.randrange(homes[-1] + 1, homes[-1] + count)
            uuid = entry_id.to_bytes(16, "big")
            entries.set_uuid(unit.db, entry_id, uuid, unit.seq)
            annotating.add_tag(unit, uuid, "holiday")


def _row(root: Entry, entry_id: int, above: int, name: str, kind: int, mtime_ns: int) -> Entry:
    return root._replace(
        id=entry_id, parent_id=above, name=name.encode(), node=entry_id, kind=kind, mtime_ns=mtime_ns, st_ino=entry_id,
        mode=0o040755 if kind == KIND_DIR else 0o100644, size_bytes=entry_id % 5_000_000, uuid=None,
    )  # fmt: skip


def built(path: Path) -> dict[str, float]:
    """Build the index; what that took, and what it weighs."""
    longest_s, began_s, cpu_s = 0.0, time.perf_counter(), time.process_time()
    index = SearchIndex(path)
    has_more = True
    while has_more:
        slice_s = time.perf_counter()
        has_more = index.step()
        longest_s = max(longest_s, time.perf_counter() - slice_s)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    index.close()
    size_bytes = search.path_beside(path).stat().st_size
    return {"build_s": took_s, "build_cpu_s": cpu_s, "slice_s": longest_s, "index_bytes": size_bytes}


def writes(store: Store, root: Entry, count: int) -> dict[str, float]:
    """Seconds a row of making, renaming, removing: with the triggers, and without."""
    found: dict[str, float] = {}
    for state in ("with", "without"):
        with store.write("bench") as unit:
            if state == "without":
                for trigger in ("removed", "renamed", "returned"):
                    unit.db.execute(f"DROP TRIGGER search_{trigger}")
            rows = [_row(root, unit.new_id(), root.id, f"w{number}", KIND_FILE, 0) for number in range(count)]
            times_s = [time.perf_counter()]
            for row in rows:
                entries.insert(unit.db, row)
            times_s.append(time.perf_counter())
            for row in rows:
                entries.move(unit.db, row.id, root.id, b"v" + row.name, unit.seq)
            times_s.append(time.perf_counter())
            for row in rows:
                entries.delete(unit.db, row.id)
            times_s.append(time.perf_counter())
            for what, began_s, ended_s in zip(("create", "rename", "delete"), times_s, times_s[1:], strict=False):
                found[f"{what} {state}"] = (ended_s - began_s) / count
            if state == "without":
                for statement in search.SCHEMA.split("CREATE TRIGGER")[1:]:
                    unit.db.execute("CREATE TRIGGER" + statement)
    return found


async def asked(core: Core, rows: dict[str, list[str]]) -> dict[str, dict[str, list[float]]]:
    """Seconds of each query in this process: its first hits, and all of them (the first few queries of a row)."""
    found: dict[str, dict[str, list[float]]] = {}
    for row, texts in rows.items():
        found[row] = {"first": [], "all": [], "hits": []}
        for limit, part, key in ((FIRST, texts, "first"), (ALL, texts[:20], "all")):
            for text in texts[:3]:
                await core.finder.find(parse(text), min(limit, FIRST))
            for text in part:
                began_s = time.perf_counter()
                page = await core.finder.find(parse(text), limit)
                found[row][key].append(time.perf_counter() - began_s)
                if key == "all":
                    found[row]["hits"].append(len(page.hits))
    return found


async def main(directory: Path, count: int, asked_count: int, seed: int) -> None:
    config = Config(directory / "data", directory / "state", directory / "run")
    async with open_core(config, "Library") as core:
        store = core.library.store
        home = next(branch for branch in core.tree.branches.values() if branch.location is None)
        root = entries.get(store.db, home.root_entry_id)
        assert root is not None
        fill(store, root, count, seed)
        facts: dict[str, object] = {**built(store.path), "library_bytes": 0, "writes": writes(store, root, 2000)}
        await trio.to_thread.run_sync(built, store.path)
        store.db.wal_checkpoint()
        facts["rows"] = await asked(core, queries(asked_count, seed + 1))
        facts["library_bytes"] = store.path.stat().st_size
        registry = load()
        socket = directory / "socket"
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, socket, partial(registry.dispatch, core))
            print(json.dumps({**facts, "socket": str(socket)}), flush=True)
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
