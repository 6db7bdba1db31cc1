"""The care of what other devices told: what contradicts itself is found, and what follows from registers made of them.

Two real stores, one of which has heard all that the other has; then its file is damaged by SQL, as a disk or an old
fault of ours would.
"""

from pathlib import Path

import pytest

from index.care import checking
from index.care.mend import mend
from index.store import aliases, annotating
from index.store.connection import connect
from index.store.streams import OWNED
from sync.log import restamping
from tests.sync.world import DIRECTORY, Device, introduce, settle


@pytest.fixture
def pair(tmp_path: Path):
    """A device with a few files and tags, and one that has heard of them."""
    one, two = Device(tmp_path, "one"), Device(tmp_path, "two")
    introduce(one, two)
    root = one.branch(b"Photos")
    summer = one.add(root, b"summer", DIRECTORY)
    for number in range(20):
        one.add(summer, b"%d.jpg" % number, data=b"%d" % number)
    uuid = one.uuid_of(summer)
    with one.store.write("test") as unit:
        for tag in ("sea", "sun"):
            annotating.add_tag(unit, uuid, tag)
    two.branch(b"Music")
    settle(one, two)
    assert two.db.execute("SELECT count(*) FROM entry WHERE uid<0").fetchone()[0] > 20
    yield one, two
    for device in (one, two):
        device.store.close()


def damage(device: Device, sql: str) -> list[str]:
    """The faults of a store after a statement, without foreign keys."""
    device.db.pragma("foreign_keys", False)
    device.db.execute(sql)
    return checking.check(device.path, device.uuid)


def mended(device: Device) -> list[str]:
    """What is done of it while nobody has it open; afterwards nothing is wrong, and nothing is left to be done."""
    library = device.store.library_uuid
    device.store.close()
    db = connect(device.path)
    db.pragma("foreign_keys", False)
    did = []
    for _ in range(2):
        with db:
            did.append(mend(db, device.uuid, library, is_sure=True))
    db.close()
    assert did[1] == []
    assert checking.check(device.path, device.uuid) == []
    device.open()
    return did[0]


def test_what_was_heard_is_sound(pair):
    one, two = pair
    assert checking.check(one.path, one.uuid) == []
    assert checking.check(two.path, two.uuid) == []


MADE = [
    "DELETE FROM location WHERE name=CAST('Photos' AS BLOB)",
    "UPDATE location SET name=CAST('Fotos' AS BLOB) WHERE name=CAST('Photos' AS BLOB)",
    "UPDATE location SET mode=0",
    "UPDATE tag SET name='rain' WHERE name='sea'",
    "UPDATE device SET revoked=1 WHERE uuid<>x'{own}'",
    "UPDATE device SET static_key=zeroblob(32)",
    "UPDATE branch SET label='elsewhere' WHERE device_uuid<>x'{own}'",
]


@pytest.mark.parametrize("sql", MADE)
def test_rows_are_made_anew_of_what_was_said(pair, sql):
    """Names, keys, places: as they were before."""
    _, two = pair
    tables = ("SELECT name, uuid, mode, removed FROM location", "SELECT * FROM device", "SELECT uuid, name FROM tag")
    before = [sorted(two.db.execute(table)) for table in tables]
    faults = damage(two, sql.format(own=two.uuid.hex()))
    assert any("is not what was said of it" in fault for fault in faults), faults
    assert mended(two)
    assert [sorted(two.db.execute(table)) for table in tables] == before


def test_a_row_that_is_made_anew_is_no_other_one(pair):
    """Assignments know a tag by a number. One that was lost is given to no other tag, which would have them then."""
    _, two = pair
    damage(two, "DELETE FROM tag")
    mended(two)
    assert [name for (name,) in two.db.execute("SELECT name FROM tag ORDER BY name")] == ["sea", "sun"]
    assert two.db.execute("SELECT count(*) FROM tagging").fetchone() == (0,)


def test_a_device_is_known_again_by_what_was_said_of_it(pair):
    """A branch whose device was lost would make one without keys, with which nobody could be linked."""
    one, two = pair
    before = two.db.execute("SELECT * FROM device WHERE uuid=?", (one.uuid,)).fetchone()
    assert damage(two, f"DELETE FROM device WHERE uuid=x'{one.uuid.hex()}'")
    mended(two)
    assert two.db.execute("SELECT * FROM device WHERE uuid=?", (one.uuid,)).fetchone() == before


