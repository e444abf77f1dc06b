"""Laws of the delay: a floor that holds, a cap that holds, and a spread without bias."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from statistics import fmean

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.backoff import RetryPolicy, delay, parse_retry_after

quick = settings(max_examples=200, deadline=None)
MICROSECOND = timedelta(microseconds=1)

durations = st.timedeltas(timedelta(milliseconds=1), timedelta(days=30))
policies = st.builds(
    RetryPolicy,
    base=durations,
    factor=st.floats(1, 10),
    cap=durations,
    jitter=st.floats(0, 0.9),
)
attempts = st.integers(1, 100)
draws = st.floats(0, 1, exclude_max=True)


@quick
@given(attempts, policies, draws, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_delay_never_undercuts_retry_after(
    attempt: int, policy: RetryPolicy, draw: float, retry_after: timedelta
) -> None:
    """The network's instant is the earliest one."""
    assert delay(attempt, policy, draw, retry_after) >= retry_after


@quick
@given(attempts, policies, draws)
def test_without_retry_after_a_delay_never_exceeds_its_cap(
    attempt: int, policy: RetryPolicy, draw: float
) -> None:
    """Neither growth nor jitter leads above the cap, nor to no wait at all."""
    assert timedelta(0) <= delay(attempt, policy, draw) <= policy.cap


@quick
@given(attempts, policies, draws)
def test_jitter_is_symmetric_so_it_is_unbiased(attempt: int, policy: RetryPolicy, draw: float) -> None:
    """Every draw has a mirror image, and the two lie as far above the middle as below it."""
    middle = delay(attempt, policy, 0.5)
    mirrored = delay(attempt, policy, draw) + delay(attempt, policy, 1 - draw)
    assert abs(mirrored - 2 * middle) <= 4 * MICROSECOND


@quick
@given(attempts, policies)
def test_the_mean_delay_is_the_middle(attempt: int, policy: RetryPolicy) -> None:
    """Over evenly spaced draws the mean is the middle: clamping at the cap takes nothing away."""
    middle = delay(attempt, policy, 0.5) / MICROSECOND
    mean = fmean(delay(attempt, policy, (i + 0.5) / 50) / MICROSECOND for i in range(50))
    assert abs(mean - middle) <= 2 + middle * 1e-9


@quick
@given(policies, draws)
def test_a_delay_never_shrinks_from_one_attempt_to_the_next(policy: RetryPolicy, draw: float) -> None:
    """For the same draw, later attempts wait at least as long."""
    waits = [delay(attempt, policy, draw) for attempt in range(1, 20)]
    assert all(later >= earlier for earlier, later in itertools.pairwise(waits))


@quick
@given(st.integers(0, 10**12))
def test_retry_after_in_seconds_is_read_as_it_stands(seconds: int) -> None:
    """delay-seconds, up to a bound that no horizon reaches."""
    read = parse_retry_after(str(seconds), datetime(2026, 1, 1, tzinfo=UTC))
    assert read == min(timedelta(seconds=seconds), timedelta(days=36500))


@quick
@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 — hypothesis wants its bounds naive
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 — as above
)
def test_retry_after_as_a_date_is_the_wait_until_then(now: datetime, instant: datetime) -> None:
    """HTTP-date, relative to now; an instant that is past is no wait."""
    instant = instant.replace(microsecond=0)
    read = parse_retry_after(format_datetime(instant, usegmt=True), now)
    assert read == max(instant - now, timedelta(0))


@quick
@given(st.text(max_size=60))
def test_no_retry_after_field_raises(text: str) -> None:
    """Whatever a network sends, the field is read or ignored."""
    read = parse_retry_after(text, datetime(2026, 1, 1, tzinfo=UTC))
    assert read is None or read >= timedelta(0)
