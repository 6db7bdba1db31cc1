"""What stands in a file, as attributes and as facts: from the rows of its content to who asks."""

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from fusefs.xattrs import Xattrs
from index.model.errors import NoAttribute, NotPermitted, errno_of
from index.model.filetype import BY_TYPE, Method
from index.store import contents, entries, extracts, filetypes
from index.store.extracts import DONE, Extracted
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.ops.files import FileAsked, info
from vdfs.space.nodes import Node

FIELDS = {"width": 4000, "latitude": 48.51, "model": "Modèle"}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Runs a test with a library that knows of the file `a.png` that it is a JPEG, and what is in it."""

    async def with_core(test: Callable[..., Awaitable[None]]) -> None:
        async with open_core(Config(tmp_path / "data", tmp_path / "state", tmp_path / "run"), "Library") as core:
            (tmp_path / "X").mkdir()
            (tmp_path / "X" / "a.png").write_bytes(b"bytes")
            (tmp_path / "X" / "b.png").write_bytes(b"other")
            (tmp_path / "X" / "c").write_bytes(b"third")
            await core.locations.add(os.fsencode(tmp_path / "X"), b"L")
            node = (await core.tree.resolve([b"L", b"a.png"]))[0]
            learn(core, node)
            await test(core, Xattrs(core.tree, core.annotations, lambda: "device"), node)

    return lambda test: trio.run(with_core, test)


def learn(core: Core, node: Node) -> None:
    with core.library.store.write("test") as unit:
        (content,) = contents.exact(unit.db, [contents.Read(b"s" * 8, b"f" * 32, 5, None)])
        contents.set_type(unit.db, content, filetypes.intern(unit.db, BY_TYPE["jpeg"]), Method.MAGIC)
        extracts.put(unit.db, Extracted(content, "image", 1, DONE, None, FIELDS))
        entries.set_identity(unit.db, node.spots[0].entry_id, content, 2, None, unit.seq)


async def missing(xattrs: Xattrs, node: Node, name: str) -> bool:
    try:
        await xattrs.get(node, name.encode())
    except NoAttribute as error:
        return errno_of(error) == errno.ENODATA
    return False


def test_fields_are_attributes_that_nobody_lists(run):
    """Numbers as they are written, texts as UTF-8; what a file has not is ENODATA."""

    async def test(core: Core, xattrs: Xattrs, node: Node) -> None:
        found = {name: await xattrs.get(node, b"user.vdfs.meta." + name.encode()) for name in FIELDS}
        assert found == {"width": b"4000", "latitude": b"48.51", "model": "Modèle".encode()}
        for name in ("height", "unheardof", "", "wid\udcff".encode("utf-8", "surrogateescape").decode("latin-1")):
            assert await missing(xattrs, node, f"user.vdfs.meta.{name}")
        assert not [name for name in await xattrs.names(node) if name.startswith(b"user.vdfs")]
        assert await missing(xattrs, node.parent, "user.vdfs.meta.width")

    run(test)


def test_fields_cannot_be_written(run):
    """They are what the file says. A field that there is none of is no attribute at all."""

    async def test(core: Core, xattrs: Xattrs, node: Node) -> None:
        for change in (xattrs.set(node, b"user.vdfs.meta.width", b"1"), xattrs.remove(node, b"user.vdfs.meta.width")):
            with pytest.raises(NotPermitted):
                await change
        with pytest.raises(NoAttribute):
            await xattrs.set(node, b"user.vdfs.meta.unheardof", b"1")

    run(test)


def test_the_type_is_that_of_the_bytes_once_they_are_known(run):
    """Before that of the name, and none where that says nothing."""

    async def test(core: Core, xattrs: Xattrs, node: Node) -> None:
        assert await xattrs.get(node, b"user.vdfs.mime") == b"image/jpeg"
        assert await xattrs.get(node, b"user.vdfs.type") == b"image"
        other = (await core.tree.resolve([b"L", b"b.png"]))[0]
        assert await xattrs.get(other, b"user.vdfs.mime") == b"image/png"
        unknown = (await core.tree.resolve([b"L", b"c"]))[0]
        assert await missing(xattrs, unknown, "user.vdfs.mime")
        assert await missing(xattrs, unknown, "user.vdfs.type")
        assert await xattrs.get(node.parent, b"user.vdfs.mime") == b"inode/directory"
        assert await missing(xattrs, node.parent, "user.vdfs.type")

    run(test)


def test_what_is_only_a_hint_has_no_fields(run):
    """An entry whose full hash is not known may hold other bytes."""

    async def test(core: Core, xattrs: Xattrs, node: Node) -> None:
        with core.library.store.write("test") as unit:
            unit.db.execute("UPDATE entry SET hash_state=1 WHERE id=?", (node.spots[0].entry_id,))
        assert await missing(xattrs, node, "user.vdfs.meta.width")

    run(test)


def test_the_facts_of_a_file_have_them_too(run):
    """As texts, beside kind and type."""

    async def test(core: Core, xattrs: Xattrs, node: Node) -> None:
        facts = await info(core, FileAsked(b"sd:/L/a.png"))
        assert (facts.kind, facts.type, facts.mime) == ("file", "image", "image/jpeg")
        assert facts.meta == {"width": "4000", "latitude": "48.51", "model": "Modèle"}
        bare = await info(core, FileAsked(b"sd:/L/c"))
        assert (bare.type, bare.mime, bare.meta) == (None, None, {})

    run(test)
