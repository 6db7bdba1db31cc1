"""Fields: the facts that extractors give, each of one type, and bounded, whoever wrote the file.

In: what an extractor found, as it found it. Out: an object of at most FIELDS_MAX numbers and texts that msgpack and
JSON can say. A value that has not the form of its field is left out: it came from a stranger's file.

Times are texts by ISO 8601; a camera knows no zone, so most have none.
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from index.store.extracts import Value

FIELDS_MAX: Final = 64
#: Of one text, as UTF-8.
TEXT_MAX_BYTES: Final = 4096
_INT_MAX: Final = (1 << 63) - 1

INT = "int"
FLOAT = "float"
TEXT = "text"
TIME = "time"


class Field(NamedTuple):
    type: str
    about: str


FIELDS: Final[Mapping[str, Field]] = {
    "width": Field(INT, "pixels, as it is shown"),
    "height": Field(INT, "pixels, as it is shown"),
    "orientation": Field(INT, "1 to 8, as EXIF has it; width, height and thumbnails follow it"),
    "colour": Field(TEXT, "how a pixel is kept: RGB, RGBA, L (grey), P (palette), …"),
    "taken": Field(TIME, "when the picture was taken"),
    "make": Field(TEXT, "who made the camera"),
    "model": Field(TEXT, "which camera"),
    "lens": Field(TEXT, "which lens"),
    "exposure_s": Field(FLOAT, "exposure, seconds"),
    "aperture": Field(FLOAT, "f-number"),
    "iso": Field(INT, "sensitivity"),
    "focal_mm": Field(FLOAT, "focal length, mm"),
    "focal_35_mm": Field(INT, "focal length as if on 35 mm film, mm"),
    "flash": Field(INT, "1 when it fired, else 0"),
    "latitude": Field(FLOAT, "degrees, north positive"),
    "longitude": Field(FLOAT, "degrees, east positive"),
    "altitude_m": Field(FLOAT, "above the sea, m"),
    "software": Field(TEXT, "what wrote the file"),
    "creator": Field(TEXT, "who made the picture"),
    "copyright": Field(TEXT, "whose rights they are"),
    "description": Field(TEXT, "what it shows"),
    "title": Field(TEXT, "title of a piece"),
    "artist": Field(TEXT, "who plays"),
    "album": Field(TEXT, "album"),
    "album_artist": Field(TEXT, "who made the album"),
    "composer": Field(TEXT, "who wrote it"),
    "genre": Field(TEXT, "genre"),
    "track": Field(INT, "number on the disc"),
    "tracks": Field(INT, "how many there are on the disc"),
    "disc": Field(INT, "number of the disc"),
    "discs": Field(INT, "how many discs there are"),
    "year": Field(INT, "year"),
    "comment": Field(TEXT, "note in the file"),
    "duration_s": Field(FLOAT, "length, seconds"),
    "bitrate_kbps": Field(FLOAT, "kbit a second"),
    "sample_rate_hz": Field(INT, "samples a second"),
    "channels": Field(INT, "channels"),
    "bit_depth": Field(INT, "bits a sample"),
    "encoding": Field(TEXT, "how the text is encoded: ascii, utf-8, utf-16, unknown-8bit"),
    "head_lines": Field(INT, "lines in the first 16 KiB"),
    "snippet": Field(TEXT, "how it begins: 512 characters, blanks made one"),
}


def bounded(found: Mapping[str, object]) -> dict[str, Value]:
    """What may be kept of what was found: known fields that have a value of their type."""
    kept: dict[str, Value] = {}
    for name, field in FIELDS.items():
        value = _fitting(field.type, found[name]) if name in found else None
        if value is not None and len(kept) < FIELDS_MAX:
            kept[name] = value
    return kept


def _fitting(kind: str, value: object) -> Value | None:
    try:
        if kind in (TEXT, TIME):
            return _text(value) if isinstance(value, str) else None
        number = float(value)  # type: ignore[arg-type] # rationals of EXIF are numbers of a class of their own
        if not math.isfinite(number):
            return None
        if kind == FLOAT:
            return round(number, 7)
        return int(number) if abs(number) <= _INT_MAX else None
    except (TypeError, ValueError, ArithmeticError):
        return None


def _text(value: str) -> str | None:
    """Without what ends a C string, and cut on a character."""
    clean = value.partition("\0")[0].strip()
    return clean.encode("utf-8", "replace")[:TEXT_MAX_BYTES].decode("utf-8", "ignore") or None


def shown(value: Value) -> str:
    """A value as text: what an attribute and a terminal show."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
