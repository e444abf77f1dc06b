"""The machine: random stories, told to the store and to the model, which must agree after every step."""

from __future__ import annotations

import sys
from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Row

from tests.model.again import FiringAgain
from tests.model.bench import LEASE_MINUTES, Bench, Sent, value_in
from tests.model.places import PLACES
from tests.model.rules import (
    GIVEN_BY_SIGNALS,
    NEVER,
    NOTHING,
    OPEN,
    Conversion,
    Place,
    Postback,
    Signal,
    Worth,
    amount_of,
    stands,
)

STEP = 10
"""Minutes. Everything in a story happens at multiples of it, so a run may take a minute and change nothing."""
TOLERANCE = 4.0
"""Minutes."""

CONVERSIONS = 8
"""In a story, about: what is interesting is much that happens to few."""
AMOUNTS = tuple(Decimal(text) for text in ("10.00", "20.00", "30.00", "50.00", "60.00"))
TAKEN_BACK = st.sampled_from((("chargeback", "opened"), ("credit_check", "declined"), ("refund", "")))
pick = st.integers(0, 999)
ages = st.sampled_from((0, 0, 0, 10, 20, 30, 60, 100))
amounts = st.sampled_from((None, *AMOUNTS[:3], *AMOUNTS))
currencies = st.sampled_from(("EUR", "EUR", "EUR", "EUR", "USD"))
targets = st.tuples(st.booleans(), pick)
conversions = st.fixed_dictionaries(
    {
        "order": st.sampled_from((0, 0, 1, 1, None)),
        "value": st.sampled_from((Decimal("50.00"), Decimal("50.00"), Decimal("30.00"), None)),
        "places": st.lists(pick, min_size=2, max_size=4),
        "token": st.integers(0, 2),
        "sequence": st.sampled_from((None, 1, 2)),
        "age": ages,
    }
)
signals = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(("refund",) * 3 + ("chargeback",) * 3 + ("credit_check",) * 3 + ("cancel",)),
        "outcome": st.integers(0, 2),
        "amount": amounts,
        "cumulative": st.booleans(),
        "currency": currencies,
        "target": targets,
        "sequence": st.sampled_from((None, None, 1, 2)),
        "age": ages,
    }
)


