"""Listings kept ready: bounded by their lines, the least recently used go, and who goes takes his answers along."""

import gc
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fusefs.kernel.listings import LINES_MAX, Listing, Listings
from index.model.entry import KIND_DIR, KIND_FILE
from vdfs.space.nodes import Node


def directory(ino: int = 2) -> Node:
    return Node(ino, KIND_DIR)


def listing(count: int) -> Listing:
    """Of so many names, each with an answer prepared."""
    lines = []
    for i in range(count):
        child = Node(100 + i, KIND_FILE)
        child.face = object()
        lines.append((b"%d" % i, child))
    return Listing(lines)


def test_a_listing_lies_on_its_directory():
    """And is found there."""
    node, kept = directory(), listing(3)
    Listings(100).keep(node, kept)
    assert node.listing is kept


def test_the_least_recently_used_goes_first():
    """When the lines are too many; one that was used stays."""
    listings, nodes = Listings(40), [directory(i) for i in range(5)]
    for node in nodes[:4]:
        listings.keep(node, listing(9))
    listings.used(nodes[0])
    listings.keep(nodes[4], listing(9))
    assert [node.listing is not None for node in nodes] == [True, False, True, True, True]


def test_a_listing_that_goes_takes_its_prepared_answers_along():
    """They are most of what it weighs; the nodes themselves may live on."""
    listings, first, kept = Listings(8), directory(1), listing(1)
    listings.keep(first, kept)
    for i in range(2, 9):
        listings.keep(directory(i), listing(1))
    assert first.listing is None
    assert kept.lines[0][1].face is None


def test_a_listing_dropped_meanwhile_does_no_harm():
    """Its directory changed: its turn to go comes, and it is gone already."""
    listings, first = Listings(40), directory(1)
    listings.keep(first, listing(9))
    first.names_changed()
    assert first.listing is None
    for i in range(2, 8):
        listings.keep(directory(i), listing(9))
    listings.keep(first, listing(9))
    assert first.listing is not None


@pytest.mark.parametrize("forgotten_first", [False, True])
def test_a_directory_that_went_is_let_go(forgotten_first):
    """A tree that is made and removed a thousand times leaves nothing here; one that is only forgotten keeps its
    listing."""
    listings, there, gone = Listings(40), directory(1), directory(2)
    for node in (gone, there):
        listings.keep(node, listing(9))
    if forgotten_first:
        listings.forgotten(gone)
    gone.names_changed()
    if forgotten_first:
        listings.keep(directory(3), listing(9))
    else:
        listings.forgotten(gone)
    listings.forgotten(there)
    known = weakref.ref(gone)
    del gone, node
    gc.collect()
    assert known() is None
    assert there.listing is not None


def test_one_huge_directory_does_not_push_out_all_others():
    """What is more than a quarter of the room is not kept at all."""
    listings, small, huge = Listings(40), directory(1), directory(2)
    listings.keep(small, listing(2))
    listings.keep(huge, listing(10))
    assert small.listing is not None
    assert huge.listing is None


def test_a_directory_that_is_listed_again_counts_once():
    """Its newest listing."""
    listings, node, other = Listings(20), directory(1), directory(2)
    listings.keep(other, listing(4))
    for _ in range(20):
        listings.keep(node, listing(4))
    assert other.listing is not None
    assert node.listing is not None


def test_an_empty_directory_weighs_something_too():
    """Millions of them would be millions of entries here."""
    listings, nodes = Listings(10), [directory(i) for i in range(30)]
    for node in nodes:
        listings.keep(node, listing(0))
    assert sum(node.listing is not None for node in nodes) == 10


def test_the_room_is_what_the_documents_say():
    """200 000 lines."""
    assert LINES_MAX == 200_000


class Directories(RuleBasedStateMachine):
    """Directories are listed, used and changed in any order."""

    ROOM = 24

    def __init__(self) -> None:
        super().__init__()
        self.listings = Listings(self.ROOM)
        self.nodes = [directory(i) for i in range(6)]

    @rule(which=st.integers(0, 5), count=st.integers(0, 8))
    def list_it(self, which: int, count: int) -> None:
        node = self.nodes[which]
        if node.listing is None:
            self.listings.keep(node, listing(count))

    @rule(which=st.integers(0, 5))
    def use_it(self, which: int) -> None:
        if self.nodes[which].listing is not None:
            self.listings.used(self.nodes[which])

    @rule(which=st.integers(0, 5))
    def change_it(self, which: int) -> None:
        self.nodes[which].names_changed()

    @rule(which=st.integers(0, 5))
    def the_kernel_forgets_it(self, which: int) -> None:
        self.listings.forgotten(self.nodes[which])

    @invariant()
    def the_room_is_never_exceeded(self) -> None:
        assert sum(len(n.listing.lines) + 1 for n in self.nodes if n.listing is not None) <= self.ROOM


TestDirectories = Directories.TestCase
TestDirectories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
