"""The command line of the fuzzer.

In: a mount, the branch directory it shows, a scratch directory for the reference, a seed. Out: exit 0 when
the three stayed equal, 1 with the seed and the last operations when not, 2 when it could not begin. It
works in a fresh sub-directory of each, so a tree that is in use can be tested; the sub-directories stay
after a failure.
"""

import argparse
import json
import os
import secrets
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .chooser import Chooser
from .fuzzer import Fuzzer, Mismatch
from .operations import KINDS

# Plants a fault for a test: the first plain change from that operation on is left out on the reference.
PLANT = "DIFFFUZZ_SKIP_ON_REFERENCE"
STUCK_S = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, report."""
    options = _options(arguments)
    for directory in (options.mount, options.branch, options.reference):
        if not directory.is_dir():
            return _refuse(f"{directory} is not a directory")
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 32)
    name = f"difffuzz-{os.getpid()}-{seed}"
    try:
        bases = _begin(options, name)
    except (OSError, Mismatch) as error:
        return _refuse(f"cannot begin: {error}")
    os.umask(0o022)
    chooser = Chooser(seed, options.behind, options.without + _xattr_kinds(options.xattrs))
    fuzzer = Fuzzer(
        bases,
        chooser,
        settle_s=options.settle_s,
        xattrs=options.xattrs,
        skip_on_reference=int(os.environ.get(PLANT, "-1")),
    )
    started_s = time.monotonic()

    def give_up() -> None:
        failure = f"the last operation or look did not return within {STUCK_S:g} s"
        _print(_report(fuzzer, seed, failure, time.monotonic() - started_s), options)
        sys.stdout.flush()
        os._exit(1)

    threading.Thread(target=_watch, args=(fuzzer, give_up), daemon=True).start()
    failure = _run(fuzzer, options)
    report = _report(fuzzer, seed, failure, time.monotonic() - started_s)
    fuzzer.close()
    if not failure and not options.keep:
        shutil.rmtree(bases[0])
        shutil.rmtree(bases[2])
    _print(report, options)
    return 1 if failure else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="difffuzz", description="Random operations on a mount against a reference.")
    parser.add_argument("--mount", type=Path, required=True, help="the directory of the mount that shows the branch")
    parser.add_argument("--branch", type=Path, required=True, help="the same directory on disk, behind the mount")
    parser.add_argument("--reference", type=Path, required=True, help="a plain directory, best on the same disk")
    parser.add_argument("--ops", type=int, default=20_000, help="how many operations (20000)")
    parser.add_argument("--seed", type=int, help="replay a run; chosen by chance when absent")
    parser.add_argument("--settle-s", type=float, default=1.0, help="how late a change behind the mount may show (1.0)")
    parser.add_argument("--behind", type=float, default=0.4, help="share of the operations behind the mount (0.4)")
    parser.add_argument(
        "--xattrs",
        choices=("exact", "inherit", "off"),
        default="exact",
        help="inherit: a file renamed over another takes over its attributes when it has none",
    )
    parser.add_argument("--without", action="append", default=[], choices=KINDS, help="leave a kind out (repeatable)")
    parser.add_argument("--walk-every", type=int, default=1000, help="compare the whole trees so often (1000)")
    parser.add_argument("--keep", action="store_true", help="keep the trees after success too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _xattr_kinds(choice: str) -> list[str]:
    return ["setxattr", "removexattr"] if choice == "off" else []


def _refuse(text: str) -> int:
    print(f"difffuzz: {text}", file=sys.stderr)
    return 2


def _begin(options: argparse.Namespace, name: str) -> tuple[bytes, bytes, bytes]:
    """Make the working directories, the first through the mount, so that the branch must show it."""
    mount, branch, reference = (
        os.fsencode(directory.absolute() / name) for directory in (options.mount, options.branch, options.reference)
    )
    os.mkdir(mount)
    if not os.path.isdir(branch):
        os.rmdir(mount)
        raise Mismatch(f"{options.mount} does not show {options.branch}: a directory made there is not here")
    os.mkdir(reference)
    for directory in (mount, reference):
        os.chmod(directory, 0o755)
    return mount, branch, reference


def _run(fuzzer: Fuzzer, options: argparse.Namespace) -> str:
    """The whole run; what went wrong, empty when nothing did."""
    try:
        for number in range(options.ops):
            fuzzer.step(number)
            if number % options.walk_every == options.walk_every - 1:
                fuzzer.walk()
        fuzzer.walk()
    except Mismatch as error:
        return str(error)
    except OSError as error:  # the comparison itself broke: a dead mount, most likely
        return f"{type(error).__name__}: {error}"
    return ""


def _watch(fuzzer: Fuzzer, give_up: Callable[[], None]) -> None:
    """End the run when nothing moves: a call into a hung mount never returns, so only another thread can tell."""
    seen, since_s = -1, time.monotonic()
    while True:
        time.sleep(1)
        if fuzzer.counts.comparisons != seen:
            seen, since_s = fuzzer.counts.comparisons, time.monotonic()
        elif time.monotonic() - since_s > STUCK_S:
            give_up()


def _print(report: dict[str, Any], options: argparse.Namespace) -> None:
    print(json.dumps(report, indent=1) if options.json else _text(report))


def _report(fuzzer: Fuzzer, seed: int, failure: str, seconds: float) -> dict[str, Any]:
    counts, lags = fuzzer.counts, sorted(fuzzer.counts.lags_s)
    total = counts.operations.total()
    return {
        "ok": not failure,
        "seed": seed,
        "operations": total,
        "through_mount": sum(count for kind, count in counts.operations.items() if kind.startswith("mount.")),
        "behind_mount": sum(count for kind, count in counts.operations.items() if kind.startswith("branch.")),
        "refused_alike": counts.refused,
        "comparisons": counts.comparisons,
        "late_outcomes": counts.late_outcomes,
        "by_kind": dict(sorted(counts.operations.items())),
        "lag_p50_s": round(statistics.median(lags), 4) if lags else 0.0,
        "lag_p99_s": round(lags[int(len(lags) * 0.99)], 4) if lags else 0.0,
        "lag_max_s": round(lags[-1], 4) if lags else 0.0,
        "seconds": round(seconds, 2),
        "failure": failure,
        "history": list(fuzzer.history) if failure else [],
    }


def _text(report: dict[str, Any]) -> str:
    lines = []
    if report["failure"]:
        lines += [
            f"FAIL after {report['operations']} operations: {report['failure']}",
            "the last operations:",
        ]
        lines += [f"  {line}" for line in report["history"]]
    shape = (
        "seed {seed}: {operations} operations, {behind_mount} of them behind the mount; {refused_alike} refused"
        " alike, {late_outcomes} late; {comparisons} comparisons in {seconds} s;"
        " lag p50 {lag_p50_s} s, p99 {lag_p99_s} s, max {lag_max_s} s"
    )
    lines.append(shape.format(**report))
    return "\n".join(lines)
