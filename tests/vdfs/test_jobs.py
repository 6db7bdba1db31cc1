"""Jobs: what becomes of them when they are paused, cancelled, killed, and when they fail."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from index.model.errors import Invalid, NoSpace, Unreachable
from tests.vdfs.job_steps import Steps, family, running, until
from vdfs.jobs import joblog, manager, power, table
from vdfs.jobs.context import JobContext, Kind
from vdfs.jobs.job import BY_USER, ENDED, NEXT, NO_SPACE, ON_BATTERY, Priority, Status
from vdfs.jobs.manager import JobManager
from vdfs.jobs.meter import Meter

ROOT = Path(__file__).resolve().parents[2]


def test_a_job_runs_to_its_end_and_is_remembered(tmp_path):
    """Status, result, counts, its log; and a further manager knows it still."""

    async def main() -> None:
        async with running(tmp_path, Kind("steps", Steps(5).run)) as jobs:
            job = await jobs.wait(jobs.submit("steps", "five steps", "k", {}).id)
            assert (job.status, job.result, job.runs) == (Status.COMPLETED, {"steps": 5}, 1)
            assert (job.progress.phase, job.progress.done, job.progress.total) == ("steps", 5, 5)
            said = [line.split(" ", 2)[2] for line in jobs.logs.read(job.id, 10)]
            assert said == ["queued: five steps", "begins", "phase: steps", "completed"]

    trio.run(main)
    table = JobManager(tmp_path).table
    assert [job.title for job in table.recent(10)] == ["five steps"]
    table.close()


def test_what_a_person_paused_stays_so_over_a_restart_and_goes_on_where_it_was(tmp_path):
    """No step is done twice, none is left out."""
    steps = Steps(6)

    async def first() -> None:
        steps.gates[3] = trio.Event()
        async with running(tmp_path, Kind("steps", steps.run)) as jobs:
            job = jobs.submit("steps", "s", "k", {})
            await steps.at.wait()
            jobs.pause(job.id)
            await until(lambda: jobs.get(job.id).status is not Status.RUNNING)
            assert (jobs.get(job.id).status, jobs.get(job.id).paused_by) == (Status.PAUSED, BY_USER)

    async def second() -> None:
        steps.gates.clear()
        async with running(tmp_path, Kind("steps", steps.run)) as jobs:
            await trio.sleep(0.05)
            (job,) = jobs.table.live()
            assert job.status is Status.PAUSED
            assert steps.done == [0, 1, 2]
            jobs.resume(job.id)
            ended = await jobs.wait(job.id)
            assert (ended.status, ended.runs) == (Status.COMPLETED, 2)

    trio.run(first)
    trio.run(second)
    assert steps.done == list(range(6))


def test_a_job_that_runs_when_its_process_ends_goes_on_by_itself(tmp_path):
    """In order here; killed in the next test."""
    steps = Steps(6)

    async def first() -> None:
        steps.gates[2] = trio.Event()
        async with running(tmp_path, Kind("steps", steps.run)) as jobs:
            jobs.submit("steps", "s", "k", {})
            await steps.at.wait()

    async def second() -> None:
        steps.gates.clear()
        async with running(tmp_path, Kind("steps", steps.run)) as jobs:
            (job,) = jobs.table.live()
            await jobs.wait(job.id)

    trio.run(first)
    trio.run(second)
    assert steps.done == list(range(6))


KILLED = """
import sys, trio
from pathlib import Path
from vdfs.jobs.context import Kind
from vdfs.jobs.manager import JobManager

async def steps(ctx):
    for step in range(0 if ctx.state is None else ctx.state["next"], 2000):
        with open(sys.argv[2], "a") as file:
            file.write(f"{step}\\n")
        ctx.checkpoint({"next": step + 1})
        await trio.lowlevel.checkpoint()

