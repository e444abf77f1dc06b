"""The model's world and machine where places are paused: nothing passes their gates, and what waits goes on in order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from infra.store import firing, releasing, rulings
from infra.store.stopping import parking, stopping
from tests.model.again import FiringAgain
from tests.model.bench import LEASE_MINUTES, Bench
from tests.model.machine import STEP, Machine, labels, pick
from tests.model.places import PLACES
from tests.model.plants import Plant, _text
from tests.model.rules import OPEN, Postback

WAITING = ("held", "retrying")


@dataclass
class StoppedWorld(FiringAgain):
    """``parked``: those in the queue of their own place. ``draws_at``: when a place's queue is drawn from again."""

    paused: set[str] = field(default_factory=set)
    parked: set[int] = field(default_factory=set)
    draws_at: dict[str, int] = field(default_factory=dict)

    def queue(self, name: str) -> list[Postback]:
        """What is parked and due there, oldest first."""
        found = [each for each in self.due() if each.place.name == name and each.number in self.parked]
        return sorted(found, key=lambda each: each.due_at or 0)

    def own(self, name: str) -> bool:
        return name in self.paused or bool(self.queue(name))

    def stopped(self, postback: Postback) -> bool:
        expired = postback.expires_at is not None and postback.expires_at < self.now
        return postback.place.name in self.paused and not expired

    def drawable(self, name: str) -> list[Postback]:
        """What a pass may take out of a queue: of a paused place only what expires at the gate."""
        if name in self.paused or self.draws_at.get(name, 0) > self.now:
            return [
                each
                for each in self.queue(name)
                if each.expires_at is not None and each.expires_at < self.now
            ]
        return self.queue(name)

    def park_due(self, names: list[str]) -> None:
        self.parked |= {each.number for each in self.due() if each.place.name in names}

    def _park(self, postback: Postback) -> None:
        self._back(postback, self.now if postback.attempts else postback.release_at)
        self.parked.add(postback.number)

    def claim(self, postback: Postback, token: int, lease: int) -> None:
        super().claim(postback, token, lease)
        self.parked.discard(postback.number)

    def gate(self, postback: Postback, token: int, lease: int) -> bool:
        mine = postback.state == "leased" and postback.token == token and postback.release_at <= self.now
        if mine and self.stopped(postback):
            self.saw("stopped at the gate")
            self._park(postback)
            return False
        return super().gate(postback, token, lease)

    def put_in_queue(self, postback: Postback, token: int) -> None:
        """Given back by a full lane, where its place has a queue of its own."""
        if postback.state == "leased" and postback.token == token:
            self.saw("given back to its queue")
            self._park(postback)

    def wait(self, name: str, delay: int) -> None:
        self.draws_at[name] = max(self.draws_at.get(name, 0), self.now + delay)


