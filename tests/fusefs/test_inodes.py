"""The ledger of lookup counts, held against a model of what a kernel does: any order of replies and FORGETs."""

import os
from types import SimpleNamespace

import pyfuse3
import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fusefs.kernel.inodes import Ledger
from fusefs.kernel.listings import Listings
from fusefs.operations import Operations
from index.model.errors import Stale
from vdfs.space.nodes import Node

ROOT = pyfuse3.ROOT_INODE


def node(ino: int) -> Node:
    return Node(ino, 0)


@pytest.fixture
def ledger():
    return Ledger(node(ROOT))


def test_the_root_is_always_known(ledger):
    """The kernel never looked it up and may forget it as often as it likes."""
    root = ledger.get(ROOT)
    ledger.forget(ROOT, 1)
    ledger.forget(ROOT, 1 << 40)
    assert ledger.get(ROOT) is root
    assert len(ledger) == 1


def test_a_node_is_known_until_its_last_reply_is_forgotten(ledger):
    """Counts are given back in any portions."""
    file = node(70)
    for _ in range(5):
        ledger.remember(file)
    ledger.forget(70, 2)
    ledger.forget(70, 2)
    assert ledger.get(70) is file
    ledger.forget(70, 1)
    with pytest.raises(Stale):
        ledger.get(70)
    assert len(ledger) == 1


def test_a_number_that_was_never_told_is_stale(ledger):
    """ESTALE, so that the kernel looks the name up again; `find` just says None."""
    with pytest.raises(Stale):
        ledger.get(71)
    assert ledger.find(71) is None
    ledger.forget(71, 3)
    assert len(ledger) == 1


def test_a_forgotten_file_without_a_name_gives_its_space_back(ledger, tmp_path):
    """Whoever still refers to its node: an error's traceback may do so until the garbage is collected."""
    file = node(70)
    (tmp_path / "f").write_bytes(b"x")
    file.ghost_fd = held = os.open(tmp_path / "f", os.O_PATH)
    server = SimpleNamespace(listings=Listings(), ledger=ledger)
    ledger.remember(file)
    ledger.remember(file)
    trio.run(Operations.forget, server, [(70, 1)])
    assert os.fstat(held).st_nlink == 1
    trio.run(Operations.forget, server, [(70, 1)])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held)
    file.drop_ghost()  # once more does no harm


def test_a_late_forget_hits_nobody(ledger):
    """More was given back than was told: the number is gone, and a new reply counts from one."""
    ledger.remember(node(70))
    ledger.forget(70, 9)
    ledger.forget(70, 9)
    ledger.remember(node(70))
    assert ledger.find(70) is not None
    ledger.forget(70, 1)
    assert ledger.find(70) is None


def test_the_last_node_told_of_a_number_is_the_one(ledger):
    """A node that was made anew takes the place, the counts go on."""
    old, new = node(70), node(70)
    ledger.remember(old)
    ledger.remember(new)
    assert ledger.get(70) is new
    ledger.forget(70, 1)
    assert ledger.get(70) is new
    ledger.forget(70, 1)
    assert ledger.find(70) is None


class Kernel(RuleBasedStateMachine):
    """A kernel that counts the replies it got, and the ledger beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(node(ROOT))
        self.counts: dict[int, int] = {}
        self.latest: dict[int, Node] = {}

    @rule(ino=st.integers(65, 70))
    def reply(self, ino: int) -> None:
        told = node(ino)
        self.ledger.remember(told)
        self.counts[ino] = self.counts.get(ino, 0) + 1
        self.latest[ino] = told

    @rule(ino=st.integers(65, 70), portion=st.integers(1, 4))
    def forget(self, ino: int, portion: int) -> None:
        count = min(portion, self.counts.get(ino, 0))
        if count:
            self.ledger.forget(ino, count)
            self.counts[ino] -= count

    @rule(count=st.integers(0, 5))
    def forget_the_root(self, count: int) -> None:
        self.ledger.forget(ROOT, count)

    @invariant()
    def what_the_kernel_holds_is_known_and_nothing_else(self) -> None:
        held = {ino for ino, count in self.counts.items() if count}
        assert {n.ino for n in self.ledger.nodes()} == held | {ROOT}
        for ino in held:
            assert self.ledger.get(ino) is self.latest[ino]


TestKernel = Kernel.TestCase
TestKernel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
