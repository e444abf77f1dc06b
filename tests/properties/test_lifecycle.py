"""Laws of the state table and of decide: a void never fires, and every verdict has its consequence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.backoff import RetryPolicy
from schemas.lifecycle import (
    FINAL,
    PERSONAL,
    TABLE,
    VOIDABLE,
    AskAPerson,
    Fired,
    Move,
    Reschedule,
    Settle,
    State,
    decide,
)
from schemas.verdict import Dedupe, Verdict, VerdictKind

quick = settings(max_examples=300, deadline=None)
START = datetime(2026, 11, 22, 10, tzinfo=UTC)

policies = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 20),
    base=st.timedeltas(timedelta(seconds=1), timedelta(hours=1)),
    factor=st.floats(1, 10),
    cap=st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
    jitter=st.floats(0, 0.9),
    horizon=st.timedeltas(timedelta(seconds=1), timedelta(days=10)),
)
fired = st.builds(
    Fired,
    attempt=st.integers(1, 25),
    first_attempt_at=st.just(START),
    retry=policies,
    dedupe=st.sampled_from(Dedupe),
    had_unknown=st.booleans(),
    expires_at=st.none() | st.timedeltas(timedelta(0), timedelta(days=20)).map(lambda wait: START + wait),
)
verdicts = st.builds(
    Verdict,
    kind=st.sampled_from(VerdictKind),
    rule=st.just("a rule"),
    retry_after=st.none() | st.timedeltas(timedelta(0), timedelta(days=40000)),
)
nows = st.timedeltas(timedelta(0), timedelta(days=12)).map(lambda since: START + since)
draws = st.floats(0, 1, exclude_max=True)


SIGNALLED = {State.DUPLICATE, State.VOIDED}
"""Final states that a signal's own transaction may move on from: a place becomes free, a reason is withdrawn."""


def _reachable(start: State) -> set[State]:
    """Every state that some path of the table leads to, the start included, with no signal and no person on the way."""
    reached, ahead = {start}, [start]
    while ahead:
        state = ahead.pop()
        for move, targets in TABLE[state].items() if state not in SIGNALLED else ():
            if move in PERSONAL:
                continue
            ahead += targets - reached
            reached |= targets
    return reached


def test_no_path_fires_after_an_end() -> None:
    """From no final state does anything lead to firing unless a signal withdraws what ended it, or a person fires it again:
    and what is voided or a duplicate no person does."""
    assert all(State.FIRING not in _reachable(state) for state in FINAL)
    assert TABLE[State.DUPLICATE] == {Move.PROMOTE: {State.HELD}}
    assert TABLE[State.VOIDED].keys() == {Move.REINSTATE}
    replayed = {state for state, moves in TABLE.items() if Move.REPLAY in moves}
    assert replayed == FINAL - SIGNALLED
    waiting = {State.HELD, State.RETRYING}
    assert all(TABLE[state][Move.REPLAY] <= waiting for state in replayed)


def test_what_a_replay_comes_back_to_is_what_can_be_replayed() -> None:
    """Whatever may be put back is a state that a replay leaves; from the wire only what was delivered comes back."""
    back = {state: moves[Move.RETURN] for state, moves in TABLE.items() if Move.RETURN in moves}
    assert back.keys() == VOIDABLE | {State.FIRING}
    assert set().union(*back.values()) == {state for state, moves in TABLE.items() if Move.REPLAY in moves}
    assert back[State.FIRING] == {State.DELIVERED}
    # Never attempted is held: what had an attempt does not come back to it.
    left = {state for state, moves in TABLE.items() if State.HELD in moves.get(Move.REPLAY, ())}
    assert back[State.HELD] == left


def test_every_void_ends_in_voided() -> None:
    """No state has a void that leads anywhere else."""
    assert all(moves.get(Move.VOID, {State.VOIDED}) == {State.VOIDED} for moves in TABLE.values())


def test_whatever_may_still_fire_can_be_voided() -> None:
    """A refund finds a way to stop every postback that is not done, one on the wire included."""
    may_fire = {state for state in State if State.FIRING in _reachable(state)}
    assert may_fire == VOIDABLE | {State.FIRING}


def test_firing_is_entered_through_the_gate_alone() -> None:
    """Only a lease, and only by the move that checks due and void under the row's lock."""
    ways = {
        (state, move) for state, moves in TABLE.items() for move, to in moves.items() if State.FIRING in to
    }
    assert ways == {(State.LEASED, Move.GATE)}


def test_every_postback_can_reach_an_end() -> None:
    """No state is a trap: from each some final state can be reached."""
    assert all(_reachable(state) & FINAL for state in State)


def test_the_table_knows_every_state() -> None:
    """Every state has its row, and nothing leaves a final one but what a signal or a person moves."""
    assert TABLE.keys() == set(State)
    assert {state for state, moves in TABLE.items() if moves.keys() - PERSONAL} - SIGNALLED == set(
        State
    ) - FINAL


@quick
@given(fired, verdicts, nows, draws)
def test_decide_is_total_and_keeps_to_the_table(
    postback: Fired, verdict: Verdict, now: datetime, draw: float
) -> None:
    """Every verdict has a decision, and its state is one that firing may move to."""
    decision = decide(postback, verdict, now, draw)
    after_firing = set().union(*TABLE[State.FIRING].values())
    match decision:
        case Settle():
            assert decision.state in after_firing
        case Reschedule():
            assert State.RETRYING in after_firing
        case AskAPerson():
            assert State.IN_DOUBT in after_firing
    assert decision.reason


@quick
@given(fired, st.builds(Verdict, st.just(VerdictKind.RETRY), st.just("a rule")) | verdicts, nows, draws)
def test_nothing_is_rescheduled_beyond_attempts_horizon_or_age(
    postback: Fired, verdict: Verdict, now: datetime, draw: float
) -> None:
    """Another attempt comes only within the number, the horizon and the network's age limit, and never early."""
    decision = decide(postback, verdict, now, draw)
    if not isinstance(decision, Reschedule):
        return
    assert postback.attempt < postback.retry.attempts
    assert decision.next_attempt_at <= START + postback.retry.horizon
    assert postback.expires_at is None or decision.next_attempt_at <= postback.expires_at
    assert decision.next_attempt_at == now + decision.delay
    assert verdict.retry_after is None or decision.delay >= verdict.retry_after


@quick
@given(fired, verdicts, nows, draws)
def test_what_may_have_arrived_is_not_resent_where_it_counts_twice(
    postback: Fired, verdict: Verdict, now: datetime, draw: float
) -> None:
    """An unknown outcome is repeated only where a repeat is harmless or refused; an unreadable answer never is."""
    decision = decide(postback, verdict, now, draw)
    if verdict.kind is VerdictKind.IN_DOUBT or (
        verdict.kind is VerdictKind.UNKNOWN and postback.dedupe is Dedupe.COUNTED_TWICE
    ):
        assert isinstance(decision, AskAPerson)
    if isinstance(decision, Reschedule):
        assert verdict.kind in (VerdictKind.RETRY, VerdictKind.UNKNOWN)
