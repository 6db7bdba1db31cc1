"""A server as `sdmount` runs it, which is told of other devices over its standard input, in place of an engine.

Run as `python -m tests.system.afar DATA_DIR MOUNTPOINT`; it says `"mounted"`, then answers each line, a JSON list of a
method of `RemoteRows` (or `online`, `follow`, `end`) and its arguments, by a line. Bytes are text behind `b:`, or
hexadecimal text behind `x:`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import trio

from fusefs.mount import mount_options, serve_mount
from tests.remote_rows import RemoteRows
from vdfs.base.config import load_config
from vdfs.core import open_core, run_core
from vdfs.ops.context import Core


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"x:{value.hex()}"
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def _meant(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("b:"):
        return value[2:].encode()
    if isinstance(value, str) and value.startswith("x:"):
        return bytes.fromhex(value[2:])
    if isinstance(value, dict):
        return {_meant(key): _meant(one) for key, one in value.items()}
    return value


async def _answer(core: Core, rows: RemoteRows, what: str, arguments: list[Any], named: dict[str, Any]) -> Any:
    if what == "online":
        return core.tree.set_online(*arguments)
    if what == "follow":
        return await core.locations.follow()
    return getattr(rows, what)(*arguments, **named)


async def _serve(data_dir: Path, mountpoint: Path) -> None:
    os.umask(0)
    async with (
        open_core(load_config(str(data_dir)), None, mountpoint=mountpoint) as core,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(run_core, core)
        options = mount_options(allow_other=False, read_only=False, library=core.library.name)
        await nursery.start(serve_mount, core, mountpoint, options)
        rows = RemoteRows(core.library.store)
        print(json.dumps("mounted"), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            what, arguments, named = json.loads(line)
            if what == "end":
                break
            done = await _answer(core, rows, what, list(map(_meant, arguments)), _meant(named))
            print(json.dumps(_plain(done)), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(_serve, Path(sys.argv[1]), Path(sys.argv[2]))