PAGES = [
    "UPDATE page SET body=zeroblob(9)",
    "UPDATE page SET head=zeroblob(90)",
    "UPDATE page SET head=x'00'",
    "UPDATE page SET to_seq=to_seq+1",
    "UPDATE page SET device=x'{own}'",
]


@pytest.mark.parametrize("sql", PAGES)
def test_pages_that_are_not_what_was_signed_are_let_go_of(pair, sql):
    """Nobody would take them; who asks is told that they are not kept."""
    _, two = pair
    faults = damage(two, sql.format(own=two.uuid.hex()))
    assert any("is not what it is kept as" in fault for fault in faults), faults
    assert any("pages" in line for line in mended(two))
    assert two.db.execute("SELECT count(*) FROM page").fetchone() == (0,)


def test_what_is_adrift_is_told_again(pair):
    """A row that hangs nowhere, with nothing awaited of it, would never show again."""
    one, two = pair
    faults = damage(two, "UPDATE entry SET parent_id=NULL WHERE uid<0 AND kind=0")
    assert any("hangs nowhere" in fault for fault in faults), faults
    assert mended(two)
    own = "SELECT name, kind, size_bytes FROM entry WHERE parent_id IS NOT NULL AND uid{}0 ORDER BY name"
    assert list(two.db.execute(own.format("<"))) != list(one.db.execute(own.format(">=")))
    settle(one, two)
    assert list(two.db.execute(own.format("<"))) == list(one.db.execute(own.format(">=")))
    assert checking.check(two.path, two.uuid) == []


def test_a_note_that_would_take_a_row_away_goes_itself(pair):
    """Detached and gone means that it may be deleted; an entry that is in its directory is neither."""
    one, two = pair
    assert damage(two, "INSERT INTO detached SELECT id, branch_id, NULL, 1 FROM entry WHERE uid<0 AND kind=0")
    count = two.db.execute("SELECT count(*) FROM entry").fetchone()
    mended(two)
    one.add(one.db.execute("SELECT id FROM entry WHERE name=CAST('summer' AS BLOB)").fetchone()[0], b"more", DIRECTORY)
    settle(one, two)
    assert two.db.execute("SELECT count(*) FROM entry").fetchone() == (count[0] + 1,)


def test_aliases_of_one_file_lead_to_its_least_name(pair):
    """By whatever chain or circle they were joined."""
    _, two = pair
    a, b, c, d = (bytes([number]) * 16 for number in (1, 2, 3, 4))
    two.db.executemany("INSERT INTO alias VALUES(?,?)", [(d, c), (c, b), (b, d), (a, d)])
    assert checking.check(two.path, two.uuid)
    mended(two)
    assert [aliases.canon(two.db, uuid) for uuid in (a, b, c, d)] == [a] * 4


def test_what_nobody_knows_the_teller_of_is_let_go_of(pair):
    """Its stream would never go on."""
    one, two = pair
    unknown = b"u" * 16
    two.db.execute("INSERT INTO stream(device, epoch, kind, start_seq, seq, floor_seq) VALUES(?,1,?,0,7,0)",
                   (unknown, OWNED))  # fmt: skip
    assert any(unknown.hex() in fault for fault in checking.check(two.path, two.uuid))
    mended(two)
    held = {bytes(device) for (device,) in two.db.execute("SELECT DISTINCT device FROM stream")}
    assert held == {one.uuid, two.uuid}


def test_a_clock_that_ran_ahead_is_no_fault_once_its_stamps_are_given_up(tmp_path: Path):
    """What was stamped so is there yet, and counts as stamped later; no counter is raised for it."""
    now_ns = 1_800_000_000 * 10**9
    times = [now_ns + 86_400 * 10**9]
    device = Device(tmp_path, "one", clock=lambda: times[0])
    summer = device.add(device.branch(b"Photos"), b"summer", DIRECTORY)
    uuid = device.uuid_of(summer)
    with device.store.write("test") as unit:
        annotating.add_tag(unit, uuid, "sea")
        annotating.set_cell(unit, uuid, b"user.xdg.comment", b"waves")
    times[0] = now_ns
    assert restamping.restamp(device.store, aside_hlc=0)
    assert checking.check(device.path, device.uuid) == []
    assert mended(device) == []
    device.store.close()
