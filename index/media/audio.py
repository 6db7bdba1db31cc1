"""Audio: the extractor of tags and lengths. Workers only.

Pictures that a file carries are not read. A length of zero is left out: it is the parser's way to say that it found
none.
"""

import re
from collections.abc import Mapping
from typing import BinaryIO, Final

from tinytag import TinyTag

from index.model.filetype import FileType

_YEAR: Final = re.compile(r"\d{4}")
#: Our name -> the parser's.
_NAMES: Final = {
    "title": "title", "artist": "artist", "album": "album", "album_artist": "albumartist", "composer": "composer",
    "genre": "genre", "track": "track", "tracks": "track_total", "disc": "disc", "discs": "disc_total",
    "comment": "comment", "duration_s": "duration", "bitrate_kbps": "bitrate", "sample_rate_hz": "samplerate",
    "channels": "channels", "bit_depth": "bitdepth",
}  # fmt: skip


def extract(file: BinaryIO, _kind: FileType) -> Mapping[str, object]:
    """Tags and length."""
    tag = TinyTag.get(file_obj=file)
    found = {name: getattr(tag, theirs, None) for name, theirs in _NAMES.items()}
    year = _YEAR.search(tag.year or "")
    if year:
        found["year"] = int(year[0])
    return {name: value for name, value in found.items() if value not in (None, "", 0, 0.0)}
