"""What may be asked and commanded: one file a noun, each with its queries and actions.

`MODULES` is the explicit table of those files. An operation exists for the socket, for `sd` and for the
generated documents when its module is named here, and for nobody otherwise; nothing registers itself by
being imported.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vdfs.ops.registry import Registry

MODULES: tuple[str, ...] = (
    "vdfs.ops.core",
    "vdfs.ops.files",
    "vdfs.ops.index",
    "vdfs.ops.locations",
    "vdfs.ops.search",
    "vdfs.ops.tags",
)


def load() -> "Registry":
    """The registry of all operations. TypeError or ValueError names the operation that is not well formed."""
    from vdfs.ops.registry import Registry

    return Registry.of(importlib.import_module(name) for name in MODULES)
