"""Windows: durations, business days, schedules and the rules that choose between them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.calendars import BusinessDays, longest_gap
from schemas.event import ConversionEvent
from schemas.hold import HoldPolicy, HoldRule, release_at
from schemas.signals import VoidReason


def policy(**table: Any) -> HoldPolicy:
    return HoldPolicy.model_validate(table)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def released(hold: HoldPolicy, occurred: str, received: str | None = None, clicked: str | None = None) -> str:
    """When it is released, in UTC."""
    instant = release_at(
        hold,
        occurred_at=at(occurred),
        clicked_at=at(clicked) if clicked else None,
        received_at=at(received or occurred),
    )
    assert instant.utcoffset() == timedelta(0)
    return instant.isoformat()


@pytest.mark.parametrize(
    ("measured_from", "wanted"),
    [
        ("event", "2026-11-16T10:00:00+00:00"),
        ("click", "2026-11-14T10:00:00+00:00"),
        ("receipt", "2026-11-17T10:00:00+00:00"),
    ],
)
def test_a_window_is_counted_from_where_the_policy_says(measured_from: str, wanted: str) -> None:
    hold = policy(kind="refund", wait="14d", measured_from=measured_from)
    found = released(
        hold, "2026-11-02T10:00:00+00:00", "2026-11-03T10:00:00+00:00", "2026-10-31T10:00:00+00:00"
    )
    assert found == wanted


def test_a_window_from_a_click_that_has_no_instant_is_counted_from_the_event() -> None:
    hold = policy(kind="refund", wait="1d", measured_from="click")
    assert released(hold, "2026-11-02T10:00:00+00:00") == "2026-11-03T10:00:00+00:00"


@pytest.mark.parametrize(
    ("wait", "calendar", "occurred", "wanted"),
    [
        # Friday afternoon: Monday is the first, Tuesday the second.
        ("2bd", "DE", "2026-11-20T15:00:00+01:00", "2026-11-24T14:00:00+00:00"),
        # On a Saturday nothing is counted before Monday.
        ("1bd", "DE", "2026-11-21T09:00:00+01:00", "2026-11-23T08:00:00+00:00"),
        # Christmas: the 24th works, 25th (Friday) and the weekend do not.
        ("2bd", "DE", "2026-12-23T12:00:00+01:00", "2026-12-28T11:00:00+00:00"),
        # All Saints' is a holiday in Bavaria, Reformation Day is not; in Berlin neither is one.
        ("1bd", "DE-BY", "2027-10-29T12:00:00+02:00", "2027-11-02T11:00:00+00:00"),
        ("1bd", "DE-BE", "2027-10-29T12:00:00+02:00", "2027-11-01T11:00:00+00:00"),
    ],
)
def test_business_days_pass_over_weekends_and_the_calendars_holidays(
    wait: str, calendar: str, occurred: str, wanted: str
) -> None:
    """The local time of day stays, also where the clocks changed in between."""
    hold = policy(kind="refund", wait=wait, calendar=calendar, timezone="Europe/Berlin")
    assert released(hold, occurred) == wanted


def test_what_is_due_goes_at_the_next_tick_of_the_schedule() -> None:
    hold = policy(kind="refund", wait="14d", schedule="0 6 * * 1-5", timezone="Europe/Berlin")
    # The window ends on Saturday at noon; Monday at six in Berlin is five in UTC.
    assert released(hold, "2026-11-07T12:00:00+01:00") == "2026-11-23T05:00:00+00:00"


def test_a_window_that_ends_on_a_tick_goes_with_that_tick() -> None:
    hold = policy(kind="refund", wait="1d", schedule="0 6 * * *")
    assert released(hold, "2026-11-07T06:00:00+00:00") == "2026-11-08T06:00:00+00:00"
    assert released(hold, "2026-11-07T06:00:01+00:00") == "2026-11-09T06:00:00+00:00"


def test_a_window_that_ended_before_the_event_came_in_waits_for_the_first_tick_from_then() -> None:
    hold = policy(kind="refund", wait="1d", schedule="0 6 * * *")
    assert (
        released(hold, "2026-11-01T12:00:00+00:00", "2026-11-20T07:00:00+00:00")
        == "2026-11-21T06:00:00+00:00"
    )


@pytest.mark.parametrize(
    ("occurred", "wanted"),
    [
        # 29 March 2026, Berlin: 02:30 does not exist, the tick comes right after the gap, at 03:00 summer time.
        ("2026-03-28T12:00:00+01:00", "2026-03-29T01:00:00+00:00"),
        # 25 October 2026: 02:30 comes twice, the tick once, at the first of the two.
        ("2026-10-24T12:00:00+02:00", "2026-10-25T00:30:00+00:00"),
        ("2026-10-25T02:31:00+02:00", "2026-10-26T01:30:00+00:00"),
    ],
)
def test_a_tick_that_a_change_of_clocks_skips_or_doubles_comes_once(occurred: str, wanted: str) -> None:
    hold = policy(schedule="30 2 * * *", timezone="Europe/Berlin")
    assert released(hold, occurred) == wanted


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"kind": "refund"}, "hold_without_wait"),
        ({"kind": "refund", "wait": "0bd", "calendar": "DE"}, "hold_without_wait"),
        ({"wait": "2d"}, "wait_without_hold"),
        ({"kind": "refund", "wait": "2 days"}, "duration_shape"),
        ({"kind": "refund", "wait": "999bd", "calendar": "DE"}, "duration_size"),
        ({"kind": "refund", "wait": "10bd"}, "business_days_without_calendar"),
        ({"kind": "refund", "wait": "10d", "calendar": "DE"}, "calendar_without_business_days"),
        ({"kind": "refund", "wait": "10bd", "calendar": "Narnia"}, "calendar"),
        ({"kind": "refund", "wait": "10bd", "calendar": "DE-XX"}, "calendar"),
        ({"schedule": "every day"}, "schedule"),
        ({"schedule": "61 6 * * *"}, "schedule"),
        ({"schedule": "0 6 30 2 *"}, "schedule"),
        ({"schedule": "0 6 * * *", "release": "manual"}, "two_schedulers"),
        ({"schedule": "0 6 * * *", "timezone": "Berlin"}, "time_zone"),
        ({"schedule": "0 6 * * *", "timezone": "../etc/passwd"}, "time_zone"),
        ({"kind": "credit_check"}, "hold_without_wait"),
        ({"kind": "refund", "wait": "1d", "on_timeout": "void"}, "timeout_without_decision"),
        ({"release_on": ["chargeback.won"]}, "release_without_hold"),
        (
            {"kind": "credit_check", "wait": "1d", "release_on": ["chargeback.won"]},
            "release_without_decision",
        ),
        ({"void_on": ["cancel"]}, "void_without_refund"),
        ({"void_on": ["refund", "chargeback.opened"]}, "void_without_loss"),
        ({"void_on": ["refund", "complaint"]}, "literal_error"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_by_name(table: dict[str, Any], code: str) -> None:
    with pytest.raises(ValidationError) as refused:
        policy(**table)
    assert [error["type"] for error in refused.value.errors()] == [code]


def test_a_policy_is_written_as_it_is_read() -> None:
    hold = policy(
        kind="refund", wait="10bd", calendar="US-CA", schedule="0 6 * * *", timezone="America/Los_Angeles"
    )
    assert hold.wait == BusinessDays(10)
    assert HoldPolicy.model_validate(hold.model_dump(mode="json")) == hold
    assert HoldPolicy.model_validate_json(hold.model_dump_json()) == hold


@pytest.mark.parametrize(
    ("table", "releases_on", "needs_decision"),
    [
        ({"kind": "refund", "wait": "1d"}, (), False),
        ({"kind": "credit_check", "wait": "1d"}, ("credit_check.approved",), True),
        ({"kind": "credit_check", "wait": "1d", "release_on": []}, (), True),
        ({"kind": "credit_check", "wait": "1d", "on_timeout": "release"}, ("credit_check.approved",), False),
        ({"kind": "refund", "wait": "1d", "release_on": ["chargeback.won"]}, ("chargeback.won",), False),
    ],
)
def test_a_policy_says_what_ends_its_window(
    table: dict[str, Any], releases_on: tuple[str, ...], *, needs_decision: bool
) -> None:
    """An approval does under a credit check if nothing is said, and without one its end voids if nothing is said."""
    hold = policy(**table)
    assert (hold.releases_on, hold.needs_decision) == (releases_on, needs_decision)


def test_a_policy_takes_back_by_what_it_lists_and_names_the_first_reason() -> None:
    hold = policy(kind="refund", wait="1d", void_on=["refund", "partial_refund", "chargeback.lost"])
    assert hold.void_reason({"cancel", "chargeback.opened"}) is None
    assert hold.void_reason({"chargeback.lost", "partial_refund"}) is VoidReason.REFUNDED
    assert hold.void_reason({"chargeback.lost"}) is VoidReason.CHARGED_BACK


def purchase(value: str | None, currency: str | None = "EUR", name: str = "purchase") -> ConversionEvent:
    return ConversionEvent(
        version=1,
        type="conversion",
        event_id="e",
        source="shop",
        name=name,
        occurred_at=datetime(2026, 11, 22, tzinfo=UTC),
        value=None if value is None else Decimal(value),
        currency=currency if value is not None else None,
    )


@pytest.mark.parametrize(
    ("event", "taken"),
    [
        (purchase("100"), True),
        (purchase("99.99"), False),
        (purchase("499.99"), True),
        (purchase("500"), False),
        (purchase("200", "USD"), False),
        (purchase(None), False),
        (purchase("200", name="lead"), False),
    ],
)
def test_a_rule_takes_the_events_of_its_names_and_band(event: ConversionEvent, taken: bool) -> None:
    """The lower end is in, the upper is not; no value or another currency is in no band."""
    rule = HoldRule.model_validate(
        {
            "events": ["purchase"],
            "min_value": "100",
            "max_value": "500",
            "currency": "EUR",
            "hold": {"kind": "refund", "wait": "30d"},
        }
    )
    assert rule.takes(event) is taken


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ({"min_value": "100"}, "band_without_currency"),
        ({"min_value": "100", "currency": "EURO"}, "band_without_currency"),
        ({"min_value": "100", "max_value": "100", "currency": "EUR"}, "empty_band"),
        ({}, "rule_for_all"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_name(table: dict[str, Any], code: str) -> None:
    with pytest.raises(ValidationError) as refused:
        HoldRule.model_validate({"hold": {}, **table})
    assert [error["type"] for error in refused.value.errors()] == [code]


def test_the_bound_on_a_wait_counts_weekends_holidays_and_the_schedule() -> None:
    """The arithmetic of an age limit must never be too small."""
    ten = policy(kind="refund", wait="10bd", calendar="DE")
    for start in range(365):
        occurred = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=start)
        end = release_at(ten, occurred_at=occurred, clicked_at=None, received_at=occurred)
        assert end - occurred <= ten.longest_wait
    assert longest_gap("0 6 * * 1-5", "UTC") == timedelta(days=3)
    assert policy(kind="refund", wait="1d", schedule="0 6 1 * *").longest_wait == timedelta(days=32)


def test_a_policy_says_itself_in_words() -> None:
    hold = policy(kind="refund", wait="10bd", calendar="DE", schedule="0 6 * * *", timezone="Europe/Berlin")
    assert hold.words() == "refund, 10bd (DE) from the event, at 0 6 * * * Europe/Berlin"
    assert policy().words() == "none: fires at once"