async def main():
    jobs = JobManager(Path(sys.argv[1]), [Kind("steps", steps)])
    async with trio.open_nursery() as nursery:
        await nursery.start(jobs.run)
        job = (jobs.table.recent(1) or [jobs.submit("steps", "many steps", "k", {})])[0]
        await jobs.wait(job.id)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_a_killed_job_does_at_most_its_last_step_twice(tmp_path):
    """SIGKILL again and again, at whatever point; between a step and its checkpoint lies one repetition."""
    done = tmp_path / "done"
    kills = 0
    while True:
        process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path, done], cwd=ROOT)
        before = done.stat().st_size if done.exists() else 0
        while process.poll() is None and (not done.exists() or done.stat().st_size < before + 1500):
            time.sleep(0.001)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0
    assert kills >= 3
    steps = [int(line) for line in done.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(2000))
    assert len(steps) <= 2000 + kills
    jobs = JobManager(tmp_path)
    (job,) = jobs.table.recent(5)
    assert job.status is Status.COMPLETED
    assert 3 < job.runs <= kills + 1, "one that was killed before it had begun did not run"
    assert sum("goes on from its last checkpoint" in line for line in jobs.logs.read(job.id, 1000)) >= job.runs - 1
    jobs.close()


def test_a_job_that_fails_says_why_and_ends_nothing_else(tmp_path, caplog):
    """An error of the tree by its words; a bug by its name, with a traceback in the log."""

    async def refused(ctx: JobContext) -> None:
        raise Unreachable("the disk is not there")

    async def broken(ctx: JobContext) -> None:
        raise ZeroDivisionError("oh")

    async def main() -> None:
        async with running(tmp_path, Kind("r", refused), Kind("b", broken), Kind("s", Steps().run)) as jobs:
            ids = [jobs.submit(kind, kind, kind, {}).id for kind in ("r", "b", "s")]
            ends = [await jobs.wait(i) for i in ids]
            assert [job.status for job in ends] == [Status.FAILED, Status.FAILED, Status.COMPLETED]
            assert ends[0].error == "the disk is not there"
            assert ends[1].error.startswith("unexpected ZeroDivisionError: oh")

    trio.run(main)
    assert "job 2 (b) failed" in caplog.text


def test_a_job_that_finds_no_room_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(manager, "RETRY_S", 0.02)
    room = [False]
    runs = []

    async def needs_room(ctx: JobContext) -> None:
        runs.append(ctx.state)
        ctx.checkpoint({"at": len(runs)})
        if not room[0]:
            raise NoSpace("the disk is full")

    async def main() -> None:
        async with running(tmp_path, Kind("n", needs_room)) as jobs:
            jobs.may_go_on[NO_SPACE] = lambda: room[0]
            job = jobs.submit("n", "n", "k", {})
            await until(lambda: jobs.get(job.id).status is Status.PAUSED)
            assert jobs.get(job.id).paused_by == NO_SPACE
            assert [note.text for note in jobs.table.notes(job.id)] == ["the disk is full"]
            room[0] = True
            assert (await jobs.wait(job.id)).status is Status.COMPLETED

    trio.run(main)
    assert runs == [None, {"at": 1}]


def test_the_more_important_goes_first_and_a_lane_holds_one(tmp_path):
    order: list[str] = []
    at_once = [0, 0]

    async def work(ctx: JobContext) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        order.append(ctx.job.title)
        await trio.sleep(0.01)
        at_once[0] -= 1

    async def main() -> None:
        jobs = JobManager(tmp_path, [Kind("w", work, lane="one")])
        ids = [
            jobs.submit("w", title, title, {}, priority).id
            for title, priority in (("low", Priority.LOW), ("a", 0), ("b", 0), ("high", Priority.HIGH))
        ]
        async with trio.open_nursery() as nursery:
            await nursery.start(jobs.run)
            for i in ids:
                await jobs.wait(i)
            nursery.cancel_scope.cancel()
        jobs.close()

    trio.run(main)
    assert order == ["high", "a", "b", "low"]
    assert at_once[1] == 1


def test_what_is_asked_for_while_it_runs_is_done_once_more(tmp_path):
    """However often it is asked for; what only waits is not doubled."""
    steps = Steps(2)

    async def main() -> None:
        steps.gates[1] = trio.Event()
        async with running(tmp_path, Kind("steps", steps.run, lane="l")) as jobs:
            first = jobs.submit("steps", "s", "k", {"n": 1})
            await steps.at.wait()
            for n in range(5):
                assert jobs.submit("steps", "s", "k", {"n": n}).id == first.id
            steps.gates[1].set()
            await jobs.wait(first.id)
            (second,) = jobs.table.live()
            assert second.args == {"n": 4}
            assert (await jobs.wait(second.id)).status is Status.COMPLETED
            assert len(jobs.table.recent(10)) == 2

    trio.run(main)
    assert steps.done == [0, 1, 0, 1]


