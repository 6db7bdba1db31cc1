"""A file system whose every close waits for its server, as sshfs and nfs do and bindfs does not.

`python -m tests.system.flushing MOUNTPOINT`: one directory with a few files of 1 MiB that can be read, written and cut.
"""

import errno
import os
import stat
import sys

import pyfuse3
import trio

SIZE_BYTES = 1 << 20
FILES = {f"f{n}".encode(): 10 + n for n in range(4)}


class Flushing(pyfuse3.Operations):  # type: ignore[misc]
    """The directory is inode 1."""

    def __init__(self) -> None:
        self.sizes = dict.fromkeys(FILES.values(), SIZE_BYTES)

    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o644
        entry.st_size = self.sizes.get(inode, 0)
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.attr_timeout = entry.entry_timeout = 0
        return entry

    async def setattr(self, inode, attr, fields, fh, ctx):
        if fields.update_size:
            self.sizes[inode] = attr.st_size
        return await self.getattr(inode)

    async def lookup(self, parent_inode, name, ctx=None):
        if name not in FILES:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(FILES[name])

    async def opendir(self, inode, ctx):
        return inode

    async def readdir(self, fh, start_id, token):
        for number, (name, inode) in enumerate(FILES.items()):
            if number >= start_id:
                pyfuse3.readdir_reply(token, name, await self.getattr(inode), number + 1)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode)

    async def read(self, fh, off, size):
        return b"s" * max(0, min(size, self.sizes[fh] - off))

    async def write(self, fh, off, buf):
        self.sizes[fh] = max(self.sizes[fh], off + len(buf))
        return len(buf)

    async def flush(self, fh):
        pass  # it is there: the kernel asks, and whoever closes waits for the answer

    async def release(self, fh):
        pass


def main(mountpoint: str) -> None:
    pyfuse3.init(Flushing(), mountpoint, {"fsname=flushing"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(sys.argv[1])
