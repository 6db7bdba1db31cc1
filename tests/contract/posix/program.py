"""The command line of the suite: parse, run all checks, print a line per broken promise and the counts.

In: a directory of the tree to check. Out: exit code 0 when every promise is kept, 1 when not, 2 when it
could not begin. A tree that dies on the way ends the run at once, as one failure.
"""

import argparse
import errno
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import kit
from .probing import probe
from .runner import Check, Result, collect, fits, run

# The answers of a dead FUSE connection; every later call would only repeat them.
_DEAD_MOUNT = (errno.ENOTCONN, errno.ECONNABORTED)


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, print; 0 when every promise is kept, 1 when not, 2 when it could not begin."""
    options = _options(arguments)
    checks = [check for check in collect(options.only) if not any(fits(check.name, part) for part in options.skip)]
    if options.list:
        print("\n".join(check.name for check in checks))
        return 0
    if not checks:
        return _refuse(f"no check matches {options.only!r}; see --list")
    if options.directory is None or not options.directory.is_dir():
        return _refuse(f"{options.directory} is not a directory; name one inside the tree to check")
    if options.as_uid is not None and os.geteuid() != 0:
        return _refuse("--as-uid needs root")
    try:
        work = Path(tempfile.mkdtemp(prefix="posix-", dir=options.directory.absolute()))
    except OSError as error:
        return _refuse(f"{options.directory} cannot be written ({kit.errno_name(error)}); name a writable directory")
    work.chmod(0o755)
    if options.as_uid is None:
        code = _run_all(checks, work, options)
    else:
        os.chown(work, options.as_uid, options.as_uid)
        code = _run_as(options.as_uid, lambda: _run_all(checks, work, options))
    _remove_work(work)
    return code


def _run_as(uid: int, body: Callable[[], int]) -> int:
    """Run the body in a child that became that user; this process stays root to clean up."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            code = body()
            sys.stdout.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="posix", description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("directory", type=Path, nargs="?", help="a writable directory of the tree to check")
    parser.add_argument("--only", default="", metavar="PATTERN", help="shell pattern or part of a check's name")
    parser.add_argument("--skip", default=[], action="append", metavar="PATTERN", help="leave these out (repeatable)")
    parser.add_argument("--as-uid", type=int, metavar="N", help="become this user first (needs root)")
    parser.add_argument("--deadline-s", type=float, default=30.0, metavar="S", help="for one check (30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--list", action="store_true", help="print the names of the checks and end")
    parser.add_argument("--verbose", action="store_true", help="a line for every check")
    return parser.parse_args(arguments)


def _refuse(text: str) -> int:
    print(f"posix: {text}", file=sys.stderr)
    return 2


def _run_all(checks: list[Check], work: Path, options: argparse.Namespace) -> int:
    started_s = time.monotonic()
    env = probe(work)
    results: list[Result] = []
    died = ""
    for check in checks:
        result = run(check, work, env, options.deadline_s)
        results.append(result)
        if not options.json and (result.status == "fail" or options.verbose):
            print(f"{result.status.upper()} {result.name}: {result.reason}".rstrip(": "), flush=True)
        if result.status == "fail" and (died := _death(work)):
            break
    seconds = time.monotonic() - started_s
    counts = Counter(result.status for result in results)
    not_run = len(checks) - len(results)
    if options.json:
        print(json.dumps(_report(results, counts, not_run, died, seconds), indent=1))
    else:
        _print_summary(results, counts, not_run, died, seconds)
    return 1 if counts["fail"] or died else 0


def _death(work: Path) -> str:
    """Why the tree cannot be used any more, empty while it lives.

    Asked by statvfs, which no cache answers, and in a child, since a dead tree may block.
    """
    child = kit.spawn(lambda: os.statvfs(work).f_bsize)
    try:
        child.result(deadline_s=5.0)
    except OSError as error:
        return kit.errno_name(error) if error.errno in _DEAD_MOUNT else ""
    except AssertionError:
        return "it does not answer"
    return ""


def _report(results: list[Result], counts: Counter[str], not_run: int, died: str, seconds: float) -> dict[str, Any]:
    return {
        "passed": counts["pass"],
        "failed": counts["fail"],
        "skipped": counts["skip"],
        "not_run": not_run,
        "died": died,
        "seconds": round(seconds, 3),
        "failures": [asdict(result) for result in results if result.status == "fail"],
        "skips": dict(Counter(result.reason for result in results if result.status == "skip")),
        "slowest": [asdict(result) for result in sorted(results, key=lambda result: -result.seconds)[:5]],
    }


def _print_summary(results: list[Result], counts: Counter[str], not_run: int, died: str, seconds: float) -> None:
    for reason, count in Counter(result.reason for result in results if result.status == "skip").items():
        print(f"skipped {count}: {reason}")
    if died:
        print(f"the tree died ({died}); {not_run} checks not run")
    print(
        f"{len(results)} checks: {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped"
        f" in {seconds:.1f} s"
    )


def _remove_work(work: Path) -> None:
    try:
        kit.spawn(lambda: kit.sweep(work)).result(60.0)
    except (OSError, AssertionError) as error:
        print(f"posix: {work} could not be removed ({error}): remove it by hand", file=sys.stderr)
