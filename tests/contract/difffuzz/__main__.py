"""``python3 -m ...difffuzz``: the same program as ``tools/check/difffuzz``."""

import sys

from .program import main

sys.exit(main())
