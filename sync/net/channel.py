"""A channel: requests, streams and notices to one other device, over one stream of bytes, as trio tasks.

The glue around three machines without I/O: the handshake, the records, the session. One task reads, one sends, some
look after what is late, one hands out notices, and each request of the other side has a task of its own. All of them
end with the channel; what somebody waits for raises LinkClosed then, and `closed` says why.

    async with open_channel(stream, exchange, codec=codec, handle=handle) as channel:
        page = await channel.call(PagesWanted(...), priority=4, deadline_s=30)
        async with channel.stream(BlocksWanted(...), priority=0, deadline_s=10) as blocks:
            async for block in blocks: ...
        await channel.notify(Hint(...))

    async def handle(call: Call) -> None:
        await call.reply(Pages(...))

Whoever answers returns when that was all; a VdfsError it raises arrives as a PeerError of the same kind and text. Its
task is cancelled when the other side does not want the answer any more, and at the deadline. Every wait has an end: a
deadline, credit, or the death of the link, which is noticed within seconds (`vitals`).

Times are trio's, so that a simulated clock drives them; randomness is in the handshake alone. Kept out: how records go
out (`sending`), and whether the other side is there (`vitals`).
"""

import contextlib
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import trio

from index.model.errors import Deadline, LinkClosed, ProtocolError, Unsupported, VdfsError
from sync.net.bell import Bell
from sync.net.replies import Replies
from sync.net.sending import Sender
from sync.net.shaking import HANDSHAKE_S, shake_hands
from sync.net.transport import Stream
from sync.net.vitals import Vitals
from sync.wire.codec import Codec, UnknownMessage, encode
from sync.wire.handshake import Exchange, Secured
from sync.wire.ledger import MAX_WINDOW_BYTES
from sync.wire.session import DEFAULT_WINDOW, Session
from sync.wire.streams import Asking, Cancelled, Ended, Event, Noticed, Replied, Requested, Serving

GOODBYE_S: Final = 1.0
YIELD_S: Final = 0.003  # so long may what has come be looked at in one go
MAX_DEADLINE_S: Final = 24 * 3600.0

Handler = Callable[["Call"], Awaitable[None]]
NoticeHandler = Callable[[Any], Awaitable[None]]

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def open_channel(
    stream: Stream,
    exchange: Exchange,
    *,
    codec: Codec,
    handle: Handler | None = None,
    notified: NoticeHandler | None = None,
    handshake_s: float = HANDSHAKE_S,
) -> AsyncIterator["Channel"]:
    """Shake hands, then a channel for the length of the block. The stream is closed in any case.

    An error inside the block comes out as it is, not in a group. When the block ends the other side is told.
    """
    try:
        secured = await shake_hands(stream, exchange, handshake_s)
        async with channel_over(stream, secured, codec=codec, handle=handle, notified=notified) as channel:
            yield channel
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()


