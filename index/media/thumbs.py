"""Thumbnails: small pictures of an image, all from one decoding. Workers only.

In: an image file and the variants that are wanted. Out: for each a WebP, or None where the next smaller one serves,
because the image has no more pixels than that one shows. An image is never made larger, keeps its shape, and is turned
as its EXIF says. Of an animation it is the first frame.

A JPEG is decoded at an eighth, a quarter or half of its size where that is enough (`draft`), everything is reduced in
two steps, and the smaller variants are made of the larger.
"""

import io
from collections.abc import Iterable
from typing import BinaryIO, Final

from PIL import Image

from index.media.image import opened, orientation
from index.media.variants import Variant
from index.model.filetype import FileType

#: Of libwebp, 0 (quick) to 6 (small): 0 takes two thirds of the time of 4, its default, for 4 % more bytes.
_METHOD: Final = 0
_REDUCING_GAP: Final = 2.0
#: orientation -> how to turn it upright.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def make(file: BinaryIO, kind: FileType, variants: Iterable[Variant]) -> dict[str, bytes | None]:
    """The file of each variant, by its name. Raises as `image.opened`, and what the decoder raises."""
    wanted = sorted(variants, key=lambda one: one.side)
    with opened(file, kind) as source:
        longest = max(source.size)
        turn = orientation(source)
        needed = [one for i, one in enumerate(wanted) if i == 0 or wanted[i - 1].side < longest]
        side = needed[-1].side
        source.draft("RGB", (side, side))
        # Numbers of a palette cannot be averaged: those are turned into colours first.
        image = _plain(source) if source.mode in ("1", "P", "PA") else source
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
        image = _plain(image)
    if turn in _TURNS:
        image = image.transpose(_TURNS[turn])
    made: dict[str, bytes | None] = dict.fromkeys(one.name for one in wanted)
    for one in reversed(needed):
        image.thumbnail((one.side, one.side), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)
        made[one.name] = _encoded(image, one.quality)
    return made


def _plain(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where something is transparent: what WebP has."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        low, high = image.getextrema()
        span = (float(high) - float(low)) or 1.0  # type: ignore[arg-type] # one band, so two numbers
        scale, shift = 255.0 / span, -float(low) * 255.0 / span  # type: ignore[arg-type]
        return image.convert("F").point(lambda value: value * scale + shift).convert("L").convert("RGB")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _encoded(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=_METHOD)
    return out.getvalue()
