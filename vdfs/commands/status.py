"""`sd status` and `sd library info`: what runs, what the library holds, what is left to index."""

import argparse
import time
from typing import Final

from index.model.errors import Invalid, NotRunning
from vdfs.commands.arguments import Commands, as_seconds
from vdfs.commands.door import Door, Json
from vdfs.commands.output import complain, print_result, progress
from vdfs.commands.words import count, facts, human_bytes, human_duration, name_of, shown

ANSWER_S: Final = 20.0  # a status costs a moment: who has not given it by then hangs, or is stopped
LOOK_S: Final = 2.0  # how long the process may wait for idle before it tells how far it is
COUNTED_MAX: Final = 10_000  # files that wait are counted up to so many
PAUSE_S: Final = 0.02  # between two looks, should it answer at once


def add(commands: Commands) -> None:
    text = "show what runs, what the library holds and what is left to index"
    status = commands.add("status [--wait-idle [--timeout S]]", _status, text)
    status.add_argument("--wait-idle", action="store_true", help="wait until nothing is left to index")
    status.add_argument("--timeout", type=as_seconds, metavar="S", help="give up after S seconds, exit code 1")


def _status(door: Door, args: argparse.Namespace) -> int:
    """Show the status, at once or when nothing is left to index."""
    if args.timeout is not None and not args.wait_idle:
        raise Invalid("--timeout goes with --wait-idle")
    deadline = None if args.timeout is None else time.monotonic() + args.timeout
    result = status_now(door)
    while args.wait_idle and not result["scan"]["idle"]:
        left_s = LOOK_S if deadline is None else deadline - time.monotonic()
        if left_s <= 0:
            break
        if not door.running:
            raise NotRunning("nothing runs, so nothing will be indexed; `sdmount MOUNTPOINT` goes on with it")
        if result["scan"].get("paused") and not result["scan"].get("active"):
            break
        progress(args, scan_line(result["scan"]))
        time.sleep(min(PAUSE_S, left_s))
        result = status_now(door, min(LOOK_S, left_s))
    progress(args, "")
    print_result(args, result, lambda r: status(r, door.running))
    if args.wait_idle and not result["scan"]["idle"]:
        if result["scan"].get("paused") and not result["scan"].get("active"):
            complain(
                "a job is paused; `sd job list` says for what, `sd job resume ID` lets one go on that somebody paused"
            )
            return 1
        complain(f"not idle after {args.timeout:g} s: {scan_line(result['scan'])}")
        return 1
    return 0


def status_now(door: Door, wait_idle_s: float = 0) -> Json:
    """The status, at the latest after `wait_idle_s`, earlier when nothing is left to index.

    Its pid is that of the running process; when `sd` opened the library itself there is none.
    """
    asked = {"wait_idle_s": wait_idle_s} if wait_idle_s else {}
    result = door.call("query:core.status", asked, timeout_s=wait_idle_s + ANSWER_S)
    return result if door.running else {**result, "pid": None}


def status(result: Json, running: bool) -> list[str]:
    if running:
        served = f"process {result['pid']} for {human_duration(result['uptime_s'])}, version {result['version']}"
        mounted = shown(name_of(result, "mountpoint")) or "nowhere"
    else:
        served, mounted = "nobody; `sdmount MOUNTPOINT` mounts it", ""
    return facts(
        [
            *library_facts(result),
            ("Served by", served),
            ("Mounted at", mounted),
            ("Scan", scan_line(result["scan"])),
            ("Log", shown(name_of(result, "log"))),
        ]
    )


def scan_line(scan: Json) -> str:
    """What is left to index, on one line."""
    errors = f"; {count(scan['errors'], 'error')}, see the log" if scan.get("errors") else ""
    if scan.get("unwatched"):
        errors += "; inotify allows too few watches (see the log): the rest is looked through again and again"
    if scan["idle"]:
        return f"idle, nothing left to index{errors}"
    dirs = count(scan["pending_dirs"], "directory", "directories")
    files = count(scan["pending_files"], "file", "files or more" if scan["pending_files"] == COUNTED_MAX else "")
    current = shown(name_of(scan, "current"))
    return f"{dirs} and {files} left{f', at {current}' if current else ''}{errors}"


def library_facts(result: Json) -> list[tuple[str, str]]:
    contents = f", {count(result['contents'], 'distinct content')}" if result.get("contents") else ""
    held = f"{count(result['files'], 'file')}, {count(result['dirs'], 'directory', 'directories')}"
    far = ""
    if result.get("far_files"):
        far = f"{count(result['far_files'], 'file')}, {human_bytes(result['far_bytes'])} of that"
    return [
        ("Library", f"{shown(str(result['library']))} ({result['library_id']})"),
        ("Device", f"{shown(str(result['device']))} ({result['device_id']})"),
        ("Holds", f"{held}, {human_bytes(result['bytes'])}{contents}"),
        ("Elsewhere", far),
        ("Locations", f"{result['locations']}"),
        ("Tags", f"{result['tags']}"),
        ("Database", human_bytes(result["database_bytes"])),
    ]
