"""Trees with ignore files, what git says of them, and what our ruler says: for the tests of the rules.

A tree is given as directories, files and lists of patterns, all as bytes; git is asked with `check-ignore` for every
path at once. Repositories are made by hand, which is a hundred times quicker than `git init`.
"""

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from index.scan.rules.builtin import RuleId
from index.scan.rules.gitrepo import User
from index.scan.rules.ruler import SPEAKING, Ruler, Scope
from index.scan.rules.ruleset import Ruleset

#: More bytes than are read of a list by who must not wait.
LARGE = 17_000

GIT_ONLY = Ruleset(on=frozenset({"gitignore"}))


def environment(home: Path) -> dict[str, str]:
    """What git is started with: nobody's configuration but that in `home`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "XDG_"))}
    return kept | {"HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}


def user(home: Path) -> User:
    env = {os.fsencode(key): os.fsencode(value) for key, value in environment(home).items()}
    return User.of(env)


def linked(place: bytes, target: bytes) -> None:
    """A file is a link from now on, to where it was moved."""
    os.rename(place, target)
    os.symlink(target, place)


def make_repo(top: bytes, config: str = "") -> None:
    """The least that git takes for a repository."""
    for name in (b"objects", b"refs", b"info"):
        os.makedirs(os.path.join(top, b".git", name), exist_ok=True)
    Path(os.fsdecode(top), ".git/HEAD").write_bytes(b"ref: refs/heads/main\n")
    Path(os.fsdecode(top), ".git/config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = false\n" + config)


def git(top: bytes, home: Path, *args: str, feed: bytes = b"", check: bool = True) -> bytes:
    done = subprocess.run(
        ["git", *args], cwd=os.fsdecode(top), env=environment(home), input=feed, capture_output=True, check=False
    )
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr!r}")
    return done.stdout


def track(top: bytes, home: Path, paths: list[bytes], version: int = 2) -> None:
    """Put paths into the index, whatever they hold."""
    blob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    feed = b"".join(b"100644 %s 0\t%s\0" % (blob.encode(), path) for path in paths)
    git(top, home, "update-index", "--index-version", str(version), "-z", "--index-info", feed=feed)


def git_ignores(top: bytes, home: Path, paths: list[bytes]) -> dict[bytes, bool]:
    """What git says of paths from the top of a work tree."""
    feed = b"".join(path + b"\0" for path in paths)
    out = git(top, home, "check-ignore", "--stdin", "-z", "-v", "-n", feed=feed, check=False).split(b"\0")
    assert len(out) == 4 * len(paths) + 1, (len(out), len(paths))
    return {
        path: pattern != b"" and not pattern.startswith(b"!")
        for pattern, path in zip(out[2:-1:4], out[3::4], strict=True)
    }


def walk(scope: Scope, fd: int, above: bytes = b"") -> Iterator[tuple[bytes, bool, int]]:
    """(path, whether that is sure, rule) of all that is below a directory."""
    for name in sorted(os.listdir(b"/proc/self/fd/%d" % fd)):
        is_dir = os.path.isdir(b"/proc/self/fd/%d/%s" % (fd, name)) and not os.path.islink(
            b"/proc/self/fd/%d/%s" % (fd, name)
        )
        rule = scope.judge(name, is_dir)
        if not is_dir:
            yield above + name, not (scope.unsure or scope.doubted), rule
            continue
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
        try:
            listed = set(os.listdir(b"/proc/self/fd/%d" % below))
            inside = scope.inside(name, rule, below, SPEAKING & listed if len(name) % 2 else None)  # a walk knows
            yield above + name, not (scope.unsure or scope.doubted or inside.unsure), inside.rule
            yield from walk(inside, below, above + name + b"/")
        finally:
            os.close(below)


def rules_of(root: bytes, ruler: Ruler) -> dict[bytes, int]:
    """path -> rule, of all that lies below a location's root."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return {path: rule for path, _, rule in walk(ruler.root(fd), fd)}
    finally:
        os.close(fd)


