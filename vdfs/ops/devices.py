"""device.*: the devices of the library; how one becomes a member, and how it is put out.

A pairing is a session that runs behind; whoever began it asks how it stands (`device.pairing`, which waits for news),
says yes or no, and may end it.
"""

import attrs

from index.model.errors import Invalid, NotPermitted
from index.model.ids import uuid_text
from index.store import whereabouts
from sync.net.addresses import Endpoint, parse_endpoint
from sync.peers.sessions import Session
from vdfs.ops.context import Core
from vdfs.ops.registry import Nothing, action, doc, query
from vdfs.ops.sync import facts as sync_facts

#: How long news of a pairing are waited for in one call.
_WAIT_S = 10.0


@attrs.frozen
class PairingBegun:
    session: int
    words: list[str] = attrs.field(metadata=doc("twelve words; empty for the side that joins"))
    ticket: str = attrs.field(metadata=doc("the same with addresses, for a QR code or to be pasted"))


@attrs.frozen
class JoinAsked:
    text: str = attrs.field(metadata=doc("the words, or the ticket, that the other device shows"))
    addresses: list[str] = attrs.field(factory=list, metadata=doc("HOST:PORT where the other device may be"))


@attrs.frozen
class PairingAsked:
    session: int
    seen: str = attrs.field(default="", metadata=doc("the state that is known; the answer waits for another one"))


@attrs.frozen
class PairingAnswer:
    session: int
    accept: bool


@attrs.frozen
class PairingSession:
    session: int


@attrs.frozen
class PairingState:
    state: str = attrs.field(metadata=doc("open, shown, done, failed"))
    name: str
    os: str
    words: list[str] = attrs.field(metadata=doc("four words by which the other device's key is told"))
    failure: str
    library: str
    device: str


@attrs.frozen
class DeviceFacts:
    id: str
    name: str
    slug: str
    os: str
    words: list[str]
    state: str = attrs.field(metadata=doc("own, connected, away, revoked, untrusted (nobody here vouches for it)"))
    is_own: bool
    is_online: bool
    is_trusted: bool
    is_revoked: bool
    by: list[str] = attrs.field(metadata=doc("who vouched for it, who vouched for that one, and so on to this device"))
    link: str = attrs.field(metadata=doc("the other end of the link to it, an address; empty without one"))
    addresses: list[str] = attrs.field(metadata=doc("where it was reached, and where people say that it is"))


@attrs.frozen
class DeviceList:
    devices: list[DeviceFacts]


@attrs.frozen
class DeviceAsked:
    device: str = attrs.field(metadata=doc("its name, its slug, or the beginning of its id"))


@attrs.frozen
class DeviceRenamed:
    device: str
    name: str


@attrs.frozen
class DeviceAddress:
    device: str
    address: str | None = attrs.field(default=None, metadata=doc("HOST:PORT; none: what was written down is forgotten"))


@action("device.pair")
async def pair(core: Core, asked: Nothing) -> PairingBegun:
    """Show words by which another device can join; they serve once, for five minutes."""
    number, session = await core.sync.pairings.offer()
    return PairingBegun(number, list(session.words), session.ticket)


@action("device.join")
async def join(core: Core, asked: JoinAsked) -> PairingBegun:
    """Join the library of a device that shows words."""
    endpoints: list[Endpoint] = [parse_endpoint(address) for address in asked.addresses]
    number, session = await core.sync.pairings.join(asked.text, tuple(endpoints))
    return PairingBegun(number, list(session.words), session.ticket)


@query("device.pairing")
async def pairing(core: Core, asked: PairingAsked) -> PairingState:
    """How a pairing stands; waits for news of it."""
    session = await core.sync.pairings.news(asked.session, asked.seen, _WAIT_S)
    return _state(session)


def _state(session: Session) -> PairingState:
    shown = session.shown
    return PairingState(
        session.state,
        "" if shown is None else shown.card.name,
        "" if shown is None else shown.card.os,
        [] if shown is None else list(shown.words),
        session.failure or "",
        session.library,
        "" if session.device is None else uuid_text(session.device),
    )


@action("device.confirm")
async def confirm(core: Core, asked: PairingAnswer) -> PairingState:
    """Say yes or no to the device that a pairing shows."""
    session = core.sync.pairings.get(asked.session)
    if session.shown is None:
        raise Invalid("nobody is there yet to be confirmed")
    session.decide(asked.accept)
    return _state(session)


@action("device.end_pairing")
async def end_pairing(core: Core, asked: PairingSession) -> PairingState:
    """End a pairing; its words serve no more."""
    session = core.sync.pairings.get(asked.session)
    core.sync.pairings.end(asked.session)
    return _state(session)


@query("device.list")
async def list_devices(core: Core, asked: Nothing) -> DeviceList:
    """The devices of the library."""
    return DeviceList(_devices(core))


def _devices(core: Core) -> list[DeviceFacts]:
    sync = core.sync
    slugs = {member.device.uuid: member.device.slug for member in sync.roster.members()}
    out = []
    for member in sync.roster.members():
        row = member.device
        peer = sync.replicator.peers.get(row.uuid)
        is_online = peer is not None
        state = (
            "revoked" if row.revoked or (member.is_own and sync.is_revoked) else "own" if member.is_own
            else "untrusted" if not member.is_trusted else "connected" if is_online else "away"
        )  # fmt: skip
        out.append(
            DeviceFacts(
                uuid_text(row.uuid), row.name, row.slug, row.os, list(member.words), state, member.is_own,
                is_online, member.is_trusted, bool(row.revoked),
                [slugs.get(uuid, "") for uuid in reversed(member.by)],
                "" if peer is None else peer.channel.peer,
                [str(Endpoint(one.host, one.port)) for one in whereabouts.of(core.library.store.db, row.uuid)],
            )
        )  # fmt: skip
    return out


def snapshot(core: Core) -> dict[str, object]:
    """The devices and how far each is, as plain values, for a file of the mount."""
    told = sync_facts(core)
    peers = {peer.id: attrs.asdict(peer) for peer in told.peers}
    return {
        "library_id": uuid_text(core.library.store.library_uuid),
        "state": told.state,
        "port": told.port,
        "devices": [{**peers.get(one.id, {}), **attrs.asdict(one)} for one in _devices(core)],
    }


@action("device.rename")
async def rename(core: Core, asked: DeviceRenamed) -> DeviceList:
    """Give a device another name, on all of them."""
    name = asked.name.strip()
    if not name or len(name) > 64 or not name.isprintable():
        raise Invalid("the name of a device is one line of at most 64 characters")
    core.sync.rename(core.sync.find(asked.device).uuid, name)
    return await list_devices(core, Nothing())


@action("device.revoke")
async def revoke(core: Core, asked: DeviceAsked) -> DeviceList:
    """Put a device out of the library: its links are closed at once, everywhere that this is heard, for ever."""
    row = core.sync.find(asked.device)
    if row.uuid == core.library.device.uuid:
        raise NotPermitted("this is the device at hand; revoke it on another one")
    await core.sync.revoke(row.uuid)
    return await list_devices(core, Nothing())


@action("device.address")
async def address(core: Core, asked: DeviceAddress) -> DeviceList:
    """Write down where a device can be reached, for networks on which it is not found by itself."""
    row = core.sync.find(asked.device)
    store = core.library.store
    with store.note() as db:
        if asked.address is None:
            whereabouts.strike_out(db, row.uuid)
        else:
            endpoint = parse_endpoint(asked.address)
            whereabouts.write_down(db, row.uuid, endpoint.host, endpoint.port)
    core.sync.links.refresh_addresses()
    return await list_devices(core, Nothing())
