"""What a file is by its name: the kind that `kind:` of a search means.

One seam: `kind_of` says the kind of a name, `extensions_of` says by which endings an index finds a kind. Nothing is
read; a name that says nothing is `unknown`.
"""

from typing import Final

_EXTENSIONS: Final[dict[str, str]] = {
    "image": "jpg jpeg jpe png gif webp bmp tif tiff heic heif avif svg ico psd xcf raw cr2 cr3 nef arw dng orf jxl",
    "video": "mp4 m4v mkv mov avi webm mpg mpeg wmv flv ogv 3gp mts m2ts vob",
    "audio": "mp3 flac ogg oga opus m4a aac wav wma aif aiff mid midi ape alac",
    "document": "pdf doc docx odt rtf pages tex djvu",
    "archive": "zip tar gz tgz bz2 tbz xz txz zst 7z rar lz4 lzma cpio iso cab",
    "code": (
        "py pyi c h cc cpp cxx hpp hh rs go java kt js mjs jsx tsx rb php pl lua sh bash zsh fish swift cs scala hs "
        "ml clj el lisp r jl dart asm s vue sql"
    ),
    "text": "txt md rst log nfo readme org adoc",
    "database": "db sqlite sqlite3 mdb accdb dbf",
    "book": "epub mobi azw azw3 fb2 cbz cbr",
    "font": "ttf otf woff woff2 pfb",
    "mesh": "stl obj fbx gltf glb ply dae blend 3ds usdz",
    "config": "json yaml yml toml ini conf cfg xml plist env properties",
    "encrypted": "gpg pgp age asc kdbx",
    "key": "pem crt cer der pfx p12 pub",
    "executable": "exe msi dll so dylib com bat cmd appimage",
    "binary": "bin dat o a class pyc wasm",
    "spreadsheet": "xls xlsx ods csv tsv numbers",
    "presentation": "ppt pptx odp key",
    "email": "eml msg mbox",
    "calendar": "ics ical",
    "contact": "vcf vcard",
    "web": "html htm xhtml css url webloc",
    "shortcut": "lnk desktop",
    "package": "deb rpm apk dmg pkg snap flatpak jar whl",
    "model_entry": "",
    "memory": "",
    "unknown": "",
}

#: Every kind that there is.
KINDS: Final = frozenset(_EXTENSIONS)

_KIND_BY_EXTENSION: Final = {
    extension.encode(): kind for kind, extensions in _EXTENSIONS.items() for extension in extensions.split()
}


def extension_of(name: bytes) -> bytes:
    """What stands behind the last dot of a name, in lower case; empty where nothing stands before it."""
    stem, dot, extension = name.rpartition(b".")
    return extension.lower() if dot and stem else b""


def kind_of(name: bytes) -> str:
    """The kind of a file by its name."""
    return _KIND_BY_EXTENSION.get(extension_of(name), "unknown")


def extensions_of(kind: str) -> tuple[str, ...] | None:
    """The endings that all names of a kind have; None where they have no certain one."""
    return tuple(e.decode() for e, k in _KIND_BY_EXTENSION.items() if k == kind) or None
