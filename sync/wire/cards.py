"""The card of a device: how it shows itself to one that does not know it, and how that is held against the handshake.

A card is the device's two public keys, bound by a signature, and what its owner calls it. In a pairing it is signed
once more, together with the handshake and the role: so it cannot have been taken from elsewhere. The name is somebody's
words: it proves nothing, and is shown without what a terminal would obey.
"""

from typing import Annotated, Final

from index.model.errors import HandshakeFailed
from sync.wire.codec import pack, record
from sync.wire.forms import Bytes32, Bytes64, Length
from sync.wire.frames import printable
from sync.wire.identity import Keys, is_signed, is_static_of
from sync.wire.noise import Handshake

MAX_NAME_CHARS: Final = 64
_MAX_OS_CHARS: Final = 8
_CARD_CONTEXT: Final = b"sdmount pairing card 1"


@record
class DeviceCard:
    """A device as it shows itself to one that does not know it. `name` is its owner's words: not to be trusted."""

    public_key: Bytes32
    noise_static: Bytes32
    static_signature: Bytes64
    name: Annotated[str, Length(0, 4 * MAX_NAME_CHARS)]
    os: Annotated[str, Length(0, 32)]


@record
class SignedCard:
    """A card, and the signature of this handshake, this role and this card."""

    card: DeviceCard
    signature: Bytes64


def shown_name(name: str) -> str:
    """A name as a card carries it: what cannot be printed is replaced, what is too long is cut."""
    return printable(name)[:MAX_NAME_CHARS]


def signed_card(keys: Keys, name: str, os_name: str, before: bytes, *, is_initiator: bool) -> SignedCard:
    """This device's card, for the handshake whose hash before the payload is `before`."""
    names = shown_name(name), shown_name(os_name)[:_MAX_OS_CHARS]
    card = DeviceCard(keys.public_key, keys.static_key, keys.sign_static(), *names)
    return SignedCard(card, keys.sign(_to_sign(card, before, is_initiator=is_initiator)))


def checked_card(signed: SignedCard, shake: Handshake) -> DeviceCard:
    """The other side's card. HandshakeFailed unless it is its own, and of this handshake."""
    card = signed.card
    genuine = (
        card.noise_static == shake.remote_static
        and is_static_of(card.public_key, card.noise_static, card.static_signature)
        and is_signed(
            card.public_key,
            _to_sign(card, shake.hash_before_payload, is_initiator=not shake.is_initiator),
            signed.signature,
        )
    )
    if not genuine:
        raise HandshakeFailed("a device showed a card that is not its own")
    return DeviceCard(
        card.public_key, card.noise_static, card.static_signature, shown_name(card.name), shown_name(card.os)
    )


def _to_sign(card: DeviceCard, before: bytes, *, is_initiator: bool) -> bytes:
    return _CARD_CONTEXT + (b"\1" if is_initiator else b"\2") + before + pack(card)
