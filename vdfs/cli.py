"""`sd`: ask a library and command it, from a shell or a script.

In: arguments. Out: lines for people, or with --json the result as one JSON object; an exit code: 0 done, 1
the answer is no (differences, a time-out, a name that is not there), 2 it could not be tried (usage, no
library, nobody answers). Errors are one line on stderr.

`sd` knows no operation itself: the commands (vdfs/commands, by noun) ask through a door, which leads to the process
that holds the library or opens it for one call.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from index.model.errors import NotRunning, VdfsError
from vdfs.base.config import Config, load_config
from vdfs.base.version import __version__
from vdfs.commands import (
    copies,
    devices,
    files,
    index,
    jobs,
    library,
    locations,
    search,
    status,
    sync,
    tags,
    volumes,
)
from vdfs.commands.arguments import Commands, Parser, common_options
from vdfs.commands.door import Door, Json
from vdfs.commands.output import complain

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
        complain(str(error) or error.kind)
        return 2 if args.could_not_only or error.kind in COULD_NOT else 1
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return 2
    except Exception as error:  # a bug, of which a person needs no more than one line
        complain(f"unexpected {type(error).__name__}: {error}")
        return 2


def _run(args: argparse.Namespace) -> int:
    config = load_config(args.data_dir)
    with Door(config, _existing_library(config, args.library), _here) as door:
        command: Callable[[Door, argparse.Namespace], int] = args.run
        return command(door, args)


def _here(data_dir: Path, library: str, method: str, params: Json) -> Any:
    """Open the library for one call. What is heavy is imported only now."""
    from vdfs.core import run_offline

    return run_offline(data_dir, library, method, params)


def _existing_library(config: Config, wanted: str | None) -> str:
    """The library that is meant; NotRunning with the cure when it does not exist (nothing here makes one)."""
    name = config.choose_library(wanted)
    if config.library_dir(name).is_dir():
        return name
    others = ", ".join(config.library_names())
    if others:
        raise NotRunning(f"there is no library {name} in {config.data_dir}, only {others}; use --library NAME")
    raise NotRunning(f"there is no library in {config.data_dir}; `sdmount MOUNTPOINT` makes one, or give --data-dir")


def _parser() -> Parser:
    common = common_options()
    top = Parser(
        prog="sd",
        usage="sd [options] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
        allow_abbrev=False,
        epilog=EPILOG,
    )
    top.add_argument("--version", action="version", version=f"sd {__version__}", help="print the version")
    commands = Commands(top, common)
    _add_commands(commands)
    top.description = f"{DESCRIPTION}\n\n{commands.listing()}"
    return top


def _add_commands(commands: Commands) -> None:
    commands.group("location", "The directories that the library holds.")
    commands.group("tag", "The tags of files.")
    commands.group("index", "The index of what lies on disk.")
    commands.group("job", "Long work: what runs, what waits, how it went.")
    commands.group("volume", "The file systems that locations lie on, also while they are away.")
    commands.group("device", "The devices that hold the library.")
    commands.group("sync", "How the devices agree.")
    commands.group("library", "The library itself.")
    for noun in (status, locations, tags, search, copies, files, index, jobs, volumes, devices, sync, library):
        noun.add(commands)


if __name__ == "__main__":
    sys.exit(main())
