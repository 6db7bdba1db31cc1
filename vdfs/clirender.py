"""What `sd` prints for people: results of operations as lines of text. Pure: JSON values in, lines out.

A name comes from anybody who could write a file, and a terminal obeys control characters. So every name
goes through `shown`: what is safe is printed as it is; a name with control characters, bidirectional
overrides, invisible format characters or undecodable bytes is printed as `$'...'` with escapes, which bash
and zsh read back as the same name.

Columns are aligned by the width that a terminal gives the characters; sizes are in units of 1024.
"""

import base64
import binascii
import re
import stat
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

Json = Mapping[str, Any]

UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: ESC and CSI among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides, isolates
    "\u00ad\u200b\u2028\u2029\u2060-\u2064\ufeff\ufff9-\ufffb"  # invisible, or line ends to some
    "\ud800-\udfff]"  # bytes that were not UTF-8
)
_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SHORT_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e", "\\": "\\\\", "'": "\\'"}


# -- Words


def shown(text: str) -> str:
    """A name, safe for a terminal."""
    if not UNSAFE.search(text) and not text.startswith("$'"):
        return text
    return "$'" + re.sub(rf"{UNSAFE.pattern}|[\\']", lambda match: _escape(match[0]), text) + "'"


def message(text: str) -> str:
    """A sentence that may contain names, on one line and safe for a terminal."""
    return UNSAFE.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def name_of(fields: Json, key: str) -> str:
    """The name under `key` of a result, undecodable bytes as surrogates, so that `shown` can print them."""
    b64 = fields.get(f"{key}_b64")
    if isinstance(b64, str):
        try:
            return base64.b64decode(b64.encode(), validate=True).decode(errors="surrogateescape")
        except (binascii.Error, UnicodeEncodeError):
            pass
    return str(fields.get(key) or "")


def _hash_state(result: Json) -> str:
    """Why there is no hash; nothing of what never has one."""
    return "" if result["hash_state"] == "none" else str(result["hash_state"])


def human_bytes(size_bytes: int) -> str:
    """`512 B`, `1.5 KiB`, `23 MiB`: three digits are enough to compare by eye."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes} B"
    value, power = size_bytes / 1024, 0
    while abs(value) >= 999.5 and power < len(_UNITS) - 1:
        value /= 1024
        power += 1
    return f"{value:.1f} {_UNITS[power]}" if abs(value) < 9.95 else f"{value:.0f} {_UNITS[power]}"


def count(number: int, singular: str, plural: str = "") -> str:
    """`1 file`, `12 345 files`."""
    return f"{number:,} ".replace(",", " ") + (singular if number == 1 else plural or f"{singular}s")


def human_time(time_ns: int | None) -> str:
    """Local time to the minute; `-` when there is none or it is beyond the calendar."""
    if time_ns is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_ns // 1_000_000_000))
    except (OverflowError, ValueError, OSError):
        return "-"


def human_duration(seconds: float) -> str:
    """`41 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`: two units at most."""
    whole = max(0, int(seconds))
    units = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((i for i, (value, _) in enumerate(units) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in units[first : first + 2] if value or first == 3)


def table(rows: Iterable[Iterable[str]], right: Iterable[int] = ()) -> list[str]:
    """Rows as aligned columns, two spaces between; those in `right` are flush right, the last not padded."""
    cells = [list(row) for row in rows]
    flush_right = set(right)
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        padded = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - _width(cell))
            padded.append(space + cell if i in flush_right else cell + space)
        lines.append("  ".join(padded).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns that a terminal gives the text."""
    if text.isascii():
        return len(text)
    import unicodedata  # rarely needed, and `sd` starts often

    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return table((label, value) for label, value in pairs if value)


# -- Results


