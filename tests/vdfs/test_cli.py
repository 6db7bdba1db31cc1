"""`sd` from its arguments to its exit code: a fake process holds the library, or a fake opens it in place."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import Busy, Invalid, NotFound, NotRunning, StoreCorrupt
from vdfs import cli
from vdfs.commands import arguments, door, status, words
from vdfs.library.lock import running_holder
from vdfs.ops.table import load
from vdfs.wire import server
from vdfs.wire.jsonrpc import MAX_LINE_BYTES, encode

ROOT = Path(__file__).resolve().parents[2]

IDLE = {
    "idle": True,
    "pending_dirs": 0,
    "pending_files": 0,
    "current": None,
    "dirs": 1,
    "entries": 12,
    "files_identified": 7,
    "bytes_identified": 1 << 20,
    "errors": 0,
    "paused": 0,
    "unwatched": False,
    "active": False,
}
BUSY = {**IDLE, "idle": False, "active": True, "pending_dirs": 2, "pending_files": 1, "current": "Ph"}
STATUS = {
    "pid": 4242,
    "version": "0.1.0",
    "library": "Library",
    "library_id": "lib-id",
    "device": "laptop",
    "device_id": "dev-id",
    "mountpoint": "/home/u/Spacedrive",
    "data_dir": "/d",
    "log": "/d/log",
    "uptime_s": 61.5,
    "scan": IDLE,
    "locations": 2,
    "entries": 12,
    "files": 12345,
    "dirs": 1,
    "bytes": 5 << 30,
    "far_files": 0,
    "far_bytes": 0,
    "contents": 3,
    "tags": 4,
    "watches": 1,
    "database_bytes": 4096,
}
INFO = {
    "path": "/Photos/a.jpg",
    "uuid": None,
    "inode": 77,
    "kind": "file",
    "size_bytes": 2048,
    "mtime_ns": 0,
    "mode": 0o100644,
    "type": "image",
    "mime": "image/jpeg",
    "hash": "blake3:ab",
    "hash_state": "full",
    "state": "local",
    "rule": None,
    "version": "1",
    "tags": ["holiday", "2019"],
    "comment": None,
    "rating": 8,
    "xattrs": ["user.a"],
    "below": None,
    "meta": {"width": "4000", "model": "X\x1b100"},
    "unread": None,
    "replicas": [{"device": "laptop", "branch": "Photos", "path": "/pics/a.jpg", "state": "local"}],
}
JOB = {
    "id": 7,
    "kind": "index",
    "title": "index Photos",
    "status": "running",
    "paused_by": None,
    "error": None,
    "priority": 0,
    "parent": None,
    "phase": "discover",
    "done": 40,
    "total": 120,
    "bytes_done": 4096,
    "bytes_total": None,
    "current": None,
    "rate": 20.0,
    "bytes_rate": 2048.0,
    "eta_s": 4.0,
    "warnings": 0,
    "errors": 1,
    "runs": 2,
    "created_ns": 1_000_000_000,
    "started_ns": 1_000_000_000,
    "ended_ns": None,
    "worked_s": 0.5,
}
RESULTS: dict[str, Any] = {
    "query:core.status": STATUS,
    "query:location.list": {
        "locations": [
            {
                "name": "Photos",
                "uuid": "u",
                "mode": "content",
                "branches": [
                    {"path": "/pics", "label": "", "device": None, "state": "done", "entries": 7, "error": None},
                    {"path": "/more", "label": "", "device": None, "state": "missing", "entries": 1, "error": "away"},
                ],
            },
            {"name": "Empty", "uuid": "v", "mode": "shallow", "branches": []},
        ]
    },
    "action:location.add": {"name": "pics", "uuid": "u", "branch_uuid": "b", "path": "/pics"},
    "action:location.remove": {"name": "pics", "branches": 1},
    "action:location.rescan": {"name": "pics"},
    "action:tag.add": {"changed": 1, "paths": [{"path": "/a", "tags": ["x", "y"]}]},
    "action:tag.remove": {"changed": 1, "paths": [{"path": "/a", "tags": []}]},
    "query:tag.list": {"tags": [{"name": "holiday", "count": 12}, {"name": "b", "count": 3}]},
    "query:search.names": {
        "hits": [
            {"path": "/Photos/beach.jpg", "kind": "file", "size_bytes": 1536, "mtime_ns": 1_000_000_000},
            {"path": "/Photos", "kind": "directory", "size_bytes": 4096, "mtime_ns": 1_000_000_000},
        ],
        "cursor": None,
        "truncated": False,
        "took": 0.001,
    },
    "query:search.duplicates": {
        "sets": [
            {
                "hash": "ab",
                "size_bytes": 2048,
                "files": 2,
                "wasted_bytes": 2048,
                "paths": [{"path": "/a", "linked": False}, {"path": "/b", "linked": False}],
            }
        ],
        "cursor": None,
        "unhashed": 3,
        "held": 0,
    },
    "query:search.unique": {
        "files": [{"path": "/Photos/a", "size_bytes": 7}],
        "cursor": None,
        "unhashed": 0,
        "held": 1,
    },
    "action:search.save": {"name": "sea", "query": "beach kind:image"},
    "query:search.saved": {"searches": [{"name": "sea", "query": "beach kind:image"}]},
    "action:search.forget": {"name": "sea"},
    "query:file.info": INFO,
    "query:index.verify": {"checked": 5, "differences": []},
    "action:location.mode": {"name": "pics", "mode": "deep"},
    "query:job.list": {"jobs": [{"job": JOB, "parts": [{**JOB, "id": 8, "parent": 7}]}], "told": 3},
    "query:job.show": {
        "job": JOB,
        "parts": [],
        "result": '{"files": 3}',
        "notes": [{"at_ns": 1_000_000_000, "level": "error", "text": "x could not be read"}],
        "log": ["begins"],
    },
    "action:job.pause": {**JOB, "status": "paused", "paused_by": "user"},
    "action:job.resume": JOB,
    "action:job.cancel": {**JOB, "status": "cancelled", "ended_ns": 2_000_000_000},
    "query:index.skipped": {
        "skipped": [{"path": "/Photos/node_modules", "kind": "directory", "rule": "dev", "below": 1234}],
        "counts": [{"rule": "dev", "entries": 1235}],
        "more": None,
        "judging": False,
    },
    "action:location.rules": {
        "name": "Photos",
        "rules": [{"name": "dev", "on": True, "about": "directories that tools can make again"}],
        "own": [{"kind": "reject", "pattern": "*.iso"}],
        "changed": True,
    },
}


class Library:
    """A data directory with one library, and what the operations behind it were asked."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.directory = data_dir / "libraries" / "Library.sdlibrary"
        self.directory.mkdir(parents=True)
        self.calls: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = dict(RESULTS)

    def answer(self, method: str, params: Any) -> Any:
        """A fixed result; an exception is raised, a function is called."""
        self.calls.append((method, params))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer(params) if callable(answer) else answer


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """No process holds it; opening it in place is a fake `vdfs.core.run_offline`."""
    made = Library(tmp_path / "data")
    monkeypatch.setenv("SDMOUNT_DATA_DIR", str(made.data_dir))
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(door, "FIND_TIMEOUT_S", 0.3)

    def run_offline(data_dir: Any, library: str, method: str, params: Any) -> Any:
        assert (Path(data_dir), library) == (made.data_dir, "Library")
        return made.answer(method, params)

    fake = types.ModuleType("vdfs.core")
    fake.run_offline = run_offline  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vdfs.core", fake)
    return made


