"""Claims: what a device says of who a device is, held against the keys.

Nearly every register is anybody's to write. A *card* is not: the id of a device follows from its key, and the key signs
the other one, so a card that is good says the same of these whoever tells it, and one that is not is passed over. Nor
is a *vouch*: it is its voucher's, by whose pages alone it comes, and in a current state, which one device tells for
all, too; and his signature is looked at once both cards are known. Otherwise one member that means ill, or one that was
put out and is not heard of yet, could write over the cards of all others, and nobody would know anybody any more.

Source: RFC 8032 (Ed25519) by identity.py; the protocol, §11.
"""

from typing import Any, Final

import apsw
import msgpack

from index.store import devices
from index.store.shared import Op
from sync.wire.identity import is_card, is_signed

#: A vouch is a field: this, and the id of who vouches in hexadecimal digits.
VOUCH: Final = "vouch:"
_CONTEXT: Final = b"sdmount vouch 1"


def vouched(library: bytes, device: bytes, public_key: bytes, static_key: bytes) -> bytes:
    """What is signed by who vouches for a device."""
    return _CONTEXT + library + device + public_key + static_key


def vouch_field(voucher: bytes) -> str:
    """The field of a vouch."""
    return VOUCH + voucher.hex()


def is_of_cards(op: Op) -> bool:
    """Whether an operation writes who a device is, or who vouches for it."""
    return _is_of_device(op) and (op.key[2] == "card" or is_vouch(op))


def is_vouch(op: Op) -> bool:
    """Whether an operation is a vouch."""
    return _is_of_device(op) and str(op.key[2]).startswith(VOUCH)


def _is_of_device(op: Op) -> bool:
    return (op.model, op.op) == ("register", "set") and op.key[0] == devices.MODEL


def is_good(author: bytes, op: Op) -> bool:
    """Whether an operation's author may say that."""
    if not is_of_cards(op):
        return True
    _, device, field = op.key
    if field == "card":
        return is_card(device, _unpacked(op.body))
    return bool(field == vouch_field(author))


def is_signed_vouch(db: apsw.Connection, library: bytes, op: Op) -> bool:
    """Whether an operation is no vouch, or one that is signed by who is said to vouch, as far as both are known."""
    if not is_vouch(op):
        return True
    _, device, field = op.key
    signature = _unpacked(op.body)
    try:
        voucher = devices.get(db, bytes.fromhex(field[len(VOUCH) :]))
    except ValueError:
        return False
    row = devices.get(db, device)
    if not isinstance(signature, bytes):
        return False
    if voucher is None or row is None:
        return True  # and of no use to anybody
    return is_signed(voucher.public_key, vouched(library, device, row.public_key, row.static_key), signature)


def _unpacked(body: object) -> Any:
    try:
        return msgpack.unpackb(body) if isinstance(body, bytes) else None
    except (ValueError, msgpack.UnpackException):
        return None
