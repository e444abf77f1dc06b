"""Discrepancies of known cause, each brought about in the real pipeline or in the network's report, and each named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from infra.sink.thread import SinkThread
from infra.store.reports.reports import FindingRecord
from schemas.reconciling.findings import Bucket, Cause, Side
from tests.integration.ground import cleared, signal
from tests.integration.planted import NOON, PLAIN, Planted, changed, extra, token, without


@pytest.fixture
def planted(engine: Engine, tmp_path: Path) -> Iterator[Planted]:
    with SinkThread(recording=False) as sink:
        yield Planted(cleared(engine), sink, tmp_path)


def causes(found: list[FindingRecord]) -> dict[tuple[Bucket, str], set[Cause | None]]:
    """By bucket and the order it is about."""
    named: dict[tuple[Bucket, str], set[Cause | None]] = {}
    for each in found:
        order = each.our_order_id or each.their_order_id or ""
        named.setdefault((each.bucket, order.removeprefix("order-")), set()).add(each.cause)
    return named


def test_the_reconciliation_names_every_planted_cause(planted: Planted) -> None:
    """Twelve causes and every bucket in one report: each is named, and nothing else is."""
    planted.apply(rules={"sub_id": True, "age_limit": {"wait": "30d", "measured_from": "click"}})
    plain = [planted.event(f"plain{n}") for n in range(PLAIN)]
    late = [planted.event(f"late{n}", NOON + timedelta(hours=8)) for n in range(6)]
    ours = {
        "cut": token("cut")[:30],
        "folded": token("folded").lower(),
        "stripped": token("stripped").rstrip("."),
    }
    odd = [planted.event(name, click_id=click_id) for name, click_id in ours.items()]
    named = [
        planted.event(name)
        for name in (
            "redirected",
            "bodied",
            "told-twice",
            "cheap",
            "doubled",
            "cut-there",
            "folded-there",
            "bare-there",
        )
    ]
    planted.sink.client.issue("generic", [token(each["event_id"]) for each in (*plain, *late, *odd, *named)])
    planted.sink.client.issue("generic", [token("aged")])
    planted.sink.client.settings({"generic": {"duplicates": "counted"}})
    planted.sink.client.plan(
        [
            {"match": {"click_id": token("redirected")}, "behave": "redirect-nowhere"},
            {"match": {"click_id": token("bodied")}, "behave": "refused-in-body"},
            {"match": {"click_id": token("told-twice")}, "behave": "reset-counted", "times": 1},
        ]
    )
    ground = planted.ground
    ground.take(*plain, *late, *odd, *named)
    ground.take(
        planted.event("held", name="lease"),
        planted.event("voided", name="lease"),
        planted.event("expired", clicked_at=(NOON - timedelta(days=40)).isoformat()),
        planted.event("aged", clicked_at=(NOON - timedelta(days=9)).isoformat()),
        planted.event("macro", click_id="[SSPDATA]"),
    )
    ground.take(signal("refund", "refund-voided", "order-voided"))
    with ground.firing() as gun:
        gun.fire_due()
        gun.settle()
        while ground.one("SELECT count(*) FROM postbacks WHERE state IN ('retrying', 'leased', 'firing')"):
            gun.fire_due()
            gun.settle()
    states = ground.states()
    assert states.pop("delivered") == PLAIN + 6 + 3 + 8 - 1 + 1
    assert states == {"held": 1, "voided": 1, "expired": 1, "rejected": 1}

    rows = planted.rows(zone="Asia/Tokyo")
    rows = without(rows, "aged")
    rows = changed(rows, "cheap", payout=Decimal("40.00"))
    rows = changed(rows, "cut-there", click_id=token("cut-there")[:32])
    rows = changed(rows, "folded-there", click_id=token("folded-there").upper())
    rows = changed(rows, "bare-there", click_id=token("bare-there").rstrip("."))
    doubled = next(each for each in rows if each.order_id == "order-doubled")
    rows += [doubled, extra("macro", "[SSPDATA]", NOON), extra("stranger", token("stranger"), NOON)]
    record = planted.reconcile(rows, attribution_window="14d")

    found = planted.found(record)
    assert causes(found) == {
        (Bucket.OURS_ONLY, "held"): {Cause.STILL_HELD},
        (Bucket.OURS_ONLY, "voided"): {Cause.VOIDED},
        (Bucket.OURS_ONLY, "expired"): {Cause.EXPIRED},
        (Bucket.OURS_ONLY, "redirected"): {Cause.REDIRECT_NOT_COMPLETED},
        (Bucket.OURS_ONLY, "bodied"): {Cause.BODY_SAID_NO},
        (Bucket.OURS_ONLY, "aged"): {Cause.ATTRIBUTION_AGE},
        (Bucket.OURS_ONLY, "cut"): {Cause.TRUNCATED},
        (Bucket.OURS_ONLY, "folded"): {Cause.CASE_FOLDED},
        (Bucket.OURS_ONLY, "stripped"): {Cause.PERIOD_LOST},
        (Bucket.OURS_ONLY, "cut-there"): {Cause.TRUNCATED},
        (Bucket.THEIRS_ONLY, "cut-there"): {Cause.TRUNCATED},
        (Bucket.OURS_ONLY, "folded-there"): {Cause.CASE_FOLDED},
        (Bucket.THEIRS_ONLY, "folded-there"): {Cause.CASE_FOLDED},
        (Bucket.OURS_ONLY, "bare-there"): {Cause.PERIOD_LOST},
        (Bucket.THEIRS_ONLY, "bare-there"): {Cause.PERIOD_LOST},
        (Bucket.THEIRS_ONLY, "macro"): {Cause.UNREPLACED_MACRO},
        (Bucket.THEIRS_ONLY, "stranger"): {Cause.UNKNOWN_TO_US},
        (Bucket.DUPLICATE, "told-twice"): {Cause.TOLD_TWICE},
        (Bucket.DUPLICATE, "doubled"): {Cause.COUNTED_TWICE},
        (Bucket.VALUE_MISMATCH, "cheap"): {Cause.VALUE_DIFFERS},
        **{(Bucket.DAY_SHIFT, f"late{n}"): {Cause.TIME_ZONE_SHIFT} for n in range(6)},
    }
    macro = next(each for each in found if each.cause is Cause.UNREPLACED_MACRO)
    assert "our intake refused its event for that, reject 1" in macro.explanation
    sides = {
        each.our_order_id: each.side
        for each in found
        if each.cause is Cause.CASE_FOLDED and each.our_order_id
    }
    assert sides == {"order-folded": Side.US, "order-folded-there": Side.NETWORK}
