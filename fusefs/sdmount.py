"""sdmount: mount a library and keep serving it.

The command checks what it can, starts the server as a process of its own and returns when the mount answers (or says in
one line why not). The server is spawned, not forked, in a session of its own, with a pipe on which it reports; `-f`
serves in the foreground instead. What serves is server.py.
"""

import argparse
import contextlib
import gc
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from fusefs.stale import heal_stale_mount, real_mountpoint
from index.model.errors import (
    AccessDenied,
    Busy,
    Invalid,
    NotADirectory,
    NotEmpty,
    NotFound,
    Unsupported,
    VdfsError,
)
from index.scan.mounts import is_own_at, mounts
from vdfs.base.config import Config, load_config, make_private
from vdfs.base.version import __version__
from vdfs.commands.words import message
from vdfs.library.lock import running_holder

#: How long the directories of the command line may take to say that they are there.
_LOOK_S = 5.0
_IGNORED_OPTIONS = frozenset(
    {"rw", "auto", "noauto", "user", "nofail", "_netdev", "nosuid", "nodev", "exec", "default_permissions"}
)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `sdmount`."""
    args = _arguments(sys.argv[1:] if argv is None else argv)
    try:
        options = _options(args.o)
        _check_allowed(options)
        config = load_config(args.data_dir)
        if args.serve:
            with _lasting():
                from fusefs import server  # most of the house, which whoever only starts one has no need of

            return server.serve_reporting(
                config, args.library, Path(args.mountpoint), [_absolute(d) for d in args.locations], options, args.serve
            )
        if not args.mountpoint or "" in args.locations:
            raise Invalid("an empty argument names no directory")
        _check_fuse()
        mountpoint = real_mountpoint(Path(args.mountpoint))
        library = config.choose_library(args.library)
        _check_not_running(config, library, mountpoint)
        _check_mountpoint(mountpoint)
        locations = [_absolute(d) for d in args.locations]
        _check_locations(locations)
        if args.foreground:
            with _lasting():
                from fusefs import server

            return server.serve_in_foreground(config, library, mountpoint, locations, options)
        return _start_server(config, library, mountpoint, locations, args)
    except VdfsError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        _complain(f"{error.filename or args.mountpoint}: {error.strerror}")
        return 1


def _arguments(argv: list[str]) -> argparse.Namespace:
    """The command line; what follows `--` are directories, however they begin."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = _parser()
    args = parser.parse_intermixed_args(argv[:cut])
    places = [*args.places, *argv[cut + 1 :]]
    if not places:
        parser.error("MOUNTPOINT is missing: an empty directory, or one that is to be made")
    args.mountpoint, *args.locations = places
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdmount",
        usage="sdmount [options] MOUNTPOINT [LOCATION…]",
        description="Mount your library: one tree of all your directories. Returns when the mount answers.",
        epilog="End it with: sdumount MOUNTPOINT. Directories can be added later: sd location add DIR.",
    )
    parser.add_argument(
        "places", metavar="MOUNTPOINT [LOCATION…]", nargs="*",
        help="an empty directory (made when it is missing), then directories to show in the library",
    )  # fmt: skip
    parser.add_argument("-f", "--foreground", action="store_true", help="stay, log to the terminal, end with Ctrl-C")
    parser.add_argument("--data-dir", metavar="DIR", help="where libraries lie (SDMOUNT_DATA_DIR; XDG by default)")
    parser.add_argument("--library", metavar="NAME", help="which library; made on first use")
    parser.add_argument(
        "-o", metavar="OPTION,…", action="append", default=[],
        help="allow_other, ro, show=tags:search:devices|none, create=here|mfs, xattr=copy|library, rescan=SECONDS",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"sdmount {__version__}")
    parser.add_argument("--serve", type=int, metavar="FD", help=argparse.SUPPRESS)
    return parser


def _options(given: list[str]) -> dict[str, str]:
    known = {
        "allow_other": "",
        "ro": "",
        "show": "tags:search:devices",
        "create": "here",
        "xattr": "copy",
        "rescan": "60",
    }
    chosen: dict[str, str] = {}
    for item in (part for text in given for part in text.split(",") if part):
        name, _, value = item.partition("=")
        if name in _IGNORED_OPTIONS or name.startswith("x-"):
            continue
        if name not in known:
            raise Invalid(f"-o {name} is not known; there are: {', '.join(known)}")
        if value and name in ("allow_other", "ro"):
            raise Invalid(f"-o {name} takes no value")
        chosen[name] = value
    shown = set(chosen.get("show", "none").split(":"))
    if not shown <= {"tags", "search", "devices"} and shown != {"none"}:
        raise Invalid("-o show= takes none, or some of tags:search:devices")
    if chosen.get("create", "here") not in ("here", "mfs"):
        raise Invalid("-o create= takes here or mfs")
    if chosen.get("xattr", "copy") not in ("copy", "library"):
        raise Invalid("-o xattr= takes copy or library")
    rescan = chosen.get("rescan", "60")
    if not (rescan.isascii() and rescan.isdigit() and 0 < int(rescan) < 10**9):
        raise Invalid("-o rescan= takes a number of seconds, from 1")
    return chosen


def _complain(text: str) -> None:
    """One line on stderr, whatever the names in it hold."""
    print(message(f"sdmount: {text}"), file=sys.stderr)


# before the start -----------------------------------------------------------------------------------------------------


