"""The command line: write until the time is over or the tree dies, or verify after a restart.

Writing: exit 0 when every writer ended by time or by the tree's death, 1 when a living tree gave a wrong
answer, 2 when it could not begin. Verifying: exit 0 when every promise is kept, 1 when not, 2 without a
readable file.
"""

import argparse
import errno
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from .journal import Journal, read_journal
from .verifier import replay, verify
from .writer import SHARED, Writer, WrongAnswer


def main(arguments: list[str] | None = None) -> int:
    """Parse and do the one or the other."""
    options = _options(arguments)
    if not options.mount.is_dir():
        return _refuse(f"{options.mount} is not a directory")
    if options.verify:
        return _verify(options)
    if options.ack.exists():
        return _refuse(f"{options.ack} exists: name a new file for each round")
    if not options.ack.absolute().parent.is_dir():
        return _refuse(f"{options.ack.parent} is not a directory")
    if options.ack.absolute().parent.stat().st_dev == options.mount.stat().st_dev and not options.same_disk:
        return _refuse(f"{options.ack} lies in the tree itself: it must survive what is killed (or --same-disk)")
    return _write(options)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="crashwriter", description="Write, note what was promised, verify later.")
    parser.add_argument("--mount", type=Path, required=True, help="a directory of the tree that will be killed")
    parser.add_argument("--ack", type=Path, required=True, help="the file of acknowledgements, on another tree")
    parser.add_argument("--seed", type=int, help="chosen by chance when absent")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to write (5)")
    parser.add_argument("--writers", type=int, default=4, help="how many processes write (4)")
    parser.add_argument("--verify", action="store_true", help="compare the tree with the file instead")
    parser.add_argument("--no-inodes", action="store_true", help="inode numbers may change over a restart")
    parser.add_argument("--same-disk", action="store_true", help="allow the file on the device of the tree")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def _refuse(text: str) -> int:
    print(f"crashwriter: {text}", file=sys.stderr)
    return 2


def _write(options: argparse.Namespace) -> int:
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 32)
    if os.path.lexists(options.mount / f"{seed}-0"):
        return _refuse(f"{options.mount} holds the files of seed {seed} already: name another seed")
    try:
        os.makedirs(options.mount / SHARED, exist_ok=True)
    except OSError as error:
        return _refuse(f"{options.mount} cannot be written ({error.strerror})")
    end_s = time.monotonic() + options.seconds
    pids = [_start(options, f"{seed}-{number}", end_s) for number in range(options.writers)]
    failed = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in pids)
    writers = replay(read_journal(options.ack))
    acked = sum(promises.acked for promises in writers.values())
    busy = sum(promises.busy for promises in writers.values())
    report = {
        "seed": seed,
        "acked": acked,
        "writers": options.writers,
        "busy_writers": busy,
        "ended": {name: promises.stopped for name, promises in writers.items()},
        "in_flight": [promises.in_flight["op"] for promises in writers.values() if promises.in_flight],
        "round_counts": acked >= 1 and busy >= 1,
        "failed_writers": failed,
    }
    shape = (
        "seed {seed}: {acked} acknowledged by {writers} writers, {busy_writers} busy at the end,"
        " {failed_writers} failed"
    )
    print(json.dumps(report, indent=1) if options.json else shape.format(**report))
    return 1 if failed else 0


def _start(options: argparse.Namespace, name: str, end_s: float) -> int:
    """Fork one writer; it exits 0 after a death or in time, 1 after a wrong answer."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        journal = Journal(options.ack)
        try:
            reason = Writer(options.mount, journal, name).run(end_s)
            journal.append(writer=name, phase="stop", reason=reason)
            code = 0
        except (OSError, WrongAnswer) as error:
            symbol = errno.errorcode.get(error.errno or 0, "") if isinstance(error, OSError) else ""
            print(f"crashwriter: writer {name}: {symbol} {error}", file=sys.stderr, flush=True)
            journal.append(writer=name, phase="stop", reason="failed")
    finally:
        os._exit(code)


def _verify(options: argparse.Namespace) -> int:
    try:
        report = verify(options.mount, options.ack, inodes=not options.no_inodes)
    except (OSError, ValueError, KeyError) as error:
        return _refuse(f"{options.ack} cannot be read ({error})")
    print(json.dumps(report, indent=1) if options.json else _text(report))
    return 0 if report["ok"] else 1


def _text(report: dict[str, Any]) -> str:
    lines = [f"LOST {problem}" for problem in report["problems"]]
    shape = (
        "{acked} acknowledged, {lost} lost, {foreign} foreign, {files} files; {busy_writers} of {writers} writers"
        " busy at the end; the round {counts}"
    )
    counts = "counts" if report["round_counts"] else "does not count"
    lines.append(shape.format(**report, counts=counts))
    return "\n".join(lines)
