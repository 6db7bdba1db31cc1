"""`sd info`: all that is known of one file."""

import argparse
import stat

from vdfs.commands.arguments import Commands, library_or_absolute
from vdfs.commands.door import Door, Json
from vdfs.commands.output import print_result
from vdfs.commands.words import count, facts, human_bytes, human_time, item_name, message, name_of, shown, table
from vdfs.wire.jsonrpc import encode_path


def add(commands: Commands) -> None:
    info = commands.add("info PATH", _info, "show all that is known of one file or directory")
    info.add_argument("path", metavar="PATH", help="a file or directory")


def _info(door: Door, args: argparse.Namespace) -> int:
    params = encode_path(library_or_absolute(args.path))
    return print_result(args, door.call("query:file.info", params), file_info)


def _hash_state(result: Json) -> str:
    """Why there is no hash; nothing of what never has one."""
    return "" if result["hash_state"] == "none" else str(result["hash_state"])


def file_info(result: Json) -> list[str]:
    size = result["size_bytes"]
    exact = f" ({size:,} bytes)".replace(",", " ") if size >= 1024 else ""
    rating = result.get("rating")
    lines = facts(
        [
            ("Path", shown(name_of(result, "path"))),
            ("Kind", ", ".join(str(result[key]) for key in ("kind", "type", "mime") if result.get(key))),
            ("Size", human_bytes(size) + exact),
            ("Below", _below(result["below"])),
            ("Modified", human_time(result["mtime_ns"])),
            ("Mode", f"{stat.filemode(result['mode'])} ({result['mode'] & 0o7777:04o})"),
            ("Inode", str(result["inode"])),
            ("UUID", str(result["uuid"] or "none yet")),
            (
                "Hash",
                f"{result['hash']} ({result['hash_state']})" if result.get("hash") else _hash_state(result),
            ),
            ("State", str(result["state"])),
            ("Held by", shown(str(result.get("rule") or ""))),
            ("Unread", message(str(result.get("unread") or ""))),
            ("Version", str(result["version"] or "")),
            ("Tags", shown(", ".join(result["tags"]))),
            ("Rating", "" if rating is None else f"{rating} of 10"),
            ("Comment", message(str(result.get("comment") or ""))),
            ("Xattrs", ", ".join(shown(item_name(item)) for item in result["xattrs"])),
        ]
    )
    replicas = [
        [
            f"  {shown(str(r['device']))}",
            shown(name_of(r, "branch")),
            str(r["state"]),
            shown(name_of(r, "path")),
        ]
        for r in result["replicas"]
    ]
    meta = [[f"  {shown(name)}", message(str(value))] for name, value in result["meta"].items()]
    if meta:
        lines += ["Content", *table(meta)]
    return [*lines, "Replicas", *table(replicas)] if replicas else lines


def _below(below: Json | None) -> str:
    if below is None:
        return ""
    files, dirs = count(below["files"], "file"), count(below["dirs"], "directory", "directories")
    return f"{files} in {dirs}, {human_bytes(below['bytes'])}"
