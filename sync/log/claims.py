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


def is_vouch(op: Op) -> bool:
    """Whether an operation is a vouch."""
    return _is_of_device(op) and str(op.key[2]).startswith(VOUCH)


def is_good(db: apsw.Connection, library: bytes, author: bytes, op: Op) -> bool:
    """Whether an operation's author may say that. The signature of a vouch is looked at once both cards are known."""
    if is_vouch(op):
        return op.key[2] == vouch_field(author) and _is_signed(db, library, author, op.key[1], _unpacked(op.body))
    if _is_of_device(op) and op.key[2] == "card":
        return is_card(op.key[1], _unpacked(op.body))
    return True


def _is_of_device(op: Op) -> bool:
    return (op.model, op.op) == ("register", "set") and op.key[0] == devices.MODEL


def _is_signed(db: apsw.Connection, library: bytes, voucher_uuid: bytes, uuid: bytes, signature: object) -> bool:
    if not isinstance(signature, bytes):
        return False
    voucher, row = devices.get(db, voucher_uuid), devices.get(db, uuid)
    if voucher is None or row is None:
        return True  # and of no use to anybody
    return is_signed(voucher.public_key, vouched(library, uuid, row.public_key, row.static_key), signature)


def _unpacked(body: object) -> Any:
    try:
        return msgpack.unpackb(body) if isinstance(body, bytes) else None
    except (ValueError, msgpack.UnpackException):
        return None
