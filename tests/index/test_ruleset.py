"""Rulesets: what the rules with a name hold, what a user's own do, and that a packed one is the same one."""

import os
from pathlib import Path

import pytest

from index.model.errors import Invalid
from index.scan.rules.builtin import BUILTIN, RuleId
from index.scan.rules.ruler import Ruler
from index.scan.rules.ruleset import ACCEPT, ACCEPT_WITH, REJECT, REJECT_WITH, RULES_MAX, Ruleset
from tests.index.gitworld import rules_of


def tree(base: Path, *paths: str) -> bytes:
    """A location with these files; a path that ends with a slash is a directory."""
    top = base / "location"
    for path in paths:
        place = top / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.write_text("")
    return os.fsencode(top)


def names(ruleset: Ruleset, top: bytes) -> dict[str, str]:
    """path -> what its rule is called, of what is held."""
    found = rules_of(top, Ruler(ruleset, top))
    return {os.fsdecode(path): ruleset.name_of(rule) for path, rule in found.items() if rule}


def only(*on: str) -> Ruleset:
    return Ruleset(on=frozenset(on))


@pytest.mark.parametrize(
    ("rule", "held", "free"),
    [
        ("system", ["a~", ".DS_Store", "._x", "x/Thumbs.db", "lost+found/", ".Trash-1000/", "desktop.ini", "FOUND.001/",
                    "p.photoslibrary/database/", "$RECYCLE.BIN/", "Icon\r"],
         ["~a", "DS_Store", "dev/", "proc/", "aux", "FOUND.1", "database/"]),
        ("hidden", [".a", ".b/"], ["a.b"]),
        ("git", [".git/", ".gitignore", "x/.gitmodules"], ["git", ".github/"]),
        ("dev", ["node_modules/", "x/target/", "Code Cache/", "tmp/"], ["target.txt", "build.sh", "x/tmp.d/"]),
        ("images", ["a.txt", "jpg", "x/b"], ["a.jpg", "b.JPEG", "x/c.svg", "x/"]),
    ],
)  # fmt: skip
def test_what_the_rules_with_a_name_hold(tmp_path, rule, held, free):
    """Each alone, at every depth; the default table is that of the reference."""
    top = tree(tmp_path, *held, *free)
    found = names(only(rule), top)
    assert {path.rstrip("/") for path in held} - found.keys() == set()
    assert {path.rstrip("/") for path in free} & found.keys() == set()
    assert set(found.values()) == {rule}
    assert {one.name for one in BUILTIN if one.default} == {"system", "git", "gitignore", "dev"} == Ruleset().on


def test_names_of_tools_hold_directories_only(tmp_path):
    top = tree(tmp_path, "build", "dist/x", "sub/.cache")
    assert names(only("dev"), top) == {"dist": "dev", "dist/x": "dev"}


def test_a_location_is_never_held_itself(tmp_path):
    """Whatever it is called."""
    top = tree(tmp_path / "tmp" / ".git", "a")
    assert names(Ruleset().switched(["hidden"], []), top) == {}


def test_what_is_anchored_at_the_machine(tmp_path):
    """`/proc` is the machine's, not a location's; a user's pattern is anchored at the location."""
    ruler = Ruler(Ruleset(), b"/")
    scope = ruler.root(None)
    assert [scope.judge(name, True) for name in (b"proc", b"home", b"var")] == [RuleId.SYSTEM, 0, RuleId.SYSTEM]
    assert Ruler(Ruleset(), b"/home/x").root(None).judge(b"proc", True) == 0
    top = tree(tmp_path, "proc/x", "sub/proc/x")
    assert names(only().with_rules(REJECT, [b"/proc"]), top).keys() == {"proc", "proc/x"}


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        ("*.iso", {"a.iso", "d/b.iso", "d/x.iso", "d/x.iso/c"}),
        ("*.iso/", {"d/x.iso", "d/x.iso/c"}),
        ("/*.iso", {"a.iso"}),
        ("d/*.iso", {"d/b.iso", "d/x.iso", "d/x.iso/c"}),
        ("d/**/c", {"d/x.iso/c"}),
        ("/d/**", {"d/b.iso", "d/x.iso", "d/x.iso/c"}),
        ("{a,b}.iso", {"a.iso", "d/b.iso"}),
        ("**/b.*", {"d/b.iso"}),
        ("A.iso", set()),
    ],
)
def test_what_a_users_pattern_rejects(tmp_path, pattern, held):
    """By name, by the end of the path, from the root, directories alone; stars stay within a name."""
    top = tree(tmp_path, "a.iso", "d/b.iso", "d/x.iso/c", "e")
    ruleset = only().with_rules(REJECT, [os.fsencode(pattern)])
    assert names(ruleset, top) == dict.fromkeys(held, f"reject {pattern}")