class Machine(RuleBasedStateMachine):
    """Subclassed with a ``bench`` for a run; ``steps`` counts what was compared over all stories of it."""

    bench: Bench
    steps: int
    scene: list[Place]
    situations: Counter[str]
    last: list[str]
    """The last story that was told, for whoever reads a counterexample."""

    @initialize(chosen=st.lists(pick, min_size=1, max_size=3))
    def begin(self, chosen: list[int]) -> None:
        """A story plays at a few places, so that much happens at each."""
        self.bench.empty()
        self.world = FiringAgain(PLACES, situations=self.situations)
        self.places = [self.scene[place % len(self.scene)] for place in chosen]
        self.sent: list[tuple[Postback, int, Sent]] = []
        """On the wire, or so their workers think."""
        self.leases: list[tuple[int, int, list[Postback]]] = []
        """Token, version and postbacks, as hinted at; any number of workers may get the hint."""
        self.by_id: dict[int, Postback] = {}
        self.shown: dict[str, Worth] = {}
        """What the networks show, by what their requests really said."""
        self.told: dict[str, str] = {}
        """The last request of each postback."""
        self.named = 0
        self.story: list[str] = []
        type(self).last = self.story
        """What happened, in words: whoever reads a counterexample wants to know no more."""

    def _tell(self, line: str) -> None:
        self.story.append(f"{self.world.now:>5} min  {line}")

    # Events

    def _order(self, ahead: int) -> str:
        """An order of about now: what is taken back for good must not take all that is to come with it."""
        return f"o{len(self.world.conversions) // 2 + ahead}"

    def _conversion(self, plan: dict[str, Any]) -> Conversion:
        self.named += 1
        chosen = {self.places[place % len(self.places)].name for place in plan["places"]}
        token = f"k{plan['token']}"
        value = plan["value"]
        return Conversion(
            event_id=f"c{len(self.world.conversions) + self.named}",
            order_id=None if plan["order"] is None else self._order(plan["order"]),
            occurred_at=self.world.now - plan["age"],
            value=value,
            currency=None if value is None else "EUR",
            clicks={name: token for name in sorted(chosen) if name != "partner"},
            partner_id=token if "partner" in chosen else None,
            sequence=plan["sequence"] if "partner" in chosen else None,
        )

    def _signal(self, plan: dict[str, Any]) -> Signal:
        kind, by_order = plan["kind"], plan["target"][0]
        known = sorted(self.world.conversions)
        outcome = {
            "chargeback": ("opened", "won", "lost"),
            "credit_check": ("review", "approved", "declined"),
        }.get(kind, ("", "", ""))[plan["outcome"]]
        amount = plan["amount"] if kind in ("refund", "chargeback") else None
        order_id = conversion_event_id = None
        if by_order or not known:
            order_id = self._order(plan["target"][1] % 3)
        else:
            conversion_event_id = known[plan["target"][1] % len(known)]
        occurred_at = self.world.now - plan["age"]
        # Two that say the same of the same instant and differ in their amount have no order between them.
        taken = {(each.kind, each.outcome, each.occurred_at) for each in self.world.signals.values()}
        while kind == "chargeback" and (kind, outcome, occurred_at) in taken:
            occurred_at -= 1
        self.named += 1
        return Signal(
            event_id=f"s{self.named}",
            kind=kind,
            occurred_at=occurred_at,
            outcome=outcome,
            amount=amount,
            cumulative=kind == "refund" and amount is not None and plan["cumulative"],
            currency=None if amount is None else plan["currency"],
            order_id=order_id,
            conversion_event_id=conversion_event_id,
            sequence=None if order_id is None else plan["sequence"],
        )

    def _about(self, which: int, states: tuple[str, ...]) -> str | None:
        """A conversion with a postback in one of these states, or None."""
        found = [each.conversion.event_id for each in self.world.postbacks if each.state in states]
        return found[which % len(found)] if found else None

    def _say(self, kind: str, outcome: str, event_id: str | None, **given: Any) -> None:
        if event_id is not None:
            self.named += 1
            name = f"s{self.named}"
            self._take(Signal(name, kind, self.world.now, outcome, conversion_event_id=event_id, **given))

    def _take(self, *events: Conversion | Signal) -> None:
        self._tell(f"message: {'; '.join(each.words() for each in events)}")
        self.bench.take(events)
        self.world.take(list(events))

    @rule(which=pick, how=TAKEN_BACK)
    def take_back(self, which: int, how: tuple[str, str]) -> None:
        """Just before it is done, or just after."""
        self._say(
            *how, self._about(which, ("leased", "firing", "retrying")) or self._about(which, ("delivered",))
        )

    @precondition(lambda self: self._about(0, ("firing",)))
    @rule(which=pick, how=TAKEN_BACK, verdict=st.sampled_from(("retry", "delivered", "unknown")))
    def overtake(self, which: int, how: tuple[str, str], verdict: str) -> None:
        """While it is on the wire, and then the answer comes."""
        event_id = self._about(which, ("firing",))
        self._say(*how, event_id)
        self.agrees()
        on_wire = [
            each for each in self.sent if each[0].token == each[1] and each[0].conversion.event_id == event_id
        ]
        self._answer(on_wire[:1], verdict)

    @rule(which=pick, how=st.sampled_from((("chargeback", "won"), ("credit_check", "approved"))))
    def give_again(self, which: int, how: tuple[str, str]) -> None:
        """What was taken back stands after all."""
        self._say(*how, self._about(which, ("voided", "firing", "delivered", "held")))

    @rule(which=pick, amount=st.sampled_from(AMOUNTS), cumulative=st.booleans())
    def refund_in_part(self, which: int, amount: Decimal, cumulative: bool) -> None:
        event_id = self._about(which, ("delivered", "firing", "held", "leased"))
        self._say("refund", "", event_id, amount=amount, cumulative=cumulative, currency="EUR")

    @precondition(lambda self: len(self.world.conversions) < CONVERSIONS)
    @rule(plan=conversions)
    def convert(self, plan: dict[str, Any]) -> None:
        self._take(self._conversion(plan))

    @rule(plan=signals)
    def signal(self, plan: dict[str, Any]) -> None:
        self._take(self._signal(plan))

    @precondition(lambda self: len(self.world.conversions) < CONVERSIONS)
    @rule(first=conversions, second=conversions, told=st.lists(signals, max_size=2))
    def message(self, first: dict[str, Any], second: dict[str, Any], told: list[dict[str, Any]]) -> None:
        """Several events in one message: two conversions, and signals about these or earlier ones."""
        events = [self._conversion(first), self._conversion(second)]
        self._take(*(self._signal(plan) for plan in told), *events)

    @rule(told=st.lists(signals, min_size=2, max_size=2))
    def message_of_signals(self, told: list[dict[str, Any]]) -> None:
        self._take(*(self._signal(plan) for plan in told))

    @precondition(lambda self: self.world.conversions or self.world.signals)
    @rule(which=st.lists(pick, min_size=1, max_size=3))
    def repeat(self, which: list[int]) -> None:
        """Events that were taken before come again, in a message of their own."""
        known: list[Conversion | Signal] = [*self.world.conversions.values(), *self.world.signals.values()]
        self._take(*(known[place % len(known)] for place in which))

    # Time

    @rule(steps=st.sampled_from((1, 1, 2, 3, 7)))
    def wait(self, steps: int) -> None:
        self._pass(steps * STEP)

    @precondition(lambda self: not self.world.due())
    @rule(nth=st.sampled_from((0, 0, 0, 1, 2)))
    def wait_for_something(self, nth: int) -> None:
        """To the instant at which the next, or the one after, is due, expires or loses its lease."""
        now = self.world.now
        instants = {
            instant
            for each in self.world.postbacks
            if each.state in OPEN
            for instant in (each.due_at, each.release_at, each.expires_at)
            if instant is not None and now < instant < NEVER
        }
        if instants:
            instant = sorted(instants)[min(nth, len(instants) - 1)]
            self._pass(-(-(instant - now) // STEP) * STEP)

    def _pass(self, minutes: int) -> None:
        self.bench.pass_time(minutes)
        self.world.now += minutes

    # Workers

    @precondition(lambda self: self.world.due())
    @rule(limit=st.sampled_from((1, 2, 100)))
    def claim(self, limit: int) -> None:
        due = len(self.world.due())
        self._refer()
        claimed = 0
        for lease in self.bench.claim(limit):
            postbacks = [self.by_id[number] for number in lease.postback_ids]
            for postback in postbacks:
                self.world.claim(postback, lease.token, LEASE_MINUTES)
            self.leases.append((lease.token, lease.version_id, postbacks))
            self._tell(f"claimed under {lease.token}: {labels(postbacks)}")
            claimed += len(postbacks)
        assert claimed == min(limit, due), f"{claimed} claimed, {due} were due"

    @precondition(lambda self: self.leases)
    @rule(which=pick, again=st.booleans())
    def gate(self, which: int, again: bool) -> None:
        """A worker takes up a hint; if ``again``, the hint stays in the queue and comes a second time."""
        place = which % len(self.leases)
        self._gate(self.leases[place] if again else self.leases.pop(place))

    def _gate(self, lease: tuple[int, int, list[Postback]]) -> None:
        token, version_id, postbacks = lease
        before = {id(each): (each.state, each.release_at) for each in postbacks}
        went = [each for each in postbacks if self.world.gate(each, token, LEASE_MINUTES)]
        sent = self.bench.gate(token, version_id, [self._id(each) for each in postbacks])
        found = {each.prepared.gated.postback_id: each for each in sent}
        self._tell(f"gate, {token}: {labels(postbacks)}, sent {labels([self.by_id[each] for each in found])}")
        assert set(found) == {self._id(each) for each in went}, (
            f"sent {sorted(self.by_id[each].label for each in found)}, "
            f"should be {sorted(each.label for each in went)}"
        )
        for postback in went:
            state, release_at = before[id(postback)]
            assert state == "leased", f"{postback.label} was sent though {state}"
            assert release_at <= self.world.now, f"{postback.label} was sent before its window ended"
            assert postback.corrects is None or postback.corrects.state == "delivered"
            self.sent.append((postback, token, found[self._id(postback)]))
            self.told[postback.label] = found[self._id(postback)].prepared.request.url

    @precondition(lambda self: self.world.due())
    @rule()
    def send(self) -> None:
        """Everything due is claimed and passes the gate: it is on the wire."""
        self.claim(100)
        while self.leases:
            self._gate(self.leases.pop())

    @precondition(lambda self: self.leases)
    @rule(which=pick, minutes=st.sampled_from((10, 30)))
    def give_back(self, which: int, minutes: int) -> None:
        """A full lane: the postbacks wait a little, no attempt is spent."""
        token, _, postbacks = self.leases.pop(which % len(self.leases))
        self._tell(f"given back for {minutes} min, {token}: {labels(postbacks)}")
        self.bench.give_back(token, [self._id(each) for each in postbacks], minutes)
        for postback in postbacks:
            self.world.give_back(postback, token, minutes)

    @precondition(lambda self: self.sent)
    @rule(
        which=pick,
        verdict=st.sampled_from(("delivered", "retry", "unknown", "delivered", "rejected")),
        again=st.booleans(),
    )
    def answer(self, which: int, verdict: str, again: bool) -> None:
        """An attempt ends; if ``again``, its worker will settle it once more."""
        place = which % len(self.sent)
        self._answer([self.sent[place] if again else self.sent.pop(place)], verdict)

    @precondition(lambda self: any(each.corrects for each, _, _ in self.sent))
    @rule(verdict=st.sampled_from(("rejected", "delivered", "unknown")))
    def answer_correction(self, verdict: str) -> None:
        correction = next(each for each in self.sent if each[0].corrects)
        self.sent.remove(correction)
        self._answer([correction], verdict)

    @precondition(lambda self: any(token != each.token for each, token, _ in self.sent))
    @rule(verdict=st.sampled_from(("delivered", "retry")))
    def answer_late(self, verdict: str) -> None:
        """The answer to an attempt whose worker was given up meanwhile."""
        late = next(each for each in self.sent if each[0].token != each[1])
        self.sent.remove(late)
        self._answer([late], verdict)

    @precondition(lambda self: self.sent)
    @rule(verdict=st.sampled_from(("delivered", "delivered", "retry")))
    def answer_all(self, verdict: str) -> None:
        """Everything that is on the wire ends alike, and is settled together."""
        # One message settles an attempt once; an older one of the same postback comes with the next.
        ended = {id(each[0]): each for each in self.sent}
        self.sent = [each for each in self.sent if ended[id(each[0])] is not each]
        self._answer(list(ended.values()), verdict)

    def _answer(self, ended: list[tuple[Postback, int, Sent]], verdict: str) -> None:
        self._tell(
            f"answered {verdict}: {', '.join(f'{each.label} under {token}' for each, token, _ in ended)}"
        )
        self.bench.settle([(sent, verdict) for _, _, sent in ended])
        for postback, token, sent in sorted(ended, key=lambda each: each[0].number):
            if self.world.answer(postback, token, verdict) and verdict == "delivered":
                self._show(postback, sent.prepared.request.url)

    def _show(self, postback: Postback, url: str) -> None:
        """What the network shows after this request, judged by the request alone."""
        label, told = (postback.corrects or postback).label, value_in(url)
        if "/retraction" in url:
            self.shown[label] = NOTHING
        elif "/restatement" in url and "delta=" in url:
            self.shown[label] = amount_of(self.shown[label]) + (told or 0)
        else:
            self.shown[label] = told

    @precondition(lambda self: self.world.due())
    @rule()
    def fire(self) -> None:
        """Everything due is claimed, passes the gate, and is answered well."""
        self.send()
        if self.sent:
            self.answer_all("delivered")

    @precondition(lambda self: any(each.token is not None for each in self.world.postbacks))
    @rule(crash=st.booleans())
    def rescue(self, crash: bool) -> None:
        """The clock takes back what ran out; after a ``crash`` that is all that was held."""
        if crash:
            self._pass(LEASE_MINUTES)
        self._tell("rescue")
        self.bench.rescue()
        self.world.rescue()

    @precondition(lambda self: any(each.due_at == NEVER for each in self.world.postbacks))
    @rule(place=st.sampled_from((None, "patient", "window")))
    def let_go(self, place: str | None) -> None:
        self._tell(f"let go: {place or 'all'}")
        self.bench.let_go(place)
        self.world.let_go(place)

    # The comparison

    def _id(self, postback: Postback) -> int:
        for number, known in self.by_id.items():
            if known is postback:
                return number
        self._refer()
        return next(number for number, known in self.by_id.items() if known is postback)

    def _refer(self, rows: Any = None) -> None:
        """Learn which row is which postback of the model: by event and destination, or as the n-th correction."""
        originals = {
            (each.conversion.event_id, each.place.name): each
            for each in self.world.postbacks
            if each.corrects is None
        }
        nth: dict[int, int] = {}
        for row in self.bench.read()[0] if rows is None else rows:
            if row.adjusts is None:
                postback = originals.get((row.event_id, row.destination))
            else:
                place = nth[row.adjusts] = nth.get(row.adjusts, -1) + 1
                corrections = self.by_id[row.adjusts].corrections
                postback = corrections[place] if place < len(corrections) else None
            assert postback is not None, (
                f"{row.event_id}@{row.destination} {row.adjustment or ''} should not exist"
            )
            self.by_id[row.id] = postback

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "world"):
            return
        type(self).steps += 1
        rows, conversions = self.bench.read()
        self._refer(rows)
        for conversion in self.world.conversions.values():
            _same(conversion.event_id, "net value", conversion.net, conversions[conversion.event_id][0])
            _same(conversion.event_id, "outcomes", conversion.outcomes, conversions[conversion.event_id][1])
        assert len(rows) == len(self.world.postbacks), (
            f"missing: {[each.label for each in self.world.postbacks if each not in self.by_id.values()]}"
        )
        for row in rows:
            self._compare(self.by_id[row.id], row)

    def _compare(self, postback: Postback, row: Row[Any]) -> None:
        label, now = postback.label, self.world.now
        _same(label, "state", postback.state, row.state)
        _same(label, "attempts", postback.attempts, row.attempts)
        _same(label, "attempts before it was fired again", postback.budget_from, row.budget_from)
        _same(label, "what it comes back to", postback.stays, row.falls_back)
        if postback.corrects is None:
            _same(label, "freed", postback.freed, row.freed)
        if postback.state in ("voided", "duplicate", "firing"):
            _same(label, "void_reason", postback.void_reason, row.void_reason)
        if postback.state == "duplicate":
            assert postback.duplicate_of is not None
            first = self.by_id.get(row.duplicate_of)
            _same(label, "duplicate of", postback.duplicate_of.label, first and first.label)
        if (
            postback.state in OPEN
            or postback.state == "duplicate"
            or postback.void_reason in GIVEN_BY_SIGNALS
        ):
            _near(label, "release", postback.release_at - now, row.release_in)
        if postback.state in OPEN:
            assert postback.due_at is not None
            due_in = NEVER if postback.due_at == NEVER else postback.due_at - now
            _near(label, "due", due_in, row.due_in)
        if postback.corrects is not None:
            _same(label, "kind", postback.kind, row.adjustment)
        if postback.corrects is None and postback.state == "delivered":
            told = NOTHING if row.retracted else row.reported
            # A total of nothing is how a network without retractions is told that nothing stands.
            if {told, postback.told} != {NOTHING, Decimal(0)}:
                _same(label, "told", postback.told, told)
            _same(label, "lost", postback.lost, row.is_lost)
            _same(label, "lost amount", postback.lost_amount, row.lost)
            _same(label, "corrections", len(postback.corrections), row.adjustments)

    # The end of the story

    def teardown(self) -> None:
        """Let everything come to its end: every network shows what stands, or what it shows wrong is on record."""
        if not hasattr(self, "world") or sys.exc_info()[0] is not None:
            return  # a story that failed has no end, and its own failure is what is to be read
        for _ in range(12):
            if not any(each.state in OPEN for each in self.world.postbacks):
                break
            self._pass(400)
            self.let_go(None)
            self.rescue(False)
            self.fire()
            self.agrees()
        else:
            raise AssertionError("it never comes to an end")
        for postback in self.world.postbacks:
            if postback.state == "delivered" and postback.corrects is None:
                shown, truth = self.shown[postback.label], stands(postback)
                _same(postback.label, "what the network shows", postback.told, shown)
                assert postback.lost or shown == truth or {shown, truth} == {NOTHING, Decimal(0)}, (
                    f"{postback.label}: {truth} stands, the network shows {shown}, and nobody knows"
                )
        self._counted_once()
        _same("the ledger", "what does not balance", [], self.bench.unbalanced())

    def _counted_once(self) -> None:
        """Of postbacks that their network would take for one another, only one was delivered."""
        delivered = [
            self.world.key_of(each)
            for each in self.world.postbacks
            if each.state == "delivered" and each.corrects is None and each not in self.world.twice
        ]
        assert len(delivered) == len(set(delivered))


def labels(postbacks: list[Postback]) -> str:
    return ", ".join(each.label for each in postbacks) or "nothing"


def _same(label: str, what: str, expected: object, got: object) -> None:
    assert expected == got, f"{label}: {what} should be {expected}, is {got}"


def _near(label: str, what: str, expected_in: float, got_in: float | None) -> None:
    assert got_in is not None, f"{label}: {what} should be set"
    assert abs(expected_in - got_in) < TOLERANCE, (
        f"{label}: {what} should be in {expected_in} min, is in {got_in:.1f}"
    )
