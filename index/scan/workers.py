"""The daemon's side of its worker processes: work that would hold the loop goes out, batches come back.

In: an operation's name and its arguments. Out: a result (`call`) or batches as they are made (`stream`). What
runs in the worker, and the frames between the two, is workermain.py.

Who gets which worker
- Worker 0 is reserved for calls: somebody waits for those. Streams, which may run for hours, take the others,
  so a stream never stands in the way of a call. Calls go first everywhere.
- A worker runs one request at a time; what nobody can take yet waits in a bounded queue, and so does its
  caller.

What can go wrong
- An operation raises: WorkerError, the worker lives on.
- A worker dies: the request it ran fails with WorkerDied, so that the caller can mark that one item; the
  worker is started anew, at once when it had done something, else after a pause that doubles. Requests not
  begun are kept.
- A caller is cancelled, or drops a stream: the worker is told to stop and its answer is dropped. One that
  does not stop within 2 s is killed. One that even SIGKILL does not end (a dead network mount) is left behind
  and replaced.
- The pool ends: all workers are killed. They hold no state.
- A pool may be told to have workers only while there is work (`idle_s`): those of decoders take much memory.

What starts, kills and buries the processes is workerprocess.py; the end of their socket tells of their death.
"""

import errno as _errno
import logging
import math
import signal
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count as _count
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import trio

from index.model.errors import OsFailure, TooLarge, VdfsError
from index.scan.workermain import FRAME_COST_BYTES, FrameError, Frames, Say, pack
from index.scan.workerprocess import ForkServer, Process

_log = logging.getLogger(__name__)

OPERATIONS: Final = "index.scan.workermain:OPERATIONS"

#: Requests that wait for a worker, of each sort; more callers wait for a place.
QUEUE_MAX = 64
#: What a stream may have under way: some ten batches, and a bound for what a slow consumer makes us hold.
WINDOW_BYTES = 1 << 20

STOP_GRACE_S = 2.0
KILL_GRACE_S = 2.0
START_DEADLINE_S = 30.0
PAUSE_MIN_S = 0.05
PAUSE_MAX_S = 5.0
#: Processes that SIGKILL did not end and that were replaced all the same.
UNDEAD_MAX = 8

_READ_BYTES = 256 << 10


class WorkerDied(VdfsError):
    """The process that ran the request ended before it answered."""

    rpc_code = 1511

    def __init__(self, text: str, how: str = "") -> None:
        super().__init__(text)
        self.how = how  # it ended; empty where no process had begun


class WorkerError(OsFailure):
    """The operation raised: `error_kind` is the class, the text its message, `os_errno` its errno or EIO."""

    rpc_code = 1512

    def __init__(self, error_kind: str, text: str, errno: int = 0) -> None:
        super().__init__(errno or _errno.EIO, f"{error_kind}: {text}")
        self.error_kind = error_kind
        self.text = text


class _Job:
    """One request, from its caller to its answer. Touched on the loop only."""

    def __init__(self, ident: int, op: str, frame: bytes, *, streams: bool) -> None:
        self.id = ident
        self.op = op
        self.frame = frame
        self.streams = streams
        self.submitted = False
        self.abandoned = False
        self.finished = False
        self.result: Any = None
        self.error: VdfsError | None = None
        self.batches: deque[tuple[Any, int]] = deque()
        self.worker: _Worker | None = None  # from the moment that the whole request was sent
        self.scope: trio.CancelScope | None = None
        self.owed_bytes = 0
        self._news = trio.Event()

    def add(self, batch: Any, cost_bytes: int) -> None:
        if not self.abandoned:
            self.batches.append((batch, cost_bytes))
            self._news.set()

    def finish(self, result: Any = None, error: VdfsError | None = None) -> None:
        self.finished, self.result, self.error = True, result, error
        self.worker = None
        self.frame = b""
        self._news.set()

    async def news(self) -> None:
        """Waits until a batch is there or the job is finished."""
        while not self.batches and not self.finished:
            self._news = trio.Event()
            await self._news.wait()


class _Worker:
    """One running process and its socket."""

    def __init__(self, process: Process, sock: socket.socket, *, reserved: bool) -> None:
        self.process = process
        self.reserved = reserved
        self.raw = sock
        self.socket = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.idle: trio.CancelScope | None = None
        self.job: _Job | None = None
        self.served = 0
        self.was_killed = False
        self._frames = Frames()

    async def receive(self) -> tuple[list[Any], int] | None:
        """The next (message, length); None when the process is gone. Raises FrameError."""
        while (found := self._frames.next()) is None:
            try:
                data = await self.socket.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._frames.feed(data)
        return found

    def tell(self, *message: object) -> None:
        """Sends a control frame of a few bytes, from any task, without waiting.

        The socket takes some thousand of them; a worker that reads none of those is broken.
        """
        try:
            self.raw.send(pack(*message))
        except BlockingIOError:
            self.process.kill()
        except OSError:
            pass  # it died; whoever drives it sees the end of the socket


