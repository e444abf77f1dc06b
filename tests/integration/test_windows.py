"""Windows in the ledger: each event is held by the policy that takes it, and released at its schedule's tick."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from infra.store import releasing
from infra.store.evidence import read_life
from investigations.next_step import next_step
from investigations.trail_page import life_page
from schemas.calendars import next_tick
from tests.integration.ground import Ground, cleared, contract, conversion, signal

BERLIN = "Europe/Berlin"
RULES = [
    {"events": ["lead"], "hold": {"kind": "none", "schedule": "0 6 * * *", "timezone": BERLIN}},
    {
        "min_value": "500",
        "currency": "EUR",
        "hold": {"kind": "refund", "wait": "10bd", "calendar": "DE", "timezone": BERLIN},
    },
]


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


def test_each_event_is_held_by_the_first_rule_that_takes_it(ground: Ground) -> None:
    """A lead goes with the next tick, a large order waits ten business days, any other the destination's own window."""
    ground.apply(
        contract(
            "d",
            "https://host.example/p?click_id={click_id}",
            events=["lead", "purchase"],
            hold={"kind": "refund", "wait": "14d"},
            holds=RULES,
        )
    )
    friday = "2026-11-20T15:00:00+01:00"
    ground.take(
        conversion("lead", name="lead"),
        conversion("large", value="500.00", occurred_at=friday),
        conversion("small", value="499.99", occurred_at=friday),
    )
    lead = ground.postback("lead")
    assert lead.release_at == next_tick(lead.now, "0 6 * * *", BERLIN)
    assert ground.postback("large").release_at == datetime(2026, 12, 4, 14, tzinfo=UTC)
    assert ground.postback("small").release_at == datetime.fromisoformat(friday) + timedelta(days=14)


def test_the_trail_says_which_window_holds_it(ground: Ground) -> None:
    """An investigator reads the rule that took the event, not the destination's own."""
    ground.apply(contract("d", "https://host.example/p?click_id={click_id}", holds=RULES))
    ground.take(conversion("large", value="900.00"))
    life = read_life(ground.engine, ground.postback("large").conversion_id)
    assert life is not None
    page = "\n".join(line.plain for line in life_page(life))
    assert "refund, 10bd (DE) from the event; ends " in page


MANUAL = {"kind": "refund", "wait": "30s", "release": "manual"}


def due(ground: Ground) -> list[int]:
    """Postbacks that a clock would claim now."""
    return [
        number
        for lease in releasing.claim(ground.engine, limit=100, lease_s=9, per_lease=50)
        for number in lease.postback_ids
    ]


def test_a_release_by_hand_waits_for_the_hand_and_happens_once(ground: Ground) -> None:
    """The clock leaves it alone; letting go takes what has ended, of the destination named, and nothing twice."""
    url = "https://host.example/p?click_id={click_id}"
    ground.apply(contract("a", url, hold=MANUAL), contract("b", url, hold=MANUAL))
    ground.take(conversion("over"), conversion("open", occurred_at=datetime.now(UTC).isoformat()))
    assert due(ground) == []
    assert releasing.waiting_for_release(ground.engine) == 2
    assert releasing.let_go(ground.engine, "a") == 1
    assert releasing.let_go(ground.engine, "a") == 0
    assert due(ground) == [ground.postback("over", "a").id]
    assert releasing.waiting_for_release(ground.engine, "a") == 0
    assert releasing.waiting_for_release(ground.engine, "b") == 1


def test_letting_go_side_by_side_lets_each_go_once(ground: Ground) -> None:
    """Four hands at once share the work; none gets in another's way."""
    ground.apply(contract("d", "https://host.example/p?click_id={click_id}", hold=MANUAL))
    ground.take(*(conversion(f"e:{number}") for number in range(400)))
    with ThreadPoolExecutor(4) as hands:
        let_go = list(hands.map(lambda _: releasing.let_go(ground.engine, limit=100), range(8)))
    assert sum(let_go) == 400
    assert len(due(ground)) == 100


def test_a_refund_voids_what_waits_for_the_hand(ground: Ground) -> None:
    """A window that has ended is no reason to pay for what was sent back before anybody let it go."""
    ground.apply(contract("d", "https://host.example/p?click_id={click_id}", hold=MANUAL))
    ground.take(conversion("e"))
    ground.take(signal("refund", "r", "e"))
    assert ground.postback("e").state == "voided"
    assert releasing.let_go(ground.engine) == 0


def test_the_trail_tells_that_a_hand_is_waited_for(ground: Ground) -> None:
    ground.apply(contract("d", "https://host.example/p?click_id={click_id}", hold=MANUAL))
    ground.take(conversion("e"))
    life = read_life(ground.engine, ground.postback("e").conversion_id)
    assert life is not None
    assert "waits for `holdfire release --due`: its window ended" in next_step(life, life.postbacks[0])
    assert next_step(replace(life, now=life.now - timedelta(hours=1)), life.postbacks[0]).startswith(
        "its window ends at "
    )
