"""Branches of other devices: what they hold is known by their rows, which these devices told.

In: rows of branch and device, and who is connected. Out: objects that stand where a branch of ours would, in
directories, nodes and listings, and answer for themselves: never there to be asked, so nothing is opened, watched,
walked, hashed or mended. The tree keeps them apart from our own (`Holdings.remotes`), so that whoever goes through
the branches of this device meets none of these.

Rows of other devices are told by commits of origin `sync`, so what is known of them is as good as what a watch reports.
"""

import math
import os
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from index.model.errors import ReadOnly, Unreachable
from index.store.devices import Device
from index.store.places import BranchRow
from vdfs.space.branches import MISSING, OFFLINE, REMOTE, Branch

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class RemoteBranch(Branch):
    """A branch of another device. `root_path` is what its owner calls it, and is for people alone."""

    is_remote = True

    def __init__(self, row: BranchRow, location: bytes | None, owner: Device, *, is_online: bool) -> None:
        super().__init__(row, location, [], [])
        self.slug = owner.slug
        self.device_name = owner.name
        self.is_online = is_online
        self.state = MISSING
        self.checked_s = math.inf  # there is nothing to look at again

    def follow(self, now: "RemoteBranch") -> None:
        """What its owner says of it is this now."""
        self.label, self.slug, self.device_name, self.root_path = now.label, now.slug, now.device_name, now.root_path

    @property
    def away(self) -> str:
        """One word for what its files are: remote while their device is connected, else offline."""
        return REMOTE if self.is_online else OFFLINE

    def unreachable(self, name: bytes) -> Unreachable:
        """Why bytes cannot be had."""
        return Unreachable(f"{os.fsdecode(name)} is on {self.device_name} alone, and was not fetched from there")

    def refusal(self, name: bytes) -> ReadOnly:
        """Why nothing is changed."""
        return ReadOnly(f"{os.fsdecode(name)} is on {self.device_name} alone, and can be changed there only")

    def open_root(self) -> int:
        raise Unreachable(f"{self.label} is a directory of {self.device_name}")

    async def call(
        self,
        deadline_s: float,
        function: Callable[[*Ts], T],
        *args: *Ts,
        drop: Callable[[T], object] | None = None,
    ) -> T:
        raise Unreachable(f"{self.label} is a directory of {self.device_name}")

    def check(self) -> bool:
        return False

    async def check_slow(self) -> bool:
        return False
