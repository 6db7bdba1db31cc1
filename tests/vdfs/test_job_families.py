"""Jobs and their parts: what somebody asks of one holds for the other, whatever else happens meanwhile."""

import pytest
import trio
import trio.testing

from index.model.errors import Invalid, NoSpace, NotFound, VdfsError
from tests.vdfs.job_steps import Steps, Stubborn, family, running, until
from vdfs.jobs.context import JobContext, Kind
from vdfs.jobs.job import BY_PARENT, BY_USER, NO_SPACE, ON_BATTERY, Status
from vdfs.jobs.manager import JobManager


def test_pausing_a_job_pauses_its_parts_and_they_go_on_together(tmp_path):
    steps = Steps(4)

    async def main() -> None:
        steps.gates[2] = trio.Event()
        async with running(tmp_path, *family(steps)) as jobs:
            job = jobs.submit("parent", "p", "k", {})
            await steps.at.wait()
            jobs.pause(job.id)
            await until(lambda: all(one.status is Status.PAUSED for one in jobs.table.live()))
            (part,) = jobs.table.children(job.id)
            with pytest.raises(Invalid, match="is paused; resume that one"):
                jobs.resume(part.id)
            steps.gates.clear()
            jobs.resume(job.id)
            ended = await jobs.wait(job.id)
            assert (ended.status, ended.result) == (Status.COMPLETED, {"part": "completed"})
            assert len(jobs.table.children(job.id)) == 1, "the part went on, it was not made again"

    trio.run(main)
    assert steps.done == list(range(4))


def test_cancelling_a_job_cancels_its_parts_and_keeps_them_in_the_history(tmp_path):
    steps = Steps(4)

    async def main() -> None:
        steps.gates[1] = trio.Event()
        async with running(tmp_path, *family(steps)) as jobs:
            job = jobs.submit("parent", "p", "k", {})
            await steps.at.wait()
            jobs.cancel(job.id)
            assert (await jobs.wait(job.id)).status is Status.CANCELLED
            (part,) = jobs.table.children(job.id)
            assert (await jobs.wait(part.id)).status is Status.CANCELLED
            for command in (jobs.pause, jobs.resume):
                with pytest.raises(Invalid):
                    command(job.id)
            assert jobs.cancel(job.id).status is Status.CANCELLED
            with pytest.raises(NotFound):
                jobs.pause(9999)

    trio.run(main)
    assert steps.done == [0]


def test_a_job_that_is_cancelled_in_the_moment_it_hears_some_news_is_cancelled_like_its_part(tmp_path):
    """It was about to look at its part, which had stopped before it came to that: no end of its own."""

    async def main() -> None:
        for _ in range(30):  # who of the two is first is by chance
            steps = Steps(2)
            steps.gates[1] = trio.Event()
            async with running(tmp_path, *family(steps)) as jobs:
                job = jobs.submit("parent", "p", "k", {})
                await steps.at.wait()
                await trio.testing.wait_all_tasks_blocked()
                jobs._tell()
                jobs.cancel(job.id)
                assert (await jobs.wait(job.id)).status is Status.CANCELLED

    trio.run(main)


def test_a_job_that_is_resumed_before_its_part_has_stopped_goes_on_with_it(tmp_path):
    part = Stubborn()

    async def main() -> None:
        async with running(tmp_path, *family(part)) as jobs:
            job = jobs.submit("parent", "p", "k", {})
            await until(lambda: part.runs == 1)
            jobs.pause(job.id)
            await until(lambda: jobs.get(job.id).status is Status.PAUSED)
            jobs.resume(job.id)
            part.may_stop.set()
            assert (await jobs.wait(job.id)).result == {"part": "completed"}

    trio.run(main)


def test_who_pauses_is_answered_when_the_parts_have_stopped_too(tmp_path):
    part = Stubborn()

    async def main() -> None:
        async with running(tmp_path, *family(part)) as jobs:
            job = jobs.submit("parent", "p", "k", {})
            await until(lambda: part.runs == 1)
            jobs.pause(job.id)
            await jobs.stopped(job.id, 0.05)
            (child,) = jobs.table.children(job.id)
            assert child.status is Status.RUNNING
            part.may_stop.set()
            await jobs.stopped(job.id, 5)
            assert jobs.get(child.id).status is Status.PAUSED

    trio.run(main)


