"""The server and the blocking client over real Unix sockets; the operations behind them are fakes."""

import json
import logging
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
import trio.testing

from index.model.errors import (
    AccessDenied,
    Busy,
    Deadline,
    Exists,
    Invalid,
    NotFound,
    NotRunning,
    OsFailure,
    TooLarge,
    VdfsError,
)
from vdfs.wire import jsonrpc, server
from vdfs.wire.client import RpcClient, RpcError

PATIENCE_S = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A socket path in a directory that is ours alone."""
    home = tmp_path / "run"
    home.mkdir(mode=0o700)
    return home / "sd.sock"


class Fake:
    """A dispatch function with a few methods, and a note of what happened to it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.at_work = 0
        self.most_at_work = 0
        self.cancelled = 0
        self.gate: trio.Event | None = None

    async def __call__(self, method: str, params: Any) -> Any:
        self.calls.append((method, params))
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            return await self._run(method, params)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        finally:
            self.at_work -= 1

    async def _run(self, method: str, params: Any) -> Any:
        if method == "echo":
            await trio.lowlevel.checkpoint()
            return params
        if method == "wait":
            assert self.gate is not None
            await self.gate.wait()
            return "waited"
        if method == "big":
            return "x" * params["bytes"]
        if method == "missing":
            raise NotFound("there is no location 'X'")
        if method == "os":
            raise OsFailure(13, "may not")
        if method == "grouped":
            raise ExceptionGroup("nursery", [ExceptionGroup("nursery", [NotFound("in a nursery")])])
        if method == "bug":
            raise KeyError("a bug")
        if method == "unencodable":
            return {"v": b"bytes"}
        raise jsonrpc.MethodNotFound(f"no {method}")


@contextmanager
def closing_raw_clients() -> Iterator[None]:
    try:
        yield
    finally:
        while Raw.opened:
            Raw.opened.pop().stream.socket.close()


