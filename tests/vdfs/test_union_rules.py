"""The rules of the union: who has the plain name, what conflicting replicas are called, what is not shown."""

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model import versions
from index.model.entry import HASH_FULL, HASH_NONE, HASH_SAMPLED, Entry
from vdfs.space.union import Candidate, arrange, conflict_name, cut, known_different, known_same

NAME_MAX_BYTES = 255
FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
KINDS = {FILE: 0, DIRECTORY: 1, LINK: 2}


def row(
    *, mode: int = FILE, size: int = 1, mtime_ns: int = 0, content: int | None = None, state: int | None = None
) -> Entry:
    """A row as far as the rules look at it; a content is one whose full hash is known unless `state` says else."""
    hash_state = (HASH_FULL if content else HASH_NONE) if state is None else state
    return Entry(
        7, 1, 1, b"name", 7, None, KINDS[mode], mode, size, mtime_ns, 0, 7, 1, 0, 0, content, hash_state, None, 1,
        None, None,
    )  # fmt: skip


def candidate(
    number: int, entry: Entry, *, vector: versions.Vector | None = None, device: bytes = b"d" * 16,
    branch: bytes | None = None, slug: str = "desk", label: str | None = None,
) -> Candidate:  # fmt: skip
    """One replica on a branch of its own."""
    uuid = bytes([number]) * 16 if branch is None else branch
    own = {uuid: 1} if vector is None else vector
    return Candidate(entry, own, device, uuid, slug, label or f"b{number}", number)


def told(name: bytes, candidates: list[Candidate]) -> tuple[list[int], dict[bytes, int], set[int]]:
    """What `arrange` says, by numbers: shown, conflicts by name, stale."""
    arranged = arrange(name, candidates)
    conflicts = {shown: c.number for shown, c in arranged.conflicts}
    return [c.number for c in arranged.shown], conflicts, {c.number for c in arranged.stale}


# -- who is shown ------------------------------------------------------------------------------------------------------


def test_one_replica_is_what_it_is():
    """Whatever its kind."""
    for mode in KINDS:
        assert told(b"n", [candidate(3, row(mode=mode))]) == ([3], {}, set())


def test_the_newest_has_the_plain_name():
    """Of files that differ, the greatest mtime; the others show under names of their own."""
    replicas = [candidate(i, row(size=i, mtime_ns=t)) for i, t in ((1, 10), (2, 30), (3, 20))]
    assert told(b"a.txt", replicas) == ([2], {b"a (from desk, b1).txt": 1, b"a (from desk, b3).txt": 3}, set())


def test_devices_break_a_tie_of_times_and_branches_one_of_devices():
    """By what every device knows, so that all of them show the same."""
    by_device = [
        candidate(1, row(size=1), device=b"a" * 16, branch=b"z" * 16),
        candidate(2, row(size=2), device=b"b" * 16, branch=b"a" * 16),
    ]
    assert told(b"n", by_device)[0] == [2]
    by_branch = [candidate(1, row(size=1), branch=b"b" * 16), candidate(2, row(size=2), branch=b"a" * 16)]
    assert told(b"n", by_branch)[0] == [1]


def test_replicas_of_the_same_bytes_are_one_file():
    """One name, the newest replica first."""
    replicas = [candidate(1, row(content=5, mtime_ns=1)), candidate(2, row(content=5, mtime_ns=2))]
    assert told(b"n", replicas) == ([2, 1], {}, set())


@pytest.mark.parametrize("state", [HASH_NONE, HASH_SAMPLED])
def test_what_is_not_known_to_differ_is_one_file(state):
    """Of one size, a full hash still missing: undecided, so nobody is frightened by a conflict that is none."""
    replicas = [candidate(1, row(content=5)), candidate(2, row(content=6, state=state))]
    assert told(b"n", replicas) == ([2, 1], {}, set())


def test_a_dominated_replica_is_stale_and_not_listed():
    """However new its times are: the other has seen all its changes and more."""
    old = candidate(1, row(size=1, mtime_ns=99), vector={b"a" * 16: 1})
    new = candidate(2, row(size=2, mtime_ns=1), vector={b"a" * 16: 1, b"b" * 16: 1})
    assert told(b"n", [old, new]) == ([2], {}, {1})


def test_a_directory_beats_a_file():
    """Directories merge under the plain name; a file shows as a conflict, a stale one not at all."""
    replicas = [
        candidate(1, row(mtime_ns=99), vector={b"x" * 16: 2}),
        candidate(2, row(mode=DIRECTORY, mtime_ns=1)),
        candidate(3, row(mode=DIRECTORY, mtime_ns=5)),
        candidate(4, row(size=9), vector={b"x" * 16: 1}),
    ]
    assert told(b"n.d", replicas) == ([2, 3], {b"n (from desk, b1).d": 1}, {4})


def test_another_kind_is_a_conflict():
    """A link is no file, even of its size and time."""
    replicas = [candidate(1, row(mtime_ns=1)), candidate(2, row(mode=LINK, mtime_ns=2))]
    assert told(b"n", replicas) == ([2], {b"n (from desk, b1)": 1}, set())


# -- laws over any replicas --------------------------------------------------------------------------------------------

VECTOR = st.dictionaries(st.sampled_from([b"a" * 16, b"b" * 16]), st.integers(1, 2), min_size=1)
ROWS = st.builds(
    # a content has one size: equal hashes of files of different sizes cannot be
    lambda mode, size, mtime_ns, content: row(
        mode=mode, size=size, mtime_ns=mtime_ns, content=content and 10 * size + content
    ),
    st.sampled_from(list(KINDS)), st.integers(0, 2), st.integers(0, 2), st.sampled_from([None, 1, 2]),
)  # fmt: skip
REPLICAS = st.lists(st.tuples(ROWS, VECTOR), min_size=1, max_size=5).map(
    lambda found: [candidate(i + 1, r, vector=v) for i, (r, v) in enumerate(found)]
)


