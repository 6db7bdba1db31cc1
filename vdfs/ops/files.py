"""file.info: everything the library knows of one path."""

import contextlib
import os

import attrs

from index.media import fields, types
from index.model.entry import HASH_FAILED, HASH_FULL, HASH_LEFT, HASH_SAMPLED, KIND_DIR, KIND_FILE, KIND_NAMES, ns
from index.model.errors import NoAttribute, NotFound
from index.model.ids import uuid_text
from index.scan import recording
from index.store import contents, entries
from vdfs.ops.context import Core
from vdfs.ops.paths import node_of, union_path
from vdfs.ops.registry import doc, query
from vdfs.space.branches import REMOVED, state_of
from vdfs.space.departures import hidden_at
from vdfs.space.nodes import AnyStat, Node
from vdfs.space.remotes import RemoteBranch

HASH_STATES = {HASH_FULL: "full", HASH_SAMPLED: "sampled", HASH_FAILED: "failed", HASH_LEFT: "left"}


@attrs.frozen
class FileAsked:
    path: bytes


@attrs.frozen
class ReplicaFacts:
    device: str
    branch: str
    path: bytes
    state: str = attrs.field(metadata=doc("local or remote; offline while its volume or device is away; else missing"))


@attrs.frozen
class BelowFacts:
    bytes: int = attrs.field(metadata=doc("of all files below; each replica and each name counts"))
    files: int
    dirs: int


@attrs.frozen
class FileFacts:
    path: bytes
    uuid: str | None
    inode: int
    kind: str
    type: str | None = attrs.field(metadata=doc("image, video, code, …: the kind of what is in it"))
    size_bytes: int
    mtime_ns: int
    mode: int
    mime: str | None
    hash: str | None
    hash_state: str
    state: str = attrs.field(
        metadata=doc("local, remote, offline or missing; removed: it was removed here, and other devices have it yet")
    )
    rule: str | None = attrs.field(metadata=doc("the rule that holds it back from being read and found; null: none"))
    version: str
    tags: list[str]
    comment: str | None
    rating: int | None
    replicas: list[ReplicaFacts]
    below: BelowFacts | None = attrs.field(metadata=doc("of a directory"))
    xattrs: list[bytes]
    meta: dict[str, str] = attrs.field(metadata=doc("what stands in the file: docs/types.md"))
    unread: str | None = attrs.field(metadata=doc("why nothing could be read from it, where that was tried"))


@query("file.info")
async def info(core: Core, asked: FileAsked) -> FileFacts:
    """The facts of one file or directory."""
    node, st = await _asked(core, asked.path)
    db = core.library.store.db
    refs = [(p, p.entry_id) for p in node.parts] if node.is_dir else [(s.dir, s.entry_id) for s in node.spots]
    rows = [(ref, row) for ref, row in ((r, entries.get(db, i)) for r, i in refs) if row is not None]
    if not rows:
        raise NotFound(f"{os.fsdecode(asked.path)} is not in the library")
    row = rows[0][1]
    names = await core.annotations.names(node)
    row = entries.get(db, row.id) or row
    content = contents.get(db, row.content_id) if row.content_id is not None else None
    full = (
        content.full.hex() if content is not None and content.full is not None and row.hash_state == HASH_FULL else None
    )
    vector = recording.vector_of(row, rows[0][0].branch.uuid)
    found = types.of_row(db, row)
    read = types.extracted_of_row(db, row)
    comment = await _text(core, node, b"user.xdg.comment")
    rating = await _text(core, node, b"user.baloo.rating")
    return FileFacts(
        path=asked.path,
        uuid=None if row.uuid is None else uuid_text(row.uuid),
        inode=node.ino,
        kind=KIND_NAMES[row.kind],
        type=found and found.kind_name,
        size_bytes=st.st_size,
        mtime_ns=ns(st.st_mtime_ns),
        mode=st.st_mode,
        mime="inode/directory" if row.kind == KIND_DIR else found and found.mime,
        hash=full,
        hash_state=HASH_STATES.get(row.hash_state, "pending") if row.kind == KIND_FILE else "none",
        state=REMOVED if row.is_hidden else state_of([ref.branch for ref, _ in rows]),
        rule=core.rulers.ruleset(rows[0][0].branch).name_of(row.rule) if row.rule > 0 else None,
        version=",".join(f"{k.hex()[:8]}:{vector[k]}" for k in sorted(vector)),
        tags=core.annotations.tags_of(node),
        comment=comment,
        rating=int(rating) if rating is not None and rating.isdigit() else None,
        replicas=[
            ReplicaFacts(
                ref.branch.device_name if isinstance(ref.branch, RemoteBranch) else core.library.device_name,
                ref.branch.label,
                b"/".join([ref.branch.root_path, *entries.path_of(db, r.id)]),
                ref.branch.away,
            )
            for ref, r in rows
        ],
        xattrs=names,
        below=BelowFacts(*core.library.store.sums_below(i for _, i in refs)) if node.is_dir else None,
        meta={} if read is None else {name: fields.shown(value) for name, value in read.fields.items()},
        unread=None if read is None else read.error,
    )


async def _asked(core: Core, path: bytes) -> tuple[Node, AnyStat]:
    """What a path shows; where that is nothing, what was removed there and others have yet."""
    try:
        return await node_of(core, path)
    except NotFound:
        hidden = await hidden_at(core.tree, await union_path(core, path))
        if hidden is None:
            raise
        return hidden


async def _text(core: Core, node: Node, name: bytes) -> str | None:
    with contextlib.suppress(NoAttribute):
        return (await core.annotations.get(node, name)).decode("utf-8", "replace")
    return None
