"""The rules that a location has by name, each on or off: what operating systems and tools leave lying around.

The patterns are those of the reference's rule table (its Windows paths with drive letters and its reserved names of
devices left out: on the systems that we run on these are names like any other). A pattern that begins with `/` is
anchored at the root of the machine.
"""

import sys
from enum import IntEnum
from typing import NamedTuple


class RuleId(IntEnum):
    """What an entry's row says of the rule that holds it back. Stored: never given another meaning."""

    NONE = 0
    SYSTEM = 1
    HIDDEN = 2
    GIT = 3
    GITIGNORE = 4
    DEV = 5
    IMAGES = 6
    ACCEPT = 7
    FIRST_OF_USER = 100


_LINUX = ("**/*~", "**/.fuse_hidden*", "**/.directory", "**/.Trash-*", "**/.nfs*")
_UNIX = ("/{dev,sys,proc}", "/{run,var,boot}", "**/lost+found")
_MAC_ROOT = (
    "/{System,Network,Library,Applications,.PreviousSystemInformation,.com.apple.templatemigration.boot-install}",
    "/Users/*/{Library,Applications}",
    "/System/Volumes/Data/{System,Network,Library,Applications}",
    "/System/Volumes/Data/Users/*/{Library,Applications}",
)
#: What comes along on volumes that other systems have written to.
_FOREIGN = (
    "**/.{DS_Store,AppleDouble,LSOverride}",
    "**/Icon\r",
    "**/Icon\r\r",
    "**/._*",
    "**/*.photoslibrary/{database,external,internal,private,resources,scopes}",
    "**/.{DocumentRevisions-V100,fseventsd,Spotlight-V100,TemporaryItems,Trashes,VolumeIcon.icns,"
    "com.apple.timemachine.donotpresent}",
    "**/.{AppleDB,AppleDesktop,apdisk}",
    "**/{Network Trash Folder,Temporary Items}",
    "**/{Thumbs.db,Thumbs.db:encryptable,ehthumbs.db,ehthumbs_vista.db}",
    "**/*.stackdump",
    "**/[Dd]esktop.ini",
    "**/$RECYCLE.BIN",
    "**/System Volume Information",
    "**/FOUND.[0-9][0-9][0-9]",
    "**/.{nomedia,thumbnails}",
)


class Builtin(NamedTuple):
    """One rule with a name. `accepts`: it holds back what none of its patterns matches, of files only."""

    id: RuleId
    name: str
    default: bool
    about: str
    patterns: tuple[str, ...] = ()
    dirs_only: bool = False
    accepts: bool = False
    folds: bool = False


BUILTIN: tuple[Builtin, ...] = (
    Builtin(
        RuleId.SYSTEM, "system", True, "what operating systems leave: trash, caches of thumbnails, backups, `/proc`",
        ("**/.spacedrive", *_LINUX, *_UNIX, *_FOREIGN, *(_MAC_ROOT if sys.platform == "darwin" else ())),
    ),
    Builtin(RuleId.HIDDEN, "hidden", False, "names that begin with a dot", ("**/.*",)),
    Builtin(
        RuleId.GIT, "git", True, "repositories' own files",
        ("**/{.git,.gitignore,.gitattributes,.gitkeep,.gitconfig,.gitmodules}",),
    ),
    Builtin(RuleId.GITIGNORE, "gitignore", True, "what git ignores in a repository"),
    Builtin(
        RuleId.DEV, "dev", True, "directories that tools can make again",
        (
            "**/{node_modules,target,dist,build,.idea,.vscode,.vs,__pycache__,.pytest_cache,.mypy_cache,.tox,.nox,"
            ".coverage,.hypothesis,.cache,Cache,Caches,CachedData,Code Cache,tmp,temp,.tmp,.temp}",
        ),
        dirs_only=True,
    ),
    Builtin(
        RuleId.IMAGES, "images", False, "files that are no images",
        ("*.{avif,bmp,gif,ico,jpeg,jpg,png,svg,tif,tiff,webp}",), accepts=True, folds=True,
    ),
)  # fmt: skip