class StoppedMachine(Machine):
    """The same stories, with places that are paused and resumed in between."""

    world: StoppedWorld

    @initialize(chosen=st.lists(pick, min_size=1, max_size=2))
    def begin(self, chosen: list[int]) -> None:
        super().begin(chosen)
        self.world = StoppedWorld(PLACES, situations=self.situations)

    def _running(self) -> list[str]:
        """Places that are not paused and have something that may be fired."""
        names = {each.place.name for each in self.world.postbacks if each.state in OPEN}
        return sorted(names - self.world.paused)

    @precondition(lambda self: self._running())
    @rule(which=pick)
    def pause(self, which: int) -> None:
        running = self._running()
        name = running[which % len(running)]
        self._tell(f"paused: {name}")
        stopping.pause(self.bench.engine, name, "model", "the story says so")
        self.world.paused.add(name)

    @precondition(lambda self: self.world.due() and self._running())
    @rule(which=pick, limit=st.sampled_from((1, 2, 100)), steps=st.sampled_from((0, 1, 3)))
    def stop_and_go(self, which: int, limit: int, steps: int) -> None:
        """Paused between claim and gate; a while later it goes on, a little at a time."""
        self.claim(limit)
        self.pause(which)
        while self.leases:
            self._gate(self.leases.pop())
        self.agrees()
        if steps:
            self._pass(steps * STEP)
        if self.world.due():
            self.claim(limit)
        self.resume(which)
        for _ in range(2):
            if self.world.due():
                self.claim(limit)
        self.agrees()

    @precondition(lambda self: self.world.paused)
    @rule(which=pick)
    def resume(self, which: int) -> None:
        name = sorted(self.world.paused)[which % len(self.world.paused)]
        self._tell(f"resumed: {name}")
        assert stopping.resume(self.bench.engine, name, "model") is not None
        self.world.paused.discard(name)
        self.world.draws_at.pop(name, None)
        if self.world.queue(name):
            self.world.saw("resumed with a queue")

    def teardown(self) -> None:
        """Everything comes to an end once every place goes on."""
        while self.world.paused:
            self.resume(0)
        super().teardown()

    @precondition(lambda self: self.world.due())
    @rule(limit=st.sampled_from((1, 2, 100)))
    def claim(self, limit: int) -> None:
        """A pass: from the queue of all, and from that of one place, oldest first."""
        self._refer()
        names = sorted({each.place.name for each in self.world.postbacks})
        own = [name for name in names if self.world.own(name)]
        ordinary = [each for each in self.world.due() if each.place.name not in own]
        self.world.park_due(own)
        drawable = {name: found for name in own if (found := self.world.drawable(name))}
        dues = {each.number: each.due_at or 0 for found in drawable.values() for each in found}
        claimed = releasing.claim_all(
            self.bench.engine, limit=limit, lease_s=LEASE_MINUTES * 60, per_lease=200
        )
        taken: list[Postback] = []
        for lease in claimed.leases:
            postbacks = [self.by_id[number] for number in lease.postback_ids]
            for postback in postbacks:
                assert not self.world.stopped(postback), f"{postback.label} was claimed though it is paused"
                self.world.claim(postback, lease.token, LEASE_MINUTES)
            self.leases.append((lease.token, lease.version_id, postbacks))
            self._tell(f"claimed under {lease.token}: {labels(postbacks)}")
            taken += postbacks
        drawn = [each for each in taken if each.place.name in own]
        assert len(taken) - len(drawn) == min(limit, len(ordinary)), f"of {len(ordinary)} due"
        if drawable:
            self._drawn_in_order(drawn, drawable, dues, limit)

    def _drawn_in_order(
        self,
        drawn: list[Postback],
        drawable: dict[str, list[Postback]],
        dues: dict[int, int],
        limit: int,
    ) -> None:
        """From one place, as many as there were, and none before one that was due earlier."""
        places = {each.place.name for each in drawn}
        assert len(places) == 1, f"drawn from {places}, and {sorted(drawable)} had something"
        (name,) = places
        found = drawable[name]
        assert len(drawn) == min(limit, len(found)), f"{len(drawn)} drawn of {len(found)} at {name}"
        self.world.saw("drawn from a queue")
        left = [dues[each.number] for each in found if each not in drawn]
        if left and name not in self.world.paused:
            latest = max(dues[each.number] for each in drawn)
            assert latest <= min(left), f"drawn at {name}: due at {latest}, before one due at {min(left)}"

    @precondition(lambda self: self.leases)
    @rule(which=pick, minutes=st.sampled_from((10, 30)))
    def give_back(self, which: int, minutes: int) -> None:
        """A full lane, as ever; where the place has a queue of its own, they go back to it."""
        token, _, postbacks = self.leases.pop(which % len(self.leases))
        name = postbacks[0].place.name
        own = self.world.own(name)
        self._tell(f"given back for {minutes} min, {token}: {labels(postbacks)}")
        self.bench.give_back(token, [self._id(each) for each in postbacks], minutes)
        for postback in postbacks:
            if own:
                self.world.put_in_queue(postback, token)
            else:
                self.world.give_back(postback, token, minutes)
        if own:
            self.world.wait(name, minutes)


def stopped_machine_on(bench: Bench, scene: list[Any] = PLACES) -> type[StoppedMachine]:
    """As ``machine_on``."""
    return type(
        "StoppedStory",
        (StoppedMachine,),
        {"bench": bench, "scene": scene, "steps": 0, "last": [], "situations": Counter()},
    )


def _void_leaves_it_due(patch: pytest.MonkeyPatch) -> None:
    """A signal passes by what is parked."""
    patch.setattr(rulings, "VOIDABLE_SQL", rulings.VOIDABLE_SQL + " AND NOT p.parked")


STOPPED_PLANTS = [
    _text(
        "a pause does not hold at the gate",
        firing,
        "_READ_LEASED",
        "(p.expires_at IS NULL OR p.expires_at >= now()) AND EXISTS",
        "false AND EXISTS",
    ),
    _text(
        "what was parked is never drawn again",
        parking,
        "_LOOK",
        "<= now() AS due,",
        "<= '-infinity' AS due,",
    ),
    _text(
        "a queue of its own is drawn from at the wrong end",
        parking,
        "_DRAW_ANY",
        "ORDER BY due_at, id LIMIT",
        "ORDER BY due_at DESC, id LIMIT",
    ),
    _text(
        "what expires while its place is paused is kept",
        parking,
        "_LOOK",
        "AND p.expires_at IS NOT NULL) < now()",
        "AND p.expires_at IS NOT NULL) < '-infinity'",
        at="silent",
    ),
    Plant("a signal passes by what is parked", _void_leaves_it_due),
]
