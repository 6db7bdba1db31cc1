"""Types of files: what names say, what bytes say, and who is right where they disagree."""

import io
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model import filetype
from index.model.filetype import BY_TYPE, HEAD_BYTES, KINDS, UNKNOWN, Method, by_head, by_name, settled
from index.store import filetypes
from index.store.store import Store


def zipped(*members: tuple[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in members:
            archive.writestr(name, text)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


ELF = b"\x7fELF\x02\x01\x01" + bytes(9)
DOCX = zipped(("[Content_Types].xml", ""), ("word/document.xml", ""))
XLSX = zipped(("[Content_Types].xml", ""), ("xl/workbook.xml", ""))
EPUB = zipped(("mimetype", "application/epub+zip"))
TS_PACKETS = (b"G" + bytes(187)) * 4


def test_the_tables_are_as_large_as_they_are_said_to_be():
    """Kinds in their order, types, extensions, signatures."""
    assert KINDS[:3] == ("unknown", "image", "video")
    assert (len(KINDS), KINDS[25], KINDS[26]) == (27, "model_entry", "memory")
    assert len(BY_TYPE) > 230
    assert len(filetype._BY_EXTENSION) > 230
    assert len({line for line in filetype.SIGNATURES.splitlines() if line}) > 100
    assert {one.kind for one in BY_TYPE.values()} == set(range(27))


def test_every_type_has_a_media_type_and_what_it_lies_within():
    """A word that stands for no type would be found by nobody."""
    for one in BY_TYPE.values():
        assert one.mime.count("/") == 1, one
        assert one.about, one
        assert not one.within or one.within in BY_TYPE, one


def test_every_strict_type_has_a_signature():
    """Else it would never be found."""
    signed = {one.type.name for one in filetype._read_signatures()}
    lost = {one.name for one in BY_TYPE.values() if one.is_strict and not {one.name, one.within} & signed}
    assert lost == set()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"a.jpg", "jpeg"), (b"A.JPG", "jpeg"), (b"a.tar.gz", "targz"), (b"a.b.gz", "gzip"), (b".gz", "binary"),
        (b"a.tgz", "targz"), (b"a.ts", "typescript"), (b"a.key", "keynote"), (b"Makefile", "makefile"),
        (b".bashrc", "shell"), (b"README", "plain"), (b"CMakeLists.txt", "plain"), (b"noextension", "binary"),
        (b"a.unheardof", "binary"), (b"\xff\xfe.png", "png"), (b"a.pkg.tar.zst", "tarzst"), (b"a.m4a", "m4a"),
    ],
)  # fmt: skip
def test_a_name_says_what_a_file_may_be(name, wanted):
    """By its extension, by two of them, or as a whole; letter case aside."""
    assert by_name(name).name == wanted


@pytest.mark.parametrize(
    ("head", "name", "wanted", "method"),
    [
        (b"\xff\xd8\xff\xe0", b"a.jpg", "jpeg", Method.BOTH),
        (b"\xff\xd8\xff\xe0", b"a.txt", "jpeg", Method.MAGIC),
        (b"\xff\xd8\xff\xe0", b"a", "jpeg", Method.MAGIC),
        (b"PK\x03\x04" + bytes(26), b"a.jpg", "zip", Method.MAGIC),
        (DOCX, b"a.docx", "docx", Method.BOTH),
        (DOCX, b"a", "docx", Method.MAGIC),
        (XLSX, b"a.zip", "xlsx", Method.BOTH),
        (EPUB, b"a.docx", "epub", Method.MAGIC),
        (zipped(("x", "y")), b"a.jar", "jar", Method.BOTH),
        (tarred(), b"a.tar", "tar", Method.BOTH),
        (tarred(), b"a", "tar", Method.MAGIC),
        (b"\x1f\x8b\x08" + bytes(9), b"a.tar.gz", "targz", Method.BOTH),
        (b"\x1f\x8b\x08" + bytes(9), b"a.svgz", "svgz", Method.BOTH),
        (b"RIFF\0\0\0\0WEBP", b"a", "webp", Method.MAGIC),
        (b"RIFF\0\0\0\0WAVE", b"a", "wav", Method.MAGIC),
        (b"\0\0\0\x18ftypheic", b"a", "heic", Method.MAGIC),
        (b"\0\0\0\x18ftypisom", b"a.m4v", "mp4", Method.BOTH),
        (b"\0\0\0\x18ftypisom", b"a.m4a", "m4a", Method.BOTH),
        (ELF + b"\x03\0", b"ls", "sharedlib", Method.MAGIC),
        (ELF + b"\x02\0", b"ls", "elf", Method.MAGIC),
        (ELF + b"\x01\0", b"a.ko", "kmod", Method.BOTH),
        (b"SQLite format 3\0", b"a.db", "sqlite", Method.BOTH),
        (b"!<arch>\ndebian-binary", b"a.deb", "deb", Method.BOTH),
        (b"\xca\xfe\xba\xbe\0\0\0\x34", b"a", "javaclass", Method.MAGIC),
        (b"\xca\xfe\xba\xbe\0\0\0\x02", b"a", "macho", Method.MAGIC),
        (TS_PACKETS, b"a.ts", "mpegts", Method.BOTH),
        (b"export const a = 1\n", b"a.ts", "typescript", Method.NAME),
        (b"#!/usr/bin/env python3\n", b"a", "python", Method.MAGIC),
        (b"#!/usr/bin/env -S FOO=1 node\n", b"a", "javascript", Method.MAGIC),
        (b"#!/bin/sh -e\n", b"install", "shell", Method.MAGIC),
        (b"#! /usr/bin/perl5.30 -w\n", b"a.pl", "perl", Method.BOTH),
        (b"import os\n", b"a.py", "python", Method.NAME),
        (b"import os\n", b"a", "plain", Method.CONTENT),
        (b"import os\0", b"a.py", "binary", Method.CONTENT),
        (b"no picture\n", b"a.jpg", "plain", Method.CONTENT),
        (b"\x01\x02\x03", b"a.jpg", "binary", Method.CONTENT),
        (b"\n <?xml version='1.0'?><svg>", b"a", "svg", Method.CONTENT),
        (b"<!DOCTYPE HTML><p>", b"a", "html", Method.CONTENT),
        (b"BEGIN:VCARD\r\n", b"a", "vcard", Method.CONTENT),
        ("Grüße\n".encode(), b"a", "plain", Method.CONTENT),
        ("Grüße\n".encode("latin-1"), b"a", "plain", Method.CONTENT),
        ("Grüße\n".encode("utf-16"), b"a", "plain", Method.MAGIC),
        (b"MZ is a text\n", b"a.txt", "plain", Method.NAME),
        (b"MZ\x90\0\x03", b"a.exe", "pe", Method.BOTH),
        (b"\x0a\x0d\x0d\x0a", b"a.pcapng", "pcapng", Method.BOTH),
        (b"\xff\xfb\x90\x64" + bytes(9), b"a.mp3", "mp3", Method.BOTH),
        (b"\xff\xfb\x90\x64" + bytes(9), b"a", "binary", Method.CONTENT),
        (b"", b"a.jpg", "plain", Method.CONTENT),
    ],
)  # fmt: skip
def test_bytes_and_name_agree_on_a_type(head, name, wanted, method):
    """A signature wins, a name makes it more exact, text is looked at where neither helps."""
    found, how = by_head(head, name)
    assert (found.name, how) == (wanted, method)


