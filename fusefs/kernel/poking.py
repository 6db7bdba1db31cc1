"""What pokes there are: what is done in the mount so that the kernel raises the events of what came from elsewhere.

How the poker does each is poker.py's, what the server answers is poked.py's. This imports nothing, for it is also the
poker's, which is to be there at once.
"""

from typing import Final

CREATE: Final = "create"  # a name came
REMOVE: Final = "remove"  # a name is gone
MOVE: Final = "move"  # it has another name, or lies in another directory
WRITE: Final = "write"  # other bytes
TOUCH: Final = "touch"  # other attributes
TOUCH_DIRECTORY: Final = "touch directory"  # more in a directory than is told one by one

#: A directory's inode number, and a name in it.
Place = tuple[int, bytes]
