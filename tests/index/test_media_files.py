"""What stands in files and what is made of them: extractors and thumbnails, called as a worker calls them."""

import io
import os
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from index.media import audio, fields, image, text, thumbs
from index.media.registry import EXTRACTORS, IMAGE_FORMATS, by_type
from index.media.variants import DEFAULT, variant
from index.model.errors import Invalid
from index.model.filetype import BY_TYPE, by_head
from tests.index import media_library as media

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
VARIANTS = [variant(name) for name in DEFAULT]


def looked_at(data: bytes, type_name: str) -> dict:
    """The fields of an image."""
    return fields.bounded(image.extract(io.BytesIO(data), BY_TYPE[type_name]))


def thumbnails(data: bytes, type_name: str = "jpeg", names=DEFAULT) -> dict[str, Image.Image | None]:
    made = thumbs.make(io.BytesIO(data), BY_TYPE[type_name], [variant(name) for name in names])
    return {name: None if one is None else Image.open(io.BytesIO(one)) for name, one in made.items()}


def near(found, wanted, by=60) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found[:3], wanted, strict=True))


def corners(shown: Image.Image) -> list[str]:
    """The colours of the corners, clockwise from the top left."""
    width, height = shown.size
    places = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
    names = {"red": RED, "green": GREEN, "blue": BLUE, "white": (255, 255, 255)}
    rgb = shown.convert("RGB")
    found = []
    for x, y in places:
        pixel = rgb.getpixel((int(width * x), int(height * y)))
        found.append(next((name for name, colour in names.items() if near(pixel, colour)), str(pixel)))
    return found


# -- images ------------------------------------------------------------------------------------------------------------


def exif_of(**ifds) -> Image.Exif:
    exif = Image.Exif()
    exif.update(ifds["main"])
    exif.get_ifd(0x8769).update(ifds.get("more", {}))
    exif.get_ifd(0x8825).update(ifds.get("gps", {}))
    return exif


