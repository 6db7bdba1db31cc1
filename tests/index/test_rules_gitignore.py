"""What git ignores: our ruler says of every path what `git check-ignore` says.

Random trees with lists of patterns of every odd form, names that are no text, with and without tracked files; and by
hand what the random ones cannot meet: repositories in repositories, linked work trees, locations inside a work tree.
"""

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.scan.rules import files, gitignore, gitindex
from index.scan.rules.builtin import RuleId
from index.scan.rules.ruler import Ruler
from index.scan.rules.sieve import Sieve
from tests.index import gitworld
from tests.index.gitworld import (
    GIT_ONLY,
    LARGE,
    git,
    git_ignores,
    ignored_of,
    linked,
    make_repo,
    rules_of,
    surely_ruled_of,
    track,
    user,
)

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def top(tmp_path) -> bytes:
    """An empty repository."""
    path = os.fsencode(tmp_path / "top")
    os.mkdir(path)
    make_repo(path)
    return path


def put(top: bytes, *paths: str, text: str = "") -> None:
    for path in paths:
        place = Path(os.fsdecode(top), path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def compare(top: bytes, home: Path, *, but: bytes = b"") -> int:
    """Our verdicts are git's; returns how many paths were compared. `but`: paths with one of these bytes, of which git
    takes a tracked file's name for a pattern, are left out."""
    ours = {path: verdict for path, verdict in ignored_of(top, home).items() if not path.startswith(b".git/")}
    ours.pop(b".git", None)
    theirs = git_ignores(top, home, list(ours))
    assert {path: theirs[path] for path in ours if ours[path] != theirs[path] and not set(path) & set(but)} == {}
    return len(ours)


def held(top: bytes, home: Path, within: bytes | None = None) -> set[str]:
    return {os.fsdecode(path) for path, verdict in ignored_of(top, home, within).items() if verdict}


def random_world(chance: random.Random, base: Path) -> tuple[bytes, Path, bool]:
    """A repository with a tree, its user's lists, maybe tracked files (told); parts of its directory may be links."""
    home, top = base / "home", os.fsencode(base / "top")
    for directory in (home, base / "top"):
        directory.mkdir(parents=True)
    make_repo(top, "\tignorecase = true\n" if chance.random() < 0.25 else "")
    made = gitworld.random_tree(chance, top, chance.choice([20, 60, 60, 150]))
    if chance.random() < 0.4:
        (base / "top/.git/info/exclude").write_bytes(gitworld.random_list(chance))
    if chance.random() < 0.3:
        (home / ".config/git").mkdir(parents=True)
        (home / ".config/git/ignore").write_bytes(gitworld.random_list(chance))
    if chance.random() < 0.1:
        (home / ".gitconfig").write_text('[core]\n\texcludesFile = "~/own list" ; mine\n')
        (home / "own list").write_bytes(gitworld.random_list(chance))
    is_tracked = bool(made) and chance.random() < 0.5
    if is_tracked:
        track(top, home, chance.sample(made, min(len(made), chance.randint(1, 10))), chance.choice([2, 4]))
    for part in ("info/exclude", "info", "config", "index"):
        if chance.random() < 0.08 and os.path.exists(base / "top/.git" / part):
            linked(os.fsencode(base / "top/.git" / part), os.fsencode(base / part.replace("/", " ")))
    return top, home, is_tracked


def judged_alike(chance: random.Random) -> int:
    """Make a world and compare; returns how many paths were compared. Who must not wait says the same where he is
    sure."""
    with tempfile.TemporaryDirectory() as base:
        top, home, is_tracked = random_world(chance, Path(base))
        rules = rules_of(top, Ruler(GIT_ONLY, top, user=user(home)))
        sure = surely_ruled_of(top, Ruler(GIT_ONLY, top, user=user(home), strict=True))
        assert {path: rule for path, rule in sure.items() if rule != rules[path]} == {}
        return compare(top, home, but=b"*?[\\" if is_tracked else b"")


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=True))
def test_random_trees_are_judged_as_git_judges_them(chance):
    """Nested lists, negation, anchors, sets, escapes, stars, odd line ends, names that are no UTF-8, tracked files,
    links where files are looked for."""
    judged_alike(chance)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_very_many_random_trees_are_judged_as_git_judges_them():
    """The same, a hundred thousand paths and more."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    assert sum(judged_alike(random.Random(seed + number)) for number in range(2500)) > 100_000


def test_a_directory_that_is_ignored_is_closed(top, home):
    """Nothing below brings anything back; a directory that is only emptied by a pattern stays open."""
    put(top, "out/.gitignore", text="!keep\n")
    put(top, "out/keep", "in/keep", "in/drop")
    put(top, ".gitignore", text="out/\nin/*\n!in/keep\n")
    assert held(top, home) == {"out", "out/.gitignore", "out/keep", "in/drop"}
    compare(top, home)


def test_what_is_tracked_is_not_ignored(top, home):
    """Nor is a directory that holds something tracked; the rest of it is."""
    put(top, "out/a", "out/b", "out/deep/c", "out/deep/d", "out/other/e")
    put(top, ".gitignore", text="out/\n")
    track(top, home, [b"out/a", b"out/deep/c"])
    assert held(top, home) == {"out/b", "out/deep/d", "out/other", "out/other/e"}
    compare(top, home)


def test_a_repository_in_another_is_one_of_its_own(top, home):
    """The outer lists say nothing in it, but may hold it as a whole."""
    put(top, "lib/x.o", "lib/y.log", "gone/z")
    put(top, ".gitignore", text="*.o\ngone/\n")
    for name in (b"lib", b"gone"):
        make_repo(os.path.join(top, name))
    put(top, "lib/.gitignore", text="*.log\n")
    found = {path for path in held(top, home) if ".git/" not in path and not path.endswith(".git")}
    assert found == {"lib/y.log", "gone", "gone/z"}


def test_a_git_directory_that_is_none_counts_for_nothing(top, home):
    """An empty `.git` does not end the outer repository."""
    put(top, "sub/.git/nothing", "sub/x.o")
    put(top, ".gitignore", text="*.o\n")
    assert held(top, home) == {"sub/x.o"}


def test_linked_work_trees_and_submodules_are_followed(tmp_path, home):
    """A `.git` file leads to the index, and to the lists that are common to all work trees."""
    main, linked = os.fsencode(tmp_path / "main"), os.fsencode(tmp_path / "linked")
    os.mkdir(main)
    git(main, home, "init", "-q")
    put(main, "a.o", "f")
    git(main, home, "add", "f")
    git(main, home, "-c", "user.name=n", "-c", "user.email=e@e.invalid", "commit", "-qm", "first")
    git(main, home, "worktree", "add", "-q", os.fsdecode(linked))
    put(main, ".git/info/exclude", text="*.o\n*.bin\n")
    put(linked, "a.o", "b.bin", "c.txt")
    git(linked, home, "add", "-f", "b.bin")
    assert held(linked, home) == {"a.o"}
    compare(linked, home)
    other = os.fsencode(tmp_path / "other")
    os.mkdir(other)
    git(other, home, "init", "-q")
    git(other, home, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", os.fsdecode(main), "sub")
    put(other, "sub/.gitignore", text="*.tmp\n")
    put(other, "sub/x.tmp", "x.tmp")
    found = {path for path in held(other, home) if not path.startswith(".git/")}
    assert found == {"sub/x.tmp"}
    compare(os.path.join(other, b"sub"), home)


def test_a_location_inside_a_work_tree_is_judged_by_it(top, home):
    """By the lists above it too; the location itself is never held, even where git ignores it."""
    put(top, "a/.gitignore", text="*.log\n!/b/keep.log\n")
    put(top, "a/b/x.o", "a/b/y.log", "a/b/keep.log", "a/b/c/x.o", "a/b/z")
    put(top, ".gitignore", text="*.o\n/a/b/z\n")
    within = os.path.dirname(top)
    location = os.path.join(top, b"a/b")
    assert held(location, home, within) == {"x.o", "y.log", "c/x.o", "z"}
    assert held(location, home) == set()  # it may not look above itself
    put(top, ".gitignore", text="b/\n")
    assert held(location, home, within) == {"y.log"}


def test_a_users_own_list_is_found_where_git_finds_it(top, home):
    """By his configuration, which may be a link, by default, or by the repository's."""
    put(top, "a", "b", "c")
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("a\n")
    assert held(top, home) == {"a"}
    compare(top, home)
    (home / "dotfiles").write_text("[core]\n\texcludesFile = \\\n  ~/list # mine\n")
    (home / "list").write_text("b\n")
    (home / ".gitconfig").symlink_to("dotfiles")
    assert held(top, home) == {"b"}
    compare(top, home)
    (home / "other").write_text("c\n")
    git(top, home, "config", "core.excludesFile", str(home / "other"))
    assert held(top, home) == {"c"}
    compare(top, home)
    (home / "dotfiles").write_text("[core]\n\tignoreCase\n")
    (home / "other").write_text("C\n")
    assert held(top, home) == {"c"}
    compare(top, home)


