"""`sd`: ask a library and command it, from a shell or a script.

In: arguments. Out: lines for people, or with --json the result as one JSON object; an exit code: 0 done, 1
the answer is no (differences, a time-out, a name that is not there), 2 it could not be tried (usage, no
library, nobody answers). Errors are one line on stderr.

`sd` knows no operation itself. It finds the process that holds the library (the note in the library's lock
file) and calls it over its socket; when nobody holds it, it opens the library for this one call, in this
process. Both ways end in the same dispatch of vdfs/ops/registry.py.

Paths are sent absolute, as bytes; what lies under them (the mount, a location's own directory, a library
path that starts with `sd:/`) the operation finds out. The last component is never followed: a symlink is
what was named.

Everything heavy (trio, SQLite) is imported only when the library must be opened here.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn

from index.model.errors import Busy, Deadline, Invalid, NotFound, NotRunning, VdfsError
from vdfs import clijobs, clirender
from vdfs.base.config import Config, load_config
from vdfs.base.version import __version__
from vdfs.library.lock import Holder, running_holder
from vdfs.wire.client import RpcClient
from vdfs.wire.jsonrpc import MAX_LINE_BYTES, encode_item, encode_name, encode_path

CALL_TIMEOUT_S: Final = 60.0
EJECT_TIMEOUT_S: Final = 330.0  # a slow stick is written to until all is on it
FIND_TIMEOUT_S: Final = 5.0  # for a process that is starting or ending: it holds the lock and does not answer
ANSWER_S: Final = 20.0  # a status costs a moment: who has not given it by then hangs, or is stopped
LOOK_S: Final = 2.0  # how long the process may wait for idle before it tells how far it is
PAUSE_S: Final = 0.02  # between two looks, should it answer at once
REQUEST_BYTES: Final = MAX_LINE_BYTES // 4  # of paths in one call; JSON escapes may make them longer
LIMIT: Final = 100
MODES: Final = ("shallow", "content", "deep")
SKIPPED: Final = 1000
PAGE: Final = 10_000  # hits of one call when all are wanted

# Errors after which nothing was tried; all others are an answer.
COULD_NOT: Final = frozenset(
    {
        *(
            "Invalid",
            "InvalidParams",
            "InvalidRequest",
            "MethodNotFound",
            "ParseError",
            "LineTooLong",
            "TooDeep",
        ),
        *("Busy", "Deadline", "InternalError", "NotRunning", "StoreCorrupt", "VersionUnsupported"),
    }
)

Json = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; prints nothing but its answer or one line of error."""
    if sys.stdout is None or sys.stderr is None:  # closed by the shell: `sd status >&-`
        sink = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (until the end of the process)
        sys.stdout, sys.stderr = sys.stdout or sink, sys.stderr or sink
    args = argparse.Namespace(json=False, data_dir=None, library=None, could_not_only=False)
    try:
        _parser().parse_args(argv, args)
        return _run(args)
    except SystemExit as end:  # --help, --version
        return end.code if isinstance(end.code, int) else 2
    except BrokenPipeError:  # `sd ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except VdfsError as error:
        _complain(str(error) or error.kind)
        return 2 if args.could_not_only or error.kind in COULD_NOT else 1
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 2
    except Exception as error:  # a bug, of which a person needs no more than one line
        _complain(f"unexpected {type(error).__name__}: {error}")
        return 2


def _run(args: argparse.Namespace) -> int:
    config = load_config(args.data_dir)
    with Door(config, _existing_library(config, args.library)) as door:
        command: Callable[[Door, argparse.Namespace], int] = args.run
        return command(door, args)


def _existing_library(config: Config, wanted: str | None) -> str:
    """The library that is meant; NotRunning with the cure when it does not exist (nothing here makes one)."""
    name = config.choose_library(wanted)
    if config.library_dir(name).is_dir():
        return name
    others = ", ".join(config.library_names())
    if others:
        raise NotRunning(f"there is no library {name} in {config.data_dir}, only {others}; use --library NAME")
    raise NotRunning(f"there is no library in {config.data_dir}; `sdmount MOUNTPOINT` makes one, or give --data-dir")


