"""The walk of a real tree against rows: in pieces it tells the same as in one."""

import os

import pytest

from index.model.entry import Stat
from index.model.inode import DEVICES, inode_of
from index.scan import judging, recording, walker
from index.scan.fsid import fs_identity_fd
from index.scan.inotify import Inotify, WatchLimitReached
from index.scan.rules.ruleset import REJECT, REJECT_WITH, Ruleset
from index.scan.volumes import MOUNTED
from index.store import devices, entries, places
from index.store.store import Store


class Reports:
    """What a walk emits."""

    def __init__(self) -> None:
        self.dirs = self.entries = 0
        self.reports: list[list] = []

    def emit(self, batch) -> None:
        self.dirs += batch[0]
        self.entries += batch[1]
        self.reports += batch[2]

    def stopped(self) -> bool:
        return False


class Walked:
    """A tree on the disk and a library that knows it."""

    def __init__(self, path) -> None:
        self.root = path / "tree"
        self.root.mkdir()
        self.store = Store(path / "library.db", b"d" * 16)
        self.ids: dict[str, int] = {}

    def learn(self) -> None:
        """Write a row for everything that is there."""
        with self.store.write("test") as unit:
            devices.put(unit.db, b"d" * 16, "device", b"k" * 32, 1)
            branch = places.put_branch(unit.db, b"b" * 16, None, b"d" * 16, "store", os.fsencode(self.root), "fs", 1)
            for directory, below, files in os.walk(self.root):
                here = os.path.relpath(directory, self.root)
                if here == ".":
                    row = recording.plain_row(unit, branch, 0, b"", Stat.of(os.stat(self.root)))
                    entries.insert(unit.db, row._replace(parent_id=None))
                    self.ids["."] = row.id
                for name in below + files:
                    st = Stat.of(os.lstat(os.path.join(directory, name)))
                    row = recording.plain_row(unit, branch, self.ids[here], os.fsencode(name), st)
                    entries.insert(unit.db, row)
                    self.ids[os.path.normpath(os.path.join(here, name))] = row.id
                entries.set_scanned(unit.db, self.ids[here], 1, os.stat(directory).st_mtime_ns)

    def walk(self, *starts: str, excluded=None, rules=None, watching=False) -> tuple[Reports, int]:
        """All pieces of a walk; returns what they told and how many they were."""
        fd = os.open(self.root, os.O_RDONLY)
        root_id = list(fs_identity_fd(fd))
        os.close(fd)
        told, waiting, number = Reports(), [[self.ids[start] for start in starts or ["."]]], 0
        while waiting:
            args = {
                "database": str(self.store.path), "root": os.fsencode(self.root), "root_id": root_id,
                "root_entry": self.ids["."], "starts": waiting.pop(), "excluded": excluded or {},
                "devices": DEVICES.told(), "rules": rules, "within": os.fsencode(self.root),
                "watching": watching,
            }  # fmt: skip
            left, self.lost = walker.scan(args, told)
            waiting += [[entry_id] for entry_id in left]
            number += 1
        return told, number


@pytest.fixture
def walked(tmp_path):
    made = Walked(tmp_path)
    for top in range(5):
        for middle in range(6):
            directory = made.root / f"d{top}" / f"e{middle}" / "deep"
            directory.mkdir(parents=True)
            (directory / "file").write_text("x" * top)
    made.learn()
    yield made
    made.store.close()


def at_once(monkeypatch) -> None:
    monkeypatch.setattr(walker, "PIECE_S", 3600.0)


def one_by_one(monkeypatch) -> None:
    monkeypatch.setattr(walker, "PIECE_S", -1.0)


def test_a_quiet_tree_has_no_differences(walked, monkeypatch):
    at_once(monkeypatch)
    told, pieces = walked.walk()
    assert (told.dirs, told.entries, told.reports, pieces) == (66, 95, [], 1)


def test_in_pieces_a_walk_tells_the_same(walked, monkeypatch):
    (walked.root / "d1" / "e2" / "deep" / "file").write_text("changed")
    (walked.root / "d2" / "e0" / "deep" / "file").unlink()
    new = walked.root / "d3" / "new" / "below"
    new.mkdir(parents=True)
    (new / "file").write_text("new")
    (walked.root / "d4" / "e5").rename(walked.root / "d0" / "moved")

    at_once(monkeypatch)
    whole, _ = walked.walk()
    one_by_one(monkeypatch)
    told, pieces = walked.walk()

    def known(reports):
        return sorted(report for report in reports if report[0] > 0)

    assert len(whole.reports) > 5
    assert (told.dirs, told.entries) == (whole.dirs, whole.entries)
    assert pieces > 50
    # New directories have numbers of their piece, which differ.
    unnumbered = [
        [*report[:3], [[name, st, bool(n)] for name, st, n, _ in report[3]], *report[4:]] for report in told.reports
    ]
    expected = [
        [*report[:3], [[name, st, bool(n)] for name, st, n, _ in report[3]], *report[4:]] for report in whole.reports
    ]
    assert known(unnumbered) == known(expected)
    assert sorted(r[1:] for r in unnumbered if r[0] < 0) == sorted(r[1:] for r in expected if r[0] < 0)


