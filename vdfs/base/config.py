"""Where things lie: one frozen Config, made from flags, environment and the XDG base directories.

Source: XDG Base Directory Specification. A given data directory keeps everything inside itself (logs, socket
pointers), so that two data directories never meet and a test leaves nothing behind.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

from index.model.errors import Invalid

DEFAULT_LIBRARY = "Library"
LIBRARY_SUFFIX = ".sdlibrary"


class Config(NamedTuple):  # `sd` waits for what this imports
    """Directories of one user's sdmount. All absolute."""

    data_dir: Path
    state_dir: Path
    runtime_dir: Path

    @property
    def libraries_dir(self) -> Path:
        return self.data_dir / "libraries"

    @property
    def log_path(self) -> Path:
        return self.state_dir / "sdmount.log"

    @property
    def stacks_path(self) -> Path:
        return self.state_dir / "sdmount.stacks"

    def library_dir(self, name: str) -> Path:
        """The directory of a library by name; Invalid when the name cannot be a file name."""
        if not name or "/" in name or "\0" in name or name.startswith(".") or len(os.fsencode(name)) > 200:
            raise Invalid(f"{name!r} cannot be the name of a library; use a plain file name")
        _refuse_unless_text(name, "the name of the library", "--library")
        return self.libraries_dir / f"{name}{LIBRARY_SUFFIX}"

    def library_names(self) -> list[str]:
        try:
            found = sorted(p.name for p in self.libraries_dir.iterdir() if p.name.endswith(LIBRARY_SUFFIX))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [re.sub(rf"{re.escape(LIBRARY_SUFFIX)}$", "", n) for n in found]

    def choose_library(self, wanted: str | None) -> str:
        """The library that was asked for, or the only one, or the default one."""
        if wanted:
            self.library_dir(wanted)
            return wanted
        names = self.library_names()
        if len(names) > 1 and DEFAULT_LIBRARY not in names:
            raise Invalid(f"there are several libraries ({', '.join(names)}); say which with --library NAME")
        return names[0] if len(names) == 1 else DEFAULT_LIBRARY


def load_config(data_dir: str | None = None) -> Config:
    """Flags win over SDMOUNT_DATA_DIR, which wins over XDG."""
    env = os.environ
    chosen = data_dir or env.get("SDMOUNT_DATA_DIR")
    if chosen:
        base = Path(os.path.abspath(chosen))
        state = base / "state"
    else:
        base = _xdg("XDG_DATA_HOME", ".local", "share") / "sdmount"
        state = _xdg("XDG_STATE_HOME", ".local", "state") / "sdmount"
    _refuse_unless_text(base, "the data directory", "--data-dir")
    runtime_base = env.get("XDG_RUNTIME_DIR")
    if runtime_base and os.path.isabs(runtime_base) and os.access(runtime_base, os.W_OK):
        runtime = Path(runtime_base) / "sdmount"
    else:
        import tempfile  # here, as most people have the other

        runtime = Path(tempfile.gettempdir()) / f"sdmount-{os.getuid()}"
    return Config(base, state, runtime)


def make_private(path: Path) -> None:
    """Make a directory and what is missing above it, for their owner alone, whatever the umask."""
    for missing in reversed([p for p in (path, *path.parents) if not p.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)  # what stands there is no directory: FileExistsError


def _refuse_unless_text(path: str | Path, what: str, option: str) -> None:
    """What is shown and handed about as text; places of a user's files may have any name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise Invalid(f"{what} {str(path)!r} is no UTF-8; give another with {option}") from None


def _xdg(variable: str, *below_home: str) -> Path:
    value = os.environ.get(variable, "")
    if os.path.isabs(value):
        return Path(value)
    home = os.path.expanduser("~")  # by HOME, else by the list of users
    if not os.path.isabs(home):
        raise Invalid("there is no home directory (HOME is no absolute path); give --data-dir or SDMOUNT_DATA_DIR")
    return Path(home, *below_home)
