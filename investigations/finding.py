"""``holdfire find``: postbacks by what is known of them, and listings of what became no postback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from infra.filters import AsJson, AskingError, Filters, with_filters
from infra.open import open_store
from infra.store.firing import database_now
from infra.store.searching import search
from infra.store.searching.search import Criteria, Found, SearchPage
from investigations.archives import in_archives
from investigations.asking import check_applicable
from investigations.columns import (
    Columns,
    postback_columns,
    reject_columns,
    show_columns,
    signal_columns,
    unrouted_columns,
)
from investigations.jsonable import conversion_json, found_json, reject_json, signal_json
from investigations.page import print_json, say, stdout
from investigations.words import clock


class Listing(StrEnum):
    """What ``find`` lists."""

    POSTBACKS = "postbacks"
    UNROUTED = "unrouted"
    SIGNALS = "signals"
    REJECTS = "rejects"


@with_filters
def find(  # noqa: PLR0913 — a command's options are its parameters
    *,
    filters: Filters,
    unrouted: Annotated[
        bool, typer.Option("--unrouted", help="List conversions no destination took.")
    ] = False,
    signals: Annotated[
        bool, typer.Option("--signals", help="List refunds, cancels and other signals.")
    ] = False,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="List what could not be taken, and duplicates.")
    ] = False,
    archived: Annotated[
        bool, typer.Option("--archived", help="Look for attempts in archives too: each file is read through.")
    ] = False,
    limit: Annotated[
        int, typer.Option(help="At most so many, newest first; it is said how many more.", min=1)
    ] = 50,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find postbacks.

    By state, destination, order, click id, time, status or verdict; also what is no postback, with the reasons.
    """
    listing = _listing(unrouted=unrouted, signals=signals, rejects=rejects)
    with open_store() as engine:
        criteria = filters.criteria(database_now(engine))
        look, known, columns, values = _LISTINGS[listing]
        check_applicable(criteria, known, "postbacks" if listing is Listing.POSTBACKS else f"--{listing}")
        most = None if everything else limit
        if listing is Listing.POSTBACKS:
            found: Found[Any] = search.find_postbacks(engine, criteria, most, _say_how_far)
            found = in_archives(engine, criteria, found, most, look_into_them=archived)
        else:
            found = look(engine, criteria, most)
        elsewhere = _elsewhere(engine, criteria) if listing is Listing.POSTBACKS else []
    if as_json:
        print_json(map(values, found.rows))
    elif found.rows and (left_out := show_columns(stdout(), columns(found.rows))):
        say(f"For want of room without: {', '.join(left_out)}; piped or with --json they are all there.")
    _say_how_many(found, listing)
    for words in elsewhere:
        say(words)


_Look = Callable[[Any, Criteria, int | None], Found[Any]]
_LISTINGS: dict[
    Listing, tuple[_Look, set[str], Callable[[Sequence[Any]], Columns], Callable[[Any], dict[str, Any]]]
] = {
    Listing.POSTBACKS: (
        search.find_postbacks,
        search.KNOWN,
        postback_columns,
        found_json,
    ),
    Listing.UNROUTED: (
        search.find_unrouted,
        set(search.CONVERSION_CRITERIA),
        unrouted_columns,
        conversion_json,
    ),
    Listing.SIGNALS: (search.find_signals, set(search.SIGNAL_CRITERIA), signal_columns, signal_json),
    Listing.REJECTS: (search.find_rejects, set(search.REJECT_CRITERIA), reject_columns, reject_json),
}


def _listing(*, unrouted: bool, signals: bool, rejects: bool) -> Listing:
    asked = [
        listing
        for listing, wanted in (
            (Listing.UNROUTED, unrouted),
            (Listing.SIGNALS, signals),
            (Listing.REJECTS, rejects),
        )
        if wanted
    ]
    if len(asked) > 1:
        raise AskingError(f"find: --{asked[0]} and --{asked[1]} are two listings; ask for one at a time")
    return asked[0] if asked else Listing.POSTBACKS


def _elsewhere(engine: Engine, criteria: Criteria) -> list[str]:
    """What an order, click or event id also names that is no postback: a search must not look empty when it isn't."""
    if criteria.order_id is None and criteria.click_id is None and criteria.event_id is None:
        return []
    named = Criteria(order_id=criteria.order_id, click_id=criteria.click_id, event_id=criteria.event_id)
    given = {name for name in ("order_id", "click_id", "event_id") if getattr(named, name) is not None}
    words = []
    for listing in (Listing.UNROUTED, Listing.SIGNALS, Listing.REJECTS):
        look, known, _, _ = _LISTINGS[listing]
        if given <= known and (total := look(engine, named, 1).total):
            words.append(f"Also {total} under --{listing}.")
    return words


def _say_how_far(page: SearchPage) -> None:
    """A search that no index answers takes its time; nobody should wonder whether it still runs."""
    if not page.complete and page.looked_back_to is not None:
        say(f"Looked back to {clock(page.looked_back_to)} so far…")


def _say_how_many(found: Found[Any], listing: Listing) -> None:
    if not found.total:
        say(f"No {_singular(listing, 0)} found.")
    elif found.beyond:
        say(
            f"{len(found.rows)} of more than {found.total} {_singular(listing, 2)}, the newest; the others: --all."
        )
    elif found.more:
        say(
            f"{len(found.rows)} of {found.total} {_singular(listing, 2)}, the newest; {found.more} more: --all."
        )
    else:
        say(f"{found.total} {_singular(listing, found.total)}.")


def _singular(listing: Listing, count: int) -> str:
    noun = "unrouted conversion" if listing is Listing.UNROUTED else listing.value.removesuffix("s")
    return noun if count == 1 else f"{noun}s"
