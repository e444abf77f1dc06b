"""The one search box: what it finds, page by page, as a link that can be shared and as CSV."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from infra.filters import AskingError
from infra.store import destinations
from infra.store.records import FoundPostback
from infra.store.searching import listings
from infra.store.searching.listings import Sifted
from infra.store.searching.search import Criteria, Cursor, SearchPage, Sort, search_all, search_page
from investigations.console import asked, drawing
from investigations.console.downloads import csv_response
from investigations.console.errors import BadRequestError
from investigations.console.frame import Link, engine_of, long_engine_of, masking_of, render
from investigations.console.masking import Masking
from investigations.console.routing import page
from investigations.query import LONGEST_QUERY, Query, look_up, read_query, show_query
from investigations.terms import EXAMPLES, FIELDS, WRITERS
from investigations.words import clock
from schemas.ids import show
from schemas.lifecycle import State
from schemas.money import plain
from schemas.verdict import VerdictKind

REFINED_BY = ("state", "destination", "verdict", "status", "error", "since")
SORTS = {
    Sort.NEWEST: "newest first",
    Sort.OLDEST: "oldest first",
    Sort.DUE: "due next first",
    Sort.VALUE: "highest value first",
}


def _page(request: Request) -> Response:
    text, sort = _text(request), _sort(request)
    try:
        query = read_query(text, datetime.now(UTC))
        if refined := _refined(request, query):
            return RedirectResponse(f"/search{drawing.query({'q': refined, 'sort': _named(sort)})}", 303)
    except AskingError as error:
        return _show(request, 400, text, sort, wrong=str(error))
    if (place := _place(request, query)) is not None:
        return RedirectResponse(place, 303)
    try:
        found = search_page(
            engine_of(request), query.search, sort=sort, after=_after(request), limit=asked.PAGE
        )
    except ValueError as error:
        raise BadRequestError(f"after: {error}") from None
    return _show(request, 200, text, sort, query=query, found=found)


def _show(  # noqa: PLR0913 — what the page is made of
    request: Request,
    status: int,
    text: str,
    sort: Sort,
    *,
    query: Query | None = None,
    found: SearchPage | None = None,
    wrong: str | None = None,
) -> Response:
    first = "after" not in request.query_params
    return render(
        request,
        "search.html",
        status,
        text=text,
        sort=sort,
        named_sort=_named(sort),
        sorts=SORTS,
        found=found,
        after=found.next.encode() if found is not None and found.next is not None else None,
        first=first,
        wrong=wrong,
        chips=[] if query is None else _chips(query),
        elsewhere=_elsewhere(request, query) if query is not None and first else [],
        states=[each.value for each in State],
        verdicts=[each.value for each in VerdictKind],
        destinations=destinations.names(engine_of(request)),
        examples=EXAMPLES,
    )


def _text(request: Request) -> str:
    text = request.query_params.get("q", "").strip()
    if len(text) > LONGEST_QUERY or "\0" in text:
        raise BadRequestError(f"q: at most {LONGEST_QUERY} characters, none of them NUL")
    return text


def _sort(request: Request) -> Sort:
    given = asked.field(request, "sort")
    try:
        return Sort(given) if given else Sort.NEWEST
    except ValueError:
        raise BadRequestError(f"sort: {given!r} is none; use one of {', '.join(Sort)}") from None


def _named(sort: Sort) -> str | None:
    """As a link says it; the usual one is left out."""
    return None if sort is Sort.NEWEST else sort.value


def _after(request: Request) -> Cursor | None:
    given = request.query_params.get("after", "")
    return Cursor.decode(given) if given else None


def _refined(request: Request, query: Query) -> str | None:
    """The search with what the form below the box adds to it or changes in it; None if it adds nothing."""
    if "refine" not in request.query_params:
        return None
    criteria = query.criteria
    for name in REFINED_BY:
        value = asked.field(request, name)
        if value is not None:
            criteria = dataclasses.replace(criteria, **FIELDS[name](value, datetime.now(UTC)))
    return show_query(criteria, query.names) or " "


def _place(request: Request, query: Query) -> str | None:
    """Where a bare word leads that means exactly one thing; with ``list`` it is searched for all the same."""
    if query.names is None or query.criteria.given() or "list" in request.query_params:
        return None
    named = look_up(engine_of(request), query)
    if named.ours is not None:
        identifier = show(*named.ours)
        if named.ours[0] in {"cv", "pb"} and not named.conversions:
            return None
        return drawing.id_path(identifier)
    return drawing.id_path(show("cv", named.conversions[0])) if len(named.conversions) == 1 else None


def _chips(query: Query) -> list[tuple[str, str]]:
    """Each term as it is read, and the search without it."""
    chips = []
    if query.names is not None:
        chips.append((query.names, show_query(query.criteria)))
    for name, write in WRITERS.items():
        if name in query.criteria.given():
            empty: dict[str, Any] = {name: Criteria.__dataclass_fields__[name].default}
            without = dataclasses.replace(query.criteria, **empty)
            chips.append((write(getattr(query.criteria, name)), show_query(without, query.names)))
    return chips


def _elsewhere(request: Request, query: Query) -> list[tuple[str, str]]:
    """What an id also names that is no postback: a search must not look empty when it is not."""
    word = query.names or query.criteria.event_id or query.criteria.order_id
    if word is None:
        return []
    engine, found = engine_of(request), []
    for label, path, look, fields in (
        ("signals", "/signals", listings.signals, ("order", "event")),
        ("rejects", "/rejects", listings.rejects, ("event",)),
        ("unrouted conversions", "/unrouted", listings.unrouted, ("order", "event")),
    ):
        for name in fields:
            sifted = Sifted(order_id=word) if name == "order" else Sifted(event_id=word)
            if look(engine, sifted, before=None, limit=1):
                found.append((f"{label} with this {name} id", f"{path}{drawing.query({name: word})}"))
    return found


def _csv(request: Request) -> Response:
    query, sort = read_query(_text(request), datetime.now(UTC)), _sort(request)
    masking = masking_of(request)

    def rows() -> Iterator[tuple[str, ...]]:
        for each in search_all(long_engine_of(request), query.search, sort):
            yield tuple(cell(each, masking) for cell in COLUMNS.values())

    return csv_response(request, "holdfire-postbacks", tuple(COLUMNS), rows())


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _instant(value: datetime | None) -> str:
    return "" if value is None else clock(value)


def _click_ids(each: FoundPostback, masking: Masking) -> str:
    return " ".join(f"{network}={masking.click_id(token)}" for network, token in each.click_ids.items())


COLUMNS: dict[str, Any] = {
    "postback": lambda each, _: show("pb", each.postback_id),
    "conversion": lambda each, _: show("cv", each.conversion_id),
    "state": lambda each, _: each.state.value,
    "destination": lambda each, _: each.destination,
    "network": lambda each, _: each.network,
    "source": lambda each, _: each.source,
    "event_id": lambda each, _: each.event_id,
    "name": lambda each, _: each.name,
    "order_id": lambda each, _: _plain(each.order_id),
    "value": lambda each, _: "" if each.value is None else plain(each.value),
    "net_value": lambda each, _: "" if each.net_value is None else plain(each.net_value),
    "currency": lambda each, _: _plain(each.currency),
    "click_ids": _click_ids,
    "occurred_at (UTC)": lambda each, _: _instant(each.occurred_at),
    "received_at (UTC)": lambda each, _: _instant(each.received_at),
    "release_at (UTC)": lambda each, _: _instant(each.release_at),
    "due_at (UTC)": lambda each, _: _instant(each.due_at),
    "attempts": lambda each, _: str(each.attempts_made),
    "status_code": lambda each, _: _plain(each.status_code),
    "verdict": lambda each, _: _plain(each.verdict),
    "reason": lambda each, masking: _plain(masking.text(each.reason, each.click_ids.values())),
    "adjustment": lambda each, _: _plain(each.adjustment),
    "adjusts": lambda each, _: "" if each.adjusts is None else show("pb", each.adjusts),
    "reported": lambda each, _: "" if each.reported is None else plain(each.reported),
    "lost": lambda each, _: "" if each.lost is None else plain(each.lost),
}
"""The CSV's columns: instants in UTC, money as it is, click ids as the account may see them."""

routes = [page("/search", _page), page("/search.csv", _csv)]
menu = [Link(20, "/search", "Search")]
