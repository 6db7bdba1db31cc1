"""Views: what is under `.vdfs` answers by name, changes nothing, and is met by nobody who walks the tree."""

import errno
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from tests.system.harness import Mounted, errno_of, eventually, names, tree, walk

TAGS = "user.xdg.tags"
# EACCES is the kernel's own word to somebody who is not root.
REFUSED = (errno.EPERM, errno.EROFS, errno.EXDEV, *(() if os.geteuid() == 0 else (errno.EACCES,)))


@pytest.fixture(scope="module")
def small(shared: Mounted) -> Mounted:
    """A known, small library: some tags, some duplicates, one directory tagged."""
    top = shared.mnt / "Files"
    for name, content, tags in (
        ("beach.jpg", b"beach", b"holiday,2019"),
        ("Beach Party.txt", b"party", b"holiday"),
        ("sub/beach.jpg", b"another beach", b"2019"),
        ("sub/copy of beach.jpg", b"beach", b""),
        ("sub/deep/plan.txt", b"the plan", b"work,2019,holiday"),
    ):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if tags:
            os.setxattr(path, TAGS, tags)
    (shared.mnt / "at the root.txt").write_bytes(b"root")
    os.setxattr(shared.mnt / "at the root.txt", TAGS, b"rootless")
    os.setxattr(top / "sub", TAGS, b"folders")
    shared.wait_idle()
    return shared


def contents(directory: Path) -> list[bytes]:
    return sorted((directory / name).read_bytes() for name in os.listdir(directory))


# -- who walks does not enter


def test_vdfs_answers_by_name_and_is_not_listed(small):
    """In the root only."""
    assert ".vdfs" not in os.listdir(small.mnt)
    assert (small.mnt / ".vdfs").is_dir()
    assert errno_of(os.stat, small.mnt / "Files" / ".vdfs") == errno.ENOENT
    assert {n: os.readlink(small.mnt / n) for n in ("Tags", "Search", "Devices")} == {
        "Tags": ".vdfs/tags", "Search": ".vdfs/search", "Devices": ".vdfs/devices"
    }  # fmt: skip


def test_recursion_meets_every_file_once(small):
    """find, grep -r, du, tar, cp -r, ls -R: what they see is the union and nothing else."""
    source = small.disk / "Files"
    inside = {f"./Files/{name}" for name in tree(source)} | {"./Files", ".", "./at the root.txt"}
    inside |= {"./Tags", "./Search", "./Devices"}
    found = subprocess.run(["find", "."], cwd=small.mnt, capture_output=True, text=True, check=True).stdout.split("\n")
    assert sorted(found[:-1]) == sorted(inside)
    done = subprocess.run(["grep", "-rl", "beach", "."], cwd=small.mnt, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split("\n")[:-1]) == sorted(
        ["./Files/beach.jpg", "./Files/sub/beach.jpg", "./Files/sub/copy of beach.jpg"]
    )
    done = subprocess.run(["tar", "cf", "-", "."], cwd=small.mnt, capture_output=True, check=True)
    listed = subprocess.run(["tar", "tf", "-"], input=done.stdout, capture_output=True, check=True).stdout.decode()
    assert sorted(name.rstrip("/") for name in listed.split("\n")[:-1]) == sorted(inside)
    done = subprocess.run(["ls", "-RA"], cwd=small.mnt, capture_output=True, text=True, check=True)
    assert ".vdfs" not in done.stdout
    size = sum(os.lstat(path).st_blocks * 512 for path in walk(source) if os.path.isfile(path))
    done = subprocess.run(
        ["du", "-s", "--block-size=1", "."], cwd=small.mnt, capture_output=True, text=True, check=True
    )
    assert size <= int(done.stdout.split()[0]) <= size + 4096 * 20
    copy = small.base / "copy"
    subprocess.run(["cp", "-r", str(small.mnt), str(copy)], check=True, cwd="/")
    assert tree(copy / "Files") == tree(source)
    assert os.readlink(copy / "Tags") == ".vdfs/tags"
    assert not (copy / ".vdfs").exists()
    if shutil.which("rg"):
        done = subprocess.run(
            ["rg", "-l", "--hidden", "beach"], cwd=small.mnt, capture_output=True, text=True, check=True
        )
        assert len(done.stdout.split("\n")[:-1]) == 3


