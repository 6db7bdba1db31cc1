"""The simulation as a program; tools/sim says how it is called."""

import argparse
import contextlib
import gc
import hashlib
import sys
import time

from tests.sim.plants import PLANTS
from tests.sim.story import tell


def seeds(text: str) -> range:
    """A..B, the last one not included."""
    first, dots, end = text.partition("..")
    if not (dots and first.isdecimal() and end.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not of the form A..B, as in 0..100")
    return range(int(first), int(end))


def main() -> int:
    """Returns the exit code: 0 when all seeds end equal, 1 when one does not."""
    parser = argparse.ArgumentParser(prog="tools/sim", description="devices that agree, as a seed has it")
    parser.add_argument("--seed", type=int, help="tell this seed, line by line")
    parser.add_argument("--seeds", type=seeds, default="0..100", help="run these: A..B, the last one not included")
    parser.add_argument("--steps", type=int, help="so many steps instead of what the seed says: to shrink a fault")
    parser.add_argument("--without", default="", help="what is not to happen, by commas: revoke,roll_back,…")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="with a fault put in on purpose; ends when it is found")
    given = parser.parse_args()
    without = given.without.split(",")
    plant, only, _ = PLANTS.get(given.plant, (contextlib.nullcontext, (), 0))
    gc.freeze()  # each story ends with a collection: not of what is loaded
    with plant():
        if given.seed is not None:
            outcome = tell(given.seed, given.steps, without, only)
            print("\n".join(outcome.lines))
            print(f"seed {outcome.seed}: {'equal' if not outcome.faults else 'FAULT'}, digest {outcome.digest}")
            return 1 if outcome.faults else 0
        began_s, bad, count, digest = time.monotonic(), 0, 0, hashlib.sha256()
        for seed in given.seeds:
            outcome = tell(seed, given.steps, without, only)
            count += 1
            digest.update(outcome.digest.encode())
            if outcome.faults:
                bad += 1
                print(f"seed {seed}: {outcome.faults[0].strip()[-400:]}", flush=True)
                if given.plant:
                    break
    print(f"{count} seeds in {time.monotonic() - began_s:.0f} s, {bad} with faults, digest {digest.hexdigest()[:32]}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
