"""What may be done by hand: every act in every state, and never a window that ends earlier or beyond the age limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.by_hand import Act, Errand, Extension, Moved, Postback, Refused, decide
from schemas.lifecycle import TABLE, State

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
VOID = Errand(Act.VOID)
EXTEND = Errand(Act.EXTEND, Extension(by=WEEK))
RELEASE = Errand(Act.RELEASE)


def postback(state: State = State.HELD, **fields: Any) -> Postback:
    """Its window ends in an hour where it is open, and ended an hour ago where it is not."""
    still_open = state in {State.HELD, State.DUPLICATE}
    attempts = 0 if state in {State.HELD, State.DUPLICATE, State.LEASED} else 1
    release_at = NOW + HOUR if still_open else NOW - HOUR
    return Postback(**{"state": state, "attempts": attempts, "release_at": release_at, **fields})


def moved(errand: Errand, given: Postback) -> Moved:
    decision = decide(errand, given, NOW)
    assert isinstance(decision, Moved), decision
    return decision


def refused(errand: Errand, given: Postback) -> Refused:
    decision = decide(errand, given, NOW)
    assert isinstance(decision, Refused), decision
    return decision


MOVES = {
    (Act.VOID, State.HELD): State.VOIDED,
    (Act.VOID, State.LEASED): State.VOIDED,
    (Act.VOID, State.RETRYING): State.VOIDED,
    (Act.VOID, State.FIRING): State.FIRING,
    (Act.VOID, State.DUPLICATE): State.DUPLICATE,
    (Act.EXTEND, State.HELD): State.HELD,
    (Act.EXTEND, State.LEASED): State.HELD,
    (Act.EXTEND, State.DUPLICATE): State.DUPLICATE,
    (Act.RELEASE, State.HELD): State.HELD,
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("errand", [VOID, EXTEND, RELEASE], ids=lambda errand: errand.act)
def test_every_act_in_every_state_is_done_or_explained(errand: Errand, state: State) -> None:
    """Nine of thirty-three make sense; the others are refused in words of their own."""
    decision = decide(errand, postback(state), NOW)
    if (errand.act, state) in MOVES:
        assert isinstance(decision, Moved)
        assert decision.state is MOVES[errand.act, state]
    else:
        assert isinstance(decision, Refused)
        assert len(decision.why.split()) > 3


@pytest.mark.parametrize(("act", "state"), MOVES)
def test_acts_keep_to_the_table_of_states(act: Act, state: State) -> None:
    """What changes a state by hand is a move that the machine has."""
    target = MOVES[act, state]
    assert target is state or any(target in targets for targets in TABLE[state].values())


@pytest.mark.parametrize("state", [State.FIRING, State.DUPLICATE])
def test_what_cannot_be_voided_now_is_voided_once(state: State) -> None:
    """The wish is kept, over one that a signal made and that another could withdraw; wishing again changes nothing."""
    assert moved(VOID, postback(state)).wish
    assert moved(VOID, postback(state, void_reason="refunded")).wish
    assert "before" in refused(VOID, postback(state, void_reason="by_hand")).why


def test_what_is_voided_already_says_as_what() -> None:
    """By hand, or by which signal."""
    assert refused(VOID, postback(State.VOIDED, void_reason="by_hand")).why.endswith("already, by hand")
    assert refused(VOID, postback(State.VOIDED, void_reason="charged_back")).why.endswith("as charged back")


def test_an_extension_counts_from_the_windows_end_or_from_now_the_later() -> None:
    """An open window gets a week more; one that ended and waits for a hand gets a week from now."""
    assert moved(EXTEND, postback()).release_at == NOW + HOUR + WEEK
    ended = postback(release_at=NOW - WEEK, waits_for_hand=True)
    assert moved(EXTEND, ended).release_at == NOW + WEEK


@pytest.mark.parametrize("to", [NOW - HOUR, NOW, NOW + HOUR / 2, NOW + HOUR])
def test_a_window_is_never_made_shorter(to: datetime) -> None:
    """Nor left as it is, nor ended in the past; the instants are named."""
    assert refused(Errand(Act.EXTEND, Extension(to=to)), postback()).instants


def test_a_window_never_reaches_the_age_limit() -> None:
    """At the limit is too late; both instants are named."""
    limit = NOW + HOUR + WEEK
    decision = refused(EXTEND, postback(expires_at=limit))
    assert decision.instants.count("2026-12-08 13:00:00 UTC") == 2
    assert moved(EXTEND, postback(expires_at=limit + timedelta(seconds=1)))


def test_a_lease_is_taken_back_only_if_nothing_was_ever_sent() -> None:
    """After an attempt the window is over for good."""
    assert moved(EXTEND, postback(State.LEASED)).state is State.HELD
    assert "void it instead" in refused(EXTEND, postback(State.LEASED, attempts=1)).why


def test_a_release_ends_the_window_now_and_never_moves_its_end_later() -> None:
    """What waits for a hand keeps the end that its window had."""
    assert moved(RELEASE, postback()).release_at == NOW
    ended = postback(release_at=NOW - WEEK, waits_for_hand=True, let_go=True)
    assert moved(RELEASE, ended).release_at == NOW - WEEK


def test_a_release_of_what_was_let_go_before_is_refused() -> None:
    """It is due; what was due without a hand may still wait for a decision, so that is let go."""
    due = postback(release_at=NOW - HOUR)
    assert moved(RELEASE, due)
    assert "before" in refused(RELEASE, postback(release_at=NOW - HOUR, let_go=True)).why


def test_what_is_too_old_is_not_released() -> None:
    """The gate would let it expire."""
    assert "age limit" in refused(RELEASE, postback(expires_at=NOW)).why