def test_the_whole_of_the_views_can_be_walked_and_ends(small):
    """Who does enter finds an end: no view contains itself, and everything in it can be stat-ed and read."""
    count = 0
    for directory, subdirectories, files in os.walk(small.mnt / ".vdfs"):
        for name in (*subdirectories, *files):
            path = os.path.join(directory, name)
            st = os.lstat(path)
            count += 1
            assert count < 1000
            if stat.S_ISREG(st.st_mode):
                changes = name in ("status.json", "jobs.json", "peers.json", "control")
                assert changes or len(Path(path).read_bytes()) == os.stat(path).st_size
            if stat.S_ISLNK(st.st_mode):
                assert not os.readlink(path).startswith("/"), path
                assert os.path.exists(path), f"{path} -> {os.readlink(path)} leads nowhere"
                assert len(os.readlink(path)) == st.st_size


def test_guards_keep_crawlers_out(small):
    """The files that indexers and backup programs look for, and a README."""
    views = small.mnt / ".vdfs"
    assert (views / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    for name in (".nomedia", ".trackerignore", ".ignore"):
        assert (views / name).is_file()
    assert b"*" in (views / ".ignore").read_bytes()
    readme = (views / "README.txt").read_text()
    for view in (
        "tags/",
        "search/",
        "devices/",
        "content/",
        "recent/",
        "duplicates/",
        "conflicts/",
        "status.json",
        "jobs.json",
        "peers.json",
        "control",
    ):
        assert view in readme, view
        assert (views / view.rstrip("/")).exists()


def test_view_directories_do_not_look_like_real_ones(small):
    """Size 0, one link, nobody's to write; real directories have a size."""
    for name in ("", "tags", "search", "devices", "content", "recent", "duplicates", "conflicts", "tags/holiday"):
        st = os.stat(small.mnt / ".vdfs" / name)
        assert (st.st_size, st.st_nlink, st.st_mode & 0o222) == (0, 1, 0), name
    assert os.stat(small.mnt / "Files").st_size > 0


def test_numbers_of_views_are_their_own(small):
    """No inode number is used twice, in the views or for a file of the union; they are the same each time."""
    seen: dict[int, str] = {os.lstat(p).st_ino: p for p in walk(small.mnt / "Files")}
    views = [str(small.mnt / ".vdfs"), *walk(small.mnt / ".vdfs")]
    for path in views:
        number = os.lstat(path).st_ino
        assert number not in seen, (path, seen[number])
        seen[number] = path
        assert os.lstat(path).st_ino == number


# -- tags


def test_tags_are_directories_and_deeper_is_and(small):
    """Each tag in use, and what carries all of those on the way."""
    tags = small.mnt / "Tags"
    assert names(tags) == ["2019", "folders", "holiday", "rootless", "work"]
    assert contents(tags / "holiday") == [b"beach", b"party", b"the plan"]
    assert contents(tags / "2019") == [b"another beach", b"beach", b"the plan"]
    assert contents(tags / "holiday" / "2019") == contents(tags / "2019" / "holiday") == [b"beach", b"the plan"]
    assert contents(tags / "holiday" / "2019" / "work") == [b"the plan"]
    assert names(tags / "work" / "folders") == []
    assert errno_of(os.listdir, tags / "no such tag") == errno.ENOENT
    assert errno_of(os.listdir, tags / "holiday" / "no such tag") == errno.ENOENT
    assert contents(tags / "rootless") == [b"root"]
    assert names(tags / "folders" / "sub") == ["beach.jpg", "copy of beach.jpg", "deep"]


def test_two_files_of_one_name_are_both_there(small):
    """In one directory of a view, under names that say so."""
    found = names(small.mnt / "Tags" / "2019")
    assert len(found) == 3
    assert "beach.jpg" in found
    assert any(name != "beach.jpg" and name.startswith("beach") and name.endswith(".jpg") for name in found)


def test_leaves_are_relative_links_into_the_union(small):
    """They resolve to the file itself: writing through one writes the file."""
    link = small.mnt / "Tags" / "work" / "plan.txt"
    assert os.path.islink(link)
    assert not os.path.isabs(os.readlink(link))
    assert os.path.samefile(link, small.mnt / "Files" / "sub" / "deep" / "plan.txt")
    with open(small.mnt / "Tags" / "holiday" / "work" / "plan.txt", "ab") as file:
        file.write(b", changed")
    assert (small.disk / "Files" / "sub" / "deep" / "plan.txt").read_bytes() == b"the plan, changed"
    (small.disk / "Files" / "sub" / "deep" / "plan.txt").write_bytes(b"the plan")
    eventually(lambda: link.read_bytes() == b"the plan", "it shows")


def test_links_resolve_through_a_bind_mount(small, root_only):
    """A container sees the mount somewhere else."""
    elsewhere = small.base / "bound"
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", str(small.mnt), str(elsewhere)], check=True)
    try:
        assert (elsewhere / "Tags" / "work" / "plan.txt").read_bytes() == b"the plan"
        assert len(names(elsewhere / "Search" / "beach")) == 4
    finally:
        subprocess.run(["umount", str(elsewhere)], check=True)


def test_a_tag_shows_the_moment_it_is_set(shared, place):
    """Nothing of a view is cached by the kernel: set, look, take away, look."""
    path = place.mnt / "f"
    path.write_bytes(b"x")
    for number in range(5):
        tag = f"moment{number}"
        assert not (shared.mnt / "Tags" / tag).exists()
        os.setxattr(path, TAGS, tag.encode())
        assert names(shared.mnt / "Tags" / tag) == ["f"]
        assert tag in os.listdir(shared.mnt / "Tags")
        os.removexattr(path, TAGS)
        assert not (shared.mnt / "Tags" / tag / "f").exists()
        assert tag not in os.listdir(shared.mnt / "Tags")


def test_odd_tags_are_odd_directories(shared, place):
    """Spaces, dots, a slash, not ASCII, long; one that is called as a file."""
    odd = ["two words", ".hidden", "..", "...", "größe", "a/b", "c\u2215d", "-dash", "x" * 255, "y" * 256, "f"]
    for number, tag in enumerate(odd):
        path = place.mnt / ("f" if tag == "f" else f"file{number}")
        path.write_bytes(b"%d" % number)
        os.setxattr(path, TAGS, tag.encode())
        assert [t["name"] for t in shared.sd_json("tag", "list", path)["tags"]] == [tag]
    shown = names(shared.mnt / "Tags")
    for number, tag in enumerate(odd):
        if tag in ("..", "y" * 256):
            continue  # no component of a path can be called so
        name = tag.replace("/", "\u2215")
        assert name in shown, tag
        assert contents(shared.mnt / "Tags" / name) == [b"%d" % number]
    assert "." not in shown
    assert os.path.samefile(shared.mnt / "Tags" / "..", shared.mnt / ".vdfs")
    shutil.rmtree(place.mnt)


# -- search


def test_any_query_is_a_directory(small):
    """A part of the name, whatever the case; several words are all in it; nothing found is an empty directory."""
    search = small.mnt / "Search"
    assert contents(search / "beach") == [b"another beach", b"beach", b"beach", b"party"]
    assert contents(search / "BEACH party") == [b"party"]
    assert contents(search / "plan") == [b"the plan"]
    assert contents(search / "lan.t") == [b"the plan"]
    assert names(search / "no such thing anywhere") == []
    assert names(search) == ["saved"], "nothing is stored by asking"


def test_a_query_of_any_characters_is_no_error(small):
    """What SQL, FTS or a shell take for something special is just a part of a name."""
    for query in (
        "a",
        "be",
        "'",
        "%",
        "_",
        "*",
        "be*",
        "NOT",
        "a AND b",
        "(",
        ")",
        ":",
        "^",
        "-",
        "\\",
        ";--",
        "é",
        "x" * 255,
    ):
        os.listdir(small.mnt / "Search" / query)


@pytest.mark.parametrize("name", ['"', " ", "\n", "colour:red", "size:>10XB", "kind:", "in:."])
def test_what_is_no_query_is_not_there(small, name):
    """As `sd` refuses it, with the reason."""
    assert errno_of(os.listdir, small.mnt / "Search" / name) == errno.ENOENT


def test_a_search_speaks_the_language_of_searches(small):
    """Tags, kinds (of the bytes: a text that is called a picture is none), places; U+2215 where a value has a slash;
    nothing beyond 255 bytes, as of any name."""
    search = small.mnt / "Search"
    assert names(search / "tag:holiday kind:text ext:jpg") == ["beach.jpg"]
    assert names(search / "tag:holiday kind:image") == []
    assert names(search / "in:Files\u2215sub\u2215deep type:file") == ["plan.txt"]
    assert contents(search / "beach -in:Files\u2215sub -party") == [b"beach"]
    assert names(search / 'tag:"two words"') == []


def test_a_saved_search_is_a_directory_that_is_made(small):
    """By its name, or by the query that it is told; renamed and removed like any other; nothing in it changes."""
    saved = small.mnt / "Search" / "saved"
    (saved / "beach").mkdir()
    assert contents(saved / "beach") == [b"another beach", b"beach", b"beach", b"party"]
    assert os.getxattr(saved / "beach", "user.vdfs.query") == b"beach"
    os.setxattr(saved / "beach", "user.vdfs.query", b"tag:holiday  ext:jpg")
    assert os.getxattr(saved / "beach", "user.vdfs.query") == b"tag:holiday ext:jpg"
    assert names(saved / "beach") == ["beach.jpg"]
    assert errno_of(os.setxattr, saved / "beach", "user.vdfs.query", b"size:big") == errno.EINVAL
    assert errno_of(os.setxattr, saved / "beach", "user.vdfs.other", b"x") == errno.ENODATA
    assert errno_of(os.mkdir, saved / "beach") == errno.EEXIST
    assert errno_of(os.mkdir, saved / "beach" / "in it") in REFUSED
    assert errno_of(os.unlink, saved / "beach" / "beach.jpg") in REFUSED
    (saved / "beach").rename(saved / "pictures: of holidays")
    assert names(saved) == ["pictures: of holidays"]
    assert small.sd_json("search", "--saved")["searches"] == [
        {"name": "pictures: of holidays", "query": "tag:holiday ext:jpg"}
    ]
    (saved / "plain: name").mkdir()
    assert os.getxattr(saved / "plain: name", "user.vdfs.query") == b'"plain: name"'
    (saved / "plain: name").rename(saved / "pictures: of holidays")
    assert os.getxattr(saved / "pictures: of holidays", "user.vdfs.query") == b'"plain: name"'
    assert errno_of(os.rename, saved / "pictures: of holidays", small.mnt / "Files" / "x") in REFUSED
    (saved / "pictures: of holidays").rmdir()
    assert errno_of(os.rmdir, saved / "pictures: of holidays") == errno.ENOENT
    assert names(saved) == []


def test_a_search_is_saved_from_the_command_line(small):
    """And forgotten; it shows in the mount at once."""
    small.sd("search", "--save", "plans", "plan ext:txt")
    assert names(small.mnt / "Search" / "saved" / "plans") == ["plan.txt"]
    small.sd("search", "--save", "plans", "beach party")
    assert names(small.mnt / "Search" / "saved" / "plans") == ["Beach Party.txt"]
    assert "colour" in small.sd_fails("search", "--save", "plans", "colour:red")
    small.sd("search", "--forget", "plans")
    assert names(small.mnt / "Search" / "saved") == []
    assert "plans" in small.sd_fails("search", "--forget", "plans")
    os.listdir(os.fsencode(small.mnt / "Search") + b"/\xff\xfe")
    assert names(small.mnt / "Search" / "%") == []


def test_one_and_two_letters_are_found(shared, place):
    """Shorter than any trigram."""
    (place.mnt / "q").write_bytes(b"one letter")
    (place.mnt / "qz.txt").write_bytes(b"two letters")
    assert b"one letter" in contents(shared.mnt / "Search" / "q")
    assert contents(shared.mnt / "Search" / "qz") == [b"two letters"]
    assert contents(shared.mnt / "Search" / "QZ") == [b"two letters"]


def test_search_follows_changes_at_once(shared, place):
    """Made, renamed, deleted through the mount: the next look has it."""
    search = shared.mnt / "Search"
    (place.mnt / "zebra.txt").write_bytes(b"z")
    assert names(search / "zebra") == ["zebra.txt"]
    os.rename(place.mnt / "zebra.txt", place.mnt / "okapi.txt")
    assert names(search / "zebra") == []
    assert names(search / "okapi") == ["okapi.txt"]
    (place.mnt / "okapi.txt").unlink()
    assert names(search / "okapi") == []


# -- the others


def slug(library: Mounted) -> str:
    return str(json.loads((library.data / "device.json").read_text())["slug"])


def test_devices_say_what_lies_where(small):
    """devices/<device>/<location>: the same tree with the same bytes; the store beside it."""
    device = small.mnt / "Devices" / slug(small)
    assert names(small.mnt / "Devices") == [slug(small)]
    assert "Files" in names(device)
    assert sorted(names(device / "Files")) == sorted(names(small.disk / "Files"))
    assert (device / "Files" / "sub" / "deep" / "plan.txt").read_bytes() == b"the plan"
    (other,) = set(names(device)) - {"Files"}
    assert (device / other / "at the root.txt").read_bytes() == b"root"


def test_devices_show_each_branch_with_its_own_bytes(library):
    """Two directories under one name, one file of it different: each branch's directory has that branch's bytes."""
    a, b = library.folder("a", "Docs"), library.folder("b", "Docs")
    (a / "f").write_bytes(b"of branch a")
    (b / "f").write_bytes(b"and of b")
    (b / "only b").write_bytes(b"b")
    library.mount(a)
    library.sd("location", "add", b, "--name", "Docs")
    library.wait_idle()
    device = library.mnt / "Devices" / slug(library)
    branches = [name for name in names(device) if name.startswith("Docs")]
    assert len(branches) == 2
    found = {name: {f: (device / name / f).read_bytes() for f in names(device / name)} for name in branches}
    assert sorted(found.values(), key=len) == [
        {"f": b"of branch a"}, {"f": b"and of b", "only b": b"b"}
    ]  # fmt: skip


def test_content_by_its_hash(small):
    """The bytes of that name, as long as a file has them; 0444; nothing else resolves."""
    content = small.mnt / ".vdfs" / "content"
    digest = blake3(b"beach").hexdigest()
    assert (content / digest).read_bytes() == b"beach"
    st = os.stat(content / digest)
    assert (stat.S_IMODE(st.st_mode), st.st_size, stat.S_ISREG(st.st_mode)) == (0o444, 5, True)
    assert names(content) == []
    for name in ("0" * 64, "x" * 64, digest[:-1], digest.upper() + "0", "beach", digest[:32]):
        assert errno_of(os.stat, content / name) == errno.ENOENT, name
    assert errno_of(lambda: open(content / digest, "r+b")) in (errno.EPERM, errno.EROFS, errno.EACCES)


def test_a_large_content_is_read_in_any_order(shared, place):
    """pread at the end, then the middle; cmp of the whole."""
    data = os.urandom(3_000_000)
    (place.mnt / "f").write_bytes(data)
    shared.wait_idle()
    path = shared.mnt / ".vdfs" / "content" / blake3(data).hexdigest()
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 1000, 2_999_500) == data[2_999_500:]
        assert os.pread(file.fileno(), 1000, 1_234_567) == data[1_234_567:1_235_567]
    assert path.read_bytes() == data
    (place.mnt / "f").write_bytes(b"something else now")
    shared.wait_idle()
    assert errno_of(lambda: path.read_bytes()) == errno.ENOENT


