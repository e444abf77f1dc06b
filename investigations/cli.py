"""The investigator's commands: find, trail, transcript, ledger. All of them only read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.text import Text
from sqlalchemy import Engine

from infra.filters import AsJson, AskingError, ClickId, Event, Order, Source
from infra.open import open_store
from infra.store.evidence import read_life
from infra.store.ledger import read_ledger
from infra.store.searching.search import Criteria
from investigations.finding import find
from investigations.jsonable import attempt_json, check_json, ledger_json, life_json, reject_json, signal_json
from investigations.ledger_page import ledger_page
from investigations.lookup import Traces, UnknownIdError, by_criteria, by_id, one_attempt, one_check
from investigations.page import line, print_json, say, show
from investigations.trail_page import life_page, rejects_page, signals_page
from investigations.transcript import check_transcript
from investigations.transcript import transcript as transcript_lines
from schemas.ids import parse

NOT_FOUND = 1


def register(app: typer.Typer) -> None:
    """Add the commands to the front door."""
    for command in (find, trail, transcript, ledger):
        app.command()(command)


def trail(  # noqa: PLR0913, PLR0917 — a command's options are its parameters
    identifier: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="cv_N, pb_N, at_N, ck_N, sg_N or an event id.", show_default=False),
    ] = None,
    order: Order = None,
    click_id: ClickId = None,
    event: Event = None,
    source: Source = None,
    as_json: AsJson = False,
) -> None:
    """Tell a conversion's whole life in plain text.

    Everything in time order, from the event to what happens next.
    """
    criteria = Criteria(order_id=order, click_id=click_id, event_id=event, source=source)
    if (identifier is not None) == any((order, click_id, event)):
        raise AskingError("trail: give one of an ID, --order, --click-id and --event")
    with open_store() as engine, _not_found():
        traces = by_criteria(engine, criteria) if identifier is None else by_id(engine, identifier)
        _show_traces(engine, traces, as_json=as_json)


def _show_traces(engine: Engine, traces: Traces, *, as_json: bool) -> None:
    signals: set[int] = set()
    rejects: set[int] = set()
    first = True

    def put(lines: Iterable[Text], values: Iterable[dict[str, Any]]) -> None:
        nonlocal first
        if as_json:
            print_json(values)
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
        str, typer.Argument(metavar="at_N|pb_N|ck_N", help="An attempt, a postback's last one, or a check.")
    ],
    attempt: Annotated[int | None, typer.Option(help="Which attempt of a postback, from 1.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Print one attempt as `curl --verbose -L` would.

    Fit to be sent to a network's support as it stands.
    """
    parsed = parse(identifier)
    if parsed is not None and parsed[0] == "ck":
        _check_transcript(parsed[1], as_json=as_json)
        return
    with open_store() as engine, _not_found():
        life, postback, found = one_attempt(engine, identifier, attempt)
    if as_json:
        print_json([attempt_json(found)])
        return
    _show_transcript(transcript_lines(life, postback, found))
    if identifier.startswith("pb_") and attempt is None and len(postback.attempts) > 1:
        say(f"This is attempt {found.number} of {len(postback.attempts)}; --attempt 1 shows the first.")


def _check_transcript(number: int, *, as_json: bool) -> None:
    with open_store() as engine, _not_found():
        life, postback, check = one_check(engine, number)
    if as_json:
        print_json([check_json(check)])
    else:
        _show_transcript(check_transcript(life, postback, check))


def _show_transcript(lines: Iterable[str]) -> None:
    show(Text(each, style=_TRANSCRIPT_STYLES.get(each[:1], "")) for each in lines)


_TRANSCRIPT_STYLES = {"#": "dim", "*": "dim", ">": "cyan", "<": "green"}


def ledger(as_json: AsJson = False) -> None:
    """Print the balance of everything taken in and fired.

    Both sides of each equation, as of one instant. Exit code 1 if it does not balance.
    """
    with open_store() as engine:
        books = read_ledger(engine)
    if as_json:
        print_json([ledger_json(books)])
    else:
        show(ledger_page(books))
    if not books.balances:
        raise typer.Exit(1)


@contextmanager
def _not_found() -> Iterator[None]:
    """Nothing there is an answer, with an exit code of its own, and no fault."""
    try:
        yield
    except UnknownIdError as error:
        say(f"holdfire: {error}")
        raise typer.Exit(NOT_FOUND) from error
