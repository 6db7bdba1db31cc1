"""The cipher of the records: which ones there are, which one two devices use, and a key at work.

AES-256-GCM where the processor has instructions for it, for which it is several times as fast as anything else; else
ChaCha20-Poly1305, which every device has. A device offers only what is fast on it, the best first, so the two settle
on what is fast on both. Names of ciphers travel inside the encrypted handshake: nobody between can talk them down.

Both write into buffers of the caller (`encrypt_into`, `decrypt_into`), so a block is copied nowhere on its way. A nonce
is never used twice with a key; who counts them is `records`.

Source: NIST SP 800-38D, RFC 8439; by OpenSSL, through the package cryptography.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

AES_256_GCM: Final = "aes256gcm"
CHACHA20_POLY1305: Final = "chacha20poly1305"

TAG_BYTES: Final = 16
NONCE_BYTES: Final = 12

#: A key at work: `encrypt_into(nonce, data, associated_data, buffer)` and the reverse.
Aead = AESGCM | ChaCha20Poly1305

_MAKERS: Final[dict[str, type[AESGCM] | type[ChaCha20Poly1305]]] = {
    AES_256_GCM: AESGCM,
    CHACHA20_POLY1305: ChaCha20Poly1305,
}


def with_key(cipher: str, key: bytes) -> Aead:
    """The cipher of that name with a key of 32 bytes. KeyError for a name that is none of ours."""
    return _MAKERS[cipher](key)


@cache
def offered() -> tuple[str, ...]:
    """What this device offers, the best first."""
    return (AES_256_GCM, CHACHA20_POLY1305) if _has_aes() else (CHACHA20_POLY1305,)


def choose(theirs: Iterable[str], ours: Iterable[str]) -> str | None:
    """The best of ours that the other device offers too; names that we do not know are passed over."""
    known = {*theirs}
    return next((cipher for cipher in ours if cipher in known and cipher in _MAKERS), None)


def _has_aes(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the kernel lists AES among what the processor can do (x86: flags, Arm: Features)."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return False
    capabilities = [line.partition(":") for line in lines]
    return any("aes" in words.split() for key, _, words in capabilities if key.strip() in ("flags", "Features"))
