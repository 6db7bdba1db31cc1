"""When a peer is dialled and which link stays: one policy alone, then two over a network that misbehaves."""

import heapq
import itertools
import math
from collections import Counter
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sync.net.addresses import Endpoint
from sync.net.dialing import (
    BURST_ROUNDS,
    CONTEST_S,
    GRACE_S,
    LASTING_S,
    LONGEST_WAIT_S,
    MAX_ADDRESSES,
    MAX_LINKS,
    ROUND_EVERY_S,
    ROUND_S,
    SECOND_S,
    Abandon,
    Close,
    Dial,
    Dialing,
    Probe,
)

LOW, HIGH = b"\x01" * 16, b"\x02" * 16
#: What a minute may bring at most, however often it is hurried.
DIALS_A_MINUTE = (BURST_ROUNDS + math.ceil(60 / ROUND_EVERY_S)) * MAX_ADDRESSES * 2


def places(count: int, first: int = 1) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{first + i}", 4000) for i in range(count)]


class Alone:
    """One policy, its clock, and all that it did, with the time."""

    def __init__(self, ours: bytes = LOW, theirs: bytes = HIGH) -> None:
        self.now_s = 100.0
        self.policy = Dialing(ours, theirs, Random(7), self.now_s)
        self.done: list[tuple[float, object]] = []

    def tell(self, event: str, *arguments: object) -> list[object]:
        actions = getattr(self.policy, event)(*arguments, self.now_s)
        self.done += [(self.now_s, action) for action in actions]
        return actions

    def run(self, seconds: float) -> None:
        """Let time pass, from one thing that is due to the next."""
        until_s = self.now_s + seconds
        while self.policy.due_s <= until_s:
            self.now_s = max(self.now_s, self.policy.due_s)
            self.tell("tick")
        self.now_s = until_s

    def dials(self) -> list[tuple[float, Endpoint]]:
        return [(round(at_s - 100.0, 3), action.endpoint) for at_s, action in self.done if isinstance(action, Dial)]

    def starts(self) -> list[float]:
        """When rounds began: within one, less than a second passes between dials."""
        times = [-math.inf, *(at_s for at_s, _ in self.dials())]
        return [at_s for before_s, at_s in itertools.pairwise(times) if at_s - before_s > 1.0]


# -- rounds ------------------------------------------------------------------------------------------------------------


def test_all_addresses_are_dialled_one_shortly_after_the_other_and_each_twice():
    """150 ms apart; a SYN may be lost, so there is a second after 300 ms; after 2.5 s all is abandoned."""
    alone = Alone()
    alone.tell("addresses", places(3))
    alone.run(3.0)
    assert [at_s for at_s, where in alone.dials() if where == places(3)[0]] == [0.0, SECOND_S]
    assert sorted({at_s for at_s, _ in alone.dials()}) == pytest.approx([0.0, 0.15, 0.3, 0.45, 0.6])
    assert len(alone.dials()) == 6
    assert [at_s - 100.0 for at_s, action in alone.done if isinstance(action, Abandon)] == [ROUND_S] * 6


def test_no_more_than_eight_addresses_are_dialled_in_a_round():
    alone = Alone()
    alone.tell("addresses", places(64))
    alone.run(3.0)
    assert {where for _, where in alone.dials()} == set(places(MAX_ADDRESSES))


def test_a_refusal_lets_the_next_address_begin_at_once_and_is_not_repeated():
    """Nobody waits for the time of an address that has answered already."""
    alone = Alone()
    (first,) = alone.tell("addresses", places(3))
    alone.now_s += 0.01
    (second,) = alone.tell("attempt_failed", first.attempt)
    assert second.endpoint == places(3)[1]
    alone.run(2.4)
    assert [at_s for at_s, where in alone.dials() if where == places(3)[0]] == [0.0]
    assert [at_s for at_s, where in alone.dials() if where == places(3)[2]] == pytest.approx([0.16, 0.46])


def test_a_round_of_refusals_ends_before_its_time():
    alone = Alone()
    (first,) = alone.tell("addresses", places(1))
    alone.tell("attempt_failed", first.attempt)
    assert 100.7 < alone.policy.due_s < 101.3


def test_waits_grow_to_a_minute_and_are_never_alike():
    """1, 2, 4 … 60 s between rounds, each a quarter shorter or longer."""
    alone = Alone()
    alone.tell("addresses", places(1))
    alone.run(700.0)
    waits = [later - before - ROUND_S for before, later in itertools.pairwise(alone.starts())]
    for wait_s, usual_s in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=False):
        assert 0.75 * usual_s <= wait_s <= 1.25 * usual_s
    assert len(waits) >= 9
    assert len({round(wait_s / usual_s, 6) for wait_s, usual_s in zip(waits[-3:], [60] * 3, strict=True)}) == 3


