"""What decisions, disputes and revised decisions do to postbacks, each by its own policy, on the real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.store import releasing
from schemas.calendars import next_tick
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal

NOWHERE = generic_url("http://127.0.0.1:9")
REFUND = {"kind": "refund", "wait": "1d"}
CREDIT = {"kind": "credit_check", "wait": "30d"}
ONE_A_CLICK = {"sub_id": False}


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


def hold(ground: Ground, policy: dict[str, Any], **table: Any) -> None:
    ground.apply(contract("d", NOWHERE, hold=policy, **table))


def decision(outcome: str, event_id: str = "cc", order_id: str = "e", **fields: Any) -> dict[str, Any]:
    return signal("credit_check", event_id, order_id, outcome=outcome, **fields)


def dispute(outcome: str, event_id: str | None = None, order_id: str = "e", **fields: Any) -> dict[str, Any]:
    return signal("chargeback", event_id or outcome, order_id, outcome=outcome, **fields)


def leased(ground: Ground) -> list[int]:
    leases = releasing.claim(ground.engine, limit=100, lease_s=60, per_lease=100)
    return [number for lease in leases for number in lease.postback_ids]


@pytest.mark.parametrize("first", ["conversion", "decision"])
def test_an_approval_ends_the_window_at_once(first: str, ground: Ground) -> None:
    """Before its conversion or after it: due now, and both say why."""
    hold(ground, CREDIT)
    events = [conversion("e"), decision("approved")]
    for event in events if first == "conversion" else reversed(events):
        ground.take(event)
    postback = ground.postback("e")
    assert (postback.state, postback.due_at) == ("held", postback.release_at)
    assert postback.release_at <= postback.now
    assert leased(ground) == [postback.id]
    assert f"ended the window of pb_{postback.id}" in ground.signal("cc").outcome


def test_an_approval_waits_the_window_out_where_the_policy_says_so(ground: Ground) -> None:
    """``release_on = []``: the decision is kept for the gate, and the window stays as it is."""
    hold(ground, CREDIT | {"release_on": []})
    ground.take(conversion("e"), decision("approved"))
    assert ground.postback("e").release_at > ground.postback("e").now + timedelta(days=29)
    assert ground.one("SELECT outcomes FROM conversions") == ["credit_check.approved"]
    assert ground.signal("cc").status == "noted"


def test_a_review_waits_and_a_decline_voids(ground: Ground) -> None:
    hold(ground, CREDIT)
    ground.take(conversion("e"), decision("review", "r"))
    assert ground.postback("e").state == "held"
    ground.take(decision("declined"))
    assert (ground.postback("e").state, ground.postback("e").void_reason) == ("voided", "declined")


def test_an_approval_goes_with_the_schedules_next_tick(ground: Ground) -> None:
    """Ended early, it is due when the schedule says, not in between."""
    hold(ground, CREDIT | {"schedule": "0 6 * * *", "timezone": "Europe/Berlin"})
    ground.take(conversion("e"), decision("approved"))
    postback = ground.postback("e")
    assert postback.release_at == next_tick(postback.now, "0 6 * * *", "Europe/Berlin")


def test_an_approval_leaves_a_release_by_hand_to_the_hand(ground: Ground) -> None:
    """Its window is over, and it waits for `release --due`."""
    hold(ground, CREDIT | {"release": "manual"})
    ground.take(conversion("e"), decision("approved"))
    assert leased(ground) == []
    assert releasing.let_go(ground.engine) == 1
    assert leased(ground) == [ground.postback("e").id]


def test_an_approval_does_not_end_a_refund_window(ground: Ground) -> None:
    """No policy acts on it, and the signal says so."""
    hold(ground, REFUND)
    ground.take(conversion("e"), decision("approved"))
    assert ground.postback("e").release_at > ground.postback("e").now
    assert (ground.signal("cc").status, "no policy" in ground.signal("cc").outcome) == ("noted", True)


def test_one_signal_rules_on_each_postback_by_its_own_policy(ground: Ground) -> None:
    """A dispute voids at one destination, and another one waits for its outcome."""
    patient = ["refund", "cancel", "chargeback.lost", "credit_check.declined"]
    ground.apply(
        contract("strict", NOWHERE, hold=REFUND),
        contract("patient", NOWHERE, hold=REFUND | {"void_on": patient}),
    )
    ground.take(conversion("e"), dispute("opened"))
    assert ground.postback("e", "strict").state == "voided"
    assert ground.postback("e", "patient").state == "held"
    ground.take(dispute("lost"))
    assert ground.postback("e", "patient").void_reason == "charged_back"


def test_a_partial_refund_voids_where_the_policy_says_so(ground: Ground) -> None:
    everything = ["refund", "partial_refund", "cancel"]
    hold(ground, REFUND | {"void_on": everything})
    ground.take(conversion("e"), signal("refund", "r", "e", amount="1.00", currency="EUR"))
    assert ground.postback("e").void_reason == "refunded"


# Reinstating --------------------------------------------------------------------------------------


@pytest.mark.parametrize("withdrawn", ["dispute", "decision"])
def test_what_voided_it_is_withdrawn_and_it_waits_out_its_window(withdrawn: str, ground: Ground) -> None:
    """A won dispute or a revised decision brings it back, and not a moment early."""
    hold(ground, REFUND)
    ground.take(conversion("e"))
    before = ground.postback("e").release_at
    pair = {
        "dispute": (dispute("opened"), dispute("won")),
        "decision": (decision("declined", "d"), decision("approved", "a")),
    }[withdrawn]
    ground.take(pair[0])
    assert ground.postback("e").state == "voided"
    ground.take(pair[1])
    postback = ground.postback("e")
    assert (postback.state, postback.release_at, postback.due_at) == ("held", before, before)
    assert (postback.void_reason, postback.settled_at) == (None, None)
    assert leased(ground) == []
    assert f"reinstated pb_{postback.id}" in ground.signal(pair[1]["event_id"]).outcome


def test_a_signal_about_something_else_does_not_bring_back_what_no_signal_voided(ground: Ground) -> None:
    """The advertiser's own service said that it was cancelled: a partial refund is no reason to doubt it."""
    hold(ground, REFUND)
    ground.take(conversion("e"))
    ground.run(
        """UPDATE postbacks SET state = 'voided', void_reason = 'cancelled', due_at = NULL, settled_at = now()"""
    )
    ground.take(signal("refund", "r", "e", amount="1.00", currency="EUR"))
    assert ground.postback("e").state == "voided"


