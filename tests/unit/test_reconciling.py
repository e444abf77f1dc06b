"""Reconciling, case by case: headers, numbers, dates, answers that say no, and the causes that need a rule of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from schemas.cells import MappingError
from schemas.lifecycle import State
from schemas.network import AgeLimit
from schemas.reconciling.columns import (
    guess_columns,
    guess_dates,
    guess_numbers,
    looks_like_header,
    place_columns,
    uncounted,
)
from schemas.reconciling.days import OurDay, Sum, judge_day
from schemas.reconciling.facts import Evidence, Ours, Terms, Theirs
from schemas.reconciling.findings import CAUSES, Bucket, Cause, Side
from schemas.reconciling.options import ReportOptions, read_options
from schemas.reconciling.pairs import judge_pair, judge_repeat
from schemas.reconciling.refusals import says_no
from schemas.reconciling.rows import RowReader, Writing
from schemas.reconciling.shares import Standing, standing
from schemas.reconciling.shifts import common_ratio, shift_of_instants
from schemas.reconciling.tokens import Shape
from schemas.reconciling.uncounted import judge_ours

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
AT = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
TERMS = Terms(date(2026, 11, 1), date(2026, 11, 30))
DELIVERED = Ours(
    1, 1, State.DELIVERED, 1, TOKEN, "order-1", Decimal("49.90"), "EUR", AT, AT.date(),
    first_value=Decimal("49.90"), delivered_at=AT + timedelta(hours=1), event_at=AT, clicked_at=AT - timedelta(days=2),
    evidence=Evidence(7, 1, "delivered", "status 200", 200, 1, 200, delivered=1),
)  # fmt: skip
ROW = Theirs(5, TOKEN, "order-1", Decimal("49.90"), "EUR", None, AT.date())


def test_every_cause_says_whose_move_it_is() -> None:
    """And what to do next, in a sentence."""
    assert CAUSES.keys() == set(Cause)
    assert all(about.step.endswith(".") and about.title for about in CAUSES.values())


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            ["Click ID", "Order ID", "Payout", "Currency", "Conversion time"],
            "click_id order_id value currency occurred_at",
        ),
        (["SSPDATA", "Date", "Umsatz"], "click_id occurred_at value"),
        (["transaction_id", "aff_sub", "status", "sale_amount"], "click_id order_id status value"),
        (["Datum", "Bestellnummer", "Betrag (EUR)", "Währung"], "occurred_at order_id value currency"),
    ],
)
def test_headers_are_known_by_heart(header: list[str], found: str) -> None:
    guessed = guess_columns(header, aggregated=False, click_parameters=["sspdata"])
    assert set(guessed) == set(found.split())
    assert set(guessed.values()) <= set(header)


def test_a_title_is_no_header() -> None:
    assert not looks_like_header(["Conversion report, November 2026", ""], [])
    assert looks_like_header(["Click ID", "Payout", "x"], [])
    assert looks_like_header(["A", "B"], ["B"])


def test_a_column_that_is_not_there_is_named_with_one_that_is() -> None:
    with pytest.raises(MappingError, match=r"no column 'Clickid'; did you mean 'ClickId'\?"):
        place_columns(["ClickId"], {"click_id": "Clickid"}, aggregated=False)
    with pytest.raises(MappingError, match="no field of a report; did you mean click_id"):
        place_columns(["a"], {"clickid": "a"}, aggregated=False)
    with pytest.raises(MappingError, match="say which with --map click_id=COLUMN"):
        place_columns(["a", "b"], {}, aggregated=False)


@pytest.mark.parametrize(
    ("cells", "signs"),
    [
        (["1.234,50", "3,00"], (",", ".")),
        (["1,234.50"], (".", ",")),
        (["49,90", "3"], (",", ".")),
        (["1 234,50 €"], (",", " ")),
        (["1'234.50"], (".", "'")),
        (["1.234.567"], (",", ".")),
        (["12", "13"], (".", ",")),
        ([], (".", ",")),
    ],
)
def test_numbers_are_told_by_how_they_are_written(cells: list[str], signs: tuple[str, str]) -> None:
    assert guess_numbers(cells) == signs


def test_dates_are_told_by_all_of_them() -> None:
    assert guess_dates(["2026-11-01", "2026-11-02T10:00:00Z"]) is None
    assert guess_dates(["13.11.2026 10:00", "01.12.2026 11:30"]) == "%d.%m.%Y %H:%M"
    assert guess_dates(["11/25/2026"]) == "%m/%d/%Y"
    assert guess_dates(["1795000000", "1795000001"]) == "epoch_s"
    assert guess_dates(["20261113"]) == "%Y%m%d"
    with pytest.raises(MappingError, match=r"could be %d/%m/%Y or %m/%d/%Y"):
        guess_dates(["01/02/2026", "03/04/2026"])
    with pytest.raises(MappingError, match="which is not known"):
        guess_dates(["last Tuesday"])


@pytest.mark.parametrize(
    "body",
    ['{"success": false, "reason": "click not found"}', "ERROR=invalid click", "Unknown transaction", "Duplicate conversion",
     "status=rejected", '{"error":"bad key"}', "click_id is not valid", "<p>Permission denied</p>"],
)  # fmt: skip
def test_a_body_that_says_no_is_heard(body: str) -> None:
    assert says_no(body)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "OK",
        "success",
        '{"success": true, "error": null}',
        '{"status":"ok","errors":[]}',
        "1",
        "GIF89a",
        "Thanks. No errors.",
    ],
)
def test_a_body_that_says_yes_is_left_alone(body: str) -> None:
    assert says_no(body) is None


def test_words_of_a_body_that_are_not_the_refusal_are_not_repeated() -> None:
    assert says_no(f"unknown click {TOKEN}") == "unknown click"


@pytest.mark.parametrize(
    ("ours", "cause"),
    [
        (replace(DELIVERED, state=State.REJECTED, evidence=Evidence(7, 1, "rejected", "status 302", 302, 1, 302)), Cause.REDIRECT_NOT_COMPLETED),
        (replace(DELIVERED, state=State.REJECTED, evidence=Evidence(7, 1, "rejected", "egress refused", None, 2, None, "refused_by_guard: private")), Cause.REDIRECT_NOT_COMPLETED),
        (replace(DELIVERED, state=State.REJECTED, evidence=Evidence(7, 1, "rejected", "egress refused", None, 1, None, "refused_by_guard: private")), Cause.REJECTED),
        (replace(DELIVERED, state=State.REJECTED, evidence=Evidence(7, 1, "rejected", "status 200, body ~ no", 200, 1, 200)), Cause.BODY_SAID_NO),
        (replace(DELIVERED, state=State.DEAD, reason="503 twelve times"), Cause.DEAD),
        (replace(DELIVERED, state=State.IN_DOUBT, reason="timeout"), Cause.IN_DOUBT),
        (replace(DELIVERED, retracted=True), Cause.RETRACTED),
        (DELIVERED, Cause.NOT_COUNTED),
    ],
)  # fmt: skip
def test_what_was_tried_and_is_not_counted(ours: Ours, cause: Cause) -> None:
    assert judge_ours(ours, TERMS).cause is cause


def test_the_attribution_window_is_measured_from_the_click() -> None:
    """And from the event, which is said, where the click's instant is not known."""
    terms = replace(TERMS, window=timedelta(days=2))
    found = judge_ours(DELIVERED, terms)
    assert found.cause is Cause.ATTRIBUTION_AGE
    assert found.explanation == "delivered 2 d 1 h after the click; the network attributes 2 d"
    assert judge_ours(DELIVERED, replace(terms, window=timedelta(days=3))).cause is Cause.NOT_COUNTED
    late = replace(DELIVERED, clicked_at=None, delivered_at=AT + timedelta(days=5))
    assert "the click's instant is not known" in judge_ours(late, terms).explanation
    limit = replace(TERMS, age_limit=AgeLimit(wait=timedelta(hours=1), measured_from="event"))
    assert (
        judge_ours(replace(late, delivered_at=AT + timedelta(hours=2)), limit).cause is Cause.ATTRIBUTION_AGE
    )


