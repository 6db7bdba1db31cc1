"""``python3 -m ...posix DIR``: the same program as ``tools/check/posix``."""

import sys

from .program import main

sys.exit(main())
