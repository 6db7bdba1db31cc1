"""Messages: what devices ask and tell each other about the log.

Whoever follows asks once (`Follow`) and is told pages for as long as the link lasts; what he has durably he says by
notices (`Have`), so that others stop sending it and its authors may forget it. Who lacks what is not kept any more is
told so (`Behind`) and asks for the current state (`StateWanted`), or lets all rows of a device be told anew.
"""

from typing import Annotated, Final

from index.store.streams import StreamId
from sync.wire.codec import Body, Codec, message, record
from sync.wire.forms import U8, U32, Bytes16, Length, Range

U63 = Annotated[int, Range(0, (1 << 63) - 1)]

#: How many streams anybody may speak of at once.
STREAMS_MAX: Final = 4096
DEVICES_MAX: Final = 1024
STAMPS_MAX: Final = 1024


@record
class At:
    """A place in a stream: everything up to `seq`, and of the range up to `part_to` the rows up to `part_after`."""

    device: Bytes16
    epoch: U63
    kind: U8
    seq: U63
    part_to: U63 = 0
    part_after: U63 = 0

    @property
    def stream(self) -> StreamId:
        return StreamId(self.device, self.epoch, self.kind)


Places = Annotated[tuple[At, ...], Length(0, STREAMS_MAX)]
Devices = Annotated[tuple[Bytes16, ...], Length(0, DEVICES_MAX)]


@message(16)
class Follow:
    """Tell me what goes on from here. `direct`: devices that I have links to myself. `forks`: places that somebody was
    heard of at, and that their authors do not know."""

    places: Places
    direct: Devices
    forks: Places = ()


@message(17)
class PageSent:
    """A page, as its author made it: the head, then the body."""

    head: Annotated[bytes, Length(64, 512)]
    body: Body = b""


@message(18)
class Behind:
    """What goes on from there is not kept here. `is_rewound`: of rows all are told anew, from the beginning; else of
    shared rows there is the current state. Who has got further meanwhile need not do either."""

    at: At
    is_rewound: bool


@message(19)
class UpToDate:
    """Nothing more just now: you have been told all that I have, which is this."""

    places: Places


@message(20)
class Have:
    """What I have durably, and whom I have links to; `forks` as in Follow. A notice."""

    places: Places
    direct: Devices
    forks: Places = ()


@message(21)
class Again:
    """Go on from here with these streams: what came between could not be applied. A notice."""

    places: Places


@message(22)
class StateWanted:
    """The current state of all shared rows. `places`: how far I know your own streams."""

    places: Places = ()


@message(23)
class StatePart:
    """Rows of one sort (snapshot.py); the body is msgpack. A part without a sort is the end."""

    sort: Annotated[str, Length(0, 32)]
    body: Body = b""


@message(24)
class HeadsWanted:
    """How far are you with everything?"""


@message(25)
class Heads:
    """As far as this."""

    places: Places
    pending: U32 = 0


@message(26)
class PutOut:
    """You are no member of the library any more. A notice, and the last thing that is said."""


@message(27)
class Ahead:
    """What you stamped so, or later, is put aside here until that time comes: your clock is ahead of ours. `stamps`:
    the first of these stamps, as you may have forgotten them. A notice."""

    hlc: U63
    stamps: Annotated[tuple[U63, ...], Length(0, STAMPS_MAX)] = ()


LOG_MESSAGES: Final = (
    Follow, PageSent, Behind, UpToDate, Have, Again, StateWanted, StatePart, HeadsWanted, Heads, PutOut, Ahead,
)  # fmt: skip
LOG_CODEC: Final = Codec(LOG_MESSAGES)
