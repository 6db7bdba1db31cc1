"""`sd location`: the directories that the library holds."""

import argparse
import os
from typing import Final

from vdfs.commands.arguments import Commands, absolute, as_text
from vdfs.commands.door import Door, Json
from vdfs.commands.output import print_result
from vdfs.commands.words import count, message, name_of, shown, table
from vdfs.wire.jsonrpc import encode_item, encode_name, encode_path

MODES: Final = ("shallow", "content", "deep")


def add(commands: Commands) -> None:
    text = "add a directory; it is shown at once, the scan runs behind"
    add = commands.add("location add DIR [--name NAME] [--mode MODE] [--one-file-system]", _location_add, text)
    add.add_argument("dir", metavar="DIR", help="the directory; nothing in it is changed")
    add.add_argument("--name", type=as_text, metavar="NAME", help="its name in the mount (default: as DIR)")
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


def _location_add(door: Door, args: argparse.Namespace) -> int:
    name = {"name": None} if args.name is None else encode_name(os.fsencode(args.name))
    bound = {"one_file_system": True} if args.one_file_system else {}
    params = {**encode_path(absolute(args.dir)), **name, **bound, "mode": args.mode}
    return print_result(args, door.call("action:location.add", params), location_added)


def _location_mode(door: Door, args: argparse.Namespace) -> int:
    params = {**encode_name(os.fsencode(args.name)), "mode": args.mode}
    return print_result(args, door.call("action:location.mode", params), location_mode)


def _location_list(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:location.list"), location_list)


def _location_remove(door: Door, args: argparse.Namespace) -> int:
    params = encode_name(os.fsencode(args.name))
    return print_result(args, door.call("action:location.remove", params), location_removed)


def _location_rescan(door: Door, args: argparse.Namespace) -> int:
    params = encode_name(os.fsencode(args.name))
    return print_result(args, door.call("action:location.rescan", params), location_rescanned)


def _location_rules(door: Door, args: argparse.Namespace) -> int:
    patterns = {
        key: [encode_item(os.fsencode(one)) for one in getattr(args, key)]
        for key in ("accept", "reject", "accept_with", "reject_with")
    }
    switches = {"on": args.on, "off": args.off, "clear": args.clear}
    params = {**encode_name(os.fsencode(args.name)), **switches, **patterns}
    return print_result(args, door.call("action:location.rules", params), location_rules)


def location_list(result: Json) -> list[str]:
    rows = []
    for location in result["locations"]:
        name = shown(name_of(location, "name"))
        for branch in location["branches"] or [{}]:
            error = f"  ({message(str(branch['error']))})" if branch.get("error") else ""
            entries = count(branch.get("entries") or 0, "entry", "entries")
            state = str(branch.get("state", "no branch"))
            place = shown(name_of(branch, "path")) + error
            if branch.get("device"):
                place = f"{shown(str(branch['device']))}: {place}"
            rows.append([name, str(location["mode"]) if name else "", entries, state, place])
            name = ""
    return table(rows, right=(2,)) if rows else ["no locations; `sd location add DIR` adds one"]


def location_added(result: Json) -> list[str]:
    name, path = shown(name_of(result, "name")), shown(name_of(result, "path"))
    return [f"{name}: added {path}; `sd status` shows the scan"]


def location_mode(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: {result['mode']}; `sd job list` shows what that makes to do"]


def location_removed(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: removed from the library; its files stay where they are"]


def location_rescanned(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: is scanned again; `sd status` shows the scan"]


def location_rules(result: Json) -> list[str]:
    rows = [[str(rule["name"]), "on" if rule["on"] else "off", str(rule["about"])] for rule in result["rules"]]
    own = [[f"  {rule['kind']}", shown(name_of(rule, "pattern"))] for rule in result["own"]]
    name = shown(name_of(result, "name"))
    changed = [f"{name}: is judged anew; `sd index skipped` shows what is held back"] if result["changed"] else []
    return [*table(rows), *(["Its own", *table(own)] if own else []), *changed]