def test_a_character_cut_at_the_end_of_the_head_is_still_text():
    """A head ends where it ends."""
    head = (b"x" * (HEAD_BYTES - 1) + "é".encode())[:HEAD_BYTES]
    assert by_head(head, b"a") == (BY_TYPE["plain"], Method.CONTENT)


@pytest.mark.parametrize(
    ("name", "content", "method", "wanted"),
    [
        (b"a.py", "plain", Method.CONTENT, "python"),
        (b"a.txt", "python", Method.NAME, "plain"),
        (b"a", "python", Method.NAME, "python"),
        (b"a.txt", "jpeg", Method.MAGIC, "jpeg"),
        (b"a.docx", "zip", Method.BOTH, "docx"),
        (b"a.jpg", "plain", Method.CONTENT, "plain"),
        (b"a.py", "binary", Method.CONTENT, "binary"),
        (b"a.dv", "binary", Method.CONTENT, "dv"),
        (b"a.dv", "plain", Method.CONTENT, "plain"),
        (b"a.stl", "plain", Method.CONTENT, "stl"),
    ],
)
def test_one_content_under_several_names_is_what_each_says(name, content, method, wanted):
    """As far as the bytes allow."""
    assert settled(name, BY_TYPE[content], method).name == wanted


@given(st.binary(max_size=600), st.binary(min_size=1, max_size=30))
def test_any_bytes_and_any_name_have_a_type(head, name):
    """Nothing raises, and what is settled for the same name is a type too."""
    found, method = by_head(head, name)
    assert found.name in BY_TYPE
    assert settled(name, found, method).name in BY_TYPE


@given(st.sampled_from(sorted(BY_TYPE)), st.binary(max_size=40))
def test_a_signature_is_found_whatever_follows(type_name, rest):
    """Each line of the table, filled up with other bytes, is the type or one that begins the same way."""
    for one in filetype._read_signatures():
        if one.type.name == type_name:
            end = max(offset + len(data) for offset, data in one.parts)
            head = bytearray(end) + rest + b"\0"
            for offset, data in one.parts:
                head[offset : offset + len(data)] = data
            extensions = one.type.extensions
            name = b"a." + extensions[0].encode() if extensions else b"a"
            found, method = by_head(bytes(head), name)
            assert method in (Method.MAGIC, Method.BOTH)
            assert found is not UNKNOWN


def test_the_store_keeps_one_row_for_each_type(tmp_path, monkeypatch):
    """And mends it when the program knows the type better."""
    store = Store(tmp_path / "library.db", b"d" * 16)
    jpeg = BY_TYPE["jpeg"]
    with store.write("test") as unit:
        first = filetypes.intern(unit.db, jpeg)
        assert filetypes.intern(unit.db, jpeg) == first
        assert filetypes.intern(unit.db, BY_TYPE["png"]) != first
        assert filetypes.intern(unit.db, jpeg._replace(mime="image/better")) == first
    rows = store.db.execute("SELECT name, kind, mime FROM filetype ORDER BY id").fetchall()
    assert rows == [("jpeg", 1, "image/better"), ("png", 1, "image/png")]
    store.close()
