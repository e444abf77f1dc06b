"""No search reads the log, or any other large table, from end to end: the plan of every statement of every search."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text

from infra.store.evidence import read_life
from infra.store.overview import read_overview
from infra.store.searching import search
from infra.store.searching.criteria import KNOWN, Criteria
from infra.store.searching.search import Sort, find_postbacks, search_page
from infra.store.tallying import count_states, tally
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.benchmarks import history
from tests.integration.ground import Ground, cleared
from tests.integration.test_signal_plans import plans

LARGE_BYTES = 100_000
"""Of a smaller table, or of a month without rows, reading all is no more than looking up."""
MANY = 20_000
SEARCHES = {
    "everything": Criteria(),
    "order": Criteria(order_id="1007001"),
    "click id": Criteria(click_id="none"),
    "event": Criteria(event_id="shop:order:1007001"),
    "any name": Criteria(named="customer-700"),
    "conversion": Criteria(conversion_id=700),
    "postback": Criteria(postback_id=700),
    "state": Criteria(states=(State.DEAD, State.IN_DOUBT)),
    "claimed": Criteria(states=(State.LEASED, State.FIRING)),
    "delivered": Criteria(states=(State.DELIVERED,)),
    "destination": Criteria(destination="eta-seldom"),
    "destination and state": Criteria(destination="alpha-eu", states=(State.REJECTED,)),
    "network": Criteria(network="generic"),
    "source": Criteria(source="pos"),
    "since": Criteria(since=datetime(2020, 1, 1, tzinfo=UTC)),
    "status": Criteria(status_codes=(500, 599)),
    "redirect": Criteria(status_codes=(302, 302)),
    "success": Criteria(status_codes=(200, 299)),
    "verdict": Criteria(verdict=VerdictKind.REJECTED),
    "delivered verdict": Criteria(verdict=VerdictKind.DELIVERED),
    "error": Criteria(error="timeout"),
    "value": Criteria(value=(Decimal(500), None)),
    "above": Criteria(above=Decimal(100), below=Decimal(101)),
    "text": Criteria(text="campaign is closed"),
    "text and state": Criteria(text="ticket", states=(State.DEAD,)),
    "lost": Criteria(lost=True),
    "not lost": Criteria(lost=False, states=(State.DELIVERED,)),
    "corrections": Criteria(adjustments=True),
    "matched": Criteria(matched=True),
    "unmatched": Criteria(matched=False, states=(State.DELIVERED,)),
}


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Ground:
    """Tables as the benchmark fills them, in little: partitions, states and shares."""
    ground = cleared(engine)
    history.load(engine, history.Size(MANY), lambda _: None)
    middle = ground.one("SELECT max(received_at) - interval '90 days' FROM conversions")
    SEARCHES["range"] = Criteria(since=middle, until=middle.replace(hour=23, minute=59))
    SEARCHES["status in a range"] = Criteria(
        status_codes=(500, 599), since=middle, until=middle.replace(hour=23, minute=59)
    )
    return ground


def _whole(plan: dict[str, Any], large: set[str], *, bounded: bool = False) -> list[str]:
    """Large tables of which a plan reads every row, or a whole index without a condition or an end to it."""
    bounded = bounded or plan["Node Type"] == "Limit"
    found = [scan for child in plan.get("Plans", []) for scan in _whole(child, large, bounded=bounded)]
    if plan.get("Relation Name") not in large:
        return found
    if plan["Node Type"] == "Seq Scan" or (
        "Index" in plan["Node Type"] and "Index Cond" not in plan and not bounded
    ):
        found.append(f"{plan['Node Type']} on {plan['Relation Name']}")
    return found


def unbounded(engine: Engine, what: Any) -> dict[str, list[str]]:
    """Statements of ``what`` that read a large table whole; there are some statements at all."""
    with engine.connect() as connection:
        query = text("SELECT relname FROM pg_class WHERE relkind = 'r' AND pg_relation_size(oid) > :bytes")
        large = set(connection.execute(query, {"bytes": LARGE_BYTES}).scalars())
    assert {"conversions", "postbacks"} < large
    with plans(engine) as found:
        what()
    assert found
    return {statement: bad for statement, plan in found.items() if (bad := _whole(plan, large))}


def test_every_criterion_is_searched_for() -> None:
    """A new one must have its plan asserted, too."""
    asked = {name for criteria in SEARCHES.values() for name in criteria.given()}
    assert asked | {"since", "until"} == KNOWN | {"since", "until"}


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("what", [*SEARCHES, "range", "status in a range"])
def test_no_page_of_a_search_reads_a_large_table_whole(what: str, sort: Sort, ground: Ground) -> None:
    """The first page and the one after it, by every criterion and in every order."""

    def two_pages() -> None:
        page = search_page(ground.engine, SEARCHES[what], sort=sort, limit=10)
        if page.next is not None:
            search_page(ground.engine, SEARCHES[what], sort=sort, limit=10, after=page.next)

    assert unbounded(ground.engine, two_pages) == {}


def test_finding_and_counting_reads_no_large_table_whole(ground: Ground) -> None:
    """As ``holdfire find`` does, with its number of all that match."""
    assert (
        unbounded(ground.engine, lambda: find_postbacks(ground.engine, Criteria(states=(State.DEAD,)), 10))
        == {}
    )
    assert (
        unbounded(ground.engine, lambda: find_postbacks(ground.engine, Criteria(order_id="1007001"), 10))
        == {}
    )
    for named in (Criteria(order_id="1007001"), Criteria(named="lead-7005"), Criteria(click_id="x")):
        assert (
            unbounded(ground.engine, lambda named=named: search.conversions_matching(ground.engine, named))
            == {}
        )


def test_a_conversions_life_is_read_by_index(ground: Ground) -> None:
    """Its page does not get slower with the log."""
    assert unbounded(ground.engine, lambda: read_life(ground.engine, 7001)) == {}


def test_the_overview_counts_no_log(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the clock has counted."""
    from infra.store import overview

    monkeypatch.setattr(overview, "COUNTED_LIVE", 10)
    count_states(ground.engine, every_s=0)
    while tally(ground.engine).ids or not ground.one("SELECT attempt_id FROM tallied"):
        pass
    assert unbounded(ground.engine, lambda: read_overview(ground.engine)) == {}


def test_the_fire_gate_stays_a_cheap_update(ground: Ground) -> None:
    """From lease to attempt no indexed column changes: the new version of a row stays on its page, and in no index."""
    with ground.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (FULL, ANALYZE) postbacks"))

        def updates() -> tuple[int, int]:
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            row = connection.execute(
                text(
                    "SELECT n_tup_upd AS made, n_tup_hot_upd AS hot FROM pg_stat_user_tables WHERE relname = 'postbacks'"
                )
            ).one()
            return row.made, row.hot

        some = "id % 8 = 0 AND id IN (SELECT id FROM postbacks WHERE state = '{}' ORDER BY id LIMIT 400)"
        connection.execute(
            text(
                f"UPDATE postbacks SET state = 'leased', lease_token = 1, due_at = now() + interval '15 s' WHERE {some.format('held')}"
            )
        )
        made, hot = updates()
        connection.execute(
            text(
                f"UPDATE postbacks SET state = 'firing', attempts = 1, attempt_id = 1, first_attempt_at = now() WHERE {some.format('leased')}"
            )
        )
        after, hot_after = updates()
    assert after - made >= 40
    assert hot_after - hot == after - made
