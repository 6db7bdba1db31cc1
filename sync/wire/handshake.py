"""The two ways in which devices meet: knowing each other already, and by a secret that people carried over.

**paired** (Noise IK, two messages): whoever dials knows the static key of the other device, and says which library and
which device it is. The other asks `admit` whether the three belong together, and says nothing at all if they do not.
The first message could be one that somebody recorded and sends again: nothing may follow from it before the first
record under the new keys has come.

**pairing** (Noise XXpsk0, three messages): both know a secret of 128 bits. Each shows its card, the two public keys of
the device bound by a signature, and signs this very handshake with it. What a person decides comes later (`pairing`).

Each message travels as its length (u16, big endian, 1 to 1040) and its bytes. In the payloads both settle on a version
of the protocol and on a cipher for the records; being inside of the encrypted transcript neither can be talked down.

Sans-IO: an `Exchange` says how many bytes it wants (never one more: what follows belongs to the records), and what to
send. It ends with `Secured`, or in HandshakeFailed, the same for whatever was wrong, and is dead then. Kept out: who is
paired with whom, deadlines, and the delay before a stranger is left standing (the acceptor).
"""

import os
import struct
from collections.abc import Callable, Generator
from typing import Annotated, Final

import attrs

from index.model.errors import HandshakeFailed, ProtocolError, VersionUnsupported
from sync.wire import aead, noise
from sync.wire.cards import DeviceCard, SignedCard, checked_card, signed_card
from sync.wire.codec import pack, record, unpack
from sync.wire.forms import U16, Bytes16, Length
from sync.wire.identity import Keys
from sync.wire.noise import IK, XXPSK0, Handshake, KeyPair, Random
from sync.wire.records import Opener, Sealer

#: The versions of the protocol that this program speaks, the newest first.
VERSIONS: Final = (1,)
NO_VERSION: Final = 0

MAX_PAYLOAD_BYTES: Final = 1024
MAX_MESSAGE_BYTES: Final = MAX_PAYLOAD_BYTES + noise.TAG_BYTES
_LENGTH: Final = struct.Struct(">H")

_PROLOGUE: Final = b"sdmount peer 1\x00\x01"  # the name, and the version of this way of meeting

#: Whether a device (its static key, 32 bytes) may use a library (16 bytes) as the device it says it is (16 bytes).
Admit = Callable[[bytes, bytes, bytes], bool]

Versions = Annotated[tuple[U16, ...], Length(1, 16)]
CipherName = Annotated[str, Length(1, 32)]
CipherNames = Annotated[tuple[CipherName, ...], Length(1, 8)]


# -- what the payloads say


@record
class PairedHello:
    """The first payload of a paired handshake."""

    library: Bytes16
    device: Bytes16
    versions: Versions
    ciphers: CipherNames


@record
class PairingHello:
    """The first payload of a pairing."""

    versions: Versions
    ciphers: CipherNames


@record
class Settled:
    """What the responder took of what was offered; version 0: none of it."""

    version: U16
    cipher: CipherName


@record
class PairingWelcome:
    """The second payload of a pairing."""

    settled: Settled
    signed: SignedCard


@attrs.frozen
class Secured:
    """Where a handshake has led: the two directions under fresh keys, and what is known of the other device.

    `library` and `device` are what a paired device said it is and was admitted as (the initiator knows whom it dialled:
    None there); `card` is what the other one of a pairing showed. `handshake_hash` names this link and no other.
    """

    sealer: Sealer
    opener: Opener
    version: int
    cipher: str
    handshake_hash: bytes
    is_initiator: bool
    noise_static: bytes
    library: bytes | None = None
    device: bytes | None = None
    card: DeviceCard | None = None


# -- the exchange of messages

#: Sends by a call, takes each message by a `yield`, returns where it led.
_Script = Generator[None, bytes, Secured]


class Exchange:
    """One handshake on the wire: send what `outgoing` gives, receive up to `wanted` bytes until that is 0.

    What is outgoing is to be sent also when it has just failed: the other side may be told that no version is common.
    """

    def __init__(self, script: Callable[["Exchange"], _Script]) -> None:
        self.result: Secured | None = None
        self._out = bytearray()
        self._in = bytearray()
        self._size: int | None = None
        self._is_dead = False
        self._script = script(self)
        self._go_on(None)

    @property
    def wanted(self) -> int:
        """How many bytes are to be received next, at most; 0 when it is over."""
        if self._is_dead or self.result is not None:
            return 0
        return (_LENGTH.size if self._size is None else self._size) - len(self._in)

    def outgoing(self) -> bytes:
        """What is to be sent now."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> None:
        """Take up to `wanted` bytes. HandshakeFailed (or VersionUnsupported) ends it."""
        if self._is_dead:
            raise HandshakeFailed("the handshake has failed before")
        if len(data) > self.wanted:
            raise ValueError("more bytes than were wanted")
        self._in += data
        if self.wanted:
            return
        whole = bytes(self._in)
        self._in.clear()
        if self._size is None:
            (self._size,) = _LENGTH.unpack(whole)
            if not 1 <= self._size <= MAX_MESSAGE_BYTES:
                self._is_dead = True
                raise HandshakeFailed("a message of a handshake is not of that length")
        else:
            self._size = None
            self._go_on(whole)

    def take(self, message: bytes) -> None:
        """A whole message, without its length."""
        self.receive(_LENGTH.pack(len(message)))
        self.receive(message)

    def pass_on(self, other: "Exchange") -> None:
        """For the script: what another exchange has to send goes out here."""
        self._out += other.outgoing()

    def send(self, message: bytes) -> None:
        """For the script: a message that is to go out."""
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(f"a message of a handshake has at most {MAX_MESSAGE_BYTES} bytes")
        self._out += _LENGTH.pack(len(message)) + message

    def _go_on(self, message: bytes | None) -> None:
        try:
            if message is None:
                next(self._script)
            else:
                self._script.send(message)
        except StopIteration as end:
            self.result = end.value
        except VersionUnsupported:
            self._is_dead = True
            raise
        except ProtocolError as error:
            self._is_dead = True
            raise HandshakeFailed(str(error)) from None
        except BaseException:
            self._is_dead = True
            raise


# -- paired


def dial_paired(
    keys: Keys, *, device: bytes, library: bytes, remote_static: bytes,
    ciphers: tuple[str, ...] | None = None, random: Random = os.urandom,
) -> Exchange:  # fmt: skip
    """The side that dials: this device's keys and id, the library, and the static key of the device that is meant."""

    def script(exchange: Exchange) -> _Script:
        shake = Handshake(
            IK, is_initiator=True, static=_static(keys), prologue=_PROLOGUE, remote_static=remote_static, random=random
        )
        offered = ciphers or aead.offered()
        exchange.send(shake.write(pack(PairedHello(library, device, VERSIONS, offered))))
        settled = unpack(Settled, shake.read((yield)))
        return _secured(shake, _agreed(settled, offered))

    return Exchange(script)


