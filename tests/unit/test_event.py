"""Intake's first question: is this an event, and if not, which field is at fault and what should be done?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.event import ConversionEvent, RefundSignal, json_schema, read_event, wire
from schemas.problem import InvalidInputError, Problem

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PURCHASE: dict[str, Any] = {
    "version": 1,
    "type": "conversion",
    "event_id": "shopify:order:1234",
    "source": "shop",
    "name": "purchase",
    "occurred_at": "2026-11-22T10:00:00+01:00",
    "order_id": "1234",
    "value": "49.90",
    "currency": "EUR",
    "click_ids": {"xandr": "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."},
    "clicked_at": "2026-11-20T09:12:00Z",
    "partner_id": None,
    "sequence": None,
    "params": {"other": "vip"},
}
REFUND: dict[str, Any] = {
    "version": 1,
    "type": "refund",
    "event_id": "stripe:evt_1",
    "source": "billing",
    "occurred_at": "2026-11-22T10:00:00Z",
    "order_id": "1234",
    "amount": "10.00",
}


def _problems(raw: object) -> list[Problem]:
    with pytest.raises(InvalidInputError) as refused:
        read_event(raw, NOW)
    return refused.value.problems


def _without(event: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != field}


def test_the_envelopes_own_example_is_read() -> None:
    """The conversion event as documented, its token with the closing period, its money exact."""
    event = read_event(PURCHASE, NOW)
    assert isinstance(event, ConversionEvent)
    assert event.click_ids["xandr"].endswith("KAE.")
    assert event.value == Decimal("49.90")
    assert str(event.value) == "49.90"
    assert event.occurred_at == datetime(2026, 11, 22, 9, tzinfo=UTC)


def test_a_refund_without_an_amount_is_a_whole_one() -> None:
    """No amount means all of it."""
    event = read_event(_without(REFUND, "amount"), NOW)
    assert isinstance(event, RefundSignal)
    assert event.amount is None


@pytest.mark.parametrize(
    "signal",
    [
        REFUND,
        REFUND | {"amount_is": "cumulative", "currency": "EUR"},
        _without(REFUND, "amount") | {"type": "chargeback", "outcome": "opened"},
        _without(REFUND, "amount") | {"type": "credit_check", "outcome": "declined"},
        _without(REFUND, "amount") | {"type": "cancel", "reason": "customer called"},
        _without(_without(REFUND, "amount"), "order_id") | {"type": "cancel", "conversion_event_id": "x"},
    ],
)
def test_what_was_read_goes_out_again_as_it_came(signal: dict[str, Any]) -> None:
    """The wire form of an event reads back as the same event."""
    event = read_event(signal, NOW)
    assert read_event(wire(event), NOW) == event


@pytest.mark.parametrize(
    ("raw", "code", "field"),
    [
        # malformed
        ([], "malformed", "event"),
        ("{}", "malformed", "event"),
        (None, "malformed", "event"),
        (_without(PURCHASE, "event_id"), "missing", "event_id"),
        (PURCHASE | {"event_id": ""}, "string_too_short", "event_id"),
        (PURCHASE | {"event_id": "a\nb"}, "string_pattern_mismatch", "event_id"),
        (PURCHASE | {"order_id": 1234}, "string_type", "order_id"),
        (PURCHASE | {"source": "a b"}, "string_pattern_mismatch", "source"),
        (PURCHASE | {"coupon": "x"}, "extra_forbidden", "coupon"),
        (PURCHASE | {"params": {"a": "nul\x00"}}, "string_pattern_mismatch", "params.a"),
        (PURCHASE | {"sequence": -1}, "greater_than_equal", "sequence"),
        (PURCHASE | {"type": "sale"}, "unknown_type", "type"),
        (PURCHASE | {"type": ["conversion"]}, "unknown_type", "type"),
        (_without(REFUND, "order_id"), "no_target", "order_id"),
        # version
        (_without(PURCHASE, "version"), "unknown_version", "version"),
        (PURCHASE | {"version": 2}, "unknown_version", "version"),
        (PURCHASE | {"version": "1"}, "unknown_version", "version"),
        (PURCHASE | {"version": True}, "unknown_version", "version"),
        # click ids
        (PURCHASE | {"click_ids": {"xandr": ""}}, "string_too_short", "click_ids.xandr"),
        (PURCHASE | {"click_ids": {"xandr": "a\tb"}}, "unprintable_click_id", "click_ids"),
        (PURCHASE | {"click_ids": {"xandr": "a\u200bb"}}, "unprintable_click_id", "click_ids"),
        # money
        (PURCHASE | {"value": 49.9}, "money_as_number", "value"),
        (PURCHASE | {"value": True}, "money_as_number", "value"),
        (PURCHASE | {"value": "-5"}, "money_shape", "value"),
        (PURCHASE | {"value": -5}, "money_shape", "value"),
        (PURCHASE | {"value": Decimal(-5)}, "money_shape", "value"),
        (PURCHASE | {"value": Decimal("NaN")}, "money_shape", "value"),
        (PURCHASE | {"value": "1e3"}, "money_shape", "value"),
        (PURCHASE | {"value": "49,90"}, "money_shape", "value"),
        (PURCHASE | {"value": "٤٩"}, "money_shape", "value"),
        (PURCHASE | {"value": "1" * 16}, "money_size", "value"),
        (PURCHASE | {"value": "49.901"}, "too_precise", "value"),
        (PURCHASE | {"value": "1." + "0" * 40 + "1"}, "too_precise", "value"),
        (PURCHASE | {"value": "100.5", "currency": "JPY"}, "too_precise", "value"),
        (REFUND | {"amount": "10.001", "currency": "EUR"}, "too_precise", "amount"),
        (REFUND | {"amount": "10.0000001"}, "too_precise", "amount"),
        (_without(PURCHASE, "currency"), "value_without_currency", "value"),
        (PURCHASE | {"currency": "eur"}, "unknown_currency", "currency"),
        (PURCHASE | {"currency": "EURO"}, "unknown_currency", "currency"),
        (PURCHASE | {"currency": "XXX"}, "unknown_currency", "currency"),
        # instants
        (PURCHASE | {"occurred_at": "2026-11-22T10:00:00"}, "timezone_aware", "occurred_at"),
        (PURCHASE | {"occurred_at": "2026-11-22"}, "instant_shape", "occurred_at"),
        (PURCHASE | {"occurred_at": 1763805600}, "instant_shape", "occurred_at"),
        (PURCHASE | {"occurred_at": "2026-11-22T12:06:00Z"}, "future_occurred_at", "occurred_at"),
        (PURCHASE | {"clicked_at": "2026-11-23T00:00:00Z"}, "future_clicked_at", "clicked_at"),
        (PURCHASE | {"clicked_at": "9999-12-31T23:59:59-14:00"}, "instant_range", "clicked_at"),
        (PURCHASE | {"occurred_at": "0001-01-01T00:00:00+14:00"}, "instant_range", "occurred_at"),
    ],
)
def test_bad_input_is_told_its_field_and_its_reason(raw: object, code: str, field: str) -> None:
    """Each fault has a stable code, the field it is about, a reason and a remedy."""
    problem = next((problem for problem in _problems(raw) if problem.code == code), None)
    assert problem is not None
    assert problem.field == field
    assert problem.reason
    assert problem.remedy


@pytest.mark.parametrize(
    "placeholder",
    [
        "[SSPDATA]",
        "${SSP_DATA}",
        "{click_id}",
        "{{click.id}}",
        "%%CLICKID%%",
        "<click_id>",
        "__CLICK_ID__",
        "#CLICK_ID#",
        "$CLICKID",
        "%7Bclick_id%7D",
        "%24%7BSSP_DATA%7D",
        "%5BSSPDATA%5D",
    ],
)
def test_a_click_id_that_is_still_a_placeholder_is_refused(placeholder: str) -> None:
    """The ad's landing page URL was not filled in; the remedy says where to look."""
    [problem] = _problems(PURCHASE | {"click_ids": {"ad-personam": placeholder}})
    assert (problem.code, problem.field) == ("unreplaced_macro", "click_ids")
    assert placeholder in problem.reason
    assert "ad-personam" in problem.reason
    assert "landing page" in problem.remedy


