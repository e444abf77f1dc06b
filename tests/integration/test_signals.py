"""Signals and their conversions on the real database: whichever comes first, wherever the postback is just then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from infra.sink import SinkThread
from infra.store import releasing, rulings
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal, until

HOLD = {"kind": "refund", "wait": "1d"}
NOWHERE = generic_url("http://127.0.0.1:9")


@pytest.fixture
def ground(engine: Engine) -> Ground:
    ground = cleared(engine)
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    return ground


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def net_value(ground: Ground) -> Decimal:
    value: Decimal = ground.one("SELECT net_value FROM conversions")
    return value


VOIDING = [
    (signal("cancel", "s", "e"), "cancelled"),
    (signal("refund", "s", "e"), "refunded"),
    (signal("refund", "s", "e", amount="49.90", currency="EUR"), "refunded"),
    (signal("refund", "s", "e", amount="60.00", currency="EUR"), "refunded"),
    (signal("chargeback", "s", "e", outcome="opened"), "charged_back"),
    (signal("credit_check", "s", "e", outcome="declined"), "declined"),
    (signal("cancel", "s", None, conversion_event_id="e"), "cancelled"),
]


@pytest.mark.parametrize(("event", "reason"), VOIDING)
@pytest.mark.parametrize("order", ["after", "before", "same message", "same message, first"])
def test_a_voiding_signal_voids_whenever_it_comes(
    event: dict[str, Any], reason: str, order: str, ground: Ground
) -> None:
    """Before, with or after its conversion: the postback is voided with the reason, and the signal says so."""
    messages = {
        "after": [[conversion("e")], [event]],
        "before": [[event], [conversion("e")]],
        "same message": [[conversion("e"), event]],
        "same message, first": [[event, conversion("e")]],
    }[order]
    voided = sum(ground.take(*message).voided for message in messages)
    postback = ground.postback("e")
    assert (postback.state, postback.void_reason, postback.due_at, voided) == ("voided", reason, None, 1)
    assert ground.signal("s").status == "applied"
    assert f"voided pb_{postback.id} as {reason}" in ground.signal("s").outcome


def test_a_signal_for_an_unknown_order_waits(ground: Ground) -> None:
    """It is kept, findable as waiting, and changes nothing else."""
    ground.take(conversion("e"))
    ground.take(signal("refund", "s", "another"))
    assert (ground.signal("s").status, ground.signal("s").outcome) == (
        "waiting",
        "its conversion has not arrived",
    )
    assert ground.postback("e").state == "held"


def test_a_signal_that_comes_again_counts_once(ground: Ground) -> None:
    """Two deliveries of one partial refund take the amount off once."""
    refund = signal("refund", "s", "e", amount="10.00", currency="EUR")
    ground.take(conversion("e"))
    assert ground.take(refund).signals == 1
    assert ground.take(refund, refund).duplicates == 2
    assert net_value(ground) == Decimal("39.90")


@pytest.mark.parametrize(
    ("refunds", "net"),
    [
        ([("10.00", "delta"), ("5.00", "delta")], "34.90"),
        ([("10.00", "cumulative"), ("15.00", "cumulative")], "34.90"),
        ([("15.00", "cumulative"), ("10.00", "cumulative")], "34.90"),
        ([("10.00", "delta"), ("12.00", "cumulative")], "37.90"),
    ],
)
@pytest.mark.parametrize("first", ["conversion", "signals"])
def test_partial_refunds_leave_the_net_value_and_that_is_what_fires(
    refunds: list[tuple[str, str]], net: str, first: str, ground: Ground, sink: SinkThread
) -> None:
    """Deltas add up, cumulative amounts state the total; the network is told what is left."""
    ground.apply(contract("d", generic_url(sink.url)))
    signals = [
        signal("refund", f"s{number}", "e", amount=amount, amount_is=kind, currency="EUR")
        for number, (amount, kind) in enumerate(refunds)
    ]
    messages = [[conversion("e")], *([each] for each in signals)]
    for message in messages if first == "conversion" else [*messages[1:], messages[0]]:
        ground.take(*message)
    assert net_value(ground) == Decimal(net)
    with ground.firing() as gun:
        gun.fire()
    assert sink.client.credits("generic")[0]["value"] == net
    assert "net value is now" in ground.signal("s0").outcome


def test_a_refund_in_another_currency_is_noted_and_not_applied(ground: Ground) -> None:
    """Nothing converts money here: the signal is kept with the reason."""
    ground.take(conversion("e"), signal("refund", "s", "e", amount="10.00", currency="USD"))
    assert (net_value(ground), ground.signal("s").status) == (Decimal("49.90"), "noted")
    assert "refund in USD" in ground.signal("s").outcome


def test_refunds_of_more_than_was_paid_say_so(ground: Ground) -> None:
    """They void, and the second one's record has the sum that somebody should look at."""
    ground.take(conversion("e"))
    ground.take(signal("refund", "r1", "e", amount="40.00", currency="EUR"))
    ground.take(signal("refund", "r2", "e", amount="20.00", currency="EUR"))
    assert (net_value(ground), ground.postback("e").state) == (0, "voided")
    assert "add up to 60.00, more than the 49.90 that was paid" in ground.signal("r2").outcome


