"""What people do about what has ended: fire it again, think better of it, say what the network said. The rules, a second time."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.rules import (
    NOTHING,
    OPEN,
    Postback,
    Worth,
    gives_its_place_away,
    stands,
    wished,
)
from tests.model.world import World

ENDED = ("delivered", "rejected", "dead", "expired", "in_doubt", "voided", "duplicate")


@dataclass(frozen=True)
class Before:
    """What a postback was when a run took it up."""

    state: str
    attempts: int
    budget_from: int
    first_attempt_at: int | None
    expires_at: int | None
    void_reason: str | None
    had_unknown: bool
    freed: bool
    run: int | None
    claimed: bool
    """Whether it did not hold its place, and took it."""
    failed_telling: Worth | str


@dataclass
class FiringAgain(World):
    """The world, with people in it."""

    runs: dict[int, list[tuple[Postback, Before]]] = field(default_factory=dict)
    twice: list[Postback] = field(default_factory=list)
    """Those that a person had fired though another one held their place: only then may one be counted beside another."""

    # Firing again

    def replay(self, postback: Postback, run: int, *, force: bool) -> str | None:
        """Fire one again, as of now. Returns why not, if it is not."""
        against = self._never(postback) or (None if force else self._not_unless_forced(postback))
        if against:
            self.saw(f"not fired again: {against}")
            return against
        rival = self._rival(postback)
        claims = postback.corrects is None and rival is None and not self._has_its_place(postback)
        corrected = postback.corrects
        before = Before(
            postback.state, postback.attempts, postback.budget_from, postback.first_attempt_at,
            postback.expires_at, postback.void_reason, postback.had_unknown, postback.freed, postback.run, claims,
            "untold" if corrected is None else corrected.failed_telling,
        )  # fmt: skip
        self.runs.setdefault(run, []).append((postback, before))
        self.saw(
            f"fired again, {postback.kind or 'conversion'} {postback.state}{' by force' if force else ''}"
        )
        if rival is not None:
            self.twice.append(postback)
        if claims:
            self._take_place(postback)
        if self._too_old(postback):
            postback.expires_at = None
        postback.had_unknown |= postback.state == "in_doubt"
        postback.stays = postback.state if postback.state in ("delivered", "in_doubt") else None
        postback.state = "retrying" if postback.attempts else "held"
        postback.due_at = max(self.now, postback.release_at)
        postback.budget_from, postback.first_attempt_at = postback.attempts, None
        postback.void_reason, postback.freed, postback.run = None, False, run
        postback.lost = postback.overtaken = False
        if corrected is not None:
            # It is being told after all.
            corrected.lost, corrected.failed_telling = False, "untold"
        return None

    def _never(self, postback: Postback) -> str | None:
        if postback.state in (*OPEN, "voided", "duplicate"):
            return postback.state
        if postback.corrects is not None:
            return self._no_correction(postback, postback.corrects)
        if postback.state == "delivered" and postback.told == NOTHING:
            return "retracted"
        if wished(postback):
            return "taken back"
        if postback.corrections:
            return "corrected"
        rival = self._rival(postback)
        return "another fires in its place" if rival is not None and rival.state in OPEN else None

    def _no_correction(self, postback: Postback, delivered: Postback) -> str | None:
        if postback.state == "delivered":
            return "told"
        truth, told = stands(delivered), delivered.told
        wrong = told != truth and not (truth == NOTHING and told == 0 and delivered.place.retraction is None)
        under_way = any(each.state in OPEN for each in delivered.corrections)
        if (
            delivered.state != "delivered"
            or not wrong
            or self._correction(delivered) != postback.kind
            or under_way
        ):
            return "nothing to correct by it"
        return None

    def _not_unless_forced(self, postback: Postback) -> str | None:
        if postback.state == "delivered":
            return "delivered"
        if self._counts_twice(postback) and (postback.state == "in_doubt" or postback.had_unknown):
            return "counted twice, perhaps"
        if postback.corrects is None and self._rival(postback) is not None:
            return "another one has its place"
        return "too old" if self._too_old(postback) else None

    def _counts_twice(self, postback: Postback) -> bool:
        place = postback.place
        if postback.kind is None:
            return place.dedupe == "counted_twice"
        correcting = place.retraction if postback.kind == "retraction" else place.restatement
        return correcting is not None and correcting.dedupe == "counted_twice"

    def _too_old(self, postback: Postback) -> bool:
        if postback.state == "expired":
            return True
        return postback.expires_at is not None and postback.expires_at <= self.now

    def _rival(self, postback: Postback) -> Postback | None:
        holder = self.holders[self.key_of(postback)]
        return None if holder is postback or gives_its_place_away(holder) else holder

    def _has_its_place(self, postback: Postback) -> bool:
        return self.holders[self.key_of(postback)] is postback and not gives_its_place_away(postback)

    # Thinking better of it

    def put_back(self, run: int) -> list[Postback]:
        """Stop a run: what has not fired of it is what it was."""
        back = [
            (postback, before)
            for postback, before in self.runs.pop(run, [])
            if postback.run == run
            and postback.state in ("held", "retrying", "leased")
            and postback.attempts == before.attempts
        ]
        for postback, before in back:
            postback.state, postback.run = before.state, before.run
            postback.due_at = postback.token = postback.stays = None
            postback.budget_from, postback.first_attempt_at = before.budget_from, before.first_attempt_at
            postback.expires_at, postback.void_reason = before.expires_at, before.void_reason
            postback.had_unknown = before.had_unknown
            postback.freed = before.state in ("dead", "rejected") and (before.claimed or before.freed)
        for postback, before in back:
            if before.claimed or postback.freed:
                self._promote(postback)
        for postback, _ in back:
            if postback.corrects is not None:
                postback.corrects.failed_telling = stands(postback.corrects)
                self.see_to(postback.corrects)
            elif postback.state == "delivered":
                self.see_to(postback)
        return [postback for postback, _ in back]

    # What the network said

    def settle_by_hand(self, postback: Postback, said: str) -> None:
        """One in doubt was counted, or was not; and nobody fires again by itself."""
        assert postback.state == "in_doubt"
        self.saw(f"settled by hand, {postback.kind or 'conversion'}: {said}")
        if said == "delivered":
            postback.state = "delivered"
            if postback.corrects is None:
                postback.told = postback.sending
                self.see_to(postback)
                return
        else:
            postback.state, postback.had_unknown = "dead", False
            if postback.corrects is None:
                postback.freed = True
                self._promote(postback)
                return
        self._corrected(postback)
