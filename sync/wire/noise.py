"""Noise handshakes: two devices that share a few keys, or a secret, come to share fresh ones that nobody else knows.

In: a pattern, the keys this side has, and the messages of the other side. Out: messages, the payloads that travelled in
them, and at the end two ciphers, one a direction, with a hash of all that was said. Three patterns, one cipher suite
(25519, ChaChaPoly, BLAKE2s); the names of the pattern table are the specification's.

The invariant: a `Handshake` that met an error is dead and gives neither payload nor keys. There is one error,
HandshakeFailed, whatever was wrong with a message: a stranger learns nothing from it.

Randomness comes in by parameter, so that a simulation can be replayed; nothing here does I/O or knows a clock. The
primitives are libsodium's (by PyNaCl) and hashlib's; only their published composition is written here. Kept out: what
payloads mean (`handshake`), and records after the handshake (`records`), which have larger frames than Noise allows.

Source: https://noiseprotocol.org/noise.html, revision 34; its section numbers are in the comments.
"""

import hmac
import os
from collections.abc import Callable
from hashlib import blake2s
from typing import Final, NamedTuple

import attrs
from nacl import bindings
from nacl.exceptions import CryptoError

from index.model.errors import HandshakeFailed

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MAX_MESSAGE_BYTES: Final = 65535
_MAX_NONCE: Final = (1 << 64) - 1  # reserved: never a nonce (5.1)

#: Gives so many random bytes.
Random = Callable[[int], bytes]


class Pattern(NamedTuple):
    """What each message carries, the initiator's first; and whether it knows the responder's static key before."""

    name: str
    messages: tuple[tuple[str, ...], ...]
    responder_is_known: bool = False


XX: Final = Pattern("XX", (("e",), ("e", "ee", "s", "es"), ("s", "se")))
XXPSK0: Final = Pattern("XXpsk0", (("psk", "e"), ("e", "ee", "s", "es"), ("s", "se")))
IK: Final = Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), responder_is_known=True)


@attrs.frozen
class KeyPair:
    """An X25519 key: 32 bytes private, 32 bytes public. What is private is not printed."""

    private: bytes = attrs.field(repr=False)
    public: bytes

    @classmethod
    def of(cls, private: bytes) -> "KeyPair":
        """The pair that a private key belongs to."""
        if len(private) != KEY_BYTES:
            raise ValueError(f"a private key has {KEY_BYTES} bytes")
        return cls(private, bindings.crypto_scalarmult_base(private))


class CipherState:
    """A key and a counter (5.1). Without a key it passes everything through unchanged."""

    def __init__(self, key: bytes | None = None, nonce: int = 0) -> None:
        self.key = key
        self.nonce = nonce

    def encrypt(self, ad: bytes, plaintext: bytes) -> bytes:
        """The ciphertext, 16 bytes longer. HandshakeFailed when all nonces are used."""
        if self.key is None:
            return plaintext
        return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plaintext, ad, self._next_nonce(), self.key)

    def decrypt(self, ad: bytes, ciphertext: bytes) -> bytes:
        """The plaintext. HandshakeFailed when a bit of it, of `ad` or of its place in the order is another."""
        if self.key is None:
            return ciphertext
        if len(ciphertext) < TAG_BYTES:
            raise HandshakeFailed("a message is too short to be genuine")
        nonce = self._next_nonce()
        try:
            return bindings.crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, ad, nonce, self.key)
        except CryptoError:
            self.nonce -= 1  # a message that is not genuine uses no nonce up (5.1)
            raise HandshakeFailed("a message is not genuine") from None

    def _next_nonce(self) -> bytes:
        if self.nonce >= _MAX_NONCE:
            raise HandshakeFailed("the key has been used for as many messages as it may be")
        nonce = bytes(4) + self.nonce.to_bytes(8, "little")  # 12.1, ChaChaPoly
        self.nonce += 1
        return nonce


