"""A pairing as it is asked about from outside: what is shown, what the person says of it, and how it stands.

In: events of the machine without I/O (`sync/wire/pairing`), and the person's yes or no. Out: one word for the state,
who was met, and why it came to nothing. What is secret is held here and in the offer only, is shown to who asked for
it, and is let go of at the end, whatever that is: a session that is over is remembered without it.
"""

import trio

from sync.wire.cards import DeviceCard
from sync.wire.identity import uuid_of
from sync.wire.pairing import Arrived, Completed, Event, Failed, Joining


class Session:
    """Used on the loop only."""

    def __init__(self, machine: Joining, words: tuple[str, ...] = (), ticket: str = "") -> None:
        self.machine = machine
        self.words = words
        self.ticket = ticket
        self.shown: Arrived | None = None
        self.device: bytes | None = None  # once both persons have said yes
        self.library = ""
        self.failure: str | None = None
        self.is_done = False
        self.accepts: bool | None = None
        self.decided = trio.Event()
        self.talks = 0  # with how many devices it speaks just now
        self._changed = trio.Event()

    @property
    def state(self) -> str:
        """One word: open, shown, done, failed."""
        if self.failure is not None:
            return "failed"
        return "done" if self.is_done else "open" if self.shown is None else "shown"

    @property
    def is_over(self) -> bool:
        return self.is_done or self.failure is not None

    @property
    def has_met(self) -> bool:
        """Whether somebody with the secret was met."""
        return self.shown is not None

    @property
    def card(self) -> DeviceCard | None:
        """Who was met."""
        return None if self.shown is None else self.shown.card

    # what happens -----------------------------------------------------------------------------------------------------

    def note(self, events: list[Event]) -> None:
        """What the machine says has happened."""
        for event in events:
            if isinstance(event, Arrived):
                self.shown = event
            elif isinstance(event, Completed):
                self.device = uuid_of(event.card.public_key)
            elif isinstance(event, Failed):
                self.fail(event.reason)
        if events:
            self.tell()

    def decide(self, accepts: bool) -> None:
        """What the person says of the device that is shown; the first word holds."""
        if self.accepts is None:
            self.accepts = accepts
            self.decided.set()

    def finish(self, library: str) -> None:
        """It is written down, here and there; `library` is what it is called."""
        self.library = library
        self.is_done = True
        self._forget()
        self.tell()

    def fail(self, reason: str) -> None:
        """It has come to nothing. The first reason stays."""
        if not self.is_over:
            self.failure = reason
            self._forget()
            self.tell()

    def _forget(self) -> None:
        self.words, self.ticket = (), ""
        self.machine.forget()

    # whoever waits ----------------------------------------------------------------------------------------------------

    async def changed(self) -> None:
        """Wait until something has happened."""
        await self._changed.wait()

    async def last_words(self, deadline_s: float) -> None:
        """It is over; wait until the other device has been told, for so long at most."""
        with trio.move_on_after(deadline_s):
            while self.talks:
                await self._changed.wait()

    async def news(self, seen: str, deadline_s: float) -> None:
        """Wait until the state is another one than is known, or for a while."""
        with trio.move_on_after(deadline_s):
            while self.state == seen and not self.is_over:
                await self._changed.wait()

    def tell(self) -> None:
        """Whoever waits looks again."""
        self._changed.set()
        self._changed = trio.Event()
