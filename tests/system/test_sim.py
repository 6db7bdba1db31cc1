"""Whatever devices do, and whatever happens to them and between them, in the end all say the same.

Each case runs some seeds of the simulation (tests/sim); `tools/sim --seed N` tells one that failed, line by line. The
faults that are planted show that it would see them.
"""

import gc

import pytest

from tests.sim.plants import PLANTS
from tests.sim.story import tell

SEEDS, IN_CASE = 500, 20
LONG_SEEDS, IN_LONG_CASE = 10_000, 250


@pytest.fixture(autouse=True, scope="module")
def _is_light():
    """Each story ends with a collection: not of all that a run of tests holds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def end_equal(first: int, count: int) -> None:
    for seed in range(first, first + count):
        outcome = tell(seed)
        assert not outcome.faults, f"seed {seed} of tools/sim: {outcome.faults[0]}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, IN_CASE))
def test_devices_end_equal(first):
    end_equal(first, IN_CASE)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(SEEDS, LONG_SEEDS, IN_LONG_CASE))
def test_devices_end_equal_in_many_stories(first):
    end_equal(first, min(IN_LONG_CASE, LONG_SEEDS - first))


def test_a_seed_is_one_story():
    """The same seed is the same to the bit, and another one is not."""
    assert tell(7).digest == tell(7).digest
    assert tell(7).digest != tell(8).digest


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name):
    plant, only, first = PLANTS[name]
    for seed in [*range(first, SEEDS), *range(first)]:
        with plant():
            is_seen = bool(tell(seed, only=only).faults)
        if is_seen and not tell(seed, only=only).faults:  # what goes wrong without it, too, shows nothing
            print(f"{name}: found by seed {seed}")
            return
    pytest.fail(f"{name} was not found")
