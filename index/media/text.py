"""Text: how a file begins. Its encoding, its first lines, a snippet to show.

Nothing but the first HEAD_BYTES is read, so a log of many gigabytes costs what a note does.
"""

from collections.abc import Mapping
from typing import BinaryIO, Final

from index.model.filetype import FileType

HEAD_BYTES: Final = 16 << 10
SNIPPET_CHARS: Final = 512

_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def extract(file: BinaryIO, _kind: FileType) -> Mapping[str, object]:
    """Encoding, lines of the head, snippet."""
    head = file.read(HEAD_BYTES)
    text, encoding = _decoded(head)
    shown = "".join(c if c.isprintable() else " " for c in text[: 16 * SNIPPET_CHARS])
    lines = text.count("\n") + bool(text and not text.endswith("\n"))
    return {"encoding": encoding, "head_lines": lines, "snippet": " ".join(shown.split())[:SNIPPET_CHARS]}


def _decoded(head: bytes) -> tuple[str, str]:
    """The text and what its encoding is called; a character that the end of the head cuts is left out."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return head.decode(encoding, "replace"), "utf-16" if encoding == "utf-16" else "utf-8"
    if head.isascii():
        return head.decode(), "ascii"
    try:
        return head.decode(), "utf-8"
    except UnicodeDecodeError as error:
        if error.start >= len(head) - 3 and len(head) == HEAD_BYTES:
            return head[: error.start].decode(), "utf-8"
        return head.decode("latin-1"), "unknown-8bit"