class SymmetricState:
    """The chaining key, the hash of what was said, and the cipher that follows from them (5.2)."""

    def __init__(self, protocol_name: bytes) -> None:
        padded = protocol_name.ljust(KEY_BYTES, b"\0")
        self.hash = padded if len(protocol_name) <= KEY_BYTES else blake2s(protocol_name).digest()
        self.cipher = CipherState()
        self._chaining_key = self.hash

    def mix_key(self, secret: bytes) -> None:
        self._chaining_key, key = hkdf(self._chaining_key, secret, 2)
        self.cipher = CipherState(key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = blake2s(self.hash + data).digest()

    def mix_key_and_hash(self, secret: bytes) -> None:
        self._chaining_key, hashed, key = hkdf(self._chaining_key, secret, 3)
        self.mix_hash(hashed)
        self.cipher = CipherState(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self.cipher.encrypt(self.hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = self.cipher.decrypt(self.hash, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The keys of the two directions, the initiator's first."""
        first, second = hkdf(self._chaining_key, b"", 2)
        return first, second


class Handshake:
    """One side of one handshake (5.3): `write` and `read` in turn until `is_done`, then `split`.

    `psk` (32 bytes) belongs to patterns that have one, `remote_static` to an initiator who knows it. A call out of
    turn is a ValueError: that would be a bug of ours. What the other side does wrong is HandshakeFailed, after which
    everything is.
    """

    def __init__(
        self,
        pattern: Pattern,
        *,
        is_initiator: bool,
        static: KeyPair,
        prologue: bytes = b"",
        remote_static: bytes | None = None,
        psk: bytes | None = None,
        random: Random = os.urandom,
    ) -> None:
        if (remote_static is not None) != (pattern.responder_is_known and is_initiator):
            raise ValueError(f"{pattern.name}: the other side's static key is known beforehand, or it is not")
        self._has_psk = "psk" in pattern.messages[0]
        if (psk is not None) != self._has_psk or (psk is not None and len(psk) != KEY_BYTES):
            raise ValueError(f"{pattern.name}: a secret of {KEY_BYTES} bytes belongs to it, or none")
        self.is_initiator = is_initiator
        self.remote_static = remote_static
        #: The hash after the keys of the latest message and before its payload: what a payload may sign.
        self.hash_before_payload = b""
        self._static = static
        self._psk = psk
        self._random = random
        self._ephemeral: KeyPair | None = None
        self._remote_ephemeral: bytes | None = None
        self._messages = pattern.messages
        self._position = 0
        self._is_dead = False
        self._state = SymmetricState(f"Noise_{pattern.name}_25519_ChaChaPoly_BLAKE2s".encode())
        self._state.mix_hash(prologue)
        if pattern.responder_is_known:
            self._state.mix_hash(remote_static if remote_static is not None else static.public)

    @property
    def is_done(self) -> bool:
        return self._position == len(self._messages)

    @property
    def is_my_turn(self) -> bool:
        """Whether the next message is this side's to write."""
        return not self.is_done and (self._position % 2 == 0) == self.is_initiator

    @property
    def hash(self) -> bytes:
        """The hash of all that was said so far; at the end it names this handshake and no other (11.2)."""
        return self._state.hash

    def write(self, payload: bytes | Callable[[bytes], bytes] = b"") -> bytes:
        """The next message, with a payload in it, or with what a function makes of `hash_before_payload`."""
        self._take_turn(self.is_my_turn)
        state, message = self._state, bytearray()
        with _Dying(self):
            for token in self._messages[self._position]:
                if token == "e":
                    self._ephemeral = KeyPair.of(self._random(KEY_BYTES))
                    message += self._ephemeral.public
                    self._mix_ephemeral(self._ephemeral.public)
                elif token == "s":
                    message += state.encrypt_and_hash(self._static.public)
                else:
                    self._mix(token)
            self.hash_before_payload = state.hash
            message += state.encrypt_and_hash(payload(state.hash) if callable(payload) else payload)
            if len(message) > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of Noise has at most {MAX_MESSAGE_BYTES} bytes")
            self._position += 1
        return bytes(message)

    def read(self, message: bytes) -> bytes:
        """The payload of the other side's next message. HandshakeFailed when the message is not what it must be."""
        self._take_turn(not self.is_done and not self.is_my_turn)
        state, rest = self._state, message
        with _Dying(self):
            if len(message) > MAX_MESSAGE_BYTES:
                raise HandshakeFailed("a message is too long")
            for token in self._messages[self._position]:
                if token in ("e", "s"):
                    size = KEY_BYTES + (TAG_BYTES if token == "s" and state.cipher.key is not None else 0)
                    if len(rest) < size:
                        raise HandshakeFailed("a message is too short")
                    part, rest = rest[:size], rest[size:]
                    if token == "e":
                        self._remote_ephemeral = part
                        self._mix_ephemeral(part)
                    else:
                        self.remote_static = state.decrypt_and_hash(part)
                else:
                    self._mix(token)
            self.hash_before_payload = state.hash
            payload = state.decrypt_and_hash(rest)
            self._position += 1
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """The keys for what this side sends and for what it receives, 32 bytes each; after the last message."""
        if self._is_dead or not self.is_done:
            raise ValueError("a handshake gives its keys when it is done, and none when it failed")
        first, second = self._state.split()
        return (first, second) if self.is_initiator else (second, first)

    def _take_turn(self, may: bool) -> None:
        if self._is_dead:
            raise HandshakeFailed("the handshake has failed before")
        if not may:
            raise ValueError("it is not this side's turn")

    def _mix_ephemeral(self, public: bytes) -> None:
        self._state.mix_hash(public)
        if self._has_psk:
            self._state.mix_key(public)  # 9.2: no key may follow from the secret alone

    def _mix(self, token: str) -> None:
        """A Diffie-Hellman of the two keys that the token names, the initiator's first; or the secret."""
        if token == "psk":
            assert self._psk is not None
            self._state.mix_key_and_hash(self._psk)
            return
        own, other = (token[0], token[1]) if self.is_initiator else (token[1], token[0])
        private = self._static if own == "s" else self._ephemeral
        public = self.remote_static if other == "s" else self._remote_ephemeral
        assert private is not None
        assert public is not None
        try:
            self._state.mix_key(bindings.crypto_scalarmult(private.private, public))
        except CryptoError:  # a point of small order: the result would be the same for everybody
            raise HandshakeFailed("a key of the other side is none") from None


class _Dying:
    """Whatever goes wrong inside, the handshake is dead."""

    def __init__(self, handshake: Handshake) -> None:
        self._handshake = handshake

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._handshake._is_dead = True


def hkdf(chaining_key: bytes, secret: bytes, count: int) -> list[bytes]:
    """`count` keys of 32 bytes that follow from both (4.3)."""
    mixed = hmac.digest(chaining_key, secret, "blake2s")
    keys: list[bytes] = []
    for number in range(1, count + 1):
        keys.append(hmac.digest(mixed, (keys[-1] if keys else b"") + bytes((number,)), "blake2s"))
    return keys
