"""When to dial a peer, where, and which link stays: the policy for one peer, without I/O.

Two devices may each know an address of the other, or only one of them. So both may dial, and two links may come to
be; exactly one has to last, and both sides have to choose the same one without asking each other.

Rounds. A round dials the known addresses, 150 ms apart, each a second time after 300 ms (a lost SYN would cost a
second), and ends after 2.5 s or when the first link is there. Between rounds are 1, 2, 4, … 60 s, with jitter. A new
address, another network or a wake-up begins that anew; however often they come, rounds are limited by a bucket of
tokens. The device with the lower id dials at once, the other one waits 3 s first, since it may be the only one who
knows an address.

Links. Among several the one stays that was dialled by the lower id, and of those dialled by the peer the newest: a
peer dials only when it has no link, so its older one is dead. The others are closed once the one that stays has
carried a message *after* they arose; until then it may be the one that is dead. When it stays silent it is given up.

In: what happened, with the time (any monotonic clock, seconds). Out: actions, to be carried out in their order.
The caller's part: no message is sent on a link before `link_up` was told and its actions are done; an accepted link
is told once it has carried a first message, since a handshake alone may be of an attempt that was abandoned; `tick`
is called at `due_s`. A link that is closed by an action needs no `link_down`.

Source: RFC 8305 (attempts in parallel), with our figures.
"""

import math
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import attrs

from sync.net.addresses import Endpoint

#: A round: so many addresses, so far apart, each once more after a while, and the end.
MAX_ADDRESSES = 8
STAGGER_S = 0.15
SECOND_S = 0.3
ROUND_S = 2.5
#: Between rounds: the first wait, and the longest; either may be a quarter shorter or longer.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
_JITTER = 0.25
#: How long the device with the higher id leaves it to the other one.
GRACE_S = 3.0
#: Rounds that may follow each other at once, and how long it takes until one more may.
BURST_ROUNDS = 4
ROUND_EVERY_S = 5.0
#: A link that ended sooner counts as a round that failed: who is refused again and again dials ever more rarely.
LASTING_S = 10.0
#: How long the link that is to stay may be silent while there is another one.
CONTEST_S = 8.0
MAX_LINKS = 4


class Dial(NamedTuple):
    """Connect and shake hands; then tell `link_up` or `attempt_failed`."""

    attempt: int
    endpoint: Endpoint


class Abandon(NamedTuple):
    """Drop an attempt at whatever stage it is; nothing need be told of it."""

    attempt: int


class Close(NamedTuple):
    """Close a link in an orderly way."""

    link: int
    reason: str


class Probe(NamedTuple):
    """Have this link carry something (a ping), and tell `carried` when the answer is there."""

    link: int


Action = Dial | Abandon | Close | Probe


@attrs.define
class _Link:
    is_ours: bool  # dialled by this device
    order: int
    since_s: float
    carried_s: float | None = None  # when a message came by it last


@attrs.define
class _Round:
    ends_s: float
    # When, where, whether for the second time; in order of time.
    planned: list[tuple[float, Endpoint, bool]] = attrs.field(factory=list)
    taken: int = 0  # how many addresses it has
    free_s: float = 0.0  # when one more may be dialled
    dialling: dict[int, Endpoint] = attrs.field(factory=dict)


