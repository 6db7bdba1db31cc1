"""Images by Pillow: opening one within bounds, and the extractor that reads its size and EXIF. Workers only.

In: a binary file whose type is known by its bytes. Out: an image that is not decoded yet, or fields. A head that
promises more than PIXELS_MAX is refused before anything is decoded; chunks of compressed text are bounded by Pillow
(64 MiB an image); what gets past both meets the limits of the process (sandbox.py).

Source: Exif 2.32 (CIPA DC-008), tables 4 to 15.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import pi_heif
from PIL import Image, ImageFile

from index.media.registry import IMAGE_FORMATS
from index.model.filetype import FileType

#: 400 MB decoded with four bytes a pixel.
PIXELS_MAX: Final = 100_000_000
#: Pillow reads some formats into memory whole.
SOURCE_MAX_BYTES: Final = 512 << 20

Image.MAX_IMAGE_PIXELS = PIXELS_MAX
ImageFile.LOAD_TRUNCATED_IMAGES = False
pi_heif.register_heif_opener(thumbnails=False)
Image.init()

_EXIF_IFD: Final = 0x8769
_GPS_IFD: Final = 0x8825
_ORIENTATION: Final = 0x0112

_MAIN_TAGS: Final = {
    "make": 0x010F, "model": 0x0110, "software": 0x0131, "creator": 0x013B, "copyright": 0x8298, "description": 0x010E,
}  # fmt: skip
_EXIF_TAGS: Final = {
    "lens": 0xA434, "exposure_s": 0x829A, "aperture": 0x829D, "iso": 0x8827, "focal_mm": 0x920A, "focal_35_mm": 0xA405,
}  # fmt: skip
_TIMES: Final = ((0x9003, 0x9011), (0x9004, 0x9012))  # taken, digitised; each with its offset from UTC
_TIME: Final = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d:\d\d:\d\d)")
_OFFSET: Final = re.compile(r"[+-]\d\d:\d\d")


class TooBig(Exception):
    """More pixels or bytes than we decode."""


def opened(file: BinaryIO, kind: FileType) -> Image.Image:
    """The image, its head read. Raises TooBig, or what Pillow raises for a file that is none."""
    size_bytes = file.seek(0, 2)
    if size_bytes > SOURCE_MAX_BYTES:
        raise TooBig(f"a file of {size_bytes} bytes, over the limit of {SOURCE_MAX_BYTES}")
    file.seek(0)
    try:
        image = Image.open(file, formats=IMAGE_FORMATS[kind.name])
    except Image.DecompressionBombError as error:
        raise TooBig(str(error)) from error
    width, height = image.size
    if width * height > PIXELS_MAX:
        raise TooBig(f"{width} x {height} pixels, over the limit of {PIXELS_MAX}")
    return image


def orientation(image: Image.Image) -> int:
    """How it is to be turned, 1 to 8 as EXIF has it; 1 where it does not say."""
    if image.format == "HEIF":
        return 1  # its decoder has turned it
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (ValueError, SyntaxError, OSError, ArithmeticError, LookupError):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def extract(file: BinaryIO, kind: FileType) -> Mapping[str, object]:
    """Size and EXIF."""
    with opened(file, kind) as image:
        turn = orientation(image)
        width, height = image.size if turn < 5 else image.size[::-1]
        found: dict[str, object] = {"width": width, "height": height, "orientation": turn, "colour": image.mode}
        try:
            _read_exif(image.getexif(), found)
        except (ValueError, SyntaxError, OSError, ArithmeticError, LookupError, TypeError, AttributeError):
            pass  # damaged EXIF is common, and the size is worth having
        return found


def _read_exif(exif: Image.Exif, found: dict[str, object]) -> None:
    for name, tag in _MAIN_TAGS.items():
        found[name] = _plain(exif.get(tag))
    more = exif.get_ifd(_EXIF_IFD)
    for name, tag in _EXIF_TAGS.items():
        found[name] = _plain(more.get(tag))
    flash = more.get(0x9209)
    if isinstance(flash, int):
        found["flash"] = flash & 1
    for tag, offset_tag in _TIMES:
        taken = _time(more.get(tag), more.get(offset_tag))
        if taken:
            found["taken"] = taken
            break
    gps = exif.get_ifd(_GPS_IFD)
    latitude, longitude = _degrees(gps.get(2), gps.get(1), 90), _degrees(gps.get(4), gps.get(3), 180)
    if latitude is not None and longitude is not None:
        found["latitude"], found["longitude"] = latitude, longitude
    altitude = _plain(gps.get(6))
    if altitude is not None:
        below = gps.get(5) in (1, b"\x01")
        found["altitude_m"] = -float(altitude) if below else float(altitude)


def _plain(value: Any) -> Any:
    """One value of what EXIF may keep as several."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _time(text: Any, offset: Any) -> str | None:
    found = _TIME.match(text) if isinstance(text, str) else None
    if found is None or found[1] == "0000":
        return None
    zone = offset if isinstance(offset, str) and _OFFSET.fullmatch(offset) else ""
    return f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone}"


def _degrees(parts: Any, side: Any, most: int) -> float | None:
    """Degrees from (degrees, minutes, seconds) and N, S, E or W."""
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    degrees, minutes, seconds = (float(part) for part in parts)
    value = degrees + minutes / 60 + seconds / 3600
    if not math.isfinite(value) or not 0 <= value <= most:
        return None
    return -value if side in ("S", "W") else value