class Door:
    """Calls the library: through the process that holds it, or by opening it here."""

    def __init__(self, config: Config, library: str) -> None:
        self.running = False  # whether the last call was answered by a running process
        self._config = config
        self._library = library
        self._client: RpcClient | None = None

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def call(self, method: str, params: Json | None = None, *, timeout_s: float | None = CALL_TIMEOUT_S) -> Json:
        """The result of one operation. Errors of the tree; an action is sent at most once."""
        deadline = time.monotonic() + FIND_TIMEOUT_S
        while True:
            try:
                if self._client is None:
                    holder = running_holder(self._config.library_dir(self._library))
                    if holder is None:
                        return self._call_here(method, params or {})
                    self._client = self._connect(holder, timeout_s)
                return self._call_there(self._client, method, params or {})
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _connect(self, holder: Holder, timeout_s: float | None) -> RpcClient:
        """A client of the process that holds the library; Busy when it does not answer (yet)."""
        who = f"process {holder.pid} holds the library {self._library}"
        if holder.socket is None:
            raise Busy(f"{who} and takes no calls; try again when it has ended")
        try:
            return RpcClient(holder.socket, timeout_s)
        except NotRunning as error:
            raise Busy(f"{who} but does not answer: {error}") from error

    def _call_there(self, client: RpcClient, method: str, params: Json) -> Json:
        """Ask the running process. When it went away meanwhile, a query may be asked again (Busy)."""
        self.running = True
        try:
            return _object(method, client.call(method, params))
        except (NotRunning, Deadline) as error:
            self.close()
            if isinstance(error, NotRunning) and method.startswith("query:"):
                raise Busy(str(error)) from error
            raise

    def _call_here(self, method: str, params: Json) -> Json:
        from vdfs.core import run_offline

        self.running = False
        return _object(method, run_offline(self._config.data_dir, self._library, method, params))


def _object(method: str, result: Any) -> Json:
    if not isinstance(result, dict):
        raise Invalid(f"{method} answered no object; is the running process of another version?")
    return result


# -- Commands


def _status(door: Door, args: argparse.Namespace) -> int:
    """Show the status, at once or when nothing is left to index."""
    if args.timeout is not None and not args.wait_idle:
        raise Invalid("--timeout goes with --wait-idle")
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    result = _status_now(door)
    while args.wait_idle and not result["scan"]["idle"]:
        left_s = LOOK_S if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            break
        if not door.running:
            raise NotRunning("nothing runs, so nothing will be indexed; `sdmount MOUNTPOINT` goes on with it")
        if result["scan"].get("paused") and not result["scan"].get("active"):
            break
        _progress(args, clirender.scan_line(result["scan"]))
        time.sleep(min(PAUSE_S, left_s))
        result = _status_now(door, min(LOOK_S, left_s))
    _progress(args, "")
    _print(args, result, lambda r: clirender.status(r, door.running))
    if args.wait_idle and not result["scan"]["idle"]:
        if result["scan"].get("paused") and not result["scan"].get("active"):
            _complain(
                "a job is paused; `sd job list` says for what, `sd job resume ID` lets one go on that somebody paused"
            )
            return 1
        _complain(f"not idle after {args.timeout:g} s: {clirender.scan_line(result['scan'])}")
        return 1
    return 0


def _status_now(door: Door, wait_idle_s: float = 0) -> Json:
    """The status, at the latest after `wait_idle_s`, earlier when nothing is left to index.

    Its pid is that of the running process; when `sd` opened the library itself there is none.
    """
    asked = {"wait_idle_s": wait_idle_s} if wait_idle_s else {}
    result = door.call("query:core.status", asked, timeout_s=wait_idle_s + ANSWER_S)
    return result if door.running else {**result, "pid": None}


def _library_info(door: Door, args: argparse.Namespace) -> int:
    return _print(args, _status_now(door), clirender.library)


def _location_add(door: Door, args: argparse.Namespace) -> int:
    name = {"name": None} if args.name is None else encode_name(os.fsencode(args.name))
    bound = {"one_file_system": True} if args.one_file_system else {}
    params = {**encode_path(_absolute(args.dir)), **name, **bound, "mode": args.mode}
    return _print(args, door.call("action:location.add", params), clirender.location_added)