def answer_paired(
    keys: Keys, admit: Admit, *, ciphers: tuple[str, ...] | None = None, random: Random = os.urandom
) -> Exchange:
    """The side that is dialled. Whom `admit` refuses learns nothing: HandshakeFailed, and no byte to send."""

    def script(exchange: Exchange) -> _Script:
        shake = Handshake(IK, is_initiator=False, static=_static(keys), prologue=_PROLOGUE, random=random)
        hello = unpack(PairedHello, shake.read((yield)))
        assert shake.remote_static is not None
        if not admit(shake.remote_static, hello.library, hello.device):
            raise HandshakeFailed("a device that is not known here")
        settled = _settle(hello.versions, hello.ciphers, ciphers or aead.offered())
        exchange.send(shake.write(pack(settled)))
        _refuse_none(settled)
        return attrs.evolve(_secured(shake, settled), library=hello.library, device=hello.device)

    return Exchange(script)


# -- pairing


def dial_pairing(
    keys: Keys, psk: bytes, *, name: str, os_name: str,
    ciphers: tuple[str, ...] | None = None, random: Random = os.urandom,
) -> Exchange:  # fmt: skip
    """The side that typed the words: what follows from them (`psk`, 32 bytes), and how this device shows itself."""

    def script(exchange: Exchange) -> _Script:
        shake = Handshake(XXPSK0, is_initiator=True, static=_static(keys), prologue=_PROLOGUE, psk=psk, random=random)
        offered = ciphers or aead.offered()
        exchange.send(shake.write(pack(PairingHello(VERSIONS, offered))))
        welcome = unpack(PairingWelcome, shake.read((yield)))
        card = checked_card(welcome.signed, shake)
        settled = _agreed(welcome.settled, offered)
        exchange.send(shake.write(lambda before: pack(signed_card(keys, name, os_name, before, is_initiator=True))))
        return attrs.evolve(_secured(shake, settled), card=card)

    return Exchange(script)


def answer_pairing(
    keys: Keys, psk: bytes, *, name: str, os_name: str,
    ciphers: tuple[str, ...] | None = None, random: Random = os.urandom,
) -> Exchange:  # fmt: skip
    """The side that showed the words."""

    def script(exchange: Exchange) -> _Script:
        shake = Handshake(XXPSK0, is_initiator=False, static=_static(keys), prologue=_PROLOGUE, psk=psk, random=random)
        hello = unpack(PairingHello, shake.read((yield)))
        settled = _settle(hello.versions, hello.ciphers, ciphers or aead.offered())

        def welcome(before: bytes) -> bytes:
            return pack(PairingWelcome(settled, signed_card(keys, name, os_name, before, is_initiator=False)))

        exchange.send(shake.write(welcome))
        _refuse_none(settled)
        card = checked_card(unpack(SignedCard, shake.read((yield))), shake)
        return attrs.evolve(_secured(shake, settled), card=card)

    return Exchange(script)


# -- both


def _static(keys: Keys) -> KeyPair:
    return KeyPair(keys.static_private, keys.static_key)


def _settle(versions: tuple[int, ...], ciphers: tuple[str, ...], ours: tuple[str, ...]) -> Settled:
    """The newest version and the best cipher that both have."""
    version = next((version for version in VERSIONS if version in versions), NO_VERSION)
    cipher = aead.choose(ciphers, ours)
    return Settled(version, cipher) if version and cipher else Settled(NO_VERSION, aead.CHACHA20_POLY1305)


def _refuse_none(settled: Settled) -> None:
    if settled.version == NO_VERSION:
        raise VersionUnsupported("the other device speaks no version of the protocol that this one does; update both")


def _agreed(settled: Settled, offered: tuple[str, ...]) -> Settled:
    """What the responder settled on, if it was offered."""
    _refuse_none(settled)
    if settled.version not in VERSIONS or settled.cipher not in offered:
        raise HandshakeFailed("the other device settled on what was not offered")
    return settled


def _secured(shake: Handshake, settled: Settled) -> Secured:
    sending, receiving = shake.split()
    assert shake.remote_static is not None
    return Secured(
        sealer=Sealer(settled.cipher, sending),
        opener=Opener(settled.cipher, receiving),
        version=settled.version,
        cipher=settled.cipher,
        handshake_hash=shake.hash,
        is_initiator=shake.is_initiator,
        noise_static=shake.remote_static,
    )
