"""Claims: what a device says of who a device is, held against the keys.

Nearly every register is anybody's to write. A *card* is not: the id of a device follows from its key, and the key signs
the other one, so a card that is good says the same of these whoever tells it, and one that is not is passed over. Nor
is a *vouch*: it is its voucher's, by whose pages alone it comes, and in a current state, which one device tells for
all, too; and his signature is looked at once both cards are known. Otherwise one member that means ill, or one that was
put out and is not heard of yet, could write over the cards of all others, and nobody would know anybody any more.

In a current state the vouch and the cards come from one who may lie in both, by leaving a card out as well: there a
vouch whose cards nobody shows is passed over, because one that is none, and late, would stand where the good one comes.

Source: RFC 8032 (Ed25519) by identity.py; the protocol, §11.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import apsw
import msgpack

from index.store import devices
from index.store.shared import Op
from sync.wire.identity import is_card, is_signed

#: A vouch is a field: this, and the id of who vouches in hexadecimal digits.
VOUCH: Final = "vouch:"
_CONTEXT: Final = b"sdmount vouch 1"


class Card(NamedTuple):
    """The keys of a device."""

    public_key: bytes
    static_key: bytes


def vouched(library: bytes, device: bytes, public_key: bytes, static_key: bytes) -> bytes:
    """What is signed by who vouches for a device."""
    return _CONTEXT + library + device + public_key + static_key


def vouch_field(voucher: bytes) -> str:
    """The field of a vouch."""
    return VOUCH + voucher.hex()


def is_vouch(op: Op) -> bool:
    """Whether an operation is a vouch."""
    return _is_of_device(op) and str(op.key[2]).startswith(VOUCH)


def is_good(db: apsw.Connection, library: bytes, author: bytes, op: Op) -> bool:
    """Whether an operation's author may say that. The signature of a vouch is looked at once both cards are known."""
    if is_vouch(op):
        if op.key[2] != vouch_field(author):
            return False
        voucher, device = _known(db, author), _known(db, op.key[1])
        return voucher is None or device is None or _is_signed(library, op, voucher, device)
    return not _is_of_card(op) or card_of(op) is not None


def is_proven(db: apsw.Connection, library: bytes, author: bytes, op: Op, cards: Mapping[bytes, Card]) -> bool:
    """Whether a vouch is its author's by his card and that of the device, both of which are known or among `cards`."""
    voucher, device = (_known(db, uuid) or cards.get(uuid) for uuid in (author, op.key[1]))
    if voucher is None or device is None or op.key[2] != vouch_field(author):
        return False
    return _is_signed(library, op, voucher, device)


def card_of(op: Op) -> tuple[bytes, Card] | None:
    """The device and the card that an operation shows, if it is one and good."""
    if not _is_of_card(op):
        return None
    card = _unpacked(op.body)
    return (bytes(op.key[1]), Card(card[0], card[1])) if is_card(op.key[1], card) else None


def _is_of_card(op: Op) -> bool:
    return _is_of_device(op) and bool(op.key[2] == "card")


def _is_of_device(op: Op) -> bool:
    return (op.model, op.op) == ("register", "set") and op.key[0] == devices.MODEL


def _known(db: apsw.Connection, uuid: bytes) -> Card | None:
    row = devices.get(db, uuid)
    return None if row is None else Card(row.public_key, row.static_key)


def _is_signed(library: bytes, op: Op, voucher: Card, device: Card) -> bool:
    signature = _unpacked(op.body)
    return isinstance(signature, bytes) and is_signed(
        voucher.public_key, vouched(library, op.key[1], *device), signature
    )


def _unpacked(body: object) -> Any:
    try:
        return msgpack.unpackb(body) if isinstance(body, bytes) else None
    except (ValueError, msgpack.UnpackException):
        return None