def surely_ruled_of(root: bytes, ruler: Ruler) -> dict[bytes, int]:
    """The same, of the paths of which the ruler is sure, and of all that is above them."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = {path: (is_sure, rule) for path, is_sure, rule in walk(ruler.root(fd), fd)}
    finally:
        os.close(fd)
    unsure = tuple(path + b"/" for path, (is_sure, _) in found.items() if not is_sure)
    return {path: rule for path, (is_sure, rule) in found.items() if is_sure and not path.startswith(unsure)}


def ignored_of(root: bytes, home: Path, within: bytes | None = None) -> dict[bytes, bool]:
    """What our ruler says of the paths of a tree, of git alone."""
    rules = rules_of(root, Ruler(GIT_ONLY, root, within=within, user=user(home)))
    assert set(rules.values()) <= {0, RuleId.GITIGNORE}
    return {path: rule != 0 for path, rule in rules.items()}


# random trees ---------------------------------------------------------------------------------------------------------

NAMES = [
    b"a", b"b", b"ab", b"aa", b"ba", b"A", b"foo", b"foo.o", b"bar.c", b"a.b.c", b"x y", b"x ", b" x", b"[a]", b"a*b",
    b"a?", b"!n", b"#h", b"back\\slash", b"\\", b"]", b"-", b"^", b"caf\xc3\xa9", b"\xff\xfe", b"\xe9", b"tab\t",
    b".hid", b"...", b"build", b"foobar", b"b-a", b"{a,b}", b"~", b"$x", b"1", b"9z",
]  # fmt: skip
_PIECES = [
    *NAMES, b"a", b"b", b"a", b"b", b"*", b"*", b"?", b"**", b"**", b"/", b"/", b"/", b"/", b"/**", b"**/", b"/**/",
    b"***", b"\\", b"\\*", b"\\?", b"\\[", b"\\ ", b"\\/", b" ", b"  ", b"\t", b"[ab]", b"[!a]", b"[^b]", b"[a-c]",
    b"[]a]", b"[!]a]", b"[a-]", b"[-a]", b"[\\]]", b"[\\a-c]", b"[a-\\c]", b"[[:alpha:]]", b"[[:upper:]]",
    b"[[:digit:][:space:]]", b"[[:bad:]]", b"[[:alpha", b"[[:]", b"[[:punct:]x]", b"[", b"]", b"[!", b"[a/b]", b"[/]",
    b"[]-a]", b"[--0]", b"[z-a]", b"[A-Z]", b"[[a]", b"!", b"#", b"\xc3", b"\xff", b"[\x80-\xff]", b"[\xc3]\xa9",
    b"*.o", b"*.?", b"*.[oc]", b"\0x", b"{a,b}", b"\\A", b"\\a",
]  # fmt: skip
_COMMON = [
    b"*", b"a", b"b", b"*.o", b"a/", b"/a", b"a/b", b"**/a", b"a/**", b"a/*", b"!a", b"!a/", b"!*.o", b"!a/b", b"/*",
    b"!/a/", b"!*/",
]  # fmt: skip


def random_line(chance: random.Random) -> bytes:
    """One line of an ignore file, odd or plain."""
    kind = chance.random()
    if kind < 0.3:
        line = chance.choice(_COMMON)
    elif kind < 0.45:
        line = b"/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 3)))
    else:
        line = b"".join(chance.choice(_PIECES) for _ in range(chance.randint(1, 5)))
    if chance.random() < 0.15:
        line = b"!" + line
    if chance.random() < 0.15:
        line += b"/"
    if chance.random() < 0.1:
        line = b"/" + line
    if chance.random() < 0.08:
        line += chance.choice([b" ", b"\\ ", b"  ", b"\r", b"\\"])
    return line


def random_list(chance: random.Random) -> bytes:
    """An ignore file."""
    lines = [random_line(chance) for _ in range(chance.randint(1, 6))]
    text = chance.choice([b"\n", b"\n", b"\n", b"\r\n"]).join(lines) + chance.choice([b"\n", b"", b"\r", b"\r\n"])
    return chance.choice([b"", b"", b"", b"", b"\xef\xbb\xbf"]) + text


def random_tree(chance: random.Random, top: bytes, size: int = 60) -> list[bytes]:
    """Make directories, files and ignore files, some of them links; returns the paths of what is no directory."""
    dirs = [b""]
    made: list[bytes] = []
    for _ in range(size):
        above = chance.choice(dirs)
        name = chance.choice(NAMES)
        path = above + name
        if os.path.lexists(top + b"/" + path):
            continue
        if chance.random() < 0.4 and above.count(b"/") < 5:
            os.mkdir(top + b"/" + path)
            dirs.append(path + b"/")
        elif chance.random() < 0.05:
            os.symlink(chance.choice(NAMES), top + b"/" + path)
            made.append(path)
        else:
            os.close(os.open(top + b"/" + path, os.O_CREAT | os.O_WRONLY, 0o644))
            made.append(path)
    for above in dirs:
        if above == b"" or chance.random() < 0.25:
            place = top + b"/" + above + b".gitignore"
            filler = b"\n" + b"#" * LARGE if chance.random() < 0.03 else b""
            Path(os.fsdecode(place)).write_bytes(random_list(chance) + filler)
            if chance.random() < 0.03:
                linked(place, b"%s list %d" % (top, len(above)))
    return made