@given(REPLICAS)
def test_every_replica_has_one_place_and_something_is_shown(replicas):
    """Nothing is lost and nothing twice: shown, in conflict, or stale."""
    shown, conflicts, stale = told(b"name", replicas)
    assert shown
    assert sorted([*shown, *conflicts.values(), *stale]) == [c.number for c in replicas]


@given(REPLICAS, st.randoms())
def test_the_order_in_which_branches_are_asked_does_not_matter(replicas, random):
    """Files: every device decides alike. Of directories only the set is one."""
    shuffled = list(replicas)
    random.shuffle(shuffled)
    shown, conflicts, stale = told(b"name", replicas)
    shown_too, *others = told(b"name", shuffled)
    assert [conflicts, stale] == others
    assert sorted(shown) == sorted(shown_too)
    if replicas[shown[0] - 1].row.mode != DIRECTORY:
        assert shown == shown_too


@given(REPLICAS)
def test_what_shares_a_name_is_not_known_to_differ(replicas):
    """Nobody reads other bytes than those of the name; what is stale is covered by something that is not."""
    arranged = arrange(b"name", replicas)
    first = arranged.shown[0]
    for other in arranged.shown[1:]:
        assert not known_different(first.row, other.row)
    for conflict in (c for _, c in arranged.conflicts):
        assert known_different(first.row, conflict.row)
    fresh = [*arranged.shown, *(c for _, c in arranged.conflicts)]
    if len(replicas) > 1:
        for old in arranged.stale:
            assert any(versions.dominates(c.vector, old.vector) for c in fresh)


@given(ROWS, ROWS)
def test_two_files_are_never_known_to_be_both(a, b):
    """Same and different exclude each other, and neither depends on the order."""
    assert known_same(a, b) == known_same(b, a)
    assert known_different(a, b) == known_different(b, a)
    if a.mode == b.mode:
        assert not (known_same(a, b) and known_different(a, b))


# -- names of conflicts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (b"a.txt", b"a (from desk, b1).txt"),
        (b"a", b"a (from desk, b1)"),
        (b"a.tar.gz", b"a.tar (from desk, b1).gz"),
        (b".bashrc", b".bashrc (from desk, b1)"),
        (b"a.", b"a (from desk, b1)."),
        (b"caf\xe9.txt", b"caf\xe9 (from desk, b1).txt"),
    ],
)
def test_the_extension_stays_at_the_end(name, wanted):
    """So programs still know what it is; a leading dot makes no extension."""
    assert wanted == conflict_name(name, candidate(1, row()))


def test_a_number_tells_further_ones_apart():
    """Before the extension, from 2 on."""
    assert conflict_name(b"a.txt", candidate(1, row()), 2) == b"a (from desk, b1) 2.txt"


def test_a_long_name_loses_the_end_of_its_stem():
    """A whole character of it at a time; mark and extension stay."""
    name = conflict_name("ä".encode() * 125 + b".txt", candidate(1, row()))
    assert len(name) in (NAME_MAX_BYTES - 1, NAME_MAX_BYTES)
    assert name.decode("utf-8").startswith("ä" * 100)
    assert name.endswith(b" (from desk, b1).txt")


def test_an_extension_too_long_to_keep_is_given_up():
    """The mark matters more: without it the name would be the plain one."""
    name = conflict_name(b"a." + b"x" * 253, candidate(1, row()))
    assert len(name) <= NAME_MAX_BYTES
    assert b" (from desk, b1)" in name


@pytest.mark.parametrize("name", [b"a.txt", b"n" * 251 + b".txt"])
@pytest.mark.parametrize("label", ["l" * 255, "ä" * 127, "l" * 230])
def test_a_label_as_long_as_the_name_of_a_folder_leaves_room(name, label):
    """The name still fits a directory, and is not the plain one."""
    shown = conflict_name(name, candidate(1, row(), slug="s" * 60, label=label), 2)
    assert len(shown) <= NAME_MAX_BYTES
    assert b" (from " in shown
    assert shown.decode("utf-8") != name


@given(
    st.binary(min_size=1, max_size=255).filter(lambda n: b"/" not in n and b"\0" not in n)
    | st.text("aä€😀.", min_size=1, max_size=60).map(str.encode),
    st.text("abc-", min_size=1, max_size=63),
    st.text("aä€ .", min_size=1, max_size=100),
    st.integers(1, 1000),
)
def test_a_conflict_name_fits_a_directory_and_is_not_the_plain_one(name, slug, label, number):
    """255 bytes, and UTF-8 where the name was."""
    shown = conflict_name(name, candidate(1, row(), slug=slug, label=label), number)
    assert 0 < len(shown) <= NAME_MAX_BYTES
    assert shown != name
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return
    shown.decode("utf-8")


@given(st.text("aä€😀", max_size=40), st.integers(0, 100))
def test_a_cut_takes_as_much_as_fits_and_no_half_character(text, limit):
    """Of UTF-8: a beginning of the text, and one character more would be too much."""
    short = cut(text.encode(), limit).decode("utf-8")
    assert text.startswith(short)
    assert len(short.encode()) <= limit
    if short != text:
        assert len(text[: len(short) + 1].encode()) > limit


@given(st.binary(max_size=40), st.integers(0, 50))
def test_a_cut_of_any_bytes_is_a_beginning_of_them(data, limit):
    """Names need not be UTF-8; nothing is made up and nothing raises."""
    short = cut(data, limit)
    assert data.startswith(short)
    assert len(short) <= limit
