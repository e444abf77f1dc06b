"""The investigator's commands: find, trail, transcript, ledger. All of them only read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.text import Text

from infra.open import open_store
from infra.store import search
from infra.store.evidence import read_life
from infra.store.firing import database_now
from infra.store.ledger import read_ledger
from infra.store.search import Criteria, Found
from investigations.asking import AskingError, check_applicable, read_instant, read_status_codes
from investigations.columns import (
    Columns,
    postback_columns,
    reject_columns,
    show_columns,
    signal_columns,
    unrouted_columns,
)
from investigations.jsonable import (
    attempt_json,
    conversion_json,
    found_json,
    ledger_json,
    life_json,
    reject_json,
    signal_json,
)
from investigations.ledger_page import ledger_page
from investigations.lookup import Traces, UnknownIdError, by_criteria, by_id, one_attempt
from investigations.page import line, show, stdout
from investigations.trail_page import life_page, rejects_page, signals_page
from investigations.transcript import transcript as transcript_lines
from schemas.lifecycle import State
from schemas.verdict import VerdictKind

Order = Annotated[str | None, typer.Option("--order", help="By order id.")]
ClickId = Annotated[str | None, typer.Option("--click-id", help="By click id, verbatim.")]
Event = Annotated[str | None, typer.Option("--event", help="By event id.")]
Source = Annotated[str | None, typer.Option("--source", help="Only from this source.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]

NOT_FOUND = 1


def register(app: typer.Typer) -> None:
    """Add the commands to the front door."""
    for command in (find, trail, transcript, ledger):
        app.command()(command)


def trail(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    identifier: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="cv_N, pb_N, at_N, sg_N or an event id.", show_default=False),
    ] = None,
    order: Order = None,
    click_id: ClickId = None,
    event: Event = None,
    source: Source = None,
    as_json: AsJson = False,
) -> None:
    """Tell a conversion's whole life in plain text, and what happens next."""
    criteria = Criteria(order_id=order, click_id=click_id, event_id=event, source=source)
    if (identifier is not None) == any((order, click_id, event)):
        raise AskingError("trail: give one of an ID, --order, --click-id and --event")
    with open_store() as engine, _not_found():
        traces = by_criteria(engine, criteria) if identifier is None else by_id(engine, identifier)
        _show_traces(engine, traces, as_json=as_json)


def _show_traces(engine: Any, traces: Traces, *, as_json: bool) -> None:
    signals: set[int] = set()
    rejects: set[int] = set()
    first = True

    def put(lines: Iterable[Text], values: Iterable[dict[str, Any]]) -> None:
        nonlocal first
        if as_json:
            _print_json(values)
        else:
            show([] if first else [line(""), line("")])
            show(lines)
        first = False

    for signal in traces.signals:
        put(signals_page([signal]), [{"signal": signal_json(signal)}])
    for number in traces.conversions:
        life = read_life(engine, number)
        if life is None:
            continue
        signals |= {signal.id for signal in life.signals}
        rejects |= {reject.id for reject in life.repeats}
        put(life_page(life), [{"conversion": life_json(life)}])
    for signal in traces.loose_signals:
        if signal.id not in signals:
            put(signals_page([signal]), [{"signal": signal_json(signal)}])
    for reject in traces.rejects:
        if reject.id not in rejects:
            put(rejects_page([reject]), [{"reject": reject_json(reject)}])


