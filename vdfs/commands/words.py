"""Words: names, sizes, times and columns as `sd` prints them for people. Pure.

A name comes from anybody who could write a file, and a terminal obeys control characters. So every name
goes through `shown`: what is safe is printed as it is; a name with control characters, bidirectional
overrides, invisible format characters or undecodable bytes is printed as `$'...'` with escapes, which bash
and zsh read back as the same name.

Columns are aligned by the width that a terminal gives the characters; sizes are in units of 1024.
"""

import base64
import binascii
import re
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


def item_name(item: Any) -> str:
    """A name in a list: text, or an object with a twin."""
    return name_of(item, "name") if isinstance(item, Mapping) else str(item)


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


def facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return table((label, value) for label, value in pairs if value)
