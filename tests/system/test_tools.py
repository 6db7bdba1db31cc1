"""Real programs at work in the mount: what they make there is what they make on the disk, and they do not complain."""

import filecmp
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.system.harness import Mounted, eventually, names, tree, walk

TAGS = "user.xdg.tags"


def run(
    *command: str | Path, cwd: Path | str = "/", check: bool = True, **extra: str
) -> "subprocess.CompletedProcess[str]":
    """A program; it must end well and not complain."""
    env = {**os.environ, "LC_ALL": "C.UTF-8", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **extra}
    env.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, errors="surrogateescape",
        stdin=subprocess.DEVNULL, check=False, timeout=120, env=env,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def make_tree(top: Path, count: int = 300) -> None:
    """Files of many sizes and modes, links of both kinds, empty directories, odd names, times of the past."""
    dice = random.Random(4)
    directories = [top]
    top.mkdir(exist_ok=True)
    for number in range(count // 8):
        below = dice.choice(directories) / f"d{number}"
        below.mkdir()
        directories.append(below)
    for number in range(count):
        path = dice.choice(directories) / f"file {number}"
        path.write_bytes(dice.randbytes(dice.choice((0, 1, 100, 4096, 5000, 70_000))))
        mode = dice.choice((0o644, 0o600, 0o755, 0o444))
        if number % 15 == 0 and mode != 0o444:  # tar without root cannot restore those, wherever
            os.setxattr(path, "user.note", b"%d" % number)
        path.chmod(mode)
        if number % 10 == 0:
            os.link(path, dice.choice(directories) / f"hard {number}")
        if number % 12 == 0:
            (dice.choice(directories) / f"soft {number}").symlink_to(os.path.relpath(path, top))
    for name in ("new\nline", "-dash", " space ", "é", os.fsdecode(b"\xff\xfe"), "*", "n" * 255):
        (top / name).write_bytes(b"odd")
    for path in sorted(walk(top), reverse=True):
        os.utime(path, ns=(10**18, 10**18 + dice.randrange(10**15)), follow_symlinks=False)


def meta(top: Path) -> dict[str, tuple[object, ...]]:
    """Kind, mode, owner, size, mtime and link groups of everything below, for comparison of two trees."""
    groups: dict[int, int] = {}
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(walk(top)):
        st = os.lstat(path)
        group = groups.setdefault(st.st_ino, len(groups)) if stat.S_ISREG(st.st_mode) and st.st_nlink > 1 else None
        size = st.st_size if not stat.S_ISDIR(st.st_mode) else 0
        links = st.st_nlink if stat.S_ISREG(st.st_mode) else 0
        attributes = (
            ()
            if stat.S_ISLNK(st.st_mode)
            else tuple(sorted((n, os.getxattr(path, n)) for n in os.listxattr(path) if n.startswith("user.")))
        )
        found[os.path.relpath(path, top)] = (
            st.st_mode, st.st_uid, st.st_gid, size, st.st_mtime_ns, links, group, attributes
        )  # fmt: skip
    return found


def in_order(shared: Mounted, place) -> None:
    """The mount, the disk and the index agree."""
    assert tree(place.mnt) == tree(place.disk)
    assert meta(place.mnt) == meta(place.disk)


# -- versions


def test_git(shared, place):
    """init, add, commit, clone out of and into the mount, branch, checkout, stash, gc, fsck, status stays clean."""
    need("git")
    repository = place.mnt / "repository"
    make_tree(shared.base / "git-source", 200)
    run("git", "init", "-q", "-b", "main", repository)
    for name in ("user.name=T", "user.email=t@example.org"):
        run("git", "config", *name.split("="), cwd=repository)
    shutil.copytree(shared.base / "git-source", repository / "tree", symlinks=True)
    run("git", "add", "-A", cwd=repository)
    run("git", "commit", "-q", "-m", "first", cwd=repository)
    assert run("git", "status", "--porcelain", cwd=repository).stdout == ""
    for number in range(5):
        (repository / "tree" / "-dash").write_bytes(b"version %d" % number)
        run("git", "commit", "-q", "-a", "-m", f"version {number}", cwd=repository)
    run("git", "checkout", "-q", "-b", "side", "HEAD~3", cwd=repository)
    assert (repository / "tree" / "-dash").read_bytes() == b"version 1"
    run("git", "rm", "-r", "-q", "tree/d0", cwd=repository)
    run("git", "commit", "-q", "-m", "less", cwd=repository)
    run("git", "merge", "-q", "-m", "merge", "main", cwd=repository)
    (repository / "tree" / "-dash").write_bytes(b"not committed")
    run("git", "stash", "-q", cwd=repository)
    assert (repository / "tree" / "-dash").read_bytes() == b"version 4"
    run("git", "stash", "pop", "-q", cwd=repository)
    run("git", "commit", "-q", "-a", "-m", "last", cwd=repository)
    run("git", "gc", "-q", "--aggressive", "--prune=now", cwd=repository)
    assert run("git", "fsck", "--full", "--strict", cwd=repository).stdout == ""
    for source, target in ((repository, shared.base / "clone-out"), (shared.base / "clone-out", place.mnt / "clone")):
        run("git", "clone", "-q", "--no-local", source, target)
        assert run("git", "status", "--porcelain", cwd=target).stdout == ""
        assert run("git", "fsck", "--full", cwd=target).stdout == ""
    run("git", "clone", "-q", place.mnt / "clone", place.mnt / "with hard links")
    run("git", "worktree", "add", "-q", place.mnt / "worktree", "main", cwd=repository)
    assert run("git", "status", "--porcelain", cwd=place.mnt / "worktree").stdout == ""
    assert run("git", "status", "--porcelain", cwd=repository).stdout == ""
    in_order(shared, place)


# -- Python


def test_a_virtual_environment(shared, place):
    """python -m venv, pip install of a package without a network, run what it installed, compile, uninstall."""
    package = shared.base / "package"
    (package / "tiny").mkdir(parents=True)
    (package / "tiny" / "__init__.py").write_text("def main():\n    print('it works')\n")
    wheel = shared.base / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "def main():\n    print('it works')\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny-1.0.dist-info/entry_points.txt", "[console_scripts]\ntiny = tiny:main\n")
        archive.writestr(
            "tiny-1.0.dist-info/RECORD",
            "tiny/__init__.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\n"
            "tiny-1.0.dist-info/entry_points.txt,,\ntiny-1.0.dist-info/RECORD,,\n",
        )
    env = place.mnt / "env"
    run(sys.executable, "-m", "venv", env)
    python = env / "bin" / "python"
    run(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
        wheel,
        PYTHONPATH="",
    )
    assert run(env / "bin" / "tiny", PYTHONPATH="").stdout == "it works\n"
    assert run(python, "-c", "import sys, tiny; print(tiny.__file__)", PYTHONPATH="").stdout.startswith(str(env))
    run(python, "-m", "compileall", "-q", env / "lib")
    run(python, "-m", "pip", "check", "--disable-pip-version-check", PYTHONPATH="")
    run(python, "-m", "pip", "uninstall", "-q", "-y", "tiny", PYTHONPATH="")
    assert not (env / "bin" / "tiny").exists()
    in_order(shared, place)
    shutil.rmtree(env)
    assert names(place.disk) == []


