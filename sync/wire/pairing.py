"""Pairing as two people see it: a secret is shown here, typed there, each looks at who that is, and says yes or no.

What is secret is 16 bytes. They travel by people, as twelve words or as a ticket (a text, or a QR code of it) that says
beside them which device it is and where; from them follow the key of the handshake and the tag under which the offer is
found on the network. Nothing else is made of them, and they serve once.

    Offer     the side that shows them:  OPEN ─ARRIVED─ CONFIRMED ─ COMPLETED, or FAILED from anywhere
    Joining   the side that types them:  OPEN ─ARRIVED─ CONFIRMED ─ COMPLETED, or FAILED from anywhere

An offer is burnt by the first handshake that succeeds, by MAX_FAILURES that were not genuine, and by age. Both sides
complete only if both people said yes.

Without I/O and without a clock: times are given in, events come out, who owns the machine does what they say. Kept out:
what is stored about a device that is paired from now on, and the handshake itself (`handshake`).
"""

import base64
import binascii
import os
from enum import Enum, auto
from typing import Annotated, Final, NamedTuple

import attrs
from blake3 import blake3

from index.model.errors import Invalid, PairingRefused, ProtocolError
from sync.wire.cards import DeviceCard
from sync.wire.codec import message, pack, record, unpack
from sync.wire.forms import U16, Bytes16, Length
from sync.wire.noise import Random
from sync.wire.words import SECRET_BYTES, fingerprint_words, secret_of, secret_words

OFFER_S: Final = 300.0
CONFIRM_S: Final = 120.0  # so long the two people have to look and to say yes
MAX_FAILURES: Final = 5
MAX_HALF_OPEN: Final = 8
TAG_BYTES: Final = 8
MAX_ENDPOINTS: Final = 8
MAX_TICKET_CHARS: Final = 1024
_TICKET: Final = "sdpair1"
_CHECK_BYTES: Final = 4


# -- what is carried by people


@attrs.frozen
class Secret:
    """The 16 bytes of one offer. Never printed, never logged, never in an argument of a command."""

    entropy: bytes = attrs.field(repr=False)

    @classmethod
    def make(cls, random: Random = os.urandom) -> "Secret":
        """A new one."""
        return cls(random(SECRET_BYTES))

    @classmethod
    def of_words(cls, text: str) -> "Secret":
        """What somebody typed. Invalid names the word that is wrong."""
        return cls(secret_of(text))

    @property
    def words(self) -> tuple[str, ...]:
        return secret_words(self.entropy)

    @property
    def psk(self) -> bytes:
        """The key of the handshake, 32 bytes."""
        return blake3(self.entropy, derive_key_context="sdmount pairing psk 1").digest()

    @property
    def tag(self) -> bytes:
        """What the offer is found by, 8 bytes. It tells nothing of the secret, which is too large to be guessed."""
        return blake3(self.entropy, derive_key_context="sdmount pairing tag 1").digest(TAG_BYTES)


@record
class _Place:
    host: Annotated[str, Length(1, 64)]
    port: U16


@record
class _Ticket:
    secret: Bytes16
    device: Bytes16
    places: Annotated[tuple[_Place, ...], Length(0, MAX_ENDPOINTS)]


@attrs.frozen
class Ticket:
    """A secret, the device that offers it (16 bytes), and where that may be reached: (address, port)."""

    secret: Secret
    device: bytes
    endpoints: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        """One word of lower-case letters and digits, for a QR code or for pasting."""
        places = tuple(_Place(host, port) for host, port in self.endpoints[:MAX_ENDPOINTS])
        raw = pack(_Ticket(self.secret.entropy, self.device, places))
        return _TICKET + base64.b32encode(raw + _check_of(raw)).decode().rstrip("=").lower()

    @classmethod
    def of_text(cls, text: str) -> "Ticket":
        """What was pasted or scanned. Invalid when it is no ticket, or not the whole of one."""
        plain = "".join(text.split()).lower()
        if not plain.startswith(_TICKET) or len(plain) > MAX_TICKET_CHARS:
            raise Invalid(f"a pairing ticket begins with {_TICKET}")
        digits = plain[len(_TICKET) :].upper()
        try:
            whole = base64.b32decode(digits + "=" * (-len(digits) % 8))
            raw, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
            if check != _check_of(raw):
                raise ValueError("its check is wrong")
            found = unpack(_Ticket, raw)
        except (binascii.Error, ValueError, ProtocolError):
            raise Invalid("the pairing ticket is damaged or not whole; copy it again") from None
        ticket = cls(Secret(found.secret), found.device, tuple((place.host, place.port) for place in found.places))
        if ticket.text() != plain:
            raise Invalid("the pairing ticket is not written as it was made; copy it again")
        return ticket


def _check_of(raw: bytes) -> bytes:
    return blake3(raw, derive_key_context="sdmount pairing ticket 1").digest(_CHECK_BYTES)


# -- what the two devices say, once they have met


@message(1)
class Verdict:
    """A person's word about the device that was shown; sent once by each side, as a notice."""

    accepted: bool


# -- what happens


