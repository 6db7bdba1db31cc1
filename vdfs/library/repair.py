"""Repair: a library that nobody has open is looked through, mended, or saved from a damaged file.

In: the directory of a library, under its lock. Out: a library that opens again, and what was done and lost in
sentences. Three ways, the first that serves: rows that contradict themselves are put right in place, in one
transaction; of a file that SQLite cannot read the rows are brought into a fresh one (index/care/salvage.py); where that
finds nothing of what the library is there for, the backup comes back. The damaged file is kept aside under a date.
Numbers that were given are never given again.

Neither a check nor a repair goes through `open_library`: it would migrate, and it refuses what is damaged.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
import attrs

from index.care import backup, checking
from index.care.mend import mend
from index.care.salvage import Saved, salvage
from index.model.errors import Invalid, NotFound, OsFailure, StoreCorrupt, VdfsError
from index.model.ids import new_uuid
from index.store import devices, search
from index.store.connection import check_identity, connect, is_damage, translated
from index.store.migrations import SCHEMA_VERSION
from index.store.store import Store
from sync.wire.identity import DeviceIdentity, load_or_create
from vdfs.base.config import Config
from vdfs.library.lock import acquire

SOUND, MENDED, RECOVERED, RESTORED = "sound", "mended", "recovered", "restored"

#: What the rows of a table are to a person.
_MEANING: Final = {
    "entry": "files and directories", "tag": "names of tags", "tagging": "tags of files", "content": "hashes",
    "attribute": "attributes and comments", "location": "locations", "branch": "the directories of locations",
    "saved_search": "saved searches", "volume": "volumes", "counter": "counters", "meta": "facts of the library",
    "whiteout": "what was removed here and others have",
}  # fmt: skip
#: What of a damaged file is worth more than its backup alone: each comes back from it where it is missing.
_WORTH: Final = ("branch", "entry", "location", "tag", "tagging", "attribute", "saved_search")
#: Where a loss may be of something that a file carries too.
_CARRIED: Final = ("entry", "tag", "tagging", "attribute")


@attrs.frozen
class Repaired:
    """What a repair did."""

    how: str
    did: list[str]
    lost: list[str]
    aside: bytes | None  # where the damaged file is now


def check_closed(config: Config, wanted: str | None) -> list[str]:
    """The faults of a library that nobody has open. Busy while somebody has."""
    with _held(config, wanted) as (directory, device), translated(directory / "library.db"):
        _refuse_unless_file(directory / "library.db")
        return checking.check(directory / "library.db", device.uuid)


def repair(config: Config, wanted: str | None) -> Repaired:
    """Make a library sound that nobody has open. Busy while somebody has; StoreCorrupt when nothing can be saved."""
    with _held(config, wanted) as (directory, device), translated(directory / "library.db"):
        library_db = directory / "library.db"
        _refuse_unless_file(library_db)
        try:
            is_readable = _is_readable(library_db, device)
        except StoreCorrupt as error:
            if isinstance(error.__cause__, apsw.Error) and not is_damage(error.__cause__):
                raise
            is_readable = False
        if is_readable:
            # What a file declares of its tables may be damaged where no page is.
            with contextlib.suppress(apsw.SQLError, apsw.CorruptError, UnicodeDecodeError):
                return _mended(library_db, device, directory)
        return _recovered(library_db, device, directory)


@contextmanager
def _held(config: Config, wanted: str | None) -> Iterator[tuple[Path, DeviceIdentity]]:
    directory = config.library_dir(config.choose_library(wanted))
    if not directory.is_dir():
        raise NotFound(f"there is no library {directory}")
    lock = acquire(directory)
    try:
        yield directory, load_or_create(config.data_dir)
    finally:
        lock.release()


def _refuse_unless_file(library_db: Path) -> None:
    """What is no file, or may not be read, is not damaged."""
    try:
        fd = os.open(library_db, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OsFailure(error.errno or errno.EIO, f"{library_db} cannot be opened: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Invalid(f"{library_db} is no regular file; move it away, and put the library's database there")
    finally:
        os.close(fd)


def _is_readable(library_db: Path, device: DeviceIdentity) -> bool:
    """Whether all its pages are sound. What has an older schema is brought to the newest."""
    if not library_db.exists() or not library_db.stat().st_size:
        return False
    try:
        db = connect(library_db, read_only=True)
        try:
            check_identity(db, library_db)
            is_sound = not checking.structure(db)
            version = int(db.pragma("user_version"))
        finally:
            db.close()
        if is_sound and version != SCHEMA_VERSION:
            Store(library_db, device.uuid).close()
    except apsw.Error as error:
        if not is_damage(error):
            raise
        return False
    return is_sound


def _mended(library_db: Path, device: DeviceIdentity, directory: Path) -> Repaired:
    did = _mend(library_db, device, directory, is_sure=True)
    if search.check(library_db):
        search.remove(library_db)
        did.append("the index of names is made anew")
    return Repaired(MENDED if did else SOUND, did, [], None)


def _mend(
    library_db: Path,
    device: DeviceIdentity,
    directory: Path,
    *,
    is_sure: bool,
    relists: bool = False,
    asks: bool = False,
) -> list[str]:
    db = connect(library_db)
    try:
        db.pragma("foreign_keys", False)
        with db:
            if not db.execute("SELECT 1 FROM device WHERE uuid=?", (device.uuid,)).fetchone():
                devices.put(db, device.uuid, device.name, device.public_key, device.created_ns)
            did = mend(db, device.uuid, _library_uuid(directory), is_sure=is_sure, relists=relists, asks=asks)
        if faults := checking.structure(db):
            raise StoreCorrupt(f"{library_db} could not be made sound: {faults[0]}")
        return did
    finally:
        db.close()


def _library_uuid(directory: Path) -> bytes:
    """The id in library.json; a new one when that is lost too."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return uuid.UUID(json.loads((directory / "library.json").read_text("utf-8"))["id"]).bytes
    return new_uuid()


