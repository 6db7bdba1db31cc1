"""The identity of this device: one Ed25519 key, made once, kept in a file that only its owner may read.

A second key, X25519, is what the handshakes of links are made with (noise.py). It is derived of the same seed, so that
there is one file to keep, and signed by the first: the `card` is what a device shows of itself, the two public keys,
the signature that binds them and when it was made.

The device id is the public key's first 16 bytes of BLAKE3, shaped as a uuid: whoever holds the id and a signature can
check them against each other. `device.json` is for people and programs and may be read by anyone; the seed lies alone
in `device_key` (0600). Both are written to a temporary name, synced, renamed: a crash leaves none or a whole one.

Source: RFC 8032 (Ed25519), by PyNaCl.
"""

import contextlib
import json
import os
import platform
import socket
import time
from pathlib import Path

import attrs
from blake3 import blake3
from nacl.bindings import crypto_scalarmult_base
from nacl.exceptions import BadSignatureError
from nacl.exceptions import TypeError as CryptoTypeError
from nacl.signing import SigningKey, VerifyKey

from index.model.errors import StoreCorrupt, VersionUnsupported
from index.model.ids import uuid_text
from index.store.devices import slug_of

_SEED_BYTES = 32
_STATIC_CONTEXT = b"sdmount static 1"
_FACTS_VERSION = 1


class Keys:
    """The secret half of a device: signs, and shakes hands. Never printed, compared or copied."""

    def __init__(self, seed: bytes) -> None:
        self._signing = SigningKey(seed)
        #: X25519, 32 bytes, for the handshakes.
        self.static_private = blake3(seed, derive_key_context="sdmount noise static 1").digest()

    def __repr__(self) -> str:
        return "Keys(…)"

    @property
    def public_key(self) -> bytes:
        """Ed25519, 32 bytes."""
        return bytes(self._signing.verify_key)

    @property
    def static_key(self) -> bytes:
        """X25519, 32 bytes."""
        return crypto_scalarmult_base(self.static_private)

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._signing.sign(data).signature

    def sign_static(self) -> bytes:
        """The signature that says that the static key is this device's, 64 bytes."""
        return self.sign(_STATIC_CONTEXT + self.static_key)


@attrs.frozen
class DeviceIdentity:
    """This device: its id (16 bytes), its names, its keys."""

    uuid: bytes
    name: str
    slug: str
    public_key: bytes
    created_ns: int
    keys: Keys = attrs.field(eq=False)

    @property
    def card(self) -> list[object]:
        """What it shows of itself: [public key, static key, signature over that, when it was made]."""
        return [self.public_key, self.keys.static_key, self.keys.sign_static(), self.created_ns]


def uuid_of(public_key: bytes) -> bytes:
    """The id of the device with a public key."""
    raw = bytearray(blake3(b"sdmount device 1" + public_key).digest(16))
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)


def is_signed(public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Whether a device signed something."""
    try:
        VerifyKey(public_key).verify(data, signature)
    except (BadSignatureError, ValueError, CryptoTypeError):
        return False
    return True


def is_static_of(public_key: bytes, static_key: bytes, signature: bytes) -> bool:
    """Whether the device with a public key signed that a static key is its own."""
    return is_signed(public_key, _STATIC_CONTEXT + static_key, signature)


def is_card(uuid: bytes, card: object) -> bool:
    """Whether a card is that of the device with an id: the id is its key's, and the key signed the other one."""
    if not isinstance(card, list) or len(card) != 4:
        return False
    public, static, signature, created_ns = card
    if not all(isinstance(part, bytes) for part in (public, static, signature)) or type(created_ns) is not int:
        return False
    return len(static) == 32 and uuid_of(public) == uuid and is_static_of(public, static, signature)


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace a file as a whole: temporary name beside it, fsync, rename, fsync of the directory.

    An OSError names the file; nothing is left beside it then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.fchmod(fd, mode)
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_or_create(data_dir: Path) -> DeviceIdentity:
    """This device's identity; made on the first call. StoreCorrupt when the two files contradict each other."""
    facts_path, key_path = data_dir / "device.json", data_dir / "device_key"
    if not key_path.exists():
        if facts_path.exists():
            raise StoreCorrupt(f"{key_path} is missing although {facts_path} exists; restore the key from a backup")
        _publish_key(key_path)
    try:
        seed = bytes.fromhex(key_path.read_text("ascii").strip())
        if len(seed) != _SEED_BYTES:
            raise ValueError("wrong length")
    except ValueError as error:
        raise StoreCorrupt(f"{key_path} holds no key ({error}); restore it from a backup") from error
    if key_path.stat().st_mode & 0o077:
        key_path.chmod(0o600)
    keys = Keys(seed)
    public = keys.public_key
    uuid = uuid_of(public)
    if not facts_path.exists():
        name = socket.gethostname() or "device"
        facts = {
            "version": _FACTS_VERSION,
            "id": uuid_text(uuid),
            "name": name,
            "slug": slug_of(name),
            "public_key": public.hex(),
            "created_ns": time.time_ns(),
            "os": platform.system(),
        }
        write_atomically(facts_path, json.dumps(facts, indent=2).encode() + b"\n")
    try:
        facts = json.loads(facts_path.read_text("utf-8"))
        if int(facts["version"]) > _FACTS_VERSION:
            raise VersionUnsupported(f"{facts_path} is of a newer sdmount; use that one (nothing was changed)")
        name, slug, created_ns = str(facts["name"]), str(facts["slug"]), int(facts["created_ns"])
        name.encode()
        if slug != slug_of(slug) or abs(created_ns) >= 1 << 63:
            raise ValueError("its slug or its time is none")
        identity = DeviceIdentity(uuid, name, slug, public, created_ns, keys)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise StoreCorrupt(
            f"{facts_path} cannot be read ({error}); restore it, or remove it to write it anew"
        ) from error
    if facts.get("id") != uuid_text(uuid):
        raise StoreCorrupt(f"{facts_path} and {key_path} are of two different devices; restore the pair from a backup")
    return identity


def _publish_key(path: Path) -> None:
    """Put a new key in place unless another first start, at the same moment, was quicker."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_atomically(temporary, bytes(SigningKey.generate()).hex().encode() + b"\n", 0o600)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            os.replace(temporary, path)
            return
    finally:
        temporary.unlink(missing_ok=True)