def test_duplicates_are_sets_of_equal_files(small):
    """One directory for each hash that several files have."""
    duplicates = small.mnt / ".vdfs" / "duplicates"
    digest = blake3(b"beach").hexdigest()
    assert digest in names(duplicates)
    assert names(duplicates / digest) == ["beach.jpg", "copy of beach.jpg"]
    assert blake3(b"party").hexdigest() not in names(duplicates)
    assert errno_of(os.listdir, duplicates / blake3(b"party").hexdigest()) == errno.ENOENT


def test_recent_has_the_newest_files(shared, place):
    """A file just written is in it, by a link that reads it."""
    (place.mnt / "just now.txt").write_bytes(b"now")
    assert (shared.mnt / ".vdfs" / "recent" / "just now.txt").read_bytes() == b"now"
    os.utime(place.mnt / "just now.txt", (0, 0))
    assert len(names(shared.mnt / ".vdfs" / "recent")) >= 3


def test_status_json_is_a_snapshot_of_true_size(small):
    """JSON, its fstat size is the number of bytes read, EOF comes where it ends."""
    with open(small.mnt / ".vdfs" / "status.json", "rb") as file:
        data = file.read()
        assert os.fstat(file.fileno()).st_size == len(data)
        assert file.read() == b""
    status = json.loads(data)
    assert status["pid"] == small.pid
    assert status["mountpoint"] == str(small.mnt)
    assert status["library_id"] == small.sd_json("status")["library_id"]
    copy = small.base / "status.json"
    subprocess.run(["cp", str(small.mnt / ".vdfs" / "status.json"), str(copy)], check=True, cwd="/")
    assert json.loads(copy.read_bytes())["pid"] == small.pid