@pytest.mark.parametrize("asked", ["cancel", "pause"])
@pytest.mark.parametrize("fails", [None, NoSpace("the disk is full"), VdfsError("the worker died")])
def test_what_somebody_asked_is_not_overruled_while_the_job_stops(tmp_path, asked, fails):
    """What runs of it may take a while, the mains may fail meanwhile, and so may the job."""
    alone = Stubborn(fails)

    async def main() -> None:
        async with running(tmp_path, Kind("stubborn", alone.run, lane="work")) as jobs:
            job = jobs.submit("stubborn", "s", "k", {})
            await until(lambda: alone.runs == 1)
            if asked == "cancel":
                jobs.cancel(job.id)
                jobs.pause(job.id)
            else:
                jobs.pause(job.id)
            jobs.hold(ON_BATTERY)
            assert (await jobs.stopped(job.id, 0.01)).status is Status.RUNNING
            alone.may_stop.set()
            stopped = await jobs.stopped(job.id, 5)
            jobs.release(ON_BATTERY)
            await trio.testing.wait_all_tasks_blocked()
            assert jobs.get(job.id).status is stopped.status
            if asked == "cancel":
                assert stopped.status is Status.CANCELLED
            else:
                assert (stopped.status, stopped.paused_by) == (Status.PAUSED, BY_USER)

    trio.run(main)


def test_a_part_that_waits_for_power_waits_for_the_person_as_well(tmp_path):
    part = Stubborn()
    part.may_stop.set()

    async def main() -> None:
        async with running(tmp_path, *family(part)) as jobs:
            job = jobs.submit("parent", "p", "k", {})
            await until(lambda: part.runs == 1)
            (child,) = jobs.table.children(job.id)
            jobs.hold(ON_BATTERY)
            await until(lambda: jobs.get(child.id).paused_by == ON_BATTERY)
            jobs.pause(job.id)
            jobs.release(ON_BATTERY)
            await trio.testing.wait_all_tasks_blocked()
            assert (jobs.get(child.id).status, part.runs) == (Status.PAUSED, 1)
            jobs.resume(job.id)
            assert (await jobs.wait(job.id)).result == {"part": "completed"}

    trio.run(main)


@pytest.mark.parametrize("asked", ["pause", "cancel"])
def test_a_job_that_is_stopped_between_two_parts_does_not_begin_the_next(tmp_path, asked):
    steps = Steps(1)

    async def parent(ctx: JobContext) -> None:
        await ctx.part("steps", "first", {})
        getattr(managers[0], asked)(ctx.job.id)
        await ctx.part("second", "second", {})

    second = Steps(1)
    managers: list[JobManager] = []

    async def main() -> None:
        kinds = (Kind("parent", parent), Kind("steps", steps.run), Kind("second", second.run))
        async with running(tmp_path, *kinds) as jobs:
            managers.append(jobs)
            job = jobs.submit("parent", "p", "k", {})
            await until(lambda: jobs.get(job.id).status in (Status.PAUSED, Status.CANCELLED))
            await trio.testing.wait_all_tasks_blocked()
            assert [child.kind for child in jobs.table.children(job.id)] == ["steps"]

    trio.run(main)
    assert second.done == []


@pytest.mark.parametrize(
    ("above", "part", "expected"),
    [
        (("cancelled", None), ("running", None), ("cancelled", None)),
        (("failed", None), ("paused", BY_USER), ("cancelled", None)),
        (("paused", BY_USER), ("running", None), ("paused", BY_PARENT)),
        (("paused", BY_USER), ("paused", NO_SPACE), ("paused", BY_PARENT)),
        (("paused", BY_USER), ("paused", BY_USER), ("paused", BY_USER)),
        (("running", None), ("paused", BY_PARENT), ("completed", None)),
        (("running", None), ("paused", BY_USER), ("paused", BY_USER)),
    ],
)
def test_after_a_kill_a_part_is_what_the_whole_is(tmp_path, above, part, expected):
    """A kill may meet them between the one row and the other."""
    table = JobManager(tmp_path).table
    job = table.add("parent", "p", "k", {}, 0, None)
    child = table.add("steps", "a part", "k", {}, 0, job.id)
    for one, (status, by) in ((job, above), (child, part)):
        table.set_status(one.id, Status(status), paused_by=by)
    table.close()

    async def main() -> None:
        async with running(tmp_path, *family(Steps(1))) as jobs:
            await until(lambda: jobs.get(child.id).status == expected[0])
            await trio.testing.wait_all_tasks_blocked()
            assert (str(jobs.get(child.id).status), jobs.get(child.id).paused_by) == expected

    trio.run(main)


def test_a_part_ends_with_what_it_is_a_part_of(tmp_path):
    """The whole fails for a reason of its own, while somebody holds the part up."""
    may_fail = trio.Event()
    part = Steps(1)

    async def parent(ctx: JobContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.part, "steps", "a part", {})
            await may_fail.wait()
            nursery.cancel_scope.cancel()
        raise VdfsError("its disk is gone")

    async def main() -> None:
        part.gates[0] = trio.Event()
        async with running(tmp_path, Kind("parent", parent), Kind("steps", part.run)) as jobs:
            job = jobs.submit("parent", "p", "k", {})
            await part.at.wait()
            (child,) = jobs.table.children(job.id)
            jobs.pause(child.id)
            await jobs.stopped(child.id, 5)
            may_fail.set()
            assert (await jobs.wait(job.id)).status is Status.FAILED
            assert (await jobs.wait(child.id)).status is Status.CANCELLED
            assert jobs.paused() == 0

    trio.run(main)
