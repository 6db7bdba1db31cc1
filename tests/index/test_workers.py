"""Worker processes: answers, deaths, stops, back-pressure; none of them outlives or disturbs its parent."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import TooLarge, errno_of
from index.scan import hasher, survivors, workers
from index.scan.hasher import Hasher, Identity
from index.scan.workermain import FRAME_BYTES_MAX, FrameError, Frames, pack
from index.scan.workers import WorkerDied, WorkerError, WorkerPool

ROOT = Path(__file__).parents[2]
DEADLINE_S = 20.0
TABLE = "worker_probes:OPERATIONS"

#: The operations of these tests; the workers import them from a module of their own.
PROBES = """
import os, sys, time

def echo(args, context):
    return args

def facts(args, context):
    return {"pid": os.getpid(), "cwd": os.getcwd(), "trio": "trio" in sys.modules, "session": os.getsid(0)}

def fail(args, context):
    raise OSError(28, "no room")

def die(args, context):
    os.kill(os.getpid(), 9)

def leave(args, context):
    os._exit(3)

def junk(args, context):
    os.write(0, b"\\xff" * 8)
    time.sleep(3600)

def shout(args, context):
    print("printed by an operation", flush=True)

def huge(args, context):
    return bytes(args["bytes"])

def unsayable(args, context):
    return object()

def mark(path):
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))

def patient(args, context):
    mark(args["begun"])
    while not context.stopped():
        time.sleep(0.001)
    mark(args["stopped"])

def stubborn(args, context):
    mark(args["begun"])
    while True:
        time.sleep(3600)

def spin(args, context):
    mark(args["begun"])
    while True:
        pass

def hold(args, context):
    mark(args["begun"])
    while not os.path.exists(args["until"]):
        time.sleep(0.001)

def numbers(args, context):
    try:
        for number in range(args["count"]):
            context.emit([number, bytes(args.get("bytes", 0))])
            if "progress" in args:
                with open(args["progress"], "w") as file:
                    file.write(str(number + 1))
            if number + 1 == args.get("die_after"):
                os.kill(os.getpid(), 9)
            if number + 1 == args.get("fail_after"):
                raise KeyError("seven")
    finally:
        if "ended" in args:
            mark(args["ended"])
    return "all"

def work(args, context):
    for item in args["items"]:
        with open(args["begun"], "a") as file:
            file.write(f"{item}\\n")
        if item in args["deadly"]:
            os.kill(os.getpid(), 9)
        context.emit([item])

OPERATIONS = {name: value for name, value in globals().items() if callable(value) and name != "mark"}
"""


@pytest.fixture(autouse=True)
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker_probes.py").write_text(PROBES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def with_pool(
    tmp_path: Path,
    body: Callable[[WorkerPool], Awaitable[object]],
    *,
    count: int = 2,
    table: str = TABLE,
    idle_s: float | None = None,
) -> WorkerPool:
    """Runs `body` beside a pool, and sees that nothing of the pool is left after it."""
    before = len(os.listdir("/proc/self/fd"))
    pool = WorkerPool(count, log_path=tmp_path / "log", table=table, idle_s=idle_s)
    pids: set[int] = set()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            try:
                with trio.fail_after(DEADLINE_S):
                    await body(pool)
            finally:
                pids.update(pool.pids())
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert len(os.listdir("/proc/self/fd")) == before
    return pool


async def until(condition: Callable[[], bool]) -> None:
    """Polls; the deadline is `with_pool`'s."""
    while not condition():  # noqa: ASYNC110 (other processes make it true)
        await trio.sleep(0.002)


async def all_ready(pool: WorkerPool, count: int = 2) -> list[int]:
    await until(lambda: len(pool.pids()) == count)
    return pool.pids()


def alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Answers.


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(1 << 63),
        (1 << 64) - 1,
        1.5,
        "text",
        b"\xff\x00",
        [1, [2, b"3"]],
        {"a": {"b": []}},
        {1: 2},
    ],
)
def test_a_call_brings_back_what_the_operation_returned(tmp_path: Path, value: object) -> None:
    async def body(pool: WorkerPool) -> None:
        assert await pool.call("echo", {"value": value}) == {"value": value}

    with_pool(tmp_path, body)


