"""`sd sync`: how far this device is with the others."""

import argparse
import time

from vdfs.commands.arguments import Commands, as_count, as_seconds
from vdfs.commands.door import Door
from vdfs.commands.output import complain, print_result
from vdfs.commands.words import Json, count, human_bytes, human_time, message, shown, table

PUT_OUT = (
    "this device was put out of the library; its files and its mount stay, and nobody else hears of them. Its key "
    "never serves again: to come back mount with a new data directory, which has a new one (sdmount --data-dir DIR "
    "…), and `sd join` with that"
)


def add(commands: Commands) -> None:
    status = commands.add(
        "sync status [--wait-synced [--timeout S]]", _status, "how far this device is with the others"
    )
    status.add_argument("--wait-synced", action="store_true", help="until all is here that reachable devices have")
    status.add_argument("--timeout", type=as_seconds, default=60.0, metavar="S", help="of that (default: 60)")
    events = commands.add("sync events [--limit N]", _events, "what happened between the devices")
    events.add_argument("--limit", type=as_count, default=50, metavar="N", help="at most N (default: 50)")
    commands.add("sync metrics", _metrics, "what was told and heard, in numbers")
    commands.add("sync pause", _pause, "neither tell nor take in until it is resumed")
    commands.add("sync resume", _resume, "go on")


def _status(door: Door, args: argparse.Namespace) -> int:
    if args.wait_synced and not _wait(door, args.timeout):
        return 1
    return print_result(args, door.call("query:sync.status"), sync_status)


def _wait(door: Door, timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = deadline_s - time.monotonic()
        answer = door.call("query:sync.wait", {"timeout_s": max(0.0, min(left_s, 20.0))})
        if answer["synced"]:
            return True
        if answer["put_out"]:
            complain(PUT_OUT)
            return False
        if left_s <= 0:
            complain(f"not synced within {timeout_s:g} s: {'; '.join(answer['missing'][:3]) or 'no answer'}")
            return False


def _events(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:sync.events", {"limit": args.limit}), sync_events)


def _metrics(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:sync.metrics"), sync_metrics)


def _pause(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("action:sync.pause"), sync_status)


def _resume(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("action:sync.resume"), sync_status)


def sync_status(result: Json) -> list[str]:
    lines = [f"Sync: {result['state']}"]
    if result["state"] == "revoked":
        lines.append(f"  {PUT_OUT}")
    elif result["peers"] and not any(peer["is_online"] for peer in result["peers"]):
        lines.append("  no other device can be reached just now; what they have that is new is not here")
    for key, what in (("waiting", "change waits for a row it refers to"), ("quarantined", "change from the future")):
        if result[key]:
            lines.append(f"{result[key]} × {what}")
    rows = []
    for peer in result["peers"]:
        far = "away" if not peer["is_online"] else "up to date" if peer["is_up_to_date"] else f"lacks {peer['lag']}"
        told = f"{human_bytes(peer['bytes_in'])} in, {human_bytes(peer['bytes_out'])} out"
        rows.append([peer["slug"], shown(peer["name"]), far, told if peer["is_online"] else "-"])
    return [*lines, *table(rows)]


def sync_events(result: Json) -> list[str]:
    return table(
        [human_time(e["time_ns"]), e["event"], e["device"] or "-", message(e["text"])] for e in result["events"]
    )


def sync_metrics(result: Json) -> list[str]:
    rows = [[key.replace("_", " "), f"{value}"] for key, value in result.items() if key != "counts"]
    rows += [[count(1, event)[2:], f"{number}"] for event, number in result["counts"].items()]
    return table(rows, right=(1,))