def test_a_photograph_tells_of_its_camera_time_and_place():
    """What EXIF keeps in three tables, as plain numbers and texts."""
    exif = exif_of(
        main={0x010F: "Maker", 0x0110: "Model 1", 0x0131: "Soft", 0x013B: "Me", 0x8298: "(c)", 0x0112: 6},
        more={
            0x9003: "2019:07:04 12:33:10", 0x9011: "+02:00", 0xA434: "50 mm", 0x829A: 0.004, 0x829D: 2.8, 0x8827: 200,
            0x920A: 50.0, 0xA405: 75, 0x9209: 25,
        },
        gps={1: "S", 2: (48.0, 30.0, 36.0), 3: "W", 4: (2.0, 15.0, 0.0), 5: b"\x01", 6: 12.5},
    )  # fmt: skip
    found = looked_at(media.picture(400, 300, exif=exif), "jpeg")
    assert found == {
        "width": 300, "height": 400, "orientation": 6, "colour": "RGB", "taken": "2019-07-04T12:33:10+02:00",
        "make": "Maker", "model": "Model 1", "lens": "50 mm", "exposure_s": 0.004, "aperture": 2.8, "iso": 200,
        "focal_mm": 50.0, "focal_35_mm": 75, "flash": 1, "latitude": -48.51, "longitude": -2.25, "altitude_m": -12.5,
        "software": "Soft", "creator": "Me", "copyright": "(c)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gps", "why"),
    [
        ({1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, "beyond the pole"),
        ({1: "N", 2: (1.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, "two numbers"),
        ({1: "N", 2: (1.0, 0.0, 0.0)}, "half a place"),
    ],
)
def test_a_place_that_is_none_is_left_out(gps, why):
    """The rest of the file counts."""
    found = looked_at(media.picture(exif=exif_of(main={0x010F: "Maker"}, gps=gps)), "jpeg")
    assert "latitude" not in found, why
    assert found["make"] == "Maker"


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday"])
def test_a_time_that_is_none_is_left_out(taken):
    """Cameras without a clock write such."""
    assert "taken" not in looked_at(media.picture(exif=exif_of(main={}, more={0x9003: taken})), "jpeg")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_costs_only_itself():
    """The size is in the image's own head."""
    good = media.picture(exif=exif_of(main={0x010F: "Maker"}))
    at = good.index(b"Exif\0\0") + 10
    found = looked_at(good[:at] + b"\xff" * 30 + good[at + 30 :], "jpeg")
    assert (found["width"], found["height"]) == (400, 300)


@pytest.mark.parametrize(
    ("name", "file_format", "mode"),
    [
        ("jpeg", "JPEG", "RGB"), ("jpeg", "JPEG", "L"), ("jpeg", "JPEG", "CMYK"), ("png", "PNG", "RGBA"),
        ("png", "PNG", "P"), ("png", "PNG", "1"), ("png", "PNG", "LA"), ("gif", "GIF", "P"), ("webp", "WEBP", "RGBA"),
        ("tiff", "TIFF", "RGB"), ("bmp", "BMP", "RGB"), ("pnm", "PPM", "RGB"), ("jp2", "JPEG2000", "RGB"),
        ("avif", "AVIF", "RGB"), ("ico", "ICO", "RGBA"), ("tga", "TGA", "RGB"), ("pcx", "PCX", "RGB"),
        ("icns", "ICNS", "RGBA"), ("dds", "DDS", "RGBA"), ("qoi", "QOI", "RGB"), ("tiff", "TIFF", "I;16"),
        ("tiff", "TIFF", "F"), ("png", "PNG", "I;16"),
    ],
)  # fmt: skip
def test_each_format_and_mode_gives_fields_and_a_thumbnail(name, file_format, mode):
    """As its bytes are known, and in the shape it has."""
    size = {"ICO": (256, 256), "ICNS": (1024, 1024)}.get(file_format, (400, 300))
    data = media.picture(*size, file_format, mode)
    assert by_head(data[:4096], b"a." + name.encode())[0].name == name
    found = looked_at(data, name)
    assert (found["width"], found["height"]) == size
    small = thumbnails(data, name, ["icon@1x"])["icon@1x"]
    assert small is not None
    assert small.format == "WEBP"
    assert small.size == (128, size[1] * 128 // size[0])
    if mode in ("RGB", "RGBA", "P"):
        assert corners(small) == ["red", "green", "white", "blue"]
    elif mode != "1":
        assert corners(small)[2] == "white"


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_thumbnail_stands_upright_whichever_way_the_camera_was_held(turn):
    """All eight ways of EXIF; the picture is stored as the camera saw it and shown as the world was."""
    upright = Image.open(io.BytesIO(media.picture(400, 300, "PNG")))
    undo = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[turn]  # fmt: skip
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = turn
    out = io.BytesIO()
    stored.save(out, "JPEG", exif=exif, quality=95)
    shown = thumbnails(out.getvalue())["grid@1x"]
    assert shown is not None
    assert shown.size == (256, 192)
    assert corners(shown) == ["red", "green", "white", "blue"]
    found = looked_at(out.getvalue(), "jpeg")
    assert (found["width"], found["height"], found["orientation"]) == (400, 300, turn)


def test_no_thumbnail_is_larger_than_its_image_nor_made_twice():
    """The smallest is always there; of the others those that have more pixels than the one before."""
    for longest, wanted in (
        (100, {"grid@1x": 100, "grid@2x": None, "detail@1x": None}),
        (256, {"grid@1x": 256, "grid@2x": None, "detail@1x": None}),
        (300, {"grid@1x": 256, "grid@2x": 300, "detail@1x": None}),
        (700, {"grid@1x": 256, "grid@2x": 512, "detail@1x": 700}),
        (3000, {"grid@1x": 256, "grid@2x": 512, "detail@1x": 1024}),
    ):
        made = thumbnails(media.picture(longest, longest // 2))
        assert {name: one and max(one.size) for name, one in made.items()} == wanted


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1), (2, 700)])
def test_an_image_of_any_shape_has_a_thumbnail_of_at_least_a_pixel(size):
    """A line is not rounded away."""
    made = thumbnails(media.picture(*size, "PNG"), "png")
    assert made["grid@1x"] is not None
    assert min(made["grid@1x"].size) >= 1


def test_what_is_transparent_stays_so():
    """WebP has an alpha channel."""
    out = io.BytesIO()
    Image.new("RGBA", (300, 300), (255, 0, 0, 0)).save(out, "PNG")
    shown = thumbnails(out.getvalue(), "png")["grid@1x"]
    assert shown is not None
    assert shown.convert("RGBA").getpixel((9, 9))[3] == 0


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB"])
def test_fine_patterns_become_grey_whatever_the_mode(mode):
    """Pixels are averaged, not picked: also those of a palette."""
    out = io.BytesIO()
    board = Image.new("L", (2000, 2000))
    board.putdata([255 * ((i + i // 2000) % 2) for i in range(2000 * 2000)])
    board.convert(mode).save(out, "PNG")
    shown = thumbnails(out.getvalue(), "png")["grid@1x"]
    assert shown is not None
    assert near(shown.convert("RGB").getpixel((99, 99)), (128, 128, 128))


def test_an_animation_shows_its_first_frame():
    """Not the last, and not all."""
    frames = [Image.new("RGB", (300, 300), colour) for colour in (RED, GREEN)]
    for file_format, name in (("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png")):
        out = io.BytesIO()
        frames[0].save(out, file_format, save_all=True, append_images=frames[1:], duration=100, lossless=True)
        shown = thumbnails(out.getvalue(), name)["grid@1x"]
        assert shown is not None
        assert near(shown.convert("RGB").getpixel((9, 9)), RED), file_format


def gif(width: int, height: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"


def tiff(width: int, height: int) -> bytes:
    tags = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 1))
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


def bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


BOMBS = {
    "png": media.png(60_000, 60_000),
    "png just over": media.png(10_001, 10_000),
    "gif": gif(65_000, 65_000),
    "tiff": tiff(50_000, 50_000),
    "bmp": bmp(60_000, 60_000),
    "pnm": b"P6\n60000 60000\n255\n",
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("bomb", BOMBS)
def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(bomb):
    """By what its head says, whatever the file holds."""
    kind = BY_TYPE[bomb.split()[0]]
    for read in (lambda f: image.extract(f, kind), lambda f: thumbs.make(f, kind, VARIANTS)):
        with pytest.raises(image.TooBig, match="pixels"):
            read(io.BytesIO(BOMBS[bomb]))


def test_a_file_of_too_many_bytes_is_refused(tmp_path):
    """Some decoders read all of it into memory first."""
    with (tmp_path / "f").open("wb+") as file:
        file.truncate(image.SOURCE_MAX_BYTES + 1)
        with pytest.raises(image.TooBig, match="bytes"):
            image.extract(file, BY_TYPE["webp"])


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_chunk_that_unpacks_to_very_much_is_no_picture(name):
    """A few KiB become hundreds of MiB: the decoder stops before."""
    packed = zlib.compress(bytes(200 << 20), 9)
    head = b"k\0\0" if name != b"iTXt" else b"k\0\1\0\0\0"
    data = media.png(10, 10, media.png_chunk(name, head + packed), rows=(b"\0" + bytes(30)) * 10)
    before = memory_peak()
    try:
        looked_at(data, "png")
    except (ValueError, OSError, SyntaxError):
        pass
    assert memory_peak() - before < 100 << 20


def memory_peak() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", sorted({"jpeg", "png", "gif", "webp", "tiff", "bmp", "avif", "jp2"}))
def test_a_truncated_image_is_an_error_and_no_grey_half(name):
    """Cut anywhere: it raises, or was whole already."""
    whole = media.picture(400, 300, IMAGE_FORMATS[name][0])
    for part in (0.1, 0.5, 0.9):
        cut = whole[: int(len(whole) * part)]
        try:
            made = thumbs.make(io.BytesIO(cut), BY_TYPE[name], VARIANTS)
        except Exception:
            continue
        assert name == "jp2", f"{part} of a {name} gave {made}"


def test_only_the_format_that_the_bytes_are_is_tried():
    """A PostScript that calls itself a picture would start another program."""
    with pytest.raises(Image.UnidentifiedImageError):
        image.extract(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), BY_TYPE["png"])
    with pytest.raises(Image.UnidentifiedImageError):
        image.extract(io.BytesIO(media.picture(file_format="PNG")), BY_TYPE["jpeg"])
    assert "EPS" not in {one for formats in IMAGE_FORMATS.values() for one in formats}


def test_the_format_of_telephones_is_known_and_a_broken_one_an_error():
    """HEIC: there is a decoder, and it does not take the process with it."""
    assert "HEIF" in Image.OPEN
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for rest in (b"", bytes(500), b"\0\0\1\0meta" + bytes(300)):
        with pytest.raises((ValueError, OSError, SyntaxError, RuntimeError)):
            image.extract(io.BytesIO(head + rest), BY_TYPE["heic"])


# -- variants ----------------------------------------------------------------------------------------------------------


def test_a_variant_is_one_of_the_table_or_names_its_pixels():
    """And bad ones are named."""
    assert variant("detail@2x")[1:] == (2048, 90)
    assert variant("custom@640px")[1:] == (640, 85)
    for bad in ("grid", "custom@0px", "custom@9999px", "custom@640", "../x"):
        with pytest.raises(Invalid, match="no variant"):
            variant(bad)


# -- audio -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        (
            "wav", media.wav(2, 8000, {b"INAM": b"Song", b"IART": b"Me"}),
            {"title": "Song", "artist": "Me", "duration_s": 2.0, "sample_rate_hz": 8000, "bit_depth": 16},
        ),
        (
            "mp3", media.mp3({b"TIT2": "Título", b"TPE1": "A", b"TALB": "B", b"TRCK": "3/9", b"TYER": "1999"}),
            {"title": "Título", "artist": "A", "album": "B", "track": 3, "tracks": 9, "year": 1999,
             "bitrate_kbps": 128.0, "sample_rate_hz": 44100},
        ),
        (
            "flac", media.flac({"TITLE": "T", "ALBUMARTIST": "All", "DATE": "2001-02-03", "DISCNUMBER": "2"}),
            {"title": "T", "album_artist": "All", "year": 2001, "disc": 2, "duration_s": 2.0, "bit_depth": 16},
        ),
        (
            "oga", media.ogg({"TITLE": "O", "ARTIST": "B", "GENRE": "Jazz"}),
            {"title": "O", "artist": "B", "genre": "Jazz", "duration_s": 2.0, "sample_rate_hz": 44100, "channels": 2},
        ),
    ],
)  # fmt: skip
def test_a_song_tells_its_title_and_length(name, data, wanted):
    """In each of the ways in which formats keep tags."""
    assert by_head(data[:4096], b"a")[0].name == name
    found = fields.bounded(audio.extract(io.BytesIO(data), BY_TYPE[name]))
    assert {key: found.get(key) for key in wanted} == wanted


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"one\ntwo\n", {"encoding": "ascii", "head_lines": 2, "snippet": "one two"}),
        (b"one\ntwo", {"encoding": "ascii", "head_lines": 2, "snippet": "one two"}),
        ("Grüße\n".encode(), {"encoding": "utf-8", "head_lines": 1, "snippet": "Grüße"}),
        ("\ufeffGrüße".encode(), {"encoding": "utf-8", "head_lines": 1, "snippet": "Grüße"}),
        ("Grüße".encode("utf-16"), {"encoding": "utf-16", "head_lines": 1, "snippet": "Grüße"}),
        ("Grüße".encode("latin-1"), {"encoding": "unknown-8bit", "head_lines": 1, "snippet": "Grüße"}),
        (b"\x1b[31m red \x00 \t\n\n end", {"encoding": "ascii", "head_lines": 3, "snippet": "[31m red end"}),
    ],
)
def test_a_text_shows_how_it_begins(data, wanted):
    """Readable, without control characters, blanks made one."""
    assert fields.bounded(text.extract(io.BytesIO(data), BY_TYPE["plain"])) == wanted