@asynccontextmanager
async def serving(path: Path, dispatch: Callable[[str, Any], Awaitable[Any]]) -> AsyncIterator[None]:
    """A server in the background; a test that hangs fails. What `Raw` opened is closed at the end."""
    with closing_raw_clients(), trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: server.serve(path, dispatch, task_status=task_status))
            yield
            nursery.cancel_scope.cancel()


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run it; an error inside nurseries comes out as the one that it is."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def thread(function: Callable[[], Any]) -> Awaitable[Any]:
    """Blocking code beside the loop."""
    return trio.to_thread.run_sync(function, abandon_on_cancel=True)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the deadline is that of `serving`."""
    while not condition():  # noqa: ASYNC110 (what is waited for has no event)
        await trio.sleep(0.005)


def ask(path: Path, method: str, params: Any = None) -> Any:
    """One call on a connection of its own."""
    with RpcClient(path, PATIENCE_S) as rpc:
        return rpc.call(method, params)


class Raw:
    """A client that sends bytes and reads lines, in the same loop."""

    opened: ClassVar[list["Raw"]] = []

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    @classmethod
    async def connect(cls, path: Path) -> "Raw":
        cls.opened.append(cls(await trio.open_unix_socket(path)))
        return cls.opened[-1]

    async def send(self, *messages: Any) -> None:
        await self.stream.send_all(b"".join(json.dumps(m).encode() + b"\n" for m in messages))

    async def line(self) -> Any:
        while b"\n" not in self.buffer:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    async def ended(self) -> bool:
        with pytest.raises(EOFError):
            await self.line()
        return self.buffer == b""


def call(id: Any, method: str, params: Any = None) -> dict[str, Any]:
    return jsonrpc.request(id, method, params)


# -- Calls


def test_a_call_comes_back_with_its_result(path: Path) -> None:
    """The blocking client over the socket, many calls on one connection."""

    async def main() -> None:
        async with serving(path, Fake()):

            def client() -> list[Any]:
                with RpcClient(path, PATIENCE_S) as rpc:
                    return [rpc.call("echo", {"n": n, "text": "é\u2028\n"}) for n in range(50)]

            assert await thread(client) == [{"n": n, "text": "é\u2028\n"} for n in range(50)]

    run(main)


@pytest.mark.parametrize(
    ("method", "code", "kind", "text"),
    [
        ("missing", 1404, "NotFound", "there is no location 'X'"),
        ("grouped", 1404, "NotFound", "in a nursery"),
        ("os", 1510, "OsFailure", "may not"),
        ("nothing", -32601, "MethodNotFound", "no nothing"),
    ],
)
def test_an_error_of_an_operation_arrives_as_itself(
    path: Path, method: str, code: int, kind: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """RpcError has the code, the line and the kind; nothing is logged, for it is no bug."""

    async def main() -> None:
        async with serving(path, Fake()):
            with pytest.raises(RpcError) as raised:
                await thread(lambda: ask(path, method))
            assert (raised.value.code, raised.value.kind, str(raised.value)) == (code, kind, text)
            assert raised.value.data["errno"] == {"os": 13}.get(method, raised.value.data["errno"])

    with caplog.at_level(logging.WARNING):
        run(main)
    assert not caplog.records


@pytest.mark.parametrize("method", ["bug", "unencodable"])
def test_a_bug_is_logged_and_the_server_lives_on(path: Path, method: str, caplog: pytest.LogCaptureFixture) -> None:
    """An internal error to the client, one log record with the method and the params, and service goes on."""

    async def main() -> None:
        async with serving(path, Fake()):
            raw = await Raw.connect(path)
            await raw.send(call(1, method, {"for": "the log"}), call(2, "echo", {"a": 1}))
            replies = {reply["id"]: reply for reply in (await raw.line(), await raw.line())}
            assert replies[1]["error"]["code"] == -32603
            assert replies[2]["result"] == {"a": 1}

    run(main)
    (record,) = caplog.records
    assert record.exc_info
    assert method in record.getMessage()
    assert "for" in record.getMessage()


def test_notifications_are_done_and_not_answered(path: Path) -> None:
    """Neither a result nor an error comes back, also not for a bug."""

    async def main() -> None:
        fake = Fake()
        async with serving(path, fake):
            raw = await Raw.connect(path)
            for method in ("echo", "missing", "nothing"):
                await raw.send({"jsonrpc": "2.0", "method": method})
            await until(lambda: len(fake.calls) == 3 and fake.at_work == 0)
            await raw.send(call(7, "echo"))
            assert await raw.line() == {"jsonrpc": "2.0", "id": 7, "result": None}

    run(main)


def test_a_batch_has_one_reply(path: Path) -> None:
    """An array with results, errors and refusals; a batch of notifications has none at all."""

    async def main() -> None:
        async with serving(path, Fake()):
            raw = await Raw.connect(path)
            note = {"jsonrpc": "2.0", "method": "echo"}
            await raw.send([note, note])
            await raw.send([call(1, "echo", [1]), note, call("b", "missing"), 5, call(3, "bug")])
            replies = await raw.line()
            assert [reply["id"] for reply in replies] == [1, "b", None, 3]
            assert replies[0]["result"] == [1]
            assert [reply["error"]["code"] for reply in replies[1:]] == [1404, -32600, -32603]

    run(main)


def test_replies_come_as_they_are_ready(path: Path) -> None:
    """A call that waits does not hold up the one behind it."""

    async def main() -> None:
        fake = Fake()
        fake.gate = trio.Event()
        async with serving(path, fake):
            raw = await Raw.connect(path)
            await raw.send(call(1, "wait"), call(2, "echo"))
            assert (await raw.line())["id"] == 2
            fake.gate.set()
            assert (await raw.line())["id"] == 1

    run(main)


# -- Limits


def test_calls_at_work_are_bounded(path: Path) -> None:
    """Of 200 calls that all wait, MAX_IN_FLIGHT run; once they may go on, every one is answered."""

    async def main() -> None:
        fake = Fake()
        fake.gate = trio.Event()
        async with serving(path, fake):
            raw = await Raw.connect(path)
            await raw.send(*(call(n, "wait") for n in range(200)))
            await until(lambda: fake.at_work == server.MAX_IN_FLIGHT)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(fake.calls) == server.MAX_IN_FLIGHT
            fake.gate.set()
            assert {(await raw.line())["id"] for _ in range(200)} == set(range(200))
        assert fake.most_at_work == server.MAX_IN_FLIGHT

    run(main)


def test_who_does_not_read_costs_little_and_is_closed(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Replies of 1 MiB each, never read: no more than the slots are made, others are served, then it ends."""
    monkeypatch.setattr(server, "WRITE_STALL_S", 0.5)

    async def main() -> None:
        fake = Fake()
        async with serving(path, fake):
            deaf = await Raw.connect(path)
            await deaf.send(*(call(n, "big", {"bytes": 1 << 20}) for n in range(100)))
            await until(lambda: len(fake.calls) >= server.MAX_IN_FLIGHT)
            other = await Raw.connect(path)
            await other.send(call(1, "echo", {"still": "here"}))
            assert (await other.line())["result"] == {"still": "here"}
            made = len([method for method, _ in fake.calls if method == "big"])
            assert made <= server.MAX_IN_FLIGHT + 1
            await until(lambda: server._has_hung_up(deaf.stream.socket))
            with pytest.raises(EOFError):  # what was written before is still there to read, then it ends
                while True:
                    await deaf.line()

    run(main)
    assert {record.getMessage().split(";")[0] for record in caplog.records} == {
        "a client did not read its replies for 0 s"
    }


