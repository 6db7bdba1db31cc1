"""Records: a stream of bytes cut into pieces, each of which is sealed.

After the handshake each direction is a sequence of records, and nothing else:

    length   u32, big endian: how many bytes follow; its highest bit marks the last record of the direction (FIN)
    sealed   that many bytes: the ciphertext of 0 to 131 072 bytes, and its tag of 16

The four bytes of the length are associated data. Nonces are a 96-bit counter, big endian, from 0. The key of a
direction follows from what the handshake left for it and the name of the cipher; after 2^32 records or 1 TiB another
follows from it, and the counter begins anew. Both sides count alike, so nothing is said about it.

The invariant: what comes out is what went in, in its order and whole, or a ProtocolError, after which nothing comes.
A stream that ends without FIN was cut off, and that is an error, too. A length is judged before room is made for it.

Sans-IO. `Sealer` writes into a buffer of the caller. `Opener` has the one buffer that the network is read into, and
opens records from there straight to where the caller wants them. Kept out: what is in a record (`session`).
"""

import struct
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag

from index.model.errors import ProtocolError
from sync.wire import aead
from sync.wire.aead import NONCE_BYTES, TAG_BYTES
from sync.wire.noise import hkdf

MAX_PLAINTEXT_BYTES: Final = 128 << 10
HEADER_BYTES: Final = 4
#: What sealing adds to a plaintext.
OVERHEAD_BYTES: Final = HEADER_BYTES + TAG_BYTES
MAX_RECORD_BYTES: Final = MAX_PLAINTEXT_BYTES + OVERHEAD_BYTES

REKEY_RECORDS: Final = 1 << 32
REKEY_BYTES: Final = 1 << 40

_FIN: Final = 1 << 31
_LENGTH: Final = struct.Struct(">I")
_KEY_LABEL: Final = b"sdmount records 1 "
_REKEY_LABEL: Final = b"sdmount rekey 1"

#: What may be handed over as bytes.
Data = bytes | bytearray | memoryview


class _Direction:
    """The cipher of one direction: its key, its counter, and when the next key is due."""

    def __init__(self, cipher: str, key: bytes, rekey_records: int, rekey_bytes: int) -> None:
        self._cipher = cipher
        self._key = hkdf(key, _KEY_LABEL + cipher.encode(), 1)[0]
        self._rekey_records = rekey_records
        self._rekey_bytes = rekey_bytes
        self._begin()

    def _begin(self) -> None:
        self.aead = aead.with_key(self._cipher, self._key)
        self._records = 0
        self._bytes = 0

    def nonce(self) -> bytes:
        return self._records.to_bytes(NONCE_BYTES, "big")

    def count(self, size_bytes: int) -> None:
        """A record has gone by; its plaintext had that many bytes."""
        self._records += 1
        self._bytes += size_bytes
        if self._records >= self._rekey_records or self._bytes >= self._rekey_bytes:
            self._key = hkdf(self._key, _REKEY_LABEL, 1)[0]
            self._begin()


class Sealer:
    """The sending direction. `key` is the 32 bytes of the handshake; the limits are other ones only in tests."""

    def __init__(
        self, cipher: str, key: bytes, *, rekey_records: int = REKEY_RECORDS, rekey_bytes: int = REKEY_BYTES
    ) -> None:
        self._direction = _Direction(cipher, key, rekey_records, rekey_bytes)
        self.is_finished = False

    def seal_into(self, plaintext: Data, out: memoryview, *, fin: bool = False) -> int:
        """Write one record to the start of `out`; how many bytes it has. `plaintext` lies elsewhere.

        ValueError for more than MAX_PLAINTEXT_BYTES, and after FIN: those are bugs of ours.
        """
        size = len(plaintext)
        if size > MAX_PLAINTEXT_BYTES:
            raise ValueError(f"a record holds at most {MAX_PLAINTEXT_BYTES} bytes, not {size}")
        if self.is_finished:
            raise ValueError("the direction has been finished")
        header = _LENGTH.pack(size + TAG_BYTES | (_FIN if fin else 0))
        end = size + OVERHEAD_BYTES
        out[:HEADER_BYTES] = header
        direction = self._direction
        direction.aead.encrypt_into(direction.nonce(), plaintext, header, out[HEADER_BYTES:end])
        direction.count(size)
        self.is_finished = fin
        return end

    def seal(self, plaintext: Data, *, fin: bool = False) -> bytes:
        """One record as bytes of its own."""
        out = bytearray(len(plaintext) + OVERHEAD_BYTES)
        self.seal_into(plaintext, memoryview(out), fin=fin)
        return bytes(out)


