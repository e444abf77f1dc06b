"""Paging a search: every row exactly once, in order, under every order and criterion, also while rows are added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.store.records import FoundPostback
from infra.store.searching import legs, paging, sources
from infra.store.searching.criteria import Criteria
from infra.store.searching.search import (
    Cursor,
    Sort,
    find_postbacks,
    search_all,
    search_page,
)
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.ground import Ground, cleared
from tests.integration.searchable import add, prepare

OLD, NEW = "2026-07-31T20:00Z", "2026-08-20T00:00Z"
A_DAY = {"since": datetime(2026, 7, 31, 21, tzinfo=UTC), "until": datetime(2026, 7, 31, 23, tzinfo=UTC)}

# What is asked, and the same in plain SQL over postbacks p, their conversions c and versions v.
CRITERIA: dict[str, tuple[Criteria, str]] = {
    "everything": (Criteria(), "true"),
    "a final state": (Criteria(states=(State.DEAD,)), "p.state = 'dead'"),
    "what is claimed": (Criteria(states=(State.LEASED, State.FIRING)), "p.state IN ('leased', 'firing')"),
    "states of all kinds": (
        Criteria(states=(State.HELD, State.FIRING, State.IN_DOUBT)),
        "p.state IN ('held', 'firing', 'in_doubt')",
    ),
    "a destination": (Criteria(destination="first"), "v.destination = 'first'"),
    "a rare destination": (Criteria(destination="seldom"), "v.destination = 'seldom'"),
    "a destination that is not": (Criteria(destination="nowhere"), "false"),
    "a network and a state": (
        Criteria(network="generic", states=(State.DELIVERED,)),
        "v.destination <> 'seldom' AND p.state = 'delivered'",
    ),
    "an order": (Criteria(order_id="ao7"), "c.order_id = 'ao7'"),
    "a click id": (Criteria(click_id="click-a9"), "c.event_id = 'a9'"),
    "an event": (Criteria(event_id="a19"), "c.event_id = 'a19'"),
    "a customer by name": (Criteria(named="customer3"), "c.customer_id = 'customer3'"),
    "an order of a state": (
        Criteria(order_id="ao7", states=(State.DELIVERED,)),
        "c.order_id = 'ao7' AND p.state = 'delivered'",
    ),
    "one postback": (Criteria(postback_id=17), "p.id = 17"),
    "a source": (Criteria(source="shop"), "c.source = 'shop'"),
    "a rare source": (Criteria(source="rare"), "c.source = 'rare'"),
    "a range of time": (
        Criteria(**A_DAY),
        "c.received_at >= '2026-07-31 21:00Z' AND c.received_at < '2026-07-31 23:00Z'",
    ),
    "the time before": (Criteria(until=A_DAY["until"]), "c.received_at < '2026-07-31 23:00Z'"),
    "a state in a range of time": (
        Criteria(states=(State.HELD,), **A_DAY),
        "p.state = 'held' AND c.received_at >= '2026-07-31 21:00Z' AND c.received_at < '2026-07-31 23:00Z'",
    ),
    "a status": (Criteria(status_codes=(500, 599)), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND a.status_code = 503)"),
    "a redirect": (Criteria(status_codes=(300, 399)), "EXISTS (SELECT FROM attempts a JOIN hops h ON h.attempt_id = a.id WHERE a.postback_id = p.id AND h.status_code = 302)"),
    "success": (Criteria(status_codes=(200, 200)), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND a.status_code = 200)"),
    "a verdict": (Criteria(verdict=VerdictKind.RETRY), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND a.verdict = 'retry')"),
    "a verdict in a range of time": (
        Criteria(verdict=VerdictKind.RETRY, **A_DAY),
        """EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND a.verdict = 'retry')
        AND c.received_at >= '2026-07-31 21:00Z' AND c.received_at < '2026-07-31 23:00Z'""",
    ),
    "a failure by its kind": (Criteria(error="timeout"), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND a.verdict = 'unknown')"),
    "a failure by its class": (Criteria(error="timeouterror"), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id AND a.verdict = 'unknown')"),
    "a failure that also had a status": (Criteria(error="timeout", status_codes=(503, 503)), "false"),
    "what is lost": (Criteria(lost=True), "p.lost_at IS NOT NULL"),
    "what is not lost": (Criteria(lost=False), "p.lost_at IS NULL"),
    "corrections": (Criteria(adjustments=True), "p.adjusts IS NOT NULL"),
    "a rare value": (Criteria(value=(Decimal(1000), None)), "c.value = 5000"),
    "a common value": (Criteria(value=(Decimal(10), Decimal(50))), "c.value BETWEEN 10 AND 50"),
    "above a value": (Criteria(above=Decimal(50), below=Decimal(60)), "c.value > 50 AND c.value < 60"),
    "words of an answer": (Criteria(text="ungültig"), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id) AND substr(c.event_id, 2)::int % 41 = 0"),
    "a click id in a request": (Criteria(text="click_id=click-a9"), "EXISTS (SELECT FROM attempts a WHERE a.postback_id = p.id) AND c.event_id ~ '^a9'"),
}  # fmt: skip
TRUE_ORDER = {
    Sort.NEWEST: "p.id DESC",
    Sort.OLDEST: "p.id ASC",
    Sort.DUE: "p.due_at IS NULL, p.due_at, CASE WHEN p.due_at IS NULL THEN -p.id ELSE p.id END",
    Sort.VALUE: "c.value IS NULL, c.value DESC, p.conversion_id DESC, p.id DESC",
}


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Ground:
    ground = cleared(engine)
    prepare(ground)
    add(ground, "a", 150, OLD)
    return ground


@pytest.fixture(params=["as they are", "tiny"])
def windows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of a few rows, for which these few are many."""
    if request.param == "tiny":
        monkeypatch.setattr(paging, "_FIRST_WINDOW", 5)
        monkeypatch.setattr(paging, "_FIRST_WINDOW_OF_TEXT", 5)
        monkeypatch.setattr(paging, "_LARGEST_WINDOW", 9)
        monkeypatch.setattr(legs, "_PROBED", 4)
        monkeypatch.setattr(legs, "_OF_A_BRANCH", 3)
        monkeypatch.setattr(legs, "FEW", 5)
        monkeypatch.setattr(sources, "FEW", 5)


