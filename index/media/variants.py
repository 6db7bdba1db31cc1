"""Variants of thumbnails: names, how long their longer side is at most, how well they are kept."""

import re
from typing import Final, NamedTuple

from index.model.errors import Invalid


class Variant(NamedTuple):
    """`side` in pixels, `quality` of the WebP from 0 to 100."""

    name: str
    side: int
    quality: int


_KNOWN: Final = {
    one.name: one
    for one in (
        Variant("icon@1x", 128, 80),
        Variant("icon@2x", 256, 80),
        Variant("grid@1x", 256, 85),
        Variant("grid@2x", 512, 85),
        Variant("detail@1x", 1024, 90),
        Variant("detail@2x", 2048, 90),
    )
}
_CUSTOM: Final = re.compile(r"custom@([1-9]\d{0,3})px")
_CUSTOM_QUALITY: Final = 85
CUSTOM_SIDE_MAX: Final = 4096

#: What is made of every image.
DEFAULT: Final = ("grid@1x", "grid@2x", "detail@1x")


def variant(name: str) -> Variant:
    """The variant of a name: one of the table, or `custom@640px`. Raises Invalid."""
    found = _KNOWN.get(name)
    if found is not None:
        return found
    custom = _CUSTOM.fullmatch(name)
    if custom is None or int(custom[1]) > CUSTOM_SIDE_MAX:
        raise Invalid(f"{name} is no variant of a thumbnail; there are {', '.join(_KNOWN)} and custom@Npx")
    return Variant(name, int(custom[1]), _CUSTOM_QUALITY)