def transcript(
    identifier: Annotated[
        str, typer.Argument(metavar="at_N|pb_N", help="An attempt, or a postback's last one.")
    ],
    attempt: Annotated[int | None, typer.Option(help="Which attempt of a postback, from 1.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Print one attempt as `curl --verbose -L` would, fit for a network's support."""
    with open_store() as engine, _not_found():
        life, postback, found = one_attempt(engine, identifier, attempt)
    if as_json:
        _print_json([attempt_json(found)])
        return
    show(
        Text(each, style=_TRANSCRIPT_STYLES.get(each[:1], ""))
        for each in transcript_lines(life, postback, found)
    )
    if identifier.startswith("pb_") and attempt is None and len(postback.attempts) > 1:
        _say(f"This is attempt {found.number} of {len(postback.attempts)}; --attempt 1 shows the first.")


_TRANSCRIPT_STYLES = {"#": "dim", "*": "dim", ">": "cyan", "<": "green"}


class Listing(StrEnum):
    """What ``find`` lists."""

    POSTBACKS = "postbacks"
    UNROUTED = "unrouted"
    SIGNALS = "signals"
    REJECTS = "rejects"


def find(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    state: Annotated[
        list[State] | None, typer.Option(help="In this state; may be given several times.")
    ] = None,
    destination: Annotated[str | None, typer.Option(help="Of this destination.")] = None,
    network: Annotated[str | None, typer.Option(help="Of this network.")] = None,
    order: Order = None,
    click_id: ClickId = None,
    event: Event = None,
    source: Source = None,
    since: Annotated[str | None, typer.Option(help="Received since: 2h, 3d (ago) or ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Received before: 2h, 3d (ago) or ISO 8601.")] = None,
    status_code: Annotated[
        str | None, typer.Option(help="Some attempt or redirect answered so: 503, 5xx.")
    ] = None,
    verdict: Annotated[VerdictKind | None, typer.Option(help="Some attempt was judged so.")] = None,
    unrouted: Annotated[
        bool, typer.Option("--unrouted", help="List conversions no destination took.")
    ] = False,
    signals: Annotated[
        bool, typer.Option("--signals", help="List refunds, cancels and other signals.")
    ] = False,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="List what could not be taken, and duplicates.")
    ] = False,
    limit: Annotated[
        int, typer.Option(help="At most so many, newest first; it is said how many more.", min=1)
    ] = 50,
    everything: Annotated[bool, typer.Option("--all", help="However many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find postbacks by state, destination, order, click id, time, status or verdict."""
    listing = _listing(unrouted=unrouted, signals=signals, rejects=rejects)
    with open_store() as engine:
        now = database_now(engine)
        criteria = Criteria(
            states=tuple(state or ()),
            destination=destination,
            network=network,
            order_id=order,
            click_id=click_id,
            event_id=event,
            source=source,
            since=read_instant("--since", since, now),
            until=read_instant("--until", until, now),
            status_codes=read_status_codes(status_code),
            verdict=verdict,
        )
        look, known, columns, values = _LISTINGS[listing]
        check_applicable(criteria, known, "postbacks" if listing is Listing.POSTBACKS else f"--{listing}")
        found = look(engine, criteria, None if everything else limit)
        elsewhere = _elsewhere(engine, criteria) if listing is Listing.POSTBACKS else []
    if as_json:
        _print_json(map(values, found.rows))
    elif found.rows and (left_out := show_columns(stdout(), columns(found.rows))):
        _say(f"For want of room without: {', '.join(left_out)}; piped or with --json they are all there.")
    _say_how_many(found, listing)
    for words in elsewhere:
        _say(words)


_Look = Callable[[Any, Criteria, int | None], Found[Any]]
_LISTINGS: dict[
    Listing, tuple[_Look, set[str], Callable[[Sequence[Any]], Columns], Callable[[Any], dict[str, Any]]]
] = {
    Listing.POSTBACKS: (
        search.find_postbacks,
        {*search.POSTBACK_CRITERIA, *search.ATTEMPT_CRITERIA},
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


def ledger(as_json: AsJson = False) -> None:
    """Print the balance of everything taken in and fired; exit code 1 if it does not balance."""
    with open_store() as engine:
        books = read_ledger(engine)
    if as_json:
        _print_json([ledger_json(books)])
    else:
        show(ledger_page(books))
    if not books.balances:
        raise typer.Exit(1)


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


def _elsewhere(engine: Any, criteria: Criteria) -> list[str]:
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


def _say_how_many(found: Found[Any], listing: Listing) -> None:
    if not found.total:
        _say(f"No {_singular(listing, 0)} found.")
    elif found.more:
        _say(
            f"{len(found.rows)} of {found.total} {_singular(listing, 2)}, the newest; {found.more} more: --all."
        )
    else:
        _say(f"{found.total} {_singular(listing, found.total)}.")


def _singular(listing: Listing, count: int) -> str:
    noun = "unrouted conversion" if listing is Listing.UNROUTED else listing.value.removesuffix("s")
    return noun if count == 1 else f"{noun}s"


@contextmanager
def _not_found() -> Iterator[None]:
    """Nothing there is an answer, with an exit code of its own, and no fault."""
    try:
        yield
    except UnknownIdError as error:
        _say(f"holdfire: {error}")
        raise typer.Exit(NOT_FOUND) from error


def _print_json(values: Iterable[dict[str, Any]]) -> None:
    for value in values:
        sys.stdout.write(orjson.dumps(value).decode() + "\n")


def _say(words: str) -> None:
    """To the person, not into the listing: standard error."""
    typer.echo(words, err=True)
