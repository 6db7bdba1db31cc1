"""Names are bytes: whatever the disk can hold is created, listed, tagged, searched and found, on both sides."""

import base64
import json
import os
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import Mounted, errno_of, eventually, tree, walk

TAGS = "user.xdg.tags"
ENAMETOOLONG, ENOENT = 36, 2

NAMES = {
    "255 bytes": b"n" * 255,
    "255 bytes of UTF-8": "é".encode() * 127 + b"x",
    "85 wide characters": "日".encode() * 85,
    "a newline": b"two\nlines",
    "only a newline": b"\n",
    "a carriage return": b"a\rb",
    "a tab": b"a\tb",
    "invalid UTF-8": b"latin \xe9\xe8",
    "one bad byte": b"\xff",
    "a cut character": "日".encode()[:2],
    "an encoded surrogate": b"\xed\xa0\x80",
    "an overlong slash": b"\xc0\xaf",
    "a control character": b"a\x01b\x1b[31mred",
    "DEL": b"\x7f",
    "a leading dash": b"-rf",
    "two dashes": b"--",
    "a leading dot": b".hidden",
    "three dots": b"...",
    "a trailing dot": b"name.",
    "spaces around": b" name ",
    "only a space": b" ",
    "quotes": b'it\'s "quoted"',
    "a backslash": b"a\\b",
    "an octal escape": b"a\\012b",
    "a glob": b"*?[a]",
    "a percent sign": b"100%_of",
    "a dollar": b"$HOME `id` $(id)",
    "a colon": b"sd:",
    "an @ and a =": b"a@b=c,d",
    "composed": "caf\u00e9".encode(),
    "decomposed": "cafe\u0301".encode(),
    "right to left": "\u202egnp.exe".encode(),
    "an emoji": "👩‍👩‍👧.txt".encode(),
    "upper case": b"README",
    "lower case": b"readme",
    "a NUL in words": b"\\0",
    "a conflict's": b"f (from vm).txt",
    "the mount's own": b".vdfs",
    "the link's": b"Tags",
    "a journal's": b"library.db",
}
CASES = [pytest.param(name, id=what) for what, name in NAMES.items()]


def path_of(hit: dict[str, Any], field: str = "path") -> bytes:
    """A path of a JSON answer as bytes: the twin is the truth when it is there."""
    if f"{field}_b64" in hit:
        return base64.b64decode(hit[f"{field}_b64"])
    return str(hit[field]).encode()


def sd_json(library: Mounted, *arguments: bytes) -> Any:
    return json.loads(library.sd("--json", *(os.fsdecode(a) for a in arguments)))


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_any_name(shared, place, name):
    """Made in the mount, listed, read, tagged by `sd`, found, told with its exact bytes, renamed, removed."""
    mnt, disk = os.fsencode(place.mnt), os.fsencode(place.disk)
    path, real = mnt + b"/" + name, disk + b"/" + name
    with open(path, "xb") as file:
        file.write(name)
    assert os.listdir(mnt) == os.listdir(disk) == [name]
    assert Path(os.fsdecode(real)).read_bytes() == name
    tag = os.fsencode(place.mnt.name).translate(None, b"[]-")
    os.setxattr(path, TAGS, tag)
    library = shared
    for given in (path, real, b"sd:/Files/" + os.fsencode(place.mnt.name) + b"/" + name):
        info = sd_json(library, b"info", b"--", given)
        assert path_of(info) in (path, given)
        assert path_of(info["replicas"][0]) == real
        assert info["tags"] == [tag.decode()]
    changed = sd_json(library, b"tag", b"add", b"second", b"--", path)
    assert [path_of(item) for item in changed["paths"]] == [path]
    assert [t["name"] for t in sd_json(library, b"tag", b"list", b"--", path)["tags"]] == [tag.decode(), "second"]
    view = os.fsencode(library.mnt) + b"/Tags/" + tag
    assert os.listdir(view) == [name]
    with open(view + b"/" + name, "rb") as file:
        assert file.read() == name
    assert os.getxattr(path, "user.vdfs.allpaths") == real
    printed = library.sd("info", "--", os.fsdecode(path))
    acts = [
        c for c in printed if c != "\n" and (unicodedata.category(c) in ("Cc", "Cs") or c in "\u202d\u202e\u2066\u2067")
    ]
    assert acts == [], f"a terminal would act on it: {printed!r}"
    new = mnt + b"/" + name[:-1] + b"~"
    os.rename(path, new)
    assert os.listdir(disk) == [name[:-1] + b"~"]
    os.rename(new, path)
    os.unlink(path)
    assert os.listdir(disk) == []