@pytest.mark.parametrize("how", ["a new address", "another network"])
def test_news_begin_the_waits_anew(how):
    alone = Alone()
    alone.tell("addresses", places(1))
    alone.run(200.0)
    assert alone.policy.due_s > alone.now_s + 20
    alone.done.clear()
    if how == "a new address":
        alone.tell("addresses", places(2))
    else:
        alone.tell("network_changed")
    alone.run(5.0)
    assert alone.dials()[0][0] == 200.0
    assert len(alone.starts()) == 2


def test_addresses_that_were_known_are_no_news():
    """Discovery repeats itself for ever."""
    alone = Alone()
    alone.tell("addresses", places(3))
    alone.run(200.0)
    due_s = alone.policy.due_s
    alone.tell("addresses", places(3)[::-1])
    assert alone.policy.due_s == due_s


def test_an_address_that_comes_during_a_round_is_dialled_in_it():
    """The one that was remembered is old; the true one is heard half a second later."""
    alone = Alone()
    alone.tell("addresses", places(1))
    alone.run(0.5)
    assert [action.endpoint for action in alone.tell("addresses", places(2))] == [places(2)[1]]


def test_a_storm_of_news_does_not_become_a_storm_of_dials():
    """However many addresses a hostile neighbour tells of, a minute has its limit."""
    alone = Alone()
    for i in range(12_000):
        alone.tell("addresses", places(60, first=i % 150))
        alone.tell("network_changed")
        alone.run(0.01)
    times = [at_s for at_s, _ in alone.dials()]
    for i, at_s in enumerate(times):
        assert sum(1 for later in times[i:] if later < at_s + 60) <= DIALS_A_MINUTE
        if i > 400:
            break
    assert len(times) > 20


def test_the_higher_id_leaves_it_to_the_other_for_a_while():
    """It dials all the same: it may be the only one who knows an address. News without end put that off by nothing."""
    alone = Alone(HIGH, LOW)
    for i in range(100):
        alone.tell("addresses", places(2, first=i))
        alone.run(0.1)
    assert alone.dials()[0][0] == pytest.approx(GRACE_S, abs=0.11)


def test_nobody_is_dialled_without_an_address_with_a_link_or_when_not_wanted():
    alone = Alone()
    assert alone.policy.due_s == math.inf
    (dial,) = alone.tell("addresses", places(1))
    alone.tell("link_up", 1, dial.attempt)
    alone.run(100.0)
    assert alone.policy.due_s == math.inf
    assert alone.policy.stop() == [Close(1, "not wanted")]
    alone.run(100.0)
    assert len(alone.dials()) == 1
    assert alone.tell("link_up", 2, None) == [Close(2, "not wanted")]


# -- links -------------------------------------------------------------------------------------------------------------


def test_the_first_link_ends_the_round():
    """Other attempts are dropped, one that was too quick for that is closed before anything was said by it."""
    alone = Alone()
    alone.tell("addresses", places(2))
    alone.run(0.2)
    first, second = (action for _, action in alone.done)
    assert alone.tell("link_up", 1, first.attempt) == [Abandon(second.attempt)]
    assert alone.tell("link_up", 2, second.attempt) == [Close(2, "another attempt was quicker")]
    assert (alone.policy.current, alone.policy.links) == (1, {1})


@pytest.mark.parametrize("ours_is_lower", [True, False])
def test_of_two_links_the_one_that_the_lower_id_dialled_stays_once_it_has_carried_something(ours_is_lower):
    """Until then the other one is used and kept: it may be the only one that lives."""
    alone = Alone(*((LOW, HIGH) if ours_is_lower else (HIGH, LOW)))
    alone.tell("addresses", places(1))
    alone.run(3.1)
    dial = next(action for _, action in alone.done if isinstance(action, Dial))
    alone.tell("link_up", 1, dial.attempt)
    alone.tell("carried", 1)
    stays, goes = (1, 2) if ours_is_lower else (2, 1)
    assert alone.tell("link_up", 2, None) == [Probe(stays)]
    assert alone.policy.links == {1, 2}
    assert alone.tell("carried", goes) == []
    assert alone.tell("carried", stays) == [Close(goes, "another link stays")]
    assert (alone.policy.current, alone.policy.links) == (stays, {stays})
    assert alone.tell("link_down", goes) == []


