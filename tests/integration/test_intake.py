"""Intake on the real database: once, whole, verbatim, and with a reason for everything that goes no further."""

from __future__ import annotations

import json
import random
import string
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from schemas.lifecycle import VOIDABLE
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal

URL = generic_url("http://127.0.0.1:9")
HOLD = {"kind": "refund", "wait": "1d"}


@pytest.fixture
def ground(engine: Engine) -> Ground:
    ground = cleared(engine)
    ground.apply(contract("d", URL, hold=HOLD))
    return ground


def receipt(ground: Ground) -> dict[str, int]:
    (row,) = ground.rows("SELECT * FROM receipts ORDER BY id DESC LIMIT 1")
    return {
        name: getattr(row, name) for name in ("events", "conversions", "signals", "duplicates", "rejected")
    }


def count(ground: Ground, table: str) -> int:
    number: int = ground.one(f"SELECT count(*) FROM {table}")
    return number


# Once ----------------------------------------------------------------------------------------------


def test_the_same_message_twice_changes_nothing_but_the_count(ground: Ground) -> None:
    """The second run finds every event a duplicate, and no row of a conversion, signal or postback is new."""
    message = [conversion("a"), conversion("b"), signal("refund", "r", "a")]
    first = ground.take(*message)
    before = ground.rows("SELECT id, state FROM postbacks ORDER BY id")
    second = ground.take(*message)
    assert (first.conversions, first.signals, first.duplicates) == (2, 1, 0)
    assert (second.conversions, second.signals, second.duplicates) == (0, 0, 3)
    assert ground.rows("SELECT id, state FROM postbacks ORDER BY id") == before
    assert {row.code for row in ground.rows("SELECT code FROM rejects")} == {"duplicate"}


def test_one_event_twice_in_one_message_is_taken_once(ground: Ground) -> None:
    """The second writing is a duplicate even when its content differs, and is kept verbatim."""
    result = ground.take(conversion("a"), conversion("a", value="1.00"))
    assert (result.conversions, result.duplicates) == (1, 1)
    assert str(ground.one("SELECT value FROM conversions")) == "49.90"
    assert '"1.00"' in ground.one("SELECT raw FROM rejects")


def test_an_event_id_belongs_to_its_source(ground: Ground) -> None:
    """Two sources may use the same event id."""
    assert ground.take(conversion("a"), conversion("a", source="app", order_id="o2")).conversions == 2


def test_four_threads_with_the_same_events_in_any_order_take_each_once(ground: Ground) -> None:
    """No deadlock reaches the caller, and what the four counted adds up to one of each."""
    events: list[dict[str, Any]] = [conversion(f"e{number}") for number in range(100)]
    events += [signal("refund", f"r{number}", f"e{number}") for number in range(0, 100, 10)]

    def take(seed: int) -> list[Any]:
        shuffled = random.Random(seed).sample(events, len(events))
        return [ground.take_message(shuffled[start : start + 22]) for start in range(0, len(shuffled), 22)]

    with ThreadPoolExecutor(4) as threads:
        results = [result for found in threads.map(take, range(4)) for result in found]
    assert sum(result.conversions for result in results) == count(ground, "conversions") == 100
    assert sum(result.signals for result in results) == count(ground, "signals") == 10
    assert sum(result.duplicates for result in results) == 3 * 110
    assert ground.states() == {"held": 90, "voided": 10}


def test_a_message_that_fails_leaves_nothing_behind(ground: Ground) -> None:
    """While the database refuses the last of its writes, nothing of the message is there, the rejects included."""
    ground.run("ALTER TABLE receipts RENAME TO receipts_away")
    try:
        with pytest.raises(DBAPIError):
            ground.take(conversion("a"), {"bad": "event"}, signal("refund", "r", "x"))
    finally:
        ground.run("ALTER TABLE receipts_away RENAME TO receipts")
    tables = ("conversions", "signals", "postbacks", "rejects", "dedupe_keys", "receipts")
    assert {table: count(ground, table) for table in tables} == dict.fromkeys(tables, 0)


def test_one_event_that_cannot_be_stored_does_not_take_its_message_along(ground: Ground) -> None:
    """The database refuses one event's row: that one is kept as a reject with its reason, the others go in."""
    ground.run("ALTER TABLE conversions ADD CONSTRAINT broken CHECK (event_id <> 'poison')")
    try:
        result = ground.take(conversion("a"), conversion("poison"), conversion("b"), {"bad": 1})
    finally:
        ground.run("ALTER TABLE conversions DROP CONSTRAINT broken")
    assert (result.conversions, result.rejected) == (2, 2)
    (kept,) = ground.rows("SELECT * FROM rejects WHERE code = 'cannot_be_stored'")
    assert json.loads(kept.raw)["event_id"] == kept.event_id == "poison"


