"""Rules in a real mount: what is held back, who says so, and that all roads lead to the same rules.

The rule of a row is written by a walk, by a request through the mount, by the watcher, or by the judging behind them.
So the rules of a library that lived through changes are held against those of a fresh library over the same tree.
"""

import errno
import os
import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import Mounted, errno_of, eventually

RULE = "user.vdfs.rule"


def rule(path: Path) -> str | None:
    """What the mount says holds a path back."""
    try:
        return os.getxattr(path, RULE, follow_symlinks=False).decode()
    except OSError:
        return None


def repository(top: Path, ignored: str = "") -> Path:
    """A directory that git takes for a repository."""
    for name in ("objects", "refs", "info"):
        (top / ".git" / name).mkdir(parents=True, exist_ok=True)
    (top / ".git" / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n")
    (top / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    if ignored:
        (top / ".gitignore").write_text(ignored)
    return top


def rows(library: Mounted) -> dict[str, int]:
    """Path -> rule of every row of the locations, by the database."""
    db = sqlite3.connect(f"file:{library.library_dir / 'library.db'}?mode=ro", uri=True)
    try:
        found = db.execute(
            "WITH RECURSIVE below(id, path, rule) AS (SELECT b.root_entry_id, b.root_path, 0 FROM branch b "
            "WHERE b.location_id IS NOT NULL UNION ALL SELECT e.id, CAST(below.path || X'2F' || e.name AS BLOB), "
            "e.rule FROM below JOIN entry e ON e.parent_id = below.id) SELECT path, rule FROM below"
        )
        return {os.fsdecode(path): number for path, number in found}
    finally:
        db.close()


@pytest.fixture
def files(library) -> Path:
    """A location that is mounted, as the disk has it."""
    top = library.folder("Files")
    library.mount(top)
    return top


def test_a_rule_hides_nothing_from_the_mount(library, files):
    """What is held back is listed, read and written like anything else; it only is not read for its hash, nor found."""
    (files / "node_modules" / "left").mkdir(parents=True)
    (files / "node_modules" / "left" / "pad.js").write_text("pad")
    (files / "pad.txt").write_text("pad")
    library.settle()
    shown = library.mnt / "Files"
    assert sorted(os.listdir(shown)) == ["node_modules", "pad.txt"]
    assert (shown / "node_modules/left/pad.js").read_text() == "pad"
    assert rule(shown / "node_modules") == rule(shown / "node_modules/left/pad.js") == "dev"
    assert rule(shown / "pad.txt") is None
    assert library.sd_json("info", shown / "node_modules/left/pad.js")["hash"] is None
    assert library.sd_json("info", shown / "pad.txt")["hash_state"] == "full"
    assert [hit["path"] for hit in library.sd_json("search", "pad")["hits"]] == [str(shown / "pad.txt")]
    assert RULE not in os.listxattr(shown / "node_modules")
    assert errno_of(os.setxattr, shown / "node_modules", RULE, b"x") == 1


def test_a_row_made_through_the_mount_has_its_rule_at_once(library, files):
    """Nobody waits for a walk to know it."""
    shown = repository(library.mnt / "Files" / "project", "*.o\n/out/\n")
    library.wait_idle()
    (shown / "a.o").write_text("")
    (shown / "a.c").write_text("")
    (shown / "out").mkdir()
    (shown / "out" / "deep").mkdir()
    (shown / "out" / "deep" / "x.c").write_text("")
    assert [rule(shown / name) for name in ("a.o", "a.c", "out", "out/deep/x.c", ".git", ".gitignore")] == [
        "gitignore", None, "gitignore", "gitignore", "git", "git",
    ]  # fmt: skip
    os.rename(shown / "a.o", shown / "a.d")
    assert rule(shown / "a.d") is None
    os.rename(shown / "a.c", shown / "out" / "a.c")
    assert rule(shown / "out" / "a.c") == "gitignore"


def test_a_directory_that_moves_takes_its_rule_along(library, files):
    """All that is in it is judged anew, behind."""
    (files / "src" / "deep").mkdir(parents=True)
    (files / "src" / "deep" / "file").write_text("x")
    (files / "build").mkdir()
    library.settle()
    shown = library.mnt / "Files"
    os.rename(shown / "src", shown / "build" / "src")
    assert rule(shown / "build" / "src") == "dev"
    eventually(lambda: rule(shown / "build/src/deep/file") == "dev", "what is in it is held too")
    os.rename(files / "build" / "src", files / "src")
    eventually(lambda: rule(shown / "src") is None and rule(shown / "src/deep/file") is None, "it is released")
    library.settle()
    assert library.sd_json("info", shown / "src/deep/file")["hash_state"] == "full"


def test_what_is_released_is_identified_and_what_becomes_held_keeps_what_is_known(library, files):
    """By a list of patterns that comes and goes behind the mount."""
    repository(files)
    (files / "kept.log").write_text("kept")
    library.settle()
    shown = library.mnt / "Files"
    assert library.sd_json("info", shown / "kept.log")["hash_state"] == "full"
    library.sd("tag", "add", "mine", shown / "kept.log")
    (files / ".gitignore").write_text("*.log\n")
    eventually(lambda: rule(shown / "kept.log") == "gitignore", "the list is heard of")
    (files / "new.log").write_text("new")
    library.settle()
    facts = library.sd_json("info", shown / "kept.log")
    assert (facts["hash_state"], facts["tags"], facts["rule"]) == ("full", ["mine"], "gitignore")
    assert library.sd_json("info", shown / "new.log")["hash_state"] == "pending"
    (files / ".git" / "info" / "exclude").write_text("*.tmp\n")
    (files / ".gitignore").unlink()
    (files / "x.tmp").write_text("x")
    eventually(lambda: rule(shown / "new.log") is None and rule(shown / "x.tmp") == "gitignore", "lists changed")
    library.settle()
    assert library.sd_json("info", shown / "new.log")["hash_state"] == "full"


def test_what_is_released_in_a_deep_location_is_looked_into(library, files):
    """Also where its bytes were known before it was held, so that nobody reads them again."""
    repository(files)
    (files / "a.md").write_text("# Title")
    library.settle()
    shown = library.mnt / "Files/a.md"
    assert library.sd_json("info", shown)["hash_state"] == "full"
    (files / ".gitignore").write_text("*.md\n")
    eventually(lambda: rule(shown) == "gitignore", "the list is heard of")
    library.sd("location", "mode", "Files", "deep")
    library.settle()
    assert errno_of(os.getxattr, shown, "user.vdfs.meta.snippet") == errno.ENODATA
    (files / ".gitignore").unlink()
    eventually(lambda: rule(shown) is None, "the list is gone")
    library.settle()
    assert os.getxattr(shown, "user.vdfs.meta.snippet") == b"# Title"


def test_what_git_tracks_is_not_held(library, files):
    """Also when that changes while we run."""
    subprocess.run(["git", "init", "-q", files], check=True, env=library.environment())
    (files / ".gitignore").write_text("*.bin\n")
    (files / "a.bin").write_text("a")
    (files / "b.bin").write_text("b")
    library.settle()
    shown = library.mnt / "Files"
    assert rule(shown / "a.bin") == rule(shown / "b.bin") == "gitignore"
    subprocess.run(["git", "-C", files, "add", "-f", "a.bin"], check=True, env=library.environment())
    eventually(lambda: rule(shown / "a.bin") is None, "what is tracked is released")
    assert rule(shown / "b.bin") == "gitignore"


def test_rules_are_switched_and_added_by_sd(library, files):
    """And hold for what is there as for what comes."""
    for name in ("a.iso", "b.txt", ".hidden", "c.JPG", "node_modules/x.js", "src/.git/HEAD", "src/d.txt", "old/keep/e"):
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_text(name)
    library.settle()
    shown = library.mnt / "Files"

    def held() -> dict[str, str | None]:
        return {name: rule(shown / name) for name in ("a.iso", "b.txt", ".hidden", "node_modules/x.js", "c.JPG")}

    assert held() == {"a.iso": None, "b.txt": None, ".hidden": None, "node_modules/x.js": "dev", "c.JPG": None}
    library.sd("location", "rules", "Files", "--off", "dev", "--on", "hidden", "--reject", "*.iso")
    wanted = {"a.iso": "reject *.iso", "b.txt": None, ".hidden": "hidden", "node_modules/x.js": None, "c.JPG": None}
    eventually(lambda: held() == wanted, "rules were switched")
    library.sd("location", "rules", "Files", "--clear", "--on", "images")
    eventually(lambda: held()["b.txt"] == "images" and held()["c.JPG"] is None, "only images are wanted")
    assert rule(shown / "src") is None  # a directory is no file
    library.sd("location", "rules", "Files", "--clear", "--accept-with", "keep")
    eventually(
        lambda: held()["b.txt"] == "accept-with keep" and rule(shown / "old/keep/e") is None,
        "files are wanted where a directory says so",
    )  # directories are judged one after the other
    library.sd("location", "rules", "Files", "--clear", "--reject-with", "keep", "--off", "git")
    eventually(lambda: rule(shown / "old") == rule(shown / "old/keep/e") == "reject-with keep", "a child says no")
    (shown / "src" / "keep").mkdir()
    eventually(lambda: rule(shown / "src" / "d.txt") == "reject-with keep", "a child that came")
    (files / "src" / "keep").rmdir()
    eventually(lambda: rule(shown / "src" / "d.txt") is None, "a child that went")
    facts = library.sd_json("location", "rules", "Files")
    assert [one["name"] for one in facts["rules"] if one["on"]] == ["system", "gitignore", "dev"]
    assert [(one["kind"], one["pattern"]) for one in facts["own"]] == [("reject-with", "keep")]
    assert "there is no rule nonsense" in library.sd_fails("location", "rules", "Files", "--on", "nonsense", code=2)
    assert "nothing can match" in library.sd_fails("location", "rules", "Files", "--reject", "[", code=2)
    said = library.sd_fails("location", "rules", "Files", "--accept", "src/", code=2)
    assert said == "sd: 'src/' is a pattern of directories, and accept speaks of files; write 'src/**'"
    for pattern in ("{}", "./x", "a/../b"):
        for kind in ("--accept", "--reject"):
            assert repr(pattern) in library.sd_fails("location", "rules", "Files", kind, pattern, code=2)
    library.remount()
    library.wait_idle()
    assert [one["pattern"] for one in library.sd_json("location", "rules", "Files")["own"]] == ["keep"]


def test_what_is_held_back_is_told_with_its_rule(library, files):
    """The topmost only, with how much is in it; everything when asked for; in pages."""
    for number in range(30):
        (files / "node_modules" / f"m{number:02}").mkdir(parents=True)
        (files / "node_modules" / f"m{number:02}" / "x.js").write_text("x")
        (files / f"d{number:02}").mkdir()
        (files / f"d{number:02}" / "backup~").write_text("x")
    library.settle()
    shown = library.mnt / "Files"
    told = library.sd_json("index", "skipped", shown)
    assert [one["path"] for one in told["skipped"]] == [
        *(str(shown / f"d{number:02}" / "backup~") for number in range(30)), str(shown / "node_modules"),
    ]  # fmt: skip
    assert told["skipped"][-1] | {"path": ""} == {"path": "", "kind": "directory", "rule": "dev", "below": 60}
    assert told["counts"] == [{"rule": "dev", "entries": 61}, {"rule": "system", "entries": 30}]
    everything = library.sd_json("index", "skipped", "--all", library.mnt)
    assert len({one["path"] for one in everything["skipped"]}) == 91
    some = library.run("vdfs.cli", "--data-dir", library.data, "index", "skipped", shown, "--limit", "7", "--all")
    assert some.returncode == 0
    assert "raise --limit" in some.stderr
    assert "dev 61 entries" in some.stdout
    assert library.sd("index", "skipped", shown / "d00" / "backup~", check=False) == ""
    library.unmount()
    assert len(library.sd_json("index", "skipped", "sd:/Files", "--all")["skipped"]) == 91


def test_a_large_list_of_patterns_holds_what_it_says_and_nobody_waits_for_it(library, files):
    """A name that is made meanwhile has its rule a moment later; then nothing is left to judge."""
    repository(files, "".join(f"name-{number}\n" for number in range(20_000)) + "*.o\n/out/\n!kept.o\n")
    library.settle()
    shown = library.mnt / "Files"
    (shown / "sub").mkdir()
    (shown / "out").mkdir()
    for name in ("name-77", "x.o", "kept.o", "x.c", "sub/name-19999", "out/x.c"):
        (shown / name).write_text("")
    wanted = {"name-77", "x.o", "sub/name-19999", "out", "out/x.c"}

    def held() -> set[str]:
        told = library.sd_json("index", "skipped", "--all", shown)["skipped"]
        return {os.path.relpath(one["path"], shown) for one in told if one["rule"] == "gitignore"}

    eventually(lambda: held() == wanted, "a worker has read the list")
    library.wait_idle()
    assert held() == wanted
    eventually(lambda: not library.sd_json("index", "skipped", shown)["judging"], "that is all", within_s=15)


# all roads ------------------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c.o", "d.log", "build", "node_modules", "~x", "x~", ".hid", "keep", "sub", "é")
LISTS = (
    "*.o\n",
    "*.log\n!d.log\n",
    "build/\n/a\n",
    "sub/*\n!sub/b\n",
    "**/keep\n",
    "*\n!*/\n!a\n",
    "\n",
    "/sub/**/a\n",
    "*.log\n!keep\n!sub/\nb/\n" + "#" * 17_000,  # more than is read while somebody waits
)


def change(chance: random.Random, top: Path) -> None:
    """One change somewhere in a tree."""
    dirs = [Path(above) for above, _, _ in os.walk(top) if "/.git" not in above]
    above = chance.choice(dirs)
    path = above / chance.choice(NAMES)
    what = chance.random()
    if what < 0.3 and not path.exists():
        path.write_text(path.name)
    elif what < 0.5 and not path.exists():
        path.mkdir()
    elif what < 0.62:
        (above / ".gitignore").write_text(chance.choice(LISTS))
    elif what < 0.66 and (above / ".gitignore").exists():
        (above / ".gitignore").unlink()
    elif what < 0.69:
        repository(above)
    elif what < 0.71 and (above / ".git").exists():
        shutil.rmtree(above / ".git")
    elif what < 0.74 and (above / ".git" / "info").exists():
        (above / ".git" / "info" / "exclude").write_text(chance.choice(LISTS))
    elif what < 0.94:
        target = chance.choice(dirs) / chance.choice(NAMES)
        source = chance.choice([one for one in above.iterdir() if one.name != ".git"] or [top])
        if source != top and not target.exists() and source not in (target, *target.parents):
            source.rename(target)
    elif path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


@pytest.mark.parametrize("where", ["mount", "disk", "both"])
def test_all_roads_lead_to_the_same_rules(library, files, base, where):
    """After changes through the mount, behind it, or both, with what was switched meanwhile, and over a restart: the
    rules are those of a library that scans the tree for the first time."""
    go_many_roads(library, files, base, where, rounds=2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_very_many_roads_lead_to_the_same_rules(library, files, base):
    """The same, for minutes."""
    go_many_roads(library, files, base, "both", rounds=25)


def go_many_roads(library: Mounted, files: Path, base: Path, where: str, rounds: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    shown = library.mnt / "Files"
    repository(files, "*.o\n")
    for number in range(rounds):
        for _ in range(40):
            change(chance, shown if where == "mount" or (where == "both" and chance.random() < 0.5) else files)
            if chance.random() < 0.02:
                library.sd("location", "rules", "Files", chance.choice(["--on", "--off"]), "hidden")
        if number % 3 == 1:
            library.remount()
        library.settle()
        now = rows(library)
        rules = library.sd_json("location", "rules", "Files")["rules"]
        wanted = rows_of_a_first_scan(base / f"fresh-{number}", files, [one["name"] for one in rules if one["on"]])
        assert {path for path in now if now[path] != wanted.get(path)} == set()
        assert len(now) == len(wanted)


def rows_of_a_first_scan(beside: Path, files: Path, on: list[str]) -> dict[str, int]:
    """The rules that another library finds, with these switched on."""
    beside.mkdir()
    fresh = Mounted(beside)
    try:
        fresh.mount(files)
        if "hidden" in on:
            fresh.sd("location", "rules", files.name, "--on", "hidden")
        fresh.settle()
        return rows(fresh)
    finally:
        fresh.close()