def test_a_link_that_should_stay_and_is_dead_goes():
    """The peer dialled since it has lost the old link, of which we do not know yet."""
    alone = Alone()
    (dial,) = alone.tell("addresses", places(1))
    alone.tell("link_up", 1, dial.attempt)
    alone.tell("carried", 1)
    alone.run(50.0)
    assert alone.tell("link_up", 2, None) == [Probe(1)]
    assert alone.policy.current == 2
    alone.run(CONTEST_S)
    assert alone.done[-1][1] == Close(1, "silent")
    assert alone.policy.links == {2}


def test_of_two_links_of_the_peer_the_newer_stays():
    """It dials only when it has none, so its older one is dead."""
    alone = Alone(HIGH, LOW)
    alone.tell("link_up", 1, None)
    assert alone.tell("link_up", 2, None) == [Probe(2)]
    assert alone.tell("carried", 2) == [Close(1, "another link stays")]


def test_a_peer_that_heaps_up_links_gets_no_more_than_four():
    alone = Alone()
    for link in range(1, 20):
        alone.tell("link_up", link, None)
        assert len(alone.policy.links) <= MAX_LINKS
        assert link in alone.policy.links


def test_a_link_that_lasted_is_dialled_again_at_once():
    alone = Alone()
    (dial,) = alone.tell("addresses", places(1))
    alone.tell("link_up", 1, dial.attempt)
    alone.tell("carried", 1)
    alone.run(LASTING_S)
    assert [action.endpoint for action in alone.tell("link_down", 1)] == places(1)


def test_who_is_refused_after_each_handshake_dials_ever_more_rarely():
    """A link that ends at once is as good as none."""
    alone = Alone()
    alone.tell("addresses", places(1))
    links = itertools.count(1)
    times = []
    while len(times) < 12:
        alone.run(max(0.0, alone.policy.due_s - alone.now_s))
        last = alone.done[-1][1]
        assert isinstance(last, Dial)
        times.append(alone.now_s)
        link = next(links)
        alone.tell("link_up", link, last.attempt)
        alone.tell("carried", link)
        alone.run(0.1)
        alone.tell("link_down", link)
    assert times[-1] - times[-2] > LONGEST_WAIT_S / 2


def test_another_network_has_a_link_asked_whether_it_lives():
    alone = Alone()
    (dial,) = alone.tell("addresses", places(1))
    alone.tell("link_up", 1, dial.attempt)
    assert alone.tell("network_changed") == [Probe(1)]


# -- two of them, and a network that misbehaves ------------------------------------------------------------------------

#: How often a link is asked for a sign of life, and when it is given up: what the channel does.
PING_S, DEAD_S = 15.0, 23.0
#: How long it takes at most, with a network that is whole again, until both have one link and keep it: the death of
#: every old link is noticed, the longest wait passes twice, rounds are used up, and contests end.
SETTLE_S = 3 * LONGEST_WAIT_S


class End:
    """One side of a link."""

    def __init__(self, heard_s: float) -> None:
        self.is_up = False  # told to the policy
        self.is_gone = False
        self.heard_s = heard_s


class Wire:
    """A link as the network has it: who dialled it, and its two ends."""

    def __init__(self, number: int, dialler: int, attempt: int, now_s: float) -> None:
        self.number = number
        self.dialler = dialler
        self.attempt = attempt
        self.ends = (End(now_s), End(now_s))


