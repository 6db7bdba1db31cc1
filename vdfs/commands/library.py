"""`sd library`: what it holds; whether its database is sound, and its repair.

A check asks the process that has the library open; when nobody has, the database is looked through as it lies, without
the steps that opening it takes. A repair is only for a library that nobody has open.
"""

import argparse

from vdfs.commands.arguments import Commands
from vdfs.commands.door import Door, Json
from vdfs.commands.output import print_result
from vdfs.commands.status import library_facts, status_now
from vdfs.commands.words import count, facts, message, name_of, shown


def add(commands: Commands) -> None:
    commands.add("library info", _info, "show what the library holds and where it lies")
    text = "look through its database; exit code 0 sound, 1 faults, 2 could not"
    check = commands.add("library check", _check, text)
    check.set_defaults(could_not_only=True)
    text = "mend the database of a library that is not mounted, or save what can be read of it"
    commands.add("library repair", _repair, text)


def _info(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, status_now(door), info)


def _check(door: Door, args: argparse.Namespace) -> int:
    result = door.check()
    print_result(args, result, checked)
    return 1 if result["faults"] else 0


def _repair(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.repair(), repaired)


def info(result: Json) -> list[str]:
    return facts([*library_facts(result), ("Data in", shown(name_of(result, "data_dir")))])


def checked(result: Json) -> list[str]:
    faults = [message(str(fault)) for fault in result["faults"]]
    found = f"{count(len(faults), 'fault')}; `sd library repair` mends them when it is not mounted"
    return [*faults, found if faults else "the library is sound"]


def repaired(result: Json) -> list[str]:
    said = {
        "sound": "the library was sound; nothing was done",
        "mended": "the library is sound again",
        "recovered": "the library was damaged; what could be read is in a fresh database",
        "restored": "nothing could be read of the database; the backup is back",
    }[result["how"]]
    aside = shown(name_of(result, "aside"))
    return [
        *(message(str(line)) for line in result["did"]),
        *(message(str(line)) for line in result["lost"]),
        *([f"the damaged file is kept as {aside}"] if aside else []),
        said,
    ]
