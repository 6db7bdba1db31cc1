"""Streams and events of a session: what is known of each request that is under way, and what is told of it.

`Asking` is a request of ours, `Serving` one of the other side; notices share one stream of their own in each direction.
What happens to them is decided in `session`, when they may send in `outbox`.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from sync.wire.codec import Encoded
from sync.wire.flow import Window
from sync.wire.frames import OpenHead
from sync.wire.pieces import Incoming, Outgoing

#: So much of notices may be under way.
NOTICE_WINDOW: Final = 2 << 20
#: So much of one stream waits here before the next answer to it is taken.
MAX_QUEUED_REPLIES_BYTES: Final = 512 << 10


class Stream:
    """What both ends have: messages that wait to be sent, and a message that is being received."""

    def __init__(self, id: int, priority: int, deadline_s: float, arrival: int) -> None:
        self.id = id
        self.priority = priority
        self.deadline_s = deadline_s
        self.arrival = arrival
        self.queue: deque[Outgoing] = deque()
        self.queued_bytes = 0
        self.is_in_heap = False
        self.incoming: Incoming | None = None
        #: What the other side lets us send; None is no limit.
        self.credit: int | None = None
        #: Called, once, when nothing waits to be sent any more.
        self.when_sent: Callable[[], None] | None = None

    def __lt__(self, other: "Stream") -> bool:
        """Whether it is sent first."""
        return (self.priority, self.deadline_s, self.arrival) < (other.priority, other.deadline_s, other.arrival)

    @property
    def can_send(self) -> bool:
        """Whether its next piece exists, and has the credit it needs."""
        return bool(self.queue) and (self.credit is None or self.credit >= self.queue[0].needed_credit())


class Asking(Stream):
    """A request of ours. It has its number on the wire only once it begins to be sent; 0 until then."""

    def __init__(
        self, priority: int, deadline_s: float, arrival: int, window: int, grant: Callable[["Asking", int], None]
    ) -> None:
        super().__init__(0, priority, deadline_s, arrival)
        self.window = Window(window)
        self.cost = 0
        self.is_cancelled = False
        self.is_over = False
        self.lent = 0  # of the pot: for the message in the middle, and for whole ones that nobody took yet
        self.lent_now = 0  # for the message in the middle
        self._grant = grant

    def lend(self, amount: int) -> None:
        """For `Loans`: so much more may be sent to us."""
        self.lent += amount
        self.lent_now += amount
        self.window.lend(amount)
        self._grant(self, amount)


class Serving(Stream):
    """A request of the other side, which this side answers."""

    def __init__(self, id: int, head: OpenHead, deadline_s: float, arrival: int, incoming: Incoming) -> None:
        super().__init__(id, head.priority, deadline_s, arrival)
        self.credit = head.window
        self.queue_limit = min(head.window // 4, MAX_QUEUED_REPLIES_BYTES)
        self.cost = incoming.cost
        self.incoming = incoming
        self.is_finished = False  # its END or FAIL waits for what is queued, or has gone
        self.is_cancelled = False
        self.is_over = False


class Notices(Stream):
    """The notices of both directions. They go with the class of readahead: after what somebody waits for."""

    def __init__(self) -> None:
        super().__init__(0, 1, float("inf"), 0)
        self.credit = NOTICE_WINDOW
        self.window = Window(NOTICE_WINDOW)


class Requested(NamedTuple):
    """The other side asks. `end` or `fail` is to be called, once."""

    stream: Serving
    message: Encoded


class Replied(NamedTuple):
    """An answer to a request of ours. `taken` is to be called when it has been taken."""

    stream: Asking
    message: Encoded
    lent: int


class Ended(NamedTuple):
    """No more answers come. `failure` is (kind, text) when the other side could not."""

    stream: Asking
    failure: tuple[str, str] | None


class Cancelled(NamedTuple):
    """The other side wants no more answers. The stream is over, nothing has to be called for it."""

    stream: Serving


class Noticed(NamedTuple):
    """A message that wants no answer. `notice_taken` is to be called when it has been taken."""

    message: Encoded


class SaidGoodbye(NamedTuple):
    """The other side makes no new requests and takes none; those under way go on."""

    reason: str


Event = Requested | Replied | Ended | Cancelled | Noticed | SaidGoodbye
