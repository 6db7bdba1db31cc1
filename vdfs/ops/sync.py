"""sync.*: how far this device is with the others, what happened, and in numbers."""

import attrs
import trio

from index.model.ids import uuid_text
from index.store import devices, pending
from index.store.streams import SHARED
from vdfs.ops.context import Core
from vdfs.ops.registry import Nothing, action, doc, query

_LOOK_S = 0.2
_WAIT_MAX_S = 30.0


@attrs.frozen
class PeerFacts:
    id: str
    name: str
    slug: str
    is_online: bool
    is_up_to_date: bool = attrs.field(metadata=doc("all that it has is here"))
    lag: int = attrs.field(metadata=doc("units that it has and we lack, of all streams"))
    pages_in: int
    pages_out: int
    bytes_in: int
    bytes_out: int
    rows_in: int


@attrs.frozen
class SyncStatus:
    state: str = attrs.field(metadata=doc("alone, uninitialized, backfilling, catching up, ready, paused, revoked"))
    port: int
    peers: list[PeerFacts]
    waiting: int = attrs.field(metadata=doc("changes that wait for a row they refer to"))
    quarantined: int = attrs.field(metadata=doc("changes stamped too far in the future"))


@attrs.frozen
class WaitAsked:
    timeout_s: float = 10.0


@attrs.frozen
class WaitAnswer:
    synced: bool
    missing: list[str] = attrs.field(metadata=doc("what is missing, in words; also devices that are being looked for"))
    put_out: bool = attrs.field(default=False, metadata=doc("this device is no member of the library any more"))


@attrs.frozen
class EventsAsked:
    limit: int = 50


@attrs.frozen
class EventFacts:
    time_ns: int
    event: str
    device: str
    text: str


@attrs.frozen
class EventList:
    events: list[EventFacts]


@attrs.frozen
class Metrics:
    counts: dict[str, int]
    pages_in: int
    pages_out: int
    bytes_in: int
    bytes_out: int
    rows_in: int
    kept_pages: int
    kept_bytes: int
    outbox_rows: int
    refused_rows: int


@query("sync.status")
async def status(core: Core, asked: Nothing) -> SyncStatus:
    """How far this device is."""
    return facts(core)


def facts(core: Core) -> SyncStatus:
    """The same, at once."""
    sync, db = core.sync, core.library.store.db
    others = sync.roster.others()
    state = "revoked" if sync.is_revoked else sync.replicator.state if others else "alone"
    mine = sync.keeper.places()
    peers = []
    for row in others:
        peer = sync.replicator.peers.get(row.uuid)
        heads = {} if peer is None else peer.heads
        told = {s: seq for s, seq in heads.items() if s.kind == SHARED and s.device != core.library.device.uuid}
        lag = sum(max(0, seq - (mine[s].seq if s in mine else 0)) for s, seq in told.items())
        peers.append(
            PeerFacts(
                uuid_text(row.uuid), row.name, row.slug, peer is not None, peer is not None and peer.is_up_to_date, lag,
                *((0,) * 5 if peer is None else
                  (peer.pages_in, peer.pages_out, peer.bytes_in, peer.bytes_out, peer.rows_in)),
            )
        )  # fmt: skip
    aside = sum(pending.aside(db).values())
    return SyncStatus(state, sync.links.port, peers, pending.count_waiting(db), aside)


@query("sync.wait")
async def wait(core: Core, asked: WaitAsked) -> WaitAnswer:
    """Wait until this device has all that the devices have which it can reach. A device that may be reached any moment
    is waited for; where nobody can be reached there is nothing to wait for."""
    if core.sync.is_revoked:
        return WaitAnswer(False, [], True)
    until_s = trio.current_time() + max(0.0, min(asked.timeout_s, _WAIT_MAX_S))
    while (missing := await core.sync.lacks()) and trio.current_time() < until_s:
        await core.sync.replicator.news(_LOOK_S)
    return WaitAnswer(not missing, missing)


@query("sync.events")
async def events(core: Core, asked: EventsAsked) -> EventList:
    """What happened between the devices, the latest last."""
    sync = core.sync
    names = {row.uuid: row.slug for row in devices.every(core.library.store.db)}
    for device in list(names):
        sync.events.flush(device)
    lines = list(sync.events.lines)[-max(0, asked.limit) :]
    return EventList([EventFacts(o.time_ns, o.event, names.get(o.device or b"", ""), o.text) for o in lines])


@query("sync.metrics")
async def metrics(core: Core, asked: Nothing) -> Metrics:
    """What was told and heard, in numbers."""
    sync, db = core.sync, core.library.store.db
    peers = sync.replicator.peers.values()
    kept = next(iter(db.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM page")))
    outbox = next(iter(db.execute("SELECT count(*) FROM outbox")))
    return Metrics(
        {str(event): count for event, count in sorted(sync.events.counts.items())},
        sum(p.pages_in for p in peers), sum(p.pages_out for p in peers), sum(p.bytes_in for p in peers),
        sum(p.bytes_out for p in peers), sum(p.rows_in for p in peers), int(kept[0]), int(kept[1]), int(outbox[0]),
        sync.incoming.refused_rows,
    )  # fmt: skip


@action("sync.pause")
async def pause(core: Core, asked: Nothing) -> SyncStatus:
    """Neither tell nor take in, until it is resumed."""
    core.sync.replicator.pause(True)
    return await status(core, Nothing())


@action("sync.resume")
async def resume(core: Core, asked: Nothing) -> SyncStatus:
    """Go on."""
    core.sync.replicator.pause(False)
    return await status(core, Nothing())
