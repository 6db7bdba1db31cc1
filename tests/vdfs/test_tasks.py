"""Tasks beside the requests: a failure is logged and they go on; cancellation ends them."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from vdfs.base import tasks


def test_a_task_that_fails_begins_anew(caplog):
    """As often as it fails, a second later each time; also when what fails is a nursery of its own."""
    runs: list[float] = []

    async def task() -> None:
        runs.append(trio.current_time())
        if len(runs) == 2:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise OSError("in a nursery")
        if len(runs) < 4:
            raise ValueError("as a test")
        await trio.sleep_forever()

    async def main() -> None:
        with trio.move_on_after(60):
            await tasks.for_ever(task)
            raise AssertionError("it ended")

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert [later - sooner for sooner, later in pairwise(runs)] == [tasks.RESTART_S] * 3
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


def test_work_that_fails_is_over(caplog):
    """Its failure is in the log, and nobody else's."""

    async def work() -> None:
        raise ValueError("as a test")

    trio.run(tasks.once, work)
    assert "test_work_that_fails_is_over" in caplog.text


@pytest.mark.parametrize("run", [tasks.for_ever, tasks.once])
def test_the_end_of_the_process_passes_through(run):
    """KeyboardInterrupt is nobody's failure."""

    async def task() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trio.run(run, task)
