"""Numbers of a library, on a connection of its own, for a thread: no pass over its rows but a count by an index."""

import os

from index.store import search, sums
from index.store.connection import one
from vdfs.library.library import Library


def statistics(library: Library) -> dict[str, int]:
    """Entries, files, directories, bytes, how much of these others hold, contents, tags, and the size of the database,
    its log, the index of names.

    Sizes and files are as of the last `Store.settle`.
    """
    store = library.store
    with store.reader() as db:
        files, dirs, total = sums.total(db)
        far_files, far_bytes = sums.afar(db)
        all_rows, contents, tags = (
            int(one(db, sql)[0])
            for sql in (
                "SELECT count(*) FROM entry",
                "SELECT count(*) FROM content",
                "SELECT count(DISTINCT g.tag_id) FROM tagging g JOIN entry e ON e.uuid = g.entry_uuid",
            )
        )
    size = 0
    names = search.path_beside(store.path)
    for path in (store.path, f"{store.path}-wal", names, f"{names}-wal"):
        try:
            size += os.stat(path).st_size
        except FileNotFoundError:
            continue
    return {
        "entries": all_rows,
        "files": files,
        "dirs": dirs,
        "bytes": total,
        "far_files": far_files,
        "far_bytes": far_bytes,
        "contents": contents,
        "tags": tags,
        "database_bytes": size,
    }