def truth(ground: Ground, where: str, sort: Sort) -> list[int]:
    rows = ground.rows(
        f"""SELECT p.id FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
        JOIN destination_versions v ON v.id = p.version_id WHERE {where} ORDER BY {TRUE_ORDER[sort]}"""
    )
    return [row.id for row in rows]


def pages(engine: Engine, criteria: Criteria, sort: Sort, **how: Any) -> Iterator[list[FoundPostback]]:
    """Page after page, each place through its text, as a link has it."""
    after: Cursor | None = None
    while True:
        page = search_page(engine, criteria, sort=sort, after=after, **how)
        yield page.rows
        if page.next is None:
            assert page.complete
            return
        after = Cursor.decode(page.next.encode())


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("budget_s", [0.0, 5.0])
@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("what", CRITERIA)
def test_pages_list_every_row_once_and_in_order(
    what: str, sort: Sort, budget_s: float, ground: Ground
) -> None:
    """Whatever index serves, and however little time there is for a page."""
    criteria, where = CRITERIA[what]
    found = [
        row.postback_id
        for rows in pages(ground.engine, criteria, sort, limit=11, budget_s=budget_s)
        for row in rows
    ]
    expected = truth(ground, where, sort)
    if what == "a click id in a request" and sort in {Sort.NEWEST, Sort.OLDEST}:
        # What the words name comes before what only has them in it.
        first = truth(ground, f"({where}) AND c.event_id = 'a9'", sort)
        expected = first + [number for number in expected if number not in first]
    assert found == expected