def test_one_refund_reaches_every_postback_of_its_order(ground: Ground) -> None:
    """Two destinations and two conversions under one order: all four are voided."""
    ground.apply(
        contract("d", NOWHERE, hold=HOLD),
        contract("x", "https://x.example/s", network="pushground", hold=HOLD),
    )
    both = {"order_id": "o", "source": "shop"}
    ground.take(
        conversion("a", **both, click_ids={"generic": "g1", "pushground": "p1"}),
        conversion("b", **both, click_ids={"generic": "g2", "pushground": "p2"}),
    )
    assert ground.take(signal("refund", "r", "o")).voided == 4
    assert ground.states() == {"voided": 4}


def test_a_refund_and_its_order_that_commit_at_the_same_time_never_miss_each_other(ground: Ground) -> None:
    """Eighty rounds of both on two connections at once: not one postback is left that would fire."""
    rounds = 80
    start = threading.Barrier(2)

    def take(kind: str) -> None:
        for number in range(rounds):
            event = (
                conversion(f"e{number}") if kind == "order" else signal("refund", f"r{number}", f"e{number}")
            )
            start.wait(10)
            ground.take_message([event])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(take, ("order", "refund")))
    assert ground.states() == {"voided": rounds}
    assert ground.one("SELECT count(*) FROM signals WHERE status = 'applied'") == rounds


# While it fires ------------------------------------------------------------------------------------


def test_a_lease_that_is_voided_before_the_gate_sends_nothing(ground: Ground, sink: SinkThread) -> None:
    """The refund came between claim and gate: the gate finds the lease gone."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=60, per_lease=10)
    ground.take(signal("refund", "r", "e"))
    with ground.firing() as gun:
        gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
    assert (ground.postback("e").state, sink.client.counts()["requests"]) == ("voided", 0)


def fire_through_refund(ground: Ground, sink: SinkThread, behaviour: str) -> None:
    """A refund arrives while the attempt is on the wire; then the network answers."""
    ground.apply(contract("d", generic_url(sink.url, behaviour)))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        ground.take(signal("refund", "r", "e"))
        assert ground.postback("e").state == "firing"
        assert "on the wire" in ground.signal("r").outcome
        sink.client.release()
        gun.settle()


def test_a_refund_during_an_attempt_that_fails_voids_instead_of_retrying(
    ground: Ground, sink: SinkThread
) -> None:
    """No further attempt is made, and the signal says what became of the one on the wire."""
    fire_through_refund(ground, sink, "status:500")
    postback = ground.postback("e")
    assert (postback.state, postback.reason, postback.due_at) == ("voided", "refunded", None)
    assert ground.attempts("e")[0].next_attempt_at is None
    assert ground.signal("r").status == "applied"
    assert f"pb_{postback.id} was on the wire and is voided" in ground.signal("r").outcome


def test_a_refund_during_an_attempt_that_succeeds_is_late_and_says_so(
    ground: Ground, sink: SinkThread
) -> None:
    """The network counted it: the postback is delivered, and the signal is findable as late."""
    fire_through_refund(ground, sink, "")
    postback = ground.postback("e")
    assert (postback.state, postback.void_reason) == ("delivered", "refunded")
    assert f"late: pb_{postback.id} was on the wire and was delivered" in ground.signal("r").outcome


def test_a_refund_that_met_two_attempts_on_the_wire_says_what_became_of_both(
    ground: Ground, sink: SinkThread
) -> None:
    """One order at two destinations; both answers come in one batch."""
    ground.apply(*(contract(name, generic_url(sink.url, "status:500")) for name in ("one", "two")))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        sink.client.hold()
        gun.fire_due()
        until(lambda: len(sink.client.held()) == 2)
        ground.take(signal("refund", "r", "e"))
        sink.client.release()
        gun.settle()
    assert ground.signal("r").outcome.count("was on the wire and is voided") == 2
    assert "will be made" not in ground.signal("r").outcome


def test_a_refund_after_delivery_is_late_and_changes_no_state(ground: Ground, sink: SinkThread) -> None:
    """It is recorded with the postback it came too late for."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire()
    ground.take(signal("refund", "r", "e"))
    assert ground.postback("e").state == "delivered"
    words = ground.signal("r").outcome
    assert "late: pb_" in words
    assert "lost 49.90 EUR" in words


