"""Core: the services that an operation receives. Made in vdfs/core.py; frozen."""

from collections.abc import Callable
from pathlib import Path

import attrs

from sync.engine import Sync
from vdfs.base.config import Config
from vdfs.indexing.indexing import Indexing
from vdfs.indexing.scanner import Scanner
from vdfs.jobs.manager import JobManager
from vdfs.library.library import Library
from vdfs.space.agreeing import Agreeing
from vdfs.space.annotations import Annotations
from vdfs.space.arrivals import Arrivals
from vdfs.space.attributes import Attributes
from vdfs.space.content import Opener
from vdfs.space.ejection import Ejector
from vdfs.space.finder import Finder
from vdfs.space.importer import Importer
from vdfs.space.locations import Locations
from vdfs.space.namespace import Namespace
from vdfs.space.presence import Presence
from vdfs.space.rename import Renames
from vdfs.space.rulers import Rulers
from vdfs.space.ruling import Ruling
from vdfs.space.tree import Tree
from vdfs.space.volumes import Volumes
from vdfs.space.watch import Watch


@attrs.frozen
class Core:
    """One open library and everything that can be asked of it."""

    config: Config
    library: Library
    tree: Tree
    namespace: Namespace
    renames: Renames
    attributes: Attributes
    opener: Opener
    annotations: Annotations
    importer: Importer
    locations: Locations
    arrivals: Arrivals
    scanner: Scanner
    jobs: JobManager
    indexing: Indexing
    watch: Watch
    rulers: Rulers
    ruling: Ruling
    finder: Finder
    presence: Presence
    volumes: Volumes
    ejector: Ejector
    sync: Sync
    agreeing: Agreeing
    mountpoint: Path | None
    started_ns: int
    stop: Callable[[], None]
