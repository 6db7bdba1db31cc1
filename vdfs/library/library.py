"""Library: the directory `Name.sdlibrary/` and what is always true of an open one.

    library.json   name, id, version: written atomically, for people and for a copy of the folder
    library.db     everything (index/store); library.db.backup beside it its last good state (index/care)
    store/         the built-in branch: real files that belong to no other directory
    sidecars/      thumbnails
    jobs.db        jobs, with their logs in job_logs/ (vdfs/jobs)
    search.db      the index of names
    lock           flock with a note of the holder

Opening takes the lock, migrates the database, puts this device's row and the built-in branch in place. Copying a closed
folder is a backup.
"""

import json
import logging
import os
import platform
import time
from pathlib import Path

from blake3 import blake3

from index.model.errors import StoreCorrupt, VersionUnsupported
from index.model.ids import new_uuid, uuid_text
from index.scan.fsid import fs_identity
from index.scan.volumes import root_stat
from index.store import changes, devices, entries, places
from index.store.connection import translated
from index.store.store import Store
from sync.wire.identity import DeviceIdentity, load_or_create, write_atomically
from vdfs.base.config import Config, make_private
from vdfs.library.lock import LibraryLock, acquire
from vdfs.space.roots import root_row

log = logging.getLogger("sdmount.library")

FACTS_VERSION = 1


class Library:
    """An open library; `close()` it to let go of the lock."""

    def __init__(self, name: str, directory: Path, store: Store, device: DeviceIdentity, lock: LibraryLock) -> None:
        self.name = name
        self.directory = directory
        self.store = store
        self.device = device
        self.lock = lock

    @property
    def slug(self) -> str:
        """What this device is called in paths of the library: its own slug, unless another device has that."""
        return devices.slug(self.store.db, self.device.uuid)

    @property
    def device_name(self) -> str:
        """What people call this device; it may have been renamed on any."""
        row = devices.get(self.store.db, self.device.uuid)
        return self.device.name if row is None else row.name

    @property
    def socket_name(self) -> str:
        """What the socket is called: several devices of a library may run on one machine."""
        return f"{blake3(self.store.library_uuid + self.device.uuid).hexdigest(8)}.sock"

    @property
    def store_dir(self) -> Path:
        return self.directory / "store"

    @property
    def sidecars_dir(self) -> Path:
        """What is made of files: thumbnails (index/media/sidecars.py)."""
        return self.directory / "sidecars"

    def adopt(self) -> None:
        """The database has this id now, which other devices have: the facts beside it follow. Where that fails they do
        at the next start."""
        try:
            _write_facts(self)
        except (OSError, StoreCorrupt) as error:
            log.warning("library.json could not be written anew: %s", error)

    def close(self) -> None:
        self.store.close()
        self.lock.release()


def open_library(config: Config, wanted: str | None) -> Library:
    """Open the library, making it (and the device) on first use. Busy when another process holds it."""
    name = config.choose_library(wanted)
    directory = config.library_dir(name)
    make_private(config.data_dir)
    device = load_or_create(config.data_dir)
    make_private(directory)
    lock = acquire(directory)
    try:
        _check_facts(directory)
        _check_database(directory)
        with translated(directory / "library.db"):
            store = Store(directory / "library.db", device.uuid)
        try:
            (directory / "store").mkdir(exist_ok=True, mode=0o755)
            make_private(directory / "sidecars")
            library = Library(name, directory, store, device, lock)
            with translated(store.path):
                _put_self(library)
            _write_facts(library)
        except BaseException:
            store.close()
            raise
    except BaseException:
        lock.release()
        raise
    return library


def _put_self(library: Library) -> None:
    """This device's row and its built-in branch; also finds the store again after the folder was moved."""
    store, device = library.store, library.device
    root = os.fsencode(library.store_dir)
    fs_id, root_ino = fs_identity(root)
    mine = [b for b in places.branches(store.db) if b.location_id is None and b.device_uuid == device.uuid]
    with store.write("start") as unit:
        devices.say(unit, device.uuid, device.name, device.card, platform.system())
        if not mine:
            branch_id = places.put_branch(unit.db, new_uuid(), None, device.uuid, "store", root, fs_id, root_ino)
            row = root_row(unit, branch_id, root_stat(root))
            entries.insert(unit.db, row)
            places.set_branch_root(unit.db, branch_id, row.id)
            places.tell_branch(unit, branch_id)
        else:
            # The store is found by its place in the library: a copied or moved library brings its own store along.
            unit.db.execute(
                "UPDATE branch SET root_path=?, fs_id=?, root_ino=? WHERE id=?", (root, fs_id, root_ino, mine[0].id)
            )


def _check_facts(directory: Path) -> None:
    path = directory / "library.json"
    try:
        facts = json.loads(path.read_text("utf-8"))
        version = int(facts["version"])
    except FileNotFoundError:
        return
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StoreCorrupt(f"{path} cannot be read ({reason}); remove it to have it written anew") from error
    if version > FACTS_VERSION:
        raise VersionUnsupported(f"{path} is of a newer sdmount; use that one (nothing was changed)")


def _check_database(directory: Path) -> None:
    """Where `library.json` says that there was a library, an empty or missing database is a loss and no beginning."""
    database = directory / "library.db"
    try:
        is_there = database.stat().st_size > 0
    except FileNotFoundError:
        is_there = False
    if not is_there and (directory / "library.json").exists():
        raise StoreCorrupt(
            f"{database} is empty or missing, though library.json beside it tells of a library; `sd library repair` "
            "brings its backup back, or remove library.json to start anew (tags and attributes are lost, files are not)"
        )


def _write_facts(library: Library) -> None:
    path = library.directory / "library.json"
    wanted = {"version": FACTS_VERSION, "id": uuid_text(library.store.library_uuid), "name": library.name}
    try:
        facts = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        facts = {}
    was = changes.get_meta(library.store.db, "library_was")  # it joined others, and a kill came between
    if facts.get("id") not in (None, wanted["id"], uuid_text(was) if isinstance(was, bytes) else None):
        raise StoreCorrupt(
            f"{path} tells of another library than the database beside it; restore the one that belongs to it, "
            "or remove library.json to go on with the database that is there"
        )
    if {k: facts.get(k) for k in wanted} != wanted:
        facts = {**facts, **wanted}
        facts.setdefault("created_ns", time.time_ns())
        write_atomically(path, json.dumps(facts, indent=2).encode() + b"\n")
