"""From an answer to the row, for a conversion's own postback and for the corrections of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from schemas.exchange import Answer, Failure, FailureKind, Hop
from schemas.lifecycle import State
from schemas.network import AdjustmentKind
from schemas.postback import LostAttempt, SettledAttempt
from schemas.verdict import VerdictKind
from tests.unit.test_rendering import ADJUSTMENTS, NOW, REFUNDED, URL, correction, gated, prepared, version
from workers.rendering import open_account
from workers.settling import settle_answer, settle_lost
from workers.wire import Answered

RESTATED_ONCE = ADJUSTMENTS["restatement"] | {"dedupe": "harmless"}
BY_BODY = ADJUSTMENTS["retraction"] | {
    "answer": {"body": [{"regex": "^reversed", "verdict": "delivered"}], "body_required": True}
}
WHICH = version(URL, rules={"adjustments": {"retraction": BY_BODY, "restatement": RESTATED_ONCE}})


def answered(body: bytes = b"", failure: FailureKind | None = None) -> Answer:
    broken = failure and Failure(failure, sent=True, error_class="TimeoutError", message="no answer")
    hop = Hop(
        number=1,
        url="https://network.example/",
        method="GET",
        started_at=NOW,
        request_head=b"GET / HTTP/1.1\r\n",
        status_code=None if broken else 200,
        body=body,
        failure=broken,
    )
    return Answer((hop,), broken)


def settled(answer: Answer, **fields: Any) -> SettledAttempt:
    return settle_answer(
        Answered(prepared(WHICH, **fields), open_account(WHICH), answer), "worker", NOW, draw=0.5
    )


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"net_value": Decimal("49.90")}, None),
        ({"net_value": Decimal("39.90")}, "39.90"),
        ({"correction": correction("restatement"), "net_value": Decimal("39.90")}, "39.90"),
        ({"correction": correction("restatement", "39.90"), "net_value": Decimal("49.90")}, "49.90"),
        ({"correction": correction("retraction"), "outcomes": REFUNDED}, None),
    ],
)
def test_what_the_network_was_told_is_kept_where_the_conversion_does_not_say_it(
    fields: dict[str, Any], told: str | None
) -> None:
    """A later correction starts from it."""
    attempt = settled(answered(b"reversed"), **fields)
    assert attempt.state is State.DELIVERED
    assert attempt.told == (None if told is None else Decimal(told))


def test_an_attempt_says_which_correction_it_was() -> None:
    """None is said of a conversion's own postback."""
    assert settled(answered()).adjustment is None
    assert settled(answered(), correction=correction("restatement")).adjustment == "restatement"


def test_an_adjustment_is_judged_by_rules_of_its_own() -> None:
    """The same answer delivers the conversion and leaves its retraction in doubt; what has none keeps the network's."""
    assert settled(answered(b"OK")).verdict is VerdictKind.DELIVERED
    assert settled(answered(b"OK"), correction=correction("restatement")).verdict is VerdictKind.DELIVERED
    back = {"correction": correction("retraction"), "outcomes": REFUNDED}
    assert settled(answered(b"OK"), **back).state is State.IN_DOUBT
    assert settled(answered(b"reversed"), **back).state is State.DELIVERED


@pytest.mark.parametrize(("kind", "state"), [("retraction", State.IN_DOUBT), ("restatement", State.RETRYING)])
def test_whether_a_lost_answer_is_asked_for_again_is_the_adjustments_own_rule(
    kind: AdjustmentKind, state: State
) -> None:
    """The generic network counts a repeat twice, this restatement does not; nothing said is the safe rule."""
    outcomes = REFUNDED if kind == "retraction" else ()
    fields = {"correction": correction(kind), "outcomes": outcomes}
    assert settled(answered(failure=FailureKind.TIMEOUT), **fields).state is state
    event = gated().event
    lost = LostAttempt(1, 2, 3, 1, 7, "worker", NOW, NOW, None, False, event, NOW + timedelta(minutes=5))
    attempt = settle_lost(replace(lost, adjustment=kind), WHICH.contract, draw=0.5)
    assert (attempt.state, attempt.adjustment) == (state, kind)
    assert settle_lost(lost, WHICH.contract, draw=0.5).state is State.IN_DOUBT