def test_a_voided_retry_never_fires_again(ground: Ground, sink: SinkThread) -> None:
    """A refund between two attempts ends them; the sink hears one request, whatever comes due."""
    ground.apply(contract("d", generic_url(sink.url, "status:500")))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire()
        ground.take(signal("cancel", "c", "e"))
        gun.fire_until_final()
        assert gun.fire_due() == 0
    assert (ground.postback("e").state, sink.client.counts()["requests"]) == ("voided", 1)


def test_refunds_race_releases_and_every_void_holds(ground: Ground, sink: SinkThread) -> None:
    """Refunds of 150 orders while these fire: what is voided was never credited, the rest was, and late ones say so."""
    ground.apply(contract("d", generic_url(sink.url), limits={"concurrency": 10}))
    ground.take(*(conversion(f"e{number}") for number in range(150)))

    def refund(number: int) -> None:
        ground.take_message([signal("refund", f"r{number}", f"e{number}")])

    with ground.firing() as gun, ThreadPoolExecutor(3) as threads:
        refunds = threads.map(refund, range(150))
        gun.fire_until_final()
        list(refunds)
    credited = {credit["order_id"] for credit in sink.client.credits("generic")}
    voided = {
        row.order_id
        for row in ground.rows("""
            SELECT c.order_id FROM postbacks p JOIN conversions c ON c.id = conversion_id WHERE p.state = 'voided'""")
    }
    assert not credited & voided
    assert len(credited) + len(voided) == 150
    late = ground.one("SELECT count(*) FROM signals WHERE outcome LIKE '%late: pb_%'")
    assert late == len(credited)


def test_a_partial_refund_that_commits_while_the_gate_waits_is_in_what_is_sent(
    ground: Ground, sink: SinkThread
) -> None:
    """The gate finds the postback locked by the signal; what it then renders is what the signal left."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=60, per_lease=10)
    with ground.firing() as gun, ThreadPoolExecutor(1) as threads:
        with ground.engine.begin() as signals:
            signals.execute(text("SELECT FROM postbacks FOR UPDATE"))
            fired = threads.submit(gun.firing.fire, lease.token, lease.version_id, lease.postback_ids)
            until(lambda: waits_for_a_lock(ground))
            signals.execute(text("UPDATE conversions SET net_value = 39.90"))
        fired.result(10)
        gun.settle()
    assert sink.client.credits("generic")[0]["value"] == "39.90"


def test_a_partial_refund_says_what_had_gone_out_with_the_value_before(
    ground: Ground, sink: SinkThread
) -> None:
    """One while the attempt is on the wire, one after it was delivered: both are findable as having missed it."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        ground.take(signal("refund", "r1", "e", amount="10.00", currency="EUR"))
        sink.client.release()
        gun.settle()
    ground.take(signal("refund", "r2", "e", amount="5.00", currency="EUR"))
    postback = ground.postback("e").id
    assert f"net value is now 39.90; pb_{postback} was on the wire" in ground.signal("r1").outcome
    assert f"net value is now 34.90; late: pb_{postback} had been delivered" in ground.signal("r2").outcome


def test_a_duplicate_that_is_being_voided_just_now_takes_no_place(ground: Ground) -> None:
    """Its refund commits between the look for an heir and the promotion: it is never held again."""
    same: dict[str, Any] = {"click_ids": {"generic": "t"}, "order_id": "o"}
    ground.take(conversion("first", **same), conversion("second", **same))
    first, second = ground.postback("first").id, ground.postback("second").id

    def promote() -> None:
        with ground.engine.begin() as connection:
            rulings.promote_duplicates(connection, [first])

    with ThreadPoolExecutor(1) as threads:
        with ground.engine.begin() as signals:
            void = text("UPDATE postbacks SET void_reason = 'refunded' WHERE id = :id")
            signals.execute(void, {"id": second})
            promoted = threads.submit(promote)
            until(lambda: waits_for_a_lock(ground))
        promoted.result(10)
    assert ground.postback("second").state == "duplicate"


def waits_for_a_lock(ground: Ground) -> bool:
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'"""
    return bool(ground.one(query))