class Dialing:
    """The policy for one peer. `ours` and `theirs` are the ids of the two devices; `random` gives the jitter."""

    def __init__(self, ours: bytes, theirs: bytes, random: Random, now_s: float) -> None:
        if ours == theirs:
            raise ValueError("a device does not dial itself")
        self._is_lower = ours < theirs
        self._random = random
        self._addresses: tuple[Endpoint, ...] = ()
        self._links: dict[int, _Link] = {}
        self._round: _Round | None = None
        self._next_s = now_s + self._grace_s
        self._failures = 0
        self._tokens = float(BURST_ROUNDS)
        self._tokens_s = now_s
        self._attempts = 0
        self._orders = 0
        self._contest: tuple[int, float] | None = None  # the link that is to stay, until when it has to carry something
        self._is_stopped = False

    # what is asked ------------------------------------------------------------------------------------------------

    @property
    def current(self) -> int | None:
        """The link to send by: the one that carried something last. None without a link."""
        if not self._links:
            return None

        def order(link: int) -> tuple[float, int]:
            known = self._links[link]
            return (-math.inf if known.carried_s is None else known.carried_s), -known.order

        return max(self._links, key=order)

    @property
    def links(self) -> frozenset[int]:
        return frozenset(self._links)

    @property
    def is_dialling(self) -> bool:
        """Whether a round is under way."""
        return self._round is not None

    @property
    def due_s(self) -> float:
        """When `tick` is to be called next; infinite when only an event can bring anything about."""
        times = [math.inf]
        if self._contest is not None:
            times.append(self._contest[1])
        if self._round is not None:
            times.append(self._round.ends_s)
            times.extend(at_s for at_s, _, _ in self._round.planned[:1])
        elif self._may_dial():
            times.append(self._next_s)
        return min(times)

    # what happens -------------------------------------------------------------------------------------------------

    def addresses(self, ranked: Sequence[Endpoint], now_s: float) -> list[Action]:
        """Where the peer may be, the likeliest first. One that was not known before makes the next round begin soon."""
        known = set(self._addresses)
        self._addresses = tuple(ranked)
        if fresh := [endpoint for endpoint in self._addresses if endpoint not in known]:
            self._hurry(now_s)
            if self._round is not None:
                self._plan(self._round, fresh, now_s)
        return self.tick(now_s)

    def network_changed(self, now_s: float) -> list[Action]:
        """Other addresses of our own, or a wake-up: what failed before says nothing, and a link may be dead."""
        actions = [*self._end_round(spare=None), *(Probe(link) for link in self._links)]
        self._hurry(now_s)
        return actions + self.tick(now_s)

    def attempt_failed(self, attempt: int, now_s: float) -> list[Action]:
        """Refused, unreachable, too slow, or not the device it should be."""
        current = self._round
        endpoint = current.dialling.pop(attempt, None) if current is not None else None
        if current is not None and endpoint is not None and endpoint not in current.dialling.values():
            # What is refused is not tried again in this round, and the next address need not wait for its time.
            current.planned = [step for step in current.planned if step[1] != endpoint]
            self._advance(current, now_s)
        return self.tick(now_s)

    def link_up(self, link: int, attempt: int | None, now_s: float) -> list[Action]:
        """A link is there, and who is at its other end is proven. `attempt` None: the peer dialled it."""
        if self._is_stopped:
            return [Close(link, "not wanted")]
        actions = self._end_round(spare=attempt)
        is_ours = attempt is not None
        if is_ours and any(known.is_ours for known in self._links.values()):
            # Nothing was sent by it, so the peer has not taken it for a link either.
            return [*actions, Close(link, "another attempt was quicker")]
        self._orders += 1
        self._links[link] = _Link(is_ours, self._orders, now_s)
        if not is_ours:
            self._links[link].carried_s = now_s
        while len(self._links) > MAX_LINKS:
            oldest = min(self._links, key=lambda known: (known == self._winner(), self._links[known].order))
            actions.append(self._close(oldest, "too many links"))
        return actions + self._compare(now_s)

    def carried(self, link: int, now_s: float) -> list[Action]:
        """A message came by this link. Cheap; may be told for each one, and has to be for the first after a Probe."""
        if (known := self._links.get(link)) is None:
            return []
        known.carried_s = now_s
        if self._contest is None or self._contest[0] != link:
            return []
        self._contest = None
        return [self._close(loser, "another link stays") for loser in list(self._links) if loser != link]

    def link_down(self, link: int, now_s: float) -> list[Action]:
        """A link has ended, by the peer or by a failure."""
        known = self._links.pop(link, None)
        if known is None:
            return []
        if not self._links:
            self._contest = None
            if known.carried_s is not None and now_s - known.since_s >= LASTING_S:
                self._failures = 0
                self._next_s = now_s + self._grace_s
            else:
                self._wait(now_s)
                self._next_s = max(self._next_s, now_s + self._grace_s)
        return self._compare(now_s) + self.tick(now_s)

    def tick(self, now_s: float) -> list[Action]:
        """Whatever is due."""
        actions: list[Action] = []
        if self._contest is not None and now_s >= self._contest[1]:
            actions.append(self._close(self._contest[0], "silent"))
            actions += self._compare(now_s)
        if self._round is None and self._may_dial() and now_s >= self._next_s:
            self._begin_round(now_s)
        if self._round is not None:
            actions += self._go_on(self._round, now_s)
        return actions

    def stop(self) -> list[Action]:
        """The peer is not wanted any more (revoked, or we end): nothing is dialled, all links are closed."""
        self._is_stopped = True
        self._contest = None
        return [*self._end_round(spare=None), *(self._close(link, "not wanted") for link in list(self._links))]

    # rounds -------------------------------------------------------------------------------------------------------

    @property
    def _grace_s(self) -> float:
        return 0.0 if self._is_lower else GRACE_S

    def _may_dial(self) -> bool:
        return bool(self._addresses) and not self._links and not self._is_stopped

    def _hurry(self, now_s: float) -> None:
        """Begin anew with short waits. An earlier time stands: hints without end put nothing off."""
        self._failures = 0
        self._next_s = min(self._next_s, now_s + self._grace_s)

    def _wait(self, now_s: float) -> None:
        """A round has failed: the next one comes later."""
        self._failures += 1
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 10))
        self._next_s = now_s + wait_s * self._random.uniform(1 - _JITTER, 1 + _JITTER)

    def _begin_round(self, now_s: float) -> None:
        self._tokens = min(float(BURST_ROUNDS), self._tokens + (now_s - self._tokens_s) / ROUND_EVERY_S)
        self._tokens_s = now_s
        if self._tokens < 1.0:
            # A little later than exact, so that rounding cannot have this looked at in a circle.
            self._next_s = now_s + (1.0 - self._tokens) * ROUND_EVERY_S + 0.001
            return
        self._tokens -= 1.0
        self._round = _Round(now_s + ROUND_S)
        self._plan(self._round, self._addresses, now_s)

    def _plan(self, current: _Round, endpoints: Sequence[Endpoint], now_s: float) -> None:
        """Take addresses into a round, as many as it has room for."""
        for endpoint in endpoints[: MAX_ADDRESSES - current.taken]:
            at_s = max(now_s, current.free_s)
            current.planned += [(at_s, endpoint, False), (at_s + SECOND_S, endpoint, True)]
            current.free_s = at_s + STAGGER_S
            current.taken += 1
        current.planned.sort(key=lambda step: step[0])

    def _go_on(self, current: _Round, now_s: float) -> list[Action]:
        if now_s >= current.ends_s or not (current.planned or current.dialling):
            actions = self._end_round(spare=None)
            self._wait(now_s)
            return actions
        dials: list[Action] = []
        while current.planned and current.planned[0][0] <= now_s:
            _, endpoint, _ = current.planned.pop(0)
            self._attempts += 1
            current.dialling[self._attempts] = endpoint
            dials.append(Dial(self._attempts, endpoint))
        return dials

    def _advance(self, current: _Round, now_s: float) -> None:
        """The addresses that are still to be dialled come sooner, by as much as the next of them can."""
        waiting = {endpoint for _, endpoint, is_second in current.planned if not is_second}
        first_s = min((at_s for at_s, endpoint, _ in current.planned if endpoint in waiting), default=now_s)
        sooner_s = max(0.0, first_s - now_s)
        current.planned = [
            (at_s - sooner_s if endpoint in waiting else at_s, endpoint, is_second)
            for at_s, endpoint, is_second in current.planned
        ]
        current.planned.sort(key=lambda step: step[0])
        current.free_s -= sooner_s

    def _end_round(self, *, spare: int | None) -> list[Action]:
        if self._round is None:
            return []
        dialling, self._round = self._round.dialling, None
        return [Abandon(attempt) for attempt in dialling if attempt != spare]

    # links --------------------------------------------------------------------------------------------------------

    def _winner(self) -> int:
        """The link that is to stay: the one dialled by the lower id; of the peer's, the newest."""

        def order(link: int) -> tuple[bool, int]:
            known = self._links[link]
            return known.is_ours == self._is_lower, known.order

        return max(self._links, key=order)

    def _compare(self, now_s: float) -> list[Action]:
        """Where there are several links, the one that is to stay is asked for a sign of life."""
        if len(self._links) < 2:
            self._contest = None
            return []
        winner = self._winner()
        if self._contest is not None and self._contest[0] == winner:
            return []
        self._contest = (winner, now_s + CONTEST_S)
        return [Probe(winner)]

    def _close(self, link: int, reason: str) -> Close:
        del self._links[link]
        if self._contest is not None and self._contest[0] == link:
            self._contest = None
        return Close(link, reason)
