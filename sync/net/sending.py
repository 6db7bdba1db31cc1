"""What goes out of a link: records made of what waits, sealed, and handed to the carrier, by one task.

Nobody but the end of the link cancels that task, so no record is ever cut in half. A batch is as large as what the
carrier took lately within BATCH_S: what is urgent waits for no more than that, and a fast carrier is asked seldom.

A lone question or answer need not wait for a turn of that task: while the task has nothing to do, `flush` hands it to
the carrier at once, as far as the carrier takes it without waiting. The task does the rest.
"""

import math
from collections.abc import Callable
from typing import Final

import trio

from sync.net.bell import Bell
from sync.net.transport import Stream
from sync.net.vitals import Vitals
from sync.wire.records import MAX_RECORD_BYTES, Sealer
from sync.wire.session import Session

BATCH_S: Final = 0.002
_MIN_BATCH_BYTES: Final = 64 << 10
_MAX_BATCH_BYTES: Final = 512 << 10
_BEYOND_BYTES: Final = 2 * MAX_RECORD_BYTES  # a batch is complete within so many more


class Sender:
    """The sending half of a link. `moved` is called when there may be room in the session again."""

    def __init__(
        self, stream: Stream, sealer: Sealer, session: Session, vitals: Vitals, moved: Callable[[], object]
    ) -> None:
        #: Set when the last record has gone out.
        self.has_finished = trio.Event()
        self._stream = stream
        self._sealer = sealer
        self._session = session
        self._vitals = vitals
        self._moved = moved
        self._bell = Bell()
        self._out = memoryview(bytearray(_MAX_BATCH_BYTES + _BEYOND_BYTES))
        self._start = self._end = 0  # of what is sealed and not sent yet
        self._is_idle = False
        self._is_finishing = False

    def wake(self) -> None:
        """There may be something to send."""
        self._bell.ring()

    def flush(self) -> None:
        """The same, and it is worth going out at once."""
        has_rest = self._start < self._end  # of the flush before; it goes first
        if self._is_idle and not has_rest and self._seal(_MIN_BATCH_BYTES):
            self._start = self._stream.send_now(self._out[: self._end])
            has_rest = self._start < self._end
        if has_rest or not self._is_idle or self._session.has_output:
            self._bell.ring()

    def finish(self) -> None:
        """Nothing new is to be sent: when all that waits has gone out, the last record."""
        self._is_finishing = True
        self._bell.ring()

    def leave(self) -> None:
        """There is no time left: as much as goes out at once of what waits, and the last record behind it."""
        if self._is_idle and self._start == self._end:
            self._seal(_MIN_BATCH_BYTES)
            if not self._session.has_output:
                self._end += self._sealer.seal_into(b"", self._out[self._end :], fin=True)
            self._stream.send_now(self._out[: self._end])

    async def run(self) -> None:
        """Send, until the last record has gone out. LinkClosed when the stream breaks."""
        batch_bytes = _MIN_BATCH_BYTES
        while True:
            if self._start < self._end or self._seal(batch_bytes):
                size, began_s = self._end - self._start, trio.current_time()
                await self._send()
                if size >= batch_bytes:
                    rate = size / max(trio.current_time() - began_s, 1e-6)
                    batch_bytes = min(max(int(rate * BATCH_S), _MIN_BATCH_BYTES), _MAX_BATCH_BYTES)
            elif self._is_finishing:
                break
            else:
                self._is_idle = True
                await self._bell.wait()
                self._is_idle = False
        self._end = self._sealer.seal_into(b"", self._out, fin=True)
        await self._send()
        await self._stream.send_eof()
        self.has_finished.set()

    def _seal(self, batch_bytes: int) -> bool:
        """Seal what waits, as much as a batch; whether there was anything."""
        end = 0
        for record in self._session.next_records(trio.current_time(), batch_bytes):
            end += self._sealer.seal_into(record, self._out[end:])
        self._start, self._end = 0, end
        self._session.take_drained()
        self._moved()
        return end > 0

    async def _send(self) -> None:
        self._vitals.sending_since_s = trio.current_time()
        await self._stream.send_all(self._out[self._start : self._end])
        self._start = self._end = 0
        self._vitals.sending_since_s = math.inf
