"""The care of what other devices told: what is damaged of it is let go of and told again, and never becomes ours."""

from pathlib import Path

import msgpack
import pytest

from index.care import checking
from index.care.mend import mend
from index.store import places, registers, streams
from index.store.connection import connect
from index.store.registers import Register
from index.store.store import Store
from index.store.streams import OWNED, SHARED, StreamId
from tests.remote_rows import RemoteRows

DEVICE = b"d" * 16


class Afar:
    """A closed library in which Laptop and NAS have a branch each, told up to unit 90."""

    def __init__(self, path: Path) -> None:
        self.path = path
        store = Store(path, DEVICE)
        rows = RemoteRows(store)
        with store.write("test") as unit:
            unit.db.execute(
                "INSERT INTO device(uuid, name, public_key, created_ns, slug) VALUES(?,?,x'',0,'d')", (DEVICE, "d")
            )
        self.laptop, self.nas = rows.device("Laptop"), rows.device("NAS")
        self.branches = [rows.branch(owner, "L") for owner in (self.laptop, self.nas)]
        for branch in self.branches:
            rows.file(branch, "d/a", b"theirs")
        for owner, branch in zip((self.laptop, self.nas), self.branches, strict=True):
            with store.write("test") as unit:
                (one,) = [row for row in places.branches(unit.db) if row.id == branch]
                (location,) = [row for row in places.locations(unit.db) if row.id == one.location_id]
                facts = msgpack.packb([location.uuid, "L", b"/far/away", None])
                registers.merge(unit.db, [Register(places.BRANCH, owner + one.uuid, "facts", facts, 1, owner)])
                for kind in (OWNED, SHARED):
                    streams.begin(unit.db, StreamId(owner, 1, kind), 0)
                    streams.advance(unit.db, StreamId(owner, 1, kind), 90)
        store.close()

    def do(self, sql: str, *args: object) -> None:
        db = connect(self.path)
        db.pragma("foreign_keys", False)
        db.execute(sql, args)  # type: ignore[arg-type]
        db.close()

    def mend(self) -> list[str]:
        db = connect(self.path)
        db.pragma("foreign_keys", False)
        with db:
            done = mend(db, DEVICE, b"l" * 16, is_sure=True)
        db.close()
        assert checking.check(self.path, DEVICE) == []
        return done

    def owners(self) -> set[bytes]:
        """Whose branches have entries of others."""
        sql = "SELECT DISTINCT b.device_uuid FROM entry e JOIN branch b ON b.id=e.branch_id WHERE e.uid<0"
        return {row[0] for row in self.rows(sql)}

    def stands(self, device: bytes, kind: int) -> int:
        ((seq,),) = self.rows("SELECT seq FROM stream WHERE device=? AND kind=?", device, kind)
        return int(seq)

    def rows(self, sql: str, *args: object) -> list[tuple]:
        db = connect(self.path, read_only=True)
        try:
            return db.execute(sql, args).fetchall()  # type: ignore[arg-type, return-value]
        finally:
            db.close()


@pytest.fixture
def afar(tmp_path: Path) -> Afar:
    return Afar(tmp_path / "library.db")


def test_what_is_sound_stays(afar: Afar) -> None:
    assert afar.mend() == []
    assert afar.owners() == {afar.laptop, afar.nas}
    assert [afar.stands(device, OWNED) for device in (afar.laptop, afar.nas)] == [90, 90]


def test_a_branch_that_is_lost_comes_back_empty_and_its_owner_tells_it_again(afar: Afar) -> None:
    afar.do("DELETE FROM branch WHERE id=?", afar.branches[0])
    assert afar.mend()
    assert afar.owners() == {afar.nas}
    assert afar.rows("SELECT device_uuid, root_entry_id FROM branch WHERE device_uuid=?", afar.laptop) == [
        (afar.laptop, None)
    ]
    assert [afar.stands(afar.laptop, kind) for kind in (OWNED, SHARED)] == [0, 90]
    assert afar.stands(afar.nas, OWNED) == 90
    assert afar.rows("SELECT count(*) FROM branch WHERE device_uuid=?", DEVICE) == [(0,)]


def test_a_branch_of_which_nobody_knows_whose_it_was_has_everybody_tell_again(afar: Afar) -> None:
    afar.do("DELETE FROM branch WHERE id=?", afar.branches[0])
    afar.do("DELETE FROM register")
    afar.mend()
    assert afar.owners() == {afar.nas}
    assert [afar.stands(device, OWNED) for device in (afar.laptop, afar.nas)] == [0, 0]
    assert afar.rows("SELECT count(*) FROM branch WHERE device_uuid=?", DEVICE) == [(0,)]


def test_a_branch_whose_first_directory_is_lost_is_told_again(afar: Afar) -> None:
    afar.do("DELETE FROM entry WHERE id=(SELECT root_entry_id FROM branch WHERE id=?)", afar.branches[1])
    afar.mend()
    assert afar.owners() == {afar.laptop}
    assert afar.stands(afar.nas, OWNED) == 0
    assert afar.stands(afar.laptop, OWNED) == 90
    assert afar.rows("SELECT root_entry_id FROM branch WHERE id=?", afar.branches[1]) == [(None,)]


def test_rows_of_others_in_a_branch_of_ours_go(afar: Afar) -> None:
    afar.do("UPDATE branch SET device_uuid=? WHERE id=?", DEVICE, afar.branches[0])
    afar.do("DELETE FROM branch WHERE id=?", afar.branches[1])
    afar.mend()
    assert afar.owners() == set()
    assert afar.rows("SELECT count(*) FROM entry WHERE uid<0") == [(0,)]
