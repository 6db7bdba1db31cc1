"""Rows of another device that are names of one file: they share a number while its owner says so."""

import stat

import pytest
from blake3 import blake3

from index.model.change import ORIGIN_SYNC
from index.model.entry import HASH_FULL, KIND_DIR, KIND_FILE, Stat
from index.model.ids import new_entry_uuid, new_uuid
from index.scan import recording
from index.store import devices, places, remote
from index.store.remote import RemoteRow
from index.store.store import Store
from tests.remote_rows import OLD_NS, RemoteRows

ROOT, DIRECTORY, FILE = 1, stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644
OLD, NEW = b"old", b"newer bytes"
LOOKS = Stat(FILE, len(OLD), OLD_NS, OLD_NS, 101, 1, 0, 0)


class Branch:
    """A branch of another device."""

    def __init__(self, path) -> None:
        self.store = Store(path / "library.db", b"d" * 16)
        owner = RemoteRows(self.store).device("far")
        with self.store.write(ORIGIN_SYNC) as unit:
            devices.put(unit.db, self.store.device_uuid, "here", b"k" * 32, OLD_NS)
            location = places.put_location(unit, new_uuid(), b"Photos")
            self.id = places.put_branch(unit.db, new_uuid(), location, owner, "Photos", b"/far", "", 0)
        self.tell(RemoteRow(ROOT, 0, b"", new_entry_uuid(), KIND_DIR, DIRECTORY, 0, OLD_NS, OLD_NS, 2, 0, *[None] * 4))

    def tell(self, *rows: RemoteRow) -> None:
        with self.store.write(ORIGIN_SYNC) as unit:
            remote.apply(unit, self.id, list(rows), {}, 1)

    def numbers(self) -> dict[bytes, int]:
        sql = "SELECT name, node FROM entry WHERE branch_id=? AND kind=0 AND parent_id IS NOT NULL"
        return dict(self.store.db.execute(sql, (self.id,)))


def file(rid: int, name: bytes, uuid: bytes, data: bytes, nlink: int) -> RemoteRow:
    when_ns = OLD_NS + len(data)
    full, sampled = blake3(data).digest(), bytes(8)
    return RemoteRow(
        rid, ROOT, name, uuid, KIND_FILE, FILE, len(data), when_ns, when_ns, nlink, HASH_FULL, full, sampled, None, None
    )


@pytest.fixture
def branch(tmp_path):
    made = Branch(tmp_path)
    yield made
    made.store.close()


def files(branch: Branch) -> set[bytes]:
    """The names that share a number, together."""
    names: dict[int, bytes] = {}
    for name, number in sorted(branch.numbers().items()):
        names[number] = names.get(number, b"") + name
    return set(names.values())


both = pytest.mark.parametrize("at_once", [True, False], ids=["in one unit", "one by one"])


@both
def test_names_of_one_file_part_and_meet_again(branch, at_once):
    """f is saved anew under its own row, and keeps the uuid; then g is made a name of it."""
    one, other = new_entry_uuid(), new_entry_uuid()
    steps = [
        [file(2, b"f", one, OLD, 3), file(3, b"g", one, OLD, 3), file(4, b"h", one, OLD, 3)],
        [file(2, b"f", one, NEW, 1), file(3, b"g", other, OLD, 2), file(4, b"h", other, OLD, 2)],
        [file(3, b"g", one, NEW, 2), file(2, b"f", one, NEW, 2), file(4, b"h", other, OLD, 1)],
    ]
    one_file = [{b"fgh"}, {b"f", b"gh"}, {b"fg", b"h"}]
    for rows, expected in zip(steps, one_file, strict=True):
        for some in [rows] if at_once else [[row] for row in rows]:
            branch.tell(*some)
        assert files(branch) == expected


@both
def test_names_of_one_file_are_those_of_two(branch, at_once):
    """f is saved anew and g linked to it at once: all four are names of a hard-linked file before and after."""
    one, other = new_entry_uuid(), new_entry_uuid()
    branch.tell(*[file(rid, name, one, OLD, 4) for rid, name in enumerate((b"f", b"g", b"h", b"k"), 2)])
    split = [
        *[file(rid, name, one, NEW, 2) for rid, name in enumerate((b"f", b"g"), 2)],
        *[file(rid, name, other, OLD, 2) for rid, name in enumerate((b"h", b"k"), 4)],
    ]
    for some in [split] if at_once else [[row] for row in split]:
        branch.tell(*some)
    assert files(branch) == {b"fg", b"hk"}


@both
def test_a_further_name_of_a_replica_does_not_share_a_number_with_ours(branch, at_once):
    """Ours has one name: what has several there is none of several here."""
    uuid = new_entry_uuid()
    branch.tell(file(2, b"f", uuid, OLD, 1))
    with branch.store.write("test") as unit:
        own = places.put_branch(unit.db, new_uuid(), None, branch.store.device_uuid, "own", b"/own", "fs", 1)
        top = recording.plain_row(unit, own, 0, b"", LOOKS._replace(mode=DIRECTORY, st_ino=100), rule=0)
        top = recording.insert(unit, top._replace(parent_id=None))
        ours = recording.insert(unit, recording.plain_row(unit, own, top.id, b"f", LOOKS, rule=0, uuid=uuid))
        unit.db.execute("UPDATE entry SET node=? WHERE branch_id=? AND name=?", (ours.node, branch.id, b"f"))
    told = [file(2, b"f", uuid, OLD, 2), file(3, b"g", uuid, OLD, 2)]
    for some in [told] if at_once else [[row] for row in told]:
        branch.tell(*some)
    assert files(branch) == {b"fg"}
    assert ours.node not in branch.numbers().values()
