"""Corrections of what was delivered: fired at a real network that takes them, or written down as lost."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, Row

from infra.sink import SinkThread
from infra.store import releasing
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal, until


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def adjustment(sink: SinkThread, path: str, behaviour: str = "", **fields: Any) -> dict[str, Any]:
    prefix = f"/bad/{behaviour}" if behaviour else ""
    url = f"{sink.url}{prefix}/generic/{path}?click_id={{click_id}}&value={{value}}&delta={{delta}}"
    return {"url": url, "dedupe": "harmless", "basis": "a network of ours"} | fields


def destination(
    ground: Ground, sink: SinkThread, *kinds: str, behaviour: str = "", conversion: str = "", **table: Any
) -> None:
    """A destination whose network takes these corrections, each at a path of its name."""
    taken = {kind: adjustment(sink, kind, behaviour) for kind in kinds}
    if "restatement" in taken:
        taken["restatement"]["revives"] = True
    ground.apply(contract("d", generic_url(sink.url, conversion), rules={"adjustments": taken}, **table))


def sent(sink: SinkThread) -> list[str]:
    """What the network was told: the path's last part, value and change, in order."""
    found = []
    for request in sink.client.requests():
        path, _, query = request["raw"].split(" ", 2)[1].partition("?")
        fields = dict(pair.split("=") for pair in query.split("&"))
        name = path.rpartition("/")[2]
        found.append(" ".join(filter(None, (name, fields["value"], fields.get("delta")))))
    return found


def adjustments(ground: Ground) -> list[Row[Any]]:
    return list(ground.rows("SELECT * FROM postbacks WHERE adjusts IS NOT NULL ORDER BY id"))


def original(ground: Ground) -> Row[Any]:
    (row,) = ground.rows("SELECT * FROM postbacks WHERE adjusts IS NULL")
    return row


def refund(event_id: str, amount: str | None = None, order_id: str = "e") -> dict[str, Any]:
    given = {} if amount is None else {"amount": amount, "currency": "EUR"}
    return signal("refund", event_id, order_id, **given)


def dispute(outcome: str) -> dict[str, Any]:
    return signal("chargeback", outcome, "e", outcome=outcome)


def test_a_full_refund_after_delivery_is_retracted(ground: Ground, sink: SinkThread) -> None:
    """The retraction is a postback of its own: held, fired, logged; the conversion stays delivered."""
    destination(ground, sink, "retraction", "restatement")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r"))
        (retraction,) = adjustments(ground)
        assert (retraction.state, retraction.adjustment) == ("held", "retraction")
        assert (retraction.adjusts, original(ground).adjustments) == (original(ground).id, 1)
        gun.fire()
    assert sent(sink) == ["p 49.90", "retraction 0.00 -49.90"]
    assert adjustments(ground)[0].state == "delivered"
    assert original(ground).retracted_at is not None
    assert original(ground).lost_at is None
    assert f"pb_{retraction.id} tells d that nothing stands" in ground.signal("r").outcome
    assert ground.signal("r").status == "applied"


def test_several_refunds_in_the_wait_make_one_restatement(ground: Ground, sink: SinkThread) -> None:
    """It tells what stands when it fires: the new total, and the change from what was told."""
    destination(ground, sink, "retraction", "restatement", adjust={"wait": "1h"})
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r1", "10.00"))
        ground.take(refund("r2", "5.00"))
        assert len(adjustments(ground)) == 1
        assert gun.fire_due() == 0
        ground.run("UPDATE postbacks SET due_at = now(), release_at = now() WHERE state = 'held'")
        gun.fire()
        ground.take(refund("r3", "4.90"))
        ground.run("UPDATE postbacks SET due_at = now(), release_at = now() WHERE state = 'held'")
        gun.fire()
    assert sent(sink) == ["p 49.90", "restatement 34.90 -15.00", "restatement 30.00 -4.90"]
    assert original(ground).reported == Decimal("30.00")


def test_a_won_dispute_withdraws_the_retraction_that_has_not_fired(ground: Ground, sink: SinkThread) -> None:
    """Nothing is left to correct: the network never hears of it."""
    destination(ground, sink, "retraction", adjust={"wait": "1h"})
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(dispute("opened"))
        ground.take(dispute("won"))
        gun.fire()
    (retraction,) = adjustments(ground)
    assert (retraction.state, retraction.void_reason) == ("voided", "withdrawn")
    assert (sent(sink), original(ground).lost_at) == (["p 49.90"], None)


def test_a_won_dispute_after_the_retraction_restates_the_value(ground: Ground, sink: SinkThread) -> None:
    """Where a restatement brings back what was retracted."""
    destination(ground, sink, "retraction", "restatement")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        for event in (dispute("opened"), dispute("won")):
            gun.fire()
            ground.take(event)
        gun.fire()
    assert sent(sink) == ["p 49.90", "retraction 0.00 -49.90", "restatement 49.90 49.90"]
    assert original(ground).retracted_at is None


def test_a_network_without_corrections_is_owed_the_loss(ground: Ground, sink: SinkThread) -> None:
    """The amount is on record with the postback, grows with a further refund, and the signals say it."""
    destination(ground, sink)
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r1", "10.00"))
        assert original(ground).lost == Decimal("10.00")
        ground.take(refund("r2"))
    assert (original(ground).lost, original(ground).state) == (Decimal("49.90"), "delivered")
    assert "lost 49.90 EUR: d cannot be told" in ground.signal("r2").outcome
    assert adjustments(ground) == []