def _location_mode(door: Door, args: argparse.Namespace) -> int:
    params = {**encode_name(os.fsencode(args.name)), "mode": args.mode}
    return _print(args, door.call("action:location.mode", params), clirender.location_mode)


def _location_list(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("query:location.list"), clirender.location_list)


def _location_remove(door: Door, args: argparse.Namespace) -> int:
    params = encode_name(os.fsencode(args.name))
    return _print(args, door.call("action:location.remove", params), clirender.location_removed)


def _location_rescan(door: Door, args: argparse.Namespace) -> int:
    params = encode_name(os.fsencode(args.name))
    return _print(args, door.call("action:location.rescan", params), clirender.location_rescanned)


def _location_rules(door: Door, args: argparse.Namespace) -> int:
    patterns = {
        key: [encode_item(os.fsencode(one)) for one in getattr(args, key)]
        for key in ("accept", "reject", "accept_with", "reject_with")
    }
    switches = {"on": args.on, "off": args.off, "clear": args.clear}
    params = {**encode_name(os.fsencode(args.name)), **switches, **patterns}
    return _print(args, door.call("action:location.rules", params), clirender.location_rules)


def _volume_list(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("query:volume.list", {"all": args.all}), clirender.volume_list)


def _volume_track(door: Door, args: argparse.Namespace) -> int:
    params = {**_volume(args.volume), "name": args.name}
    return _print(args, door.call("action:volume.track", params), clirender.volume_tracked)


def _volume_untrack(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("action:volume.untrack", _volume(args.volume)), clirender.volume_untracked)


def _volume_eject(door: Door, args: argparse.Namespace) -> int:
    result = door.call("action:volume.eject", _volume(args.volume), timeout_s=EJECT_TIMEOUT_S)
    return _print(args, result, clirender.volume_ejected)


def _volume_speedtest(door: Door, args: argparse.Namespace) -> int:
    result = door.call("action:volume.speedtest", _volume(args.volume), timeout_s=2 * CALL_TIMEOUT_S)
    return _print(args, result, clirender.volume_speed)


def _volume_info(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("query:volume.info", _volume(args.volume)), clirender.volume_info)


def _volume(argument: str) -> Json:
    """A path where there is a slash in it or something is called so, else a name or a fingerprint."""
    if "/" in argument or os.path.lexists(argument):
        return encode_path(_absolute(argument))
    return {"volume": argument}


def _tag_add(door: Door, args: argparse.Namespace) -> int:
    return _tag_change(door, args, "action:tag.add")


def _tag_remove(door: Door, args: argparse.Namespace) -> int:
    return _tag_change(door, args, "action:tag.remove")


def _tag_change(door: Door, args: argparse.Namespace, method: str) -> int:
    """Tag many paths in as few calls as a request may be long; each call is one write."""
    result: Json = {"changed": 0, "paths": []}
    for paths in _portions([_library_or_absolute(path) for path in args.paths]):
        part = door.call(method, {"tag": args.tag, "paths": [encode_item(path) for path in paths]})
        result["changed"] += part["changed"]
        result["paths"] += part["paths"]
    return _print(args, result, clirender.tag_changed)


def _tag_list(door: Door, args: argparse.Namespace) -> int:
    params = {"path": None} if args.path is None else encode_path(_library_or_absolute(args.path))
    render = clirender.tag_counts if args.path is None else clirender.tag_names
    return _print(args, door.call("query:tag.list", params), render)


def _search(door: Door, args: argparse.Namespace) -> int:
    """Print what is found, page by page; or keep, list, forget searches."""
    if args.saved:
        return _print(args, door.call("query:search.saved"), clirender.saved_searches)
    if args.forget is not None:
        params = encode_name(os.fsencode(args.forget))
        return _print(args, door.call("action:search.forget", params), clirender.search_forgotten)
    if args.query is None:
        raise Invalid("give a QUERY, or --saved, or --forget NAME (see `sd search --help`)")
    if args.save is not None:
        params = {**encode_name(os.fsencode(args.save)), "query": args.query}
        return _print(args, door.call("action:search.save", params), clirender.search_saved)
    result = door.call("query:search.names", {"query": args.query, "limit": PAGE if args.all else args.limit})
    while args.all and result.get("cursor") is not None:
        behind: Json = {"query": args.query, "limit": PAGE, "cursor": result["cursor"]}
        if args.json:
            more = door.call("query:search.names", behind)
            result = {**more, "hits": result["hits"] + more["hits"], "took": result["took"] + more["took"]}
        else:
            _print(args, result, clirender.search_hits)
            result = door.call("query:search.names", behind)
    _print(args, result, clirender.search_hits)
    if result.get("truncated") and not args.json:
        _complain(f"more than {args.limit} entries match; raise --limit, or see all with --all")
    return 0