@pytest.fixture
def watches(walked, monkeypatch):
    """The instance that a daemon would have given to the worker."""
    with Inotify() as instance:
        monkeypatch.setattr(walker, "WATCHES_FD", instance.fd)
        yield instance


def test_what_was_never_listed_is_watched_before_it_is_listed(walked, watches, monkeypatch):
    at_once(monkeypatch)
    new = walked.root / "d3" / "new" / "below"
    new.mkdir(parents=True)
    (new / "file").write_text("new")
    told, _ = walked.walk(watching=True)
    watched = {tuple(name for name, *_ in report[3]): report[8] for report in told.reports}
    assert watched[b"new",] is None  # d3 is known, and whoever knows it watches it
    assert watched[b"below",][1] == inode_of(new.parent.stat())
    wd, inode = watched[b"file",]
    assert inode == inode_of(new.stat())
    (new / "file").write_text("written after it was listed")
    assert {event.wd for event in watches.read()} == {wd}


def test_without_room_for_a_watch_a_directory_is_told_without(walked, watches, monkeypatch):
    at_once(monkeypatch)
    asked = []

    def add(_self, path):
        asked.append(path)
        raise WatchLimitReached("no more than none")

    monkeypatch.setattr(Inotify, "add", add)
    for number in range(3):
        (walked.root / f"new{number}").mkdir()
    told, _ = walked.walk(watching=True)
    assert [report[8] for report in told.reports if report[0] < 0] == [None] * 3
    assert len(asked) == 1


def test_what_is_new_is_walked_by_the_piece_that_found_it(walked, monkeypatch):
    for number in range(20):
        (walked.root / "d0" / f"new{number}" / "below").mkdir(parents=True)
    one_by_one(monkeypatch)
    told, pieces = walked.walk("d0")
    assert sum(report[0] < 0 for report in told.reports) == 40
    assert pieces == 1 + 12  # d0, its six directories and theirs


def test_a_piece_begins_where_its_directories_are_now(walked, monkeypatch):
    at_once(monkeypatch)
    moved = walked.ids["d1/e1"]
    walked.ids["gone"] = max(walked.ids.values()) + 1
    (walked.root / "d1" / "e1").rename(walked.root / "d3" / "there")
    walked.store.db.execute("UPDATE entry SET parent_id=?, name=? WHERE id=?", (walked.ids["d3"], b"there", moved))
    told, _ = walked.walk("d1/e1", "gone")
    assert (told.dirs, told.reports) == (2, [])


def test_a_directory_that_is_not_there_any_more_is_lost(walked, monkeypatch):
    """By its name nothing can be said of it: it may have moved, and the daemon knows where to."""
    at_once(monkeypatch)
    (walked.root / "d1" / "e1").rename(walked.root / "aside")
    walked.walk("d1/e1")
    assert walked.lost == [walked.ids["d1/e1"]]


@pytest.mark.parametrize("how", ["directory", "symlink", "file"])
def test_a_directory_whose_name_something_else_has_is_lost(walked, monkeypatch, how):
    at_once(monkeypatch)
    place = walked.root / "d1" / "e1"
    place.rename(walked.root / "aside")
    if how == "directory":
        (place / "deep").mkdir(parents=True)
    elif how == "symlink":
        place.symlink_to(walked.root / "aside")
    else:
        place.touch()
    told, _ = walked.walk("d1/e1/deep")
    assert walked.lost == [walked.ids["d1/e1/deep"]]
    assert told.reports == []


def test_what_is_never_looked_at_is_no_beginning_either(walked, monkeypatch):
    at_once(monkeypatch)
    excluded = {b"d1": {b"e1": True, b"e2": MOUNTED, b"e3": {b"deep": True}}}
    told, _ = walked.walk("d1/e1", "d1/e1/deep", "d1/e2/deep", "d1/e3/deep", excluded=excluded)
    assert (told.dirs, told.reports) == (0, [])
    told, _ = walked.walk("d1/e3", "d1/e4", excluded=excluded)
    assert told.dirs == 3


