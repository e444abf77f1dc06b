"""Laws of a ruling: total over every state, and never two moves that contradict each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.hold import HoldPolicy
from schemas.lifecycle import TABLE, VOIDABLE, Move, State
from schemas.ruling import Postback, Ruling, rule
from schemas.signals import OUTCOMES, SIGNALLED, Confirmed, VoidReason

quick = settings(max_examples=500, deadline=None)
NOW = datetime(2026, 11, 22, tzinfo=UTC)

policies = st.sampled_from(
    [
        HoldPolicy(),
        HoldPolicy(kind="refund", wait=timedelta(days=1)),
        HoldPolicy(kind="credit_check", wait=timedelta(days=1)),
        HoldPolicy(kind="credit_check", wait=timedelta(days=1), release_on=()),
        HoldPolicy(
            kind="refund", wait=timedelta(days=1), release_on=("chargeback.won",), void_on=("refund",)
        ),
    ]
)
postbacks = st.builds(
    Postback,
    state=st.sampled_from(State),
    release_at=st.sampled_from([NOW - timedelta(hours=1), NOW + timedelta(hours=1)]),
    void_reason=st.none() | st.sampled_from(VoidReason),
    before=st.frozensets(st.sampled_from(OUTCOMES)),
)
outcomes = st.frozensets(st.sampled_from(OUTCOMES))
confirmed = st.lists(st.sampled_from(get_args(Confirmed)), max_size=2)


@quick
@given(postbacks, policies, outcomes, confirmed)
def test_a_ruling_keeps_to_the_table(
    postback: Postback, policy: HoldPolicy, standing: frozenset[str], came: list[str]
) -> None:
    """It voids only where the table has a void, reinstates only what is voided, and wishes only where neither can be."""
    ruling = rule(postback, policy, standing, came, NOW)  # type: ignore[arg-type] # strings of the outcomes
    moves = TABLE[postback.state]
    assert ruling.void is None or (Move.VOID in moves and postback.state in VOIDABLE)
    assert not ruling.reinstate or Move.REINSTATE in moves
    assert ruling.wish is None or postback.state in {State.FIRING, State.DUPLICATE}
    assert not (ruling.wish and ruling.unwish)


@quick
@given(postbacks, policies, outcomes, confirmed)
def test_what_the_policy_takes_back_never_goes_on(
    postback: Postback, policy: HoldPolicy, standing: frozenset[str], came: list[str]
) -> None:
    """While a reason stands, whatever can be voided is, and nothing is reinstated or freed of its wish."""
    ruling = rule(postback, policy, standing, came, NOW)  # type: ignore[arg-type] # strings of the outcomes
    if policy.void_reason(standing) is None:
        assert ruling.void is None
        return
    assert not ruling.reinstate
    assert not ruling.unwish
    assert ruling.void or postback.state not in VOIDABLE


@quick
@given(postbacks, policies, outcomes)
def test_no_window_ends_early_without_a_new_confirmation(
    postback: Postback, policy: HoldPolicy, standing: frozenset[str]
) -> None:
    """An approval that was acted on before does not end a window that somebody has extended since."""
    assert not rule(postback, policy, standing, [], NOW).release_early  # type: ignore[arg-type] # strings of the outcomes


@quick
@given(postbacks, policies, outcomes, confirmed)
def test_only_what_a_signal_voided_is_reinstated_by_one(
    postback: Postback, policy: HoldPolicy, standing: frozenset[str], came: list[str]
) -> None:
    """A void by hand, by the advertiser's service, or for want of a confirmation, stays."""
    ruling = rule(postback, policy, standing, came, NOW)  # type: ignore[arg-type] # strings of the outcomes
    if ruling.reinstate:
        assert postback.void_reason in SIGNALLED
        assert policy.void_reason(postback.before) is not None
    if postback.void_reason is VoidReason.BY_HAND:
        assert not ruling.unwish
        assert ruling.wish is None


def test_a_state_that_waits_for_a_person_is_left_alone() -> None:
    """Rejected, dead, expired and in doubt: signals change nothing there."""
    policy = HoldPolicy()
    for state in (State.REJECTED, State.DEAD, State.EXPIRED, State.IN_DOUBT):
        assert rule(Postback(state, NOW), policy, {"refund"}, [], NOW) == Ruling()
