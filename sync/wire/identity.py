"""The identity of this device: one Ed25519 key, made once, kept in a file that only its owner may read.

The device id is the public key's first 16 bytes of BLAKE3, shaped as a uuid: whoever holds the id and a signature can
check them against each other. `device.json` is for people and programs and may be read by anyone; the seed lies alone
in `device_key` (0600). Both are written to a temporary name, synced, renamed: a crash leaves none or a whole one.

Source: RFC 8032 (Ed25519), by PyNaCl.
"""

import contextlib
import json
import os
import platform
import re
import socket
import time
from pathlib import Path

import attrs
from blake3 import blake3
from nacl.signing import SigningKey

from index.model.errors import StoreCorrupt, VersionUnsupported
from index.model.ids import uuid_text

_SEED_BYTES = 32
_FACTS_VERSION = 1


@attrs.frozen
class DeviceIdentity:
    """This device: its id (16 bytes), its names, its public key (32 bytes). The signing key stays in the file."""

    uuid: bytes
    name: str
    slug: str
    public_key: bytes
    created_ns: int


def slug_of(name: str) -> str:
    """The name as one path component: lower case, anything but letters and digits a dash."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"


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
    public = bytes(SigningKey(seed).verify_key)
    uuid = _uuid_of(public)
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
        identity = DeviceIdentity(uuid, name, slug, public, created_ns)
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


def _uuid_of(public_key: bytes) -> bytes:
    raw = bytearray(blake3(b"sdmount device 1" + public_key).digest(16))
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)