def test_a_won_dispute_does_not_bring_back_what_was_refunded(ground: Ground) -> None:
    """Two reasons, one of them withdrawn: the other still holds."""
    hold(ground, REFUND)
    ground.take(conversion("e"), dispute("opened"))
    ground.take(signal("cancel", "c", "e"))
    ground.take(dispute("won"))
    assert ground.postback("e").state == "voided"


def test_a_won_dispute_that_comes_first_lets_nothing_be_voided(ground: Ground) -> None:
    """Delivered in the wrong order, the older opening changes nothing."""
    hold(ground, REFUND)
    opened = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    ground.take(conversion("e"), dispute("won"))
    ground.take(dispute("opened", occurred_at=opened))
    assert ground.postback("e").state == "held"


def test_one_that_was_tried_before_goes_on_retrying(ground: Ground) -> None:
    """It had an attempt: it is due again at once, for its window is over."""
    hold(ground, {"kind": "none"}, retry={"attempts": 5, "base": "1h", "horizon": "2d"})
    ground.take(conversion("e"))
    ground.run("""UPDATE postbacks SET state = 'retrying', attempts = 1, first_attempt_at = now() - interval '1h',
        due_at = now() + interval '1h'""")
    ground.take(dispute("opened"))
    ground.take(dispute("won"))
    postback = ground.postback("e")
    assert (postback.state, postback.due_at <= postback.now) == ("retrying", True)


def test_one_whose_horizon_ended_meanwhile_is_dead(ground: Ground) -> None:
    """What is left of its retry horizon is nothing: it is not tried once more."""
    hold(ground, {"kind": "none"}, retry={"attempts": 5, "base": "1h", "horizon": "2d"})
    ground.take(conversion("e"))
    ground.take(dispute("opened"))
    ground.run("UPDATE postbacks SET attempts = 1, first_attempt_at = now() - interval '3d'")
    ground.take(dispute("won"))
    assert (ground.postback("e").state, ground.postback("e").due_at) == ("dead", None)
    assert "horizon" in ground.postback("e").reason


def test_one_whose_place_was_taken_is_a_duplicate_of_who_took_it(ground: Ground) -> None:
    """Its duplicate was promoted when it was voided: of the two only that one may fire."""
    hold(ground, REFUND, rules=ONE_A_CLICK)
    same: dict[str, Any] = {"click_ids": {"generic": "t"}}
    ground.take(conversion("first", order_id="o1", **same), conversion("second", order_id="o2", **same))
    ground.take(dispute("opened", order_id="o1"))
    assert ground.postback("second").state == "held"
    ground.take(dispute("won", order_id="o1"))
    first, second = ground.postback("first"), ground.postback("second")
    assert (first.state, first.duplicate_of, second.state) == ("duplicate", second.id, "held")