def test_a_slow_reader_that_does_read_gets_everything(path: Path) -> None:
    """Larger than any socket buffer, in small sips."""

    async def main() -> None:
        async with serving(path, Fake()):
            raw = await Raw.connect(path)
            await raw.send(*(call(n, "big", {"bytes": 1 << 20}) for n in range(4)))
            total = 0
            while total < 4 << 20:
                total += len(await raw.stream.receive_some(8192))
                await trio.lowlevel.checkpoint()

    run(main)


def test_a_line_over_the_limit_is_answered_then_closed(path: Path) -> None:
    """The sender can read why, although it is still sending."""

    async def main() -> None:
        async with serving(path, Fake()):
            raw = await Raw.connect(path)
            async with trio.open_nursery() as nursery:

                async def flood() -> None:
                    with pytest.raises(trio.BrokenResourceError):
                        while True:
                            await raw.stream.send_all(b"x" * (1 << 16))

                nursery.start_soon(flood)
                reply = await raw.line()
                assert (reply["id"], reply["error"]["data"]["kind"]) == (None, "LineTooLong")
                assert await raw.ended()

    run(main)


def test_a_reply_over_the_limit_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of the reply comes TooLarge; in a batch the limit counts for all together."""
    monkeypatch.setattr(jsonrpc, "MAX_REPLY_BYTES", 1000)

    async def main() -> None:
        async with serving(path, Fake()):
            raw = await Raw.connect(path)
            await raw.send(call(1, "big", {"bytes": 2000}))
            assert (await raw.line())["error"]["data"]["kind"] == "TooLarge"
            await raw.send([call(n, "big", {"bytes": 400}) for n in range(4)])
            assert ["result" in reply for reply in await raw.line()] == [True, True, False, False]

    run(main)


def test_clients_are_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many hears Busy; when one leaves there is room again."""
    monkeypatch.setattr(server, "MAX_CLIENTS", 3)

    async def main() -> None:
        fake = Fake()
        async with serving(path, fake):
            clients = [await Raw.connect(path) for _ in range(3)]
            for raw in clients:
                await raw.send(call(1, "echo"))
                await raw.line()
            turned_away = await Raw.connect(path)
            assert (await turned_away.line())["error"]["data"]["kind"] == "Busy"
            assert await turned_away.ended()
            with pytest.raises(RpcError, match="clients are connected"):
                await thread(lambda: ask(path, "echo"))
            await clients[0].stream.aclose()

            def room() -> Any:
                while True:
                    try:
                        return ask(path, "echo", {"room": True})
                    except (RpcError, NotRunning):
                        continue

            assert await thread(room) == {"room": True}

    run(main)


