"""The decision table: what becomes of a postback once its attempt has a verdict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas.backoff import RetryPolicy
from schemas.lifecycle import AskAPerson, Fired, Reschedule, Settle, State, came_from, decide
from schemas.verdict import Dedupe, Verdict, VerdictKind

START = datetime(2026, 11, 22, 10, tzinfo=UTC)
POLICY = RetryPolicy(attempts=3, base=timedelta(seconds=10), factor=2, jitter=0, horizon=timedelta(hours=1))


def _fired(
    attempt: int = 1,
    *,
    dedupe: Dedupe = Dedupe.COUNTED_TWICE,
    had_unknown: bool = False,
    expires_at: datetime | None = None,
    retry: RetryPolicy = POLICY,
) -> Fired:
    return Fired(attempt, START, retry, dedupe, had_unknown, expires_at)


def _verdict(kind: VerdictKind, retry_after: timedelta | None = None) -> Verdict:
    return Verdict(kind, "the rule", retry_after)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (VerdictKind.DELIVERED, State.DELIVERED),
        (VerdictKind.REJECTED, State.REJECTED),
        (VerdictKind.DUPLICATE, State.REJECTED),
    ],
)
def test_a_clear_answer_settles(kind: VerdictKind, state: State) -> None:
    """Taken or refused: it is done, and the rule is the reason."""
    assert decide(_fired(), _verdict(kind), START, 0.5) == Settle(state, "the rule")


def test_a_duplicate_after_a_lost_answer_means_that_the_lost_one_counted() -> None:
    """The network has it: from the attempt whose answer never came."""
    decision = decide(_fired(2, had_unknown=True), _verdict(VerdictKind.DUPLICATE), START, 0.5)
    assert isinstance(decision, Settle)
    assert decision.state is State.DELIVERED


def test_a_lost_answer_goes_to_a_person_where_a_second_would_count_twice() -> None:
    """Neither firing again nor giving up is right by itself."""
    decision = decide(_fired(dedupe=Dedupe.COUNTED_TWICE), _verdict(VerdictKind.UNKNOWN), START, 0.5)
    assert isinstance(decision, AskAPerson)


@pytest.mark.parametrize("dedupe", [Dedupe.HARMLESS, Dedupe.REJECTED])
def test_a_lost_answer_is_asked_for_again_where_that_is_safe(dedupe: Dedupe) -> None:
    """The network counts it once, whichever attempt arrived."""
    decision = decide(_fired(dedupe=dedupe), _verdict(VerdictKind.UNKNOWN), START, 0.5)
    assert decision == Reschedule(START + timedelta(seconds=10), timedelta(seconds=10), "the rule")


@pytest.mark.parametrize("dedupe", Dedupe)
def test_an_answer_that_cannot_be_read_goes_to_a_person(dedupe: Dedupe) -> None:
    """It was answered, so it is never resent by itself."""
    assert isinstance(decide(_fired(dedupe=dedupe), _verdict(VerdictKind.IN_DOUBT), START, 0.5), AskAPerson)


def test_a_failure_worth_repeating_waits_longer_each_time() -> None:
    """Ten seconds after the first attempt, twenty after the second."""
    waits = [decide(_fired(attempt), _verdict(VerdictKind.RETRY), START, 0.5) for attempt in (1, 2)]
    assert [wait.delay for wait in waits if isinstance(wait, Reschedule)] == [
        timedelta(seconds=10),
        timedelta(seconds=20),
    ]


def test_retry_after_is_kept_to() -> None:
    """The network's wait is longer than ours, so it is the one."""
    decision = decide(_fired(), _verdict(VerdictKind.RETRY, timedelta(minutes=5)), START, 0.0)
    assert isinstance(decision, Reschedule)
    assert decision.delay == timedelta(minutes=5)


def test_the_last_attempt_ends_it() -> None:
    """Three attempts were granted and the third failed."""
    decision = decide(_fired(3), _verdict(VerdictKind.RETRY), START, 0.5)
    assert decision == Settle(State.DEAD, "the rule; attempt 3 of 3 was the last")


def test_an_attempt_at_the_very_end_of_the_horizon_is_still_made() -> None:
    """An hour is granted: ten seconds before its end the next attempt just fits, a second later it does not."""
    fits = decide(_fired(), _verdict(VerdictKind.RETRY), START + timedelta(minutes=59, seconds=50), 0.5)
    late = decide(_fired(), _verdict(VerdictKind.RETRY), START + timedelta(minutes=59, seconds=51), 0.5)
    assert isinstance(fits, Reschedule)
    assert isinstance(late, Settle)
    assert late.state is State.DEAD
    assert "horizon" in late.reason


def test_a_retry_after_beyond_the_horizon_ends_it() -> None:
    """A network that asks for a century is not waited for, and nothing overflows."""
    decision = decide(_fired(), _verdict(VerdictKind.RETRY, timedelta(days=36500)), START, 0.5)
    assert isinstance(decision, Settle)
    assert decision.state is State.DEAD


def test_no_attempt_is_planned_after_the_networks_age_limit() -> None:
    """It would be ignored."""
    decision = decide(
        _fired(expires_at=START + timedelta(seconds=9)), _verdict(VerdictKind.RETRY), START, 0.5
    )
    assert isinstance(decision, Settle)
    assert "age limit" in decision.reason


def test_a_lease_returns_where_it_came_from() -> None:
    """Never attempted is held, attempted before is retrying."""
    assert came_from(0) is State.HELD
    assert came_from(1) is State.RETRYING