def test_what_is_accepted_is_found_in_any_directory(tmp_path):
    """Patterns that accept speak of files; a rejection wins."""
    top = tree(tmp_path, "a.txt", "b.md", "d/c.md", "d/e.txt", "drafts/f.md")
    ruleset = only().with_rules(ACCEPT, [b"*.md"]).with_rules(REJECT, [b"drafts"])
    assert names(ruleset, top) == {
        "a.txt": "accept", "d/e.txt": "accept", "drafts": "reject drafts", "drafts/f.md": "reject drafts",
    }  # fmt: skip


def test_directories_are_judged_by_the_directories_in_them(tmp_path):
    """Rejected with all that is in them, or the only ones that are wanted."""
    top = tree(tmp_path, "a/.svn/x", "a/f", "b/f", "b/c/.svn/", "b/c/g", "top")
    assert names(only().with_rules(REJECT_WITH, [b".svn"]), top) == dict.fromkeys(
        ["a", "a/.svn", "a/.svn/x", "a/f", "b/c", "b/c/.svn", "b/c/g"], "reject-with .svn"
    )
    wanted = only().with_rules(ACCEPT_WITH, [b".svn"]).with_rules(ACCEPT_WITH, [b".hg"])
    assert names(wanted, top) == {"b/f": "accept-with .svn", "top": "accept-with .svn"}


def test_a_packed_ruleset_is_the_same_one():
    """Workers and the table have it so; nothing packed is the default."""
    ruleset = (
        Ruleset().switched(["hidden"], ["dev"]).with_rules(REJECT, [b"\xff*", b"x"]).with_rules(ACCEPT_WITH, [b"y"])
    )
    assert Ruleset.unpack(ruleset.pack()) == ruleset
    assert hash(Ruleset.unpack(ruleset.pack())) == hash(ruleset)
    assert Ruleset.unpack(None) == Ruleset()


def test_the_number_of_a_rule_is_not_given_again():
    """Rows hold it. A rule that is asked for twice is there once."""
    ruleset = Ruleset().with_rules(REJECT, [b"a", b"a", b"b"])
    assert [one.id for one in ruleset.rules] == [RuleId.FIRST_OF_USER, RuleId.FIRST_OF_USER + 1]
    again = ruleset.cleared().with_rules(REJECT, [b"c"])
    assert [one.id for one in again.rules] == [RuleId.FIRST_OF_USER + 2]
    assert again.name_of(RuleId.FIRST_OF_USER) == f"rule {int(RuleId.FIRST_OF_USER)}"
    assert [int(one.id) for one in BUILTIN] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: Ruleset().switched(["nonsense"], []), "there are: system"),
        (lambda: Ruleset().switched(["dev"], ["dev"]), "not both"),
        (lambda: Ruleset().with_rules(REJECT, [b""]), "no pattern"),
        (lambda: Ruleset().with_rules(REJECT, [b"a//b"]), "no pattern"),
        (lambda: Ruleset().with_rules(REJECT, [b"{}"]), "'{}' is no pattern"),
        (lambda: Ruleset().with_rules(REJECT, [b"{b,}"]), "no pattern"),
        (lambda: Ruleset().with_rules(ACCEPT, [b"a{/,b}/c"]), "no pattern"),
        (lambda: Ruleset().with_rules(REJECT, [b"[a"]), "bracket"),
        (lambda: Ruleset().with_rules(REJECT, [b"./x"]), "'./x' has a part . or .., .* like /Private"),
        (lambda: Ruleset().with_rules(ACCEPT, [b"a/../b"]), "'a/../b' has a part"),
        (lambda: Ruleset().with_rules(REJECT, [b"/{a,..}/"]), "has a part"),
        (lambda: Ruleset().with_rules(REJECT, [b"\\."]), "has a part"),
        (lambda: Ruleset().with_rules(ACCEPT, [b"Photos/"]), r"accept speaks of files; write 'Photos/\*\*'"),
        (lambda: Ruleset().with_rules(ACCEPT, [b"{a,b/c}/"]), r"write '{a,b/c}/\*\*'"),
        (lambda: Ruleset().with_rules(REJECT_WITH, [b"a/b"]), "name of a directory"),
        (lambda: Ruleset().with_rules(REJECT, [b"x" * 5000]), "4096"),
        (lambda: Ruleset().with_rules(REJECT, [b"%d" % n for n in range(RULES_MAX + 1)]), "256"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_cure(ask, words):
    with pytest.raises(Invalid, match=words):
        ask()


def test_what_looks_like_no_rule_and_is_one():
    """Names of dots beside the two that every directory has, alternatives that begin a path; accepting by more than
    directories."""
    patterns = [b"...", b".x/y", b"x.", b"**/..a", b"{,**/}x", b"{/a,b}/c", b"[.]x", b"\\\\."]
    assert len(Ruleset().with_rules(REJECT, patterns).rules) == len(patterns)
    assert Ruleset().with_rules(ACCEPT, [b"{*.md,drafts/}", b"Photos/**"]).rules
