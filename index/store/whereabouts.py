"""Table address: where other devices were reached, and where people say that they are. Local, told to nobody."""

from typing import NamedTuple

import apsw

SCHEMA = """
-- address: a host and a port at which another device may be. Local, told to nobody.
--   worked_ns   when it was last reached there; 0: never
--   is_manual   1 where a person wrote it down
CREATE TABLE address(
    device    BLOB NOT NULL,
    host      TEXT NOT NULL,
    port      INTEGER NOT NULL,
    worked_ns INTEGER NOT NULL,
    is_manual INTEGER NOT NULL,
    PRIMARY KEY (device, host, port)
) STRICT, WITHOUT ROWID;
"""


class Address(NamedTuple):
    host: str
    port: int
    worked_ns: int
    is_manual: int


def of(db: apsw.Connection, device: bytes) -> list[Address]:
    """The addresses of a device, the one that worked last first."""
    sql = "SELECT host, port, worked_ns, is_manual FROM address WHERE device=? ORDER BY worked_ns DESC, host, port"
    return [Address._make(row) for row in db.execute(sql, (device,))]


def remember(db: apsw.Connection, device: bytes, addresses: list[tuple[str, int, int]]) -> None:
    """These (host, port, when) worked, and no others that nobody wrote down."""
    db.execute("DELETE FROM address WHERE device=? AND is_manual=0", (device,))
    db.executemany(
        "INSERT INTO address VALUES(?,?,?,?,0) ON CONFLICT(device, host, port) DO UPDATE SET "
        "worked_ns=excluded.worked_ns",
        [(device, *one) for one in addresses],
    )


def write_down(db: apsw.Connection, device: bytes, host: str, port: int) -> None:
    """A person says that a device is there."""
    db.execute(
        "INSERT INTO address VALUES(?,?,?,0,1) ON CONFLICT(device, host, port) DO UPDATE SET is_manual=1",
        (device, host, port),
    )


def strike_out(db: apsw.Connection, device: bytes) -> None:
    """What people wrote down of a device is forgotten."""
    db.execute("DELETE FROM address WHERE device=? AND is_manual=1", (device,))
