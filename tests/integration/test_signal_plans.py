"""The cost of a signal does not grow with what is held: every statement that it takes finds its rows by an index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from infra.sink import SinkThread
from infra.store import matching, rerouting
from infra.store.destinations import Destinations
from schemas.click import Click
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal, until
from workers.rescuing import rescue

NOWHERE = generic_url("http://127.0.0.1:9")
HELD = 30_000
LARGE = {"conversions", "postbacks", "signals", "dedupe_keys", "clicks"}
ADJUSTMENTS = {
    kind: {"url": "https://host.example/c?c={click_id}", "dedupe": "harmless", "basis": "a network of ours"}
    for kind in ("retraction", "restatement")
}


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Ground:
    """Tables that are much larger than what any message names."""
    ground = cleared(engine)
    policy = {"kind": "credit_check", "wait": "30d"}
    ground.apply(contract("d", NOWHERE, hold=policy, rules={"adjustments": ADJUSTMENTS, "sub_id": False}))
    ground.run(
        """
        WITH made AS (
            INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, value, net_value,
                currency, routed, event)
            SELECT 'old', 'old' || n, 'purchase', 'old' || n, '{}', now(), 49.90, 49.90, 'EUR', 1, '{}'
            FROM generate_series(1, :n) n RETURNING id),
        keys AS (INSERT INTO dedupe_keys SELECT decode(md5(id::text), 'hex'), id FROM made)
        INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at)
        SELECT id, (SELECT max(id) FROM destination_versions), 'held', now() + interval '9 days',
            now() + interval '9 days' FROM made""",
        n=HELD,
    )
    ground.run(
        """INSERT INTO signals (source, event_id, type, order_id, occurred_at, status, outcome, event)
        SELECT 'old', 'old' || n, 'refund', 'none' || n, now(), 'waiting', '', '{}' FROM generate_series(1, :n) n""",
        n=HELD,
    )
    ground.run(
        """INSERT INTO clicks (inbox_id, clicked_at, click_ids, order_id, lead_id, customer_id, device_id)
        SELECT n, now() - interval '1 day', '{"generic": "t"}', 'o' || n, 'l' || n, 'c' || n, 'd' || n
        FROM generate_series(1, :n) n""",
        n=HELD,
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return ground


@contextmanager
def plans(engine: Engine) -> Iterator[dict[str, Any]]:
    """The plan of every statement that runs meanwhile, by its text, as it is planned when it runs."""
    found: dict[str, Any] = {}

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        first = statement.split(None, 1)[0].upper()
        if first in {"SELECT", "WITH", "INSERT", "UPDATE"}:
            with cursor.connection.cursor() as beside:
                beside.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
                (plan,) = beside.fetchone()
            found[statement] = (plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", explain)


def scans(plan: dict[str, Any]) -> list[str]:
    """Large tables that a plan reads from end to end, by row or by a whole index."""
    found = [scan for child in plan.get("Plans", []) for scan in scans(child)]
    whole = plan["Node Type"] == "Seq Scan" or (
        plan["Node Type"].startswith("Index") and "Index Cond" not in plan
    )
    if whole and plan.get("Relation Name") in LARGE:
        found.append(f"{plan['Node Type']} on {plan['Relation Name']}")
    return found


def moves(ground: Ground, which: str) -> None:
    """Twenty conversions, then signals that make each kind of move of all of them."""
    orders = [f"{which}{n}" for n in range(20)]
    ground.take(*(conversion(order, click_ids={"generic": order}) for order in orders))
    ground.take(*(conversion(f"again-{order}", click_ids={"generic": order}) for order in orders))
    if which == "delivered":
        ground.run(
            """UPDATE postbacks SET state = 'delivered', due_at = NULL, settled_at = now()
            WHERE conversion_id IN (SELECT id FROM conversions WHERE order_id LIKE 'delivered%')"""
        )
    for kind, given in (
        ("refund", {"amount": "1.00", "currency": "EUR"}),
        ("chargeback", {"outcome": "opened"}),
        ("credit_check", {"outcome": "approved"}),
        ("chargeback", {"outcome": "won"}),
        ("cancel", {}),
    ):
        number = f"{kind}{given.get('outcome', '')}"
        ground.take(*(signal(kind, f"{number}-{order}", order, **given) for order in orders))


@pytest.mark.parametrize("which", ["held", "delivered"])
def test_no_statement_that_a_signal_takes_reads_a_large_table_whole(which: str, ground: Ground) -> None:
    """Voids, promotions, reinstatements, early releases, corrections: by index alone, whatever is held beside them."""
    with plans(ground.engine) as found:
        moves(ground, which)
    read = {statement: bad for statement, plan in found.items() if (bad := scans(plan))}
    assert read == {}
    said = " ".join(found)
    assert "SET status = r.status, outcome = r.outcome" in said
    assert ("duplicate_of = heir.duplicate_of" in said) == (which == "held")
    assert ("adjustments = p.adjustments + 1" in said) == (which == "delivered")


def test_no_statement_of_an_attempt_that_a_signal_meets_reads_a_large_table_whole(ground: Ground) -> None:
    """Claim, gate, settlement, correction and rescue, with a refund on the wire and one after it: by index alone."""
    with SinkThread() as sink, plans(ground.engine) as found:
        url = f"{sink.url}/generic/p?click_id={{click_id}}"
        ground.apply(contract("d", url, rules={"adjustments": ADJUSTMENTS}))
        orders = [f"fires{n}" for n in range(20)]
        ground.take(*(conversion(order) for order in orders))
        with ground.firing() as gun:
            sink.client.hold()
            gun.fire_due()
            until(lambda: len(sink.client.held()) == len(orders))
            ground.take(*(signal("refund", f"r-{order}", order) for order in orders))
            sink.client.release()
            gun.settle()
            gun.fire()
            rescue(ground.engine, gun.renderer)
    assert {statement: bad for statement, plan in found.items() if (bad := scans(plan))} == {}
    said = " ".join(found)
    assert all(part in said for part in ("FOR UPDATE SKIP LOCKED", "adjustments = p.adjustments + 1"))


def test_no_statement_that_matches_clicks_reads_a_large_table_whole(ground: Ground) -> None:
    """Conversions that find their click, and clicks that come after their conversion: by index alone, by every key."""
    with plans(ground.engine) as found:
        ground.take(
            *(
                conversion(f"finds{n}", click_ids={}, order_id=f"o{n}", lead_id=f"l{n}", customer_id=f"c{n}")
                for n in range(1, 21)
            )
        )
        ground.take(*(conversion(f"late{n}", click_ids={}, device_id=f"late{n}") for n in range(20)))
        clicked_at = datetime.now(UTC) - timedelta(hours=1)
        register = [
            (n, Click({"generic": f"late{n}"}, clicked_at, {"device_id": f"late{n}", "lead_id": "none"}))
            for n in range(20)
        ]
        with ground.engine.begin() as connection:
            matching.register(connection, register)
        assert rerouting.route_again(ground.engine, Destinations(ground.engine)).postbacks == 20
    assert {statement: bad for statement, plan in found.items() if (bad := scans(plan))} == {}
    assert ground.one("SELECT count(*) FROM matches") == 40