class Running:
    """A process that holds the library: a thread with the real server, and the lock with its note."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.socket = library.data_dir / "run" / "sd.sock"
        self.lock = os.open(library.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.note(str(self.socket))
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=lambda: trio.run(self._serve))

    def note(self, socket_path: str | None) -> None:
        text = json.dumps({"pid": 4242, "mountpoint": "/m", "socket": socket_path, "started_ns": 1})
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, text.encode(), 0)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(20)

    def stop(self) -> None:
        if self._thread.is_alive() and self._token is not None:
            self._token.run_sync_soon(self._scope.cancel)
            self._thread.join(20)
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    async def _serve(self) -> None:
        async def dispatch(method: str, params: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return self.library.answer(method, params)

        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(lambda task_status: server.serve(self.socket, dispatch, task_status=task_status))
                self._started.set()


@pytest.fixture
def holder(library: Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """The lock is held; the socket does not answer yet. Opening the library in place would be a mistake."""

    def run_offline(*_: Any) -> Any:
        raise AssertionError("the library was opened although a process holds it")

    monkeypatch.setattr(sys.modules["vdfs.core"], "run_offline", run_offline)
    running = Running(library)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def running(holder: Running) -> Running:
    """The lock is held and the socket answers."""
    holder.start()
    return holder


Capture = pytest.CaptureFixture[str]


def the_error(capsys: Capture) -> str:
    """stderr is exactly one line that starts with the program's name; stdout is empty."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sd: ")
    assert err.count("\n") == 1
    return err


# -- Every command, both ways

