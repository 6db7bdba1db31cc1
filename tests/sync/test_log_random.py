"""Whatever devices do and in whatever order they hear of it, in the end all say the same."""

import os
import random

import pytest

from index.model import ids
from index.model.errors import MissingDependency, SnapshotNeeded
from index.store import entries, gaps, streams
from sync.log import epochs
from sync.log.messages import At
from tests.sync.world import DIRECTORY, LINK, Device, assert_equal, introduce, settle

NAMES = [b"a", b"b", b"c", b"d", b"\xff\xfe", b"e" * 255]
TAGS = ["red", "green", "blue"]


class Story:
    """One seed: devices, what they do, who tells whom."""

    def __init__(self, directory, seed: int, count: int) -> None:
        self.luck = random.Random(seed)
        self.now_ms = 1_700_000_000_000
        self.devices = [Device(directory, f"{seed}-{name}", self.now) for name in "abcd"[:count]]
        introduce(*self.devices)
        self.roots = {}
        for one in self.devices:
            self.roots[one.name] = [one.branch(name) for name in (b"Photos", b"Files", one.name.encode())]

    def now(self) -> int:
        """Time goes on, or does not, or backwards."""
        self.now_ms += self.luck.choice([0, 0, 1, 5, -3])
        return self.now_ms * 1_000_000

    def step(self) -> None:
        one = self.luck.choice(self.devices)
        self.luck.choice([self.add, self.add, self.move, self.rewrite, self.remove, self.annotate, self.annotate,
                          self.talk, self.talk, self.broken_talk, self.acknowledge, self.restart,
                          self.state])(one)  # fmt: skip

    def mine(self, one: Device, kind: str = "kind IN (0, 1, 2)") -> list[int]:
        sql = f"SELECT id FROM entry WHERE uid>=0 AND parent_id IS NOT NULL AND {kind} ORDER BY id"
        return [row[0] for row in one.db.execute(sql)]

    def place(self, one: Device) -> tuple[int, bytes]:
        return self.luck.choice(self.mine(one, "kind=1") + self.roots[one.name] * 2), self.luck.choice(NAMES)

    def add(self, one: Device) -> None:
        parent, name = self.place(one)
        if entries.child(one.db, parent, name) is not None:
            return
        kind = self.luck.randrange(6)
        if kind == 0:
            one.add(parent, name, LINK, b"target")
        elif kind < 3:
            one.add(parent, name, DIRECTORY)
        else:
            data = b"%d" % self.luck.randrange(4) * self.luck.randrange(2)
            one.add(parent, name, data=data, identified=self.luck.random() < 0.8)

    def move(self, one: Device) -> None:
        mine = self.mine(one)
        if not mine:
            return
        entry_id, (parent, name) = self.luck.choice(mine), self.place(one)
        row, above = entries.get(one.db, entry_id), entries.get(one.db, parent)
        if entries.is_below(one.db, parent, entry_id) or entries.child(one.db, parent, name) is not None:
            return
        if row.branch_id == above.branch_id:
            one.move(entry_id, parent, name)

    def rewrite(self, one: Device) -> None:
        mine = self.mine(one, "kind=0")
        if mine:
            one.rewrite(self.luck.choice(mine), b"%d" % self.luck.randrange(4))

    def remove(self, one: Device) -> None:
        mine = self.mine(one)
        if mine and self.luck.random() < 0.5:
            one.remove(self.luck.choice(mine))

    def annotate(self, one: Device) -> None:
        known = [
            row[0] for row in one.db.execute("SELECT DISTINCT uuid FROM entry WHERE uuid IS NOT NULL ORDER BY uuid")
        ]
        uuid = self.luck.choice(known)
        kind = self.luck.randrange(4)
        if kind == 0:
            one.note(uuid, b"user.note", self.luck.choice([b"x", b"y", None]))
        elif kind == 1:
            one.untag(uuid, self.luck.choice(TAGS))
        else:
            one.tag(uuid, *self.luck.sample(TAGS, self.luck.randrange(1, 3)))

    def talk(self, one: Device) -> None:
        other = self.luck.choice([d for d in self.devices if d is not one])
        one.tell(other, self.luck.choice([1, 2, 5, 50]))

    def broken_talk(self, one: Device) -> None:
        """A few pages, the last of them half applied."""
        other = self.luck.choice([d for d in self.devices if d is not one])
        try:
            for _, page in zip(range(self.luck.randrange(1, 4)), one.pages_for(other, 4), strict=False):
                steps = other.into.take(other.into.proven(page.head, page.body), lambda: 1)
                for _, _ in zip(range(self.luck.randrange(4)), steps, strict=False):
                    pass
                steps.close()
                break
        except (SnapshotNeeded, MissingDependency):
            pass

    def acknowledge(self, one: Device) -> None:
        for other in self.devices:
            if other is not one:
                one.acknowledge(other)
        self.luck.choice(self.devices).prune()

    def restart(self, one: Device) -> None:
        """Or a kill: what was committed is there."""
        one.store.close()
        one.open()

    def state(self, one: Device) -> None:
        if self.luck.random() < 0.3:
            one.give_state(self.luck.choice([d for d in self.devices if d is not one]))

    def end(self) -> None:
        settle(*self.devices, limit=self.luck.choice([1, 3, 50]))
        assert_equal(*self.devices)
        for one in self.devices:  # nobody came back from a copy
            assert not gaps.forks(one.db)
            for other in self.devices:
                places = [At(*row.id, row.seq, row.part_to, row.part_after) for row in streams.every(other.db)]
                assert other is one or not epochs.is_forgotten(one.store, places)
        for one in self.devices:
            one.store.close()


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEEDS", "60"))))
def test_all_end_equal(tmp_path, seed, monkeypatch):
    chance = random.Random(-seed)
    monkeypatch.setattr(ids, "random_bytes", chance.randbytes)
    monkeypatch.setattr(ids, "now_ns", lambda: 1_700_000_000_000_000_000)
    story = Story(tmp_path, seed, 2 + seed % 3)
    for _ in range(80):
        story.step()
    story.end()