@pytest.mark.parametrize(
    "token",
    [
        "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.",
        "ams1AAAAAAAAkQC8rFPulI3JKKU9tUKckv1Oj1WFMAAAAAGULAAA3AAAAUQIAAD4AAA",
        "push_71872t38713891u12u0313",
        "adw$AAA",
        "a{b}c",
        "x y",
        "%41",
        "__abc",
        "[1]",
        "é€",
    ],
)
def test_a_real_token_is_not_taken_for_a_placeholder(token: str) -> None:
    """Odd characters alone make no macro; the token is kept verbatim."""
    event = read_event(PURCHASE | {"click_ids": {"xandr": token}}, NOW)
    assert isinstance(event, ConversionEvent)
    assert event.click_ids == {"xandr": token}


def test_every_fault_of_an_event_is_told_at_once() -> None:
    """Nobody has to send five times to learn of five faults."""
    raw = _without(PURCHASE, "name") | {"value": 1.5, "currency": "euro", "occurred_at": "today"}
    assert {problem.field for problem in _problems(raw)} == {"name", "value", "currency", "occurred_at"}


def test_a_clock_that_runs_a_little_ahead_is_forgiven() -> None:
    """Five minutes are tolerance, a second more is a mistake."""
    ahead = {"occurred_at": (NOW + timedelta(minutes=5)).isoformat()}
    assert read_event(PURCHASE | ahead, NOW).occurred_at == NOW + timedelta(minutes=5)
    late = {"occurred_at": (NOW + timedelta(minutes=5, seconds=1)).isoformat()}
    assert _problems(PURCHASE | late)[0].code == "future_occurred_at"


