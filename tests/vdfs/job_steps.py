"""Jobs for tests of jobs: of steps that are counted, of one part, and one that does not stop at once."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import trio

from vdfs.jobs.context import JobContext, Kind
from vdfs.jobs.manager import JobManager


class Steps:
    """A job of so many steps, each noted and written down; it waits at the gates that a test closes."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.done: list[int] = []
        self.gates: dict[int, trio.Event] = {}
        self.at = trio.Event()

    async def run(self, ctx: JobContext) -> dict[str, int]:
        first = 0 if ctx.state is None else ctx.state["next"]
        ctx.meter.phase("steps", self.count, done=first)
        for step in range(first, self.count):
            if step in self.gates:
                self.at.set()
                await self.gates[step].wait()
            await trio.lowlevel.checkpoint()
            self.done.append(step)
            ctx.meter.add(1)
            ctx.checkpoint({"next": step + 1})
        return {"steps": self.count}


@contextlib.asynccontextmanager
async def running(directory: Path, *kinds: Kind):
    """A manager of these kinds that runs; at the end it is stopped as a mount is that ends."""
    jobs = JobManager(directory, kinds)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(jobs.run)
            try:
                with trio.fail_after(20):
                    yield jobs
            finally:
                nursery.cancel_scope.cancel()
    finally:
        jobs.close()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  (a fact of several tables)
        await trio.sleep(0.01)


def family(steps: "Steps | Stubborn") -> tuple[Kind, Kind]:
    """A job of one part, which has these steps."""

    async def parent(ctx: JobContext) -> dict[str, str]:
        part = await ctx.part("steps", "a part", {})
        return {"part": str(part.status)}

    return Kind("parent", parent), Kind("steps", steps.run, lane="steps")


class Stubborn:
    """A job that runs until it is stopped, and stops when a test lets it; then it may fail."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.may_stop = trio.Event()
        self.fails = fails
        self.runs = 0

    async def run(self, ctx: JobContext) -> dict[str, int]:
        self.runs += 1
        if self.runs > 1:
            return {"runs": self.runs}
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.may_stop.wait()
            if self.fails is not None:
                raise self.fails from None
            raise
        raise AssertionError