def test_without_a_repository_lists_say_nothing(tmp_path, home):
    path = os.fsencode(tmp_path / "plain")
    os.mkdir(path)
    put(path, "x.o", "sub/y.o")
    put(path, ".gitignore", text="*.o\n")
    assert held(path, home) == set()
    make_repo(os.path.join(path, b"sub"))
    put(path, "sub/.git/info/exclude", text="*.o\n")
    assert held(path, home) == {"sub/y.o"}


@pytest.mark.parametrize("version", [2, 3, 4])
def test_every_version_of_an_index_is_read(top, home, version):
    """Long names, names that are no text, shared beginnings, flags of the third version."""
    paths = [b"a", b"a/b" * 40, b"\xff\xfe", b"dir/one", b"dir/two", b"x" * 250]
    paths = [path.replace(b"a/b", b"ab/") + b"end" for path in paths]
    track(top, home, paths, min(version, 4) if version != 3 else 2)
    if version == 3:
        put(top, "sparse")
        track(top, home, [b"sparse"])
        git(top, home, "update-index", "--skip-worktree", "sparse")
        paths.append(b"sparse")
    data = Path(os.fsdecode(top), ".git/index").read_bytes()
    assert data[4:8] == bytes([0, 0, 0, version])
    assert gitindex.parse(data).paths == sorted(paths)
    for cut in range(0, len(data), 7):
        with pytest.raises(gitindex.BadIndex):
            gitindex.parse(data[:cut])


