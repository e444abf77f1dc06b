"""Firing again what has ended, and settling what is in doubt: on the real store, through the real gate, at a sink that keeps
its own books."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from infra.store import replaying
from infra.store.by_hand import Selection, Signature
from infra.store.doubts import settle_by_hand
from infra.store.ledger import read_ledger
from infra.store.replay_back import stop
from infra.store.replay_look import Options
from infra.store.replay_records import RunRecord
from infra.store.search import Criteria
from schemas.lifecycle import State
from schemas.replaying import Said
from tests.integration.ground import TOKEN, Ground, cleared, contract, conversion, generic_url, signal

ANNA = Signature("anna", "the network was down")
EVERYTHING = Selection(Criteria())
FAST = 1000.0
ONCE = {"attempts": 1, "base": "100ms", "factor": 2.0, "cap": "1s", "horizon": "1m"}


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def replay(ground: Ground, selection: Selection = EVERYTHING, **how: Any) -> RunRecord:
    """Begin a run and let it look at everything."""
    options = Options(**{"per_second": FAST, **how})
    number = replaying.begin(ground.engine, selection, options, ANNA)
    while replaying.advance(ground.engine, number).ended_at is None:
        pass
    return replaying.run(ground.engine, number)


def balanced(ground: Ground) -> None:
    assert [entry.says for entry in read_ledger(ground.engine).entries if not entry.balances] == []


def of(*states: State) -> Selection:
    return Selection(Criteria(states=states))


def test_what_is_dead_fires_again_with_a_budget_of_its_own(ground: Ground, sink: SinkThread) -> None:
    """The network is back: the next attempt is the fourth, by the replay, and the evidence says by whom."""
    ground.apply(contract("d", generic_url(sink.url)))
    sink.client.plan([{"behave": "status:503", "times": 3}])
    ground.take(conversion("e1"))
    with ground.firing() as gun:
        gun.fire_until_final()
        assert ground.postback("e1").state == "dead"
        run = replay(ground)
        assert (run.moved, run.refused) == (1, 0)
        gun.fire_until_final()
    row = ground.postback("e1")
    assert (row.state, row.attempts, row.budget_from) == ("delivered", 4, 3)
    last = ground.attempts("e1")[-1]
    assert (last.number, last.trigger) == (4, "replay")
    assert last.notes == ["fired again in rn_1 by anna: the network was down"]
    assert len(sink.client.credits()) == 1
    balanced(ground)


def test_a_forced_replay_of_what_was_delivered_leaves_it_delivered(ground: Ground, sink: SinkThread) -> None:
    """Refused without force. With it, the second attempt fails for good: what the first one told stands, and is corrected
    when a refund comes."""
    taken = {
        "retraction": {
            "url": f"{sink.url}/generic/retraction?click_id={{click_id}}",
            "dedupe": "harmless",
            "basis": "x",
        }
    }
    ground.apply(contract("d", generic_url(sink.url), rules={"adjustments": taken}))
    ground.take(conversion("e1"))
    with ground.firing() as gun:
        gun.fire_until_final()
        refused = replay(ground)
        assert (refused.moved, refused.refused) == (0, 1)
        sink.client.plan([{"behave": "status:404"}])
        assert replay(ground, force=True).moved == 1
        gun.fire_until_final()
        row = ground.postback("e1")
        assert (row.state, row.attempts, row.falls_back) == ("delivered", 2, None)
        assert row.reason == "delivered before; fired again, it came to rejected: status 404"
        balanced(ground)
        sink.client.plan([])
        ground.take(signal("refund", "r1", "e1"))
        gun.fire_until_final()
    assert ground.rows("SELECT state FROM postbacks WHERE adjusts IS NOT NULL")[0].state == "delivered"
    balanced(ground)


def test_a_refund_beats_a_forced_replay_that_waits(ground: Ground, sink: SinkThread) -> None:
    """It is delivered again at once, not voided, and the refund is told by a retraction."""
    taken = {
        "retraction": {
            "url": f"{sink.url}/generic/retraction?click_id={{click_id}}",
            "dedupe": "harmless",
            "basis": "x",
        }
    }
    ground.apply(contract("d", generic_url(sink.url), rules={"adjustments": taken}))
    ground.take(conversion("e1"))
    with ground.firing() as gun:
        gun.fire_until_final()
        replay(ground, force=True)
        ground.take(signal("refund", "r1", "e1"))
        row = ground.rows("SELECT * FROM postbacks WHERE adjusts IS NULL")[0]
        assert (row.state, row.falls_back) == ("delivered", None)
        assert "stopped the replay of pb_1" in ground.signal("r1").outcome
        gun.fire_until_final()
    assert len(sink.client.credits()) == 1
    assert ground.states() == {"delivered": 2}
    balanced(ground)


def test_what_was_settled_as_delivered_by_hand_is_corrected_by_a_refund(
    ground: Ground, sink: SinkThread
) -> None:
    """The refund came while it was in doubt; once a person says that the network has it, the network is told."""
    taken = {
        "retraction": {
            "url": f"{sink.url}/generic/retraction?click_id={{click_id}}",
            "dedupe": "harmless",
            "basis": "x",
        }
    }
    ground.apply(contract("d", generic_url(sink.url), rules={"adjustments": taken}))
    sink.client.plan([{"behave": "reset-counted", "times": 1}])
    ground.take(conversion("e1"))
    with ground.firing() as gun:
        gun.fire_until_final()
        assert ground.postback("e1").state == "in_doubt"
        ground.take(signal("refund", "r1", "e1"))
        (answer,) = settle_by_hand(ground.engine, [1], Said.DELIVERED, ANNA)
        assert answer.follow_up is not None
        assert answer.follow_up.told
        gun.fire_until_final()
    assert ground.states() == {"delivered": 2}
    balanced(ground)


def test_what_the_network_says_it_has_not_counted_gives_its_place_away(
    ground: Ground, sink: SinkThread
) -> None:
    """Its duplicate fires instead, and it is refused a replay then."""
    ground.apply(contract("d", generic_url(sink.url), rules={"sub_id": False}))
    sink.client.plan([{"behave": "reset", "times": 1}])
    ground.take(conversion("e1", click_ids={"generic": TOKEN}))
    with ground.firing() as gun:
        gun.fire_until_final()
        ground.take(conversion("e2", click_ids={"generic": TOKEN}, order_id="e1"))
        assert ground.postback("e2").state == "duplicate"
        settle_by_hand(ground.engine, [1], Said.NOT_COUNTED, ANNA)
        assert (ground.postback("e1").state, ground.postback("e2").state) == ("dead", "held")
        refused = replay(ground, of(State.DEAD), force=True)
        assert "waits or fires in its place" in refused.progress.refusals[0].why  # type: ignore[union-attr]
        gun.fire_until_final()
    assert len(sink.client.credits()) == 1
    balanced(ground)


def test_a_stopped_run_puts_back_what_has_not_fired(ground: Ground, sink: SinkThread) -> None:
    """Reason, instants and budget are what they were; what had fired stays fired."""
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE))
    sink.client.plan([{"behave": "status:503", "times": 1}])
    ground.take(*(conversion(f"e{n}") for n in range(3)))
    with ground.firing() as gun:
        gun.fire_until_final()
        before = [dict(ground.postback(f"e{n}")._mapping) for n in range(3)]
        run = replay(ground, per_second=0.01)
        gun.fire_due()
        gun.settle()
        assert stop(ground.engine, run.id, ANNA) == 2
    for n in (1, 2):
        after = dict(ground.postback(f"e{n}")._mapping)
        assert {k: v for k, v in after.items() if k != "now"} == {
            k: v for k, v in before[n].items() if k != "now"
        }
    assert ground.states() == {"delivered": 1, "dead": 2}
    record = replaying.run(ground.engine, run.id)
    assert (record.status, record.progress.put_back, record.progress.delivered) == ("stopped", 2, 1)  # type: ignore[union-attr]
    balanced(ground)