def test_what_was_delivered_after_everything_that_is_counted_waits_for_the_next_report() -> None:
    terms = replace(TERMS, counted_until=AT)
    assert judge_ours(DELIVERED, terms).cause is Cause.DELIVERED_AFTER_REPORT
    assert (
        judge_ours(DELIVERED, replace(terms, counted_until=AT + timedelta(hours=1))).cause
        is Cause.NOT_COUNTED
    )


def test_a_click_id_unlike_all_that_were_counted_is_ours_to_mend() -> None:
    shape = Shape(100, 100, 100, 0, len(TOKEN))
    for token, cause in (
        (TOKEN[:30], Cause.TRUNCATED),
        (TOKEN[:-1], Cause.PERIOD_LOST),
        (TOKEN.lower(), Cause.CASE_FOLDED),
    ):
        found = judge_ours(replace(DELIVERED, click_id=token), replace(TERMS, shape=shape))
        assert (found.cause, found.side) == (cause, Side.US)
    assert judge_ours(DELIVERED, replace(TERMS, shape=shape)).cause is Cause.NOT_COUNTED


@pytest.mark.parametrize(
    ("theirs", "cause"),
    [
        (replace(ROW, value=Decimal(4990)), Cause.MINOR_UNITS),
        (replace(ROW, value=Decimal(50)), Cause.ROUNDED),
        (replace(ROW, value=Decimal(0)), Cause.VALUE_MISSING),
        (replace(ROW, value=Decimal("44.91")), Cause.VALUE_DIFFERS),
        (replace(ROW, currency="USD"), Cause.CURRENCY_DIFFERS),
        (replace(ROW, value=None), None),
    ],
)
def test_why_values_differ(theirs: Theirs, cause: Cause | None) -> None:
    assert judge_pair(DELIVERED, theirs, TERMS).cause is cause


