"""Firing again what has ended, and settling what is in doubt: on the real store, through the real gate, at a sink that keeps
its own books."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from infra.store.by_hand import Signature
from infra.store.ledger import read_ledger
from infra.store.replays import replaying
from infra.store.replays.doubts import settle_by_hand
from infra.store.replays.replay_back import stop
from infra.store.replays.replay_look import Options
from infra.store.replays.replay_records import RunRecord
from infra.store.searching.search import Criteria
from infra.store.selection import Selection
from schemas.lifecycle import State
from schemas.replaying import Said
from tests.integration.ground import TOKEN, Ground, cleared, contract, conversion, generic_url, signal, until
from workers.rescuing import rescue

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


def test_an_expired_one_is_fired_by_force_and_its_limit_passed_over(ground: Ground, sink: SinkThread) -> None:
    """The gate does not expire it again, and the evidence keeps what was overruled."""
    limit = {"wait": "30m", "measured_from": "event"}
    ground.apply(contract("d", generic_url(sink.url), rules={"age_limit": limit}))
    ground.take(conversion("e1", occurred_at=(datetime.now(UTC) - timedelta(hours=1)).isoformat()))
    with ground.firing() as gun:
        gun.fire_until_final()
        assert ground.postback("e1").state == "expired"
        assert replay(ground).refused == 1
        assert replay(ground, force=True).moved == 1
        gun.fire_until_final()
    assert ground.postback("e1").state == "delivered"
    assert len(sink.client.credits()) == 1
    (signed,) = ground.rows("SELECT detail FROM audit WHERE action = 'postback.replay'")
    assert "age limit" in signed.detail["overruled"][0]
    balanced(ground)


def test_what_could_not_be_rendered_fires_under_the_mended_version(ground: Ground, sink: SinkThread) -> None:
    """Refused under the version that it was held under; under the current one it claims its place and fires."""
    url = generic_url(sink.url)
    ground.apply(contract("d", f"{url}&goal={{params.goal}}"))
    ground.take(conversion("e1"))
    assert ground.postback("e1").state == "rejected"
    refused = replay(ground)
    assert refused.progress is not None
    assert "replay with --with-current-version" in refused.progress.refusals[0].why
    ground.apply(contract("d", url))
    assert replay(ground, with_current_version=True).moved == 1
    ground.take(conversion("e2", click_ids={"generic": f"{TOKEN}e1"}, order_id="e1"))
    assert ground.postback("e2").state == "duplicate"
    with ground.firing() as gun:
        gun.fire_until_final()
    row = ground.postback("e1")
    assert (row.state, row.version_number, row.attempts) == ("delivered", 2, 1)
    assert ground.attempts("e1")[0].trigger == "replay"
    assert len(sink.client.credits()) == 1
    balanced(ground)


def test_of_two_that_could_not_be_rendered_with_one_click_only_one_fires(
    ground: Ground, sink: SinkThread
) -> None:
    """Neither had claimed the place that both would fire in."""
    url = generic_url(sink.url)
    ground.apply(contract("d", f"{url}&goal={{params.goal}}"))
    ground.take(*(conversion(f"e{n}", click_ids={"generic": TOKEN}, order_id="same") for n in range(2)))
    assert ground.states() == {"rejected": 2}
    ground.apply(contract("d", url))
    run = replay(ground, with_current_version=True, force=True)
    assert (run.moved, run.refused) == (1, 1)
    with ground.firing() as gun:
        gun.fire_until_final()
    assert len(sink.client.credits()) == 1
    balanced(ground)


def test_a_correction_that_failed_is_fired_again_once(ground: Ground, sink: SinkThread) -> None:
    """While it is under way nothing is lost; delivered, the network knows; fired again then, it is refused."""
    taken = {
        "retraction": {
            "url": f"{sink.url}/generic/retraction?click_id={{click_id}}",
            "dedupe": "harmless",
            "basis": "x",
        }
    }
    ground.apply(contract("d", generic_url(sink.url), rules={"adjustments": taken}, retry=ONCE))
    ground.take(conversion("e1"))
    with ground.firing() as gun:
        gun.fire_until_final()
        sink.client.plan([{"behave": "status:503", "match": {"path": "/generic/retraction"}}])
        ground.take(signal("refund", "r1", "e1"))
        gun.fire_until_final()
        assert ground.states() == {"delivered": 1, "dead": 1}
        assert ground.one("SELECT lost FROM postbacks WHERE adjusts IS NULL") == Decimal("49.90")
        sink.client.plan([])
        run = replay(ground, of(State.DEAD))
        assert run.moved == 1
        assert ground.one("SELECT lost_at FROM postbacks WHERE adjusts IS NULL") is None
        gun.fire_until_final()
    original = ground.rows("SELECT * FROM postbacks WHERE adjusts IS NULL")[0]
    assert original.retracted_at is not None
    assert original.lost_at is None
    refused = replay(ground, force=True)
    assert refused.moved == 0
    assert sink.client.totals("generic") == {f"{TOKEN}e1": None}
    balanced(ground)


def test_a_network_that_forgets_repeats_is_not_fired_at_again_unforced(
    ground: Ground, sink: SinkThread
) -> None:
    """It refuses a repeat for a while. After that an attempt without an answer may have been counted, and count again."""
    ground.apply(contract("d", generic_url(sink.url), dedupe="rejected", retry=ONCE))
    sink.client.plan([{"behave": "reset-counted", "times": 1}])
    ground.take(conversion("e1"))
    with ground.firing() as gun:
        gun.fire_until_final()
    assert ground.postback("e1").state == "dead"
    assert replaying.plan(ground.engine, EVERYTHING).moved == 1
    ground.run(
        """UPDATE destination_versions SET contract = jsonb_set(contract, '{network,dedupe_window}', '"24h"')"""
    )
    assert replaying.plan(ground.engine, EVERYTHING).moved == 1
    ground.run("UPDATE postbacks SET first_attempt_at = first_attempt_at - interval '25 hours'")
    plan = replaying.plan(ground.engine, EVERYTHING)
    assert (plan.moved, plan.refused) == (0, 1)
    assert "may have been counted" in plan.refusals[0].why


def test_two_runs_over_the_same_postbacks_fire_each_once(ground: Ground, sink: SinkThread) -> None:
    """Begun together and advanced by four threads at once, in batches that interleave; the sink counts each one once."""
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE, breaker=False))
    sink.client.plan([{"behave": "status:503", "times": 1}])
    ground.take(*(conversion(f"e{n}") for n in range(120)))
    with ground.firing() as gun:
        gun.fire_until_final(60)
        assert ground.states() == {"dead": 120}
        options = Options(per_second=FAST)
        numbers = [replaying.begin(ground.engine, EVERYTHING, options, ANNA) for _ in range(2)]

        def go_on(number: int, batch: int) -> None:
            while replaying.advance(ground.engine, number, batch=batch).ended_at is None:
                pass

        replaying.advance(
            ground.engine, numbers[0], batch=20
        )  # a start that the other one has to make up for
        with ThreadPoolExecutor(4) as threads:
            for done in [threads.submit(go_on, numbers[n % 2], (3, 50)[n % 2]) for n in range(4)]:
                done.result(60)
        records = [replaying.run(ground.engine, number) for number in numbers]
        assert [record.moved + record.refused for record in records] == [120, 120]
        assert sum(record.moved for record in records) == 120
        # A race that only one ever wins is none.
        assert all(record.moved for record in records), records
        gun.fire_until_final(60)
    assert ground.one("SELECT count(*) FROM attempts WHERE trigger = 'replay'") == 120
    assert len(sink.client.credits()) == 120
    balanced(ground)


def test_refunds_race_a_run_and_nothing_taken_back_is_counted(ground: Ground, sink: SinkThread) -> None:
    """Of a refund and a replay one goes first: no order is credited whose refund was committed before it fired."""
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE, breaker=False))
    sink.client.plan([{"behave": "status:503", "times": 1}])
    orders = [f"e{n}" for n in range(150)]
    ground.take(*map(conversion, orders))
    with ground.firing() as gun:
        gun.fire_until_final()
        number = replaying.begin(ground.engine, EVERYTHING, Options(per_second=500), ANNA)

        def go_on() -> None:
            while replaying.advance(ground.engine, number, batch=10).ended_at is None:
                gun.fire_due(20)

        def refund() -> None:
            for order in orders[::2]:
                ground.take(signal("refund", f"r{order}", order))

        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(go_on), threads.submit(refund)]:
                done.result(60)
        gun.fire_until_final(60)
    rows = ground.rows(
        """SELECT c.event_id, p.state, p.lost, p.void_reason, EXISTS (
            SELECT FROM attempts a WHERE a.postback_id = p.id AND a.trigger = 'replay') AS fired
        FROM postbacks p JOIN conversions c ON c.id = p.conversion_id"""
    )
    credited = {each["click_id"].removeprefix(TOKEN) for each in sink.client.credits()}
    for row in rows:
        delivered = row.state == "delivered"
        assert (row.event_id in credited) == delivered
        if row.event_id in orders[::2]:
            # Fired before its refund, it is a loss on record: the network takes no corrections.
            assert delivered == (row.lost is not None)
            assert delivered or row.state in {"voided", "dead"}
        else:
            assert delivered
    balanced(ground)


def test_a_run_outlives_whoever_drives_it(ground: Ground, sink: SinkThread, database_url: str) -> None:
    """Killed between two batches, it goes on from there; nobody is fired twice and nobody is left out."""
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE, breaker=False))
    sink.client.plan([{"behave": "status:503", "times": 1}])
    ground.take(*(conversion(f"e{n}") for n in range(60)))
    with ground.firing() as gun:
        gun.fire_until_final()
        number = replaying.begin(ground.engine, EVERYTHING, Options(per_second=FAST), ANNA)
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, database_url, str(number)], stdout=subprocess.PIPE, text=True
        )
        assert driver.stdout is not None
        for _ in range(3):
            driver.stdout.readline()
        driver.kill()
        driver.wait(10)
        half = replaying.run(ground.engine, number)
        assert 0 < half.moved < 60
        assert half.status == "begun"
        while replaying.advance(ground.engine, number).ended_at is None:
            pass
        assert replaying.run(ground.engine, number).moved == 60
        gun.fire_until_final(60)
    assert len(sink.client.credits()) == 60
    balanced(ground)


DRIVER = """
import sys
from infra.db.engine import open_engine
from infra.store.replays import replaying
engine = open_engine(sys.argv[1])
while replaying.advance(engine, int(sys.argv[2]), batch=2).ended_at is None:
    print("batch", flush=True)
"""


def test_a_worker_that_dies_in_a_run_leaves_it_to_the_networks_rule(ground: Ground, sink: SinkThread) -> None:
    """The replay's intent was recorded and its outcome never: in doubt, where the network counts a second one twice."""
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE, breaker=False))
    sink.client.plan([{"behave": "status:503", "times": 1}])
    ground.take(conversion("e1"))
    with ground.firing(lease_s=0.5) as gun:
        gun.fire_until_final()
        replay(ground)
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        # Its worker is as good as dead: nobody renews the lease, and another one rescues.
        ground.run("UPDATE postbacks SET due_at = now() - interval '1 second'")
        assert rescue(ground.engine, gun.renderer) == 1
        sink.client.release()
        gun.settle()
    row = ground.postback("e1")
    assert (row.state, row.attempts) == ("in_doubt", 2)
    last = ground.attempts("e1")[-1]
    assert (last.trigger, last.verdict) == ("replay", "unknown")
    balanced(ground)
