"""Recalls: what is kept is to be gone through once more, and the states of others taken, since a stamp was given up.

A cell that was written with a stamp of the future may have made what others wrote look old, and that was not kept.
Once the stamp is given up, whoever had such a cell goes through the operations that he keeps, and asks every other
device for its current state (the work is done by sync/log/upkeep.py; here is what is to be remembered of it).

Until that is done his own state lacks what he lacks, though his cursors cover it; so who takes it has to do the same.
Of two that are at it at once each takes the other's state, again and again if each were a reason for the other: so a
reason has a name (whose, which epoch of his, which number), goes along with the state, and is one but once.
"""

from collections.abc import Iterable, Set
from typing import Any, Final

import apsw
import msgpack

from index.store import changes, devices

#: The fact that says that there is a recall to be done (1), begun just now (2), or of whom the state is to be taken yet
#: (their ids in one).
_LEFT: Final = "recall"
_TO_DO: Final = 1
_BEGUN: Final = 2
#: How many reasons came up here, and the last one of each other device that was heard of.
_NUMBER: Final = "recall_number"
_HEARD: Final = "recalls_heard"


def left(db: apsw.Connection) -> set[bytes] | None:
    """Who is to be asked for its state yet; None when nothing was gone through yet, and an empty set when nothing is to
    be."""
    value = changes.get_meta(db, _LEFT)
    if value is None:
        return set()
    return {value[at : at + 16] for at in range(0, len(value), 16)} if isinstance(value, bytes) else None


def note_reason(db: apsw.Connection) -> None:
    """A cell of this device had a stamp that is given up now."""
    changes.set_meta(db, _NUMBER, _number(db) + 1)
    changes.set_meta(db, _LEFT, _TO_DO)


def begin(db: apsw.Connection) -> None:
    """What is kept is being gone through; should this be the last that is heard of it, it is once more."""
    changes.set_meta(db, _LEFT, _BEGUN)


def is_begun(db: apsw.Connection) -> bool:
    """Whether that was begun, and there was no reason since to do it once more."""
    return changes.get_meta(db, _LEFT) == _BEGUN


def note_left(db: apsw.Connection, devices_left: Set[bytes]) -> None:
    """Who is to be asked from now on; nobody: it is done."""
    if devices_left:
        changes.set_meta(db, _LEFT, b"".join(sorted(devices_left)))
    else:
        changes.drop_meta(db, _LEFT)


def reasons(db: apsw.Connection, device: bytes, epoch: int) -> list[list[Any]]:
    """Why this device, in its epoch of now, is at it: [device, epoch, number] each. Nothing when it is not."""
    if left(db) == set():
        return []
    number = _number(db)
    own = [[device, epoch, number]] if number else []
    return own + [[other, *last] for other, last in sorted(_heard(db).items())]


def hear(db: apsw.Connection, own: bytes, told: Iterable[tuple[bytes, int, int]]) -> None:
    """The state of a device was taken that is at it for such reasons: so is this one (`own`), if one of them is new."""
    heard = _heard(db)
    is_new = False
    for device, epoch, number in told:
        if device != own and devices.get(db, device) is not None and heard.get(device, (-1, -1)) < (epoch, number):
            heard[device] = (epoch, number)
            is_new = True
    if is_new:
        changes.set_meta(db, _HEARD, msgpack.packb(sorted((device, *last) for device, last in heard.items())))
        changes.set_meta(db, _LEFT, _TO_DO)


def _number(db: apsw.Connection) -> int:
    value = changes.get_meta(db, _NUMBER)
    return value if isinstance(value, int) else 0


def _heard(db: apsw.Connection) -> dict[bytes, tuple[int, int]]:
    packed = changes.get_meta(db, _HEARD)
    rows = msgpack.unpackb(packed) if isinstance(packed, bytes) else []
    return {device: (epoch, number) for device, epoch, number in rows}
