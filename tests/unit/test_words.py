"""Instants and durations as investigators read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from investigations.words import clock, milliseconds, offset, ordinal, span

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_an_instant_is_shown_in_utc_whatever_its_offset() -> None:
    """One clock on the page."""
    assert (
        clock(datetime(2026, 11, 22, 13, 0, 0, 999_999, timezone(timedelta(hours=1))))
        == "2026-11-22 12:00:00.999"
    )


@pytest.mark.parametrize(
    ("after", "shown"),
    [
        (timedelta(0), "+00:00:00"),
        (timedelta(days=14, seconds=1), "+14d 00:00:01"),
        (timedelta(hours=23, minutes=59, seconds=59, microseconds=999_999), "+23:59:59"),
        (timedelta(seconds=-3), "-00:00:03"),
        (timedelta(days=-2, hours=-1), "-2d 01:00:00"),
    ],
)
def test_an_offset_is_measured_from_the_event(after: timedelta, shown: str) -> None:
    """Also backwards: a click comes before its conversion."""
    assert offset(NOON, NOON + after) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.08, "80 ms"),
        (5.2, "5.2 s"),
        (45, "45 s"),
        (60, "1 min"),
        (3 * 3600 + 12 * 60 + 59, "3 h 12 min"),
        (13 * 86_400 + 4 * 3600, "13 d 4 h"),
        (86_400, "1 d"),
    ],
)
def test_a_span_has_the_two_units_that_matter(seconds: float, shown: str) -> None:
    """Nobody plans by the second thirteen days ahead."""
    assert span(timedelta(seconds=seconds)) == shown


def test_a_time_that_was_not_reached_is_a_dash() -> None:
    """Zero would be a measurement."""
    assert [milliseconds(value) for value in (None, 1.25, 45.4, 2500.0)] == ["-", "1.2 ms", "45 ms", "2.50 s"]


def test_an_ordinal_is_written_as_people_say_it() -> None:
    """The teens are regular."""
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 111)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "111th"]
    )
