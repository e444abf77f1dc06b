"""A conversion's page as values: what its template shows, in the order in which it is read. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from infra.store.arrivals import Brought
from infra.store.records import Life, PostbackRecord
from investigations.console.exchange import Row, Told, Unfolded, attempt_row, unfold_check
from investigations.console.exchange import told as facts_of
from investigations.console.marking import Marker
from investigations.console.timeline import Drawing, draw
from investigations.corrections import in_reading_order, title
from investigations.facts import Fact, conversion_facts, postback_facts
from investigations.next_step import next_step
from investigations.trail import Moment, moments
from investigations.words import clock, money, offset, visible
from schemas.by_hand import Act
from schemas.ids import parse, show
from schemas.lifecycle import State

UNFOLDABLE = 20
"""Attempts of a conversion that its page has in full, the newest; the others have pages of their own."""
_LONG_LIFE = 60
"""Moments beyond which the timeline is folded: it is there, but nobody scrolls past it to the postbacks."""


def newest(ids: Sequence[int]) -> Collection[int]:
    """The choice of attempts whose exchanges a conversion's page has."""
    return ids[-UNFOLDABLE:]


@dataclass(frozen=True, slots=True)
class Happening:
    """A moment of the timeline. ``href`` leads to what it is about; ``anchor`` is what leads here."""

    anchor: str
    at: str
    since: str
    subject: str
    href: str
    kind: str
    text: Markup
    details: tuple[Markup, ...]


@dataclass(frozen=True, slots=True)
class Fate:
    """A postback in one line: where it stands and what happens next."""

    id: str
    destination: str
    state: str
    next: Markup


@dataclass(frozen=True, slots=True)
class PostbackView:
    id: str
    number: int
    destination: str
    state: str
    title: str
    next: Markup
    facts: tuple[Told, ...]
    attempts: tuple[Row, ...]
    checks: tuple[Unfolded, ...]
    acts: tuple[str, ...]
    """What may be tried by hand; whether it can be done is decided when it is."""

    @property
    def folded_away(self) -> int:
        """Attempts that this page has in one line only."""
        return sum(row.unfolded is None for row in self.attempts)


@dataclass(frozen=True, slots=True)
class LifeView:
    id: str
    name: Markup
    worth: str
    order: Markup | None
    now: str
    fates: tuple[Fate, ...]
    facts: tuple[Told, ...]
    drawing: Drawing
    happenings: tuple[Happening, ...]
    postbacks: tuple[PostbackView, ...]
    comparable: bool
    """Whether there are two attempts to hold against each other."""

    @property
    def long(self) -> bool:
        return len(self.happenings) > _LONG_LIFE


def life_view(life: Life, marker: Marker, brought: Brought | None = None) -> LifeView:
    """Everything of a conversion, as the reader whom ``marker`` is for may see it. ``brought``: the request it came in."""
    event, postbacks = life.conversion.event, in_reading_order(life)
    told = moments(life) if brought is None else sorted([*moments(life), came_in(brought)], key=_at)
    return LifeView(
        id=show("cv", life.conversion.id),
        name=marker(visible(event.name)),
        worth=money(event.value, event.currency),
        order=marker(visible(event.order_id)) if event.order_id else None,
        now=clock(life.now),
        fates=tuple(_fate(life, each, marker) for each in postbacks),
        facts=tuple(facts_of(_named(conversion_facts(life)), marker)),
        drawing=draw(life, told),
        happenings=tuple(_happenings(life, told, marker)),
        postbacks=tuple(_postback(life, each, marker) for each in postbacks),
        comparable=sum(len(each.attempts) for each in postbacks) > 1,
    )


def came_in(brought: Brought) -> Moment:
    """The request as a moment of the life that it began."""
    line = f"{visible(brought.method)} {visible(brought.target)}"
    text = f"{line} came in over HTTP and was answered {brought.status_code}"
    return Moment(brought.received_at, show("in", brought.id), "request", text)


def _at(moment: Moment) -> datetime:
    return moment.at


def _named(facts: Iterator[Fact]) -> Iterator[tuple[str, str]]:
    return ((fact.name, fact.text) for fact in facts)


def _fate(life: Life, postback: PostbackRecord, marker: Marker) -> Fate:
    words = marker(visible(next_step(life, postback)))
    return Fate(show("pb", postback.id), postback.version.contract.name, postback.state.value, words)


def _postback(life: Life, postback: PostbackRecord, marker: Marker) -> PostbackView:
    return PostbackView(
        id=show("pb", postback.id),
        number=postback.id,
        destination=postback.version.contract.name,
        state=postback.state.value,
        title="" if postback.adjusts is None else title(postback),
        next=marker(visible(next_step(life, postback))),
        facts=tuple(facts_of(_named(postback_facts(life, postback)), marker)),
        attempts=tuple(attempt_row(life, postback, each, marker) for each in postback.attempts),
        checks=tuple(unfold_check(life, postback, each, marker) for each in postback.checks),
        acts=() if life.conversion.erased_at is not None else _ACTS.get(postback.state, ()),
    )


_OPEN = (Act.RELEASE.value, Act.EXTEND.value, Act.VOID.value)
_ACTS: dict[State, tuple[str, ...]] = {
    State.HELD: _OPEN,
    State.LEASED: (Act.EXTEND.value, Act.VOID.value),
    State.FIRING: (Act.VOID.value,),
    State.RETRYING: (Act.VOID.value,),
    State.DUPLICATE: (Act.EXTEND.value, Act.VOID.value),
    State.REJECTED: ("replay",),
    State.DEAD: ("replay",),
    State.DELIVERED: ("replay",),
    State.EXPIRED: ("replay",),
    State.IN_DOUBT: ("settle", "replay"),
}


_PLACES = {"at": "#{}", "pb": "#{}", "ck": "#{}", "sg": "/signals/{}", "in": "/inbox/{}"}


def _happenings(life: Life, moments_told: list[Moment], marker: Marker) -> Iterator[Happening]:
    start = life.conversion.event.occurred_at
    named: set[str] = set()
    for moment in moments_told:
        subject = parse(moment.subject)
        prefix = subject[0] if subject else ""
        # An attempt's details are its exchange, which is unfolded at the postback; a signal has no place but this.
        details = () if prefix in {"at", "ck"} else moment.details
        anchor = moment.subject if prefix == "sg" and moment.subject not in named else ""
        named.add(anchor)
        yield Happening(
            anchor=anchor,
            at=clock(moment.at),
            since=offset(start, moment.at),
            subject=moment.subject,
            href=_PLACES.get(prefix, "").format(moment.subject),
            kind=moment.kind,
            text=marker(moment.text),
            details=tuple(map(marker, details)),
        )
