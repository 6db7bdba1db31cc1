"""The explicit table of operations: which modules define them.

An operation exists for the socket, for `sd` and for the generated documents when its module is named here, and for
nobody otherwise; nothing registers itself by being imported.
"""

import importlib
import sys
from pathlib import Path

from vdfs.ops.registry import Registry, render_doc, replace_generated

MODULES: tuple[str, ...] = (
    "vdfs.ops.copies",
    "vdfs.ops.core",
    "vdfs.ops.devices",
    "vdfs.ops.files",
    "vdfs.ops.index",
    "vdfs.ops.jobs",
    "vdfs.ops.library",
    "vdfs.ops.locations",
    "vdfs.ops.rules",
    "vdfs.ops.search",
    "vdfs.ops.sync",
    "vdfs.ops.tags",
    "vdfs.ops.volumes",
)


def load() -> Registry:
    """The registry of all operations. TypeError or ValueError names the operation that is not well formed."""
    return Registry.of(importlib.import_module(name) for name in MODULES)


def main(argv: list[str]) -> int:
    """`--doc` prints the generated part; `--doc FILE` puts it into a document in place."""
    if not argv or argv[0] != "--doc" or len(argv) > 2:
        print("usage: python -m vdfs.ops.table --doc [FILE]", file=sys.stderr)
        return 2
    generated = render_doc(load())
    if len(argv) == 1:
        print(generated, end="")
        return 0
    path = Path(argv[1])
    try:
        path.write_text(replace_generated(path.read_text("utf-8"), generated), "utf-8")
    except (OSError, ValueError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
