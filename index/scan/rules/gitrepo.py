"""A git repository as far as ignoring goes: where its directory is, which of its files speak, what is tracked.

`.git` is a directory, or a file that names one elsewhere (linked work trees, submodules). What is common to all work
trees lies in the directory that `commondir` names: `config` and `info/exclude`; the index is each work tree's own.
Source: gitrepository-layout(5), gitignore(5), git-config(1). `include` in configurations is not followed.

Files of a git directory may be links, as git has it: who may leave the directory follows them, who must not wait is
told that they lead elsewhere.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from index.scan.rules import files, gitindex
from index.scan.rules.files import Stamp

_HEAD = re.compile(rb"(?:ref:\s*refs/|[0-9a-f]{40}|[0-9a-f]{64})")
_SECTION = re.compile(rb'\s*\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:\\.|[^"\\])*)")?\s*\]')
_VALUE = re.compile(rb"\s*([A-Za-z][A-Za-z0-9-]*)\s*(=.*)?", re.DOTALL)
_CONFIG_MAX_BYTES = 1 << 20
#: A configuration larger than this is not read by who must not wait.
_STRICT_CONFIG_BYTES = 16 << 10
_ELSEWHERE = "it leads elsewhere"
_FALSE = (b"false", b"no", b"off", b"0", b"")


class _NotHere(Exception):
    """A file that is not to be read here: it is too large, or leads elsewhere."""


class Caches:
    """What was read of files that are as they were: bounded, for one process."""

    def __init__(self) -> None:
        self.indexes: dict[Stamp, gitindex.Tracked] = {}
        self.configs: dict[Stamp, dict[bytes, bytes]] = {}


class User(NamedTuple):
    """What git knows of whoever runs us: the configuration that holds for all repositories, and his own patterns."""

    config: Mapping[bytes, bytes] = MappingProxyType({})
    home: bytes = b""
    patterns: bytes = b""

    @classmethod
    def of(cls, environ: Mapping[bytes, bytes], system: bytes = b"/etc/gitconfig") -> "User":
        """Reads the configurations of the system and of the user, the later over the earlier, and his list."""
        home = environ.get(b"HOME", b"")
        base = environ.get(b"XDG_CONFIG_HOME") or (home + b"/.config" if home else b"")
        places = [system, base + b"/git/config" if base else b"", home + b"/.gitconfig" if home else b""]
        if b"GIT_CONFIG_GLOBAL" in environ:
            places[1:] = [environ[b"GIT_CONFIG_GLOBAL"]]
        if environ.get(b"GIT_CONFIG_NOSYSTEM", b"") not in _FALSE:
            del places[0]
        config: dict[bytes, bytes] = {}
        for place in filter(None, places):
            config.update(config_of(_following(place)))
        own = cls(config, home)
        listed = own.expanded(config.get(b"core.excludesfile", base + b"/git/ignore"))
        return own._replace(patterns=_following(listed) if listed else b"")

    def expanded(self, path: bytes) -> bytes:
        """A path of a configuration as an absolute one; empty where it is none."""
        if path.startswith(b"~/") and self.home:
            path = self.home + path[1:]
        return path if path.startswith(b"/") else b""


def _following(path: bytes) -> bytes:
    """A configuration's text: a person's own files may be links to where he keeps them."""
    return files.read(os.path.realpath(path), max_bytes=_CONFIG_MAX_BYTES).text or b""


class Repo:
    """A repository, found at the top of its work tree."""

    __slots__ = ("_is_read", "_tracked", "common", "config", "gitdir", "index_max_bytes", "may_leave")

    def __init__(
        self, gitdir: bytes, common: bytes, config: Mapping[bytes, bytes], *, may_leave: bool, index_max_bytes: int
    ) -> None:
        self.gitdir, self.common, self.config = gitdir, common, config
        self.may_leave, self.index_max_bytes = may_leave, index_max_bytes
        self._tracked: gitindex.Tracked | None = None
        self._is_read = False

    @property
    def folds(self) -> bool:
        """core.ignoreCase: names in patterns count in either case."""
        return self.config.get(b"core.ignorecase", b"false").lower() not in _FALSE

    def tracked(self, caches: Caches, note: Callable[[bytes, str], None]) -> gitindex.Tracked | None:
        """The paths in its index, as it was when this was asked first; None where that is not to be read here."""
        if not self._is_read:
            with contextlib.suppress(_NotHere):
                self._tracked = self._read(caches, note)
            self._is_read = True
        return self._tracked

    def _read(self, caches: Caches, note: Callable[[bytes, str], None]) -> gitindex.Tracked:
        place = self.gitdir + b"/index"
        st = self._look(place)
        if st is None or not stat.S_ISREG(st.st_mode):
            return gitindex.NOTHING
        known = caches.indexes.get(files.stamp_of(st))
        if known is not None:
            return known
        found = files.read(place, max_bytes=self.index_max_bytes, follow=self.may_leave)
        try:
            if found.text is None:
                raise gitindex.BadIndex(found.note or "it is gone")
            sha256 = self.config.get(b"extensions.objectformat", b"").lower() == b"sha256"
            tracked = gitindex.parse(found.text, 32 if sha256 else 20, self._shared)
        except gitindex.BadIndex as error:
            note(place, f"nothing counts as tracked: {error}")
            tracked = gitindex.NOTHING
        if found.stamp is not None and files.is_settled(found.stamp):
            if len(caches.indexes) >= 8:
                caches.indexes.pop(next(iter(caches.indexes)))
            caches.indexes[found.stamp] = tracked
        return tracked

    def _shared(self, name: bytes) -> bytes | None:
        place = self.gitdir + b"/sharedindex." + name
        self._look(place)
        return files.read(place, max_bytes=self.index_max_bytes, follow=self.may_leave).text

    def _look(self, place: bytes) -> os.stat_result | None:
        """stat of a file that may be read here. _NotHere."""
        st = files.look(place, follow=self.may_leave)
        if st is not None and (stat.S_ISLNK(st.st_mode) or st.st_size > self.index_max_bytes):
            raise _NotHere
        return st


def find(
    directory: bytes,
    caches: Caches,
    user: User,
    *,
    may_leave: bool,
    index_max_bytes: int,
) -> "Repo | str | None":
    """The repository whose work tree has its top at a directory; None if there is none.

    Text says why a `.git` that may be one is not read. `may_leave`: a `.git` file that leads elsewhere is followed, and
    so are links in a git directory.
    """
    place = directory + b"/.git"
    st = files.look(place)
    if st is None:
        return None
    if stat.S_ISLNK(st.st_mode):
        if not may_leave:
            return _ELSEWHERE
        place = os.path.realpath(place)
        st = files.look(place)
        if st is None:
            return None
    if stat.S_ISREG(st.st_mode):
        if not may_leave:
            return _ELSEWHERE
        text = files.read(place, max_bytes=1 << 16).text or b""
        target = text.removeprefix(b"gitdir:").strip(b" \r\n") if text.startswith(b"gitdir:") else b""
        if not target:
            return None
        place = os.path.join(os.path.realpath(directory), target)
    elif not stat.S_ISDIR(st.st_mode):
        return None
    head = files.read(place + b"/HEAD", max_bytes=4096)
    if not _HEAD.match(head.text or b"") and not _is_link_to_ref(place + b"/HEAD"):
        return None
    common = place
    if not may_leave and files.look(place + b"/commondir") is not None:
        return _ELSEWHERE
    pointer = files.read(place + b"/commondir", max_bytes=1 << 16, follow=True).text
    if pointer is not None:
        common = os.path.join(place, pointer.rstrip(b"\r\n"))
    if not all(_is_dir(common + name) for name in (b"/objects", b"/refs")):
        return None
    try:
        config = {**user.config, **_cached_config(common + b"/config", caches, may_leave)}
        if config.get(b"extensions.worktreeconfig", b"false").lower() not in _FALSE:
            config.update(_cached_config(place + b"/config.worktree", caches, may_leave))
    except _NotHere:
        return "its configuration is large, or leads elsewhere"
    return Repo(place, common, config, may_leave=may_leave, index_max_bytes=index_max_bytes)


def _is_link_to_ref(path: bytes) -> bool:
    try:
        return os.readlink(path).startswith(b"refs/")
    except OSError:
        return False


def _is_dir(path: bytes) -> bool:
    st = files.look(path)
    return st is not None and (stat.S_ISDIR(st.st_mode) or stat.S_ISLNK(st.st_mode))


def _cached_config(path: bytes, caches: Caches, may_leave: bool) -> Mapping[bytes, bytes]:
    st = files.look(path, follow=may_leave)
    if st is None:
        return {}
    if not may_leave and (stat.S_ISLNK(st.st_mode) or st.st_size > _STRICT_CONFIG_BYTES):
        raise _NotHere
    known = caches.configs.get(files.stamp_of(st))
    if known is None:
        found = files.read(path, max_bytes=_CONFIG_MAX_BYTES, follow=may_leave)
        known = config_of(found.text or b"")
        if found.stamp is not None and files.is_settled(found.stamp):
            if len(caches.configs) >= 64:
                caches.configs.clear()
            caches.configs[found.stamp] = known
    return known


def config_of(text: bytes) -> dict[bytes, bytes]:
    """`section.name` in lower case -> the last value, of sections without a part in quotes."""
    out: dict[bytes, bytes] = {}
    section: bytes | None = None
    for line in _joined(text.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        head = _SECTION.match(line)
        if head is not None:
            section = head[1].lower() if head[2] is None else None
            line = line[head.end() :]
        found = _VALUE.match(line) if section is not None else None
        if found is not None and section is not None:
            out[section + b"." + found[1].lower()] = b"true" if found[2] is None else _value(found[2][1:])
    return out


def _joined(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Lines, those that end with a backslash together with the next."""
    held = b""
    for raw in lines:
        line = held + raw.removesuffix(b"\r")
        if (len(line) - len(line.rstrip(b"\\"))) % 2:
            held = line[:-1]
            continue
        held = b""
        yield line
    if held:
        yield held


def _value(raw: bytes) -> bytes:
    """A value without quotes, escapes and what is a comment."""
    out = bytearray()
    kept = 0  # how much of it is not space at the end
    is_quoted = False
    chars = iter(raw.lstrip())
    for byte in chars:
        if byte == 0x22:
            is_quoted = not is_quoted
            kept = len(out)
        elif byte == 0x5C:
            out.append({0x6E: 10, 0x74: 9, 0x62: 8}.get(after := next(chars, 0x5C), after))
            kept = len(out)
        elif byte in b"#;" and not is_quoted:
            break
        else:
            out.append(byte)
            if is_quoted or byte not in b" \t":
                kept = len(out)
    return bytes(out[:kept])
