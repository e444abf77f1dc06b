"""The delay in numbers, and the two writings of Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from schemas.backoff import RetryPolicy, delay, parse_retry_after

NOW = datetime(1994, 11, 6, 8, 49, 7, tzinfo=UTC)
POLICY = RetryPolicy.model_validate({"base": "5s", "factor": 3, "cap": "6h", "jitter": 0.2})


def test_the_delays_of_the_default_policy() -> None:
    """Five seconds, times three each time, up to the cap less its half-spread."""
    middles = [delay(attempt, POLICY, 0.5) for attempt in range(1, 12)]
    assert middles[:4] == [
        timedelta(seconds=5),
        timedelta(seconds=15),
        timedelta(seconds=45),
        timedelta(seconds=135),
    ]
    assert middles[-1] == timedelta(hours=5)


def test_the_spread_is_a_fifth_to_either_side() -> None:
    """From four to six seconds around five."""
    assert delay(1, POLICY, 0.0) == timedelta(seconds=4)
    assert delay(1, POLICY, 1.0) == timedelta(seconds=6)


def test_retry_after_is_a_floor_and_spread_upwards() -> None:
    """A crowd told to come back in a minute comes in the seconds after it."""
    minute = timedelta(minutes=1)
    assert delay(1, POLICY, 0.0, minute) == minute
    assert minute < delay(1, POLICY, 0.9, minute) <= minute + timedelta(seconds=1)


def test_a_retry_after_shorter_than_the_wait_changes_nothing() -> None:
    """The longer of the two holds."""
    assert delay(4, POLICY, 0.3, timedelta(seconds=1)) == delay(4, POLICY, 0.3)


@pytest.mark.parametrize(
    ("field", "wait"),
    [
        ("120", timedelta(seconds=120)),
        (" 0 ", timedelta(0)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", timedelta(seconds=30)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", timedelta(seconds=30)),
        ("Sun Nov  6 08:49:37 1994", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 09:49:37 +0100", timedelta(seconds=30)),
        ("Sun, 06 Nov 1994 08:00:00 GMT", timedelta(0)),
        ("9" * 400, timedelta(days=36500)),
        ("000000000000000000007", timedelta(seconds=7)),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("²", None),
        ("Sun, 06 Nov 99999999999999999999 08:49:37 GMT", None),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 1994 08:49:37 +9999999999999999999999", None),
    ],
)
def test_retry_after_is_read_in_either_writing(field: str, wait: timedelta | None) -> None:
    """Seconds or an HTTP-date in its three forms, relative to now; anything else is ignored."""
    assert parse_retry_after(field, NOW) == wait


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attempts", 0),
        ("base", "0s"),
        ("base", "5"),
        ("factor", 0.5),
        ("jitter", 1),
        ("cap", "-1s"),
        ("tries", 3),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_its_key(key: str, value: object) -> None:
    """The key at fault is named."""
    with pytest.raises(ValidationError) as refused:
        RetryPolicy.model_validate({key: value})
    assert refused.value.errors()[0]["loc"] == (key,)