def test_control_is_the_mount_as_a_file(small):
    """0600; reading prints the status; its attributes are facts that cannot be set."""
    control = small.mnt / ".vdfs" / "control"
    assert stat.S_IMODE(os.stat(control).st_mode) == 0o600
    assert str(small.pid).encode() in control.read_bytes()
    assert os.getxattr(control, "user.vdfs.pid") == str(small.pid).encode()
    assert os.getxattr(control, "user.vdfs.mountpoint") == os.fsencode(small.mnt)
    assert errno_of(os.setxattr, control, "user.vdfs.pid", b"1") == errno.EPERM
    assert errno_of(os.getxattr, control, "user.vdfs.nonsense") == errno.ENODATA
    assert errno_of(os.setxattr, control, "user.vdfs.nonsense", b"1") == errno.ENODATA
    assert os.listxattr(control) == []


# -- views change nothing and cannot be changed


def test_views_refuse_every_change(small):
    """EPERM (or EROFS for opening to write), whatever is tried, and nothing changes by trying."""
    before = tree(small.disk / "Files")
    tags = names(small.mnt / "Tags")
    file = small.mnt / "Files" / "beach.jpg"
    views = small.mnt / ".vdfs"
    for directory in (views, views / "tags", views / "tags" / "holiday", views / "search", views / "search" / "beach",
                      views / "devices", views / "devices" / slug(small) / "Files", views / "content", views / "recent",
                      views / "duplicates", views / "conflicts"):  # fmt: skip
        for call, arguments in (
            (os.mkdir, (directory / "new",)),
            (os.symlink, ("x", directory / "new")),
            (os.mkfifo, (directory / "new",)),
            (os.link, (file, directory / "new")),
            (os.rename, (file, directory / "new")),
            (lambda p: open(p, "wb"), (directory / "new",)),
            (os.chmod, (directory, 0o777)),
            (os.utime, (directory,)),
            (os.setxattr, (directory, "user.a", b"1")),
            (os.rename, (directory, small.mnt / "Files" / "moved")),
            (os.rmdir, (directory,)),
        ):
            code = errno_of(call, *arguments)
            # search/new and content/new are no directory to write in, but `new` may be a name that already answers
            assert code in (*REFUSED, errno.EEXIST, errno.ENOTDIR, errno.EISDIR), (call, arguments, code)
    for path in (views / "tags" / "holiday" / "beach.jpg", views / "recent" / "beach.jpg", views / "README.txt",
                 views / "status.json", views / "devices" / slug(small) / "Files" / "beach.jpg"):  # fmt: skip
        assert errno_of(os.unlink, path) in REFUSED, path
        assert errno_of(os.rename, path, small.mnt / "Files" / "moved") in REFUSED, path
    for path in (views / "README.txt", views / "status.json", views / "control"):
        assert errno_of(lambda p: open(p, "ab"), path) in (*REFUSED, errno.EACCES), path
        assert errno_of(os.truncate, path, 0) in (*REFUSED, errno.EACCES), path
        assert errno_of(os.chmod, path, 0o777) in REFUSED, path
    assert tree(small.disk / "Files") == before
    assert names(small.mnt / "Tags") == tags
    assert "moved" not in names(small.mnt / "Files")


