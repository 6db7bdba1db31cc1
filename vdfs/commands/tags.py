"""`sd tag`: the tags of files and directories."""

import argparse
from collections.abc import Iterator
from typing import Final

from vdfs.commands.arguments import Commands, as_text, library_or_absolute
from vdfs.commands.door import Door, Json
from vdfs.commands.output import print_result
from vdfs.commands.words import count, name_of, shown, table
from vdfs.wire.jsonrpc import MAX_LINE_BYTES, encode_item, encode_path

REQUEST_BYTES: Final = MAX_LINE_BYTES // 4  # of paths in one call; JSON escapes may make them longer


def add(commands: Commands) -> None:
    tag = commands.add("tag add TAG PATH...", _tag_add, "give a tag to files and directories")
    untag = commands.add("tag remove TAG PATH...", _tag_remove, "take a tag from files and directories")
    for change in (tag, untag):
        change.add_argument("tag", metavar="TAG", type=as_text, help="the tag")
        change.add_argument("paths", metavar="PATH", nargs="+", help="files or directories")
    tags = commands.add("tag list [PATH]", _tag_list, "list all tags, or those of one file")
    tags.add_argument("path", metavar="PATH", nargs="?", help="a file or directory")


def _tag_add(door: Door, args: argparse.Namespace) -> int:
    return _tag_change(door, args, "action:tag.add")


def _tag_remove(door: Door, args: argparse.Namespace) -> int:
    return _tag_change(door, args, "action:tag.remove")


def _tag_change(door: Door, args: argparse.Namespace, method: str) -> int:
    """Tag many paths in as few calls as a request may be long; each call is one write."""
    result: Json = {"changed": 0, "paths": []}
    for paths in _portions([library_or_absolute(path) for path in args.paths]):
        part = door.call(method, {"tag": args.tag, "paths": [encode_item(path) for path in paths]})
        result["changed"] += part["changed"]
        result["paths"] += part["paths"]
    return print_result(args, result, tag_changed)


def _tag_list(door: Door, args: argparse.Namespace) -> int:
    params = {"path": None} if args.path is None else encode_path(library_or_absolute(args.path))
    render = tag_counts if args.path is None else tag_names
    return print_result(args, door.call("query:tag.list", params), render)


def _portions(paths: list[bytes]) -> Iterator[list[bytes]]:
    """The paths in order, cut so that each portion fits a request."""
    portion: list[bytes] = []
    size_bytes = 0
    for path in paths:
        if portion and size_bytes + len(path) > REQUEST_BYTES:
            yield portion
            portion, size_bytes = [], 0
        portion.append(path)
        size_bytes += len(path) + 8
    yield portion


def tag_changed(result: Json) -> list[str]:
    rows = [[shown(name_of(item, "path")), shown(", ".join(item["tags"])) or "-"] for item in result["paths"]]
    return [*table(rows), f"{count(result['changed'], 'file')} changed"]


def tag_counts(result: Json) -> list[str]:
    return table(([f"{tag['count']}", shown(tag["name"])] for tag in result["tags"]), right=(0,))


def tag_names(result: Json) -> list[str]:
    return [shown(tag["name"]) for tag in result["tags"]]
