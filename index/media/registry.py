"""Which extractor reads which types: the one table.

An extractor is a function (binary file, FileType) -> found fields, in a module that only a worker imports; this one is
the daemon's too, so it names them. Another `version` makes everything that the extractor has read be read again: raise
it when the same file would give other fields.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, Final, NamedTuple

from index.model.filetype import BY_TYPE, KINDS, FileType

Function = Callable[[BinaryIO, FileType], Mapping[str, object]]


class Extractor(NamedTuple):
    """One extractor; `function` is module:attribute."""

    name: str
    version: int
    types: frozenset[str]
    function: str

    def load(self) -> Function:
        """Import it: only in a worker."""
        module, _, attribute = self.function.partition(":")
        loaded: Any = getattr(importlib.import_module(module), attribute)
        return loaded  # type: ignore[no-any-return] # named in the table below


#: Types that Pillow may read, and as which of its formats: nothing else is tried, whatever the bytes look like.
IMAGE_FORMATS: Final[Mapping[str, tuple[str, ...]]] = {
    "jpeg": ("JPEG",),
    "png": ("PNG",),
    "gif": ("GIF",),
    "webp": ("WEBP",),
    "tiff": ("TIFF",),
    "bmp": ("BMP",),
    "ico": ("ICO",),
    "icns": ("ICNS",),
    "jp2": ("JPEG2000",),
    "pnm": ("PPM",),
    "tga": ("TGA",),
    "pcx": ("PCX",),
    "dds": ("DDS",),
    "qoi": ("QOI",),
    "psd": ("PSD",),
    "avif": ("AVIF",),
    "heic": ("HEIF",),
    "heif": ("HEIF",),
}

_AUDIO: Final = "mp3 flac wav oga ogg opus m4a aiff wma aac".split()
_TEXTS: Final = ("code", "text", "config", "web", "email", "calendar", "contact", "shortcut")
_MORE_TEXTS: Final = "csv tsv tex bibtex man texinfo".split()


def _texts() -> Iterable[str]:
    """Types whose beginning says something to a reader."""
    kinds = {KINDS.index(kind) for kind in _TEXTS}
    return (one.name for one in BY_TYPE.values() if one.is_text and (one.kind in kinds or one.name in _MORE_TEXTS))


EXTRACTORS: Final = (
    Extractor("image", 1, frozenset(IMAGE_FORMATS), "index.media.image:extract"),
    Extractor("audio", 1, frozenset(_AUDIO), "index.media.audio:extract"),
    Extractor("text", 1, frozenset(_texts()), "index.media.text:extract"),
)

#: Another number makes all thumbnails anew.
THUMB_VERSION: Final = 1
#: Types that thumbnails are made of.
THUMB_TYPES: Final = frozenset(IMAGE_FORMATS)


def by_type(extractors: Iterable[Extractor]) -> dict[str, Extractor]:
    """Type -> who reads it."""
    return {name: one for one in extractors for name in one.types}


def present(extractors: Iterable[Extractor]) -> list[tuple[str, int]]:
    """(name, version) of each: what needs not be read again."""
    return [(one.name, one.version) for one in extractors]
