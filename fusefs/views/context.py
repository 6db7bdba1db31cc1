"""What every view may ask: the tree, the store, who owns the mount, and how to point into the union."""

import os
from collections.abc import Awaitable, Callable, Container

import apsw
import attrs
import trio

from fusefs.views.answers import Answers
from index.model.entry import Entry
from index.store import entries, tags
from vdfs.space.finder import Finder
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree
from vdfs.space.union import cut
from vdfs.space.volumes import Volumes

#: The most a directory of a view lists.
LISTING_MAX = 10_000


@attrs.frozen
class ViewContext:
    """Given to each view."""

    tree: Tree
    uid: int
    gid: int
    status: Callable[[], dict[str, object]]
    jobs: Callable[[], dict[str, object]]
    peers: Callable[[], dict[str, object]]
    readlink: Callable[[Node], Awaitable[bytes]]
    finder: Finder
    volumes: Volumes
    is_shared: bool = False  # other users may enter the mount
    answers: Answers = attrs.Factory(Answers)

    def union_path(self, row: Entry) -> list[bytes] | None:
        """The path of a row in the union; None when it hangs in no branch (any more)."""
        names = entries.place_of(self.tree.store.db, row.id)
        return None if names is None else self.in_union(row.branch_id, names)

    def in_union(self, branch_id: int, names: list[bytes]) -> list[bytes] | None:
        """The path in the union of a path on a branch; None when the branch is none any more."""
        branch = self.tree.branch_of(branch_id)
        if branch is None:
            return None
        return names if branch.location is None else [branch.location, *names]

    async def rows(self, query: Callable[..., list[Entry]], *args: object) -> list[Entry]:
        """A long query, in a thread on a connection of its own."""

        def run() -> list[Entry]:
            with self.tree.store.reader() as db:
                return query(db, *args)

        return await trio.to_thread.run_sync(run)


def unique_names(paths: list[list[bytes]]) -> list[tuple[bytes, list[bytes]]]:
    """Link names for paths: the file's own, and for the second of a name `name (2)`, in a stable order."""
    used: set[bytes] = set()
    out = []
    for path in paths:
        name = unused(path[-1], used)
        used.add(name)
        out.append((name, path))
    return out


def unused(name: bytes, used: Container[bytes]) -> bytes:
    """The name, or the first `stem (n).ext` that nobody has yet."""
    stem, dot, extension = name.rpartition(b".")
    if not stem:
        stem, dot, extension = name, b"", b""
    shown, number = name, 1
    while shown in used:
        number += 1
        tail = f" ({number})".encode() + dot + extension
        shown = cut(stem, 255 - len(tail)) + tail
    return shown


def shown_tag(tag: str) -> bytes:
    """A tag as one path component: `/` shows as U+2215."""
    return os.fsencode(tag.replace("/", "\u2215"))


def tag_of(db: apsw.Connection, name: bytes) -> str | None:
    """The tag that is shown under a name: the one with `/` in it before the one that has U+2215 itself."""
    text = os.fsdecode(name)
    return next((tag for tag in (text.replace("\u2215", "/"), text) if tags.find(db, tag) is not None), None)