def test_many_callers_get_each_their_own_answer(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        answers: dict[int, Any] = {}

        async def ask(number: int) -> None:
            answers[number] = await pool.call("echo", {"n": number})

        async with trio.open_nursery() as nursery:
            for number in range(5 * workers.QUEUE_MAX):
                nursery.start_soon(ask, number)
        assert answers == {number: {"n": number} for number in range(5 * workers.QUEUE_MAX)}

    with_pool(tmp_path, body)


def test_an_exception_is_an_answer_and_the_worker_lives_on(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        with pytest.raises(WorkerError, match="no room") as raised:
            await pool.call("fail", {})
        assert (raised.value.error_kind, errno_of(raised.value)) == ("OSError", 28)
        with pytest.raises(WorkerError) as unknown:
            await pool.call("nonsense", {})
        assert unknown.value.error_kind == "UnknownOperation"
        with pytest.raises(WorkerError) as unsayable:
            await pool.call("unsayable", {})
        assert unsayable.value.error_kind == "TypeError"
        assert pool.pids() == pids

    with_pool(tmp_path, body)
    assert "no room" in (tmp_path / "log").read_text()


def test_a_message_over_the_limit_is_refused_on_both_sides(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        with pytest.raises(TooLarge, match="echo"):
            await pool.call("echo", {"value": bytes(FRAME_BYTES_MAX)})
        with pytest.raises(WorkerError) as raised:
            await pool.call("huge", {"bytes": FRAME_BYTES_MAX})
        assert raised.value.error_kind == "FrameError"
        assert len(await pool.call("huge", {"bytes": FRAME_BYTES_MAX - 100})) == FRAME_BYTES_MAX - 100
        assert pool.pids() == pids

    with_pool(tmp_path, body)


def test_what_an_operation_prints_goes_to_the_log(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        assert await pool.call("shout", {}) is None

    with_pool(tmp_path, body)
    assert (tmp_path / "log").read_text() == "printed by an operation\n"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


# Deaths.


@pytest.mark.parametrize(("op", "how"), [("die", "SIGKILL"), ("leave", "status 3")])
def test_the_death_of_a_worker_fails_only_the_request_it_ran(tmp_path: Path, op: str, how: str) -> None:
    async def body(pool: WorkerPool) -> None:
        first = set(await all_ready(pool))
        with pytest.raises(WorkerDied, match=f"{how} while it ran {op}"):
            await pool.call(op, {})
        assert await pool.call("echo", {"n": 1}) == {"n": 1}
        await until(lambda: len(pool.pids()) == 2)
        assert len(first & set(pool.pids())) == 1

    with_pool(tmp_path, body)


def test_a_worker_killed_in_the_middle_of_a_call_is_replaced(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        async def kill_when_begun(pids: list[int]) -> None:
            await until((tmp_path / "begun").exists)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

        pids = await all_ready(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_when_begun, pids)
            with pytest.raises(WorkerDied):
                await pool.call("stubborn", {"begun": str(tmp_path / "begun")})
        await until(lambda: len(pool.pids()) == 2 and not set(pids) & set(pool.pids()))
        assert await pool.call("echo", {}) == {}

    with_pool(tmp_path, body)


def test_an_idle_worker_that_dies_is_replaced_without_being_asked(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        for _ in range(3):
            pids = await all_ready(pool)
            os.kill(pids[0], signal.SIGKILL)
            await until(lambda pids=pids: len(pool.pids()) == 2 and pids[0] not in pool.pids())  # type: ignore[misc]

    with_pool(tmp_path, body)


def test_the_death_of_the_process_that_starts_them_takes_the_workers_along_and_others_come(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        os.kill(pool._starter._pid, signal.SIGKILL)
        await until(lambda: len(pool.pids()) == 2 and not set(pids) & set(pool.pids()))
        assert await pool.call("echo", {"n": 1}) == {"n": 1}

    with_pool(tmp_path, body)


def test_a_worker_that_cannot_be_started_is_started_later(tmp_path: Path) -> None:
    """No descriptor is left when one died: the two that it leaves go to the next, and none to what names that."""

    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held: list[int] = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
            with contextlib.suppress(OSError):
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            os.kill(pids[0], signal.SIGKILL)
            await trio.sleep(0.5)
            assert pids[1] in pool.pids()
        finally:
            for fd in held:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await until(lambda: len(pool.pids()) == 2 and pids[0] not in pool.pids())
        assert await pool.call("echo", {"n": 1}) == {"n": 1}

    with_pool(tmp_path, body)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
def test_a_fork_that_fails_ends_no_other_worker(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        server = pool._starter._pid
        await trio.run_process(["prlimit", "--pid", str(server), "--data=1:1", "--as=1:unlimited"])
        os.kill(pids[0], signal.SIGKILL)
        await trio.sleep(0.5)
        assert pids[1] in pool.pids()
        await trio.run_process(["prlimit", "--pid", str(server), "--data=unlimited", "--as=unlimited"], check=False)

    with_pool(tmp_path, body)


def test_calls_made_the_moment_an_idle_worker_dies_are_answered(tmp_path: Path) -> None:
    """The loop has not seen the death yet: a request it could not have begun is given to another."""

    async def body(pool: WorkerPool) -> None:
        for _ in range(5):
            for pid in await all_ready(pool):
                os.kill(pid, signal.SIGKILL)
                while alive(pid):
                    time.sleep(0.001)  # noqa: ASYNC251 (on purpose: the loop gets no turn)
            assert await pool.call("echo", {"n": 1}) == {"n": 1}

    with_pool(tmp_path, body)


def test_a_stream_gives_what_came_before_the_death_and_then_says_so(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        seen = []
        with pytest.raises(WorkerDied):
            async for number, _ in pool.stream("numbers", {"count": 50, "die_after": 7}):
                seen.append(number)
        assert seen == list(range(7))
        assert [number async for number, _ in pool.stream("numbers", {"count": 3})] == [0, 1, 2]

    with_pool(tmp_path, body)


def test_bytes_that_are_no_frame_cost_the_worker_its_life_and_nothing_else(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        with pytest.raises(WorkerDied):
            await pool.call("junk", {})
        assert await pool.call("echo", {}) == {}

    with_pool(tmp_path, body)


def test_workers_that_cannot_start_fail_the_call_and_the_log_says_why(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        with pytest.raises(WorkerDied, match="no worker process starts"):
            await pool.call("echo", {})
        with pytest.raises(WorkerDied, match="no worker process starts"):
            _ = [batch async for batch in pool.stream("echo", {})]

    with_pool(tmp_path, body, table="worker_absent:OPERATIONS")
    assert "No module named 'worker_absent'" in (tmp_path / "log").read_text()


def test_the_end_of_the_pool_fails_what_is_under_way_and_what_comes_later(tmp_path: Path) -> None:
    failed: list[str] = []

    async def main() -> None:
        pool = WorkerPool(2, log_path=None, table=TABLE)

        async def ask(op: str) -> None:
            try:
                await pool.call(op, {"begun": str(tmp_path / "begun")})
            except WorkerDied as error:
                failed.append(str(error))

        async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            for _ in range(4):
                callers.start_soon(ask, "stubborn")
            with trio.fail_after(DEADLINE_S):
                await until((tmp_path / "begun").exists)
            nursery.cancel_scope.cancel()
        with pytest.raises(WorkerDied, match="closed"):
            await pool.call("echo", {})
        assert pool.pids() == []

    trio.run(main)
    assert len(failed) == 4


# Stops.


def test_a_cancelled_call_is_stopped_and_its_worker_kept(tmp_path: Path) -> None:
    args = {"begun": str(tmp_path / "begun"), "stopped": str(tmp_path / "stopped")}

    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.call, "patient", args)
            await until((tmp_path / "begun").exists)
            nursery.cancel_scope.cancel()
        await until((tmp_path / "stopped").exists)
        for number in range(20):
            assert await pool.call("echo", {"n": number}) == {"n": number}
        assert pool.pids() == pids

    with_pool(tmp_path, body)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_operation_that_does_not_stop_is_killed_and_its_worker_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    monkeypatch.setattr(workers, "STOP_GRACE_S", 0.2)
    args = {"begun": str(tmp_path / "begun")}

    async def body(pool: WorkerPool) -> None:
        async def ask() -> None:
            if streamed:
                async for _ in pool.stream("spin", args):
                    pass
            else:
                await pool.call("spin", args)

        pids = set(await all_ready(pool))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until((tmp_path / "begun").exists)
            nursery.cancel_scope.cancel()
        await until(lambda: len(pids - set(pool.pids())) == 1 and len(pool.pids()) == 2)
        assert [number async for number, _ in pool.stream("numbers", {"count": 2})] == [0, 1]

    with_pool(tmp_path, body)


def test_a_call_cancelled_in_the_queue_never_runs(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        hold = {"until": str(tmp_path / "until")}
        async with trio.open_nursery() as holders:
            for number in range(2):
                holders.start_soon(pool.call, "hold", {**hold, "begun": str(tmp_path / f"held{number}")})
            await until(lambda: (tmp_path / "held0").exists() and (tmp_path / "held1").exists())
            with trio.move_on_after(0.02) as scope:
                await pool.call("hold", {**hold, "begun": str(tmp_path / "never")})
            assert scope.cancelled_caught
            (tmp_path / "until").touch()
        assert await pool.call("echo", {}) == {}

    with_pool(tmp_path, body)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("way", ["break", "aclose", "async with", "cancel", "exception"])
def test_a_stream_left_early_stops_its_operation_and_keeps_its_worker(tmp_path: Path, way: str) -> None:
    args = {"count": 1 << 40, "bytes": 1000, "ended": str(tmp_path / "ended")}

    async def leave(pool: WorkerPool) -> None:
        stream = pool.stream("numbers", args)
        match way:
            case "break":
                async for number, _ in stream:
                    if number == 5:
                        break
            case "aclose":
                await anext(stream)
                await stream.aclose()
                with pytest.raises(StopAsyncIteration):
                    await anext(stream)
            case "async with":
                async with stream as batches:
                    await anext(batches)
            case "cancel":
                with trio.CancelScope() as scope:
                    async for number, _ in stream:
                        if number == 5:
                            scope.cancel()
            case "exception":
                with contextlib.suppress(KeyError):
                    async for _ in stream:
                        raise KeyError

    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        await leave(pool)
        await until((tmp_path / "ended").exists)
        assert [number async for number, _ in pool.stream("numbers", {"count": 3})] == [0, 1, 2]
        assert pool.pids() == pids

    with_pool(tmp_path, body)


# Streams.


def test_a_stream_brings_all_batches_in_order_and_the_result(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        stream = pool.stream("numbers", {"count": 3000, "bytes": 5000})
        assert [number async for number, _ in stream] == list(range(3000))
        assert stream.result == "all"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    with_pool(tmp_path, body)


def test_an_error_of_a_stream_comes_after_its_batches(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        seen = []
        with pytest.raises(WorkerError, match="seven") as raised:
            async for number, _ in pool.stream("numbers", {"count": 50, "fail_after": 7}):
                seen.append(number)
        assert seen == list(range(7))
        assert raised.value.error_kind == "KeyError"

    with_pool(tmp_path, body)


def test_a_called_operation_may_not_emit(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        with pytest.raises(WorkerError, match="it does not emit"):
            await pool.call("numbers", {"count": 1})

    with_pool(tmp_path, body)


def test_a_slow_consumer_holds_the_worker_back(tmp_path: Path) -> None:
    """The worker stops one batch beyond the window, whatever the size of the stream."""
    batch_bytes, count = 20_000, 1000
    progress = tmp_path / "progress"
    args = {"count": count, "bytes": batch_bytes, "progress": str(progress)}
    limit = workers.WINDOW_BYTES // batch_bytes + 3

    def made() -> int:
        return int(progress.read_text() or 0) if progress.exists() else 0

    async def body(pool: WorkerPool) -> None:
        pid = (await all_ready(pool))[1]
        stream = pool.stream("numbers", args)
        taken = 0
        for take in (1, 50, 300):
            for _ in range(take):
                await anext(stream)
            taken += take
            await until(lambda: made() > taken + limit // 2)
            last_s, last = time.monotonic(), made()
            while time.monotonic() - last_s < 0.1:  # until it makes no more
                await trio.sleep(0.002)
                if made() != last:
                    last_s, last = time.monotonic(), made()
            assert made() <= taken + limit
        assert pid in pool.pids()
        assert [number async for number, _ in stream] == list(range(taken, count))

    with_pool(tmp_path, body)


def test_a_stream_does_not_stand_in_the_way_of_calls(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        first = pool.stream("numbers", {"count": 1 << 40, "bytes": 1000})
        second = pool.stream("numbers", {"count": 2})
        await anext(first)
        for number in range(50):
            assert await pool.call("echo", {"n": number}) == {"n": number}
        with trio.move_on_after(0.05) as scope:
            await pool.stream("numbers", {"count": 1}).__anext__()
        assert scope.cancelled_caught  # the only worker for streams is taken, and the reserved one takes none
        await first.aclose()
        assert [number async for number, _ in second] == [0, 1]

    with_pool(tmp_path, body)


def test_calls_use_every_worker(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                args = {"begun": str(tmp_path / f"held{number}"), "until": str(tmp_path / "until")}
                nursery.start_soon(pool.call, "hold", args)
            await until(lambda: all((tmp_path / f"held{number}").exists() for number in range(3)))
            (tmp_path / "until").touch()

    with_pool(tmp_path, body, count=3)


# Workers only while there is work.


def test_a_pool_may_start_workers_for_work_and_end_them_when_they_rest(tmp_path: Path) -> None:
    """Calls and streams alike, again and again."""

    async def body(pool: WorkerPool) -> None:
        seen = set()
        for _ in range(3):
            await until(lambda: len(pool._asleep) == 3)
            assert pool.pids() == []
            seen.add((await pool.call("facts", {}))["pid"])
            await until(lambda: len(pool._asleep) == 3)
            assert [number async for number, _ in pool.stream("numbers", {"count": 3})] == [0, 1, 2]
        assert len(seen) == 3

    with_pool(tmp_path, body, count=3, idle_s=0.05)


def test_such_a_pool_starts_a_worker_for_each_that_waits_up_to_its_number(tmp_path: Path) -> None:
    """Streams leave one slot to calls."""

    async def body(pool: WorkerPool) -> None:
        await until(lambda: len(pool._asleep) == 3)
        async with trio.open_nursery() as nursery:
            for number in range(4):
                args = {"begun": str(tmp_path / f"held{number}"), "until": str(tmp_path / "until")}
                nursery.start_soon(drain, pool.stream("hold", args))
            await until(lambda: sum((tmp_path / f"held{number}").exists() for number in range(4)) == 2)
            assert await pool.call("echo", {"a": 1}) == {"a": 1}
            assert len(pool.pids()) == 3
            (tmp_path / "until").touch()

    async def drain(stream: workers.Stream) -> None:
        async for _ in stream:
            pass

    with_pool(tmp_path, body, count=3, idle_s=60)


def test_such_a_pool_too_says_when_no_worker_starts(tmp_path: Path) -> None:
    """No job waits for one that never comes."""

    async def body(pool: WorkerPool) -> None:
        await until(lambda: len(pool._asleep) == 3)
        for _ in range(2):
            with pytest.raises(WorkerDied, match="no worker process starts"):
                await pool.call("echo", {})
            with pytest.raises(WorkerDied, match="no worker process starts"):
                async for _ in pool.stream("numbers", {"count": 1}):
                    pass

    with_pool(tmp_path, body, count=3, table="no.such.module:OPERATIONS", idle_s=60)


def test_such_a_pool_tries_again_when_a_worker_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment without descriptors or memory is not for ever."""

    async def body(pool: WorkerPool) -> None:
        await until(lambda: len(pool._asleep) == 3)

        async def fails(**_: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(pool._starter, "start", fails)
            with pytest.raises(WorkerDied, match="no worker process starts"):
                async for _ in pool.stream("numbers", {"count": 1}):
                    pass
            await until(lambda: len(pool._asleep) == 3)
        assert [number async for number, _ in pool.stream("numbers", {"count": 3})] == [0, 1, 2]
        assert await pool.call("echo", {"a": 1}) == {"a": 1}

    with_pool(tmp_path, body, count=3, idle_s=60)


def test_a_pool_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="two workers"):
        WorkerPool(1, log_path=None)


# The process.


def test_a_worker_inherits_no_descriptor_and_steps_back(tmp_path: Path) -> None:
    leaks = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    leaks += os.pipe()
    for fd in leaks:
        os.set_inheritable(fd, True)

    async def body(pool: WorkerPool) -> None:
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        for pid in await all_ready(pool):
            links = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
            assert set(links) == {"0", "1", "2"}
            assert links["0"].startswith("socket:")
            assert links["1"] == links["2"] == str(tmp_path / "log")
            assert os.getpriority(os.PRIO_PROCESS, pid) == max(5, ours)
            assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) >= 500
            io_class = await trio.run_process(["ionice", "-p", str(pid)], capture_stdout=True, check=False)
            if io_class.returncode == 0:
                assert (b"idle" in io_class.stdout) == (pid != reserved_pid(pool))
        facts = await pool.call("facts", {})
        assert (facts["cwd"], facts["trio"]) == ("/", False)
        assert facts["session"] != os.getsid(0)

    try:
        with_pool(tmp_path, body)
    finally:
        for fd in leaks:
            os.close(fd)


def reserved_pid(pool: WorkerPool) -> int:
    return next(worker.process.pid for worker in pool._workers if worker.reserved)


def test_an_interrupt_from_the_terminal_does_not_reach_the_work(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        assert await pool.call("echo", {}) == {}
        assert pool.pids() == pids

    with_pool(tmp_path, body)


def test_a_worker_imports_nothing_from_where_the_daemon_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "here"
    hostile.mkdir()
    (hostile / "msgpack.py").write_text("raise SystemExit(7)")
    (hostile / "index.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", "", str(tmp_path)]))

    async def body(pool: WorkerPool) -> None:
        assert await pool.call("echo", {}) == {}

    with_pool(tmp_path, body)


PARENT = """
import sys, trio
from index.scan.workers import WorkerPool

async def main():
    pool = WorkerPool(3, log_path=None, table="worker_probes:OPERATIONS")
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        while len(pool.pids()) < 3:
            await trio.sleep(0.005)
        nursery.start_soon(pool.call, "spin", {"begun": sys.argv[1]})
        nursery.start_soon(pool.call, "stubborn", {"begun": sys.argv[2]})
        print(*pool.pids(), flush=True)

trio.run(main)
"""


def test_workers_are_gone_within_a_second_of_their_parents_kill(tmp_path: Path) -> None:
    """One computes, one sleeps in a system call, one is idle."""
    begun = [tmp_path / "spinning", tmp_path / "sleeping"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *map(str, begun)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )
    pids: list[int] = []
    try:
        assert parent.stdout is not None
        pids += [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        deadline_s = time.monotonic() + DEADLINE_S
        while not all(path.exists() for path in begun):
            assert time.monotonic() < deadline_s
        assert all(alive(pid) for pid in pids)
        parent.kill()
        killed_s = time.monotonic()
        while any(alive(pid) for pid in pids):
            assert time.monotonic() - killed_s < 1
    finally:
        parent.kill()
        parent.wait()
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)
        if parent.stdout is not None:
            parent.stdout.close()


def test_a_fork_server_whose_parent_is_not_the_named_one_leaves_at_once(tmp_path: Path) -> None:
    """The parent died between the start and its wish to die with it."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "index.scan.forkserver", "1", TABLE],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0


def test_the_worker_module_is_light() -> None:
    """No loop and no FUSE: a worker starts in some 60 ms."""
    heavy = ("trio", "pyfuse3", "asyncio")
    code = f"import index.scan.workermain, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


# Operation `identify`.


def test_identify_streams_one_result_for_each_item_in_order(tmp_path: Path) -> None:
    root = tmp_path / "root"
    paths: list[list[bytes]] = []
    for directory in range(5):
        (root / f"d{directory}").mkdir(parents=True)
        for number in range(100):
            (root / f"d{directory}" / str(number)).write_bytes(b"x" * (directory * 50_000 + number))
            paths.append([b"d%d" % directory, b"%d" % number])
    paths += [[b"absent"], [b"d0"], [b"d1", b"0", b"x"]]
    items = [{"id": 1000 + at, "path": path} for at, path in enumerate(paths)]
    root_fd = os.open(root, os.O_PATH)
    with Hasher(root_fd) as direct:
        expected = [(item["id"], direct.identify(item["path"])) for item in items]  # type: ignore[arg-type]
    os.close(root_fd)

    async def body(pool: WorkerPool) -> None:
        found = []
        async for batch in pool.stream(
            "identify", {"root": os.fsencode(root), "items": items, "mode": "full", "devices": [[], {}]}
        ):
            found += list(hasher.unpack_results(batch))
        assert without_race(found) == without_race(expected)

    with_pool(tmp_path, body, table=workers.OPERATIONS)


def without_race(results: list[Any]) -> list[Any]:
    return [(at, one._replace(racy=False) if isinstance(one, Identity) else one) for at, one in results]


def test_identify_says_which_root_is_absent(tmp_path: Path) -> None:
    async def body(pool: WorkerPool) -> None:
        args = {"root": os.fsencode(tmp_path / "absent"), "items": [], "mode": "full", "devices": [[], {}]}
        with pytest.raises(WorkerError, match="absent") as raised:
            _ = [batch async for batch in pool.stream("identify", args)]
        assert raised.value.error_kind == "FileNotFoundError"

    with_pool(tmp_path, body, table=workers.OPERATIONS)


def test_identify_is_stopped_in_the_middle_of_a_big_file(tmp_path: Path) -> None:
    """Results that are ready are sent before the big file is done."""
    (tmp_path / "small").write_bytes(b"x")
    with open(tmp_path / "big", "wb") as file:
        file.truncate(1 << 40)
    items = [{"id": 1, "path": [b"small"]}, {"id": 2, "path": [b"big"]}]

    async def body(pool: WorkerPool) -> None:
        pids = await all_ready(pool)
        args = {"root": os.fsencode(tmp_path), "items": items, "mode": "full", "devices": [[], {}]}
        async with pool.stream("identify", args) as batches:
            ((item_id, found),) = hasher.unpack_results(await anext(batches))
            assert item_id == 1
            assert isinstance(found, Identity)
        args["items"] = items[:1]
        assert len([batch async for batch in pool.stream("identify", args)]) == 1
        assert pool.pids() == pids

    with_pool(tmp_path, body, table=workers.OPERATIONS)


# Frames.


@given(
    st.lists(st.lists(st.one_of(st.integers(0, 9), st.binary(max_size=40)), min_size=1), max_size=5),
    st.data(),
)
def test_frames_do_not_depend_on_how_the_bytes_are_cut(messages: list[list[Any]], data: st.DataObject) -> None:
    wire = b"".join(pack(*message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    frames, found = Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        frames.feed(wire[start:end])
        while one := frames.next():
            found.append(one[0])
    assert found == messages


@pytest.mark.parametrize("deaths", [1, 3])
def test_who_kills_its_worker_is_blamed_and_nobody_else(tmp_path: Path, deaths: int) -> None:
    begun, deadly = tmp_path / "begun", [7, 400]
    answered: list[int] = []
    blamed: list[tuple[int, str]] = []

    async def body(pool: WorkerPool) -> None:
        left = {number: number for number in range(600)}

        async def run(some: list[int]) -> None:
            args = {"items": some, "deadly": deadly, "begun": str(begun)}
            async with pool.stream("work", args) as stream:
                async for (item,) in stream:
                    del left[item]
                    answered.append(item)

        async def blame(item: int, how: str) -> None:
            blamed.append((item, how))

        await survivors.work_off(pool, left, run, blame, deaths=deaths)

    with_pool(tmp_path, body)
    assert blamed == [(number, "ended by SIGKILL") for number in deadly]
    assert sorted(answered) == [number for number in range(600) if number not in deadly]
    tries = begun.read_text().split()
    assert [tries.count(str(number)) for number in deadly] == [deaths + 1, deaths + 1]


@given(st.binary(max_size=64))
def test_bytes_that_are_no_frame_raise_nothing_else(data: bytes) -> None:
    for wire in (data, len(data).to_bytes(4, "big") + data):
        frames = Frames()
        frames.feed(wire)
        with contextlib.suppress(FrameError):
            while frames.next():
                pass


def test_a_frame_over_the_limit_is_refused_by_its_length_alone() -> None:
    frames = Frames()
    frames.feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(FrameError, match="limit"):
        frames.next()
    with pytest.raises(FrameError, match="limit"):
        pack(bytes(FRAME_BYTES_MAX + 1))
    assert msgpack.unpackb(pack(1, b"2")[4:]) == [1, b"2"]
