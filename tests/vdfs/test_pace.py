"""What goes on behind the requests gives way to them: one turn at a time, with room between two."""

import time
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from vdfs.base import pace
from vdfs.base.pace import Pace

STEPS = 20


@pytest.mark.parametrize("is_used", [True, False])
def test_a_request_that_came_in_a_turn_is_answered_before_the_next_one(is_used):
    """However many steps it takes, while somebody works at the mount; else nobody rests for it."""
    done: list[str] = []
    came = trio.Event()

    async def request() -> None:
        await came.wait()
        for _ in range(STEPS):
            await trio.lowlevel.checkpoint()
        done.append("answer")

    async def behind(pace: Pace) -> None:
        for number in range(2):
            async with pace.turn():
                done.append(f"unit {number}")
                came.set()
                time.sleep(0.002)  # noqa: ASYNC251  (as a unit does: the loop stands still)

    async def main() -> None:
        pace = Pace()
        if is_used:
            pace.asked()
        assert pace.is_used == is_used
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request)
            nursery.start_soon(behind, pace)

    # Sleeping ends when nobody has a step to take: what happens in a rest is what would, had the machine the time.
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert done == (["unit 0", "answer", "unit 1"] if is_used else ["unit 0", "unit 1", "answer"])


def test_nobody_has_a_turn_beside_another():
    """Also while one rests, and when a unit fails."""
    inside: list[int] = []

    async def behind(pace: Pace, number: int) -> None:
        for _ in range(3):
            with pytest.raises(ValueError, match="a unit that fails"):
                async with pace.turn():
                    inside.append(number)
                    assert inside == [number]
                    await trio.lowlevel.checkpoint()
                    inside.remove(number)
                    raise ValueError("a unit that fails")

    async def main() -> None:
        pace = Pace()
        pace.asked()
        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(behind, pace, number)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(("is_asking", "waited"), [(False, False), (True, True)])
def test_a_turn_waits_for_a_gap_between_requests_but_not_for_ever(is_asking, waited, monkeypatch):
    """Who asks again and again delays it by some thousandths of a second; where nobody has asked it begins at once."""
    # One clock, however slow the machine.
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=trio.current_time))

    async def main() -> float:
        paced = Pace()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                while is_asking:
                    paced.asked()
                    await trio.sleep(0.0001)

            nursery.start_soon(ask)
            await trio.sleep(0.001)
            began_s = trio.current_time()
            async with paced.turn():
                came_s = trio.current_time()
            nursery.cancel_scope.cancel()
        return came_s - began_s

    took_s = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert (0.0005 < took_s < 0.01) if waited else took_s == 0
