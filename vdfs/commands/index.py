"""`sd index`: whether the index is right, and what rules hold back."""

import argparse
import os
from typing import Any, Final

from vdfs.commands.arguments import Commands, as_count, library_or_absolute
from vdfs.commands.door import Door, Json
from vdfs.commands.output import complain, print_result
from vdfs.commands.words import count, message, name_of, shown, table
from vdfs.wire.jsonrpc import encode_name, encode_path

SKIPPED: Final = 1000


def add(commands: Commands) -> None:
    text = "compare the index with the disk; exit code 0 clean, 1 differences, 2 could not"
    verify = commands.add("index verify [NAME] [--content]", _index_verify, text)
    verify.add_argument("name", metavar="NAME", nargs="?", help="one location (default: all)")
    verify.add_argument("--content", action="store_true", help="also read the files, compare hashes")
    verify.set_defaults(could_not_only=True)

    text = "show what rules hold back from being read and found, and how much by each"
    skipped = commands.add("index skipped PATH [--all] [--limit N]", _index_skipped, text)
    skipped.add_argument("path", metavar="PATH", help="a directory")
    skipped.add_argument("--all", action="store_true", help="also what lies in directories that are held")
    skipped.add_argument("--limit", type=as_count, default=SKIPPED, metavar="N", help=f"(default: {SKIPPED})")


def _index_verify(door: Door, args: argparse.Namespace) -> int:
    name = {"name": None} if args.name is None else encode_name(os.fsencode(args.name))
    result = door.call("query:index.verify", {**name, "content": args.content}, timeout_s=None)
    print_result(args, result, differences)
    return 1 if result["differences"] else 0


def _index_skipped(door: Door, args: argparse.Namespace) -> int:
    """Page through all that is held back, until so many are told."""
    params = {**encode_path(library_or_absolute(args.path)), "everything": args.all}
    after: Json = {"after": None}
    told: list[Any] = []
    while True:
        result = door.call("query:index.skipped", {**params, **after, "limit": args.limit - len(told)}, timeout_s=None)
        told += result["skipped"]
        if not result["more"] or len(told) >= args.limit:
            break
        after = {key: value for key, value in result.items() if key in ("more", "more_b64")}
        after = {key.replace("more", "after"): value for key, value in after.items()}
    result = {**result, "skipped": told}
    print_result(args, result, skipped)
    if result.get("more") and not args.json:
        complain(f"more than {args.limit} are held back; raise --limit to see more")
    return 0


def differences(result: Json) -> list[str]:
    rows = [
        [str(difference["kind"]), shown(name_of(difference, "path")), message(str(difference["detail"]))]
        for difference in result["differences"]
    ]
    checked = count(result["checked"], "entry", "entries")
    found = count(len(rows), "difference") if rows else "no differences"
    return [*table(rows), f"{checked} checked, {found}"]


def skipped(result: Json) -> list[str]:
    rows = [
        [str(one["rule"]), f"{one['below']:,}".replace(",", " ") if one["below"] else "", shown(name_of(one, "path"))]
        for one in result["skipped"]
    ]
    counts = [f"{shown(str(one['rule']))} {count(one['entries'], 'entry', 'entries')}" for one in result["counts"]]
    judging = ["rules are being applied; this may change in a moment"] if result["judging"] else []
    return [*table(rows, right=(1,)), f"held back: {', '.join(counts)}" if counts else "nothing is held back", *judging]