class World:
    """Two devices, their policies, and everything that is under way between them, in order of time."""

    def __init__(self, seed: int, lower: int, is_heard: bool = True) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.ids = (LOW, HIGH) if lower == 0 else (HIGH, LOW)
        self.policies = [self._policy(side) for side in (0, 1)]
        self.reach = [True, True]  # whether a dial of this side gets through
        self.is_joined = True
        self.wires: dict[int, Wire] = {}
        self.dialled: list[list[float]] = [[], []]
        self._later: list[tuple[float, int, object]] = []
        self._order = itertools.count()
        self.several_s: list[float | None] = [None, None]  # since when a side has had more than one link
        self.contests = 0
        self.had_link = [False, False]
        self.empty = [0, 0]  # how often a side was left without a link
        self.reasons: Counter[str] = Counter()
        for side in (0, 1) if is_heard else ():
            self.act(side, self.policies[side].addresses(places(2), 0.0))

    def _policy(self, side: int) -> Dialing:
        return Dialing(self.ids[side], self.ids[1 - side], Random(self.random.random()), self.now_s)

    def lag_s(self) -> float:
        return self.random.choice([0.001, 0.02, 0.3]) * (1 + self.random.random())

    def after(self, seconds: float, what: object) -> None:
        heapq.heappush(self._later, (self.now_s + seconds, next(self._order), what))

    # what a policy wants

    def act(self, side: int, actions: list) -> None:
        for action in actions:
            match action:
                case Dial(attempt, _):
                    self.dialled[side].append(self.now_s)
                    self.after(self.lag_s(), lambda a=attempt: self.connect(side, a))
                case Abandon(attempt):
                    for wire in self.wires.values():
                        if (wire.dialler, wire.attempt) == (side, attempt):
                            self.hang_up(wire, side)
                case Close(link, reason):
                    self.reasons[reason] += 1
                    self.hang_up(self.wires[link], side)
                case Probe(link):
                    self.send(self.wires[link], side, "ping")
        count = len(self.policies[side].links)
        self.empty[side] += not count and self.had_link[side]
        self.had_link[side] = count > 0
        if count < 2:
            self.several_s[side] = None
        elif self.several_s[side] is None:
            self.contests += 1
            self.several_s[side] = self.now_s
        elif any(isinstance(action, Close) for action in actions):
            self.several_s[side] = self.now_s

    def connect(self, side: int, attempt: int) -> None:
        if self.policies[side]._round is None or attempt not in self.policies[side]._round.dialling:
            return  # abandoned meanwhile
        if not (self.reach[side] and self.is_joined):
            if self.random.random() < 0.5:
                self.act(side, self.policies[side].attempt_failed(attempt, self.now_s))
            return
        wire = Wire(len(self.wires) + 1, side, attempt, self.now_s)
        self.wires[wire.number] = wire
        self.after(self.lag_s(), lambda: self.shaken(wire))

    def shaken(self, wire: Wire) -> None:
        """The dialler's handshake is done. The other side takes the link for one when the first message is there."""
        end = wire.ends[wire.dialler]
        if end.is_gone:
            return
        end.is_up, end.heard_s = True, self.now_s
        self.act(wire.dialler, self.policies[wire.dialler].link_up(wire.number, wire.attempt, self.now_s))
        self.send(wire, wire.dialler, "hello")
        self.after(PING_S, lambda: self.watch(wire, wire.dialler))

    # what a channel does

    def send(self, wire: Wire, side: int, what: str) -> None:
        if not wire.ends[side].is_gone:
            self.after(self.lag_s(), lambda: self.deliver(wire, 1 - side, what))

    def deliver(self, wire: Wire, side: int, what: str) -> None:
        end = wire.ends[side]
        if end.is_gone or not self.is_joined:
            return  # what is lost for good is found out by watching
        if what == "end":
            self.lost(wire, side)
            return
        end.heard_s = self.now_s
        if not end.is_up:
            end.is_up = True
            self.after(PING_S, lambda: self.watch(wire, side))
            self.act(side, self.policies[side].link_up(wire.number, None, self.now_s))
            self.send(wire, side, "hello")
        if not end.is_gone:
            self.act(side, self.policies[side].carried(wire.number, self.now_s))
        if what == "ping":
            self.send(wire, side, "pong")

    def watch(self, wire: Wire, side: int) -> None:
        end = wire.ends[side]
        if end.is_gone:
            return
        if self.now_s - end.heard_s >= DEAD_S:
            self.lost(wire, side)
            return
        self.send(wire, side, "ping")
        self.after(PING_S, lambda: self.watch(wire, side))

    def hang_up(self, wire: Wire, side: int) -> None:
        self.send(wire, side, "end")
        wire.ends[side].is_gone = True

    def lost(self, wire: Wire, side: int) -> None:
        was_up, wire.ends[side].is_up = wire.ends[side].is_up, False
        wire.ends[side].is_gone = True
        if was_up:
            self.act(side, self.policies[side].link_down(wire.number, self.now_s))

    # what time and the world do

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while True:
            due_s = min([*(policy.due_s for policy in self.policies), *(at_s for at_s, _, _ in self._later[:1])])
            if due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            if self._later and self._later[0][0] <= self.now_s:
                heapq.heappop(self._later)[2]()
            else:
                for side, policy in enumerate(self.policies):
                    self.act(side, policy.tick(self.now_s))
            self.check()
        self.now_s = until_s

    def check(self) -> None:
        for side, policy in enumerate(self.policies):
            up = {wire.number for wire in self.wires.values() if wire.ends[side].is_up and not wire.ends[side].is_gone}
            assert policy.links == up
            assert len(up) <= MAX_LINKS
            since_s = self.several_s[side]
            assert since_s is None or self.now_s - since_s <= 2 * CONTEST_S, "two links last"

    def restart(self, side: int, in_silence: bool) -> None:
        """A process dies: the kernel says so to the other side, or the machine takes that with it."""
        for wire in self.wires.values():
            if in_silence:
                wire.ends[side].is_gone = True
            else:
                self.hang_up(wire, side)
            wire.ends[side].is_up = False
        self.policies[side] = self._policy(side)
        self.several_s[side] = None
        self.act(side, self.policies[side].addresses(places(2), self.now_s))

    def is_settled(self) -> bool:
        a, b = self.policies
        return len(a.links) == 1 and a.links == b.links and a.current == b.current