class Stream:
    """The batches of one streamed operation: an async iterator, and an async context manager that stops it.

    Leaving the loop early, cancellation and dropping the object all stop the operation too; `async with` does
    it at a known point. After the last batch `result` is what the operation returned.
    """

    def __init__(self, pool: "WorkerPool", job: _Job) -> None:
        self._pool = pool
        self._job = job

    @property
    def result(self) -> Any:
        return self._job.result

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Any:
        """The next batch. Raises WorkerError or WorkerDied after the batches that came before it."""
        job = self._job
        if job.abandoned:
            raise StopAsyncIteration
        with self._pool._abandoning(job):
            await trio.lowlevel.checkpoint()
            await self._pool._submit(job)
            await job.news()
        if job.batches:
            batch, cost_bytes = job.batches.popleft()
            self._pool._consumed(job, cost_bytes)
            return batch
        if job.error is not None:
            raise job.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stops the operation; batches not taken yet are dropped. Does not wait for the worker."""
        self._pool._abandon(self._job)
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool._abandon(self._job)

    def __del__(self) -> None:
        if self._job.submitted and not (self._job.finished or self._job.abandoned):
            self._pool._abandon_from_anywhere(self._job)


class WorkerPool:
    """`count` worker processes, one of them reserved for calls. `run` is its life; the other methods use it.

    `table` names the operations as module:attribute; the workers import it. With `idle_s` a worker is started when
    there is work, and ended when it had none for so long. `watches_fd` is an inotify instance that they add watches to.
    """

    def __init__(
        self,
        count: int,
        *,
        log_path: Path | None,
        table: str = OPERATIONS,
        idle_s: float | None = None,
        watches_fd: int | None = None,
    ) -> None:
        if count < 2:
            raise ValueError("a worker pool needs two workers: one is reserved for calls, streams take the others")
        self._count = count
        self._starter = ForkServer(table, log_path, watches_fd)
        self._ids = _count(1)
        self._calls: deque[_Job] = deque()
        self._streams: deque[_Job] = deque()
        self._room = trio.lowlevel.ParkingLot()
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._idle_s = idle_s
        self._asleep: dict[int, trio.Event] = {}  # slots without a worker, until there is work for one
        self._down: set[int] = set()  # slots whose worker did not start; they try again
        self._undead: list[Process] = []
        self._token: trio.lowlevel.TrioToken | None = None
        self._closed = False

    @property
    def is_running(self) -> bool:
        """Whether there are workers to give work to: not in a process that only does one operation."""
        return self._token is not None and not self._closed

    def pids(self) -> list[int]:
        """The processes that are ready now."""
        return [worker.process.pid for worker in self._workers]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the workers running until it is cancelled; then kills them and fails what waits with
        WorkerDied."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                for slot in range(self._count):
                    nursery.start_soon(self._keep, slot)
                task_status.started()
        finally:
            self._closed = True
            await self._starter.close()
            for process in self._undead:
                process.close()
            for queue in (self._calls, self._streams):
                self._fail_all(queue, "the worker pool is closed")

    async def call(self, op: str, args: dict[str, Any]) -> Any:
        """Runs one operation and returns its result. Raises WorkerError, WorkerDied, TooLarge.

        Cancellation: the operation may have run, wholly or in part; its result is dropped.
        """
        job = self._job(Say.CALL, op, args)
        with self._abandoning(job):
            await self._submit(job)
            await job.news()
        if job.error is not None:
            raise job.error
        return job.result

    def stream(self, op: str, args: dict[str, Any]) -> Stream:
        """The batches of one operation, begun at the first `async for` step, with at most WINDOW_BYTES under
        way.

        A stream keeps its worker until it ends: cut long work into pieces where others shall get their turn.
        """
        return Stream(self, self._job(Say.STREAM, op, args, WINDOW_BYTES))

    # The caller's side.

    def _job(self, say: Say, op: str, args: dict[str, Any], *more: object) -> _Job:
        ident = next(self._ids)
        try:
            frame = pack(say, ident, op, args, *more)
        except FrameError as error:
            raise TooLarge(f"{op}: {error}") from error
        return _Job(ident, op, frame, streams=say is Say.STREAM)

    async def _submit(self, job: _Job) -> None:
        """Hands the job to an idle worker or queues it; waits only for a place in the queue."""
        if job.submitted:
            return
        queue = self._streams if job.streams else self._calls
        while len(queue) >= QUEUE_MAX and not self._closed:
            await self._room.park()
        job.submitted = True
        if self._closed:
            job.finish(error=WorkerDied("the worker pool is closed"))
        elif self._nobody_comes(job.streams):
            job.finish(error=WorkerDied("no worker process starts; its log says why"))
        elif not self._hand_to_idle(job):
            queue.append(job)
            self._wake_for(job)

    def _hand_to_idle(self, job: _Job) -> bool:
        worker = self._idle_for(job)
        if worker is None or worker.idle is None:
            return False
        self._idle.remove(worker)
        worker.job = job
        worker.idle.cancel()
        return True

    def _idle_for(self, job: _Job) -> _Worker | None:
        fitting = [worker for worker in self._idle if not (job.streams and worker.reserved)]
        return max(fitting, key=lambda worker: worker.reserved, default=None)

    @contextmanager
    def _abandoning(self, job: _Job) -> Iterator[None]:
        """Whatever takes the caller away in here, cancellation above all, gives the job up."""
        try:
            yield
        except BaseException:
            self._abandon(job)
            raise

    def _abandon(self, job: _Job) -> None:
        if job.finished or job.abandoned:
            return
        job.abandoned = True
        job.batches.clear()
        queue = self._streams if job.streams else self._calls
        if job in queue:
            queue.remove(job)
            self._room.unpark()
            job.finish()
        elif job.worker is not None:
            self._stop(job, job.worker)

    def _stop(self, job: _Job, worker: _Worker) -> None:
        worker.tell(Say.STOP, job.id)
        if job.scope is not None:
            job.scope.deadline = trio.current_time() + STOP_GRACE_S

    def _abandon_from_anywhere(self, job: _Job) -> None:
        """For the garbage collector, which may run in any thread, or after the loop."""
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._abandon, job)

    def _consumed(self, job: _Job, cost_bytes: int) -> None:
        """Returns credit, a quarter of the window at a time."""
        job.owed_bytes += cost_bytes
        if job.owed_bytes >= WINDOW_BYTES // 4 and job.worker is not None:
            job.worker.tell(Say.CREDIT, job.id, job.owed_bytes)
            job.owed_bytes = 0

    # The worker's side: one task for each slot.

    async def _keep(self, slot: int) -> None:
        """Keeps one worker running; slot 0 is the reserved one."""
        pause_s = PAUSE_MIN_S
        while True:
            await self._until_wanted(slot)
            worker = await self._start(reserved=slot == 0)
            if worker is None:
                self._down.add(slot)
                for asleep in self._asleep.values():  # maybe they can
                    asleep.set()
                self._fail_hopeless()
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
                continue
            self._down.discard(slot)
            self._workers.append(worker)
            try:
                await self._drive(worker)
            finally:
                self._workers.remove(worker)
                await self._bury(worker)
            if worker.was_killed or worker.served:
                pause_s = PAUSE_MIN_S
            else:
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _until_wanted(self, slot: int) -> None:
        """Returns at once, but for a pool that starts workers when there is work."""
        if self._idle_s is None or self._calls or (slot and self._streams):
            return
        self._down.discard(slot)  # whoever wakes it has it try again
        event = self._asleep[slot] = trio.Event()
        try:
            await event.wait()
        finally:
            del self._asleep[slot]

    def _wake_for(self, job: _Job) -> None:
        """Has one worker started for a job that waits."""
        slots = (slot for slot, event in self._asleep.items() if not event.is_set() and not (job.streams and slot == 0))
        slot = min(slots, default=None)
        if slot is not None:
            self._asleep[slot].set()

    async def _start(self, *, reserved: bool) -> _Worker | None:
        """A worker that said it is ready, or None."""
        try:
            worker = _Worker(*await self._starter.start(idle_io=not reserved), reserved=reserved)
        except OSError as error:
            _log.error("a worker process cannot be started: %s", error)
            return None
        ready = False
        try:
            with trio.move_on_after(START_DEADLINE_S):
                found = await worker.receive()
                ready = found is not None and found[0][0] == Say.READY
        except FrameError:
            pass
        finally:
            if not ready:
                await self._bury(worker)
        return worker if ready else None

    async def _drive(self, worker: _Worker) -> None:
        """Gives the worker one job after the other; returns when it is dead or must be killed.

        The job it owes an answer stays in `worker.job`.
        """
        while await self._await_job(worker):
            job = worker.job
            assert job is not None
            if job.abandoned:
                job.finish()
            elif not await self._serve(worker, job):
                return
            worker.job = None
            worker.served += 1

    async def _await_job(self, worker: _Worker) -> bool:
        """Puts the next job into `worker.job`; False when the worker died in the meantime."""
        queue = self._calls or (deque() if worker.reserved else self._streams)
        if queue:
            worker.job = queue.popleft()
            self._room.unpark()
            await trio.lowlevel.checkpoint()
            return True
        wait_s = math.inf if self._idle_s is None else self._idle_s
        with trio.move_on_after(wait_s) as worker.idle:
            self._idle.append(worker)
            try:
                await trio.lowlevel.wait_readable(worker.raw)  # an idle worker says nothing: this is its end
            finally:
                if worker in self._idle:
                    self._idle.remove(worker)
        if worker.job is None and worker.idle.cancelled_caught:
            worker.was_killed = True  # as it will be: it has rested long enough
        return worker.job is not None

    async def _serve(self, worker: _Worker, job: _Job) -> bool:
        """Sends one job and takes its answers; False when the worker is of no more use."""
        with trio.CancelScope() as job.scope:
            try:
                await worker.socket.send_all(job.frame)
            except trio.BrokenResourceError:
                # It died idle, and cannot have begun: the job is still everybody's.
                worker.job = None
                if not self._hand_to_idle(job):
                    (self._streams if job.streams else self._calls).appendleft(job)
                    self._wake_for(job)
                return False
            job.worker = worker
            if job.abandoned:
                self._stop(job, worker)
            try:
                while found := await worker.receive():
                    if _take_answer(job, *found):
                        return True
            except FrameError as error:
                _log.error("worker %d: %s", worker.process.pid, error)
        if job.scope.cancelled_caught:
            _log.warning("worker %d did not stop %s within %g s: killed", worker.process.pid, job.op, STOP_GRACE_S)
            worker.was_killed = True
        return False

    async def _bury(self, worker: _Worker) -> None:
        """Ends the process, and answers for it."""
        process = worker.process
        worker.socket.socket.close()
        process.kill()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(KILL_GRACE_S):
                await process.wait()
            if process.has_ended:
                await self._starter.reap(process)
        job, worker.job = worker.job, None
        if job is not None and not job.finished:
            how = _how_it_ended(process)
            job.finish(error=WorkerDied(f"worker process {process.pid} {how} while it ran {job.op}", how))
        if process.has_ended:
            process.close()
            return
        _log.error("worker %d does not end by SIGKILL: a file system it waits for hangs", process.pid)
        self._undead.append(process)
        await self._await_undead()

    async def _await_undead(self) -> None:
        """Waits while there are too many processes that cannot be ended; forgets those that could be after all."""
        while True:
            for process in [process for process in self._undead if process.look()]:
                self._undead.remove(process)
                await self._starter.reap(process)
                process.close()
            if len(self._undead) <= UNDEAD_MAX:
                return
            await trio.sleep(PAUSE_MAX_S)

    def _nobody_comes(self, streams: bool) -> bool:
        """Whether every worker that could take such a job failed to start."""
        return self._down.issuperset(range(1 if streams else 0, self._count))

    def _fail_hopeless(self) -> None:
        for queue, streams in ((self._calls, False), (self._streams, True)):
            if self._nobody_comes(streams):
                self._fail_all(queue, "no worker process starts; its log says why")

    def _fail_all(self, queue: deque[_Job], text: str) -> None:
        while queue:
            queue.popleft().finish(error=WorkerDied(text))
        self._room.unpark_all()


def _take_answer(job: _Job, message: list[Any], length: int) -> bool:
    """Files one message of the worker under its job; True when it was the last one."""
    match message:
        case [Say.ITEM, job.id, batch]:
            job.add(batch, length + FRAME_COST_BYTES)
            return False
        case [Say.DONE, job.id, result]:
            job.finish(result)
        case [Say.ERROR, job.id, kind, text, errno]:
            job.finish(error=WorkerError(kind, text, errno))
        case _:
            raise FrameError(f"an answer that nobody asked for: {str(message)[:80]}")
    return True


def _how_it_ended(process: Process) -> str:
    code = process.returncode
    if code is None:
        return "ended" if process.has_ended else "hangs"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"