def test_the_longest_click_id_is_taken(ground: Ground) -> None:
    """4,096 characters that no compression shortens, as long as the envelope allows."""
    draw = random.Random(1)
    token = "".join(draw.choices(string.ascii_letters + string.digits + "äöü中", k=4096))
    assert ground.take(conversion("a", click_ids={"generic": token})).conversions == 1
    assert json.loads(ground.one("SELECT event::text FROM conversions"))["click_ids"] == {"generic": token}


# What cannot be taken ------------------------------------------------------------------------------

FUTURE = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (conversion("a", version=2), "unknown_version"),
        (conversion("a", type="sale"), "unknown_type"),
        (conversion("a", click_ids={"generic": "{click_id}"}), "unreplaced_macro"),
        (conversion("a", currency="XXQ"), "unknown_currency"),
        (conversion("a", value="1.234"), "too_precise"),
        (conversion("a", value=49.9), "money_as_number"),
        (conversion("a", occurred_at=FUTURE), "future_occurred_at"),
        (conversion("a", occurred_at="2026-01-01T00:00:00"), "timezone_aware"),
        (conversion("a", colour="red"), "extra_forbidden"),
        ({**conversion("a"), "event_id": None}, "string_type"),
        (signal("refund", "a", None), "no_target"),
        ("not an object", "malformed"),
        (None, "malformed"),
        ([1, [2]], "malformed"),
        (conversion("a", params={"n": "a\x00b"}), "string_pattern_mismatch"),
        (conversion("a", click_ids={"generic": "lone \ud800 surrogate"}), "string_unicode"),
        (conversion("a\ud800\x00"), "string_unicode"),
        (conversion("a", params={"huge": 10**30}), "string_type"),
    ],
)
def test_what_cannot_be_taken_is_kept_verbatim_with_its_code_and_reason(
    event: object, code: str, ground: Ground
) -> None:
    """A bad event goes to the rejects as it came, is counted, and the good ones beside it go in."""
    result = ground.take(conversion("good"), event)
    assert (result.conversions, result.rejected) == (1, 1)
    (kept,) = ground.rows("SELECT * FROM rejects")
    assert kept.code == code
    assert kept.problems[0]["reason"]
    assert kept.problems[0]["remedy"]
    assert json.loads(kept.raw) == event
    assert receipt(ground) == {"events": 2, "conversions": 1, "signals": 0, "duplicates": 0, "rejected": 1}


@pytest.mark.parametrize("message", [{"not": "a list"}, "text", None, 7])
def test_a_message_that_is_no_list_is_kept_as_one_reject(message: object, ground: Ground) -> None:
    """It says what it is and what should be sent."""
    result = ground.take_message(message)
    assert result.rejected == 1
    (kept,) = ground.rows("SELECT * FROM rejects")
    assert (kept.code, json.loads(kept.raw)) == ("malformed", message)
    assert "list" in kept.problems[0]["reason"]


def test_the_four_counts_of_a_receipt_add_up(ground: Ground) -> None:
    """Events = conversions + signals + duplicates + rejected."""
    ground.take(conversion("a"))
    ground.take(conversion("a"), conversion("b"), signal("cancel", "c", "b"), "bad", conversion("b"))
    assert receipt(ground) == {"events": 5, "conversions": 1, "signals": 1, "duplicates": 2, "rejected": 1}


# Routing -------------------------------------------------------------------------------------------


def test_an_unrouted_conversion_says_why(ground: Ground) -> None:
    """Without a destination, without the name, without the click id: kept, each with its own reason."""
    ground.take(conversion("name", name="signup"), conversion("click", network="xandr"))
    ground.apply()
    ground.take(conversion("none"))
    reasons = {
        row.event_id: row.unrouted_reason
        for row in ground.rows("SELECT event_id, unrouted_reason FROM conversions WHERE routed = 0")
    }
    assert "no destination lists the event name 'signup'" in reasons["name"]
    assert "a click id for generic" in reasons["click"]
    assert "no destination has been applied" in reasons["none"]
    assert not ground.states()


def test_the_partner_protocol_takes_a_partner_id_and_the_transaction_protocol_a_click_id(
    ground: Ground,
) -> None:
    """Each destination takes what its protocol attributes by; an event with both goes to both."""
    ground.apply(
        contract("by-click", URL, hold=HOLD),
        contract("by-partner", "https://partner.example/p?p={partner_id}", hold=HOLD, protocol="partner"),
    )
    ground.take(
        conversion("both", partner_id="p1"),
        conversion("click"),
        conversion("partner", click_ids={}, partner_id="p1"),
    )
    rows = ground.rows("""
        SELECT c.event_id, v.destination, p.state FROM postbacks p JOIN conversions c ON c.id = conversion_id
        JOIN destination_versions v ON v.id = version_id ORDER BY 1, 2""")
    assert [tuple(row) for row in rows] == [
        ("both", "by-click", "held"),
        ("both", "by-partner", "held"),
        ("click", "by-click", "held"),
        ("partner", "by-partner", "held"),
    ]