COMMANDS: list[tuple[list[str], str, Any]] = [
    (["status"], "query:core.status", {}),
    (["library", "info"], "query:core.status", {}),
    (["location", "add", "/pics"], "action:location.add", {"path": "/pics", "name": None, "mode": None}),
    (["location", "add", "/pics", "--name", "P"], "action:location.add", {"path": "/pics", "name": "P", "mode": None}),
    (
        ["location", "add", "/pics", "--mode", "deep"],
        "action:location.add",
        {"path": "/pics", "name": None, "mode": "deep"},
    ),
    (["location", "mode", "pics", "deep"], "action:location.mode", {"name": "pics", "mode": "deep"}),
    (["location", "list"], "query:location.list", {}),
    (["location", "remove", "pics"], "action:location.remove", {"name": "pics"}),
    (["location", "rescan", "pics"], "action:location.rescan", {"name": "pics"}),
    (
        ["location", "rules", "Photos", "--off", "dev", "--on", "hidden", "--reject", "*.iso", "--accept-with", ".git"],
        "action:location.rules",
        {
            "name": "Photos",
            "on": ["hidden"],
            "off": ["dev"],
            "clear": False,
            "accept": [],
            "reject": ["*.iso"],
            "accept_with": [".git"],
            "reject_with": [],
        },
    ),
    (
        ["index", "skipped", "/a", "--all", "--limit", "7"],
        "query:index.skipped",
        {"path": "/a", "everything": True, "after": None, "limit": 7},
    ),
    (["tag", "add", "x", "/a", "/b"], "action:tag.add", {"tag": "x", "paths": ["/a", "/b"]}),
    (["tag", "remove", "x", "/a"], "action:tag.remove", {"tag": "x", "paths": ["/a"]}),
    (["tag", "add", "x", "--", "-y"], "action:tag.add", {"tag": "x", "paths": ["{cwd}/-y"]}),
    (["tag", "list"], "query:tag.list", {"path": None}),
    (["tag", "list", "/a"], "query:tag.list", {"path": "/a"}),
    (["search", "bea ch"], "query:search.names", {"query": "bea ch", "limit": 100}),
    (["search", "b", "--limit", "5"], "query:search.names", {"query": "b", "limit": 5}),
    (["search", "--", "--limit"], "query:search.names", {"query": "--limit", "limit": 100}),
    (["search", "b", "--all"], "query:search.names", {"query": "b", "limit": 10_000}),
    (["search", "--save", "sea", "beach"], "action:search.save", {"name": "sea", "query": "beach"}),
    (["search", "--saved"], "query:search.saved", {}),
    (["search", "--forget", "sea"], "action:search.forget", {"name": "sea"}),
    (["duplicates"], "query:search.duplicates", {"min_size": 1, "limit": 100, "cursor": None}),
    (
        ["duplicates", "--min-size", "1.5KiB", "--limit", "7"],
        "query:search.duplicates",
        {"min_size": 1536, "limit": 7, "cursor": None},
    ),
    (["unique", "Photos"], "query:search.unique", {"name": "Photos", "limit": 1000, "cursor": None}),
    (["unique", "Photos", "--limit", "5"], "query:search.unique", {"name": "Photos", "limit": 5, "cursor": None}),
    (["info", "/a"], "query:file.info", {"path": "/a"}),
    (["info", "sd:/Photos/a.jpg"], "query:file.info", {"path": "sd:/Photos/a.jpg"}),
    (["job", "list"], "query:job.list", {"limit": 20}),
    (["job", "show", "7", "--lines", "5"], "query:job.show", {"id": 7, "lines": 5}),
    (["job", "pause", "7"], "action:job.pause", {"id": 7}),
    (["job", "resume", "7"], "action:job.resume", {"id": 7}),
    (["job", "cancel", "7"], "action:job.cancel", {"id": 7}),
    (["index", "verify"], "query:index.verify", {"name": None, "content": False}),
    (["index", "verify", "P", "--content"], "query:index.verify", {"name": "P", "content": True}),
]


@pytest.mark.parametrize(("arguments", "method", "params"), COMMANDS, ids=lambda value: "")
def test_a_command_is_one_call_of_the_running_process(
    running: Running, capsys: Capture, arguments: list[str], method: str, params: Any
) -> None:
    """Its method and params as documented, exit 0, something for people on stdout and nothing on stderr."""
    expected = json.loads(json.dumps(params).replace("{cwd}", os.getcwd()))
    assert cli.main(arguments) == 0
    assert running.library.calls == [(method, expected)]
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert err == ""


@pytest.mark.parametrize(("arguments", "method", "params"), COMMANDS, ids=lambda value: "")
def test_a_command_opens_the_library_when_nothing_runs(
    library: Library, capsys: Capture, arguments: list[str], method: str, params: Any
) -> None:
    """The same method and params, and with --json the same object."""
    expected = json.loads(json.dumps(params).replace("{cwd}", os.getcwd()))
    assert cli.main(["--json", *arguments]) == 0
    assert library.calls == [(method, expected)]
    result = json.loads(capsys.readouterr().out)
    assert result == ({**STATUS, "pid": None} if method == "query:core.status" else RESULTS[method])


def test_a_command_works_through_a_socket_that_lies_deep(holder: Running, capsys: Capture) -> None:
    """A data directory deeper than a socket address is long."""
    holder.socket = holder.library.data_dir / ("d" * 120) / "sd.sock"
    holder.note(str(holder.socket))
    holder.start()
    assert cli.main(["location", "list"]) == 0
    assert "Photos" in capsys.readouterr().out


def test_the_fakes_have_the_shapes_of_the_operations() -> None:
    """Params that `sd` sends are taken, and the results above are what the real operations would give."""
    operations = {operation.method: operation for operation in load()}
    for _, method, params in COMMANDS:
        operations[method].input.decode(params)
    operations["query:core.status"].input.decode({"wait_idle_s": 1.5})
    for method, result in RESULTS.items():
        output = operations[method].output
        assert output.encode(output.decode(result)) == result


# -- Options and usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "--data-dir", "{}", "--library", "Other", "location", "list"],
        ["location", "--json", "--data-dir", "{}", "--library", "Other", "list"],
        ["location", "list", "--json", "--data-dir", "{}", "--library", "Other"],
        ["--library", "Nonsense", "location", "--json", "list", "--library=Other", "--data-dir={}"],
    ],
)
def test_global_options_stand_before_or_after_the_command(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: list[str]
) -> None:
    """The flags win over the environment, the last one wins over the first."""
    (tmp_path / "else" / "libraries" / "Other.sdlibrary").mkdir(parents=True)
    seen: list[Any] = []

    def run_offline(*call: Any) -> Any:
        seen.append(call)
        return RESULTS[call[2]]

    monkeypatch.setattr(sys.modules["vdfs.core"], "run_offline", run_offline)
    assert cli.main([argument.replace("{}", str(tmp_path / "else")) for argument in arguments]) == 0
    assert seen == [(tmp_path / "else", "Other", "query:location.list", {})]
    assert json.loads(capsys.readouterr().out) == RESULTS["query:location.list"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["location"], "sd location --help"),
        (["location", "add"], "DIR"),
        (["tag", "add", "x"], "PATH"),
        (["tag", "add", "", "/a"], "empty"),
        (["tag", "add", "\udcff", "/a"], "UTF-8"),
        (["search", "x", "--limit", "0"], "whole number"),
        (["search", "x", "--limit", "²"], "whole number"),
        (["duplicates", "--min-size", "much"], "MB"),
        (["duplicates", "--min-size", ">1MB"], "no single size"),
        (["status", "--timeout", "-1", "--wait-idle"], "seconds"),
        (["status", "--timeout", "nan", "--wait-idle"], "seconds"),
        (["status", "--timeout", "5"], "--wait-idle"),
        (["status", "--wait"], "--wait"),
        (["info", ""], "empty path"),
        (["--library", "a/b", "status"], "cannot be the name"),
        (["info", "a", "b\nc"], "unrecognized"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    library: Library, capsys: Capture, arguments: list[str], words: str
) -> None:
    """It names what is wrong, and where to read more or how to say it."""
    assert cli.main(arguments) == 2
    assert words in the_error(capsys)
    assert library.calls == []