def test_a_checkpoint_of_another_version_is_not_read(tmp_path):
    steps = Steps(3)

    async def first() -> None:
        steps.gates[2] = trio.Event()
        async with running(tmp_path, Kind("steps", steps.run, version=1)) as jobs:
            jobs.submit("steps", "s", "k", {})
            await steps.at.wait()

    async def second() -> None:
        steps.gates.clear()
        async with running(tmp_path, Kind("steps", steps.run, version=2)) as jobs:
            job = await jobs.wait(jobs.table.live()[0].id)
            assert job.warnings == 1

    trio.run(first)
    trio.run(second)
    assert steps.done == [0, 1, 0, 1, 2]


def test_a_damaged_table_of_jobs_is_put_aside(tmp_path):
    """It is no reason not to mount; and it is not destroyed."""
    (tmp_path / "jobs.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    jobs = JobManager(tmp_path)
    assert jobs.table.recent(5) == []
    jobs.close()
    assert len(list(tmp_path.glob("jobs.db.aside-*"))) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("progress", b"\xc1"),
        ("progress", b"\x9a" + bytes(10)),  # of a program that counts one thing more
        ("args", b"\x81\xa1"),
        ("result", b"\x01"),
        ("state", b"\xc1"),
        ("state", b"\x80"),
    ],
)
def test_a_damaged_row_costs_what_it_says_and_nothing_more(tmp_path, column, value):
    """What cannot be read is as if it was not there; the job begins anew, the others go on."""
    steps, other = Steps(2), Steps(1)
    table = JobManager(tmp_path).table
    job = table.add("steps", "s", "k", {}, 0, None)
    table.set_state(job.id, 1, {"next": 1})
    table.db.execute(f"UPDATE job SET {column}=? WHERE id=?", (value, job.id))
    table.close()

    async def main() -> None:
        async with running(tmp_path, Kind("steps", steps.run), Kind("other", other.run)) as jobs:
            assert (await jobs.wait(jobs.submit("other", "o", "o", {}).id)).status is Status.COMPLETED
            ended = await jobs.wait(job.id)
            assert ended.status is Status.COMPLETED
            assert ended.warnings == (1 if column == "state" else 0)

    trio.run(main)
    assert steps.done == ([0, 1] if column == "state" else [1])


def test_the_history_has_an_end_while_the_mount_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "HISTORY_MAX", 3)

    async def main() -> None:
        async with running(tmp_path, Kind("steps", Steps(1).run)) as jobs:
            for number in range(8):
                await jobs.wait(jobs.submit("steps", "s", f"k{number}", {}).id)
            assert len(jobs.table.recent(100)) == 3
            assert len(list(tmp_path.glob("job_logs/*"))) == 3

    trio.run(main)


def test_the_running_are_told_before_the_ended_the_latest_first(tmp_path):
    jobs = JobManager(tmp_path)
    made = [jobs.submit("steps", "s", f"k{number}", {}) for number in range(6)]
    for job in made[3:]:
        jobs.cancel(job.id)
    order = [made[number].id for number in (2, 1, 0, 5, 4, 3)]
    for limit in range(7):
        assert [job.id for job in jobs.table.recent(limit)] == order[:limit]
    jobs.close()


def test_counts_are_told_ten_times_a_second_and_phases_always(tmp_path, monkeypatch):
    """Who watches hears of 20 000 counts a few times, of ten phases ten times."""

    async def counts(ctx: JobContext) -> None:
        for phase in range(10):
            ctx.meter.phase(f"phase {phase}")
            await trio.sleep(0.01)
        ctx.meter.phase("count", 20_000)
        for _ in range(200):
            for _ in range(100):
                ctx.meter.add(1)
            await trio.sleep(0.002)

    phases, answers = set(), 0

    async def main() -> None:
        nonlocal answers
        async with running(tmp_path, Kind("c", counts)) as jobs:
            job = jobs.submit("c", "c", "k", {})
            told = -1
            while not jobs.get(job.id).ended:
                told = await jobs.news(told, 5)
                phase = jobs.get(job.id).progress.phase
                answers += phase == "count"
                phases.add(phase)
            began = jobs.get(job.id).started_ns
            assert answers <= 3 + 10.5 * (time.time_ns() - began) / 1e9

    trio.run(main)
    assert {f"phase {n}" for n in range(10)} <= phases