def status(result: Json, running: bool) -> list[str]:
    if running:
        served = f"process {result['pid']} for {human_duration(result['uptime_s'])}, version {result['version']}"
        mounted = shown(name_of(result, "mountpoint")) or "nowhere"
    else:
        served, mounted = "nobody; `sdmount MOUNTPOINT` mounts it", ""
    return _facts(
        [
            *_library_facts(result),
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
    files = count(scan["pending_files"], "file")
    current = shown(name_of(scan, "current"))
    return f"{dirs} and {files} left{f', at {current}' if current else ''}{errors}"


def library(result: Json) -> list[str]:
    return _facts([*_library_facts(result), ("Data in", shown(name_of(result, "data_dir")))])


def _library_facts(result: Json) -> list[tuple[str, str]]:
    contents = f", {count(result['contents'], 'distinct content')}" if result.get("contents") else ""
    held = f"{count(result['files'], 'file')}, {count(result['dirs'], 'directory', 'directories')}"
    return [
        ("Library", f"{shown(str(result['library']))} ({result['library_id']})"),
        ("Device", f"{shown(str(result['device']))} ({result['device_id']})"),
        ("Holds", f"{held}, {human_bytes(result['bytes'])}{contents}"),
        ("Locations", f"{result['locations']}"),
        ("Tags", f"{result['tags']}"),
        ("Database", human_bytes(result["database_bytes"])),
    ]


def location_list(result: Json) -> list[str]:
    rows = []
    for location in result["locations"]:
        name = shown(name_of(location, "name"))
        for branch in location["branches"] or [{}]:
            error = f"  ({message(str(branch['error']))})" if branch.get("error") else ""
            entries = count(branch.get("entries") or 0, "entry", "entries")
            state = str(branch.get("state", "no branch"))
            rows.append(
                [name, str(location["mode"]) if name else "", entries, state, shown(name_of(branch, "path")) + error]
            )
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


def skipped(result: Json) -> list[str]:
    rows = [
        [str(one["rule"]), f"{one['below']:,}".replace(",", " ") if one["below"] else "", shown(name_of(one, "path"))]
        for one in result["skipped"]
    ]
    counts = [f"{shown(str(one['rule']))} {count(one['entries'], 'entry', 'entries')}" for one in result["counts"]]
    judging = ["rules are being applied; this may change in a moment"] if result["judging"] else []
    return [*table(rows, right=(1,)), f"held back: {', '.join(counts)}" if counts else "nothing is held back", *judging]


def volume_list(result: Json) -> list[str]:
    rows = []
    for volume in result["volumes"]:
        points = ", ".join(shown(_item(point)) for point in volume["mount_points"])
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
    return _facts(
        [
            ("Volume", shown(result["name"])),
            ("Fingerprint", result["fingerprint"] + (" (ephemeral)" if result["is_ephemeral"] else "")),
            ("Label", shown(result["label"])),
            ("State", result["state"] + (", tracked" if result["is_tracked"] else "")),
            ("Kind", kind),
            ("From", shown(str(result["source"] or ""))),
            ("Mounted at", ", ".join(shown(_item(point)) for point in result["mount_points"])),
            ("Room", f"{human_bytes(result['free_bytes'])} of {human_bytes(result['size_bytes'])} free"),
            ("Holds", ", ".join(shown(_item(name)) for name in result["locations"])),
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
    points = ", ".join(shown(_item(point)) for point in result["mount_points"])
    return [f"{shown(result['name'])}: unmounted from {points}; it can be pulled"]


def volume_speed(result: Json) -> list[str]:
    how = "" if result["direct"] else " (without O_DIRECT)"
    speeds = f"reads {human_bytes(result['read_bps'])}/s, writes {human_bytes(result['write_bps'])}/s"
    return [f"{shown(result['name'])}: {speeds}{how}"]


def tag_changed(result: Json) -> list[str]:
    rows = [[shown(name_of(item, "path")), shown(", ".join(item["tags"])) or "-"] for item in result["paths"]]
    return [*table(rows), f"{count(result['changed'], 'file')} changed"]


def tag_counts(result: Json) -> list[str]:
    return table(([f"{tag['count']}", shown(tag["name"])] for tag in result["tags"]), right=(0,))


def tag_names(result: Json) -> list[str]:
    return [shown(tag["name"]) for tag in result["tags"]]


def search_hits(result: Json) -> list[str]:
    rows = []
    for hit in result["hits"]:
        is_directory = hit["kind"] == "directory"
        size = "-" if is_directory else human_bytes(hit["size_bytes"])
        rows.append([size, human_time(hit["mtime_ns"]), shown(name_of(hit, "path") + "/" * is_directory)])
    return table(rows, right=(0,))


def saved_searches(result: Json) -> list[str]:
    rows = [[shown(name_of(search, "name")), shown(str(search["query"]))] for search in result["searches"]]
    return table(rows) if rows else ["no saved searches; `sd search --save NAME QUERY` keeps one"]


def search_saved(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: saved, {shown(str(result['query']))}"]


def search_forgotten(result: Json) -> list[str]:
    return [f"{shown(name_of(result, 'name'))}: is no saved search any more; no file is touched"]


def file_info(result: Json) -> list[str]:
    size = result["size_bytes"]
    exact = f" ({size:,} bytes)".replace(",", " ") if size >= 1024 else ""
    rating = result.get("rating")
    lines = _facts(
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
            ("Version", str(result["version"] or "")),
            ("Tags", shown(", ".join(result["tags"]))),
            ("Rating", "" if rating is None else f"{rating} of 10"),
            ("Comment", message(str(result.get("comment") or ""))),
            ("Xattrs", ", ".join(shown(_item(item)) for item in result["xattrs"])),
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


def differences(result: Json) -> list[str]:
    rows = [
        [str(difference["kind"]), shown(name_of(difference, "path")), message(str(difference["detail"]))]
        for difference in result["differences"]
    ]
    checked = count(result["checked"], "entry", "entries")
    found = count(len(rows), "difference") if rows else "no differences"
    return [*table(rows), f"{checked} checked, {found}"]


def _item(item: Any) -> str:
    """A name in a list: text, or an object with a twin."""
    return name_of(item, "name") if isinstance(item, Mapping) else str(item)
