"""What happens next is said of every postback in words that hold: decisions, corrections, losses, and ways back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from infra.catalogue import load_catalogue
from infra.store.records import ConversionRecord, Life, PostbackRecord
from investigations.corrections import OUTCOMES, in_reading_order, lost_words, why_lost
from investigations.next_step import next_step
from schemas import signals
from schemas.destination import Destination, DestinationVersion, join
from schemas.event import ConversionEvent
from schemas.lifecycle import State
from schemas.signals import VoidReason

NOW = datetime(2026, 12, 6, 9, tzinfo=UTC)
SOON = NOW + timedelta(days=2)
ADJUSTMENTS = {
    "retraction": {"url": "https://ads.example/back?c={click_id}"},
    "restatement": {"url": "https://ads.example/now?c={click_id}&v={value}"},
}
REFUND = {"kind": "refund", "wait": "14d"}
CREDIT = {"kind": "credit_check", "wait": "30d"}
EVENT = ConversionEvent(
    version=1,
    type="conversion",
    event_id="e1",
    source="shop",
    occurred_at=NOW - timedelta(days=14),
    name="purchase",
    order_id="o1",
    value=Decimal("49.90"),
    currency="EUR",
)


def version(adjustments: dict[str, Any] | None = None, **table: Any) -> DestinationVersion:
    rules = {"rules": {"adjustments": adjustments}} if adjustments else {}
    url = "https://ads.example/p?c={click_id}&v={value}"
    whole = {"network": "generic", "events": ["purchase"], "settings": {"url": url}, **rules, **table}
    return DestinationVersion(
        1, 1, join("ads-eu", Destination.model_validate(whole), load_catalogue()["generic"])
    )


def postback(state: State, contract: DestinationVersion | None = None, **fields: Any) -> PostbackRecord:
    """One that is due in two days where it waits, has been tried where that made it what it is, but for ``fields``."""
    waits = state in {State.HELD, State.LEASED, State.FIRING, State.RETRYING}
    untried = {State.HELD, State.LEASED, State.VOIDED, State.EXPIRED, State.DUPLICATE}
    whole = PostbackRecord(
        id=1,
        conversion_id=1,
        version=contract or version(ADJUSTMENTS, hold=REFUND),
        state=state,
        release_at=SOON,
        due_at=SOON if waits else None,
        first_attempt_at=None,
        expires_at=None,
        settled_at=None if waits else NOW,
        attempts_made=0 if state in untried else 1,
        void_reason=None,
        reason=None,
        duplicate_of=None,
        attempts=(),
    )
    return replace(whole, **fields)


def life(*postbacks: PostbackRecord, net: str = "49.90", outcomes: tuple[signals.Outcome, ...] = ()) -> Life:
    conversion = ConversionRecord(1, EVENT, NOW, Decimal(net), 1, None, outcomes)
    return Life(NOW, conversion, (), postbacks, ())


def next_of(first: PostbackRecord, *others: PostbackRecord, **standing: Any) -> str:
    return next_step(life(first, *others, **standing), first)


def retraction(state: State, **fields: Any) -> PostbackRecord:
    return postback(
        state, **{"id": 9, "adjusts": 1, "adjustment": "retraction", "reason": "corrects pb_1"} | fields
    )


@pytest.mark.parametrize(
    ("policy", "outcomes", "fields", "words"),
    [
        (CREDIT, (), {}, "waits for a credit decision until 2026-12-08 09:00:00.000 UTC, in 2 d; without one it is voided then"),
        (CREDIT | {"on_timeout": "release"}, (), {}, "without one it is released then"),
        (CREDIT, ("credit_check.review",), {}, "is under review and waits for a credit decision until "),
        (CREDIT | {"release": "manual"}, (), {"by_hand": True, "due_at": None}, "in 2 d, then for `holdfire release --due`; without one it is voided then"),
        (CREDIT, (), {"release_at": NOW, "due_at": NOW}, "no credit decision came in time: it is voided with the next tick"),
        (CREDIT | {"on_timeout": "release"}, (), {"release_at": NOW, "due_at": NOW}, "fires with the next tick"),
        (CREDIT | {"release_on": []}, ("credit_check.approved",), {}, "fires at 2026-12-08 09:00:00.000 UTC, in 2 d"),
        (CREDIT, (), {"let_go_at": NOW, "release_at": NOW, "due_at": NOW}, "fires with the next tick"),
        (REFUND, (), {"reason": "reinstated: it is no longer charged_back"}, "in 2 d; reinstated: it is no longer charged_back"),
        (REFUND, (), {"reason": "$KEY is not set", "release_at": NOW}, "in 2 d, put off at the gate; $KEY is not set"),
    ],
)  # fmt: skip
def test_a_held_one_says_what_it_waits_for(
    policy: dict[str, Any], outcomes: tuple[signals.Outcome, ...], fields: dict[str, Any], words: str
) -> None:
    """A decision, its window, a person or the gate: and what becomes of it without them."""
    assert words in next_of(postback(State.HELD, version(hold=policy), **fields), outcomes=outcomes)


@pytest.mark.parametrize(
    ("reason", "outcomes", "words"),
    [
        ("refunded", ("refund",), "nothing: voided as refunded, it never fires"),
        ("cancelled", ("cancel",), "nothing: voided as cancelled, it never fires"),
        (
            "charged_back",
            ("chargeback.opened",),
            "nothing: voided as charged back, it never fires unless the dispute is won",
        ),
        (
            "declined",
            ("credit_check.declined",),
            "nothing: voided as declined, it never fires unless a later decision takes that back",
        ),
        ("declined", ("credit_check.declined", "cancel"), "nothing: voided as declined, it never fires"),
    ],
)
def test_a_voided_one_says_what_would_bring_it_back(
    reason: str, outcomes: tuple[signals.Outcome, ...], words: str
) -> None:
    """Only what the other signals leave standing can come back."""
    assert next_of(postback(State.VOIDED, void_reason=reason, reason=reason), outcomes=outcomes) == words


def test_one_that_no_decision_approved_says_so() -> None:
    """It is voided for good, with the reason of the gate."""
    voided = postback(
        State.VOIDED, void_reason=VoidReason.UNCONFIRMED, reason="no credit decision came within its window"
    )
    assert next_of(voided) == (
        "nothing: voided as unconfirmed (no credit decision came within its window), it never fires"
    )


@pytest.mark.parametrize(
    ("adjustment", "words"),
    [
        (
            retraction(State.HELD),
            "delivered; corrected by pb_9, which fires at 2026-12-08 09:00:00.000 UTC, in 2 d",
        ),
        (
            retraction(State.RETRYING),
            "delivered; corrected by pb_9, which retries at 2026-12-08 09:00:00.000 UTC, in 2 d (attempt 2 of 12)",
        ),
        (retraction(State.LEASED), "delivered; corrected by pb_9, which a worker has claimed"),
        (retraction(State.FIRING), "delivered; corrected by pb_9, which is on the wire"),
        (retraction(State.VOIDED), "nothing: delivered"),
    ],
)
def test_a_delivered_one_names_the_correction_that_is_on_its_way(
    adjustment: PostbackRecord, words: str
) -> None:
    """Until it is told, the network shows what does not stand; what was withdrawn corrects nothing."""
    assert next_of(postback(State.DELIVERED), adjustment, outcomes=("refund",), net="0.00") == words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"lost": Decimal("10.00")}, "lost 10.00 EUR: ads-eu cannot be told; it goes on showing 49.90"),
        (
            {"lost": Decimal("-5.00"), "reported": Decimal("39.90")},
            "lost 5.00 EUR (shown too little): ads-eu cannot be told; it goes on showing 39.90",
        ),
        (
            {"lost": Decimal("-49.90"), "retracted_at": NOW},
            "lost 49.90 EUR (shown too little): ads-eu cannot be told; it goes on showing nothing of it",
        ),
    ],
)
def test_a_delivered_one_says_what_is_lost(fields: dict[str, Any], words: str) -> None:
    """The amount, and what the network goes on showing."""
    said = next_of(postback(State.DELIVERED, lost_at=NOW, **fields))
    assert said.startswith("nothing: delivered; ")
    assert said.endswith(words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "nothing: delivered"),
        ({"reported": Decimal("49.9")}, "nothing: delivered"),
        (
            {"reported": Decimal("39.90")},
            "nothing: delivered; the network was told last: 39.90 EUR of 49.90 EUR",
        ),
        (
            {"retracted_at": NOW},
            "nothing: delivered; the network was told last: nothing stands (at 2026-12-06 09:00:00.000 UTC)",
        ),
    ],
)
def test_a_delivered_one_says_what_the_network_was_told_last(fields: dict[str, Any], words: str) -> None:
    """Where that is not what was ordered."""
    assert next_of(postback(State.DELIVERED, **fields)) == words


@pytest.mark.parametrize(
    ("adjustment", "words"),
    [
        (retraction(State.HELD), "retraction of pb_1: fires at 2026-12-08 09:00:00.000 UTC, in 2 d"),
        (retraction(State.DELIVERED), "retraction of pb_1: delivered; it told that nothing of pb_1 stands"),
        (
            retraction(State.DELIVERED, adjustment="restatement", reported=Decimal("39.90")),
            "restatement of pb_1: delivered; it told that 39.90 EUR of pb_1 stand",
        ),
        (
            retraction(State.VOIDED, void_reason="withdrawn", reason="nothing is left to correct"),
            "retraction of pb_1: withdrawn: nothing is left to correct",
        ),
        (
            retraction(State.REJECTED, reason="status 403"),
            "retraction of pb_1: nothing by itself: status 403; it is tried anew only when something else stands",
        ),
        (
            retraction(State.IN_DOUBT, reason="timeout"),
            "retraction of pb_1: a person must decide: timeout",
        ),
    ],
)
def test_a_correction_says_what_it_corrects_and_what_it_told(adjustment: PostbackRecord, words: str) -> None:
    """It is told from what it corrects at a glance."""
    assert next_of(adjustment, postback(State.DELIVERED)) == words


def test_one_that_a_signal_overtook_is_looked_at_again() -> None:
    """What is on the wire may tell what stands no more."""
    assert next_of(postback(State.FIRING, overtaken=True)).endswith(
        "; a signal came meanwhile: once it is settled, the network is told what stands then"
    )


KEYED = {"retraction": {"url": "https://ads.example/back?c={click_id}&k={settings.key}"}}


@pytest.mark.parametrize(
    ("contract", "outcomes", "others", "words"),
    [
        (version(), ("refund",), (), "network generic takes no retraction"),
        (version(), ("partial_refund",), (), "network generic takes no restatement"),
        (
            version(ADJUSTMENTS, adjust={"send": False}),
            ("refund",),
            (),
            "its destination sends no corrections: adjust.send = false",
        ),
        (
            version(KEYED),
            ("refund",),
            (),
            "a retraction needs settings that the account does not give: key",
        ),
        (
            version(ADJUSTMENTS),
            ("refund",),
            (retraction(State.DEAD, reason="status 500"),),
            "pb_9 is dead: status 500",
        ),
    ],
)
def test_a_loss_says_why_the_network_cannot_be_told(
    contract: DestinationVersion,
    outcomes: tuple[signals.Outcome, ...],
    others: tuple[PostbackRecord, ...],
    words: str,
) -> None:
    """Whether the network, the account or an answer is to blame."""
    lost = postback(State.DELIVERED, contract, lost_at=NOW, lost=Decimal("9.90"))
    assert why_lost(life(lost, *others, outcomes=outcomes, net="40.00"), lost) == words


def test_a_loss_at_a_network_that_learns_no_value_has_no_amount() -> None:
    """It shows the conversion, whatever it is worth."""
    contract = version(settings={"url": "https://ads.example/p?c={click_id}"})
    lost = postback(State.DELIVERED, contract, lost_at=NOW)
    assert lost_words(life(lost, outcomes=("cancel",)), lost) == (
        "ads-eu cannot be told; it goes on showing the conversion"
    )


def test_what_was_retracted_and_won_back_says_that_the_network_brings_nothing_back() -> None:
    """A restatement that does not revive is no way back."""
    lost = postback(
        State.DELIVERED, version(ADJUSTMENTS), lost_at=NOW, lost=Decimal("-49.90"), retracted_at=NOW
    )
    assert why_lost(life(lost, outcomes=("chargeback.won",)), lost) == (
        "network generic brings nothing back that was retracted"
    )


def test_corrections_come_under_what_they_correct() -> None:
    """Two destinations, and a correction that was ordered last of all but belongs to the first."""
    first, second = postback(State.DELIVERED), postback(State.HELD, id=2)
    ordered = in_reading_order(life(first, second, retraction(State.HELD)))
    assert [each.id for each in ordered] == [1, 9, 2]


def test_every_outcome_has_its_words() -> None:
    """What stands is said in full."""
    assert set(OUTCOMES) == set(signals.OUTCOMES)
