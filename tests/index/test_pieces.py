"""Work that is shared out: everything once, by so many at a time, and an error ends it."""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from index.model.errors import Unreachable
from index.scan import pieces

trees = st.recursive(st.just([]), lambda below: st.lists(below, max_size=6), max_leaves=60)


def numbered(tree) -> dict[int, list[int]]:
    """A tree as number -> numbers below it."""
    below: dict[int, list[int]] = {}

    def number(node) -> int:
        mine = len(below)
        below[mine] = []
        below[mine].extend(number(child) for child in node)
        return mine

    number(tree)
    return below


@settings(deadline=None)
@given(trees, st.integers(1, 5))
def test_every_part_of_a_tree_is_worked_on_once(tree, patience):
    below = numbered(tree)
    done: list[int] = []
    running = at_once = 0

    async def work(piece: list[int]) -> list[int]:
        nonlocal running, at_once
        running += 1
        at_once = max(at_once, running)
        await trio.lowlevel.checkpoint()
        left = list(piece)
        for _ in range(patience):
            if left:
                here = left.pop(0)
                done.append(here)
                left.extend(below[here])
        running -= 1
        return left

    trio.run(pieces.shared_out, [0], work)
    assert sorted(done) == sorted(below)
    assert at_once <= pieces.SHARES


def test_a_wide_tree_is_shared_and_no_piece_is_long():
    sizes: list[int] = []
    together: list[int] = []
    running = 0

    async def work(piece: list[int]) -> list[int]:
        nonlocal running
        sizes.append(len(piece))
        running += 1
        await trio.lowlevel.checkpoint()
        together.append(running)
        running -= 1
        return list(range(1, 5_000)) if piece == [0] else []

    trio.run(pieces.shared_out, [0], work)
    assert sum(sizes) == 5_000
    assert max(sizes) <= pieces.PIECE_MAX
    assert max(together) == pieces.SHARES


def test_the_error_of_one_piece_ends_the_others():
    ended = []

    async def work(piece: list[int]) -> list[int]:
        if piece == [0]:
            return [1, 2]
        if piece == [1]:
            raise Unreachable("its disk is gone")
        try:
            await trio.sleep_forever()
        finally:
            ended.append(piece)
        return []

    with pytest.raises(Unreachable, match="its disk is gone"):
        trio.run(pieces.shared_out, [0], work)
    assert ended == [[2]]
