"""Rows of another device that are names of one file: they share a number while its owner says so."""

import stat

import pytest
from blake3 import blake3

from index.model.change import ORIGIN_SYNC
from index.model.entry import HASH_FULL, KIND_DIR, KIND_FILE
from index.model.ids import new_entry_uuid, new_uuid
from index.store import places, remote
from index.store.remote import RemoteRow
from index.store.store import Store
from tests.remote_rows import OLD_NS, RemoteRows

ROOT, DIRECTORY, FILE = 1, stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644
OLD, NEW = b"old", b"newer bytes"


class Branch:
    """A branch of another device."""

    def __init__(self, path) -> None:
        self.store = Store(path / "library.db", b"d" * 16)
        owner = RemoteRows(self.store).device("far")
        with self.store.write(ORIGIN_SYNC) as unit:
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


@pytest.mark.parametrize("at_once", [True, False], ids=["in one unit", "one by one"])
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
        names: dict[int, bytes] = {}
        for name, number in sorted(branch.numbers().items()):
            names[number] = names.get(number, b"") + name
        assert set(names.values()) == expected