def test_the_names_of_the_root_are_kept(small):
    """`.vdfs` cannot be made, moved or removed; the links neither."""
    for call, arguments in (
        (os.mkdir, (small.mnt / ".vdfs",)),
        (os.rmdir, (small.mnt / ".vdfs",)),
        (os.rename, (small.mnt / ".vdfs", small.mnt / "x")),
        (os.rename, (small.mnt / "at the root.txt", small.mnt / ".vdfs")),
        (os.unlink, (small.mnt / "Tags",)),
        (os.rename, (small.mnt / "Tags", small.mnt / "x")),
    ):
        assert errno_of(call, *arguments) in (*REFUSED, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY), (call, arguments)
    assert os.readlink(small.mnt / "Tags") == ".vdfs/tags"
    assert (small.mnt / ".vdfs" / "README.txt").is_file()
    assert (small.mnt / "at the root.txt").read_bytes() == b"root"


def test_looking_changes_nothing(small):
    """A walk through everything, twice, and any lookups: the same tags, the same entries, no file touched."""
    before = (small.sd_json("status")["entries"], names(small.mnt / "Tags"), tree(small.disk / "Files"))
    for _ in range(2):
        for name in ("nonsense", "holiday", "x" * 300, "a/b/c", ".."):
            for view in ("tags", "search", "content", "duplicates", "devices", "recent"):
                errno_of(os.listdir, small.mnt / ".vdfs" / view / name)
                errno_of(os.stat, small.mnt / ".vdfs" / view / name / name)
    assert (small.sd_json("status")["entries"], names(small.mnt / "Tags"), tree(small.disk / "Files")) == before