def test_a_loss_without_a_value_is_recorded_without_an_amount(ground: Ground, sink: SinkThread) -> None:
    destination(ground, sink)
    ground.apply(contract("d", f"{sink.url}/generic/p?click_id={{click_id}}"))
    with ground.firing() as gun:
        ground.take(conversion("e", value=None, currency=None))
        gun.fire()
    ground.take(refund("r"))
    assert (original(ground).lost, original(ground).lost_at is None) == (None, False)


def test_a_won_dispute_clears_the_loss(ground: Ground, sink: SinkThread) -> None:
    destination(ground, sink)
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
    ground.take(dispute("opened"))
    assert original(ground).lost == Decimal("49.90")
    ground.take(dispute("won"))
    assert (original(ground).lost, original(ground).lost_at) == (None, None)


def test_a_refund_during_the_attempt_that_delivers_is_corrected(ground: Ground, sink: SinkThread) -> None:
    """It met the postback on the wire: once that has settled as delivered, it is retracted."""
    destination(ground, sink, "retraction", "restatement")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        ground.take(refund("r", "10.00"))
        assert adjustments(ground) == []
        sink.client.release()
        gun.settle()
        gun.fire()
    assert sent(sink) == ["p 49.90", "restatement 39.90 -10.00"]


def test_a_full_refund_during_the_attempt_that_delivers_says_what_is_done(
    ground: Ground, sink: SinkThread
) -> None:
    destination(ground, sink)
    with ground.firing() as gun:
        ground.take(conversion("e"))
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        ground.take(refund("r"))
        sink.client.release()
        gun.settle()
    assert original(ground).lost == Decimal("49.90")
    assert "was delivered; lost 49.90 EUR: d cannot be told" in ground.signal("r").outcome


def test_a_correction_that_is_refused_for_good_is_lost(ground: Ground, sink: SinkThread) -> None:
    """It is not ordered again for the same difference, but for a new one it is."""
    destination(ground, sink, "restatement", behaviour="status:400")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r1", "10.00"))
        gun.fire()
        assert (original(ground).lost, len(adjustments(ground))) == (Decimal("10.00"), 1)
        ground.take(signal("credit_check", "cc", "e", outcome="approved"))
        assert len(adjustments(ground)) == 1
        ground.take(refund("r2", "5.00"))
        assert (original(ground).lost, len(adjustments(ground))) == (None, 2)
        gun.fire()
    assert original(ground).lost == Decimal("15.00")


def test_a_correction_retries_like_any_other_postback(ground: Ground, sink: SinkThread) -> None:
    destination(ground, sink, "retraction")
    sink.client.plan([{"match": {"path": "/generic/retraction"}, "behave": "status:503", "times": 1}])
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r"))
        gun.fire_until_final()
    (retraction,) = adjustments(ground)
    assert (retraction.state, retraction.attempts) == ("delivered", 2)


def test_a_refund_turns_a_restatement_that_has_not_fired_into_a_retraction(
    ground: Ground, sink: SinkThread
) -> None:
    """Part of it, then all of it: only the last is told."""
    destination(ground, sink, "retraction", "restatement", adjust={"wait": "1h"})
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r1", "10.00"))
        ground.take(refund("r2"))
        ground.run("UPDATE postbacks SET due_at = now(), release_at = now() WHERE state = 'held'")
        gun.fire()
    assert [each.state for each in adjustments(ground)] == ["voided", "delivered"]
    assert sent(sink) == ["p 49.90", "retraction 0.00 -49.90"]


def test_a_refund_while_a_correction_is_on_the_wire_is_told_by_the_next(
    ground: Ground, sink: SinkThread
) -> None:
    destination(ground, sink, "restatement")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
        ground.take(refund("r1", "10.00"))
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        ground.take(refund("r2", "5.00"))
        sink.client.release()
        gun.settle()
        gun.fire()
    assert sent(sink) == ["p 49.90", "restatement 39.90 -10.00", "restatement 34.90 -5.00"]


def test_where_only_a_restatement_is_taken_nothing_is_restated_as_zero_and_back(
    ground: Ground, sink: SinkThread
) -> None:
    destination(ground, sink, "restatement")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        for event in (dispute("opened"), dispute("won")):
            gun.fire()
            ground.take(event)
        gun.fire()
        gun.fire()
    assert sent(sink) == ["p 49.90", "restatement 0.00 -49.90", "restatement 49.90 49.90"]
    assert len(adjustments(ground)) == 2


def test_a_destination_that_sends_no_adjustments_records_the_loss(ground: Ground, sink: SinkThread) -> None:
    destination(ground, sink, "retraction", adjust={"send": False})
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
    ground.take(refund("r"))
    assert (adjustments(ground), original(ground).lost) == ([], Decimal("49.90"))


def test_nothing_is_corrected_that_was_not_delivered(ground: Ground, sink: SinkThread) -> None:
    """Refused by the network, then refunded: there is nothing to take back."""
    destination(ground, sink, "retraction", conversion="status:400")
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
    ground.take(refund("r"))
    assert (original(ground).state, adjustments(ground), original(ground).lost_at) == ("rejected", [], None)
    assert releasing.backlog(ground.engine).due == 0


def test_a_network_that_is_told_no_value_has_none_wrong(ground: Ground, sink: SinkThread) -> None:
    """Part of it went back, but nobody ever told the network an amount: nothing is lost, until all of it is."""
    ground.apply(contract("d", f"{sink.url}/generic/p?click_id={{click_id}}"))
    with ground.firing() as gun:
        ground.take(conversion("e"))
        gun.fire()
    ground.take(refund("r1", "10.00"))
    assert original(ground).lost_at is None
    ground.take(refund("r2"))
    assert (original(ground).lost, original(ground).lost_at is None) == (None, False)