def test_programs_run_from_the_mount(place):
    """A script, a binary, a shared library are executed and mapped."""
    script = place.mnt / "script"
    script.write_text("#!/bin/sh\necho $0\n")
    script.chmod(0o755)
    assert run(script).stdout == f"{script}\n"
    shutil.copy(shutil.which("true") or "/bin/true", place.mnt / "true")
    run(place.mnt / "true")
    library = sysconfig.get_config_var("INSTSONAME")
    found = [p for p in Path("/lib").rglob("libz.so*") if p.is_file()] if not library else []
    for path in found[:1]:
        shutil.copy(path, place.mnt / "lib.so")
        run(sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", place.mnt / "lib.so")
    (place.mnt / "true").chmod(0o644)
    with pytest.raises(PermissionError):
        run(place.mnt / "true")


# -- archives and copies


def test_tar(shared, place):
    """x into the mount, c out of it, d in between; hard links, modes, times, sparse files."""
    source = shared.base / "tar-source"
    make_tree(source)
    with open(source / "sparse", "wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"in the middle")
    os.utime(source / "sparse", ns=(10**18, 10**18))
    archive = shared.base / "a.tar"
    run("tar", "--xattrs", "-cSf", archive, "-C", source, ".")
    run("tar", "--xattrs", "-xSf", archive, "-C", place.mnt)
    assert run("tar", "-df", archive, "-C", place.mnt).stdout == ""
    assert tree(place.mnt) == tree(source)
    in_order(shared, place)
    assert meta(place.mnt) == meta(source)
    again = shared.base / "b.tar"
    run("tar", "--xattrs", "-cSf", again, "-C", place.mnt, ".")
    assert run("tar", "-df", again, "-C", source).stdout == ""
    run("tar", "--sparse", "-cf", shared.base / "c.tar", "-C", place.mnt, "sparse")
    assert os.path.getsize(shared.base / "c.tar") < 1 << 20
    shared.wait_idle()
    in_order(shared, place)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_rsync_moves_nothing_the_second_time(shared, place, direction):
    """-aHX --delete, in and out: the first run makes them equal, the second sees no difference at all."""
    need("rsync")
    source = shared.base / f"rsync-{direction}"
    make_tree(source)
    if direction == "out":
        run("rsync", "-aHX", f"{source}/", f"{place.mnt}/")
        first, second = place.mnt, shared.base / "rsync-target"
    else:
        first, second = source, place.mnt
    assert run("rsync", "-aHX", "--delete", f"{first}/", f"{second}/").stderr == ""
    done = run("rsync", "-aHXi", "--delete", "--stats", f"{first}/", f"{second}/")
    assert "Number of regular files transferred: 0" in done.stdout
    assert [line for line in done.stdout.split("\n") if line[1:2] in tuple("fdLDS") and line[0] in "<>ch.*"] == []
    assert meta(first) == meta(second)
    done = run("rsync", "-aHXci", "--delete", f"{first}/", f"{second}/")
    assert done.stdout == "", "also by checksum"
    (first / "extra").write_bytes(b"x")
    shutil.rmtree(first / "d0")
    run("rsync", "-aHX", "--delete", "--inplace", f"{first}/", f"{second}/")
    assert tree(first) == tree(second)
    in_order(shared, place)


def test_cp_a(shared, place):
    """In, inside and out: nothing is lost on the way."""
    source = shared.base / "cp-source"
    make_tree(source)
    run("cp", "-a", source, place.mnt / "one")
    run("cp", "-a", place.mnt / "one", place.mnt / "two")
    run("cp", "-a", place.mnt / "two", shared.base / "cp-back")
    for copy in (place.mnt / "one", place.mnt / "two", shared.base / "cp-back"):
        assert tree(copy) == tree(source)
        assert meta(copy) == meta(source)
    run("diff", "-r", "--no-dereference", source, place.mnt / "two")
    in_order(shared, place)
    run("rm", "-r", place.mnt / "one")
    run("mv", place.mnt / "two", place.mnt / "one")
    assert meta(place.mnt / "one") == meta(source)


def test_zip_and_compressors(shared, place):
    """Programs that seek and rewrite headers."""
    make_tree(place.mnt / "t", 60)
    with zipfile.ZipFile(place.mnt / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(walk(place.mnt / "t")):
            if os.path.isfile(path) and not os.path.islink(path):
                archive.write(path, "x" + str(len(archive.namelist())), zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(place.mnt / "a.zip") as archive:
        assert archive.testzip() is None
    for program, suffix in (("gzip", ".gz"), ("bzip2", ".bz2"), ("xz", ".xz"), ("zstd", ".zst")):
        rm = ("--rm",) if program == "zstd" else ()
        if shutil.which(program):
            shutil.copy(place.mnt / "a.zip", place.mnt / "b")
            run(program, "-q", *rm, place.mnt / "b")
            run(program, "-q", *rm, "-d", place.mnt / f"b{suffix}")
            assert filecmp.cmp(place.mnt / "a.zip", place.mnt / "b", shallow=False)
            (place.mnt / "b").unlink()
    assert names(place.mnt) == ["a.zip", "t"]


def test_dd_and_direct_io(shared, place):
    """dd with and without O_DIRECT, sync, append, sparse; cmp agrees."""
    source = shared.base / "dd"
    source.write_bytes(os.urandom(5 << 20))
    for flags in ((), ("oflag=direct",), ("oflag=sync",), ("conv=fsync",), ("conv=sparse",)):
        run("dd", f"if={source}", f"of={place.mnt / 'f'}", "bs=1M", *flags)
        run("cmp", source, place.mnt / "f")
        run("cmp", source, place.disk / "f")
    run("dd", f"if={place.mnt / 'f'}", f"of={shared.base / 'dd-back'}", "bs=512k", "iflag=direct")
    run("cmp", source, shared.base / "dd-back")
    run("dd", f"if={source}", f"of={place.mnt / 'f'}", "bs=1M", "oflag=append", "conv=notrunc")
    assert os.path.getsize(place.disk / "f") == 10 << 20


def test_a_file_over_4_gib(place):
    """Sparse: written and read beyond 2^32, sizes to the byte."""
    path = place.mnt / "big"
    with open(path, "wb") as file:
        for offset in (0, (1 << 31) - 3, (1 << 32) - 3, (1 << 33) + 5):
            file.seek(offset)
            file.write(b"%016d" % offset)
    assert os.stat(path).st_size == os.stat(place.disk / "big").st_size == (1 << 33) + 21
    assert os.stat(path).st_blocks < 1000
    with open(path, "rb") as file:
        for offset in (0, (1 << 31) - 3, (1 << 32) - 3, (1 << 33) + 5):
            file.seek(offset)
            assert file.read(16) == b"%016d" % offset
    path.unlink()


# -- databases


@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(place, journal):
    """Two processes write, one reads, transactions are rolled back, then the database is whole, here and on disk."""
    path = place.mnt / f"{journal}.db"
    with sqlite3.connect(path, isolation_level=None) as db:
        assert db.execute(f"PRAGMA journal_mode = {journal}").fetchone() == (journal,)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, who TEXT, data BLOB)")
    db.close()
    script = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
        "for n in range(40):\n"
        "    db.execute('BEGIN IMMEDIATE')\n"
        "    for m in range(5):\n"
        "        db.execute('INSERT INTO t(who, data) VALUES (?, ?)', (sys.argv[2], os.urandom(3000)))\n"
        "    db.execute('ROLLBACK' if n % 4 == 3 else 'COMMIT')\n"
        "db.close()\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), who]) for who in "ab"]
    last = 0
    with sqlite3.connect(path, timeout=60) as reader:
        while any(writer.poll() is None for writer in writers):
            (count,) = reader.execute("SELECT count(*) FROM t").fetchone()
            assert count >= last
            assert count % 5 == 0, "half a transaction was seen"
            last = count
    reader.close()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for where in (path, place.disk / path.name):
        with sqlite3.connect(where) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT who, count(*) FROM t GROUP BY who").fetchall() == [("a", 150), ("b", 150)]
            db.execute("VACUUM")
        db.close()
    assert names(place.disk) in ([path.name], sorted([path.name, f"{path.name}-journal"]))


# -- editors


def marked(place, name: str = "text.txt", content: bytes = b"one\ntwo\nthree\n") -> tuple[Path, tuple[bytes, bytes]]:
    """A tagged file and who it is."""
    path = place.mnt / name
    path.write_bytes(content)
    path.chmod(0o640)
    os.setxattr(path, TAGS, b"mine,kept")
    return path, who(path)


def who(path: Path) -> tuple[bytes, bytes]:
    return os.getxattr(path, "user.vdfs.id"), os.getxattr(path, TAGS)


@pytest.mark.parametrize(
    "options",
    [
        "",
        "set backup",
        "set nobackup nowritebackup",
        "set writebackup backupcopy=yes",
        "set writebackup backupcopy=no",
        "set noswapfile",
    ],
)
def test_vim(place, options):
    """However it saves: the new text, the same file with its tags and mode, no rubbish left."""
    need("vim")
    path, before = marked(place)
    commands = ["-c", options] if options else []
    run(
        "vim",
        "-es",
        "-u",
        "NONE",
        *commands,
        "-c",
        "%s/two/zwei/",
        "-c",
        "x",
        path,
        cwd="/",
        TERM="dumb",
        HOME="/nonexistent",
        check=False,
    )
    assert path.read_bytes() == b"one\nzwei\nthree\n"
    assert (place.disk / path.name).read_bytes() == b"one\nzwei\nthree\n"
    assert who(path) == before
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert names(place.mnt) in ([path.name], [path.name, f"{path.name}~"])
    for number in range(3):
        run(
            "vim",
            "-es",
            "-u",
            "NONE",
            *commands,
            "-c",
            f"1s/.*/line {number}/",
            "-c",
            "x",
            path,
            cwd="/",
            TERM="dumb",
            HOME="/nonexistent",
            check=False,
        )
        assert path.read_bytes() == b"line %d\nzwei\nthree\n" % number
        assert who(path) == before


def test_sed_i(place):
    """sed -i with and without a backup: temp + rename."""
    path, before = marked(place)
    run("sed", "-i", "s/two/zwei/", path)
    assert path.read_bytes() == b"one\nzwei\nthree\n"
    assert who(path) == before
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    run("sed", "-i.bak", "s/zwei/deux/", path)
    assert path.read_bytes() == b"one\ndeux\nthree\n"
    assert (place.mnt / "text.txt.bak").read_bytes() == b"one\nzwei\nthree\n"
    assert who(path) == before
    assert names(place.mnt) == ["text.txt", "text.txt.bak"]


def test_perl_and_ed_and_patch(place):
    """Programs that rename the old file aside, or write in place."""
    path, before = marked(place)
    if shutil.which("perl"):
        run("perl", "-pi", "-e", "s/two/zwei/", path)
        assert path.read_bytes() == b"one\nzwei\nthree\n"
        assert who(path) == before
        run("perl", "-pi", "-e", "s/zwei/two/", path)
    if shutil.which("patch"):
        (place.mnt / "p.diff").write_text("--- text.txt\n+++ text.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n")
        run("patch", "-s", path, place.mnt / "p.diff")
        assert path.read_bytes() == b"one\nzwei\nthree\n"
        assert who(path) == before
    assert not [name for name in names(place.mnt) if name not in ("text.txt", "p.diff")]


@pytest.mark.parametrize(
    "pattern",
    ["tmp+rename", "tmp+fsync+rename", "link backup", "rename backup", "goutputstream", "exchange", "rsync"],
)
def test_every_way_of_saving_keeps_who_it_is(place, pattern):
    """As editors and libraries do it, step by step, many times over."""
    path, before = marked(place)
    top = place.mnt
    for number in range(10):
        data = b"version %d\n" % number
        if pattern in ("tmp+rename", "tmp+fsync+rename", "goutputstream"):
            temporary = top / (".goutputstream-XQ12AB" if pattern == "goutputstream" else f"text.txt.{number}.tmp")
            with open(temporary, "xb") as file:
                file.write(data)
                if "fsync" in pattern or pattern == "goutputstream":
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(temporary, path)
        elif pattern == "link backup":
            (top / "text.txt~").unlink(missing_ok=True)
            os.link(path, top / "text.txt~")
            (top / "t").write_bytes(data)
            os.rename(top / "t", path)
            (top / "text.txt~").unlink()
        elif pattern == "rename backup":
            os.rename(path, top / "text.txt~")
            path.write_bytes(data)
            (top / "text.txt~").unlink()
        elif pattern == "exchange":
            (top / "t").write_bytes(data)
            done = run("mv", "--exchange", top / "t", path, check=False)
            if done.returncode != 0 and "unrecognized option" in done.stderr:
                pytest.skip("this mv cannot exchange")
            (top / "t").unlink()
        else:
            need("rsync")
            outside = Path(f"/tmp/{os.getpid()}-text.txt")
            outside.write_bytes(data)
            try:
                run("rsync", "-tI", outside, path)
            finally:
                outside.unlink()
        assert path.read_bytes() == data
        assert (place.disk / "text.txt").read_bytes() == data
        if pattern != "exchange":  # there the names swap, and with them who they are
            assert who(path) == before, number
    assert names(top) == ["text.txt"]


def test_an_editor_that_saves_behind_the_mount(shared, place):
    """sed -i and vim on the real file: the mount shows the text, and it is still the tagged file."""
    path, before = marked(place)
    shared.wait_idle()
    run("sed", "-i", "s/two/zwei/", place.disk / "text.txt")
    eventually(lambda: path.read_bytes() == b"one\nzwei\nthree\n", "the save shows", 3)
    assert who(path) == before
    if shutil.which("vim"):
        run(
            "vim",
            "-es",
            "-u",
            "NONE",
            "-c",
            "%s/zwei/deux/",
            "-c",
            "x",
            place.disk / "text.txt",
            TERM="dumb",
            check=False,
        )
        eventually(lambda: path.read_bytes() == b"one\ndeux\nthree\n", "the save shows", 3)
        assert who(path) == before
    shared.wait_idle()
    assert who(path) == before


# -- many at once


def test_many_programs_at_once(shared, place):
    """Trees are made, copied, searched, moved and deleted by eight processes; then all is as expected."""
    script = (
        'set -e; cd "$0"; mkdir w$1; cd w$1; i=0\n'
        "while [ $i -lt 12 ]; do mkdir -p a/b$i; echo $i > a/b$i/f; cp -r a c; find . -type f | xargs cat > /dev/null\n"
        "mv c d$i; ls -lR > /dev/null; rm -r d$i/b0; i=$((i+1)); done; rm -r a"
    )
    running = [
        subprocess.Popen(["sh", "-c", script, str(place.mnt), str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    for process in running:
        _, complaints = process.communicate(timeout=110)
        assert (process.returncode, complaints) == (0, "")
    expected = sum(range(12))  # of each copy, one directory was removed
    for number in range(8):
        files = [p for p in walk(place.disk / f"w{number}") if os.path.isfile(p)]
        assert len(files) == expected
    in_order(shared, place)


def test_make_sees_what_is_newer(place):
    """A build: mtimes from the disk, made and remade."""
    need("make")
    (place.mnt / "Makefile").write_text("out: in\n\tcat in > out\n")
    (place.mnt / "in").write_text("1")
    assert "cat" in run("make", cwd=place.mnt).stdout
    assert "up to date" in run("make", cwd=place.mnt).stdout
    (place.mnt / "in").write_text("2")
    os.utime(place.mnt / "in", (2e9, 2e9))
    assert "cat" in run("make", cwd=place.mnt).stdout
    assert (place.disk / "out").read_text() == "2"
