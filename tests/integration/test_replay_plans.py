"""A run's batch costs the same however much there is beside it: every statement that it takes finds its rows by an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from infra.store.by_hand import Signature
from infra.store.replays import replaying
from infra.store.replays.doubts import settle_by_hand
from infra.store.replays.replay_back import stop
from infra.store.replays.replay_look import Options
from infra.store.searching.search import Criteria
from infra.store.selection import Selection, extent, stretches
from schemas.lifecycle import State
from schemas.replaying import Said
from schemas.verdict import VerdictKind
from tests.integration.ground import Ground, cleared, contract, generic_url
from tests.integration.test_signal_plans import plans

THERE = 60_000
LARGE = {"conversions", "postbacks", "dedupe_keys", "replays", "audit", "intents", "attempts"}
ANNA = Signature("anna", "the network is back")
DEAD = Selection(Criteria(states=(State.DEAD,)))


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Ground:
    """Of sixty thousand postbacks every tenth is dead and another a correction; another run has looked at all of them."""
    ground = cleared(engine)
    ground.apply(contract("d", generic_url("http://127.0.0.1:9"), rules={"sub_id": True}))
    ground.run(
        """
        WITH made AS (
            INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, value, net_value,
                currency, routed, event)
            SELECT 'shop', 'e' || n, 'purchase', 'o' || n, '{}', now(), 49.90, 49.90, 'EUR', 1, json_build_object(
                'version', 1, 'type', 'conversion', 'event_id', 'e' || n, 'source', 'shop', 'name', 'purchase',
                'occurred_at', now(), 'order_id', 'o' || n, 'value', '49.90', 'currency', 'EUR',
                'click_ids', json_build_object('generic', 't' || n))
            FROM generate_series(1, :n) n RETURNING id),
        keys AS (INSERT INTO dedupe_keys SELECT decode(md5(id::text), 'hex'), id FROM made)
        INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at, attempts, settled_at, adjusts,
            adjustment)
        SELECT id, (SELECT max(id) FROM destination_versions), CASE WHEN id % 10 = 0 THEN 'dead' ELSE 'held' END,
            now(), CASE WHEN id % 10 = 0 THEN NULL ELSE now() + interval '9 days' END,
            CASE WHEN id % 10 = 0 THEN 1 ELSE 0 END, CASE WHEN id % 10 = 0 THEN now() END,
            CASE WHEN id % 10 = 3 THEN id - 1 END, CASE WHEN id % 10 = 3 THEN 'retraction' END FROM made""",
        n=THERE,
    )
    ground.run("""
        INSERT INTO attempts (id, postback_id, version_id, number, status_code, intent_at, ended_at, trigger, worker,
            worker_version, verdict, rule, state, error_class)
        SELECT id, id, version_id, 1, CASE WHEN id % 20 = 0 THEN 503 END, now(), now(), 'release', 'w:1', '1',
            CASE WHEN id % 20 = 0 THEN 'retry' ELSE 'unknown' END,
            CASE WHEN id % 20 = 0 THEN 'status 503' ELSE 'timeout after the request was sent' END, 'dead',
            CASE WHEN id % 20 <> 0 THEN 'TimeoutError' END
        FROM postbacks WHERE state = 'dead'""")
    ground.run(
        """
        INSERT INTO replay_runs (who, reason, selection, forced, with_current_version, per_second, matching, last_id)
        VALUES ('bob', 'before', '{"criteria": {}}', false, false, 10, 0, 0)"""
    )
    ground.run(
        """INSERT INTO replays (run_id, postback_id, from_state, refused)
        SELECT 1, n, 'held', 'it waits' FROM generate_series(1, :n) n""",
        n=THERE,
    )
    ground.run(
        """INSERT INTO audit (who, action, detail, postback_id)
        SELECT 'bob', 'postback.void', '{}', n FROM generate_series(1, :n) n""",
        n=THERE,
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return ground


def whole(plan: dict[str, Any]) -> list[str]:
    """Large tables that a plan reads from end to end, by row or by a whole index."""
    node = plan["Node Type"]
    if node == "Limit" and plan["Plan Rows"] == 1:  # the newest there is, off the index's end
        return []
    found = [scan for child in plan.get("Plans", []) for scan in whole(child)]
    end_to_end = node == "Seq Scan" or (node.startswith("Index") and "Index Cond" not in plan)
    if end_to_end and plan.get("Relation Name") in LARGE:
        found.append(f"{node} on {plan['Relation Name']}")
    return found


def scanned(found: dict[str, Any]) -> list[tuple[str, str]]:
    assert len(found) > 3
    return [
        (table, " ".join(statement.split())[:300])
        for statement, plan in found.items()
        for table in whole(plan)
    ]


def test_a_batch_finds_its_rows_by_an_index(ground: Ground, engine: Engine) -> None:
    """Moved and put back, with their keys, their audit and what an earlier run brought them to."""
    number = replaying.begin(engine, DEAD, Options(), ANNA)
    with plans(engine) as found:
        replaying.advance(engine, number, batch=100)
        record = replaying.advance(engine, number, batch=100)
    assert record.moved == 200
    assert scanned(found) == []
    with plans(engine) as found:
        assert stop(engine, number, ANNA) == 200
    assert scanned(found) == []


def test_one_postback_is_found_by_an_index(ground: Ground, engine: Engine) -> None:
    """The dry run of one, of an order and of a conversion, and one settled by hand."""
    ground.run("UPDATE postbacks SET state = 'in_doubt' WHERE id = 59990")
    with plans(engine) as found:
        for selection in (
            Selection(Criteria(postback_id=10)),
            Selection(Criteria(conversion_id=10)),
            Selection(Criteria(order_id="o10")),
        ):
            assert replaying.plan(engine, selection).matching == 1
        settle_by_hand(engine, [59_990], Said.NOT_COUNTED, ANNA)
    assert scanned(found) == []


@pytest.fixture
def misled(engine: Engine) -> Iterator[None]:
    """A planner that takes reading all of a table for the cheapest way, as its estimates may make it do."""

    def mislead(connection: Any, *_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET random_page_cost = 100000")
        connection.commit()

    event.listen(engine, "checkout", mislead)
    yield
    event.remove(engine, "checkout", mislead)
    engine.dispose()


@pytest.mark.usefixtures("misled")
@pytest.mark.parametrize(
    "asked",
    [
        {"states": (State.DEAD,), "error": "timeout"},
        {"states": (State.DEAD,), "status_codes": (500, 599)},
        {"verdict": VerdictKind.UNKNOWN, "source": "shop"},
        {"destination": "d", "adjustments": False, "verdict": VerdictKind.RETRY},
    ],
    ids=" ".join,
)
def test_what_is_acted_on_is_come_by_through_indexes(
    ground: Ground, engine: Engine, asked: dict[str, Any]
) -> None:
    """Counted and walked by whichever index serves; a state and an attempt's filter together are no reason to read all."""
    selection = Selection(Criteria(**asked))
    with plans(engine) as found:
        there = extent(engine, selection)
        looked = [number for ids in stretches(engine, selection, there.last, 700) for number in ids]
    assert there.count == len(looked) == THERE // 20
    assert looked == sorted(set(looked))
    assert scanned(found) == []
