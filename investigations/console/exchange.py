"""An attempt, or a check, as a page shows it: the lines of its transcript, classed and marked, with its times drawn. Pure.

The words are the transcript's own: what is read here is what is handed to a network's support.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from markupsafe import Markup

from infra.store.records import AttemptRecord, CheckRecord, Life, PostbackRecord
from investigations.console.marking import Marker
from investigations.console.timeline import verdict_look
from investigations.console.waterfall import Waterfall, waterfall
from investigations.export.curl import curl_command
from investigations.transcript import (
    check_ending,
    check_heading,
    ending_lines,
    exchange_lines,
    heading,
    without_hops_lines,
)
from investigations.words import clock, span
from schemas.exchange import Hop
from schemas.ids import show

_CLASSES = {">": "sent", "<": "received", "*": "about", "#": "about"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a transcript. ``kind``: ``sent``, ``received``, ``about`` or ``body``."""

    kind: str
    text: Markup


@dataclass(frozen=True, slots=True)
class Exchange:
    """One hop: its lines, and where it can be had as a command."""

    number: int
    lines: tuple[Line, ...]
    curl: Markup


@dataclass(frozen=True, slots=True)
class Told:
    """A fact with its name."""

    name: str
    value: Markup
    more: tuple[Markup, ...] = ()
    """What goes on with it: of a click id, its length and digest."""


@dataclass(frozen=True, slots=True)
class Unfolded:
    """An attempt or a check in full."""

    id: str
    facts: tuple[Told, ...]
    exchanges: tuple[Exchange, ...]
    rest: tuple[Line, ...]
    """What there is to say beside the exchanges."""
    times: Waterfall | None


@dataclass(frozen=True, slots=True)
class Row:
    """An attempt in one line. ``shape`` and ``tone`` are those of the drawing."""

    id: str
    number: int
    shape: str
    tone: str
    at: str
    took: str
    trigger: str
    verdict: str
    rule: Markup
    status_code: int | None
    unfolded: Unfolded | None
    """None where its exchanges were not read: its own page has them."""


def attempt_row(life: Life, postback: PostbackRecord, attempt: AttemptRecord, marker: Marker) -> Row:
    outcome = attempt.outcome
    shape, tone = verdict_look(attempt)
    return Row(
        id=show("at", attempt.id),
        number=attempt.number,
        shape=shape,
        tone=tone,
        at=clock(attempt.intent_at),
        took="" if outcome is None else span(outcome.ended_at - attempt.intent_at),
        trigger="" if outcome is None else outcome.trigger,
        verdict="no outcome yet" if outcome is None else outcome.verdict.value,
        rule=Markup() if outcome is None else marker(outcome.rule),
        status_code=None if outcome is None else outcome.status_code,
        unfolded=unfold(life, postback, attempt, marker) if attempt.hops_read else None,
    )


def unfold(life: Life, postback: PostbackRecord, attempt: AttemptRecord, marker: Marker) -> Unfolded:
    rest = [] if attempt.hops else list(without_hops_lines(life, postback, attempt))
    rest += ending_lines(attempt)
    return Unfolded(
        id=show("at", attempt.id),
        facts=tuple(told(heading(life, postback, attempt), marker)),
        exchanges=tuple(_exchanges(attempt.hops, marker)),
        rest=tuple(lines(rest, marker)),
        times=waterfall(attempt.hops),
    )


def unfold_check(life: Life, postback: PostbackRecord, check: CheckRecord, marker: Marker) -> Unfolded:
    rest = [] if check.hops else ["* No exchange was recorded."]
    return Unfolded(
        id=show("ck", check.id),
        facts=tuple(told(check_heading(life, postback, check), marker)),
        exchanges=tuple(_exchanges(check.hops, marker)),
        rest=tuple(lines([*rest, *check_ending(check)], marker)),
        times=waterfall(check.hops),
    )


def lines(texts: Iterable[str], marker: Marker) -> Iterator[Line]:
    """Lines of a transcript, each by what it begins with."""
    return (Line(_CLASSES.get(text[:1], "body"), marker(text)) for text in texts)


def _exchanges(hops: Iterable[Hop], marker: Marker) -> Iterator[Exchange]:
    for hop in hops:
        yield Exchange(
            hop.number, tuple(lines(exchange_lines(hop), marker)), marker(curl_command(marker.hop(hop)))
        )


def told(facts: Iterable[tuple[str, str]], marker: Marker) -> Iterator[Told]:
    """Facts by their names; one without a name goes on with the one above it."""
    rows = list(facts)
    for at, (name, value) in enumerate(rows):
        if name:
            more = takewhile(lambda row: not row[0], rows[at + 1 :])
            yield Told(name, marker(value), tuple(marker(each) for _, each in more))