def test_a_view_of_many_leaves_can_be_listed_with_their_facts(library):
    """`ls -l` looks every leaf up: each is found in the answer that the listing was."""
    folder = library.folder("Many")
    for number in range(2000):
        (folder / f"img_{number:04}.jpg").touch()
    library.mount(folder)
    library.wait_idle()
    for view in ("search/img_", "search/jpg"):
        listed = subprocess.run(
            ["ls", "-lL", library.mnt / ".vdfs" / view], capture_output=True, text=True, timeout=60, check=True
        )
        assert len(listed.stdout.splitlines()) == 2001
    (folder / "img_new.jpg").touch()
    eventually(lambda: (library.mnt / ".vdfs/search/img_/img_new.jpg").exists(), "a new one shows", 3)
    (library.mnt / "Many" / "img_new.jpg").unlink()
    assert not (library.mnt / ".vdfs/search/img_/img_new.jpg").is_symlink()


def test_a_leaf_whose_path_no_link_can_hold_says_so(library):
    folder = library.folder("Deep")
    library.mount(folder)
    fd = os.open(library.mnt / "Deep", os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=fd)
        fd, above = os.open("d" * 200, os.O_RDONLY, dir_fd=fd), fd
        os.close(above)
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    leaf = library.mnt / ".vdfs" / "search" / "leaf" / "leaf"
    assert leaf.is_symlink()
    assert errno_of(os.readlink, leaf) == errno.ENAMETOOLONG
