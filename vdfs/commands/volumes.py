"""`sd volume`: the file systems that locations lie on."""

import argparse
import os
from typing import Final

from vdfs.commands.arguments import Commands, absolute, as_text
from vdfs.commands.door import CALL_TIMEOUT_S, Door, Json
from vdfs.commands.output import print_result
from vdfs.commands.words import facts, human_bytes, human_time, item_name, message, shown, table
from vdfs.wire.jsonrpc import encode_path

EJECT_TIMEOUT_S: Final = 330.0  # a slow stick is written to until all is on it


def add(commands: Commands) -> None:
    listed = commands.add("volume list [--all]", _volume_list, "list the volumes that are mounted or known")
    listed.add_argument("--all", action="store_true", help="also parts of the system and file systems in memory")
    text = "know a volume from now on, also while it is away"
    track = commands.add("volume track VOLUME [--name NAME]", _volume_track, text)
    track.add_argument("--name", type=as_text, metavar="NAME", help="what it is called (default: its label)")
    text = "do so no more; what of the library lies on it stays"
    untrack = commands.add("volume untrack VOLUME", _volume_untrack, text)
    eject = commands.add("volume eject VOLUME", _volume_eject, "let go of a volume and unmount it, or say who holds it")
    speed = commands.add("volume speedtest VOLUME", _volume_speedtest, "write and read 10 MiB past the page cache")
    about = commands.add("volume info VOLUME", _volume_info, "show all that is known of a volume")
    for one in (track, untrack, eject, speed, about):
        one.add_argument("volume", metavar="VOLUME", type=as_text, help="its fingerprint, its name, or a path on it")


def _volume_list(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:volume.list", {"all": args.all}), volume_list)


def _volume_track(door: Door, args: argparse.Namespace) -> int:
    params = {**_volume(args.volume), "name": args.name}
    return print_result(args, door.call("action:volume.track", params), volume_tracked)


def _volume_untrack(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("action:volume.untrack", _volume(args.volume)), volume_untracked)


def _volume_eject(door: Door, args: argparse.Namespace) -> int:
    result = door.call("action:volume.eject", _volume(args.volume), timeout_s=EJECT_TIMEOUT_S)
    return print_result(args, result, volume_ejected)


def _volume_speedtest(door: Door, args: argparse.Namespace) -> int:
    result = door.call("action:volume.speedtest", _volume(args.volume), timeout_s=2 * CALL_TIMEOUT_S)
    return print_result(args, result, volume_speed)


def _volume_info(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:volume.info", _volume(args.volume)), volume_info)


def _volume(argument: str) -> Json:
    """A path where there is a slash in it or something is called so, else a name or a fingerprint."""
    if "/" in argument or os.path.lexists(argument):
        return encode_path(absolute(argument))
    return {"volume": argument}


def volume_list(result: Json) -> list[str]:
    rows = []
    for volume in result["volumes"]:
        points = ", ".join(shown(item_name(point)) for point in volume["mount_points"])
        rows.append(
            [
                volume["short"],
                shown(volume["name"]),
                volume["state"] + (", tracked" if volume["is_tracked"] else ""),
                volume["volume_class"],
                volume["fs_type"],
                human_bytes(volume["size_bytes"]),
                f"{human_bytes(volume['free_bytes'])} free",
                points,
            ]
        )
    return table(rows, right=(5, 6)) if rows else ["no volumes"]


def volume_info(result: Json) -> list[str]:
    speed = ""
    if result.get("read_bps") is not None:
        speed = f"reads {human_bytes(result['read_bps'])}/s, writes {human_bytes(result['write_bps'])}/s"
    kind = ", ".join(
        word
        for word in (
            result["volume_class"],
            result["disk_type"],
            result["fs_type"],
            "removable" if result["is_removable"] else "",
            "read only" if result["is_read_only"] else "",
        )
        if word
    )
    return facts(
        [
            ("Volume", shown(result["name"])),
            ("Fingerprint", result["fingerprint"] + (" (ephemeral)" if result["is_ephemeral"] else "")),
            ("Label", shown(result["label"])),
            ("State", result["state"] + (", tracked" if result["is_tracked"] else "")),
            ("Kind", kind),
            ("From", shown(str(result["source"] or ""))),
            ("Mounted at", ", ".join(shown(item_name(point)) for point in result["mount_points"])),
            ("Room", f"{human_bytes(result['free_bytes'])} of {human_bytes(result['size_bytes'])} free"),
            ("Holds", ", ".join(shown(item_name(name)) for name in result["locations"])),
            ("First seen", human_time(result["first_seen_ns"])),
            ("Last seen", human_time(result["last_seen_ns"])),
            ("Speed", speed),
            ("Trouble", message(str(result.get("error") or ""))),
        ]
    )


def volume_tracked(result: Json) -> list[str]:
    return [f"{shown(result['name'])} ({result['short']}): known from now on"]


def volume_untracked(result: Json) -> list[str]:
    return [f"{shown(result['name'])} ({result['short']}): not tracked any more"]


def volume_ejected(result: Json) -> list[str]:
    points = ", ".join(shown(item_name(point)) for point in result["mount_points"])
    return [f"{shown(result['name'])}: unmounted from {points}; it can be pulled"]


def volume_speed(result: Json) -> list[str]:
    how = "" if result["direct"] else " (without O_DIRECT)"
    speeds = f"reads {human_bytes(result['read_bps'])}/s, writes {human_bytes(result['write_bps'])}/s"
    return [f"{shown(result['name'])}: {speeds}{how}"]