# -- Comings and goings


def test_who_closed_only_its_sending_half_gets_its_answers(path: Path) -> None:
    """Also to a last line without newline, as a shell's printf sends it."""

    async def main() -> None:
        fake = Fake()
        fake.gate = trio.Event()
        async with serving(path, fake):
            raw = await Raw.connect(path)
            await raw.send(call(1, "wait"))
            await raw.stream.send_all(json.dumps(call(2, "echo")).encode())
            await raw.stream.send_eof()
            assert (await raw.line())["id"] == 2
            fake.gate.set()
            assert (await raw.line())["id"] == 1
            assert await raw.ended()

    run(main)


def test_who_has_gone_takes_its_calls_with_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would read the answer: the operation is cancelled, without a word in the log."""

    async def main() -> None:
        fake = Fake()
        fake.gate = trio.Event()
        async with serving(path, fake):
            raw = await Raw.connect(path)
            await raw.send(call(1, "wait"), call(2, "wait"))
            await until(lambda: fake.at_work == 2)
            await raw.stream.aclose()
            await until(lambda: fake.cancelled == 2)

    with caplog.at_level(logging.WARNING):
        run(main)
    assert not caplog.records


def test_a_reset_in_the_middle_of_a_reply_ends_one_client_only(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client that dies with unread replies is no event for anybody else."""

    async def main() -> None:
        fake = Fake()
        async with serving(path, fake):
            raw = await Raw.connect(path)
            await raw.send(*(call(n, "big", {"bytes": 1 << 20}) for n in range(30)))
            await raw.stream.receive_some(100)
            await raw.stream.aclose()
            other = await Raw.connect(path)
            await other.send(call(1, "echo"))
            assert (await other.line())["id"] == 1
            await until(lambda: fake.at_work == 0)

    with caplog.at_level(logging.WARNING):
        run(main)
    assert not caplog.records


def test_the_end_of_the_server_ends_calls_and_removes_the_socket(path: Path) -> None:
    """Cancelled in the middle of a call: the client sees the end, the file is gone."""

    async def main() -> None:
        fake = Fake()
        fake.gate = trio.Event()
        with closing_raw_clients(), trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: server.serve(path, fake, task_status=task_status))
                raw = await Raw.connect(path)
                await raw.send(call(1, "wait"))
                await until(lambda: fake.at_work == 1)
                nursery.cancel_scope.cancel()
            assert fake.cancelled == 1
            assert await raw.ended()

    run(main)
    assert list(path.parent.iterdir()) == []


# -- The socket file


def test_the_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    """0600 in a directory that is made with 0700."""
    path = tmp_path / "made" / "sd.sock"

    async def main() -> None:
        async with serving(path, Fake()):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert stat.S_ISSOCK(path.lstat().st_mode)
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert [entry.name for entry in path.parent.iterdir()] == ["sd.sock"]

    run(main)


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o770, 0o1777])
def test_a_directory_that_is_open_to_others_is_refused(path: Path, mode: int) -> None:
    """The text names the directory, its mode and the cure; nothing is made in it."""
    path.parent.chmod(mode)
    with pytest.raises(AccessDenied, match=rf"{mode:04o}.*0700"):
        run(lambda: server.serve(path, Fake()))
    assert list(path.parent.iterdir()) == []