@pytest.mark.parametrize("command", ["", *sorted({" ".join(a[:2]) for a, _, _ in COMMANDS if a[0] in "location tag"})])
def test_help_is_for_people(capsys: Capture, command: str) -> None:
    """Exit 0, on stdout, in ASCII so that every locale can print it; the top one lists all commands."""
    assert cli.main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.isascii()
    assert err == ""
    if not command:
        for arguments, _, _ in COMMANDS:
            assert f"\n  {' '.join(arguments[: 1 + (arguments[0] in 'location tag index library')])}" in out
        assert "SDMOUNT_DATA_DIR" in out
        assert max(map(len, out.splitlines())) <= 110


def test_the_version_is_printed(capsys: Capture) -> None:
    """One line on stdout."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sd 0.")


def test_the_command_document_names_every_command() -> None:
    """docs/cli.md and the help speak of the same commands and options."""
    text = (ROOT / "docs" / "cli.md").read_text("utf-8").replace("\\|", "|")
    commands = arguments.Commands(arguments.Parser(prog="sd"), arguments.common_options())
    cli._add_commands(commands)
    shapes = [shape for shape, _ in commands._list]
    assert [shape for shape in shapes if f"`sd {shape}`" not in text] == []


# -- The library itself


@pytest.mark.parametrize(("faults", "code"), [([], 0), (["counter seq is missing", "a \x1b[31m name"], 1)])
def test_a_check_asks_who_holds_the_library(running: Running, capsys: Capture, faults: list[str], code: int) -> None:
    """Exit code 1 when there are faults, each on a line that is safe for a terminal."""
    running.library.answers["query:library.check"] = {"faults": faults}
    assert cli.main(["library", "check"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(faults) + 1
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("error", [NotFound("no"), Busy("held")])
def test_a_check_that_cannot_be_made_is_exit_2(running: Running, capsys: Capture, error: Exception) -> None:
    """1 says that there are faults, and nothing else does."""
    running.library.answers["query:library.check"] = error
    assert cli.main(["library", "check"]) == 2
    the_error(capsys)


def test_a_repair_is_refused_while_somebody_holds_the_library(running: Running, capsys: Capture) -> None:
    """With the pid, and how to end it; the process is not asked."""
    assert cli.main(["library", "repair"]) == 2
    error = the_error(capsys)
    assert "4242" in error
    assert "sdumount" in error
    assert running.library.calls == []


# -- Copies


def test_a_set_that_goes_on_over_pages_is_one(library: Library, capsys: Capture) -> None:
    """Its paths are put together; so many sets are told as were asked for, and that there are more."""
    first = {"hash": "ab", "size_bytes": 1, "files": 3, "wasted_bytes": 2}
    second = {"hash": "cd", "size_bytes": 1, "files": 2, "wasted_bytes": 1, "paths": []}

    def page(params: Any) -> Any:
        if params["cursor"] is None:
            paths = [{"path": "/a", "linked": False}, {"path": "/a too", "linked": True}]
            return {"sets": [{**first, "paths": paths}], "cursor": "next", "unhashed": 0, "held": 0}
        paths = [{"path": "/b", "linked": False}, {"path": "/c", "linked": False}]
        return {"sets": [{**first, "paths": paths}, second], "cursor": "more", "unhashed": None, "held": None}

    library.answers["query:search.duplicates"] = page
    assert cli.main(["duplicates", "--limit", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        *("2 B wasted: 3 files of 1 B", "  /a", "    = /a too", "  /b", "  /c"),
        "1 set, 2 B wasted",
    ]
    assert "raise --limit" in err
    assert [params["cursor"] for _, params in library.calls] == [None, "next"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_search_brings_as_many_as_were_asked_for(library: Library, capsys: Capture, as_json: bool) -> None:
    """Also more than one call gives; and whether there are more is told of these."""
    total = 25_000

    def page(params: Any) -> Any:
        at = int(params.get("cursor") or 0)
        end = min(at + min(params["limit"], 10_000), total)
        hit = {"kind": "file", "size_bytes": 1, "mtime_ns": 10**18}
        hits = [{"path": f"/{number}", **hit} for number in range(at, end)]
        return {"hits": hits, "cursor": str(end) if end < total else None, "truncated": end < total, "took": 0.1}

    library.answers["query:search.names"] = page
    cases = [(["--limit", "20001"], 20_001, True), (["--limit", "30000"], total, False), (["--all"], total, False)]
    for limits, wanted, says_more in cases:
        assert cli.main(["search", "x", *limits, *(["--json"] if as_json else [])]) == 0
        out, err = capsys.readouterr()
        assert len(json.loads(out)["hits"] if as_json else out.splitlines()) == wanted
        assert ("more than 20001" in err) is (says_more and not as_json)


def test_what_is_unique_is_told_page_by_page(library: Library, capsys: Capture) -> None:
    """All of it without a limit; with one, no more than that."""

    def page(params: Any) -> Any:
        at = int(params["cursor"] or 0)
        files = [{"path": f"/{number}", "size_bytes": 1} for number in range(at, at + params["limit"])]
        counts = {"unhashed": 2, "held": 0} if at == 0 else {"unhashed": None, "held": None}
        return {"files": files, "cursor": str(at + params["limit"]) if at < 2000 else None, **counts}

    library.answers["query:search.unique"] = page
    assert cli.main(["unique", "Photos"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3002
    assert out[-2:] == ["3 000 files, 2.9 KiB, in no other place", "not compared: 2 files without a full hash"]
    assert cli.main(["unique", "Photos", "--limit", "1200", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 1200


# -- Which library


def test_no_library_is_one_line_with_the_cure(tmp_path: Path, capsys: Capture) -> None:
    """Nothing is made."""
    assert cli.main(["--data-dir", str(tmp_path / "no"), "status"]) == 2
    error = the_error(capsys)
    assert "sdmount MOUNTPOINT" in error
    assert str(tmp_path / "no") in error
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_library_names_the_known(library: Library, capsys: Capture) -> None:
    """Several without a default, or a name that is not there."""
    assert cli.main(["--library", "Work", "status"]) == 2
    assert "only Library" in the_error(capsys)
    library.directory.rename(library.directory.with_name("Home.sdlibrary"))
    library.directory.with_name("Work.sdlibrary").mkdir()
    assert cli.main(["status"]) == 2
    assert "Home, Work" in the_error(capsys)


# -- Failures


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("there is no location 'X'"), 1),
        (Invalid("that cannot be"), 2),
        (StoreCorrupt("the database is broken"), 2),
        (NotRunning("only a running process can"), 2),
        (KeyError("a bug"), 2),
    ],
)
def test_an_error_of_the_running_process_is_one_line(
    running: Running, capsys: Capture, error: Exception, code: int
) -> None:
    """1 is an answer, 2 is that nothing could be tried; the text is the operation's own."""
    running.library.answers["action:location.rescan"] = error
    assert cli.main(["location", "rescan", "X"]) == code
    text = str(error) if not isinstance(error, KeyError) else "internal error"
    assert text in the_error(capsys)
    assert len(running.library.calls) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotFound("no X"), 1), (NotRunning("no process"), 2), (PermissionError(13, "may not", "/f"), 2)],
)
def test_an_error_of_the_library_opened_in_place_is_one_line(
    library: Library, capsys: Capture, error: Exception, code: int
) -> None:
    """The same as through the socket; a bare OSError is a line as well. It is tried once."""
    library.answers["action:location.rescan"] = error
    assert cli.main(["location", "rescan", "X"]) == code
    the_error(capsys)
    assert len(library.calls) == 1