class Opener:
    """The receiving direction, with the buffer that the network is read into.

    Fill `room()` and say so with `received`; while `waiting()` is not None a whole record is there, to be opened by
    `open_into` or `open`. At the end of the stream `end_of_stream` says whether it was a good end.
    """

    def __init__(
        self,
        cipher: str,
        key: bytes,
        *,
        capacity_bytes: int = 4 * MAX_RECORD_BYTES,
        rekey_records: int = REKEY_RECORDS,
        rekey_bytes: int = REKEY_BYTES,
    ) -> None:
        self._direction = _Direction(cipher, key, rekey_records, rekey_bytes)
        self._buffer = memoryview(bytearray(max(capacity_bytes, MAX_RECORD_BYTES)))
        self._start = 0  # the record that is next
        self._end = 0  # of what was received
        self._size: int | None = None  # of the next plaintext, once its length has been read
        self.is_finished = False
        self._is_dead = False

    def room(self) -> memoryview:
        """Where received bytes belong; never empty when all waiting records have been opened."""
        if self._start:
            rest = self._end - self._start
            # Worth a move when nothing is left to move, or when the record that is next would not fit behind.
            if not rest or self._start + MAX_RECORD_BYTES > len(self._buffer):
                self._buffer[:rest] = self._buffer[self._start : self._end]
                self._start, self._end = 0, rest
        return self._buffer[self._end :]

    def received(self, count: int) -> None:
        """So many bytes were written to the start of the last `room`."""
        self._end += count

    def feed(self, data: Data) -> int:
        """Take as much of `data` as there is room for; how much that was."""
        room = self.room()
        count = min(len(room), len(data))
        room[:count] = data[:count]
        self.received(count)
        return count

    def waiting(self) -> int | None:
        """The size of the next plaintext when its record is there whole, else None. ProtocolError: no record."""
        if self._is_dead:
            raise ProtocolError("a record before was not genuine")
        if self._size is None:
            if self._end - self._start < HEADER_BYTES:
                return None
            self._size = self._judge_length()
        return self._size if self._end - self._start >= self._size + OVERHEAD_BYTES else None

    def _judge_length(self) -> int:
        if self.is_finished:
            self._die("bytes came after the last record")
        (word,) = _LENGTH.unpack_from(self._buffer, self._start)
        size: int = (word & ~_FIN) - TAG_BYTES
        if not 0 <= size <= MAX_PLAINTEXT_BYTES:
            self._die(f"a record of {size + TAG_BYTES} bytes; there are none of that length")
        return size

    def open_into(self, out: memoryview) -> None:
        """Open the record that is waiting into `out`, which has its exact size. ProtocolError: it is not genuine."""
        size, start = self._size, self._start
        assert size is not None
        header = bytes(self._buffer[start : start + HEADER_BYTES])
        end = start + size + OVERHEAD_BYTES
        direction = self._direction
        try:
            direction.aead.decrypt_into(direction.nonce(), self._buffer[start + HEADER_BYTES : end], header, out)
        except InvalidTag:
            self._die("a record is not genuine")
        direction.count(size)
        self.is_finished = header[0] >= 0x80
        self._start, self._size = end, None

    def open(self) -> memoryview:
        """The plaintext of the record that is waiting, in memory of its own."""
        assert self._size is not None
        out = memoryview(bytearray(self._size))
        self.open_into(out)
        return out

    def end_of_stream(self) -> None:
        """The stream has ended. ProtocolError unless its last record was the one that is marked so, and whole."""
        if not self.is_finished or self._end > self._start:
            self._die("the stream was cut off")

    def _die(self, why: str) -> NoReturn:
        self._is_dead = True
        raise ProtocolError(why)