def _info(door: Door, args: argparse.Namespace) -> int:
    params = encode_path(_library_or_absolute(args.path))
    return _print(args, door.call("query:file.info", params), clirender.file_info)


def _index_verify(door: Door, args: argparse.Namespace) -> int:
    name = {"name": None} if args.name is None else encode_name(os.fsencode(args.name))
    result = door.call("query:index.verify", {**name, "content": args.content}, timeout_s=None)
    _print(args, result, clirender.differences)
    return 1 if result["differences"] else 0


def _job_list(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("query:job.list", {"limit": args.limit}), clijobs.job_list)


def _job_show(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("query:job.show", {"id": args.id, "lines": args.lines}), clijobs.job_story)


def _job_watch(door: Door, args: argparse.Namespace) -> int:
    return clijobs.watch(door.call, args.id, as_json=args.json)


def _job_pause(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("action:job.pause", {"id": args.id}), clijobs.job_changed)


def _job_resume(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("action:job.resume", {"id": args.id}), clijobs.job_changed)


def _job_cancel(door: Door, args: argparse.Namespace) -> int:
    return _print(args, door.call("action:job.cancel", {"id": args.id}), clijobs.job_changed)


def _index_skipped(door: Door, args: argparse.Namespace) -> int:
    """Page through all that is held back, until so many are told."""
    params = {**encode_path(_library_or_absolute(args.path)), "everything": args.all}
    after: Json = {"after": None}
    told: list[Any] = []
    while True:
        result = door.call("query:index.skipped", {**params, **after, "limit": args.limit - len(told)}, timeout_s=None)
        told += result["skipped"]
        if not result["more"] or len(told) >= args.limit:
            break
        after = {key: value for key, value in result.items() if key in ("more", "more_b64")}
        after = {key.replace("more", "after"): value for key, value in after.items()}
    result = {**result, "skipped": told}
    _print(args, result, clirender.skipped)
    if result.get("more") and not args.json:
        _complain(f"more than {args.limit} are held back; raise --limit to see more")
    return 0


# -- Paths


def _absolute(argument: str) -> bytes:
    """The path from the root, its parents resolved, its last component as it was written."""
    path = os.fsencode(argument)
    if not path:
        raise Invalid("an empty path names nothing")
    directory, name = os.path.split(path)
    try:
        if name in (b"", b".", b".."):  # a trailing slash asks for what the link leads to
            return os.path.realpath(path)
        parent = os.path.realpath(directory or b".")
        if b"/.vdfs/" in parent + b"/":  # a leaf of a view is a link to what is meant
            return os.path.realpath(os.path.join(parent, name))
        return os.path.join(parent, name)
    except FileNotFoundError:
        raise NotFound("the current directory is not there any more; cd into one that is") from None


def _library_or_absolute(argument: str) -> bytes:
    """`sd:/...` as it is; anything else absolute (a file that is called so is `./sd:/...`)."""
    return os.fsencode(argument) if argument.startswith("sd:/") else _absolute(argument)


def _portions(paths: list[bytes]) -> Iterator[list[bytes]]:
    """The paths in order, cut so that each portion fits a request."""
    portion: list[bytes] = []
    size_bytes = 0
    for path in paths:
        if portion and size_bytes + len(path) > REQUEST_BYTES:
            yield portion
            portion, size_bytes = [], 0
        portion.append(path)
        size_bytes += len(path) + 8
    yield portion


# -- Output


def _print(args: argparse.Namespace, result: Json, render: Callable[[Json], list[str]]) -> int:
    """The result as JSON (ASCII, so that no terminal and no locale can change it), or as lines. Returns 0."""
    lines = [json.dumps(result)]
    if not args.json:
        try:
            lines = render(result)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            _complain("the answer has a form that this `sd` does not know; here it is as JSON")
    text = "".join(f"{line}\n" for line in lines)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
    return 0