class TwoDevices(RuleBasedStateMachine):
    """Whatever happens, at most one link lasts; and when at least one can reach the other, there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(seed=st.integers(0, 2**32), lower=st.sampled_from([0, 1]))
    def begin(self, seed, lower):
        self.world = World(seed, lower)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.4, 1.0, 3.0, 10.0, 30.0]))
    def wait(self, seconds):
        self.world.run(seconds)

    @rule(side=st.sampled_from([0, 1]), can=st.booleans())
    def change_who_is_reached(self, side, can):
        self.world.reach[side] = can

    @rule(is_joined=st.booleans())
    def part_or_heal(self, is_joined):
        self.world.is_joined = is_joined

    @rule(side=st.sampled_from([0, 1]), in_silence=st.booleans())
    def restart(self, side, in_silence):
        self.world.restart(side, in_silence)

    @rule(side=st.sampled_from([0, 1]), data=st.data())
    def lose_a_link_on_one_side(self, side, data):
        links = sorted(self.world.policies[side].links)
        if links:
            self.world.lost(self.world.wires[data.draw(st.sampled_from(links))], side)

    @rule(side=st.sampled_from([0, 1]), first=st.integers(1, 200))
    def hear_of_addresses(self, side, first):
        world = self.world
        world.act(side, world.policies[side].addresses(places(3, first), world.now_s))

    @rule(side=st.sampled_from([0, 1]))
    def change_the_network(self, side):
        self.world.act(side, self.world.policies[side].network_changed(self.world.now_s))

    @rule(can=st.sampled_from([(True, True), (True, False), (False, True)]))
    def settle(self, can):
        """A whole network for a while: one link, the same on both sides, and it stays."""
        world = self.world
        world.is_joined, world.reach = True, list(can)
        world.run(SETTLE_S)
        assert world.is_settled()
        (link,) = world.policies[0].links
        world.run(60.0)
        assert world.is_settled()
        assert world.policies[0].links == {link}

    @invariant()
    def dials_are_bounded(self):
        for times in self.world.dialled if self.world else ():
            for i in range(len(times) - DIALS_A_MINUTE):
                assert times[i + DIALS_A_MINUTE] - times[i] >= 60.0

    def teardown(self):
        if self.world is not None:
            self.settle(can=(True, True))


TestTwoDevices = TwoDevices.TestCase
TestTwoDevices.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestTwoDevices.pytestmark = [pytest.mark.timeout(300)]


def test_both_dial_at_the_same_moment():
    """The lower id hears of an address just when the other one's patience ends. Two links come to be; one stays.

    On a network that is whole no side loses its last link by that.
    """
    met = 0
    for seed in range(300):
        world = World(seed, lower=seed % 2, is_heard=False)
        lower, higher = (0, 1) if world.ids[0] == LOW else (1, 0)
        world.act(higher, world.policies[higher].addresses(places(2), 0.0))
        world.run(GRACE_S + Random(seed).uniform(-0.5, 0.5))
        world.act(lower, world.policies[lower].addresses(places(2), world.now_s))
        world.run(2 * CONTEST_S)
        assert world.is_settled()
        assert world.empty == [0, 0], "nobody was without a link for a moment"
        met += world.contests > 0
    assert met > 10, "the race is seen at all"


def test_the_world_of_these_tests_has_races_and_deaths():
    """A simulation in which nothing goes wrong proves nothing: what makes it hard does happen in it."""
    contests = reasons = 0
    for seed in range(40):
        world, random = World(seed, seed % 2), Random(seed)
        for _ in range(20):
            side = random.choice([0, 1])
            if world.policies[side].links:
                world.lost(world.wires[min(world.policies[side].links)], side)
            world.run(random.uniform(0.0, 8.0))
        contests += world.contests
        reasons += world.reasons["silent"]
        world.run(SETTLE_S)
        assert world.is_settled()
    assert contests > 50
    assert reasons > 5