def test_a_split_index_is_read_in_both_halves(top, home):
    """What was replaced, deleted or added since stands in the small half."""
    track(top, home, [b"f%03d" % number for number in range(200)])
    git(top, home, "update-index", "--split-index")
    git(top, home, "update-index", "--force-remove", "f007", "f150")
    track(top, home, [b"new", b"f003"])
    put(top, ".gitignore", text="f*\nnew\n")
    put(top, "f003", "f007", "f008", "f150", "new", "f999")
    assert held(top, home) == {"f007", "f150", "f999"}
    compare(top, home)


def test_what_cannot_be_read_is_noted_and_counts_as_empty(top, home):
    """A symlink, a pipe, a directory, a list beyond all measure; an index that is none tracks nothing."""
    for number in range(4):
        put(top, f"d{number}/x.o")
    put(top, "list", text="*.o\n")
    os.symlink(b"../list", os.path.join(top, b"d0/.gitignore"))
    os.mkfifo(os.path.join(top, b"d1/.gitignore"))
    os.mkdir(os.path.join(top, b"d2/.gitignore"))
    put(top, "d3/.gitignore", text="*.o\n" + "#" * files.PATTERNS_MAX_BYTES)
    put(top, ".git/index", text="no index")
    put(top, ".git/info/exclude", text="d3/x.o\n")
    ruler = Ruler(GIT_ONLY, top, user=user(home))
    rules = rules_of(top, ruler)
    assert {path for path, rule in rules.items() if rule} == {b"d3/x.o"}
    noted = {os.path.relpath(path, top) for path, _ in ruler.notes}
    assert noted == {b"d0/.gitignore", b"d1/.gitignore", b"d2/.gitignore", b"d3/.gitignore", b".git/index"}
    rules_of(top, ruler)
    assert len(ruler.notes) == 5  # once each