def test_a_hostile_name_in_an_error_stays_on_its_line(running: Running, capsys: Capture) -> None:
    """Newlines and escapes do not reach the terminal."""
    running.library.answers["query:file.info"] = NotFound("no \n\x1b[31m\u202eevil")
    assert cli.main(["info", "/x"]) == 1
    assert "no \\n\\e[31m\\u202eevil" in the_error(capsys)


def test_who_holds_the_library_and_does_not_answer_is_named(holder: Running, capsys: Capture) -> None:
    """Still starting, or stuck: after a while one line with its pid; nothing is opened beside it."""
    for socket_path in (str(holder.socket), None):
        holder.note(socket_path)
        assert cli.main(["location", "list"]) == 2
        assert "4242" in the_error(capsys)


def test_a_process_that_is_just_starting_is_waited_for(
    holder: Running, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is taken before the socket answers."""
    monkeypatch.setattr(door, "FIND_TIMEOUT_S", 20.0)
    looks: list[int] = []

    def look(directory: Path) -> Any:
        looks.append(1)
        if len(looks) == 2:
            holder.start()
        return running_holder(directory)

    monkeypatch.setattr(door, "running_holder", look)
    assert cli.main(["location", "list"]) == 0
    assert "Photos" in capsys.readouterr().out
    assert len(looks) >= 2


def test_a_library_that_another_sd_has_open_is_waited_for(library: Library, capsys: Capture) -> None:
    """Busy for a moment: the call is made again."""

    def busy_at_first(params: Any) -> Any:
        if len(library.calls) < 3:
            raise Busy("open in process 7")
        return RESULTS["query:location.list"]

    library.answers["query:location.list"] = busy_at_first
    assert cli.main(["location", "list"]) == 0
    assert len(library.calls) == 3
    library.answers["query:location.list"] = Busy("open in process 7")
    assert cli.main(["location", "list"]) == 2
    assert "process 7" in capsys.readouterr().err


def test_a_process_that_goes_in_the_middle_is_an_error(holder: Running, capsys: Capture) -> None:
    """An action is not sent twice: whether it was done is not known."""
    holder.socket.parent.mkdir(mode=0o700)
    accepted: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(holder.socket))
        listener.listen()

        def take_and_go() -> None:
            sock, _ = listener.accept()
            with sock:
                accepted.append(sock.recv(1 << 16))

        thread = threading.Thread(target=take_and_go)
        thread.start()
        assert cli.main(["location", "rescan", "X"]) == 2
        thread.join(20)
    assert "went away" in the_error(capsys)
    assert len(accepted) == 1


# -- Waiting until idle


def scans(library: Library, *states: dict[str, Any]) -> None:
    """The status shows these, one after the other, and stays at the last."""

    def status(_: Any) -> Any:
        seen = sum(method == "query:core.status" for method, _ in library.calls)
        return {**STATUS, "scan": states[min(seen, len(states)) - 1]}

    library.answers["query:core.status"] = status


def test_waiting_ends_when_nothing_is_left(running: Running, capsys: Capture) -> None:
    """Exit 0 at the first idle status, which is the one that is printed."""
    scans(running.library, BUSY, BUSY, IDLE)
    assert cli.main(["status", "--wait-idle", "--timeout", "60", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["scan"]["idle"], result["pid"]) == (True, 4242)
    waits = [params for _, params in running.library.calls]
    assert waits == [{}, {"wait_idle_s": status.LOOK_S}, {"wait_idle_s": status.LOOK_S}]


def test_waiting_ends_by_its_time_limit(running: Running, capsys: Capture) -> None:
    """Exit 1, the last status on stdout, what is left on stderr."""
    scans(running.library, BUSY)
    assert cli.main(["status", "--wait-idle", "--timeout", "1"]) == 1
    out, err = capsys.readouterr()
    assert "2 directories and 1 file left, at Ph" in out
    assert err.startswith("sd: not idle after 1 s: 2 directories")
    assert len(running.library.calls) > 1


def test_waiting_for_nobody_is_refused(library: Library, capsys: Capture) -> None:
    """Nothing runs: what is left would never become less. Idle is idle, though."""
    assert cli.main(["status", "--wait-idle"]) == 0
    capsys.readouterr()
    scans(library, BUSY)
    assert cli.main(["status", "--wait-idle"]) == 2
    assert "sdmount MOUNTPOINT" in the_error(capsys)


def test_waiting_goes_on_when_the_process_is_replaced(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The connection breaks, the successor answers: waiting is a question, it may be asked again."""
    monkeypatch.setattr(door, "FIND_TIMEOUT_S", 20.0)
    library = running.library
    successor = None

    class Dying(Exception):
        """Ends the first process in the middle of its second answer."""

    def status(_: Any) -> Any:
        if len(library.calls) == 2:
            running._scope.cancel()
            raise Dying
        return {**STATUS, "scan": BUSY if len(library.calls) < 2 else IDLE}

    library.answers["query:core.status"] = status

    def replace() -> None:
        nonlocal successor
        running._thread.join(20)
        os.close(running.lock)
        running.lock = -1
        successor = Running(library)
        successor.start()

    helper = threading.Thread(target=replace)
    helper.start()
    try:
        code = cli.main(["status", "--wait-idle", "--timeout", "60", "--json"])
    finally:
        helper.join(20)
        if successor is not None:
            successor.stop()
    assert code == 0
    assert json.loads(capsys.readouterr().out)["scan"]["idle"] is True


# -- Verify


def test_differences_are_printed_each_and_exit_1(running: Running, capsys: Capture) -> None:
    """One line a difference, then the count."""
    differences = [
        {"path": "/Photos/a", "kind": "missing", "detail": "not on disk"},
        {"path": "/Photos/\ufffd", "path_b64": "L1Bob3Rvcy//", "kind": "size", "detail": "5, index says 6"},
    ]
    running.library.answers["query:index.verify"] = {"checked": 2, "differences": differences}
    assert cli.main(["index", "verify"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "missing  /Photos/a        not on disk",
        "size     $'/Photos/\\xff'  5, index says 6",
        "2 entries checked, 2 differences",
    ]


def test_a_verify_that_cannot_be_made_is_exit_2(running: Running, capsys: Capture) -> None:
    """Whatever the error is, it is not 'differences'."""
    running.library.answers["query:index.verify"] = NotFound("there is no location 'X'")
    assert cli.main(["index", "verify", "X"]) == 2
    the_error(capsys)


# -- Paths


def test_paths_are_made_absolute_and_the_last_link_is_kept(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A symlink is what was named; the way to it, dots, and a link with a slash behind it are resolved."""
    real = tmp_path.resolve() / "real"
    (real / "sub").mkdir(parents=True)
    (real / "link").symlink_to("sub")
    (tmp_path / "way").symlink_to("real")
    monkeypatch.chdir(tmp_path / "way")
    expected = {
        "link": real / "link",
        "./link": real / "link",
        "link/": real / "sub",
        "link/x": real / "sub" / "x",
        "link/../x": real / "x",  # .. is the parent of where the link leads, as for every system call
        ".": real,
        "..": real.parent,
        "new": real / "new",
        "no/such/dir": real / "no/such/dir",
        "./sd:/x": real / "sd:/x",
        str(tmp_path / "way" / "link"): real / "link",
        "/": Path("/"),
    }
    for argument in expected:
        assert cli.main(["info", argument]) == 0
    assert [params["path"] for _, params in running.library.calls] == [str(path) for path in expected.values()]


def test_undecodable_paths_arrive_as_bytes(running: Running) -> None:
    """The twin carries them, alone and in a list."""
    name = os.fsdecode(b"/f\xff")
    assert cli.main(["info", name]) == 0
    assert cli.main(["tag", "add", "x", name, "/plain"]) == 0
    assert cli.main(["location", "remove", os.fsdecode(b"\xff")]) == 0
    assert [params for _, params in running.library.calls] == [
        {"path": "/f\ufffd", "path_b64": "L2b/"},
        {"tag": "x", "paths": [{"name": "/f\ufffd", "name_b64": "L2b/"}, "/plain"]},
        {"name": "\ufffd", "name_b64": "/w=="},
    ]


def test_more_paths_than_a_request_holds_are_sent_in_portions(running: Running, capsys: Capture) -> None:
    """In order, none twice, the results put together."""

    def tag(params: Any) -> Any:
        names = params["paths"]
        assert len(encode(params)) < MAX_LINE_BYTES
        return {"changed": len(names), "paths": [{"path": name, "tags": ["x"]} for name in names]}

    running.library.answers["action:tag.add"] = tag
    paths = [f"sd:/{n:05}{'é' * 1000}" for n in range(1000)]
    assert cli.main(["--json", "tag", "add", "x", *paths]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["changed"] == 1000
    assert [item["path"] for item in result["paths"]] == paths
    assert len(running.library.calls) > 1


def test_a_working_directory_that_is_gone_is_one_line(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Nothing relative can be meant any more."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert cli.main(["info", "x"]) == 1
    assert "current directory" in the_error(capsys)
    monkeypatch.chdir(tmp_path)


# -- Output


def test_the_status_is_readable(running: Running, capsys: Capture) -> None:
    """Aligned, with units."""
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Library     Library (lib-id)",
        "Device      laptop (dev-id)",
        "Holds       12 345 files, 1 directory, 5.0 GiB, 3 distinct contents",
        "Locations   2",
        "Tags        4",
        "Database    4.0 KiB",
        "Served by   process 4242 for 1 min 1 s, version 0.1.0",
        "Mounted at  /home/u/Spacedrive",
        "Scan        idle, nothing left to index",
        "Log         /d/log",
    ]


def test_a_status_without_a_process_says_so(library: Library, capsys: Capture) -> None:
    """No pid of a process that ends with its answer."""
    assert cli.main(["status"]) == 0
    out = capsys.readouterr().out
    assert "Served by  nobody; `sdmount MOUNTPOINT` mounts it" in out
    assert "4242" not in out


def test_lists_are_aligned(running: Running, capsys: Capture) -> None:
    """Locations with all their branches, tags by number, hits with size and time."""
    cli.main(["location", "list"])
    assert capsys.readouterr().out.splitlines() == [
        "Photos  content  7 entries  done       /pics",
        "                   1 entry  missing    /more  (away)",
        "Empty   shallow  0 entries  no branch",
    ]
    cli.main(["tag", "list"])
    assert capsys.readouterr().out.splitlines() == ["12  holiday", " 3  b"]
    cli.main(["search", "b"])
    assert capsys.readouterr().out.splitlines() == [
        "1.5 KiB  1970-01-01 00:00  /Photos/beach.jpg",
        "      -  1970-01-01 00:00  /Photos/",
    ]


def test_the_tags_of_one_file_are_names(running: Running, capsys: Capture) -> None:
    """One a line, for scripts without --json."""
    running.library.answers["query:tag.list"] = {
        "tags": [{"name": "holiday", "count": 1}, {"name": "a\nb", "count": 1}]
    }
    cli.main(["tag", "list", "/a"])
    assert capsys.readouterr().out.splitlines() == ["holiday", "$'a\\nb'"]


def test_info_shows_what_there_is(running: Running, capsys: Capture) -> None:
    """Facts without a value are left out."""
    cli.main(["info", "/a"])
    assert capsys.readouterr().out.splitlines() == [
        "Path      /Photos/a.jpg",
        "Kind      file, image, image/jpeg",
        "Size      2.0 KiB (2 048 bytes)",
        "Modified  1970-01-01 00:00",
        "Mode      -rw-r--r-- (0644)",
        "Inode     77",
        "UUID      none yet",
        "Hash      blake3:ab (full)",
        "State     local",
        "Version   1",
        "Tags      holiday, 2019",
        "Rating    8 of 10",
        "Xattrs    user.a",
        "Content",
        "  width  4000",
        "  model  X\\e100",
        "Replicas",
        "  laptop  Photos  local  /pics/a.jpg",
    ]


def test_more_hits_than_asked_for_are_mentioned(running: Running, capsys: Capture) -> None:
    """On stderr, so that a pipe gets hits alone; not at all with --json."""
    running.library.answers["query:search.names"] = {"hits": [], "truncated": True}
    assert cli.main(["search", "b", "--limit", "1"]) == 0
    assert capsys.readouterr() == ("", "sd: more than 1 entries match; raise --limit, or see all with --all\n")
    assert cli.main(["search", "b", "--json"]) == 0
    assert capsys.readouterr().err == ""


def test_all_hits_come_page_by_page(running: Running, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page goes on where the last one ended; with --json they are one object."""
    hit = RESULTS["query:search.names"]["hits"][0]
    pages = {None: ("c1", "one"), "c1": ("c2", "two"), "c2": (None, "three")}

    def answer(method: str, params: Any) -> Any:
        cursor, name = pages[params.get("cursor")]
        return {"hits": [{**hit, "path": name}], "cursor": cursor, "truncated": cursor is not None, "took": 1.0}

    monkeypatch.setattr(running.library, "answer", answer)
    assert cli.main(["search", "b", "--all"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()] == ["one", "two", "three"]
    assert err == ""
    assert cli.main(["search", "b", "--all", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [h["path"] for h in told["hits"]] == ["one", "two", "three"]
    assert (told["cursor"], told["truncated"], told["took"]) == (None, False, 3.0)


@pytest.mark.parametrize("arguments", [["search"], ["search", "--save", "x"], ["search", "x", "--all", "--limit", "3"]])
def test_a_search_without_a_query_or_with_too_much_is_refused(
    running: Running, capsys: Capture, arguments: list[str]
) -> None:
    """One line that says what to give."""
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert running.library.calls == []


def test_an_answer_of_another_version_is_shown_as_json(running: Running, capsys: Capture) -> None:
    """A field that went away is no traceback."""
    running.library.answers["query:file.info"] = {"path": "/a", "news": 1}
    assert cli.main(["info", "/a"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"path": "/a", "news": 1}
    assert err.count("\n") == 1
    running.library.answers["query:file.info"] = ["no object"]
    assert cli.main(["info", "/a"]) == 2


def test_json_is_ascii(running: Running, capsys: Capture) -> None:
    """No locale and no terminal can change what a script reads."""
    running.library.answers["query:file.info"] = {**INFO, "path": "/é\u202e\x1b", "comment": "\u2028"}
    assert cli.main(["info", "/a", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out)["path"] == "/é\u202e\x1b"


# -- Words for people


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name.jpg", "plain name.jpg"),
        ("Größe 😀 日本", "Größe 😀 日本"),
        ("it's", "it's"),
        ("back\\slash", "back\\slash"),
        ("new\nline", "$'new\\nline'"),
        ("\x1b]0;title\x07", "$'\\e]0;title\\x07'"),
        ("\x9b31m", "$'\\u009b31m'"),
        ("gpj.\u202eexe", "$'gpj.\\u202eexe'"),
        ("it's\ta \\", "$'it\\'s\\ta \\\\'"),
        ("\udcff\udc80", "$'\\xff\\x80'"),
        ("$'fake'", "$'$\\'fake\\''"),
        ("\x7f", "$'\\x7f'"),
    ],
)
def test_names_are_safe_for_a_terminal(name: str, expected: str) -> None:
    """Plain ones as they are, dangerous ones quoted."""
    assert words.shown(name) == expected


@given(st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw))
def test_what_is_shown_has_no_control_characters(raw: bytes) -> None:
    """Whatever bytes a name has."""
    text = words.shown(raw.decode(errors="surrogateescape"))
    assert not words.UNSAFE.search(text)
    text.encode()


def test_bash_reads_a_quoted_name_back(tmp_path: Path) -> None:
    """What is printed can be pasted: every byte from 1 to 255, one after the other and all together."""
    names = [*(bytes([n]) * 2 for n in range(1, 256)), bytes(range(1, 256)), "\u202e\u2028".encode(), b"$'x'"]
    quoted = [words.shown(name.decode(errors="surrogateescape")) for name in names]
    pairs = [(name, text) for name, text in zip(names, quoted, strict=True) if text.startswith("$'")]
    assert len(pairs) > 130
    script = "printf '%s\\0' " + " ".join(text for _, text in pairs)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, check=True, timeout=60, env={"LC_ALL": "C.UTF-8"}
    )
    assert done.stdout.split(b"\0")[:-1] == [name for name, _ in pairs]


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        *((0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10_188, "9.9 KiB"), (10_189, "10 KiB")),
        *((1023 << 10, "1.0 MiB"), (999 << 10, "999 KiB"), (3 << 40, "3.0 TiB"), (1 << 80, "1048576 EiB")),
    ],
)
def test_sizes_have_units(size_bytes: int, expected: str) -> None:
    """Units of 1024, at most three digits."""
    assert words.human_bytes(size_bytes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3661, "1 h 1 min"),
        (7200, "2 h"),
        (90_000, "1 d 1 h"),
        (-5, "0 s"),
    ],
)
def test_durations_have_two_units(seconds: float, expected: str) -> None:
    """What is zero is left out."""
    assert words.human_duration(seconds) == expected