def test_a_stale_socket_is_replaced(path: Path) -> None:
    """Nobody answers on the file that a killed process left behind."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        async with serving(path, Fake()):
            assert await thread(lambda: ask(path, "echo", {"alive": 1})) == {"alive": 1}

    run(main)


def test_a_socket_that_answers_is_left_alone(path: Path) -> None:
    """The second server is refused, the first goes on; also when its queue is full and it accepts nobody."""

    async def main() -> None:
        async with serving(path, Fake()):
            with pytest.raises(Busy, match=f"process {os.getpid()} answers"):
                await server.serve(path, Fake())
            assert await thread(lambda: ask(path, "echo", {"first": 1})) == {"first": 1}

    run(main)
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(str(path))
        full.listen(0)
        waiting.connect(str(path))
        with pytest.raises(Busy):
            run(lambda: server.serve(path, Fake()))


@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    """A file of somebody's is not ours to replace."""
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(Exists, match="in the way"):
        run(lambda: server.serve(path, Fake()))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_socket_of_a_successor_is_not_removed(path: Path) -> None:
    """At its end a server removes its own file, not the one that took the name meanwhile."""

    async def main() -> None:
        async with serving(path, Fake()):
            path.unlink()
            path.write_text("another")

    run(main)
    assert path.read_text() == "another"


def test_a_path_beyond_the_address_limit_works(tmp_path: Path) -> None:
    """107 bytes are an address's limit, not a directory's depth."""
    path = tmp_path / ("d" * 200) / ("e" * 200) / "sd.sock"
    path.parent.mkdir(parents=True, mode=0o700)

    async def main() -> None:
        async with serving(path, Fake()):
            assert await thread(lambda: ask(path, "echo", {"far": 1})) == {"far": 1}

    run(main)
    assert list(path.parent.iterdir()) == []


def test_a_file_name_beyond_the_address_limit_is_refused(path: Path) -> None:
    """One clear line instead of an OSError about AF_UNIX."""
    with pytest.raises(Invalid, match="too long"):
        run(lambda: server.serve(path.parent / ("s" * 120), Fake()))


# -- Who is there


def test_the_peer_is_known_by_the_kernel() -> None:
    """SO_PEERCRED of a pair of our own sockets is our uid."""
    a, b = socket.socketpair()
    with a, b:
        assert server.peer_uid(a) == os.geteuid()


def test_we_and_root_are_welcome() -> None:
    """Nobody else is."""
    assert server.is_welcome(1000, 1000)
    assert server.is_welcome(0, 1000)
    assert not server.is_welcome(1001, 1000)
    assert not server.is_welcome(1000, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can connect as another user")
def test_another_user_is_refused_by_modes_and_by_the_kernels_word(path: Path) -> None:
    """The modes keep a stranger out; were they opened by mistake, SO_PEERCRED does."""
    fake = Fake()
    program = (
        "import os, socket, sys\n"
        "fd = os.open(os.path.dirname(sys.argv[1]), os.O_PATH)\n"  # as root: the way here is not the question
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(f'/proc/self/fd/{fd}/' + os.path.basename(sys.argv[1]))\n"
        "try: s.sendall(b'{}\\n')\n"
        "except BrokenPipeError: pass\n"  # refused before it could ask
        "print(s.makefile().readline())\n"
    )

    def stranger() -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", program, str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    async def main() -> None:
        async with serving(path, fake):
            assert "PermissionError" in (await thread(stranger)).stderr
            path.parent.chmod(0o711)
            assert "PermissionError" in (await thread(stranger)).stderr
            path.chmod(0o666)
            done = await thread(stranger)
            assert "AccessDenied" in done.stdout, done.stderr

    run(main)
    assert fake.calls == []


# -- The client


@pytest.fixture
def scripted(path: Path) -> Iterator[Callable[[bytes], threading.Thread]]:
    """A server of one connection that sends fixed bytes after the first line, then closes."""
    threads: list[threading.Thread] = []

    def start(answer: bytes) -> threading.Thread:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE_S)

        def serve_one() -> None:
            with listener:
                sock, _ = listener.accept()
                with sock, sock.makefile("rb") as lines:
                    lines.readline()
                    sock.sendall(answer)

        threads.append(threading.Thread(target=serve_one))
        threads[-1].start()
        return threads[-1]

    yield start
    for started in threads:
        started.join(PATIENCE_S)