def test_a_correction_that_the_network_does_not_show_is_named() -> None:
    restated = replace(DELIVERED, value=Decimal("39.90"))
    assert judge_pair(restated, ROW, TERMS).cause is Cause.CORRECTION_NOT_SHOWN
    assert judge_pair(replace(DELIVERED, retracted=True), ROW, TERMS).cause is Cause.CORRECTION_NOT_SHOWN
    assert judge_pair(replace(DELIVERED, retracted=True), replace(ROW, value=Decimal(0)), TERMS).cause is None


def test_values_of_a_destination_that_sends_none_are_not_compared() -> None:
    theirs = replace(ROW, value=Decimal("1.00"))
    assert judge_pair(DELIVERED, theirs, replace(TERMS, tells_value=False)).bucket is Bucket.MATCHED


def test_another_day_is_the_day_of_another_instant() -> None:
    """Of the click or the delivery, where that explains it; or nobody's."""
    by_click = replace(ROW, day=date(2026, 11, 18))
    found = judge_pair(DELIVERED, by_click, TERMS)
    assert (found.bucket, found.cause, found.days) == (Bucket.DAY_SHIFT, Cause.DATED_OTHERWISE, -2)
    assert judge_pair(DELIVERED, replace(ROW, day=date(2026, 11, 21)), TERMS).cause is Cause.DATED_OTHERWISE
    assert judge_pair(DELIVERED, replace(ROW, day=date(2026, 11, 25)), TERMS).cause is Cause.DAY_DIFFERS
    shifted = replace(TERMS, shift=timedelta(hours=9))
    assert judge_pair(DELIVERED, replace(ROW, day=date(2026, 11, 21)), shifted).cause is Cause.TIME_ZONE_SHIFT


def test_a_repeat_is_ours_only_if_we_told_it_twice() -> None:
    assert judge_repeat(ROW, DELIVERED).cause is Cause.COUNTED_TWICE
    twice = replace(DELIVERED, evidence=Evidence(delivered=1, unknown=1))
    assert judge_repeat(ROW, twice).cause is Cause.TOLD_TWICE


def test_offsets_and_ratios_must_explain_most() -> None:
    assert shift_of_instants({36: 90, 0: 10}, 30) == timedelta(hours=9)
    assert shift_of_instants({36: 50, 0: 50}, 30) is None
    assert shift_of_instants({0: 100}, 0) is None
    assert common_ratio({Decimal("0.900"): 9, Decimal("0.5"): 1}, 10) == Decimal("0.900")
    assert common_ratio({Decimal("0.900"): 5, Decimal("0.5"): 5}, 10) is None


def test_above_five_percent_twice_is_structural() -> None:
    high = Decimal("0.06")
    assert standing(high) is Standing.HIGH
    assert standing(high, [high]) is Standing.STRUCTURAL
    assert standing(high, [Decimal("0.01"), high]) is Standing.HIGH
    assert standing(Decimal("0.02")) is Standing.NOTICEABLE
    assert standing(Decimal("0.0199")) is Standing.NORMAL


