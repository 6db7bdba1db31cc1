"""Open directories as growing snapshots, open files by number: positions and numbers never come to mean another."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs.kernel.handles import DirHandle, Handles, TextHandle
from index.model.entry import KIND_DIR, KIND_FILE
from index.model.errors import Invalid
from index.scan.mounts import Mount
from index.store.places import BranchRow
from vdfs.space.branches import Branch
from vdfs.space.content import Handle
from vdfs.space.nodes import Node


def lines(*names: bytes) -> list[tuple[bytes, Node]]:
    return [(name, Node(100 + i, KIND_FILE)) for i, name in enumerate(names)]


def names_in(handle: DirHandle) -> list[bytes | None]:
    return [None if line is None else line[0] for line in handle.names]


# -- directories -------------------------------------------------------------------------------------------------------


def test_the_first_listing_is_taken_as_it_is():
    """In its order."""
    handle = DirHandle(Node(1, KIND_DIR))
    handle.take(lines(b"b", b"a"))
    assert names_in(handle) == [b"b", b"a"]


def test_a_later_listing_adds_at_the_end_and_leaves_holes():
    """What was handed out as position 1 is still `a` or nothing; a name that came back has its old place."""
    handle = DirHandle(Node(1, KIND_DIR))
    handle.take(lines(b"a", b"b", b"c"))
    handle.take(lines(b"c", b"new", b"a"))
    assert names_in(handle) == [b"a", None, b"c", b"new"]
    handle.take(lines(b"b", b"new", b"newer"))
    assert names_in(handle) == [None, b"b", None, b"new", b"newer"]
    handle.take([])
    assert names_in(handle) == [None] * 5


def test_a_listing_of_a_directory_that_was_empty():
    """Nothing was handed out, so everything is new."""
    handle = DirHandle(Node(1, KIND_DIR))
    handle.take([])
    handle.take(lines(b"a"))
    handle.take(lines(b"b", b"a"))
    assert names_in(handle) == [b"a", b"b"]


def test_a_name_means_what_the_last_listing_says():
    """Its node may be another one now."""
    handle = DirHandle(Node(1, KIND_DIR))
    handle.take(lines(b"a"))
    fresh = lines(b"a")
    handle.take(fresh)
    assert handle.names[0][1] is fresh[0][1]


def test_a_listing_that_others_share_is_not_changed():
    """Two handles, and the listing that is kept ready, are one list at first."""
    shared = lines(b"a", b"b")
    first, second = DirHandle(Node(1, KIND_DIR)), DirHandle(Node(1, KIND_DIR))
    first.take(shared)
    second.take(shared)
    first.take(lines(b"c"))
    assert [name for name, _ in shared] == [b"a", b"b"]
    assert names_in(second) == [b"a", b"b"]
    assert names_in(first) == [None, None, b"c"]


LISTING = st.lists(st.sampled_from([b"%d" % i for i in range(8)]), unique=True)


@given(st.lists(LISTING, min_size=1, max_size=6))
def test_a_position_means_one_name_for_ever(listings):
    """Whatever comes and goes; and each snapshot is exactly the last listing."""
    handle = DirHandle(Node(1, KIND_DIR))
    meant: dict[int, bytes] = {}
    for listing in listings:
        handle.take(lines(*listing))
        for position, name in enumerate(names_in(handle)):
            if name is not None:
                assert meant.setdefault(position, name) == name
        present = [name for name in names_in(handle) if name is not None]
        assert sorted(present) == sorted(listing)
    assert len(set(meant.values())) == len(meant)


# -- numbers -----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_a_number_is_not_given_twice(closings):
    """A late request for a closed handle hits no other."""
    handles = Handles()
    given_out: list[int] = []
    open_now: list[int] = []
    for closing in closings:
        if closing and open_now:
            assert handles.pop(open_now.pop()) is not None
        else:
            number = handles.add(TextHandle(None, b""))
            assert number not in given_out
            given_out.append(number)
            open_now.append(number)
        assert len(handles) == len(open_now)


def test_a_handle_is_asked_for_as_what_it_is():
    """A file where a directory was meant, or nothing: Invalid, never the wrong thing."""
    handles = Handles()
    text, directory = TextHandle(None, b"x"), DirHandle(None)
    file_number, directory_number = handles.add(text), handles.add(directory)
    assert handles.file(file_number) is text
    assert handles.directory(directory_number) is directory
    for ask, number in (
        (handles.file, directory_number), (handles.directory, file_number), (handles.file, 999), (handles.directory, 0),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            ask(number)


def test_a_closed_handle_is_gone():
    """The second release finds nothing and does no harm."""
    handles = Handles()
    number = handles.add(DirHandle(None))
    assert isinstance(handles.pop(number), DirHandle)
    assert handles.pop(number) is None
    with pytest.raises(Invalid):
        handles.directory(number)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_APPEND])
@pytest.mark.parametrize("fs_type", ["ext4", "fuse.sshfs"])
def test_at_the_end_every_descriptor_is_closed(tmp_path, flags, fs_type):
    """Also the second one of a handle that appends; on a slow branch in a thread, as closing may wait for a server."""
    path = tmp_path / "file"
    path.write_bytes(b"data")
    node = Node(70, KIND_FILE)
    row = BranchRow(1, b"b" * 16, 1, b"d" * 16, "label", os.fsencode(tmp_path), "fs", 1, 1, "done", None, None)
    branch = Branch(row, b"Place", [Mount(b"/", fs_type, "source", "1:1")], [])
    before = open_descriptors(path)
    handles = Handles()
    for _ in range(3):
        handles.add(Handle(node, branch, os.open(path, flags), flags))
    handles.add(DirHandle(node))
    assert len(node.handles) == 3
    assert open_descriptors(path) > before
    for handle in handles.take_files():
        handle.close()
    assert (len(handles), node.handles) == (0, ())
    until_s = time.monotonic() + 10
    while open_descriptors(path) != before and fs_type != "ext4" and time.monotonic() < until_s:
        time.sleep(0.001)
    assert open_descriptors(path) == before


def open_descriptors(path) -> int:
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{fd}") == str(path)
        except OSError:
            continue
    return found
