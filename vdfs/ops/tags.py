"""tag.*: names on entries; the same store as user.xdg.tags and the views."""

import attrs

from index.model.change import ORIGIN_CALL
from index.store import tags
from vdfs.ops.context import Core
from vdfs.ops.paths import node_of
from vdfs.ops.registry import action, doc, query


@attrs.frozen
class TagChange:
    tag: str
    paths: list[bytes]


@attrs.frozen
class TaggedPath:
    path: bytes
    tags: list[str]


@attrs.frozen
class TagChanged:
    changed: int
    paths: list[TaggedPath]


@attrs.frozen
class TagListAsked:
    path: bytes | None = attrs.field(default=None, metadata=doc("a file; without it, every tag in use"))


@attrs.frozen
class TagFacts:
    name: str
    count: int


@attrs.frozen
class TagList:
    tags: list[TagFacts]


@action("tag.add")
async def add_tag(core: Core, asked: TagChange) -> TagChanged:
    """Put a tag on entries."""
    return await _change(core, asked, present=True)


@action("tag.remove")
async def remove_tag(core: Core, asked: TagChange) -> TagChanged:
    """Take a tag off entries."""
    return await _change(core, asked, present=False)


async def _change(core: Core, asked: TagChange, *, present: bool) -> TagChanged:
    nodes = [(path, (await node_of(core, path))[0]) for path in asked.paths]  # all are there, or nothing happens
    changed = 0
    told = []
    for path, node in nodes:
        changed += await core.annotations.change_tag(node, asked.tag, present, ORIGIN_CALL)
        told.append(TaggedPath(path, core.annotations.tags_of(node)))
    await core.library.store.make_durable()
    return TagChanged(changed, told)


@query("tag.list")
async def list_tags(core: Core, asked: TagListAsked) -> TagList:
    """Every tag in use with the number of its entries, or the tags of one entry."""
    if asked.path is None:
        return TagList([TagFacts(name, count) for name, count in tags.names(core.library.store.db)])
    node, _ = await node_of(core, asked.path)
    await core.annotations.reconcile(node)
    return TagList([TagFacts(name, 1) for name in core.annotations.tags_of(node)])
