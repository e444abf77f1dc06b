"""The breaker in numbers: when it opens, how long it stays so, and what closes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from schemas.breaker import (
    PROBES,
    Breaker,
    BreakerPolicy,
    BreakerState,
    Heard,
    Sign,
    Tally,
    advance,
    closed,
    cooldown,
    look,
    send_probes,
    sign_of,
)
from schemas.destination import Destination
from schemas.verdict import VerdictKind

NOW = datetime(2026, 12, 6, 9, tzinfo=UTC)
POLICY = BreakerPolicy()
PATIENCE = timedelta(seconds=25)
SECOND = timedelta(seconds=1)


def heard(down: int, up: int = 0, at: datetime = NOW) -> Heard:
    return Heard((Tally(at, down, up),))


def opened() -> Breaker:
    return advance(closed(NOW), heard(20), NOW, POLICY)


def probing(probes: int = PROBES) -> Breaker:
    breaker = opened()
    assert breaker.until is not None
    return send_probes(look(breaker, breaker.until), probes, breaker.until, PATIENCE)


def test_twenty_failures_in_a_row_open_it_and_nineteen_do_not() -> None:
    assert advance(closed(NOW), heard(19), NOW, POLICY).state is BreakerState.CLOSED
    breaker = opened()
    assert (breaker.state, breaker.until, breaker.trips) == (BreakerState.OPEN, NOW + 30 * SECOND, 1)
    assert breaker.says == "20 of the last 20 attempts failed"


def test_failures_that_come_one_by_one_add_up_within_the_window() -> None:
    """Twenty batches of one; spread over more than the window they never are twenty."""
    for apart, state in ((SECOND, BreakerState.OPEN), (4 * SECOND, BreakerState.CLOSED)):
        breaker = closed(NOW)
        for number in range(20):
            at = NOW + number * apart
            breaker = advance(breaker, heard(1, at=at), at, POLICY)
        assert breaker.state is state


@pytest.mark.parametrize(("up", "state"), [(2, BreakerState.OPEN), (3, BreakerState.CLOSED)])
def test_a_tenth_may_be_answered(up: int, state: BreakerState) -> None:
    assert advance(closed(NOW), heard(20, up), NOW, POLICY).state is state


def test_a_busy_network_that_dies_is_not_saved_by_what_it_answered_before() -> None:
    """A hundred thousand answers a moment ago, and then nothing but failures: the latest count."""
    busy = Heard((Tally(NOW - SECOND, 0, 100_000), Tally(NOW, 10, 0)))
    breaker = advance(closed(NOW), busy, NOW, POLICY)
    assert breaker.state is BreakerState.CLOSED
    for _ in range(2):
        breaker = advance(breaker, heard(10), NOW, POLICY)
    assert breaker.state is BreakerState.OPEN


def test_enough_answers_make_it_forget() -> None:
    """Nothing is remembered once the latest outcomes have no failure: then nobody needs to tell it of answers."""
    breaker = advance(closed(NOW), heard(5), NOW, POLICY)
    assert breaker.recent
    assert advance(breaker, heard(0, 22), NOW, POLICY) == closed(NOW)


def test_open_it_hears_nothing() -> None:
    """Those are answers to attempts that left before; only its own probes tell it anything."""
    breaker = opened()
    for said in (heard(50), heard(0, 50), Heard(probes_up=1)):
        assert advance(breaker, said, NOW + SECOND, POLICY) == breaker


def test_after_the_cooldown_it_wants_probes_and_one_answer_closes_it() -> None:
    breaker = opened()
    assert breaker.until is not None
    assert look(breaker, breaker.until - SECOND) == breaker
    half_open = look(breaker, breaker.until)
    assert half_open.wants_probes
    out = send_probes(half_open, PROBES, breaker.until, PATIENCE)
    assert not out.wants_probes
    after = advance(out, Heard(probes_down=2, probes_up=1), breaker.until + SECOND, POLICY)
    assert after == closed(breaker.until + SECOND)


def test_when_all_probes_fail_it_opens_for_longer_up_to_the_cap() -> None:
    breaker, waits = opened(), []
    for _ in range(8):
        assert breaker.until is not None
        waits.append((breaker.until - breaker.since).total_seconds())
        out = send_probes(look(breaker, breaker.until), PROBES, breaker.until, PATIENCE)
        almost = advance(out, Heard(probes_down=PROBES - 1), breaker.until, POLICY)
        assert almost.state is BreakerState.HALF_OPEN
        breaker = advance(almost, Heard(probes_down=1), breaker.until, POLICY)
    assert waits == [30, 60, 120, 240, 480, 600, 600, 600]


def test_others_do_not_count_while_it_is_probed() -> None:
    assert advance(probing(), heard(50, 50), NOW + SECOND, POLICY) == probing()


def test_probes_that_are_not_heard_of_are_followed_by_others() -> None:
    breaker = probing()
    assert breaker.until is not None
    assert look(breaker, breaker.until - SECOND) == breaker
    again = look(breaker, breaker.until)
    assert again.wants_probes
    assert again.trips == breaker.trips


def test_without_anything_due_it_stays_half_open() -> None:
    breaker = opened()
    assert breaker.until is not None
    half_open = look(breaker, breaker.until)
    assert send_probes(half_open, 0, breaker.until, PATIENCE) == half_open


def test_without_a_policy_it_is_closed() -> None:
    for breaker in (closed(NOW), opened(), probing()):
        assert advance(breaker, heard(100), NOW, None).state is BreakerState.CLOSED


@pytest.mark.parametrize(
    ("verdict", "status_code", "told_when", "sign"),
    [
        (VerdictKind.DELIVERED, 200, False, Sign.UP),
        (VerdictKind.REJECTED, 400, False, Sign.UP),
        (VerdictKind.DUPLICATE, 409, False, Sign.UP),
        (VerdictKind.IN_DOUBT, 200, False, Sign.UP),
        (VerdictKind.REJECTED, None, False, Sign.NEITHER),  # by our own guard
        (VerdictKind.RETRY, 503, True, Sign.DOWN),
        (VerdictKind.RETRY, None, False, Sign.DOWN),
        (VerdictKind.RETRY, 429, False, Sign.DOWN),
        (VerdictKind.RETRY, 429, True, Sign.NEITHER),
        (VerdictKind.UNKNOWN, None, False, Sign.DOWN),
    ],
)
def test_what_an_attempt_says(
    verdict: VerdictKind, status_code: int | None, told_when: bool, sign: Sign
) -> None:
    assert sign_of(verdict, status_code, told_when=told_when) is sign


def test_a_policy_is_read_and_switched_off() -> None:
    table = {"network": "xandr", "events": ["purchase"]}
    assert Destination.model_validate(table).breaker_policy == POLICY
    assert Destination.model_validate(table | {"breaker": False}).breaker_policy is None
    read = Destination.model_validate(table | {"breaker": {"failures": 5, "cap": "1m"}}).breaker_policy
    assert read == BreakerPolicy(failures=5, cap=timedelta(minutes=1))


@pytest.mark.parametrize("wrong", [True, {"cap": "5s"}, {"failures": 1}, {"share": 0.1}, {"cooldown": "1s"}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        Destination.model_validate({"network": "xandr", "events": ["purchase"], "breaker": wrong})


def test_a_thousandth_trip_is_the_cap() -> None:
    assert cooldown(1000, POLICY) == POLICY.cap
