"""Disk: files in memory that SQLite writes to, as a disk would have them when its power goes.

In: what SQLite does to files (`path` is /DISK/NAME). Out: the same, and failures: a disk that is full; a machine that
dies at the n-th write or sync from now; and what is there afterwards. A process that is killed leaves all that it
wrote. A loss of power leaves what was synced, and of what was written since any part, in pieces of a sector, in any
combination: that is all that a real disk promises.

One VFS serves all disks of the process, since SQLite knows it until the end. There is no shared memory, so a database
has one connection.
"""

from collections.abc import Callable
from pathlib import Path
from random import Random

import apsw

from index.store.connection import connect
from index.store.ground import Ground

VFS = "sdmount-simulation"
_SECTOR_BYTES = 512


class File:
    """Bytes, and what of them is on the platter."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.synced = bytes(data)
        self.pending: list[tuple[int, bytes | None]] = []  # (where, what); None: cut off there

    def write(self, data: bytes, offset: int) -> None:
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.pending.append((size, None))

    def sync(self) -> None:
        if self.pending:
            self.synced = bytes(self.data)
            self.pending.clear()

    def after_power_loss(self, luck: Random) -> bytes:
        """What may be there when the power comes back."""
        survivor = File(self.synced)
        share = luck.choice([0.0, 0.5, 0.9, 1.0])
        for offset, data in self.pending:
            if data is None:
                if luck.random() < share:
                    survivor.truncate(offset)
                continue
            for start in range(0, len(data), _SECTOR_BYTES):
                if luck.random() < share:
                    survivor.write(data[start : start + _SECTOR_BYTES], offset + start)
        return bytes(survivor.data)


class Disk(Ground):
    """The disk of one device."""

    def __init__(self, name: str, luck: Random, died: Callable[[], None]) -> None:
        self.name = name
        self.files: dict[str, File] = {}
        self.is_full = False
        self.is_dead = False
        self.dies_in: int | None = None  # so many writes and syncs from now
        self._luck = luck
        self._died = died
        _DISKS[name] = self

    def unplug(self) -> None:
        """Nobody asks for it any more."""
        _DISKS.pop(self.name, None)

    @property
    def path(self) -> Path:
        return Path(f"/{self.name}/library.db")

    def copy(self) -> dict[str, bytes]:
        """All files as programs see them."""
        return {name: bytes(file.data) for name, file in sorted(self.files.items())}

    def put(self, files: dict[str, bytes]) -> None:
        """Exactly these files are there, and durable."""
        self.files = {name: File(data) for name, data in files.items()}

    def lose_power(self) -> None:
        """What is there afterwards."""
        self.put({name: file.after_power_loss(self._luck) for name, file in sorted(self.files.items())})

    def step(self) -> None:
        """Something is about to be written or synced."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.dies_in = None
                self.is_dead = True
                self._died()
        if self.is_dead:
            raise apsw.IOError("the machine is dead")

    # what a store wants of it

    def connect(self, path: Path, *, read_only: bool = False) -> apsw.Connection:
        return connect(path, read_only=read_only, vfs=VFS)

    def sync(self, path: Path) -> None:
        file = self.files.get(path.name)
        if file is None:
            raise FileNotFoundError(path)
        try:
            self.step()
        except apsw.IOError as error:
            raise OSError(5, "the machine is dead") from error
        file.sync()

    async def aside(self, work: Callable[[], None]) -> None:
        work()


class _Handle:
    """An open file, for SQLite."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._disk.is_dead:
            raise apsw.IOError("the machine is dead")
        return bytes(self._file.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.step()
        if self._disk.is_full:
            raise apsw.FullError("the disk is full")
        self._file.write(bytes(data), offset)

    def xTruncate(self, size: int) -> None:
        self._disk.step()
        self._file.truncate(size)

    def xSync(self, flags: int) -> None:
        self._disk.step()
        self._file.sync()

    def xFileSize(self) -> int:
        return len(self._file.data)

    def xLock(self, level: int) -> None:
        pass

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return _SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xClose(self) -> None:
        pass


class _Vfs(apsw.VFS):
    """All disks, by the first part of a path."""

    def __init__(self) -> None:
        super().__init__(VFS, base="")

    def xOpen(self, name, flags):  # type: ignore[no-untyped-def]
        disk, file_name = _place(name.filename() if isinstance(name, apsw.URIFilename) else str(name))
        if file_name not in disk.files:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(file_name)
            disk.files[file_name] = File()
        flags[1] = flags[0]
        return _Handle(disk, disk.files[file_name])

    def xDelete(self, name: str, syncdir: bool) -> None:
        disk, file_name = _place(name)
        disk.step()
        disk.files.pop(file_name, None)

    def xAccess(self, name: str, flags: int) -> bool:
        disk, file_name = _place(name)
        return file_name in disk.files

    def xFullPathname(self, name: str) -> str:
        return name

    def xRandomness(self, count: int) -> bytes:
        return bytes(count)

    def xCurrentTimeInt64(self) -> int:
        return 0


def _place(path: str) -> tuple[Disk, str]:
    _, disk, name = path.split("/", 2)
    return _DISKS[disk], name


_DISKS: dict[str, Disk] = {}
_VFS = _Vfs()
