"""The world of the model: every conversion, signal and postback, and what each step makes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal

from tests.model.rules import (
    FAILED,
    GIVEN_BY_SIGNALS,
    NEVER,
    NOTHING,
    OPEN,
    Conversion,
    Place,
    Postback,
    Signal,
    Worth,
    fold,
    gives_its_place_away,
    names,
    stands,
    wished,
)


@dataclass
class World:
    """Everything that stands, as of ``now``."""

    places: list[Place]
    now: int = 0
    conversions: dict[str, Conversion] = field(default_factory=dict)
    signals: dict[str, Signal] = field(default_factory=dict)
    postbacks: list[Postback] = field(default_factory=list)
    holders: dict[tuple[object, ...], Postback] = field(default_factory=dict)
    """Which postback a network would take a repeat for."""
    situations: Counter[str] = field(default_factory=Counter)
    """How often what was met, over every story that shares it: a rule that is never met is not tested."""

    def saw(self, situation: str) -> None:
        self.situations[situation] += 1

    # Intake

    def take(self, events: list[Conversion | Signal]) -> None:
        """One message: everything new in it counts at once."""
        arrived: list[Conversion] = []
        said: list[Signal] = []
        for event in events:
            if event.event_id in self.conversions or event.event_id in self.signals:
                continue
            if isinstance(event, Conversion):
                self.conversions[event.event_id] = event
                event.net = event.value
                arrived.append(event)
            else:
                self.signals[event.event_id] = event
                said.append(event)
        for conversion in arrived:
            for place in self.places:
                self._route(conversion, place)
        touched: list[tuple[Postback, set[str]]] = []
        for conversion in self.conversions.values():
            about = [signal for signal in self.signals.values() if names(signal, conversion)]
            news = about if conversion in arrived else [signal for signal in about if signal in said]
            if not news:
                continue
            conversion.net, conversion.outcomes = fold(conversion, about)
            confirmed = {f"{each.kind}.{each.outcome}" for each in news} & {
                "credit_check.approved",
                "chargeback.won",
            }
            touched += [
                (each, confirmed)
                for each in self.postbacks
                if each.conversion is conversion and each.corrects is None
            ]
        self._hear(touched)

    def _route(self, conversion: Conversion, place: Place) -> None:
        if place.partner:
            if conversion.partner_id is None:
                return
            own = () if conversion.order_id or conversion.sequence is not None else (conversion.event_id,)
            key = (place.name, conversion.partner_id, conversion.order_id, conversion.sequence, *own)
        else:
            if place.name not in conversion.clicks:
                return
            key = (place.name, conversion.clicks[place.name], conversion.order_id if place.sub_id else None)
        policy = place.policy
        start = self.now if policy.measured_from == "receipt" else conversion.occurred_at
        postback = Postback(
            number=len(self.postbacks),
            conversion=conversion,
            place=place,
            state="held",
            release_at=start + policy.wait,
            due_at=None,
            expires_at=None if place.age_limit is None else conversion.occurred_at + place.age_limit,
        )
        self.postbacks.append(postback)
        first = self.holders.get(key)
        if first is not None and not gives_its_place_away(first):
            postback.state, postback.duplicate_of = "duplicate", first
        else:
            self._take_place(postback)
            self._hold(postback)

    def _take_place(self, postback: Postback) -> None:
        """It has the key now, and with it the duplicates of whoever had it."""
        key = self.key_of(postback)
        before = self.holders.get(key)
        self.holders[key] = postback
        for other in self.postbacks:
            if before is not None and before is not postback and other.duplicate_of is before:
                other.duplicate_of = postback

    def _hold(self, postback: Postback) -> None:
        postback.state, postback.duplicate_of = "held", None
        postback.due_at = NEVER if postback.place.policy.manual else postback.release_at

    # Signals

    def _hear(self, touched: list[tuple[Postback, set[str]]]) -> None:
        """Signals came about these postbacks' conversions; with each, what was newly confirmed of it."""
        ended = []
        for postback, confirmed in touched:
            reason = wished(postback)
            if confirmed & set(postback.place.policy.release_on) & postback.conversion.outcomes:
                self._end_window(postback)
            if postback.state in ("held", "leased", "retrying") and reason:
                self._void(postback, reason)
                if postback.state == "voided":
                    ended.append(postback)
            elif postback.state in ("firing", "duplicate"):
                postback.void_reason = reason
        for postback in ended:
            self._promote(postback)
        self._look_again([postback for postback, _ in touched])

    def _look_again(self, touched: list[Postback]) -> None:
        """What was done with them before may not hold any more."""
        for postback in touched:
            given_by_signals = postback.state == "voided" and postback.void_reason in GIVEN_BY_SIGNALS
            if given_by_signals and not wished(postback):
                self._reinstate(postback)
        for postback in touched:
            # A duplicate that nothing speaks against any more takes a place that fell empty meanwhile.
            first = postback.duplicate_of
            if first is not None and gives_its_place_away(first):
                self._promote(first)
            if postback.state == "delivered":
                self.see_to(postback)

    def _end_window(self, postback: Postback) -> None:
        if postback.release_at <= self.now or postback.state not in ("held", "duplicate", "voided"):
            return
        self.saw(f"{postback.state}, its window ended early")
        postback.release_at = self.now
        if postback.state == "held" and not postback.place.policy.manual:
            postback.due_at = self.now

    def _void(self, postback: Postback, reason: str) -> None:
        if postback.stays is not None:
            # The network has it, or may have it: that is no less true because it is not fired again.
            self.saw(f"fired again, taken back before it went: {postback.stays}")
            postback.state, postback.stays = postback.stays, None
            postback.due_at = postback.token = None
            return
        self.saw(f"{postback.state} {postback.kind or ''}, voided: {reason}")
        postback.state, postback.void_reason = "voided", reason
        postback.due_at = postback.token = None

    def key_of(self, postback: Postback) -> tuple[object, ...]:
        conversion, place = postback.conversion, postback.place
        if place.partner:
            own = () if conversion.order_id or conversion.sequence is not None else (conversion.event_id,)
            return (place.name, conversion.partner_id, conversion.order_id, conversion.sequence, *own)
        return (place.name, conversion.clicks[place.name], conversion.order_id if place.sub_id else None)

    def _promote(self, gone: Postback) -> None:
        """The earliest duplicate of one that is gone takes its place, the others are duplicates of that one then."""
        waiting = [each for each in self.postbacks if each.state == "duplicate" and each.duplicate_of is gone]
        free = [each for each in waiting if each.void_reason is None]
        if not free:
            return
        first = free[0]
        self.saw("promoted")
        self._hold(first)
        self._take_place(first)

    def _reinstate(self, postback: Postback) -> None:
        key = self.key_of(postback)
        holder = self.holders[key]
        postback.void_reason = None
        if holder is not postback and not gives_its_place_away(holder):
            postback.state, postback.duplicate_of = "duplicate", holder
            self.saw("reinstated as duplicate")
            return
        self._take_place(postback)
        if not postback.attempts:
            self._hold(postback)
        elif postback.first_attempt_at is not None and (
            postback.first_attempt_at + postback.place.horizon < self.now
        ):
            postback.state = "dead"
        else:
            postback.state, postback.due_at = "retrying", max(self.now, postback.release_at)
        self.saw(f"reinstated as {postback.state}")

    # Corrections of what was delivered

    def see_to(self, delivered: Postback) -> None:
        """Compare what the network was told with what stands, and begin, keep or withdraw its correction."""
        place, told, truth = delivered.place, delivered.told, stands(delivered)
        running = next((each for each in delivered.corrections if each.state in OPEN), None)
        if running is not None and running.state == "firing":
            self.saw(f"{running.kind} overtaken on the wire")
            running.overtaken = True
            return
        wrong = told != truth and not (truth == NOTHING and told == 0 and place.retraction is None)
        kind = self._correction(delivered) if wrong else None
        if delivered.failed_telling != truth:
            delivered.failed_telling = "untold"
        in_doubt = any(each.state == "in_doubt" for each in delivered.corrections)
        unknowable = kind == "restatement" and in_doubt and place.restatement and place.restatement.by_delta
        if delivered.failed_telling != "untold" or unknowable:
            kind = None
        if running is not None and running.kind != kind:
            self._void(running, "withdrawn")
            running = None
        if kind is not None and running is None:
            self._begin(delivered, kind)
        delivered.lost = wrong and kind is None
        if not wrong:
            delivered.failed_telling = "untold"
        if delivered.lost:
            self.saw("lost for good" if delivered.failed_telling != "untold" else "lost, no way to tell")

    def _correction(self, delivered: Postback) -> str | None:
        """The correction that would put it right, or None where the network takes none."""
        place, told, truth = delivered.place, delivered.told, stands(delivered)
        if not place.sends_corrections:
            return None
        if truth == NOTHING:
            if place.retraction:
                return "retraction"
            return "restatement" if place.restatement and told is not None else None
        # What could only be restated to nothing was never taken back.
        if place.restatement is None or (
            told == NOTHING and place.retraction and not place.restatement.revives
        ):
            return None
        return "restatement"

    def _begin(self, delivered: Postback, kind: str) -> None:
        at = self.now + delivered.place.correction_wait
        correction = Postback(
            number=len(self.postbacks),
            conversion=delivered.conversion,
            place=delivered.place,
            state="held",
            release_at=at,
            due_at=at,
            kind=kind,
            corrects=delivered,
        )
        revived = " after a retraction" if delivered.told == NOTHING else ""
        self.saw(f"{kind} begun{revived}")
        delivered.corrections.append(correction)
        self.postbacks.append(correction)

    # Clock, gate and wire

    def due(self) -> list[Postback]:
        return [
            each
            for each in self.postbacks
            if each.state in ("held", "retrying") and each.due_at is not None and each.due_at <= self.now
        ]

    def claim(self, postback: Postback, token: int, lease: int) -> None:
        assert postback in self.due(), (
            f"{postback.label} was claimed at {self.now}, {postback.state} and due at {postback.due_at}"
        )
        postback.state, postback.token, postback.due_at = "leased", token, self.now + lease

    def let_go(self, place_name: str | None) -> None:
        for postback in self.postbacks:
            if (
                postback.state == "held"
                and postback.due_at == NEVER
                and postback.release_at <= self.now
                and place_name in (None, postback.place.name)
            ):
                postback.due_at = postback.release_at

    def give_back(self, postback: Postback, token: int, delay: int) -> None:
        if postback.state == "leased" and postback.token == token:
            self._back(postback, self.now + delay)

    def _back(self, postback: Postback, due_at: int) -> None:
        postback.state, postback.due_at, postback.token = (
            "retrying" if postback.attempts else "held",
            due_at,
            None,
        )

    def gate(self, postback: Postback, token: int, lease: int) -> bool:
        """Whether the postback may be sent now. If so, it is on the wire."""
        if postback.state != "leased" or postback.token != token or postback.release_at > self.now:
            return False
        if postback.expires_at is not None and postback.expires_at < self.now:
            self.saw("expired")
            self._end_at_gate(postback, "expired")
            return False
        if (
            postback.corrects is None
            and postback.place.policy.voids_undecided
            and "credit_check.approved" not in postback.conversion.outcomes
        ):
            self._end_at_gate(postback, "voided")
            return False
        if postback.stays == "in_doubt":
            postback.stays = None
        postback.state, postback.overtaken = "firing", False
        postback.attempts += 1
        if postback.first_attempt_at is None:
            postback.first_attempt_at = self.now
        assert postback.due_at is not None
        if postback.due_at < self.now + lease * 3 / 4:
            postback.due_at = self.now + lease
        postback.sending = self.to_send(postback)
        return True

    def _end_at_gate(self, postback: Postback, state: str) -> None:
        if state == "voided" or postback.stays is not None:
            self._void(postback, "unconfirmed")
        else:
            postback.state, postback.due_at, postback.token = state, None, None
        if postback.corrects is None and postback.state == "delivered":
            self.see_to(postback)
        elif postback.state in ("voided", "expired"):
            self._promote(postback)

    def to_send(self, postback: Postback) -> Worth:
        """What an attempt that starts now tells the network."""
        if postback.corrects is None:
            return postback.conversion.net
        worth = stands(postback.corrects)
        return Decimal(0) if postback.kind == "restatement" and worth == NOTHING else worth

    def answer(self, postback: Postback, token: int, verdict: str) -> bool:
        """An attempt ended: ``delivered``, ``rejected``, ``retry`` or ``unknown``. False if it came too late."""
        if postback.state != "firing" or postback.token != token:
            self.saw("settled too late")
            return False
        ended = self._after(postback, verdict)
        self.saw(f"{postback.kind or 'conversion'} {ended}")
        postback.had_unknown |= verdict == "unknown"
        postback.token = postback.due_at = None
        postback.state = ended
        wish = postback.corrects is None and postback.void_reason
        if postback.stays is not None and (ended != "retrying" or wish):
            # The network has it, whatever came of firing it again.
            self.saw(f"fired again though delivered: {ended}")
            if ended == "delivered":
                postback.told = postback.sending
            postback.state, postback.stays = "delivered", None
            self.see_to(postback)
            return True
        if ended == "retrying":
            if wish:
                postback.state = "voided"
                self._promote(postback)
            else:
                postback.due_at = self.now + self._delay(postback)
        if postback.corrects is not None:
            self._corrected(postback)
        elif ended == "delivered":
            if postback.void_reason:
                self.saw("delivered against a wish")
            postback.told = postback.sending
            self.see_to(postback)
        return True

    def _corrected(self, correction: Postback) -> None:
        """An attempt at a correction ended."""
        delivered = correction.corrects
        assert delivered is not None
        if correction.state == "delivered":
            delivered.told = correction.sending
        elif correction.state in FAILED and not correction.overtaken:
            truth = stands(delivered)
            sent = NOTHING if truth == NOTHING and correction.sending == 0 else correction.sending
            delivered.failed_telling = sent
        self.see_to(delivered)

    def _delay(self, postback: Postback) -> int:
        return postback.place.base * int(2 ** (postback.attempts - postback.budget_from - 1))

    def _after(self, postback: Postback, verdict: str) -> str:
        place = postback.place
        if verdict in ("delivered", "rejected"):
            return verdict
        dedupe = place.dedupe
        if postback.kind is not None:
            correcting = place.retraction if postback.kind == "retraction" else place.restatement
            assert correcting is not None
            dedupe = correcting.dedupe
        if verdict == "unknown" and dedupe == "counted_twice":
            return "in_doubt"
        again_at = self.now + self._delay(postback)
        assert postback.first_attempt_at is not None
        if (
            postback.attempts - postback.budget_from >= place.attempts
            or again_at > postback.first_attempt_at + place.horizon
        ):
            return "dead"
        if postback.expires_at is not None and again_at > postback.expires_at:
            return "dead"
        return "retrying"

    def rescue(self) -> None:
        """Take back what silent workers held."""
        for postback in list(self.postbacks):
            if postback.due_at is None or postback.due_at > self.now:
                continue
            if postback.state == "leased":
                self._back(postback, postback.due_at if postback.attempts else postback.release_at)
        for postback in list(self.postbacks):
            if postback.state == "firing" and postback.due_at is not None and postback.due_at <= self.now:
                assert postback.token is not None
                self.answer(postback, postback.token, "unknown")