@pytest.mark.parametrize("name", CASES)
def test_a_directory_of_any_name(shared, place, name):
    """With something in it; made behind the mount."""
    mnt, disk = os.fsencode(place.mnt), os.fsencode(place.disk)
    os.makedirs(disk + b"/" + name + b"/" + name)
    with open(disk + b"/" + name + b"/" + name + b"/" + name, "xb") as file:
        file.write(b"deep")
    eventually(lambda: os.listdir(mnt) == [name], "it shows", 3)
    with open(mnt + b"/" + name + b"/" + name + b"/" + name, "rb") as file:
        assert file.read() == b"deep"
    os.symlink(name, mnt + b"/" + name + b"/link")
    assert os.readlink(disk + b"/" + name + b"/link") == name
    os.link(mnt + b"/" + name + b"/" + name + b"/" + name, mnt + b"/" + name + b"/hard")
    assert sorted(os.listdir(disk + b"/" + name)) == sorted([name, b"link", b"hard"])


def test_names_are_found_by_search(shared, place):
    """By what can be typed of them; the answer has the exact bytes."""
    for number, name in enumerate(NAMES.values()):
        (place.mnt / f"d{number}").mkdir()
        with open(os.fsencode(place.mnt / f"d{number}") + b"/needle " + name[:248], "xb"):
            pass
    hits = {path_of(hit) for hit in shared.sd_json("search", "needle", "--limit", "1000")["hits"]}
    expected = {
        os.fsencode(place.mnt / f"d{number}") + b"/needle " + name[:248] for number, name in enumerate(NAMES.values())
    }
    assert hits == expected
    for query, wanted in (
        ("needle latin", 1), ("needle 100%", 1), ("NEEDLE README", 2), ("needle it's", 1), ("needle 日日", 1),
        ("needle 👩", 1),
    ):  # fmt: skip
        assert len(shared.sd_json("search", query)["hits"]) >= wanted, query
    assert len(os.listdir(shared.mnt / "Search" / "needle")) == len(NAMES)
    printed = shared.sd("search", "needle", "--limit", "1000")
    assert len(printed.strip("\n").split("\n")) == len(NAMES), "one line for each, also with newlines in names"
    for path in walk(place.mnt):
        assert os.path.lexists(path)


def test_all_names_survive_a_remount(library):
    """A tree of all of them, made half in the mount and half behind it: the same names, numbers, tags afterwards."""
    source = library.folder("Files")
    library.mount(source)
    top = library.mnt / "Files"
    for number, name in enumerate(NAMES.values()):
        where = os.fsencode(top if number % 2 else source)
        with open(where + b"/" + name, "xb") as file:
            file.write(b"%d" % number)
    eventually(lambda: len(os.listdir(top)) == len(NAMES), "all show", 3)
    for number, name in enumerate(NAMES.values()):
        os.setxattr(os.fsencode(top) + b"/" + name, TAGS, b"n%d" % number)
    library.wait_idle()
    library.verify("--content")
    before = {name: os.lstat(os.fsencode(top) + b"/" + name).st_ino for name in NAMES.values()}
    assert len(set(before.values())) == len(before)
    library.kill()
    library.mount()
    assert sorted(os.listdir(os.fsencode(top))) == sorted(NAMES.values())
    for number, (name, ino) in enumerate(before.items()):
        path = os.fsencode(top) + b"/" + name
        assert os.lstat(path).st_ino == ino
        assert os.getxattr(path, TAGS) == b"n%d" % number
        with open(path, "rb") as file:
            assert file.read() == b"%d" % number
    assert tree(top) == tree(source)