def test_a_beginning_in_another_branch_is_told(walked, monkeypatch):
    """It was taken there since it was left: whoever hands out the pieces has it walked there."""
    at_once(monkeypatch)
    with walked.store.write("test") as unit:
        other = places.put_branch(unit.db, b"o" * 16, None, b"d" * 16, "other", b"/other", "fs", 2)
        row = recording.plain_row(unit, other, 0, b"", Stat.of(os.stat(walked.root)))
        entries.insert(unit.db, row._replace(parent_id=None))
        unit.db.execute("UPDATE entry SET parent_id=?, branch_id=? WHERE id=?", (row.id, other, walked.ids["d1/e1"]))
    told, _ = walked.walk("d1/e1", "d1/e1/deep", "d1/e2")
    assert [report[0] for report in told.reports[:2]] == [walked.ids["d1/e1"], walked.ids["d1/e1/deep"]]
    assert told.dirs == 2


RULES = Ruleset().with_rules(REJECT, [b"deep"]).with_rules(REJECT_WITH, [b"sign"]).pack()


def ruled(walked, told) -> dict[str, int]:
    """Path -> rule of the known names that a walk spoke of."""
    paths = {entry_id: path for path, entry_id in walked.ids.items()}
    return {paths[entry_id]: rule for report in told.reports for entry_id, _, rule in report[7]}


@pytest.mark.parametrize("cut", [at_once, one_by_one])
def test_a_walk_tells_by_which_rule_names_are_held(walked, monkeypatch, cut):
    """New names with their rule; of known ones those alone whose row says another, wherever the piece begins."""
    cut(monkeypatch)
    (walked.root / "d0" / "e0" / "sign").mkdir()
    (walked.root / "d1" / "e1" / "deep" / "new").mkdir()
    (walked.root / "d1" / "e1" / "deep" / "new" / "below").touch()
    (walked.root / "d1" / "e1" / "plain").touch()
    told, _ = walked.walk(rules=RULES)
    known = ruled(walked, told)
    held = {path for path in walked.ids if "deep" in path} | {"d0/e0"}
    assert known == {path: 101 if path.startswith("d0/e0") else 100 for path in held}
    added = {name: rule for report in told.reports for name, _, _, rule in report[3]}
    assert added == {b"sign": 101, b"new": 100, b"below": 100, b"plain": 0}
    with walked.store.write("test") as unit:
        for path, rule in known.items():
            entries.set_rule(unit.db, walked.ids[path], rule, unit.seq)
    told, _ = walked.walk("d0/e0/deep", "d1/e1/deep", "d2", rules=RULES)
    assert ruled(walked, told) == {}
    told, _ = walked.walk(rules=Ruleset().pack())
    assert ruled(walked, told) == dict.fromkeys(held, 0)


def test_judging_again_tells_what_a_walk_would(walked, monkeypatch):
    """Of rows alone, and as deep as was asked for; what lies in one that gets another rule comes with it."""
    at_once(monkeypatch)
    (walked.root / "d0" / "e0" / "sign").mkdir()
    told, _ = walked.walk(rules=RULES)

    def judged(*starts: tuple[str, bool]) -> dict[str, int]:
        again = Judged()
        fd = os.open(walked.root, os.O_RDONLY)
        root_id = list(fs_identity_fd(fd))
        os.close(fd)
        judging.judge(
            {
                "database": str(walked.store.path), "root": os.fsencode(walked.root), "root_id": root_id,
                "root_entry": walked.ids["."], "starts": [(walked.ids[path], deep) for path, deep in starts],
                "excluded": {}, "devices": DEVICES.told(), "rules": RULES, "within": os.fsencode(walked.root),
            },
            again,
        )  # fmt: skip
        paths = {entry_id: path for path, entry_id in walked.ids.items()}
        return {paths[entry_id]: rule for _, some in again.batches for entry_id, _, rule in some}

    assert judged((".", True)) == ruled(walked, told)
    assert judged(("d1", False)) == {}
    assert judged(("d1/e1", False)) == {"d1/e1/deep": 100, "d1/e1/deep/file": 100}
    assert judged(("d1/e1", True)) == {"d1/e1/deep": 100, "d1/e1/deep/file": 100}
    assert judged(("d0/e0", False)) == dict.fromkeys(["d0/e0", "d0/e0/deep", "d0/e0/deep/file"], 101)
    (walked.root / "d1" / "e1").rename(walked.root / "aside")
    assert judged(("d1/e1", True)) == {}  # who sees the move has it judged


class Judged(Reports):
    """What judging emits."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list] = []

    def emit(self, batch) -> None:
        self.batches += batch