def _check_fuse() -> None:
    if not os.path.exists("/dev/fuse"):
        raise Unsupported(
            "/dev/fuse is missing: load the kernel module (modprobe fuse), or give the container /dev/fuse"
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise Unsupported("/dev/fuse cannot be opened by you; add yourself to its group, or ask its owner")


def _check_allowed(options: dict[str, str]) -> None:
    """Who is not root may let others in only where root says so. Source: mount.fuse3(8)."""
    if "allow_other" not in options or os.geteuid() == 0:
        return
    try:
        lines = Path("/etc/fuse.conf").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    if "user_allow_other" not in [line.partition("#")[0].strip() for line in lines]:
        raise Unsupported("allow_other needs the line `user_allow_other` in /etc/fuse.conf, which root can add")


def _check_mountpoint(path: Path) -> None:
    """An existing, empty directory that nothing is mounted on; a dead mount of ours is cleared away."""
    heal_stale_mount(path)
    for mount in mounts():
        if mount.mount_point == os.fsencode(path):
            if mount.is_own:
                raise Busy(f"a library is mounted on {path} already; end it with: sdumount {path}")
            raise Busy(f"something ({mount.fs_type}) is mounted on {path} already; use an empty directory")
    if not path.exists():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise NotFound(f"{path} does not exist and cannot be made: {error.strerror}") from error
    if not path.is_dir():
        raise NotADirectory(f"{path} is no directory; a mount point is an empty directory")
    try:
        first = next(iter(os.scandir(path)), None)
    except PermissionError as error:
        raise Invalid(f"{path} cannot be read: no permission") from error
    if os.geteuid() and not os.access(path, os.W_OK):
        raise Invalid(f"{path} is not yours to write to, and fusermount3 mounts on no other; use a directory of yours")
    if first is not None:
        raise NotEmpty(f"{path} is not empty ({first.name!r} is in it); use an empty directory")


def _check_not_running(config: Config, library: str, mountpoint: Path) -> None:
    holder = running_holder(config.library_dir(library))
    if holder is None:
        return
    if holder.mountpoint and not is_own_at(os.fsencode(holder.mountpoint)):
        raise Busy(
            f"process {holder.pid} has the library {library}, and its mount is not (or no longer) at "
            f"{holder.mountpoint}: it starts, ends, or is used from another mount namespace; try again, "
            f"or end it where it was started: kill {holder.pid}"
        )
    if holder.mountpoint == str(mountpoint):
        raise Busy(f"the library {library} is mounted here already, by process {holder.pid}")
    if holder.mountpoint:
        raise Busy(
            f"the library {library} is mounted at {holder.mountpoint} already, by process {holder.pid}; "
            f"use it there, or end it first: sdumount {holder.mountpoint}"
        )
    raise Busy(f"the library {library} is in use by process {holder.pid}; try again when that has ended")


def _absolute(directory: str) -> bytes:
    return os.path.abspath(os.fsencode(directory))


def _check_locations(locations: list[bytes]) -> None:
    """What can be said at once; a file system that does not answer is the server's to judge, which may know it."""
    wrong: list[VdfsError] = []

    def look() -> None:
        for path in locations:
            shown = os.fsdecode(path)
            try:
                is_dir = stat.S_ISDIR(os.stat(path).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                wrong.append(NotFound(f"{shown} does not exist"))
            except PermissionError:
                wrong.append(AccessDenied(f"{shown} cannot be reached: no permission"))
            except OSError:
                pass
            else:
                if not is_dir:
                    wrong.append(NotADirectory(f"{shown} is no directory; a location is a directory"))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(_LOOK_S)
    if wrong:
        raise wrong[0]


# the server -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _lasting() -> Iterator[None]:
    """What is loaded meanwhile stays for as long as the process: the collector looks through it neither now, as it
    would again and again, nor later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _start_server(
    config: Config, library: str, mountpoint: Path, locations: list[bytes], args: argparse.Namespace
) -> int:
    """Spawn the server and wait for its word."""
    make_private(config.state_dir)
    read_fd, write_fd = os.pipe()
    command = [sys.executable, "-P", "-m", "fusefs.sdmount", "--serve", str(write_fd), "--library", library]
    if args.data_dir or os.environ.get("SDMOUNT_DATA_DIR"):
        command += ["--data-dir", str(config.data_dir)]
    for item in args.o:
        command += ["-o", item]
    command += ["--", str(mountpoint), *(os.fsdecode(p) for p in locations)]
    env = {**os.environ, "PYTHONPATH": _package_root()}
    with open(config.log_path, "ab") as log_file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, pass_fds=(write_fd,),
            start_new_session=True, cwd="/", env=env,
        )  # fmt: skip
    os.close(write_fd)
    answer = _read_answer(read_fd, process)
    if answer.get("ok"):
        for line in answer.get("warnings", []):
            _complain(line)
        return 0
    _complain(answer.get("error") or f"the server ended at once; see {config.log_path}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    return 1


def _package_root() -> str:
    root = str(Path(__file__).resolve().parent.parent)
    rest = os.environ.get("PYTHONPATH")
    return f"{root}:{rest}" if rest else root


def _read_answer(fd: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    data = b""
    with os.fdopen(fd, "rb") as pipe:
        data = pipe.read()
    try:
        return dict(json.loads(data))
    except ValueError:
        return {}


def run() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    run()