class State(Enum):
    """Where a pairing is."""

    OPEN = auto()  # the secret serves
    ARRIVED = auto()  # somebody has proven to know it; this side's person is asked
    CONFIRMED = auto()  # this side's person said yes; the other one is waited for
    COMPLETED = auto()
    FAILED = auto()


class Arrived(NamedTuple):
    """Somebody knew the secret: show the name and the words, and ask the person."""

    card: DeviceCard
    words: tuple[str, ...]


class Say(NamedTuple):
    """Send this to the other side."""

    verdict: Verdict


class Completed(NamedTuple):
    """Both said yes: the device with this card is paired."""

    card: DeviceCard


class Failed(NamedTuple):
    """It has come to nothing. What is still open for it is closed."""

    reason: str


Event = Arrived | Say | Completed | Failed


class Joining:
    """The side that typed the words. `expires_s` is when it fails by itself (`tick`).

    A call that comes too late raises PairingRefused; `state` and `reason` say then how it ended.
    """

    def __init__(self, now_s: float) -> None:
        self.state = State.OPEN
        self.reason: str | None = None
        self.expires_s = now_s + OFFER_S
        self.card: DeviceCard | None = None
        self._theirs: bool | None = None

    @property
    def is_over(self) -> bool:
        return self.state in (State.COMPLETED, State.FAILED)

    def arrived(self, card: DeviceCard, now_s: float) -> list[Event]:
        """The handshake succeeded, with the device of this card. PairingRefused when it is not wanted any more."""
        self._check_open(now_s)
        self.state, self.card = State.ARRIVED, card
        self.expires_s = now_s + CONFIRM_S
        return [Arrived(card, fingerprint_words(card.public_key))]

    def confirm(self, now_s: float) -> list[Event]:
        """This side's person says yes. PairingRefused when there is nothing to say yes to."""
        events = self.tick(now_s)
        if self.state is not State.ARRIVED:
            raise PairingRefused(self.reason or "nobody is there to be confirmed")
        self.state = State.CONFIRMED
        return [*events, Say(Verdict(True)), *self._conclude()]

    def refuse(self, now_s: float) -> list[Event]:
        """This side's person says no, or does not want to pair any more."""
        if self.is_over:
            return []
        told: list[Event] = [Say(Verdict(False))] if self.card is not None else []
        return told + self._fail("refused here")

    def heard(self, verdict: Verdict) -> list[Event]:
        """The other side's person has said something."""
        if self.is_over or self._theirs is not None:
            return []
        self._theirs = verdict.accepted
        return self._conclude() if verdict.accepted else self._fail("refused by the other device")

    def lost(self, reason: str) -> list[Event]:
        """The link broke, or none came about."""
        return self._fail(reason)

    def tick(self, now_s: float) -> list[Event]:
        """Time has passed."""
        if self.is_over or now_s < self.expires_s:
            return []
        return self._fail("nobody came in time" if self.state is State.OPEN else "it was not confirmed in time")

    def forget(self) -> None:
        """Let go of what is secret, if anything is."""

    def _conclude(self) -> list[Event]:
        if self.state is not State.CONFIRMED or self._theirs is not True:
            return []
        assert self.card is not None
        self.state = State.COMPLETED
        return [Completed(self.card)]

    def _fail(self, reason: str) -> list[Event]:
        if self.is_over:
            return []
        self.state, self.reason = State.FAILED, reason
        return [Failed(reason)]

    def _check_open(self, now_s: float) -> None:
        self.tick(now_s)
        if self.state is not State.OPEN:
            raise PairingRefused(self.reason or "the words have served")


class Offer(Joining):
    """The side that shows the words. Every handshake for it is announced by `begin`, and ended by one of three calls.

    `arrived`: it succeeded. `failed`: the first message came, and was not of somebody who knows the secret. `dropped`:
    nothing of the kind, somebody only connected; that counts for nothing, or a port scan would burn the offer.
    """

    def __init__(self, secret: Secret, now_s: float) -> None:
        super().__init__(now_s)
        self._secret: Secret | None = secret
        self.half_open = 0
        self.failures = 0

    @property
    def psk(self) -> bytes:
        """The key of the handshake. PairingRefused once the secret serves no more."""
        if self._secret is None:
            raise PairingRefused(self.reason or "the words have served")
        return self._secret.psk

    def forget(self) -> None:
        self._secret = None

    def begin(self, now_s: float) -> None:
        """Somebody connects. PairingRefused when he must not even try."""
        self._check_open(now_s)
        if self.half_open >= MAX_HALF_OPEN:
            raise PairingRefused("too many at a time try to pair")
        self.half_open += 1

    def arrived(self, card: DeviceCard, now_s: float) -> list[Event]:
        self._ended()
        return super().arrived(card, now_s)

    def failed(self) -> list[Event]:
        """A handshake was not genuine."""
        self._ended()
        if self.state is not State.OPEN:
            return []
        self.failures += 1
        return self._fail("too many tries with other words") if self.failures >= MAX_FAILURES else []

    def dropped(self) -> None:
        """A connection came to nothing."""
        self._ended()

    def _ended(self) -> None:
        if not self.half_open:
            raise ValueError("a handshake ended that had not begun")
        self.half_open -= 1
