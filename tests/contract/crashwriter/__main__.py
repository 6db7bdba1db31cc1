"""``python3 -m ...crashwriter``: the same program as ``tools/check/crashwriter``."""

import sys

from .program import main

sys.exit(main())
