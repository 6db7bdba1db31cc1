"""library.check: whether the library's database is sound; its repair needs it closed (vdfs/library/repair.py)."""

import attrs
import trio

from index.care import checking
from vdfs.ops.context import Core
from vdfs.ops.registry import Nothing, doc, query


@attrs.frozen
class Checked:
    faults: list[str] = attrs.field(metadata=doc("a sentence each; none when it is sound"))


@query("library.check")
async def check(core: Core, asked: Nothing) -> Checked:
    """Look through all of the database: pages, rows, numbers, sums, the index of names. Nothing is mended."""
    store, pool = core.library.store, core.scanner.pool
    faults: list[str] = []
    with store.settled():
        if pool.is_running:
            args = {"database": str(store.path), "device": store.device_uuid}
            async with pool.stream("check", args) as stream:
                async for told in stream:
                    faults += told
        else:
            faults = await trio.to_thread.run_sync(checking.check, store.path, store.device_uuid)
    return Checked(faults)
