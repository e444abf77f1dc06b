"""The rules of firing again, case by case: what is refused and why, what force overrules, and what it never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.lifecycle import TABLE, Move, State
from schemas.replaying import Again, Postback, Refused, Rival, Said, Settled, decide, settle
from schemas.signals import VoidReason
from schemas.verdict import Dedupe

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
PAST, FUTURE = NOW - timedelta(hours=1), NOW + timedelta(hours=1)


def postback(state: State = State.DEAD, **fields: Any) -> Postback:
    """One that was attempted three times, at a network that refuses a repeat."""
    return replace(Postback(state, 3, PAST, Dedupe.REJECTED), **fields)


def why(found: Postback, *, force: bool = False) -> str:
    decision = decide(found, NOW, force=force)
    assert isinstance(decision, Refused), decision
    return decision.words


@pytest.mark.parametrize(
    ("state", "attempts", "to"),
    [
        (State.DEAD, 3, State.RETRYING),
        (State.REJECTED, 1, State.RETRYING),
        (State.REJECTED, 0, State.HELD),
        (State.IN_DOUBT, 1, State.RETRYING),
    ],
)
def test_what_ended_uncounted_fires_again(state: State, attempts: int, to: State) -> None:
    """Never attempted is held, attempted before is retrying; nothing has to be overruled."""
    decision = decide(postback(state, attempts=attempts), NOW, force=False)
    assert isinstance(decision, Again)
    assert (decision.state, decision.warnings) == (to, ())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (postback(State.HELD), "`holdfire release`"),
        (postback(State.LEASED), "it fires now"),
        (postback(State.FIRING), "on the wire"),
        (postback(State.RETRYING), "comes by itself"),
        (postback(State.VOIDED, void_reason="refunded"), "it is voided, as refunded"),
        (postback(State.VOIDED, void_reason="by_hand"), "it is voided, by hand"),
        (postback(State.DUPLICATE), "for another one again"),
        (postback(void_reason=VoidReason.BY_HAND), "it was to be voided, by hand"),
        (
            postback(State.EXPIRED, taken_back=VoidReason.REFUNDED),
            "its conversion is taken back, as refunded",
        ),
        (postback(State.DELIVERED, retracted=True), "told that nothing of it stands"),
        (postback(State.DELIVERED, corrections=1), "corrections of it were ordered"),
        (postback(State.REJECTED, called_duplicate=True), "it has it already"),
        (
            postback(State.REJECTED, unrenderable="cannot be rendered: x"),
            "replay with --with-current-version",
        ),
        (postback(retired=True), "it is retired"),
        (postback(State.EXPIRED, rival=Rival(9, State.HELD)), "waits or fires in its place"),
        (postback(State.DELIVERED, adjustment=True), "another one"),
        (postback(State.DEAD, adjustment=True, stands=False), "does not have to be told any more"),
    ],
)
def test_no_force_fires_what_must_not_be_or_cannot_help(found: Postback, words: str) -> None:
    """The reason is the same with force as without, and offers none."""
    assert words in why(found)
    assert why(found, force=True) == why(found)
    assert "--force" not in why(found)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (postback(State.DELIVERED), "it was delivered"),
        (postback(State.IN_DOUBT, dedupe=Dedupe.COUNTED_TWICE), "`holdfire settle`"),
        (postback(had_unknown=True, dedupe=Dedupe.COUNTED_TWICE), "may have been counted"),
        (postback(rival=Rival(9, State.DELIVERED)), "which was delivered"),
        (postback(rival=Rival(9, State.IN_DOUBT)), "which may have been counted"),
        (postback(rival=Rival(9, State.DEAD)), "which is dead in its place"),
        (postback(State.EXPIRED), "age limit has passed"),
        (postback(expires_at=PAST), "it ignores what comes now"),
    ],
)
def test_what_may_count_twice_or_be_ignored_is_fired_by_force_alone(found: Postback, words: str) -> None:
    """Refused with the way to overrule it; forced, what was overruled is kept."""
    assert words in why(found)
    assert why(found).endswith("--force fires it all the same")
    decision = decide(found, NOW, force=True)
    assert isinstance(decision, Again)
    assert len(decision.warnings) == 1
    assert words in decision.warnings[0]


def test_all_that_is_overruled_is_said() -> None:
    """A delivered one past its age limit, whose place another has: three reasons against it."""
    found = postback(State.DELIVERED, expires_at=PAST, rival=Rival(9, State.DELIVERED))
    decision = decide(found, NOW, force=True)
    assert isinstance(decision, Again)
    assert len(decision.warnings) == 3


@pytest.mark.parametrize("dedupe", [Dedupe.HARMLESS, Dedupe.REJECTED])
def test_an_unknown_outcome_is_repeated_where_that_is_safe(dedupe: Dedupe) -> None:
    """The network counts it once, whichever attempt arrived."""
    for found in (postback(State.IN_DOUBT, dedupe=dedupe), postback(had_unknown=True, dedupe=dedupe)):
        assert isinstance(decide(found, NOW, force=False), Again)


@pytest.mark.parametrize("state", [State.DELIVERED, State.IN_DOUBT])
def test_what_the_network_has_or_may_have_is_what_it_falls_back_to(state: State) -> None:
    """If firing it again comes to nothing, it is not voided, rejected or dead: it is what it was."""
    decision = decide(postback(state), NOW, force=True)
    assert isinstance(decision, Again)
    assert decision.falls_back is state


def test_an_age_limit_is_passed_over_only_where_it_has_passed() -> None:
    """Else it goes on to end the postback."""
    found = [decide(postback(expires_at=instant), NOW, force=True) for instant in (None, PAST, NOW, FUTURE)]
    assert [each.ageless for each in found if isinstance(each, Again)] == [False, True, True, False]


def test_a_wish_that_a_signal_gave_lasts_as_long_as_the_signal() -> None:
    """Declined on the wire, approved since: there is nothing against it any more."""
    assert isinstance(decide(postback(void_reason=VoidReason.DECLINED), NOW, force=False), Again)


@pytest.mark.parametrize("state", State)
def test_only_what_is_in_doubt_is_settled_by_hand(state: State) -> None:
    """Either way, to a state that the table has; anything else is refused, and the reason says what it is."""
    for said, to in ((Said.DELIVERED, State.DELIVERED), (Said.NOT_COUNTED, State.DEAD)):
        decision = settle(state, said)
        if state is State.IN_DOUBT:
            assert decision == Settled(to)
            assert to in TABLE[state][Move.SETTLE]
        else:
            assert isinstance(decision, Refused)
            assert not decision.forceable