def test_what_is_looked_for_is_there(ground: Ground) -> None:
    """Or else the tests above would compare nothing with nothing."""
    empty = {what for what, (_, where) in CRITERIA.items() if not truth(ground, where, Sort.NEWEST)}
    assert empty == {"a destination that is not", "a failure that also had a status"}


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize(
    "what",
    ["everything", "a final state", "a verdict", "a range of time", "the time before", "a common value"],
)
def test_rows_that_are_added_meanwhile_move_no_other(what: str, sort: Sort, database_copy: str) -> None:
    """Every row that was there at the first page is listed once, and in order."""
    from infra.db.engine import open_engine

    ground = Ground(open_engine(database_copy))
    try:
        criteria, where = CRITERIA[what]
        before = truth(ground, where, sort)
        found: list[int] = []
        for number, rows in enumerate(pages(ground.engine, criteria, sort, limit=11, budget_s=0.02)):
            found += [row.postback_id for row in rows]
            if number < 4:
                add(ground, f"{'bcde'[number]}", 30, NEW)
        assert [number for number in found if number in set(before)] == before
        assert len(found) == len(set(found))
    finally:
        ground.engine.dispose()


def test_a_page_that_ran_out_of_time_says_how_far_it_looked(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where to look further; one that found all it was asked for says nothing of the kind."""
    monkeypatch.setattr(paging, "_FIRST_WINDOW_OF_TEXT", 20)
    page = search_page(ground.engine, Criteria(text="no such words"), budget_s=0.0)
    assert (page.rows, page.complete) == ([], False)
    assert page.next is not None
    newest, oldest = ground.rows(
        "SELECT max(received_at) AS at FROM conversions UNION ALL SELECT min(received_at) FROM conversions"
    )
    assert page.looked_back_to is not None
    assert oldest.at < page.looked_back_to < newest.at
    full = search_page(ground.engine, Criteria(), limit=3)
    assert (len(full.rows), full.complete, full.looked_back_to) == (3, True, None)


def test_a_place_belongs_to_its_own_search(ground: Ground) -> None:
    """A cursor of another search or order would skip rows unseen; a since that moves with the clock is the same search."""
    criteria = Criteria(since=A_DAY["since"])
    after = search_page(ground.engine, criteria, limit=3).next
    assert after is not None
    later = replace(criteria, since=datetime(2026, 7, 31, 21, 1, tzinfo=UTC))
    assert search_page(ground.engine, later, after=after, limit=3).rows
    for other, sort in ((Criteria(source="shop"), Sort.NEWEST), (criteria, Sort.VALUE)):
        with pytest.raises(ValueError, match="belongs to another"):
            search_page(ground.engine, other, sort=sort, after=after)


@pytest.mark.parametrize(
    "text", ["", "x", "e30", "W10", "!!", "WzEsIm5ld2VzdCIsImEiLGZhbHNlLC0xLDAsbnVsbCxudWxsXQ", "é"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    """A link that was cut off, or made up."""
    with pytest.raises(ValueError, match="no place in a search"):
        Cursor.decode(text)


def test_find_counts_exactly_up_to_a_bound(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it the number is a lower bound, and says so."""
    from infra.store.searching import search

    whole = find_postbacks(ground.engine, Criteria(), 10)
    assert (len(whole.rows), whole.total, whole.beyond) == (
        10,
        ground.one("SELECT count(*) FROM postbacks"),
        False,
    )
    monkeypatch.setattr(search, "COUNTED", 100)
    cut = find_postbacks(ground.engine, Criteria(), 10)
    assert (cut.total, cut.beyond) == (100, True)


def test_everything_is_streamed(ground: Ground) -> None:
    """For a file: all of it, in the order asked for."""
    found = [row.postback_id for row in search_all(ground.engine, Criteria(states=(State.HELD,)), Sort.VALUE)]
    assert found == truth(ground, "p.state = 'held'", Sort.VALUE)