@pytest.mark.parametrize(
    ("value", "currency"), [("1000", "JPY"), ("1.234", "KWD"), ("49.900", "EUR"), (50, "EUR"), ("0", "EUR")]
)
def test_money_in_its_currencys_own_precision_is_taken(value: object, currency: str) -> None:
    """No decimals in yen, three in dinar; trailing zeros carry nothing."""
    event = read_event(PURCHASE | {"value": value, "currency": currency}, NOW)
    assert isinstance(event, ConversionEvent)
    assert event.value == Decimal(str(value))


def test_the_json_schema_names_every_type_of_event() -> None:
    """Producers in other languages get all five."""
    assert json_schema()["discriminator"]["mapping"].keys() == {
        "conversion",
        "refund",
        "chargeback",
        "credit_check",
        "cancel",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"foo": 1}, "foo: is not known. Remove it"),
        ({"event_id": ""}, "event_id: is empty. Fill it in"),
        ({"name": "x" * 101}, "name: has more than 100 characters. Shorten it"),
        ({"sequence": -1}, "sequence: is -1, but must be at least 0. Raise it"),
        ({"sequence": "x"}, "sequence: must be a whole number."),
        ({"params": {"a": 1}}, "params.a: must be a text. Put it in quotes"),
        ({"occurred_at": "2026-11-20T10:00:00"}, "occurred_at: has no UTC offset. Add"),
    ],
)
def test_a_fault_is_told_in_plain_words(change: dict[str, Any], said: str) -> None:
    """Field, reason and remedy, none of them the validation library's."""
    (problem,) = _problems({**PURCHASE, **change})
    assert str(problem).startswith(said)
