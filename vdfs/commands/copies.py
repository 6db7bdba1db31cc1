"""`sd duplicates` and `sd unique`: files that are the same bytes, and what exists only in one place."""

import argparse
import os
from collections.abc import Iterator
from typing import Final

from vdfs.commands.arguments import Commands, as_count, as_size
from vdfs.commands.door import Door, Json
from vdfs.commands.output import complain, print_result
from vdfs.commands.words import count, human_bytes, name_of, shown, table
from vdfs.wire.jsonrpc import encode_name

LIMIT: Final = 100
PAGE: Final = 1000


def add(commands: Commands) -> None:
    text = "list files that are the same bytes, those first that waste most"
    duplicates = commands.add("duplicates [--min-size SIZE] [--limit N]", _duplicates, text)
    duplicates.add_argument("--min-size", type=as_size, default=1, metavar="SIZE", help="of files of at least so much")
    duplicates.add_argument(
        "--limit", type=as_count, default=LIMIT, metavar="N", help=f"at most N sets (default: {LIMIT})"
    )
    unique = commands.add("unique LOCATION [--limit N]", _unique, "list what of a location exists nowhere else")
    unique.add_argument("name", metavar="LOCATION", help="as `sd location list` shows it")
    unique.add_argument("--limit", type=as_count, metavar="N", help="at most N files (default: all)")


def _duplicates(door: Door, args: argparse.Namespace) -> int:
    """So many sets, each with all of its files, however many calls that takes."""
    asked = {"min_size": args.min_size, "limit": args.limit}
    result: Json = {"sets": [], "cursor": None, "unhashed": None, "held": None}
    for page in _pages(door, "query:search.duplicates", asked):
        _keep_counts(result, page)
        for one in page["sets"]:
            if result["sets"] and result["sets"][-1]["hash"] == one["hash"]:
                result["sets"][-1]["paths"] += one["paths"]
            else:
                result["sets"].append(one)
        result["cursor"] = page["cursor"]
        if len(result["sets"]) > args.limit or (len(result["sets"]) == args.limit and _is_whole(result["sets"][-1])):
            break
    result["sets"] = result["sets"][: args.limit]
    print_result(args, result, duplicate_sets)
    if result["cursor"] is not None and not args.json:
        complain(f"there are more than {count(args.limit, 'set')}; raise --limit to see them")
    return 0


def _is_whole(one: Json) -> bool:
    return sum(not copy["linked"] for copy in one["paths"]) >= int(one["files"])


def _unique(door: Door, args: argparse.Namespace) -> int:
    """Page by page for people, one object as JSON."""
    result: Json = {"files": [], "cursor": None, "unhashed": None, "held": None}
    files = size_bytes = 0
    asked = {**encode_name(os.fsencode(args.name)), "limit": PAGE if args.limit is None else min(args.limit, PAGE)}
    for page in _pages(door, "query:search.unique", asked):
        _keep_counts(result, page)
        told = page["files"] if args.limit is None else page["files"][: args.limit - files]
        files += len(told)
        size_bytes += sum(one["size_bytes"] for one in told)
        if args.json:
            result["files"] += told
        else:
            print_result(args, {"files": told}, unique_files)
        result["cursor"] = page["cursor"]
        if files == args.limit:
            break
    return print_result(args, result, lambda whole: unique_total(whole, files, size_bytes))


def _keep_counts(result: Json, page: Json) -> None:
    """They are on the first page alone."""
    if result["unhashed"] is None:
        result.update(unhashed=page["unhashed"], held=page["held"])


def _pages(door: Door, method: str, asked: Json) -> Iterator[Json]:
    page = door.call(method, {**asked, "cursor": None})
    yield page
    while page["cursor"] is not None:
        page = door.call(method, {**asked, "cursor": page["cursor"]})
        yield page


def duplicate_sets(result: Json) -> list[str]:
    lines = []
    for one in result["sets"]:
        files = count(one["files"], "file")
        lines.append(f"{human_bytes(one['wasted_bytes'])} wasted: {files} of {human_bytes(one['size_bytes'])}")
        lines += [
            f"  {'  = ' if copy['linked'] and at else ''}{shown(name_of(copy, 'path'))}"
            for at, copy in enumerate(one["paths"])
        ]
    wasted = sum(one["wasted_bytes"] for one in result["sets"])
    total = f"{count(len(result['sets']), 'set')}, {human_bytes(wasted)} wasted"
    return [*lines, total if lines else "no duplicates", *_unsaid(result)]


def unique_files(page: Json) -> list[str]:
    return table(([human_bytes(one["size_bytes"]), shown(name_of(one, "path"))] for one in page["files"]), right=(0,))


def unique_total(result: Json, files: int, size_bytes: int) -> list[str]:
    found = f"{count(files, 'file')}, {human_bytes(size_bytes)}, in no other place"
    if result["cursor"] is not None:
        found = f"the first {found}; raise --limit to see more"
    return [found if files else "nothing of it is known to exist only there", *_unsaid(result)]


def _unsaid(result: Json) -> list[str]:
    """What nothing is said of."""
    lines = []
    if result["unhashed"]:
        lines.append(f"not compared: {count(result['unhashed'], 'file')} without a full hash")
    if result["held"]:
        lines.append(f"not compared: {count(result['held'], 'file')} held back by rules")
    return lines