def test_of_a_long_text_only_the_beginning_is_read():
    """And a character that is cut there is no error."""
    whole = "é" * 100_000
    file = io.BytesIO(b"x" + whole.encode())
    found = text.extract(file, BY_TYPE["plain"])
    assert found["encoding"] == "utf-8"
    assert len(found["snippet"]) == 512
    assert file.tell() == text.HEAD_BYTES


# -- fields ------------------------------------------------------------------------------------------------------------


ANYTHING = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(max_size=20), st.text(max_size=20).map(lambda text: text * 999),
    st.binary(max_size=9), st.just([1]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*fields.FIELDS, "unheard of"]), ANYTHING, max_size=12))
def test_what_is_kept_is_bounded_and_of_its_type(found):
    """Whatever an extractor found in a stranger's file."""
    kept = fields.bounded(found)
    assert len(kept) <= fields.FIELDS_MAX
    for name, value in kept.items():
        kind = fields.FIELDS[name].type
        assert type(value) is {"int": int, "float": float, "text": str, "time": str}[kind]
        if isinstance(value, str):
            assert 0 < len(value.encode()) <= fields.TEXT_MAX_BYTES
            assert "\0" not in value
        elif isinstance(value, int):
            assert abs(value) < 1 << 63
        assert fields.shown(value)


def test_every_extractor_can_be_loaded_and_takes_types_that_exist():
    """The table names functions by text."""
    for one in EXTRACTORS:
        assert callable(one.load())
        assert one.types <= set(BY_TYPE)
    assert sum(len(one.types) for one in EXTRACTORS) == len(by_type(EXTRACTORS))


def test_the_daemon_loads_no_decoder():
    """Their import costs time and memory, and their bugs are those of whoever loaded them."""
    import subprocess
    import sys

    code = "import sys, fusefs.server, vdfs.core, index.media.pipeline, index.media.driving; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert not {"PIL", "pi_heif", "tinytag"} & set(done.stdout.split())