def test_nobody_there_is_one_clear_line(path: Path) -> None:
    """No file, a dead socket, a plain file, a missing directory: NotRunning with the path."""
    with pytest.raises(NotRunning, match=r"sd\.sock"):
        RpcClient(path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NotRunning):
        RpcClient(path)
    with pytest.raises(NotRunning):
        RpcClient(path.parent / "no" / ("x" * 120) / "sd.sock")


def test_a_call_has_a_deadline(path: Path) -> None:
    """Deadline names the method; the operation goes on or not, the client does not wait for it."""

    async def main() -> None:
        fake = Fake()
        fake.gate = trio.Event()
        async with serving(path, fake):
            with RpcClient(path, 0.1) as rpc, pytest.raises(Deadline, match="wait"):
                await thread(lambda: rpc.call("wait"))

    run(main)


def test_a_server_that_goes_in_the_middle_is_not_waited_for(
    path: Path, scripted: Callable[[bytes], threading.Thread]
) -> None:
    """Half a reply and the end: NotRunning, not a parse error and not a hang."""
    scripted(b'{"jsonrpc":"2.0","id":1,"re')
    with RpcClient(path, PATIENCE_S) as rpc, pytest.raises(NotRunning, match="went away"):
        rpc.call("echo")


def test_replies_to_others_and_events_are_passed_over(
    path: Path, scripted: Callable[[bytes], threading.Thread]
) -> None:
    """The id pairs; a notification and an older reply come before ours."""
    lines = [{"method": "event"}, {"id": 99, "result": "other"}, [], {"id": 1, "result": {"mine": 1}}]
    scripted(b"".join(json.dumps(value).encode() + b"\n" for value in lines))
    with RpcClient(path, PATIENCE_S) as rpc:
        assert rpc.call("echo") == {"mine": 1}


@pytest.mark.parametrize(
    "answer", [b"rubbish\n", b'{"id":1,"error":5}\n', b'{"id":1,"error":{"code":7,"message":"m"}}\n']
)
def test_a_strange_answer_is_an_error_of_the_tree(
    path: Path, scripted: Callable[[bytes], threading.Thread], answer: bytes
) -> None:
    """Whatever the other side is, the caller catches VdfsError."""
    scripted(answer)
    with RpcClient(path, PATIENCE_S) as rpc, pytest.raises(VdfsError):
        rpc.call("echo")


def test_who_is_refused_before_he_asked_still_hears_why(path: Path) -> None:
    """The server answers and closes at once: the request meets a broken pipe, the answer is there to read."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with RpcClient(path, PATIENCE_S) as rpc:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(jsonrpc.encode(jsonrpc.error_reply(None, Busy("too many"))) + b"\n")
            with pytest.raises(RpcError, match="too many"):
                rpc.call("echo")


def test_a_request_over_the_limit_is_not_sent(path: Path) -> None:
    """TooLarge before a byte goes out; the connection is still good."""

    async def main() -> None:
        fake = Fake()
        async with serving(path, fake):

            def client() -> Any:
                with RpcClient(path, PATIENCE_S) as rpc:
                    with pytest.raises(TooLarge, match="request"):
                        rpc.call("echo", {"text": "x" * jsonrpc.MAX_LINE_BYTES})
                    return rpc.call("echo", {"text": "y"})

            assert await thread(client) == {"text": "y"}
        assert len(fake.calls) == 1

    run(main)
