"""The least that a file system in pyfuse3 can cost: a directory kept in memory, every answer prepared beforehand.

What it shows is read once; lookups, attributes and listings are dictionary hits with a day's belief, and reading,
making and deleting files is one system call on the real ones. It follows no change, keeps no index, checks nothing: the
distance between it and sdmount is what sdmount does, the distance between it and the directory itself is what the
kernel, libfuse, pyfuse3 and trio cost. Run as `python floor.py SOURCE MOUNTPOINT`, with the project's environment.
"""

import errno
import gc
import os
import stat
import sys
from collections.abc import Sequence

import pyfuse3
import trio

DAY_S = 86_400.0


class Floor(pyfuse3.Operations):
    """Inode numbers are positions in lists; nothing is ever forgotten."""

    enable_acl = True

    def __init__(self, top: bytes) -> None:
        super().__init__()
        self.paths = [b"", top]
        self.faces = [pyfuse3.EntryAttributes(), self._face(1, os.lstat(top))]
        self.names: list[dict[bytes, int]] = [{}, {}]
        self.lines: list[list[tuple[bytes, pyfuse3.EntryAttributes]] | None] = [None, None]
        self.absent = pyfuse3.EntryAttributes()
        self.absent.entry_timeout = DAY_S
        self._load(1)

    @staticmethod
    def _face(ino: int, st: os.stat_result) -> pyfuse3.EntryAttributes:
        face = pyfuse3.EntryAttributes()
        face.st_ino = ino
        face.st_mode, face.st_nlink, face.st_uid, face.st_gid = st.st_mode, st.st_nlink, st.st_uid, st.st_gid
        face.st_size, face.st_blocks = st.st_size, st.st_blocks
        face.st_atime_ns, face.st_mtime_ns, face.st_ctime_ns = st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
        face.entry_timeout = face.attr_timeout = DAY_S
        return face

    def _add(self, parent: int, name: bytes, st: os.stat_result) -> int:
        ino = len(self.paths)
        self.paths.append(self.paths[parent] + b"/" + name)
        self.faces.append(self._face(ino, st))
        self.names.append({})
        self.lines.append(None)
        self.names[parent][name] = ino
        self.lines[parent] = None
        return ino

    def _load(self, top: int) -> None:
        todo = [top]
        while todo:
            above = todo.pop()
            with os.scandir(self.paths[above]) as scan:
                for item in scan:
                    ino = self._add(above, item.name, item.stat(follow_symlinks=False))
                    if item.is_dir(follow_symlinks=False):
                        todo.append(ino)

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        ino = self.names[parent_inode].get(name)
        return self.absent if ino is None else self.faces[ino]

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self.faces[inode]

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return os.readlink(self.paths[inode])

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def releasedir(self, fh: int) -> None:
        pass

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        lines = self.lines[fh]
        if lines is None:
            lines = self.lines[fh] = [(name, self.faces[ino]) for name, ino in self.names[fh].items()]
        for index in range(start_id, len(lines)):
            if not pyfuse3.readdir_reply(token, *lines[index], index + 1):
                break

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=os.open(self.paths[inode], flags & ~os.O_NOFOLLOW), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return os.pwrite(fh, buf, off)

    async def flush(self, fh: int) -> None:
        raise pyfuse3.FUSEError(errno.ENOSYS)

    async def fsync(self, fh: int, datasync: bool) -> None:
        await trio.to_thread.run_sync(os.fsync, fh)

    async def release(self, fh: int) -> None:
        os.close(fh)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        fd = os.open(self.paths[parent_inode] + b"/" + name, flags | os.O_CREAT, stat.S_IMODE(mode))
        ino = self._add(parent_inode, name, os.fstat(fd))
        return pyfuse3.FileInfo(fh=fd, keep_cache=True), self.faces[ino]

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        path = self.paths[parent_inode] + b"/" + name
        os.mkdir(path, stat.S_IMODE(mode))
        return self.faces[self._add(parent_inode, name, os.lstat(path))]

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        os.unlink(self.paths[parent_inode] + b"/" + name)
        del self.names[parent_inode][name]
        self.lines[parent_inode] = None

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        os.rmdir(self.paths[parent_inode] + b"/" + name)
        del self.names[parent_inode][name]
        self.lines[parent_inode] = None

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(errno.ENODATA)
        try:
            return os.getxattr(self.paths[inode], name, follow_symlinks=False)
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or errno.EIO) from None

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return [os.fsencode(name) for name in os.listxattr(self.paths[inode], follow_symlinks=False)]


def main() -> None:
    source, mount_point = sys.argv[1:]
    floor = Floor(os.fsencode(source))
    gc.collect()
    gc.freeze()
    gc.disable()
    pyfuse3.init(floor, mount_point, {"default_permissions", "fsname=floor"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
