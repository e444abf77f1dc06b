"""The law of a rate limit: whoever asks and however often, the rate is never exceeded and the order is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.pacing import BURST_S, Pace, admit

START = datetime(2026, 11, 22, tzinfo=UTC)
ASKS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300)), min_size=1, max_size=40)
RATES = st.floats(0.5, 2000)


@given(asks=ASKS, per_second=RATES)
def test_no_span_of_time_sees_more_than_the_rate_and_one_burst(
    asks: list[tuple[float, int]], per_second: float
) -> None:
    """Over any span from one ask to a later one: at most rate times (span and burst), and one."""
    pace, now, admitted = Pace(START, START), START, []
    for wait_s, wanted in asks:
        now += timedelta(seconds=wait_s)
        admission = admit(pace, wanted, per_second, now)
        pace = admission.pace
        admitted.append((now, admission.admitted))
    for first in range(len(admitted)):
        total = 0
        for at, count in admitted[first:]:
            total += count
            span_s = (at - admitted[first][0]).total_seconds()
            assert total <= per_second * (span_s + BURST_S) + 1 + 1e-3


@given(wanted=st.integers(1, 500), per_second=RATES)
def test_a_queue_that_comes_back_when_told_is_admitted_in_order_and_in_the_shortest_time(
    wanted: int, per_second: float
) -> None:
    """Each of those sent back is let through when it returns, one spacing after the one before it."""
    admission = admit(Pace(START, START), wanted, per_second, START)
    pace = admission.pace
    for place in range(wanted - admission.admitted):
        back_at = START + timedelta(seconds=admission.delay_s + place * admission.spacing_s + 1e-5)
        again = admit(pace, 1, per_second, back_at)
        assert again.admitted == 1
        pace = again.pace


@given(per_second=RATES, first=st.integers(1, 300), second=st.integers(1, 300))
def test_a_later_batch_is_sent_back_behind_an_earlier_one(per_second: float, first: int, second: int) -> None:
    """The oldest stay first: whoever asks later is told to come back later."""
    one = admit(Pace(START, START), first, per_second, START)
    two = admit(one.pace, second, per_second, START)
    if first > one.admitted and second > two.admitted:
        last_of_first = one.delay_s + (first - one.admitted - 1) * one.spacing_s
        assert two.delay_s >= last_of_first - 1e-5