def test_nothing_works_on_battery(tmp_path):
    steps = Steps(3)
    empty = [True]

    async def main() -> None:
        async with running(tmp_path, *family(steps)) as jobs, trio.open_nursery() as nursery:
            nursery.start_soon(power.wait_for_power, jobs, lambda: empty[0])
            await until(lambda: jobs.held_by == ON_BATTERY)
            job = jobs.submit("parent", "p", "k", {})
            await until(lambda: bool(jobs.table.children(job.id)))
            await trio.sleep(0.05)
            assert (steps.done, jobs.held_by) == ([], ON_BATTERY)
            jobs.release(ON_BATTERY)
            await jobs.wait(job.id)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert steps.done == [0, 1, 2]


@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}, "AC": {"type": "Mains", "online": "1"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}, "AC": {"type": "Mains", "online": "0"}}, True),
        ({"mouse": {"type": "Battery", "status": "Discharging", "scope": "Device"}}, False),
    ],
)
def test_a_battery_is_told_from_the_mains(tmp_path, supplies, expected):
    for name, facts in supplies.items():
        (tmp_path / name).mkdir()
        for fact, value in facts.items():
            (tmp_path / name / fact).write_text(f"{value}\n")
    assert power.on_battery(tmp_path) is expected
    assert power.on_battery(tmp_path / "absent") is False


def test_a_log_keeps_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(joblog, "FILE_BYTES_MAX", 1000)
    logs = joblog.JobLogs(tmp_path / "logs")
    for number in range(200):
        logs.write(1, f"line {number}")
    lines = logs.read(1, 1000)
    assert lines[-1].endswith("line 199")
    assert sum(file.stat().st_size for file in (tmp_path / "logs").iterdir()) <= 2000
    logs.remove(1)
    assert list((tmp_path / "logs").iterdir()) == []


def test_an_estimate_is_of_the_last_seconds():
    """A disk that becomes slow makes the estimate longer; nothing is said before there is something to say it from."""
    clock = [0.0]
    meter = Meter(lambda is_phase: None, now_s=lambda: clock[0])
    meter.phase("p", 1000)
    meter.add(10)
    assert (meter.snapshot().rate, meter.snapshot().eta_s) == (0.0, None)
    for _ in range(20):
        clock[0] += 0.5
        meter.add(10)
    assert meter.snapshot().rate == pytest.approx(20, rel=0.1)
    for _ in range(40):
        clock[0] += 0.5
        meter.add(1)
    assert meter.snapshot().rate == pytest.approx(2, rel=0.1)
    assert meter.snapshot().eta_s == pytest.approx((1000 - 250) / 2, rel=0.1)


def test_what_an_earlier_run_did_is_not_taken_for_speed():
    clock = [0.0]
    meter = Meter(lambda is_phase: None, now_s=lambda: clock[0])
    meter.phase("p", 1000, 10**9, done=900, bytes_done=9 * 10**8)
    for _ in range(4):
        clock[0] += 1.0
        meter.add(1, 10**6)
    assert (meter.snapshot().rate, meter.snapshot().bytes_rate) == (1, 10**6)
    assert meter.snapshot().eta_s == pytest.approx(96)