def test_statuses_that_do_not_count() -> None:
    found = ["approved", "Pending", "DECLINED", "Storniert", "paid"]
    assert uncounted(found, ()) == ["DECLINED", "Storniert"]
    assert uncounted(found, ("Approved",)) == ["Pending", "DECLINED", "Storniert", "paid"]


def read(cells: list[str], **writing: object) -> tuple[str | None, ...]:
    places = {"click_id": 0, "value": 1, "occurred_at": 2}
    row = RowReader(places, Writing(ZoneInfo("Europe/Berlin"), **writing)).read(2, cells, "")  # type: ignore[arg-type]
    return row.value, row.currency, row.at, row.day, row.problem


def test_dates_are_placed_in_the_networks_zone() -> None:
    assert read(["c", "1", "2026-11-20 23:30:00"])[2:4] == ("2026-11-20T23:30:00+01:00", "2026-11-20")
    assert read(["c", "1", "2026-11-20T23:30:00Z"])[2:4] == ("2026-11-21T00:30:00+01:00", "2026-11-21")
    assert read(["c", "1", "2026-11-20"])[2:4] == (None, "2026-11-20")
    assert read(["c", "1", "20.11.2026"], date_format="%d.%m.%Y")[2:4] == (None, "2026-11-20")


@pytest.mark.parametrize(
    ("written", "value", "currency"),
    [("(49.90)", "-49.90", None), ("$-1,234.5", "-1234.5", None), ("49.90-", "-49.90", None), ("€ 3", "3", "EUR"),
     ("3 PLN", "3", "PLN"), ("-", None, None), ("n/a", None, None), (".5", "0.5", None)],
)  # fmt: skip
def test_amounts_with_signs_and_currencies(written: str, value: str | None, currency: str | None) -> None:
    assert read(["c", written, ""], thousands=",")[:2] == (value, currency)


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["", "1", ""], "click_id: is empty"),
        (["c", "many", ""], "value: 'many' is no amount such as 1234.50"),
        (["c", "1", "yesterday"], "occurred_at: 'yesterday' is not written like"),
        (["Total", "100.00", ""], "line: is a total"),
        (["c" * 5000, "1", ""], "click_id: has more than 4096 characters"),
        (["c", "1", "1026-01-01 00:00:00"], "lies outside of the years"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(cells: list[str], problem: str) -> None:
    assert problem in (read(cells)[4] or "")


def test_options_are_checked_by_name() -> None:
    with pytest.raises(MappingError, match="--time-zone: 'Mars' is no time zone"):
        read_options({"time_zone": "Mars"})
    with pytest.raises(MappingError, match="lies after --to"):
        read_options({"first_day": date(2026, 2, 1), "last_day": date(2026, 1, 1)})
    with pytest.raises(MappingError, match="the same character"):
        read_options({"decimal": ",", "thousands": ","})
    assert read_options({"encoding": "utf-16"}).encoding == "utf-16"


def test_what_is_given_outweighs_what_is_remembered() -> None:
    habit = ReportOptions(
        time_zone="Asia/Tokyo", decimal=",", columns={"value": "Betrag"}, first_day=date(2026, 1, 1)
    )
    given = ReportOptions(decimal=".", columns={"click_id": "c"})
    merged = given.over(habit.lasting())
    assert (merged.time_zone, merged.decimal, merged.first_day) == ("Asia/Tokyo", ".", None)
    assert merged.columns == {"value": "Betrag", "click_id": "c"}


def test_a_day_of_sums_names_what_else_happened_on_it() -> None:
    ours = OurDay(
        Sum(10, Decimal(100)), {Cause.STILL_HELD: Sum(2, Decimal(20)), Cause.IN_DOUBT: Sum(1, Decimal(10))}
    )
    found = {
        (each.bucket, each.cause): times for each, times in judge_day(Sum(11, Decimal(110)), ours, "EUR")
    }
    assert found == {
        (Bucket.OURS_ONLY, Cause.STILL_HELD): 2,
        (Bucket.OURS_ONLY, Cause.IN_DOUBT): 1,
        (Bucket.THEIRS_ONLY, Cause.UNKNOWN_TO_US): 1,
    }
    ((same, _),) = judge_day(Sum(10, Decimal(90)), OurDay(Sum(10, Decimal(100))), "EUR")
    assert (same.bucket, same.stake) == (Bucket.VALUE_MISMATCH, Decimal(10))