def _progress(args: argparse.Namespace, text: str) -> None:
    """One line that is written over, when a person watches."""
    if sys.stderr.isatty() and not args.json:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _complain(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    line = clirender.message(f"sd: {text}")
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


# -- Arguments

DESCRIPTION: Final = """\
Ask a library of files and command it: what is indexed, tagged and found.

`sd` talks to the process that has the library mounted, and opens the library by itself when nothing
runs. A PATH is a file in the mount, a file in the directory of a location, or a path in the library
that starts with `sd:/`."""

EPILOG: Final = """\
examples:
  sd location add ~/Pictures --name Photos     add a directory; the scan runs behind
  sd status --wait-idle --timeout 600          wait until all of it is indexed
  sd tag add holiday ~/Spacedrive/Photos/2019/*.jpg
  sd search beach --limit 20
  sd info sd:/Photos/2019/beach.jpg
  sd tag add odd -- -file-with-a-dash          everything after -- is a path

environment:
  SDMOUNT_DATA_DIR   the data directory; without it $XDG_DATA_HOME/sdmount or ~/.local/share/sdmount

exit codes:
  0  done
  1  no: differences, a time-out, a name that is not there
  2  it could not be tried; one line on stderr says why

`sd COMMAND --help` says more about one command."""

SEARCH_EPILOG: Final = """\
a QUERY is words, which the name contains, and terms:
  "two words"  -not  tag:holiday  kind:image  type:dir  ext:jpg,png
  size:>10MB  size:1kB..5MB  modified:<7d  modified:2019-07..2019-09  in:Photos/2019
  sd search 'beach -draft kind:image modified:2019'
  sd search -- '-draft'                        a QUERY that starts with a dash stands behind --"""

Run = Callable[[Door, argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """argparse with its errors as one line that names the cure."""

    def error(self, message: str) -> NoReturn:
        raise Invalid(f"{message} (see `{self.prog} --help`)")


class _Commands:
    """Adds commands; their shapes and texts become their own help and the list in `sd --help`."""

    def __init__(self, top: _Parser, common: _Parser) -> None:
        self._common = common
        self._choices = {"": top.add_subparsers(metavar="COMMAND", required=True, help=argparse.SUPPRESS)}
        self._list: list[tuple[str, str]] = []

    def group(self, noun: str, text: str) -> None:
        parser = self._choices[""].add_parser(
            noun, prog=f"sd {noun}", description=text, parents=[self._common], allow_abbrev=False
        )
        self._choices[noun] = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(self, shape: str, run: Run, text: str) -> _Parser:
        """A command by its shape, `noun verb ARGUMENTS` or `verb ARGUMENTS`; the caller adds arguments."""
        words = shape.split()
        noun = words[0] if words[0] in self._choices else ""
        name = words[1] if noun else words[0]
        parser = self._choices[noun].add_parser(
            name,
            help=text,
            prog=f"sd {noun} {name}".replace("  ", " "),
            usage=f"sd {shape} [options]",
            description=f"{text[0].upper()}{text[1:]}.",
            parents=[self._common],
            allow_abbrev=False,
        )
        parser.set_defaults(run=run)
        self._list.append((shape, text))
        return parser

    def listing(self) -> str:
        return "\n".join(["commands:", *(f"  {shape}\n      {text}" for shape, text in self._list)])


def _parser() -> _Parser:
    common = _common_options()
    top = _Parser(
        prog="sd",
        usage="sd [options] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
        epilog=EPILOG,
    )
    top.add_argument("--version", action="version", version=f"sd {__version__}", help="print the version")
    commands = _Commands(top, common)
    _add_commands(commands)
    top.description = f"{DESCRIPTION}\n\n{commands.listing()}"
    return top


def _add_commands(commands: _Commands) -> None:
    commands.group("location", "The directories that the library holds.")
    commands.group("tag", "The tags of files.")
    commands.group("index", "The index of what lies on disk.")
    commands.group("job", "Long work: what runs, what waits, how it went.")
    commands.group("volume", "The file systems that locations lie on, also while they are away.")
    commands.group("library", "The library itself.")

    text = "show what runs, what the library holds and what is left to index"
    status = commands.add("status [--wait-idle [--timeout S]]", _status, text)
    status.add_argument("--wait-idle", action="store_true", help="wait until nothing is left to index")
    status.add_argument("--timeout", type=_seconds, metavar="S", help="give up after S seconds, exit code 1")

    _add_location_commands(commands)
    _add_file_commands(commands)
    _add_index_commands(commands)
    _add_job_commands(commands)
    _add_volume_commands(commands)

    commands.add("library info", _library_info, "show what the library holds and where it lies")


def _add_location_commands(commands: _Commands) -> None:
    text = "add a directory; it is shown at once, the scan runs behind"
    add = commands.add("location add DIR [--name NAME] [--mode MODE] [--one-file-system]", _location_add, text)
    add.add_argument("dir", metavar="DIR", help="the directory; nothing in it is changed")
    add.add_argument("--name", type=_text, metavar="NAME", help="its name in the mount (default: as DIR)")
    modes = "shallow: names and attributes; content: also what the bytes are; deep: also what is in them"
    add.add_argument("--mode", choices=MODES, help=f"how far its files are looked into ({modes}; default: content)")
    add.add_argument("--one-file-system", action="store_true", help="leave out what is mounted in it")
    mode = commands.add("location mode NAME MODE", _location_mode, "say how far a location's files are looked into")
    mode.add_argument("name", metavar="NAME", help="as `sd location list` shows it")
    mode.add_argument("mode", metavar="MODE", choices=MODES, help=modes)
    commands.add("location list", _location_list, "list the locations with their directories")
    remove = commands.add("location remove NAME", _location_remove, "forget a location; no file is touched")
    remove.add_argument("name", metavar="NAME", help="as `sd location list` shows it")
    rescan = commands.add("location rescan NAME", _location_rescan, "look at all of a location again")
    rescan.add_argument("name", metavar="NAME", help="as `sd location list` shows it")

    rules = commands.add("location rules NAME [--on RULE] [--off RULE] [--accept GLOB] [--reject GLOB] [--clear]",
                         _location_rules, "show or change what is held back in a location")  # fmt: skip
    rules.add_argument("name", metavar="NAME", help="as `sd location list` shows it")
    rules.add_argument("--on", metavar="RULE", action="append", default=[], help="switch a rule on")
    rules.add_argument("--off", metavar="RULE", action="append", default=[], help="switch a rule off")
    rules.add_argument("--accept", metavar="GLOB", action="append", default=[], help="files that match none are held")
    rules.add_argument("--reject", metavar="GLOB", action="append", default=[], help="what matches is held")
    text = "files below no directory that has a directory NAME are held"
    rules.add_argument("--accept-with", metavar="NAME", action="append", default=[], help=text)
    text = "a directory that has a directory NAME is held"
    rules.add_argument("--reject-with", metavar="NAME", action="append", default=[], help=text)
    rules.add_argument("--clear", action="store_true", help="begin with the default rules again")


def _add_file_commands(commands: _Commands) -> None:
    tag = commands.add("tag add TAG PATH...", _tag_add, "give a tag to files and directories")
    untag = commands.add("tag remove TAG PATH...", _tag_remove, "take a tag from files and directories")
    for change in (tag, untag):
        change.add_argument("tag", metavar="TAG", type=_text, help="the tag")
        change.add_argument("paths", metavar="PATH", nargs="+", help="files or directories")
    tags = commands.add("tag list [PATH]", _tag_list, "list all tags, or those of one file")
    tags.add_argument("path", metavar="PATH", nargs="?", help="a file or directory")

    shape = "search QUERY [--limit N] [--all] [--save NAME]"
    search = commands.add(shape, _search, "find files by name, tag, kind, size, time, place")
    search.formatter_class = argparse.RawDescriptionHelpFormatter
    search.epilog = SEARCH_EPILOG
    search.add_argument("query", metavar="QUERY", type=_text, nargs="?", help="words and terms; all must hold")
    what = search.add_mutually_exclusive_group()
    what.add_argument("--limit", type=_positive, default=LIMIT, metavar="N", help=f"at most N (default: {LIMIT})")
    what.add_argument("--all", action="store_true", help="all of them")
    what.add_argument("--save", type=_text, metavar="NAME", help="keep QUERY as `.vdfs/search/saved/NAME`")
    what.add_argument("--saved", action="store_true", help="list the saved searches")
    what.add_argument("--forget", type=_text, metavar="NAME", help="remove a saved search")

    info = commands.add("info PATH", _info, "show all that is known of one file or directory")
    info.add_argument("path", metavar="PATH", help="a file or directory")


def _add_index_commands(commands: _Commands) -> None:
    text = "compare the index with the disk; exit code 0 clean, 1 differences, 2 could not"
    verify = commands.add("index verify [NAME] [--content]", _index_verify, text)
    verify.add_argument("name", metavar="NAME", nargs="?", help="one location (default: all)")
    verify.add_argument("--content", action="store_true", help="also read the files, compare hashes")
    verify.set_defaults(could_not_only=True)

    text = "show what rules hold back from being read and found, and how much by each"
    skipped = commands.add("index skipped PATH [--all] [--limit N]", _index_skipped, text)
    skipped.add_argument("path", metavar="PATH", help="a directory")
    skipped.add_argument("--all", action="store_true", help="also what lies in directories that are held")
    skipped.add_argument("--limit", type=_positive, default=SKIPPED, metavar="N", help=f"(default: {SKIPPED})")


def _add_job_commands(commands: _Commands) -> None:
    jobs = commands.add("job list [--limit N]", _job_list, "list the jobs, those that have not ended first")
    jobs.add_argument("--limit", type=_positive, default=20, metavar="N", help="at most N (default: 20)")
    show = commands.add("job show ID [--lines N]", _job_show, "show one job: its parts, its notes, its log")
    watch = commands.add("job watch [ID]", _job_watch, "watch jobs until they have ended; exit code 1: one failed")
    watch.add_argument("id", metavar="ID", nargs="?", type=_positive, help="a number of `sd job list`")
    pause = commands.add("job pause ID", _job_pause, "hold a job up, also over a restart")
    resume = commands.add("job resume ID", _job_resume, "let a paused job go on where it was")
    cancel = commands.add("job cancel ID", _job_cancel, "end a job where it is; what it did stays")
    for one in (show, pause, resume, cancel):
        one.add_argument("id", metavar="ID", type=_positive, help="a number of `sd job list`")
    show.add_argument("--lines", type=_positive, default=50, metavar="N", help="of its log, the last N (default: 50)")


def _add_volume_commands(commands: _Commands) -> None:
    listed = commands.add("volume list [--all]", _volume_list, "list the volumes that are mounted or known")
    listed.add_argument("--all", action="store_true", help="also parts of the system and file systems in memory")
    text = "know a volume from now on, also while it is away"
    track = commands.add("volume track VOLUME [--name NAME]", _volume_track, text)
    track.add_argument("--name", type=_text, metavar="NAME", help="what it is called (default: its label)")
    text = "do so no more; what of the library lies on it stays"
    untrack = commands.add("volume untrack VOLUME", _volume_untrack, text)
    eject = commands.add("volume eject VOLUME", _volume_eject, "let go of a volume and unmount it, or say who holds it")
    speed = commands.add("volume speedtest VOLUME", _volume_speedtest, "write and read 10 MiB past the page cache")
    about = commands.add("volume info VOLUME", _volume_info, "show all that is known of a volume")
    for one in (track, untrack, eject, speed, about):
        one.add_argument("volume", metavar="VOLUME", type=_text, help="its fingerprint, its name, or a path on it")


def _common_options() -> _Parser:
    """Options that stand before or after the command. No defaults: the one that is given wins, wherever."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    options = common.add_argument_group("options for every command")
    options.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options.add_argument("--data-dir", metavar="DIR", help="where libraries lie (see environment)")
    options.add_argument("--library", metavar="NAME", help="which library (default: the only one)")
    return common


def _text(argument: str) -> str:
    """An argument that must be text: a tag, a query."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    if not argument:
        raise argparse.ArgumentTypeError("it is empty")
    return argument


def _positive(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit() and 0 < int(argument) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{argument!r} is no whole number from 1")
    return int(argument)


def _seconds(argument: str) -> float:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{argument!r} is no number of seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