def test_who_must_not_wait_is_told_what_he_does_not_know(tmp_path, home):
    """A git directory elsewhere and a large index are left to others."""
    top = os.fsencode(tmp_path / "top")
    os.mkdir(top)
    git(top, home, "init", "-q", "--separate-git-dir", str(tmp_path / "elsewhere"))
    put(top, "x.o")
    put(top, ".gitignore", text="*.o\n")
    fd = os.open(top, os.O_RDONLY)
    try:
        assert Ruler(GIT_ONLY, top, strict=True).root(fd).unsure
        sure = Ruler(GIT_ONLY, top).root(fd)
        assert not sure.unsure
        assert sure.judge(b"x.o", False) == RuleId.GITIGNORE
        os.unlink(os.path.join(top, b".git"))
        make_repo(top)
        track(top, home, [b"n%0200d" % number for number in range(2000)])
        scope = Ruler(GIT_ONLY, top, strict=True).root(fd)
        assert scope.judge(b"x.c", False) == 0
        assert not scope.unsure
        assert not scope.doubted  # nothing was asked of the index
        assert scope.judge(b"x.o", False) == RuleId.GITIGNORE
        assert scope.doubted
        git(top, home, "config", "core.excludesFile", "/somewhere/else")
        assert Ruler(GIT_ONLY, top, strict=True).root(fd).unsure
    finally:
        os.close(fd)


@pytest.mark.parametrize("part", ["info/exclude", "info", "config", "index"])
def test_files_of_the_git_directory_may_be_links(tmp_path, top, home, part):
    """Git follows them, and so does who may wait; who must not is told what he does not know."""
    put(top, "X.O", "x.c", "own.o", "tracked.o")
    put(top, ".git/info/exclude", text="*.o\n")
    git(top, home, "config", "core.ignoreCase", "true")
    track(top, home, [b"tracked.o"])
    linked(os.path.join(top, b".git", os.fsencode(part)), os.fsencode(tmp_path / "elsewhere"))
    assert held(top, home) == {"X.O", "own.o"}
    compare(top, home)
    fd = os.open(top, os.O_RDONLY)
    try:
        scope = Ruler(GIT_ONLY, top, strict=True).root(fd)
        assert scope.judge(b"tracked.o", False) == (RuleId.GITIGNORE if part == "index" else 0)
        assert (scope.unsure, scope.doubted) == (part != "index", part == "index")
    finally:
        os.close(fd)


def test_a_configuration_that_is_a_link_is_read_again_when_its_target_changes(tmp_path, top, home):
    put(top, "X.O")
    put(top, ".gitignore", text="*.o\n")
    config = tmp_path / "config"
    linked(os.path.join(top, b".git/config"), os.fsencode(config))
    os.utime(config, (1, 1))
    ruler = Ruler(GIT_ONLY, top, user=user(home))
    assert rules_of(top, ruler)[b"X.O"] == 0
    config.write_text("[core]\n\tignoreCase\n")
    assert rules_of(top, ruler)[b"X.O"] == RuleId.GITIGNORE


def test_a_large_list_is_left_to_who_may_wait(top, home):
    """Below it nothing is sure, but in a repository of its own; and nothing is held that it might bring back."""
    put(top, "sub/x.o", "sub/out/y", "lib/x.o", "x.o")
    make_repo(os.path.join(top, b"lib"))
    put(top, ".gitignore", text="*.o\nout/\n")
    put(top, "sub/.gitignore", text="!x.o\n!out/\n" + "#" * LARGE)
    ruler = Ruler(GIT_ONLY, top, strict=True)
    found = surely_ruled_of(top, ruler)
    assert (found[b"x.o"], found[b"lib/x.o"]) == (RuleId.GITIGNORE, 0)
    assert not {path for path in found if path.startswith(b"sub/")}
    assert rules_of(top, ruler)[b"sub/out/y"] == rules_of(top, ruler)[b"sub/x.o"] == 0
    assert held(top, home) == {"x.o"}
    assert ruler.notes == []
    put(top, "sub/.gitignore", text="#" * (files.PATTERNS_MAX_BYTES + 1))
    assert surely_ruled_of(top, ruler)[b"sub/x.o"] == RuleId.GITIGNORE  # nobody reads that