def _recovered(library_db: Path, device: DeviceIdentity, directory: Path) -> Repaired:
    fresh = directory / "library.db.fresh"
    _drop(fresh)
    kept = backup.path_beside(library_db)
    how, lost, is_sure, asks = RECOVERED, list[str](), False, False
    try:
        is_any = library_db.exists() or _log(library_db).exists()
        saved = salvage(library_db, fresh, kept if kept.exists() else None) if is_any else {}
        if any(saved[name].found for name in _WORTH if name in saved):
            lost, is_sure = _told(saved), not saved["counter"].losses
            asks = any(saved[name].losses for name in _CARRIED)
        else:
            how, lost = RESTORED, [_restored(library_db, kept, fresh, device)]
        did = _mend(fresh, device, directory, is_sure=is_sure, relists=True, asks=asks)
        _settle(fresh)
        aside = _put_in_place(library_db, fresh)
    finally:
        _drop(fresh)
    search.remove(library_db)
    return Repaired(how, did, lost, None if aside is None else os.fsencode(aside))


def _settle(database: Path) -> None:
    """Everything in the file itself and nothing in its log: closing does that too, and keeps it to itself when it
    fails, on a full disk say."""
    db = connect(database)
    try:
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    finally:
        db.close()


def _restored(library_db: Path, kept: Path, fresh: Path, device: DeviceIdentity) -> str:
    """The backup as the fresh database; says what that means."""
    cure = f"move {library_db} and library.json beside it away to start anew; your files are not touched"
    if not kept.exists():
        raise StoreCorrupt(f"nothing can be read of {library_db}, and there is no backup beside it; {cure}")
    _drop(fresh)
    shutil.copyfile(kept, fresh)
    try:
        is_sound = _is_readable(fresh, device)
    except VdfsError:
        is_sound = False
    if not is_sound:
        raise StoreCorrupt(f"nothing can be read of {library_db}, and its backup is damaged too; {cure}")
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.stat().st_mtime))
    return f"lost is what was tagged and annotated since the backup of {made}"


def _told(saved: dict[str, Saved]) -> list[str]:
    """What was lost, and what came back from elsewhere."""
    lines = []
    for name, one in saved.items():
        if not one.losses:
            continue
        back = [
            f"{number} {words}"
            for number, words in (
                (one.strays, "found on loose pages"),
                (one.indexed, "known from indexes"),
                (one.backup, "from the backup"),
            )
            if number
        ]
        meaning = _MEANING.get(name, f"table {name}")
        lines.append(
            f"of {meaning} {_plural(one.losses.pages, 'page')} and {_plural(one.losses.cells, 'row')} could not be read"
            + (f"; came back: {', '.join(back)}" if back else "")
        )
    return lines


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _put_in_place(library_db: Path, fresh: Path) -> Path | None:
    """The fresh database takes the place of the damaged one, which is kept aside with its log, or what there is of
    the two; never neither. Returns what is kept."""
    left = _log(fresh)
    if left.exists() and left.stat().st_size:  # only the file itself takes the place
        raise StoreCorrupt(f"{fresh} is not whole without its log; nothing was changed")
    with open(fresh, "rb") as file:
        os.fsync(file.fileno())
    log = _log(library_db)
    aside = library_db.with_name(f"library.db.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    while aside.exists() or _log(aside).exists():
        aside = aside.with_name(f"{aside.name}+")
    kept = _log(aside) if log.exists() else None
    if library_db.exists():
        kept = aside
        try:
            os.link(library_db, aside)
        except OSError:  # a file system without hard links
            shutil.copyfile(library_db, aside)
    if log.exists():  # it would be taken for that of the fresh one
        os.replace(log, _log(aside))
    Path(f"{library_db}-shm").unlink(missing_ok=True)
    os.replace(fresh, library_db)
    return kept


def _log(database: Path) -> Path:
    return Path(f"{database}-wal")


def _drop(database: Path) -> None:
    for end in ("", "-wal", "-shm"):
        Path(f"{database}{end}").unlink(missing_ok=True)