@contextlib.asynccontextmanager
async def channel_over(
    stream: Stream,
    secured: Secured,
    *,
    codec: Codec,
    handle: Handler | None = None,
    notified: NoticeHandler | None = None,
) -> AsyncIterator["Channel"]:
    """The same for two who have shaken hands already (see the acceptor)."""
    channel = Channel(stream, secured, codec, handle, notified)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.run)
        try:
            yield channel
        except Exception as error:
            failure = error
        await channel.close("done" if failure is None else "an error")
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class Channel:
    """One link at work. `run` in a nursery; everything else may be called by any task of the loop."""

    def __init__(
        self,
        stream: Stream,
        secured: Secured,
        codec: Codec,
        handle: Handler | None = None,
        notified: NoticeHandler | None = None,
    ) -> None:
        #: What the handshake has shown of the other side.
        self.secured = secured
        #: Why the channel has ended; None while it has not.
        self.closed: str | None = None
        self._stream = stream
        self._codec = codec
        self._handle = handle
        self._notified = notified
        self._session = Session(is_initiator=secured.is_initiator)
        self._replies: dict[Asking, Replies] = {}
        self._handlers: dict[Serving, trio.CancelScope] = {}
        self._notices: deque[Noticed] = deque()
        self._notice_came = Bell()
        self._waiting = trio.lowlevel.ParkingLot()  # for room in the session
        self._deadlines = Bell()
        self._next_deadline = math.inf
        self._ended = trio.Event()
        self._vitals = Vitals(stream.peer)
        self._sender = Sender(stream, secured.sealer, self._session, self._vitals, self._waiting.unpark_all)
        self._goodbye: str | None = None  # the reason that the other side gave for closing
        self._farewell: str | None = None  # the same, once its last record has come
        self._scope = trio.CancelScope()

    @property
    def peer(self) -> str:
        """Where the other side is."""
        return self._stream.peer

    # -- asking

    async def call(self, message: Any, *, priority: int, deadline_s: float, window_bytes: int = DEFAULT_WINDOW) -> Any:
        """Ask, and the one answer. PeerError is the other side's, Deadline and LinkClosed are ours.

        `window_bytes` of answers may be on their way; a larger one arrives, too, but a round trip later.
        """
        asking, replies = await self._ask(message, priority, deadline_s, window_bytes)
        answer: Any = None
        try:
            async for reply in replies:
                answer = reply
                if replies.count > 1:
                    break
        finally:
            self._leave(asking)
        if replies.count != 1:
            raise ProtocolError(f"{self.peer} gave {replies.count or 'no'} answers where there is one")
        return answer

    @contextlib.asynccontextmanager
    async def stream(
        self, message: Any, *, priority: int, deadline_s: float, window_bytes: int = DEFAULT_WINDOW
    ) -> AsyncIterator["Replies"]:
        """Ask, and any number of answers, while the block lasts; leaving it early cancels the request.

        Deadline is raised by whoever waits for an answer, `deadline_s` seconds after the call.
        """
        asking, replies = await self._ask(message, priority, deadline_s, window_bytes)
        try:
            yield replies
        finally:
            self._leave(asking)

    async def _ask(self, message: Any, priority: int, deadline_s: float, window_bytes: int) -> tuple[Asking, "Replies"]:
        encoded = encode(message)
        deadline = trio.current_time() + min(deadline_s, MAX_DEADLINE_S)
        if window_bytes > MAX_WINDOW_BYTES:
            raise ValueError(f"a window has at most {MAX_WINDOW_BYTES} bytes")
        with trio.CancelScope(deadline=deadline) as scope:
            await self._wait_for(lambda: self._session.can_open(encoded, window_bytes))
        if scope.cancelled_caught:
            raise Deadline(f"{self.peer} has answered too little of what was asked before")
        asking = self._session.open(encoded, priority=priority, deadline_s=deadline, window=window_bytes)
        replies = self._replies[asking] = Replies(self, deadline)
        if len(self._replies) == 1:
            self._sender.flush()
        else:
            self._sender.wake()  # many at a time go out together
        if deadline < self._next_deadline:
            self._deadlines.ring()
        return asking, replies

    def _leave(self, asking: Asking) -> None:
        del self._replies[asking]
        self._session.discard(asking)
        self._waiting.unpark_all()
        if self._session.has_output:
            self._sender.wake()

    async def notify(self, message: Any) -> None:
        """Tell without asking; returns when it is queued. LinkClosed when the link has ended."""
        encoded = encode(message)
        await self._wait_for(self._session.can_notify)
        self._session.notify(encoded)
        self._sender.wake()

    async def close(self, reason: str, grace_s: float = 0.0) -> None:
        """End the channel: no new requests, those under way have `grace_s` seconds, then the other side is told."""
        if self.closed is not None:
            return
        self._dispatch(self._session.say_goodbye(reason))
        self._sender.wake()
        with trio.move_on_after(grace_s):
            while not self._session.is_idle and self.closed is None:
                await self._waiting.park()
        with trio.move_on_after(GOODBYE_S):
            self._sender.finish()
            await self._sender.has_finished.wait()
        self._end(reason)

    def end(self, reason: str) -> None:
        """End the channel at once, without a word to the other side."""
        self._end(reason)

    async def wait_closed(self) -> str:
        """Wait until the channel has ended; the reason."""
        await self._ended.wait()
        return self.closed or ""

    async def _wait_for(self, is_possible: Callable[[], bool]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        while not is_possible():
            await self._waiting.park()
            self._check_open()

    def _check_open(self) -> None:
        if self.closed is not None or self._session.is_closing:
            raise LinkClosed(f"the link to {self.peer} has ended: {self.closed or self._goodbye or 'closing'}")

    # -- the tasks

    async def run(self) -> None:
        """Serve the link until it ends, for whatever reason; `closed` names it. The stream is closed then."""
        self._vitals.heard_s = trio.current_time()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for task in (
                        self._sender.run, self._look_after, self._vitals.watch_sending, self._keep_deadlines,
                        self._hand_out_notices, self._read,
                    ):  # fmt: skip
                        nursery.start_soon(self._guarded, task)
        finally:
            if self.closed is None:
                self._session.say_goodbye("stopped")
                self._sender.leave()
                self._end("stopped")
            with trio.CancelScope(shield=True):
                await self._stream.aclose()

    async def _guarded(self, task: Callable[[], Awaitable[None]]) -> None:
        """What goes wrong ends the link, and nothing beside it."""
        try:
            await task()
        except VdfsError as error:
            self._end(self._farewell or str(error))
        except Exception:
            log.exception("the link to %s ended by a bug of ours", self.peer)
            self._end("a bug; the log has it")

    async def _read(self) -> None:
        stream, opener, session = self._stream, self.secured.opener, self._session
        while not opener.is_finished:
            count = await stream.receive_into(opener.room())
            if not count:
                opener.end_of_stream()
            opener.received(count)
            now_s = self._vitals.heard_s = trio.current_time()
            while (size := opener.waiting()) is not None:
                room = session.body_room(size)
                if room is not None:
                    opener.open_into(room)
                    events = session.body_received()
                else:
                    events = session.receive(opener.open(), now_s)
                self._dispatch(events)
                if trio.current_time() > now_s + YIELD_S:  # many frames, each of them work: others have their turn
                    await trio.lowlevel.checkpoint()
                    now_s = trio.current_time()
            if session.has_output:
                self._sender.flush()
        self._farewell = self._goodbye or "the other device closed it"
        self._sender.finish()  # it is told that we say no more either, if it still listens
        with trio.move_on_after(GOODBYE_S):
            await self._sender.has_finished.wait()
        self._end(self._farewell)

    async def _keep_deadlines(self) -> None:
        """Wake who waits for an answer that is too late. One task for all: most answers come long before."""
        while True:
            now_s = trio.current_time()
            self._next_deadline = math.inf
            for replies in self._replies.values():
                if replies.deadline <= now_s:
                    replies.wake()
                else:
                    self._next_deadline = min(self._next_deadline, replies.deadline)
            with trio.CancelScope(deadline=self._next_deadline):
                await self._deadlines.wait()

    async def _look_after(self) -> None:
        await self._vitals.listen(self._ask_for_a_sign)

    def _ask_for_a_sign(self) -> None:
        self._session.ping()
        self._sender.wake()

    async def _hand_out_notices(self) -> None:
        """One after the other, in their order."""
        while True:
            while self._notices:
                notice = self._notices.popleft()
                message = self._codec.decode(notice.message)
                if self._notified is not None and not isinstance(message, UnknownMessage):
                    try:
                        await self._notified(message)
                    except VdfsError as error:
                        log.info("a notice of %s was not taken: %s", self.peer, error)
                    except Exception:
                        log.exception("a notice of %s could not be taken: %s", self.peer, type(message).__name__)
                self._session.notice_taken(notice)
                self._sender.wake()
            await self._notice_came.wait()

    # -- what comes

    def _dispatch(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Replied | Ended):
                replies = self._replies.get(event.stream)
                if replies is not None:
                    replies.put(event)
                if isinstance(event, Ended):
                    self._waiting.unpark_all()
            elif isinstance(event, Requested):
                self._serve(event)
            elif isinstance(event, Cancelled):
                scope = self._handlers.get(event.stream)
                if scope is not None:
                    scope.cancel()
            elif isinstance(event, Noticed):
                self._notices.append(event)
                self._notice_came.ring()
            else:
                self._goodbye = event.reason
                self._waiting.unpark_all()

    def _serve(self, request: Requested) -> None:
        message = self._codec.decode(request.message)
        stream = request.stream
        if isinstance(message, UnknownMessage) or self._handle is None:
            self._session.fail(stream, "Unsupported", f"requests of type {request.message.number} are not known here")
            return
        scope = self._handlers[stream] = trio.CancelScope(
            deadline=min(stream.deadline_s, trio.current_time() + MAX_DEADLINE_S)
        )
        self._nursery.start_soon(self._answer, Call(self, stream, message), self._handle, scope)

    async def _answer(self, call: "Call", handle: Handler, scope: trio.CancelScope) -> None:
        stream, session = call._stream, self._session
        try:
            with scope:
                try:
                    await handle(call)
                    session.end(stream)
                except Exception as error:
                    expected = _only_error(error)
                    if isinstance(expected, VdfsError):
                        session.fail(stream, expected.kind, str(expected))
                    else:
                        log.exception("a request of %s failed: %s", self.peer, type(call.message).__name__)
                        session.fail(stream, "InternalError", "an internal error; the log there has the details")
            if not stream.is_finished:
                session.give_up(stream, "Deadline", "it was not done in the time that was given")
        finally:
            del self._handlers[stream]
            if self._handlers:
                self._sender.wake()
            else:
                self._sender.flush()

    def take(self, reply: Replied) -> Any:
        """For `Replies`: an answer as its class, and as much may be sent again. One that is garbage ends the link."""
        self._session.taken(reply)
        if self._session.has_output:
            self._sender.flush()
        try:
            decoded = self._codec.decode(reply.message)
        except ProtocolError as error:
            self._end(str(error))
            raise
        if isinstance(decoded, UnknownMessage):
            raise Unsupported(f"{self.peer} answers with messages of type {decoded.number}, which is not known here")
        return decoded

    def _end(self, reason: str) -> None:
        """The channel has ended: whoever waits is told."""
        if self.closed is not None:
            return
        self.closed = reason
        self._ended.set()
        self._scope.cancel()
        self._waiting.unpark_all()
        for replies in self._replies.values():
            replies.wake()


class Call:
    """A request of the other side, for whoever answers it."""

    def __init__(self, channel: Channel, stream: Serving, message: Any) -> None:
        self.message = message
        self.channel = channel
        self._stream = stream

    @property
    def priority(self) -> int:
        """The class that the other side gave it, 0 to 4."""
        return self._stream.priority

    @property
    def deadline_s(self) -> float:
        """When the answer is too late, by trio's clock. The handler is cancelled then."""
        return self._stream.deadline_s

    async def reply(self, message: Any) -> None:
        """An answer; waits for its turn, while the other side has not taken what was sent before."""
        encoded = encode(message)
        channel = self.channel
        await trio.lowlevel.checkpoint_if_cancelled()
        while not channel._session.can_reply(self._stream):
            await channel._waiting.park()
        channel._session.reply(self._stream, encoded)
        channel._sender.wake()


def _only_error(error: Exception) -> Exception:
    """The one error inside nested groups of one: handlers that use a nursery raise their errors so."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