def test_times_beyond_the_calendar_are_a_dash() -> None:
    """A broken clock is no traceback."""
    assert [words.human_time(value) for value in (None, 1 << 90, -(1 << 90))] == ["-", "-", "-"]


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    """Wide characters take two columns, combining ones none."""
    assert words.table([["日本", "x"], ["e\u0301", "y"]]) == ["日本  x", "e\u0301     y"]
    assert words.table([]) == []


# -- As a program


def sd(data_dir: Path, *arguments: str, **more: Any) -> "subprocess.CompletedProcess[bytes]":
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SDMOUNT_DATA_DIR": str(data_dir),
        **more.pop("env", {}),
    }
    command = [sys.executable, "-m", "vdfs.cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment, **more)


def test_it_runs_as_a_program_in_any_locale(running: Running) -> None:
    """ASCII alone, a name that is not: escaped, not a traceback."""
    running.library.answers["query:file.info"] = {**INFO, "path": "/é"}
    done = sd(running.library.data_dir, "info", "/x", env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\xe9" in done.stdout


def test_a_closed_pipe_is_no_traceback(running: Running) -> None:
    """`sd search x | head -1` ends in silence."""
    hit = RESULTS["query:search.names"]["hits"][0]
    running.library.answers["query:search.names"] = {"hits": [hit] * 20_000, "truncated": False}
    environment = {
        "PYTHONPATH": str(ROOT),
        "SDMOUNT_DATA_DIR": str(running.library.data_dir),
        "PATH": os.environ["PATH"],
    }
    script = f"{sys.executable} -m vdfs.cli search x | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60, check=True, env=environment)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_starting_it_imports_nothing_heavy() -> None:
    """A person waits for it: no trio, no SQLite, no asyncio until the library must be opened in place; and nothing that
    looks into classes to make others, which takes as long as all the rest."""
    program = (
        "import sys, vdfs.cli\n"
        "heavy = {'trio', 'apsw', 'asyncio', 'pyfuse3', 'blake3', 'nacl', 'vdfs.core', 'attrs', 'inspect'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == "[]"
