"""The files everybody is measured on, the same for the same seed.

A tree is described by a `Shape` and grown breadth first: directories hang under random earlier ones (so
that some are deep), files are spread evenly with a little luck, sizes follow an exponential distribution as
those of real source and document trees do, content is text without the word that `grep` looks for.
"""

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

WORDS = (
    "autumn barley cedar delta ember fjord garnet harbour indigo juniper kestrel lantern meadow nectar "
    "orchard pepper quartz river saffron timber umber violet willow yarrow zephyr"
).split()
ENDINGS = ("txt", "py", "md", "json", "jpg", "html", "c", "pdf")
ABSENT_WORD = "nowhere-in-this-tree"
TAG = "user.tag"
TEXT_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Shape:
    """How a tree looks: how many of what, and how large files are (0 = all empty)."""

    files: int
    directories: int
    mean_bytes: int = 0
    max_bytes: int = 64 << 10
    even_sizes: bool = False  # every size from 0 to max_bytes equally likely, instead of exponential
    symlinks: int = 0
    tagged: int = 0


@dataclass
class Tree:
    """What was made: the root and the relative paths in it, parents before children."""

    root: Path
    directories: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    symlinks: list[str] = field(default_factory=list)
    tagged: int = 0

    @property
    def entries(self) -> int:
        """Everything below the root; the root itself does not count."""
        return len(self.directories) + len(self.files) + len(self.symlinks)


def grow(root: Path, shape: Shape, seed: int) -> Tree:
    """Make the tree under `root`, which must not exist, and write it out to the disk."""
    luck = random.Random(seed)
    tree = Tree(root)
    root.mkdir(parents=True)
    for number in range(shape.directories):
        parent = luck.choice(tree.directories) + "/" if tree.directories and luck.random() < 0.9 else ""
        if parent.count("/") > 8:
            parent = ""
        tree.directories.append(f"{parent}{luck.choice(WORDS)}-{number:05d}")
        (root / tree.directories[-1]).mkdir()
    text = _text(luck)
    homes = ["", *tree.directories]
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # One directory after the other: its blocks lie together, as they do when an archive was unpacked.
        for number, home in enumerate(sorted(luck.choices(homes, k=shape.files))):
            name = _join(home, f"{luck.choice(WORDS)}-{number:06d}.{luck.choice(ENDINGS)}")
            _write(handle, name, text, luck.randrange(TEXT_BYTES // 2), _size(luck, shape))
            tree.files.append(name)
    finally:
        os.close(handle)
    for number, target in enumerate(luck.choices(tree.files, k=shape.symlinks)):
        home, _, name = target.rpartition("/")
        link = _join(home, f"link-{number:05d}")
        (root / link).symlink_to(name)
        tree.symlinks.append(link)
    tree.tagged = _tag(root, luck.sample(tree.files, shape.tagged), luck)
    os.sync()
    return tree


def absent_names(tree: Tree, count: int, seed: int) -> list[str]:
    """Paths of which only the last part does not exist, in directories that do."""
    luck = random.Random(seed)
    return [_join(luck.choice(tree.directories), f"absent-{number:06d}.h") for number in range(count)]


def existing_names(tree: Tree, count: int, seed: int) -> list[str]:
    """Files of the tree in a random order."""
    return random.Random(seed).sample(tree.files, min(count, len(tree.files)))


def make_big_file(path: Path, size_bytes: int, seed: int) -> None:
    """Write a file no two megabytes of which are alike."""
    luck = random.Random(seed)
    with path.open("wb", buffering=0) as file:
        for _ in range(size_bytes // BLOCK_BYTES):
            file.write(luck.randbytes(BLOCK_BYTES))
        os.fsync(file.fileno())


def _text(luck: random.Random) -> bytes:
    line = " ".join(luck.choices(WORDS, k=TEXT_BYTES // 6))
    return line.replace(" river ", "\n").encode()[:TEXT_BYTES]


def _size(luck: random.Random, shape: Shape) -> int:
    if shape.even_sizes:
        return luck.randint(0, shape.max_bytes)
    if shape.mean_bytes == 0:
        return 0
    return min(shape.max_bytes, int(luck.expovariate(1 / shape.mean_bytes)))


def _write(directory: int, name: str, text: bytes, start: int, size_bytes: int) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    try:
        if size_bytes:
            os.write(handle, text[start : start + size_bytes])
    finally:
        os.close(handle)


def _tag(root: Path, names: list[str], luck: random.Random) -> int:
    """Give these files an extended attribute; 0 when the file system under the tree has none to give."""
    try:
        for name in names:
            os.setxattr(root / name, TAG, luck.choice(WORDS).encode())
    except OSError:
        return 0
    return len(names)


def _join(home: str, name: str) -> str:
    return f"{home}/{name}" if home else name