def test_what_can_never_be_rendered_is_rejected_at_once_and_alone(ground: Ground) -> None:
    """Pushground needs a payout: without a value its postback is rejected with the reason, the other is held."""
    ground.apply(
        contract("d", "https://network.example/p?c={click_id}", hold=HOLD),
        contract("push", "https://push.example/p", network="pushground", hold=HOLD),
    )
    ground.take(conversion("e", value=None, currency=None, click_ids={"generic": "t1", "pushground": "t2"}))
    push = ground.postback("e", "push")
    assert (push.state, push.due_at) == ("rejected", None)
    assert "{value} has no value" in push.reason
    assert ground.postback("e", "d").state == "held"


def test_what_is_held_keeps_the_version_it_was_held_under(ground: Ground) -> None:
    """A destination applied anew takes new events; a postback held before goes on under the old version."""
    ground.take(conversion("old"))
    ground.apply(contract("d", URL, hold={"kind": "refund", "wait": "9d"}))
    ground.take(conversion("new"))
    old, new = ground.postback("old"), ground.postback("new")
    assert (old.version_number, new.version_number) == (1, 2)
    assert (new.release_at - old.release_at) > timedelta(days=7)


# Duplicates ----------------------------------------------------------------------------------------

SAME = {"order_id": "o", "click_ids": {"generic": "token-1"}}


def test_a_repeat_of_what_the_network_would_count_names_the_first(ground: Ground) -> None:
    """Same destination, name, click id and order: the second never fires and says which one does."""
    ground.take(conversion("first", **SAME))
    ground.take(conversion("second", **SAME), conversion("other", order_id="o2", click_ids=SAME["click_ids"]))
    first, second = ground.postback("first"), ground.postback("second")
    assert (second.state, second.duplicate_of, second.due_at) == ("duplicate", first.id, None)
    assert f"pb_{first.id}" in second.reason
    assert ground.postback("other").state == "held"


def test_of_two_repeats_in_one_message_the_one_that_stands_first_is_the_first(ground: Ground) -> None:
    """Whatever their ids sort like."""
    ground.take(conversion("zz", **SAME), conversion("aa", **SAME))
    assert (ground.postback("zz").state, ground.postback("aa").state) == ("held", "duplicate")


def test_without_a_sub_id_two_orders_of_one_click_are_one_conversion(ground: Ground) -> None:
    """Pushground cannot tell them apart, so the second is a duplicate."""
    ground.apply(contract("push", "https://push.example/p", network="pushground", hold=HOLD))
    ground.take(*(conversion(name, click_ids={"pushground": "t"}) for name in ("a", "b")))
    assert ground.postback("b").state == "duplicate"


def test_when_the_first_was_voided_a_later_repeat_is_taken(ground: Ground) -> None:
    """The voided one will never be counted, so the click is free."""
    ground.take(conversion("first", **SAME))
    ground.take(signal("cancel", "c", None, conversion_event_id="first"))
    ground.take(conversion("second", **SAME))
    assert (ground.postback("first").state, ground.postback("second").state) == ("voided", "held")


def test_when_the_first_is_voided_its_duplicate_takes_its_place(ground: Ground) -> None:
    """The earliest duplicate is held in its stead and the others name it now."""
    ground.take(*(conversion(name, **SAME) for name in ("first", "second", "third")))
    ground.take(signal("cancel", "c", None, conversion_event_id="first"))
    second, third = ground.postback("second"), ground.postback("third")
    assert (second.state, second.duplicate_of, second.due_at) == ("held", None, second.release_at)
    assert (third.state, third.duplicate_of) == ("duplicate", second.id)
    ground.take(conversion("fourth", **SAME))
    assert ground.postback("fourth").duplicate_of == second.id


def test_a_duplicate_whose_own_order_is_refunded_never_takes_the_place(ground: Ground) -> None:
    """The refund names the order, and the order was reported twice: neither of its two postbacks ever fires."""
    ground.take(conversion("first", **SAME), conversion("second", **SAME))
    ground.take(signal("refund", "r", "o"))
    assert ground.states() == {"voided": 1, "duplicate": 1}
    ground.take(conversion("third", **SAME))
    assert (ground.postback("third").state, ground.states().get("held")) == ("voided", None)


def test_a_duplicate_that_was_refunded_alone_is_passed_over(ground: Ground) -> None:
    """Its cancel came first; then the first one is cancelled too, and the third takes its place."""
    ground.take(*(conversion(name, **SAME) for name in ("first", "second", "third")))
    ground.take(signal("cancel", "c2", None, conversion_event_id="second"))
    ground.take(signal("cancel", "c1", None, conversion_event_id="first"))
    assert [ground.postback(name).state for name in ("first", "second", "third")] == [
        "voided",
        "duplicate",
        "held",
    ]


def test_the_voidable_states_in_sql_are_the_tables(ground: Ground) -> None:
    """The literals that plans can use say what the state table says."""
    from infra.store.rulings import VOIDABLE_SQL

    assert {state.strip(" '") for state in VOIDABLE_SQL.strip("()").split(",")} == set(VOIDABLE)
