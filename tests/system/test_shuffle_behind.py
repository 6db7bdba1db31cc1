"""Trees shuffled behind the mount, many steps at a time: directories take the place of the one they were in, names
swap, files are linked across locations, and nobody looks until it is over. In a second or two the mount and the index
say what the disk says.

In tests/system/test_union_behind.py each step is seen before the next; here the watcher sees a heap of events whose
order tells it little.
"""

import os

import pytest

from tests.system.harness import Mounted
from tests.system.shuffle import Shuffle


def ends_equal(library: Mounted, bursts: int, seed: int) -> None:
    print(f"seed {seed}")
    shuffle = Shuffle(library, seed)
    for number in range(bursts):
        shuffle.burst()
        shuffle.compare(closely=number % 10 == 9)


def test_shuffled_trees_end_equal(library):
    ends_equal(library, 60, 1)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_shuffled_trees_end_equal_for_long(library):
    ends_equal(library, 1500, int(os.environ.get("SDMOUNT_SEED", "7")))