def test_a_large_list_of_the_user_is_left_to_who_may_wait(top, home):
    put(top, "x.o")
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*.o\n" + "#" * LARGE)
    assert surely_ruled_of(top, Ruler(GIT_ONLY, top, user=user(home), strict=True)) == {}
    assert held(top, home) == {"x.o"}


def test_the_shared_half_of_a_split_index_that_is_large_is_left_to_who_may_wait(top, home):
    track(top, home, [b"n%0200d" % number for number in range(2000)] + [b"x.o"])
    git(top, home, "update-index", "--split-index")
    put(top, ".gitignore", text="*.o\n")
    put(top, "x.o")
    fd = os.open(top, os.O_RDONLY)
    try:
        scope = Ruler(GIT_ONLY, top, strict=True).root(fd)
        assert scope.judge(b"x.o", False) == RuleId.GITIGNORE
        assert scope.doubted
    finally:
        os.close(fd)
    assert held(top, home) == set()


def test_an_escaped_capital_matches_nothing_where_either_case_counts(top, home):
    """Git makes the letters of a path small, and not that one."""
    put(top, "A", "a", "Bb", "bb", "d/C", "d/c")
    put(top, ".gitignore", text="\\A\nB\\b\nd/\\C\n")
    assert held(top, home) == {"A", "Bb", "d/C"}
    compare(top, home)
    git(top, home, "config", "core.ignoreCase", "true")
    assert held(top, home) == {"Bb", "bb"}
    compare(top, home)


@pytest.mark.parametrize("fold", [False, True])
def test_of_lines_with_and_without_stars_the_last_one_counts(fold):
    """By name or by path, for directories alone, negated: as if one line after the other were tried."""
    chance = random.Random(7)
    names = [b"a", b"b", b"ab", b"A", b"c.o"]
    for _ in range(300):
        raw = [
            chance.choice([b"", b"!"])
            + chance.choice([b"", b"/", b"d/", b"**/"])
            + chance.choice([*names, b"a*", b"*.o", b"*", b"[ab]", b"\\a"])
            + chance.choice([b"", b"", b"/"])
            for _ in range(chance.randint(1, 8))
        ]
        patterns = gitignore.parse(b"\n".join(raw), fold=fold)
        for path in [above + name for above in (b"", b"d/", b"e/") for name in names]:
            for is_dir in (False, True):
                each = [gitignore.parse(line, fold=fold).verdict(path, os.path.basename(path), is_dir) for line in raw]
                wanted = next((one for one in reversed(each) if one is not None), None)
                assert patterns.verdict(path, os.path.basename(path), is_dir) == wanted, (raw, path)


def test_a_long_list_of_names_makes_no_expressions(monkeypatch):
    """Such lists are written by programs; an expression for each line would take seconds."""
    monkeypatch.setattr(gitignore, "translate", None)
    for fold in (False, True):
        patterns = gitignore.parse(b"\n".join(b"/dir/%d\nname-%d" % (one, one) for one in range(20_000)), fold=fold)
        assert patterns.verdict(b"x/name-7", b"name-7", False)
        assert patterns.verdict(b"dir/19999", b"19999", True)
        assert patterns.verdict(b"x/dir/7", b"7", False) is None
        assert (patterns.verdict(b"NAME-7", b"NAME-7", False) is True) == fold
        passes = Sieve(patterns.sieved).passes
        assert passes(b"name-7")
        assert passes(b"19999")
        assert not passes(b"name-x")


def test_lines_are_read_as_git_reads_them():
    """Comments, escapes, spaces at the end, a byte order mark, line ends of two kinds."""
    text = b"\xef\xbb\xbf# no\r\n\\#yes\r\n!\\!no\ntrailing  \nkept\\ \n\n  \n/anchored\ndir/\nnul\0rest\nno newline"
    lines = gitignore.parse(text).lines[::-1]
    assert [line.text for line in lines] == [
        b"\\#yes", b"\\!no", b"trailing", b"kept\\ ", b"anchored", b"dir", b"nul", b"no newline",
    ]  # fmt: skip
    assert [line.negative for line in lines].index(True) == 1
    assert [line.dirs_only for line in lines].index(True) == 5
