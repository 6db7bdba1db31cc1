"""Pages: a range of a device's stream, packed and signed. Pure.

A page is a *head*, which says whose stream it is of and which range of it, and a *body*, compressed msgpack. The head
has the hash of the body and is signed by the author, so that any device can hand on what it got, and nobody can say
anything in another's name. Ranges (from, to] chain; rows and operations that were superseded when the page was made
are not in it, so a page is what its author has, not what he once said.

    head  msgpack [1, library, device, epoch, kind, start, from, to, after, last, is_last, told, hash] + signature (64)
    body  zlib of msgpack; rows.py and ops.py say what of

A range of rows too large for one page has several, each with the rows from the number `after` (excluded) to `last`.
What is wrong with a page in any way is PageRefused; nothing else is raised, whatever the bytes are.
"""

import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgpack
from blake3 import blake3

from index.model.errors import PageRefused
from index.store.streams import OWNED, SHARED, PageRow, StreamId
from sync.wire.identity import Keys, is_signed

_VERSION: Final = 1
_CONTEXT: Final = b"sdmount page 1"
_SIGNATURE_BYTES: Final = 64
HEAD_MAX_BYTES: Final = 512
BODY_MAX_BYTES: Final = 4 << 20
_PLAIN_MAX_BYTES: Final = 32 << 20
_NUMBER_MAX: Final = (1 << 63) - 1


class Head(NamedTuple):
    """What a page says of itself. `start_seq`: where the epoch of the stream begins."""

    library: bytes
    device: bytes
    epoch: int
    kind: int
    start_seq: int
    from_seq: int
    to_seq: int
    after_id: int
    last_id: int
    is_last: bool
    told: int
    body_hash: bytes

    @property
    def stream(self) -> StreamId:
        return StreamId(self.device, self.epoch, self.kind)

    @property
    def is_base(self) -> bool:
        """Whether it is of all rows that there are, rather than of those that changed."""
        return self.kind == OWNED and self.from_seq == self.start_seq


class Page(NamedTuple):
    """A page as it travels, and its head in words; `plain_bytes` is known of those that were made here."""

    facts: Head
    head: bytes
    body: bytes
    plain_bytes: int = 0

    @property
    def digest(self) -> bytes:
        """8 bytes that tell it from any other page."""
        return blake3(self.head).digest(8)

    def row(self) -> PageRow:
        """As it is kept."""
        facts = self.facts
        return PageRow(
            facts.device, facts.epoch, facts.kind, facts.from_seq, facts.to_seq, facts.after_id, facts.last_id,
            int(facts.is_last), self.head, self.body,
        )  # fmt: skip


def seal(keys: Keys, facts: Head, plain: object) -> Page:
    """Pack and sign; the hash and its place in the facts are filled in."""
    packed = msgpack.packb(plain)
    body = zlib.compress(packed, 1)
    facts = facts._replace(body_hash=blake3(body).digest())
    said = msgpack.packb([_VERSION, *facts])
    return Page(facts, said + keys.sign(_CONTEXT + said), body, len(packed))


def fits(page: Page) -> bool:
    """Whether a page that was made here is none that others refuse for its size."""
    return len(page.body) <= BODY_MAX_BYTES and page.plain_bytes <= _PLAIN_MAX_BYTES


def opened(head: bytes, body: bytes, library: bytes, key_of: Callable[[bytes], bytes | None]) -> Page:
    """A page that came, its author and all of it proven. `key_of`: the public key of a device that may say anything
    here, None for any other. PageRefused says what is wrong."""
    if not _SIGNATURE_BYTES < len(head) <= HEAD_MAX_BYTES or len(body) > BODY_MAX_BYTES:
        raise PageRefused("a page has a size that none has")
    said, signature = head[:-_SIGNATURE_BYTES], head[-_SIGNATURE_BYTES:]
    facts = _facts(said)
    if facts.library != library:
        raise PageRefused("a page is of another library")
    key = key_of(facts.device)
    if key is None:
        raise PageRefused(f"a page is by {facts.device.hex()[:8]}, which is no member of the library")
    if not is_signed(key, _CONTEXT + said, signature):
        raise PageRefused(f"a page that says it is by {facts.device.hex()[:8]} is not signed by it")
    if blake3(body).digest() != facts.body_hash:
        raise PageRefused("a page is not what was signed")
    return Page(facts, head, body)


def stream_of(head: bytes) -> StreamId:
    """Which stream a page says it is of, proven or not."""
    return _facts(head[:-_SIGNATURE_BYTES]).stream


def kept(row: PageRow) -> Page:
    """A page of our own table, proven when it came."""
    return Page(_facts(row.head[:-_SIGNATURE_BYTES]), row.head, row.body)


def _facts(said: bytes) -> Head:
    try:
        values: Any = msgpack.unpackb(said, max_array_len=32, max_bin_len=64, max_str_len=0, max_map_len=0)
    except Exception as error:
        raise PageRefused("the head of a page is none") from error
    if not isinstance(values, list) or len(values) != 1 + len(Head._fields) or values[0] != _VERSION:
        raise PageRefused("the head of a page is of another version")
    _, library, device, *numbers, is_last, told, body_hash = values
    sound = (
        all(isinstance(part, bytes) and len(part) == 16 for part in (library, device))
        and all(type(n) is int and 0 <= n <= _NUMBER_MAX for n in (*numbers, told))
        and type(is_last) is bool
        and isinstance(body_hash, bytes)
    )
    facts = Head(*values[1:])
    if not sound or facts.kind not in (OWNED, SHARED) or not facts.start_seq <= facts.from_seq < facts.to_seq:
        raise PageRefused("the head of a page makes no sense")
    return facts


def plain(page: Page) -> Any:
    """What a body says, unpacked within limits."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(page.body, _PLAIN_MAX_BYTES)
    except zlib.error as error:
        raise PageRefused("the body of a page cannot be unpacked") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise PageRefused("the body of a page is too large, or cut off")
    try:
        return msgpack.unpackb(data, strict_map_key=False, max_ext_len=0)
    except Exception as error:
        raise PageRefused("the body of a page is no msgpack") from error