class CommandsMachine(RuleBasedStateMachine):
    """Commands in any order to jobs in any state, stops and restarts between: every step is one that may follow."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.known: dict[int, Status] = {}
        self.jobs = JobManager(Path(self.place.name), [Kind("endless", self.endless), Kind("short", Steps(1).run)])

    @staticmethod
    async def endless(ctx: JobContext) -> None:
        await trio.sleep_forever()

    def teardown(self) -> None:
        self.jobs.close()
        self.place.cleanup()

    @rule(kind=st.sampled_from(["endless", "short"]), key=st.sampled_from("ab"))
    def submit(self, kind, key) -> None:
        self.jobs.submit(kind, kind, key, {})

    @rule(which=st.integers(0, 9), command=st.sampled_from(["pause", "resume", "cancel"]))
    def command(self, which, command) -> None:
        if self.known:
            with contextlib.suppress(Invalid):
                getattr(self.jobs, command)(sorted(self.known)[which % len(self.known)])

    @rule(commands=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["pause", "resume", "cancel"])), max_size=4))
    def run_a_moment(self, commands) -> None:
        """They run, are commanded meanwhile, and the process ends."""

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.jobs.run)
                for which, command in commands:
                    await trio.sleep(0.001)
                    self.command(which, command)
                    self.every_step_may_follow()
                await trio.sleep(0.002)
                nursery.cancel_scope.cancel()

        trio.run(main)

    @invariant()
    def every_step_may_follow(self) -> None:
        now = {job.id: job.status for job in self.jobs.table.live()}
        now |= {job.id: job.status for job in self.jobs.table.recent(1000)}
        for job_id, status in now.items():
            was = self.known.get(job_id, Status.QUEUED)
            reachable = {was}
            for _ in range(3):  # several steps may lie between two looks
                reachable |= {after for before in reachable for after in NEXT[before]}
            assert status in reachable, (was, status)
            if was in ENDED:
                assert status is was
        self.known = now

    @invariant()
    def a_key_has_one_job_that_has_not_ended(self) -> None:
        keys = [job.key for job in self.jobs.table.live()]
        assert len(keys) == len(set(keys))


TestCommands = CommandsMachine.TestCase
TestCommands.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_jobs_go_on_while_the_disk_is_full_and_are_written_when_it_has_room(tmp_path, monkeypatch):
    """A job must be able to say that it waits for room; what it said is on the disk when there is some."""
    monkeypatch.setattr(manager, "RETRY_S", 0.02)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:

        async def fills(ctx: JobContext) -> None:
            if ctx.state is None:
                (small / "filler").write_bytes(b"")
                with contextlib.suppress(OSError), open(small / "filler", "ab", buffering=0) as file:
                    while True:
                        file.write(b"x" * 4096)
                ctx.checkpoint({"full": "x" * 20_000})
                raise NoSpace("the disk is full")

        async def main() -> None:
            room = [False]
            async with running(small, Kind("f", fills)) as jobs:
                jobs.may_go_on[NO_SPACE] = lambda: room[0]
                job = jobs.submit("f", "f", "k", {})
                await until(lambda: jobs.get(job.id).status is Status.PAUSED)
                assert jobs.table.is_in_memory
                (small / "filler").unlink()
                await until(lambda: not jobs.table.is_in_memory)
                room[0] = True
                await jobs.wait(job.id)

        trio.run(main)
        again = JobManager(small)
        (job,) = again.table.recent(5)
        assert (job.status, job.runs) == (Status.COMPLETED, 2)
        again.close()
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_disk_that_takes_nothing_more_ends_no_job(tmp_path, monkeypatch):
    """What becomes of the jobs is kept in memory, told as ever, and written down when there is room."""
    monkeypatch.setattr(manager, "RETRY_S", 0.02)
    pages = 1000

    async def main() -> None:
        async with running(tmp_path, Kind("steps", Steps(50).run)) as jobs:
            disk = jobs.table.db
            before = jobs.submit("steps", "before", "before", {})
            await jobs.wait(before.id)
            disk.pragma("max_page_count", disk.pragma("page_count"))
            ids = [jobs.submit("steps", f"s{n}" * 500, f"k{n}", {}).id for n in range(20)]
            ends = [await jobs.wait(one) for one in ids]
            assert {job.status for job in ends} == {Status.COMPLETED}
            assert jobs.table.db is not disk, "there was no room"
            assert not jobs.table.go_back()
            assert jobs.get(before.id).title == "before"
            disk.pragma("max_page_count", pages)
            await until(lambda: jobs.table.db is disk)
            assert [jobs.get(one).status for one in ids] == [Status.COMPLETED] * 20

    trio.run(main)
    table = JobManager(tmp_path).table
    assert len(table.recent(100)) == 21
    assert table.db.pragma("journal_mode") == "wal"
    table.close()


def test_a_job_that_waits_is_done_as_it_was_asked_for_last(tmp_path):
    """Nobody who asks is told that it waits, and then served with somebody else's arguments."""
    jobs = JobManager(tmp_path, [Kind("steps", Steps().run)])
    first = jobs.submit("steps", "s", "k", {"n": 1})
    again = jobs.submit("steps", "s", "k", {"n": 2})
    assert (again.id, again.args) == (first.id, {"n": 2})
    assert [job.args for job in jobs.table.live()] == [{"n": 2}]
    jobs.close()
