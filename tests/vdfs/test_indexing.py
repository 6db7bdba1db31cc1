"""The jobs of a branch when its walks fail, or are stopped: a scanner that walks nothing stands in for the real one."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from index.model.errors import NoSpace, VdfsError
from tests.vdfs.job_steps import until
from vdfs.indexing import indexing
from vdfs.indexing.indexing import Indexing
from vdfs.jobs.context import JobContext, Kind
from vdfs.jobs.job import Status
from vdfs.jobs.manager import JobManager
from vdfs.space.branches import LIVE

Walk = Callable[..., Awaitable[list[str]]]


async def _forever(*_: object) -> list[str]:
    await trio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def indexed(directory: Path, walk: Walk, monkeypatch: pytest.MonkeyPatch, *, no_room: bool = False):
    """(Indexing, its jobs, the one branch there is), of which too few directories have a watch."""
    monkeypatch.setattr(indexing, "_TRY_S", 0.001)
    monkeypatch.setattr(indexing, "_UNWATCHED_POLL_S", 0.02)
    branch: Any = SimpleNamespace(
        id=1, uuid=b"u" * 16, state=LIVE, slow=False, location=b"photos", label="", root_entry_id=5, root_path=b"/x",
        mode=0, is_followed=True,
    )  # fmt: skip
    store = SimpleNamespace(sums_below=lambda roots: SimpleNamespace(rfiles=0, rdirs=0))
    tree = SimpleNamespace(branches={1: branch}, of_location=lambda _: [branch], store=store, check=lambda one: True)
    scanner: Any = SimpleNamespace(
        tree=tree, store=store, walk_branch=walk, idle=True, identifier=SimpleNamespace(idle=True),
        progress=SimpleNamespace(current=None, dirs=0, entries=0),
        watch=SimpleNamespace(lacks_room=True, will_cover=lambda root: False),
    )  # fmt: skip
    jobs = JobManager(directory)
    made = Indexing(scanner, SimpleNamespace(extract=None, thumbnail=None, sidecars_dir=b"/"), jobs)  # type: ignore[arg-type]

    def set_state(branch: object, state: str, error: str | None = None) -> None:
        if no_room and state == "failed":
            raise NoSpace("the disk is full")

    async def nothing(ctx: JobContext) -> None: ...

    made._set_state = set_state  # type: ignore[method-assign]
    jobs.learn(Kind("cleanup", nothing, lane="tidy"))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(jobs.run)
            with trio.fail_after(20):
                yield made, jobs, branch, nursery
            nursery.cancel_scope.cancel()
    finally:
        jobs.close()


def test_a_walk_for_want_of_watches_that_somebody_cancelled_is_not_begun_again_at_once(tmp_path, monkeypatch):
    async def main() -> None:
        async with indexed(tmp_path, _forever, monkeypatch) as (made, jobs, _, nursery):
            nursery.start_soon(made._look_where_no_watch_is)
            await until(
                lambda: any(job.kind == "discover" and job.status is Status.RUNNING for job in jobs.table.live())
            )
            (job,) = jobs.table.recent(10)
            jobs.cancel(job.id)
            await jobs.stopped(job.id, 5)
            await trio.sleep(0.3)
            assert [str(one.status) for one in jobs.table.recent(10)] == ["cancelled"]

    trio.run(main)


def test_nor_is_one_that_failed(tmp_path, monkeypatch):
    async def fails(*_: object) -> list[str]:
        raise VdfsError("a page is damaged")

    async def main() -> None:
        async with indexed(tmp_path, fails, monkeypatch) as (made, jobs, _, nursery):
            nursery.start_soon(made._look_where_no_watch_is)
            await until(lambda: any(job.ended for job in jobs.table.recent(10)))
            await trio.sleep(0.3)
            assert [str(one.status) for one in jobs.table.recent(10)] == ["failed"]

    trio.run(main)


def test_a_walk_that_fails_where_it_was_ends_at_last_though_it_always_lists_something(tmp_path, monkeypatch):
    tries = []

    async def stuck(branch: object, starts: object, since: object, left_is: object, seen: Callable[[int, int], None]):
        tries.append(1)
        seen(3, 30)
        raise VdfsError("the worker died")

    async def main() -> None:
        async with indexed(tmp_path, stuck, monkeypatch) as (made, jobs, branch, _):
            assert (await jobs.wait(made.ask(branch).id)).status is Status.FAILED

    trio.run(main)
    assert 3 < len(tries) < 100


def test_one_that_comes_further_is_tried_on_and_on(tmp_path, monkeypatch):
    todo = list(range(100, 0, -1))

    async def slow(branch: object, starts: list[int], since: object, left_is: Callable[[list[int]], None], seen: Any):
        seen(1, 1)
        todo.pop()
        if not todo:
            return []
        left_is(todo[:])
        raise VdfsError("the worker was killed")

    async def main() -> None:
        async with indexed(tmp_path, slow, monkeypatch) as (made, jobs, branch, _):
            assert (await jobs.wait(made.ask(branch).id)).status is Status.COMPLETED

    trio.run(main)
    assert todo == []


def test_a_walk_that_is_cancelled_while_the_disk_is_full_is_cancelled(tmp_path, monkeypatch):
    async def main() -> None:
        async with indexed(tmp_path, _forever, monkeypatch, no_room=True) as (made, jobs, branch, _):
            job = made.ask(branch)
            await until(lambda: any(one.kind == "discover" for one in jobs.table.children(job.id)))
            await trio.testing.wait_all_tasks_blocked()
            jobs.cancel(job.id)
            await jobs.stopped(job.id, 5)
            statuses = {str(one.status) for one in (jobs.get(job.id), *jobs.table.children(job.id))}
            assert statuses == {"cancelled"}

    trio.run(main)
