"""Settling: both persons said yes; whose library it is from now on, and that each is a member of it, is written down.

Each side says what it has (`Introduce`), and both come to the same conclusion without asking: the library stays that
has other devices already, else that of who offered. Where both have, neither is given up: that is refused. Whoever
moves keeps all his rows; he takes the other's as any newcomer does, and the others take his.

    stays   says Introduce ── writes ── answers Introduced ── hears Introduced ── done
    moves   says Introduce ── hears Introduced ── writes ── answers Introduced ── done

The side that stays writes first. So wherever either is killed, nobody has moved to a library that does not know him:
at worst the side that stays lists a member that never came, and pairing again puts that right. What is written is one
unit, the id of the library included; the file beside the database follows, and is put right at the next start where a
kill came between. Nothing is answered before it is durable.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

import trio

from index.model.errors import Deadline, PairingRefused
from index.store import changes, devices
from index.store.store import Store
from sync.log.outgoing import begin_sharing
from sync.net.channel import Call, Channel
from sync.peers.roster import Roster
from sync.peers.sessions import Session
from sync.wire.cards import DeviceCard
from sync.wire.codec import message
from sync.wire.forms import U16, Bytes16, Length, Range
from sync.wire.identity import uuid_of

#: How long the two sides have to settle once both persons have said yes.
SETTLE_S: Final = 20.0


@message(2)
class Introduce:
    """What a device brings along, once both persons have said yes. `is_shared`: other devices have its library;
    `knows`: it takes who it speaks to for a member of that already."""

    library: Bytes16
    is_shared: bool
    knows: bool
    created_ns: Annotated[int, Range(0, (1 << 63) - 1)]
    port: U16
    name: Annotated[str, Length(0, 256)]


@message(3)
class Introduced:
    """It is written down."""


class Settling:
    """One pairing, from the second yes to the end. `adopt`: the
    database has another id of the library now, and what beside it tells of that follows."""

    def __init__(
        self, store: Store, roster: Roster, adopt: Callable[[], None], session: Session, card: DeviceCard,
        *, is_offering: bool, port: int, library_name: str,
    ) -> None:  # fmt: skip
        self.store = store
        self.roster = roster
        self.adopt = adopt
        self.session = session
        self.card = card
        self.device = uuid_of(card.public_key)
        self.is_offering = is_offering
        self.theirs: Introduce | None = None
        self._told = trio.Event()
        self._written = trio.Event()
        knows = roster.is_trusted(self.device)
        # A device that is out has left rows here, so its library cannot be given up for another one either.
        is_shared = any(row.uuid != store.device_uuid for row in devices.every(store.db))
        self.mine = Introduce(
            store.library_uuid, is_shared, knows, roster.identity.created_ns, port, library_name[:64]
        )  # fmt: skip

    async def heard(self, call: Call) -> None:
        """The other side has said what it has; it is answered when this side has written."""
        if self.theirs is None and isinstance(call.message, Introduce):
            self.theirs = call.message
            self._told.set()
        with trio.move_on_after(SETTLE_S):
            while not self._written.is_set() and not self.session.is_over:
                await self.session.changed()
        if not self._written.is_set():
            raise PairingRefused(self.session.failure or "it was not written down in time")
        await call.reply(Introduced())

    async def settle(self, channel: Channel) -> None:
        """To the end. PairingRefused when the two cannot be one library, PeerError when the other side says so."""
        answered = trio.Event()

        async def introduce() -> None:
            await channel.call(self.mine, priority=0, deadline_s=SETTLE_S)
            answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(introduce)
            with trio.move_on_after(SETTLE_S):
                await self._told.wait()
            if self.theirs is None:
                raise Deadline("the other device did not say what it has in time")
            moves = self.moves(self.theirs)
            if moves or (self.theirs.library == self.mine.library and not self.is_offering):
                await answered.wait()
            self._write_down(self.theirs, moves=moves)
            await self.store.make_durable()
            if moves:
                self.adopt()
            self._written.set()
            self.session.tell()
            await answered.wait()
        self.session.finish(self.theirs.name if moves else self.mine.name)

    def moves(self, theirs: Introduce) -> bool:
        """Whether it is this side that gives up its library's id. PairingRefused where that cannot be."""
        mine = self.mine
        if theirs.library == mine.library:
            if theirs.knows and mine.knows:
                raise PairingRefused(
                    "the two are members of one library already; `sd device list` shows it, nothing was changed"
                )
            return False
        if theirs.is_shared and mine.is_shared:
            raise PairingRefused(
                "both libraries have other devices already, so neither can give way; on the devices of one of them, "
                "mount the locations with a new library (sdmount --library NAME …) and join with that"
            )
        return theirs.is_shared or (not mine.is_shared and not self.is_offering)

    def _write_down(self, theirs: Introduce, *, moves: bool) -> None:
        """All of it or nothing."""
        store, card = self.store, self.card
        before = store.library_uuid
        begin_sharing(store)
        try:
            with store.write("pairing") as unit:
                if moves:
                    changes.move_library(unit.db, theirs.library)
                    store.library_uuid = theirs.library  # what is signed below names it
                facts: list[Any] = [card.public_key, card.noise_static, card.static_signature, theirs.created_ns]
                devices.say(unit, self.device, card.name or "device", facts, card.os)
                self.roster.vouch(unit, self.device)
        except BaseException:
            store.library_uuid = before
            raise
        self.roster.refresh()