def test_one_whose_heir_was_voided_takes_its_place_back_with_all_that_follow(ground: Ground) -> None:
    """Three of one click: the heir is refunded, the first comes back, and the third is its duplicate."""
    hold(ground, REFUND, rules=ONE_A_CLICK)
    same: dict[str, Any] = {"click_ids": {"generic": "t"}}
    names = ("first", "second", "third")
    ground.take(*(conversion(name, order_id=name, **same) for name in names))
    ground.take(dispute("opened", order_id="first"), dispute("opened", "third-opened", order_id="third"))
    ground.take(signal("refund", "r", "second"))
    assert ground.states() == {"voided": 2, "duplicate": 1}
    ground.take(dispute("won", order_id="first"))
    first, third = ground.postback("first"), ground.postback("third")
    assert (first.state, third.state, third.duplicate_of) == ("held", "duplicate", first.id)
    ground.take(dispute("won", "third-won", order_id="third"))
    ground.take(signal("refund", "r2", "first"))
    assert ground.postback("third").state == "held"


def test_a_rebill_is_refunded_alone(ground: Ground) -> None:
    """Three months of one order: the second is refunded by its sequence, next month's not at all."""
    ground.apply(contract("d", "http://127.0.0.1:9/p?by={partner_id}", hold=REFUND, protocol="partner"))
    ago = [(datetime.now(UTC) - timedelta(hours=hours)).isoformat() for hours in (3, 2)]
    rebill = {"order_id": "o", "partner_id": "p", "click_ids": {}}
    ground.take(*(conversion(f"e{n}", sequence=n, occurred_at=at, **rebill) for n, at in enumerate(ago)))
    ground.take(signal("refund", "r", "o", sequence=1))
    between = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    ground.take(signal("cancel", "c", "o", sequence=7, occurred_at=between))
    ground.take(conversion("e2", sequence=2, **rebill))
    assert [ground.postback(f"e{n}").state for n in range(3)] == ["held", "voided", "held"]
    assert ground.signal("c").status == "waiting"
    ground.take(signal("cancel", "c2", "o", occurred_at=between))
    assert [ground.postback(f"e{n}").state for n in range(3)] == ["voided", "voided", "held"]


WON = REFUND | {"release_on": ["chargeback.won", "credit_check.approved"]}


@pytest.mark.parametrize("beside", [[], [signal("refund", "r", None, conversion_event_id="other")]])
def test_a_confirmation_that_came_first_ends_the_window_of_what_arrives(
    beside: list[dict[str, Any]], ground: Ground
) -> None:
    """Alone or in a message with signals of its own about others."""
    hold(ground, WON)
    ground.take(conversion("other"))
    ground.take(dispute("won"))
    ground.take(*beside, conversion("e"))
    assert ground.postback("e").release_at <= ground.postback("e").now


def test_a_confirmation_is_new_to_every_conversion_that_arrives_after_it(ground: Ground) -> None:
    """Acted on for the first of an order, it holds for the second, a duplicate, as well."""
    hold(ground, WON, rules=ONE_A_CLICK)
    same: dict[str, Any] = {"click_ids": {"generic": "t"}, "order_id": "e"}
    ground.take(conversion("first", **same), dispute("won"))
    ground.take(conversion("second", **same))
    second = ground.postback("second")
    assert (second.state, second.release_at <= second.now) == ("duplicate", True)


@pytest.mark.parametrize("messages", [1, 2])
@pytest.mark.parametrize("turn", [1, -1])
def test_a_confirmation_ends_the_window_of_what_is_voided_as_well(
    messages: int, turn: int, ground: Ground
) -> None:
    """Should it be reinstated, its window is over: whether the two came in one message, and in which order."""
    hold(ground, WON | {"release_on": ["chargeback.won"]})
    ground.take(conversion("e"))
    earlier = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    events = [decision("declined", "d", occurred_at=earlier), dispute("won")][::turn]
    for message in [events] if messages == 1 else [[event] for event in events]:
        ground.take(*message)
    assert ground.postback("e").state == "voided"
    ground.take(decision("approved", "a"))
    postback = ground.postback("e")
    assert (postback.state, postback.release_at <= postback.now) == ("held", True)


def test_of_two_that_may_take_a_free_place_at_once_one_does(ground: Ground) -> None:
    """The first is voided, its duplicate was disputed: in one message that is won and a new conversion arrives."""
    hold(ground, REFUND, rules=ONE_A_CLICK)
    same: dict[str, Any] = {"click_ids": {"generic": "t"}}
    ground.take(conversion("first", order_id="o1", **same), conversion("second", order_id="o2", **same))
    ground.take(dispute("opened", order_id="o2"))
    ground.take(decision("declined", order_id="o1"))
    assert ground.states() == {"voided": 1, "duplicate": 1}
    ground.take(dispute("won", order_id="o2"), conversion("third", order_id="o3", **same))
    second, third = ground.postback("second"), ground.postback("third")
    assert (third.state, second.state, second.duplicate_of) == ("held", "duplicate", third.id)