def test_names_that_are_too_long(place):
    """256 bytes are ENAMETOOLONG, wherever a name is given, and nothing is made."""
    long = "n" * 256
    (place.mnt / "f").write_bytes(b"x")
    for call, arguments in (
        (os.mkdir, (place.mnt / long,)),
        (os.stat, (place.mnt / long,)),
        (os.unlink, (place.mnt / long,)),
        (os.symlink, ("x", place.mnt / long)),
        (os.link, (place.mnt / "f", place.mnt / long)),
        (os.rename, (place.mnt / "f", place.mnt / long)),
        (lambda p: open(p, "wb"), (place.mnt / long,)),
        (os.mkfifo, (place.mnt / long,)),
    ):
        assert errno_of(call, *arguments) == ENAMETOOLONG, call
    assert os.listdir(place.disk) == ["f"]


def test_names_that_differ_only_in_case_or_form(place):
    """Two files; the mount folds nothing."""
    for name in ("a", "A", "caf\u00e9", "cafe\u0301", "ß", "ss"):
        (place.mnt / name).write_text(name)
    assert len(os.listdir(place.disk)) == 6
    for name in ("a", "A", "caf\u00e9", "cafe\u0301", "ß", "ss"):
        assert (place.mnt / name).read_text() == name
    assert errno_of(os.stat, place.mnt / "CAF\u00c9") == ENOENT


def test_a_path_longer_than_any_path(shared, place):
    """Beyond PATH_MAX, step by step: made in the mount, listed, read, tagged, removed; the daemon walks it, too."""
    name = "d" * 200
    depth = 40
    script = f"""
import os, sys
os.chdir(sys.argv[1])
for level in range({depth}):
    os.mkdir({name!r})
    os.chdir({name!r})
open("deep", "wb").write(b"at the bottom")
os.setxattr("deep", "user.xdg.tags", b"abyss")
assert os.listdir(".") == ["deep"]
assert os.stat("deep").st_size == 13
os.rename("deep", "deeper")
"""
    subprocess.run(["python3", "-c", script, str(place.mnt)], check=True)
    shared.wait_idle()
    assert os.listdir(shared.mnt / "Tags" / "abyss") == ["deeper"]
    (hit,) = shared.sd_json("search", "deeper")["hits"]
    assert len(hit["path"]) > 8000
    done = subprocess.run(["find", str(place.mnt), "-name", "deeper"], capture_output=True, text=True, check=True)
    assert len(done.stdout) > 8000
    bottom = subprocess.run(
        ["python3", "-c", f"import os, sys; os.chdir(sys.argv[1])\nfor _ in range({depth}): os.chdir({name!r})\n"
         "sys.stdout.write(open('deeper').read())", str(place.disk)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert bottom.stdout == "at the bottom"
    subprocess.run(["rm", "-r", str(place.mnt / name)], check=True, cwd="/")
    assert os.listdir(place.disk) == []


def test_a_directory_of_many_names(shared, place):
    """Twenty thousand files in one directory: each listed once, also while half of them are removed."""
    count = 20_000
    for number in range(count):
        os.close(os.open(place.disk / f"file-{number:05}", os.O_CREAT | os.O_WRONLY))
    eventually(lambda: len(os.listdir(place.mnt)) == count, "all show", 5)
    with os.scandir(place.mnt) as scan:
        seen = [next(scan).name for _ in range(100)]
        for number in range(0, count, 2):
            os.unlink(place.mnt / f"file-{number:05}")
        seen += [entry.name for entry in scan]
    assert len(seen) == len(set(seen))
    assert {f"file-{number:05}" for number in range(1, count, 2)} <= set(seen), "what stayed is in the listing"
    assert len(os.listdir(place.mnt)) == count // 2
    shared.wait_idle()
